/**
 * WebAssembly expressions as trees: built by name (`i64.add(a, b)`), written to a function body in one go.
 * A tree is pure description; it is evaluated where the statement that holds it stands, so a value that must not
 * change meanwhile belongs in a local (`Func.let`).
 */
import type { Bytes } from './bytes.ts';

export type ValType = 'i32' | 'i64' | 'f32' | 'f64' | 'v128';

export interface Expr<T extends ValType = ValType> {
  readonly type: T;
  /** It has the same value wherever it is written. */
  readonly stable?: boolean;
  write(out: Bytes): void;
}

export type I32 = Expr<'i32'>;
export type I64 = Expr<'i64'>;
export type F32 = Expr<'f32'>;
export type F64 = Expr<'f64'>;
export type V128 = Expr<'v128'>;
/** A number stands for a constant of the type that is wanted. */
export type I32Like = I32 | number;
export type I64Like = I64 | number | bigint;

export class Const<T extends 'i32' | 'i64' = 'i32' | 'i64'> implements Expr<T> {
  readonly type: T;
  readonly value: number | bigint;

  constructor(type: T, value: number | bigint) {
    this.type = type;
    this.value = value;
  }

  write(out: Bytes): void {
    if (this.type === 'i32') {
      out.u8(0x41);
      out.s32(Number(this.value));
    } else {
      out.u8(0x42);
      out.s64(this.value);
    }
  }
}

class Op<T extends ValType> implements Expr<T> {
  readonly type: T;
  private readonly code: readonly number[];
  private readonly args: readonly Expr[];

  constructor(type: T, code: readonly number[], args: readonly Expr[]) {
    this.type = type;
    this.code = code;
    this.args = args;
  }

  write(out: Bytes): void {
    for (const arg of this.args) arg.write(out);
    for (const byte of this.code) out.u8(byte);
  }
}

/** An address that is another one plus a constant, which loads and stores take with them; the sum must not wrap. */
export class Displaced implements Expr<'i32'> {
  readonly type = 'i32';
  readonly stable = true;
  readonly base: I32;
  readonly offset: number;

  /** @param base a variable that is not set again */
  constructor(base: I32, offset: number) {
    this.base = base;
    this.offset = offset;
  }

  write(out: Bytes): void {
    i32.add(this.base, this.offset).write(out);
  }
}

export function displaced(address: I32, offset: number): { base: I32; offset: number } {
  if (!(address instanceof Displaced)) return { base: address, offset };
  return { base: address.base, offset: address.offset + offset };
}

class Load<T extends ValType> implements Expr<T> {
  readonly type: T;
  private readonly code: readonly number[];
  private readonly address: I32;
  private readonly offset: number;

  constructor(type: T, code: readonly number[], address: I32, offset: number) {
    const place = displaced(address, offset);
    this.type = type;
    this.code = code;
    this.address = place.base;
    this.offset = place.offset;
  }

  write(out: Bytes): void {
    this.address.write(out);
    for (const byte of this.code) out.u8(byte);
    out.u8(0); // alignment hint: none
    out.u32(this.offset);
  }
}

/** SIMD opcodes have the prefix 0xfd and a LEB128 number. */
export function simd(code: number): number[] {
  return code < 0x80 ? [0xfd, code] : [0xfd, (code & 0x7f) | 0x80, code >> 7];
}

const asI32 = (x: I32Like): I32 => (typeof x === 'number' ? new Const('i32', x) : x);
const asI64 = (x: I64Like): I64 => (typeof x === 'object' ? x : new Const('i64', x));

const un32 = (code: number) => {
  const codes = [code];
  return (a: I32Like) => new Op('i32', codes, [asI32(a)]);
};
/** The number of a constant expression, else null: what is known while emitting is computed while emitting. */
export function constantOf(x: Expr | number | bigint): bigint | null {
  if (typeof x !== 'object') return BigInt(x);
  return x instanceof Const ? BigInt(x.value) : null;
}

const isConstant = (x: Expr | number | bigint) => typeof x !== 'object' || x instanceof Const;
const isZero = (x: Expr | number | bigint) => {
  const value = x instanceof Const ? x.value : x;
  return value === 0 || value === 0n;
};

