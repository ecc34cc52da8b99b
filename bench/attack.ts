/**
 * Attacks from inside: what a hostile guest kernel can take from its neighbours.
 *
 * On one machine are a domain that computes over memory that it knows every word of, one that sleeps and measures how
 * late it wakes, and one that attacks. What the first two get is compared with what they get beside a domain that
 * only uses its share of the processor. An attacker that ended (by an exception of its own, say) starts anew; so does
 * one that has nothing to say for long. In the end every frame must have come back.
 */
import { fileURLToPath } from 'node:url';
import { readKernel } from '#dist/dom0/builder/image.js';
import { Machine } from '#dist/toolstack/machine.js';
import { nodePcpus } from '#dist/toolstack/node/pcpu.js';
import { type DomainEvents, RunningDomain } from '#dist/toolstack/running-domain.js';
import { ATTACKS, type Beat, buildAttackGuest, readBeats } from './attack-guest.ts';
import { busiestThread } from './busy-thread.ts';
import type { Row } from './report.ts';
import type { TogetherOptions } from './scheduler.ts';

const sleep = (seconds: number) => new Promise<void>((resolve) => setTimeout(resolve, seconds * 1000));

/** The folder of the guest's source, from here and from where this is compiled to. */
const SOURCES = fileURLToPath(
  new URL(import.meta.url.includes('.cache') ? '../../bench/attack' : 'attack', import.meta.url),
);
/** Seconds for which one that only spins is watched, at most. */
const SPIN = 5;
/** MiB of those that measure, of an attacker, and of one that attacks with its memory. */
const SMALL = 16;
const LARGE = 64;
/** Seconds until a domain must have said something. */
const PATIENCE = 30;
/** Seconds of silence after which an attacker starts anew, and that a machine comes to rest. */
const SILENCE = 2;
const REST = 0.5;
/** MiB by which the process may be larger at the end, translations and heaps that were filled once included. */
const GROWTH = 256;

/** A domain of the attack's guest, and what it said. */
class Subject implements DomainEvents {
  beats: Beat[] = [];
  /** Why it ended; null: it runs. */
  ended: string | null = null;
  domain!: RunningDomain;
  private rest = '';
  private heard = performance.now();

  onOutput(): void {}

  onRoom(): void {}

  onLog(text: string): void {
    const all = this.rest + text;
    const end = all.lastIndexOf('\n') + 1;
    this.rest = all.slice(end).slice(-1000);
    const beats = readBeats(all.slice(0, end));
    if (beats.length > 0) this.heard = performance.now();
    this.beats.push(...beats);
  }

  get silentFor(): number {
    return (performance.now() - this.heard) / 1000;
  }
}

/** What was seen while something attacked. Rates are of a second of the processor's own time. */
export interface Observation {
  readonly name: string;
  /** Attacks in a second of the attacker's life, in all its lives. */
  readonly attacks: number;
  /** How often it started anew. */
  readonly lives: number;
  /** Rounds of the one that works, for a second of the host's time, and of the processor's. */
  readonly perSecond: number;
  readonly perCpuSecond: number;
  /** Its share of the processor's time, in parts of 1. */
  readonly share: number;
  /** Words of its memory that were not as it left them. */
  readonly damaged: number;
  /** How late the one that sleeps woke, ms. */
  readonly lateMean: number;
  readonly lateMost: number;
  /** Frames that did not come back. */
  readonly lostFrames: number;
  /** What the process of the machine holds at the end, MiB. */
  readonly residentMiB: number;
}

export class AttackBed {
  private readonly machine: Machine;
  private readonly kernel: Uint8Array;
  private readonly worker = new Subject();
  private readonly sleeper = new Subject();
  private runTime: () => number = () => 0;
  private seeds = 0;

  private constructor(machine: Machine, kernel: Uint8Array) {
    this.machine = machine;
    this.kernel = kernel;
  }

