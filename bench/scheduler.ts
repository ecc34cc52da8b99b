/**
 * The scheduler, as the paper measures it: what many domains that compute get done together, how they share the
 * processor by their weights, and how late one wakes among them.
 *
 * All domains are copies of one that computes. What N of them do is compared with what one does just before and
 * after, for the same time of the processor's thread: so it does not count what else the host does.
 */
import { type BenchDomain, BenchMachine, makeDomainImages } from './domains.ts';
import { median, type Row } from './report.ts';

const sleep = (seconds: number) => new Promise<void>((resolve) => setTimeout(resolve, seconds * 1000));

/** MiB of a domain. */
const MEMORY = 96;
/** Context-switch allowances of the paper, ms. */
const ALLOWANCES = [5, 50];
const COUNTS = [2, 4, 8, 16, 32];
/** Domains that compute while another one wakes. */
const BUSY = 8;
/** How often it wakes, and for how long it sleeps, us. */
const WAKES = 100;
const NAP = 10_000;
/** How far it is ahead when it warps: 20 ms of running (mcu_advance 10 for each 100 us). */
export const WARP = 2000;
/** Seconds for which domains run before they are measured. */
const SETTLE = 2;
const WEIGHTS = [1, 2, 4];
const MCU_ADVANCE = 40;

export interface TogetherOptions {
  /** Seconds of each measurement. */
  readonly seconds: number;
  readonly only: RegExp;
  readonly say: (text: string) => void;
}

/** Rounds of some domains a second, and of all of them for each second of the processor. */
interface Done {
  readonly each: readonly number[];
  readonly perCpuSecond: number;
}

/** Those given compute for some seconds, the others are paused. Each counts in its own time. */
export async function computeTogether(
  machine: BenchMachine,
  all: readonly BenchDomain[],
  working: readonly BenchDomain[],
  seconds: number,
): Promise<Done> {
  const { toolstack } = machine;
  for (const domain of all) {
    if (working.includes(domain)) await toolstack.unpause(domain.domid);
    else await toolstack.pause(domain.domid);
  }
  await sleep(SETTLE);
  const look = async () => ({
    counts: await Promise.all(working.map((domain) => domain.count())),
    cpu: machine.processorSeconds,
    at: performance.now(),
  });
  const before = await look();
  await sleep(seconds);
  const after = await look();
  const each = working.map((_, index) => {
    const [from, to] = [before.counts[index]!, after.counts[index]!];
    return (to.rounds - from.rounds) / ((to.at - from.at) / 1e9);
  });
  const share = (after.cpu - before.cpu) / ((after.at - before.at) / 1000);
  return { each, perCpuSecond: each.reduce((sum, rate) => sum + rate, 0) / share };
}

function row(name: string, unit: string, ours: number): Row {
  return { name, group: 'scheduler', unit, ours, native: null, tcg: null, uml: null };
}

async function throughput(
  machine: BenchMachine,
  all: readonly BenchDomain[],
  { seconds, only, say }: TogetherOptions,
): Promise<Row[]> {
  const rows: Row[] = [];
  const [first] = all as [BenchDomain];
  const alone = async () => (await computeTogether(machine, all, [first], seconds)).perCpuSecond;
  for (const allowance of ALLOWANCES) {
    const names = COUNTS.map((count) => `${count} domains lose, allowance ${allowance} ms`);
    if (!names.some((name) => only.test(`scheduler: ${name}`))) continue;
    await machine.toolstack.setScheduler({ contextSwitchAllowance: allowance * 1000 });
    let before = await alone();
    for (const [index, count] of COUNTS.entries()) {
      if (!only.test(`scheduler: ${names[index]}`)) continue;
      const together = await computeTogether(machine, all, all.slice(0, count), seconds);
      const after = await alone();
      const loss = (1 - together.perCpuSecond / ((before + after) / 2)) * 100;
      before = after;
      const mean = together.each.reduce((sum, rounds) => sum + rounds, 0) / count;
      const spread = Math.max(...together.each.map((rounds) => Math.abs(rounds / mean - 1))) * 100;
      say(
        `${names[index]}: ${loss.toFixed(2)} %; shares differ from the mean by ${spread.toFixed(1)} % at most`,
      );
      rows.push(row(names[index]!, '% of the throughput', loss));
    }
  }
  return rows;
}

