/** For tests: processors scheduled by BVT in simulated time, with tasks that run and sleep as the test says. */
import { Bvt, type BvtEntry, type BvtOptions, type BvtParameters, DEFAULT_PARAMETERS } from './bvt.ts';

export interface TaskSpec {
  readonly parameters?: Partial<BvtParameters>;
  /** ns that it runs before it sleeps; left out: it never sleeps. */
  readonly run?: number;
  /** ns that it sleeps each time. */
  readonly sleep?: number;
  /** ns at which it wakes first. */
  readonly start?: number;
}

export interface Task {
  readonly spec: TaskSpec;
  readonly entry: BvtEntry<Task>;
  /** ns that it ran, altogether and warped. */
  ran: number;
  warpedFor: number;
  /** When it woke last, and the longest and the summed time until it then was dispatched. */
  wokeAt: number;
  waits: boolean;
  wakes: number;
  longestWait: number;
  totalWait: number;
  /** ns that are left of its run. */
  left: number;
  /** When it wakes; Infinity: it is awake. */
  wakeAt: number;
}

/** One processor. */
export class Simulation {
  readonly bvt: Bvt<Task>;
  readonly tasks: Task[];
  now = 0;
  /** Indexes of tasks in the order of their dispatches. */
  readonly trace: number[] = [];
  private running: Task | null = null;

  constructor(specs: readonly TaskSpec[], options: BvtOptions = {}) {
    this.bvt = new Bvt<Task>(0, options);
    this.tasks = specs.map((spec) => {
      // The entry and its task name each other.
      const task = { spec, ran: 0, warpedFor: 0, wokeAt: 0, waits: false, wakes: 0 } as unknown as Task;
      Object.assign(task, { longestWait: 0, totalWait: 0, left: 0, wakeAt: spec.start ?? 0 });
      Object.assign(task, { entry: this.bvt.add(task, { ...DEFAULT_PARAMETERS, ...spec.parameters }) });
      return task;
    });
  }

  /** Lets time go by, to `end`. @param look is called after every step, with what happened until then accounted for */
  run(end: number, look: () => void = () => {}): void {
    const { bvt } = this;
    while (this.now < end) {
      this.wakeUp();
      const task = bvt.pick();
      if (task !== null) this.dispatched(task);
      this.running = task;
      let next = end;
      for (const { wakeAt } of this.tasks) next = Math.min(next, wakeAt);
      if (task !== null) next = Math.min(next, this.now + bvt.slice, this.now + task.left);
      const time = next - this.now;
      this.now = next;
      if (task === null) bvt.skip(next);
      else this.ran(task, time);
      look();
    }
  }

  private wakeUp(): void {
    for (const task of this.tasks) {
      if (task.wakeAt > this.now) continue;
      task.wakeAt = Number.POSITIVE_INFINITY;
      task.left = task.spec.run ?? Number.POSITIVE_INFINITY;
      task.wokeAt = this.now;
      task.waits = true;
      task.wakes++;
      this.bvt.wake(task.entry);
    }
  }

  private dispatched(task: Task): void {
    if (task !== this.running) this.trace.push(this.tasks.indexOf(task));
    if (!task.waits) return;
    task.waits = false;
    const wait = this.now - task.wokeAt;
    task.totalWait += wait;
    task.longestWait = Math.max(task.longestWait, wait);
  }

  private ran(task: Task, time: number): void {
    if (task.entry.warped) task.warpedFor += time;
    this.bvt.advance(this.now);
    task.ran += time;
    task.left -= time;
    if (task.left > 0) return;
    task.wakeAt = this.now + (task.spec.sleep ?? 0);
    this.bvt.sleep(task.entry);
    this.running = null;
  }
}
