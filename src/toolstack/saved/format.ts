/**
 * The file of a saved domain: how bytes lie in it (docs/saved-domains.md).
 *
 *   16 bytes   MAGIC
 *   u32        VERSION, and u32 0
 *   records    u32 kind, u32 length of what follows, u32 length of that when it is inflated, and bytes (raw deflate)
 *   8 bytes    END_MAGIC
 *   32 bytes   SHA-256 of everything before it
 *
 * All numbers are little-endian. The first record is the head, in JSON (head.ts); the last one says that it is the
 * last. A file is looked at as a whole before anything in it is believed: a piece that is missing, or a bit that is
 * not what it was, is found by the sum at its end.
 */
import { createHash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { promisify } from 'node:util';
import { deflateRaw, inflateRaw } from 'node:zlib';
import { ToolstackError } from '../api/errors.ts';

const MAGIC = 'XENOLITH DOMAIN\n';
export const VERSION = 1;
const END_MAGIC = 'XENO.END';
const HEADER = 24;
const TRAILER = 8 + 32;
const RECORD = 12;

export const RecordKind = {
  /** JSON. */
  head: 1,
  /** u32 number of the place, u32 where in it, and its bytes (xen/domain-save.ts). */
  place: 2,
  /** u32 count, the numbers of so many pages as u32, and their bytes. Pages that are not in any are zero. */
  pages: 3,
  end: 4,
} as const;

/** The most that a record holds, inflated: a head of many virtual CPUs, or 256 pages. */
const RECORD_MAX = 8 << 20;
/** Records that are compressed at a time. */
const PARALLEL = 4;
const READ_BYTES = 1 << 20;

const deflate = promisify(deflateRaw);
const inflate = promisify(inflateRaw);

export interface SavedRecord {
  readonly kind: number;
  readonly bytes: Uint8Array;
}

/** Writes records into a file, in order. */
export class RecordWriter {
  private readonly file: FileHandle;
  private readonly hash = createHash('sha256');
  /** Records on their way. */
  private readonly pending: Promise<readonly Uint8Array[]>[] = [];

  constructor(file: FileHandle) {
    this.file = file;
  }

  async begin(): Promise<void> {
    const header = Buffer.alloc(HEADER);
    header.write(MAGIC, 'latin1');
    header.writeUInt32LE(VERSION, 16);
    await this.put(header);
  }

  /** @param bytes are not changed any more */
  async add(kind: number, bytes: Uint8Array): Promise<void> {
    if (bytes.length > RECORD_MAX) throw new RangeError(`a record of ${bytes.length} bytes`);
    this.pending.push(record(kind, bytes));
    if (this.pending.length >= PARALLEL) await this.next();
  }

  /** The file is complete, but for what its host still holds back. */
  async end(): Promise<void> {
    await this.add(RecordKind.end, new Uint8Array());
    while (this.pending.length > 0) await this.next();
    await this.put(Buffer.from(END_MAGIC, 'latin1'));
    await this.file.write(this.hash.digest());
  }

  private async next(): Promise<void> {
    for (const part of await this.pending.shift()!) await this.put(part);
  }

  private async put(bytes: Uint8Array): Promise<void> {
    this.hash.update(bytes);
    for (let done = 0; done < bytes.length; )
      done += (await this.file.write(bytes, done, bytes.length - done)).bytesWritten;
  }
}

async function record(kind: number, bytes: Uint8Array): Promise<readonly Uint8Array[]> {
  const body = await deflate(bytes, { level: 1 });
  const head = Buffer.alloc(RECORD);
  head.writeUInt32LE(kind, 0);
  head.writeUInt32LE(body.length, 4);
  head.writeUInt32LE(bytes.length, 8);
  return [head, body];
}

/** Reads a file's records, after it has been found whole. */
export class RecordReader {
  private readonly file: FileHandle;
  private readonly path: string;
  private readonly end: number;
  private at = HEADER;

  private constructor(file: FileHandle, path: string, end: number) {
    this.file = file;
    this.path = path;
    this.end = end;
  }

  /** @throws ToolstackError invalid: it is no such file, or not as it was written */
  static async open(path: string): Promise<RecordReader> {
    let file: FileHandle;
    try {
      file = await open(path, 'r');
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      throw new ToolstackError('invalid', `${path}: ${code === 'ENOENT' ? 'No such file' : message}`);
    }
    try {
      return new RecordReader(file, path, await check(file, path));
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** The next record; null: there is none. @throws ToolstackError invalid */
  async next(): Promise<SavedRecord | null> {
    if (this.at + RECORD > this.end) throw this.damaged();
    const head = await readAt(this.file, this.at, RECORD);
    const kind = head.readUInt32LE(0);
    const length = head.readUInt32LE(4);
    const size = head.readUInt32LE(8);
    const at = this.at + RECORD;
    if (at + length > this.end || size > RECORD_MAX) throw this.damaged();
    this.at = at + length;
    if (kind === RecordKind.end) return null;
    try {
      const bytes = await inflate(await readAt(this.file, at, length), {
        maxOutputLength: Math.max(size, 1),
      });
      if (bytes.length === size) return { kind, bytes };
    } catch {
      // What does not inflate is no record.
    }
    throw this.damaged();
  }

  close(): Promise<void> {
    return this.file.close();
  }

  /** The file's sum is right, and it makes no sense all the same. */
  damaged(what = 'it was not written by this program'): ToolstackError {
    return new ToolstackError('invalid', `${this.path}: is not a saved domain: ${what}`);
  }
}

/** @returns where the records end @throws ToolstackError */
async function check(file: FileHandle, path: string): Promise<number> {
  const wrong = (what: string) => new ToolstackError('invalid', `${path}: ${what}`);
  const info = await file.stat();
  if (!info.isFile()) throw wrong('is not a file');
  const { size } = info;
  const header = await readAt(file, 0, Math.min(HEADER, size));
  if (header.length < MAGIC.length || header.toString('latin1', 0, MAGIC.length) !== MAGIC)
    throw wrong('is not a saved domain');
  if (size < HEADER + TRAILER) throw wrong('the saved domain is cut off');
  const version = header.readUInt32LE(16);
  if (version !== VERSION)
    throw wrong(`was saved in format ${version}, and this program reads format ${VERSION}`);
  const trailer = await readAt(file, size - TRAILER, TRAILER);
  if (trailer.toString('latin1', 0, END_MAGIC.length) !== END_MAGIC)
    throw wrong('the saved domain is cut off or damaged');
  const hash = createHash('sha256');
  for (let at = 0; at < size - 32; ) {
    const piece = await readAt(file, at, Math.min(READ_BYTES, size - 32 - at));
    hash.update(piece);
    at += piece.length;
  }
  if (!hash.digest().equals(trailer.subarray(8)))
    throw wrong('the saved domain is damaged (its checksum is wrong)');
  return size - TRAILER;
}

/** @throws Error: the file ends before */
async function readAt(file: FileHandle, at: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await file.read(bytes, done, length - done, at + done);
    if (bytesRead === 0)
      throw new ToolstackError('invalid', 'the saved domain became shorter while it was read');
    done += bytesRead;
  }
  return bytes;
}
