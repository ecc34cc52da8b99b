/**
 * The Internet checksum (RFC 1071): the ones' complement of the ones' complement sum of 16-bit words.
 *
 * A *sum* here is a number whose 16-bit parts may still be added up ({@link fold}); sums of parts of a packet add up
 * to that of the whole, as long as each part but the last has an even length.
 */

/** Below this length, making another view costs more than it saves. */
const WIDE_LEAST = 256;
/** Ones' complement sums do not mind the byte order: words may be added as the host reads them, and swapped at last. */
const LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** Adds the 16-bit words of bytes[from..to) to a sum; an odd last byte counts as one with a zero after it. */
export function sum(bytes: Uint8Array, from: number, to: number, start = 0): number {
  let total = start;
  let at = from;
  if (LITTLE_ENDIAN && to - from >= WIDE_LEAST) {
    const skew = -(bytes.byteOffset + from) & 3;
    // From an odd address on, words would be halves of two: such a part is added byte by byte.
    if ((skew & 1) === 0) {
      if (skew === 2) {
        total += (bytes[at]! << 8) | bytes[at + 1]!;
        at += 2;
      }
      const words = new Uint32Array(bytes.buffer, bytes.byteOffset + at, (to - at) >>> 2);
      let wide = 0;
      for (let index = 0; index < words.length; index++) wide += words[index]!;
      const little = fold(wide);
      total += ((little & 0xff) << 8) | (little >>> 8);
      at += words.length * 4;
    }
  }
  for (; at + 1 < to; at += 2) total += (bytes[at]! << 8) | bytes[at + 1]!;
  if (at < to) total += bytes[at]! << 8;
  return total;
}

/** The 16-bit ones' complement sum behind a sum. */
export function fold(total: number): number {
  let value = (total % 0x1_0000_0000) + Math.floor(total / 0x1_0000_0000);
  while (value > 0xffff) value = (value % 0x1_0000) + Math.floor(value / 0x1_0000);
  return value;
}

/** What is written into a checksum field. */
export function finish(total: number): number {
  return ~fold(total) & 0xffff;
}

/** A checksum after one 16-bit word that it covers has changed (RFC 1624, equation 3). */
export function updated(checksum: number, before: number, after: number): number {
  return finish((~checksum & 0xffff) + (~before & 0xffff) + after);
}
