/** What can be known without an x86 processor: JavaScript's own numbers, and identities. */
import { describe, expect, it } from 'vitest';
import { Numbers } from './native.ts';
import { bitLength, DOUBLE, EXTENDED, Real, SINGLE } from './real.ts';
import { DE, DOWN, IE, OE, PE, SoftFloat, TOWARD_ZERO, UE, UP, ZE } from './softfloat.ts';
import { Transcendental } from './transcendental.ts';

const f64 = new Float64Array(1);
const u64 = new BigUint64Array(f64.buffer);
const toBits = (x: number): bigint => {
  f64[0] = x;
  return u64[0]!;
};
const toNumber = (x: bigint): number => {
  u64[0] = x;
  return f64[0]!;
};
const real = (x: number): Real => {
  const value = toBits(x);
  return new Real().fromDouble(Number(value >> 32n), Number(value & 0xffffffffn), false);
};

type Operation = (float: SoftFloat, a: Real, b: Real, r: Real) => boolean;

function check(name: string, operation: Operation, expected: (a: number, b: number) => number): void {
  const numbers = new Numbers(name.length * 77);
  const float = new SoftFloat();
  const r = new Real();
  for (let i = 0; i < 20_000; i++) {
    const a = numbers.double();
    const b = numbers.below(6) === 0 ? numbers.near(a) : numbers.double();
    const wanted = expected(toNumber(a), toNumber(b));
    if (Number.isNaN(toNumber(a)) || Number.isNaN(toNumber(b))) continue;
    float.flags = 0;
    operation(float, real(toNumber(a)), real(toNumber(b)), r);
    if (Number.isNaN(wanted)) expect(float.flags & IE).toBe(IE);
    else
      expect(r.toDouble().toString(16), `${toNumber(a)} ${name} ${toNumber(b)}`).toBe(
        toBits(wanted).toString(16),
      );
  }
}

describe('binary64 to nearest is what JavaScript computes', () => {
  it('adds', () =>
    check(
      '+',
      (f, a, b, r) => f.add(a, b, 0, r, DOUBLE),
      (a, b) => a + b,
    ));
  it('subtracts', () =>
    check(
      '-',
      (f, a, b, r) => f.add(a, b, 1, r, DOUBLE),
      (a, b) => a - b,
    ));
  it('multiplies', () =>
    check(
      '*',
      (f, a, b, r) => f.multiply(a, b, r, DOUBLE),
      (a, b) => a * b,
    ));
  it('divides', () =>
    check(
      '/',
      (f, a, b, r) => f.divide(a, b, r, DOUBLE),
      (a, b) => a / b,
    ));
  it('takes square roots', () =>
    check(
      'sqrt',
      (f, a, _, r) => f.sqrt(a, r, DOUBLE),
      (a) => Math.sqrt(a),
    ));
  it('converts to binary32', () => {
    const numbers = new Numbers(5);
    const float = new SoftFloat();
    const r = new Real();
    for (let i = 0; i < 20_000; i++) {
      const value = toNumber(numbers.double());
      if (Number.isNaN(value)) continue;
      float.convert(real(value), r, SINGLE);
      const bits = new DataView(new ArrayBuffer(4));
      bits.setUint32(0, r.toSingle());
      expect(bits.getFloat32(0)).toBe(Math.fround(value));
    }
  });
});

describe('exceptions', () => {
  const run = (operation: Operation, a: number, b: number): [number, number] => {
    const float = new SoftFloat();
    const r = new Real();
    operation(float, real(a), real(b), r);
    return [toNumber(r.toDouble()), float.flags];
  };
  const multiply: Operation = (f, a, b, r) => f.multiply(a, b, r, DOUBLE);
  const divide: Operation = (f, a, b, r) => f.divide(a, b, r, DOUBLE);
  it('are told', () => {
    expect(run(divide, 1, 3)).toEqual([1 / 3, PE]);
    expect(run(divide, 1, 4)).toEqual([0.25, 0]);
    expect(run(divide, -1, 0)).toEqual([-Infinity, ZE]);
    expect(run(divide, 0, 0)).toEqual([NaN, IE]);
    expect(run(multiply, 1e200, 1e200)).toEqual([Infinity, OE | PE]);
    expect(run(multiply, 1e-200, 1e-200)).toEqual([0, UE | PE]);
    // Tiny but exact is no underflow where that is masked.
    expect(run(multiply, 2 ** -1000, 2 ** -60)).toEqual([2 ** -1060, 0]);
    expect(run(multiply, 2 ** -1060, 1)).toEqual([2 ** -1060, DE]);
  });
  it('stop an operation that would be computed from a bad operand, if not masked', () => {
    const float = new SoftFloat();
    float.masks = 0;
    expect(float.multiply(real(2 ** -1060), real(1), new Real(), DOUBLE)).toBe(false);
    expect(float.flags).toBe(DE);
  });
});

