/**
 * Vector arithmetic that MMX and SSE share, as expressions on 128 bits.
 *
 * An MMX operand is the low half of a vector, zero above; what is left in the upper half of a result is not stored.
 * So whatever works lane by lane is the same function for both. Immediates come at run time (interpreter) or as
 * constants (translator): functions of an immediate emit the one instruction where it is known.
 */
import {
  Const,
  type I32,
  type I32Like,
  type I64,
  i32,
  i64,
  select,
  type V128,
  v128,
} from '../../wasm/index.ts';
import type { Semantics } from './semantics.ts';

/** Constant of lanes of `bits`, low lane first; a short list repeats. */
function lanes(bits: number, values: readonly number[]): V128 {
  const halves = [0n, 0n];
  for (let i = 0; i < 128 / bits; i++) {
    const value = BigInt.asUintN(bits, BigInt(values[i % values.length]!));
    halves[Math.floor((i * bits) / 64)]! |= value << BigInt((i * bits) % 64);
  }
  return v128.const(halves[0]!, halves[1]!);
}

export const bytes = (...values: number[]): V128 => lanes(8, values);
export const words = (...values: number[]): V128 => lanes(16, values);
export const dwords = (...values: number[]): V128 => lanes(32, values);
export const quads = (low: bigint, high: bigint): V128 =>
  v128.const(BigInt.asUintN(64, low), BigInt.asUintN(64, high));
export const ZERO = v128.const(0n, 0n);
export const IOTA = bytes(...Array(16).keys());

/** The value of an expression where it is known while code is emitted. */
export function known(value: I64): number | undefined {
  return value instanceof Const ? Number(value.value) : undefined;
}

/** The immediate byte. */
export interface Immediate {
  readonly value: I32;
  readonly known: number | undefined;
}

export function immediate(c: Semantics): Immediate {
  const value = c.immediate();
  const number = known(value);
  if (number !== undefined) return { value: i32.const(number & 0xff), known: number & 0xff };
  return { value: c.f.let(i32.and(i32.wrap(value), 0xff)), known: undefined };
}

/** Reads vectors once: every use of the result is the same value. */
export const vector = (c: Semantics, i: number): V128 => c.f.let(c.getV(i));

/** The low half with zeros above. */
export const lowHalf = (a: V128): V128 =>
  v128.shuffle(a, ZERO, [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23]);
/** Low half of a, low half of b above it. */
export const join = (a: V128, b: V128): V128 =>
  v128.shuffle(a, b, [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23]);
/** The high half moved to the low half. */
export const highHalf = (a: V128): V128 =>
  v128.shuffle(a, ZERO, [8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23]);

/** Byte numbers of a static shuffle that takes lanes of `size` bytes; lanes of the second vector count on. */
export const byLanes = (size: number, ...list: number[]): number[] =>
  list.flatMap((lane) => Array.from({ length: size }, (_, i) => lane * size + i));

/** Interleaves the low (high) halves of two vectors in lanes of `size` bytes. */
export function unpack(size: number, high: boolean): (a: V128, b: V128) => V128 {
  const count = 16 / size;
  const first = high ? count / 2 : 0;
  const list = Array.from({ length: count }, (_, i) => first + (i >> 1) + (i & 1) * count);
  const order = byLanes(size, ...list);
  return (a, b) => v128.shuffle(a, b, order);
}

/** All bytes moved down by `count` (0..16, or more) places; zeros come in. */
export function bytesDown(a: V128, { value, known }: Immediate): V128 {
  if (known !== undefined) {
    const n = Math.min(known, 16);
    return v128.shuffle(
      a,
      ZERO,
      Array.from({ length: 16 }, (_, i) => Math.min(i + n, 16)),
    );
  }
  return v128.swizzle(a, v128.i8x16_add(IOTA, v128.i8x16_splat(atMost(value, 16))));
}

export function bytesUp(a: V128, { value, known }: Immediate): V128 {
  if (known !== undefined) {
    const n = Math.min(known, 16);
    return v128.shuffle(
      a,
      ZERO,
      Array.from({ length: 16 }, (_, i) => (i >= n ? i - n : 16)),
    );
  }
  return v128.swizzle(a, v128.i8x16_sub(IOTA, v128.i8x16_splat(atMost(value, 16))));
}

export function atMost(value: I32, limit: number): I32 {
  return select(i32.lt_u(value, limit), value, i32.const(limit));
}

