/** A system under measurement: a process whose standard output is a guest's console. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { setPriority } from 'node:os';

/** Clock ticks a second in /proc (USER_HZ, the same on every Linux of today). */
const TICKS = 100;

/**
 * Gives a process that leads a session of its own a nice value. Linux may schedule sessions as groups (autogroup): then
 * the session gets it, and its threads are equal among themselves. @throws Error if that is not allowed
 */
export function setNice(pid: number, nice: number): void {
  const group = `/proc/${pid}/autogroup`;
  if (existsSync(group)) writeFileSync(group, `${nice}`);
  else for (const thread of readdirSync(`/proc/${pid}/task`)) setPriority(Number(thread), nice);
}

/** CPU time of a process so far, in seconds, of all its threads. */
export function cpuSecondsOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS;
}

export class System {
  private readonly child: ChildProcess;
  private output = '';
  private errors = '';
  private firstByte: number | null = null;
  private watcher: () => void = () => {};
  private status: string | null = null;

  constructor(program: string, args: readonly string[], nice: number) {
    // A process group of its own: User-Mode Linux has helpers that outlive it.
    this.child = spawn(program, args, { stdio: 'pipe', detached: true });
    process.on('exit', this.kill);
    if (nice !== 0 && this.child.pid !== undefined) setNice(this.child.pid, nice);
    this.child.stdout!.setEncoding('latin1').on('data', (text: string) => {
      this.firstByte ??= performance.now();
      this.output += text;
      this.watcher();
    });
    this.child.stderr!.setEncoding('latin1').on('data', (text: string) => {
      this.errors += text;
      this.watcher();
    });
    this.child.stdin!.on('error', () => {});
    this.child.on('error', (error) => this.finish(error.message));
    this.child.on('exit', this.kill);
    this.child.on('close', (code, signal) => this.finish(`status ${code ?? signal}`));
  }

  private readonly kill = (): void => {
    if (this.child.pid === undefined) return;
    try {
      process.kill(-this.child.pid, 'SIGKILL');
    } catch {
      // There is nothing left of it.
    }
  };

  private finish(status: string): void {
    this.status = status;
    process.off('exit', this.kill);
    this.watcher();
  }

  /** @throws Error if it could not be started */
  get pid(): number {
    if (this.child.pid === undefined) throw new Error('it does not run');
    return this.child.pid;
  }

  /** When the guest's console said its first byte, in ms of performance.now(). */
  get entered(): number {
    if (this.firstByte === null) throw new Error('the console is silent');
    return this.firstByte;
  }

  /** Waits for a text on the console (or on standard error); gives the match. @throws Error if it does not come */
  async see(pattern: RegExp, seconds = 300, where: 'output' | 'errors' = 'output'): Promise<RegExpExecArray> {
    return new Promise((resolve, reject) => {
      const fail = (why: string) => {
        this.watcher = () => {};
        clearTimeout(timer);
        reject(new Error(`${why} before ${pattern}: ${(this.output + this.errors).slice(-1500)}`));
      };
      const timer = setTimeout(() => fail(`${seconds} s passed`), seconds * 1000);
      this.watcher = () => {
        const match = pattern.exec(this[where]);
        if (match) {
          this.watcher = () => {};
          clearTimeout(timer);
          resolve(match);
        } else if (this.status !== null) fail(`it ended (${this.status})`);
      };
      this.watcher();
    });
  }

  /** Waits; meanwhile it must not end. @throws Error if it does */
  async survive(seconds: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const done = (error?: Error) => {
        this.watcher = () => {};
        clearTimeout(timer);
        if (error) reject(error);
        else resolve();
      };
      const timer = setTimeout(done, seconds * 1000);
      this.watcher = () => {
        if (this.status === null) return;
        done(new Error(`it ended (${this.status}): ${(this.output + this.errors).slice(-1500)}`));
      };
      this.watcher();
    });
  }

  /** What the console said since the last call, in whole lines. */
  takeOutput(): string {
    const end = this.output.lastIndexOf('\n') + 1;
    const lines = this.output.slice(0, end);
    this.output = this.output.slice(end);
    return lines;
  }

  type(text: string): void {
    this.child.stdin!.write(text);
  }

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  /** Forgets what was said on standard error, so that the next {@link see} there sees only what is new. */
  forgetErrors(): void {
    this.errors = '';
  }

  /** CPU time so far, in seconds, of all its threads. */
  get cpuSeconds(): number {
    return cpuSecondsOf(this.pid);
  }

  /** Memory of the host that it holds now, in MiB. */
  get residentMiB(): number {
    const status = readFileSync(`/proc/${this.child.pid}/status`, 'latin1');
    return Number(/^VmRSS:\s*(\d+) kB/m.exec(status)![1]) / 1024;
  }

  /** Ends it, however it takes that. */
  async end(): Promise<void> {
    if (this.status !== null) return;
    await new Promise<void>((resolve) => {
      this.child.once('close', () => resolve());
      this.kill();
    });
  }
}
