/**
 * Zstandard frames (RFC 8878), without dictionaries: decoded straight into a buffer of the announced size, which is
 * the window too.
 */

import { xxh64 } from './xxhash.ts';

/** The compressed data is not what the format allows. */
export class ZstdError extends Error {}

const MAGIC = 0xfd2fb528;
const SKIPPABLE = 0x184d2a50;
const BLOCK_MAX = 128 << 10;

/** A decoding table of a finite-state entropy code: for each state a symbol, how many bits follow, and a base. */
interface FseTable {
  readonly accuracy: number;
  readonly symbols: Uint8Array;
  readonly bits: Uint8Array;
  readonly bases: Uint16Array;
}

/** A Huffman code: for each `bits`-wide look ahead the symbol, and the length of its code. */
interface HuffmanTable {
  readonly bits: number;
  readonly symbols: Uint8Array;
  readonly lengths: Uint8Array;
}

// RFC 8878, 3.1.1.3.2.1: what the codes of literal lengths, match lengths and offsets stand for.
const LITERAL_BASES = [
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 22, 24, 28, 32, 40, 48, 64, 128, 256, 512,
  1024, 2048, 4096, 8192, 16384, 32768, 65536,
];
const LITERAL_BITS = [
  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14,
  15, 16,
];
const MATCH_BASES = [
  3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
  32, 33, 34, 35, 37, 39, 41, 43, 47, 51, 59, 67, 83, 99, 131, 259, 515, 1027, 2051, 4099, 8195, 16387, 32771,
  65539,
];
const MATCH_BITS = [
  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1,
  2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
];
const OFFSET_CODE_MAX = 31;

// 3.1.1.3.2.2: the distributions that need not be sent.
const LITERAL_DEFAULT = buildFse(
  [
    4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1,
    -1, -1,
  ],
  6,
);
const MATCH_DEFAULT = buildFse(
  [
    1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
  ],
  6,
);
const OFFSET_DEFAULT = buildFse(
  [1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1],
  5,
);

/**
 * Decompresses all frames of the input.
 * @param size of the decompressed data, in bytes: the frames must yield exactly that
 * @throws ZstdError
 */
export function decompressZstd(input: Uint8Array, size: number): Uint8Array {
  return decompressFrames(input, size, false);
}

/**
 * The same for data behind which something else may follow: frames are decompressed until there are `size` bytes.
 * @throws ZstdError
 */
export function decompressZstdPrefix(input: Uint8Array, size: number): Uint8Array {
  return decompressFrames(input, size, true);
}

function decompressFrames(input: Uint8Array, size: number, untilFull: boolean): Uint8Array {
  const output = new Uint8Array(size);
  let inputAt = 0;
  let outputAt = 0;
  const view = new DataView(input.buffer, input.byteOffset, input.byteLength);
  while (inputAt < input.length && !(untilFull && outputAt === size)) {
    if (inputAt + 8 > input.length) throw new ZstdError('unexpected end');
    const magic = view.getUint32(inputAt, true);
    if (magic >>> 4 === SKIPPABLE >>> 4) {
      inputAt += 8 + view.getUint32(inputAt + 4, true);
      continue;
    }
    if (magic !== MAGIC) throw new ZstdError('not a frame');
    const frame = new Frame(input, inputAt + 4, output, outputAt);
    frame.decode();
    inputAt = frame.inputAt;
    outputAt = frame.outputAt;
  }
  if (outputAt !== size) throw new ZstdError('less data than announced');
  return output;
}

class Frame {
  inputAt: number;
  outputAt: number;
  private readonly input: Uint8Array;
  private readonly output: Uint8Array;
  private readonly start: number;
  private huffman: HuffmanTable | null = null;
  private literalTable: FseTable | null = null;
  private matchTable: FseTable | null = null;
  private offsetTable: FseTable | null = null;
  /** The last three distances. */
  private readonly recent = [1, 4, 8];
  private readonly literals = new Uint8Array(BLOCK_MAX);