type Folding<T> = (a: bigint, b: bigint) => T;

/** What is computed while emitting, if both are known; null: they are not. */
function folded<T>(
  fold: Folding<T> | undefined,
  a: Expr | number | bigint,
  b: Expr | number | bigint,
): T | null {
  if (fold === undefined || !isConstant(a) || !isConstant(b)) return null;
  return fold(constantOf(a)!, constantOf(b)!);
}

const bin32 = (code: number, fold?: Folding<bigint>) => {
  const codes = [code];
  return (a: I32Like, b: I32Like): I32 => {
    const known = folded(fold, a, b);
    if (known !== null) return new Const('i32', Number(BigInt.asIntN(32, known)));
    return new Op('i32', codes, [asI32(a), asI32(b)]);
  };
};
const un64 = (code: number) => {
  const codes = [code];
  return (a: I64Like) => new Op('i64', codes, [asI64(a)]);
};
const bin64 = (code: number, fold?: Folding<bigint>) => {
  const codes = [code];
  return (a: I64Like, b: I64Like): I64 => {
    const known = folded(fold, a, b);
    if (known !== null) return new Const('i64', BigInt.asIntN(64, known));
    return new Op('i64', codes, [asI64(a), asI64(b)]);
  };
};
const cmp64 = (code: number, fold?: Folding<boolean>) => {
  const codes = [code];
  return (a: I64Like, b: I64Like): I32 => {
    const known = folded(fold, a, b);
    if (known !== null) return new Const('i32', known ? 1 : 0);
    return new Op('i32', codes, [asI64(a), asI64(b)]);
  };
};
const add64 = bin64(0x7c, (a, b) => a + b);
const load =
  <T extends ValType>(type: T, ...code: number[]) =>
  (address: I32, offset = 0) =>
    new Load(type, code, address, offset) as Expr<T>;

export const i32 = {
  const: (value: number) => new Const('i32', value) as I32,
  load: load('i32', 0x28),
  load8s: load('i32', 0x2c),
  load8u: load('i32', 0x2d),
  load16s: load('i32', 0x2e),
  load16u: load('i32', 0x2f),
  eqz: un32(0x45),
  eq: bin32(0x46),
  ne: bin32(0x47),
  lt_s: bin32(0x48),
  lt_u: bin32(0x49),
  gt_s: bin32(0x4a),
  gt_u: bin32(0x4b),
  le_s: bin32(0x4c),
  le_u: bin32(0x4d),
  ge_s: bin32(0x4e),
  ge_u: bin32(0x4f),
  clz: un32(0x67),
  ctz: un32(0x68),
  popcnt: un32(0x69),
  add: (a: I32Like, b: I32Like): I32 => (b === 0 ? asI32(a) : bin32(0x6a)(a, b)),
  sub: bin32(0x6b),
  mul: bin32(0x6c),
  div_s: bin32(0x6d),
  div_u: bin32(0x6e),
  rem_s: bin32(0x6f),
  rem_u: bin32(0x70),
  and: bin32(0x71, (a, b) => a & b),
  or: bin32(0x72, (a, b) => a | b),
  xor: bin32(0x73),
  shl: bin32(0x74),
  shr_s: bin32(0x75),
  shr_u: bin32(0x76),
  rotl: bin32(0x77),
  rotr: bin32(0x78),
  wrap: (a: I64Like): I32 => new Op('i32', [0xa7], [asI64(a)]),
  extend8_s: un32(0xc0),
  extend16_s: un32(0xc1),
  reinterpret_f32: (a: F32): I32 => new Op('i32', [0xbc], [a]),
};

