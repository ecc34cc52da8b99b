/** The checksums of gzip and xz streams. */

const TABLE_32 = new Uint32Array(256);
const TABLE_64_LOW = new Uint32Array(256);
const TABLE_64_HIGH = new Uint32Array(256);
for (let byte = 0; byte < 256; byte++) {
  let crc = byte;
  let low = byte;
  let high = 0;
  for (let bit = 0; bit < 8; bit++) {
    crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
    const odd = low & 1;
    low = (low >>> 1) | (high << 31);
    high >>>= 1;
    if (odd) {
      low ^= 0xd7870f42;
      high ^= 0xc96c5795;
    }
  }
  TABLE_32[byte] = crc;
  TABLE_64_LOW[byte] = low;
  TABLE_64_HIGH[byte] = high;
}

/** CRC-32 (IEEE 802.3) of bytes[start, end), as an unsigned number. */
export function crc32(bytes: Uint8Array, start = 0, end = bytes.length): number {
  let crc = -1;
  for (let at = start; at < end; at++) crc = TABLE_32[(crc ^ bytes[at]!) & 255]! ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** CRC-64 (ECMA-182) of bytes[start, end): its lower and upper half, unsigned. */
export function crc64(bytes: Uint8Array, start: number, end: number): [low: number, high: number] {
  let low = -1;
  let high = -1;
  for (let at = start; at < end; at++) {
    const index = (low ^ bytes[at]!) & 255;
    low = ((low >>> 8) | (high << 24)) ^ TABLE_64_LOW[index]!;
    high = (high >>> 8) ^ TABLE_64_HIGH[index]!;
  }
  return [~low >>> 0, ~high >>> 0];
}
