import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { NETIF_RSP, NETRXF, NETTXF, XEN_NETIF_EXTRA_TYPE } from '../../xen/public/io/netif.ts';
import { XenbusState } from '../../xen/public/io/xenbus.ts';
import { type TestBackends, testBackends } from '../backend/testing.ts';
import { parseIpv4, parseMac, putMac } from './addresses.ts';
import { get16, get32, put16, put32 } from './bytes.ts';
import { fold, sum } from './checksum.ts';
import { networkPlanes } from './networks.ts';
import { NetFront } from './testing-netfront.ts';
import { type VifDescription, VirtualInterface } from './vif.ts';

const MACS = ['00:16:3e:00:00:01', '00:16:3e:00:00:02', '00:16:3e:00:00:03'] as const;
const IPS = ['10.0.0.1', '10.0.0.2', '10.0.0.3'] as const;
const FULL = {
  'feature-sg': 1,
  'feature-gso-tcpv4': 1,
  'feature-gso-tcpv6': 1,
  'feature-ipv6-csum-offload': 1,
};

interface World {
  backends: TestBackends;
  fronts: NetFront[];
  vifs: VirtualInterface[];
  errors: string[];
}

async function world({
  domains = 2,
  descriptions = [] as Partial<VifDescription>[],
  features = [] as Record<string, number>[],
  queues = 1,
  connect = true,
} = {}): Promise<World> {
  const backends: TestBackends = testBackends(
    Object.fromEntries(networkPlanesOf(() => backends).map(([kind, factory]) => [kind, factory] as const)),
    { domains, pages: 64, maxPages: 96, megabytes: 24 },
  );
  const errors: string[] = [];
  const fronts: NetFront[] = [];
  const vifs: VirtualInterface[] = [];
  for (const [index, guest] of backends.machines.domains.entries()) {
    vifs.push(
      new VirtualInterface(
        { planes: backends.opener, store: backends.store },
        {
          domid: guest.domain.id,
          devid: 0,
          mac: MACS[index]!,
          bridge: 'br0',
          ips: [],
          rules: [],
          rate: null,
          mtu: 1500,
          vifname: null,
          onError: (error) => errors.push(error.message),
          ...descriptions[index],
        },
      ),
    );
    const front = new NetFront(backends, guest, { queues });
    fronts.push(front);
    if (connect) expect(await front.connect(features[index] ?? FULL)).toBe(XenbusState.Connected);
  }
  return { backends, fronts, vifs, errors };
}

/** The factories need the memory of the machine, which the test's back ends make. */
function networkPlanesOf(backends: () => TestBackends) {
  let made: ReturnType<typeof networkPlanes> | null = null;
  const planes = () => {
    const { memory, frames } = backends().machines;
    made ??= networkPlanes(memory, frames);
    return new Map(made);
  };
  return ['vif', 'uplink'].map(
    (kind) =>
      [
        kind,
        (...parts: Parameters<ReturnType<typeof networkPlanes>[0][1]>) => planes().get(kind)!(...parts),
      ] as const,
  );
}

function ethernet(from: number, to: number | 'all', type: number, payload: Uint8Array): Uint8Array {
  const frame = new Uint8Array(14 + payload.length);
  putMac(frame, 0, to === 'all' ? 0xffff_ffff_ffff : parseMac(MACS[to]!)!);
  putMac(frame, 6, parseMac(MACS[from]!)!);
  put16(frame, 12, type);
  frame.set(payload, 14);
  return frame;
}

/** A TCP segment whose checksum is blank. */
function tcp(
  from: number,
  to: number,
  payload: Uint8Array,
  { flags = 0x18, ip = IPS[from]! as string } = {},
): Uint8Array {
  const packet = new Uint8Array(40 + payload.length);
  put16(packet, 0, 0x4500);
  put16(packet, 2, packet.length);
  put16(packet, 4, 0x1111);
  packet[8] = 64;
  packet[9] = 6;
  put32(packet, 12, parseIpv4(ip)!);
  put32(packet, 16, parseIpv4(IPS[to]!)!);
  put16(packet, 10, ~fold(sum(packet, 0, 20)) & 0xffff);
  put16(packet, 20, 1000);
  put16(packet, 22, 80);
  put32(packet, 24, 0xffff_ff00);
  packet[32] = 0x50;
  packet[33] = flags;
  put16(packet, 36, fold(sum(packet, 12, 20, 6 + packet.length - 20)));
  packet.set(payload, 40);
  return ethernet(from, to, 0x0800, packet);
}

