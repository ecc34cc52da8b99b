/**
 * For tests: a machine with the hypervisor on the real processor, and domains whose kernels are a few bytes of code
 * that the test writes. The clock is the test's.
 */
import { Frames } from '../machine/frames.ts';
import { Memory } from '../machine/memory.ts';
import { type Cpu, high32 } from '../x86/cpu.ts';
import { createProcessor } from '../x86/index.ts';
import type { Domain } from './domain.ts';
import type { Notification } from './domctl.ts';
import { Hypervisor } from './hypervisor.ts';
import { DIRECT_MAP, entryLow, PAGE_RO, PAGE_RW, poke, TABLE } from './mm/testing.ts';
import { tableIndex } from './mm/walk.ts';
import type { Vcpu } from './vcpu.ts';

/** Pages of a test domain. */
export const PAGES = 64;
/** Pages with a use of their own, by their place in the domain; those below are page tables. */
export const PAGE = { code: 4, stack: 5, data: 6, userStack: 7, userCode: 8, free: 9 } as const;

/** Virtual address of a page of a test domain. */
export function va(page: number, offset = 0): number {
  return DIRECT_MAP + page * 4096 + offset;
}

/** What a look at the clock takes if the test says nothing else, ns. */
const TICK = 200_000;

export interface TestSystem {
  readonly memory: Memory;
  readonly frames: Frames;
  readonly hypervisor: Hypervisor;
  /** System time, ns: goes on by itself only when `advance` is called, and by a tick with every look at it. */
  readonly clock: { now: number };
  readonly notifications: Notification[];
}

export function testSystem(megabytes = 24, tick = TICK): TestSystem {
  const memory = Memory.create(megabytes * 2 ** 20);
  const frames = new Frames(memory);
  const clock = { now: 1_000_000_000 };
  const hypervisor = new Hypervisor(memory, frames, createProcessor, {
    now: () => {
      clock.now += tick;
      return clock.now;
    },
    wallclock: () => 1_700_000_000e9 + clock.now,
    random: (bytes) => bytes.fill(0x5a),
  });
  const notifications: Notification[] = [];
  hypervisor.control.onNotify = (notification) => notifications.push(notification);
  return { memory, frames, hypervisor, clock, notifications };
}

export interface TestGuest {
  readonly domain: Domain;
  readonly vcpu: Vcpu;
  readonly cpu: Cpu;
  /** Frame numbers of its pages. */
  readonly mfns: readonly number[];
  /** Writes bytes into a page. */
  write(page: number, offset: number, bytes: readonly number[] | Uint8Array): void;
  write64(page: number, offset: number, value: number | bigint): void;
  read64(page: number, offset: number): bigint;
  read32(page: number, offset: number): number;
}

/**
 * A domain with all its pages mapped at DIRECT_MAP, for kernel and user mode alike, that starts at `code` in the
 * page PAGE.code. Its first pages are its page tables.
 */
export function testGuest({ hypervisor, memory }: TestSystem, code: readonly number[], vcpus = 1): TestGuest {
  const { control } = hypervisor;
  const domid = control.createDomain({ maxPages: PAGES, vcpus });
  const domain = hypervisor.domain(domid)!;
  const { mfns } = control.populatePhysmap(domid, PAGES);
  const [l4, l3, l2, l1] = mfns as [number, number, number, number];
  poke(domain.memory, l4, tableIndex(DIRECT_MAP, 4), entryLow(l3, TABLE));
  poke(domain.memory, l3, tableIndex(DIRECT_MAP, 3), entryLow(l2, TABLE));
  poke(domain.memory, l2, tableIndex(DIRECT_MAP, 2), entryLow(l1, TABLE));
  mfns.forEach((mfn, page) => {
    poke(domain.memory, l1, page, entryLow(mfn, page < PAGE.code ? PAGE_RO : PAGE_RW));
  });
  control.setM2pRange(domid, mfns[0]!, 0, PAGES);
  const at = (page: number, offset: number) => domain.memory.linear(mfns[page]!) + offset;
  const guest: TestGuest = {
    domain,
    vcpu: domain.vcpus[0]!,
    cpu: domain.vcpus[0]!.cpu,
    mfns,
    write: (page, offset, bytes) => {
      memory.u8.set(bytes, at(page, offset));
      hypervisor.processor.written(at(page, 0) >>> 12);
    },
    write64: (page, offset, value) => memory.write64(at(page, offset), BigInt.asUintN(64, BigInt(value))),
    read64: (page, offset) => memory.read64(at(page, offset)),
    read32: (page, offset) => memory.read32(at(page, offset)),
  };
  guest.write(PAGE.code, 0, code);
  control.setVcpuContext(domid, 0, { rip: va(PAGE.code), rsp: va(PAGE.stack, 4096), rsi: 0, root: l4 });
  control.unpauseDomain(domid);
  return guest;
}

/** Runs until nothing is runnable (or the domain given is), at most so many slices. @returns what runSlice said */
export function runUntilIdle({ hypervisor }: TestSystem, slices = 200): number {
  for (let count = 0; count < slices; count++) {
    const idle = hypervisor.runSlice();
    if (idle > 0) return idle;
  }
  throw new Error('the guest does not come to rest');
}

// --- A few instructions ---

const bytes64 = (value: number): number[] => {
  const halves = [value >>> 0, high32(value) >>> 0];
  return halves.flatMap((half) => [half & 0xff, (half >>> 8) & 0xff, (half >>> 16) & 0xff, half >>> 24]);
};

/** mov register, value */
export function mov(register: number, value: number): number[] {
  return [register < 8 ? 0x48 : 0x49, 0xb8 | (register & 7), ...bytes64(value)];
}

/** mov [address], rax */
export function store(address: number): number[] {
  return [0x48, 0xa3, ...bytes64(address)];
}

/** mov rax, [address] */
export function load(address: number): number[] {
  return [0x48, 0xa1, ...bytes64(address)];
}

const ARGUMENTS = [7, 6, 2, 10, 8, 9] as const;

/** A hypercall with its arguments; the result is in rax. */
export function hypercall(number: number, ...args: number[]): number[] {
  return [...args.flatMap((value, index) => mov(ARGUMENTS[index]!, value)), ...mov(0, number), 0x0f, 0x05];
}
