/**
 * Which disk request goes to the host next. Domains have their turns one after the other; a turn is worth a number of
 * bytes, so that a domain with large requests gets no more than one with small ones (deficit round robin). A device
 * with a limit waits when it has used up what it may (a token bucket each for bytes and requests).
 *
 * The host gets a number of requests at a time. One that takes long (a server that does not answer) no longer counts
 * among them, or a few such would be in everybody's way; it counts among its own domain's still, which are as many.
 */

/** Bytes of a domain's turn; what it did not use is kept while it has requests. */
const QUANTUM = 256 * 1024;
/** What a request costs beside its bytes. */
const REQUEST_COST = 4096;
/** A request that takes longer does not count among those at the host, ms. */
const SLOW_MS = 100;
/** For how long a device may save up what its limit gives, ms. */
const BURST_MS = 100;

export interface SchedulerHost {
  /** Milliseconds. Never goes back. */
  now(): number;
  /** Calls back once after so many milliseconds. */
  after(milliseconds: number, work: () => void): void;
}

/** Per second; left out: no limit. */
export interface DiskLimits {
  readonly bytes?: number;
  readonly requests?: number;
}

interface Job {
  readonly domid: number;
  readonly bytes: number;
  /** Never rejects. */
  readonly run: () => Promise<void>;
}

/** A request at the host. */
interface Started {
  readonly since: number;
  slow: boolean;
}

/** One device's requests, in order. */
export class DiskQueue {
  readonly domid: number;
  readonly jobs: Job[] = [];
  private readonly scheduler: IoScheduler;
  private readonly buckets: Bucket[] = [];

  constructor(scheduler: IoScheduler, domid: number, { bytes, requests }: DiskLimits) {
    this.scheduler = scheduler;
    this.domid = domid;
    if (bytes !== undefined) this.buckets.push(new Bucket(bytes, ({ bytes: cost }) => cost));
    if (requests !== undefined) this.buckets.push(new Bucket(requests, () => 1));
  }

  /** @param run never rejects */
  submit(bytes: number, run: () => Promise<void>): void {
    this.jobs.push({ domid: this.domid, bytes, run });
    this.scheduler.pump();
  }

  /** Starts all that wait, whatever the limits: they know that they are not wanted any more. */
  startAll(): void {
    this.scheduler.startAll(this);
  }

  /** Milliseconds until its first request may go. */
  wait(now: number): number {
    let wait = 0;
    for (const bucket of this.buckets) wait = Math.max(wait, bucket.wait(now));
    return wait;
  }

  take(): Job {
    const job = this.jobs.shift()!;
    for (const bucket of this.buckets) bucket.take(job);
    return job;
  }
}

/** Tokens come at a rate. A request may go while there are any, and may leave a debt: so none is too large. */
class Bucket {
  private readonly rate: number;
  private readonly costOf: (job: Job) => number;
  private tokens: number;
  private at = 0;

  constructor(rate: number, costOf: (job: Job) => number) {
    this.rate = rate / 1000;
    this.costOf = costOf;
    this.tokens = this.rate * BURST_MS;
  }

  wait(now: number): number {
    this.tokens = Math.min(this.tokens + (now - this.at) * this.rate, Math.max(this.rate * BURST_MS, 1));
    this.at = now;
    return this.tokens > 0 ? 0 : Math.max(-this.tokens / this.rate, 1);
  }

  take(job: Job): void {
    this.tokens -= this.costOf(job);
  }
}

interface Turn {
  readonly queues: DiskQueue[];
  deficit: number;
  /** Which of its devices comes next. */
  next: number;
}

export class IoScheduler {
  private readonly host: SchedulerHost;
  private readonly concurrency: number;
  private readonly domains = new Map<number, Turn>();
  /** Domains, the next one first. */
  private order: number[] = [];
  /** At the host, the oldest first. */
  private readonly started = new Set<Started>();
  /** Those of them that count. */
  private running = 0;
  private readonly runningOf = new Map<number, number>();
  private wakeAt = Number.POSITIVE_INFINITY;

  /** @param concurrency requests that the host gets at a time */
  constructor(host: SchedulerHost, concurrency = 16) {
    this.host = host;
    this.concurrency = concurrency;
  }

