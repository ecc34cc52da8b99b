import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PAGE_SIZE } from '../../machine/memory.ts';
import { BLKIF_OP, BLKIF_RSP, SECTOR_SIZE as SECTOR } from '../../xen/public/io/blkif.ts';
import { XenbusState } from '../../xen/public/io/xenbus.ts';
import { SRING } from '../../xen/public/ring.ts';
import { grantInUse, grantPage, testBackends } from '../backend/testing.ts';
import { XenstoreClient } from '../xenstore/client.ts';
import { ENTRY, Front, RING_REF, setUp } from './testing.ts';

const okay = (id: number, operation: number) => ({ id: BigInt(id), operation, status: BLKIF_RSP.OKAY });

describe('a virtual block device', () => {
  it('reads and writes the guest’s pages', async () => {
    const { front, source, backends, guest } = setUp();
    expect(await front.connect()).toBe(XenbusState.Connected);
    expect(backends.store.read(`/local/domain/0/backend/vbd/${guest.domain.id}/51712/sectors`)).toBe('256');
    front.page(8, true).fill(0x11);
    front.page(9, true).fill(0x22);
    front.request(7, BLKIF_OP.WRITE, 10, [
      [8, 6, 7],
      [9, 0, 0],
    ]);
    await front.kick();
    expect(front.answers()).toEqual([okay(7, BLKIF_OP.WRITE)]);
    const disk = new Uint8Array(4 * SECTOR);
    await source.below.read(9 * SECTOR, [disk]);
    expect([0, 512, 1024, 1536].map((at) => disk[at])).toEqual([0, 0x11, 0x11, 0x22]);
    const page = front.page(10);
    front.request(8, BLKIF_OP.READ, 11, [[10, 1, 2]]);
    await front.kick();
    expect(front.answers()).toEqual([okay(8, BLKIF_OP.READ)]);
    expect([0, 512, 1024, 1536].map((at) => page[at])).toEqual([0, 0x11, 0x22, 0]);
    for (const ref of [8, 9, 10]) expect(grantInUse(guest, ref)).toBe(false);
  });

  it('answers in the order in which requests end, and tells the guest when it asked for it', async () => {
    const { front, source, guest } = setUp();
    await front.connect();
    source.held = [];
    front.page(8);
    for (let id = 0; id < 3; id++) front.request(id, BLKIF_OP.READ, id, [[8, id, id]]);
    await front.kick();
    expect(source.held).toHaveLength(3);
    source.held[2]!();
    await front.backends.settle();
    expect(front.answers().map(({ id }) => id)).toEqual([2n]);
    expect(guest.domain.events.isPending(front.port)).toBe(true);
    source.held[0]!();
    source.held[1]!();
    await front.backends.settle();
    expect(front.answers().map(({ id }) => id)).toEqual([0n, 1n]);
  });

  it('takes indirect requests of many segments', async () => {
    const { front } = setUp();
    await front.connect();
    const table = front.page(20, true);
    const view = new DataView(table.buffer, table.byteOffset, PAGE_SIZE);
    const pages = Array.from({ length: 24 }, (_, index) => {
      view.setUint32(index * 8, 30 + index, true);
      table[index * 8 + 4] = 0;
      table[index * 8 + 5] = 7;
      return front.page(30 + index).fill(index + 1);
    });
    front.indirect(1, BLKIF_OP.WRITE, 8, 24, [20]);
    await front.kick();
    for (const page of pages) page.fill(0);
    front.indirect(2, BLKIF_OP.READ, 8, 24, [20]);
    await front.kick();
    expect(front.answers()).toEqual([okay(1, BLKIF_OP.WRITE), okay(2, BLKIF_OP.READ)]);
    expect(pages.map((page) => page[4095])).toEqual(pages.map((_, index) => index + 1));
  });

  it('flushes, and discards', async () => {
    const { front, source } = setUp();
    await front.connect();
    front.request(1, BLKIF_OP.FLUSH_DISKCACHE, 0, []);
    front.discard(2, 0, 128);
    await front.kick();
    expect(front.answers().map(({ id, status }) => [id, status])).toEqual([
      [1n, 0],
      [2n, 0],
    ]);
    expect(source.log).toContain('end discard 0');
  });

  it('lets nothing past a barrier, in either direction', async () => {
    const { front, source } = setUp();
    await front.connect();
    source.held = [];
    front.page(8);
    front.request(1, BLKIF_OP.WRITE, 1, [[8, 0, 0]]);
    front.request(2, BLKIF_OP.WRITE_BARRIER, 2, [[8, 0, 0]]);
    front.request(3, BLKIF_OP.WRITE, 3, [[8, 0, 0]]);
    await front.kick();
    expect(source.log).toEqual(['begin write 1']);
    while (source.held.length > 0) {
      source.held.shift()!();
      await front.backends.settle();
    }
    expect(source.log).toEqual(
      ['write 1', 'flush', 'write 2', 'flush', 'write 3'].flatMap((text) => [`begin ${text}`, `end ${text}`]),
    );
    expect(front.answers().map(({ id }) => id)).toEqual([1n, 2n, 3n]);
  });

  it.each([2, 4, 16])('has rings of %d pages', async (pages) => {
    const { front } = setUp({ pages });
    expect(await front.connect()).toBe(XenbusState.Connected);
    front.page(8);
    const count = front.entries;
    expect(count).toBeGreaterThan(32);
    for (let round = 0; round < 3; round++) {
      for (let id = 0; id < count; id++) front.request(id, BLKIF_OP.READ, id % 256, [[8, 0, 0]]);
      await front.kick();
      const answers = front.answers();
      expect(answers).toHaveLength(count);
      expect(new Set(answers.map(({ id }) => id)).size).toBe(count);
      expect(answers.every(({ status }) => status === 0)).toBe(true);
    }
  });

  it('has several rings', async () => {
    const { backends, guest, front } = setUp();
    const other = new Front(backends, guest, 1);
    grantPage(guest, 200, other.pages[0]!);
    other.port = guest.domain.events.allocUnbound(0);
    grantPage(guest, 201, front.pages[0]!);
    front.port = guest.domain.events.allocUnbound(0);
    const store = new XenstoreClient(backends.xenstore, guest.domain.id);
    const nodes = {
      'multi-queue-num-queues': 2,
      'queue-0/ring-ref': 201,
      'queue-0/event-channel': front.port,
      'queue-1/ring-ref': 200,
      'queue-1/event-channel': other.port,
      state: XenbusState.Initialised,
    };
    for (const [name, value] of Object.entries(nodes)) store.write(`${front.path}/${name}`, `${value}`);
    await backends.settle();
    front.page(8).fill(5);
    other.request(1, BLKIF_OP.WRITE, 0, [[8, 0, 7]]);
    front.request(2, BLKIF_OP.WRITE, 8, [[8, 0, 7]]);
    await other.kick();
    expect([other.answers(), front.answers()]).toEqual([[okay(1, BLKIF_OP.WRITE)], []]);
    await front.kick();
    expect(front.answers()).toEqual([okay(2, BLKIF_OP.WRITE)]);
  });

  it('keeps pages mapped for a front end that uses them again', async () => {
    const { front, guest, device } = setUp({ persistent: true });
    await front.connect({ 'feature-persistent': 1 });
    const page = front.page(8).fill(3);
    front.request(1, BLKIF_OP.WRITE, 0, [[8, 0, 7]]);
    await front.kick();
    expect(grantInUse(guest, 8)).toBe(true);
    page.fill(0);
    front.request(2, BLKIF_OP.READ, 0, [[8, 0, 7]]);
    await front.kick();
    expect(front.answers().map(({ status }) => status)).toEqual([0, 0]);
    expect(page[4095]).toBe(3);
    const removed = device.remove();
    await front.backends.settle();
    await removed;
    expect(grantInUse(guest, 8)).toBe(false);
  });

  it('tells the guest when the disk fails, and works on', async () => {
    const { front, source, device } = setUp();
    await front.connect();
    front.page(8);
    source.failing = new Error('no space left on the device');
    front.request(1, BLKIF_OP.WRITE, 0, [[8, 0, 7]]);
    front.request(2, BLKIF_OP.FLUSH_DISKCACHE, 0, []);
    await front.kick();
    expect(front.answers().map(({ status }) => status)).toEqual([BLKIF_RSP.ERROR, BLKIF_RSP.ERROR]);
    source.failing = null;
    front.request(3, BLKIF_OP.WRITE, 0, [[8, 0, 7]]);
    await front.kick();
    expect(front.answers()).toEqual([okay(3, BLKIF_OP.WRITE)]);
    expect(device.statistics).toMatchObject({ errors: 2, writes: 2, flushes: 1 });
  });
});

