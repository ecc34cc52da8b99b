/**
 * Where the bytes of a virtual disk come from, and the sources that need no host.
 *
 * Offsets and lengths are in bytes and whole sectors. Buffers may be a guest's own pages: the guest can change what
 * is in them while it is read or written, so nothing but the disk's contents may depend on that.
 */
import { SECTOR_SIZE } from '../../xen/public/io/blkif.ts';

export interface BlockSource {
  /** Bytes, whole sectors. */
  readonly size: number;
  readonly readonly: boolean;
  /** Bytes of the extents that can be discarded; 0: discarding does nothing here. */
  readonly discardGranularity: number;
  /** Fills the buffers, one after the other, from an offset on. @throws whatever is wrong with the medium */
  read(offset: number, buffers: readonly Uint8Array[]): Promise<void>;
  /** Writes the buffers, one after the other. It is durable after the next {@link flush}. */
  write(offset: number, buffers: readonly Uint8Array[]): Promise<void>;
  /** What was written before survives a crash of the host from then on. */
  flush(): Promise<void>;
  /** The extent is not needed any more; it reads as zeroes, or as before where it cannot be given back. */
  discard(offset: number, length: number): Promise<void>;
  /**
   * Descriptor of a file whose bytes are the disk's, from offset 0 on. Whoever has it reads and writes them by it as
   * well, until the disk is closed; a {@link flush} covers what was written so. Left out or null: there is none.
   */
  handOut?(): number | null;
  /** Who has the descriptor flushed the file, and that failed: the host may not say so again, so no flush succeeds. */
  flushFailed?(): void;
  /** No call is under way. */
  close(): Promise<void>;
}

/** A medium of bytes, as long as it has to be: what disks and image formats live in (files, addresses). */
export interface RandomAccess {
  /** For messages. */
  readonly name: string;
  readonly readonly: boolean;
  /** Its length in bytes. */
  size(): Promise<number>;
  /** Fills the buffers from an offset on. @returns how many bytes there were: less only at the end of the medium */
  read(offset: number, buffers: readonly Uint8Array[]): Promise<number>;
  /** Writes the buffers, and makes the medium longer if need be. */
  write(offset: number, buffers: readonly Uint8Array[]): Promise<void>;
  /** All that was written is durable. */
  flush(): Promise<void>;
  /** Bytes of the extents that can be given back; left out or 0: none can. */
  readonly discardGranularity?: number;
  /** Those bytes are not needed any more: they read as zeroes, or as before. */
  discard?(offset: number, length: number): Promise<void>;
  /** These two as {@link BlockSource} has them. */
  handOut?(): number | null;
  flushFailed?(): void;
  close(): Promise<void>;
}

/** The image or disk is not what it should be, or cannot be had: one line for the user. */
export class DiskError extends Error {}

export function bytesOf(buffers: readonly Uint8Array[]): number {
  let sum = 0;
  for (const { length } of buffers) sum += length;
  return sum;
}

/** Parts of buffers: `length` bytes from `start` on. */
export function cut(buffers: readonly Uint8Array[], start: number, length: number): Uint8Array[] {
  const parts: Uint8Array[] = [];
  let skip = start;
  let left = length;
  for (const buffer of buffers) {
    if (left === 0) break;
    if (skip >= buffer.length) {
      skip -= buffer.length;
      continue;
    }
    const part = buffer.subarray(skip, Math.min(skip + left, buffer.length));
    parts.push(part);
    left -= part.length;
    skip = 0;
  }
  return parts;
}

/** A disk whose bytes are a medium's bytes. */
export class RawDisk implements BlockSource {
  readonly size: number;
  readonly discardGranularity: number;
  private readonly medium: RandomAccess;

  private constructor(medium: RandomAccess, size: number) {
    this.medium = medium;
    this.size = size;
    this.discardGranularity = medium.readonly ? 0 : (medium.discardGranularity ?? 0);
  }

  /** What is behind the last whole sector is left alone. @throws DiskError */
  static async of(medium: RandomAccess): Promise<RawDisk> {
    const size = await medium.size();
    if (size < SECTOR_SIZE) throw new DiskError(`${medium.name}: empty`);
    return new RawDisk(medium, size - (size % SECTOR_SIZE));
  }

  get readonly(): boolean {
    return this.medium.readonly;
  }

  async read(offset: number, buffers: readonly Uint8Array[]): Promise<void> {
    if ((await this.medium.read(offset, buffers)) < bytesOf(buffers))
      throw new DiskError(`${this.medium.name} has become shorter`);
  }

  write(offset: number, buffers: readonly Uint8Array[]): Promise<void> {
    return this.medium.write(offset, buffers);
  }

  flush(): Promise<void> {
    return this.medium.flush();
  }

  async discard(offset: number, length: number): Promise<void> {
    await this.medium.discard?.(offset, length);
  }

  handOut(): number | null {
    return this.medium.handOut?.() ?? null;
  }

  flushFailed(): void {
    this.medium.flushFailed?.();
  }

  close(): Promise<void> {
    return this.medium.close();
  }
}

/** Extents of {@link MemorySource}. */
const EXTENT = 64 * 1024;

/** A disk in memory: takes as much as was written. */
export class MemorySource implements BlockSource {
  readonly size: number;
  readonly readonly = false;
  readonly discardGranularity = EXTENT;
  private readonly extents = new Map<number, Uint8Array>();

  /** @param size bytes @throws DiskError */
  constructor(size: number) {
    if (!Number.isSafeInteger(size) || size <= 0 || size % SECTOR_SIZE !== 0)
      throw new DiskError(`a disk of ${size} bytes: not whole sectors`);
    this.size = size;
  }

  /** Bytes that it takes. */
  get allocated(): number {
    return this.extents.size * EXTENT;
  }

  async read(offset: number, buffers: readonly Uint8Array[]): Promise<void> {
    eachPiece(offset, buffers, EXTENT, (index, at, piece) => {
      const extent = this.extents.get(index);
      if (extent) piece.set(extent.subarray(at, at + piece.length));
      else piece.fill(0);
    });
  }

  async write(offset: number, buffers: readonly Uint8Array[]): Promise<void> {
    eachPiece(offset, buffers, EXTENT, (index, at, piece) => {
      let extent = this.extents.get(index);
      if (!extent) {
        extent = new Uint8Array(EXTENT);
        this.extents.set(index, extent);
      }
      extent.set(piece, at);
    });
  }

  async flush(): Promise<void> {}

  async discard(offset: number, length: number): Promise<void> {
    const end = offset + length;
    for (let index = Math.ceil(offset / EXTENT); (index + 1) * EXTENT <= end; index++)
      this.extents.delete(index);
  }

  async close(): Promise<void> {
    this.extents.clear();
  }
}

/** Calls back for the parts of buffers that lie in one extent each: its index, where in it, and the bytes. */
export function eachPiece(
  offset: number,
  buffers: readonly Uint8Array[],
  extent: number,
  work: (index: number, at: number, piece: Uint8Array) => void,
): void {
  let position = offset;
  for (const buffer of buffers) {
    for (let done = 0; done < buffer.length; ) {
      const at = position % extent;
      const piece = buffer.subarray(done, done + Math.min(buffer.length - done, extent - at));
      work(Math.floor(position / extent), at, piece);
      done += piece.length;
      position += piece.length;
    }
  }
}
