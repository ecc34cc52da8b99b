/**
 * A number of any of the three binary formats of x86, taken apart; and back to bits.
 *
 * A finite, non-zero Real always has bit 63 of its significand set, whatever format it came from:
 * value = significand * 2^(exponent - 63). A denormal is only an exponent below the format's least. NaNs keep their
 * payload left-aligned, as the extended format has it, so that converting one between formats is cutting it.
 */
/** What a Real is. Everything from QNAN on is not a number. */
export const ZERO = 0;
export const FINITE = 1;
export const INFINITE = 2;
export const QNAN = 3;
export const SNAN = 4;
/** An encoding of the extended format that no processor since the 387 accepts (unnormal, pseudo-infinity, pseudo-NaN). */
export const UNSUPPORTED = 5;

export interface Format {
  /** Bits of the significand, the integer bit included. */
  readonly precision: number;
  readonly emin: number;
  readonly emax: number;
  /** 64 - precision, as a bigint: where the significand ends in a Real's. */
  readonly spare: bigint;
  /**
   * What the exponent is changed by when an overflow or underflow is not masked, so that a handler gets the result:
   * 0 where there is no such result (memory destinations, SSE).
   */
  readonly adjust: number;
}

export const SINGLE: Format = { precision: 24, emin: -126, emax: 127, spare: 40n, adjust: 0 };
export const DOUBLE: Format = { precision: 53, emin: -1022, emax: 1023, spare: 11n, adjust: 0 };
const EXTENDED_RANGE = { emin: -16382, emax: 16383, adjust: 24576 };
export const EXTENDED: Format = { precision: 64, spare: 0n, ...EXTENDED_RANGE };
/** By precision control (bits 8-9 of the control word). The reserved value 1 counts as extended. */
export const X87_FORMATS: readonly Format[] = [
  { precision: 24, spare: 40n, ...EXTENDED_RANGE },
  EXTENDED,
  { precision: 53, spare: 11n, ...EXTENDED_RANGE },
  EXTENDED,
];

const INTEGER_BIT = 1n << 63n;
const QUIET_BIT = 1n << 62n;
/** Significand of the quiet NaN that an invalid operation gives. */
export const INDEFINITE = 3n << 62n;

/** Bits needed for a positive integer. */
export function bitLength(value: bigint): number {
  let rest = value;
  let length = 0;
  for (;;) {
    const above = rest >> 64n;
    if (above === 0n) break;
    rest = above;
    length += 64;
  }
  const high = Number(rest >> 32n);
  return length + (high !== 0 ? 64 - Math.clz32(high) : 32 - Math.clz32(Number(rest)));
}

export class Real {
  kind = ZERO;
  /** 1: negative. */
  sign = 0;
  exponent = 0;
  significand = 0n;
  /** The operand's encoding is denormal (or pseudo-denormal): reason for #D. */
  denormal = false;

  set(kind: number, sign: number, exponent: number, significand: bigint): void {
    this.kind = kind;
    this.sign = sign;
    this.exponent = exponent;
    this.significand = significand;
    this.denormal = false;
  }

  copy(other: Real): void {
    this.set(other.kind, other.sign, other.exponent, other.significand);
    this.denormal = other.denormal;
  }

  get isNaN(): boolean {
    return this.kind >= QNAN;
  }

  /** @param word the 32 bits, @param daz denormals are zeros */
  fromSingle(word: number, daz: boolean): this {
    const field = (word >>> 23) & 0xff;
    const fraction = word & 0x7fffff;
    this.sign = word >>> 31;
    this.denormal = false;
    if (field === 0) {
      if (fraction === 0 || daz) {
        this.kind = ZERO;
        this.significand = 0n;
        return this;
      }
      const shift = Math.clz32(fraction) - 8;
      this.kind = FINITE;
      this.denormal = true;
      this.exponent = -126 - shift;
      this.significand = BigInt((fraction << shift) >>> 0) << 40n;
      return this;
    }
    this.significand = BigInt(fraction | 0x800000) << 40n;
    this.exponent = field - 127;
    if (field < 0xff) this.kind = FINITE;
    else this.kind = fraction === 0 ? INFINITE : fraction & 0x400000 ? QNAN : SNAN;
    return this;
  }

  /** @param high bits 63..32, @param low bits 31..0 */
  fromDouble(high: number, low: number, daz: boolean): this {
    const field = (high >>> 20) & 0x7ff;
    const top = high & 0xfffff;
    this.sign = high >>> 31;
    this.denormal = false;
    if (field === 0) {
      if ((top === 0 && low === 0) || daz) {
        this.kind = ZERO;
        this.significand = 0n;
        return this;
      }
      const shift = top !== 0 ? Math.clz32(top) - 11 : Math.clz32(low) + 21;
      this.kind = FINITE;
      this.denormal = true;
      this.exponent = -1022 - shift;
      this.significand = ((BigInt(top) << 32n) | BigInt(low >>> 0)) << BigInt(shift + 11);
      return this;
    }
    this.significand = (BigInt(top | 0x100000) << 43n) | (BigInt(low >>> 0) << 11n);
    this.exponent = field - 1023;
    if (field < 0x7ff) this.kind = FINITE;
    else this.kind = top === 0 && low === 0 ? INFINITE : top & 0x80000 ? QNAN : SNAN;
    return this;
  }

