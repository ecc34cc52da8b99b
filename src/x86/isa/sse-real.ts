/**
 * Floating point in WebAssembly where it is what SSE does: the four shapes of an instruction (scalar and packed,
 * single and double) behind one set of names, so that a rule is written once.
 *
 * WebAssembly rounds to nearest, keeps denormals and raises no flags. So its result stands only where MXCSR asks for
 * that, operands are zero, normal or infinite (a denormal raises #D, a NaN has rules of its own), and the result is
 * neither rounded to infinity nor tiny: then DAZ and FTZ do not matter either. Everything else is the host's.
 *
 * What an attempt asks first costs a few integer operations and tells exponents in the middle of the range from those
 * near its ends, zero among them. Of scalars: the exponent begins at bit 0 (of floats, 3) of a word; 16 is added, and
 * bits 5 to 10 (PLAIN) must not be zero. Of vectors: see inMiddle. The precise question (`ordinary`, `within`) is asked
 * where that says no.
 */
import {
  type Expr,
  type F64,
  f32,
  f64,
  type I32,
  type I64,
  i32,
  i64,
  select,
  type V128,
  type ValType,
  v128,
} from '../../wasm/index.ts';
import type { Semantics } from './semantics.ts';
import type { Shape } from './sse-semantics.ts';
import { highHalf, quads, ZERO } from './sse-vector.ts';

/** T: type of a value; B: what a comparison gives, one bit or a mask. */
export interface Real<T extends ValType = ValType, B extends ValType = ValType> {
  /** Added to the number of the ss operation (see SSE_FLOAT). */
  readonly shape: number;
  readonly suffix: Shape;
  readonly prefix: 'F3' | 'F2' | 'NP' | '66';
  /** Operand size letter. */
  readonly size: 'd' | 'q' | 'x';
  /** Least normal magnitude. */
  readonly least: number;
  /** Operand i; packed: all of it. */
  get(c: Semantics, i: number): Expr<T>;
  /** Writes operand 0; lanes above the value's stay. */
  set(c: Semantics, value: Expr<T>): void;
  /** Writes ones to lanes that say yes, zeros to others. */
  setMask(c: Semantics, condition: Expr<B>): void;
  constant(value: number): Expr<T>;
  add(a: Expr<T>, b: Expr<T>): Expr<T>;
  sub(a: Expr<T>, b: Expr<T>): Expr<T>;
  mul(a: Expr<T>, b: Expr<T>): Expr<T>;
  div(a: Expr<T>, b: Expr<T>): Expr<T>;
  sqrt(a: Expr<T>): Expr<T>;
  abs(a: Expr<T>): Expr<T>;
  /** Rounding to integral values: to nearest even, down, up, toward zero. */
  readonly integral: readonly ((a: Expr<T>) => Expr<T>)[];
  lt(a: Expr<T>, b: Expr<T>): Expr<B>;
  le(a: Expr<T>, b: Expr<T>): Expr<B>;
  eq(a: Expr<T>, b: Expr<T>): Expr<B>;
  and(a: Expr<B>, b: Expr<B>): Expr<B>;
  or(a: Expr<B>, b: Expr<B>): Expr<B>;
  xor(a: Expr<B>, b: Expr<B>): Expr<B>;
  /** The same answer (0 or 1) for every lane. */
  every(bit: I32): Expr<B>;
  select(condition: Expr<B>, a: Expr<T>, b: Expr<T>): Expr<T>;
  /** Whether all lanes say yes. */
  all(condition: Expr<B>): I32;
  /** Whether a * b is r exactly, r being what it rounds to; may say no where it cannot tell. */
  productExact(a: Expr<T>, b: Expr<T>, r: Expr<T>): Expr<B>;
  /** Scalar: a NaN that is not signaling. */
  quietNan(a: Expr<T>): I32;
  /** Scalar: the bits as a double. */
  doubleBits(a: Expr<T>): I64;
  /**
   * Usual tests (see Attempt): that none of the operands is denormal or zero, and that the result, if one is given, is
   * in the middle of the range.
   * @param plain PLAIN, or 0 to have the test of the result fail
   */
  usual(operands: readonly Expr<T>[], result: Expr<T> | null, plain: I32): I32[];
}

const SINGLE_LEAST = 2 ** -126;
const DOUBLE_LEAST = 2 ** -1022;

