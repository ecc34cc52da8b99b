/**
 * xz streams (The .xz File Format, version 1.1.0) with LZMA2 and the x86 branch filter, as kernels are packed.
 */
import { crc32, crc64 } from './checksum.ts';
import { Lzma2Decoder, LzmaError } from './lzma.ts';

const MAGIC = [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00];
const FILTER_X86 = 0x04;
const FILTER_LZMA2 = 0x21;
const CHECK_CRC32 = 1;
const CHECK_CRC64 = 4;
/** Sizes of the check field by its kind. */
const CHECK_SIZES = [0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64];

/**
 * Decompresses one xz stream.
 * @param size of the decompressed data, in bytes: the stream must yield exactly that.
 * @throws LzmaError where the stream is damaged or uses a filter that kernels are not packed with
 */
export function decompressXz(input: Uint8Array, size: number): Uint8Array {
  if (input.length < 12 || MAGIC.some((byte, at) => input[at] !== byte))
    throw new LzmaError('not an xz stream');
  if (crc32(input, 6, 8) !== u32(input, 8)) throw new LzmaError('damaged stream header');
  if (input[6] !== 0 || input[7]! > 15) throw new LzmaError('unknown stream flags');
  const check = input[7]!;
  const output = new Uint8Array(size);
  let inputAt = 12;
  let outputAt = 0;
  while (input[inputAt] !== 0) {
    const block = blockHeader(input, inputAt);
    const decoder = new Lzma2Decoder(input, block.data, output, outputAt);
    decoder.decode();
    for (const start of block.branchFilters) unfilterX86(output, outputAt, decoder.outputAt, start);
    inputAt = decoder.inputAt;
    while ((inputAt & 3) !== 0) if (input[inputAt++] !== 0) throw new LzmaError('damaged block padding');
    if (inputAt + CHECK_SIZES[check]! > input.length) throw new LzmaError('unexpected end');
    verify(check, input, inputAt, output, outputAt, decoder.outputAt);
    inputAt += CHECK_SIZES[check]!;
    outputAt = decoder.outputAt;
  }
  if (outputAt !== size) throw new LzmaError('less data than announced');
  return output;
}

function u32(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
}

function verify(
  check: number,
  input: Uint8Array,
  at: number,
  output: Uint8Array,
  start: number,
  end: number,
): void {
  if (check === CHECK_CRC32 && crc32(output, start, end) !== u32(input, at)) {
    throw new LzmaError('checksum mismatch');
  }
  if (check === CHECK_CRC64) {
    const [low, high] = crc64(output, start, end);
    if (low !== u32(input, at) || high !== u32(input, at + 4)) throw new LzmaError('checksum mismatch');
  }
}

/** A block's header: where its data begins, and the start offsets of its x86 filters. */
function blockHeader(input: Uint8Array, start: number): { data: number; branchFilters: number[] } {
  if (start >= input.length) throw new LzmaError('unexpected end');
  const end = start + (input[start]! + 1) * 4;
  if (end > input.length || crc32(input, start, end - 4) !== u32(input, end - 4)) {
    throw new LzmaError('damaged block header');
  }
  const flags = input[start + 1]!;
  let at = start + 2;
  const number = () => {
    let value = 0;
    for (let shift = 0; shift < 63; shift += 7) {
      if (at >= end - 4) break;
      const byte = input[at++]!;
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
    throw new LzmaError('damaged block header');
  };
  if (flags & 0x40) number();
  if (flags & 0x80) number();
  const branchFilters: number[] = [];
  for (let left = flags & 3; left >= 0; left--) {
    const id = number();
    const size = number();
    const last = left === 0;
    if (id === FILTER_LZMA2 && last && size === 1) at++;
    else if (id === FILTER_X86 && !last && (size === 0 || size === 4)) {
      branchFilters.unshift(size === 4 ? u32(input, at) : 0);
      at += size;
    } else throw new LzmaError(`filter ${id.toString(16)} is not supported`);
  }
  return { data: end, branchFilters };
}

/**
 * Undoes the x86 branch filter: operands of CALL and JMP (E8, E9) that were made absolute become relative again.
 * Which of them were is a guess that compressor and decompressor share: the operand's top byte is 00 or FF, and the
 * bytes just before do not look like the operand of another branch. `mask` remembers where the last opcode bytes
 * stood: bit n is set if the byte n + 1 before the current one was one.
 */
function unfilterX86(bytes: Uint8Array, start: number, end: number, offset: number): void {
  const allowed = [true, true, true, false, true, false, false, false];
  const bitOf = [0, 1, 2, 2, 3, 3, 3, 3];
  const isSign = (byte: number) => byte === 0 || byte === 255;
  let mask = 0;
  let last = start - 1;
  const limit = end - 4;
  let at = start;
  for (;;) {
    while (at < limit && (bytes[at]! & 0xfe) !== 0xe8) at++;
    if (at >= limit) return;
    const gap = at - last;
    last = at;
    if (gap > 3) mask = 0;
    else {
      mask = (mask << (gap - 1)) & 7;
      if (mask !== 0 && (!allowed[mask] || isSign(bytes[at + 4 - bitOf[mask]!]!))) {
        mask = (mask << 1) | 1;
        at++;
        continue;
      }
    }
    if (!isSign(bytes[at + 4]!)) {
      mask = (mask << 1) | 1;
      at++;
      continue;
    }
    let value = u32(bytes, at + 1) | 0;
    const next = (offset + (at - start) + 5) | 0;
    for (;;) {
      const relative = (value - next) | 0;
      value = relative;
      if (mask === 0) break;
      const shift = bitOf[mask]! * 8;
      if (!isSign((relative >>> (24 - shift)) & 255)) break;
      value = relative ^ ((1 << (32 - shift)) - 1);
    }
    bytes[at + 1] = value;
    bytes[at + 2] = value >>> 8;
    bytes[at + 3] = value >>> 16;
    bytes[at + 4] = (value >>> 24) & 1 ? 255 : 0;
    at += 5;
    last = at - 5;
  }
}
