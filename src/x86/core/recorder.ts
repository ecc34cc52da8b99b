/**
 * What a CPU does, instruction by instruction, for a few milliseconds: so that wide regions hold the ways that are hot
 * now (see translator/region.ts). The interpreter's records only tell what has ever run.
 *
 * A recording starts where the CPU is when something has become hot there, and single-steps. It serves all that
 * becomes hot soon after.
 */
import type { Cpu, VirtualAddress } from '../cpu.ts';
import { CPU } from '../state.ts';

/** Instructions of a recording: about as many microseconds. */
const LENGTH = 6000;
/** Instructions that a CPU executes at least between two recordings, so that they slow it down but little. */
const PAUSE = 4e6;
/** Recordings that are kept, and for how many instructions of the CPU's. */
const KEPT = 16;
const LIFETIME = 1e9;

interface Recording {
  readonly cpu: Cpu;
  /** Addresses of instructions in the order in which they were begun. */
  readonly trace: Float64Array;
  readonly addresses: ReadonlySet<VirtualAddress>;
  /** Instructions that the CPU had executed. */
  readonly at: number;
}

export class Recorder {
  private recordings: Recording[] = [];
  private cpu: Cpu | null = null;
  private trace = new Float64Array(LENGTH);
  private length = 0;
  /** How many recordings were completed. */
  completed = 0;

  /** Whether the CPU's next instructions are to be noted. */
  wants(cpu: Cpu): boolean {
    return this.cpu === cpu;
  }

  /** Whether a recording of the CPU's may begin now. */
  free(cpu: Cpu): boolean {
    // One that has not begun gives way: its CPU may be idle.
    if (this.cpu === cpu || (this.cpu !== null && this.length > 0)) return false;
    const last = this.recordings.find((each) => each.cpu === cpu);
    return last === undefined || cpu.number(CPU.instructions) >= last.at + PAUSE;
  }

  /** Only if {@link free}. */
  start(cpu: Cpu): void {
    this.cpu = cpu;
    this.length = 0;
  }

  /** Ends a recording of a CPU that is no more. */
  forget(cpu: Cpu): void {
    if (this.cpu === cpu) this.cpu = null;
    this.recordings = this.recordings.filter((each) => each.cpu !== cpu);
  }

  /** The next instruction is at an address. @returns false: the recording is complete */
  note(cpu: Cpu, address: VirtualAddress): boolean {
    const { trace, length } = this;
    // A string instruction takes several steps.
    if (length > 0 && trace[length - 1] === address) return true;
    trace[this.length++] = address;
    if (this.length < LENGTH) return true;
    const at = cpu.number(CPU.instructions);
    this.recordings.unshift({ cpu, trace: trace.slice(), addresses: new Set(trace), at });
    this.completed++;
    this.recordings.length = Math.min(this.recordings.length, KEPT);
    this.cpu = null;
    return false;
  }

  /** Recordings in which an address of the CPU's was executed, the latest first. */
  find(cpu: Cpu, address: VirtualAddress): Float64Array[] {
    return this.recordings.filter((each) => shows(each, cpu, address)).map(({ trace }) => trace);
  }

  /** Whether {@link find} finds any. */
  has(cpu: Cpu, address: VirtualAddress): boolean {
    return this.recordings.some((each) => shows(each, cpu, address));
  }
}

/** The address of the CPU's was executed in a recording, and not too long ago. */
function shows(recording: Recording, cpu: Cpu, address: VirtualAddress): boolean {
  const since = cpu.number(CPU.instructions) - LIFETIME;
  return recording.cpu === cpu && recording.at >= since && recording.addresses.has(address);
}
