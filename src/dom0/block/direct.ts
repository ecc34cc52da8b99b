/**
 * Disks that a data plane reads, writes and flushes by itself. A file that the host has in its caches answers within
 * microseconds; to wake Domain 0's thread for that, and to be woken by it, takes many times as long.
 *
 * No guest runs while such a call lasts, so it must not last. Of each call it is known how long it may take if no
 * medium is waited for, or a fast one. When several took longer, one soon after the other, the file's requests of that
 * kind go by Domain 0's thread again, where they wait beside each other and in nobody's way; after a while it is tried
 * again. What has much to be written out is not flushed here at all.
 */

/** Reads and writes open files of this process, waiting for them. Pieces are pairs of linear address and length. */
export interface DirectFiles {
  /** @param file its descriptor @returns false: not all of it could be read, for whatever reason */
  read(file: number, offset: number, pieces: readonly number[]): boolean;
  /** @returns false: not all of it could be written; some may have been */
  write(file: number, offset: number, pieces: readonly number[]): boolean;
  /** Makes durable what was written. @returns false: some of it may be lost, and the host will not say so again */
  flush(file: number): boolean;
}

/** What a call may take, ns: by itself, and for each byte. */
const CALL = 100_000;
const BYTE = 1;
/** What a flush may take, ns, and how many bytes may have been written since the last one. */
const FLUSH = 500_000;
const FLUSH_BYTES = 1 << 20;
/** So much slowness is too much: one for each slow call, less by this factor with each one that is not. */
const TOO_SLOW = 1.9;
const FORGETS = 0.9;
/** How long it is left alone then: as many times as long as the slow call took, within bounds, ns. */
const TIMES = 20;
const PAUSE_MIN = 20_000_000;
const PAUSE_MAX = 2_000_000_000;

/** Whether calls of a kind are quick enough. */
class Patience {
  private slowness = 0;
  private over = 0;

  /** One may be tried at this time. */
  has(now: number): boolean {
    return now >= this.over;
  }

  /** One took so long, and ended now. */
  took(time: number, allowed: number, now: number): void {
    if (time <= allowed) this.slowness *= FORGETS;
    else if (++this.slowness > TOO_SLOW) {
      this.slowness = 0;
      this.over = now + Math.min(Math.max(time * TIMES, PAUSE_MIN), PAUSE_MAX);
    }
  }
}

export class DirectDisk {
  private readonly files: DirectFiles;
  private readonly file: number;
  private readonly now: () => number;
  private readonly moves = new Patience();
  private readonly flushes = new Patience();
  /** Bytes that were written since the last flush, by whomever. */
  private unflushed = 0;

  /** @param file its descriptor @param now time, ns */
  constructor(files: DirectFiles, file: number, now: () => number) {
    this.files = files;
    this.file = file;
    this.now = now;
  }

  /** Reads and writes may be tried here. */
  get ready(): boolean {
    return this.moves.has(this.now());
  }

  /** So may a flush. */
  get readyToFlush(): boolean {
    return this.unflushed <= FLUSH_BYTES && this.flushes.has(this.now());
  }

  /** Domain 0's thread writes so many bytes. */
  writtenElsewhere(bytes: number): void {
    this.unflushed += bytes;
  }

  /** Domain 0's thread flushes. */
  flushedElsewhere(): void {
    this.unflushed = 0;
  }

  /** @returns false: it is to be tried by Domain 0's thread, which can tell what is wrong */
  move(write: boolean, offset: number, bytes: number, pieces: readonly number[]): boolean {
    const { files, file } = this;
    if (write) this.unflushed += bytes;
    return this.timed(this.moves, CALL + bytes * BYTE, () =>
      write ? files.write(file, offset, pieces) : files.read(file, offset, pieces),
    );
  }

  /** @returns false: what was written may be lost */
  flush(): boolean {
    this.unflushed = 0;
    return this.timed(this.flushes, FLUSH, () => this.files.flush(this.file));
  }

  private timed(patience: Patience, allowed: number, call: () => boolean): boolean {
    const begun = this.now();
    const done = call();
    const ended = this.now();
    patience.took(ended - begun, allowed, ended);
    return done;
  }
}
