#!/usr/bin/env node
/**
 * The command line: `xenolith [options]`, or `npm start -- [options]` in a clone: one domain on this terminal.
 * `xenolith COMMAND ...` is what `xl COMMAND ...` is.
 */
import { constants } from 'node:os';
import { explain } from './explain.ts';
import { STATUS } from './failure.ts';
import { progressOn, SILENT } from './images/index.ts';
import { nodePcpus } from './node/pcpu.ts';
import { Terminal } from './node/terminal.ts';
import { type BootOptions, parseOptions, USAGE, UsageError } from './options.ts';
import { Session } from './session.ts';
import { version } from './version.ts';
import { isXlCommand } from './xl/table.ts';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;

async function boot(options: BootOptions): Promise<number> {
  const terminal = new Terminal(process.stdin, process.stdout);
  const session = new Session(options, {
    terminal,
    images: { progress: options.quiet ? SILENT : progressOn(process.stderr) },
    startPcpu: nodePcpus(options),
    say: (text) => process.stderr.write(`xenolith: ${text}${terminal.newline}`),
  });
  for (const signal of SIGNALS)
    process.on(signal, () => session.end(STATUS.signal + constants.signals[signal]));
  process.on('SIGUSR1', () => {
    session.statistics().catch(() => {});
  });
  return session.run();
}

async function main(args: readonly string[]): Promise<number> {
  if (isXlCommand(args[0])) return (await import('./xl/xl.ts')).runXl(args, 'xenolith');
  try {
    const options = parseOptions(args);
    switch (options.command) {
      case 'help':
        process.stdout.write(USAGE);
        return 0;
      case 'version':
        process.stdout.write(`xenolith ${version()}\n`);
        return 0;
      case 'boot':
        return await boot(options);
    }
  } catch (error) {
    process.stderr.write(`xenolith: ${explain(error)}\n`);
    if (process.env['XENOLITH_DEBUG']) console.error(error);
    return error instanceof UsageError ? STATUS.usage : STATUS.failure;
  }
}

process.exit(await main(process.argv.slice(2)));
