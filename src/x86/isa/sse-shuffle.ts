/** Shuffles, interleaving, widening, and single lanes in and out. */
import { type I64, i32, i64, select, type V128, v128 } from '../../wasm/index.ts';
import type { Definition } from './definition.ts';
import type { Semantics } from './semantics.ts';
import { sse } from './sse-definition.ts';
import {
  align,
  byLanes,
  type Immediate,
  IOTA,
  immediate,
  laneMask,
  shuffleDwords,
  shufflePair,
  shuffleWords,
  unpack,
  vector,
} from './sse-vector.ts';

const interleave = (name: string, code: string, size: number, high: boolean): Definition =>
  sse(name, code, 'Vx+,Wx', (c) => {
    const b = vector(c, 1);
    c.setV(0, unpack(size, high)(c.getV(0), b));
  });

/** SHUFPD: a quad of a by bit 0, a quad of b by bit 1. */
const shuffleQuads = (c: Semantics): void => {
  const b = vector(c, 1);
  const a = vector(c, 0);
  const { value, known } = immediate(c);
  if (known !== undefined) {
    c.setV(0, v128.shuffle(a, b, byLanes(8, known & 1, 2 + ((known >> 1) & 1))));
    return;
  }
  const pick = (v: V128, bit: number) =>
    select(i32.and(value, bit), v128.i64x2_extract(v, 1), v128.i64x2_extract(v, 0));
  c.setV(0, v128.i64x2_replace(v128.i64x2_splat(pick(a, 1)), 1, pick(b, 2)));
};

type LaneBits = 8 | 16 | 32 | 64;

/** The lane that the immediate names, zero-extended. */
function laneOf(c: Semantics, i: number, bits: LaneBits): I64 {
  const a = c.getV(i);
  const { value, known } = immediate(c);
  const last = 128 / bits - 1;
  if (known === undefined) {
    // It is brought to the bottom.
    const bytes = v128.i8x16_splat(i32.mul(i32.and(value, last), bits / 8));
    return c.zext(v128.i64x2_extract(v128.swizzle(a, v128.i8x16_add(IOTA, bytes)), 0), bits);
  }
  const lane = known & last;
  if (bits === 8) return i64.extend_u(v128.i8x16_extract_u(a, lane));
  if (bits === 16) return i64.extend_u(v128.i16x8_extract_u(a, lane));
  if (bits === 32) return i64.extend_u(v128.i32x4_extract(a, lane));
  return v128.i64x2_extract(a, lane);
}

/** A vector with a value in the lane that the low bits of `lane` name. */
function withLane(a: V128, lane: Immediate, value: I64, bits: LaneBits): V128 {
  const last = 128 / bits - 1;
  if (lane.known === undefined) {
    const spread = {
      8: () => v128.i8x16_splat(i32.wrap(value)),
      16: () => v128.i16x8_splat(i32.wrap(value)),
      32: () => v128.i32x4_splat(i32.wrap(value)),
      64: () => v128.i64x2_splat(value),
    }[bits]();
    const index = v128.i8x16_splat(i32.and(lane.value, last));
    return v128.bitselect(spread, a, v128.i8x16_eq(v128.i8x16_shr_u(IOTA, Math.log2(bits / 8)), index));
  }
  const at = lane.known & last;
  if (bits === 8) return v128.i8x16_replace(a, at, i32.wrap(value));
  if (bits === 16) return v128.i16x8_replace(a, at, i32.wrap(value));
  if (bits === 32) return v128.i32x4_replace(a, at, i32.wrap(value));
  return v128.i64x2_replace(a, at, value);
}

/** PEXTRx: into a general register zero-extended, or into memory of the lane's size. */
const extract = (bits: LaneBits) => (c: Semantics) => c.set(0, laneOf(c, 1, bits));

/** PINSRx: a lane is written in the register's place. */
const insert = (bits: LaneBits) => (c: Semantics) => {
  const value = c.f.let(c.get(1));
  c.setV(0, withLane(c.getV(0), immediate(c), value, bits));
};

/** PINSRD, PINSRQ, PEXTRD, PEXTRQ: the operand size is the lane's. */
const extractSized = (c: Semantics): void => extract(c.size as 32 | 64)(c);
const insertSized = (c: Semantics): void => insert(c.size as 32 | 64)(c);

/** INSERTPS: dword imm[7:6] of a register, or one of memory, to lane imm[5:4]; lanes imm[3:0] become zero. */
const insertSingle = (c: Semantics): void => {
  const { value, known } = immediate(c);
  const shifted = (count: number): Immediate => ({
    value: i32.shr_u(value, count),
    known: known === undefined ? undefined : known >> count,
  });
  const b = vector(c, 1);
  const from = shifted(6);
  const bytes = v128.i8x16_splat(i32.shl(from.value, 2));
  const single = c.memory
    ? v128.i32x4_extract(b, 0)
    : from.known !== undefined
      ? v128.i32x4_extract(b, from.known)
      : v128.i32x4_extract(v128.swizzle(b, v128.i8x16_add(IOTA, bytes)), 0);
  const inserted = withLane(c.getV(0), shifted(4), i64.extend_u(single), 32);
  c.setV(0, v128.andnot(inserted, laneMask(32, { value, known })));
};

