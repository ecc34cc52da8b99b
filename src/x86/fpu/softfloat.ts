/**
 * IEEE 754 arithmetic in software, as Intel's processors do it (SDM volume 1, chapters 4, 8 and 11): binary32,
 * binary64 and the x87 extended format, the four rounding directions, precision control, the six exceptions with
 * their masked and unmasked responses.
 *
 * Operands and results are {@link Real}s. A finite, non-zero Real always has bit 63 of its significand set, whatever
 * format it came from: value = significand * 2^(exponent - 63). So one code serves all formats, a denormal is only an
 * exponent below the format's least, and converting between formats is nothing but rounding.
 *
 * An operation adds to `flags` and returns true if it has a result. It returns false where an exception that is
 * found before computing (invalid, denormal, divide by zero) is not masked: no result exists then, and exceptions of
 * the computation itself are not reported.
 */

/** Exception bits, as MXCSR and the x87 status word have them. The masks of both have the same order. */
export const IE = 1;
export const DE = 2;
export const ZE = 4;
export const OE = 8;
export const UE = 16;
export const PE = 32;
const BEFORE = IE | DE | ZE;

/** Rounding control, SDM volume 1, table 4-8. */
export const NEAREST = 0;
export const DOWN = 1;
export const UP = 2;
export const TOWARD_ZERO = 3;

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
const ALL_ONES = (1n << 64n) - 1n;
/** Significand of the quiet NaN that an invalid operation gives. */
export const INDEFINITE = 3n << 62n;

const f64 = new Float64Array(1);
const bits = new Uint32Array(f64.buffer);

/** Bits needed for a positive integer below 2^1023. */
export function bitLength(value: bigint): number {
  f64[0] = Number(value);
  const length = (bits[1]! >>> 20) - 1022;
  // The conversion may have rounded up to the next power of two.
  if (bits[0] === 0 && (bits[1]! & 0xfffff) === 0 && value >> BigInt(length - 1) === 0n) return length - 1;
  return length;
}

