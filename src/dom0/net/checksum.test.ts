import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { get16, put16 } from './bytes.ts';
import { finish, fold, sum, updated } from './checksum.ts';

/** By the book: one word after the other, carries at once. */
function reference(bytes: Uint8Array): number {
  let total = 0;
  for (let at = 0; at < bytes.length; at += 2) {
    total += (bytes[at]! << 8) | (bytes[at + 1] ?? 0);
    if (total > 0xffff) total -= 0xffff;
  }
  return total;
}

/** Zero has two representations. */
const same = (a: number, b: number) => a % 0xffff === b % 0xffff;

describe('the Internet checksum', () => {
  it('is that of an example worked by hand (RFC 1071, section 3)', () => {
    const bytes = Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7);
    expect(fold(sum(bytes, 0, 8))).toBe(0xddf2);
    expect(finish(sum(bytes, 0, 8))).toBe(0x220d);
  });

  it('agrees with the definition at every offset and length', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2000 }), fc.nat(7), fc.nat(7), (bytes, skew, cut) => {
        const shifted = new Uint8Array(bytes.length + skew);
        shifted.set(bytes, skew);
        const to = Math.max(skew, shifted.length - cut);
        expect(same(fold(sum(shifted, skew, to)), reference(shifted.subarray(skew, to)))).toBe(true);
      }),
    );
  });

  it('of parts adds up to that of the whole', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 1500 }), fc.nat(700), (bytes, half) => {
        const middle = Math.min(half * 2, bytes.length & ~1);
        const both = sum(bytes, middle, bytes.length, sum(bytes, 0, middle));
        expect(same(fold(both), reference(bytes))).toBe(true);
      }),
    );
  });

  it('of the largest packet does not lose a carry', () => {
    const bytes = new Uint8Array(65535).fill(0xff);
    expect(same(fold(sum(bytes, 0, bytes.length)), reference(bytes))).toBe(true);
  });

  it('follows a changed word', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 20, maxLength: 20 }),
        fc.nat(9),
        fc.nat(0xffff),
        (bytes, word, to) => {
          const before = finish(sum(bytes, 0, 20));
          const old = get16(bytes, word * 2);
          put16(bytes, word * 2, to);
          const after = updated(before, old, to);
          expect(same(after, finish(sum(bytes, 0, 20)))).toBe(true);
        },
      ),
    );
  });
});
