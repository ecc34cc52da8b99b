/**
 * What a processor is doing right now, for whoever samples it from another thread.
 *
 * A processor has a board: a few words of machine memory that say whether it sleeps, serves the machine, or has a
 * virtual CPU on it, and which one. What that CPU is at stands in a word of its own state (CPU.activity), so that
 * interpreter and walker note a change by one store at a constant offset. Nothing is counted here and nothing is
 * locked: a reader may see the halves of two moments, once in a million samples.
 *
 * CPU.activity: u8 kind (ACTIVITY), u8 detail (DETAIL, 0 outside), u16 number of the hypercall.
 */
import type { Memory } from '../../machine/memory.ts';
import { join64, type VirtualAddress } from '../cpu.ts';
import { RING_SIZE } from '../interpreter/transfers.ts';
import { CPU } from '../state.ts';

/** What a virtual CPU, or the hypervisor on its behalf, is at. */
export const ACTIVITY = {
  /** Between exits: events are delivered, time is kept. */
  hypervisor: 0,
  interpreter: 1,
  translated: 2,
  /** Translating on the processor's own thread, and installing what was translated. */
  translation: 3,
  hypercall: 4,
  /** A system call or software interrupt of a user program, on its way to its kernel. */
  systemCall: 5,
  /** A page fault: a store to a page table is carried out, all others go to the guest's kernel. */
  pageFault: 6,
  /** A privileged instruction is carried out, another exception delivered. */
  exception: 7,
} as const;
export type Activity = (typeof ACTIVITY)[keyof typeof ACTIVITY];

/** What guest code waits for in the middle of it. */
export const DETAIL = { none: 0, walk: 1, decoding: 2, floatingPoint: 3 } as const;
export type Detail = (typeof DETAIL)[keyof typeof DETAIL];

/** Where the detail stands in a CPU's state. */
export const ACTIVITY_DETAIL = CPU.activity + 1;

/** The value of CPU.activity during a hypercall. */
export function hypercallActivity(number: number): number {
  return ACTIVITY.hypercall | (number << 16);
}

/** What a processor is at as a whole. */
export const PHASE = {
  /** It was not started. */
  off: 0,
  idle: 1,
  /** The machine's own business: requests from Domain 0, timers, scheduling. */
  machine: 2,
  /** A virtual CPU is on it: CPU.activity says more. */
  cpu: 3,
} as const;
export type Phase = (typeof PHASE)[keyof typeof PHASE];

/** Words of a board. */
const BOARD = { phase: 0, cpu: 1 } as const;

/** What a processor was at, at one moment. */
export interface ActivitySample {
  readonly phase: Phase;
  /** CPU.owner of the CPU that is on it (phase cpu). */
  readonly owner: number;
  readonly activity: Activity;
  readonly detail: Detail;
  /** Number of the hypercall (activity hypercall). */
  readonly hypercall: number;
  /** Where the guest last jumped to: in the function that it runs, more or less. */
  readonly place: VirtualAddress;
}

export class ActivityBoard {
  private readonly memory: Memory;
  private readonly word: number;

  /** @param address linear address of 8 bytes, zero at first */
  constructor(memory: Memory, address: number) {
    this.memory = memory;
    this.word = address >>> 2;
  }

  /** The processor's thread: it is idle, or at the machine's own business. */
  enter(phase: Phase): void {
    this.memory.u32[this.word + BOARD.phase] = phase;
  }

  /** The processor's thread: a CPU (linear address of its state) is on it. */
  enterCpu(address: number): void {
    this.memory.u32[this.word + BOARD.cpu] = address;
    this.memory.u32[this.word + BOARD.phase] = PHASE.cpu;
  }

  /** Any thread. */
  sample(): ActivitySample {
    const { u32 } = this.memory;
    const phase = u32[this.word + BOARD.phase] as Phase;
    const cpu = u32[this.word + BOARD.cpu]! >>> 2;
    const word = u32[cpu + (CPU.activity >>> 2)]!;
    const ring = u32[cpu + (CPU.ring >>> 2)]!;
    const at = (ring + ((u32[cpu + (CPU.ringHead >>> 2)]! - 16) & (RING_SIZE - 1)) + 8) >>> 2;
    return {
      phase,
      owner: u32[cpu + (CPU.owner >>> 2)]!,
      activity: (word & 0xff) as Activity,
      detail: ((word >>> 8) & 0xff) as Detail,
      hypercall: word >>> 16,
      place: ring === 0 || phase !== PHASE.cpu ? 0 : join64(u32[at] ?? 0, u32[at + 1] ?? 0),
    };
  }
}
