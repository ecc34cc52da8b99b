/** xl console: a domain's console on this terminal. */
import type { RemoteToolstack } from '../../api/remote.ts';
import type { ConsoleConnection } from '../../api/toolstack.ts';
import { Terminal } from '../../node/terminal.ts';
import { needDomain, type Run, XlError } from '../context.ts';

export const console: Run = async (context, args) => {
  const type = args.value('t') ?? 'pv';
  if (type !== 'pv') throw new XlError(`console type ${type} not supported: domains here have a pv console`);
  if ((args.value('n') ?? '0') !== '0') throw new XlError('there is one console a domain, number 0');
  const { domid } = await needDomain(context, args.operands[0]!);
  await (await attachConsole(await context.toolstack(), domid)).over;
};

export interface AttachedConsole {
  /** Settles when the user has left, or the domain is gone. */
  readonly over: Promise<void>;
}

/**
 * Connects this process' terminal (or pipes) to a domain's console. Ctrl-] leaves, and so does the end of the input,
 * as xenconsole(1) has it.
 */
export async function attachConsole(toolstack: RemoteToolstack, domid: number): Promise<AttachedConsole> {
  const terminal = new Terminal(process.stdin, process.stdout);
  let connection: ConsoleConnection | null = null;
  let leave!: () => void;
  const over = new Promise<void>((resolve) => {
    leave = resolve;
  });
  const queue: Uint8Array[] = [];
  let ended = false;
  const pump = () => {
    for (let next = queue[0]; connection && next; next = queue[0]) {
      const taken = connection.type(next);
      if (taken < next.length) {
        queue[0] = next.subarray(taken);
        terminal.pause();
        return;
      }
      queue.shift();
    }
    if (ended && queue.length === 0) leave();
    else terminal.resume();
  };
  connection = await toolstack.console(domid, {
    onOutput: (bytes) => terminal.write(bytes, () => connection?.drained()),
    onEnd: leave,
    onRoom: pump,
  });
  terminal.start({
    onInput: (bytes) => {
      queue.push(bytes);
      pump();
    },
    onEnd: () => {
      ended = true;
      pump();
    },
    onEscape: leave,
    onClosed: leave,
  });
  const done = over.finally(async () => {
    connection?.close();
    if (terminal.interactive) terminal.freshLine();
    terminal.stop();
    process.stdin.unref?.();
  });
  return { over: done };
}