describe('a guest that goes', () => {
  it('in the middle of a request keeps its pages until the host is done with them', async () => {
    const { front, source, guest, backends, device } = setUp();
    const { hypervisor, frames } = backends.machines;
    await front.connect();
    source.held = [];
    front.page(8);
    front.request(1, BLKIF_OP.READ, 0, [[8, 0, 7]]);
    await front.kick();
    const before = frames.free;
    backends.planes.domainGone(guest.domain.id);
    hypervisor.destroyDomain(guest.domain);
    const removed = device.remove();
    await backends.settle();
    const held = frames.free;
    expect(held).toBeGreaterThan(before);
    expect(source.log).toEqual(['begin read 0']);
    source.held[0]!();
    source.held = null;
    await backends.settle();
    await removed;
    expect(source.log.slice(-3)).toEqual(['begin flush', 'end flush', 'close']);
    // The page that was read into, and the table that knew of it.
    expect(frames.free).toBeGreaterThan(held);
  });

  it('with the whole machine leaves a disk that is closed after its last request', async () => {
    const { front, source, backends, device } = setUp();
    await front.connect();
    source.held = [];
    front.page(8);
    front.request(1, BLKIF_OP.WRITE, 0, [[8, 0, 7]]);
    await front.kick();
    backends.opener.fail(new Error('switched off'));
    const removed = device.remove();
    await backends.settle();
    expect(source.log).toEqual(['begin write 0']);
    source.held[0]!();
    source.held = null;
    await removed;
    expect(source.log.slice(1)).toEqual(['end write 0', 'begin flush', 'end flush', 'close']);
  });

  it('and comes again finds its disk', async () => {
    const { front, backends, guest } = setUp();
    await front.connect();
    const store = new XenstoreClient(backends.xenstore, guest.domain.id);
    for (const state of [XenbusState.Closing, XenbusState.Closed, XenbusState.Initialising]) {
      store.write(`${front.path}/state`, `${state}`);
      await backends.settle();
    }
    expect(grantInUse(guest, RING_REF)).toBe(false);
    const again = new Front(backends, guest, 1);
    expect(await again.connect()).toBe(XenbusState.Connected);
    again.page(8);
    again.request(1, BLKIF_OP.READ, 0, [[8, 0, 0]]);
    await again.kick();
    expect(again.answers()).toEqual([okay(1, BLKIF_OP.READ)]);
  });
});

