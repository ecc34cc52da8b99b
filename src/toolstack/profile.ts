/**
 * Where a machine's time goes: its processors are looked at about every millisecond, from another thread, by the boards
 * on which they note what they are doing (x86/core/activity.ts). They do nothing for it.
 *
 * A sample stands for the time since the one before. A thread that is late with its samples blurs the picture, but
 * all of the time is in it.
 */
import type { Memory } from '../machine/memory.ts';
import {
  ACTIVITY,
  ActivityBoard,
  type ActivitySample,
  DETAIL,
  PHASE,
  type VirtualAddress,
} from '../x86/index.ts';
import { hypercallName } from '../xen/public/xen.ts';

/** Between two samples, ms. */
const INTERVAL = 1;
/** Most places in guests that are told apart. */
const PLACES = 100_000;

/** What a domain's time went to, in the order of the report. */
export const DOMAIN_ACTIVITIES = [
  'interpreter',
  'translated',
  'translation',
  'decoding',
  'tlbMisses',
  'floatingPoint',
  'hypercalls',
  'systemCalls',
  'pageFaults',
  'exceptions',
  'hypervisor',
] as const;
export type DomainActivity = (typeof DOMAIN_ACTIVITIES)[number];

export interface DomainProfile {
  readonly domid: number;
  /** Time for which one of its virtual CPUs was on the processor, s. */
  readonly seconds: number;
  /** Of that, s. */
  readonly activities: Readonly<Record<DomainActivity, number>>;
  /** Of `hypercalls`: by name, s. Those made within a multicall are here under their own names. */
  readonly hypercalls: Readonly<Record<string, number>>;
  /** Where the guest was while its own code ran: the targets of its last jumps, s. */
  readonly places: ReadonlyMap<VirtualAddress, number>;
}

export interface Profile {
  /** From start to stop (or now), s. */
  readonly seconds: number;
  readonly samples: number;
  /** How many there are: all other times are of all of them together. */
  readonly processors: number;
  /** They slept, s. */
  readonly idle: number;
  /** Requests of Domain 0's, scheduling, s. */
  readonly machine: number;
  /** By number. */
  readonly domains: readonly DomainProfile[];
  /** The thread that translates was busy, s; null: there is none, or nobody knows. */
  readonly compiler: number | null;
}

interface Tally {
  readonly activities: Record<DomainActivity, number>;
  readonly hypercalls: Map<number, number>;
  readonly places: Map<VirtualAddress, number>;
}

const KINDS: Readonly<Record<number, DomainActivity>> = {
  [ACTIVITY.hypervisor]: 'hypervisor',
  [ACTIVITY.interpreter]: 'interpreter',
  [ACTIVITY.translated]: 'translated',
  [ACTIVITY.translation]: 'translation',
  [ACTIVITY.hypercall]: 'hypercalls',
  [ACTIVITY.systemCall]: 'systemCalls',
  [ACTIVITY.pageFault]: 'pageFaults',
  [ACTIVITY.exception]: 'exceptions',
};
const DETAILS: Readonly<Record<number, DomainActivity>> = {
  [DETAIL.walk]: 'tlbMisses',
  [DETAIL.decoding]: 'decoding',
  [DETAIL.floatingPoint]: 'floatingPoint',
};

export interface ProfilerOptions {
  /** Milliseconds for which the thread that translates was busy so far; null: nobody knows. */
  readonly compilerBusy?: () => number | null;
}

export class Profiler {
  private readonly boards: readonly ActivityBoard[];
  private readonly compilerBusy: () => number | null;
  private timer: ReturnType<typeof setInterval> | null = null;
  private readonly domains = new Map<number, Tally>();
  private idle = 0;
  private machine = 0;
  private samples = 0;
  private elapsed = 0;
  private last = 0;
  private compilerBefore: number | null = null;
  private compiler: number | null = null;

  /** @param boards linear addresses of the processors' boards (Instruments.activityBoard) */
  constructor(
    memory: Memory,
    boards: readonly number[],
    { compilerBusy = () => null }: ProfilerOptions = {},
  ) {
    this.boards = boards.map((board) => new ActivityBoard(memory, board));
    this.compilerBusy = compilerBusy;
  }

  /** Goes on where it was stopped. */
  start(): void {
    if (this.timer !== null) return;
    this.last = performance.now();
    this.compilerBefore = this.compilerBusy();
    this.timer = setInterval(() => this.take(), INTERVAL);
  }

  stop(): void {
    if (this.timer === null) return;
    clearInterval(this.timer);
    this.timer = null;
    this.take();
  }

  /** Forgets what was seen so far. */
  clear(): void {
    this.domains.clear();
    this.idle = 0;
    this.machine = 0;
    this.samples = 0;
    this.elapsed = 0;
    this.compiler = null;
  }

  private take(): void {
    const now = performance.now();
    const time = (now - this.last) / 1000;
    this.last = now;
    this.elapsed += time;
    this.samples++;
    for (const board of this.boards) this.count(board.sample(), time);
    const busy = this.compilerBusy();
    if (busy !== null && this.compilerBefore !== null)
      this.compiler = (this.compiler ?? 0) + (busy - this.compilerBefore) / 1000;
    this.compilerBefore = busy;
  }

  private count(sample: ActivitySample, time: number): void {
    if (sample.phase !== PHASE.cpu) {
      if (sample.phase === PHASE.machine) this.machine += time;
      else this.idle += time;
      return;
    }
    const { activities, hypercalls, places } = this.tally(sample.owner);
    const inGuest = sample.activity === ACTIVITY.interpreter || sample.activity === ACTIVITY.translated;
    const kind = (inGuest ? DETAILS[sample.detail] : undefined) ?? KINDS[sample.activity] ?? 'hypervisor';
    activities[kind] += time;
    if (kind === 'hypercalls')
      hypercalls.set(sample.hypercall, (hypercalls.get(sample.hypercall) ?? 0) + time);
    if (inGuest && (places.size < PLACES || places.has(sample.place)))
      places.set(sample.place, (places.get(sample.place) ?? 0) + time);
  }

  private tally(domid: number): Tally {
    let tally = this.domains.get(domid);
    if (tally === undefined) {
      const activities = Object.fromEntries(DOMAIN_ACTIVITIES.map((name) => [name, 0]));
      tally = {
        activities: activities as Record<DomainActivity, number>,
        hypercalls: new Map(),
        places: new Map(),
      };
      this.domains.set(domid, tally);
    }
    return tally;
  }

  /** What was seen so far. */
  report(): Profile {
    const sum = (values: Iterable<number>) => [...values].reduce((all, value) => all + value, 0);
    return {
      seconds: this.elapsed,
      samples: this.samples,
      processors: this.boards.length,
      idle: this.idle,
      machine: this.machine,
      domains: [...this.domains]
        .sort(([a], [b]) => a - b)
        .map(([domid, { activities, hypercalls, places }]) => ({
          domid,
          seconds: sum(Object.values(activities)),
          activities: { ...activities },
          hypercalls: Object.fromEntries(
            [...hypercalls]
              .sort(([, a], [, b]) => b - a)
              .map(([number, time]) => [hypercallName(number), time]),
          ),
          places: new Map(places),
        })),
      compiler: this.compiler,
    };
  }
}