const bit = {
  and: i32.and,
  or: i32.or,
  xor: i32.xor,
  every: (value: I32) => value,
  all: (condition: I32) => condition,
};

const scalarOnly = (): never => {
  throw new TypeError('only scalars are compared to flags');
};

const lanes = {
  and: v128.and,
  or: v128.or,
  xor: v128.xor,
  every: (value: I32) => v128.i8x16_splat(i32.sub(0, value)),
  select: (condition: V128, a: V128, b: V128) => v128.bitselect(a, b, condition),
  get: (c: Semantics, i: number): V128 => c.f.let(c.getV(i)),
  set: (c: Semantics, value: V128) => c.setV(0, value),
  quietNan: scalarOnly,
  doubleBits: scalarOnly,
  setMask: (c: Semantics, condition: V128) => c.setV(0, condition),
};

/**
 * One test for all lanes: the exponents' two highest bits differ (magnitudes of 2**-511 to 2**512; of 2**-63 to 2**64).
 * It needs no constants, which V8 makes anew at every use.
 */
function inMiddle(
  vectors: readonly V128[],
  plain: I32,
  shl: (a: V128, count: number) => V128,
  bitmask: (a: V128) => I32,
  all: number,
): I32[] {
  const differ = vectors.map((a) => v128.xor(a, shl(a, 1))).reduce((a, b) => v128.and(a, b));
  return [plain, i32.eq(bitmask(shl(differ, 1)), all)];
}

export const SS: Real<'f32', 'i32'> = {
  ...bit,
  ...f32,
  shape: 0,
  suffix: 'SS',
  prefix: 'F3',
  size: 'd',
  least: SINGLE_LEAST,
  constant: f32.const,
  integral: [f32.nearest, f32.floor, f32.ceil, f32.trunc],
  select,
  get: (c, i) => c.f.let(c.sse.getF32(i)),
  set: (c, value) => c.sse.setF32(0, value),
  // A double has more than twice the bits.
  productExact: (a, b, r) => f64.eq(f64.mul(f64.promote(a), f64.promote(b)), f64.promote(r)),
  doubleBits: (a) => i64.reinterpret_f64(f64.promote(a)),
  quietNan: (a) => i32.eq(i32.and(i32.reinterpret_f32(a), 0x7fc00000), 0x7fc00000),
  setMask: (c, condition) => c.sse.setF32(0, f32.reinterpret_i32(i32.sub(0, condition))),
  usual: (operands, result, plain) => [
    ...operands.map((a) => i32.and(i32.reinterpret_f32(a), 0x7f800000)),
    ...(result === null ? [] : [i32.and(i32.add(i32.shr_u(i32.reinterpret_f32(result), 20), 16), plain)]),
  ],
};

const QUIET = 0x7ff8000000000000n;

/** Zero bits at the end of the significand. */
const zerosBelow = (a: F64): I64 => i64.ctz(i64.or(i64.reinterpret_f64(a), i64.const(1n << 52n)));

/** Sign, exponent and the first bits of the significand; sign and exponent alone. */
const sixteenBits = (a: F64): I32 => i32.wrap(i64.shr_u(i64.reinterpret_f64(a), 48));
const exponent = (a: F64): I32 => i32.wrap(i64.shr_u(i64.reinterpret_f64(a), 52));

export const SD: Real<'f64', 'i32'> = {
  ...bit,
  ...f64,
  shape: 1,
  suffix: 'SD',
  prefix: 'F2',
  size: 'q',
  least: DOUBLE_LEAST,
  constant: f64.const,
  integral: [f64.nearest, f64.floor, f64.ceil, f64.trunc],
  select,
  get: (c, i) => c.f.let(c.sse.getF64(i)),
  set: (c, value) => c.sse.setF64(0, value),
  // Both significands together have no more bits than one.
  productExact: (a, b, r) =>
    i32.and(i64.ge_u(i64.add(zerosBelow(a), zerosBelow(b)), 53), f64.eq(f64.mul(a, b), r)),
  doubleBits: i64.reinterpret_f64,
  quietNan: (a) => i64.eq(i64.and(i64.reinterpret_f64(a), i64.const(QUIET)), i64.const(QUIET)),
  setMask: (c, condition) => c.sse.setF64(0, f64.reinterpret_i64(i64.extend_s(i32.sub(0, condition)))),
  usual: (operands, result, plain) => [
    ...operands.map((a) => i32.and(sixteenBits(a), 0x7ff0)),
    ...(result === null ? [] : [i32.and(i32.add(exponent(result), 16), plain)]),
  ],
};