export const i64 = {
  const: (value: number | bigint) => new Const('i64', value) as I64,
  load: load('i64', 0x29),
  load8s: load('i64', 0x30),
  load8u: load('i64', 0x31),
  load16s: load('i64', 0x32),
  load16u: load('i64', 0x33),
  load32s: load('i64', 0x34),
  load32u: load('i64', 0x35),
  eqz: (a: I64Like): I32 => new Op('i32', [0x50], [asI64(a)]),
  eq: cmp64(0x51, (a, b) => a === b),
  ne: cmp64(0x52, (a, b) => a !== b),
  lt_s: cmp64(0x53),
  lt_u: cmp64(0x54),
  gt_s: cmp64(0x55),
  gt_u: cmp64(0x56),
  le_s: cmp64(0x57),
  le_u: cmp64(0x58),
  ge_s: cmp64(0x59),
  ge_u: cmp64(0x5a),
  clz: un64(0x79),
  ctz: un64(0x7a),
  popcnt: un64(0x7b),
  add: (a: I64Like, b: I64Like): I64 => (isZero(b) ? asI64(a) : isZero(a) ? asI64(b) : add64(a, b)),
  sub: bin64(0x7d, (a, b) => a - b),
  mul: bin64(0x7e),
  div_s: bin64(0x7f),
  div_u: bin64(0x80),
  rem_s: bin64(0x81),
  rem_u: bin64(0x82),
  and: bin64(0x83, (a, b) => a & b),
  or: bin64(0x84, (a, b) => a | b),
  xor: bin64(0x85, (a, b) => a ^ b),
  shl: bin64(0x86),
  shr_s: bin64(0x87),
  shr_u: bin64(0x88),
  rotl: bin64(0x89),
  rotr: bin64(0x8a),
  extend_s: (a: I32Like): I64 => new Op('i64', [0xac], [asI32(a)]),
  extend_u: (a: I32Like): I64 => new Op('i64', [0xad], [asI32(a)]),
  extend8_s: un64(0xc2),
  extend16_s: un64(0xc3),
  extend32_s: un64(0xc4),
  reinterpret_f64: (a: F64): I64 => new Op('i64', [0xbd], [a]),
};

const fun =
  <T extends ValType>(type: T, code: number) =>
  (a: Expr<T>) =>
    new Op(type, [code], [a]) as Expr<T>;
const fbin =
  <T extends ValType>(type: T, code: number) =>
  (a: Expr<T>, b: Expr<T>) =>
    new Op(type, [code], [a, b]) as Expr<T>;
const fcmp =
  <T extends ValType>(code: number) =>
  (a: Expr<T>, b: Expr<T>): I32 =>
    new Op('i32', [code], [a, b]);

export const f32 = {
  const: (value: number): F32 => {
    const bits = new DataView(new ArrayBuffer(4));
    bits.setFloat32(0, value, true);
    return new Op('f32', [0x43, ...new Uint8Array(bits.buffer)], []);
  },
  load: load('f32', 0x2a),
  eq: fcmp<'f32'>(0x5b),
  ne: fcmp<'f32'>(0x5c),
  lt: fcmp<'f32'>(0x5d),
  gt: fcmp<'f32'>(0x5e),
  le: fcmp<'f32'>(0x5f),
  ge: fcmp<'f32'>(0x60),
  abs: fun('f32', 0x8b),
  neg: fun('f32', 0x8c),
  ceil: fun('f32', 0x8d),
  floor: fun('f32', 0x8e),
  trunc: fun('f32', 0x8f),
  nearest: fun('f32', 0x90),
  sqrt: fun('f32', 0x91),
  add: fbin('f32', 0x92),
  sub: fbin('f32', 0x93),
  mul: fbin('f32', 0x94),
  div: fbin('f32', 0x95),
  convert_i32: (a: I32): F32 => new Op('f32', [0xb2], [a]),
  convert_i64: (a: I64): F32 => new Op('f32', [0xb4], [a]),
  demote: (a: F64): F32 => new Op('f32', [0xb6], [a]),
  reinterpret_i32: (a: I32): F32 => new Op('f32', [0xbe], [a]),
  /** i32.trunc_sat_f32_s, i64.trunc_sat_f32_s */
  to_i32: (a: F32): I32 => new Op('i32', [0xfc, 0x00], [a]),
  to_i64: (a: F32): I64 => new Op('i64', [0xfc, 0x04], [a]),
};