describe('a hostile guest', () => {
  it.each<[string, (front: Front) => void]>([
    ['no segments', (front) => front.request(1, BLKIF_OP.READ, 0, [])],
    [
      'more segments than there are',
      (front) => front.request(1, BLKIF_OP.READ, 0, Array(12).fill([8, 0, 0])),
    ],
    ['sectors the wrong way round', (front) => front.request(1, BLKIF_OP.READ, 0, [[8, 3, 2]])],
    ['sectors beyond the page', (front) => front.request(1, BLKIF_OP.READ, 0, [[8, 0, 8]])],
    ['sectors beyond the disk', (front) => front.request(1, BLKIF_OP.READ, 255, [[8, 0, 1]])],
    ['a sector beyond everything', (front) => front.request(1, BLKIF_OP.READ, 2 ** 53, [[8, 0, 1]])],
    ['a grant that is none', (front) => front.request(1, BLKIF_OP.READ, 0, [[77, 0, 0]])],
    ['a grant beyond the table', (front) => front.request(1, BLKIF_OP.READ, 0, [[0xffffffff, 0, 0]])],
    ['a page that is not to be written', (front) => front.request(1, BLKIF_OP.READ, 0, [[9, 0, 0]])],
    [
      'a good page and then a bad one',
      (front) =>
        front.request(1, BLKIF_OP.READ, 0, [
          [8, 0, 0],
          [77, 0, 0],
        ]),
    ],
    ['an indirect table that is none', (front) => front.indirect(1, BLKIF_OP.READ, 0, 12, [77])],
    ['too many indirect segments', (front) => front.indirect(1, BLKIF_OP.READ, 0, 257, [8])],
    ['no indirect segments', (front) => front.indirect(1, BLKIF_OP.READ, 0, 0, [8])],
    ['an indirect table full of nonsense', (front) => front.indirect(1, BLKIF_OP.READ, 0, 100, [10])],
    ['a discard beyond the disk', (front) => front.discard(1, 200, 100)],
  ])('gets an error for %s', async (_, send) => {
    const { front, guest, source } = setUp();
    await front.connect();
    front.page(8);
    front.page(9, true);
    front.page(10).fill(0xff);
    send(front);
    front.request(2, BLKIF_OP.READ, 0, [[8, 0, 0]]);
    await front.kick();
    const answers = front.answers();
    expect(answers.map(({ id, status }) => [id, status])).toEqual([
      [1n, BLKIF_RSP.ERROR],
      [2n, BLKIF_RSP.OKAY],
    ]);
    expect(source.log.filter((text) => text.startsWith('begin'))).toHaveLength(1);
    for (const ref of [8, 9, 10, 77]) expect(grantInUse(guest, ref)).toBe(false);
  });

  it('is told what there is not', async () => {
    const { front } = setUp();
    await front.connect();
    for (const [id, operation] of [4, 7, 255].entries()) front.request(id, operation, 0, []);
    front.indirect(9, BLKIF_OP.WRITE_BARRIER, 0, 1, [8]);
    await front.kick();
    expect(front.answers().map(({ status }) => status)).toEqual(Array(4).fill(BLKIF_RSP.EOPNOTSUPP));
  });

  it('writes nothing to a disk that is only read', async () => {
    const { front, source } = setUp({ readonly: true });
    await front.connect();
    front.page(8).fill(1);
    front.request(1, BLKIF_OP.WRITE, 0, [[8, 0, 7]]);
    front.request(2, BLKIF_OP.WRITE_BARRIER, 0, [[8, 0, 7]]);
    front.discard(3, 0, 8);
    front.indirect(4, BLKIF_OP.WRITE, 0, 1, [8]);
    await front.kick();
    expect(front.answers().every(({ status }) => status !== BLKIF_RSP.OKAY)).toBe(true);
    expect(source.log).toEqual([]);
  });

  it.each([33, 1000, 0x7fffffff, 0xffffffff])(
    'loses its disk with %d requests in a ring of 32',
    async (count) => {
      const { front, reason, backends, guest } = setUp();
      await front.connect();
      front.setIndex(SRING.req_prod, count);
      guest.domain.events.send(front.port);
      await backends.settle();
      expect(reason()).toMatch(/requests in a ring of 32/);
      expect(grantInUse(guest, RING_REF)).toBe(false);
      guest.domain.events.send(front.port);
      await backends.settle();
    },
  );

  it.each([
    [{ 'ring-ref': 4_000_000_000 }, /ring's page/],
    [{ 'ring-ref': 'x' }, /ring-ref/],
    [{ 'event-channel': 999 }, /event channel 999/],
    [{ 'ring-page-order': 5 }, /ring-page-order/],
    [{ 'num-ring-pages': 3 }, /3 pages/],
    [{ 'num-ring-pages': 0 }, /0 pages/],
    [{ 'multi-queue-num-queues': 0 }, /no queues/],
    [{ 'multi-queue-num-queues': 5 }, /multi-queue-num-queues/],
    [{ protocol: 'x86_32-abi' }, /x86_32-abi/],
  ])('is not connected with %j', async (nodes, said) => {
    const { front, reason, guest } = setUp();
    expect(await front.connect(nodes)).toBe(XenbusState.Closing);
    expect(reason()).toMatch(said);
    expect(grantInUse(guest, RING_REF)).toBe(false);
  });

  it('does no harm, whatever it writes into the ring', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.uint8Array({ minLength: ENTRY, maxLength: ENTRY }), { minLength: 1, maxLength: 40 }),
        fc.array(fc.nat(3), { maxLength: 40 }),
        async (entries, tweaks) => {
          const { front, guest, backends, device } = setUp();
          await front.connect();
          front.page(0);
          front.page(1, true);
          for (const [index, entry] of entries.entries()) {
            // Most of random requests would fail at once: some get as far as they can.
            if (tweaks[index] === 0) entry.set([entry[0]! % 7, entry[1]! % 12, 0, 0]);
            if (tweaks[index] === 1) entry.fill(0, 17, 24);
            if (tweaks[index] === 2) entry.fill(0, 24);
            front.put(entry);
          }
          await front.kick();
          const answers = front.answers();
          expect(answers.length === entries.length || entries.length > 32).toBe(true);
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

describe('a data plane that throws', () => {
  it('ends alone, and what it mapped is released', async () => {
    const backends = testBackends({
      bad: (link) => {
        link.map(8, false);
        return {
          onEvent: () => {},
          onMessage: () => {
            throw new Error('broken');
          },
          onSignal: () => {},
          close: () => true,
        };
      },
      worse: (link) => {
        link.map(8, false);
        throw new Error('never made');
      },
    });
    const guest = backends.machines.domains[0]!;
    grantPage(guest, 8, guest.free[0]!);
    const failures: string[] = [];
    const listener = { onMessage: () => {}, onFailure: (problem: Error) => failures.push(problem.message) };
    const opening = backends.opener.open('bad', guest.domain.id, {}, listener);
    await backends.settle();
    const plane = await opening;
    expect(grantInUse(guest, 8)).toBe(true);
    plane.send({});
    await backends.settle();
    expect(failures).toEqual(['broken']);
    expect(grantInUse(guest, 8)).toBe(false);
    await plane.close();
    for (const [kind, domid] of [
      ['worse', guest.domain.id],
      ['nothing', guest.domain.id],
      ['bad', 99],
    ] as const) {
      const failing = expect(backends.opener.open(kind, domid, {}, listener)).rejects.toThrow();
      await backends.settle();
      await failing;
    }
    expect(grantInUse(guest, 8)).toBe(false);
  });
});
