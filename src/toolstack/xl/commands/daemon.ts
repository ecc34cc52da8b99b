/** xl daemon: the daemon itself. Xen's xl has no such command, as its daemons are the system's. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseDaemonArguments } from '../../daemon/options.ts';
import { findDaemon, startDaemon } from '../../daemon/start.ts';
import { Failure } from '../../failure.ts';
import { type Run, type XlContext, XlError } from '../context.ts';

export const daemon: Run = async (context, args) => {
  const [action = 'status', ...rest] = args.operands;
  switch (action) {
    case 'status':
      return status(context);
    case 'start':
      return start(context, rest);
    case 'stop':
      return stop(context, rest);
    case 'run':
      return run(context, rest);
    default:
      throw new XlError(`daemon ${action}: choose one of status, start, stop, run`, 2);
  }
};

async function status({ place, out }: XlContext): Promise<number> {
  const found = await findDaemon(place);
  if (!found) {
    out('no daemon runs\n');
    return 3;
  }
  const { pid, version, uptime, domains } = await found.daemon();
  const facts = {
    pid,
    version,
    'uptime (s)': Math.floor(uptime),
    domains,
    socket: place.socket,
    xenstored: place.xenstored,
    log: place.log,
  };
  for (const [name, value] of Object.entries(facts)) out(`${name.padEnd(22)} : ${value}\n`);
  return 0;
}

async function start({ place, err }: XlContext, args: readonly string[]): Promise<undefined> {
  parseDaemonArguments(args);
  const found = await findDaemon(place);
  if (found) throw new Failure(`a daemon runs already (process ${(await found.daemon()).pid})`);
  const message = await startDaemon(place, args);
  if ('error' in message) throw new Failure(message.error);
  if (message.notice) err(`xl: ${message.notice}\n`);
}

async function stop({ place }: XlContext, args: readonly string[]): Promise<undefined> {
  const found = await findDaemon(place);
  if (!found) throw new Failure('no daemon runs');
  const { pid } = await found.daemon();
  await found.stopDaemon(args.includes('--force') || args.includes('-f'));
  // It has domains to end and files to put away.
  for (let count = 0; count < 600 && isThere(pid); count++)
    await new Promise((resolve) => setTimeout(resolve, 50));
  if (isThere(pid)) throw new Failure(`the daemon (process ${pid}) does not end; its log is ${place.log}`);
}

function isThere(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** In the foreground, as a service manager wants it. */
async function run(_context: XlContext, args: readonly string[]): Promise<number> {
  parseDaemonArguments(args);
  const program = fileURLToPath(new URL('../../daemon/main.js', import.meta.url));
  const child = spawn(process.execPath, [program, ...args], { stdio: 'inherit' });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (code) => resolve(code ?? 1));
  });
}