const noise = (length: number, seed = 1) =>
  Uint8Array.from({ length }, (_, index) => (index * 31 + (index >>> 8) * 7 + seed * 101) & 0xff);

/** Teaches the bridge where everybody is. */
async function hello({ fronts }: World): Promise<void> {
  for (const [index, front] of fronts.entries())
    await front.send(ethernet(index, 'all', 0x88b5, new Uint8Array(46)));
  for (const front of fronts) for (const queue of front.queues) queue.received();
}

describe('two guests on a bridge', () => {
  it('floods what nobody knows, and then knows', async () => {
    const three = await world({ domains: 3 });
    const [a, b, c] = three.fronts as [NetFront, NetFront, NetFront];
    for (const front of three.fronts) front.queue.offer(20);
    const first = ethernet(0, 1, 0x88b5, noise(100));
    expect(await a.send(first)).toEqual([{ id: 0, status: NETIF_RSP.OKAY }]);
    expect(b.queue.received().map(({ bytes }) => bytes)).toEqual([first]);
    expect(c.queue.received()).toHaveLength(1);
    await b.send(ethernet(1, 0, 0x88b5, noise(100)));
    expect(a.queue.received()).toHaveLength(1);
    expect(c.queue.received()).toHaveLength(0);
    await a.send(ethernet(0, 'all', 0x88b5, noise(60)));
    expect([a, b, c].map((front) => front.queue.received().length)).toEqual([0, 1, 1]);
  });

  it('carries packets of every length and shape', async () => {
    const two = await world();
    const [a, b] = two.fronts as [NetFront, NetFront];
    b.queue.offer(24);
    a.queue.offer(4);
    await hello(two);
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 60, max: 40_000 }),
        fc.integer({ min: 0, max: 300 }),
        fc.constantFrom(4096, 4096, 2500),
        async (length, offset, most) => {
          const frame = ethernet(0, 1, 0x88b5, noise(length - 14, length));
          const parts = Math.ceil(length / Math.min(most, 4096 - offset));
          fc.pre(parts <= 17);
          const answers = await a.send(frame, { offset, most });
          expect(answers.map(({ status }) => status)).toEqual(Array(parts).fill(NETIF_RSP.OKAY));
          const got = b.queue.received();
          expect(got).toHaveLength(1);
          expect(Buffer.compare(got[0]!.bytes, frame)).toBe(0);
          b.queue.offer(got[0]!.pieces.length);
          await two.backends.settle();
        },
      ),
      { numRuns: 60 },
    );
  });

  it('hands on checksums and segments that are left to do', async () => {
    const two = await world();
    const [a, b] = two.fronts as [NetFront, NetFront];
    b.queue.offer(24);
    await hello(two);
    const frame = tcp(0, 1, noise(20_000));
    const answers = await a.send(frame, { flags: NETTXF.csum_blank | NETTXF.data_validated, gsoSize: 1448 });
    expect(answers.map(({ status }) => status)).toEqual([0, NETIF_RSP.NULL, 0, 0, 0, 0]);
    const [got] = b.queue.received();
    expect(got).toMatchObject({ gsoSize: 1448, gsoType: 1 });
    expect(got!.flags & (NETRXF.csum_blank | NETRXF.data_validated)).toBe(3);
    expect(Buffer.compare(got!.bytes, frame)).toBe(0);
  });

  it('does them for a front end that cannot', async () => {
    const two = await world({ features: [FULL, { 'feature-no-csum-offload': 1 }] });
    const [a, b] = two.fronts as [NetFront, NetFront];
    b.queue.offer(24);
    await hello(two);
    const data = noise(20_000);
    // FIN, PSH, ACK and CWR.
    await a.send(tcp(0, 1, data, { flags: 0x99 }), { flags: NETTXF.csum_blank, gsoSize: 1448 });
    const segments = b.queue.received();
    expect(segments).toHaveLength(Math.ceil(20_000 / 1448));
    const joined: number[] = [];
    for (const [index, { bytes, flags, gsoSize, pieces }] of segments.entries()) {
      const last = index === segments.length - 1;
      expect([gsoSize, flags & NETRXF.csum_blank, pieces.length]).toEqual([0, 0, 1]);
      const ip = bytes.subarray(14);
      expect(get16(ip, 2)).toBe(ip.length);
      expect(get16(ip, 4)).toBe(0x1111 + index);
      expect(fold(sum(ip, 0, 20))).toBe(0xffff);
      expect(fold(sum(ip, 12, ip.length, 6 + ip.length - 20))).toBe(0xffff);
      expect(get32(ip, 24)).toBe((0xffff_ff00 + index * 1448) >>> 0);
      expect(ip[33]).toBe(0x10 | (last ? 0x09 : 0) | (index === 0 ? 0x80 : 0));
      joined.push(...ip.subarray(40));
    }
    expect(Buffer.compare(Uint8Array.from(joined), data)).toBe(0);
    // A blank checksum alone.
    b.queue.offer(20);
    await a.send(tcp(0, 1, noise(99)), { flags: NETTXF.csum_blank });
    const [whole] = b.queue.received();
    expect(fold(sum(whole!.bytes, 26, whole!.bytes.length, 6 + 20 + 99))).toBe(0xffff);
  });

  it('uses the queue of a flow', async () => {
    const two = await world({ queues: 3 });
    const [a, b] = two.fronts as [NetFront, NetFront];
    for (const queue of b.queues) queue.offer(8);
    await hello(two);
    for (let port = 0; port < 24; port++) {
      const frame = tcp(0, 1, noise(10));
      put16(frame, 34, 2000 + port);
      await a.send(frame, {}, a.queues[port % 3]!);
      await a.send(frame, {}, a.queues[port % 3]!);
      const counts = b.queues.map((queue) => queue.received().length);
      expect(counts.sort()).toEqual([0, 0, 2]);
      for (const [index, queue] of b.queues.entries()) if (counts[index]) queue.offer(0);
      for (const queue of b.queues) if (queue.rxProduced < 60) queue.offer(2);
    }
  });

  it('keeps what a guest has no room for, up to a limit', async () => {
    const two = await world();
    const [a, b] = two.fronts as [NetFront, NetFront];
    a.queue.offer(2);
    await hello(two);
    b.queue.received();
    const frame = (index: number) => ethernet(0, 1, 0x88b5, noise(9000, index));
    for (let index = 0; index < 200; index++)
      expect((await a.send(frame(index))).every(({ status }) => status === NETIF_RSP.OKAY)).toBe(true);
    const got: Uint8Array[] = [];
    for (let turn = 0; turn < 60; turn++) {
      b.queue.offer(20);
      await two.backends.settle();
      got.push(...b.queue.received().map(({ bytes }) => bytes));
    }
    // A ring of frames: about 1 MiB, after what hello() left.
    const kept = got.filter((bytes) => bytes.length === 9014);
    expect(kept.length).toBeGreaterThan(100);
    expect(kept.length).toBeLessThan(120);
    for (const [index, bytes] of kept.entries()) expect(Buffer.compare(bytes, frame(index))).toBe(0);
  });

  it('is signalled for answers only if it did not come upon them by itself', async () => {
    const two = await world();
    const [a, b] = two.fronts as [NetFront, NetFront];
    b.queue.offer(24);
    await hello(two);
    const signals = vi.spyOn(a.guest.domain.events, 'notifyFromDom0');
    const parts = a.place(ethernet(0, 1, 0x88b5, noise(80)));
    // As Linux does: it looks for answers after each packet, and then waits for the next one.
    const looks = () => {
      const answers = a.queue.txAnswers().length;
      a.queue.waitForAnswer();
      return answers;
    };
    looks();
    for (let count = 0; count < 20; count++) {
      a.queue.push(parts);
      a.queue.kick();
      expect(looks()).toBe(1);
    }
    await two.backends.settle();
    expect(signals).not.toHaveBeenCalled();
    a.queue.push(parts);
    a.queue.push(parts);
    a.queue.kick();
    await two.backends.settle();
    expect(signals).toHaveBeenCalledTimes(1);
    expect(looks()).toBe(2);
  });

  it('counts', async () => {
    const two = await world();
    const [a, b] = two.fronts as [NetFront, NetFront];
    b.queue.offer(4);
    await a.send(ethernet(0, 1, 0x88b5, noise(86)));
    await a.send(tcp(1, 0, noise(10)));
    const asked = Promise.all(two.vifs.map((vif) => vif.statistics()));
    await two.backends.settle();
    expect(await asked).toEqual([
      { txPackets: 1, txBytes: 100, txDropped: 1, rxPackets: 0, rxBytes: 0, rxDropped: 0 },
      { txPackets: 0, txBytes: 0, txDropped: 0, rxPackets: 1, rxBytes: 100, rxDropped: 0 },
    ]);
  });
});

