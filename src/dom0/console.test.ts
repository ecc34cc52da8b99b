import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Memory } from '../machine/memory.ts';
import { XENCONS_INTERFACE } from '../xen/public/console.ts';
import { ConsoleBackend } from './console.ts';

const PAGE = 0x3000;
const { in: input, inSize, in_cons, in_prod, out, outSize, out_cons, out_prod } = XENCONS_INTERFACE;

function setUp({ start = 0, inputBytes = 4096 } = {}) {
  const memory = Memory.create(1 << 16);
  const field = (offset: number) => memory.read32(PAGE + offset);
  const set = (offset: number, value: number) => memory.write32(PAGE + offset, value >>> 0);
  for (const index of [in_cons, in_prod, out_cons, out_prod]) set(index, start);
  const printed: number[] = [];
  const counts = { notified: 0, room: 0 };
  const backend = new ConsoleBackend(memory, PAGE, {
    onOutput: (bytes) => printed.push(...bytes),
    notify: () => counts.notified++,
    onRoom: () => counts.room++,
    inputBytes,
  });
  /** The guest prints what fits. */
  const print = (bytes: readonly number[]) => {
    let done = 0;
    let producer = field(out_prod);
    while (done < bytes.length && (producer - field(out_cons)) >>> 0 < outSize) {
      memory.u8[PAGE + out + (producer % outSize)] = bytes[done++]!;
      producer = (producer + 1) >>> 0;
    }
    set(out_prod, producer);
    return done;
  };
  /** The guest takes what was typed. */
  const typed = (max = 1e6) => {
    const bytes: number[] = [];
    let consumer = field(in_cons);
    while (bytes.length < max && consumer !== field(in_prod)) {
      bytes.push(memory.u8[PAGE + input + (consumer % inSize)]!);
      consumer = (consumer + 1) >>> 0;
    }
    set(in_cons, consumer);
    return bytes;
  };
  return { memory, backend, printed, counts, print, typed, field, set };
}

const count = (length: number, from = 0) => Array.from({ length }, (_, i) => (from + i) & 0xff);

describe('the console', () => {
  it('carries both directions in order, whoever has his turn, and over the wrap of the indices', () => {
    const turn = fc.record({
      print: fc.nat({ max: 3000 }),
      type: fc.nat({ max: 3000 }),
      take: fc.nat({ max: 1500 }),
      process: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(turn, { maxLength: 30 }), fc.constantFrom(0, 77, 0xfffffc00), (turns, start) => {
        const { backend, printed, print, typed } = setUp({ start });
        const got: number[] = [];
        let [out, put] = [0, 0];
        for (const step of turns) {
          out += print(count(step.print, out));
          put += backend.write(Uint8Array.from(count(step.type, put)));
          if (step.process) backend.process();
          got.push(...typed(step.take));
        }
        for (let i = 0; i < 10; i++) {
          backend.process();
          got.push(...typed());
        }
        expect(printed).toEqual(count(out));
        expect(got).toEqual(count(put));
        expect(backend.pendingInput).toBe(0);
      }),
      { numRuns: Number(process.env['PROPERTY_RUNS'] ?? 100) },
    );
  });

  it('takes no more input than its limit, and says when there is room', () => {
    const { backend, counts, typed } = setUp({ inputBytes: 100 });
    expect(backend.write(Uint8Array.from(count(2000)))).toBe(100);
    expect(backend.write(Uint8Array.from(count(2000)))).toBe(100);
    // The ring itself takes 1024 bytes, the rest waits.
    let taken = 200;
    for (;;) {
      const more = backend.write(Uint8Array.from(count(100)));
      taken += more;
      if (more < 100) break;
    }
    expect(taken).toBe(1024 + 100);
    expect(backend.pendingInput).toBe(taken);
    const before = counts.room;
    typed();
    backend.process();
    expect(counts.room).toBe(before + 1);
    expect(typed().length).toBe(100);
  });

  it('tells the guest of what moved, and only then', () => {
    const { backend, counts, print } = setUp();
    backend.process();
    expect(counts.notified).toBe(0);
    print(count(5));
    backend.process();
    expect(counts.notified).toBe(1);
    backend.write(Uint8Array.of(1));
    expect(counts.notified).toBe(2);
    backend.write(new Uint8Array(0));
    expect(counts.notified).toBe(2);
  });

  it('lets the guest wait while nobody can show its output', () => {
    const { backend, printed, print } = setUp();
    backend.pause();
    expect(print(count(5000))).toBe(outSize);
    backend.process();
    expect(printed).toEqual([]);
    backend.resume();
    expect(printed).toEqual(count(outSize));
  });

  it('stands still with indices that cannot be, and goes on when they are right', () => {
    const { backend, printed, print, set, field } = setUp();
    print(count(3));
    for (const value of [outSize + 1, 0x80000000, 0xffffffff]) {
      set(out_prod, value);
      set(in_prod, value);
      backend.process();
      backend.write(Uint8Array.of(65));
      expect([printed.length, field(in_prod), field(out_cons)]).toEqual([0, value, 0]);
    }
    set(out_prod, 3);
    set(in_prod, 0);
    backend.process();
    expect(printed).toEqual(count(3));
    expect(field(in_prod)).toBe(3);
  });

  it('gives up its turn to a guest that prints without end', () => {
    const { memory, print } = setUp();
    let pieces = 0;
    const backend = new ConsoleBackend(memory, PAGE, {
      onOutput: () => {
        pieces++;
        print(count(10));
      },
      notify: () => {},
    });
    print(count(10));
    expect(backend.process()).toBe(true);
    expect(pieces).toBe(16);
  });

  it('takes the last words, then nothing', () => {
    const { backend, printed, print, memory } = setUp();
    print(count(7));
    backend.close();
    expect(printed).toEqual(count(7));
    print(count(7));
    const before = memory.u8.slice(PAGE, PAGE + 4096);
    backend.process();
    expect(backend.write(Uint8Array.of(1, 2))).toBe(2);
    expect(memory.u8.slice(PAGE, PAGE + 4096)).toEqual(before);
    expect(printed).toEqual(count(7));
  });
});
