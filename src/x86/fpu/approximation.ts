/**
 * RCPPS and RSQRTPS. Intel promises a relative error of at most 1.5 * 2^-12 (SDM volume 2); its processors take the
 * value from a table. The table turns out to be what anybody would put there: the range of arguments is cut into
 * 2048 equal pieces (RSQRT: 1024 for each parity of the exponent), and each gives the result for its middle, rounded
 * to 13 significant bits. Found by comparing all arguments with a processor, and exact for all of them there.
 *
 * No exceptions, no influence of MXCSR: denormals count as zero, results too small become zero.
 */

const SIGN = 0x80000000;
const INFINITY = 0x7f800000;
const INDEFINITE = 0xffc00000;

/** Operands that no table is needed for: the result, or -1. */
function special(x: number, negativeIsInvalid: boolean): number {
  const magnitude = x & 0x7fffffff;
  if (magnitude > INFINITY) return (x | 0x400000) >>> 0;
  if (magnitude < 0x800000) return ((x & SIGN) | INFINITY) >>> 0;
  if (negativeIsInvalid && x >>> 31 !== 0) return INDEFINITE;
  if (magnitude === INFINITY) return (x & SIGN) >>> 0;
  return -1;
}

/** A value of 13 bits, the first of them 1/2, times 2^exponent. */
function assemble(sign: number, value: number, exponent: number): number {
  if (exponent <= -126) return sign >>> 0;
  return (sign | ((exponent + 126) << 23) | ((value & 0xfff) << 11)) >>> 0;
}

/** @param x the 32 bits of a binary32 number, unsigned */
export function reciprocal(x: number): number {
  const early = special(x, false);
  if (early >= 0) return early;
  const middle = 2048.5 + ((x >>> 12) & 0x7ff);
  const value = Math.floor(2 ** 24 / middle + 0.5);
  return assemble(x & SIGN, value, 127 - ((x >>> 23) & 0xff));
}

/** @param x the 32 bits of a binary32 number, unsigned */
export function reciprocalSquareRoot(x: number): number {
  const early = special(x, true);
  if (early >= 0) return early;
  const exponent = ((x >>> 23) & 0xff) - 127;
  const odd = exponent & 1;
  const middle = (1024.5 + ((x >>> 13) & 0x3ff)) * (odd ? 2 : 1);
  const value = Math.floor(2 ** 13 / Math.sqrt(middle / 1024) + 0.5);
  return assemble(0, value, -(exponent - odd) / 2);
}
