/**
 * Floating point in WebAssembly where it is what SSE does: the four shapes of an instruction (scalar and packed,
 * single and double) behind one set of names, so that a rule is written once.
 *
 * WebAssembly rounds to nearest, keeps denormals and raises no flags. So its result stands only where MXCSR asks for
 * that (see `plain`), operands are zero or normal (a denormal raises #D, a NaN has rules of its own), and the result
 * can neither overflow nor be tiny. Everything else is decided by the host's SseFloat, which knows all the rules.
 */
import {
  type Expr,
  f32,
  f64,
  type I32,
  i32,
  i64,
  select,
  type V128,
  type ValType,
  v128,
} from '../../wasm/index.ts';
import { CPU } from '../state.ts';
import type { Semantics } from './semantics.ts';

/** T: type of a value; B: what a comparison gives, one bit or a mask. */
export interface Real<T extends ValType = ValType, B extends ValType = ValType> {
  /** Added to the number of the ss operation (see SSE_FLOAT). */
  readonly shape: number;
  readonly suffix: 'SS' | 'SD' | 'PS' | 'PD';
  readonly prefix: 'F3' | 'F2' | 'NP' | '66';
  /** Operand size letter. */
  readonly size: 'd' | 'q' | 'x';
  /** Least normal magnitude. */
  readonly least: number;
  load(address: I32): Expr<T>;
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
  /** Ones in all bits of lanes that say yes. */
  mask(condition: Expr<B>): Expr;
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

const lanes = {
  and: v128.and,
  or: v128.or,
  xor: v128.xor,
  every: (value: I32) => v128.i8x16_splat(i32.sub(0, value)),
  select: (condition: V128, a: V128, b: V128) => v128.bitselect(a, b, condition),
  mask: (condition: V128) => condition,
  load: (address: I32) => v128.load(address),
};

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
  mask: (condition) => i32.sub(0, condition),
};

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
  mask: (condition) => i64.extend_s(i32.sub(0, condition)),
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
  all: v128.i32x4_all_true,
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
  all: v128.i64x2_all_true,
};

/**
 * MXCSR: all exceptions masked, to nearest, no DAZ, no FTZ, and PE set already, so that nobody need ask whether a
 * result is exact.
 */
export function plain(c: Semantics): I32 {
  return i32.eq(i32.and(i32.load(c.cpu, CPU.mxcsr), ~0x1f), 0x1fa0);
}

/** Zero, normal or infinite. */
export function ordinary<T extends ValType, B extends ValType>(real: Real<T, B>, a: Expr<T>): Expr<B> {
  return real.or(real.le(real.constant(real.least), real.abs(a)), real.eq(a, real.constant(0)));
}

/** Neither an infinity nor a NaN. */
export function finite<T extends ValType, B extends ValType>(real: Real<T, B>, a: Expr<T>): Expr<B> {
  return real.lt(real.abs(a), real.constant(Infinity));
}

/** Above the least normal number: it was not rounded up from a tiny one. */
export function notTiny<T extends ValType, B extends ValType>(real: Real<T, B>, a: Expr<T>): Expr<B> {
  return real.lt(real.constant(real.least), real.abs(a));
}
