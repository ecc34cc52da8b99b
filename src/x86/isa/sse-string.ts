/**
 * SSE4.2 string comparisons, PCMPESTRI PCMPESTRM PCMPISTRI PCMPISTRM (SDM volume 1, 12.12, and volume 2, 4.1).
 *
 * The control byte says at run time what is compared: elements are bytes or words (bit 0), signed or not (bit 1), in
 * one of four ways (bits 3:2). Each element of the first operand is compared with the whole second operand at once;
 * bit j of a result is about element j of the second operand.
 */
import { type Func, type I32, i32, i64, type Local, select, type V128, v128 } from '../../wasm/index.ts';
import { CPU, FLAG, RAX, RCX, RDX, STATUS_FLAGS } from '../state.ts';
import type { Definition } from './definition.ts';
import type { Semantics } from './semantics.ts';

import { bytes, immediate, laneMask, vector, ZERO } from './sse-vector.ts';

const MODE = { equalAny: 0, ranges: 1, equalEach: 2, equalOrdered: 3 } as const;

/** Operations on bytes or on words; masks have one bit for each element. */
interface Elements {
  readonly size: number;
  splat(value: I32): V128;
  load(address: I32): I32;
  eq(a: V128, b: V128): V128;
  gt(a: V128, b: V128): V128;
  mask(lanes: V128): I32;
}

const BYTES: Elements = {
  size: 1,
  splat: v128.i8x16_splat,
  load: (address) => i32.load8u(address, CPU.temp),
  eq: v128.i8x16_eq,
  gt: v128.i8x16_gt_s,
  mask: v128.i8x16_bitmask,
};

const WORDS: Elements = {
  size: 2,
  splat: v128.i16x8_splat,
  load: (address) => i32.load16u(address, CPU.temp),
  eq: v128.i16x8_eq,
  gt: v128.i16x8_gt_s,
  mask: (lanes) => v128.i8x16_bitmask(v128.i8x16_narrow_i16x8_s(lanes, ZERO)),
};

interface Comparison {
  readonly mode: Local<'i32'>;
  /** Zero if elements are signed. */
  readonly unsigned: Local<'i32'>;
  /** A bit for each element that there is, for each valid one of both operands. */
  readonly all: Local<'i32'>;
  readonly validA: Local<'i32'>;
  readonly validB: Local<'i32'>;
  readonly lengthA: Local<'i32'>;
  readonly a: V128;
  readonly b: V128;
  readonly result: Local<'i32'>;
}

/** Compares; elements of the first operand are also in CPU.temp. */
function compare(f: Func, cpu: I32, elements: Elements, k: Comparison): void {
  const is = (mode: number) => i32.eq(k.mode, mode);
  f.if(is(MODE.equalEach), () => {
    const both = i32.and(k.validA, k.validB);
    const neither = i32.xor(i32.or(k.validA, k.validB), -1);
    f.set(k.result, i32.or(i32.and(elements.mask(elements.eq(k.a, k.b)), both), neither));
  });
  f.if(i32.ne(k.mode, MODE.equalEach), () => {
    f.set(k.result, select(is(MODE.equalOrdered), k.all, i32.const(0)));
    // Unsigned order is signed order with the top bits turned.
    const turn = f.let(
      elements.splat(select(k.unsigned, i32.const(elements.size === 1 ? 0x80 : 0x8000), i32.const(0))),
    );
    const turned = f.let(v128.xor(k.b, turn));
    const above = f.let(i32.const(0));
    const i = f.let(i32.const(0));
    const element = f.local('v128');
    f.loop((next) => {
      f.if(i32.lt_u(i, k.lengthA), () => {
        f.set(element, elements.splat(elements.load(i32.add(cpu, i32.mul(i, elements.size)))));
        f.if(
          is(MODE.ranges),
          () => {
            f.set(element, v128.xor(element, turn));
            f.if(
              i32.and(i, 1),
              () => {
                const below = elements.mask(v128.not(elements.gt(turned, element)));
                f.set(k.result, i32.or(k.result, i32.and(above, below)));
              },
              () => f.set(above, elements.mask(v128.not(elements.gt(element, turned)))),
            );
          },
          () => {
            const equal = f.let(i32.and(elements.mask(elements.eq(k.b, element)), k.validB));
            f.if(
              is(MODE.equalAny),
              () => f.set(k.result, i32.or(k.result, equal)),
              () => {
                // What would lie beyond the second operand does not disagree.
                const beyond = i32.xor(i32.shr_u(k.all, i), -1);
                f.set(k.result, i32.and(k.result, i32.or(i32.shr_u(equal, i), beyond)));
              },
            );
          },
        );
        f.set(i, i32.add(i, 1));
        f.br(next);
      });
    });
    f.if(is(MODE.ranges), () => f.set(k.result, i32.and(k.result, k.validB)));
  });
}

