/**
 * Timers of the hypervisor: a heap by deadline.
 *
 * A timer belongs to something (a vCPU, a watchdog) and lives as long as it; setting it again moves it. So the
 * queue never holds more entries than there are timers, whatever guests ask for.
 */

export class Timer {
  readonly fire: (now: number) => void;
  /** System time in ns at which it fires; Infinity: not set. */
  deadline = Number.POSITIVE_INFINITY;
  /** Place in the heap; -1: not in it. */
  place = -1;

  constructor(fire: (now: number) => void) {
    this.fire = fire;
  }
}

export class TimerQueue {
  private readonly heap: Timer[] = [];

  /** Deadline of the timer that fires next; Infinity if none is set. */
  get next(): number {
    return this.heap.length === 0 ? Number.POSITIVE_INFINITY : this.heap[0]!.deadline;
  }

  set(timer: Timer, deadline: number): void {
    timer.deadline = deadline;
    if (timer.place < 0) {
      timer.place = this.heap.length;
      this.heap.push(timer);
    }
    this.up(timer);
    this.down(timer);
  }

  cancel(timer: Timer): void {
    if (timer.place < 0) return;
    const last = this.heap.pop()!;
    if (last !== timer) {
      this.put(last, timer.place);
      this.up(last);
      this.down(last);
    }
    timer.place = -1;
    timer.deadline = Number.POSITIVE_INFINITY;
  }

  /** Fires all that is due at a time. A timer that sets itself again to a time gone by fires the next time. */
  expire(now: number): void {
    for (let count = this.heap.length; count > 0 && this.next <= now; count--) {
      const timer = this.heap[0]!;
      this.cancel(timer);
      timer.fire(now);
    }
  }

  private put(timer: Timer, place: number): void {
    this.heap[place] = timer;
    timer.place = place;
  }

  private up(timer: Timer): void {
    while (timer.place > 0) {
      const parent = this.heap[(timer.place - 1) >> 1]!;
      if (parent.deadline <= timer.deadline) return;
      const place = parent.place;
      this.put(parent, timer.place);
      this.put(timer, place);
    }
  }

  private down(timer: Timer): void {
    for (;;) {
      const left = this.heap[timer.place * 2 + 1];
      const right = this.heap[timer.place * 2 + 2];
      const child = right && right.deadline < left!.deadline ? right : left;
      if (!child || child.deadline >= timer.deadline) return;
      const place = child.place;
      this.put(child, timer.place);
      this.put(timer, place);
    }
  }
}
