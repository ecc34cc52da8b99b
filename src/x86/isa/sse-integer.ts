/** SSE2 .. SSE4.2 integer arithmetic on XMM registers; moves and shuffles are in files of their own. */
import { i32, i64, type V128, v128 } from '../../wasm/index.ts';
import { STATUS_FLAGS } from '../state.ts';
import type { Definition } from './definition.ts';
import { maskedStore } from './mmx.ts';
import type { Semantics } from './semantics.ts';
import { sse, zeroOfSame } from './sse-definition.ts';
import { type Binary, mulEvenSigned, PACKED, PACKED_SHIFTS } from './sse-packed.ts';
import { bytesDown, bytesUp, dwords, IOTA, immediate, laneMask, unpack, vector } from './sse-vector.ts';

/** See zeroOfSame. */
const ZERO_OF_SAME = /^(PXOR|PANDN|PSUB.*|PCMPGT.)$/;

const binary = (name: string, opcode: string, op: Binary, hot = false): Definition => {
  const exec = (c: Semantics) => {
    const b = vector(c, 1);
    c.setV(0, op(vector(c, 0), b));
  };
  const zeroes = ZERO_OF_SAME.test(name);
  return sse(name, `66 ${opcode} /r`, 'Vx+,Wx', zeroes ? zeroOfSame(exec) : exec, {
    hot,
    zeroOfSame: zeroes,
  });
};

/** Operations that MMX does not have. */
const SSE_ONLY: [name: string, opcode: string, op: Binary][] = [
  ['PUNPCKLQDQ', '0F 6C', unpack(8, false)],
  ['PUNPCKHQDQ', '0F 6D', unpack(8, true)],
  // SSE4.1, SSE4.2
  ['PMULDQ', '0F 38 28', mulEvenSigned],
  ['PCMPEQQ', '0F 38 29', v128.i64x2_eq],
  ['PACKUSDW', '0F 38 2B', v128.i16x8_narrow_i32x4_u],
  ['PCMPGTQ', '0F 38 37', v128.i64x2_gt_s],
  ['PMINSB', '0F 38 38', v128.i8x16_min_s],
  ['PMINSD', '0F 38 39', v128.i32x4_min_s],
  ['PMINUW', '0F 38 3A', v128.i16x8_min_u],
  ['PMINUD', '0F 38 3B', v128.i32x4_min_u],
  ['PMAXSB', '0F 38 3C', v128.i8x16_max_s],
  ['PMAXSD', '0F 38 3D', v128.i32x4_max_s],
  ['PMAXUW', '0F 38 3E', v128.i16x8_max_u],
  ['PMAXUD', '0F 38 3F', v128.i32x4_max_u],
  ['PMULLD', '0F 38 40', v128.i32x4_mul],
];

const test = (c: Semantics) => {
  const b = vector(c, 1);
  const a = vector(c, 0);
  const zf = i32.shl(i32.eqz(v128.any_true(v128.and(a, b))), 6);
  const cf = i32.eqz(v128.any_true(v128.andnot(b, a)));
  c.setFlags(i32.or(zf, cf), STATUS_FLAGS);
};

/** The least unsigned word and where it is; each word carries its index below it through the comparison. */
const minimumWord = (c: Semantics) => {
  const { f } = c;
  const b = vector(c, 1);
  const low = v128.or(v128.i32x4_shl(v128.i32x4_extend_low_i16x8_u(b), 16), dwords(0, 1, 2, 3));
  const high = v128.or(v128.i32x4_shl(v128.i32x4_extend_high_i16x8_u(b), 16), dwords(4, 5, 6, 7));
  const four = f.let(v128.i32x4_min_u(low, high));
  const swap = (a: V128, order: number[]) => f.let(v128.i32x4_min_u(a, v128.shuffle(a, a, order)));
  const two = swap(four, [8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7]);
  const one = swap(two, [4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11]);
  const least = i32.rotl(v128.i32x4_extract(one, 0), 16);
  c.setV(0, v128.i64x2_replace(v128.const(0n, 0n), 0, i64.extend_u(least)));
};

