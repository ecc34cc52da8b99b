/**
 * xl: finds the command, its options and the daemon, and turns what goes wrong into a message and a status, as
 * xl(1) has them.
 */
import { constants } from 'node:os';
import { ToolstackError } from '../api/errors.ts';
import { RemoteToolstack, Unreachable } from '../api/remote.ts';
import { exists, type Place, placeOf } from '../daemon/place.ts';
import { Arguments, type XlContext, XlError } from './context.ts';
import { getopt, OptionError } from './getopt.ts';
import { COMMANDS, type Command } from './table.ts';

/** After so many ms without an end it is looked whether the daemon is alive at all. */
const DOUBT = 1000;

/** Exit statuses: EXIT_FAILURE of the C library; what xl gives for options that it does not know. */
const FAILURE = 1;
const USAGE = 2;

/** @param name that the program was called by */
export async function runXl(args: readonly string[], name = 'xl'): Promise<number> {
  const globals = new Set<string>();
  const rest = [...args];
  while (/^-[vNftT]+$/.test(rest[0] ?? '')) for (const letter of rest.shift()!.slice(1)) globals.add(letter);
  const [word, ...operands] = rest;
  const out = (text: string) => void process.stdout.write(text);
  const err = (text: string) => void process.stderr.write(text);
  // Whoever read our output has enough.
  process.stdout.on('error', () => process.exit(128 + constants.signals.SIGPIPE));
  if (word === undefined || word === 'help' || word === '--help' || word === '-h') {
    const about = operands.find((operand) => !operand.startsWith('-'));
    const command = COMMANDS.find((each) => each.name === about);
    (word === undefined ? err : out)(command ? helpOf(command, name) : overview(name));
    return word === undefined ? FAILURE : 0;
  }
  const command = COMMANDS.find((each) => each.name === word);
  if (!command) {
    err(word.startsWith('-') ? `unknown global option\n` : `command '${word}' not implemented\n`);
    return word.startsWith('-') ? USAGE : FAILURE;
  }
  try {
    const given = argumentsOf(command, operands);
    if (given === null) {
      out(helpOf(command, name));
      return 0;
    }
    if (given.operands.length < (command.operands ?? 0)) {
      const count = command.operands!;
      err(
        `'xl ${command.name}' requires at least ${count} argument${count > 1 ? 's' : ''}.\n\n${helpOf(command, name)}`,
      );
      return USAGE;
    }
    if (globals.has('N') && command.changes)
      throw new XlError('command does not implement -N (dryrun) option');
    const run = await command.load();
    const place = placeOf();
    const daemon = new Daemon(place, (notice) => err(`xl: ${notice}\n`));
    const context: XlContext = {
      toolstack: () => daemon.toolstack(),
      ...{ place, out, err, cwd: process.cwd() },
      dryRun: globals.has('N'),
      verbose: globals.has('v'),
    };
    return (await Promise.race([run(context, given), daemon.dead])) ?? 0;
  } catch (error) {
    return failed(error, err);
  } finally {
    await flushed();
  }
}

/** Null: help is wanted. @throws OptionError */
function argumentsOf({ short = '', long = {}, raw }: Command, words: readonly string[]): Arguments | null {
  if (raw) return words[0] === '-h' || words[0] === '--help' ? null : new Arguments([], words);
  const { options, operands } = getopt(words, `h${short}`, { help: 'h', ...long });
  return options.some(([letter]) => letter === 'h') ? null : new Arguments(options, operands);
}

/**
 * The daemon of a command. It is not asked whether it is there, as that takes as long as most commands do: where
 * nobody answers the first request one is started, and a command that takes long finds out whether it is alive.
 */
class Daemon {
  /** Fails when it does not answer any more. */
  readonly dead: Promise<never>;
  private readonly place: Place;
  private readonly tell: (notice: string) => void;
  private connected: Promise<RemoteToolstack> | null = null;
  private fail!: (error: unknown) => void;

  /** @param tell takes what became of the one before */
  constructor(place: Place, tell: (notice: string) => void) {
    this.place = place;
    this.tell = tell;
    this.dead = new Promise((_, reject) => {
      this.fail = reject;
    });
    this.dead.catch(() => {});
  }

  toolstack(): Promise<RemoteToolstack> {
    this.connected ??= this.connect();
    return this.connected;
  }

  private async connect(): Promise<RemoteToolstack> {
    const start = async () => (await import('../daemon/start.ts')).connectDaemon(this.place, this.tell);
    if (!exists(this.place)) return start();
    setTimeout(async () => {
      const { findDaemon } = await import('../daemon/start.ts');
      await findDaemon(this.place).catch(this.fail);
    }, DOUBT).unref();
    return new RemoteToolstack({ socketPath: this.place.socket }, start);
  }
}

async function failed(error: unknown, err: (text: string) => void): Promise<number> {
  if (process.env['XENOLITH_DEBUG']) err(`${(error as Error).stack}\n`);
  if (error instanceof OptionError) {
    err(`${error.message}\n`);
    return USAGE;
  }
  if (error instanceof XlError) {
    if (error.message !== '') err(`${error.message}\n`);
    return error.status;
  }
  if (error instanceof ToolstackError) {
    err(`${error.message}\n`);
    return FAILURE;
  }
  const { ConfigError } = await import('../config/error.ts');
  if (error instanceof ConfigError) {
    err(`${error.message}\nFailed to parse config: Invalid argument\n`);
    return FAILURE;
  }
  if (error instanceof Unreachable) {
    err(`xl: ${error.message}\n`);
    return FAILURE;
  }
  const { explain } = await import('../explain.ts');
  const { STATUS } = await import('../failure.ts');
  const { UsageError } = await import('../options.ts');
  err(`xl: ${explain(error)}\n`);
  return error instanceof UsageError ? STATUS.usage : FAILURE;
}

/** What was written is on its way before the process ends. */
async function flushed(): Promise<void> {
  for (const stream of [process.stdout, process.stderr])
    if (stream.writableLength > 0) await new Promise((resolve) => stream.write('', resolve));
}

function overview(name: string): string {
  const width = Math.max(...COMMANDS.map((command) => command.name.length));
  const lines = COMMANDS.map((command) => ` ${command.name.padEnd(width + 2)}${command.summary}`);
  return `Usage ${name} [-vfNtT] <subcommand> [args]\n\n${name} subcommands:\n${lines.join('\n')}\n`;
}

function helpOf({ name, synopsis, summary, help }: Command, program: string): string {
  const options = help ? `\nOptions:\n\n${help}\n` : '';
  return `Usage: ${program} [-vfNtT] ${name} ${synopsis}\n\n${summary}.\n${options}\n`;
}
