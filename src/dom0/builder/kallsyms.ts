/**
 * The symbols that a Linux kernel carries in itself (CONFIG_KALLSYMS), read out of its unpacked file.
 *
 * Debian ships no usable System.map with its kernels, but every kernel has this table in its read-only data. Nothing
 * points to it from outside, so it is found by what it must look like. In memory order, each part aligned to 8:
 *
 *   [offsets, base]  number of symbols, names, markers, [order by name], token table, token index  [offsets, base]
 *
 * with the offsets first in older kernels and last in newer ones. A name is a length (one byte, or two if the first has
 * its top bit set) and that many tokens; the first character that they expand to is the symbol's type. markers[k]
 * is where name 256 * k begins. An offset that is negative counts down from the base (the address is
 * base - 1 - offset); others are absolute: places in the per-CPU area.
 */
import { join64 } from '../../x86/cpu.ts';
import { type Elf, PT } from './elf.ts';
import type { NamedAddress } from './symbols.ts';

const TOKENS = 256;
const NAMES_PER_MARKER = 256;
/** In tokens (KSYM_NAME_LEN of Linux). */
const LONGEST_NAME = 512;
/** The names and what is between them and the token table take less than this, in bytes. */
const FARTHEST = 32 << 20;
/** A kernel with fewer symbols than this is none. */
const LEAST_SYMBOLS = 256;
/** Bytes of an entry of the table that orders symbols by name. */
const SEQUENCE_SIZE = 3;

function align8(at: number): number {
  return Math.ceil(at / 8) * 8;
}

/** The kernel's symbols in the order of its table, or null where none can be found. */
export function kernelSymbols(elf: Elf): NamedAddress[] | null {
  for (const segment of elf.segments) {
    if (segment.type !== PT.LOAD) continue;
    const found = new Kallsyms(segment.bytes).read();
    if (found) return found;
  }
  return null;
}

class Kallsyms {
  private readonly bytes: Uint8Array;
  private readonly view: DataView;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  read(): NamedAddress[] | null {
    for (let at = this.nextDigits(0); at >= 0; at = this.nextDigits(at + 1)) {
      const tokens = this.tokenTable(at);
      const names = tokens && this.names(tokens.start);
      if (!names) continue;
      const addresses = this.addresses(names.start - 8, tokens.end, names.lengths.length);
      if (addresses) return this.expand(tokens, names, addresses);
    }
    return null;
  }

  private u32(at: number): number {
    return at >= 0 && at + 4 <= this.bytes.length ? this.view.getUint32(at, true) : 0;
  }

  /** Tokens for the digits are the digits: where "0", "1", ... "9" stand in a row, each with its zero. */
  private nextDigits(from: number): number {
    const { bytes } = this;
    for (let at = from; at + 20 <= bytes.length; at++) {
      if (bytes[at] !== 0x30 || bytes[at + 1] !== 0 || bytes[at + 2] !== 0x31) continue;
      let digit = 0;
      while (digit < 10 && bytes[at + 2 * digit] === 0x30 + digit && bytes[at + 2 * digit + 1] === 0) digit++;
      if (digit === 10) return at;
    }
    return -1;
  }

  /** The token table around its token "0", checked against the index behind it. */
  private tokenTable(zero: number): { start: number; end: number; tokens: string[] } | null {
    const { bytes, view } = this;
    let at = zero;
    for (let token = 0x30; token < TOKENS; token++) {
      while (at < bytes.length && bytes[at] !== 0) at++;
      at++;
    }
    const index = align8(at);
    const end = index + TOKENS * 2;
    if (end > bytes.length) return null;
    const start = zero - view.getUint16(index + 2 * 0x30, true);
    const tokens: string[] = [];
    for (let token = 0; token < TOKENS; token++) {
      const from = start + view.getUint16(index + 2 * token, true);
      const next = token + 1 < TOKENS ? start + view.getUint16(index + 2 * token + 2, true) : at;
      if (start < 0 || next <= from || next > at || bytes[next - 1] !== 0) return null;
      tokens.push(String.fromCharCode(...bytes.subarray(from, next - 1)));
    }
    return { start, end, tokens };
  }

  /** The names, somewhere before the token table: the last place from which all that must follow does. */
  private names(tableStart: number): { start: number; lengths: number[] } | null {
    const first = Math.max(8, tableStart - FARTHEST);
    for (let start = Math.floor(tableStart / 8) * 8; start >= first; start -= 8) {
      const count = this.u32(start - 8);
      // A name takes three bytes at least: its length, the type, a character.
      if (count < LEAST_SYMBOLS || count * 3 > tableStart - start || this.u32(start - 4) !== 0) continue;
      const lengths = this.walk(start, tableStart, count);
      if (lengths) return { start, lengths };
    }
    return null;
  }

  /** The lengths of `count` names, if the markers behind them agree and the token table comes next. */
  private walk(start: number, tableStart: number, count: number): number[] | null {
    const { bytes } = this;
    const lengths: number[] = [];
    const markers: number[] = [];
    let at = start;
    for (let index = 0; index < count; index++) {
      if (index % NAMES_PER_MARKER === 0) markers.push(at - start);
      let length = bytes[at++]!;
      if (length & 0x80) length = (length & 0x7f) | (bytes[at++]! << 7);
      if (length === 0 || length > LONGEST_NAME) return null;
      lengths.push(length);
      at += length;
      if (at > tableStart) return null;
    }
    at = align8(at);
    if (markers.some((marker, index) => this.u32(at + index * 4) !== marker)) return null;
    const end = align8(at + markers.length * 4);
    return end === tableStart || align8(end + count * SEQUENCE_SIZE) === tableStart ? lengths : null;
  }

  /** The addresses of all symbols, from whichever of the two places the offsets are in. */
  private addresses(countAt: number, tokensEnd: number, count: number): number[] | null {
    const size = align8(count * 4);
    for (const offsets of [countAt - 8 - size, align8(tokensEnd)]) {
      const baseAt = offsets + size;
      if (offsets < 0 || baseAt + 8 > this.bytes.length) continue;
      const base = join64(this.u32(baseAt), this.u32(baseAt + 4));
      // The kernel's text is in the topmost 2 GiB.
      if (base >= 0 || base < -(2 ** 31)) continue;
      const addresses = Array.from({ length: count }, (_, index) => {
        const offset = this.view.getInt32(offsets + index * 4, true);
        return offset < 0 ? base - 1 - offset : offset;
      });
      const places = addresses.filter((address) => address < 0);
      if (places.length > 0 && places.every((address, i) => i === 0 || address >= places[i - 1]!))
        return addresses;
    }
    return null;
  }

  private expand(
    { tokens }: { tokens: string[] },
    names: { start: number; lengths: number[] },
    addresses: readonly number[],
  ): NamedAddress[] {
    let at = names.start;
    return names.lengths.map((length, index) => {
      at += length > 127 ? 2 : 1;
      let name = '';
      for (let i = 0; i < length; i++) name += tokens[this.bytes[at + i]!]!;
      at += length;
      return { address: addresses[index]!, name: name.slice(1) };
    });
  }
}
