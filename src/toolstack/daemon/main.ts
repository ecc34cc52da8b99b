#!/usr/bin/env node
/**
 * The daemon's program. With a channel to whoever started it (process.send), it tells there that it runs, or why
 * not, and goes on alone; without one it stays in the foreground and writes its log to standard error.
 */
import { constants } from 'node:os';
import { explain } from '../explain.ts';
import { STATUS } from '../failure.ts';
import { SILENT } from '../images/index.ts';
import { nodePcpus } from '../node/pcpu.ts';
import { defaultTranslations } from '../node/translation-store.ts';
import { UsageError } from '../options.ts';
import { version } from '../version.ts';
import { AlreadyRunning, Daemon } from './daemon.ts';
import { parseDaemonArguments } from './options.ts';
import { placeOf } from './place.ts';
import type { StartMessage } from './start.ts';

async function main(args: readonly string[]): Promise<number> {
  const background = process.send !== undefined;
  const tell = (message: StartMessage) => {
    process.send?.(message);
    if (process.connected) process.disconnect();
  };
  process.umask(0o077);
  let daemon: Daemon;
  try {
    const { memory, listen, idleExit, translate, pcpus, memoryPolicy } = parseDaemonArguments(args);
    daemon = await Daemon.start({
      place: placeOf(),
      version: version(),
      startPcpu: nodePcpus({ translate, translations: defaultTranslations() }),
      images: { progress: SILENT },
      ...(memory === undefined ? {} : { memory }),
      ...(listen === undefined ? {} : { listen }),
      idleExit,
      pcpus,
      memoryPolicy,
      ...(background ? {} : { log: (line: string) => process.stderr.write(line) }),
    });
  } catch (error) {
    if (background) tell({ error: explain(error), running: error instanceof AlreadyRunning });
    else process.stderr.write(`xl: ${explain(error)}\n`);
    return error instanceof UsageError ? STATUS.usage : STATUS.failure;
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(
      signal,
      () => void daemon.shutDown({ status: STATUS.signal + constants.signals[signal], reason: signal }),
    );
  }
  // It outlives the terminal that it was started from.
  process.on('SIGHUP', () => {});
  process.on('uncaughtException', (error) => {
    daemon.say(`internal error: ${error.stack}`);
    process.exit(STATUS.crash);
  });
  if (background) tell({ ready: process.pid, notice: daemon.notice });
  else daemon.say('is ready');
  const { status } = await daemon.ended;
  return background && status > STATUS.signal ? 0 : status;
}

process.exit(await main(process.argv.slice(2)));