export const f64 = {
  const: (value: number): F64 => {
    const bits = new DataView(new ArrayBuffer(8));
    bits.setFloat64(0, value, true);
    return new Op('f64', [0x44, ...new Uint8Array(bits.buffer)], []);
  },
  load: load('f64', 0x2b),
  eq: fcmp<'f64'>(0x61),
  ne: fcmp<'f64'>(0x62),
  lt: fcmp<'f64'>(0x63),
  gt: fcmp<'f64'>(0x64),
  le: fcmp<'f64'>(0x65),
  ge: fcmp<'f64'>(0x66),
  abs: fun('f64', 0x99),
  neg: fun('f64', 0x9a),
  ceil: fun('f64', 0x9b),
  floor: fun('f64', 0x9c),
  trunc: fun('f64', 0x9d),
  nearest: fun('f64', 0x9e),
  sqrt: fun('f64', 0x9f),
  add: fbin('f64', 0xa0),
  sub: fbin('f64', 0xa1),
  mul: fbin('f64', 0xa2),
  div: fbin('f64', 0xa3),
  convert_i32: (a: I32): F64 => new Op('f64', [0xb7], [a]),
  convert_i64: (a: I64): F64 => new Op('f64', [0xb9], [a]),
  promote: (a: F32): F64 => new Op('f64', [0xbb], [a]),
  reinterpret_i64: (a: I64): F64 => new Op('f64', [0xbf], [a]),
  /** i32.trunc_sat_f64_s, i64.trunc_sat_f64_s */
  to_i32: (a: F64): I32 => new Op('i32', [0xfc, 0x02], [a]),
  to_i64: (a: F64): I64 => new Op('i64', [0xfc, 0x06], [a]),
};

const v1 = (code: number) => (a: V128) => new Op('v128', simd(code), [a]) as V128;
const v2 = (code: number) => (a: V128, b: V128) => new Op('v128', simd(code), [a, b]) as V128;
const vshift = (code: number) => (a: V128, count: I32Like) =>
  new Op('v128', simd(code), [a, asI32(count)]) as V128;
const vtest =
  (code: number) =>
  (a: V128): I32 =>
    new Op('i32', simd(code), [a]);

