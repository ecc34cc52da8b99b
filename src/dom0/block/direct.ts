/**
 * Disks that a data plane reads and writes by itself. A file that the host has in its caches answers within
 * microseconds; to wake Domain 0's thread for that, and to be woken by it, takes many times as long.
 *
 * No guest runs while such a call lasts, so it must not last. Of each call it is known how long it may take if no
 * medium is waited for. When several took longer, one soon after the other, the file's requests go by Domain 0's thread
 * again, where they wait beside each other and in nobody's way; after a while it is tried again.
 */

/** Reads and writes open files of this process, waiting for them. Pieces are pairs of linear address and length. */
export interface DirectFiles {
  /** @param file its descriptor @returns false: not all of it could be read, for whatever reason */
  read(file: number, offset: number, pieces: readonly number[]): boolean;
  /** @returns false: not all of it could be written; some may have been */
  write(file: number, offset: number, pieces: readonly number[]): boolean;
}

/** What a call may take, ns: by itself, and for each byte. */
const CALL = 100_000;
const BYTE = 1;
/** So much slowness is too much: one for each slow call, less by this factor with each one that is not. */
const TOO_SLOW = 1.9;
const FORGETS = 0.9;
/** How long it is left alone then: as many times as long as the slow call took, within bounds, ns. */
const TIMES = 20;
const PAUSE_MIN = 20_000_000;
const PAUSE_MAX = 2_000_000_000;

export class DirectDisk {
  private readonly files: DirectFiles;
  private readonly file: number;
  private readonly now: () => number;
  private slowness = 0;
  private pausedUntil = 0;

  /** @param file its descriptor @param now time, ns */
  constructor(files: DirectFiles, file: number, now: () => number) {
    this.files = files;
    this.file = file;
    this.now = now;
  }

  /** Requests may be tried here. */
  get ready(): boolean {
    return this.pausedUntil === 0 || this.now() >= this.pausedUntil;
  }

  /** @returns false: it is to be tried by Domain 0's thread, which can tell what is wrong */
  move(write: boolean, offset: number, bytes: number, pieces: readonly number[]): boolean {
    const { files, file } = this;
    const begun = this.now();
    const done = write ? files.write(file, offset, pieces) : files.read(file, offset, pieces);
    const took = this.now() - begun;
    if (took <= CALL + bytes * BYTE) this.slowness *= FORGETS;
    else if (++this.slowness > TOO_SLOW) {
      this.slowness = 0;
      this.pausedUntil = begun + took + Math.min(Math.max(took * TIMES, PAUSE_MIN), PAUSE_MAX);
    }
    return done;
  }
}
