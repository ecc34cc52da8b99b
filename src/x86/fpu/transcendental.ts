/**
 * The transcendental functions of the x87, to about 120 bits, then rounded once.
 *
 * Everything is integer arithmetic: a fixed-point number is a bigint with FRACTION bits behind the point. Where a
 * result can be tiny, its series is taken for f(x) / x, which is about one, and the exact operand multiplied in at
 * the end, so that the relative error stays small. A result of these functions is never exact (the exact ones are the
 * caller's special cases), so the last bit is always set: sticky.
 *
 * Intel (SDM volume 1, 8.3.10) promises errors below one unit in the last place, not correct rounding, and reduces
 * arguments of sine, cosine and tangent with a pi of 66 bits; that pi is part of the instruction's meaning.
 */
import { bitLength, EXTENDED, FINITE, type Real, ZERO } from './real.ts';
import { PE, type SoftFloat, UE } from './softfloat.ts';

const FRACTION = 144;
const SHIFT = BigInt(FRACTION);
const ONE = 1n << SHIFT;

/** pi/4 * 2^68 with the 66 bits that the processor has of it. */
const QUARTER_PI_66 = 0xc90fdaa22168c234cn;

/** atan(1/n) in fixed point. */
function inverseTangentOfReciprocal(n: bigint): bigint {
  let power = ONE / n;
  let sum = power;
  for (let k = 3n; power !== 0n; k += 2n) {
    power /= -n * n;
    sum += power / k;
  }
  return sum;
}

/** Machin's formula. */
const QUARTER_PI = 4n * inverseTangentOfReciprocal(5n) - inverseTangentOfReciprocal(239n);
const ATAN_HALF = inverseTangentOfReciprocal(2n);
const LN2 = 2n * hyperbolic(ONE / 3n);

/** atanh(t), |t| below about 0.4, fixed point. */
function hyperbolic(t: bigint): bigint {
  return (t * hyperbolicRatio((t * t) >> SHIFT)) >> SHIFT;
}

/** atanh(t) / t from t^2: 1 + t^2/3 + t^4/5 ... */
function hyperbolicRatio(square: bigint): bigint {
  let power = ONE;
  let sum = ONE;
  for (let k = 3n; ; k += 2n) {
    power = (power * square) >> SHIFT;
    if (power === 0n) return sum;
    sum += power / k;
  }
}

/** atan(t) / t from t^2. */
function tangentRatio(square: bigint): bigint {
  let power = ONE;
  let sum = ONE;
  for (let k = 3n; ; k += 2n) {
    power = -((power * square) >> SHIFT);
    if (power === 0n || power === -1n) return sum;
    sum += power / k;
  }
}

/** sin(r) / r from r^2. */
function sineRatio(square: bigint): bigint {
  let term = ONE;
  let sum = ONE;
  for (let k = 2n; ; k += 2n) {
    term = -((term * square) >> SHIFT) / (k * (k + 1n));
    if (term === 0n) return sum;
    sum += term;
  }
}

/** cos(r) from r^2. */
function cosineOf(square: bigint): bigint {
  let term = ONE;
  let sum = ONE;
  for (let k = 1n; ; k += 2n) {
    term = -((term * square) >> SHIFT) / (k * (k + 1n));
    if (term === 0n) return sum;
    sum += term;
  }
}

/** (e^y - 1) / y. */
function exponentialRatio(y: bigint): bigint {
  let term = ONE;
  let sum = ONE;
  for (let k = 2n; ; k++) {
    term = ((term * y) >> SHIFT) / k;
    if (term === 0n || term === -1n) return sum;
    sum += term;
  }
}

/** value * 2^shift, truncated. */
function shifted(value: bigint, shift: number): bigint {
  return shift >= 0 ? value << BigInt(shift) : value >> BigInt(-shift);
}

/** An angle reduced to |r| <= pi/4: r = value * 2^exponent, exactly; quadrant 0..3. */
interface Angle {
  readonly value: bigint;
  readonly exponent: number;
  readonly quadrant: number;
}

/** @param x finite, not zero, below 2^63 in magnitude. The angle is that of |x|. */
function reduce(x: Real): Angle {
  if (x.exponent < -1) return { value: x.significand, exponent: x.exponent - 63, quadrant: 0 };
  // In units of 2^-67, in which pi/2 is the 68-bit integer; none of x is lost below.
  const unit = Math.max(67, 63 - x.exponent);
  const half = QUARTER_PI_66 << BigInt(unit - 67);
  const whole = x.significand << BigInt(x.exponent - 63 + unit);
  const quotient = (2n * whole + half) / (2n * half);
  return { value: whole - quotient * half, exponent: -unit, quadrant: Number(quotient & 3n) };
}

