/**
 * Operand values that find mistakes: boundaries of every size, neighbours of powers of two, patterns, and for
 * floating point the values at which the rules change.
 */
import type { Random } from './random.ts';

const mask64 = (value: bigint): bigint => BigInt.asUintN(64, value);

function integers(): bigint[] {
  const all = new Set<bigint>();
  for (const n of [0n, 1n, 2n, 3n, 7n, 9n, 10n, 15n, 16n, 17n, 31n, 32n, 33n, 63n, 64n, 65n]) {
    all.add(n);
    all.add(mask64(-n));
  }
  for (const size of [8n, 16n, 32n, 64n]) {
    const top = 1n << (size - 1n);
    for (const n of [
      top,
      top - 1n,
      top + 1n,
      2n * top - 1n,
      2n * top,
      2n * top - 2n,
      -top,
      -top - 1n,
      -top + 1n,
    ]) {
      all.add(mask64(n));
    }
  }
  for (const pattern of ['55', 'aa', 'f0', '0f', '80', '7f', '01', 'fe', '99', '66']) {
    all.add(BigInt(`0x${pattern.repeat(8)}`));
  }
  all.add(0x0123456789abcdefn);
  all.add(0x80000000ffffffffn);
  all.add(0xffffffff00000000n);
  all.add(0x00000000ffffffffn);
  return [...all];
}

const INTEGERS = integers();

/** A 64-bit integer, boundary values often. */
export function integer(random: Random): bigint {
  const kind = random.below(16);
  if (kind < 7) return INTEGERS[random.below(INTEGERS.length)]!;
  if (kind < 12) return random.u64();
  if (kind < 13) return 1n << BigInt(random.below(64));
  if (kind < 14) return mask64(-(1n << BigInt(random.below(64))));
  if (kind < 15) return BigInt(random.u32());
  return BigInt(random.below(256));
}

/** The upper 9 (binary32) or 12 (binary64) bits decide a value's class; the rest of the significand is chosen apart. */
const EXPONENTS32 = [
  0, 0, 1, 2, 0x7e, 0x7f, 0x7f, 0x80, 0x81, 0x96, 0x97, 0x9d, 0x9e, 0x9f, 0xbe, 0xfd, 0xfe, 0xff,
];
const EXPONENTS64 = [
  0, 0, 1, 2, 0x36a, 0x380, 0x381, 0x3fd, 0x3fe, 0x3ff, 0x3ff, 0x400, 0x401, 0x41d, 0x41e, 0x41f, 0x433,
  0x434, 0x43d, 0x43e, 0x47e, 0x47f, 0x7fd, 0x7fe, 0x7ff,
];
const EXPONENTS80 = [
  0, 0, 1, 2, 0x3bcd, 0x3c00, 0x3c01, 0x3f6a, 0x3f80, 0x3f81, 0x3fbf, 0x3ffd, 0x3ffe, 0x3fff, 0x3fff, 0x3fff,
  0x4000, 0x4001, 0x400d, 0x400e, 0x401d, 0x401e, 0x403d, 0x403e, 0x403f, 0x407e, 0x407f, 0x43fe, 0x43ff,
  0x7ffd, 0x7ffe, 0x7fff, 0x7fff,
];

/** A significand of `bits` bits below 2^32: zero, all ones, one bit, ties of rounding, or anything. */
function significand(random: Random, bits: number): number {
  const mask = bits === 32 ? 0xffffffff : (1 << bits) - 1;
  switch (random.below(8)) {
    case 0:
    case 1:
      return 0;
    case 2:
      return mask >>> 0;
    case 3:
      return (1 << random.below(bits)) >>> 0;
    case 4:
      return (mask & ~(1 << random.below(bits))) >>> 0;
    case 5:
      return (1 << (bits - 1)) >>> 0;
    default:
      return (random.u32() & mask) >>> 0;
  }
}

/** The bits of a binary32. */
export function float32(random: Random): number {
  if (random.chance(0.2)) return random.u32();
  const exponent = random.chance(0.3) ? random.between(0x60, 0xa0) : random.pick(EXPONENTS32);
  return (((random.below(2) << 31) >>> 0) + exponent * 0x800000 + significand(random, 23)) >>> 0;
}

/** The bits of a binary64: low and high half. */
export function float64(random: Random): [number, number] {
  const exponent = random.chance(0.3) ? random.between(0x3c0, 0x440) : random.pick(EXPONENTS64);
  const high = ((random.below(2) << 31) >>> 0) + exponent * 0x100000 + significand(random, 20);
  // The lower half likes zero: short significands give exact results and ties.
  const low = random.chance(0.4) ? 0 : significand(random, 32);
  return [low, high >>> 0];
}

/** The bits of an x87 extended value: significand halves, sign and exponent. Every encoding, valid or not. */
export function float80(random: Random): [number, number, number] {
  const exponent = random.chance(0.3) ? random.between(0x3fe0, 0x4040) : random.pick(EXPONENTS80);
  let high = significand(random, 31);
  // The integer bit is as the exponent demands, now and then not (unnormals, pseudo-denormals, pseudo-infinities).
  if ((exponent !== 0) !== random.chance(0.04)) high = (high | 0x80000000) >>> 0;
  const low = random.chance(0.4) ? 0 : significand(random, 32);
  return [low, high, (random.below(2) << 15) | exponent];
}

/** Fills 16 bytes at `at`: lanes of one kind. */
export function vector(random: Random, view: DataView, at: number, kind: LaneKind): void {
  switch (kind) {
    case 'f32':
      for (let i = 0; i < 16; i += 4) view.setUint32(at + i, float32(random), true);
      return;
    case 'f64':
      for (let i = 0; i < 16; i += 8) {
        const [low, high] = float64(random);
        view.setUint32(at + i, low, true);
        view.setUint32(at + i + 4, high, true);
      }
      return;
    case 'int':
      for (let i = 0; i < 16; i += 8) view.setBigUint64(at + i, integer(random), true);
      return;
    case 'bytes':
      for (let i = 0; i < 16; i++)
        view.setUint8(at + i, random.chance(0.5) ? random.below(256) : random.pick(BYTES));
      return;
    case 'words':
      for (let i = 0; i < 16; i += 2) {
        view.setUint16(at + i, random.chance(0.5) ? random.below(0x10000) : random.pick(WORDS), true);
      }
      return;
  }
}

export type LaneKind = 'f32' | 'f64' | 'int' | 'bytes' | 'words';
export const LANE_KINDS: readonly LaneKind[] = ['f32', 'f64', 'int', 'bytes', 'words'];
const BYTES = [0, 1, 2, 0x7e, 0x7f, 0x80, 0x81, 0xfe, 0xff, 8, 15, 16];
const WORDS = [
  0, 1, 2, 0x7e, 0x7f, 0x80, 0xff, 0x100, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff, 15, 16, 17,
];
