/**
 * A medium that is far away and only read: pieces of it are fetched when they are wanted, and the last ones used are
 * kept. Who reads on where he stopped gets the next pieces before he asks.
 */
import { bytesOf, cut, DiskError, type RandomAccess } from './source.ts';

/** Fetches bytes of the medium. @returns exactly `length` bytes @throws if that cannot be had */
export type FetchRange = (offset: number, length: number) => Promise<Uint8Array>;

export interface RangeCacheOptions {
  readonly name: string;
  /** Bytes of the medium. */
  readonly size: number;
  /** Bytes of a piece. */
  readonly piece?: number;
  /** Bytes that are kept at most. */
  readonly capacity?: number;
  /** Bytes fetched ahead of who reads on. */
  readonly ahead?: number;
  /** Bytes fetched with one request at most. */
  readonly largest?: number;
}

export class RangeCache implements RandomAccess {
  readonly name: string;
  readonly readonly = true;
  private readonly bytes: number;
  private readonly fetch: FetchRange;
  private readonly piece: number;
  private readonly capacity: number;
  private readonly ahead: number;
  private readonly largest: number;
  /** By index, the one used longest ago first. Those under way are in it too. */
  private readonly pieces = new Map<number, Promise<Uint8Array>>();
  /** Where the last read ended. */
  private expected = -1;

  constructor(fetch: FetchRange, options: RangeCacheOptions) {
    const {
      name,
      size,
      piece = 128 << 10,
      capacity = 64 << 20,
      ahead = 512 << 10,
      largest = 1 << 20,
    } = options;
    this.name = name;
    this.bytes = size;
    this.fetch = fetch;
    this.piece = piece;
    this.capacity = capacity;
    this.ahead = ahead;
    this.largest = largest;
  }

  async size(): Promise<number> {
    return this.bytes;
  }

  async read(offset: number, buffers: readonly Uint8Array[]): Promise<number> {
    const length = Math.min(bytesOf(buffers), Math.max(this.bytes - offset, 0));
    if (length === 0) return 0;
    const end = offset + length;
    const first = Math.floor(offset / this.piece);
    const last = Math.floor((end - 1) / this.piece);
    this.want(first, last);
    // Held here: what is used now is not to be dropped for what comes ahead.
    const wanted = Array.from({ length: last - first + 1 }, (_, index) => this.pieces.get(first + index)!);
    if (offset === this.expected) {
      const horizon = Math.min(end + this.ahead, this.bytes);
      this.want(last + 1, Math.floor((horizon - 1) / this.piece));
    }
    this.expected = end;
    let at = offset;
    for (const piece of wanted) {
      const bytes = await piece;
      const from = at % this.piece;
      const part = Math.min(bytes.length - from, end - at);
      let done = from;
      for (const buffer of cut(buffers, at - offset, part)) {
        buffer.set(bytes.subarray(done, done + buffer.length));
        done += buffer.length;
      }
      at += part;
    }
    return length;
  }

  write(): Promise<void> {
    return Promise.reject(new DiskError(`${this.name}: can only be read`));
  }

  async flush(): Promise<void> {}

  async close(): Promise<void> {
    this.pieces.clear();
  }

  /** Sees to it that pieces are there or under way, with few requests. */
  private want(first: number, last: number): void {
    let start = -1;
    const most = Math.max(Math.floor(this.largest / this.piece), 1);
    for (let index = first; index <= last + 1; index++) {
      const known = index <= last ? this.pieces.get(index) : undefined;
      const missing = index <= last && known === undefined;
      if (known !== undefined) {
        this.pieces.delete(index);
        this.pieces.set(index, known);
      }
      if (start >= 0 && (!missing || index - start >= most)) {
        this.request(start, index - start);
        start = -1;
      }
      if (missing && start < 0) start = index;
    }
    let over = this.pieces.size - Math.max(Math.floor(this.capacity / this.piece), last - first + 1);
    for (const index of this.pieces.keys()) {
      if (over-- <= 0) break;
      if (index < first || index > last) this.pieces.delete(index);
    }
  }

  private request(first: number, count: number): void {
    const offset = first * this.piece;
    const length = Math.min(count * this.piece, this.bytes - offset);
    const all = this.fetch(offset, length).then((bytes) => {
      if (bytes.length !== length)
        throw new DiskError(`${this.name}: sent ${bytes.length} bytes for ${length}`);
      return bytes;
    });
    for (let index = 0; index < count; index++) {
      const piece = all.then((bytes) => bytes.slice(index * this.piece, (index + 1) * this.piece));
      this.pieces.set(first + index, piece);
      // What failed is asked for again by the next one who wants it.
      piece.catch(() => {
        if (this.pieces.get(first + index) === piece) this.pieces.delete(first + index);
      });
    }
  }
}
