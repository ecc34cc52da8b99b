/**
 * Two connections of ours with a bad network between them, in simulated time: whatever is lost, doubled, delayed or
 * reordered, the bytes come through, in order, and both ends end.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { put16 } from '../../bytes.ts';
import { TcpConnection } from './connection.ts';
import { WINDOW } from './receiver.ts';
import { parseSegment, TCP } from './segment.ts';
import { BufferBudget } from './send-buffer.ts';
import type { Clock, TcpEnd, TcpHandler, TcpLink } from './types.ts';

class SimulatedClock implements Clock {
  time = 0;
  private readonly queue: { at: number; order: number; work: () => void; cancelled: boolean }[] = [];
  private order = 0;

  now(): number {
    return this.time;
  }

  after(milliseconds: number, work: () => void): () => void {
    const entry = { at: this.time + milliseconds, order: this.order++, work, cancelled: false };
    this.queue.push(entry);
    return () => {
      entry.cancelled = true;
    };
  }

  /** @returns false: nothing will happen any more */
  step(): boolean {
    this.queue.sort((a, b) => a.at - b.at || a.order - b.order);
    const next = this.queue.shift();
    if (!next) return false;
    this.time = Math.max(this.time, next.at);
    if (!next.cancelled) next.work();
    return true;
  }

  get waiting(): number {
    return this.queue.filter(({ cancelled }) => !cancelled).length;
  }
}

interface Weather {
  loss: number;
  duplication: number;
  /** Milliseconds that a segment takes, and may take more. */
  delay: number;
  jitter: number;
  /** Chance that the link has no room. */
  full: number;
}

const CALM: Weather = { loss: 0, duplication: 0, delay: 1, jitter: 0, full: 0 };

/** Deterministic (mulberry32): one whose numbers are related to each other would lose the same segment for ever. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface EndOptions {
  /** Bytes that it sends. */
  data: Uint8Array;
  mss: number;
  tso: boolean;
  iss: number;
  /** Milliseconds that it takes to consume what came. */
  slow: number;
}

class End implements TcpHandler {
  readonly received: Uint8Array[] = [];
  ended = false;
  end: TcpEnd | null = null;
  connection!: TcpConnection;
  peer!: End;
  outstanding = 0;
  mostOutstanding = 0;
  readonly budget = new BufferBudget(1 << 30);
  private readonly net: Net;
  readonly options: EndOptions;
  private sent = 0;
  private blocked = false;

  constructor(net: Net, options: EndOptions) {
    this.net = net;
    this.options = options;
  }

  readonly link = (): TcpLink => ({
    clock: this.net.clock,
    budget: this.budget,
    mss: this.options.mss,
    tso: this.options.tso,
    send: (_connection, header, payload, mss) => {
      if (this.net.random() < this.net.weather.full) {
        if (!this.blocked) {
          this.blocked = true;
          this.net.clock.after(3, () => {
            this.blocked = false;
            this.connection.settle();
          });
        }
        return false;
      }
      this.net.carry(this.peer, header, payload, mss);
      return true;
    },
    waits: () => {},
    closed: () => {},
  });

  onEstablished(): void {
    this.more();
  }

  onRoom(): void {
    this.more();
  }

  onData(bytes: Uint8Array): void {
    this.received.push(bytes.slice());
    this.outstanding += bytes.length;
    this.mostOutstanding = Math.max(this.mostOutstanding, this.outstanding);
    const { length } = bytes;
    const consume = () => {
      this.outstanding -= length;
      this.connection.consumed(length);
    };
    if (this.options.slow === 0) consume();
    else this.net.clock.after(this.options.slow, consume);
  }

  onEnd(): void {
    this.ended = true;
  }

  onClosed(end: TcpEnd): void {
    expect(this.end).toBeNull();
    this.end = end;
  }

  private more(): void {
    const { data } = this.options;
    while (this.sent < data.length) {
      const piece = data.subarray(this.sent, this.sent + 1 + Math.floor(this.net.random() * 70_000));
      const taken = this.connection.write(piece);
      this.sent += taken;
      if (taken < piece.length) return;
    }
    this.connection.end();
  }

  get text(): Uint8Array {
    return Buffer.concat(this.received);
  }
}

class Net {
  readonly clock = new SimulatedClock();
  readonly random: () => number;
  weather: Weather;
  segments = 0;

  constructor(weather: Weather, seed: number) {
    this.weather = weather;
    this.random = generator(seed);
  }

  carry(to: End, header: Uint8Array, payload: readonly Uint8Array[], mss: number): void {
    const whole = Buffer.concat(payload);
    // Nothing goes beyond what the peer has ever offered, but for the byte that asks for more.
    const { rcvEdge, state } = (to.connection ?? {}) as unknown as { rcvEdge: number; state: string };
    const end = (new DataView(header.buffer).getUint32(4) + whole.length) >>> 0;
    if (state === 'open' && whole.length > 1) expect((end - rcvEdge) | 0).toBeLessThanOrEqual(0);
    let at = 0;
    do {
      const part = whole.subarray(at, at + mss);
      const bytes = Uint8Array.from(Buffer.concat([header, part]));
      const view = new DataView(bytes.buffer);
      view.setUint32(4, (view.getUint32(4) + at) >>> 0);
      this.segment(to, bytes);
      at += mss;
    } while (at < whole.length);
  }