/** A positive number value * 2^exponent of any width. */
interface Wide {
  readonly value: bigint;
  readonly exponent: number;
}

export class Transcendental {
  private readonly float: SoftFloat;

  constructor(float: SoftFloat) {
    this.float = float;
  }

  private finish(result: Real, sign: number, wide: Wide): void {
    const { float } = this;
    // Room for the sticky bit far below the last place.
    const value = (wide.value << 2n) | 1n;
    const width = bitLength(value);
    const exponent = wide.exponent - 2 + width - 1;
    const { masks, flags } = float;
    // A hair below the least normal number: the processor, with fewer bits, does not find that this is tiny.
    const hair =
      exponent === EXTENDED.emin - 1 && (value + (1n << BigInt(width - 80))) >> BigInt(width) !== 0n;
    if (hair) float.masks |= UE;
    float.round(result, sign, exponent, value, width, EXTENDED);
    if (hair) float.flags = flags | PE;
    float.masks = masks;
  }

  private static sine(angle: Angle, square: bigint): Wide {
    const magnitude = angle.value < 0n ? -angle.value : angle.value;
    return { value: magnitude * (sineRatio(square) - 1n), exponent: angle.exponent - FRACTION };
  }

  private static cosine(square: bigint): Wide {
    return { value: cosineOf(square) - 1n, exponent: -FRACTION };
  }

  private static square(angle: Angle): bigint {
    // Below 2^-80 the square does not show in the fraction.
    const fixed = angle.exponent < -FRACTION - 80 ? 0n : shifted(angle.value, angle.exponent + FRACTION);
    return (fixed * fixed) >> SHIFT;
  }

  /** @param x finite, not zero, below 2^63 */
  sin(x: Real, result: Real): void {
    this.circular(x, 0, result);
  }

  cos(x: Real, result: Real): void {
    this.circular(x, 1, result);
  }

  /** sin(|x| + turn * pi/2) with the sign of x where that is odd. */
  private circular(x: Real, turn: number, result: Real): void {
    const angle = reduce(x);
    const square = Transcendental.square(angle);
    const quadrant = (angle.quadrant + turn) & 3;
    let sign = quadrant >> 1;
    if (turn === 0) sign ^= x.sign;
    if (quadrant & 1) this.finish(result, sign, Transcendental.cosine(square));
    else this.finish(result, sign ^ (angle.value < 0n ? 1 : 0), Transcendental.sine(angle, square));
  }

  /** @param x finite, not zero, below 2^63 */
  tan(x: Real, result: Real): void {
    const angle = reduce(x);
    const square = Transcendental.square(angle);
    const sine = Transcendental.sine(angle, square);
    const cosine = Transcendental.cosine(square);
    let sign = x.sign ^ (angle.value < 0n ? 1 : 0);
    let [top, bottom] = [sine, cosine];
    if (angle.quadrant & 1) {
      [top, bottom] = [cosine, sine];
      sign ^= 1;
    }
    this.finish(result, sign, quotientOf(top, bottom));
  }

  /** 2^x - 1. @param x finite, not zero, |x| <= 1 */
  exponentialMinusOne(x: Real, result: Real): void {
    const magnitude = shifted(x.significand, x.exponent - 63 + FRACTION);
    const fixed = ((x.sign === 0 ? magnitude : -magnitude) * LN2) >> SHIFT;
    const value = x.significand * ((LN2 * exponentialRatio(fixed)) >> SHIFT);
    this.finish(result, x.sign, { value, exponent: x.exponent - 63 - FRACTION });
  }

  /** y * log2(x). @param x finite, positive, not one. @param y finite, not zero */
  logarithm(x: Real, y: Real, result: Real): void {
    this.logarithmOf(x.significand, x.exponent - 63, y, result);
  }

  /** y * log2(1 + x). @param x finite, not zero, above -1. @param y finite, not zero */
  logarithmOfOnePlus(x: Real, y: Real, result: Real): void {
    const { exponent } = x;
    const magnitude = x.significand;
    if (exponent < -200) {
      // Then the logarithm is x / ln 2 as far as anybody can see.
      const value = (magnitude * ONE * ONE) / LN2;
      this.times(y, x.sign, { value, exponent: exponent - 63 - FRACTION }, result);
    } else if (exponent < -2) {
      // t = x / (2 + x), which is small.
      const s = x.sign === 0 ? magnitude : -magnitude;
      this.times(y, x.sign, logRatio(s, (1n << BigInt(64 - exponent)) + s), result);
    } else if (exponent > 200) this.logarithm(x, y, result);
    else {
      const s = magnitude << BigInt(Math.max(0, exponent - 63));
      const one = 1n << BigInt(Math.max(0, 63 - exponent));
      this.logarithmOf(x.sign === 0 ? one + s : one - s, Math.min(0, exponent - 63), y, result);
    }
  }