  constructor(input: Uint8Array, inputAt: number, output: Uint8Array, outputAt: number) {
    this.input = input;
    this.inputAt = inputAt;
    this.output = output;
    this.outputAt = outputAt;
    this.start = outputAt;
  }

  decode(): void {
    const descriptor = this.number(1);
    const single = (descriptor & 0x20) !== 0;
    if (descriptor & 8) throw new ZstdError('reserved bit');
    if (!single) this.number(1);
    if (this.number([0, 1, 2, 4][descriptor & 3]!) !== 0) throw new ZstdError('a dictionary is needed');
    const sizeBytes = [single ? 1 : 0, 2, 4, 8][descriptor >>> 6]!;
    const announced = this.number(sizeBytes) + (sizeBytes === 2 ? 256 : 0);
    for (let last = false; !last; ) {
      const header = this.number(3);
      last = (header & 1) !== 0;
      this.block((header >>> 1) & 3, header >>> 3);
    }
    if (sizeBytes > 0 && this.outputAt - this.start !== announced) throw new ZstdError('wrong content size');
    if (descriptor & 4) {
      const sum = xxh64(this.output.subarray(this.start, this.outputAt));
      if (this.number(4) !== Number(sum & 0xffffffffn)) throw new ZstdError('checksum mismatch');
    }
  }

  /** A little-endian number of `size` bytes. */
  private number(size: number): number {
    if (this.inputAt + size > this.input.length) throw new ZstdError('unexpected end');
    let value = 0;
    for (let i = 0; i < size; i++) value += this.input[this.inputAt + i]! * 2 ** (8 * i);
    this.inputAt += size;
    return value;
  }

  private block(type: number, size: number): void {
    const { input, output } = this;
    if (type === 3 || size > BLOCK_MAX) throw new ZstdError('invalid block');
    if (type < 2 && this.outputAt + size > output.length) throw new ZstdError('more data than announced');
    if (type === 1) {
      output.fill(this.number(1), this.outputAt, this.outputAt + size);
      this.outputAt += size;
      return;
    }
    const end = this.inputAt + size;
    if (end > input.length) throw new ZstdError('unexpected end');
    if (type === 0) {
      output.set(input.subarray(this.inputAt, end), this.outputAt);
      this.outputAt += size;
    } else {
      const literals = this.literalsSection(end);
      this.sequences(literals, end);
    }
    this.inputAt = end;
  }

  /** Decodes the literals of a block. @returns them */
  private literalsSection(end: number): Uint8Array {
    const type = this.input[this.inputAt]! & 3;
    const format = (this.input[this.inputAt]! >>> 2) & 3;
    if (type < 2) {
      const bytes = format === 1 ? 2 : format === 3 ? 3 : 1;
      const size = this.number(bytes) >>> (bytes === 1 ? 3 : 4);
      if (size > BLOCK_MAX) throw new ZstdError('too many literals');
      if (type === 1) return this.literals.fill(this.number(1), 0, size).subarray(0, size);
      if (this.inputAt + size > end) throw new ZstdError('unexpected end');
      this.inputAt += size;
      return this.input.subarray(this.inputAt - size, this.inputAt);
    }
    const width = [10, 10, 14, 18][format]!;
    const header = this.number([3, 3, 4, 5][format]!);
    const size = Math.floor(header / 16) % 2 ** width;
    const packed = Math.floor(header / 2 ** (4 + width));
    const stop = this.inputAt + packed;
    if (size > BLOCK_MAX || stop > end) throw new ZstdError('too many literals');
    if (type === 2) this.huffman = this.readHuffman(stop);
    if (!this.huffman) throw new ZstdError('no Huffman table');
    const target = this.literals.subarray(0, size);
    if (format === 0) decodeHuffman(this.huffman, this.input, this.inputAt, stop, target);
    else {
      const ends = [this.number(2), this.number(2), this.number(2)];
      const quarter = (size + 3) >>> 2;
      let from = this.inputAt;
      for (let stream = 0; stream < 4; stream++) {
        const to = stream < 3 ? from + ends[stream]! : stop;
        if (to > stop) throw new ZstdError('damaged literals');
        const part = target.subarray(stream * quarter, stream < 3 ? (stream + 1) * quarter : size);
        decodeHuffman(this.huffman, this.input, from, to, part);
        from = to;
      }
    }
    this.inputAt = stop;
    return target;
  }

