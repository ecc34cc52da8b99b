import { execFileSync } from 'node:child_process';
import { gzipSync } from 'node:zlib';
import { beforeAll, describe, expect, it } from 'vitest';
import { unpackBzImage } from './bzimage.ts';
import { crc32, crc64 } from './checksum.ts';
import { decompress } from './decompress.ts';
import { BuildError } from './error.ts';
import { makeBzImage } from './test-kernels.ts';

/**
 * Something like code: calls and jumps that the branch filter sees, runs that the x86 filter must leave alone (the
 * opcode bytes packed closely), text and noise.
 */
function sample(size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  let seed = 12345;
  const random = () => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return seed >>> 16;
  };
  for (let at = 0; at < size; ) {
    const kind = random() % 8;
    const length = 1 + (random() % 60);
    for (let i = 0; i < length && at < size; i++, at++) {
      if (kind < 2) bytes[at] = random();
      else if (kind === 2) bytes[at] = [0xe8, 0xe9, 0x00, 0xff][random() % 4]!;
      else if (kind < 5)
        bytes[at] = i % 5 === 0 ? 0xe8 + (random() & 1) : i % 5 === 4 ? -(random() & 1) : random() & 15;
      else bytes[at] = 0x61 + (i % 7);
    }
  }
  return bytes;
}

/** Runs a compressor of the machine. */
function pack(tool: string, args: string[], data: Uint8Array): Uint8Array {
  try {
    return new Uint8Array(execFileSync(tool, args, { input: data, maxBuffer: 64 << 20 }));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new Error(`${tool} is missing, run: sudo apt-get install xz-utils lz4 zstd`);
  }
}

const data = sample(700_000);
const packed = new Map<string, Uint8Array>();

// What the tools of Debian's packages xz-utils, lz4 and zstd make, with the options of Linux's build and others.
const FORMS: Record<string, () => Uint8Array> = {
  gzip: () => new Uint8Array(gzipSync(data)),
  'xz as Linux has it': () => pack('xz', ['--check=crc32', '--x86', '--lzma2=dict=32MiB', '-c'], data),
  'xz with crc64, no filter': () => pack('xz', ['-c', '-9'], data),
  'xz with sha256, other lc lp pb': () =>
    pack('xz', ['-c', '--check=sha256', '--lzma2=lc=1,lp=2,pb=0'], data),
  'xz in several blocks': () => pack('xz', ['-c', '--block-size=100000', '--x86', '--lzma2'], data),
  'xz with an offset in the filter': () => pack('xz', ['-c', '--x86=start=16', '--lzma2'], data),
  'lz4 legacy': () => pack('lz4', ['-l', '-9', '-c'], data),
  'zstd at its most': () => pack('zstd', ['-22', '--ultra', '-c', '-q'], data),
  zstd: () => pack('zstd', ['-c', '-q'], data),
};

beforeAll(() => {
  for (const [name, make] of Object.entries(FORMS)) packed.set(name, make());
});

describe('decompression', () => {
  it.each(Object.keys(FORMS))('%s', (name) => {
    expect(Buffer.compare(decompress(packed.get(name)!, data.length), data)).toBe(0);
  });

  it.each(Object.keys(FORMS))('%s, truncated or of another size, is refused', (name) => {
    const bytes = packed.get(name)!;
    for (const end of [7, 13, bytes.length >> 1, Math.floor(bytes.length * 0.9)]) {
      expect(() => decompress(bytes.subarray(0, end), data.length)).toThrow(BuildError);
    }
    expect(() => decompress(bytes, data.length + 1)).toThrow(BuildError);
    expect(() => decompress(bytes, data.length - 1)).toThrow(BuildError);
    expect(() => decompress(bytes, 2 ** 31)).toThrow(/claims to unpack to 2048 MiB/);
  });

  it.each(Object.keys(FORMS).filter((name) => !name.startsWith('lz4')))(
    '%s, damaged anywhere, is refused or yields the same',
    (name) => {
      const bytes = packed.get(name)!;
      for (let step = 1; step < 24; step++) {
        const damaged = bytes.slice();
        damaged[Math.floor((bytes.length * step) / 24)]! ^= 0x10;
        let result: Uint8Array | null = null;
        try {
          result = decompress(damaged, data.length);
        } catch (error) {
          expect(error).toBeInstanceOf(BuildError);
          expect((error as Error).message).toMatch(
            /^the kernel is corrupt: its (xz|gzip|zstd) data does not unpack \(.+\)$/,
          );
        }
        // Without a check of the content (sha256 is not verified) only the structure can tell.
        if (result && !name.includes('sha256')) expect(Buffer.compare(result, data)).toBe(0);
      }
    },
  );

  it.each([
    ['bzip2', [0x42, 0x5a, 0x68, 0x39]],
    ['lzma', [0x5d, 0, 0, 0]],
    ['lzo', [0x89, 0x4c, 0x5a, 0x4f]],
  ])('%s is refused by name', (name, magic) => {
    expect(() => decompress(Uint8Array.from(magic), 100)).toThrow(
      `the kernel is packed with ${name}, which is not supported (gzip, xz, lz4 and zstd are)`,
    );
  });

  it('has the checksums of the standards', () => {
    const digits = new TextEncoder().encode('123456789');
    expect(crc32(digits)).toBe(0xcbf43926);
    expect(crc64(digits, 0, 9)).toEqual([0xdf1939fa, 0x995dc9bb]);
  });
});

describe('a bzImage', () => {
  it.each(Object.keys(FORMS))('with %s unpacks', (name) => {
    const image = makeBzImage(packed.get(name)!, name === 'gzip' ? null : data.length);
    expect(Buffer.compare(unpackBzImage(image), data)).toBe(0);
  });

  it('that is truncated says so', () => {
    const image = makeBzImage(packed.get('zstd')!, data.length);
    expect(() => unpackBzImage(image.subarray(0, image.length - 100))).toThrow(
      /^the kernel is truncated: its payload ends at byte \d+, the file at \d+$/,
    );
    expect(() => unpackBzImage(image.subarray(0, 0x210))).toThrow(
      'the kernel is truncated: it ends in its boot header',
    );
  });

  it('of an old protocol is refused', () => {
    const image = makeBzImage(packed.get('gzip')!, null);
    image[0x206] = 5;
    expect(() => unpackBzImage(image)).toThrow('the kernel is too old: boot protocol 2.05, 2.08 is needed');
  });
});
