import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Frames } from '../../machine/frames.ts';
import { Memory, PAGE_SIZE } from '../../machine/memory.ts';
import { FRAME_RING_FRAMES, FrameRing } from './frame-ring.ts';
import type { Gso } from './offload.ts';
import { PACKET_MAX } from './packet.ts';

function ring() {
  const memory = Memory.create(4 << 20);
  const base = new Frames(memory).allocContiguous(FRAME_RING_FRAMES) * PAGE_SIZE;
  // The producer and the consumer are different objects, on different threads.
  return { memory, producer: new FrameRing(memory, base), consumer: new FrameRing(memory, base) };
}

describe('a ring of frames', () => {
  it('gives back what went in, in order, whoever is ahead', () => {
    const step = fc.oneof(
      fc.record({
        length: fc.oneof(fc.integer({ min: 1, max: 2000 }), fc.integer({ min: 1, max: PACKET_MAX })),
      }),
      fc.constant('take' as const),
      fc.constant('drain' as const),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 300 }), fc.nat(0xffff_ffff), (steps, start) => {
        const { memory, producer, consumer } = ring();
        // Positions count for ever, and wrap around.
        for (const word of [0, 1]) memory.u32[(memoryBase(producer) >>> 2) + word] = (start & ~15) >>> 0;
        const expected: { length: number; mark: number; flags: number; gso: Gso; gsoSize: number }[] = [];
        let mark = 0;
        const take = () => {
          const frame = consumer.next();
          const wanted = expected.shift();
          if (!wanted) {
            expect(frame).toBeNull();
            return false;
          }
          const { mark: byte, ...rest } = wanted;
          expect(frame).toMatchObject(rest);
          expect(memory.u8[frame!.address]).toBe(byte);
          expect(memory.u8[frame!.address + frame!.length - 1]).toBe(byte);
          consumer.release(frame!);
          return true;
        };
        for (const each of steps) {
          if (each === 'take') take();
          else if (each === 'drain') while (take());
          else {
            const address = producer.reserve(each.length);
            if (address === 0) {
              expect(expected.length).toBeGreaterThan(0);
              continue;
            }
            mark = (mark + 1) & 0xff;
            memory.u8.fill(mark, address, address + each.length);
            const offload = { flags: mark & 3, gso: (mark % 3) as Gso, gsoSize: mark };
            producer.commit(address, each.length, offload);
            expected.push({ length: each.length, mark, ...offload });
          }
        }
        while (take());
      }),
      { numRuns: 60 },
    );
  });

  it('wakes who sleeps, once, and only then', () => {
    const { producer, consumer } = ring();
    const none = { flags: 0, gso: 0, gsoSize: 0 } as const;
    const put = () => producer.commit(producer.reserve(60_000), 60_000, none);
    expect(put()).toBe(false);
    expect(consumer.sleep()).toBe(true);
    consumer.release(consumer.next()!);
    expect(consumer.sleep()).toBe(false);
    expect([put(), put()]).toEqual([true, false]);
    while (producer.reserve(60_000) !== 0) put();
    expect(producer.waitForRoom(60_000)).toBe(false);
    const woken: boolean[] = [];
    for (let frame = consumer.next(); frame; frame = consumer.next()) woken.push(consumer.release(frame));
    expect(woken.filter(Boolean)).toHaveLength(1);
    expect(woken[0]).toBe(false);
  });

  it('takes no frame that is too long', () => {
    const { producer } = ring();
    expect(producer.reserve(PACKET_MAX)).not.toBe(0);
    expect(producer.reserve(PACKET_MAX + 1)).toBe(0);
  });
});

function memoryBase(frames: FrameRing): number {
  return (frames as unknown as { word: number }).word * 4;
}
