/**
 * A hundred domains and more: copies of one that runs, and domains that were each booted from the same configuration.
 *
 * Throughput is what the guests count for the same time of the processor's thread, against what one of them does
 * alone before and after: so it does not count what else the host does. All times are the host's, so they do.
 */
import { createSocket } from 'node:dgram';
import { type BenchDomain, BenchMachine, type DomainImages, makeDomainImages } from './domains.ts';
import { freePort, UNTIL_ADDRESS } from './io.ts';
import { mean, median, type Row } from './report.ts';
import { type TogetherOptions, WARP } from './scheduler.ts';

const sleep = (seconds: number) => new Promise<void>((resolve) => setTimeout(resolve, seconds * 1000));

/** MiB of each domain. */
const MEMORY = 128;
/** Context-switch allowances of the paper, ms. */
const ALLOWANCES = [5, 50];
/** Seconds until what was started runs as it will: what many begin to do at once is new to the processor. */
const SETTLE = 15;
/**
 * Questions to the idle domain, and seconds between two of them, at most: together they have to stay within what is its
 * share of the processor among so many, or it waits for its turn as they do.
 */
const PINGS = 40;
const PAUSE = 2;
const LISTS = 7;
/** Seconds for which the machine is left alone, so that it finds what is equal. */
const QUIET = 30;
/** Domains that are booted before the machine has a reason to look for equal pages. */
const FIRST = 8;
/** Seconds that a boot may take among many others, on a host that has other work. */
const BOOT = 1800;

/** UDP port of the idle domain; ms after which a datagram that has not come back is lost. */
const ANSWER = 7;
const LOST = 30_000;

export interface ScaleOptions extends TogetherOptions {
  /** How many copies work at the same time; how many domains are booted. 0: that part is left out. */
  readonly domains: number;
  readonly booted: number;
}

function row(name: string, unit: string, ours: number): Row {
  return { name, group: 'scale', unit, ours, native: null, tcg: null, uml: null };
}

/** Rounds of all that count, for each second of the processor. */
async function perCpuSecond(
  machine: BenchMachine,
  domains: readonly BenchDomain[],
  seconds: number,
): Promise<number> {
  const cpu = machine.processorSeconds;
  const from = Date.now();
  await sleep(seconds);
  const to = Date.now();
  const used = machine.processorSeconds - cpu;
  let rounds = 0;
  for (const count of await Promise.all(domains.map((domain) => domain.counted(from, to)))) rounds += count;
  return rounds / used;
}

/** MiB of the machine that are in use, and of those, what the hypervisor itself needs. */
async function memory({ toolstack }: BenchMachine): Promise<{ used: number; own: number }> {
  const host = await toolstack.host();
  const [domain0] = await toolstack.list();
  return { used: (host.totalMemory - host.freeMemory) / 1024, own: domain0!.memory / 1024 };
}

/** Milliseconds until something is answered, on average. */
async function roundTrip(ask: (text: string) => Promise<void>): Promise<number> {
  const times: number[] = [];
  for (let number = 0; number < PINGS; number++) {
    await sleep(Math.random() * PAUSE);
    const started = performance.now();
    await ask(`ping ${number}`);
    times.push(performance.now() - started);
  }
  return mean(times);
}

/** A domain that sleeps until it is asked: over the network (guest/answer.c), or on its console. */
class IdleDomain {
  readonly domain: BenchDomain;
  private readonly port: number;

  private constructor(domain: BenchDomain, port: number) {
    this.domain = domain;
    this.port = port;
  }

  static async start(machine: BenchMachine): Promise<IdleDomain> {
    const port = await freePort();
    const config = `vif=[""]\nxenolith_forward="${port}:${ANSWER}/udp"`;
    const domain = await machine.create({ name: 'idle', memory: MEMORY, config });
    await domain.ready();
    await domain.run(UNTIL_ADDRESS);
    domain.type(`answer ${ANSWER} &\n`);
    await domain.see(/answer ready\r?\n/);
    domain.type('cat\n');
    return new IdleDomain(domain, port);
  }

  /** Milliseconds until a datagram comes back, on average. */
  async overNetwork(): Promise<number> {
    const socket = createSocket('udp4');
    let arrived: (text: string) => void = () => {};
    socket.on('message', (bytes) => arrived(bytes.toString()));
    try {
      return await roundTrip(
        (text) =>
          new Promise((resolve, reject) => {
            const lost = setTimeout(() => reject(new Error('no datagram came back')), LOST);
            arrived = (answer) => {
              if (answer !== text) return;
              clearTimeout(lost);
              resolve();
            };
            socket.send(text, this.port, '127.0.0.1');
          }),
      );
    } finally {
      socket.close();
    }
  }

  /** Milliseconds until a line comes back on the console, on average. */
  onConsole(): Promise<number> {
    return roundTrip(async (text) => {
      this.domain.type(`${text}\n`);
      await this.domain.see(new RegExp(`${text}\\r?\\n`));
    });
  }
}

