import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Memory } from '../../machine/memory.ts';
import { XENSTORE_ERROR, XENSTORE_INTERFACE, XENSTORE_RING_SIZE, XS } from '../../xen/public/xs_wire.ts';
import { Connection, decodeMessages, encodeMessage } from './protocol.ts';
import { XenstoreRing } from './ring.ts';
import { TestClient } from './testing.ts';
import { toBytes, toText } from './text.ts';
import { Xenstore } from './xenstore.ts';

const PAGE = 0x4000;
const { req, rsp, req_cons, req_prod, rsp_cons, rsp_prod, connection, error, server_features } =
  XENSTORE_INTERFACE;

/** A guest's side of the ring, byte by byte. */
class Guest {
  readonly memory = Memory.create(1 << 16);
  readonly store = new Xenstore();
  readonly dom0 = new TestClient(this.store);
  readonly ring: XenstoreRing;
  notified = 0;
  private received: number[] = [];

  constructor(start = 0) {
    for (const index of [req_cons, req_prod, rsp_cons, rsp_prod]) this.set(index, start);
    this.dom0.write('/local/domain/1/data', '');
    this.dom0.ask(XS.SET_PERMS, '/local/domain/1/data\0n1\0');
    this.store.introduce(1);
    this.ring = new XenstoreRing(this.memory, PAGE, new Connection(this.store, 1), () => this.notified++);
  }

  field(offset: number): number {
    return this.memory.read32(PAGE + offset);
  }

  set(offset: number, value: number): void {
    this.memory.write32(PAGE + offset, value >>> 0);
  }

  /** Puts as much as fits. @returns how much */
  put(bytes: Uint8Array): number {
    let done = 0;
    let producer = this.field(req_prod);
    while (done < bytes.length && (producer - this.field(req_cons)) >>> 0 < XENSTORE_RING_SIZE) {
      this.memory.u8[PAGE + req + (producer % XENSTORE_RING_SIZE)] = bytes[done++]!;
      producer = (producer + 1) >>> 0;
    }
    this.set(req_prod, producer);
    return done;
  }

  /** Takes up to `max` bytes. @returns how many */
  take(max: number): number {
    let done = 0;
    let consumer = this.field(rsp_cons);
    while (done < max && consumer !== this.field(rsp_prod)) {
      this.received.push(this.memory.u8[PAGE + rsp + (consumer % XENSTORE_RING_SIZE)]!);
      consumer = (consumer + 1) >>> 0;
      done++;
    }
    this.set(rsp_cons, consumer);
    return done;
  }

  messages() {
    const { messages, rest } = decodeMessages(Uint8Array.from(this.received));
    this.received = [...rest];
    return messages;
  }
}