/** Vector operations, by their names in the specification with the dot as an underscore. */
export const v128 = {
  load: load('v128', 0xfd, 0x00),
  load32_zero: load('v128', 0xfd, 0x5c),
  load64_zero: load('v128', 0xfd, 0x5d),
  /** A constant of two i64 halves. */
  const: (low: bigint, high: bigint): V128 => {
    const bytes: number[] = [];
    for (const half of [low, high])
      for (let i = 0; i < 8; i++) bytes.push(Number((half >> BigInt(8 * i)) & 255n));
    return new Op('v128', [...simd(0x0c), ...bytes], []);
  },
  shuffle: (a: V128, b: V128, lanes: readonly number[]): V128 =>
    new Op('v128', [...simd(0x0d), ...lanes], [a, b]),
  swizzle: v2(0x0e),
  i8x16_splat: (a: I32Like): V128 => new Op('v128', simd(0x0f), [asI32(a)]),
  i16x8_splat: (a: I32Like): V128 => new Op('v128', simd(0x10), [asI32(a)]),
  i32x4_splat: (a: I32Like): V128 => new Op('v128', simd(0x11), [asI32(a)]),
  i64x2_splat: (a: I64Like): V128 => new Op('v128', simd(0x12), [asI64(a)]),
  i32x4_extract: (a: V128, lane: number): I32 => new Op('i32', [...simd(0x1b), lane], [a]),
  i64x2_extract: (a: V128, lane: number): I64 => new Op('i64', [...simd(0x1d), lane], [a]),
  i64x2_replace: (a: V128, lane: number, b: I64Like): V128 =>
    new Op('v128', [...simd(0x1e), lane], [a, asI64(b)]),
  i8x16_eq: v2(0x23),
  i8x16_gt_s: v2(0x27),
  i8x16_lt_u: v2(0x26),
  i16x8_eq: v2(0x2d),
  i16x8_gt_s: v2(0x31),
  i32x4_eq: v2(0x37),
  i32x4_gt_s: v2(0x3b),
  i64x2_eq: v2(0xd6),
  i64x2_gt_s: v2(0xd9),
  not: v1(0x4d),
  and: v2(0x4e),
  /** a & ~b */
  andnot: v2(0x4f),
  or: v2(0x50),
  xor: v2(0x51),
  bitselect: (a: V128, b: V128, mask: V128): V128 => new Op('v128', simd(0x52), [a, b, mask]),
  any_true: vtest(0x53),
  i8x16_abs: v1(0x60),
  i8x16_neg: v1(0x61),
  i8x16_popcnt: v1(0x62),
  i8x16_bitmask: vtest(0x64),
  i8x16_narrow_i16x8_s: v2(0x65),
  i8x16_narrow_i16x8_u: v2(0x66),
  i8x16_shl: vshift(0x6b),
  i8x16_shr_u: vshift(0x6d),
  i8x16_add: v2(0x6e),
  i8x16_add_sat_s: v2(0x6f),
  i8x16_add_sat_u: v2(0x70),
  i8x16_sub: v2(0x71),
  i8x16_sub_sat_s: v2(0x72),
  i8x16_sub_sat_u: v2(0x73),
  i8x16_min_s: v2(0x76),
  i8x16_min_u: v2(0x77),
  i8x16_max_s: v2(0x78),
  i8x16_max_u: v2(0x79),
  i8x16_avgr_u: v2(0x7b),
  i16x8_extadd_pairwise_i8x16_s: v1(0x7c),
  i16x8_extadd_pairwise_i8x16_u: v1(0x7d),
  i32x4_extadd_pairwise_i16x8_s: v1(0x7e),
  i32x4_extadd_pairwise_i16x8_u: v1(0x7f),
  i16x8_abs: v1(0x80),
  i16x8_neg: v1(0x81),
  i16x8_q15mulr_sat_s: v2(0x82),
  i16x8_narrow_i32x4_s: v2(0x85),
  i16x8_narrow_i32x4_u: v2(0x86),
  i16x8_extend_low_i8x16_s: v1(0x87),
  i16x8_extend_high_i8x16_s: v1(0x88),
  i16x8_extend_low_i8x16_u: v1(0x89),
  i16x8_extend_high_i8x16_u: v1(0x8a),
  i16x8_shl: vshift(0x8b),
  i16x8_shr_s: vshift(0x8c),
  i16x8_shr_u: vshift(0x8d),
  i16x8_add: v2(0x8e),
  i16x8_add_sat_s: v2(0x8f),
  i16x8_add_sat_u: v2(0x90),
  i16x8_sub: v2(0x91),
  i16x8_sub_sat_s: v2(0x92),
  i16x8_sub_sat_u: v2(0x93),
  i16x8_mul: v2(0x95),
  i16x8_min_s: v2(0x96),
  i16x8_min_u: v2(0x97),
  i16x8_max_s: v2(0x98),
  i16x8_max_u: v2(0x99),
  i16x8_avgr_u: v2(0x9b),
  i16x8_extmul_low_i8x16_u: v2(0x9e),
  i32x4_abs: v1(0xa0),
  i32x4_neg: v1(0xa1),
  i32x4_bitmask: vtest(0xa4),
  i32x4_extend_low_i16x8_s: v1(0xa7),
  i32x4_extend_high_i16x8_s: v1(0xa8),
  i32x4_extend_low_i16x8_u: v1(0xa9),
  i32x4_extend_high_i16x8_u: v1(0xaa),
  i32x4_shl: vshift(0xab),
  i32x4_shr_s: vshift(0xac),
  i32x4_shr_u: vshift(0xad),
  i32x4_add: v2(0xae),
  i32x4_sub: v2(0xb1),
  i32x4_mul: v2(0xb5),
  i32x4_min_s: v2(0xb6),
  i32x4_min_u: v2(0xb7),
  i32x4_max_s: v2(0xb8),
  i32x4_max_u: v2(0xb9),
  i32x4_dot_i16x8_s: v2(0xba),
  i32x4_extmul_low_i16x8_s: v2(0xbc),
  i32x4_extmul_high_i16x8_s: v2(0xbd),
  i32x4_extmul_low_i16x8_u: v2(0xbe),
  i32x4_extmul_high_i16x8_u: v2(0xbf),
  i64x2_bitmask: vtest(0xc4),
  i64x2_extend_low_i32x4_s: v1(0xc7),
  i64x2_extend_high_i32x4_s: v1(0xc8),
  i64x2_extend_low_i32x4_u: v1(0xc9),
  i64x2_extend_high_i32x4_u: v1(0xca),
  i64x2_shl: vshift(0xcb),
  i64x2_shr_s: vshift(0xcc),
  i64x2_shr_u: vshift(0xcd),
  i64x2_add: v2(0xce),
  i64x2_sub: v2(0xd1),
  i64x2_mul: v2(0xd5),
  i64x2_extmul_low_i32x4_s: v2(0xdc),
  i64x2_extmul_low_i32x4_u: v2(0xde),
  i16x8_replace: (a: V128, lane: number, b: I32Like): V128 =>
    new Op('v128', [...simd(0x1a), lane], [a, asI32(b)]),
  i16x8_extract_u: (a: V128, lane: number): I32 => new Op('i32', [...simd(0x19), lane], [a]),
  i8x16_extract_u: (a: V128, lane: number): I32 => new Op('i32', [...simd(0x16), lane], [a]),
  i32x4_replace: (a: V128, lane: number, b: I32Like): V128 =>
    new Op('v128', [...simd(0x1c), lane], [a, asI32(b)]),
  i8x16_replace: (a: V128, lane: number, b: I32Like): V128 =>
    new Op('v128', [...simd(0x17), lane], [a, asI32(b)]),
  f32x4_extract: (a: V128, lane: number): F32 => new Op('f32', [...simd(0x1f), lane], [a]),
  f32x4_replace: (a: V128, lane: number, b: F32): V128 => new Op('v128', [...simd(0x20), lane], [a, b]),
  f64x2_extract: (a: V128, lane: number): F64 => new Op('f64', [...simd(0x21), lane], [a]),
  f64x2_replace: (a: V128, lane: number, b: F64): V128 => new Op('v128', [...simd(0x22), lane], [a, b]),
  i8x16_shr_s: vshift(0x6c),
  i64x2_neg: v1(0xc1),
  f32x4_splat: (a: F32): V128 => new Op('v128', simd(0x13), [a]),
  f64x2_splat: (a: F64): V128 => new Op('v128', simd(0x14), [a]),
  f32x4_eq: v2(0x41),
  f32x4_lt: v2(0x43),
  f32x4_le: v2(0x45),
  f64x2_eq: v2(0x47),
  f64x2_lt: v2(0x49),
  f64x2_le: v2(0x4b),
  f32x4_demote_f64x2_zero: v1(0x5e),
  f64x2_promote_low_f32x4: v1(0x5f),
  f32x4_ceil: v1(0x67),
  f32x4_floor: v1(0x68),
  f32x4_trunc: v1(0x69),
  f32x4_nearest: v1(0x6a),
  f64x2_ceil: v1(0x74),
  f64x2_floor: v1(0x75),
  f64x2_trunc: v1(0x7a),
  f64x2_nearest: v1(0x94),
  f32x4_abs: v1(0xe0),
  f32x4_sqrt: v1(0xe3),
  f64x2_abs: v1(0xec),
  f64x2_sqrt: v1(0xef),
  i64x2_all_true: vtest(0xc3),
  i32x4_all_true: vtest(0xa3),
  i32x4_trunc_sat_f32x4_s: v1(0xf8),
  f32x4_convert_i32x4_s: v1(0xfa),
  i32x4_trunc_sat_f64x2_s_zero: v1(0xfc),
  f64x2_convert_low_i32x4_s: v1(0xfe),
  f32x4_add: v2(0xe4),
  f32x4_sub: v2(0xe5),
  f32x4_mul: v2(0xe6),
  f32x4_div: v2(0xe7),
  f64x2_add: v2(0xf0),
  f64x2_sub: v2(0xf1),
  f64x2_mul: v2(0xf2),
  f64x2_div: v2(0xf3),
};

/** condition ? a : b, both evaluated. */
export function select<T extends ValType>(condition: I32, a: Expr<T>, b: Expr<T>): Expr<T> {
  return new Op(a.type, [0x1b], [a, b, condition]);
}
