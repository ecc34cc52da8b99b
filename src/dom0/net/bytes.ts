/** Numbers in network byte order. */

export function get16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}

/** @returns an unsigned number */
export function get32(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

export function put16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

export function put32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

/**
 * A copy of bytes that may be shared with other threads. V8 copies such bytes by words only where both places lie
 * alike within one: so the copy does.
 */
export function copied(bytes: Uint8Array): Uint8Array {
  const skew = bytes.byteOffset % 8;
  const copy = new Uint8Array(skew + bytes.length).subarray(skew);
  copy.set(bytes);
  return copy;
}