  /** A Huffman table: the weights of its symbols, packed by FSE or as they are (4.2.1). */
  private readHuffman(end: number): HuffmanTable {
    const header = this.number(1);
    const weights: number[] = [];
    if (header >= 128) {
      for (let i = 0; i < header - 127; i += 2) {
        const byte = this.number(1);
        weights.push(byte >>> 4, byte & 15);
      }
      weights.length = header - 127;
    } else {
      const stop = this.inputAt + header;
      if (stop > end) throw new ZstdError('unexpected end');
      const table = this.readFse(6, 255, stop);
      const bits = new BackwardBits(this.input, this.inputAt, stop);
      const states = [bits.take(table.accuracy), bits.take(table.accuracy)] as [number, number];
      for (let turn = 0; weights.length < 255; turn ^= 1) {
        const state = states[turn]!;
        weights.push(table.symbols[state]!);
        if (bits.left < table.bits[state]!) {
          weights.push(table.symbols[states[turn ^ 1]!]!);
          break;
        }
        states[turn] = table.bases[state]! + bits.take(table.bits[state]!);
      }
      this.inputAt = stop;
    }
    return buildHuffman(weights);
  }

  /** A distribution of symbols (4.1.1), as a table. */
  private readFse(accuracyMax: number, symbolMax: number, end: number): FseTable {
    const { input } = this;
    let at = this.inputAt * 8;
    const peek = (count: number) => {
      let value = 0;
      for (let i = 0; i < count; i++) value |= ((input[(at + i) >>> 3]! >>> ((at + i) & 7)) & 1) << i;
      return value;
    };
    const accuracy = peek(4) + 5;
    at += 4;
    if (accuracy > accuracyMax) throw new ZstdError('table too large');
    const counts: number[] = [];
    let left = 1 << accuracy;
    while (left > 0) {
      if (counts.length > symbolMax || at > end * 8) throw new ZstdError('damaged table');
      const bits = 32 - Math.clz32(left + 1);
      const low = (1 << bits) - 1 - (left + 1);
      let value = peek(bits);
      if ((value & ((1 << (bits - 1)) - 1)) < low) {
        value &= (1 << (bits - 1)) - 1;
        at += bits - 1;
      } else {
        at += bits;
        if (value >= 1 << (bits - 1)) value -= low;
      }
      const count = value - 1;
      counts.push(count);
      left -= Math.abs(count);
      if (count !== 0) continue;
      for (let repeat = 3; repeat === 3; ) {
        repeat = peek(2);
        at += 2;
        for (let i = 0; i < repeat; i++) counts.push(0);
        if (counts.length > symbolMax + 1) throw new ZstdError('damaged table');
      }
    }
    this.inputAt = (at + 7) >>> 3;
    if (left < 0 || this.inputAt > end || counts.length > symbolMax + 1) throw new ZstdError('damaged table');
    return buildFse(counts, accuracy);
  }

  /** The table of one kind of code, in the mode that the block says. */
  private table(
    mode: number,
    kept: FseTable | null,
    standard: FseTable,
    accuracyMax: number,
    symbolMax: number,
    end: number,
  ): FseTable {
    if (mode === 0) return standard;
    if (mode === 2) return this.readFse(accuracyMax, symbolMax, end);
    if (mode === 3 && kept) return kept;
    if (mode !== 1) throw new ZstdError('no table to repeat');
    const symbol = this.number(1);
    if (symbol > symbolMax) throw new ZstdError('damaged table');
    return {
      accuracy: 0,
      symbols: Uint8Array.of(symbol),
      bits: new Uint8Array(1),
      bases: new Uint16Array(1),
    };
  }

