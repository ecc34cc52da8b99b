/**
 * SSE floating point with exact MXCSR semantics (SDM volume 1, chapter 11, and volume 2).
 *
 * Two ways to one result: the common case in JavaScript's own numbers (sse-fast.ts), all the rest by softfloat.ts.
 */
import type { Memory } from '../../machine/memory.ts';
import { CPU, VECTOR } from '../state.ts';
import { reciprocal, reciprocalSquareRoot } from './approximation.ts';
import { DOUBLE, type Format, GREATER, LESS, Real, SINGLE, ZERO } from './real.ts';
import { PE, SoftFloat, TOWARD_ZERO } from './softfloat.ts';
import { FastSse } from './sse-fast.ts';
import { COMPARED, holds, SSE_FLOAT } from './sse-ops.ts';

export { SSE_FLOAT, type SseFloatName } from './sse-ops.ts';

/** Bits of MXCSR, SDM volume 1, 10.2.3. The mask of those that exist is what FXSAVE stores as MXCSR_MASK. */
export const MXCSR = {
  FLAGS: 0x3f,
  DAZ: 0x40,
  MASKS: 0x1f80,
  RC: 0x6000,
  FTZ: 0x8000,
  VALID: 0xffff,
} as const;

const ADD = SSE_FLOAT.addss;
const SUB = SSE_FLOAT.subss;
const MUL = SSE_FLOAT.mulss;
const SQRT = SSE_FLOAT.sqrtss;
const MIN = SSE_FLOAT.minss;
const MAX = SSE_FLOAT.maxss;
const CMP = SSE_FLOAT.cmpss;
const ROUND = SSE_FLOAT.roundss;

/** Everything masked, to nearest, no DAZ, no FTZ: MXCSR without its flags. */
const PLAIN = 0x1f80;

export class SseFloat {
  private readonly memory: Memory;
  private readonly fast: FastSse;
  private readonly float = new SoftFloat();
  private readonly a = new Real();
  private readonly b = new Real();
  private readonly r = new Real();
  /** The result is put together here, so that dst stays as it is if an exception is raised. */
  private readonly out = new Uint32Array(4);
  private readonly sums: readonly Real[] = [new Real(), new Real(), new Real(), new Real()];
  private readonly partial: readonly Real[] = [new Real(), new Real(), new Real(), new Real()];
  private daz = false;

  constructor(memory: Memory) {
    this.memory = memory;
    this.fast = new FastSse(memory);
  }

  /**
   * @param op one of SSE_FLOAT
   * @param cpu linear address of the CPU, whose MXCSR rules and collects the exceptions
   * @param dst linear address of the first operand and of the result: an XMM register
   * @param src linear address of the second operand; only the bytes that the instruction reads must exist
   * @param imm the immediate byte, where there is one
   * @returns 0, or VECTOR.XM if an exception that is not masked was found: then dst is unchanged
   */
  execute(op: number, cpu: number, dst: number, src: number, imm: number): number {
    dst >>>= 0;
    src >>>= 0;
    const at = ((cpu >>> 0) + CPU.mxcsr) >>> 2;
    const mxcsr = this.memory.u32[at]!;
    if ((mxcsr & ~MXCSR.FLAGS) === PLAIN) {
      const flags = this.fast.execute(op, dst, src, imm, mxcsr);
      if (flags >= 0) {
        if ((mxcsr & flags) !== flags) this.memory.u32[at] = mxcsr | flags;
        return 0;
      }
    }
    const float = this.float;
    this.daz = (mxcsr & MXCSR.DAZ) !== 0;
    float.rounding = (mxcsr >>> 13) & 3;
    float.masks = (mxcsr >>> 7) & 0x3f;
    float.flushToZero = (mxcsr & MXCSR.FTZ) !== 0;
    float.flags = 0;
    const bytes = this.slow(op, dst, src, imm);
    if (op !== SSE_FLOAT.dpps && op !== SSE_FLOAT.dppd) float.settleFlags(0);
    if (float.flags !== 0) {
      this.memory.u32[at] = mxcsr | float.flags;
      if ((float.flags & ~float.masks) !== 0) return VECTOR.XM;
    }
    for (let i = 0; i < bytes; i += 4) this.memory.write32(dst + i, this.out[i >>> 2]!);
    return 0;
  }