  /** @param significand 64 bits, @param head sign and exponent, 16 bits */
  fromExtended(significand: bigint, head: number): this {
    const field = head & 0x7fff;
    this.sign = head >>> 15;
    this.denormal = false;
    this.significand = significand;
    this.exponent = field - 16383;
    if (field === 0) {
      if (significand === 0n) {
        this.kind = ZERO;
        return this;
      }
      this.kind = FINITE;
      this.denormal = true;
      const shift = 64 - bitLength(significand);
      this.exponent = -16382 - shift;
      this.significand = significand << BigInt(shift);
      return this;
    }
    if ((significand & INTEGER_BIT) === 0n) this.kind = UNSUPPORTED;
    else if (field < 0x7fff) this.kind = FINITE;
    else if (significand === INTEGER_BIT) this.kind = INFINITE;
    else this.kind = (significand & QUIET_BIT) !== 0n ? QNAN : SNAN;
    return this;
  }

  /** @param value any integer of at most 64 bits of magnitude */
  fromInteger(value: bigint): this {
    this.denormal = false;
    this.sign = value < 0n ? 1 : 0;
    const magnitude = value < 0n ? -value : value;
    if (magnitude === 0n) {
      this.kind = ZERO;
      this.significand = 0n;
      return this;
    }
    const length = bitLength(magnitude);
    this.kind = FINITE;
    this.exponent = length - 1;
    this.significand = magnitude << BigInt(64 - length);
    return this;
  }

  /** The 32 bits of a Real that was rounded to SINGLE (or is a quiet NaN, an infinity or zero). */
  toSingle(): number {
    const sign = this.sign << 31;
    if (this.kind === ZERO) return sign >>> 0;
    const fraction = Number(this.significand >> 40n);
    if (this.kind !== FINITE) return (sign | 0x7f800000 | (fraction & 0x7fffff)) >>> 0;
    if (this.exponent < -126) return (sign | (fraction >>> (-126 - this.exponent))) >>> 0;
    return (sign | ((this.exponent + 127) << 23) | (fraction & 0x7fffff)) >>> 0;
  }

  /** The 64 bits of a Real that was rounded to DOUBLE (or is a quiet NaN, an infinity or zero). */
  toDouble(): bigint {
    const sign = this.sign === 0 ? 0n : INTEGER_BIT;
    if (this.kind === ZERO) return sign;
    const fraction = this.significand >> 11n;
    if (this.kind !== FINITE) return sign | 0x7ff0000000000000n | (fraction & 0xfffffffffffffn);
    if (this.exponent < -1022) return sign | (fraction >> BigInt(-1022 - this.exponent));
    return sign | (BigInt(this.exponent + 1023) << 52n) | (fraction & 0xfffffffffffffn);
  }

  /** Significand of the extended encoding. */
  toExtended(): bigint {
    if (this.kind === ZERO) return 0n;
    if (this.kind === INFINITE) return INTEGER_BIT;
    if (this.kind === FINITE && this.exponent < -16382) {
      return this.significand >> BigInt(-16382 - this.exponent);
    }
    return this.significand;
  }

  /** Sign and exponent of the extended encoding. */
  toExtendedHead(): number {
    const sign = this.sign << 15;
    if (this.kind === ZERO) return sign;
    if (this.kind !== FINITE) return sign | 0x7fff;
    return this.exponent < -16382 ? sign : sign | (this.exponent + 16383);
  }
}

/** Results of {@link order} and of SoftFloat.compare. */
export const LESS = -1;
export const EQUAL = 0;
export const GREATER = 1;
export const UNORDERED = 2;

/** How two numbers (no NaNs) compare. */
export function order(a: Real, b: Real): number {
  if (a.kind === ZERO && b.kind === ZERO) return EQUAL;
  if (a.kind === ZERO) return b.sign === 0 ? LESS : GREATER;
  if (b.kind === ZERO) return a.sign === 0 ? GREATER : LESS;
  if (a.sign !== b.sign) return a.sign === 0 ? GREATER : LESS;
  const greater = a.sign === 0 ? GREATER : LESS;
  if (a.kind !== b.kind) return a.kind === INFINITE ? greater : -greater;
  if (a.kind === INFINITE) return EQUAL;
  if (a.exponent !== b.exponent) return a.exponent > b.exponent ? greater : -greater;
  if (a.significand === b.significand) return EQUAL;
  return a.significand > b.significand ? greater : -greater;
}