function explicitLength(c: Semantics, register: number, count: I32): Local<'i32'> {
  const { f } = c;
  const length = f.let(c.regPart(register, c.size));
  f.if(i64.lt_s(length, 0), () => f.set(length, i64.sub(0, length)));
  return f.let(select(i64.gt_u(length, i64.extend_u(count)), count, i32.wrap(length)));
}

/** Elements before the first that is zero. */
function implicitLength(c: Semantics, value: V128, isWords: I32): Local<'i32'> {
  const zeros = v128.bitselect(
    v128.i16x8_eq(value, ZERO),
    v128.i8x16_eq(value, ZERO),
    v128.i8x16_splat(i32.sub(0, isWords)),
  );
  return c.f.let(i32.shr_u(i32.ctz(i32.or(v128.i8x16_bitmask(zeros), 1 << 16)), isWords));
}

/** A byte of ones for each bit. */
function byteMask(value: I32): V128 {
  const bits = bytes(1, 2, 4, 8, 16, 32, 64, 128);
  const spread = v128.shuffle(
    v128.i16x8_splat(value),
    ZERO,
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1],
  );
  return v128.i8x16_eq(v128.and(spread, bits), bits);
}

const compareStrings = (explicit: boolean, index: boolean) => (c: Semantics) => {
  const { f, cpu } = c;
  const b = vector(c, 1);
  const a = vector(c, 0);
  f.store(cpu, a, CPU.temp);
  const control = immediate(c).value;
  const isWords = f.let(i32.and(control, 1));
  const count = f.let(i32.shr_u(i32.const(16), isWords));
  const lengthA = explicit ? explicitLength(c, RAX, count) : implicitLength(c, a, isWords);
  const lengthB = explicit ? explicitLength(c, RDX, count) : implicitLength(c, b, isWords);
  const ones = (length: I32) => f.let(i32.sub(i32.shl(1, length), 1));
  const all = ones(count);
  const validA = ones(lengthA);
  const validB = ones(lengthB);
  const result = f.local('i32');
  const comparison = {
    mode: f.let(i32.and(i32.shr_u(control, 2), 3)),
    unsigned: f.let(i32.eqz(i32.and(control, 2))),
    all,
    validA,
    validB,
    lengthA,
    a,
    b,
    result,
  };
  f.if(
    isWords,
    () => compare(f, cpu, WORDS, comparison),
    () => compare(f, cpu, BYTES, comparison),
  );
  // Polarity: negated, all of it or where the second operand is valid.
  f.if(i32.and(control, 0x10), () =>
    f.set(result, i32.xor(result, select(i32.and(control, 0x20), validB, all))),
  );
  f.set(result, i32.and(result, all));
  const upper = f.let(i32.and(control, 0x40));
  if (index) {
    const found = select(upper, i32.sub(31, i32.clz(result)), i32.ctz(result));
    c.setRegPart(RCX, 32, i64.extend_u(select(result, found, count)));
  } else {
    const wide = v128.bitselect(
      laneMask(16, { value: result, known: undefined }),
      byteMask(result),
      v128.i8x16_splat(i32.sub(0, isWords)),
    );
    const narrow = v128.i64x2_replace(ZERO, 0, i64.extend_u(result));
    c.sse.setXmm0(select(upper, wide, narrow));
  }
  const flag = (condition: I32, bit: number) => i32.mul(condition, bit);
  const flags = [
    flag(i32.ne(result, 0), FLAG.CF),
    flag(i32.lt_u(lengthB, count), FLAG.ZF),
    flag(i32.lt_u(lengthA, count), FLAG.SF),
    flag(i32.and(result, 1), FLAG.OF),
  ];
  c.setFlags(
    flags.reduce((x, y) => i32.or(x, y)),
    STATUS_FLAGS,
  );
};

const definition = (name: string, opcode: string, explicit: boolean, index: boolean): Definition => ({
  name,
  code: `66 0F 3A ${opcode} /r ib`,
  operands: 'Vx,Wx,Ib',
  sizes: explicit ? 'y' : undefined,
  unaligned: true,
  fpu: true,
  writesXmm0: !index,
  exec: compareStrings(explicit, index),
});

export const sseString: Definition[] = [
  definition('PCMPESTRM', '60', true, false),
  definition('PCMPESTRI', '61', true, true),
  definition('PCMPISTRM', '62', false, false),
  definition('PCMPISTRI', '63', false, true),
];