  /** Executes into `out`; returns how many bytes of it are the result. */
  private slow(op: number, dst: number, src: number, imm: number): number {
    if (op < SSE_FLOAT.comiss) return this.lanes(op, dst, src, imm);
    const { memory, float, out, a, b } = this;
    switch (op) {
      case SSE_FLOAT.comiss:
      case SSE_FLOAT.comisd:
      case SSE_FLOAT.ucomiss:
      case SSE_FLOAT.ucomisd: {
        this.load(a, dst, op & 1);
        this.load(b, src, op & 1);
        out[0] = COMPARED[float.compare(a, b, op < SSE_FLOAT.ucomiss) + 1]!;
        return 4;
      }
      case SSE_FLOAT.addsubps:
      case SSE_FLOAT.addsubpd:
      case SSE_FLOAT.haddps:
      case SSE_FLOAT.haddpd:
      case SSE_FLOAT.hsubps:
      case SSE_FLOAT.hsubpd:
        return this.horizontal(op, dst, src);
      case SSE_FLOAT.dpps:
      case SSE_FLOAT.dppd:
        return this.dotProduct(op, dst, src, imm);
      case SSE_FLOAT.rcpss:
      case SSE_FLOAT.rcpps:
      case SSE_FLOAT.rsqrtss:
      case SSE_FLOAT.rsqrtps: {
        const lanes = op & 2 ? 4 : 1;
        const approximate = op < SSE_FLOAT.rsqrtss ? reciprocal : reciprocalSquareRoot;
        for (let i = 0; i < lanes; i++) out[i] = approximate(memory.read32(src + 4 * i));
        return 4 * lanes;
      }
      default:
        return this.convert(op, src);
    }
  }

  private load(real: Real, address: number, double: number): void {
    const low = this.memory.read32(address);
    if (double) real.fromDouble(this.memory.read32(address + 4), low, this.daz);
    else real.fromSingle(low, this.daz);
  }

  private store(real: Real, lane: number, double: number): void {
    if (!double) {
      this.out[lane] = real.toSingle();
      return;
    }
    const value = real.toDouble();
    this.out[2 * lane] = Number(value & 0xffffffffn);
    this.out[2 * lane + 1] = Number(value >> 32n);
  }

  /** The instructions that exist in four forms. */
  private lanes(op: number, dst: number, src: number, imm: number): number {
    const { float, out, a, b, r } = this;
    const double = op & 1;
    const size = double ? 8 : 4;
    const lanes = op & 2 ? 16 / size : 1;
    const to = double ? DOUBLE : SINGLE;
    const kind = op & ~3;
    for (let i = 0; i < lanes; i++) {
      this.load(b, src + i * size, double);
      if (kind === ROUND) {
        this.roundLane(b, r, imm);
        this.store(r, i, double);
        continue;
      }
      if (kind === SQRT) {
        if (float.sqrt(b, r, to)) this.store(r, i, double);
        continue;
      }
      this.load(a, dst + i * size, double);
      if (kind === CMP) {
        const relation = float.compare(a, b, (imm & 3) === 1 || (imm & 3) === 2);
        const mask = holds(relation, imm) ? 0xffffffff : 0;
        if (double) {
          out[2 * i] = mask;
          out[2 * i + 1] = mask;
        } else out[i] = mask;
      } else if (kind === MIN || kind === MAX) {
        const wanted = kind === MIN ? LESS : GREATER;
        const chosen = float.compare(a, b, true) === wanted ? a : b;
        if (chosen.isNaN) this.raw(src + i * size, i, double);
        else this.store(chosen, i, double);
      } else if (this.arithmetic(kind, a, b, r, to)) this.store(r, i, double);
    }
    return size * lanes;
  }

