/**
 * IEEE 754 arithmetic in software, as Intel's processors do it (SDM volume 1, chapters 4, 8 and 11): binary32,
 * binary64 and the x87 extended format, the four rounding directions, precision control, the six exceptions with
 * their masked and unmasked responses.
 *
 * Operands and results are {@link Real}s, which have no format: one code serves all, and converting between formats is
 * nothing but rounding.
 *
 * An operation adds to `flags` and returns true if it has a result. It returns false where an exception that is
 * found before computing (invalid, denormal, divide by zero) is not masked: no result exists then, and exceptions of
 * the computation itself are not reported.
 */

import {
  bitLength,
  FINITE,
  type Format,
  INDEFINITE,
  INFINITE,
  order,
  QNAN,
  type Real,
  SNAN,
  UNORDERED,
  UNSUPPORTED,
  ZERO,
} from './real.ts';

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
const INTEGER_BIT = 1n << 63n;
const QUIET_BIT = 1n << 62n;
/** Wider than any significand here: all of it is dropped, and is less than half. */
const FAR = 1024;
const ALL_ONES = (1n << 64n) - 1n;

/** Floor of the square root of an integer between 2^100 and 2^200. */
function squareRoot(value: bigint): bigint {
  const estimate = BigInt(Math.floor(Math.sqrt(Number(value))));
  // 52 good bits become more than 100.
  let root = (estimate + value / estimate) >> 1n;
  while (root * root > value) root--;
  while ((root + 1n) * (root + 1n) <= value) root++;
  return root;
}

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
    if (drop > FAR) return this.shorten(1n, FAR, sign);
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
