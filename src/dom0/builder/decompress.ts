/** The compressed payloads of bzImages: which format it is, and its decompression. */
import { gunzipSync } from 'fflate';
import { crc32 } from './checksum.ts';
import { BuildError, mebibytes } from './error.ts';
import { decompressLz4 } from './lz4.ts';
import { decompressXz } from './xz.ts';
import { decompressZstd } from './zstd.ts';

interface Format {
  readonly name: string;
  readonly magic: readonly number[];
  /** Yields `size` bytes or fewer, or throws any error. Absent: the format is known but not supported. */
  readonly decompress?: (input: Uint8Array, size: number) => Uint8Array;
}

const FORMATS: readonly Format[] = [
  { name: 'gzip', magic: [0x1f, 0x8b], decompress: gunzip },
  { name: 'xz', magic: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00], decompress: decompressXz },
  { name: 'lz4', magic: [0x02, 0x21, 0x4c, 0x18], decompress: decompressLz4 },
  { name: 'zstd', magic: [0x28, 0xb5, 0x2f, 0xfd], decompress: decompressZstd },
  { name: 'bzip2', magic: [0x42, 0x5a, 0x68] },
  { name: 'lzma', magic: [0x5d, 0x00, 0x00] },
  { name: 'lzo', magic: [0x89, 0x4c, 0x5a, 0x4f] },
];

/** No kernel is larger decompressed: a number above it is damage. */
const LARGEST = 1 << 30;

/** Name of the compression format that the bytes begin with, or null. */
export function compressionOf(bytes: Uint8Array): string | null {
  return formatOf(bytes)?.name ?? null;
}

/**
 * Decompresses data whose size is known beforehand.
 * @param size of the result in bytes: anything else is an error
 * @throws BuildError for data that is damaged or in a format that is not supported
 */
export function decompress(input: Uint8Array, size: number): Uint8Array {
  const format = formatOf(input);
  if (!format) throw new BuildError('the kernel is packed in a format that is not known');
  if (!format.decompress) {
    throw new BuildError(
      `the kernel is packed with ${format.name}, which is not supported (gzip, xz, lz4 and zstd are)`,
    );
  }
  if (size > LARGEST)
    throw new BuildError(`the kernel is corrupt: it claims to unpack to ${mebibytes(size)}`);
  let output: Uint8Array;
  try {
    output = format.decompress(input, size);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new BuildError(`the kernel is corrupt: its ${format.name} data does not unpack (${reason})`);
  }
  if (output.length !== size) {
    throw new BuildError(
      `the kernel is corrupt: its ${format.name} data unpacks to ${output.length} bytes, not ${size}`,
    );
  }
  return output;
}

function formatOf(bytes: Uint8Array): Format | undefined {
  return FORMATS.find(({ magic }) => magic.every((byte, at) => bytes[at] === byte));
}

function gunzip(input: Uint8Array, size: number): Uint8Array {
  const output = gunzipSync(input, { out: new Uint8Array(size) });
  const view = new DataView(input.buffer, input.byteOffset, input.byteLength);
  if (crc32(output) !== view.getUint32(input.length - 8, true)) throw new Error('checksum mismatch');
  return output;
}