  /** Executes the sequences of a block: copy literals, copy from before. */
  private sequences(literals: Uint8Array, end: number): void {
    const { output, recent, start } = this;
    let count = this.number(1);
    if (count >= 128) count = count < 255 ? ((count - 128) << 8) + this.number(1) : this.number(2) + 0x7f00;
    if (this.outputAt + literals.length > output.length) throw new ZstdError('more data than announced');
    if (count === 0) {
      output.set(literals, this.outputAt);
      this.outputAt += literals.length;
      return;
    }
    const modes = this.number(1);
    const literalTable = this.table(modes >>> 6, this.literalTable, LITERAL_DEFAULT, 9, 35, end);
    const offsetTable = this.table(
      (modes >>> 4) & 3,
      this.offsetTable,
      OFFSET_DEFAULT,
      8,
      OFFSET_CODE_MAX,
      end,
    );
    const matchTable = this.table((modes >>> 2) & 3, this.matchTable, MATCH_DEFAULT, 9, 52, end);
    this.literalTable = literalTable;
    this.offsetTable = offsetTable;
    this.matchTable = matchTable;
    const bits = new BackwardBits(this.input, this.inputAt, end);
    let literalState = bits.take(literalTable.accuracy);
    let offsetState = bits.take(offsetTable.accuracy);
    let matchState = bits.take(matchTable.accuracy);
    let to = this.outputAt;
    let from = 0;
    for (let left = count; left > 0; left--) {
      const offsetCode = offsetTable.symbols[offsetState]!;
      const matchCode = matchTable.symbols[matchState]!;
      const literalCode = literalTable.symbols[literalState]!;
      // More than 24 bits are taken in two parts.
      const high = offsetCode > 16 ? bits.take(offsetCode - 16) * 65536 : 0;
      const value = 2 ** offsetCode + high + bits.take(Math.min(offsetCode, 16));
      const matchLength = MATCH_BASES[matchCode]! + bits.take(MATCH_BITS[matchCode]!);
      const literalLength = LITERAL_BASES[literalCode]! + bits.take(LITERAL_BITS[literalCode]!);
      let distance: number;
      if (value > 3) {
        distance = value - 3;
        recent[2] = recent[1]!;
        recent[1] = recent[0]!;
        recent[0] = distance;
      } else {
        // Without literals before it, "the last distance" would be pointless: the three move on by one.
        const index = value - 1 + (literalLength === 0 ? 1 : 0);
        distance = index === 3 ? recent[0]! - 1 : recent[index]!;
        if (index > 1) recent[2] = recent[1]!;
        if (index > 0) {
          recent[1] = recent[0]!;
          recent[0] = distance;
        }
      }
      if (from + literalLength > literals.length) throw new ZstdError('damaged sequences');
      if (to + literalLength + matchLength > output.length) throw new ZstdError('more data than announced');
      for (let i = 0; i < literalLength; i++) output[to++] = literals[from++]!;
      if (distance <= 0 || distance > to - start) throw new ZstdError('distance too far back');
      for (let source = to - distance, stop = to + matchLength; to < stop; source++, to++)
        output[to] = output[source]!;
      if (left === 1) break;
      literalState = literalTable.bases[literalState]! + bits.take(literalTable.bits[literalState]!);
      matchState = matchTable.bases[matchState]! + bits.take(matchTable.bits[matchState]!);
      offsetState = offsetTable.bases[offsetState]! + bits.take(offsetTable.bits[offsetState]!);
    }
    if (bits.left !== 0) throw new ZstdError('damaged sequences');
    const rest = literals.subarray(from);
    if (to + rest.length > output.length) throw new ZstdError('more data than announced');
    output.set(rest, to);
    this.outputAt = to + rest.length;
  }
}

/** Bits that were written forward and are read backward, from a final 1 bit on. */
class BackwardBits {
  private readonly bytes: Uint8Array;
  private readonly start: number;
  /** Where the next bit is, counted from the first byte's lowest. */
  private at: number;

