/** How images tell what they are doing: a line on a terminal that is overwritten, nothing elsewhere. */

export interface Progress {
  /** Says what is being done, and how far it is: 0 to 1, or null where that is not known. */
  update(what: string, done: number | null): void;
  /** Removes the line. */
  clear(): void;
}

/** The stream that progress goes to: standard error, usually. */
export interface ProgressStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

export const SILENT: Progress = { update() {}, clear() {} };

const BAR = 24;
const INTERVAL_MS = 60;

/** Progress on a terminal; silent if the stream is not one. */
export function progressOn(stream: ProgressStream, now: () => number = Date.now): Progress {
  if (!stream.isTTY) return SILENT;
  let last = '';
  let drawn = 0;
  return {
    update(what, done) {
      // A new activity or the end of one is shown at once, the steps between now and then.
      if (what === last && done !== 1 && now() - drawn < INTERVAL_MS) return;
      last = what;
      drawn = now();
      const width = (stream.columns ?? 80) - 1;
      const filled = Math.round(Math.min(Math.max(done ?? 0, 0), 1) * BAR);
      const bar = done === null ? '' : ` [${'#'.repeat(filled)}${'.'.repeat(BAR - filled)}] ${percent(done)}`;
      const room = Math.max(width - bar.length, 10);
      const label = what.length > room ? `${what.slice(0, room - 1)}…` : what;
      stream.write(`\r\x1b[K${label}${bar}`);
    },
    clear() {
      if (last !== '') stream.write('\r\x1b[K');
      last = '';
    },
  };
}

function percent(done: number): string {
  return `${String(Math.round(Math.min(Math.max(done, 0), 1) * 100)).padStart(3)}%`;
}
