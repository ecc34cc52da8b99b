/** A disk over another one that is only read: what is written stays in memory, and is gone with it. */
import { Mutex } from './mutex.ts';
import { type BlockSource, bytesOf, cut } from './source.ts';

/** What is kept apart at a time. */
const EXTENT = 4096;

export class MemoryOverlay implements BlockSource {
  readonly size: number;
  readonly readonly = false;
  readonly discardGranularity = EXTENT;
  private readonly below: BlockSource;
  private readonly extents = new Map<number, Uint8Array>();
  private readonly mutex = new Mutex();

  constructor(below: BlockSource) {
    this.below = below;
    this.size = below.size;
  }

  /** Bytes that it takes. */
  get allocated(): number {
    return this.extents.size * EXTENT;
  }

  async read(offset: number, buffers: readonly Uint8Array[]): Promise<void> {
    const length = bytesOf(buffers);
    const waiting: Promise<void>[] = [];
    for (let at = 0; at < length; ) {
      const extent = this.extents.get(Math.floor((offset + at) / EXTENT));
      let size = Math.min(EXTENT - ((offset + at) % EXTENT), length - at);
      if (extent) {
        let from = (offset + at) % EXTENT;
        for (const part of cut(buffers, at, size)) {
          part.set(extent.subarray(from, from + part.length));
          from += part.length;
        }
      } else {
        while (at + size < length && !this.extents.has(Math.floor((offset + at + size) / EXTENT)))
          size = Math.min(size + EXTENT, length - at);
        waiting.push(this.below.read(offset + at, cut(buffers, at, size)));
      }
      at += size;
    }
    await Promise.all(waiting);
  }

  async write(offset: number, buffers: readonly Uint8Array[]): Promise<void> {
    const length = bytesOf(buffers);
    for (let at = 0; at < length; ) {
      const position = offset + at;
      const size = Math.min(EXTENT - (position % EXTENT), length - at);
      const index = Math.floor(position / EXTENT);
      const extent = this.extents.get(index) ?? (await this.mutex.run(() => this.copy(index, size)));
      let to = position % EXTENT;
      for (const part of cut(buffers, at, size)) {
        extent.set(part, to);
        to += part.length;
      }
      at += size;
    }
  }

  async flush(): Promise<void> {}

  async discard(offset: number, length: number): Promise<void> {
    const end = offset + length;
    for (let index = Math.ceil(offset / EXTENT); (index + 1) * EXTENT <= end; index++) {
      // The disk below would show again otherwise.
      this.extents.get(index)?.fill(0);
    }
  }

  async close(): Promise<void> {
    this.extents.clear();
    await this.below.close();
  }

  /** An extent of its own, as the disk below has it unless all of it is about to be written. */
  private async copy(index: number, size: number): Promise<Uint8Array> {
    const known = this.extents.get(index);
    if (known) return known;
    const extent = new Uint8Array(EXTENT);
    const start = index * EXTENT;
    if (size < EXTENT)
      await this.below.read(start, [extent.subarray(0, Math.min(EXTENT, this.size - start))]);
    this.extents.set(index, extent);
    return extent;
  }
}
