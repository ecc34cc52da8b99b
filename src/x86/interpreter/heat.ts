/**
 * How often a record was branched to: u16 counters, a few records sharing one. At the threshold the host is told,
 * which may translate what begins there.
 */

import type { Memory } from '../../machine/memory.ts';
import { type Callee, call, type Func, type I32, i32, type Local } from '../../wasm/index.ts';
import { REGION_RECORD } from '../records.ts';
import { CPU } from '../state.ts';

/** Bytes of the table of counters. */
export const HEAT_SIZE = 1 << 17;
/** Booting Debian's kernel on two cores was fastest between 6,000 and 12,000: below, compiling takes the other core. */
export const HEAT_THRESHOLD = 8000;

/** Arrivals at a region after which it is translated as a wide one; after so many more it is asked again. */
const WIDE_THRESHOLD = 4096;
const WIDE_REMINDER = 128;
const UNCOUNTED = 16;
/** How often an arrival from a wide region counts: what wide regions lead to is to be translated soon. */
export const HEAT_FROM_WIDE = 32;

/** With translations of earlier runs, arrivals after which it is looked whether there is one for the place. */
const HEAT_KNOWN = 64;

/** @param heat linear address of the counters */
export class Heat {
  private readonly counters: Uint16Array;
  /** Counters that have been at the lower threshold. */
  private noticed: Uint8Array | null = null;

  constructor(memory: Memory, heat: number) {
    this.counters = memory.u16.subarray(heat >>> 1, (heat + HEAT_SIZE) >>> 1);
  }

  /** From now on a counter is reported early, once. */
  raise(): void {
    if (this.noticed !== null) return;
    this.noticed = new Uint8Array(this.counters.length);
    const { counters } = this;
    for (let i = 0; i < counters.length; i++)
      if (counters[i]! < HEAT_THRESHOLD - HEAT_KNOWN) counters[i] = HEAT_THRESHOLD - HEAT_KNOWN;
  }

  /** A record was reported: whether it was early. Its counter then begins anew. */
  early(record: number): boolean {
    if (this.noticed === null) return false;
    const index = ((record >>> 4) & (HEAT_SIZE - 2)) >>> 1;
    if (this.noticed[index] !== 0) return false;
    this.noticed[index] = 1;
    this.counters[index] = 0;
    return true;
  }
}

/** Counts an arrival at a record, as so many. */
export function emitHeat(f: Func, cpu: I32, record: I32, hot: Callee, weight: I32 = i32.const(1)): void {
  const at = f.let(i32.add(i32.load(cpu, CPU.heat), i32.and(i32.shr_u(record, 4), HEAT_SIZE - 2)));
  const before = f.let(i32.load16u(at));
  const count = f.let(i32.add(before, weight));
  f.store(at, count, 0, 16);
  f.if(i32.and(i32.lt_u(before, HEAT_THRESHOLD), i32.ge_u(count, HEAT_THRESHOLD)), () =>
    f.do(hot, cpu, record),
  );
}

/** What is remembered from region to region of those that follow each other, initially zeros. */
export interface Arrivals {
  /** For how many more regions none is counted. */
  readonly uncounted: Local<'i32'>;
  /** The record at which the region before was entered, if that is a wide one. */
  readonly wide: Local<'i32'>;
}

/**
 * Counts arrivals at regions that are not wide. Where such regions follow each other, the first one counts and then
 * one of several: what follows will be part of the wide region that begins with the first, or will be first where that
 * one leads to it. `stop`: the region is not to be entered.
 */
export function emitArrival(
  f: Func,
  cpu: I32,
  record: I32,
  arrivals: Arrivals,
  often: Callee,
  stop: () => void,
): void {
  const { uncounted, wide } = arrivals;
  const count = () => {
    f.set(uncounted, i32.const(UNCOUNTED));
    const sum = f.let(i32.add(i32.load16u(record, REGION_RECORD.arrivals), 1));
    f.store(record, sum, REGION_RECORD.arrivals, 16);
    const due = i32.and(i32.ge_u(sum, WIDE_THRESHOLD), i32.eqz(i32.and(sum, WIDE_REMINDER - 1)));
    f.if(due, () => f.if(call('i32', often, cpu, record, wide), stop));
  };
  f.if(
    i32.load16u(record, REGION_RECORD.wide),
    () => {
      f.set(uncounted, i32.const(0));
      f.set(wide, record);
    },
    () => {
      f.if(uncounted, () => f.set(uncounted, i32.sub(uncounted, 1)), count);
      f.set(wide, i32.const(0));
    },
  );
}
