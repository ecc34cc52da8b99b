/**
 * The common case of SSE arithmetic in JavaScript's own numbers.
 *
 * It holds where nothing is trapped, rounding is to nearest, denormals are kept, and operands and results are zeros or
 * normal numbers well inside the range: then the bits are the same, and the only exception possible is #P, which an
 * error-free transformation finds out. What it cannot decide cheaply it leaves to sse.ts.
 */

import type { Memory } from '../../machine/memory.ts';
import { EQUAL, GREATER, LESS } from './real.ts';
import { PE } from './softfloat.ts';
import { COMPARED, holds, SSE_FLOAT } from './sse-ops.ts';

const DOUBLE_MIN = 2 ** -1022;
const SINGLE_MIN = 2 ** -126;
const SINGLE_MAX = 3.4028234663852886e38;
/** Between these, products of doubles split exactly. */
const SPLIT_MIN = 2 ** -400;
const SPLIT_MAX = 2 ** 400;

const ADD = SSE_FLOAT.addss;
const SUB = SSE_FLOAT.subss;
const MUL = SSE_FLOAT.mulss;
const DIV = SSE_FLOAT.divss;
const SQRT = SSE_FLOAT.sqrtss;
const MIN = SSE_FLOAT.minss;
const CMP = SSE_FLOAT.cmpss;
const ROUND = SSE_FLOAT.roundss;

/** Neither zero of a double rounding nor NaN nor denormal: a number that JavaScript treats as SSE does. */
function ordinary(x: number, least: number): boolean {
  const magnitude = Math.abs(x);
  return magnitude >= least ? magnitude < Infinity : x === 0;
}

/** Whether a + b = sum exactly (no overflow). */
function sumIsExact(a: number, b: number, sum: number): boolean {
  const b1 = sum - a;
  return a - (sum - b1) + (b - b1) === 0;
}

/** Whether a * b = product exactly. False also where it cannot tell. */
function productIsExact(a: number, b: number, product: number): boolean {
  if (product === 0) return true;
  const a1 = 134217729 * a;
  const aHigh = a1 - (a1 - a);
  const aLow = a - aHigh;
  const b1 = 134217729 * b;
  const bHigh = b1 - (b1 - b);
  const bLow = b - bHigh;
  return aHigh * bHigh - product + aHigh * bLow + aLow * bHigh + aLow * bLow === 0;
}

function splits(x: number): boolean {
  const magnitude = Math.abs(x);
  return (magnitude > SPLIT_MIN && magnitude < SPLIT_MAX) || x === 0;
}

export class FastSse {
  private readonly memory: Memory;
  private readonly f32: Float32Array;
  /** All lanes are computed before the first is written. */
  private readonly out = new Uint32Array(4);
  private readonly outF32 = new Float32Array(this.out.buffer);
  private readonly outF64 = new Float64Array(this.out.buffer);

  constructor(memory: Memory) {
    this.memory = memory;
    this.f32 = new Float32Array(memory.wasm.buffer);
  }

  /**
   * Arguments as those of SseFloat.execute.
   * @returns the exceptions that the operation raised (PE or none), or -1: it was not done
   */
  execute(op: number, dst: number, src: number, imm: number, mxcsr: number): number {
    const align = op & 1 ? 7 : 3;
    if (op < ROUND) {
      if (((dst | src) & align) !== 0) return -1;
      if (op < MIN) return op & 1 ? this.fastDouble(op, dst, src, mxcsr) : this.fastSingle(op, dst, src);
      return this.fastSelect(op, dst, src, imm);
    }
    const { memory } = this;
    switch (op) {
      case SSE_FLOAT.comiss:
      case SSE_FLOAT.comisd:
      case SSE_FLOAT.ucomiss:
      case SSE_FLOAT.ucomisd: {
        if (((dst | src) & align) !== 0) return -1;
        const double = op & 1;
        const a = double ? memory.f64[dst / 8]! : this.f32[dst >>> 2]!;
        const b = double ? memory.f64[src / 8]! : this.f32[src >>> 2]!;
        const least = double ? DOUBLE_MIN : SINGLE_MIN;
        if (!ordinary(a, least) || !ordinary(b, least)) return -1;
        memory.write32(dst, a < b ? COMPARED[0] : a === b ? COMPARED[1] : COMPARED[2]);
        return 0;
      }
      case SSE_FLOAT.cvtsi2sd32: {
        if ((dst & 7) !== 0) return -1;
        memory.f64[dst / 8] = memory.read32(src) | 0;
        return 0;
      }
      case SSE_FLOAT.cvttsd2si32:
      case SSE_FLOAT.cvttsd2si64: {
        if (((dst | src) & 7) !== 0) return -1;
        const value = memory.f64[src / 8]!;
        const limit = op === SSE_FLOAT.cvttsd2si32 ? 2147483648 : 2 ** 53;
        if (!(Math.abs(value) < limit)) return -1;
        const whole = Math.trunc(value);
        memory.u32[dst >>> 2] = whole;
        memory.u32[(dst >>> 2) + 1] = op === SSE_FLOAT.cvttsd2si32 ? 0 : Math.floor(whole / 2 ** 32);
        return whole === value ? 0 : PE;
      }
      case SSE_FLOAT.cvtss2sd: {
        if ((dst & 7) !== 0 || (src & 3) !== 0) return -1;
        const value = this.f32[src >>> 2]!;
        if (!ordinary(value, SINGLE_MIN)) return -1;
        memory.f64[dst / 8] = value;
        return 0;
      }
      case SSE_FLOAT.cvtsd2ss: {
        if ((dst & 3) !== 0 || (src & 7) !== 0) return -1;
        const value = memory.f64[src / 8]!;
        const rounded = Math.fround(value);
        const magnitude = Math.abs(rounded);
        if (!(magnitude > SINGLE_MIN && magnitude <= SINGLE_MAX) && value !== 0) return -1;
        this.f32[dst >>> 2] = rounded;
        return rounded === value ? 0 : PE;
      }
    }
    return -1;
  }