describe('the ring', () => {
  it('carries a request and its answer, and tells the guest', () => {
    const guest = new Guest();
    expect(guest.field(server_features)).toBe(3);
    guest.put(encodeMessage(XS.READ, 9, 0, toBytes('/tool\0')));
    guest.ring.process();
    expect(guest.notified).toBe(1);
    guest.take(10_000);
    expect(guest.messages()).toMatchObject([{ type: XS.ERROR, id: 9 }]);
    guest.ring.process();
    expect(guest.notified).toBe(1);
  });

  it('brings events without being asked', () => {
    const guest = new Guest();
    guest.put(encodeMessage(XS.WATCH, 1, 0, toBytes('data\0t\0')));
    guest.ring.process();
    guest.take(10_000);
    guest.messages();
    guest.dom0.write('/local/domain/1/data/x', '');
    expect(guest.notified).toBe(2);
    guest.take(10_000);
    expect(guest.messages().map(({ payload }) => toText(payload))).toEqual(['data/x\0t\0']);
  });

  it('loses and doubles no byte, however the two sides take turns, and over the wrap of the indices', () => {
    const turn = fc.record({ put: fc.nat({ max: 1200 }), take: fc.nat({ max: 1200 }), serve: fc.boolean() });
    const values = fc.array(fc.nat({ max: 1800 }), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(
        fc.array(turn, { maxLength: 40 }),
        values,
        fc.constantFrom(0, 1000, 0xffffff00, 0xfffffc01),
        (turns, sizes, start) => {
          const guest = new Guest(start);
          const requests = sizes.flatMap((size, index) => [
            encodeMessage(XS.WRITE, index * 2, 0, toBytes(`data/x\0${'v'.repeat(size)}`)),
            encodeMessage(XS.READ, index * 2 + 1, 0, toBytes('data/x\0')),
          ]);
          const all = toBytes(requests.map(toText).join(''));
          const got: ReturnType<Guest['messages']> = [];
          let at = 0;
          const play = (put: number, take: number, serve: boolean) => {
            at += guest.put(all.subarray(at, at + put));
            if (serve) guest.ring.process();
            guest.take(take);
            got.push(...guest.messages());
          };
          for (const { put, take, serve } of turns) play(put, take, serve);
          for (let i = 0; i < 200 && got.length < requests.length; i++) play(2000, 2000, true);
          expect(got.map(({ id }) => id)).toEqual(requests.map((_, index) => index));
          for (const [index, size] of sizes.entries()) expect(got[index * 2 + 1]!.payload.length).toBe(size);
          expect(guest.ring.error).toBe(XENSTORE_ERROR.NONE);
        },
      ),
      { numRuns: Number(process.env['PROPERTY_RUNS'] ?? 100) },
    );
  });

  it.each([
    ['request', req_prod, 1025],
    ['request', req_cons, 100],
    ['answer', rsp_cons, 5],
    ['answer', rsp_prod, 0x80000000],
  ])('ends with %s indices that cannot be', (_, field, value) => {
    const guest = new Guest();
    guest.put(encodeMessage(XS.READ, 9, 0, toBytes('data\0')));
    guest.set(field, value);
    guest.ring.process();
    guest.ring.process();
    expect(guest.field(error)).toBe(XENSTORE_ERROR.RINGIDX);
    expect(guest.ring.connection.ready).toBe(false);
    guest.dom0.write('/local/domain/1/data/x', '');
  });

  it('ends with a message that is too long, and begins anew when the guest asks for it', () => {
    const guest = new Guest();
    guest.put(encodeMessage(XS.WATCH, 1, 0, toBytes('data\0t\0')));
    guest.ring.process();
    guest.put(encodeMessage(XS.READ, 9, 0, new Uint8Array(5000)).subarray(0, 100));
    guest.ring.process();
    expect(guest.field(error)).toBe(XENSTORE_ERROR.PROTO);
    guest.put(encodeMessage(XS.READ, 9, 0, toBytes('data\0')));
    guest.ring.process();
    guest.set(connection, 1);
    guest.ring.process();
    expect([error, connection, req_prod, req_cons, rsp_prod, rsp_cons].map((it) => guest.field(it))).toEqual([
      0, 0, 0, 0, 0, 0,
    ]);
    // The watch is gone.
    guest.dom0.write('/local/domain/1/data/x', '');
    expect(guest.field(rsp_prod)).toBe(0);
    guest.put(encodeMessage(XS.READ, 10, 0, toBytes('data/x\0')));
    guest.ring.process();
    guest.take(1000);
    expect(guest.messages()).toMatchObject([{ type: XS.READ, id: 10 }]);
  });

  it('survives a page of garbage, at any moment', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 518 }), fc.nat({ max: 0xffffffff })), { maxLength: 30 }),
        (writes) => {
          const guest = new Guest();
          for (const [word, value] of writes) {
            guest.set(word * 4, value);
            guest.put(encodeMessage(XS.READ, 9, 0, toBytes('data\0')));
            guest.ring.process();
          }
          expect(guest.dom0.read('/local/domain/1/data')).toBe('');
        },
      ),
    );
  });

  it('touches nothing once it is closed', () => {
    const guest = new Guest();
    guest.put(encodeMessage(XS.WATCH, 1, 0, toBytes('data\0t\0')));
    guest.ring.process();
    guest.ring.close();
    const before = guest.memory.u8.slice(PAGE, PAGE + 4096);
    guest.dom0.write('/local/domain/1/data/x', '');
    guest.ring.process();
    expect(guest.memory.u8.slice(PAGE, PAGE + 4096)).toEqual(before);
  });
});
