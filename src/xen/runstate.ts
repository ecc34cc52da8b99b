/** How a vCPU spends its time (public/vcpu.h, vcpu_runstate_info). The times always add up to the time it exists. */
import type { Memory } from '../machine/memory.ts';
import { high32, type VirtualAddress } from '../x86/cpu.ts';
import { RUNSTATE, RUNSTATE_INFO, type Runstate } from './public/vcpu.ts';

/** Bit 63 of state_entry_time: an update is under way (XEN_RUNSTATE_UPDATE). */
const UPDATE = 0x80000000;

export class RunstateClock {
  state: Runstate = RUNSTATE.offline;
  /** System time, ns. */
  since: number;
  /** ns in each state, the time since the last change not included. */
  readonly times: [number, number, number, number] = [0, 0, 0, 0];
  /** Where the guest wants to see it; null: nowhere. */
  area: VirtualAddress | null = null;

  constructor(now: number) {
    this.since = now;
  }

  /** Changes the state. @returns whether it is another one than before */
  enter(state: Runstate, now: number): boolean {
    if (state === this.state) return false;
    this.times[this.state] += now - this.since;
    this.since = now;
    this.state = state;
    return true;
  }

  /** ns in a state until now. */
  total(state: Runstate, now: number): number {
    return this.times[state] + (state === this.state ? now - this.since : 0);
  }

  /** Lays out struct vcpu_runstate_info as u32 words. @param offset of the domain's time against system time, ns */
  words(now: number, offset = 0): Uint32Array {
    const words = new Uint32Array(RUNSTATE_INFO.size / 4);
    const put = (offset: number, value: number) => {
      words[offset >>> 2] = value;
      words[(offset >>> 2) + 1] = high32(value);
    };
    words[RUNSTATE_INFO.state >>> 2] = this.state;
    put(RUNSTATE_INFO.state_entry_time, this.since + offset);
    for (const state of Object.values(RUNSTATE)) put(RUNSTATE_INFO.time + state * 8, this.total(state, now));
    return words;
  }

  /**
   * Writes it to guest memory.
   * @param linear gives the linear address behind an offset of the area, for a write
   * @param flag whether bit 63 of the entry time shows the update (VMASST_TYPE_runstate_update_flag)
   */
  publish(memory: Memory, linear: (offset: number) => number, now: number, flag: boolean, offset = 0): void {
    const words = this.words(now, offset);
    const high = (RUNSTATE_INFO.state_entry_time >>> 2) + 1;
    const entered = words[high]!;
    if (flag) {
      words[high] = entered | UPDATE;
      memory.write32(linear(high * 4), words[high]!);
    }
    for (let index = 0; index < words.length; index++) memory.write32(linear(index * 4), words[index]!);
    if (flag) memory.write32(linear(high * 4), entered);
  }
}
