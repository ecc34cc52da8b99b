import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ForkableDisk } from './forked-disk.ts';
import { type BlockSource, MemorySource, type RandomAccess } from './source.ts';

const SIZE = 300 * 1024;

/** A file that is as slow as one, so that calls overlap. */
class Scratch implements RandomAccess {
  readonly name = 'scratch';
  readonly readonly = false;
  readonly bytes = new Uint8Array(SIZE);
  full = false;
  closed = false;

  async size(): Promise<number> {
    return SIZE;
  }

  async read(offset: number, buffers: readonly Uint8Array[]): Promise<number> {
    await pause();
    let at = offset;
    for (const buffer of buffers) {
      buffer.set(this.bytes.subarray(at, at + buffer.length));
      at += buffer.length;
    }
    return at - offset;
  }

  async write(offset: number, buffers: readonly Uint8Array[]): Promise<void> {
    await pause();
    if (this.full) throw new Error('no space');
    let at = offset;
    for (const buffer of buffers) {
      this.bytes.set(buffer, at);
      at += buffer.length;
    }
  }

  async flush(): Promise<void> {}

  async close(): Promise<void> {
    this.closed = true;
  }
}

const pause = () => new Promise<void>((resolve) => setImmediate(resolve));

/** A source whose calls take a while, and that tells when it is closed. */
function slow(): BlockSource & { closed: boolean } {
  const below = new MemorySource(SIZE);
  return {
    size: SIZE,
    readonly: false,
    discardGranularity: 512,
    closed: false,
    async read(offset, buffers) {
      await pause();
      await below.read(offset, buffers);
    },
    async write(offset, buffers) {
      await pause();
      await below.write(offset, buffers);
    },
    async flush() {},
    discard: (offset, length) => below.discard(offset, length),
    async close() {
      this.closed = true;
    },
  };
}

async function contents(source: BlockSource): Promise<Uint8Array> {
  const bytes = new Uint8Array(SIZE);
  await source.read(0, [bytes.subarray(0, 5000), bytes.subarray(5000)]);
  return bytes;
}

describe('a fork of a disk', () => {
  it('has what was there, and neither sees what the other writes', async () => {
    const step = fc.record({
      disk: fc.nat({ max: 5 }),
      what: fc.constantFrom('write' as const, 'write' as const, 'fork' as const),
      sector: fc.nat({ max: SIZE / 512 - 1 }),
      count: fc.integer({ min: 1, max: 200 }),
      value: fc.integer({ min: 1, max: 255 }),
      wait: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
        const disks: { source: ForkableDisk; model: Uint8Array }[] = [
          { source: new ForkableDisk(slow()), model: new Uint8Array(SIZE) },
        ];
        // The write that is under way, if there is one, and whose it is. Two of one disk would have no order.
        let writing: Promise<void> = Promise.resolve();
        for (const { disk, what, sector, count, value, wait } of steps) {
          const { source, model } = disks[disk % disks.length]!;
          if (what === 'fork') {
            await writing;
            if (disks.length < 4)
              disks.push({ source: new ForkableDisk(source.fork(new Scratch())), model: model.slice() });
            continue;
          }
          const bytes = new Uint8Array(Math.min(count * 512, SIZE - sector * 512)).fill(value);
          await writing;
          model.set(bytes, sector * 512);
          writing = source.write(sector * 512, [bytes]);
          // Others are read while it is under way.
          const other = disks[(disk + 1) % disks.length]!;
          if (wait || other.model === model) continue;
          expect(Buffer.compare(await contents(other.source), other.model)).toBe(0);
        }
        await writing;
        for (const { source, model } of disks) expect(Buffer.compare(await contents(source), model)).toBe(0);
      }),
      { numRuns: 60 },
    );
  });

  it('that could not keep what was there says so, and the original goes on', async () => {
    const disk = new ForkableDisk(slow());
    const scratch = new Scratch();
    const fork = disk.fork(scratch);
    scratch.full = true;
    await disk.write(0, [new Uint8Array(512).fill(7)]);
    expect((await contents(disk))[0]).toBe(7);
    await expect(contents(fork)).rejects.toThrow('could not be kept: no space');
    await expect(fork.write(0, [new Uint8Array(512)])).rejects.toThrow('could not be kept');
  });

  it('keeps what it comes from open until it is closed itself', async () => {
    const source = slow();
    const disk = new ForkableDisk(source);
    const scratch = new Scratch();
    const fork = disk.fork(scratch);
    await disk.close();
    expect(source.closed).toBe(false);
    expect(await contents(fork)).toEqual(new Uint8Array(SIZE));
    await fork.close();
    expect([source.closed, scratch.closed]).toEqual([true, true]);
  });
});
