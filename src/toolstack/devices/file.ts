/** Disks and images in the host's files. */
import {
  close as closeDescriptor,
  constants,
  fdatasync,
  fstat,
  open,
  read,
  readv,
  type Stats,
  write,
  writev,
} from 'node:fs';
import { readFile, statfs } from 'node:fs/promises';
import { promisify } from 'node:util';
import { bytesOf, DiskError, type RandomAccess } from '../../dom0/block/source.ts';
import { SECTOR_SIZE } from '../../xen/public/io/blkif.ts';
import { HOLE_GRANULARITY, Holes } from './holes.ts';

/** Buffers that one system call takes (IOV_MAX). */
const MAX_BUFFERS = 1024;

/**
 * File systems that wait for nothing but this machine's own media (f_type, statfs(2)): ext4, xfs, btrfs, f2fs, zfs,
 * tmpfs, overlayfs.
 */
const LOCAL = new Set([0xef53, 0x58465342, 0x9123683e, 0xf2f52010, 0x2fc12fc1, 0x01021994, 0x794c7630]);

const statOf = promisify(fstat) as (fd: number) => Promise<Stats>;

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file',
  EISDIR: 'that is a directory',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EROFS: 'on a read-only file system',
  ENOSPC: 'no space left on the device',
};

/** An open file or block device. */
export class DiskFile implements RandomAccess {
  readonly name: string;
  readonly readonly: boolean;
  /** Names the file itself, whatever path leads to it. */
  readonly identity: string;
  private readonly fd: number;
  private readonly blockDevice: string | null;
  private readonly holes: Holes | null;
  /** It may be read and written by others too, who may wait for it. */
  private readonly local: boolean;
  /** Somebody does: what is written is not known here. */
  private handedOut = false;
  private dirty = false;
  private flushing: Promise<void> | null = null;
  /** A flush failed: what the host had not written is lost, and it would not say so a second time. */
  private failure: Error | null = null;

  private constructor(path: string, readonly: boolean, fd: number, stats: Stats, local: boolean) {
    this.name = path;
    this.local = local;
    this.readonly = readonly;
    this.fd = fd;
    const { dev, ino, rdev } = stats;
    this.blockDevice = stats.isBlockDevice() ? `${Math.floor(rdev / 256)}:${rdev % 256}` : null;
    this.holes = readonly || this.blockDevice !== null ? null : new Holes();
    this.identity = this.blockDevice === null ? `${dev}:${ino}` : `block ${this.blockDevice}`;
  }

  /** @throws DiskError */
  static async open(path: string, readonly: boolean, create = false): Promise<DiskFile> {
    const flags = (readonly ? constants.O_RDONLY : constants.O_RDWR) | (create ? constants.O_CREAT : 0);
    try {
      const fd = await promisify(open)(path, flags, 0o644);
      try {
        const stats = await statOf(fd);
        if (!stats.isFile() && !stats.isBlockDevice())
          throw new DiskError(`${path}: neither a file nor a block device`);
        const local = stats.isFile() && LOCAL.has((await statfs(path)).type);
        return new DiskFile(path, readonly, fd, stats, local);
      } catch (error) {
        await promisify(closeDescriptor)(fd);
        throw error;
      }
    } catch (error) {
      throw fileError(path, error);
    }
  }

  async size(): Promise<number> {
    if (this.blockDevice === null) return (await statOf(this.fd)).size;
    // Linux tells the size of a block device in sectors.
    const sectors = await readFile(`/sys/dev/block/${this.blockDevice}/size`, 'latin1');
    return Number(sectors) * SECTOR_SIZE;
  }

  async read(offset: number, buffers: readonly Uint8Array[]): Promise<number> {
    return this.move(offset, buffers, (at, left, done) =>
      left.length === 1
        ? read(this.fd, left[0]!, 0, left[0]!.length, at, done)
        : readv(this.fd, left as Uint8Array[], at, done),
    );
  }

  async write(offset: number, buffers: readonly Uint8Array[]): Promise<void> {
    try {
      const done = await this.move(offset, buffers, (at, left, end) =>
        left.length === 1
          ? write(this.fd, left[0]!, 0, left[0]!.length, at, end)
          : writev(this.fd, left as Uint8Array[], at, end),
      );
      if (done < bytesOf(buffers)) throw new DiskError(`${this.name}: nothing more can be written`);
    } finally {
      this.dirty = true;
    }
  }

  async flush(): Promise<void> {
    if (this.failure) throw this.failure;
    if (!this.dirty && !this.handedOut) return this.flushing ?? undefined;
    this.dirty = false;
    const flush = promisify(fdatasync)(this.fd).catch((error: Error) => {
      this.failure = error;
      throw error;
    });
    this.flushing = flush;
    try {
      await flush;
    } finally {
      if (this.flushing === flush) this.flushing = null;
    }
  }

  get discardGranularity(): number {
    return this.holes?.available ? HOLE_GRANULARITY : 0;
  }

  async discard(offset: number, length: number): Promise<void> {
    await this.holes?.punch(this.fd, offset, length);
    this.dirty = true;
  }

  handOut(): number | null {
    if (!this.local || this.failure) return null;
    this.handedOut ||= !this.readonly;
    return this.fd;
  }

  flushFailed(): void {
    this.failure ??= new DiskError(`${this.name}: what was written may be lost`);
  }

  async close(): Promise<void> {
    await promisify(closeDescriptor)(this.fd);
  }

  /** Moves all bytes of the buffers, in as many calls as it takes, until one moves none. */
  private async move(offset: number, buffers: readonly Uint8Array[], call: Move): Promise<number> {
    let done = 0;
    let left = buffers;
    while (left.length > 0) {
      const moved = await new Promise<number>((resolve, reject) => {
        call(offset + done, left.slice(0, MAX_BUFFERS), (error, bytes) =>
          error ? reject(error) : resolve(bytes),
        );
      });
      if (moved === 0) break;
      done += moved;
      left = behind(left, moved);
    }
    return done;
  }
}

/** One system call: as many bytes as it likes. */
type Move = (
  offset: number,
  buffers: readonly Uint8Array[],
  done: (error: Error | null, bytes: number) => void,
) => void;

/** What is left of buffers after so many bytes. */
function behind(buffers: readonly Uint8Array[], bytes: number): readonly Uint8Array[] {
  let index = 0;
  let skip = bytes;
  while (index < buffers.length && skip >= buffers[index]!.length) skip -= buffers[index++]!.length;
  if (skip === 0) return buffers.slice(index);
  return [buffers[index]!.subarray(skip), ...buffers.slice(index + 1)];
}

/** An error of the host, as one line about a file. */
export function fileError(path: string, error: unknown): Error {
  if (error instanceof DiskError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  return new DiskError(`${path}: ${REASONS[code ?? ''] ?? message}`);
}