async function forks(
  images: DomainImages,
  { domains: count, seconds, only, say }: ScaleOptions,
): Promise<Row[]> {
  const rows: Row[] = [];
  const add = (name: string, unit: string, value: number) => {
    say(`${name}: ${value.toFixed(2)} ${unit}`);
    if (only.test(`scale: ${name}`)) rows.push(row(name, unit, value));
  };
  const machine = await BenchMachine.start(images);
  const { toolstack } = machine;
  try {
    const first = await machine.create({ name: 'first', memory: MEMORY });
    await first.ready();
    const idle = await IdleDomain.start(machine);
    const quiet = { network: await idle.overNetwork(), console: await idle.onConsole() };
    await first.startCounting();
    await sleep(SETTLE);
    const alone = () => perCpuSecond(machine, [first], seconds);
    await alone();
    let before = await alone();
    await first.stopCounting();

    const unforked = await memory(machine);
    const started = performance.now();
    const forked = await machine.fork(first, count - 1);
    add(`${count - 1} forks take`, 's', (performance.now() - started) / 1000);
    await Promise.all(forked.map((domain) => domain.run('true')));
    add(`${count - 1} forks until all have answered`, 's', (performance.now() - started) / 1000);
    const all = [first, ...forked];
    await Promise.all(all.map((domain) => domain.startCounting()));

    for (const allowance of ALLOWANCES) {
      await toolstack.setScheduler({ contextSwitchAllowance: allowance * 1000 });
      // All have had their turns a few times.
      const round = (allowance * count) / 1000;
      await sleep(SETTLE + round);
      const together = await perCpuSecond(machine, all, seconds + 5 * round);
      if (allowance === ALLOWANCES[0]) {
        add(`an idle one answers a datagram among ${count}, mean`, 'ms', await idle.overNetwork());
        const { domid } = idle.domain;
        const usual = await toolstack.domainScheduling(domid);
        await toolstack.setDomainScheduling(domid, { warpback: true, warpValue: WARP });
        add(`a warped idle one answers a datagram among ${count}, mean`, 'ms', await idle.overNetwork());
        await toolstack.setDomainScheduling(domid, usual);
        add('an idle one answers a datagram on an idle machine, mean', 'ms', quiet.network);
        add(`an idle one’s console answers among ${count}, mean`, 'ms', await idle.onConsole());
        add('an idle one’s console answers on an idle machine, mean', 'ms', quiet.console);
        const lists: number[] = [];
        for (let number = 0; number < LISTS; number++) lists.push((await machine.xl('list')).milliseconds);
        add(`xl list among ${count}`, 'ms', median(lists)!);
        const used = await memory(machine);
        add('memory of a fork', 'MiB', (used.used - unforked.used) / (count - 1));
        add('of it, the hypervisor’s', 'MiB', (used.own - unforked.own) / (count - 1));
      }
      for (const { domid } of all.slice(1)) await toolstack.pause(domid);
      await sleep(1);
      const after = await alone();
      const loss = (1 - together / ((before + after) / 2)) * 100;
      add(`${count} domains lose, allowance ${allowance} ms`, '% of the throughput', loss);
      before = after;
      for (const { domid } of all.slice(1)) await toolstack.unpause(domid);
    }
    return rows;
  } finally {
    await machine.end();
  }
}

async function boots(images: DomainImages, { booted: count, only, say }: ScaleOptions): Promise<Row[]> {
  const rows: Row[] = [];
  const add = (name: string, unit: string, value: number) => {
    say(`${name}: ${value.toFixed(2)} ${unit}`);
    if (only.test(`scale: ${name}`)) rows.push(row(name, unit, value));
  };
  const machine = await BenchMachine.start(images, ['--overcommit']);
  try {
    const empty = await memory(machine);
    const all: BenchDomain[] = [];
    const times: number[] = [];
    const cpu: number[] = [];
    let most = 0;
    let unshared = 0;
    for (let number = 0; number < count; number++) {
      const started = performance.now();
      const processor = machine.processorSeconds;
      const domain = await machine.create({ name: `booted${number}`, memory: MEMORY });
      await domain.ready(BOOT);
      all.push(domain);
      times.push((performance.now() - started) / 1000);
      cpu.push(machine.processorSeconds - processor);
      const { used } = await memory(machine);
      most = Math.max(most, used);
      // There is room yet: nothing but what the builder writes was looked at.
      if (number < FIRST) unshared = (used - empty.used) / (number + 1);
      if (number % 8 === 7)
        say(`${number + 1} booted: ${used.toFixed(0)} MiB in use, ${cpu.at(-1)!.toFixed(1)} s`);
    }
    add('a booted domain before equal pages were found', 'MiB', unshared);
    add('the first boot, of the processor', 's', cpu[0]!);
    add('a further boot, of the processor', 's', median(cpu.slice(1))!);
    add(
      `${count} boots`,
      's',
      times.reduce((sum, time) => sum + time, 0),
    );
    add('most memory in use meanwhile', 'MiB', most - empty.used);
    await sleep(QUIET);
    const { used, own } = await memory(machine);
    const answers = await Promise.all(all.map((domain) => domain.run('uname -s')));
    const wrong = answers.findIndex((answer) => !/^Linux$/m.test(answer));
    if (wrong >= 0) throw new Error(`${all[wrong]!.name} answers ${JSON.stringify(answers[wrong])}`);
    add(`memory of ${count} that were booted`, 'MiB', used - empty.used);
    add('a booted domain', 'MiB', (used - empty.used) / count);
    add('of it, the hypervisor’s', 'MiB', (own - empty.own) / count);
    return rows;
  } finally {
    await machine.end();
  }
}

export async function measureScale(options: ScaleOptions): Promise<Row[]> {
  const images = await makeDomainImages(['answer'], true);
  return [
    ...(options.domains > 1 ? await forks(images, options) : []),
    ...(options.booted > 1 ? await boots(images, options) : []),
  ];
}
