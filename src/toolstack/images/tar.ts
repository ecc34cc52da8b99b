/** Reads tar archives (POSIX ustar with GNU's long names, as dpkg makes them) as they stream by. */

const BLOCK = 512;
const NAME_MAX = 65536;

/** The archive is damaged. */
export class TarError extends Error {}

/**
 * The regular files of an archive that are wanted, in order. Ends the input when the caller stops.
 * @param wanted gets the path without a leading "./"
 */
export async function* tarFiles(
  input: AsyncIterable<Uint8Array>,
  wanted: (path: string) => boolean,
): AsyncGenerator<{ path: string; bytes: Uint8Array }> {
  const reader = new BlockReader(input);
  let longName: string | null = null;
  try {
    for (;;) {
      const header = await reader.take(BLOCK);
      if (!header || header.every((byte) => byte === 0)) return;
      if (checksum(header) !== number(header, 148, 8)) throw new TarError('damaged header');
      const size = number(header, 124, 12);
      const type = String.fromCharCode(header[156]!);
      const padded = Math.ceil(size / BLOCK) * BLOCK;
      if (type === 'L') {
        if (size > NAME_MAX) throw new TarError('a name is too long');
        longName = string(await reader.need(padded), 0, size);
        continue;
      }
      const prefix = string(header, 345, 155);
      const short = string(header, 0, 100);
      const path = (longName ?? (prefix ? `${prefix}/${short}` : short)).replace(/^\.\//, '');
      longName = null;
      if ((type === '0' || type === '\0') && wanted(path)) {
        yield { path, bytes: (await reader.need(padded)).slice(0, size) };
      } else await reader.skip(padded);
    }
  } finally {
    await reader.close();
  }
}

function string(block: Uint8Array, at: number, size: number): string {
  const end = block.indexOf(0, at);
  const bytes = block.subarray(at, end < 0 ? at + size : Math.min(end, at + size));
  return new TextDecoder().decode(bytes);
}

function number(block: Uint8Array, at: number, size: number): number {
  const value = Number.parseInt(string(block, at, size).trim() || '0', 8);
  if (!Number.isSafeInteger(value) || value < 0) throw new TarError('damaged header');
  return value;
}

function checksum(header: Uint8Array): number {
  let sum = 0;
  for (let at = 0; at < BLOCK; at++) sum += at >= 148 && at < 156 ? 32 : header[at]!;
  return sum;
}

class BlockReader {
  private readonly source: AsyncIterator<Uint8Array>;
  private chunks: Uint8Array[] = [];
  private available = 0;

  constructor(input: AsyncIterable<Uint8Array>) {
    this.source = input[Symbol.asyncIterator]();
  }

  /** The next bytes, or null at the end of the input. */
  async take(size: number): Promise<Uint8Array | null> {
    while (this.available < size) {
      const { value, done } = await this.source.next();
      if (done) {
        if (this.available > 0) throw new TarError('unexpected end');
        return null;
      }
      this.chunks.push(value);
      this.available += value.length;
    }
    const result = new Uint8Array(size);
    let filled = 0;
    while (filled < size) {
      const first = this.chunks[0]!;
      const part = first.subarray(0, size - filled);
      result.set(part, filled);
      filled += part.length;
      if (part.length === first.length) this.chunks.shift();
      else this.chunks[0] = first.subarray(part.length);
    }
    this.available -= size;
    return result;
  }

  async need(size: number): Promise<Uint8Array> {
    const bytes = await this.take(size);
    if (!bytes) throw new TarError('unexpected end');
    return bytes;
  }

  async skip(size: number): Promise<void> {
    for (let left = size; left > 0; left -= Math.min(left, 1 << 20)) await this.need(Math.min(left, 1 << 20));
  }

  async close(): Promise<void> {
    await this.source.return?.();
  }
}