/** Floor of the square root of an integer between 2^100 and 2^200. */
function squareRoot(value: bigint): bigint {
  const estimate = BigInt(Math.floor(Math.sqrt(Number(value))));
  // 52 good bits become more than 100.
  let root = (estimate + value / estimate) >> 1n;
  while (root * root > value) root--;
  while ((root + 1n) * (root + 1n) <= value) root++;
  return root;
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

/** Results of {@link SoftFloat.compare}. */
export const LESS = -1;
export const EQUAL = 0;
export const GREATER = 1;
export const UNORDERED = 2;

export class SoftFloat {
  /** Rounding control. */
  rounding = NEAREST;
  /** Exceptions that are masked (bits of the six). */
  masks = 0x3f;
  /** MXCSR.FTZ. */
  flushToZero = false;
  /** Choose between two NaNs as the x87 does (by significand), not as SSE does (the first). */
  x87 = false;
  /** Exceptions so far. */
  flags = 0;
  /** The last rounding went away from zero (C1 of the x87). */
  roundedUp = false;

  /** Whether what was found before computing lets the operation go on. */
  private get goesOn(): boolean {
    return (this.flags & ~this.masks & BEFORE) === 0;
  }

  /**
   * Ends an operation on several lanes. If one of them found an unmasked exception before computing, no lane's
   * exceptions of computing are reported. @param earlier flags to be kept anyway
   */
  settleFlags(earlier: number): void {
    if (!this.goesOn) this.flags &= BEFORE;
    this.flags |= earlier;
  }

  /** #I: the result is the indefinite NaN. */
  invalid(result: Real): boolean {
    this.flags |= IE;
    result.set(QNAN, 1, 0, INDEFINITE);
    return this.goesOn;
  }

  private denormal(a: Real, b: Real): boolean {
    if (a.denormal || b.denormal) this.flags |= DE;
    return this.goesOn;
  }

  /** The result of an operation with at least one NaN among its operands (SDM volume 1, table 4-7). */
  nan(a: Real, b: Real, result: Real): boolean {
    if (a.kind === UNSUPPORTED || b.kind === UNSUPPORTED) return this.invalid(result);
    if (a.kind === SNAN || b.kind === SNAN) this.flags |= IE;
    let from = a.kind >= QNAN ? a : b;
    if (this.x87 && a.kind >= QNAN && b.kind >= QNAN) {
      if (a.kind !== b.kind) from = a.kind === QNAN ? a : b;
      else if (a.significand !== b.significand) from = a.significand > b.significand ? a : b;
      else from = a.sign === 0 ? a : b;
    }
    result.set(QNAN, from.sign, 0, from.significand | QUIET_BIT);
    return this.goesOn;
  }

  /** Quiets the only operand. */
  nanOf(a: Real, result: Real): boolean {
    return this.nan(a, a, result);
  }

  /**
   * Rounds significand * 2^(exponent + 1 - width), bit width - 1 of the significand being its highest, into a format.
   * The lowest bit may be sticky: stand for anything nonzero below it.
   */
  round(result: Real, sign: number, exponent: number, significand: bigint, width: number, to: Format): void {
    const { precision, emin, emax } = to;
    let e = exponent;
    let drop = width - precision;
    let kept = this.shorten(significand, drop, sign);
    let exact = this.exactly;
    let up = this.awayFromZero;
    if (kept >> BigInt(precision) !== 0n) {
      kept >>= 1n;
      e++;
    }
    result.denormal = false;
    result.sign = sign;
    if (e < emin) {
      // Tiny: the result would be so small even with an unbounded exponent.
      if ((this.masks & UE) === 0) {
        this.flags |= UE;
        if (to.adjust !== 0) {
          e += to.adjust;
          if (e < emin) {
            // Not even the adjusted exponent fits: only FSCALE gets here.
            this.flags |= PE;
            this.roundedUp = false;
            result.set(ZERO, sign, 0, 0n);
            return;
          }
        }
      } else {
        if (this.flushToZero) {
          this.flags |= UE | PE;
          this.roundedUp = false;
          result.set(ZERO, sign, 0, 0n);
          return;
        }
        drop += emin - exponent;
        kept = this.shorten(significand, drop, sign);
        exact = this.exactly;
        up = this.awayFromZero;
        if (!exact) this.flags |= UE | PE;
        this.roundedUp = up;
        this.denormalResult(result, sign, kept, to);
        return;
      }
    } else if (e > emax) {
      this.flags |= OE;
      if ((this.masks & OE) !== 0) {
        this.flags |= PE;
        this.infinityOrLargest(result, sign, to);
        return;
      }
      e -= to.adjust;
      if (to.adjust !== 0 && e > emax) {
        this.flags |= PE;
        this.roundedUp = true;
        result.set(INFINITE, sign, 0, INTEGER_BIT);
        return;
      }
    }
    if (!exact) this.flags |= PE;
    this.roundedUp = up;
    result.kind = FINITE;
    result.exponent = e;
    result.significand = kept << to.spare;
  }

  private exactly = true;
  private awayFromZero = false;

  /** Drops low bits of a magnitude with rounding. */
  private shorten(significand: bigint, drop: number, sign: number): bigint {
    this.exactly = true;
    this.awayFromZero = false;
    if (drop <= 0) return significand << BigInt(-drop);
    const by = BigInt(drop);
    const kept = significand >> by;
    const rest = significand - (kept << by);
    if (rest === 0n) return kept;
    this.exactly = false;
    let up: boolean;
    if (this.rounding === NEAREST) {
      const half = 1n << (by - 1n);
      up = rest > half || (rest === half && (kept & 1n) !== 0n);
    } else up = this.rounding === (sign === 0 ? UP : DOWN);
    this.awayFromZero = up;
    return up ? kept + 1n : kept;
  }

  private denormalResult(result: Real, sign: number, kept: bigint, to: Format): void {
    if (kept === 0n) {
      result.set(ZERO, sign, 0, 0n);
      return;
    }
    const length = bitLength(kept);
    result.kind = FINITE;
    result.exponent = to.emin - to.precision + length;
    result.significand = kept << BigInt(64 - length);
  }

  private infinityOrLargest(result: Real, sign: number, to: Format): void {
    const infinite = this.rounding === NEAREST || this.rounding === (sign === 0 ? UP : DOWN);
    this.roundedUp = infinite;
    if (infinite) result.set(INFINITE, sign, 0, INTEGER_BIT);
    else result.set(FINITE, sign, to.emax, (ALL_ONES >> to.spare) << to.spare);
  }

  /** Converts to another format (all of a Real is rounded; NaNs are quieted). */
  convert(a: Real, result: Real, to: Format): boolean {
    this.roundedUp = false;
    if (a.kind >= QNAN) return this.nanOf(a, result);
    if (!this.denormal(a, a)) return false;
    if (a.kind === FINITE) this.round(result, a.sign, a.exponent, a.significand, 64, to);
    else result.copy(a);
    return true;
  }

  /** a + b, or a - b if `negate` is 1. */
  add(a: Real, b: Real, negate: number, result: Real, to: Format): boolean {
    this.roundedUp = false;
    if (a.kind >= QNAN || b.kind >= QNAN) return this.nan(a, b, result);
    const bSign = b.sign ^ negate;
    if (a.kind === INFINITE || b.kind === INFINITE) {
      if (a.kind === b.kind && a.sign !== bSign) return this.invalid(result);
      if (!this.denormal(a, b)) return false;
      result.set(INFINITE, a.kind === INFINITE ? a.sign : bSign, 0, INTEGER_BIT);
      return true;
    }
    if (!this.denormal(a, b)) return false;
    if (a.kind === ZERO) {
      if (b.kind === ZERO) {
        const sign = a.sign === bSign ? a.sign : this.rounding === DOWN ? 1 : 0;
        result.set(ZERO, sign, 0, 0n);
      } else this.round(result, bSign, b.exponent, b.significand, 64, to);
      return true;
    }
    if (b.kind === ZERO) {
      this.round(result, a.sign, a.exponent, a.significand, 64, to);
      return true;
    }
    let big = a;
    let small = b;
    let sign = a.sign;
    const differ = a.sign !== bSign;
    let distance = a.exponent - b.exponent;
    if (distance < 0 || (distance === 0 && a.significand < b.significand)) {
      big = b;
      small = a;
      sign = bSign;
      distance = -distance;
    }
    const low = distance <= 66 ? small.significand << BigInt(66 - distance) : 1n;
    const high = big.significand << 66n;
    const sum = differ ? high - low : high + low;
    if (sum === 0n) {
      result.set(ZERO, this.rounding === DOWN ? 1 : 0, 0, 0n);
      return true;
    }
    const width = bitLength(sum);
    this.round(result, sign, big.exponent + width - 130, sum, width, to);
    return true;
  }

  multiply(a: Real, b: Real, result: Real, to: Format): boolean {
    this.roundedUp = false;
    if (a.kind >= QNAN || b.kind >= QNAN) return this.nan(a, b, result);
    const sign = a.sign ^ b.sign;
    if (a.kind === INFINITE || b.kind === INFINITE) {
      if (a.kind === ZERO || b.kind === ZERO) return this.invalid(result);
      if (!this.denormal(a, b)) return false;
      result.set(INFINITE, sign, 0, INTEGER_BIT);
      return true;
    }
    if (!this.denormal(a, b)) return false;
    if (a.kind === ZERO || b.kind === ZERO) {
      result.set(ZERO, sign, 0, 0n);
      return true;
    }
    const product = a.significand * b.significand;
    const width = product >> 127n === 0n ? 127 : 128;
    this.round(result, sign, a.exponent + b.exponent + width - 127, product, width, to);
    return true;
  }

  divide(a: Real, b: Real, result: Real, to: Format): boolean {
    this.roundedUp = false;
    if (a.kind >= QNAN || b.kind >= QNAN) return this.nan(a, b, result);
    const sign = a.sign ^ b.sign;
    if (a.kind === INFINITE) {
      if (b.kind === INFINITE) return this.invalid(result);
      if (!this.denormal(a, b)) return false;
      result.set(INFINITE, sign, 0, INTEGER_BIT);
      return true;
    }
    if (b.kind === ZERO) {
      if (a.kind === ZERO) return this.invalid(result);
      // A denormal dividend is not reported.
      this.flags |= ZE;
      if (!this.goesOn) return false;
      result.set(INFINITE, sign, 0, INTEGER_BIT);
      return true;
    }
    if (!this.denormal(a, b)) return false;
    if (b.kind === INFINITE || a.kind === ZERO) {
      result.set(ZERO, sign, 0, 0n);
      return true;
    }
    const dividend = a.significand << 66n;
    let quotient = dividend / b.significand;
    const exact = quotient * b.significand === dividend;
    const width = quotient >> 66n === 0n ? 66 : 67;
    quotient = (quotient << 1n) | (exact ? 0n : 1n);
    this.round(result, sign, a.exponent - b.exponent + width - 67, quotient, width + 1, to);
    return true;
  }

  sqrt(a: Real, result: Real, to: Format): boolean {
    this.roundedUp = false;
    if (a.kind >= QNAN) return this.nanOf(a, result);
    if (a.kind === ZERO) {
      result.copy(a);
      return true;
    }
    if (a.sign !== 0) return this.invalid(result);
    if (!this.denormal(a, a)) return false;
    if (a.kind === INFINITE) {
      result.copy(a);
      return true;
    }
    // An even power of two below a 133- or 134-bit integer whose root has 67 bits.
    const odd = a.exponent & 1;
    const square = a.significand << (odd ? 70n : 69n);
    const root = squareRoot(square);
    const sticky = root * root === square ? 0n : 1n;
    this.round(result, 0, (a.exponent - odd) / 2, (root << 1n) | sticky, 68, to);
    return true;
  }

  /**
   * LESS, EQUAL, GREATER or UNORDERED. Quiet NaNs are invalid only if `signaling`. Whether an unmasked exception
   * stops the instruction is for the caller to see in the flags.
   */
  compare(a: Real, b: Real, signaling: boolean): number {
    if (a.kind >= QNAN || b.kind >= QNAN) {
      if (signaling || a.kind >= SNAN || b.kind >= SNAN) this.flags |= IE;
      return UNORDERED;
    }
    if (a.denormal || b.denormal) this.flags |= DE;
    return order(a, b);
  }

  /** Rounds to an integral value in the direction given; sets PE if that changed it. */
  integral(a: Real, result: Real, rounding: number): boolean {
    this.roundedUp = false;
    if (a.kind >= QNAN) return this.nanOf(a, result);
    if (a.kind !== FINITE || a.exponent >= 63) {
      result.copy(a);
      result.denormal = false;
      return true;
    }
    const magnitude = this.integerOf(a, rounding);
    if (!this.exactly) this.flags |= PE;
    this.roundedUp = this.awayFromZero;
    const sign = a.sign;
    result.fromInteger(magnitude);
    result.sign = sign;
    return true;
  }

  /** The rounded magnitude of a finite number below 2^64. */
  private integerOf(a: Real, rounding: number): bigint {
    const drop = 63 - a.exponent;
    const saved = this.rounding;
    this.rounding = rounding;
    // Beyond 66 bits only "something below one half" is left.
    const magnitude = drop > 66 ? this.shorten(1n, 66, a.sign) : this.shorten(a.significand, drop, a.sign);
    this.rounding = saved;
    return magnitude;
  }

  /**
   * Converts to a signed integer of 16, 32 or 64 bits. What does not fit is invalid and gives the integer
   * indefinite (only the sign bit set). Sets PE if the value changed.
   */
  toInteger(a: Real, size: number, rounding: number): bigint {
    this.roundedUp = false;
    if (a.kind === ZERO) return 0n;
    if (a.kind !== FINITE || a.exponent > 63) return this.integerIndefinite(size);
    const magnitude = this.integerOf(a, rounding);
    const limit = 1n << BigInt(size - 1);
    if (magnitude > limit || (magnitude === limit && a.sign === 0)) return this.integerIndefinite(size);
    if (!this.exactly) this.flags |= PE;
    this.roundedUp = this.awayFromZero;
    return a.sign === 0 ? magnitude : -magnitude;
  }

  private integerIndefinite(size: number): bigint {
    this.flags |= IE;
    return -(1n << BigInt(size - 1));
  }

  /** Low bits of the quotient of the last remainder. */
  quotient = 0;
  /** The last remainder was only a step: the exponents are still too far apart. */
  incomplete = false;

  /**
   * FPREM (truncating) and FPREM1 (to nearest): one step of at most 63 bits of quotient.
   */
  remainder(a: Real, b: Real, nearest: boolean, result: Real, to: Format): boolean {
    this.roundedUp = false;
    this.quotient = 0;
    this.incomplete = false;
    if (a.kind >= QNAN || b.kind >= QNAN) return this.nan(a, b, result);
    if (a.kind === INFINITE || b.kind === ZERO) return this.invalid(result);
    if (!this.denormal(a, b)) return false;
    if (a.kind === ZERO) {
      result.copy(a);
      return true;
    }
    if (b.kind === INFINITE) {
      result.copy(a);
      return true;
    }
    const distance = a.exponent - b.exponent;
    if (distance < -1) {
      this.round(result, a.sign, a.exponent, a.significand, 64, to);
      return true;
    }
    if (distance >= 64) {
      // As many bits as bring the distance to a multiple of 32, at least 32.
      const step = (distance & 31) | 32;
      const rest = (a.significand << BigInt(step)) % b.significand;
      this.incomplete = true;
      this.exactRemainder(result, a.sign, rest, b.exponent + distance - step, to);
      return true;
    }
    const scaled = distance >= 0 ? a.significand << BigInt(distance) : a.significand;
    const divisor = distance >= 0 ? b.significand : b.significand << 1n;
    let quotient = scaled / divisor;
    let rest = scaled - quotient * divisor;
    let sign = a.sign;
    if (nearest) {
      const twice = rest << 1n;
      if (twice > divisor || (twice === divisor && (quotient & 1n) !== 0n)) {
        rest = divisor - rest;
        quotient++;
        sign ^= 1;
      }
    }
    this.quotient = Number(quotient & 7n);
    this.exactRemainder(result, rest === 0n ? a.sign : sign, rest, Math.min(a.exponent, b.exponent), to);
    return true;
  }

  private exactRemainder(result: Real, sign: number, rest: bigint, exponent: number, to: Format): void {
    if (rest === 0n) {
      result.set(ZERO, sign, 0, 0n);
      return;
    }
    const width = bitLength(rest);
    this.round(result, sign, exponent + width - 64, rest, width, to);
  }

  /** a * 2^scale, rounded. */
  scale(a: Real, scale: number, result: Real, to: Format): void {
    this.round(result, a.sign, a.exponent + scale, a.significand, 64, to);
  }
}

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
