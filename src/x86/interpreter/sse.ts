/** SSE for the interpreter: XMM registers are their slots in the CPU's state. */
import {
  constantOf,
  type F32,
  type F64,
  type Func,
  f32,
  f64,
  type I32,
  i32,
  i64,
  type V128,
  v128,
} from '../../wasm/index.ts';
import type { Semantics } from '../isa/semantics.ts';
import {
  type Attempt,
  type FloatComparison,
  type HostOperation,
  PLAIN,
  type SseSemantics,
} from '../isa/sse-semantics.ts';
import { CPU, STATUS_FLAGS } from '../state.ts';

/** Bits of MXCSR that must have the value below: masks and rounding. DAZ, FTZ and the flags do not matter here. */
const CONTROL = 0x7f80;
const MASKED_TO_NEAREST = 0x1f80;
/** The precision flag. */
const PE = 0x20;

/** All exceptions masked, rounding to nearest. */
const toNearest = (mxcsr: I32): I32 => i32.eq(i32.and(mxcsr, CONTROL), MASKED_TO_NEAREST);

export const plainMxcsr = (mxcsr: I32): I32 =>
  i32.and(i32.sub(0, i32.eq(i32.and(mxcsr, CONTROL | PE), MASKED_TO_NEAREST | PE)), PLAIN);

/** Whether an attempt's result stands, with what MXCSR says. */
export function holds(f: Func, cpu: I32, { stands, exact }: Attempt): I32 {
  if (exact === undefined) return stands;
  const mxcsr = f.let(i32.load(cpu, CPU.mxcsr));
  return i32.and(stands, i32.and(toNearest(mxcsr), i32.or(i32.and(mxcsr, PE), exact)));
}

export class SlotSse implements SseSemantics {
  private readonly c: Semantics;

  constructor(c: Semantics) {
    this.c = c;
  }

  getF32(i: number): F32 {
    return f32.load(this.c.pointer(i, false));
  }

  getF64(i: number): F64 {
    return f64.load(this.c.pointer(i, false));
  }

  setF32(i: number, value: F32): void {
    this.put(i, value);
  }

  setF64(i: number, value: F64): void {
    this.put(i, value);
  }

  private put(i: number, value: F32 | F64): void {
    const { c } = this;
    c.f.store(c.pointer(i, true), value);
    c.commit(i);
  }

  move(): void {
    this.c.setV(0, this.c.getV(1));
  }

  same(): boolean {
    return false;
  }

  clear(): void {
    this.c.setV(0, v128.const(0n, 0n));
  }

  getXmm0(): V128 {
    return v128.load(this.c.cpu, CPU.xmm);
  }

  setXmm0(value: V128): void {
    this.c.f.store(this.c.cpu, value, CPU.xmm);
  }

  setMxcsr(value: I32): void {
    this.c.f.store(this.c.cpu, value, CPU.mxcsr);
  }

  plain(): I32 {
    return plainMxcsr(i32.load(this.c.cpu, CPU.mxcsr));
  }

  knows(): boolean {
    return false;
  }

  attempt(attempt: Attempt, host: HostOperation, done: () => void): void {
    const { f } = this.c;
    f.block((end) => {
      f.block((stands) => {
        f.block((rare) => {
          for (const usual of attempt.usual) if (constantOf(usual) === null) f.brIf(i32.eqz(usual), rare);
          f.br(stands);
        });
        f.brIf(holds(f, this.c.cpu, attempt), stands);
        this.byHost(host);
        f.br(end);
      });
      done();
    });
  }

  private byHost({ op, imm = 0, source, into }: HostOperation): void {
    const { c } = this;
    const { f, cpu } = c;
    const temp = i32.add(cpu, CPU.temp);
    if (source !== undefined) f.store(cpu, source, CPU.temp);
    const src = source === undefined ? f.let(c.pointer(1, false)) : temp;
    if (into === undefined) {
      c.raiseVector(c.host.sseFloat(op, f.let(c.pointer(0, true)), src, imm));
      return;
    }
    // The flags come back in the place of the first operand.
    if (into === 'flags') f.store(cpu, c.getV(0), CPU.temp);
    c.raiseVector(c.host.sseFloat(op, temp, src, imm));
    if (into === 'flags') c.setFlags(i32.load(cpu, CPU.temp), STATUS_FLAGS);
    else c.set(0, i64.load(cpu, CPU.temp));
  }

  compared({ below, equal, unordered }: FloatComparison): void {
    const flags = i32.or(i32.shl(equal, 6), below);
    this.c.setFlags(unordered === null ? flags : i32.or(flags, i32.shl(unordered, 2)), STATUS_FLAGS);
  }
}