  private segment(to: End, bytes: Uint8Array): void {
    const { loss, duplication, delay, jitter } = this.weather;
    this.segments++;
    const copies = this.random() < loss ? 0 : this.random() < duplication ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) {
      this.clock.after(delay + this.random() * jitter, () => {
        const segment = parseSegment(bytes)!;
        if (!to.connection) {
          if ((segment.flags & TCP.SYN) === 0) return;
          const addresses = { localAddress: 2, localPort: 80, remoteAddress: 1, remotePort: 1000 };
          to.connection = new TcpConnection(to.link(), addresses, to, to.options.iss, 'syn-received');
          to.connection.accept(segment);
        } else {
          to.connection.receive(segment);
          to.connection.settle();
        }
      });
    }
  }
}

function connect(weather: Weather, seed: number, a: Partial<EndOptions>, b: Partial<EndOptions>) {
  const net = new Net(weather, seed);
  const base = { data: new Uint8Array(0), mss: 1460, tso: false, iss: 0, slow: 0 };
  const client = new End(net, { ...base, ...a });
  const server = new End(net, { ...base, ...b });
  client.peer = server;
  server.peer = client;
  const addresses = { localAddress: 1, localPort: 1000, remoteAddress: 2, remotePort: 80 };
  client.connection = new TcpConnection(client.link(), addresses, client, client.options.iss, 'syn-sent');
  client.connection.open();
  return { net, client, server };
}

function run(net: Net, steps = 2_000_000): void {
  for (let step = 0; step < steps; step++) if (!net.clock.step()) return;
  throw new Error('it does not come to an end');
}

function bytes(length: number, seed: number): Uint8Array {
  const random = generator(seed);
  return Uint8Array.from({ length }, () => random() * 256);
}

const weather = fc.record({
  // Not so much that a handshake is likely to fail for good.
  loss: fc.double({ min: 0, max: 0.1, noNaN: true }),
  duplication: fc.double({ min: 0, max: 0.2, noNaN: true }),
  delay: fc.integer({ min: 0, max: 60 }),
  jitter: fc.integer({ min: 0, max: 40 }),
  full: fc.constantFrom(0, 0, 0.1),
});

const end = fc.record({
  length: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 3000 }), fc.integer({ min: 1, max: 150_000 })),
  mss: fc.constantFrom(100, 536, 1460, 8960),
  tso: fc.boolean(),
  // Numbers that wrap around on the way.
  iss: fc.constantFrom(0, 1, 0x7fffff00, 0xffff_ffff, 0xffff_ff00, 0xffff_0000),
  slow: fc.constantFrom(0, 0, 20, 500),
});