export const PS: Real<'v128', 'v128'> = {
  ...lanes,
  shape: 2,
  suffix: 'PS',
  prefix: 'NP',
  size: 'x',
  least: SINGLE_LEAST,
  constant: (value) => v128.f32x4_splat(f32.const(value)),
  add: v128.f32x4_add,
  sub: v128.f32x4_sub,
  mul: v128.f32x4_mul,
  div: v128.f32x4_div,
  sqrt: v128.f32x4_sqrt,
  abs: v128.f32x4_abs,
  integral: [v128.f32x4_nearest, v128.f32x4_floor, v128.f32x4_ceil, v128.f32x4_trunc],
  lt: v128.f32x4_lt,
  le: v128.f32x4_le,
  eq: v128.f32x4_eq,
  productExact: (a, b, r) => {
    const of = (half: (x: V128) => V128) => {
      const wide = (x: V128) => v128.f64x2_promote_low_f32x4(half(x));
      return v128.f64x2_eq(v128.f64x2_mul(wide(a), wide(b)), wide(r));
    };
    return v128.and(
      of((x) => x),
      of(highHalf),
    );
  },
  all: v128.i32x4_all_true,
  usual: (operands, result, plain) =>
    inMiddle(
      result === null ? operands : [...operands, result],
      plain,
      v128.i32x4_shl,
      v128.i32x4_bitmask,
      0xf,
    ),
};

export const PD: Real<'v128', 'v128'> = {
  ...lanes,
  shape: 3,
  suffix: 'PD',
  prefix: '66',
  size: 'x',
  least: DOUBLE_LEAST,
  constant: (value) => v128.f64x2_splat(f64.const(value)),
  add: v128.f64x2_add,
  sub: v128.f64x2_sub,
  mul: v128.f64x2_mul,
  div: v128.f64x2_div,
  sqrt: v128.f64x2_sqrt,
  abs: v128.f64x2_abs,
  integral: [v128.f64x2_nearest, v128.f64x2_floor, v128.f64x2_ceil, v128.f64x2_trunc],
  lt: v128.f64x2_lt,
  le: v128.f64x2_le,
  eq: v128.f64x2_eq,
  productExact: (a, b, r) => {
    const low = v128.and(v128.or(a, b), quads(0x7ffffffn, 0x7ffffffn));
    return v128.and(v128.i64x2_eq(low, ZERO), v128.f64x2_eq(v128.f64x2_mul(a, b), r));
  },
  all: v128.i64x2_all_true,
  usual: (operands, result, plain) =>
    inMiddle(
      result === null ? operands : [...operands, result],
      plain,
      v128.i64x2_shl,
      v128.i64x2_bitmask,
      3,
    ),
};

/** Zero, normal or infinite. */
export function ordinary<T extends ValType, B extends ValType>(real: Real<T, B>, a: Expr<T>): Expr<B> {
  return real.or(real.le(real.constant(real.least), real.abs(a)), isZero(real, a));
}

/** Above the least normal number (it was not rounded up from a tiny one), and finite. */
export function within<T extends ValType, B extends ValType>(real: Real<T, B>, a: Expr<T>): Expr<B> {
  const magnitude = real.abs(a);
  return real.and(real.lt(real.constant(real.least), magnitude), real.lt(magnitude, real.constant(Infinity)));
}

export function isZero<T extends ValType, B extends ValType>(real: Real<T, B>, a: Expr<T>): Expr<B> {
  return real.eq(a, real.constant(0));
}

export function isInfinite<T extends ValType, B extends ValType>(real: Real<T, B>, a: Expr<T>): Expr<B> {
  return real.eq(real.abs(a), real.constant(Infinity));
}

/** The operands of this shape, of those given, of which it is not known that they are ordinary. */
export function unknown<T>(c: Semantics, shape: Shape, operands: readonly (readonly [number, T])[]): T[] {
  return operands.filter(([i]) => !c.sse.knows(i, shape)).map(([, value]) => value);
}
