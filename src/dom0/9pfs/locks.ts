/**
 * Locks of byte ranges, as fcntl(2) has them, between all domains that share a file. A lock is asked for and never
 * waited for: a client that wants to wait asks again.
 */
import { ERRNO } from '../../xen/public/errno.ts';
import { FileError } from './files.ts';

/** As the protocol numbers them. */
export const LockType = { read: 0, write: 1, unlock: 2 } as const;

/** Behind the last byte of any file. */
export const NO_END = 1n << 64n;
/** Ranges that one session may hold. */
const MAX_RANGES = 1024;

export interface LockRange {
  readonly start: bigint;
  /** The first byte behind it. */
  readonly end: bigint;
}

export interface Lock extends LockRange {
  readonly type: number;
  /** The connection that holds it, and who on it. */
  readonly session: object;
  readonly process: number;
  readonly client: string;
}

export class FileLocks {
  private readonly files = new Map<string, Lock[]>();

  /** A lock that stands in the way of one; null: none does. */
  conflict(file: string, wanted: Lock): Lock | null {
    const found = this.files
      .get(file)
      ?.find(
        (lock) =>
          !sameOwner(lock, wanted) &&
          overlap(lock, wanted) &&
          (lock.type === LockType.write || wanted.type === LockType.write),
      );
    return found ?? null;
  }

  /**
   * Takes or gives up a range; what the owner had there before is replaced.
   * @returns false: another one stands in the way @throws FileError ENOLCK
   */
  set(file: string, wanted: Lock): boolean {
    if (wanted.type !== LockType.unlock && this.conflict(file, wanted)) return false;
    const locks = (this.files.get(file) ?? []).flatMap((lock) =>
      sameOwner(lock, wanted) && overlap(lock, wanted) ? without(lock, wanted) : [lock],
    );
    if (wanted.type !== LockType.unlock) {
      if (this.count(wanted.session) >= MAX_RANGES) throw new FileError(ERRNO.ENOLCK);
      locks.push(wanted);
    }
    if (locks.length === 0) this.files.delete(file);
    else this.files.set(file, locks);
    return true;
  }

  /** All that a session holds. */
  release(session: object): void {
    for (const [file, locks] of this.files) {
      const left = locks.filter((lock) => lock.session !== session);
      if (left.length === 0) this.files.delete(file);
      else this.files.set(file, left);
    }
  }

  private count(session: object): number {
    let count = 0;
    for (const locks of this.files.values()) for (const lock of locks) if (lock.session === session) count++;
    return count;
  }
}

function sameOwner(a: Lock, b: Lock): boolean {
  return a.session === b.session && a.process === b.process && a.client === b.client;
}

function overlap(a: LockRange, b: LockRange): boolean {
  return a.start < b.end && b.start < a.end;
}

/** What of a lock lies outside of a range. */
function without(lock: Lock, { start, end }: LockRange): Lock[] {
  return [
    ...(lock.start < start ? [{ ...lock, end: start }] : []),
    ...(end < lock.end ? [{ ...lock, start: end }] : []),
  ];
}
