/**
 * Borrowed Virtual Time (Duda and Cheriton, SOSP 1999): who runs on one processor, and for how long.
 *
 * Each entry i has an actual virtual time A_i, which grows by m_i (mcu_advance, the inverse of its weight) for every
 * minimum charging unit that it runs, and an effective one, E_i = A_i - W_i while it is warped and A_i otherwise.
 * Whoever has the smallest E runs, and goes on until it is the context-switch allowance C of its own running time
 * ahead of the next one, j:
 *
 *     slice = MCU * (E_j - E_i) / m_i + C
 *
 * Scheduler virtual time (SVT) is the smallest A of those that are runnable. Who wakes starts no earlier than there,
 * so that nobody saves up time by sleeping. All promises follow from this one invariant: the E of a runnable entry
 * is never more than (C / MCU + 1) * m ahead of the smallest one, but for what others did for it (owe).
 *
 * Nothing here reads a clock: time goes by only in {@link Bvt.advance} (the current entry ran) and {@link Bvt.skip}
 * (no entry did). Virtual times are kept small by subtracting from all of them at once (`rebase`), so that
 * neither years of uptime nor a large m_i take their precision.
 */

/** Minimum charging unit, ns. */
export const MCU = 100_000;
/** Context-switch allowance of a machine that was told nothing, ns. */
export const DEFAULT_ALLOWANCE = 5_000_000;
/** Scheduler virtual time at which all virtual times are moved back. */
const REBASE_AT = 2 ** 36;
/** For how much of what others did for an entry it stands behind the rest, ns. */
const OWED_MAX = 100_000_000;
/** MCUs that are counted from one waking on. */
const MANY_UNITS = 2 ** 20;

/** What may be set for an entry. The names are those of Xen's users, `xm bvt`. */
export interface BvtParameters {
  /** m: virtual time for each MCU. Twice as much is half the share. */
  readonly mcuAdvance: number;
  /** Whether it warps at all. */
  readonly warpback: boolean;
  /** W: how far it is ahead while it is warped, virtual time. */
  readonly warpValue: number;
  /** L: for how long it may run warped, ns; 0: without limit. */
  readonly warpLimit: number;
  /** U: once L is used up, the time until it warps again, ns. */
  readonly unwarpTime: number;
}

export const DEFAULT_PARAMETERS: BvtParameters = {
  mcuAdvance: 10,
  warpback: false,
  warpValue: 0,
  warpLimit: 2_000_000_000,
  unwarpTime: 1_000_000_000,
};

/**
 * One that is scheduled. The fields are the scheduler's own; others only read them.
 *
 * Warping is paid from a credit: running warped uses it up, all other time restores it at such a rate that an empty
 * one is full after U. Empty, it has to become full before the entry warps again. So L is a limit for one that
 * blocks now and then as well as for one that never does.
 */
export class BvtEntry<T> {
  readonly item: T;
  parameters: BvtParameters;
  /** A, relative to the scheduler's base. */
  avt: number;
  runnable = false;
  /** It lets the others go first this time. */
  yielded = false;
  /**
   * Since it woke: ns that it ran, and MCUs that it was charged for. Who loses the processor keeps what is left of
   * its last unit; who gives it up loses that.
   */
  ran = 0;
  charged = 0;
  /** ns that others worked for it and that are not charged yet: less than an MCU. */
  owed = 0;
  /** `ran` when it was dispatched, and when that was, as a number in sequence. */
  ranBefore = 0;
  dispatch = 0;
  /** ns that it may still run warped, as of `creditAt`. */
  credit: number;
  creditAt: number;
  /** Its credit was used up and is not full again. */
  exhausted = false;

  constructor(item: T, parameters: BvtParameters, avt: number, now: number) {
    this.item = item;
    this.parameters = parameters;
    this.avt = avt;
    this.credit = parameters.warpLimit;
    this.creditAt = now;
  }

  get warped(): boolean {
    return this.parameters.warpback && !this.exhausted;
  }