  /** A lane as it is in memory. */
  private raw(address: number, lane: number, double: number): void {
    if (double) {
      this.out[2 * lane] = this.memory.read32(address);
      this.out[2 * lane + 1] = this.memory.read32(address + 4);
    } else this.out[lane] = this.memory.read32(address);
  }

  private arithmetic(kind: number, a: Real, b: Real, r: Real, to: Format): boolean {
    switch (kind) {
      case ADD:
        return this.float.add(a, b, 0, r, to);
      case SUB:
        return this.float.add(a, b, 1, r, to);
      case MUL:
        return this.float.multiply(a, b, r, to);
      default:
        return this.float.divide(a, b, r, to);
    }
  }

  private roundLane(a: Real, r: Real, imm: number): void {
    const { float } = this;
    const before = float.flags;
    float.integral(a, r, imm & 4 ? float.rounding : imm & 3);
    if (imm & 8) float.flags &= ~PE | (before & PE);
  }

  private horizontal(op: number, dst: number, src: number): number {
    const { float, a, b, r } = this;
    const double = op & 1;
    const size = double ? 8 : 4;
    const to = double ? DOUBLE : SINGLE;
    const lanes = 16 / size;
    for (let i = 0; i < lanes; i++) {
      let negate: number;
      if (op <= SSE_FLOAT.addsubpd) {
        this.load(a, dst + i * size, double);
        this.load(b, src + i * size, double);
        negate = 1 - (i & 1);
      } else {
        const from = 2 * i < lanes ? dst + 2 * i * size : src + (2 * i - lanes) * size;
        this.load(a, from, double);
        this.load(b, from + size, double);
        negate = op >= SSE_FLOAT.hsubps ? 1 : 0;
      }
      if (float.add(a, b, negate, r, to)) this.store(r, i, double);
    }
    return 16;
  }

  private dotProduct(op: number, dst: number, src: number, imm: number): number {
    const { float, out, a, b, r, sums } = this;
    const double = op & 1;
    const size = double ? 8 : 4;
    const lanes = 16 / size;
    const to = double ? DOUBLE : SINGLE;
    // Each stage reports its exceptions before the next begins.
    for (let i = 0; i < lanes; i++) {
      if (((imm >> (4 + i)) & 1) === 0) {
        sums[i]!.set(ZERO, 0, 0, 0n);
        continue;
      }
      this.load(a, dst + i * size, double);
      this.load(b, src + i * size, double);
      float.multiply(a, b, sums[i]!, to);
    }
    float.settleFlags(0);
    // All lanes compute the same sums, but differ in the order of operands, so in which of two NaNs they keep.
    const { partial } = this;
    if (!double) {
      this.stage(() => {
        for (let i = 0; i < 4; i++) {
          float.add(this.settle(sums[i ^ 1]!, a, 0), this.settle(sums[i]!, b, 0), 0, partial[i]!, to);
        }
      });
    }
    out.fill(0);
    this.stage(() => {
      const from = double ? sums : partial;
      for (let i = 0; i < lanes; i++) {
        float.add(this.settle(from[i]!, a, double), this.settle(from[i ^ (lanes / 2)]!, b, double), 0, r, to);
        if ((imm >> i) & 1) this.store(r, i, double);
      }
    });
    return 16;
  }

  /** A further stage of an instruction: is not reached if the stages before it found an unmasked exception. */
  private stage(compute: () => void): void {
    const { float } = this;
    const before = float.flags;
    if ((before & ~float.masks) !== 0) return;
    float.flags = 0;
    compute();
    float.settleFlags(before);
  }

  /** A result as an operand of the next stage. */
  private settle(sum: Real, into: Real, double: number): Real {
    if (double) {
      const value = sum.toDouble();
      return into.fromDouble(Number(value >> 32n), Number(value & 0xffffffffn), this.daz);
    }
    return into.fromSingle(sum.toSingle(), this.daz);
  }

