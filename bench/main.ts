/**
 * npm run bench -- soak [--minutes N] [--only REGEX]       (soak.ts; 30 minutes; which loads)
 * npm run bench -- [cpu] [float] [system] [boot] [disk] [network] [server] [options]
 *
 * npm run bench -- [scheduler] [isolation] [attack] [scale] [--seconds N] [--only REGEX] [--json FILE]
 *                  [--domains N] [--booted N]
 *
 * The last ones are about domains among each other (scheduler.ts, isolation.ts, attack.ts, scale.ts), each measurement
 * for so many seconds (10), and go by themselves. --domains and --booted say how many domains there are in `scale`:
 * copies of one that runs, and domains that boot (128; 0: none). All others: measures on this machine, side by side with its peers: in every round each system boots once and does everything,
 * one system after another, and the table shows the medians of the rounds. Without a group: all. `cpu` stands for the
 * floating-point rows too, `disk network` together for those of servers (server.ts: PostgreSQL and nginx, out of an image
 * of Debian that is made first).
 *
 *   --rounds N       3
 *   --only REGEX     only the rows whose "group: name" matches
 *   --systems LIST   of ours, native, tcg, uml and interpreter (ours without the translator); all but the last
 *   --json FILE      the rows as JSON: an array of {name, group, unit, ours, native, tcg, uml}
 *   --warm MS        how long each row runs before it is timed (500), and
 *   --measure MS     while it is (300); disk and network: four times as long, servers: sixteen times
 *   --ramp MS        for disk, network and servers in place of --warm, as fio's ramp_time (10000)
 *   --nice=N         the priority of what is measured, as of nice(1), below 0 to keep others from disturbing (0)
 *   --idle SECONDS   how long an idle domain is watched (20)
 *
 * TCG runs as QEMU's default model of a processor and as the largest one; in each row the better of the two counts.
 * The exit status is 1 if a system failed or came to another result than the others.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, loadavg } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { measureAttacks } from './attack.ts';
import { BOOT_ROWS, BootResults } from './boot.ts';
import { DISK_ROWS, DiskResults } from './disk.ts';
import { makeIoImages } from './io.ts';
import { measureIsolation } from './isolation.ts';
import { LOADS } from './loads.ts';
import { NETWORK_ROWS, NetworkResults } from './network.ts';
import { listRows, ProbeResults } from './probe.ts';
import type { System } from './process.ts';
import { means, type Row, SYSTEMS, type SystemName, table } from './report.ts';
import { measureScale, type ScaleOptions } from './scale.ts';
import { measureScheduler } from './scheduler.ts';
import { SERVER_ROWS, ServerResults } from './server.ts';
import { soak } from './soak.ts';
import { available, type Images, keepsTranslations, makeImages, type Peer, untilShell } from './systems.ts';

const GROUPS = ['cpu', 'float', 'system', 'boot', 'disk', 'network', 'server'] as const;
/** What is about domains among each other. */
const TOGETHER: Readonly<Record<string, (options: ScaleOptions) => Promise<Row[]>>> = {
  scheduler: measureScheduler,
  isolation: measureIsolation,
  attack: measureAttacks,
  scale: measureScale,
};

function fail(message: string, status: number): never {
  process.stderr.write(`bench: ${message}\n`);
  process.exit(status);
}

function number(text: string, option: string, least: number): number {
  const value = Number(text);
  if (!(value >= least)) throw new Error(`--${option} must be a number from ${least} on`);
  return value;
}

