import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openFolder } from '../../toolstack/devices/host-folder.ts';
import { XenbusState } from '../../xen/public/io/xenbus.ts';
import { grantInUse, type TestBackends, testBackends } from '../backend/testing.ts';
import { SharedFolder } from './device.ts';
import { FileLocks } from './locks.ts';
import { MessageWriter, P9 } from './messages.ts';
import { P9Plane } from './plane.ts';
import { P9Front } from './testing.ts';

let path: string;
let backends: TestBackends;
let folder: SharedFolder;
let front: P9Front;

const sleep = (milliseconds: number) =>
  new Promise<void>((resolve) => {
    setTimeout(resolve, milliseconds);
  });

beforeEach(async () => {
  path = mkdtempSync(join(tmpdir(), '9pfs-'));
  backends = testBackends(
    { '9pfs': (...args) => new P9Plane(...args) },
    { domains: 1, pages: 64, maxPages: 64, megabytes: 8 },
  );
  const guest = backends.machines.domains[0]!;
  const after = (milliseconds: number, work: () => void) => {
    setTimeout(work, milliseconds);
  };
  folder = new SharedFolder(
    { memory: backends.machines.memory, planes: backends.opener, store: backends.store, after },
    {
      ...{ domid: guest.domain.id, devid: 0, tag: 'share', path, readonly: false },
      root: await openFolder(path),
      locks: new FileLocks(),
    },
  );
  front = new P9Front(backends, guest, 3, sleep);
});

afterEach(async () => {
  const removed = folder.remove();
  await backends.settle();
  await removed;
  rmSync(path, { recursive: true });
});

const reason = () =>
  backends.store.read(`/local/domain/0/error/backend/9pfs/${front.guest.domain.id}/0/error`);

describe('a shared folder', () => {
  it('connects, and carries messages around the end of its ring', async () => {
    for (const index of ['in_cons', 'in_prod', 'out_cons', 'out_prod'] as const)
      front.setIndex(index, 0xffff_f000);
    await front.connect();
    expect(front.state).toBe(XenbusState.Connected);
    const client = front.client();
    // Half of a direction's bytes, so that two messages fit.
    expect(await client.version(1 << 20)).toEqual([8192, '9P2000.L']);
    await client.attach(1);
    await client.walk(1, 2);
    await client.create(2, 'file');
    const bytes = Uint8Array.from({ length: 8000 }, (_, at) => (at * 31) ^ (at >> 8));
    for (let round = 0; round < 6; round++) {
      expect(await client.write(2, round * 8000, bytes)).toBe(8000);
      expect(Buffer.from(await client.read(2, round * 8000, 8000)).equals(bytes)).toBe(true);
    }
    expect(readFileSync(join(path, 'file')).length).toBe(48_000);
    expect(front.index('out_prod')).toBeLessThan(0xffff_f000);
  });

  it('waits with answers until there is room, and takes no more requests than it answers', async () => {
    writeFileSync(join(path, 'file'), new Uint8Array(8000));
    await front.connect();
    const client = front.client();
    await client.version(8192);
    await client.attach(1);
    await client.walk(1, 2, 'file');
    await client.open(2);
    const reads = 60;
    for (let tag = 0; tag < reads; tag++)
      await front.send(new MessageWriter().u32(2).u64(0n).u32(8000).finish(P9.read, tag));
    await sleep(60);
    await backends.settle();
    // Two answers fill the ring; 16 requests are under way, and the others are still on it.
    expect((front.index('in_prod') - front.index('in_cons')) >>> 0).toBe(2 * 8011);
    expect(((front.index('out_prod') - front.index('out_cons')) >>> 0) / 23).toBe(reads - 16 - 2);
    const tags = new Set<number>();
    for (let answer = 0; answer < reads; answer++) tags.add((await front.receive())[5]!);
    expect(tags.size).toBe(reads);
    expect(front.state).toBe(XenbusState.Connected);
  });

  it.each([
    ['out_prod', 0x7000_0000, /bytes in a ring/],
    ['in_cons', 5000, /bytes in a ring/],
  ] as const)('closes when %s cannot be', async (field, value, said) => {
    await front.connect();
    const client = front.client();
    await client.version(8192);
    front.setIndex(field, value);
    await front.send(new MessageWriter().u32(1).finish(P9.clunk, 1));
    await sleep(20);
    await backends.settle();
    expect(front.state).toBe(XenbusState.Closing);
    expect(reason()).toMatch(said);
    for (const ref of [200, 201, 208]) expect(grantInUse(front.guest, ref)).toBe(false);
  });

  it.each([0, 6, 1 << 20])('closes at a request of %d bytes', async (size) => {
    await front.connect();
    const bytes = new MessageWriter().u32(1).finish(P9.clunk, 1);
    new DataView(bytes.buffer).setUint32(0, size, true);
    await front.send(bytes);
    expect(front.state).toBe(XenbusState.Closing);
    expect(reason()).toMatch(/a request of/);
  });

  it.each([
    [{ version: 2 }, /version/],
    [{ 'num-rings': 0 }, /no rings/],
    [{ 'num-rings': 5 }, /num-rings/],
    [{ 'ring-ref0': 9999 }, /cannot be mapped/],
    [{ 'event-channel-0': 77 }, /cannot be bound/],
  ])('refuses %j', async (nodes, said) => {
    await front.connect(nodes);
    expect(front.state).toBe(XenbusState.Closing);
    expect(reason()).toMatch(said);
  });

  it.each([0, 9, 0xffff_ffff])('refuses a ring of 2^%d pages', async (order) => {
    front.setIndex('ring_order', order);
    await front.connect();
    expect(reason()).toMatch(/a ring of/);
  });

  it('lets go of the guest’s pages when the domain goes', async () => {
    await front.connect();
    const client = front.client();
    await client.version(8192);
    expect(grantInUse(front.guest, 201)).toBe(true);
    backends.planes.domainGone(front.guest.domain.id);
    await backends.settle();
    expect(grantInUse(front.guest, 201)).toBe(false);
  });
});
