/**
 * The user's side of a domain's console on Node: a terminal in raw mode, or a pipe.
 *
 * On a terminal every key goes to the guest as it is, Ctrl-C too; one key does not: the escape key, Ctrl-] as
 * `xl console` has it. Whatever ends the program, the terminal goes back to what it was.
 */
import { spawnSync } from 'node:child_process';
import type { ReadStream, WriteStream } from 'node:tty';

/** Ctrl-] */
const ESCAPE = 0x1d;

export interface TerminalEvents {
  onInput(bytes: Uint8Array): void;
  /** Standard input has ended. */
  onEnd(): void;
  /** The escape key. */
  onEscape(): void;
  /** Nobody reads standard output any more. */
  onClosed(): void;
}

export class Terminal {
  private readonly stdin: ReadStream;
  private readonly stdout: WriteStream;
  private readonly restoreNow = () => this.setRaw(false);
  private raw = false;
  private ended = false;
  private lastByte = 0x0a;

  constructor(stdin: ReadStream, stdout: WriteStream) {
    this.stdin = stdin;
    this.stdout = stdout;
  }

  /** True if a person types. */
  get interactive(): boolean {
    return this.stdin.isTTY === true;
  }

  /** Columns and rows of the window, or null if there is none. */
  get size(): { columns: number; rows: number } | null {
    const { columns, rows } = this.stdout;
    return this.stdout.isTTY && columns > 0 && rows > 0 ? { columns, rows } : null;
  }

  /** What ends a line of ours: a terminal in raw mode does not return the carriage by itself. */
  get newline(): string {
    return this.raw ? '\r\n' : '\n';
  }

  start(events: TerminalEvents): void {
    this.setRaw(true);
    process.once('exit', this.restoreNow);
    this.stdin.on('data', (bytes: Uint8Array) => {
      const at = this.interactive ? bytes.indexOf(ESCAPE) : -1;
      const input = at < 0 ? bytes : bytes.subarray(0, at);
      if (input.length > 0) events.onInput(input);
      if (at >= 0) events.onEscape();
    });
    const end = () => {
      if (this.ended) return;
      this.ended = true;
      events.onEnd();
    };
    this.stdin.on('end', end);
    // A terminal that hangs up reads EIO.
    this.stdin.on('error', end);
    this.stdout.on('error', () => events.onClosed());
  }

  /** Stops and starts reading: the guest takes no more for now. */
  pause(): void {
    this.stdin.pause();
  }

  resume(): void {
    if (!this.ended) this.stdin.resume();
  }

  /** @returns false while the reader is behind; `onDrain` is called once it has caught up. */
  write(bytes: Uint8Array, onDrain?: () => void): boolean {
    if (bytes.length === 0) return true;
    this.lastByte = bytes[bytes.length - 1]!;
    // The guest's ring is reused at once; the stream keeps what it was given.
    const fast = this.stdout.write(bytes.slice());
    if (!fast && onDrain) this.stdout.once('drain', onDrain);
    return fast;
  }

  /** Ends the current line, so that what follows starts at the left. */
  freshLine(): void {
    if (this.lastByte !== 0x0a) this.write(new TextEncoder().encode(this.newline));
  }

  /** Gives the terminal back. */
  stop(): void {
    this.setRaw(false);
    process.removeListener('exit', this.restoreNow);
    this.stdin.pause();
    this.stdin.removeAllListeners('data');
  }

  private setRaw(raw: boolean): void {
    if (!this.interactive || this.raw === raw) return;
    this.raw = raw;
    try {
      this.stdin.setRawMode(raw);
    } catch {
      // The terminal is gone: there is nothing to set, and nothing to give back.
      return;
    }
    // Node's raw mode leaves the output alone, where a newline still returns the carriage; the guest's own terminal
    // has done that already, or means not to. (Leaving raw mode restores this, too.)
    if (raw) spawnSync('stty', ['-opost'], { stdio: ['inherit', 'ignore', 'ignore'] });
  }
}
