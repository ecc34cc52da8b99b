/** Runs the programs of the host that images are made with. */
import { type ChildProcess, spawn } from 'node:child_process';
import { ImageError } from './error.ts';

/** What became of a program that ran to its end. */
export interface Finished {
  readonly status: number | null;
  readonly output: string;
  readonly errors: string;
}

/** The Debian package that brings a program, where it has another name. */
const PACKAGES: Readonly<Record<string, string>> = {
  'dpkg-deb': 'dpkg',
  mke2fs: 'e2fsprogs',
  cp: 'coreutils',
};

/** Rejects when a program cannot be started, with the command that installs it. */
export function toolFailure(child: ChildProcess, tool: string): Promise<never> {
  return new Promise((_, reject) => {
    child.once('error', (error: NodeJS.ErrnoException) => {
      const missing = error.code === 'ENOENT';
      reject(
        new ImageError(
          missing && tool.startsWith('apt')
            ? `${tool} is not on this machine: images are made of Debian's packages (use --kernel and --ramdisk for your own)`
            : missing
              ? `${tool} is missing, run: sudo apt-get install ${PACKAGES[tool] ?? tool}`
              : `${tool} does not start: ${error.message}`,
        ),
      );
    });
  });
}

/** How a program is run. */
export interface ToolOptions {
  readonly cwd?: string;
  /** Its standard input; nothing if left out. */
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Gets the lines that it writes to descriptor 3, where apt tells how far it is. */
  readonly onStatus?: (line: string) => void;
  /** Gets the lines of standard error as they come. */
  readonly onError?: (line: string) => void;
}

/**
 * Runs a program to its end.
 * @throws ImageError if there is no such program
 */
export async function runTool(
  tool: string,
  args: readonly string[],
  { cwd, input, env, onStatus, onError }: ToolOptions = {},
): Promise<Finished> {
  const child = spawn(tool, args, {
    cwd,
    env: { ...process.env, LC_ALL: 'C', ...env },
    stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe', 'pipe'],
  });
  const failure = toolFailure(child, tool);
  // A program that ends without reading all of its input is judged by its status.
  child.stdin?.on('error', () => {}).end(input);
  let output = '';
  let errors = '';
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  const onErrorText = lineReader(onError);
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
    onErrorText(text);
  });
  const onStatusText = lineReader(onStatus);
  child.stdio[3]!.on('data', (bytes: Buffer) => onStatusText(bytes.toString('utf8')));
  const ended = new Promise<Finished>((resolve) => {
    child.once('close', (code) => resolve({ status: code, output, errors }));
  });
  return Promise.race([ended, failure]);
}

/** Cuts a stream of text into lines. */
function lineReader(onLine: ((line: string) => void) | undefined): (text: string) => void {
  let rest = '';
  return (text) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop()!;
    for (const line of lines) onLine?.(line);
  };
}

/** What a program said was wrong: its last line that begins with E:, as apt and mmdebstrap write, else its last one. */
export function complaint(errors: string, otherwise: string): string {
  const lines = errors.split('\n').filter((line) => line.trim() !== '');
  const said =
    lines
      .filter((line) => line.startsWith('E:'))
      .at(-1)
      ?.slice(2) ?? lines.at(-1);
  return said?.trim() ?? otherwise;
}