  /** Switches a machine on with those that measure. */
  static async start(): Promise<AttackBed> {
    const machine = await Machine.start((2 * SMALL + LARGE + 32) << 10, nodePcpus());
    const bed = new AttackBed(machine, buildAttackGuest(SOURCES));
    try {
      await bed.boot(bed.worker, 'work', SMALL);
      await bed.boot(bed.sleeper, 'sleep', SMALL);
      await Promise.race([bed.hear(bed.worker), machine.dead]);
      await bed.hear(bed.sleeper);
      bed.runTime = await busiestThread(() => sleep(1));
    } catch (error) {
      await machine.powerOff();
      throw error;
    }
    return bed;
  }

  async end(): Promise<void> {
    await this.machine.powerOff();
  }

  /**
   * Watches for some seconds what a kind of attack does. @param kind of {@link ATTACKS}, or "spin"
   * @throws Error if the machine does not stand it
   */
  async watch(kind: string, seconds: number): Promise<Observation> {
    const { machine, worker, sleeper } = this;
    const before = await this.freeFrames();
    const attacker = await this.attack(kind);
    await Promise.race([sleep(REST), machine.dead]);
    worker.beats = [];
    sleeper.beats = [];
    attacker.reset();
    const began = performance.now();
    const cpu = this.runTime();
    const ran = await this.workerTime();
    const end = began + seconds * 1000;
    while (performance.now() < end) {
      await Promise.race([sleep(0.05), machine.dead]);
      await attacker.keepAlive();
    }
    const cpuSeconds = (this.runTime() - cpu) / 1e9;
    const elapsed = (performance.now() - began) / 1000;
    const share = ((await this.workerTime()) - ran) / elapsed;
    const [first, last] = [worker.beats[0], worker.beats.at(-1)];
    if (!first || !last || first === last) throw new Error(`${kind}: the neighbour was not heard of`);
    const perSecond = ((last.count - first.count) / (last.at - first.at)) * 1e9;
    const [slept, woke] = [sleeper.beats[0], sleeper.beats.at(-1)];
    if (!slept || !woke || slept === woke) throw new Error(`${kind}: the one that sleeps was not heard of`);
    const lateness = sleeper.beats.slice(1);
    const { attacks, lives } = await attacker.end();
    await sleep(REST);
    return {
      ...{ name: kind, attacks: attacks / seconds, lives, share },
      ...{ perSecond, perCpuSecond: (perSecond * elapsed) / cpuSeconds },
      damaged: last.bad,
      lateMean: lateness.reduce((sum, beat) => sum + beat.sum, 0) / (woke.count - slept.count) / 1e6,
      lateMost: Math.max(...lateness.map((beat) => beat.most)) / 1e6,
      lostFrames: before - (await this.freeFrames()),
      residentMiB: process.memoryUsage().rss / 2 ** 20,
    };
  }

  /** Starts an attacker, and again whenever it ends. */
  private async attack(kind: string) {
    const memory = kind === 'pins' ? LARGE : SMALL;
    const fresh = async () => {
      const subject = new Subject();
      await this.boot(subject, `${kind} ${++this.seeds}`, memory);
      return subject;
    };
    let subject = await fresh();
    let attacks = 0;
    let lives = 1;
    const counted = () => (subject.beats.at(-1)?.count ?? 0) - (subject.beats[0]?.count ?? 0);
    return {
      reset: () => {
        subject.beats = [];
      },
      keepAlive: async () => {
        if (subject.ended === null && subject.silentFor < SILENCE) return;
        attacks += counted();
        await subject.domain.destroy();
        subject = await fresh();
        lives++;
      },
      end: async () => {
        attacks += counted();
        await subject.domain.destroy();
        return { attacks, lives };
      },
    };
  }

  private async boot(subject: Subject, cmdline: string, mebibytes: number): Promise<void> {
    const guest = {
      ...{ name: 'attack', kernel: readKernel(this.kernel), ramdisk: null, cmdline },
      ...{ usesEmergencyConsole: true, pages: mebibytes << 8, symbols: null, title: 'attack' },
    };
    subject.domain = await RunningDomain.start(this.machine, guest, subject);
    void subject.domain.ended.then(({ code, crashReason }) => {
      subject.ended = crashReason ?? `code ${code}`;
    });
  }

