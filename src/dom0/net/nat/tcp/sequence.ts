/** Sequence numbers of TCP: u32 that wrap around (RFC 9293, section 3.4). */

export function add(seq: number, count: number): number {
  return (seq + count) >>> 0;
}

/** How far a lies ahead of b; negative: behind. The two must be less than 2^31 apart. */
export function distance(a: number, b: number): number {
  return (a - b) | 0;
}
