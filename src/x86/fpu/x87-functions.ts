/**
 * What the x87's functions of one and two operands give for operands of every kind: zeros, infinities, NaNs and
 * denormals (SDM volume 2, the tables of each instruction). The ordinary values come from transcendental.ts.
 *
 * Each returns whether there is a result, as the operations of softfloat.ts do.
 */
import { EXTENDED, FINITE, INFINITE, QNAN, type Real, ZERO } from './real.ts';
import { DE, PE, type SoftFloat, ZE } from './softfloat.ts';
import { Transcendental } from './transcendental.ts';
import { INTEGER_BIT } from './x87-stack.ts';

export class X87Functions {
  private readonly float: SoftFloat;
  private readonly transcendental: Transcendental;

  constructor(float: SoftFloat) {
    this.float = float;
    this.transcendental = new Transcendental(float);
  }

  /** Reports denormal operands; false: that is not masked. */
  denormal(a: Real, b: Real): boolean {
    if (a.denormal || b.denormal) this.float.flags |= DE;
    return (this.float.flags & ~this.float.masks & DE) === 0;
  }

  roundToInteger(a: Real, r: Real): boolean {
    if (a.denormal) this.float.flags |= DE;
    if ((this.float.flags & ~this.float.masks & DE) !== 0) return false;
    return this.float.integral(a, r, this.float.rounding);
  }

  /** FSCALE: ST(0) * 2^trunc(ST(1)). */
  scale(a: Real, b: Real, r: Real): boolean {
    const { float } = this;
    if (a.kind >= QNAN || b.kind >= QNAN) return float.nan(a, b, r);
    if (b.kind === INFINITE) {
      if (b.sign === 0 ? a.kind === ZERO : a.kind === INFINITE) return float.invalid(r);
      if (!this.denormal(a, b)) return false;
      if (b.sign === 0) r.set(INFINITE, a.sign, 0, INTEGER_BIT);
      else r.set(ZERO, a.sign, 0, 0n);
      return true;
    }
    if (!this.denormal(a, b)) return false;
    if (a.kind !== FINITE || b.kind === ZERO) {
      r.copy(a);
      return true;
    }
    let by = 0;
    if (b.kind === FINITE && b.exponent >= 0) {
      by = b.exponent > 16 ? 0x1ffff : Number(b.significand >> BigInt(63 - b.exponent));
      if (b.sign !== 0) by = -by;
    }
    float.scale(a, by, r, EXTENDED);
    return true;
  }

  /** FSIN, FCOS, FPTAN, FSINCOS share: whether the operand is one to compute with; else `r` has the result. */
  angle(a: Real, r: Real): 'compute' | 'done' | 'far' | 'stop' {
    const { float } = this;
    if (a.kind >= QNAN) return float.nanOf(a, r) ? 'done' : 'stop';
    if (a.kind === INFINITE) return float.invalid(r) ? 'done' : 'stop';
    if (a.kind === FINITE && a.exponent >= 63) {
      return 'far';
    }
    return this.denormal(a, a) ? 'compute' : 'stop';
  }

  sine(a: Real, r: Real): void {
    if (a.kind === ZERO) r.copy(a);
    else this.transcendental.sin(a, r);
  }

  cosine(a: Real, r: Real): void {
    if (a.kind === ZERO) r.set(FINITE, 0, 0, INTEGER_BIT);
    else this.transcendental.cos(a, r);
  }

  tangent(a: Real, r: Real): void {
    if (a.kind === ZERO) r.copy(a);
    else this.transcendental.tan(a, r);
  }

  exponentialMinusOne(a: Real, r: Real): boolean {
    const { float } = this;
    if (a.kind >= QNAN) return float.nanOf(a, r);
    if (a.kind === INFINITE) {
      if (a.sign === 0) r.copy(a);
      else r.set(FINITE, 1, 0, INTEGER_BIT);
      return true;
    }
    if (!this.denormal(a, a)) return false;
    if (a.kind === ZERO) {
      r.copy(a);
      return true;
    }
    if (a.exponent >= 0) {
      // Not defined beyond one: the operand stays as it is. 2^-1 - 1 and 2^1 - 1 are exact, but reported inexact too.
      if (a.exponent === 0 && a.sign !== 0 && a.significand === INTEGER_BIT)
        r.set(FINITE, 1, -1, INTEGER_BIT);
      else r.copy(a);
      float.flags |= PE;
      return true;
    }
    this.transcendental.exponentialMinusOne(a, r);
    return true;
  }