  /** E. */
  get evt(): number {
    return this.warped ? this.avt - this.parameters.warpValue : this.avt;
  }
}

export interface BvtOptions {
  /** C, ns. */
  readonly allowance?: number;
  /** ns. */
  readonly mcu?: number;
  readonly rebaseAt?: number;
}

/** Those that are runnable, but for the current one. */
interface Waiters {
  /** Their smallest E, and their smallest A; Infinity: there are none. */
  readonly evt: number;
  readonly avt: number;
  /** ns until one of them warps again; Infinity: none will. */
  readonly change: number;
}

export class Bvt<T> {
  /** C: for how long the current entry may go on when another one is due, ns. */
  allowance: number;
  /** Who was picked and is runnable still. */
  current: BvtEntry<T> | null = null;
  /** Scheduler virtual time, relative to `base`. */
  private svt = 0;
  /** What was subtracted from all virtual times so far. */
  private base = 0;
  /** Time until which everything is accounted for, ns. */
  private at: number;
  private readonly mcu: number;
  private readonly rebaseAt: number;
  private readonly entries = new Set<BvtEntry<T>>();
  private readonly runnable: BvtEntry<T>[] = [];
  /** See {@link waiters}; null: something changed since. */
  private waitersSeen: Waiters | null = null;
  private dispatches = 0;

  constructor(
    now: number,
    { allowance = DEFAULT_ALLOWANCE, mcu = MCU, rebaseAt = REBASE_AT }: BvtOptions = {},
  ) {
    this.at = now;
    this.allowance = allowance;
    this.mcu = mcu;
    this.rebaseAt = rebaseAt;
  }

  /** Scheduler virtual time since the beginning. */
  get virtualTime(): number {
    return this.base + this.svt;
  }

  /** An entry's actual virtual time since the beginning. */
  actual(entry: BvtEntry<T>): number {
    return this.base + entry.avt;
  }

  /** How many are runnable. */
  get load(): number {
    return this.runnable.length;
  }

  /** Those that are runnable, in no order. */
  get waiting(): readonly BvtEntry<T>[] {
    return this.runnable;
  }

  // --- Who takes part ---

  /** A new entry, not runnable. */
  add(item: T, parameters: BvtParameters = DEFAULT_PARAMETERS): BvtEntry<T> {
    const entry = new BvtEntry(item, parameters, this.svt, this.at);
    this.entries.add(entry);
    return entry;
  }

  /**
   * A runnable entry that comes from another processor and is owed what it waited for there.
   * @param actual its actual virtual time since the beginning
   */
  adopt(item: T, parameters: BvtParameters, actual: number): BvtEntry<T> {
    const entry = this.add(item, parameters);
    this.wake(entry);
    this.place(entry, actual);
    return entry;
  }

  /** Sets an entry's actual virtual time. @param actual since the beginning */
  place(entry: BvtEntry<T>, actual: number): void {
    entry.avt = actual - this.base;
    this.waitersSeen = null;
  }

  remove(entry: BvtEntry<T>): void {
    this.sleep(entry);
    this.entries.delete(entry);
  }

  /**
   * Brings scheduler virtual time forward, and with it an entry that is alone and has all that there is.
   * @param time since the beginning
   */
  lift(time: number): void {
    const to = time - this.base;
    if (to <= this.svt || this.runnable.length > 1) return;
    for (const entry of this.runnable) entry.avt = Math.max(entry.avt, to);
    this.svt = to;
    this.waitersSeen = null;
  }

  /** Changes an entry's parameters from now on. What it has of warp credit counts, up to the new limit. */
  set(entry: BvtEntry<T>, parameters: BvtParameters): void {
    this.settleCredit(entry);
    this.waitersSeen = null;
    const { warpLimit } = entry.parameters;
    entry.parameters = parameters;
    if (entry.credit >= warpLimit && !entry.exhausted) entry.credit = parameters.warpLimit;
    entry.credit = Math.min(entry.credit, parameters.warpLimit);
    this.settleCredit(entry);
  }

