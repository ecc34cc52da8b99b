/** xl top: the domains, again and again, in the columns of xentop(1). */
import type { DiskInfo, DomainInfo, HostInfo, VifInfo } from '../../api/model.ts';
import { needNumber, type Run, type XlContext } from '../context.ts';
import { stateOf } from './list.ts';

interface Sample {
  readonly at: number;
  readonly host: HostInfo;
  readonly domains: readonly DomainInfo[];
  /** What devices of a domain have done, by its number. */
  readonly traffic: ReadonlyMap<number, Traffic>;
}

interface Traffic {
  readonly disks: readonly DiskInfo[];
  readonly vifs: readonly VifInfo[];
}

const NO_TRAFFIC: Traffic = { disks: [], vifs: [] };

const DELAY = 3;
/** Keys that end it: q, Q, Ctrl-C and Escape. */
const QUIT: ReadonlySet<number> = new Set([0x71, 0x51, 0x03, 0x1b]);

export const top: Run = async (context, args) => {
  const delay = Math.max(1, needNumber(args.value('d') ?? String(DELAY), 'delay'));
  const times = args.has('i') ? needNumber(args.value('i')!, 'count') : Number.POSITIVE_INFINITY;
  const { stdin, stdout } = process;
  const batch = args.has('b') || stdout.isTTY !== true;
  let stop = () => {};
  let stopped = false;
  const end = new Promise<void>((resolve) => {
    stop = () => {
      stopped = true;
      resolve();
    };
  });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, stop);
  stdout.on('error', stop);
  const keys = !batch && stdin.isTTY === true;
  if (keys) {
    stdin.setRawMode(true);
    stdin.on('data', (bytes: Buffer) => {
      if (bytes.some((byte) => QUIT.has(byte))) stop();
    });
  }
  // Another screen, without a cursor; and back.
  if (!batch) context.out('\x1b[?1049h\x1b[?25l');
  try {
    let before: Sample | null = null;
    for (let count = 0; count < times && !stopped; count++) {
      const now = await sample(context);
      const table = tableOf(now, before);
      if (batch) context.out(`${table.join('\n')}\n`);
      else show(context, [...summary(now), ...table], stdout.rows || 24, stdout.columns || 80);
      before = now;
      if (count + 1 < times)
        await Promise.race([end, new Promise((resolve) => setTimeout(resolve, delay * 1000))]);
    }
  } finally {
    if (!batch) context.out('\x1b[?25h\x1b[?1049l');
    if (keys) stdin.setRawMode(false);
    stdin.pause();
  }
};

async function sample(context: XlContext): Promise<Sample> {
  const toolstack = await context.toolstack();
  const [host, domains] = await Promise.all([toolstack.host(), toolstack.list()]);
  const traffic = new Map<number, Traffic>();
  for (const { domid, disks, vifs } of domains) {
    // A domain may be gone by now.
    traffic.set(domid, {
      disks: disks > 0 ? await toolstack.disks(domid).catch(() => []) : [],
      vifs: vifs > 0 ? await toolstack.vifs(domid).catch(() => []) : [],
    });
  }
  return { at: Date.now(), host, domains, traffic };
}

