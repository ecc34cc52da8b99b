import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BLKIF_OP, BLKIF_RSP, SECTOR_SIZE as SECTOR } from '../../xen/public/io/blkif.ts';
import { grantInUse } from '../backend/testing.ts';
import { DirectDisk } from './direct.ts';
import { ENTRY, RING_REF, setUp, TestFiles } from './testing.ts';

const SECTORS = 256;
const MS = 1_000_000;

function withFile(options: Parameters<typeof setUp>[0] = {}) {
  const files = new TestFiles(SECTORS * SECTOR);
  return { files, ...setUp({ sectors: SECTORS, files, ...options }) };
}

/** At page 20, for an indirect request of 128 KiB. */
function tableOf32Pages(front: ReturnType<typeof setUp>['front']): void {
  const table = front.page(20, true);
  const view = new DataView(table.buffer, table.byteOffset, 4096);
  for (let index = 0; index < 32; index++) {
    view.setUint32(index * 8, 30, true);
    table[index * 8 + 5] = 7;
  }
  front.page(30);
}

const statuses = (answers: readonly { id: bigint; status: number }[]) =>
  answers.map(({ id, status }) => [Number(id), status]);

describe('a disk that is a file', () => {
  it('is read and written at once, without Domain 0’s thread', async () => {
    const { front, source, files, guest } = withFile();
    await front.connect();
    front.page(8, true).fill(0x11);
    front.page(9, true).fill(0x22);
    front.request(0x1_2345_6789, BLKIF_OP.WRITE, 10, [
      [8, 6, 7],
      [9, 0, 0],
    ]);
    front.setIndex(0, 1);
    guest.domain.events.send(front.port);
    // Nothing had to settle: the answer came before the signal had been sent.
    expect(front.answers()).toEqual([{ id: 0x1_2345_6789n, operation: BLKIF_OP.WRITE, status: 0 }]);
    expect([9, 10, 11, 12, 13].map((sector) => files.contents[sector * SECTOR])).toEqual([
      ...[0, 0x11, 0x11, 0x22, 0],
    ]);
    const page = front.page(10);
    front.request(2, BLKIF_OP.READ, 11, [[10, 1, 2]]);
    await front.kick();
    expect(statuses(front.answers())).toEqual([[2, 0]]);
    expect([0, 512, 1024, 1536].map((at) => page[at])).toEqual([0, 0x11, 0x22, 0]);
    expect(source.log).toEqual([]);
    for (const ref of [8, 9, 10]) expect(grantInUse(guest, ref)).toBe(false);
  });

  it('is flushed at once too, and discarded by Domain 0’s thread', async () => {
    const { front, source, files } = withFile();
    await front.connect();
    front.page(8);
    front.request(1, BLKIF_OP.WRITE, 0, [[8, 0, 7]]);
    front.request(2, BLKIF_OP.FLUSH_DISKCACHE, 0, []);
    front.discard(3, 0, 8);
    // With data it is a barrier.
    front.request(4, BLKIF_OP.FLUSH_DISKCACHE, 0, [[8, 0, 0]]);
    await front.kick();
    expect(statuses(front.answers())).toEqual([
      [1, 0],
      [2, 0],
      [3, 0],
      [4, 0],
    ]);
    expect(files.calls).toEqual(['write 7 at 0', 'flush 7']);
    const ended = source.log.filter((text) => text.startsWith('end'));
    expect(ended).toEqual(['end discard 0', 'end flush', 'end write 0', 'end flush']);
  });

  it('is flushed by Domain 0’s thread if there is much to be written out', async () => {
    const { front, source, files } = withFile();
    await front.connect();
    tableOf32Pages(front);
    // 128 KiB each.
    for (let id = 0; id < 9; id++) front.indirect(id, BLKIF_OP.WRITE, 0, 32, [20]);
    front.request(9, BLKIF_OP.FLUSH_DISKCACHE, 0, []);
    front.request(10, BLKIF_OP.FLUSH_DISKCACHE, 0, []);
    await front.kick();
    expect(front.answers()).toHaveLength(11);
    expect(source.log.filter((text) => text.startsWith('end'))).toEqual(['end flush']);
    expect(files.calls.filter((text) => text.startsWith('flush'))).toHaveLength(1);
  });

  it('that cannot be flushed is never said to be durable again', async () => {
    const errors: unknown[] = [];
    const { front, files, source } = withFile({ onError: (error) => errors.push(error) });
    await front.connect();
    front.page(8);
    files.failing = true;
    front.request(1, BLKIF_OP.FLUSH_DISKCACHE, 0, []);
    await front.kick();
    files.failing = false;
    front.request(2, BLKIF_OP.WRITE, 0, [[8, 0, 0]]);
    front.request(3, BLKIF_OP.FLUSH_DISKCACHE, 0, []);
    front.request(4, BLKIF_OP.WRITE_BARRIER, 0, [[8, 0, 0]]);
    await front.kick();
    expect(statuses(front.answers())).toEqual([
      [1, BLKIF_RSP.ERROR],
      [2, BLKIF_RSP.OKAY],
      [3, BLKIF_RSP.ERROR],
      [4, BLKIF_RSP.ERROR],
    ]);
    expect(errors.map(String)).toEqual(Array(3).fill(expect.stringContaining('may be lost')));
    expect(source.log).toEqual([]);
    expect(files.calls).toEqual(['flush 7', 'write 7 at 0']);
  });

  it('is not flushed at once any more when Domain 0’s thread could not flush it', async () => {
    const { front, files, source } = withFile();
    await front.connect();
    tableOf32Pages(front);
    for (let id = 0; id < 9; id++) front.indirect(id, BLKIF_OP.WRITE, 0, 32, [20]);
    source.failing = new Error('input/output error');
    front.request(9, BLKIF_OP.FLUSH_DISKCACHE, 0, []);
    await front.kick();
    expect(statuses(front.answers()).at(-1)).toEqual([9, BLKIF_RSP.ERROR]);
    front.request(10, BLKIF_OP.FLUSH_DISKCACHE, 0, []);
    await front.kick();
    expect(statuses(front.answers())).toEqual([[10, BLKIF_RSP.ERROR]]);
    expect(files.calls.filter((text) => text.startsWith('flush'))).toEqual([]);
  });

  it('that flushes slowly is read and written at once all the same', async () => {
    const { front, source, files } = withFile();
    await front.connect();
    front.page(8);
    files.takes = 10 * MS;
    for (let id = 0; id < 6; id++) {
      front.request(id, BLKIF_OP.FLUSH_DISKCACHE, 0, []);
      await front.kick();
      expect(front.answers()).toHaveLength(1);
    }
    expect(files.calls).toEqual(['flush 7', 'flush 7']);
    expect(source.log.filter((text) => text.startsWith('end'))).toHaveLength(4);
    files.takes = 1000;
    front.request(7, BLKIF_OP.READ, 0, [[8, 0, 7]]);
    await front.kick();
    expect(files.calls.at(-1)).toBe('read 7 at 0');
  });

  it('lets nothing past a barrier', async () => {
    const { front, source, files } = withFile();
    await front.connect();
    source.held = [];
    front.page(8);
    front.request(1, BLKIF_OP.WRITE_BARRIER, 2, [[8, 0, 0]]);
    front.request(2, BLKIF_OP.WRITE, 3, [[8, 0, 0]]);
    await front.kick();
    expect(files.calls).toEqual([]);
    while (source.held.length > 0) {
      source.held.shift()!();
      await front.backends.settle();
    }
    expect(statuses(front.answers())).toEqual([
      [1, 0],
      [2, 0],
    ]);
    expect(files.calls).toEqual(['write 7 at 3']);
  });

  it('that fails is tried by Domain 0’s thread, which says why', async () => {
    const errors: unknown[] = [];
    const { front, source, files } = withFile({ onError: (error) => errors.push(error) });
    await front.connect();
    front.page(8);
    files.failing = true;
    front.request(1, BLKIF_OP.WRITE, 0, [[8, 0, 0]]);
    await front.kick();
    expect(statuses(front.answers())).toEqual([[1, BLKIF_RSP.OKAY]]);
    source.failing = new Error('no space left on the device');
    front.request(2, BLKIF_OP.WRITE, 0, [[8, 0, 0]]);
    await front.kick();
    expect(statuses(front.answers())).toEqual([[2, BLKIF_RSP.ERROR]]);
    expect(errors).toEqual([source.failing]);
  });

  it('that is slow is left to Domain 0’s thread for a while', async () => {
    const { front, source, files } = withFile();
    await front.connect();
    front.page(8);
    let id = 0;
    const read = async () => {
      front.request(id++, BLKIF_OP.READ, 0, [[8, 0, 7]]);
      await front.kick();
      expect(front.answers()).toHaveLength(1);
    };
    files.takes = 10 * MS;
    for (let count = 0; count < 6; count++) await read();
    expect(files.calls).toHaveLength(2);
    expect(source.log).toHaveLength(2 * 4);
    files.time += 200 * MS;
    files.takes = 1000;
    for (let count = 0; count < 6; count++) await read();
    expect(files.calls).toHaveLength(2 + 6);
  });

  it('is not if it has limits, nor if its pages cannot be had at once', async () => {
    const limited = withFile({ limits: { requests: 1000 } });
    await limited.front.connect();
    limited.front.page(8);
    limited.front.request(1, BLKIF_OP.READ, 0, [[8, 0, 0]]);
    await limited.front.kick();
    expect(limited.source.log).toHaveLength(2);
    expect(limited.files.calls).toEqual([]);

    const { front, guest, source, files } = withFile();
    await front.connect();
    front.page(8);
    // Somebody has the page already.
    const use = guest.domain.grants.use(8, { domid: 0, write: true, map: true });
    expect(typeof use).toBe('object');
    front.request(1, BLKIF_OP.READ, 0, [[8, 0, 0]]);
    await front.kick();
    expect(statuses(front.answers())).toEqual([[1, 0]]);
    expect(source.log).toHaveLength(2);
    expect(files.calls).toEqual([]);
  });

  it('moves no more in a turn than others can wait for', async () => {
    const { front, guest, files } = withFile();
    await front.connect();
    tableOf32Pages(front);
    for (let id = 0; id < 20; id++) front.indirect(id, BLKIF_OP.READ, 0, 32, [20]);
    front.setIndex(0, 20);
    guest.domain.events.send(front.port);
    // 128 KiB each.
    expect(files.calls).toHaveLength(4);
    await front.backends.settle();
    expect(files.calls).toHaveLength(20);
    expect(front.answers()).toHaveLength(20);
    for (let id = 20; id < 32; id++) front.request(id, BLKIF_OP.FLUSH_DISKCACHE, 0, []);
    front.setIndex(0, 32);
    guest.domain.events.send(front.port);
    expect(files.calls).toHaveLength(24);
    await front.backends.settle();
    expect(files.calls).toHaveLength(32);
  });

  it.each<[string, (front: ReturnType<typeof setUp>['front']) => void]>([
    ['sectors beyond the disk', (front) => front.request(1, BLKIF_OP.READ, 255, [[8, 0, 1]])],
    ['a sector beyond everything', (front) => front.request(1, BLKIF_OP.WRITE, 2 ** 53, [[8, 0, 1]])],
    ['sectors beyond the page', (front) => front.request(1, BLKIF_OP.READ, 0, [[8, 0, 8]])],
    ['a grant that is none', (front) => front.request(1, BLKIF_OP.READ, 0, [[77, 0, 0]])],
    ['a page that is not to be written', (front) => front.request(1, BLKIF_OP.READ, 0, [[9, 0, 0]])],
    ['no segments', (front) => front.request(1, BLKIF_OP.WRITE, 0, [])],
    ['an indirect table full of nonsense', (front) => front.indirect(1, BLKIF_OP.WRITE, 0, 100, [10])],
  ])('touches no file for %s', async (_, send) => {
    const { front, files, source } = withFile();
    await front.connect();
    front.page(8);
    front.page(9, true).fill(1);
    front.page(10).fill(0xff);
    send(front);
    front.request(2, BLKIF_OP.READ, 0, [[8, 0, 0]]);
    await front.kick();
    expect(statuses(front.answers())).toEqual([
      [1, BLKIF_RSP.ERROR],
      [2, BLKIF_RSP.OKAY],
    ]);
    expect(files.calls).toEqual(['read 7 at 0']);
    expect(source.log).toEqual([]);
  });

  it('that is only read is not written', async () => {
    const { front, files } = withFile({ readonly: true });
    await front.connect();
    front.page(8);
    front.request(1, BLKIF_OP.WRITE, 0, [[8, 0, 0]]);
    await front.kick();
    expect(statuses(front.answers())).toEqual([[1, BLKIF_RSP.ERROR]]);
    expect(files.calls).toEqual([]);
  });

  it('does no harm, whatever the guest writes into the ring', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.uint8Array({ minLength: ENTRY, maxLength: ENTRY }), { minLength: 1, maxLength: 32 }),
        fc.array(fc.nat(3), { maxLength: 32 }),
        async (entries, tweaks) => {
          const { front, guest, backends, device, files } = withFile();
          await front.connect();
          front.page(0);
          front.page(1, true);
          for (const [index, entry] of entries.entries()) {
            if (tweaks[index] === 0) entry.set([entry[0]! % 7, entry[1]! % 12, 0, 0]);
            if (tweaks[index] === 1) entry.fill(0, 17, 24);
            if (tweaks[index] === 2) entry.fill(0, 24);
            front.put(entry);
          }
          await front.kick();
          expect(front.answers()).toHaveLength(entries.length);
          const moves = files.calls.filter((call) => call !== 'flush 7');
          for (const call of moves) expect(Number(/at (\d+)$/.exec(call)![1])).toBeLessThan(SECTORS);
          const removed = device.remove();
          await backends.settle();
          await removed;
          for (const ref of [0, 1, RING_REF]) expect(grantInUse(guest, ref)).toBe(false);
          expect(guest.domain.shutdown).toBeNull();
        },
      ),
      { numRuns: 60 },
    );
  });
});

describe('how slow is too slow', () => {
  it('is not one call among many, nor many bytes', () => {
    const files = new TestFiles(0);
    const disk = new DirectDisk(files, 7, () => files.time);
    for (let count = 0; count < 100; count++) {
      files.takes = count % 10 === 0 ? 5 * MS : 2000;
      expect(disk.ready).toBe(true);
      disk.move(false, 0, 4096, []);
    }
    files.takes = MS;
    for (let count = 0; count < 100; count++) {
      expect(disk.ready).toBe(true);
      disk.move(false, 0, MS, []);
    }
  });

  it('is what comes again; and it is tried again the later, the slower it was', () => {
    const files = new TestFiles(0);
    const disk = new DirectDisk(files, 7, () => files.time);
    const pauseAfter = (takes: number) => {
      files.takes = takes;
      while (disk.ready) disk.move(false, 0, 4096, []);
      const begun = files.time;
      while (!disk.ready) files.time += MS / 2;
      return files.time - begun;
    };
    expect(pauseAfter(0.2 * MS)).toBe(20 * MS);
    expect(pauseAfter(10 * MS)).toBe(200 * MS);
    expect(pauseAfter(1000 * MS)).toBe(2000 * MS);
  });
});
