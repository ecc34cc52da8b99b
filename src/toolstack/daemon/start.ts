/** How a program comes to its daemon: finds the one that runs, or starts one. */
import { fork } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { NOBODY, RemoteToolstack, Unreachable } from '../api/remote.ts';
import { Failure } from '../failure.ts';
import { holderOf } from './lock.ts';
import { exists, type Place, prepare } from './place.ts';

/** What a daemon tells whoever started it. */
export type StartMessage =
  | { readonly ready: number; readonly notice: string | null }
  /** `running`: another one does. */
  | { readonly error: string; readonly running: boolean };

/** A daemon that was started for a command ends when it was not needed for so long, in seconds. */
const IDLE_EXIT = 600;
/** For how long a daemon that is there may take to answer, ms. */
const PATIENCE = 15_000;
const AGAIN = 50;

/** The daemon that runs; null: none does. @throws Failure it does not answer */
export async function findDaemon(place: Place): Promise<RemoteToolstack | null> {
  if (!exists(place)) return null;
  const deadline = Date.now() + PATIENCE;
  const toolstack = new RemoteToolstack({ socketPath: place.socket });
  for (;;) {
    try {
      await toolstack.daemon(AbortSignal.timeout(PATIENCE));
      return toolstack;
    } catch (error) {
      if (!(error instanceof Unreachable)) throw error;
      const holder = holderOf(place.lock);
      if (!holder && NOBODY.has(error.code)) return null;
      // It comes up, or goes down.
      if (Date.now() > deadline)
        throw new Failure(
          `the daemon (process ${holder?.pid ?? '?'}) does not answer; its log is ${place.log}`,
        );
      await new Promise((resolve) => setTimeout(resolve, AGAIN));
    }
  }
}

/**
 * The daemon that runs, or one that is started for this.
 * @param tell takes what became of the one before, if it died
 * @throws Failure
 */
export async function connectDaemon(place: Place, tell: (notice: string) => void): Promise<RemoteToolstack> {
  for (let attempt = 0; attempt < 3; attempt++) {
    const found = await findDaemon(place);
    if (found) return found;
    const message = await startDaemon(place, ['--idle-exit', String(IDLE_EXIT)]);
    if ('ready' in message && message.notice) tell(message.notice);
    // Somebody else may have been faster; then theirs is found.
    if ('error' in message && !message.running) throw new Failure(message.error);
  }
  throw new Failure(`the daemon does not come up; its log is ${place.log}`);
}

/** Starts a daemon that goes on when this program ends. */
export function startDaemon(place: Place, args: readonly string[]): Promise<StartMessage> {
  prepare(place);
  const log = openSync(place.log, 'a', 0o600);
  const program = fileURLToPath(new URL('./main.js', import.meta.url));
  const child = fork(program, args, {
    detached: true,
    cwd: '/',
    execArgv: [],
    env: { ...process.env, XENOLITH_DIR: place.folder },
    stdio: ['ignore', log, log, 'ipc'],
  });
  closeSync(log);
  return new Promise((resolve, reject) => {
    child.once('message', (message) => {
      child.removeAllListeners('exit');
      if (child.connected) child.disconnect();
      child.unref();
      resolve(message as StartMessage);
    });
    child.once('error', (error) => reject(new Failure(`the daemon does not start: ${error.message}`)));
    child.once('exit', (code, signal) => {
      reject(
        new Failure(`the daemon ended at once (${signal ?? `status ${code}`}); its log is ${place.log}`),
      );
    });
  });
}
