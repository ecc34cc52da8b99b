/** The command line of the daemon. */
import { isIP } from 'node:net';
import { parseArgs } from 'node:util';
import type { MemoryPolicy } from '../../xen/domctl.ts';
import { MAX_PCPUS, maxDomainMemory } from '../machine.ts';
import { parseSize, UsageError } from '../options.ts';

export interface DaemonArguments {
  /** KiB. */
  readonly memory: number | undefined;
  readonly listen: { host: string; port: number } | undefined;
  /** Seconds; 0: never. */
  readonly idleExit: number;
  readonly translate: boolean;
  /** How many processors the machine has. */
  readonly pcpus: number;
  readonly memoryPolicy: MemoryPolicy;
}

/** What {@link parseDaemonArguments} takes, for a person. */
export const DAEMON_OPTIONS_HELP = `
  --memory SIZE          memory for all domains together (as much as the host has, up to 4 GiB)
  --listen ADDRESS:PORT  serves the HTTP interface there, too, to who has the token;
                         the address must be one of this host's own (127.0.0.1, ::1)
  --idle-exit SECONDS    ends when it had neither domains nor clients for so long (0: never)
  --pcpus N              processors of the machine, each a thread of the host (1)
  --overcommit           gives domains more memory than there is, as long as they share enough of it
  --no-page-sharing      leaves pages alone that have the same contents
  --no-translator        interprets everything
`;

const OPTIONS = {
  memory: { type: 'string' },
  listen: { type: 'string' },
  'idle-exit': { type: 'string' },
  pcpus: { type: 'string' },
  overcommit: { type: 'boolean' },
  'no-page-sharing': { type: 'boolean' },
  'no-translator': { type: 'boolean' },
} as const;

/** @throws UsageError */
export function parseDaemonArguments(args: readonly string[]): DaemonArguments {
  const values = parse(args);
  const text = values.pcpus ?? '1';
  const pcpus = /^\d{1,3}$/.test(text) ? Number(text) : 0;
  if (pcpus < 1 || pcpus > MAX_PCPUS)
    throw new UsageError(`--pcpus ${text}: not a number of processors (1 to ${MAX_PCPUS})`);
  const memory = values.memory === undefined ? undefined : parseSize(values.memory);
  const most = maxDomainMemory(pcpus);
  if (memory !== undefined && memory > most)
    throw new UsageError(`--memory ${values.memory}: more than the machine can have (${most >> 10}M)`);
  const idle = values['idle-exit'] ?? '0';
  if (!/^\d{1,9}$/.test(idle)) throw new UsageError(`--idle-exit ${idle}: not a number of seconds`);
  return {
    memory,
    listen: values.listen === undefined ? undefined : address(values.listen),
    idleExit: Number(idle),
    pcpus,
    memoryPolicy: {
      sharing: !(values['no-page-sharing'] ?? false),
      overcommit: values.overcommit ?? false,
    },
    translate: !(values['no-translator'] ?? false),
  };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: OPTIONS, allowPositionals: false, strict: true }).values;
  } catch (error) {
    const [sentence] = (error as Error).message.split(/\.(?:\s|$)|\n/);
    throw new UsageError(sentence!.charAt(0).toLowerCase() + sentence!.slice(1));
  }
}

/** Addresses of the loopback interface only: what is sent is not encrypted. */
function address(text: string): { host: string; port: number } {
  const match = /^\[?([0-9a-fA-F:.]+|localhost)\]?:(\d{1,5})$/.exec(text);
  const host = match?.[1] === 'localhost' ? '127.0.0.1' : match?.[1];
  const port = Number(match?.[2]);
  if (!host || !isIP(host) || port > 65535) throw new UsageError(`--listen ${text}: not an ADDRESS:PORT`);
  if (!/^127\./.test(host) && host !== '::1')
    throw new UsageError(`--listen ${text}: only addresses of this host's own (127.0.0.1, ::1)`);
  return { host, port };
}