function parse() {
  try {
    const { values, positionals } = parseArgs({
      args: process.argv.slice(2),
      options: {
        json: { type: 'string' },
        rounds: { type: 'string', default: '3' },
        only: { type: 'string', default: '' },
        systems: { type: 'string', default: 'ours,native,tcg,uml' },
        nice: { type: 'string', default: '0' },
        idle: { type: 'string', default: '20' },
        warm: { type: 'string', default: '500' },
        measure: { type: 'string', default: '300' },
        ramp: { type: 'string', default: '10000' },
        minutes: { type: 'string', default: '30' },
        seconds: { type: 'string', default: '10' },
        domains: { type: 'string', default: '128' },
        booted: { type: 'string', default: '128' },
      },
      allowPositionals: true,
    });
    const soaks = positionals.length === 1 && positionals[0] === 'soak';
    if (soaks) positionals.pop();
    const together = positionals.filter((name) => Object.hasOwn(TOGETHER, name));
    if (together.length > 0 && together.length < positionals.length)
      throw new Error(`${together.join(', ')}: not together with groups that have peers`);
    const wrong = positionals.find((name) => !GROUPS.some((group) => group === name));
    if (wrong && together.length === 0) {
      const all = [...GROUPS, ...Object.keys(TOGETHER)];
      throw new Error(`no such group: ${wrong} (there are ${all.join(', ')}; soak goes alone)`);
    }
    const groups = new Set<string>(positionals.length > 0 ? positionals : GROUPS);
    if (groups.has('cpu')) groups.add('float');
    if (groups.has('disk') && groups.has('network')) groups.add('server');
    const systems = values.systems.split(',').map((name) => {
      const known = SYSTEMS.find((system) => system === name);
      if (!known) throw new Error(`no such system: ${name} (there are ${SYSTEMS.join(', ')})`);
      return known;
    });
    const rounds = number(values.rounds, 'rounds', 1);
    if (!Number.isInteger(rounds)) throw new Error('--rounds must be a whole number');
    return {
      together,
      seconds: number(values.seconds, 'seconds', 1),
      domains: number(values.domains, 'domains', 0),
      booted: number(values.booted, 'booted', 0),
      soakMinutes: soaks ? Math.ceil(number(values.minutes, 'minutes', 1)) : null,
      groups,
      only: new RegExp(values.only, 'i'),
      systems: new Set<SystemName>(systems),
      json: values.json,
      rounds,
      nice: number(values.nice, 'nice', -20),
      idleSeconds: number(values.idle, 'idle', 1),
      times: { warm: number(values.warm, 'warm', 0), measure: number(values.measure, 'measure', 1) },
      ramp: number(values.ramp, 'ramp', 0),
    };
  } catch (error) {
    return fail((error as Error).message, 2);
  }
}

const options = parse();
const say = (text: string) => process.stderr.write(`${text}\n`);

// What is running ends with this process (process.ts).
for (const [signal, status] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
] as const)
  process.on(signal, () => process.exit(status));

function wanted(group: string, name: string): boolean {
  return options.groups.has(group) && options.only.test(`${group}: ${name}`);
}

/** Boots a system, has something done at its shell, and ends it. */
async function withSystem(
  images: Images,
  peer: Peer,
  translations: string | undefined,
  use: (system: System, started: number, shell: number) => Promise<void>,
): Promise<void> {
  const started = performance.now();
  const system = peer.boot!(images, { translations, nice: options.nice });
  try {
    await use(system, started, await untilShell(system, peer.system));
  } finally {
    await system.end();
  }
}

/** Domains among each other: the rows, and an error of one group does not keep the others from being measured. */
async function measureTogether(groups: readonly string[]): Promise<never> {
  const { seconds, only, json, domains, booted } = options;
  const rows: Row[] = [];
  for (const group of groups) {
    try {
      rows.push(...(await TOGETHER[group]!({ seconds, only, say, domains, booted })));
    } catch (error) {
      say(`bench: ${group}: ${(error as Error).message}`);
      process.exitCode = 1;
    }
  }
  process.stdout.write(table(rows));
  if (json !== undefined) writeFileSync(json, `${JSON.stringify(rows, null, 2)}\n`);
  process.exit();
}