  /** It is runnable from now on. */
  wake(entry: BvtEntry<T>): void {
    if (entry.runnable) return;
    entry.runnable = true;
    entry.yielded = false;
    entry.avt = Math.max(entry.avt, this.svt);
    entry.ran = 0;
    entry.charged = 0;
    // Of several with the same E it is the first.
    entry.dispatch = 0;
    this.runnable.push(entry);
    this.waitersSeen = null;
  }

  /** It is no longer runnable. */
  sleep(entry: BvtEntry<T>): void {
    if (!entry.runnable) return;
    this.settleCredit(entry);
    entry.runnable = false;
    const last = this.runnable.pop()!;
    if (last !== entry) this.runnable[this.runnable.indexOf(entry)] = last;
    if (this.current === entry) this.current = null;
    this.waitersSeen = null;
  }

  /** It lets every other runnable entry go first, once. */
  yield(entry: BvtEntry<T>): void {
    if (entry.runnable && this.runnable.length > 1) entry.yielded = true;
  }

  // --- Time ---

  /** The current entry, if there is one, ran until now. */
  advance(now: number): void {
    const time = now - this.at;
    if (time <= 0) return;
    const { current } = this;
    if (current !== null) {
      this.settleCredit(current);
      if (current.warped) this.useCredit(current, time);
      this.charge(current, time);
    }
    this.at = now;
    this.follow();
  }

  /**
   * Others worked for an entry: it is charged as if it had run, whether it is runnable or not. Up to a limit, because
   * nobody may have missed that time.
   */
  owe(entry: BvtEntry<T>, time: number): void {
    entry.owed += time;
    const units = Math.floor(entry.owed / this.mcu);
    if (units === 0) return;
    entry.owed -= units * this.mcu;
    const { mcuAdvance } = entry.parameters;
    const most = this.svt + ((this.allowance + OWED_MAX) / this.mcu) * mcuAdvance;
    const avt = Math.max(entry.avt, this.svt) + units * mcuAdvance;
    entry.avt = Math.max(entry.avt, Math.min(avt, most));
    this.waitersSeen = null;
  }

  /** Until now no entry ran. */
  skip(now: number): void {
    if (now > this.at) this.at = now;
  }

  // --- Who runs ---

  /** The one to run now: the current one until its slice is over, then the one with the smallest E. Null: nobody. */
  pick(): T | null {
    const { current } = this;
    if (current !== null && !current.yielded && this.slice > 0) return current.item;
    const next = this.first();
    this.current = next;
    this.waitersSeen = null;
    if (next === null) return null;
    for (const entry of this.runnable) entry.yielded = false;
    next.dispatch = ++this.dispatches;
    next.ranBefore = next.ran;
    return next.item;
  }

  /** For how much longer the current entry runs if nothing else happens, ns; Infinity: there is no other. */
  get slice(): number {
    const { current } = this;
    if (current === null || current.yielded) return 0;
    this.settleCredit(current);
    const waiters = this.waiters();
    let { change } = waiters;
    const { mcuAdvance, warpLimit } = current.parameters;
    // What it was charged for and did not use yet is time that it has.
    const left = current.charged * this.mcu - current.ran;
    let slice = (this.mcu * (waiters.evt - current.evt)) / mcuAdvance + left + this.allowance;
    // Whatever happens, a switch pays only once in an MCU.
    slice = Math.max(slice, this.mcu - (current.ran - current.ranBefore));
    if (current.warped && warpLimit > 0) change = Math.min(change, Math.max(current.credit, 1));
    return Math.ceil(Math.min(slice, change));
  }

  /** Nothing of them changes while the current entry runs, unless one of them may warp. */
  private waiters(): Waiters {
    if (this.waitersSeen !== null) return this.waitersSeen;
    let evt = Number.POSITIVE_INFINITY;
    let avt = Number.POSITIVE_INFINITY;
    let change = Number.POSITIVE_INFINITY;
    let lasts = true;
    for (const entry of this.runnable) {
      if (entry === this.current) continue;
      if (entry.parameters.warpback) {
        lasts = false;
        this.settleCredit(entry);
        // Once it warps again it may be the first.
        if (entry.exhausted) change = Math.min(change, this.untilFull(entry));
      }
      if (entry.evt < evt) evt = entry.evt;
      if (entry.avt < avt) avt = entry.avt;
    }
    const waiters = { evt, avt, change };
    if (lasts) this.waitersSeen = waiters;
    return waiters;
  }

