/**
 * The messages of 9P2000.L: numbers, and how their fields are read and written. All numbers are little-endian; a
 * string is a u16 length and bytes. Names are bytes to the protocol and to Linux, not text: they are strings of
 * characters 0 to 255 here, one for each byte.
 */
import { ERRNO } from '../../xen/public/errno.ts';
import { FileError } from './files.ts';

/** Types of requests; the answer's is one more. */
export const P9 = {
  lerror: 6,
  statfs: 8,
  lopen: 12,
  lcreate: 14,
  symlink: 16,
  mknod: 18,
  rename: 20,
  readlink: 22,
  getattr: 24,
  setattr: 26,
  xattrwalk: 30,
  xattrcreate: 32,
  readdir: 40,
  fsync: 50,
  lock: 52,
  getlock: 54,
  link: 70,
  mkdir: 72,
  renameat: 74,
  unlinkat: 76,
  version: 100,
  auth: 102,
  attach: 104,
  flush: 108,
  walk: 110,
  read: 116,
  write: 118,
  clunk: 120,
  remove: 122,
} as const;

/** size[4] type[1] tag[2] */
export const HEADER = 7;
/** The fields of a Rread or Rreaddir before its bytes. */
export const READ_HEADER = HEADER + 4;

export class MessageReader {
  private readonly bytes: Uint8Array;
  private readonly view: DataView;
  private at = HEADER;

  /** @param bytes a whole message, its header included */
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  u8(): number {
    return this.view.getUint8(this.advance(1));
  }

  u16(): number {
    return this.view.getUint16(this.advance(2), true);
  }

  u32(): number {
    return this.view.getUint32(this.advance(4), true);
  }

  u64(): bigint {
    return this.view.getBigUint64(this.advance(8), true);
  }

  /** An offset in a file. @throws FileError: no file is so long */
  offset(): number {
    const value = this.u64();
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new FileError(ERRNO.EINVAL);
    return Number(value);
  }

  /** One character for each byte. */
  string(): string {
    const length = this.u16();
    const at = this.advance(length);
    return latin1(this.bytes.subarray(at, at + length));
  }

  /** What is left, not copied. @throws FileError: there is less */
  rest(length: number): Uint8Array {
    const at = this.advance(length);
    return this.bytes.subarray(at, at + length);
  }

  /** Bytes that were not read yet. */
  get left(): number {
    return this.bytes.length - this.at;
  }

  private advance(length: number): number {
    const { at } = this;
    if (length > this.left) throw new FileError(ERRNO.EINVAL);
    this.at = at + length;
    return at;
  }
}

/** An answer's bytes. */
export class MessageWriter {
  private bytes: Uint8Array;
  private view: DataView;
  private at = HEADER;

  /** @param capacity a guess of its length; it grows */
  constructor(capacity = 64) {
    this.bytes = new Uint8Array(capacity);
    this.view = new DataView(this.bytes.buffer);
  }

  u8(value: number): this {
    const at = this.advance(1);
    this.view.setUint8(at, value);
    return this;
  }

  u16(value: number): this {
    const at = this.advance(2);
    this.view.setUint16(at, value, true);
    return this;
  }

  u32(value: number): this {
    const at = this.advance(4);
    this.view.setUint32(at, value, true);
    return this;
  }

  u64(value: bigint): this {
    const at = this.advance(8);
    this.view.setBigUint64(at, BigInt.asUintN(64, value), true);
    return this;
  }

  string(text: string): this {
    this.u16(text.length);
    const at = this.advance(text.length);
    for (let index = 0; index < text.length; index++) this.bytes[at + index] = text.charCodeAt(index);
    return this;
  }

  /** Room for bytes that somebody else fills in. */
  room(length: number): Uint8Array {
    const at = this.advance(length);
    return this.bytes.subarray(at, at + length);
  }

  /** Bytes so far, the header included. */
  get length(): number {
    return this.at;
  }

  /** Takes back what was written last. @param length of the whole, as {@link length} said it */
  cut(length: number): void {
    this.at = length;
  }

  /** Changes a u32 that was written before. */
  patch(at: number, value: number): void {
    this.view.setUint32(at, value, true);
  }

  finish(type: number, tag: number): Uint8Array {
    this.view.setUint32(0, this.at, true);
    this.view.setUint8(4, type);
    this.view.setUint16(5, tag, true);
    return this.bytes.subarray(0, this.at);
  }

  /** Makes room, perhaps in a larger view: to be called before that is used. */
  private advance(length: number): number {
    const { at } = this;
    this.at += length;
    if (this.at > this.bytes.length) {
      const larger = new Uint8Array(Math.max(this.at, this.bytes.length * 2));
      larger.set(this.bytes);
      this.bytes = larger;
      this.view = new DataView(larger.buffer);
    }
    return at;
  }
}

/** Bytes as characters 0 to 255. */
function latin1(bytes: Uint8Array): string {
  let text = '';
  for (let at = 0; at < bytes.length; at += 4096)
    text += String.fromCharCode(...bytes.subarray(at, at + 4096));
  return text;
}