  /** Waits until a domain says something. @throws Error if it ends, or is silent for too long */
  private async hear(subject: Subject): Promise<void> {
    for (const until = performance.now() + PATIENCE * 1000; subject.beats.length === 0; await sleep(0.02)) {
      if (subject.ended !== null) throw new Error(`the guest ended: ${subject.ended}`);
      if (performance.now() > until) throw new Error('the guest is silent');
    }
  }

  /** For how long the one that works ran so far, seconds. */
  private async workerTime(): Promise<number> {
    return (await this.machine.control.getDomainInfo(this.worker.domain.id)).cpuTimeNs / 1e9;
  }

  private async freeFrames(): Promise<number> {
    return (await this.machine.control.machineInfo()).freePages;
  }
}

/** How much less than beside one that only spins (before and after) the neighbour got, in parts of 1. */
export function loss(seen: Observation, before: Observation, after: Observation): number {
  return 1 - seen.perCpuSecond / ((before.perCpuSecond + after.perCpuSecond) / 2);
}

/** How much less of the processor's time the neighbour got than its half, in parts of 1. */
export function lostTime(seen: Observation): number {
  return 1 - seen.share / 0.5;
}

/** What must never be, whatever is attacked: one line each. */
export function harm({ name, damaged, lostFrames, attacks }: Observation): string[] {
  return [
    ...(damaged > 0 ? [`${name}: ${damaged} words of a neighbour's memory were changed`] : []),
    ...(lostFrames > 0 ? [`${name}: ${lostFrames} frames did not come back`] : []),
    ...(attacks === 0 && name !== 'spin' ? [`${name}: nothing was attacked`] : []),
  ];
}

function describe(seen: Observation, lost: number): string {
  const { name, attacks, lives, lateMean, lateMost, residentMiB } = seen;
  return [
    `${name}: ${attacks.toFixed(0)} attacks a second in ${lives} lives`,
    `the neighbour loses ${(lostTime(seen) * 100).toFixed(1)} % of its time and ${(lost * 100).toFixed(1)} % of its throughput`,
    `another wakes ${lateMean.toFixed(2)} ms late, at most ${lateMost.toFixed(1)}`,
    `${residentMiB.toFixed(0)} MiB`,
  ].join('; ');
}

/** Each kind of attack for some seconds. @throws Error if one did any harm */
export async function measureAttacks({ seconds, only, say }: TogetherOptions): Promise<Row[]> {
  const kinds = ATTACKS.filter((kind) => only.test(`attack: ${kind}`));
  if (kinds.length === 0) return [];
  const bed = await AttackBed.start();
  const rows: Row[] = [];
  const wrong: string[] = [];
  const add = (name: string, unit: string, ours: number) =>
    rows.push({ name, group: 'attack', unit, ours, native: null, tcg: null, uml: null });
  try {
    const spin = () => bed.watch('spin', Math.min(seconds, SPIN));
    await bed.watch('spin', 1);
    let before = await spin();
    const { residentMiB, lateMean } = before;
    for (const kind of kinds) {
      const seen = await bed.watch(kind, seconds);
      const after = await spin();
      const lost = loss(seen, before, after);
      say(describe(seen, lost));
      wrong.push(...harm(seen));
      add(`${kind}: the neighbour loses`, '% of its time', lostTime(seen) * 100);
      add(`${kind}: the neighbour loses`, '% of its throughput', lost * 100);
      add(`${kind}: another one wakes late by`, 'ms', seen.lateMean);
      before = after;
    }
    add('no attack: another one wakes late by', 'ms', lateMean);
    const growth = before.residentMiB - residentMiB;
    add('the host gives more memory, in the end', 'MiB', growth);
    if (growth > GROWTH) wrong.push(`memory: ${growth.toFixed(0)} MiB more in the end`);
  } finally {
    await bed.end();
  }
  if (wrong.length > 0) throw new Error(wrong.join('\n'));
  return rows;
}
