/** Runs xl as a user does, with a daemon of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Outcome } from './cli.ts';

export const XL_MAIN = fileURLToPath(new URL('../../dist/toolstack/xl/main.js', import.meta.url));

/** A console, or another command that goes on. */
export class Going {
  readonly child: ChildProcess;
  readonly ended: Promise<Outcome>;
  stdout = '';
  stderr = '';

  constructor(program: string, args: readonly string[], env: NodeJS.ProcessEnv) {
    this.child = spawn(program, args, { stdio: 'pipe', env });
    this.child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
    });
    this.child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
    });
    this.child.stdin!.on('error', () => {});
    this.ended = new Promise((resolve, reject) => {
      this.child.on('error', reject);
      this.child.on('close', (status, signal) =>
        resolve({ status: status ?? signal ?? '?', stdout: this.stdout, stderr: this.stderr }),
      );
    });
  }

  type(text: string): void {
    this.child.stdin!.write(text);
  }

  /** Waits for something in the output, and forgets what stands before its end. */
  async sees(pattern: RegExp, seconds = 120): Promise<string> {
    const end = Date.now() + seconds * 1000;
    for (;;) {
      const match = pattern.exec(this.stdout);
      if (match) {
        this.stdout = this.stdout.slice(match.index + match[0].length);
        return match[0];
      }
      if (Date.now() > end || this.child.exitCode !== null) {
        throw new Error(`not seen: ${pattern}\n${this.stdout.slice(-2000)}\n${this.stderr}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

/** A user with a daemon, or without. */
export class XlUser {
  readonly folder = mkdtempSync(join(tmpdir(), 'xenolith-xl-'));
  readonly env: NodeJS.ProcessEnv = { ...process.env, XENOLITH_DIR: join(this.folder, 'run') };
  /** Commands, and their options, that were run: "list", "list -l". */
  readonly used = new Set<string>();
  private readonly going: Going[] = [];

  /** Runs a command to its end, with `input` piped in. */
  async run(args: readonly string[], input = ''): Promise<Outcome> {
    const command = this.start(args);
    command.type(input);
    command.child.stdin!.end();
    return command.ended;
  }

  /** Runs a command that must succeed. @returns what it printed */
  async xl(...args: string[]): Promise<string> {
    const { status, stdout, stderr } = await this.run(args);
    if (status !== 0) throw new Error(`xl ${args.join(' ')}: status ${status}\n${stderr}`);
    return stdout;
  }

  start(args: readonly string[]): Going {
    this.note(args);
    const command = new Going(process.execPath, [XL_MAIN, ...args], this.env);
    this.going.push(command);
    return command;
  }

  /** Runs a line of shell on a terminal, in which "xl" is ours. */
  onTerminal(line: string): Going {
    for (const [, words] of line.matchAll(/\bxl ([^;|]+)/g)) this.note(words!.split(' '));
    const xl = `xl() { ${process.execPath} ${XL_MAIN} "$@"; }`;
    const command = new Going('script', ['-q', '-c', `${xl}; ${line}`, '/dev/null'], this.env);
    this.going.push(command);
    return command;
  }

  private note([command, ...words]: readonly string[]): void {
    if (command === undefined) return;
    this.used.add(command);
    for (const word of words) if (word.startsWith('-')) this.used.add(`${command} ${word}`);
  }

  /** Asks again and again until a command's output is as expected. */
  async until(args: readonly string[], pattern: RegExp, seconds = 60): Promise<string> {
    const end = Date.now() + seconds * 1000;
    for (;;) {
      const { stdout, stderr } = await this.run(args);
      if (pattern.test(stdout)) return stdout;
      if (Date.now() > end) throw new Error(`xl ${args.join(' ')}: not seen: ${pattern}\n${stdout}${stderr}`);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }

  /** The daemon's process. */
  async daemonPid(): Promise<number> {
    return Number(/^pid\s+: (\d+)$/m.exec(await this.xl('daemon'))![1]);
  }

  async destroyAll(): Promise<void> {
    if ((await this.run(['daemon', 'status'])).status !== 0) return;
    const list = await this.xl('vm-list');
    const domains = [...list.matchAll(/^\S{36} {2}(\d+) /gm)];
    await Promise.all(domains.map(([, domid]) => this.run(['destroy', domid!])));
  }

  async leave(): Promise<void> {
    for (const { child } of this.going) child.kill('SIGKILL');
    await this.run(['daemon', 'stop', '--force']);
    rmSync(this.folder, { recursive: true, force: true });
  }
}
