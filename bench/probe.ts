/** The rows that the probe measures (bench/probe): its list, its runs, natively and in a guest. */
import { spawn, spawnSync } from 'node:child_process';
import { type System, setNice } from './process.ts';
import { type Row, Samples } from './report.ts';
import { type Images, type Peer, PROBE } from './systems.ts';

/** A row as the probe lists it. */
export interface ProbeRow {
  readonly index: number;
  readonly group: string;
  readonly unit: string;
  readonly name: string;
}

export interface ProbeTimes {
  /** How long a row runs before it is timed, and while it is, in ms. */
  readonly warm: number;
  readonly measure: number;
}

/** Longest time for one row, in seconds: a batch takes milliseconds natively. */
const PATIENCE = 120;

export function listRows({ probe }: Images): ProbeRow[] {
  const { stdout, status } = spawnSync(probe, ['list'], { encoding: 'utf8' });
  if (status !== 0) throw new Error('the probe does not run here');
  return stdout
    .trimEnd()
    .split('\n')
    .map((line) => {
      const [index, group, unit, name] = line.split('\t');
      return { index: Number(index), group: group!, unit: unit!, name: name! };
    });
}

/** Collects what the probe says, on all systems: times, and whether all come to the same results. */
export class ProbeResults {
  private readonly samples = new Map<string, Samples>();
  private readonly checksums = new Map<number, Map<string, string>>();
  private readonly rows: readonly ProbeRow[];
  private readonly times: ProbeTimes;
  private readonly say: (text: string) => void;
  /** What went wrong, a line each. */
  readonly errors: string[] = [];

  constructor(rows: readonly ProbeRow[], times: ProbeTimes, say: (text: string) => void) {
    this.rows = rows;
    this.times = times;
    this.say = say;
    for (const { group } of rows) if (!this.samples.has(group)) this.samples.set(group, new Samples(group));
  }

  private note(row: ProbeRow, peer: Peer, label: string, [, nanoseconds, checksum]: RegExpExecArray): void {
    if (checksum === undefined) {
      this.errors.push(`${row.name}: on ${label} the same work gave different results`);
      return;
    }
    const value = Number(nanoseconds) / (row.unit.startsWith('us') ? 1000 : 1);
    this.samples.get(row.group)!.add(row.name, row.unit, peer.system, value, peer.variant);
    this.say(`${label}: ${row.name}: ${value.toPrecision(4)} ${row.unit}`);
    const known = this.checksums.get(row.index) ?? new Map<string, string>();
    this.checksums.set(row.index, known.set(checksum, known.get(checksum) ?? label));
  }

  get rowCount(): number {
    return this.rows.length;
  }

  private get args(): string[] {
    return [`${this.times.warm}`, `${this.times.measure}`, ...this.rows.map(({ index }) => `${index}`)];
  }

  private answer({ index }: ProbeRow): RegExp {
    return new RegExp(`^row ${index} (?:failed|(\\d+\\.\\d+) ([0-9a-f]{16}))\\r?\\n`, 'm');
  }

  /** One run of all rows on this machine. */
  async runNatively(peer: Peer, images: Images, label: string, nice: number): Promise<void> {
    const child = spawn(images.probe, this.args, {
      ...{ stdio: ['ignore', 'pipe', 'inherit'], detached: true },
    });
    if (nice !== 0 && child.pid !== undefined) setNice(child.pid, nice);
    let output = '';
    for await (const text of child.stdout.setEncoding('latin1')) output += text as string;
    for (const row of this.rows) {
      const match = this.answer(row).exec(output);
      if (match) this.note(row, peer, label, match);
      else this.errors.push(`${row.name}: the probe does not run it here`);
    }
  }

  /** One run of all rows in a guest with a shell. What is measured before it fails is kept. */
  async runIn(system: System, peer: Peer, label: string): Promise<void> {
    system.type(`${PROBE} ${this.args.join(' ')} || echo probe: failed\n`);
    for (const row of this.rows) {
      const answer = this.answer(row);
      const match = await system.see(new RegExp(`${answer.source}|^probe: .*`, 'm'), PATIENCE);
      const own = answer.exec(match[0]);
      if (!own) throw new Error(`${row.name}: ${match[0].trim()}`);
      this.note(row, peer, label, own);
    }
    await system.see(/^probe end/m);
  }

  /** The rows; and now results are compared. */
  finish(): Row[] {
    for (const row of this.rows) {
      const all = [...(this.checksums.get(row.index) ?? [])];
      if (all.length < 2) continue;
      const list = all.map(([checksum, label]) => `${checksum} (${label})`).join(', ');
      this.errors.push(`${row.name}: results differ: ${list}`);
    }
    return [...this.samples.values()].flatMap((samples) => samples.result);
  }
}
