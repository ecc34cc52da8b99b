/**
 * For tests: a machine with one domain, on a processor that is only a page walker with a TLB, in TypeScript.
 *
 * The TLBs keep what they learned until they are told to forget, so that what is not told shows.
 * {@link TestProcessor.leaks} says what the TLBs allow that the domain may no longer do.
 */
import { Frames } from '../../machine/frames.ts';
import { Memory, PAGE_SIZE } from '../../machine/memory.ts';
import { Cpu, high32, type VirtualAddress } from '../../x86/cpu.ts';
import { Access, type PhysicalSpace, type Processor } from '../../x86/processor.ts';
import { CPU, Exit, PF } from '../../x86/state.ts';
import { Domain } from '../domain.ts';
import { Arguments, HypercallError, type HypercallHandler, RESTART } from '../hypercall.ts';
import type { Hypervisor } from '../hypervisor.ts';
import { PTE } from '../public/mmu.ts';
import { Vcpu } from '../vcpu.ts';
import { DomainMemory } from './domain-memory.ts';
import { FrameType, Kind } from './frame-table.ts';
import { SharedFrames } from './shared-frames.ts';
import { tableIndex } from './walk.ts';

interface Translation {
  readonly frame: number;
  readonly writable: boolean;
  /** Linear address of the page-table entry that it came from. */
  readonly entry: number;
}

interface Walk {
  readonly frame: number;
  readonly mfn: number;
  readonly writable: boolean;
  /** Index of the u32 that the L1 entry begins with; of those of the levels above. */
  readonly at: number;
  readonly above: readonly number[];
}

/** What the processor holds for one CPU. */
interface Attached {
  readonly space: PhysicalSpace;
  supervisorRoot: number;
  userRoot: number;
  /** By root table times 2, plus 1 for supervisor mode: what is known of it, by virtual page. */
  readonly tlbs: Map<number, Map<number, Translation>>;
}

/** A store that step() does: the only instruction of this processor. */
export interface TestStore {
  readonly va: VirtualAddress;
  readonly bytes: Uint8Array;
}

export class TestProcessor implements Processor {
  readonly memory: Memory;
  readonly frames: Frames;
  readonly undefinedInstructions = new Map<string, number>();
  /** How often each was called. */
  readonly calls = { entryChanged: 0, tablesChanged: 0, rootDropped: 0 };
  /** What the next step() stores; null: it does nothing. */
  store: TestStore | null = null;
  private readonly cpus = new Map<Cpu, Attached>();
  private readonly shared = new Set<number>();

  constructor(memory: Memory, frames: Frames) {
    this.memory = memory;
    this.frames = frames;
  }

  attach(cpu: Cpu, space: PhysicalSpace): void {
    this.cpus.set(cpu, { space, supervisorRoot: 0, userRoot: 0, tlbs: new Map() });
  }

  detach(cpu: Cpu): void {
    this.cpus.delete(cpu);
  }

  loadRoots(cpu: Cpu, supervisorRoot: number, userRoot: number): void {
    const attached = this.attached(cpu);
    attached.supervisorRoot = supervisorRoot;
    attached.userRoot = userRoot;
  }

  setMode(cpu: Cpu, supervisor: boolean): void {
    cpu.supervisor = supervisor;
  }

  run(): Exit {
    throw new Error('the test processor runs nothing');
  }

  step(cpu: Cpu): Exit {
    const { store } = this;
    cpu.rip += 1;
    if (store === null) return Exit.Budget;
    const intercepted = cpu.get(CPU.interceptFrame);
    const walk = this.walk(cpu, store.va);
    if (walk !== null && !walk.writable && intercepted === walk.mfn + 1) {
      this.memory.u8.set(store.bytes, cpu.address + CPU.scratch);
      cpu.putNumber(CPU.crossAddress, store.va);
      cpu.put(CPU.crossSize, store.bytes.length);
      return Exit.Intercept;
    }
    const linear = this.translate(cpu, store.va, Access.Write);
    cpu.put(CPU.exitReason, Exit.Exception);
    if (linear === 0) return Exit.Exception;
    this.memory.u8.set(store.bytes, linear);
    return Exit.Budget;
  }

  translate(cpu: Cpu, va: VirtualAddress, access: Access): number {
    if (!(va >= -(2 ** 47) && va < 2 ** 47)) return 0;
    const { tlbs } = this.attached(cpu);
    const page = Math.floor(va / PAGE_SIZE);
    const key = this.root(cpu) * 2 + (cpu.supervisor ? 1 : 0);
    let tlb = tlbs.get(key);
    const known = tlb?.get(page);
    const offset = va - page * PAGE_SIZE;
    if (known !== undefined && (access !== Access.Write || known.writable))
      return known.frame * PAGE_SIZE + offset;
    const walk = this.walk(cpu, va);
    if (walk === null || (access === Access.Write && !walk.writable)) return 0;
    const shared = this.shared.has(walk.frame);
    cpu.put(CPU.walkError, shared && access === Access.Write ? PF.SHARED : 0);
    if (shared && access === Access.Write) return 0;
    for (const at of walk.above) this.memory.u32[at]! |= PTE.ACCESSED;
    this.memory.u32[walk.at]! |= PTE.ACCESSED | (access === Access.Write ? PTE.DIRTY : 0);
    if (tlb === undefined) {
      tlb = new Map();
      tlbs.set(key, tlb);
    }
    tlb.set(page, { frame: walk.frame, writable: walk.writable && !shared, entry: walk.at * 4 });
    return walk.frame * PAGE_SIZE + offset;
  }

