/**
 * The hypervisor: the domains of one machine, and the loop in which their virtual CPUs run.
 */
import type { Frames } from '../machine/frames.ts';
import type { Memory } from '../machine/memory.ts';
import type { Processor } from '../x86/processor.ts';
import type { Domain } from './domain.ts';

/** What the machine gives the hypervisor. */
export interface HypervisorHost {
  /** Nanoseconds since the machine started: system time and, at 1 GHz, the time-stamp counter. Never goes back. */
  now(): number;
  /** Nanoseconds since 1970-01-01 00:00 UTC. */
  wallclock(): number;
  /** Fills an array with random bytes. */
  random(bytes: Uint8Array): void;
}

export class Hypervisor {
  readonly memory: Memory;
  readonly frames: Frames;
  readonly processor: Processor;
  readonly host: HypervisorHost;
  private readonly domains = new Map<number, Domain>();

  constructor(memory: Memory, frames: Frames, processor: Processor, host: HypervisorHost) {
    this.memory = memory;
    this.frames = frames;
    this.processor = processor;
    this.host = host;
  }

  domain(id: number): Domain | undefined {
    return this.domains.get(id);
  }
}
