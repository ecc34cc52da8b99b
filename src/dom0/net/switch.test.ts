/** The parts of a switch by themselves: bridge, rate, and an uplink that several domains share. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Memory } from '../../machine/memory.ts';
import { putMac } from './addresses.ts';
import { Bridge, type BridgePort } from './bridge.ts';
import { Filter, type Pattern, RuleError } from './filter.ts';
import { NO_OFFLOAD } from './offload.ts';
import { Packet } from './packet.ts';
import { RateLimit } from './rate-limit.ts';

const memory = Memory.create(1 << 20);

function packet(from: number, to: number): Packet {
  const made = new Packet(memory);
  made.clear(NO_OFFLOAD);
  putMac(memory.u8, 4096, to);
  putMac(memory.u8, 4102, from);
  made.add(4096, 60);
  return made;
}

class Port implements BridgePort {
  count = 0;
  deliver() {
    this.count++;
    return 'taken' as const;
  }
}

describe('a learning bridge', () => {
  it('forgets where somebody was after five minutes, and what he who left had', () => {
    const bridge = new Bridge('br');
    const [a, b, c] = [new Port(), new Port(), new Port()];
    for (const port of [a, b, c]) bridge.attach(port);
    bridge.forward(b, packet(2, 99), 0, null);
    const counts = () => [a, b, c].map((port) => port.count);
    const before = counts();
    bridge.forward(a, packet(1, 2), 299e9, null);
    expect(counts()).toEqual([before[0], before[1]! + 1, before[2]]);
    bridge.forward(a, packet(1, 2), 301e9, null);
    expect(counts()).toEqual([before[0], before[1]! + 2, before[2]! + 1]);
    bridge.forward(b, packet(2, 1), 302e9, null);
    bridge.detach(b);
    expect(bridge.portOf(2, 302e9)).toBeNull();
    expect(bridge.forward(a, packet(1, 1), 303e9, null)).toBe('dropped');
  });

  it('follows an address that moves', () => {
    const bridge = new Bridge('br');
    const [a, b] = [new Port(), new Port()];
    bridge.attach(a);
    bridge.attach(b);
    bridge.forward(a, packet(5, 9), 0, null);
    bridge.forward(b, packet(5, 9), 1, null);
    expect(bridge.portOf(5, 1)).toBe(b);
  });

  it('remembers so many addresses and no more, and never that of a group', () => {
    const bridge = new Bridge('br');
    const port = new Port();
    bridge.attach(port);
    for (let mac = 0; mac < 10_000; mac++) bridge.forward(port, packet(mac * 4, 9), mac, null);
    bridge.forward(port, packet(0x0100_5e00_0001, 9), 0, null);
    expect(bridge.portOf(0x0100_5e00_0001, 0)).toBeNull();
    expect(bridge.portOf(0, 0)).toBeNull();
    expect(bridge.portOf(9_999 * 4, 9_999)).toBe(port);
  });
});

describe('a rate', () => {
  it('is kept over any long time, whatever the packets', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 1_000_000 }),
        fc.integer({ min: 1000, max: 100_000_000 }),
        fc.array(fc.integer({ min: 14, max: 65_535 }), { minLength: 200, maxLength: 400 }),
        (bytes, interval, lengths) => {
          const rate = new RateLimit(bytes, interval, 0);
          let now = 0;
          let sent = 0;
          for (const length of lengths) {
            for (let again = rate.take(length, now); again > 0; again = rate.take(length, now)) {
              expect(again).toBeGreaterThan(now);
              now = again;
            }
            sent += length;
          }
          const allowed = (now / interval + 1) * bytes;
          expect(sent).toBeLessThanOrEqual(allowed + Math.max(bytes, 131_072));
          // And not much slower than that, if he always wants to send.
          const least = (now / interval) * bytes - Math.max(bytes, 131_072);
          expect(sent).toBeGreaterThanOrEqual(Math.min(least, sent));
        },
      ),
    );
  });

  it('lets a second of it through in a second', () => {
    const rate = new RateLimit(62_500, 50e6, 0);
    let now = 0;
    let sent = 0;
    while (now < 10e9) {
      const later = rate.take(1514, now);
      if (later > 0) now = later;
      else sent += 1514;
    }
    expect(sent).toBeGreaterThan(0.98 * 12.5e6);
    expect(sent).toBeLessThan(1.02 * 12.5e6);
  });
});

describe('rules that make no sense', () => {
  it.each<Pattern>([
    { sourceIp: '10.0.0.256' },
    { destinationIp: { not: ['10.0.0.0/33'] } },
    { sourceMac: 'x' },
    { protocol: 'tcp' as unknown as number },
  ])('are refused: %j', (pattern) => {
    expect(() => new Filter([{ pattern, action: 'drop' }])).toThrow(RuleError);
  });
});
