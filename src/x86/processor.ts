/**
 * The processor: runs a virtual CPU until something happens that is not the guest's own business (see Exit).
 * One a pCPU. It knows 64-bit user-level x86 and paging, and nothing of Xen.
 */
import type { Frames } from '../machine/frames.ts';
import type { Memory } from '../machine/memory.ts';
import type { Cpu, VirtualAddress } from './cpu.ts';
import type { GateBuilder } from './gates.ts';
import type { Exit } from './state.ts';

/** What kind of access a translation is for. */
export const Access = { Read: 0, Write: 1, Fetch: 2 } as const;
export type Access = (typeof Access)[keyof typeof Access];

/** What the processor asks of the machine that it is part of. */
export interface ProcessorHost {
  /** Time-stamp counter, in nanoseconds since the machine started: the TSC runs at 1 GHz. */
  tsc(): number;
  /** CPUID as the guest's user mode sees it natively: four u32. */
  cpuid(leaf: number, subleaf: number): readonly [number, number, number, number];
  /** Fills an array with random bytes (RDRAND, RDSEED). */
  random(bytes: Uint8Array): void;
  /** A segment descriptor (two u32: low, high) or null where the selector is beyond its table. */
  descriptor(cpu: Cpu, selector: number): readonly [number, number] | null;
  /** Builds what answers exits without leaving guest code (see gates.ts). */
  readonly gate?: GateBuilder | undefined;
}

/**
 * The physical memory that a CPU sees: a table with one u32 for each guest frame number, holding the machine
 * frame behind it (0: none).
 */
export interface PhysicalSpace {
  /** Linear address of the table. */
  readonly frameTable: number;
  /** How many entries it has. */
  readonly frameLimit: number;
}

export interface Processor {
  readonly memory: Memory;
  readonly frames: Frames;
  /** Puts a CPU on this processor. */
  attach(cpu: Cpu, space: PhysicalSpace): void;
  detach(cpu: Cpu): void;
  /**
   * Loads the root tables for supervisor and user mode (guest frame numbers of L4 tables; user may be 0: none).
   * What TLBs hold survives, as nothing in them is ever stale (see core/tlb-pool.ts).
   */
  loadRoots(cpu: Cpu, supervisorRoot: number, userRoot: number): void;
  /** Switches between the two loaded roots; sets cpu.supervisor. Cheap. */
  setMode(cpu: Cpu, supervisor: boolean): void;
  /** Runs about `budget` instructions. */
  run(cpu: Cpu, budget: number): Exit;
  /** Runs exactly one instruction (a rep string instruction: one iteration). TF is the caller's business. */
  step(cpu: Cpu): Exit;
  /**
   * Linear address behind a guest virtual address under the current root and mode, or 0. Sets accessed and dirty bits.
   * Does not touch the exit fields. Valid to the end of that page.
   */
  translate(cpu: Cpu, va: VirtualAddress, access: Access): number;
  /** After a failed translate: the page-fault error code that the access would have. */
  faultCode(cpu: Cpu, va: VirtualAddress, access: Access): number;
  /**
   * An entry of a page table in use, with its A bit set, is about to be or was replaced: forgets what TLBs have from
   * it. Must be called before anybody relies on the change. So must the next two.
   * @param entry linear address
   */
  entryChanged(entry: number): void;
  /** An entry above the last level, through which a walk may have passed, changed: empties the space's TLBs. */
  tablesChanged(space: PhysicalSpace): void;
  /** A root table is none any more. @param root guest frame number */
  rootDropped(space: PhysicalSpace, root: number): void;
  /**
   * No page table in use maps a machine frame (or maps it writable), nor is it one itself: it may change its owner
   * or become a page table. Drops the code decoded from it.
   */
  released(machineFrame: number): void;
  /** Drops what every TLB holds of a machine frame, although page tables may map it: what is behind them changes. */
  revoke(machineFrame: number): void;
  /**
   * From now on frames of a space are shared copy-on-write: whoever wants to write to one gets the exit
   * exception SHARED_WRITE, with the address in cr2, instead. Empties the space's TLBs.
   */
  share(space: PhysicalSpace, machineFrames: readonly number[]): void;
  /** Another frame took a shared one's place in a space. */
  replaced(space: PhysicalSpace, machineFrame: number): void;
  /** A frame that was shared has one owner again. */
  unshare(machineFrame: number): void;
  /** Must be called after TypeScript wrote to a machine frame that may hold code. Cheap if it holds none. */
  written(machineFrame: number): void;
  /** Instructions that no definition covers, by name, with how often they were met. */
  readonly undefinedInstructions: ReadonlyMap<string, number>;
  /** The last control transfers of the CPU, oldest first: from and to. */
  lastTransfers(cpu: Cpu): { from: VirtualAddress; to: VirtualAddress }[];
}