  private convert(op: number, src: number): number {
    const { memory, float, out, a, r } = this;
    switch (op) {
      case SSE_FLOAT.cvtss2sd:
      case SSE_FLOAT.cvtps2pd: {
        const lanes = op === SSE_FLOAT.cvtps2pd ? 2 : 1;
        for (let i = 0; i < lanes; i++) {
          this.load(a, src + 4 * i, 0);
          if (float.convert(a, r, DOUBLE)) this.store(r, i, 1);
        }
        return 8 * lanes;
      }
      case SSE_FLOAT.cvtsd2ss:
      case SSE_FLOAT.cvtpd2ps: {
        const lanes = op === SSE_FLOAT.cvtpd2ps ? 2 : 1;
        out.fill(0);
        for (let i = 0; i < lanes; i++) {
          this.load(a, src + 8 * i, 1);
          if (float.convert(a, r, SINGLE)) this.store(r, i, 0);
        }
        return op === SSE_FLOAT.cvtpd2ps ? 16 : 4;
      }
      case SSE_FLOAT.cvtdq2ps:
        return this.fromIntegers(src, 4, 0);
      case SSE_FLOAT.cvtdq2pd:
      case SSE_FLOAT.cvtpi2pd:
        return this.fromIntegers(src, 2, 1);
      case SSE_FLOAT.cvtpi2ps:
        return this.fromIntegers(src, 2, 0);
      case SSE_FLOAT.cvtsi2ss32:
        return this.fromIntegers(src, 1, 0);
      case SSE_FLOAT.cvtsi2sd32:
        return this.fromIntegers(src, 1, 1);
      case SSE_FLOAT.cvtsi2ss64:
      case SSE_FLOAT.cvtsi2sd64: {
        const double = op === SSE_FLOAT.cvtsi2sd64 ? 1 : 0;
        a.fromInteger(BigInt.asIntN(64, memory.read64(src)));
        float.convert(a, r, double ? DOUBLE : SINGLE);
        this.store(r, 0, double);
        return double ? 8 : 4;
      }
      case SSE_FLOAT.cvtps2dq:
        return this.toIntegers(src, 4, 0, float.rounding);
      case SSE_FLOAT.cvttps2dq:
        return this.toIntegers(src, 4, 0, TOWARD_ZERO);
      case SSE_FLOAT.cvtps2pi:
        return this.toIntegers(src, 2, 0, float.rounding);
      case SSE_FLOAT.cvttps2pi:
        return this.toIntegers(src, 2, 0, TOWARD_ZERO);
      case SSE_FLOAT.cvtpd2pi:
        return this.toIntegers(src, 2, 1, float.rounding);
      case SSE_FLOAT.cvttpd2pi:
        return this.toIntegers(src, 2, 1, TOWARD_ZERO);
      case SSE_FLOAT.cvtpd2dq:
      case SSE_FLOAT.cvttpd2dq:
        out[2] = 0;
        out[3] = 0;
        this.toIntegers(src, 2, 1, op === SSE_FLOAT.cvtpd2dq ? float.rounding : TOWARD_ZERO);
        return 16;
    }
    const index = op - SSE_FLOAT.cvtss2si32;
    if (index < 0 || index > 7) throw new RangeError('no such SSE operation: ' + op);
    this.load(a, src, (index >> 1) & 1);
    const size = index & 1 ? 64 : 32;
    const value = float.toInteger(a, size, index >= 4 ? TOWARD_ZERO : float.rounding);
    out[0] = Number(value & 0xffffffffn);
    out[1] = size === 64 ? Number((value >> 32n) & 0xffffffffn) : 0;
    return 8;
  }

  private fromIntegers(src: number, lanes: number, double: number): number {
    for (let i = 0; i < lanes; i++) {
      this.a.fromInteger(BigInt(this.memory.read32(src + 4 * i) | 0));
      this.float.convert(this.a, this.r, double ? DOUBLE : SINGLE);
      this.store(this.r, i, double);
    }
    return lanes * (double ? 8 : 4);
  }

  private toIntegers(src: number, lanes: number, double: number, rounding: number): number {
    for (let i = 0; i < lanes; i++) {
      this.load(this.a, src + i * (double ? 8 : 4), double);
      this.out[i] = Number(this.float.toInteger(this.a, 32, rounding) & 0xffffffffn);
    }
    return 4 * lanes;
  }
}
