const EMPTY = new Uint8Array(0);
/** Bytes for which room is made first. */
const LEAST = 64;

/** A growing byte string, with the number encodings of the WebAssembly binary format (LEB128). */
export class Bytes {
  private data: Uint8Array;
  length = 0;

  /** @param capacity bytes for which there is to be room at once; many hold none in the end */
  constructor(capacity = 0) {
    this.data = capacity === 0 ? EMPTY : new Uint8Array(capacity);
  }

  private room(more: number): void {
    if (this.length + more <= this.data.length) return;
    const grown = new Uint8Array(Math.max(this.data.length * 2, this.length + more, LEAST));
    grown.set(this.data.subarray(0, this.length));
    this.data = grown;
  }

  u8(value: number): void {
    if (this.length === this.data.length) this.room(1);
    this.data[this.length++] = value;
  }

  /** Unsigned LEB128 of a u32. */
  u32(value: number): void {
    let rest = value >>> 0;
    while (rest > 0x7f) {
      this.u8((rest & 0x7f) | 0x80);
      rest >>>= 7;
    }
    this.u8(rest);
  }

  /** Signed LEB128 of an i32. */
  s32(value: number): void {
    let rest = value | 0;
    for (;;) {
      const low = rest & 0x7f;
      rest >>= 7;
      if ((rest === 0 && (low & 0x40) === 0) || (rest === -1 && (low & 0x40) !== 0)) {
        this.u8(low);
        return;
      }
      this.u8(low | 0x80);
    }
  }

  /** Signed LEB128 of an i64; a bigint is taken modulo 2^64. */
  s64(value: number | bigint): void {
    const small = Number(value);
    if (small === (small | 0)) {
      this.s32(small);
      return;
    }
    let rest = BigInt.asIntN(64, BigInt(value));
    for (;;) {
      const low = Number(rest & 0x7fn);
      rest >>= 7n;
      if ((rest === 0n && (low & 0x40) === 0) || (rest === -1n && (low & 0x40) !== 0)) {
        this.u8(low);
        return;
      }
      this.u8(low | 0x80);
    }
  }

  bytes(values: ArrayLike<number>): void {
    this.room(values.length);
    this.data.set(values, this.length);
    this.length += values.length;
  }

  /** A name: its UTF-8 length, then the bytes (ASCII only here). */
  name(text: string): void {
    this.u32(text.length);
    for (let i = 0; i < text.length; i++) this.u8(text.charCodeAt(i));
  }

  /** Another byte string behind its length. */
  sized(other: Bytes): void {
    this.u32(other.length);
    this.bytes(other.view());
  }

  /** A section of a module: its number, and its contents behind their length. */
  section(id: number, fill: (contents: Bytes) => void): void {
    const contents = new Bytes(256);
    fill(contents);
    this.u8(id);
    this.sized(contents);
  }

  view(): Uint8Array {
    return this.data.subarray(0, this.length);
  }
}

export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