  private fastDouble(op: number, dst: number, src: number, mxcsr: number): number {
    const { f64 } = this.memory;
    const lanes = op & 2 ? 2 : 1;
    const kind = op & ~3;
    const d = dst / 8;
    const s = src / 8;
    let flags = 0;
    for (let i = 0; i < lanes; i++) {
      const a = f64[d + i]!;
      const b = f64[s + i]!;
      if (!ordinary(b, DOUBLE_MIN)) return -1;
      if (kind === SQRT) {
        if (b < 0) return -1;
        const root = Math.sqrt(b);
        if ((mxcsr & PE) === 0) {
          if (!splits(root) || !splits(b)) return -1;
          if (root * root !== b || !productIsExact(root, root, b)) flags = PE;
        }
        this.outF64[i] = root;
        continue;
      }
      if (!ordinary(a, DOUBLE_MIN)) return -1;
      let r: number;
      switch (kind) {
        case ADD:
          r = a + b;
          if (!(Math.abs(r) > DOUBLE_MIN) && r !== 0) return -1;
          if ((mxcsr & PE) === 0 && !sumIsExact(a, b, r)) flags = PE;
          break;
        case SUB:
          r = a - b;
          if (!(Math.abs(r) > DOUBLE_MIN) && r !== 0) return -1;
          if ((mxcsr & PE) === 0 && !sumIsExact(a, -b, r)) flags = PE;
          break;
        case MUL:
          r = a * b;
          if (!(Math.abs(r) > DOUBLE_MIN) && a !== 0 && b !== 0) return -1;
          if ((mxcsr & PE) === 0) {
            if (!splits(a) || !splits(b)) return -1;
            if (!productIsExact(a, b, r)) flags = PE;
          }
          break;
        case DIV:
          if (b === 0) return -1;
          r = a / b;
          if (!(Math.abs(r) > DOUBLE_MIN) && a !== 0) return -1;
          if ((mxcsr & PE) === 0) {
            if (!splits(a) || !splits(b) || !splits(r)) return -1;
            if (r * b !== a || !productIsExact(r, b, a)) flags = PE;
          }
          break;
        default:
          return -1;
      }
      if (!(Math.abs(r) < Infinity)) return -1;
      this.outF64[i] = r;
    }
    for (let i = 0; i < lanes; i++) f64[d + i] = this.outF64[i]!;
    return flags;
  }

  private fastSingle(op: number, dst: number, src: number): number {
    const { f32 } = this;
    const lanes = op & 2 ? 4 : 1;
    const kind = op & ~3;
    const d = dst >>> 2;
    const s = src >>> 2;
    let flags = 0;
    for (let i = 0; i < lanes; i++) {
      const a = f32[d + i]!;
      const b = f32[s + i]!;
      if (!ordinary(b, SINGLE_MIN)) return -1;
      let r: number;
      // A double has more than twice the bits, so rounding twice is rounding once.
      if (kind === SQRT) {
        if (b < 0) return -1;
        r = Math.fround(Math.sqrt(b));
        if (r * r !== b) flags = PE;
      } else {
        if (!ordinary(a, SINGLE_MIN)) return -1;
        let wide: number;
        switch (kind) {
          case ADD:
            wide = a + b;
            r = Math.fround(wide);
            if (r !== wide || !sumIsExact(a, b, wide)) flags = PE;
            break;
          case SUB:
            wide = a - b;
            r = Math.fround(wide);
            if (r !== wide || !sumIsExact(a, -b, wide)) flags = PE;
            break;
          case MUL:
            wide = a * b;
            r = Math.fround(wide);
            if (r !== wide) flags = PE;
            break;
          case DIV:
            if (b === 0) return -1;
            wide = a / b;
            r = Math.fround(wide);
            if (r * b !== a) flags = PE;
            break;
          default:
            return -1;
        }
        const magnitude = Math.abs(r);
        if (!(magnitude > SINGLE_MIN && magnitude < Infinity) && wide !== 0) return -1;
      }
      this.outF32[i] = r;
    }
    for (let i = 0; i < lanes; i++) f32[d + i] = this.outF32[i]!;
    return flags;
  }

  /** Minimum, maximum and compare of ordinary numbers: exact, never an exception. */
  private fastSelect(op: number, dst: number, src: number, imm: number): number {
    const { memory, f32, out } = this;
    const double = (op & 1) !== 0;
    const lanes = op & 2 ? (double ? 2 : 4) : 1;
    const kind = op & ~3;
    const least = double ? DOUBLE_MIN : SINGLE_MIN;
    for (let i = 0; i < lanes; i++) {
      const a = double ? memory.f64[dst / 8 + i]! : f32[(dst >>> 2) + i]!;
      const b = double ? memory.f64[src / 8 + i]! : f32[(src >>> 2) + i]!;
      if (!ordinary(a, least) || !ordinary(b, least)) return -1;
      if (kind === CMP) {
        const mask = holds(a < b ? LESS : a > b ? GREATER : EQUAL, imm) ? 0xffffffff : 0;
        if (double) {
          out[2 * i] = mask;
          out[2 * i + 1] = mask;
        } else out[i] = mask;
        continue;
      }
      const first = kind === MIN ? a < b : a > b;
      if (double) this.outF64[i] = first ? a : b;
      else this.outF32[i] = first ? a : b;
    }
    const words = double ? 2 * lanes : lanes;
    for (let i = 0; i < words; i++) memory.u32[(dst >>> 2) + i] = out[i]!;
    return 0;
  }
}