describe('rules', () => {
  const cases: [string, (frame: Uint8Array) => void, boolean][] = [
    ['its own addresses', () => {}, true],
    ['the MAC of another', (frame) => putMac(frame, 6, parseMac(MACS[1])!), false],
    ['the IP of another', (frame) => put32(frame, 26, parseIpv4(IPS[1])!), false],
    ['no IP, though not for DHCP', (frame) => put32(frame, 26, 0), false],
    ['a VLAN tag, which would hide the rest', (frame) => put16(frame, 12, 0x8100), false],
    ['IPv6', (frame) => put16(frame, 12, 0x86dd), false],
  ];

  it.each(cases)('a guest with ip= sends with %s', async (_name, change, passes) => {
    const two = await world({ descriptions: [{ ips: ['10.0.0.1', '10.0.0.9'] }] });
    const [a, b] = two.fronts as [NetFront, NetFront];
    b.queue.offer(4);
    const frame = tcp(0, 1, noise(10));
    change(frame);
    expect(await a.send(frame)).toEqual([{ id: 0, status: passes ? NETIF_RSP.OKAY : NETIF_RSP.DROPPED }]);
    expect(b.queue.received()).toHaveLength(passes ? 1 : 0);
  });

  it.each([
    ['its own', MACS[0], '10.0.0.1', true],
    ["another's MAC inside", MACS[1], '10.0.0.1', false],
    ["another's IP", MACS[0], '10.0.0.2', false],
    ['a probe', MACS[0], '0.0.0.0', true],
  ])('ARP: %s', async (_name, mac, ip, passes) => {
    const two = await world({ descriptions: [{ ips: ['10.0.0.1'] }] });
    const [a, b] = two.fronts as [NetFront, NetFront];
    b.queue.offer(4);
    const arp = new Uint8Array(28);
    arp.set([0, 1, 8, 0, 6, 4, 0, 2]);
    putMac(arp, 8, parseMac(mac)!);
    put32(arp, 14, parseIpv4(ip)!);
    await a.send(ethernet(0, 'all', 0x0806, arp));
    expect(b.queue.received()).toHaveLength(passes ? 1 : 0);
  });

  it('of its own: pattern and action, the first that matches', async () => {
    const rules = [
      {
        pattern: { direction: 'out', protocol: 6, destinationPort: 80, destinationIp: '10.0.0.0/30' },
        action: 'accept',
      },
      { pattern: { direction: 'out', protocol: [6, 17] }, action: 'drop' },
    ] as const;
    const two = await world({ descriptions: [{ rules }] });
    const [a, b] = two.fronts as [NetFront, NetFront];
    b.queue.offer(4);
    await a.send(tcp(0, 1, noise(10)));
    const other = tcp(0, 1, noise(10));
    put16(other, 36, 81);
    await a.send(other);
    await a.send(ethernet(0, 1, 0x88b5, noise(50)));
    expect(b.queue.received()).toHaveLength(2);
  });

  it('groups: only those that a guest asked for, if it controls that', async () => {
    const two = await world({ features: [FULL, { ...FULL, 'request-multicast-control': 1 }] });
    const [a, b] = two.fronts as [NetFront, NetFront];
    b.queue.offer(8);
    const group = [0x33, 0x33, 0, 0, 0, 1];
    const frame = ethernet(0, 'all', 0x86dd, noise(60));
    const some = frame.slice();
    some.set(group);
    await a.send(frame);
    await a.send(some);
    expect(b.queue.received()).toHaveLength(1);
    b.queue.request(0, 0, NETTXF.extra_info, 0);
    b.queue.extra(XEN_NETIF_EXTRA_TYPE.MCAST_ADD, group);
    b.queue.kick();
    await two.backends.settle();
    expect(b.queue.txAnswers().map(({ status }) => status)).toEqual([NETIF_RSP.OKAY, NETIF_RSP.NULL]);
    await a.send(some);
    expect(b.queue.received()).toHaveLength(1);
  });
});

