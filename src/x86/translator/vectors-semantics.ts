/**
 * SSE for the translator: XMM registers are in locals (see vectors.ts), and what the host has to do is done on a way
 * out of the region. A call in its midst would make V8 keep every XMM register of the hot code in memory.
 */
import {
  constantOf,
  type F32,
  type F64,
  type Func,
  f32,
  f64,
  type I32,
  type I32Like,
  i32,
  type V128,
  v128,
} from '../../wasm/index.ts';
import { storeVector } from '../emitting.ts';
import { holds } from '../interpreter/sse.ts';
import type { Attempt, FloatComparison, HostOperation, Shape, SseSemantics } from '../isa/sse-semantics.ts';
import { CPU } from '../state.ts';
import type { VectorState } from './vectors.ts';
import { xmmOf } from './vectors-facts.ts';

/** What this part needs of the whole. */
export interface Operands {
  readonly f: Func;
  readonly cpu: I32;
  bits(i: number): number;
  /** Slot of a register operand, or null for memory. */
  slot(i: number): number | null;
  /** Where a memory operand lies. */
  pointerOf(i: number): I32;
  /** Leaves the region behind this instruction, which the host executes then (see endings.ts). */
  leaveTo(op: number, dst: I32, src: I32, imm: I32Like): void;
  compared(comparison: FloatComparison): void;
  getV(i: number): V128;
  setV(i: number, value: V128): void;
}

export class VectorSemantics implements SseSemantics {
  private readonly operands: Operands;
  private readonly vectors: VectorState;

  constructor(operands: Operands, vectors: VectorState) {
    this.operands = operands;
    this.vectors = vectors;
  }

  /** Number of the XMM register that operand i is, or -1. */
  register(i: number): number {
    return xmmOf(this.operands.slot(i));
  }

  // --- Operands as vectors ---

  getBits(index: number, bits: number): V128 {
    const value = this.vectors.get(index);
    if (bits === 128) return value;
    return v128.and(value, v128.const((1n << BigInt(bits)) - 1n, 0n));
  }

  setBits(index: number, value: V128, bits: number): void {
    const { vectors } = this;
    if (bits === 128) vectors.set(index, value);
    else if (bits === 64)
      vectors.set(index, v128.f64x2_replace(vectors.get(index), 0, v128.f64x2_extract(value, 0)));
    else vectors.set(index, v128.f32x4_replace(vectors.get(index), 0, v128.f32x4_extract(value, 0)));
  }

  move(): void {
    const { operands, vectors } = this;
    const [to, from] = [this.register(0), this.register(1)];
    const [wide, narrow] = [operands.bits(0), operands.bits(1)];
    const low = narrow === 64 ? 'f64' : 'f32';
    if (to >= 0 && from >= 0 && wide === 128 && narrow === 128) vectors.copy(to, from);
    else if (to >= 0 && from >= 0 && narrow < 128) {
      if (wide === 128) vectors.putAlone(to, low, vectors.getLow(from, low));
      else vectors.putLow(to, low, vectors.getLow(from, low));
    } else if (to >= 0 && from < 0 && operands.slot(1) === null && narrow < 128) {
      const pointer = operands.pointerOf(1);
      if (wide === 128) vectors.loadAlone(to, narrow, pointer);
      else vectors.putLow(to, low, low === 'f64' ? f64.load(pointer) : f32.load(pointer));
    } else if (from >= 0 && to < 0 && operands.slot(0) === null && narrow < 128) {
      operands.f.store(operands.pointerOf(0), vectors.getLow(from, low));
    } else operands.setV(0, operands.getV(1));
  }

  same(): boolean {
    const index = this.register(0);
    return index >= 0 && index === this.register(1);
  }

  clear(): void {
    this.vectors.clear(this.register(0));
  }

  getXmm0(): V128 {
    return this.vectors.get(0);
  }

  setXmm0(value: V128): void {
    this.vectors.set(0, value);
  }

  // --- Operands as numbers ---

  getF32(i: number): F32 {
    const index = this.register(i);
    if (index >= 0) return this.vectors.getLow(index, 'f32') as F32;
    return f32.load(this.operands.pointerOf(i));
  }

  getF64(i: number): F64 {
    const index = this.register(i);
    if (index >= 0) return this.vectors.getLow(index, 'f64') as F64;
    return f64.load(this.operands.pointerOf(i));
  }

  setF32(i: number, value: F32): void {
    this.vectors.putLow(this.register(i), 'f32', value);
  }

  setF64(i: number, value: F64): void {
    this.vectors.putLow(this.register(i), 'f64', value);
  }

  // --- Floating point ---

  setMxcsr(value: I32): void {
    this.vectors.setMxcsr(value);
  }

  plain(): I32 {
    return this.vectors.plain();
  }

  knows(i: number, shape: Shape): boolean {
    const index = this.register(i);
    return index >= 0 && this.vectors.knows(index, shape);
  }

  attempt(attempt: Attempt, host: HostOperation, done: () => void): void {
    const { f, cpu } = this.operands;
    const usual = attempt.usual.filter((test) => constantOf(test) === null);
    if (usual.length > 0)
      f.block((stands) => {
        f.block((rare) => {
          const last = usual.pop()!;
          for (const test of usual) f.brIf(i32.eqz(test), rare, false);
          f.brIf(last, stands, true);
        });
        f.brIf(holds(f, cpu, attempt), stands);
        const known = this.vectors.snapshot();
        this.leaveToHost(host);
        this.vectors.restore(known);
      });
    done();
  }

  private leaveToHost({ op, imm = 0, source, into }: HostOperation): void {
    const { operands, vectors } = this;
    const { f, cpu } = operands;
    const temp = i32.add(cpu, CPU.temp);
    const place = (i: number) => i32.add(cpu, operands.slot(i)!);
    const memory = operands.slot(1) === null;
    const src = source !== undefined ? temp : memory ? operands.pointerOf(1) : place(1);
    const dst = into === 'flags' ? temp : place(0);
    if (source !== undefined) f.store(cpu, source, CPU.temp);
    if (into === 'flags') storeVector(f, cpu, CPU.temp, 128, vectors.get(this.register(0)));
    operands.leaveTo(op, dst, src, imm);
  }

  compared(comparison: FloatComparison): void {
    this.operands.compared(comparison);
  }
}