  faultCode(cpu: Cpu, va: VirtualAddress, access: Access): number {
    return (this.walk(cpu, va) === null ? 0 : PF.P) | (access === Access.Write ? PF.W : 0);
  }

  share(space: PhysicalSpace, machineFrames: readonly number[]): void {
    for (const frame of machineFrames) this.shared.add(frame);
    this.tablesChanged(space);
  }

  replaced(space: PhysicalSpace, machineFrame: number): void {
    for (const attached of this.cpus.values()) {
      if (attached.space !== space) continue;
      for (const pages of attached.tlbs.values())
        for (const [page, { frame }] of pages) if (frame === machineFrame) pages.delete(page);
    }
  }

  unshare(machineFrame: number): void {
    this.shared.delete(machineFrame);
  }

  entryChanged(entry: number): void {
    this.calls.entryChanged++;
    for (const { tlbs } of this.cpus.values())
      for (const pages of tlbs.values())
        for (const [page, known] of pages) if (known.entry === entry) pages.delete(page);
  }

  tablesChanged(space: PhysicalSpace): void {
    this.calls.tablesChanged++;
    for (const attached of this.cpus.values()) if (attached.space === space) attached.tlbs.clear();
  }

  rootDropped(space: PhysicalSpace, root: number): void {
    this.calls.rootDropped++;
    for (const attached of this.cpus.values()) {
      if (attached.space !== space) continue;
      attached.tlbs.delete(root * 2);
      attached.tlbs.delete(root * 2 + 1);
    }
  }

  released(): void {}

  revoke(machineFrame: number): void {
    for (const { tlbs } of this.cpus.values())
      for (const pages of tlbs.values())
        for (const [page, { frame }] of pages) if (frame === machineFrame) pages.delete(page);
  }

  written(): void {}

  lastTransfers(): { from: VirtualAddress; to: VirtualAddress }[] {
    return [];
  }

  /** What TLBs still allow, though the domain may not: one line each. */
  leaks(memory: DomainMemory): string[] {
    const { table } = memory;
    const mfns = new Map<number, number>();
    for (let mfn = 0; mfn < table.limit; mfn++)
      if (table.kinds[mfn] !== Kind.none) mfns.set(table.machine[mfn]!, mfn);
    const found: string[] = [];
    for (const { tlbs, space } of this.cpus.values())
      for (const [key, pages] of tlbs)
        for (const [page, { frame, writable }] of pages) {
          const now = this.walkFrom(space, Math.floor(key / 2), key % 2 === 1, page * PAGE_SIZE);
          if (now === null || now.frame !== frame || (writable && !now.writable))
            found.push(`page ${page} is not what root ${Math.floor(key / 2)} says`);
          const mfn = mfns.get(frame);
          if (mfn === undefined) found.push(`page ${page} still maps machine frame ${frame}`);
          else if (writable && table.typeCounts[mfn] !== 0 && table.type(mfn) !== FrameType.writable)
            found.push(`page ${page} may still write frame ${mfn} of type ${table.type(mfn)}`);
        }
    return found;
  }

  private attached(cpu: Cpu): Attached {
    const attached = this.cpus.get(cpu);
    if (attached === undefined) throw new Error('no such CPU on this processor');
    return attached;
  }

  private root(cpu: Cpu): number {
    const { supervisorRoot, userRoot } = this.attached(cpu);
    return cpu.supervisor ? supervisorRoot : userRoot;
  }

  private walk(cpu: Cpu, va: VirtualAddress): Walk | null {
    return this.walkFrom(this.attached(cpu).space, this.root(cpu), cpu.supervisor, va);
  }

  private walkFrom(space: PhysicalSpace, root: number, supervisor: boolean, va: VirtualAddress): Walk | null {
    const { u32 } = this.memory;
    let mfn = root;
    let writable = true;
    let at = 0;
    const above: number[] = [];
    if (mfn === 0) return null;
    for (let level = 4; level >= 1; level--) {
      at = u32[space.frameTable / 4 + mfn]! * 1024 + tableIndex(va, level) * 2;
      const low = u32[at]!;
      const high = u32[at + 1]!;
      if (!(low & PTE.PRESENT) || (!supervisor && !(low & PTE.USER))) return null;
      if (level > 1) above.push(at);
      writable &&= (low & PTE.RW) !== 0;
      mfn = (high & 0xfffff) * 2 ** 20 + (low >>> 12);
      if (mfn >= space.frameLimit || u32[space.frameTable / 4 + mfn] === 0) return null;
    }
    return { frame: u32[space.frameTable / 4 + mfn]!, mfn, writable, at, above };
  }
}

