/** For tests: processors scheduled by BVT in simulated time, with tasks that run and sleep as the test says. */
import { Bvt, type BvtEntry, type BvtOptions, type BvtParameters, DEFAULT_PARAMETERS, MCU } from './bvt.ts';
import { planBalance } from './bvt-balance.ts';

export interface TaskSpec {
  readonly parameters?: Partial<BvtParameters>;
  /** ns that it runs before it sleeps; left out: it never sleeps. */
  readonly run?: number;
  /** ns that it sleeps each time. */
  readonly sleep?: number;
  /** ns at which it wakes first. */
  readonly start?: number;
  /** Processors that it may run on; left out: all. */
  readonly pcpus?: readonly number[];
}

export class Task {
  readonly spec: TaskSpec;
  /** Its entry in the queue of the processor that it is on. */
  entry: BvtEntry<Task>;
  pcpu: number;
  /** ns that it ran, altogether and warped. */
  ran = 0;
  warpedFor = 0;
  /** How often it woke, and the longest and the summed time until it then was dispatched. */
  wakes = 0;
  longestWait = 0;
  totalWait = 0;
  /** How often it was moved to another processor. */
  moves = 0;
  /** When it woke, if it was not dispatched since; -1. */
  wokeAt = -1;
  /** ns that are left of its run. */
  left = 0;
  /** When it wakes; Infinity: it is awake. */
  wakeAt: number;

  constructor(spec: TaskSpec, queues: readonly Bvt<Task>[], number: number) {
    this.spec = spec;
    this.wakeAt = spec.start ?? 0;
    this.pcpu = spec.pcpus?.[0] ?? number % queues.length;
    this.entry = queues[this.pcpu]!.add(this, { ...DEFAULT_PARAMETERS, ...spec.parameters });
  }
}

export interface MachineOptions extends BvtOptions {
  readonly pcpus?: number;
  /** ns between two looks at the balance of the processors, and what an entry must be owed to be moved. */
  readonly interval?: number;
  readonly threshold?: number;
}

export class Simulation {
  readonly queues: readonly Bvt<Task>[];
  readonly tasks: readonly Task[];
  now = 0;
  /** Indexes of tasks in the order of their dispatches. */
  readonly trace: number[] = [];
  /** ns for which a processor had nothing to do while a task that it may run waited for another one. */
  wasted = 0;
  private readonly running: (Task | null)[];
  private readonly traced: (Task | null)[];
  private readonly interval: number;
  private readonly threshold: number;
  private nextBalance: number;

  constructor(specs: readonly TaskSpec[], options: MachineOptions = {}) {
    const { pcpus = 1, interval = 10_000_000, threshold = 50_000_000 } = options;
    this.queues = Array.from({ length: pcpus }, () => new Bvt<Task>(0, options));
    this.tasks = specs.map((spec, number) => new Task(spec, this.queues, number));
    this.running = this.queues.map(() => null);
    this.traced = this.queues.map(() => null);
    this.interval = interval;
    this.threshold = threshold;
    this.nextBalance = pcpus > 1 ? 0 : Number.POSITIVE_INFINITY;
  }

  /** The queue of the only processor. */
  get bvt(): Bvt<Task> {
    return this.queues[0]!;
  }

  /** Lets time go by, to `end`. @param look is called after every step, with what happened until then accounted for */
  run(end: number, look: () => void = () => {}): void {
    while (this.now < end) {
      this.wakeUp();
      this.balance();
      this.pick();
      // Whom it became the turn of may free others to move.
      for (let tries = 0; tries < this.queues.length && this.idleForNothing() > 0; tries++) {
        this.balance();
        this.pick();
      }
      let next = Math.min(end, this.nextBalance);
      for (const { wakeAt } of this.tasks) next = Math.min(next, wakeAt);
      this.running.forEach((task, pcpu) => {
        if (task === null) return;
        this.dispatched(task, pcpu);
        next = Math.min(next, this.now + this.queues[pcpu]!.slice, this.now + task.left);
      });
      this.wasted += this.idleForNothing() * (next - this.now);
      this.step(next);
      look();
    }
  }

  private pick(): void {
    this.queues.forEach((bvt, pcpu) => {
      this.running[pcpu] = bvt.pick();
    });
  }

  private wakeUp(): void {
    for (const task of this.tasks) {
      if (task.wakeAt > this.now) continue;
      task.wakeAt = Number.POSITIVE_INFINITY;
      task.left = task.spec.run ?? Number.POSITIVE_INFINITY;
      task.wokeAt = this.now;
      task.wakes++;
      this.queues[task.pcpu]!.wake(task.entry);
    }
  }

  /** At its time, or when a processor has nothing to do. */
  private balance(): void {
    if (this.queues.length === 1) return;
    if (this.now < this.nextBalance && this.idleForNothing() === 0) return;
    this.nextBalance = this.now + this.interval;
    const lists = this.queues.map(({ waiting }) => [...waiting]);
    const views = this.queues.map((bvt, pcpu) => ({
      virtualTime: bvt.virtualTime,
      runnable: lists[pcpu]!.map((entry) => ({
        actual: bvt.actual(entry),
        mcuAdvance: entry.parameters.mcuAdvance,
        running: bvt.current === entry,
        pcpus: entry.item.spec.pcpus ?? null,
      })),
    }));
    const { lifts, moves } = planBalance(views, this.threshold, MCU);
    this.queues.forEach((bvt, pcpu) => {
      bvt.lift(lifts[pcpu]!);
    });
    for (const { from, entry, to } of moves) this.move(lists[from]![entry]!.item, to);
  }

  private move(task: Task, to: number): void {
    const [from, target] = [this.queues[task.pcpu]!, this.queues[to]!];
    const actual = from.actual(task.entry);
    from.remove(task.entry);
    task.entry = target.adopt(task, task.entry.parameters, actual);
    task.pcpu = to;
    task.moves++;
  }

  /** Processors that are idle though others have more tasks than they can run, of which one may run there. */
  private idleForNothing(): number {
    const spare = this.queues.filter(({ load }) => load > 1).flatMap(({ waiting }) => waiting);
    return this.queues.filter(
      ({ load }, pcpu) => load === 0 && spare.some(({ item }) => item.spec.pcpus?.includes(pcpu) ?? true),
    ).length;
  }

  private dispatched(task: Task, pcpu: number): void {
    if (task !== this.traced[pcpu]) this.trace.push(this.tasks.indexOf(task));
    this.traced[pcpu] = task;
    if (task.wokeAt < 0) return;
    const wait = this.now - task.wokeAt;
    task.wokeAt = -1;
    task.totalWait += wait;
    task.longestWait = Math.max(task.longestWait, wait);
  }

  private step(next: number): void {
    const time = next - this.now;
    this.now = next;
    this.queues.forEach((bvt, pcpu) => {
      const task = this.running[pcpu];
      if (task) this.ran(bvt, task, time);
      else bvt.skip(next);
    });
  }

  private ran(bvt: Bvt<Task>, task: Task, time: number): void {
    if (task.entry.warped) task.warpedFor += time;
    bvt.advance(this.now);
    task.ran += time;
    task.left -= time;
    if (task.left > 0) return;
    task.wakeAt = this.now + (task.spec.sleep ?? 0);
    bvt.sleep(task.entry);
    this.traced[task.pcpu] = null;
  }
}
