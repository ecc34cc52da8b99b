/**
 * Packed integer operations of two operands that exist for MMX (no prefix) and SSE (66): one row, two instructions.
 * mmx.ts and sse-integer.ts make definitions of them.
 */
import { type I32Like, type V128, v128 } from '../../wasm/index.ts';
import { bytes, dwords, highHalf, join, shiftLanes, unpack, words, ZERO } from './sse-vector.ts';

export type Binary = (a: V128, b: V128) => V128;

export interface PackedOperation {
  readonly name: string;
  readonly opcode: string;
  readonly op: Binary;
  /** Where the low half of `op` is not the MMX instruction's result. */
  readonly mmx?: Binary;
  /** Bytes of an MMX memory operand, as a size letter. */
  readonly mmxSource?: string;
  readonly hot?: boolean;
}

/** |a - b| of unsigned bytes. */
const difference: Binary = (a, b) => v128.or(v128.i8x16_sub_sat_u(a, b), v128.i8x16_sub_sat_u(b, a));

const sumOfDifferences: Binary = (a, b) => {
  const four = v128.i32x4_extadd_pairwise_i16x8_u(v128.i16x8_extadd_pairwise_i8x16_u(difference(a, b)));
  // The partner's sum comes down from the odd dwords.
  return v128.and(v128.i32x4_add(four, v128.i64x2_shr_u(four, 32)), dwords(-1, 0));
};

const odd = [2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31];
const highWords = (low: V128, high: V128): V128 => v128.shuffle(low, high, odd);

/** Even dwords of both to 64 bits each. */
const evenDwords = (a: V128): V128 =>
  v128.shuffle(a, a, [0, 1, 2, 3, 8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11]);
export const mulEvenUnsigned: Binary = (a, b) => v128.i64x2_extmul_low_i32x4_u(evenDwords(a), evenDwords(b));
export const mulEvenSigned: Binary = (a, b) => v128.i64x2_extmul_low_i32x4_s(evenDwords(a), evenDwords(b));

/** b < 0: -a, b = 0: 0, else a. */
const sign =
  (shr: (a: V128, n: I32Like) => V128, bits: number, sub: Binary, eq: Binary): Binary =>
  (a, b) => {
    const negative = shr(b, bits - 1);
    return v128.andnot(sub(v128.xor(a, negative), negative), eq(b, ZERO));
  };

/** Adjacent pairs: the even ones of both operands against the odd ones. */
const pairs =
  (size: number, op: Binary): Binary =>
  (a, b) => {
    const lanes = (first: number) =>
      Array.from({ length: 16 }, (_, i) => 2 * size * Math.floor(i / size) + (i % size) + first * size);
    return op(v128.shuffle(a, b, lanes(0)), v128.shuffle(a, b, lanes(1)));
  };

/** The same of two halves: both are in one vector. */
const pairsMmx =
  (size: number, op: Binary): Binary =>
  (a, b) =>
    pairs(size, op)(join(a, b), ZERO);

const narrowMmx =
  (narrow: Binary): Binary =>
  (a, b) =>
    narrow(join(a, b), ZERO);

const unpackHighMmx =
  (size: number): Binary =>
  (a, b) =>
    highHalf(unpack(size, false)(a, b));

/** Unsigned bytes of a times signed bytes of b, pairs added with saturation. */
const mulAddBytes: Binary = (a, b) =>
  v128.i16x8_add_sat_s(
    v128.i16x8_mul(v128.and(a, words(0xff)), v128.i16x8_shr_s(v128.i16x8_shl(b, 8), 8)),
    v128.i16x8_mul(v128.i16x8_shr_u(a, 8), v128.i16x8_shr_s(b, 8)),
  );

/** WebAssembly saturates -1 times -1 (as fractions); x86 wraps to -1. */
const mulRound: Binary = (a, b) =>
  v128.xor(
    v128.i16x8_q15mulr_sat_s(a, b),
    v128.and(v128.i16x8_eq(a, words(0x8000)), v128.i16x8_eq(b, words(0x8000))),
  );

/** Indices with bit 7 give zero, of others the low bits count; swizzle gives zero for all above 15. */
const shuffleBytes =
  (mask: number): Binary =>
  (a, b) =>
    v128.swizzle(a, v128.and(b, bytes(mask)));

