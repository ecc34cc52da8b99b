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
});