try {
  if (options.together.length > 0) await measureTogether(options.together);
  const images = await makeImages();
  say(`${images.title}, Node ${process.version}`);
  if (options.soakMinutes !== null) {
    const [ours] = available(new Set(['ours'])).peers;
    const loads = LOADS.filter((name) => options.only.test(name));
    if (loads.length === 0) throw new Error(`no load matches (there are ${LOADS.join(', ')})`);
    await soak(images, ours!, { minutes: options.soakMinutes, loads, nice: options.nice }, say);
    process.exit(0);
  }
  const { peers, notes } = available(options.systems);
  const probe = new ProbeResults(
    listRows(images).filter(({ group, name }) => wanted(group, name)),
    options.times,
    say,
  );
  const boot = new BootResults();
  const wantBoot = Object.values(BOOT_ROWS).some((name) => wanted('boot', name));
  const wantIdle = wanted('boot', BOOT_ROWS.idle);
  const wantAgain = wanted('boot', BOOT_ROWS.warm);
  const keeps = keepsTranslations();
  const ioTimes = { warm: options.ramp, measure: options.times.measure * 4 };
  const disk = new DiskResults(
    DISK_ROWS.filter(({ name }) => wanted('disk', name)),
    ioTimes,
    say,
  );
  const network = new NetworkResults(
    NETWORK_ROWS.filter(({ name }) => wanted('network', name)),
    ioTimes,
    say,
  );
  const server = new ServerResults(
    SERVER_ROWS.filter(({ name }) => wanted('server', name)),
    ioTimes,
    say,
  );
  const withIo = disk.rowCount + network.rowCount + server.rowCount > 0;
  const ioImages = withIo ? await makeIoImages(images) : null;
  if (disk.rowCount > 0) notes.push(...disk.notes);
  if (ioImages && server.rowCount > 0) {
    const missing = await server.prepare(ioImages);
    if (missing !== null) notes.push(missing);
  }
  if (keeps && probe.rowCount > 0 && options.rounds > 1)
    notes.push(
      'what we translate in the first round is kept on disk; the others find it, and the medians are theirs',
    );
  const errors: string[] = [];

  const visit = async (peer: Peer, round: number, label: string) => {
    if (ioImages && disk.rowCount > 0) await disk.measure(ioImages, peer, label, options);
    if (ioImages && network.rowCount > 0) await network.measure(ioImages, peer, label, options);
    if (ioImages && server.rowCount > 0) await server.measure(ioImages, peer, label, options);
    if (peer.boot === null) {
      if (probe.rowCount > 0) await probe.runNatively(peer, images, label, options.nice);
      return;
    }
    if (!wantBoot && probe.rowCount === 0) return;
    const own = peer.system === 'ours' || peer.system === 'interpreter';
    const again = wantBoot && wantAgain;
    const measure = async (system: System) => {
      if (probe.rowCount > 0) await probe.runIn(system, peer, label);
    };
    const boots = async (system: System, started: number, shell: number) => {
      if (!wantBoot) return;
      boot.atShell(system, peer, started, shell);
      say(`${label}: at the shell after ${((shell - started) / 1000).toFixed(1)} s`);
      if (again && !own) boot.atShellAgain(system, peer, started, shell);
      if (wantIdle && round === 0) await boot.watchIdle(system, peer, options.idleSeconds);
    };
    if (!own || !keeps) {
      await withSystem(images, peer, undefined, async (system, started, shell) => {
        await boots(system, started, shell);
        await measure(system);
      });
      return;
    }
    if (wantBoot) {
      // A round's first boot is one that finds nothing; the second finds what the first has left.
      const fresh = join(images.folder, `translations-${round}-${peer.system}`);
      mkdirSync(fresh);
      await withSystem(images, peer, fresh, boots);
      if (again)
        await withSystem(images, peer, fresh, async (system, started, shell) => {
          boot.atShellAgain(system, peer, started, shell);
          say(`${label}: at the shell again after ${((shell - started) / 1000).toFixed(1)} s`);
        });
      rmSync(fresh, { recursive: true, force: true });
    }
    if (probe.rowCount === 0) return;
    // What one round has left the next one finds, as on a machine in use.
    const kept = join(images.folder, `translations-${peer.system}`);
    mkdirSync(kept, { recursive: true });
    await withSystem(images, peer, kept, measure);
    if (round + 1 === options.rounds) rmSync(kept, { recursive: true, force: true });
  };

  const busy = loadavg()[0]!;
  if (busy > availableParallelism() / 4)
    notes.push(`this machine was busy when the run began (load ${busy.toFixed(1)}): figures may be off`);
  for (const note of notes) say(note);
  for (let round = 0; round < options.rounds; round++) {
    for (const peer of peers) {
      const label = `${round + 1}/${options.rounds} ${peer.system}${peer.variant && ` (${peer.variant})`}`;
      try {
        await visit(peer, round, label);
      } catch (error) {
        const [first, ...rest] = (error as Error).message.split('\n');
        errors.push(`${label}: ${first}`);
        say([`${label}: ${first}`, ...rest].join('\n'));
      }
    }
  }
  const rows: Row[] = [
    ...probe.finish(),
    ...boot.result.filter(({ group, name }) => wanted(group, name)),
    ...disk.result,
    ...network.result,
    ...server.result,
  ];
  process.stdout.write(`${images.title}, Node ${process.version}. Rates: more is better; all else: less.\n`);
  for (const note of notes) process.stdout.write(`Note: ${note}.\n`);
  process.stdout.write('"vs": how many times better we are; below 1 we are worse.\n\n');
  process.stdout.write(table(rows));
  process.stdout.write(`\n${means(rows, ['cpu', 'float', 'system', 'disk', 'network', 'server'])}`);
  if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(rows, null, 2)}\n`);
  errors.push(...probe.errors);
  for (const error of errors) process.stderr.write(`bench: ${error}\n`);
  if (errors.length > 0) process.exitCode = 1;
} catch (error) {
  fail((error as Error).message, 1);
}