/** PALIGNR: the bytes from `count` on of `low` with `high` behind it. */
export function align(low: V128, high: V128, { value, known }: Immediate): V128 {
  if (known !== undefined) {
    if (known >= 16) return bytesDown(high, { value, known: known - 16 });
    return v128.shuffle(
      low,
      high,
      Array.from({ length: 16 }, (_, i) => i + known),
    );
  }
  const index = v128.i8x16_add(IOTA, v128.i8x16_splat(atMost(value, 32)));
  return v128.or(v128.swizzle(low, index), v128.swizzle(high, v128.i8x16_sub(index, bytes(16))));
}

/** Two bits of the immediate for each dword: index of the dword that it gets. */
function dwordIndex(value: I32): V128 {
  const fields = v128.and(v128.i32x4_mul(v128.i32x4_splat(value), dwords(64, 16, 4, 1)), dwords(0xc0));
  const four = v128.i32x4_shr_u(fields, 4);
  return v128.or(
    v128.shuffle(four, four, [0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12]),
    bytes(0, 1, 2, 3),
  );
}

/** PSHUFD: dword i of the result is dword imm[2i+1:2i]. */
export function shuffleDwords(a: V128, { value, known }: Immediate): V128 {
  if (known === undefined) return v128.swizzle(a, dwordIndex(value));
  return v128.shuffle(a, a, byLanes(4, known & 3, (known >> 2) & 3, (known >> 4) & 3, (known >> 6) & 3));
}

/** PSHUFLW and PSHUFHW: the four words of one half; the other stays. */
export function shuffleWords(a: V128, { value, known }: Immediate, high: boolean): V128 {
  const first = high ? 4 : 0;
  if (known !== undefined) {
    const four = [0, 2, 4, 6].map((shift) => first + ((known >> shift) & 3));
    return v128.shuffle(a, a, byLanes(2, ...(high ? [0, 1, 2, 3, ...four] : [...four, 4, 5, 6, 7])));
  }
  // Multipliers of zero leave the index of the other half at what is or-ed in.
  const by = high ? [0, 0, 0, 0, 64, 16, 4, 1] : [64, 16, 4, 1, 0, 0, 0, 0];
  const fields = v128.and(v128.i16x8_mul(v128.i16x8_splat(value), words(...by)), words(0xc0));
  const two = v128.i16x8_shr_u(fields, 5);
  const pairs = v128.or(two, v128.i16x8_shl(two, 8));
  const base = high ? [0, 2, 4, 6, 8, 8, 8, 8] : [0, 0, 0, 0, 8, 10, 12, 14];
  return v128.swizzle(a, v128.i8x16_add(pairs, words(...base.map((b) => b | ((b + 1) << 8)))));
}

/** SHUFPS: two dwords of a, then two of b. */
export function shufflePair(a: V128, b: V128, imm: Immediate): V128 {
  const { known } = imm;
  if (known !== undefined)
    return v128.shuffle(
      a,
      b,
      byLanes(4, known & 3, (known >> 2) & 3, 4 + ((known >> 4) & 3), 4 + ((known >> 6) & 3)),
    );
  return v128.shuffle(shuffleDwords(a, imm), shuffleDwords(b, imm), byLanes(8, 0, 3));
}

/** A mask with all bits of lane i (of `bits` bits) set where bit i of the immediate is; bits beyond are ignored. */
export function laneMask(bits: 16 | 32 | 64, { value, known }: Immediate): V128 {
  const count = 128 / bits;
  const single = Array.from({ length: count }, (_, i) => 1 << i);
  if (known !== undefined)
    return lanes(
      bits,
      single.map((one) => (known & one ? -1 : 0)),
    );
  const bit = lanes(bits, single);
  if (bits === 16) return v128.i16x8_eq(v128.and(v128.i16x8_splat(value), bit), bit);
  if (bits === 32) return v128.i32x4_eq(v128.and(v128.i32x4_splat(value), bit), bit);
  return v128.i64x2_eq(v128.and(v128.i64x2_splat(i64.extend_u(value)), bit), bit);
}

type Shift = (a: V128, count: I32Like) => V128;

/** A shift by the low 64 bits of a register, or by an immediate: counts beyond the lane give zeros (the sign). */
export function shiftLanes(shift: Shift, bits: number, arithmetic: boolean): (a: V128, count: I64) => V128 {
  return (a, count) => {
    const n = known(count);
    if (n !== undefined) {
      if (n < bits) return shift(a, n);
      return arithmetic ? shift(a, bits - 1) : ZERO;
    }
    const beyond = i64.gt_u(count, bits - 1);
    if (arithmetic) return shift(a, select(beyond, i32.const(bits - 1), i32.wrap(count)));
    return select(beyond, ZERO, shift(a, i32.wrap(count)));
  };
}
