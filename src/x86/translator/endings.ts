/**
 * What is left to do when a region has been left: calls that are seldom made.
 *
 * V8 keeps what lives across a call in memory, from where it is computed, even if the call is hardly ever reached. So
 * hot code does not contain these calls: it notes what is to be done and leaves, and behind the region's end, when
 * all state is in memory, it is done.
 */
import {
  type Callee,
  call,
  type Func,
  type I32,
  type I32Like,
  type I64,
  i32,
  i64,
  type Local,
} from '../../wasm/index.ts';
import { STATUS } from '../interpreter/status.ts';
import { CPU, FLAG } from '../state.ts';

/** What is noted: an exception to raise, or an operation of SseFloat. */
const WORK = { none: 0, raise: 1, float: 2 } as const;

interface Callees {
  readonly sseFloat: Callee;
  readonly raise: Callee;
}

/** How the region is being left; it can still be changed. */
export interface Leaving {
  readonly rip: Local<'i64'>;
  readonly status: Local<'i32'>;
  readonly budget: Local<'i32'>;
}

/** The variables that hold a note. */
interface Note {
  readonly work: Local<'i32'>;
  /** Arguments: vector and error code; op, dst, src, imm. */
  readonly args: readonly Local<'i32'>[];
  /** Address of the instruction. */
  readonly here: Local<'i64'>;
}

export class Endings {
  private readonly f: Func;
  private readonly cpu: I32;
  private readonly imports: Callees;
  private note: Note | null = null;

  constructor(f: Func, cpu: I32, imports: Callees) {
    this.f = f;
    this.cpu = cpu;
    this.imports = imports;
  }

  private write(work: number, args: readonly I32Like[]): Note {
    const { f } = this;
    this.note ??= {
      work: f.lasting('i32'),
      args: Array.from({ length: 4 }, () => f.lasting('i32')),
      here: f.lasting('i64'),
    };
    const { note } = this;
    f.set(note.work, i32.const(work));
    for (const [i, arg] of args.entries())
      f.set(note.args[i]!, typeof arg === 'number' ? i32.const(arg) : arg);
    return note;
  }

  /** An exception, to be raised when the region is left with a fault. */
  raise(vector: I32Like, error: I32Like): void {
    this.write(WORK.raise, [vector, error]);
  }

  /**
   * An operation of SseFloat (its `execute`), to be done when the region is left behind the instruction at `here`.
   * What it finds in CPU.temp are flags of a comparison.
   */
  float(op: number, dst: I32, src: I32, imm: I32Like, here: I64): void {
    this.f.set(this.write(WORK.float, [op, dst, src, imm]).here, here);
  }

  /** At the region's end, when all state is in memory. */
  emit(leaving: Leaving): void {
    const { f, cpu, note, imports } = this;
    if (note === null) return;
    const [first, second, third, fourth] = note.args as readonly I32[] as [I32, I32, I32, I32];
    f.if(i32.eq(note.work, WORK.raise), () => f.do(imports.raise, cpu, first, second));
    f.if(i32.eq(note.work, WORK.float), () => {
      const verdict = f.let(call('i32', imports.sseFloat, first, cpu, second, third, fourth));
      f.if(
        verdict,
        () => {
          f.do(imports.raise, cpu, verdict, i32.const(0));
          f.set(leaving.rip, note.here);
          f.set(leaving.budget, i32.add(leaving.budget, 1));
          f.set(leaving.status, i32.const(STATUS.fault));
        },
        () => f.if(i32.eq(second, i32.add(cpu, CPU.temp)), () => this.storeFlags()),
      );
    });
  }

  private storeFlags(): void {
    const { f, cpu } = this;
    const flags = f.let(i32.load(cpu, CPU.temp));
    f.store(cpu, i64.extend_u(i32.eqz(i32.and(flags, FLAG.ZF))), CPU.zres);
    f.store(cpu, i64.extend_u(i32.eqz(i32.and(flags, FLAG.PF))), CPU.spres);
    f.store(cpu, i32.and(flags, FLAG.CF), CPU.cf);
    f.store(cpu, i64.const(0), CPU.of);
    f.store(cpu, i32.const(0), CPU.af);
  }
}