const not =
  (op: (a: V128) => V128): Binary =>
  (_a, b) =>
    op(b);

const row = (
  name: string,
  opcode: string,
  op: Binary,
  more: Partial<PackedOperation> = {},
): PackedOperation => ({
  name,
  opcode,
  op,
  ...more,
});

export const PACKED: readonly PackedOperation[] = [
  row('PUNPCKLBW', '0F 60', unpack(1, false), { mmxSource: 'd' }),
  row('PUNPCKLWD', '0F 61', unpack(2, false), { mmxSource: 'd' }),
  row('PUNPCKLDQ', '0F 62', unpack(4, false), { mmxSource: 'd' }),
  row('PACKSSWB', '0F 63', v128.i8x16_narrow_i16x8_s, { mmx: narrowMmx(v128.i8x16_narrow_i16x8_s) }),
  row('PCMPGTB', '0F 64', v128.i8x16_gt_s),
  row('PCMPGTW', '0F 65', v128.i16x8_gt_s),
  row('PCMPGTD', '0F 66', v128.i32x4_gt_s),
  row('PACKUSWB', '0F 67', v128.i8x16_narrow_i16x8_u, { mmx: narrowMmx(v128.i8x16_narrow_i16x8_u) }),
  row('PUNPCKHBW', '0F 68', unpack(1, true), { mmx: unpackHighMmx(1) }),
  row('PUNPCKHWD', '0F 69', unpack(2, true), { mmx: unpackHighMmx(2) }),
  row('PUNPCKHDQ', '0F 6A', unpack(4, true), { mmx: unpackHighMmx(4) }),
  row('PACKSSDW', '0F 6B', v128.i16x8_narrow_i32x4_s, { mmx: narrowMmx(v128.i16x8_narrow_i32x4_s) }),
  row('PCMPEQB', '0F 74', v128.i8x16_eq, { hot: true }),
  row('PCMPEQW', '0F 75', v128.i16x8_eq),
  row('PCMPEQD', '0F 76', v128.i32x4_eq, { hot: true }),
  row('PADDQ', '0F D4', v128.i64x2_add),
  row('PMULLW', '0F D5', v128.i16x8_mul),
  row('PSUBUSB', '0F D8', v128.i8x16_sub_sat_u),
  row('PSUBUSW', '0F D9', v128.i16x8_sub_sat_u),
  row('PMINUB', '0F DA', v128.i8x16_min_u, { hot: true }),
  row('PAND', '0F DB', v128.and),
  row('PADDUSB', '0F DC', v128.i8x16_add_sat_u),
  row('PADDUSW', '0F DD', v128.i16x8_add_sat_u),
  row('PMAXUB', '0F DE', v128.i8x16_max_u),
  row('PANDN', '0F DF', (a, b) => v128.andnot(b, a)),
  row('PAVGB', '0F E0', v128.i8x16_avgr_u),
  row('PAVGW', '0F E3', v128.i16x8_avgr_u),
  row('PMULHUW', '0F E4', (a, b) =>
    highWords(v128.i32x4_extmul_low_i16x8_u(a, b), v128.i32x4_extmul_high_i16x8_u(a, b)),
  ),
  row('PMULHW', '0F E5', (a, b) =>
    highWords(v128.i32x4_extmul_low_i16x8_s(a, b), v128.i32x4_extmul_high_i16x8_s(a, b)),
  ),
  row('PSUBSB', '0F E8', v128.i8x16_sub_sat_s),
  row('PSUBSW', '0F E9', v128.i16x8_sub_sat_s),
  row('PMINSW', '0F EA', v128.i16x8_min_s),
  row('POR', '0F EB', v128.or, { hot: true }),
  row('PADDSB', '0F EC', v128.i8x16_add_sat_s),
  row('PADDSW', '0F ED', v128.i16x8_add_sat_s),
  row('PMAXSW', '0F EE', v128.i16x8_max_s),
  row('PXOR', '0F EF', v128.xor, { hot: true }),
  row('PMULUDQ', '0F F4', mulEvenUnsigned),
  row('PMADDWD', '0F F5', v128.i32x4_dot_i16x8_s),
  row('PSADBW', '0F F6', sumOfDifferences),
  row('PSUBB', '0F F8', v128.i8x16_sub),
  row('PSUBW', '0F F9', v128.i16x8_sub),
  row('PSUBD', '0F FA', v128.i32x4_sub),
  row('PSUBQ', '0F FB', v128.i64x2_sub),
  row('PADDB', '0F FC', v128.i8x16_add),
  row('PADDW', '0F FD', v128.i16x8_add),
  row('PADDD', '0F FE', v128.i32x4_add),
  // SSSE3
  row('PSHUFB', '0F 38 00', shuffleBytes(0x8f), { mmx: shuffleBytes(0x87) }),
  row('PHADDW', '0F 38 01', pairs(2, v128.i16x8_add), { mmx: pairsMmx(2, v128.i16x8_add) }),
  row('PHADDD', '0F 38 02', pairs(4, v128.i32x4_add), { mmx: pairsMmx(4, v128.i32x4_add) }),
  row('PHADDSW', '0F 38 03', pairs(2, v128.i16x8_add_sat_s), { mmx: pairsMmx(2, v128.i16x8_add_sat_s) }),
  row('PMADDUBSW', '0F 38 04', mulAddBytes),
  row('PHSUBW', '0F 38 05', pairs(2, v128.i16x8_sub), { mmx: pairsMmx(2, v128.i16x8_sub) }),
  row('PHSUBD', '0F 38 06', pairs(4, v128.i32x4_sub), { mmx: pairsMmx(4, v128.i32x4_sub) }),
  row('PHSUBSW', '0F 38 07', pairs(2, v128.i16x8_sub_sat_s), { mmx: pairsMmx(2, v128.i16x8_sub_sat_s) }),
  row('PSIGNB', '0F 38 08', sign(v128.i8x16_shr_s, 8, v128.i8x16_sub, v128.i8x16_eq)),
  row('PSIGNW', '0F 38 09', sign(v128.i16x8_shr_s, 16, v128.i16x8_sub, v128.i16x8_eq)),
  row('PSIGND', '0F 38 0A', sign(v128.i32x4_shr_s, 32, v128.i32x4_sub, v128.i32x4_eq)),
  row('PMULHRSW', '0F 38 0B', mulRound),
  row('PABSB', '0F 38 1C', not(v128.i8x16_abs)),
  row('PABSW', '0F 38 1D', not(v128.i16x8_abs)),
  row('PABSD', '0F 38 1E', not(v128.i32x4_abs)),
];