  /** The runnable entry with the smallest E; of several, one that woke, then the one that waited longest. */
  private first(): BvtEntry<T> | null {
    let first: BvtEntry<T> | null = null;
    for (const entry of this.runnable) {
      if (entry.parameters.warpback) this.settleCredit(entry);
      if (entry.yielded && this.runnable.length > 1) continue;
      if (
        first === null ||
        entry.evt < first.evt ||
        (entry.evt === first.evt && entry.dispatch < first.dispatch)
      )
        first = entry;
    }
    // Everybody yielded: the one that did so longest ago.
    return first ?? this.oldest();
  }

  private oldest(): BvtEntry<T> | null {
    return this.runnable.reduce<BvtEntry<T> | null>(
      (oldest, entry) => (oldest === null || entry.dispatch < oldest.dispatch ? entry : oldest),
      null,
    );
  }

  /** It ran: A grows by m for each MCU that has begun. */
  private charge(entry: BvtEntry<T>, time: number): void {
    entry.ran += time;
    const units = Math.ceil(entry.ran / this.mcu);
    entry.avt += (units - entry.charged) * entry.parameters.mcuAdvance;
    entry.charged = units;
    // The same difference, in numbers that stay small.
    if (units <= MANY_UNITS) return;
    const ran = (units - 1) * this.mcu;
    entry.ran -= ran;
    entry.ranBefore -= ran;
    entry.charged = 1;
  }

  /** Scheduler virtual time follows the runnable entries; it never goes back. */
  private follow(): void {
    const least = Math.min(this.waiters().avt, this.current?.avt ?? Number.POSITIVE_INFINITY);
    if (least === Number.POSITIVE_INFINITY || least <= this.svt) return;
    this.svt = least;
    if (least >= this.rebaseAt) this.rebase();
  }

  private rebase(): void {
    const back = Math.floor(this.svt);
    this.base += back;
    this.svt -= back;
    // One that sleeps may be far behind: it will be brought up when it wakes.
    for (const entry of this.entries) entry.avt = Math.max(entry.avt - back, 0);
    this.waitersSeen = null;
  }

  // --- Warp credit ---

  /**
   * Brings the credit up to date for time in which the entry did not run warped. How often that is done makes no
   * difference, as long as the parameters stay: what is asked of all entries leaves out those that do not warp.
   */
  private settleCredit(entry: BvtEntry<T>): void {
    const { warpLimit, unwarpTime } = entry.parameters;
    const time = this.at - entry.creditAt;
    entry.creditAt = this.at;
    if (unwarpTime === 0) entry.credit = warpLimit;
    else if (time > 0) entry.credit = Math.min(warpLimit, entry.credit + (time * warpLimit) / unwarpTime);
    // A credit that is full but for the error of its computation is full.
    if (entry.exhausted && entry.credit >= warpLimit - 1e-3) entry.exhausted = false;
  }

  /** It ran warped for a time that begins with `at`. */
  private useCredit(entry: BvtEntry<T>, time: number): void {
    const { warpLimit, unwarpTime } = entry.parameters;
    entry.creditAt = this.at + time;
    if (warpLimit === 0 || unwarpTime === 0) return;
    entry.credit -= time;
    if (entry.credit > 0) return;
    entry.credit = 0;
    entry.exhausted = true;
  }

  /** ns until an exhausted entry, that does not run warped, warps again. */
  private untilFull(entry: BvtEntry<T>): number {
    const { warpLimit, unwarpTime } = entry.parameters;
    return Math.max(((warpLimit - entry.credit) * unwarpTime) / warpLimit, 1);
  }
}