  constructor(bytes: Uint8Array, start: number, end: number) {
    if (end <= start || bytes[end - 1] === 0) throw new ZstdError('damaged bits');
    this.bytes = bytes;
    this.start = start;
    this.at = (end - start) * 8 - 1 - (Math.clz32(bytes[end - 1]!) - 24);
  }

  get left(): number {
    return this.at;
  }

  /** At most 24 bits. Beyond the beginning there are zeros, and {@link left} becomes negative. */
  take(count: number): number {
    this.at -= count;
    return this.peekAt(this.at, count);
  }

  /** The next bits without taking them. */
  peek(count: number): number {
    return this.peekAt(this.at - count, count);
  }

  skip(count: number): void {
    this.at -= count;
  }

  private peekAt(at: number, count: number): number {
    const { bytes } = this;
    if (at < 0) return at <= -count ? 0 : (this.peekAt(0, count + at) << -at) & ((1 << count) - 1);
    const byte = this.start + (at >>> 3);
    const word = bytes[byte]! | (bytes[byte + 1]! << 8) | (bytes[byte + 2]! << 16) | (bytes[byte + 3]! << 24);
    return (word >>> (at & 7)) & ((1 << count) - 1);
  }
}

function buildFse(counts: readonly number[], accuracy: number): FseTable {
  const size = 1 << accuracy;
  const symbols = new Uint8Array(size);
  const bits = new Uint8Array(size);
  const bases = new Uint16Array(size);
  let high = size - 1;
  for (const [symbol, count] of counts.entries()) if (count === -1) symbols[high--] = symbol;
  const step = (size >>> 1) + (size >>> 3) + 3;
  let position = 0;
  for (const [symbol, count] of counts.entries()) {
    for (let i = 0; i < count; i++) {
      symbols[position] = symbol;
      do position = (position + step) & (size - 1);
      while (position > high);
    }
  }
  const next = counts.map((count) => (count === -1 ? 1 : count));
  for (let state = 0; state < size; state++) {
    const order = next[symbols[state]!]!++;
    bits[state] = accuracy - (31 - Math.clz32(order));
    bases[state] = (order << bits[state]!) - size;
  }
  return { accuracy, symbols, bits, bases };
}

const HUFFMAN_BITS_MAX = 11;

/** The table for the weights of all symbols but the last, whose weight follows from them. */
function buildHuffman(given: readonly number[]): HuffmanTable {
  const sum = given.reduce((total, weight) => total + (weight > 0 ? 1 << (weight - 1) : 0), 0);
  const bits = 32 - Math.clz32(sum);
  const rest = (1 << bits) - sum;
  if (sum === 0 || bits > HUFFMAN_BITS_MAX || (rest & (rest - 1)) !== 0 || given.length > 255) {
    throw new ZstdError('damaged Huffman table');
  }
  const weights = [...given, 32 - Math.clz32(rest)];
  const symbols = new Uint8Array(1 << bits);
  const lengths = new Uint8Array(1 << bits);
  let at = 0;
  for (let weight = 1; weight <= bits; weight++) {
    for (const [symbol, own] of weights.entries()) {
      if (own !== weight) continue;
      const span = 1 << (weight - 1);
      symbols.fill(symbol, at, at + span);
      lengths.fill(bits + 1 - weight, at, at + span);
      at += span;
    }
  }
  return { bits, symbols, lengths };
}

function decodeHuffman(
  table: HuffmanTable,
  input: Uint8Array,
  start: number,
  end: number,
  target: Uint8Array,
): void {
  const { bits: width, symbols, lengths } = table;
  const bits = new BackwardBits(input, start, end);
  for (let i = 0; i < target.length; i++) {
    const index = bits.peek(width);
    target[i] = symbols[index]!;
    bits.skip(lengths[index]!);
  }
  if (bits.left !== 0) throw new ZstdError('damaged literals');
}
