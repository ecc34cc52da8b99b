/**
 * How often a record was branched to: u16 counters, a few records sharing one. At the threshold the host is told,
 * which may translate what begins there.
 */
import { type Callee, type Func, type I32, i32 } from '../../wasm/index.ts';
import { CPU } from '../state.ts';

/** Bytes of the table of counters. */
export const HEAT_SIZE = 1 << 17;
/** Booting Debian's kernel on two cores was fastest between 6,000 and 12,000: below, compiling takes the other core. */
export const HEAT_THRESHOLD = 8000;

/** Counts an arrival at a record. */
export function emitHeat(f: Func, cpu: I32, record: I32, hot: Callee): void {
  const at = f.let(i32.add(i32.load(cpu, CPU.heat), i32.and(i32.shr_u(record, 4), HEAT_SIZE - 2)));
  const count = f.let(i32.add(i32.load16u(at), 1));
  f.store(at, count, 0, 16);
  f.if(i32.eq(count, HEAT_THRESHOLD), () => f.do(hot, cpu, record));
}