const widen = (name: string, opcode: string, source: string, op: (a: V128) => V128): Definition =>
  sse(name, `66 0F 38 ${opcode} /r`, `Vx=,W${source}`, (c) => c.setV(0, op(c.getV(1))));

const byte2 = { s: v128.i16x8_extend_low_i8x16_s, u: v128.i16x8_extend_low_i8x16_u };
const word2 = { s: v128.i32x4_extend_low_i16x8_s, u: v128.i32x4_extend_low_i16x8_u };
const dword2 = { s: v128.i64x2_extend_low_i32x4_s, u: v128.i64x2_extend_low_i32x4_u };

/** PMOVSXxx and PMOVZXxx: letters, the opcode's low digit, bits of the source, how. */
const WIDEN: [name: string, digit: number, source: string, op: (kind: 's' | 'u') => (a: V128) => V128][] = [
  ['BW', 0, 'q', (k) => byte2[k]],
  ['BD', 1, 'd', (k) => (a) => word2[k](byte2[k](a))],
  ['BQ', 2, 'w', (k) => (a) => dword2[k](word2[k](byte2[k](a)))],
  ['WD', 3, 'q', (k) => word2[k]],
  ['WQ', 4, 'd', (k) => (a) => dword2[k](word2[k](a))],
  ['DQ', 5, 'q', (k) => dword2[k]],
];

export const sseShuffle: Definition[] = [
  interleave('UNPCKLPS', 'NP 0F 14 /r', 4, false),
  interleave('UNPCKLPD', '66 0F 14 /r', 8, false),
  interleave('UNPCKHPS', 'NP 0F 15 /r', 4, true),
  interleave('UNPCKHPD', '66 0F 15 /r', 8, true),
  sse('PSHUFD', '66 0F 70 /r ib', 'Vx=,Wx,Ib', (c) => {
    const b = vector(c, 1);
    c.setV(0, shuffleDwords(b, immediate(c)));
  }),
  sse('PSHUFLW', 'F2 0F 70 /r ib', 'Vx=,Wx,Ib', (c) => {
    const b = vector(c, 1);
    c.setV(0, shuffleWords(b, immediate(c), false));
  }),
  sse('PSHUFHW', 'F3 0F 70 /r ib', 'Vx=,Wx,Ib', (c) => {
    const b = vector(c, 1);
    c.setV(0, shuffleWords(b, immediate(c), true));
  }),
  sse('SHUFPS', 'NP 0F C6 /r ib', 'Vx+,Wx,Ib', (c) => {
    const b = vector(c, 1);
    c.setV(0, shufflePair(vector(c, 0), b, immediate(c)));
  }),
  sse('SHUFPD', '66 0F C6 /r ib', 'Vx+,Wx,Ib', shuffleQuads),
  sse('PALIGNR', '66 0F 3A 0F /r ib', 'Vx+,Wx,Ib', (c) => {
    const b = vector(c, 1);
    c.setV(0, align(b, vector(c, 0), immediate(c)));
  }),
  ...WIDEN.flatMap(([letters, digit, source, op]) => [
    widen(`PMOVSX${letters}`, `2${digit}`, source, op('s')),
    widen(`PMOVZX${letters}`, `3${digit}`, source, op('u')),
  ]),
  sse('PEXTRW', '66 0F C5 /r ib', 'Gd=,Ux,Ib', extract(16)),
  sse('PEXTRB', '66 0F 3A 14 /r ib', 'Rd=,Vx,Ib', extract(8)),
  sse('PEXTRB', '66 0F 3A 14 /r ib', 'Mb=,Vx,Ib', extract(8)),
  sse('PEXTRW', '66 0F 3A 15 /r ib', 'Rd=,Vx,Ib', extract(16)),
  sse('PEXTRW', '66 0F 3A 15 /r ib', 'Mw=,Vx,Ib', extract(16)),
  sse('PEXTRD/PEXTRQ', '66 0F 3A 16 /r ib', 'Ey=,Vx,Ib', extractSized),
  sse('EXTRACTPS', '66 0F 3A 17 /r ib', 'Ed=,Vx,Ib', extract(32)),
  sse('PINSRW', '66 0F C4 /r ib', 'Vx+,Rd,Ib', insert(16)),
  sse('PINSRW', '66 0F C4 /r ib', 'Vx+,Mw,Ib', insert(16)),
  sse('PINSRB', '66 0F 3A 20 /r ib', 'Vx+,Rd,Ib', insert(8)),
  sse('PINSRB', '66 0F 3A 20 /r ib', 'Vx+,Mb,Ib', insert(8)),
  sse('INSERTPS', '66 0F 3A 21 /r ib', 'Vx+,Ux,Ib', insertSingle),
  sse('INSERTPS', '66 0F 3A 21 /r ib', 'Vx+,Md,Ib', insertSingle),
  sse('PINSRD/PINSRQ', '66 0F 3A 22 /r ib', 'Vx+,Ey,Ib', insertSized),
];