  /** @param limits of the device */
  queue(domid: number, limits: DiskLimits = {}): DiskQueue {
    const queue = new DiskQueue(this, domid, limits);
    const turn = this.domains.get(domid);
    if (turn) turn.queues.push(queue);
    else {
      this.domains.set(domid, { queues: [queue], deficit: 0, next: 0 });
      this.order.push(domid);
    }
    return queue;
  }

  /** The device is gone. What it had submitted still runs. */
  remove(queue: DiskQueue): void {
    const turn = this.domains.get(queue.domid);
    if (!turn) return;
    this.startAll(queue);
    const at = turn.queues.indexOf(queue);
    if (at >= 0) turn.queues.splice(at, 1);
    if (turn.queues.length > 0) return;
    this.domains.delete(queue.domid);
    this.order = this.order.filter((domid) => domid !== queue.domid);
  }

  startAll(queue: DiskQueue): void {
    while (queue.jobs.length > 0) this.start(queue.jobs.shift()!);
  }

  /** Starts what may start. */
  pump(): void {
    const now = this.host.now();
    this.findSlow(now);
    let idle = 0;
    let soonest = Number.POSITIVE_INFINITY;
    while (this.running < this.concurrency && idle < this.order.length) {
      const [domid] = this.order as [number];
      const turn = this.domains.get(domid)!;
      const found = this.ready(turn, now);
      if (typeof found === 'number') {
        // Nobody saves up turns while there is nothing to use them for.
        turn.deficit = 0;
        soonest = Math.min(soonest, found);
        idle++;
        this.rotate();
        continue;
      }
      idle = 0;
      if (turn.deficit <= 0) {
        turn.deficit += QUANTUM;
        if (turn.deficit <= 0) {
          this.rotate();
          continue;
        }
      }
      const job = found.take();
      turn.deficit -= job.bytes + REQUEST_COST;
      if (turn.deficit <= 0) this.rotate();
      this.start(job);
    }
    if (this.running >= this.concurrency) {
      for (const { since, slow } of this.started) {
        if (slow) continue;
        soonest = Math.min(soonest, since + SLOW_MS - now);
        break;
      }
    }
    if (soonest < Number.POSITIVE_INFINITY) this.wake(now + soonest);
  }

  private findSlow(now: number): void {
    for (const started of this.started) {
      if (started.slow) continue;
      if (now - started.since < SLOW_MS) return;
      started.slow = true;
      this.running--;
    }
  }

  /** The next of a domain's devices that may go; otherwise ms until one may (Infinity: nothing is waiting). */
  private ready(turn: Turn, now: number): DiskQueue | number {
    let soonest = Number.POSITIVE_INFINITY;
    if ((this.runningOf.get(turn.queues[0]!.domid) ?? 0) >= this.concurrency) return soonest;
    for (let tried = 0; tried < turn.queues.length; tried++) {
      const queue = turn.queues[turn.next % turn.queues.length]!;
      turn.next = (turn.next + 1) % turn.queues.length;
      if (queue.jobs.length === 0) continue;
      const wait = queue.wait(now);
      if (wait === 0) return queue;
      soonest = Math.min(soonest, wait);
    }
    return soonest;
  }

  private rotate(): void {
    this.order.push(this.order.shift()!);
  }

  private start(job: Job): void {
    const { domid } = job;
    const started: Started = { since: this.host.now(), slow: false };
    this.started.add(started);
    this.running++;
    this.runningOf.set(domid, (this.runningOf.get(domid) ?? 0) + 1);
    void job.run().then(() => {
      this.started.delete(started);
      if (!started.slow) this.running--;
      const left = this.runningOf.get(domid)! - 1;
      if (left === 0) this.runningOf.delete(domid);
      else this.runningOf.set(domid, left);
      this.pump();
    });
  }

  private wake(at: number): void {
    if (at >= this.wakeAt) return;
    this.wakeAt = at;
    this.host.after(Math.max(at - this.host.now(), 1), () => {
      this.wakeAt = Number.POSITIVE_INFINITY;
      this.pump();
    });
  }
}
