/**
 * The paper's experiment in isolation: four equal domains, two of which are measured, one as a build and one as a
 * server. First the other two only compute; then one is a bomb of processes with all of its memory touched, and the
 * other one hogs its disk and its file system, and its console.
 *
 * What the measured ones lose is what those two take beyond their shares. It is counted for the same time of the
 * processor's thread, so that what else the host does is left out; and in rounds that take turns.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type BenchDomain, BenchMachine, makeDomainImages } from './domains.ts';
import { median, type Row } from './report.ts';
import type { TogetherOptions } from './scheduler.ts';

const sleep = (seconds: number) => new Promise<void>((resolve) => setTimeout(resolve, seconds * 1000));

/** MiB of each domain, and of the disk. */
const MEMORY = 128;
const DISK = 64;
/** Seconds for which all run before they are measured. */
const SETTLE = 4;
const ROUNDS = 3;
/** The share of each of four equal domains. */
const EQUAL = 1 / 4;
const LOADS = ['build', 'serve'] as const;

interface Measured {
  /** Of the processor's time, in parts of 1. */
  readonly shares: readonly number[];
  /** Rounds of each load for each second of the processor. */
  readonly rates: readonly number[];
}

async function measureLoads(
  machine: BenchMachine,
  measured: readonly BenchDomain[],
  seconds: number,
): Promise<Measured> {
  const from = Date.now() + SETTLE * 1000;
  const to = from + seconds * 1000;
  const answers = measured.map((domain, index) =>
    domain.run(`neighbour ${LOADS[index]} ${from}000000 ${to}000000`),
  );
  await sleep(SETTLE);
  const look = async () => ({
    list: await machine.toolstack.list(),
    cpu: machine.processorSeconds,
    at: performance.now() / 1000,
  });
  const began = await look();
  await sleep(seconds);
  const ended = await look();
  const used = ended.cpu - began.cpu;
  const counts = await Promise.all(answers);
  const timeOf = ({ list }: typeof began, { domid }: BenchDomain) =>
    list.find((info) => info.domid === domid)!.cpuTime;
  return {
    shares: measured.map((domain) => (timeOf(ended, domain) - timeOf(began, domain)) / (ended.at - began.at)),
    rates: counts.map((text, index) => {
      const match = /count (\d+)/.exec(text);
      if (match === null || Number(match[1]) === 0) throw new Error(`${LOADS[index]}: ${text}`);
      return Number(match[1]) / used;
    }),
  };
}

/** The domains that change their ways: what each runs while it is good, and while it is bad. */
class Antisocial {
  private readonly good: BenchDomain;
  private readonly bad: BenchDomain;
  private readonly machine: BenchMachine;

  private constructor(machine: BenchMachine, good: BenchDomain, bad: BenchDomain) {
    this.machine = machine;
    this.good = good;
    this.bad = bad;
  }

  static async make(machine: BenchMachine, [good, bad]: BenchDomain[], line: string): Promise<Antisocial> {
    await good!.startCounting();
    bad!.type(`${line}\n`);
    await bad!.see(/neighbour ready\r?\n/);
    const made = new Antisocial(machine, good!, bad!);
    await machine.toolstack.pause(bad!.domid);
    return made;
  }

  /** One of its two domains runs. */
  async behave(well: boolean): Promise<void> {
    const { toolstack } = this.machine;
    await toolstack.pause((well ? this.bad : this.good).domid);
    await toolstack.unpause((well ? this.good : this.bad).domid);
  }
}

export async function measureIsolation({ seconds, only, say }: TogetherOptions): Promise<Row[]> {
  const names = LOADS.map((load) => `a ${load === 'build' ? 'build' : 'server'} loses`);
  if (!names.some((name) => only.test(`isolation: ${name}`))) return [];
  const images = await makeDomainImages(['neighbour'], true);
  const machine = await BenchMachine.start(images);
  try {
    const parent = await machine.create({ name: 'one', memory: MEMORY });
    await parent.ready();
    const forks = await machine.fork(parent, 5);
    for (const fork of forks) await fork.run('true');
    const [server, good1, bad1, good2, bad2] = forks as [
      BenchDomain,
      BenchDomain,
      BenchDomain,
      BenchDomain,
      BenchDomain,
    ];
    const disk = join(images.folder, 'disk');
    writeFileSync(disk, new Uint8Array(DISK << 20));
    await bad2.run('modprobe xen-blkfront');
    await machine.toolstack.attachDisk(bad2.domid, `format=raw,vdev=xvda,access=rw,target=${disk}`);
    await bad2.run('until [ -e /dev/xvda ]; do sleep 0.1; done');
    const bomb = await Antisocial.make(machine, [good1, bad1], 'neighbour bomb & while :; do sleep 1; done');
    const hog = await Antisocial.make(
      machine,
      [good2, bad2],
      'yes neighbour ready & neighbour hog /dev/xvda',
    );
    const measured = [parent, server];
    await measureLoads(machine, measured, seconds);
    const losses: number[][] = [[], []];
    const lostTime: number[][] = [[], []];
    const behave = async (well: boolean) => {
      await bomb.behave(well);
      await hog.behave(well);
    };
    await behave(true);
    let before = await measureLoads(machine, measured, seconds);
    for (let round = 0; round < ROUNDS; round++) {
      await behave(false);
      const during = await measureLoads(machine, measured, seconds);
      await behave(true);
      const after = await measureLoads(machine, measured, seconds);
      const part = during.rates.map((rate, index) => {
        const loss = (1 - rate / ((before.rates[index]! + after.rates[index]!) / 2)) * 100;
        losses[index]!.push(loss);
        const share = during.shares[index]!;
        lostTime[index]!.push((1 - share / EQUAL) * 100);
        const rates = [before.rates[index]!, rate, after.rates[index]!].map((each) => each.toFixed(1));
        return `${LOADS[index]} ${rates.join(', ')} a second (${loss.toFixed(1)} % lost), ${(share * 100).toFixed(2)} % of the time`;
      });
      say(`isolation, round ${round + 1} (before, during, after): ${part.join('; ')}`);
      before = after;
    }
    const row = (name: string, unit: string, values: readonly number[]): Row => ({
      ...{ name, group: 'isolation', unit, ours: median(values), native: null, tcg: null, uml: null },
    });
    return names.flatMap((name, index) => [
      row(name, '% of its time', lostTime[index]!),
      row(name, '% of its throughput', losses[index]!),
    ]);
  } finally {
    await machine.end();
  }
}