  /** FYL2X: y * log2(x), x in ST(0), y in ST(1). */
  logarithm(x: Real, y: Real, r: Real): boolean {
    const { float } = this;
    if (x.kind >= QNAN || y.kind >= QNAN) return float.nan(x, y, r);
    if (x.kind !== ZERO && x.sign !== 0) return float.invalid(r);
    if (x.kind === ZERO) {
      if (y.kind === ZERO) return float.invalid(r);
      if (y.kind === FINITE) {
        float.flags |= ZE;
        if ((float.masks & ZE) === 0) return false;
      }
      r.set(INFINITE, y.sign ^ 1, 0, INTEGER_BIT);
      return true;
    }
    const one = x.kind === FINITE && x.exponent === 0 && x.significand === INTEGER_BIT;
    const sign = y.sign ^ (x.kind === FINITE && x.exponent < 0 ? 1 : 0);
    if (y.kind === INFINITE) {
      if (one) return float.invalid(r);
      if (!this.denormal(x, y)) return false;
      r.set(INFINITE, sign, 0, INTEGER_BIT);
      return true;
    }
    if (x.kind === INFINITE) {
      if (y.kind === ZERO) return float.invalid(r);
      if (!this.denormal(x, y)) return false;
      r.set(INFINITE, sign, 0, INTEGER_BIT);
      return true;
    }
    if (!this.denormal(x, y)) return false;
    if (y.kind === ZERO || one) {
      r.set(ZERO, sign, 0, 0n);
      return true;
    }
    this.transcendental.logarithm(x, y, r);
    return true;
  }

  /** FYL2XP1: y * log2(1 + x). */
  logarithmOfOnePlus(x: Real, y: Real, r: Real): boolean {
    const { float } = this;
    if (x.kind >= QNAN || y.kind >= QNAN) return float.nan(x, y, r);
    const sign = x.sign ^ y.sign;
    if (x.kind === INFINITE) {
      if (x.sign !== 0 || y.kind === ZERO) return float.invalid(r);
      if (!this.denormal(x, y)) return false;
      r.set(INFINITE, sign, 0, INTEGER_BIT);
      return true;
    }
    if (y.kind === INFINITE) {
      if (x.kind === ZERO) return float.invalid(r);
      if (!this.denormal(x, y)) return false;
      r.set(INFINITE, sign, 0, INTEGER_BIT);
      return true;
    }
    if (!this.denormal(x, y)) return false;
    if (x.kind === ZERO || y.kind === ZERO) {
      r.set(ZERO, sign, 0, 0n);
      return true;
    }
    if (x.sign !== 0 && x.exponent >= 0) {
      // Not defined: the operand stays as it is.
      float.flags |= PE;
      r.copy(x);
      return true;
    }
    this.transcendental.logarithmOfOnePlus(x, y, r);
    return true;
  }

  /** FPATAN: the angle of (ST(0), ST(1)). */
  arcTangent(x: Real, y: Real, r: Real): boolean {
    const { float } = this;
    if (x.kind >= QNAN || y.kind >= QNAN) return float.nan(x, y, r);
    if (!this.denormal(x, y)) return false;
    if (y.kind === INFINITE) {
      const quarters = x.kind === INFINITE ? (x.sign === 0 ? 1 : 3) : 2;
      this.transcendental.quarters(quarters, y.sign, r);
    } else if (y.kind === ZERO || x.kind === INFINITE) {
      if (x.sign === 0) r.set(ZERO, y.sign, 0, 0n);
      else this.transcendental.quarters(4, y.sign, r);
    } else if (x.kind === ZERO) this.transcendental.quarters(2, y.sign, r);
    else this.transcendental.arcTangent(y, x, r);
    return true;
  }
}
