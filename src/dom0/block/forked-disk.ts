/**
 * Disks of forks: a disk goes on where it is, and copies of it as it was at one moment go their own ways.
 *
 * The original writes where it always did. Before it changes something for the first time after a fork, the fork gets
 * what was there. A fork keeps what it has of its own (because it wrote it, or because the original is about to) in a
 * scratch file, extent by extent, and reads the rest from where the original has it.
 *
 * So an extent that a fork does not have is the same in both. What decides or changes who has one is done one after
 * the other: reads of a fork that touch such an extent, and writes that make it the fork's own. Once a fork has an
 * extent, neither waits for the other there.
 */
import { Mutex } from './mutex.ts';
import { type BlockSource, bytesOf, cut, DiskError, type RandomAccess } from './source.ts';

/** What is kept apart at a time, bytes. */
const EXTENT = 64 * 1024;

/** A disk of which there may be forks: itself it is as before. */
export class ForkableDisk implements BlockSource {
  readonly size: number;
  readonly readonly: boolean;
  readonly discardGranularity: number;
  private readonly source: BlockSource;
  private readonly forks = new Set<DiskFork>();
  private readonly mutex = new Mutex();
  private closed = false;

  constructor(source: BlockSource) {
    this.source = source;
    this.size = source.size;
    this.readonly = source.readonly;
    this.discardGranularity = source.discardGranularity;
  }

  /** A disk that is what this one is now. No write may be under way. @param scratch empty; closed with the fork */
  fork(scratch: RandomAccess): DiskFork {
    const fork = new DiskFork(scratch, this.source, this.mutex, () => {
      this.forks.delete(fork);
      return this.closeUnused();
    });
    this.forks.add(fork);
    return fork;
  }

  read(offset: number, buffers: readonly Uint8Array[]): Promise<void> {
    return this.source.read(offset, buffers);
  }

  write(offset: number, buffers: readonly Uint8Array[]): Promise<void> {
    return this.change(offset, bytesOf(buffers), () => this.source.write(offset, buffers));
  }

  discard(offset: number, length: number): Promise<void> {
    return this.change(offset, length, () => this.source.discard(offset, length));
  }

  flush(): Promise<void> {
    return this.source.flush();
  }

  /** The source stays open for as long as a fork needs it. */
  async close(): Promise<void> {
    this.closed = true;
    await this.closeUnused();
  }

  private async closeUnused(): Promise<void> {
    if (this.closed && this.forks.size === 0) await this.source.close();
  }

  private change(offset: number, length: number, work: () => Promise<void>): Promise<void> {
    const without = [...this.forks].filter((fork) => !fork.has(offset, length));
    if (without.length === 0) return work();
    return this.mutex.run(async () => {
      for (const fork of without) await fork.keep(offset, length);
      await work();
    });
  }
}

/** See {@link ForkableDisk.fork}. */
export class DiskFork implements BlockSource {
  readonly size: number;
  readonly readonly: boolean;
  readonly discardGranularity = 0;
  private readonly scratch: RandomAccess;
  private readonly origin: BlockSource;
  private readonly mutex: Mutex;
  private readonly released: () => Promise<void>;
  /** A bit for each extent that it has. */
  private readonly own: Uint8Array;
  /** What the original changed could not be kept: this disk is not what it was. */
  private failure: Error | null = null;

  constructor(scratch: RandomAccess, origin: BlockSource, mutex: Mutex, released: () => Promise<void>) {
    this.scratch = scratch;
    this.origin = origin;
    this.mutex = mutex;
    this.released = released;
    this.size = origin.size;
    this.readonly = origin.readonly;
    this.own = new Uint8Array(Math.ceil(origin.size / EXTENT / 8));
  }

  /** Whether it has all extents of a range. */
  has(offset: number, length: number): boolean {
    for (let index = Math.floor(offset / EXTENT); index * EXTENT < offset + length; index++)
      if (!this.owns(index)) return false;
    return true;
  }

  async read(offset: number, buffers: readonly Uint8Array[]): Promise<void> {
    if (this.failure) throw this.failure;
    const length = bytesOf(buffers);
    if (this.has(offset, length)) await this.scratch.read(offset, buffers);
    else await this.mutex.run(() => this.readMixed(offset, length, buffers));
  }

  async write(offset: number, buffers: readonly Uint8Array[]): Promise<void> {
    if (this.failure) throw this.failure;
    const length = bytesOf(buffers);
    if (this.has(offset, length)) return this.scratch.write(offset, buffers);
    return this.mutex.run(async () => {
      const end = offset + length;
      for (let index = Math.floor(offset / EXTENT); index * EXTENT < end; index++) {
        const whole = index * EXTENT >= offset && (index + 1) * EXTENT <= end;
        if (!whole) await this.copy(index);
      }
      await this.scratch.write(offset, buffers);
      for (let index = Math.floor(offset / EXTENT); index * EXTENT < end; index++) this.take(index);
    });
  }

  /** The original is about to change a range. Its own matters do not wait for what fails here. */
  async keep(offset: number, length: number): Promise<void> {
    try {
      for (let index = Math.floor(offset / EXTENT); index * EXTENT < offset + length; index++)
        await this.copy(index);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      this.failure ??= new DiskError(`what was changed below a fork could not be kept: ${why}`);
    }
  }

  async flush(): Promise<void> {
    if (this.failure) throw this.failure;
  }

  async discard(): Promise<void> {}

  async close(): Promise<void> {
    await this.scratch.close();
    await this.released();
  }

  private owns(index: number): boolean {
    return (this.own[index >>> 3]! & (1 << (index & 7))) !== 0;
  }

  private take(index: number): void {
    this.own[index >>> 3]! |= 1 << (index & 7);
  }

  private async copy(index: number): Promise<void> {
    if (this.owns(index)) return;
    const start = index * EXTENT;
    const bytes = new Uint8Array(Math.min(EXTENT, this.size - start));
    await this.origin.read(start, [bytes]);
    await this.scratch.write(start, [bytes]);
    this.take(index);
  }

  private async readMixed(offset: number, length: number, buffers: readonly Uint8Array[]): Promise<void> {
    for (let at = 0; at < length; ) {
      const owned = this.owns(Math.floor((offset + at) / EXTENT));
      let size = Math.min(EXTENT - ((offset + at) % EXTENT), length - at);
      while (at + size < length && this.owns(Math.floor((offset + at + size) / EXTENT)) === owned)
        size = Math.min(size + EXTENT, length - at);
      const part = cut(buffers, at, size);
      if (owned) await this.scratch.read(offset + at, part);
      else await this.origin.read(offset + at, part);
      at += size;
    }
  }
}
