import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Timer, TimerQueue } from './timers.ts';

describe('TimerQueue', () => {
  it('fires in order, whatever was set, moved and cancelled', () => {
    const step = fc.record({
      timer: fc.nat(9),
      deadline: fc.oneof(fc.nat(100), fc.constant(null)),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const queue = new TimerQueue();
        const fired: number[] = [];
        const timers = Array.from({ length: 10 }, (_, index) => new Timer(() => fired.push(index)));
        const model = new Map<number, number>();
        for (const { timer, deadline } of steps) {
          if (deadline === null) {
            queue.cancel(timers[timer]!);
            model.delete(timer);
          } else {
            queue.set(timers[timer]!, deadline);
            model.set(timer, deadline);
          }
          expect(queue.next).toBe(Math.min(...model.values(), Number.POSITIVE_INFINITY));
        }
        queue.expire(50);
        const due = [...model].filter(([, deadline]) => deadline <= 50);
        expect(new Set(fired)).toEqual(new Set(due.map(([timer]) => timer)));
        const order = fired.map((timer) => model.get(timer)!);
        expect(order).toEqual([...order].sort((a, b) => a - b));
        queue.expire(100);
        expect(fired.length).toBe(model.size);
        expect(queue.next).toBe(Number.POSITIVE_INFINITY);
      }),
    );
  });

  it('does not go round with a timer that sets itself in the past', () => {
    const queue = new TimerQueue();
    let count = 0;
    const timer = new Timer(() => {
      count++;
      queue.set(timer, 0);
    });
    queue.set(timer, 0);
    queue.expire(10);
    expect(count).toBe(1);
    expect(queue.next).toBe(0);
  });
});
