/**
 * Where a user's daemon is found: a folder of its own with its socket, its lock and its log.
 *
 * Who may speak to the daemon is who may open the socket. Node cannot ask the kernel who is at the other end of a
 * connection (SO_PEERCRED), so the folder answers that: it belongs to the user, nobody else may enter it (0700), and
 * the kernel checks that on every connect. Both sides look at it before they trust it, because where there is no
 * XDG_RUNTIME_DIR the folder stands in /tmp, where anybody might have put one of that name.
 */
import { type BigIntStats, lstatSync, mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { isAbsolute, join, resolve } from 'node:path';
import { Failure } from '../failure.ts';

export interface Place {
  readonly folder: string;
  /** Unix socket: the HTTP interface. */
  readonly socket: string;
  /** Who runs, see lock.ts. */
  readonly lock: string;
  /** What the daemon that runs has, for whoever finds it dead. */
  readonly state: string;
  readonly log: string;
  /** Folder of xenstore's socket, for its clients: XENSTORED_RUNDIR. */
  readonly xenstored: string;
  /** What of the store outlasts a daemon. */
  readonly store: string;
  /** Core dumps that configurations ask for. */
  readonly dumps: string;
  /** What lets a program in by TCP. */
  readonly token: string;
}

/** A Unix socket's path may be this long, in bytes (sun_path less the zero). */
const LONGEST = 107;

type Environment = Readonly<Record<string, string | undefined>>;

/** XENOLITH_DIR, or a folder of ours where this user's run-time files belong. */
export function placeOf(env: Environment = process.env): Place {
  const folder = folderOf(env);
  const socket = join(folder, 'socket');
  if (Buffer.byteLength(socket) > LONGEST) {
    throw new Failure(`${socket}: too long for a Unix socket (at most ${LONGEST} bytes); set XENOLITH_DIR`);
  }
  return {
    folder,
    socket,
    lock: join(folder, 'lock'),
    state: join(folder, 'state.json'),
    log: join(folder, 'daemon.log'),
    xenstored: join(folder, 'xenstored'),
    store: join(folder, 'xenstore.json'),
    dumps: join(folder, 'dump'),
    token: join(folder, 'token'),
  };
}

function folderOf(env: Environment): string {
  const own = env['XENOLITH_DIR'];
  if (own) return resolve(own);
  const runtime = env['XDG_RUNTIME_DIR'];
  if (runtime && isAbsolute(runtime)) return join(runtime, 'xenolith');
  return join(tmpdir(), `xenolith-${userId()}`);
}

function userId(): number {
  return process.getuid?.() ?? 0;
}

/** Makes the folder if it is not there. @throws Failure if it is not this user's alone */
export function prepare({ folder }: Place): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new Failure(`${folder}: ${(error as Error).message}`);
  }
  check(folder);
}

/** True if there is such a folder. @throws Failure if it is not this user's alone */
export function exists({ folder }: Place): boolean {
  return check(folder);
}

function check(folder: string): boolean {
  const facts: BigIntStats | undefined = lstatSync(folder, { bigint: true, throwIfNoEntry: false });
  if (!facts) return false;
  if (!facts.isDirectory()) throw new Failure(`${folder}: is not a folder; who put it there?`);
  if (Number(facts.uid) !== userId())
    throw new Failure(`${folder}: belongs to another user; set XENOLITH_DIR`);
  if ((Number(facts.mode) & 0o077) !== 0)
    throw new Failure(`${folder}: others may enter it; its permissions must be 0700`);
  return true;
}
