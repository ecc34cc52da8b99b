import { describe, expect, it } from 'vitest';
import { IoScheduler } from './scheduler.ts';

/** A disk that takes a time for each request, and a clock. */
function simulation(concurrency: number, costMs: (bytes: number) => number) {
  let now = 0;
  let events: { at: number; work: () => void }[] = [];
  const after = (milliseconds: number, work: () => void) => {
    events.push({ at: now + milliseconds, work });
  };
  const scheduler = new IoScheduler({ now: () => now, after }, concurrency);
  const request = (bytes: number, done: () => void) => () =>
    new Promise<void>((resolve) => {
      after(costMs(bytes), () => {
        done();
        resolve();
      });
    });
  const run = async (until: number) => {
    for (;;) {
      for (let turn = 0; turn < 10; turn++) await Promise.resolve();
      events.sort((a, b) => a.at - b.at);
      const [next] = events;
      if (!next || next.at > until) break;
      events = events.slice(1);
      now = next.at;
      next.work();
    }
    now = until;
  };
  return { scheduler, request, run, clock: () => now };
}

describe('the disks’ scheduler', () => {
  it('gives domains equal shares, whatever the size and number of their requests', async () => {
    const { scheduler, request, run } = simulation(4, (bytes) => bytes / 100_000);
    const done = [0, 0, 0];
    const sizes = [4096, 65536, 1 << 20];
    sizes.forEach((bytes, domid) => {
      const queues = Array.from({ length: domid + 1 }, () => scheduler.queue(domid));
      const again = (queue: (typeof queues)[0]) => {
        queue.submit(
          bytes,
          request(bytes, () => {
            done[domid]! += bytes;
            again(queue);
          }),
        );
      };
      for (const queue of queues) for (let each = 0; each < 64; each++) again(queue);
    });
    await run(2_000);
    // Requests of 4 KiB pay for being requests: half of what they get is bytes.
    const shares = [done[0]! * 2, done[1]!, done[2]!];
    for (const share of shares) expect(share / shares[2]!).toBeGreaterThan(0.8);
    for (const share of shares) expect(share / shares[2]!).toBeLessThan(1.25);
  });

  it('serves a domain that asks seldom soon', async () => {
    const { scheduler, request, run, clock } = simulation(2, () => 1);
    const busy = scheduler.queue(1);
    for (let each = 0; each < 10_000; each++)
      busy.submit(
        65536,
        request(65536, () => {}),
      );
    await run(100);
    let answered = 0;
    const from = clock();
    scheduler.queue(2).submit(
      4096,
      request(4096, () => {
        answered = clock();
      }),
    );
    await run(200);
    expect(answered - from).toBeLessThan(10);
  });

  it.each([
    [{ bytes: 1 << 20 }, 4096, (1 << 20) / 4096],
    [{ bytes: 1 << 20 }, 1 << 19, 2],
    [{ requests: 50 }, 65536, 50],
    [{ requests: 50, bytes: 1 << 20 }, 65536, 16],
  ])('keeps a device to %j', async (limits, bytes, perSecond) => {
    const { scheduler, request, run } = simulation(16, () => 0.01);
    const limited = scheduler.queue(1, limits);
    const free = scheduler.queue(1);
    let count = 0;
    let others = 0;
    for (let each = 0; each < 10_000; each++) {
      limited.submit(
        bytes,
        request(bytes, () => count++),
      );
      free.submit(
        4096,
        request(4096, () => others++),
      );
    }
    await run(10_000);
    expect(count / 10).toBeGreaterThan(perSecond * 0.9);
    expect(count / 10).toBeLessThan(perSecond * 1.1 + 1);
    expect(others).toBe(10_000);
  });

  it('is not held up by disks that do not answer', async () => {
    const { scheduler, request, run } = simulation(8, (bytes) => (bytes === 1 ? 1e9 : 1));
    for (let domid = 10; domid < 20; domid++) {
      const dead = scheduler.queue(domid);
      for (let each = 0; each < 100; each++)
        dead.submit(
          1,
          request(1, () => {}),
        );
    }
    let count = 0;
    const queue = scheduler.queue(1);
    for (let each = 0; each < 1000; each++)
      queue.submit(
        4096,
        request(4096, () => count++),
      );
    await run(3_000);
    expect(count).toBe(1000);
  });

  it('lets the requests of a device that goes run out, and forgets it', async () => {
    const { scheduler, request, run } = simulation(1, () => 1);
    const queue = scheduler.queue(1, { requests: 1 });
    let count = 0;
    for (let each = 0; each < 10; each++)
      queue.submit(
        512,
        request(512, () => count++),
      );
    scheduler.remove(queue);
    await run(100);
    expect(count).toBe(10);
    const next = scheduler.queue(1);
    next.submit(
      512,
      request(512, () => count++),
    );
    await run(200);
    expect(count).toBe(11);
  });
});
