/** Runs the command line as a user does. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../../dist/toolstack/main.js', import.meta.url));

export interface Outcome {
  /** Exit status, or the signal's name. */
  status: number | string;
  stdout: string;
  stderr: string;
}

export class Session {
  readonly child: ChildProcess;
  readonly ended: Promise<Outcome>;
  stdout = '';
  stderr = '';
  private readonly watchers = new Set<() => void>();

  constructor(args: readonly string[], env: NodeJS.ProcessEnv = process.env) {
    this.child = spawn(process.execPath, [MAIN, ...args], { stdio: 'pipe', env });
    this.child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
      for (const watcher of this.watchers) watcher();
    });
    this.child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
    });
    // What is written to a domain that is gone is lost; its status tells.
    this.child.stdin!.on('error', () => {});
    this.ended = new Promise((resolve, reject) => {
      this.child.on('error', reject);
      this.child.on('close', (code, signal) =>
        resolve({ status: code ?? signal!, stdout: this.stdout, stderr: this.stderr }),
      );
    });
  }

  type(text: string): void {
    this.child.stdin!.write(text);
  }

  end(): void {
    this.child.stdin!.end();
  }

  /** Waits until standard output, from a position on, matches; gives the position behind the match. */
  async see(pattern: RegExp, from = 0, milliseconds = 120_000): Promise<number> {
    const look = () => {
      const match = pattern.exec(this.stdout.slice(from));
      return match ? from + match.index + match[0].length : -1;
    };
    return new Promise((resolve, reject) => {
      const finish = (then: () => void) => {
        clearTimeout(timer);
        this.watchers.delete(watcher);
        then();
      };
      const failure = (why: string) =>
        new Error(`${why}: ${pattern}\n${this.stdout.slice(-2000)}\n${this.stderr}`);
      const watcher = () => {
        const at = look();
        if (at >= 0) finish(() => resolve(at));
      };
      const timer = setTimeout(() => finish(() => reject(failure('not seen in time'))), milliseconds);
      this.watchers.add(watcher);
      this.ended.then(() => finish(() => reject(failure('ended without')))).catch(reject);
      watcher();
    });
  }
}

/** Runs to the end, with `input` piped in. */
export async function xenolith(
  args: readonly string[],
  input = '',
  milliseconds = 200_000,
): Promise<Outcome> {
  const session = new Session(args);
  session.type(input);
  session.end();
  const timer = setTimeout(() => session.child.kill('SIGKILL'), milliseconds);
  try {
    return await session.ended;
  } finally {
    clearTimeout(timer);
  }
}

/** A domain's console output as lines. */
export function lines(output: string): string[] {
  return output.replaceAll('\r', '').split('\n');
}