async function weights(
  machine: BenchMachine,
  all: readonly BenchDomain[],
  { seconds, only, say }: TogetherOptions,
): Promise<Row[]> {
  const names = WEIGHTS.map((weight) => `share of weight ${weight} of ${WEIGHTS.join(':')}, off by`);
  if (!names.some((name) => only.test(`scheduler: ${name}`))) return [];
  const { toolstack } = machine;
  await toolstack.setScheduler({ contextSwitchAllowance: 5000 });
  const three = all.slice(0, WEIGHTS.length);
  const usual = await toolstack.domainScheduling(three[0]!.domid);
  for (const [index, { domid }] of three.entries())
    await toolstack.setDomainScheduling(domid, { mcuAdvance: MCU_ADVANCE / WEIGHTS[index]! });
  const { each } = await computeTogether(machine, all, three, seconds);
  for (const { domid } of three) await toolstack.setDomainScheduling(domid, { mcuAdvance: usual.mcuAdvance });
  const total = each.reduce((sum, rounds) => sum + rounds, 0);
  const due = WEIGHTS.reduce((sum, weight) => sum + weight, 0);
  say(
    `weights ${WEIGHTS.join(':')}: shares ${each.map((rounds) => ((rounds / total) * due).toFixed(3)).join(':')}`,
  );
  return names.map((name, index) =>
    row(name, '%', Math.abs(((each[index]! / total) * due) / WEIGHTS[index]! - 1) * 100),
  );
}

/** Mean and largest lateness, ms. */
async function wake(domain: BenchDomain): Promise<{ mean: number; most: number }> {
  const [, mean, most] = /wake (\d+) (\d+)/.exec(await domain.run(`wake ${WAKES} ${NAP}`))!;
  return { mean: Number(mean) / 1000, most: Number(most) / 1000 };
}

async function waking(
  machine: BenchMachine,
  all: readonly BenchDomain[],
  sleeper: BenchDomain,
  { only, say }: TogetherOptions,
): Promise<Row[]> {
  const { toolstack } = machine;
  const busy = all.slice(0, BUSY);
  const rows: Row[] = [];
  const measure = async (name: string, working: readonly BenchDomain[], allowance: number) => {
    if (!only.test(`scheduler: ${name}`)) return;
    await toolstack.setScheduler({ contextSwitchAllowance: allowance * 1000 });
    await computeTogether(machine, all, working, 0.1);
    const runs: { mean: number; most: number }[] = [];
    for (let run = 0; run < 3; run++) runs.push(await wake(sleeper));
    const mean = median(runs.map((each) => each.mean))!;
    say(`${name}: ${mean.toFixed(2)} ms, most ${Math.max(...runs.map(({ most }) => most)).toFixed(1)} ms`);
    rows.push(row(name, 'ms', mean));
  };
  await measure('an idle machine wakes one late by', [], 5);
  for (const allowance of ALLOWANCES)
    await measure(`among ${BUSY} that compute, allowance ${allowance} ms`, busy, allowance);
  await toolstack.setDomainScheduling(sleeper.domid, { warpback: true, warpValue: WARP });
  await measure(`among ${BUSY} that compute, warped, allowance 5 ms`, busy, 5);
  return rows;
}

export async function measureScheduler(options: TogetherOptions): Promise<Row[]> {
  const images = await makeDomainImages(['wake']);
  const most = Math.max(...COUNTS);
  const machine = await BenchMachine.start(images);
  try {
    const sleeper = await machine.create({ name: 'sleeper', memory: MEMORY });
    await sleeper.ready();
    // Its programs are read and translated once.
    await wake(sleeper);
    const [first] = await machine.fork(sleeper, 1);
    await first!.run('true');
    await first!.startCounting();
    await sleep(SETTLE);
    const all = [first!, ...(await machine.fork(first!, most - 1, true))];
    return [
      ...(await throughput(machine, all, options)),
      ...(await weights(machine, all, options)),
      ...(await waking(machine, all, sleeper, options)),
    ];
  } finally {
    await machine.end();
  }
}