export interface TestMachine {
  readonly memory: Memory;
  readonly frames: Frames;
  readonly processor: TestProcessor;
  readonly domain: Domain;
  readonly vcpu: Vcpu;
}

/** The frames of a machine without domains. */
export function emptyMachine(megabytes: number): Frames {
  const frames = new Frames(Memory.create(megabytes * 2 ** 20));
  new SharedFrames(frames);
  return frames;
}

/** A machine with one domain, which has one vCPU and no pages yet. */
export function testMachine({ megabytes = 8, maxPages = 256, domid = 1 } = {}): TestMachine {
  const memory = Memory.create(megabytes * 2 ** 20);
  const frames = new Frames(memory);
  const processor = new TestProcessor(memory, frames);
  // As much of a hypervisor as memory needs.
  const hypervisor = {
    memory,
    frames,
    processor,
    now: () => 0,
    domain: (id: number) => (id === domid ? domain : undefined),
  } as unknown as Hypervisor;
  const parts = (self: Domain) =>
    ({ memory: new DomainMemory(self, frames, () => processor, maxPages) }) as unknown as {
      memory: DomainMemory;
      events: Domain['events'];
      grants: Domain['grants'];
      log: Domain['log'];
    };
  const domain: Domain = new Domain(hypervisor, domid, new Uint8Array(16), parts);
  const vcpu = addVcpu(domain, processor);
  return { memory, frames, processor, domain, vcpu };
}

/** One more vCPU, in kernel mode. */
export function addVcpu(domain: Domain, processor: TestProcessor): Vcpu {
  const cpu = new Cpu(processor.memory, processor.frames.alloc() * PAGE_SIZE);
  cpu.reset();
  cpu.supervisor = true;
  processor.attach(cpu, domain.memory.space);
  const vcpu = new Vcpu(domain, domain.vcpus.length, cpu);
  domain.vcpus.push(vcpu);
  return vcpu;
}

/** Writes a page-table entry straight into a frame, as the builder does before the tables are validated. */
export function poke(memory: DomainMemory, mfn: number, index: number, low: number, high = 0): void {
  const at = memory.linear(mfn) / 4 + index * 2;
  memory.table.memory.u32[at] = low;
  memory.table.memory.u32[at + 1] = high;
}

/** A page-table entry's two halves. */
export function entryLow(mfn: number, flags: number): number {
  return ((mfn << 12) | flags) >>> 0;
}

/** Flags of entries that name tables, and of pages. */
export const TABLE = PTE.PRESENT | PTE.RW | PTE.USER | PTE.ACCESSED;
export const PAGE_RO = PTE.PRESENT | PTE.USER | PTE.ACCESSED;
export const PAGE_RW = PAGE_RO | PTE.RW;

/** Where {@link boot} maps the domain's pages: page i of its first 512 at this address plus i pages. */
export const DIRECT_MAP = -(2 ** 31);

export interface Booted {
  /** All pages that the domain got, in order of their frame numbers. */
  readonly pages: number[];
  /** Those that are left for the test: mapped writable, and nothing in them. */
  readonly free: number[];
  readonly l4: number;
  readonly l3: number;
  readonly l2: number;
  readonly l1: number;
}

/**
 * Gives the domain `count` pages (at most 512) and an address space that maps all of them, the page tables
 * read-only, as a builder does; and loads it.
 */
export function boot({ domain, vcpu }: TestMachine, count: number): Booted {
  const { memory } = domain;
  const pages = memory.populate(count);
  const [l4, l3, l2, l1, ...free] = pages as [number, number, number, number];
  poke(memory, l4, tableIndex(DIRECT_MAP, 4), entryLow(l3, TABLE));
  poke(memory, l3, tableIndex(DIRECT_MAP, 3), entryLow(l2, TABLE));
  poke(memory, l2, tableIndex(DIRECT_MAP, 2), entryLow(l1, TABLE));
  const tables = new Set([l4, l3, l2, l1]);
  pages.forEach((mfn, pfn) => {
    poke(memory, l1, pfn, entryLow(mfn, tables.has(mfn) ? PAGE_RO : PAGE_RW));
    memory.setM2p(mfn, pfn);
  });
  memory.pin(l4, FrameType.l4);
  memory.loadRoots(vcpu, l4, 0);
  return { pages, free, l4, l3, l2, l1 };
}

/** A value of a hypercall's argument: a number, or the two halves of a u64. */
export type TestArgument = number | readonly [low: number, high: number];

/** Makes a hypercall, as often as it asks to be executed again. @returns its result */
export function hypercall(vcpu: Vcpu, handler: HypercallHandler, ...values: TestArgument[]): number {
  const args = new Arguments();
  values.forEach((value, index) => {
    const [low, high] = typeof value === 'number' ? [value >>> 0, high32(value)] : value;
    args.words[index * 2] = low;
    args.words[index * 2 + 1] = high;
  });
  for (;;) {
    try {
      const result = handler(vcpu, args);
      if (result !== RESTART) return result;
    } catch (error) {
      if (error instanceof HypercallError) return -error.errno;
      throw error;
    }
  }
}
