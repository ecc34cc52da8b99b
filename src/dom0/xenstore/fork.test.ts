import { describe, expect, it } from 'vitest';
import { XS } from '../../xen/public/xs_wire.ts';
import { XenstoreClient } from './client.ts';
import { type Permission, Right } from './permissions.ts';
import { Connection, decodeMessages, encodeMessage, payloadStrings } from './protocol.ts';
import { TestClient } from './testing.ts';
import { toBytes, toText } from './text.ts';
import { Xenstore } from './xenstore.ts';

/** Two domains with a node each; the second is to be a fork of the first. */
function setUp() {
  const store = new Xenstore();
  const dom0 = new XenstoreClient(store);
  for (const domid of [1, 2]) {
    const readable: Permission[] = [
      { domid: 0, rights: Right.none },
      { domid, rights: Right.read },
    ];
    dom0.mkdir(`/local/domain/${domid}`, readable);
    dom0.write(`/local/domain/${domid}/cpu`, `of ${domid}`, readable);
    store.introduce(domid);
  }
  return { dom0, guest: new TestClient(store, 1) };
}

const messagesOf = (connection: Connection) => decodeMessages(connection.take(1 << 20)).messages;
const events = (connection: Connection) =>
  messagesOf(connection).map(({ payload }) => payloadStrings(payload).join(' '));

describe('the connection of a fork', () => {
  it('has the watches of the other, on nodes of its own, and they work', () => {
    const { dom0, guest } = setUp();
    guest.ask(XS.WATCH, 'cpu\0token\0');
    guest.take();
    const fork = Connection.of(guest.connection.store, 2, guest.connection.state());
    let outputs = 0;
    fork.onOutput = () => outputs++;
    expect(events(fork)).toEqual([]);
    dom0.write('/local/domain/2/cpu', 'off');
    expect(outputs).toBe(1);
    expect(events(fork)).toEqual(['cpu token']);
    guest.events.length = 0;
    expect(guest.takeEvents()).toEqual([]);
    dom0.write('/local/domain/1/cpu', 'off');
    expect(events(fork)).toEqual([]);
    expect(guest.takeEvents()).toEqual(['cpu token']);
  });

  it('has the bytes that were on their way, both ways', () => {
    const { guest } = setUp();
    const { connection } = guest;
    const request = encodeMessage(XS.READ, 7, 0, toBytes('cpu\0'));
    connection.receive(encodeMessage(XS.READ, 6, 0, toBytes('cpu\0')));
    const before = connection.take(5);
    connection.receive(request.subarray(0, 10));
    const fork = Connection.of(connection.store, 2, connection.state());
    const rest = fork.take(1 << 20);
    const [answer] = decodeMessages(Uint8Array.of(...before, ...rest)).messages;
    // That one was answered for the first domain, before the fork.
    expect([answer!.id, toText(answer!.payload)]).toEqual([6, 'of 1']);
    fork.receive(request.subarray(10));
    expect(messagesOf(fork).map(({ id, payload }) => [id, toText(payload)])).toEqual([[7, 'of 2']]);
    expect(decodeMessages(Uint8Array.of(...before, ...connection.take(1 << 20))).messages).toHaveLength(1);
  });

  it('may name its own nodes, and those of its back ends, by the number that the other has', () => {
    const { dom0, guest } = setUp();
    const backEnd = (domid: number) => `/local/domain/0/backend/vbd/${domid}/51712/state`;
    for (const domid of [1, 2])
      dom0.write(backEnd(domid), `of ${domid}`, [
        { domid: 0, rights: Right.none },
        { domid, rights: Right.read },
      ]);
    guest.ask(XS.WATCH, `${backEnd(1)}\0back\0`);
    guest.ask(XS.WATCH, '/local/domain/1/cpu\0own\0');
    guest.take();
    let fork = Connection.of(guest.connection.store, 2, guest.connection.state());
    // Watches are kept as they were given, by a fork of the fork too.
    expect(fork.state().watches).toEqual([
      [backEnd(1), 'back'],
      ['/local/domain/1/cpu', 'own'],
    ]);
    expect(fork.state().domids).toEqual([1, 2]);
    fork = Connection.of(guest.connection.store, 2, fork.state());
    const ask = (type: number, text: string) => {
      fork.receive(encodeMessage(type, 1, 0, toBytes(text)));
      return toText(messagesOf(fork)[0]!.payload);
    };
    expect(ask(XS.READ, `${backEnd(1)}\0`)).toBe('of 2');
    expect(ask(XS.READ, '/local/domain/1/cpu\0')).toBe('of 2');
    expect(ask(XS.READ, '/local/domain/2/cpu\0')).toBe('of 2');
    dom0.write(backEnd(1), 'other');
    expect(events(fork)).toEqual([]);
    dom0.write(backEnd(2), 'closed');
    dom0.write('/local/domain/2/cpu', 'off');
    expect(events(fork)).toEqual([`${backEnd(1)} back`, '/local/domain/1/cpu own']);
    expect(ask(XS.UNWATCH, `${backEnd(1)}\0back\0`)).toBe('OK\0');
    dom0.write(backEnd(2), 'again');
    expect(events(fork)).toEqual([]);
  });
});
