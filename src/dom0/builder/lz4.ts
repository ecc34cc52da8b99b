/**
 * LZ4's legacy frame, as kernels are packed: a magic number, then blocks of at most 8 MiB, each with its compressed
 * size before it.
 */

/** The compressed data is not what the format allows. */
export class Lz4Error extends Error {}

const LEGACY_MAGIC = 0x184c2102;

/**
 * Decompresses a legacy frame.
 * @param size of the decompressed data, in bytes: the frame must yield exactly that.
 * @throws Lz4Error
 */
export function decompressLz4(input: Uint8Array, size: number): Uint8Array {
  const view = new DataView(input.buffer, input.byteOffset, input.byteLength);
  if (input.length < 4 || view.getUint32(0, true) !== LEGACY_MAGIC) throw new Lz4Error('not a legacy frame');
  const output = new Uint8Array(size);
  let inputAt = 4;
  let outputAt = 0;
  while (outputAt < size) {
    if (inputAt + 4 > input.length) throw new Lz4Error('unexpected end');
    const length = view.getUint32(inputAt, true);
    inputAt += 4;
    // Frames may follow each other: each begins with the magic number.
    if (length === LEGACY_MAGIC) continue;
    if (inputAt + length > input.length) throw new Lz4Error('unexpected end');
    outputAt = block(input, inputAt, inputAt + length, output, outputAt);
    inputAt += length;
  }
  return output;
}

function block(input: Uint8Array, start: number, end: number, output: Uint8Array, outputAt: number): number {
  const outputStart = outputAt;
  let from = start;
  let to = outputAt;
  const extended = (length: number) => {
    let sum = length;
    for (;;) {
      if (from >= end) throw new Lz4Error('unexpected end');
      const byte = input[from++]!;
      sum += byte;
      if (byte !== 255) return sum;
    }
  };
  while (from < end) {
    const token = input[from++]!;
    let literals = token >>> 4;
    if (literals === 15) literals = extended(literals);
    if (from + literals > end) throw new Lz4Error('unexpected end');
    if (to + literals > output.length) throw new Lz4Error('more data than announced');
    if (literals < 32) for (let i = 0; i < literals; i++) output[to + i] = input[from + i]!;
    else output.set(input.subarray(from, from + literals), to);
    from += literals;
    to += literals;
    if (from === end) break;
    if (from + 2 > end) throw new Lz4Error('unexpected end');
    const distance = input[from]! | (input[from + 1]! << 8);
    from += 2;
    let length = token & 15;
    if (length === 15) length = extended(length);
    length += 4;
    if (distance === 0 || to - distance < outputStart) throw new Lz4Error('distance too far back');
    if (to + length > output.length) throw new Lz4Error('more data than announced');
    const stop = to + length;
    for (let source = to - distance; to < stop; source++, to++) output[to] = output[source]!;
  }
  return to;
}
