import { describe, expect, it } from 'vitest';
import { grantInUse, grantPage, type TestBackends, testBackends } from '../backend/testing.ts';
import { networkPlanes } from './networks.ts';
import { NO_OFFLOAD, type Offload } from './offload.ts';
import type { NetFront } from './testing-netfront.ts';
import { BRIDGE, connectedFronts, frame, GATEWAY, macOf } from './testing-vifs.ts';
import { Uplink } from './uplink.ts';

async function world(domains: number) {
  const made: { planes: ReturnType<typeof networkPlanes> | null } = { planes: null };
  const factory =
    (kind: string) =>
    (...parts: Parameters<ReturnType<typeof networkPlanes>[0][1]>) => {
      made.planes ??= networkPlanes(backends.machines.memory, backends.machines.frames);
      return new Map(made.planes).get(kind)!(...parts);
    };
  const backends: TestBackends = testBackends(
    { vif: factory('vif'), uplink: factory('uplink') },
    { domains, pages: 64, maxPages: 96, megabytes: 24 },
  );
  const received: { from: number; length: number; offload: Offload }[] = [];
  const calls: string[] = [];
  const later: (() => void)[] = [];
  let time = 0;
  const opening = Uplink.open(
    backends.machines.memory,
    backends.opener,
    BRIDGE,
    { later: (work) => later.push(work), now: () => time++ },
    () => ({
      receive: (frame, { flags, gso, gsoSize }) => {
        received.push({ from: frame[11]!, length: frame.length, offload: { flags, gso, gsoSize } });
      },
      settle: () => calls.push('settle'),
      room: () => calls.push('room'),
    }),
  );
  await backends.settle();
  const uplink = await opening;
  await backends.settle();
  const fronts = await connectedFronts(backends, () => backends.opener);
  return { backends, uplink, fronts, received, calls, later };
}

describe('an uplink', () => {
  it('carries frames both ways with what is left to do to them', async () => {
    const { backends, uplink, fronts, received, calls } = await world(1);
    const [a] = fronts as [NetFront];
    await a.send(frame(macOf(0), GATEWAY, 20_000), { flags: 3, gsoSize: 1448 });
    expect(received).toEqual([{ from: 1, length: 20_000, offload: { flags: 3, gso: 1, gsoSize: 1448 } }]);
    expect(calls).toContain('settle');
    a.queue.offer(20);
    const down = frame(GATEWAY, macOf(0), 30_000);
    const pieces = [down.subarray(0, 14), down.subarray(14, 9000), down.subarray(9000)];
    expect(uplink.send(pieces, { flags: 3, gso: 1, gsoSize: 1000 })).toBe(true);
    await backends.settle();
    const [got] = a.queue.received();
    expect(got).toMatchObject({ gsoSize: 1000, gsoType: 1 });
    expect(Buffer.compare(got!.bytes, down)).toBe(0);
  });

  it('says when it has no room, and when it has again', async () => {
    const { backends, uplink, fronts, calls } = await world(1);
    fronts[0]!.queue.offer(4);
    let count = 0;
    while (uplink.send([frame(GATEWAY, macOf(0), 60_000)], NO_OFFLOAD)) count++;
    expect(count).toBeGreaterThan(14);
    expect(calls).not.toContain('room');
    await backends.settle();
    expect(calls).toContain('room');
    expect(uplink.send([frame(GATEWAY, macOf(0), 60_000)], NO_OFFLOAD)).toBe(true);
  });

  it('goes on after a turn that ended with the last frame', async () => {
    const { backends, uplink, fronts } = await world(1);
    const [{ queue }] = fronts as [NetFront];
    let got = 0;
    for (let burst = 0; burst < 5; burst++) {
      for (let count = 0; count < 64; count++) uplink.send([frame(GATEWAY, macOf(0), 60)], NO_OFFLOAD);
      queue.offer(64);
      await backends.settle();
      got += queue.received().length;
    }
    expect(got).toBe(5 * 64);
  });

  it('that is slow is shared by those who want to send, in turn', async () => {
    const { backends, uplink, fronts, received, later } = await world(3);
    // The bridge has to know where the gateway is: for one of many nobody waits.
    uplink.send([frame(GATEWAY, macOf(0), 60)], NO_OFFLOAD);
    await backends.settle();
    for (const [index, front] of fronts.entries()) {
      const parts = front.place(frame(macOf(index), GATEWAY, 40_000));
      for (let count = 0; count < 20; count++) front.queue.push(parts);
    }
    for (const front of fronts) front.queue.kick();
    for (let round = 0; round < 200; round++) {
      await backends.settle();
      for (const work of later.splice(0)) work();
    }
    expect(received).toHaveLength(60);
    // What the ring of frames held came first; from then on each has his turn, until he has no more.
    const order = received.map(({ from }) => from).join('');
    expect(order).toMatch(/^1{20}2{6}[23]+$/);
    expect(order.slice(26)).toMatch(/^(2{1,2}3{1,2})+3*$/);
    for (const front of fronts) {
      expect(front.queue.txAnswers().every(({ status }) => status === 0)).toBe(true);
    }
  });

  it('keeps what waits where it is, whatever becomes of the grants', async () => {
    const { backends, uplink, fronts, received, later } = await world(1);
    const [a] = fronts as [NetFront];
    uplink.send([frame(GATEWAY, macOf(0), 60)], NO_OFFLOAD);
    await backends.settle();
    const parts = a.place(frame(macOf(0), GATEWAY, 60_000));
    const inUse = () => parts.filter(({ page }) => grantInUse(a.guest, 200 + page)).length;
    // The ring of frames has room for 17 of them.
    for (let count = 0; count < 17; count++) a.queue.push(parts);
    a.queue.kick();
    expect(inUse()).toBe(0);
    const answers = a.queue.txAnswers();
    for (let count = 0; count < 3; count++) a.queue.push(parts);
    a.queue.kick();
    expect(inUse()).toBe(parts.length);
    for (const { page } of parts) grantPage(a.guest, 200 + page, 1 << 20);
    for (let round = 0; round < 20; round++) {
      await backends.settle();
      for (const work of later.splice(0)) work();
    }
    expect(inUse()).toBe(0);
    // The one that waited arrived; those behind it have no pages any more.
    expect(received.map(({ length }) => length)).toEqual(Array(18).fill(60_000));
    answers.push(...a.queue.txAnswers());
    const statuses = answers.map(({ status }) => status);
    expect(statuses.filter((status) => status === 0)).toHaveLength(received.length * parts.length);
    expect(statuses.at(-1)).toBe(-1);
  });

  it('that goes lets nobody wait', async () => {
    const { backends, uplink, fronts } = await world(1);
    const [a] = fronts as [NetFront];
    const free = backends.machines.frames.free;
    const closing = uplink.close();
    await backends.settle();
    await closing;
    expect(backends.machines.frames.free).toBeGreaterThan(free + 500);
    expect((await a.send(frame(macOf(0), GATEWAY, 100))).map(({ status }) => status)).toEqual([0]);
    expect(uplink.send([frame(GATEWAY, macOf(0), 100)], NO_OFFLOAD)).toBe(true);
  });
});