describe('a hostile guest', () => {
  /** Its interface is closed, and the others know nothing of it. */
  async function broken({ backends, fronts, errors }: World, reason: RegExp): Promise<void> {
    await backends.settle();
    expect(errors).toEqual([expect.stringMatching(reason)]);
    expect(fronts[0]!.state).toBe(XenbusState.Closing);
    const [, b, c] = fronts as [NetFront, NetFront, NetFront];
    for (const front of [b, c]) front.queue.offer(4);
    const frame = ethernet(1, 2, 0x88b5, noise(80));
    await b.send(frame);
    expect(c.queue.received().at(-1)!.bytes).toEqual(frame);
  }

  it.each([
    ['an index far ahead', (a: NetFront) => a.queue.setTxProduced(300), /300 requests in a ring of 256/],
    ['an index that goes back', (a: NetFront) => a.queue.setTxProduced(0xffff_ffff), /requests in a ring/],
    [
      'a packet without its end',
      (a: NetFront) => {
        a.queue.request(200, 0, NETTXF.more_data, 100);
        a.queue.kick();
      },
      /without its end/,
    ],
    [
      'extra infos without their end',
      (a: NetFront) => {
        a.queue.request(200, 0, NETTXF.extra_info, 100);
        a.queue.extra(1, [100, 0, 1], true);
        a.queue.kick();
      },
      /without their end/,
    ],
    [
      'an unknown extra info',
      (a: NetFront) => {
        a.queue.request(200, 0, NETTXF.extra_info, 100);
        a.queue.extra(9, []);
        a.queue.kick();
      },
      /extra info of type 9/,
    ],
    [
      'segments of no size',
      (a: NetFront) => {
        a.queue.request(200, 0, NETTXF.extra_info, 100);
        a.queue.extra(1, [0, 0, 1]);
        a.queue.kick();
      },
      /segments of kind 1 and size 0/,
    ],
    [
      'a packet of too many requests',
      (a: NetFront) => {
        for (let count = 0; count < 25; count++) a.queue.request(200, 0, NETTXF.more_data, count ? 10 : 500);
        a.queue.kick();
      },
      /too many requests/,
    ],
  ] as const)('with %s loses its interface', async (_name, work, reason) => {
    const three = await world({ domains: 3 });
    work(three.fronts[0]!);
    await broken(three, reason);
  });

  it('with a receive ring that cannot be loses its interface when something comes', async () => {
    const three = await world({ domains: 3 });
    three.fronts[0]!.queue.setRxProduced(1000);
    await three.fronts[1]!.send(ethernet(1, 'all', 0x88b5, noise(60)));
    await broken(three, /1000 requests in a ring of 256/);
  });

  it.each([
    ['a reference that is none', { page: 0, offset: 0, length: 100, ref: 99_999 }],
    ['beyond the page', { page: 0, offset: 4090, length: 100 }],
    ['shorter than a header', { page: 0, offset: 0, length: 13 }],
  ])('with %s gets an error and goes on', async (_name, part) => {
    const two = await world();
    const [a, b] = two.fronts as [NetFront, NetFront];
    b.queue.offer(4);
    a.queue.push([part]);
    a.queue.kick();
    await two.backends.settle();
    expect(a.queue.txAnswers()).toEqual([{ id: 0, status: NETIF_RSP.ERROR }]);
    expect(await a.send(ethernet(0, 1, 0x88b5, noise(80)))).toEqual([{ id: 1, status: NETIF_RSP.OKAY }]);
    expect(b.queue.received()).toHaveLength(1);
  });

  it('with fragments longer than the whole gets an error', async () => {
    const { backends, fronts } = await world();
    const { queue } = fronts[0]!;
    queue.request(200, 0, NETTXF.more_data, 100);
    queue.request(201, 0, 0, 101);
    queue.kick();
    await backends.settle();
    expect(queue.txAnswers().map(({ status }) => status)).toEqual([NETIF_RSP.ERROR, NETIF_RSP.ERROR]);
  });

  it('that offers pages which are not to be written gets errors in their place', async () => {
    const two = await world();
    const [a, b] = two.fronts as [NetFront, NetFront];
    const { queue } = b;
    queue.offer(2);
    two.backends.machines.memory.write32(queue.rxEntry(0) + 4, 99_999);
    await a.send(ethernet(0, 1, 0x88b5, noise(80)));
    await a.send(ethernet(0, 1, 0x88b5, noise(80)));
    expect(queue.received().map(({ failed }) => failed)).toEqual([true, false]);
  });

  it.each([
    [{ 'request-rx-copy': 0 }, 'wants pages exchanged'],
    [{ 'multi-queue-num-queues': 9 }, 'multi-queue-num-queues is 9'],
    [{ 'multi-queue-num-queues': 0 }, 'multi-queue-num-queues is 0'],
    [{ 'multi-queue-num-queues': 2 }, 'queue-0/event-channel is missing'],
    [{ 'tx-ring-ref': 'x' }, 'tx-ring-ref is x'],
    [{ 'tx-ring-ref': 4000 }, "a ring's page cannot be mapped"],
    [{ 'event-channel': 77 }, 'an event channel of the front end is not there'],
  ])('that publishes %j is not connected', async (nodes, reason) => {
    const { backends, fronts } = await world({ connect: false });
    const [a] = fronts as [NetFront];
    expect(await a.connect(nodes as Record<string, number>)).toBe(XenbusState.Closing);
    const error = backends.store.read(`/local/domain/0/error/backend/vif/${a.guest.domain.id}/0/error`);
    expect(error).toContain(reason);
  });

  it('that writes anything into its rings harms nobody', async () => {
    const near = fc.record({
      gref: fc.constantFrom(200, 201, 300, 0, 100, 99_999),
      offset: fc.constantFrom(0, 1, 4000, 4096, 65_535),
      flags: fc.nat(31),
      size: fc.constantFrom(0, 1, 14, 60, 4096, 9000, 65_535),
      first: fc.nat(12),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(near, { maxLength: 60 }), fc.nat(), async (requests, claimed) => {
        const three = await world({ domains: 3 });
        const [a, b, c] = three.fronts as [NetFront, NetFront, NetFront];
        for (const front of [b, c]) front.queue.offer(24);
        a.place(ethernet(0, 1, 0x88b5, noise(8000)));
        const { memory } = three.backends.machines;
        for (const { gref, offset, flags, size, first } of requests) {
          const at = a.queue.txEntry(a.queue.txProduced);
          a.queue.request(gref, offset, flags, size);
          if (first < 6) memory.u8[at] = first;
        }
        a.queue.kick();
        await three.backends.settle();
        if (claimed % 2) a.queue.setTxProduced(claimed >>> 0);
        await three.backends.settle();
        for (const front of [b, c]) front.queue.received();
        for (const front of [b, c]) if (front.queue.rxProduced < 200) front.queue.offer(24);
        await three.backends.settle();
        c.queue.received();
        await b.send(ethernet(1, 'all', 0x88b5, noise(80)));
        expect(c.queue.received().some(({ bytes }) => bytes.length === 94)).toBe(true);
        expect(three.errors.length).toBeLessThanOrEqual(1);
      }),
      { numRuns: 40 },
    );
  });

  it('that is destroyed leaves nothing behind', async () => {
    const two = await world();
    const [a, b] = two.fronts as [NetFront, NetFront];
    const { frames, hypervisor } = two.backends.machines;
    const free = frames.free;
    for (let index = 0; index < 20; index++) await a.send(ethernet(0, 1, 0x88b5, noise(9000)));
    // What was kept for b takes memory as long as b is there.
    expect(frames.free).toBeLessThan(free);
    const { id } = b.guest.domain;
    two.backends.planes.domainGone(id);
    hypervisor.destroyDomain(hypervisor.domain(id)!);
    await two.backends.settle();
    await two.vifs[1]!.device.remove();
    expect(frames.free).toBeGreaterThan(free);
    expect((await a.send(ethernet(0, 1, 0x88b5, noise(90)))).map(({ status }) => status)).toEqual([
      NETIF_RSP.OKAY,
    ]);
  });
});