/** Eight sums of four absolute differences: a window that slides over a against one dword of b. */
const slidingDifferences = (c: Semantics) => {
  const { f } = c;
  const b = vector(c, 1);
  const a = vector(c, 0);
  const { value } = immediate(c);
  const start = v128.i8x16_splat(i32.and(value, 4));
  const window = f.let(v128.swizzle(a, v128.i8x16_add(IOTA, start)));
  const block = i32.shl(i32.and(value, 3), 2);
  let sum: V128 | undefined;
  for (let k = 0; k < 4; k++) {
    const order = Array.from({ length: 16 }, (_, i) => Math.min(i + k, 15));
    const words = v128.i16x8_extend_low_i8x16_u(v128.shuffle(window, window, order));
    const byte = v128.swizzle(b, v128.i8x16_splat(i32.add(block, k)));
    const each = v128.i16x8_abs(v128.i16x8_sub(words, v128.i16x8_extend_low_i8x16_u(byte)));
    sum = sum === undefined ? each : v128.i16x8_add(sum, each);
  }
  c.setV(0, sum!);
};

const blendByMask = (signs: (mask: V128) => V128) => (c: Semantics) => {
  const b = vector(c, 1);
  c.setV(0, v128.bitselect(b, c.getV(0), signs(c.sse.getXmm0())));
};

const blend = (bits: 16 | 32 | 64) => (c: Semantics) => {
  const b = vector(c, 1);
  c.setV(0, v128.bitselect(b, c.getV(0), laneMask(bits, immediate(c))));
};

export const sseInteger: Definition[] = [
  ...PACKED.map(({ name, opcode, op, hot }) => binary(name, opcode, op, hot)),
  ...SSE_ONLY.map(([name, opcode, op]) => binary(name, opcode, op)),
  ...PACKED_SHIFTS.flatMap(({ name, opcode, immediate: group, shift }) => [
    sse(name, `66 ${opcode} /r`, 'Vx+,Wx', (c) => {
      const count = c.f.let(v128.i64x2_extract(c.getV(1), 0));
      c.setV(0, shift(vector(c, 0), count));
    }),
    sse(name, `66 ${group} ib`, 'Ux+,Ib', (c) => {
      const { known, value } = immediate(c);
      const count = known === undefined ? c.f.let(i64.extend_u(value)) : i64.const(known);
      c.setV(0, shift(vector(c, 0), count));
    }),
  ]),
  sse('PSRLDQ', '66 0F 73 /3 ib', 'Ux+,Ib', (c) => c.setV(0, bytesDown(c.getV(0), immediate(c)))),
  sse('PSLLDQ', '66 0F 73 /7 ib', 'Ux+,Ib', (c) => c.setV(0, bytesUp(c.getV(0), immediate(c)))),
  sse('PMOVMSKB', '66 0F D7 /r', 'Gd=,Ux', (c) => c.set(0, i64.extend_u(v128.i8x16_bitmask(c.getV(1)))), {
    hot: true,
  }),
  sse('MASKMOVDQU', '66 0F F7 /r', 'Vx,Ux', maskedStore(16)),
  sse('PTEST', '66 0F 38 17 /r', 'Vx,Wx', test),
  sse('PHMINPOSUW', '66 0F 38 41 /r', 'Vx=,Wx', minimumWord),
  sse('MPSADBW', '66 0F 3A 42 /r ib', 'Vx+,Wx,Ib', slidingDifferences),
  sse(
    'PBLENDVB',
    '66 0F 38 10 /r',
    'Vx+,Wx',
    blendByMask((m) => v128.i8x16_shr_s(m, 7)),
  ),
  sse(
    'BLENDVPS',
    '66 0F 38 14 /r',
    'Vx+,Wx',
    blendByMask((m) => v128.i32x4_shr_s(m, 31)),
  ),
  sse(
    'BLENDVPD',
    '66 0F 38 15 /r',
    'Vx+,Wx',
    blendByMask((m) => v128.i64x2_shr_s(m, 63)),
  ),
  sse('BLENDPS', '66 0F 3A 0C /r ib', 'Vx+,Wx,Ib', blend(32)),
  sse('BLENDPD', '66 0F 3A 0D /r ib', 'Vx+,Wx,Ib', blend(64)),
  sse('PBLENDW', '66 0F 3A 0E /r ib', 'Vx+,Wx,Ib', blend(16)),
];