export interface PackedShift {
  readonly name: string;
  /** Opcode with the count in a register or memory. */
  readonly opcode: string;
  /** Opcode and extension with an immediate count. */
  readonly immediate: string;
  readonly shift: ReturnType<typeof shiftLanes>;
}

const shiftRow = (
  name: string,
  opcode: string,
  immediate: string,
  shift: ReturnType<typeof shiftLanes>,
): PackedShift => ({ name, opcode, immediate, shift });

export const PACKED_SHIFTS: readonly PackedShift[] = [
  shiftRow('PSRLW', '0F D1', '0F 71 /2', shiftLanes(v128.i16x8_shr_u, 16, false)),
  shiftRow('PSRLD', '0F D2', '0F 72 /2', shiftLanes(v128.i32x4_shr_u, 32, false)),
  shiftRow('PSRLQ', '0F D3', '0F 73 /2', shiftLanes(v128.i64x2_shr_u, 64, false)),
  shiftRow('PSRAW', '0F E1', '0F 71 /4', shiftLanes(v128.i16x8_shr_s, 16, true)),
  shiftRow('PSRAD', '0F E2', '0F 72 /4', shiftLanes(v128.i32x4_shr_s, 32, true)),
  shiftRow('PSLLW', '0F F1', '0F 71 /6', shiftLanes(v128.i16x8_shl, 16, false)),
  shiftRow('PSLLD', '0F F2', '0F 72 /6', shiftLanes(v128.i32x4_shl, 32, false)),
  shiftRow('PSLLQ', '0F F3', '0F 73 /6', shiftLanes(v128.i64x2_shl, 64, false)),
];
