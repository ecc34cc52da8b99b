/** For tests: a hypervisor with several domains, on the processor of mm/testing.ts that only walks page tables. */
import { Frames } from '../machine/frames.ts';
import { Memory } from '../machine/memory.ts';
import type { VirtualAddress } from '../x86/cpu.ts';
import type { Domain } from './domain.ts';
import { Hypervisor } from './hypervisor.ts';
import { type Booted, boot, DIRECT_MAP, TestProcessor } from './mm/testing.ts';
import type { Vcpu } from './vcpu.ts';

/** A domain with an address space; its last page is for the arguments of hypercalls. */
export interface TestDomain extends Booted {
  readonly domain: Domain;
  readonly vcpu: Vcpu;
  /** Where its kernel has the page for arguments. */
  readonly argument: VirtualAddress;
  /** Virtual address of one of its pages. */
  va(mfn: number): VirtualAddress;
  /** Writes structures for a hypercall: u16 and u32 fields by offset. */
  put(fields: Record<number, number>, at?: VirtualAddress): void;
}

export interface TestMachines {
  readonly memory: Memory;
  readonly frames: Frames;
  readonly processor: TestProcessor;
  readonly hypervisor: Hypervisor;
  readonly domains: TestDomain[];
}

export function testDomains({
  domains = 2,
  vcpus = 1,
  pages = 32,
  maxPages = 64,
  megabytes = 8,
} = {}): TestMachines {
  const memory = Memory.create(megabytes * 2 ** 20);
  const frames = new Frames(memory);
  const processor = new TestProcessor(memory, frames);
  const hypervisor = new Hypervisor(memory, frames, () => processor, {
    now: () => 0,
    wallclock: () => 0,
    random: (bytes) => bytes.fill(7),
  });
  const made = Array.from({ length: domains }, () => {
    const domain = hypervisor.createDomain(maxPages, vcpus, null);
    const vcpu = domain.vcpus[0]!;
    const booted = boot({ memory, frames, processor, domain, vcpu }, pages);
    const va = (mfn: number) => DIRECT_MAP + booted.pages.indexOf(mfn) * 4096;
    const argument = va(booted.free.at(-1)!);
    const put = (fields: Record<number, number>, at = argument) => {
      for (const [offset, value] of Object.entries(fields)) vcpu.guest.setU32(at + Number(offset), value);
    };
    return { ...booted, domain, vcpu, argument, va, put };
  });
  return { memory, frames, processor, hypervisor, domains: made };
}