describe('TCP', () => {
  it('brings every byte both ways over a bad network, and both ends end', () => {
    fc.assert(
      fc.property(weather, fc.nat(), end, end, (bad, seed, a, b) => {
        const [upward, downward] = [bytes(a.length, 1), bytes(b.length, 2)];
        const { net, client, server } = connect(bad, seed, { ...a, data: upward }, { ...b, data: downward });
        run(net);
        expect(Buffer.compare(server.text, upward)).toBe(0);
        expect(Buffer.compare(client.text, downward)).toBe(0);
        expect([client.ended, server.ended]).toEqual([true, true]);
        // The very last acknowledgement may be lost for ever: then the other end has given up waiting for it.
        for (const { end } of [client, server]) expect(['done', 'timeout', 'reset']).toContain(end);
        expect(net.clock.waiting).toBe(0);
        for (const { budget } of [client, server]) expect(budget.take(1 << 30)).toBe(true);
        expect(Math.max(client.mostOutstanding, server.mostOutstanding)).toBeLessThanOrEqual(WINDOW);
      }),
      { numRuns: 60 },
    );
  });

  it('sends much at a time where the link cuts it up', () => {
    const data = bytes(8 << 20, 3);
    const { net, client, server } = connect(CALM, 1, { data, tso: true, slow: 0 }, {});
    let sends = 0;
    const { connection } = client;
    const link = (connection as unknown as { link: { send: TcpLink['send'] } }).link;
    const { send } = link;
    link.send = (...args) => {
      sends++;
      return send(...args);
    };
    run(net);
    expect(Buffer.compare(server.text, data)).toBe(0);
    expect([client.end, server.end]).toEqual(['done', 'done']);
    expect(sends).toBeLessThan(400);
    expect(net.segments).toBeLessThan((data.length / 1460) * 2);
  });

  it('waits for a reader who takes nothing, and goes on when he does', () => {
    const data = bytes(3 << 20, 4);
    const { net, client, server } = connect(CALM, 1, { data }, { slow: 300_000 });
    const most = () => server.mostOutstanding;
    while (net.clock.time < 250_000) net.clock.step();
    // As long as he takes nothing, the window does not grow.
    expect(most()).toBeGreaterThan(0x10000 - 2 * 1460);
    expect(most()).toBeLessThanOrEqual(0x10000);
    run(net);
    expect(Buffer.compare(server.text, data)).toBe(0);
    expect(client.end).toBe('done');
  });

  it('recovers from a single loss without waiting for the timer', () => {
    const data = bytes(400_000, 5);
    const { net, client, server } = connect(CALM, 1, { data }, {});
    const carry = net.carry.bind(net);
    let count = 0;
    net.carry = (to, header, payload, mss) => {
      if (payload.length > 0 && ++count === 40) return;
      carry(to, header, payload, mss);
    };
    while (!server.ended) net.clock.step();
    expect(net.clock.time).toBeLessThan(150);
    run(net);
    expect(Buffer.compare(server.text, data)).toBe(0);
    expect(client.end).toBe('done');
  });

  it('keeps one direction open after the other has ended', () => {
    const { net, client, server } = connect(CALM, 1, {}, { data: bytes(1000, 6) });
    // The client ended at once; the server's bytes come all the same.
    run(net);
    expect(client.text.length).toBe(1000);
    expect([client.end, server.end]).toEqual(['done', 'done']);
  });

  it('gives up a peer that is silent', () => {
    const { net, client } = connect({ ...CALM, loss: 1 }, 1, {}, {});
    run(net);
    expect(client.end).toBe('timeout');

    const second = connect(CALM, 1, { data: bytes(100_000, 7) }, {});
    while (second.server.received.length < 10) second.net.clock.step();
    second.net.weather = { ...CALM, loss: 1 };
    run(second.net);
    expect(second.client.end).toBe('timeout');
    expect(second.net.clock.time).toBeGreaterThan(300_000);
  });

  it('believes a reset only if it is exact, and nothing that acknowledges what was never sent', () => {
    const { net, client, server } = connect(CALM, 1, { data: bytes(10, 8) }, { data: bytes(5_000_000, 9) });
    while (client.received.length < 5) net.clock.step();
    const segmentOf = (seq: number, flags: number, ack = 0) => {
      const raw = new Uint8Array(20);
      const view = new DataView(raw.buffer);
      view.setUint32(4, seq >>> 0);
      view.setUint32(8, ack >>> 0);
      raw[12] = 0x50;
      raw[13] = flags;
      put16(raw, 14, 1000);
      return parseSegment(raw)!;
    };
    const { next: rcvNxt } = (client.connection as unknown as { receiver: { next: number } }).receiver;
    for (const offset of [-1000, -1, 1, 1000, 2 ** 30]) {
      client.connection.receive(segmentOf(rcvNxt + offset, TCP.RST));
      client.connection.receive(segmentOf(rcvNxt + offset, TCP.SYN));
    }
    client.connection.receive(segmentOf(rcvNxt, TCP.ACK, 12345678));
    client.connection.settle();
    expect(client.end).toBeNull();
    client.connection.receive(segmentOf(rcvNxt, TCP.RST));
    expect(client.end).toBe('reset');
    expect(server.end).toBeNull();
  });

  it('survives any segment whatever', () => {
    const raw = fc.uint8Array({ maxLength: 60 });
    const near = fc.record({
      seq: fc.oneof(fc.integer({ min: -3000, max: 3000 }), fc.integer()),
      ack: fc.oneof(fc.integer({ min: -3000, max: 3000 }), fc.integer()),
      flags: fc.nat(63),
      window: fc.nat(0xffff),
      payload: fc.uint8Array({ maxLength: 50 }),
    });
    fc.assert(
      fc.property(fc.array(fc.oneof(raw, near), { maxLength: 60 }), fc.boolean(), (segments, open) => {
        const { net, client } = connect(CALM, 1, { data: bytes(2000, 10) }, {});
        if (open) while (client.connection.state === 'syn-sent') net.clock.step();
        for (const each of segments) {
          const state = client.connection as unknown as { receiver: { next: number }; nxt: number };
          const segment =
            each instanceof Uint8Array
              ? parseSegment(each)
              : {
                  ...{ sourcePort: 80, destinationPort: 1000, mss: 0, scale: -1 },
                  ...each,
                  seq: (state.receiver.next + each.seq) >>> 0,
                  ack: (state.nxt + each.ack) >>> 0,
                };
          if (!segment) continue;
          client.connection.receive(segment);
          client.connection.settle();
        }
        client.connection.abort();
        net.weather = { ...CALM, loss: 1 };
        run(net, 100_000);
        expect(client.connection.state).toBe('closed');
      }),
      { numRuns: 60 },
    );
  });
});