  /** y * log2(value * 2^exponent), which is not zero. */
  private logarithmOf(value: bigint, exponent: number, y: Real, result: Real): void {
    const width = bitLength(value);
    let e = exponent + width - 1;
    let one = 1n << BigInt(width - 1);
    if (value === one) {
      this.timesInteger(y, e, result);
      return;
    }
    // value / one between sqrt(1/2) and sqrt(2).
    if (value * value > one * one * 2n) {
      one <<= 1n;
      e++;
    }
    if (e === 0) {
      this.times(y, value < one ? 1 : 0, logRatio(value - one, value + one), result);
      return;
    }
    const t = ((value - one) << SHIFT) / (value + one);
    const log = (e < 0 ? -1n : 1n) * ((BigInt(e) << SHIFT) + ((2n * hyperbolic(t)) << SHIFT) / LN2);
    this.times(y, e < 0 ? 1 : 0, { value: log, exponent: -FRACTION }, result);
  }

  /**
   * The logarithm is an integer, so the product may be exact, but the processor does not notice: a positive logarithm
   * it has right, of a negative one it falls a hair short.
   */
  private timesInteger(y: Real, log: number, result: Real): void {
    const { float } = this;
    let value = BigInt(Math.abs(log)) * y.significand;
    if (log < 0) value = (value << 64n) - 1n;
    const width = bitLength(value);
    const exponent = y.exponent - 63 - (log < 0 ? 64 : 0) + width - 1;
    float.round(result, y.sign ^ (log < 0 ? 1 : 0), exponent, value, width, EXTENDED);
    const tiny = result.kind === ZERO || (result.kind === FINITE && result.exponent < EXTENDED.emin);
    float.flags |= tiny ? PE | UE : PE;
  }

  private times(y: Real, sign: number, log: Wide, result: Real): void {
    const value = log.value * y.significand;
    this.finish(result, y.sign ^ sign, { value, exponent: log.exponent + y.exponent - 63 });
  }

  /** The angle of the point (x, y). @param y finite or infinite, not zero where x is positive */
  arcTangent(y: Real, x: Real, result: Real): void {
    const small = y.exponent < x.exponent || (y.exponent === x.exponent && y.significand <= x.significand);
    const [top, bottom] = small ? [y, x] : [x, y];
    // t = top / bottom <= 1 to 144 bits.
    const exponent = top.exponent - bottom.exponent;
    const ratio = (top.significand << SHIFT) / bottom.significand;
    const direct = small && x.sign === 0;
    const t = shifted(ratio, Math.max(exponent, -FRACTION - 70));
    if (direct && exponent < -2) {
      const square = (t * t) >> SHIFT;
      this.finish(result, y.sign, {
        value: ratio * (tangentRatio(square) - 1n),
        exponent: exponent - 2 * FRACTION,
      });
      return;
    }
    let angle: bigint;
    if (t < ONE >> 2n) angle = (t * tangentRatio((t * t) >> SHIFT)) >> SHIFT;
    else {
      const half = t < (ONE * 7n) / 10n;
      const c = half ? ONE >> 1n : ONE;
      const rest = ((t - c) << SHIFT) / (ONE + ((t * c) >> SHIFT));
      angle = (half ? ATAN_HALF : QUARTER_PI) + ((rest * tangentRatio((rest * rest) >> SHIFT)) >> SHIFT);
    }
    if (!small) angle = 2n * QUARTER_PI - angle;
    if (x.sign !== 0) angle = 4n * QUARTER_PI - angle;
    this.finish(result, y.sign, { value: angle, exponent: -FRACTION });
  }

  /** A multiple of pi/4: the angles of infinite points and of the negative axis. */
  quarters(count: number, sign: number, result: Real): void {
    this.finish(result, sign, { value: BigInt(count) * QUARTER_PI, exponent: -FRACTION });
  }
}

/** |log2((b + a) / (b - a))| = 2 atanh(a / b) / ln 2, to full relative precision however small a is. */
function logRatio(a: bigint, b: bigint): Wide {
  const magnitude = a < 0n ? -a : a;
  const up = 144 + Math.max(0, bitLength(b) - bitLength(magnitude));
  const scaled = (magnitude << BigInt(up)) / b;
  const t = shifted(scaled, FRACTION - up);
  const ratio = hyperbolicRatio((t * t) >> SHIFT);
  return { value: (2n * scaled * ratio) / LN2, exponent: -up };
}

function quotientOf(top: Wide, bottom: Wide): Wide {
  const up = 160 + Math.max(0, bitLength(bottom.value) - bitLength(top.value));
  return {
    value: (top.value << BigInt(up)) / bottom.value,
    exponent: top.exponent - bottom.exponent - up,
  };
}
