/** Reads tar archives (POSIX ustar with pax's or GNU's extensions) as they stream by. */

const BLOCK = 512;
/** Of names and of pax's records, in bytes. */
const EXTENSION_MAX = 1 << 20;
const CHUNK = 1 << 16;

/** The archive is damaged. */
export class TarError extends Error {}

/** What an archive says of one name. */
export interface TarMember {
  /** As it stands there. */
  readonly path: string;
  /** '0': a file, '1': a link to the file {@link link}, '2': a symbolic link, '5': a folder; others as POSIX has them. */
  readonly type: string;
  readonly link: string;
  /** Bytes of what follows. */
  readonly size: number;
  /** The header's blocks as they are, extensions included. */
  readonly header: Uint8Array;
  /** The header's blocks under another name, and with another link. */
  renamed(path: string, link: string): Uint8Array;
  /** What follows, to be read before the next member is asked for, or not at all. @throws TarError */
  data(): AsyncGenerator<Uint8Array>;
  /** The same with what fills its last block. @throws TarError */
  padded(): AsyncGenerator<Uint8Array>;
}

/**
 * The regular files of an archive that are wanted, in order. Ends the input when the caller stops.
 * @param wanted gets the path without a leading "./"
 */
export async function* tarFiles(
  input: AsyncIterable<Uint8Array>,
  wanted: (path: string) => boolean,
): AsyncGenerator<{ path: string; bytes: Uint8Array }> {
  for await (const member of tarMembers(input)) {
    const path = member.path.replace(/^\.\//, '');
    if (member.type !== '0' || !wanted(path)) continue;
    const bytes = new Uint8Array(member.size);
    let at = 0;
    for await (const chunk of member.data()) {
      bytes.set(chunk, at);
      at += chunk.length;
    }
    yield { path, bytes };
  }
}

/** All members of an archive, in order. Ends the input when the caller stops. @throws TarError */
export async function* tarMembers(input: AsyncIterable<Uint8Array>): AsyncGenerator<TarMember> {
  const reader = new BlockReader(input);
  let extensions: Uint8Array[] = [];
  let records = new Map<string, string>();
  try {
    for (;;) {
      const header = await reader.take(BLOCK);
      if (!header || header.every((byte) => byte === 0)) return;
      if (checksum(header) !== number(header, 148, 8)) throw new TarError('damaged header');
      const type = String.fromCharCode(header[156]!);
      const size = Number(records.get('size') ?? number(header, 124, 12));
      if (!Number.isSafeInteger(size) || size < 0) throw new TarError('damaged header');
      const padded = Math.ceil(size / BLOCK) * BLOCK;
      if ('LKxg'.includes(type)) {
        if (size > EXTENSION_MAX) throw new TarError('a name is too long');
        const bytes = await reader.need(padded);
        if (type === 'L') records.set('path', string(bytes, 0, size));
        if (type === 'K') records.set('linkpath', string(bytes, 0, size));
        if (type === 'x')
          for (const [key, value] of paxRecords(bytes.subarray(0, size))) records.set(key, value);
        // Records for all that follows say who made the archive.
        if (type !== 'g') extensions.push(header, bytes);
        continue;
      }
      if (type === 'S') throw new TarError('a sparse file in it, which is not understood here');
      const prefix = string(header, 345, 155);
      const short = string(header, 0, 100);
      let left = padded;
      const read = async function* (length: number): AsyncGenerator<Uint8Array> {
        for (let rest = length; rest > 0; ) {
          const piece = Math.min(rest, CHUNK);
          rest -= piece;
          left -= piece;
          yield await reader.need(piece);
        }
      };
      const own = records;
      yield {
        path: own.get('path') ?? (prefix && ustar(header) ? `${prefix}/${short}` : short),
        type: type === '\0' || type === '7' ? '0' : type,
        link: own.get('linkpath') ?? string(header, 157, 100),
        size,
        header: joined([...extensions, header]),
        renamed: (path, link) => renamed(header, own, path, link),
        data: () => read(size),
        padded: () => read(padded),
      };
      await reader.skip(left);
      extensions = [];
      records = new Map();
    }
  } finally {
    await reader.close();
  }
}

/** A pax header's records: "LENGTH KEY=VALUE\n". */
function* paxRecords(bytes: Uint8Array): Generator<[string, string]> {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at < text.length; ) {
    const space = text.indexOf(0x20, at);
    const length = Number.parseInt(text.toString('latin1', at, space), 10);
    const record = text.subarray(space + 1, at + length - 1);
    const equals = record.indexOf(0x3d);
    if (space < 0 || !(length > 0) || at + length > text.length || equals < 0)
      throw new TarError('damaged pax header');
    // Values may be any bytes (of extended attributes); names are read as UTF-8 where they are used.
    const key = record.toString('utf8', 0, equals);
    yield [key, record.toString(key.endsWith('path') || key === 'size' ? 'utf8' : 'latin1', equals + 1)];
    at += length;
  }
}

function renamed(
  header: Uint8Array,
  records: ReadonlyMap<string, string>,
  path: string,
  link: string,
): Uint8Array {
  const blocks: Uint8Array[] = [];
  const extension = (type: string, body: Uint8Array) => {
    const own = new Uint8Array(BLOCK);
    own.set(Buffer.from('././@LongLink'));
    own.set(Buffer.from('ustar\x0000'), 257);
    own.set(Buffer.from(`${body.length.toString(8).padStart(11, '0')}\0`), 124);
    own[156] = type.charCodeAt(0);
    const data = new Uint8Array(Math.ceil(body.length / BLOCK) * BLOCK);
    data.set(body);
    blocks.push(sealed(own), data);
  };
  const rest = [...records].filter(([key]) => key !== 'path' && key !== 'linkpath');
  if (rest.length > 0) extension('x', joined(rest.map(([key, value]) => paxRecord(key, value))));
  extension('L', Buffer.from(`${path}\0`));
  if (link !== '') extension('K', Buffer.from(`${link}\0`));
  const own = header.slice();
  own.fill(0, 0, 100).fill(0, 157, 257);
  // What stands where ustar has the front of the name would be put before it.
  if (ustar(own)) own.fill(0, 345, 500);
  own.set(Buffer.from(path).subarray(0, 99));
  own.set(Buffer.from(link).subarray(0, 99), 157);
  blocks.push(sealed(own));
  return joined(blocks);
}

function paxRecord(key: string, value: string): Uint8Array {
  const body = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value, 'latin1'), Buffer.from('\n')]);
  let length = body.length;
  while (String(length).length + body.length !== length) length = String(length).length + body.length;
  return Buffer.concat([Buffer.from(String(length)), body]);
}

function sealed(header: Uint8Array): Uint8Array {
  header.set(Buffer.from(`${checksum(header).toString(8).padStart(6, '0')}\0 `), 148);
  return header;
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
}

/** Has a header the fields that POSIX added? GNU's own format has other things in their place. */
function ustar(header: Uint8Array): boolean {
  return string(header, 257, 8) === 'ustar';
}

function string(block: Uint8Array, at: number, size: number): string {
  const end = block.indexOf(0, at);
  const bytes = block.subarray(at, end < 0 ? at + size : Math.min(end, at + size));
  return new TextDecoder().decode(bytes);
}

/** An octal number, or GNU's binary one of what octal digits have no room for. */
function number(block: Uint8Array, at: number, size: number): number {
  let value = 0;
  if (block[at]! === 0x80)
    for (let index = 1; index < size; index++) value = value * 256 + block[at + index]!;
  else value = Number.parseInt(string(block, at, size).trim() || '0', 8);
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
