/**
 * One daemon at a time: a lock file that says who holds it.
 *
 * A file appears under its name complete (written aside, then linked), so whoever finds it can read who holds the
 * lock. A process is recognised by its number and by when it started: numbers come again. A lock whose holder is gone
 * is removed by one at a time (removeStale), so that nobody removes what another one just got.
 */
import { randomBytes } from 'node:crypto';
import { linkSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';

/** Who holds a lock. */
export interface Holder {
  readonly pid: number;
  /** When the process started, as its system counts it; null: that cannot be had here. */
  readonly start: string | null;
  /** ms since the epoch. */
  readonly since: number;
}

export interface Acquired {
  /** The one before, which is gone without having given the lock back. */
  readonly dead: Holder | null;
  release(): void;
}

/** Somebody else holds it. */
export class Locked extends Error {
  readonly holder: Holder;

  constructor(holder: Holder) {
    super(`held by process ${holder.pid}`);
    this.holder = holder;
  }
}

const ATTEMPTS = 500;
const PAUSE_MS = 10;
const ABANDONED_MS = 10_000;

/** @throws Locked */
export function acquire(path: string): Acquired {
  let dead: Holder | null = null;
  const mine: Holder = { pid: process.pid, start: startOf(process.pid), since: Date.now() };
  const text = JSON.stringify(mine);
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    if (place(path, text)) {
      return {
        dead,
        release: () => {
          if (contents(path) === text) rmSync(path, { force: true });
        },
      };
    }
    const found = contents(path);
    if (found === null) continue;
    const holder = parse(found);
    if (holder && alive(holder)) throw new Locked(holder);
    if (removeStale(path, found, text)) dead = holder ?? dead;
    else pause();
  }
  throw new Error(`${path}: the lock cannot be had`);
}

/**
 * Removes a lock whose holder is gone, if it still is what was found. Of several that want to, one at a time may look
 * and remove: whoever has the file beside it. @returns false: another one is at it, or was
 */
function removeStale(path: string, found: string, mine: string): boolean {
  const guard = `${path}.takeover`;
  if (!place(guard, mine)) {
    removeAbandoned(guard);
    return false;
  }
  try {
    if (contents(path) !== found) return false;
    rmSync(path, { force: true });
    return true;
  } finally {
    rmSync(guard, { force: true });
  }
}

/** Whoever held it for a moment died in that moment, long ago. */
function removeAbandoned(guard: string): void {
  try {
    if (Date.now() - statSync(guard).mtimeMs > ABANDONED_MS) rmSync(guard, { force: true });
  } catch {}
}

function pause(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE_MS);
}

/** Who holds a lock, if that process is there. */
export function holderOf(path: string): Holder | null {
  const text = contents(path);
  const holder = text === null ? null : parse(text);
  return holder && alive(holder) ? holder : null;
}

/** Puts a file under a name that must be free. */
function place(path: string, text: string): boolean {
  const aside = `${path}.${unique()}`;
  writeFileSync(aside, text, { mode: 0o600, flush: true });
  try {
    linkSync(aside, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  } finally {
    rmSync(aside, { force: true });
  }
}

function unique(): string {
  return `${process.pid}.${randomBytes(4).toString('hex')}`;
}

function contents(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}

function parse(text: string): Holder | null {
  try {
    const value = JSON.parse(text) as Partial<Holder> | null;
    return Number.isInteger(value?.pid)
      ? { pid: value!.pid!, start: value!.start ?? null, since: value!.since ?? 0 }
      : null;
  } catch {
    return null;
  }
}

function alive({ pid, start }: Holder): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return false;
  }
  const now = startOf(pid);
  return now === null || start === null || now === start;
}

/** Field 22 of proc_pid_stat(5), with the boot that it counts from; null where there is no /proc. */
function startOf(pid: number): string | null {
  const stat = contents(`/proc/${pid}/stat`);
  const boot = contents('/proc/sys/kernel/random/boot_id');
  const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields?.[19] ? `${boot?.trim()} ${fields[19]}` : null;
}