function show(context: XlContext, lines: readonly string[], rows: number, columns: number): void {
  const fitting = lines.slice(0, rows - 1).map((line) => line.slice(0, columns));
  // The heading of the table in reverse.
  fitting[3] = `\x1b[7m${(fitting[3] ?? '').padEnd(columns)}\x1b[0m`;
  context.out(`\x1b[H${fitting.map((line) => `${line}\x1b[K`).join('\r\n')}\x1b[J\x1b[${rows};3HQuit: q`);
}

export function summary({ host, domains }: Sample): string[] {
  const count = (condition: (info: DomainInfo) => boolean) => domains.filter(condition).length;
  const crashed = count(({ shutdown }) => shutdown === 'crash');
  const total = host.totalMemory;
  return [
    `xentop - ${new Date().toTimeString().slice(0, 8)}   Xen ${host.xenVersion}`,
    `${domains.length} domains: ${count((it) => it.running)} running, ${count((it) => it.blocked && !it.paused)} blocked, ` +
      `${count((it) => it.paused)} paused, ${crashed} crashed, ${count((it) => it.dying)} dying, ` +
      `${count((it) => it.shutdown !== null) - crashed} shutdown`,
    `Mem: ${total}k total, ${total - host.freeMemory}k used, ${host.freeMemory}k free    ` +
      `CPUs: ${host.processors} @ ${Math.round(host.mhz)}MHz`,
  ];
}

const SECTOR = 512;

type Cell = (info: DomainInfo, now: Sample, before: Sample | null) => string | number;

function ofDisks(value: (disk: DiskInfo) => number): Cell {
  return ({ domid }, { traffic }) => total((traffic.get(domid) ?? NO_TRAFFIC).disks.map(value));
}

function ofVifs(value: (vif: VifInfo) => number): Cell {
  return ({ domid }, { traffic }) => total((traffic.get(domid) ?? NO_TRAFFIC).vifs.map(value));
}

function total(values: readonly number[]): number {
  return Math.floor(values.reduce((sum, value) => sum + value, 0));
}

/** The columns: heading, width, content. */
const COLUMNS: readonly (readonly [heading: string, width: number, cell: Cell])[] = [
  ['NAME', 10, ({ name }) => name.slice(0, 10)],
  ['STATE', 6, stateOf],
  ['CPU(sec)', 10, ({ cpuTime }) => Math.floor(cpuTime)],
  ['CPU(%)', 6, cpuShare],
  ['MEM(k)', 10, ({ memory }) => memory],
  ['MEM(%)', 6, ({ memory }, { host }) => ((memory / host.totalMemory) * 100).toFixed(1)],
  ['MAXMEM(k)', 10, ({ maxMemory }) => maxMemory],
  ['MAXMEM(%)', 9, ({ maxMemory }, { host }) => ((maxMemory / host.totalMemory) * 100).toFixed(1)],
  ['VCPUS', 5, ({ vcpus }) => vcpus],
  ['NETS', 4, ({ vifs }) => vifs],
  ['NETTX(k)', 8, ofVifs(({ txBytes }) => txBytes / 1024)],
  ['NETRX(k)', 8, ofVifs(({ rxBytes }) => rxBytes / 1024)],
  ['VBDS', 4, ({ disks }) => disks],
  // Requests that found no room, which ours all find.
  ['VBD_OO', 8, () => 0],
  ['VBD_RD', 8, ofDisks(({ reads }) => reads)],
  ['VBD_WR', 8, ofDisks(({ writes }) => writes)],
  ['VBD_RSECT', 10, ofDisks(({ bytesRead }) => bytesRead / SECTOR)],
  ['VBD_WSECT', 10, ofDisks(({ bytesWritten }) => bytesWritten / SECTOR)],
  // There are no security labels.
  ['SSID', 4, () => 0],
];

/** Per cent of one processor since the sample before. */
function cpuShare(info: DomainInfo, now: Sample, before: Sample | null): string {
  const then = before?.domains.find(({ domid, uuid }) => domid === info.domid && uuid === info.uuid);
  if (!before || !then || now.at <= before.at) return '0.0';
  return Math.max(0, ((info.cpuTime - then.cpuTime) / ((now.at - before.at) / 1000)) * 100).toFixed(1);
}

export function tableOf(now: Sample, before: Sample | null): string[] {
  const line = (cells: readonly (string | number)[]) =>
    cells.map((cell, index) => String(cell).padStart(COLUMNS[index]![1])).join(' ');
  const rows = [...now.domains].sort((a, b) => a.name.localeCompare(b.name));
  return [
    line(COLUMNS.map(([heading]) => heading)),
    ...rows.map((info) => line(COLUMNS.map(([, , cell]) => cell(info, now, before)))),
  ];
}
