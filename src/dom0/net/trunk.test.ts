import { describe, expect, it } from 'vitest';
import type { DataPlaneFactory, PlaneOpener } from '../backend/data-plane.ts';
import { type TestBackends, testBackends } from '../backend/testing.ts';
import { BROADCAST_MAC } from './addresses.ts';
import type { NatLink } from './nat/nat.ts';
import { networkPlanes } from './networks.ts';
import { NO_OFFLOAD, type Offload } from './offload.ts';
import type { NetFront } from './testing-netfront.ts';
import { BRIDGE, connectedFronts, frame, GATEWAY, macOf } from './testing-vifs.ts';
import { Trunk } from './trunk.ts';

const PCPUS = 2;

/** Processors that each have bridges of their own, a domain on each, and somebody on Domain 0's thread. */
async function world() {
  const networks: Map<string, DataPlaneFactory>[] = [];
  const factory =
    (pcpu: number, kind: string): DataPlaneFactory =>
    (...parts) => {
      networks[pcpu] ??= new Map(networkPlanes(backends.machines.memory, backends.machines.frames));
      return networks[pcpu].get(kind)!(...parts);
    };
  const kinds: Record<string, DataPlaneFactory> = {};
  for (let pcpu = 0; pcpu < PCPUS; pcpu++)
    for (const kind of ['vif', 'uplink']) kinds[kind + pcpu] = factory(pcpu, kind);
  const backends: TestBackends = testBackends(kinds, {
    domains: PCPUS,
    pages: 64,
    maxPages: 96,
    megabytes: 24,
  });
  const planes = Array.from(
    { length: PCPUS },
    (_, pcpu): PlaneOpener => ({
      open: (kind, ...rest) => backends.opener.open(kind + pcpu, ...rest),
    }),
  );
  // Each look at the clock is a millisecond later.
  let time = 0;
  const opening = Trunk.open(backends.machines.memory, planes, BRIDGE, {
    later: (work) => work(),
    now: () => time++,
  });
  await backends.settle();
  const trunk = await opening;
  const received: { from: number; to: number; length: number; offload: Offload }[] = [];
  const calls: string[] = [];
  let link!: NatLink;
  const member = trunk.join((own) => {
    link = own;
    return {
      receive: (bytes, { flags, gso, gsoSize }) => {
        received.push({
          from: bytes[11]!,
          to: bytes[5]!,
          length: bytes.length,
          offload: { flags, gso, gsoSize },
        });
      },
      settle: () => calls.push('settle'),
      room: () => calls.push('room'),
    };
  });
  await backends.settle();
  const fronts = await connectedFronts(backends, (index) => planes[index]!);
  return { backends, trunk, member, link, fronts, received, calls };
}

describe('a trunk', () => {
  it('makes one network of the bridges of several processors', async () => {
    const { backends, fronts, received, link, calls } = await world();
    const [a, b] = fronts as [NetFront, NetFront];
    for (const { queue } of fronts) queue.offer(60);
    // Nobody knows yet where b is: everybody hears it, once.
    await a.send(frame(macOf(0), macOf(1), 20_000), { flags: 3, gsoSize: 1448 });
    await backends.settle();
    const [got] = b.queue.received();
    expect(got!.bytes).toEqual(frame(macOf(0), macOf(1), 20_000));
    expect(got).toMatchObject({ gsoSize: 1448, gsoType: 1 });
    expect(received).toEqual([
      { from: 1, to: 2, length: 20_000, offload: { flags: 3, gso: 1, gsoSize: 1448 } },
    ]);
    expect(calls).toContain('settle');
    // Now where a is is known, and where b is as soon as it answers.
    await b.send(frame(macOf(1), macOf(0), 100));
    await a.send(frame(macOf(0), macOf(1), 200));
    await backends.settle();
    expect(a.queue.received().map(({ bytes }) => bytes.length)).toEqual([100]);
    expect(b.queue.received().map(({ bytes }) => bytes.length)).toEqual([200]);
    expect(received).toHaveLength(1);
    // A group is everybody, once each, and not who sent it.
    await b.send(frame(macOf(1), BROADCAST_MAC, 300));
    expect(link.send([frame(GATEWAY, BROADCAST_MAC, 400)], NO_OFFLOAD)).toBe(true);
    await backends.settle();
    expect(a.queue.received().map(({ bytes }) => bytes.length)).toEqual([300, 400]);
    expect(b.queue.received().map(({ bytes }) => bytes.length)).toEqual([400]);
    expect(received.map(({ length }) => length)).toEqual([20_000, 300]);
  });

  it('carries what is in pieces, and tells its own members when there is no room and when there is again', async () => {
    const { backends, fronts, link, received, calls } = await world();
    const [, b] = fronts as [NetFront, NetFront];
    b.queue.offer(60);
    await b.send(frame(macOf(1), GATEWAY, 60));
    const whole = frame(GATEWAY, macOf(1), 30_000);
    expect(link.send([whole.subarray(0, 4), whole.subarray(4, 20), whole.subarray(20)], NO_OFFLOAD)).toBe(
      true,
    );
    await backends.settle();
    expect(b.queue.received().map(({ bytes }) => bytes)).toEqual([whole]);
    let sent = 0;
    while (sent < 100 && link.send([frame(GATEWAY, macOf(1), 60_000)], NO_OFFLOAD)) sent++;
    expect(sent).toBeLessThan(100);
    expect(sent).toBeGreaterThan(14);
    expect(calls).not.toContain('room');
    await backends.settle();
    expect(calls).toContain('room');
    expect(received).toHaveLength(1);
  });

  it('finds an address where it went, and gives everything back when it closes', async () => {
    const { backends, trunk, member, link, fronts } = await world();
    const heard: number[] = [];
    trunk.join(() => ({ receive: ({ length }) => heard.push(length), settle: () => {}, room: () => {} }));
    const [a, b] = fronts as [NetFront, NetFront];
    for (const { queue } of fronts) queue.offer(20);
    await a.send(frame(macOf(0), BROADCAST_MAC, 60));
    await backends.settle();
    const lengths = ({ queue }: NetFront) => queue.received().map(({ bytes }) => bytes.length);
    expect(lengths(b)).toEqual([60]);
    link.send([frame(GATEWAY, macOf(0), 100)], NO_OFFLOAD);
    await backends.settle();
    expect([lengths(a), lengths(b)]).toEqual([[100], []]);
    // It may be elsewhere now: everybody hears it, until it says where it is.
    trunk.relearn();
    link.send([frame(GATEWAY, macOf(0), 110)], NO_OFFLOAD);
    await backends.settle();
    expect([lengths(a), lengths(b)]).toEqual([[110], []]);
    expect(heard).toEqual([60, 110]);
    await a.send(frame(macOf(0), GATEWAY, 60));
    await backends.settle();
    link.send([frame(GATEWAY, macOf(0), 120)], NO_OFFLOAD);
    await backends.settle();
    expect([lengths(a), lengths(b)]).toEqual([[120], []]);
    expect(heard).toEqual([60, 110]);
    member.close();
    const { free } = backends.machines.frames;
    const closing = trunk.close();
    await backends.settle();
    await closing;
    expect(backends.machines.frames.free).toBeGreaterThan(free + 1000);
    expect((await a.send(frame(macOf(0), GATEWAY, 100))).map(({ status }) => status)).toEqual([0]);
    expect(link.send([frame(GATEWAY, macOf(1), 100)], NO_OFFLOAD)).toBe(true);
  });
});