describe('rounding directions', () => {
  it('enclose the exact value', () => {
    const numbers = new Numbers(9);
    const float = new SoftFloat();
    const [low, high, cut] = [new Real(), new Real(), new Real()];
    for (let i = 0; i < 5000; i++) {
      const [a, b] = [real(toNumber(numbers.double())), real(toNumber(numbers.double()))];
      if (a.isNaN || b.isNaN) continue;
      float.flags = 0;
      float.rounding = DOWN;
      float.divide(a, b, low, DOUBLE);
      if (float.flags & (IE | ZE)) continue;
      const exact = (float.flags & PE) === 0;
      float.rounding = UP;
      float.divide(a, b, high, DOUBLE);
      float.rounding = TOWARD_ZERO;
      float.divide(a, b, cut, DOUBLE);
      const [l, h, c] = [low, high, cut].map((r) => toNumber(r.toDouble())) as [number, number, number];
      if (exact) expect([l, h]).toEqual([c, c]);
      else {
        expect(l).toBeLessThan(h);
        expect(Math.abs(c)).toBe(Math.min(Math.abs(l), Math.abs(h)));
      }
    }
  });
});

describe('the extended format', () => {
  it('keeps what it is given', () => {
    const numbers = new Numbers(11);
    for (let i = 0; i < 5000; i++) {
      const { significand, head } = numbers.extended();
      const r = new Real().fromExtended(significand, head);
      if (r.kind === 5 || (r.denormal && significand >> 63n === 1n)) continue;
      expect([r.toExtended(), r.toExtendedHead()]).toEqual([significand, head]);
    }
  });
  it('divides and takes remainders consistently', () => {
    // (a - a rem b) / b is a whole number.
    const numbers = new Numbers(13);
    const float = new SoftFloat();
    const [rest, difference, quotient] = [new Real(), new Real(), new Real()];
    for (let i = 0; i < 2000; i++) {
      const a = new Real().fromInteger(numbers.u64() >> 2n);
      const b = new Real().fromInteger((numbers.u64() >> BigInt(20 + numbers.below(30))) | 1n);
      float.remainder(a, b, numbers.below(2) === 1, rest, EXTENDED);
      expect(float.incomplete).toBe(false);
      float.flags = 0;
      float.add(a, rest, 1, difference, EXTENDED);
      float.divide(difference, b, quotient, EXTENDED);
      expect(float.flags).toBe(0);
      float.integral(quotient, quotient, 0);
      expect(float.flags).toBe(0);
    }
  });
});

describe('transcendental functions', () => {
  const float = new SoftFloat();
  const functions = new Transcendental(float);
  const r = new Real();
  const value = () => {
    float.convert(r, r, DOUBLE);
    return toNumber(r.toDouble());
  };
  const near = (a: number, b: number) => expect(Math.abs(a - b)).toBeLessThanOrEqual(Math.abs(b) * 2 ** -51);
  it('agree with JavaScript to its precision', () => {
    const numbers = new Numbers(15);
    for (let i = 0; i < 2000; i++) {
      const x = (numbers.u32() / 2 ** 32) * 2 - 1;
      const y = (numbers.u32() / 2 ** 32) * 2 - 1;
      if (x === 0 || y === 0) continue;
      functions.sin(real(x), r);
      near(value(), Math.sin(x));
      functions.cos(real(x), r);
      near(value(), Math.cos(x));
      functions.tan(real(x), r);
      near(value(), Math.tan(x));
      functions.arcTangent(real(y), real(x), r);
      near(value(), Math.atan2(y, x));
      functions.exponentialMinusOne(real(x), r);
      near(value(), Math.expm1(x * Math.LN2));
      functions.logarithmOfOnePlus(real(x / 4), real(1), r);
      near(value(), Math.log1p(x / 4) / Math.LN2);
      functions.logarithm(real(Math.abs(x)), real(1), r);
      near(value(), Math.log2(Math.abs(x)));
    }
  });
  it('end soon for every operand', () => {
    const extremes = [
      [0xffffffffffffffffn, 0xbffe],
      [0x8000000000000000n, 0xbffe],
      [0xffffffffffffffffn, 0x7ffe],
      [0x8000000000000000n, 0x403d],
      [0xffffffffffffffffn, 0x403d],
      [1n, 0],
    ] as const;
    const started = performance.now();
    for (const [significand, head] of extremes) {
      const x = new Real().fromExtended(significand, head);
      const y = new Real().fromExtended(1n, 0);
      if (x.exponent < 63) {
        functions.sin(x, r);
        functions.tan(x, r);
      }
      functions.arcTangent(x, y, r);
      functions.arcTangent(y, x, r);
      functions.logarithmOfOnePlus(x, y, r);
      x.sign = 0;
      functions.logarithm(x, y, r);
      float.scale(x, -0x1ffff, r, EXTENDED);
      float.scale(x, 0x1ffff, r, EXTENDED);
    }
    expect(performance.now() - started).toBeLessThan(500);
  });
});

it('bitLength counts bits', () => {
  for (let n = 1; n < 300; n++) {
    const power = 1n << BigInt(n);
    expect([bitLength(power - 1n), bitLength(power), bitLength(power + 1n)]).toEqual([n, n + 1, n + 1]);
  }
});
