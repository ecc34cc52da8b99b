/** XXH64 with seed 0 (the xxHash specification): the checksum of Zstandard frames. */

const P1 = 0x9e3779b185ebca87n;
const P2 = 0xc2b2ae3d27d4eb4fn;
const P3 = 0x165667b19e3779f9n;
const P4 = 0x85ebca77c2b2ae63n;
const P5 = 0x27d4eb2f165667c5n;

const P1_LOW = Number(P1 & 0xffffffffn) | 0;
const P1_HIGH = Number(P1 >> 32n) | 0;
const P2_LOW = Number(P2 & 0xffffffffn) | 0;
const P2_HIGH = Number(P2 >> 32n) | 0;

const STRIPE = 32;

export function xxh64(bytes: Uint8Array): bigint {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  let hash = P5;
  if (bytes.length >= STRIPE) {
    const lanes = [new Lane(P1 + P2), new Lane(P2), new Lane(0n), new Lane(-P1)] as const;
    for (; at + STRIPE <= bytes.length; at += STRIPE) {
      lanes[0].add(view.getInt32(at, true), view.getInt32(at + 4, true));
      lanes[1].add(view.getInt32(at + 8, true), view.getInt32(at + 12, true));
      lanes[2].add(view.getInt32(at + 16, true), view.getInt32(at + 20, true));
      lanes[3].add(view.getInt32(at + 24, true), view.getInt32(at + 28, true));
    }
    const [a, b, c, d] = [lanes[0].value, lanes[1].value, lanes[2].value, lanes[3].value];
    hash = u64(rotate(a, 1n) + rotate(b, 7n) + rotate(c, 12n) + rotate(d, 18n));
    for (const lane of [a, b, c, d]) hash = u64((hash ^ round(lane)) * P1 + P4);
  }
  hash = u64(hash + BigInt(bytes.length));
  for (; at + 8 <= bytes.length; at += 8) {
    hash = u64(rotate(hash ^ round(view.getBigUint64(at, true)), 27n) * P1 + P4);
  }
  if (at + 4 <= bytes.length) {
    hash = u64(rotate(hash ^ u64(BigInt(view.getUint32(at, true)) * P1), 23n) * P2 + P3);
    at += 4;
  }
  for (; at < bytes.length; at++) hash = u64(rotate(hash ^ u64(BigInt(bytes[at]!) * P5), 11n) * P1);
  hash = u64((hash ^ (hash >> 33n)) * P2);
  hash = u64((hash ^ (hash >> 29n)) * P3);
  return hash ^ (hash >> 32n);
}

function u64(value: bigint): bigint {
  return BigInt.asUintN(64, value);
}

function rotate(value: bigint, by: bigint): bigint {
  return u64(value << by) | (value >> (64n - by));
}

function round(input: bigint): bigint {
  return u64(rotate(u64(input * P2), 31n) * P1);
}

/** One of the four running sums, in 32-bit halves: this is where all the time goes. */
class Lane {
  private low: number;
  private high: number;

  constructor(value: bigint) {
    this.low = Number(BigInt.asIntN(32, value));
    this.high = Number(BigInt.asIntN(32, value >> 32n));
  }

  get value(): bigint {
    return u64((BigInt(this.high >>> 0) << 32n) | BigInt(this.low >>> 0));
  }

  /** this = rotate(this + input * P2, 31) * P1 */
  add(inputLow: number, inputHigh: number): void {
    const productLow = Math.imul(inputLow, P2_LOW);
    const productHigh =
      (mulHigh(inputLow, P2_LOW) + Math.imul(inputLow, P2_HIGH) + Math.imul(inputHigh, P2_LOW)) | 0;
    const low = (this.low + productLow) | 0;
    const carry = low >>> 0 < productLow >>> 0 ? 1 : 0;
    const high = (this.high + productHigh + carry) | 0;
    const turnedLow = (low << 31) | (high >>> 1);
    const turnedHigh = (high << 31) | (low >>> 1);
    this.low = Math.imul(turnedLow, P1_LOW);
    this.high =
      (mulHigh(turnedLow, P1_LOW) + Math.imul(turnedLow, P1_HIGH) + Math.imul(turnedHigh, P1_LOW)) | 0;
  }
}

/** The upper half of the product of two unsigned 32-bit numbers, as an i32. */
function mulHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const middle = (Math.imul(aHigh, bLow) >>> 0) + (Math.imul(aLow, bLow) >>> 16);
  const other = (Math.imul(aLow, bHigh) >>> 0) + (middle & 0xffff);
  return (Math.imul(aHigh, bHigh) + (middle >>> 16) + (other >>> 16)) | 0;
}
