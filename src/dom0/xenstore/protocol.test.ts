import { describe, expect, it } from 'vitest';
import { XS } from '../../xen/public/xs_wire.ts';
import { XenstoreClient } from './client.ts';
import { Connection, decodeMessages, encodeMessage, payloadStrings } from './protocol.ts';
import { TestClient } from './testing.ts';
import { toBytes, toText } from './text.ts';
import { Xenstore } from './xenstore.ts';

const OK = 'OK\0';

function setUp() {
  const store = new Xenstore();
  const dom0 = new TestClient(store);
  // What a toolstack makes for two guests.
  for (const domid of [1, 2]) {
    dom0.ask(XS.MKDIR, `/local/domain/${domid}\0`);
    dom0.ask(XS.SET_PERMS, `/local/domain/${domid}\0n0\0r${domid}\0`);
    dom0.ask(XS.MKDIR, `/local/domain/${domid}/data\0`);
    dom0.ask(XS.SET_PERMS, `/local/domain/${domid}/data\0n${domid}\0`);
    store.introduce(domid);
  }
  const guest = new TestClient(store, 1);
  const other = new TestClient(store, 2);
  return { store, dom0, guest, other };
}

describe('nodes', () => {
  it('are written with what is missing above them, read, listed and removed', () => {
    const { dom0 } = setUp();
    expect(dom0.write('/a/b/c', 'hello\0world')).toBe(OK);
    expect(dom0.read('/a/b/c')).toBe('hello\0world');
    expect(dom0.read('/a/b')).toBe('');
    dom0.write('/a/z', '');
    dom0.write('/a/b/d', '');
    expect(dom0.list('/a')).toBe('b\0z\0');
    expect(dom0.ask(XS.RM, '/a/b\0')).toBe(OK);
    expect(dom0.list('/a')).toBe('z\0');
    expect(dom0.read('/a/b/c')).toBe('!ENOENT');
    expect(dom0.ask(XS.RM, '/a/b\0')).toBe(OK);
    expect(dom0.ask(XS.RM, '/a/b/c\0')).toBe('!ENOENT');
    expect(dom0.ask(XS.RM, '/\0')).toBe('!EINVAL');
  });

  it('that exist stay as they are with MKDIR', () => {
    const { dom0 } = setUp();
    dom0.write('/a', 'x');
    expect(dom0.ask(XS.MKDIR, '/a\0')).toBe(OK);
    expect(dom0.read('/a')).toBe('x');
  });

  it.each([
    '/a/',
    '//a',
    '/a b',
    '/a//b',
    '',
    '/' + 'x'.repeat(3072),
    '/é',
    'x'.repeat(2049),
    '@foo',
    'a/../',
    '/a\n',
  ])('have no such path: %j', (path) => {
    const { dom0 } = setUp();
    expect(dom0.read(path)).toBe('!EINVAL');
    expect(dom0.write(path, '')).toBe('!EINVAL');
  });

  it('have paths relative to the domain', () => {
    const { dom0, guest } = setUp();
    expect(guest.write('data/x', '5')).toBe(OK);
    expect(dom0.read('/local/domain/1/data/x')).toBe('5');
    expect(dom0.write('name', 'Domain-0')).toBe(OK);
    expect(dom0.read('/local/domain/0/name')).toBe('Domain-0');
  });

  it('keep every byte of their value', () => {
    const { dom0 } = setUp();
    const bytes = String.fromCharCode(...Array.from({ length: 256 }, (_, i) => i));
    dom0.write('/bin', bytes);
    expect(dom0.read('/bin')).toBe(bytes);
  });

  it('with too many children for a message are listed in parts', () => {
    const { dom0 } = setUp();
    const names = Array.from({ length: 300 }, (_, i) => `child-number-${i}-${'x'.repeat(i % 20)}`);
    for (const name of names) dom0.write(`/many/${name}`, '');
    expect(dom0.list('/many')).toBe('!E2BIG');
    let list = '';
    let generation: string | undefined;
    for (let last = false; !last; ) {
      const answer = dom0.ask(XS.DIRECTORY_PART, `/many\0${list.length}\0`);
      expect(answer.length).toBeLessThanOrEqual(4096);
      const end = answer.indexOf('\0');
      generation ??= answer.slice(0, end);
      expect(answer.slice(0, end)).toBe(generation);
      const part = answer.slice(end + 1);
      last = part === '\0' || part.endsWith('\0\0');
      list += last ? part.slice(0, -1) : part;
    }
    expect(list).toBe(names.map((name) => `${name}\0`).join(''));
    dom0.write('/many/more', '');
    expect(dom0.ask(XS.DIRECTORY_PART, '/many\0' + '0\0').split('\0')[0]).not.toBe(generation);
    expect(dom0.ask(XS.DIRECTORY_PART, '/many\0' + '999999\0')).toMatch(/^\d+\0\0$/);
  });
});

describe('permissions', () => {
  it('keep guests out of what is not theirs, without telling what is there', () => {
    const { dom0, guest, other } = setUp();
    guest.write('data/secret', 'x');
    expect(other.read('/local/domain/1/data/secret')).toBe('!EACCES');
    expect(other.read('/local/domain/1/data/nothing')).toBe('!EACCES');
    expect(guest.write('/local/domain/1/name', 'me')).toBe('!EACCES');
    expect(guest.write('/tool/x', 'me')).toBe('!EACCES');
    expect(guest.ask(XS.RM, '/local/domain/1/data/nothing\0')).toBe(OK);
    expect(guest.ask(XS.RM, '/local/domain/2/data\0')).toBe('!EACCES');
    expect(guest.read('data/nothing')).toBe('!ENOENT');
    expect(dom0.read('/local/domain/1/data/secret')).toBe('x');
  });

  it('are handed down, the creator owning what he creates', () => {
    const { dom0, guest, other } = setUp();
    dom0.ask(XS.SET_PERMS, '/local/domain/1/data\0b1\0r2\0');
    other.write('/local/domain/1/data/x', '1');
    expect(guest.ask(XS.SET_PERMS, 'data\0r1\0b2\0')).toBe(OK);
    expect(other.write('/local/domain/1/data/y', '2')).toBe(OK);
    expect(dom0.ask(XS.GET_PERMS, '/local/domain/1/data/y\0')).toBe('r2\0b2\0');
  });

  it('are changed by the owner alone, who cannot give the node away', () => {
    const { dom0, guest, other } = setUp();
    guest.write('data/x', '');
    const path = '/local/domain/1/data/x';
    expect(other.ask(XS.SET_PERMS, `${path}\0b2\0`)).toBe('!EACCES');
    expect(guest.ask(XS.SET_PERMS, `${path}\0n2\0`)).toBe('!EPERM');
    expect(guest.ask(XS.SET_PERMS, `${path}\0n1\0w2\0`)).toBe(OK);
    expect(other.write(path, 'hi')).toBe(OK);
    expect(other.read(path)).toBe('!EACCES');
    expect(dom0.ask(XS.SET_PERMS, `${path}\0n2\0`)).toBe(OK);
    expect(guest.read(path)).toBe('!EACCES');
    for (const bad of ['', 'x1\0', 'r\0', 'r99999\0', 'r-1\0', 'r1', 'rr1\0'])
      expect(dom0.ask(XS.SET_PERMS, `${path}\0${bad}`)).toBe('!EINVAL');
    expect(guest.ask(XS.SET_PERMS, 'data\0n1\0r2\0r3\0r4\0r5\0r6\0')).toBe('!ENOSPC');
  });

  it('of another domain are had by a domain that it is the target of', () => {
    const { dom0, guest, other } = setUp();
    guest.write('data/x', 'v');
    expect(dom0.ask(XS.SET_TARGET, '2\0' + '1\0')).toBe(OK);
    expect(other.read('/local/domain/1/data/x')).toBe('v');
    expect(guest.ask(XS.SET_TARGET, '1\0' + '2\0')).toBe('!EACCES');
    expect(dom0.ask(XS.SET_TARGET, '1\0' + '9\0')).toBe('!ENOENT');
  });
});

describe('watches', () => {
  it('fire once at first, then for the node and all below it, after the answer', () => {
    const { store, dom0 } = setUp();
    const connection = new Connection(store, 0);
    connection.receive(encodeMessage(XS.WATCH, 7, 0, toBytes('/a\0tok\0')));
    connection.receive(encodeMessage(XS.WRITE, 8, 0, toBytes('/a/b\0' + 'v')));
    const { messages } = decodeMessages(connection.take(1e6));
    expect(messages.map(({ type, id }) => [type, id])).toEqual([
      [XS.WATCH, 7],
      [XS.WATCH_EVENT, 0],
      [XS.WRITE, 8],
      [XS.WATCH_EVENT, 0],
    ]);
    expect(payloadStrings(messages[3]!.payload)).toEqual(['/a/b', 'tok']);
    dom0.write('/ab', '');
    dom0.ask(XS.MKDIR, '/a\0');
    expect(connection.pending).toBe(0);
    dom0.ask(XS.MKDIR, '/a/c\0');
    dom0.ask(XS.SET_PERMS, '/a/c\0r0\0');
    dom0.ask(XS.RM, '/a\0');
    expect(
      decodeMessages(connection.take(1e6)).messages.map(({ payload }) => payloadStrings(payload)[0]),
    ).toEqual(['/a/c', '/a']);
  });

  it('on a node below one that is removed fire too', () => {
    const { dom0 } = setUp();
    dom0.write('/a/b/c', '');
    for (const [path, token] of [
      ['/a', 'top'],
      ['/a/b/c', 'leaf'],
      ['/', 'root'],
    ])
      dom0.ask(XS.WATCH, `${path}\0${token}\0`);
    dom0.takeEvents();
    dom0.ask(XS.RM, '/a/b\0');
    expect(dom0.takeEvents()).toEqual(['/a/b/c leaf', '/a/b top', '/a/b root']);
  });

  it('with a relative path tell relative paths', () => {
    const { dom0, guest } = setUp();
    guest.ask(XS.WATCH, 'data\0t\0');
    expect(guest.takeEvents()).toEqual(['data t']);
    dom0.write('/local/domain/1/data/x/y', '');
    expect(guest.takeEvents()).toEqual(['data/x/y t']);
    expect(guest.ask(XS.UNWATCH, '/local/domain/1/data\0t\0')).toBe(OK);
    dom0.write('/local/domain/1/data/x/y', '');
    expect(guest.takeEvents()).toEqual([]);
  });

  it('tell only what one may read', () => {
    const { dom0, guest, other } = setUp();
    other.ask(XS.WATCH, '/local/domain/1/data\0t\0');
    other.takeEvents();
    guest.write('data/x', '1');
    expect(other.takeEvents()).toEqual([]);
    guest.ask(XS.SET_PERMS, 'data/x\0n1\0r2\0');
    expect(other.takeEvents()).toEqual(['/local/domain/1/data/x t']);
    guest.ask(XS.SET_PERMS, 'data/x\0n1\0');
    expect(other.takeEvents()).toEqual(['/local/domain/1/data/x t']);
    dom0.write('/local/domain/1/data/x', '2');
    expect(other.takeEvents()).toEqual([]);
  });

  it('are one for a path and token, and end one by one', () => {
    const { guest } = setUp();
    expect(guest.ask(XS.WATCH, 'data\0t\0')).toBe(OK);
    expect(guest.ask(XS.WATCH, 'data\0t\0')).toBe('!EEXIST');
    expect(guest.ask(XS.WATCH, 'data\0u\0')).toBe(OK);
    expect(guest.ask(XS.UNWATCH, 'data\0v\0')).toBe('!ENOENT');
    expect(guest.ask(XS.WATCH, 'data\0')).toBe('!EINVAL');
    expect(guest.ask(XS.WATCH, 'bad path\0t\0')).toBe('!EINVAL');
    expect(guest.ask(XS.RESET_WATCHES, '\0')).toBe(OK);
    expect(guest.ask(XS.UNWATCH, 'data\0t\0')).toBe('!ENOENT');
  });

  it('hear of domains, if they are Domain 0’s or were allowed to', () => {
    const { store, dom0, guest } = setUp();
    for (const client of [dom0, guest]) {
      client.ask(XS.WATCH, '@introduceDomain\0i\0');
      client.ask(XS.WATCH, '@releaseDomain\0r\0');
      client.takeEvents();
    }
    store.introduce(3);
    store.introduce(3);
    store.stopped(3);
    store.stopped(3);
    store.release(3);
    // The second release was told by the first event, which was not taken yet.
    expect(dom0.takeEvents()).toEqual(['@introduceDomain i', '@releaseDomain r']);
    expect(guest.takeEvents()).toEqual([]);
    expect(guest.ask(XS.SET_PERMS, '@releaseDomain\0r1\0')).toBe('!EACCES');
    expect(dom0.ask(XS.SET_PERMS, '@releaseDomain\0n0\0r1\0')).toBe(OK);
    expect(dom0.ask(XS.GET_PERMS, '@releaseDomain\0')).toBe('n0\0r1\0');
    store.introduce(4);
    store.release(4);
    expect(guest.takeEvents()).toEqual(['@releaseDomain r']);
  });
});

describe('transactions', () => {
  it('show their changes to nobody else before the end, then to all', () => {
    const { dom0, guest } = setUp();
    dom0.ask(XS.WATCH, '/local/domain/1/data\0t\0');
    dom0.takeEvents();
    const id = guest.begin();
    guest.write('data/a', '1', id);
    guest.write('data/a', '2', id);
    guest.write('data/b/c', '3', id);
    expect(guest.read('data/a', id)).toBe('2');
    expect(guest.list('data', id)).toBe('a\0b\0');
    expect(guest.read('data/a')).toBe('!ENOENT');
    expect(dom0.takeEvents()).toEqual([]);
    expect(guest.end(id)).toBe(OK);
    expect(dom0.read('/local/domain/1/data/b/c')).toBe('3');
    expect(dom0.takeEvents()).toEqual(['/local/domain/1/data/a t', '/local/domain/1/data/b/c t']);
  });

  it('that are given up leave nothing', () => {
    const { dom0, guest } = setUp();
    const id = guest.begin();
    guest.write('data/a', '1', id);
    expect(guest.end(id, false)).toBe(OK);
    expect(dom0.list('/local/domain/1/data')).toBe('');
    expect(guest.end(id)).toBe('!ENOENT');
  });

  it.each([
    ['wrote what it read', (c: TestClient) => c.write('/a', 'new')],
    ['removed what it read', (c: TestClient) => c.ask(XS.RM, '/a\0')],
    ['made a child where it listed', (c: TestClient) => c.write('/a/child', '')],
    ['changed permissions of what it read', (c: TestClient) => c.ask(XS.SET_PERMS, '/a\0r0\0')],
  ])('fail with EAGAIN if another %s', (_, change) => {
    const { dom0, store } = setUp();
    const other = new TestClient(store);
    dom0.write('/a', 'old');
    const id = dom0.begin();
    dom0.read('/a', id);
    dom0.write('/result', 'x', id);
    change(other);
    expect(dom0.end(id)).toBe('!EAGAIN');
    expect(dom0.read('/result')).toBe('!ENOENT');
  });

  it('fail if what they did not find appeared, and go well beside what they did not look at', () => {
    const { dom0, store } = setUp();
    const other = new TestClient(store);
    dom0.write('/a', '');
    dom0.write('/b', '');
    const one = dom0.begin();
    expect(dom0.read('/a/x', one)).toBe('!ENOENT');
    other.write('/a/x', '');
    expect(dom0.end(one)).toBe('!EAGAIN');
    const two = dom0.begin();
    dom0.write('/a/y', '', two);
    other.write('/b/z', '');
    expect(dom0.end(two)).toBe(OK);
  });

  it('know their own, do not nest, and are limited', () => {
    const { guest, other } = setUp();
    const id = guest.begin();
    expect(other.read('data', id)).toBe('!ENOENT');
    expect(guest.ask(XS.TRANSACTION_START, '\0', id)).toBe('!EBUSY');
    expect(guest.ask(XS.TRANSACTION_END, 'X\0', id)).toBe('!EINVAL');
    expect(guest.ask(XS.TRANSACTION_END, 'T\0')).toBe('!ENOENT');
    for (let i = 1; i < 10; i++) guest.begin();
    expect(guest.ask(XS.TRANSACTION_START, '\0')).toBe('!ENOSPC');
  });

  it('cannot get round the quota of nodes by being many', () => {
    const { guest } = setUp();
    const ids = [guest.begin(), guest.begin()];
    for (const [index, id] of ids.entries())
      for (let i = 0; i < 600; i++) expect(guest.write(`data/${index}/${i % 60}/${i}`, '', id)).toBe(OK);
    const results = ids.map((id) => guest.end(id));
    expect(results[0]).toBe(OK);
    expect(['!ENOSPC', '!EAGAIN']).toContain(results[1]);
  });
});

describe('quotas of a guest', () => {
  it('limit nodes, sizes and watches', () => {
    const { dom0, guest } = setUp();
    const start = dom0.ask(XS.CONTROL, 'quota\0' + '1\0').match(/\d+/)![0];
    let made = 0;
    while (guest.write(`data/${made % 30}/${made}`, '') === OK) made++;
    expect(guest.write('data/last', '')).toBe('!ENOSPC');
    expect(dom0.ask(XS.CONTROL, 'quota\0' + '1\0')).toBe('nodes: 1000\n\0');
    expect(made + 30 + Number(start)).toBe(1000);
    expect(guest.ask(XS.RM, 'data/0\0')).toBe(OK);
    expect(guest.write('data/again', 'x'.repeat(1900))).toBe(OK);
    expect(guest.write('data/again', 'x'.repeat(2048))).toBe('!ENOSPC');
    for (let i = 0; i < 128; i++) expect(guest.ask(XS.WATCH, `data\0${i}\0`)).toBe(OK);
    expect(guest.ask(XS.WATCH, 'data\0more\0')).toBe('!E2BIG');
    for (let i = 0; i < 2000; i++) expect(dom0.write(`/big/${i % 50}/${i}`, '')).toBe(OK);
  });

  it('limit how many nodes a transaction looks at', () => {
    const { guest } = setUp();
    const id = guest.begin();
    let looked = 0;
    while (guest.read(`data/${looked}`, id) === '!ENOENT') looked++;
    expect(looked).toBeLessThan(1024);
    expect(guest.end(id)).toBe('!ENOSPC');
  });

  it('let his requests wait while he does not take the answers, and lose events in the end', () => {
    const { store, dom0 } = setUp();
    const guest = new Connection(store, 1);
    for (let i = 0; i < 100; i++) guest.receive(encodeMessage(XS.READ, i, 0, toBytes('data\0')));
    expect(guest.ready).toBe(false);
    const first = decodeMessages(guest.take(1e6)).messages;
    expect(first.length).toBe(20);
    let count = first.length;
    while (guest.pending > 0) count += decodeMessages(guest.take(1e6)).messages.length;
    expect(count).toBe(100);

    guest.receive(encodeMessage(XS.WATCH, 0, 0, toBytes(`data\0${'t'.repeat(1000)}\0`)));
    for (let i = 0; i < 3000; i++) dom0.write(`/local/domain/1/data/${i}`, '');
    expect(guest.pending).toBeLessThan((1 << 20) + 4096);
  });

  it('tell an event once while it is not taken', () => {
    const { store, dom0 } = setUp();
    const guest = new Connection(store, 1);
    guest.receive(encodeMessage(XS.WATCH, 0, 0, toBytes('data\0t\0')));
    guest.take(1e6);
    for (let i = 0; i < 50; i++) dom0.write('/local/domain/1/data/x', String(i));
    expect(decodeMessages(guest.take(1e6)).messages.length).toBe(1);
    dom0.write('/local/domain/1/data/x', '');
    // An event that is half on its way is told again.
    guest.take(5);
    dom0.write('/local/domain/1/data/x', '');
    expect(guest.pending).toBeGreaterThan(40);
  });
});

describe('domains', () => {
  it('are introduced and released, and leave nothing behind', () => {
    const { store, dom0, guest, other } = setUp();
    const calls: string[] = [];
    store.host = {
      introduce: (...args) => calls.push(`introduce ${args}`) > 0,
      release: (...args) => calls.push(`release ${args}`),
    };
    guest.write('data/x', '');
    dom0.write('/shared', '');
    dom0.ask(XS.SET_PERMS, '/shared\0n0\0r1\0r2\0');
    expect(dom0.ask(XS.IS_DOMAIN_INTRODUCED, '1\0')).toBe('T\0');
    expect(dom0.ask(XS.RELEASE, '1\0')).toBe(OK);
    expect(dom0.ask(XS.IS_DOMAIN_INTRODUCED, '1\0')).toBe('F\0');
    expect(dom0.read('/local/domain/1/data')).toBe('!ENOENT');
    expect(dom0.ask(XS.GET_PERMS, '/shared\0')).toBe('n0\0r2\0');
    expect(store.tree.owned(1)).toBe(0);
    expect(dom0.ask(XS.INTRODUCE, '5\0' + '1234\0' + '3\0')).toBe(OK);
    expect(calls).toEqual(['release 1', 'introduce 5,1234,3']);
    expect(dom0.ask(XS.RESUME, '5\0')).toBe(OK);
    expect(dom0.ask(XS.RELEASE, '77\0')).toBe('!ENOENT');
    expect(dom0.ask(XS.RELEASE, '0\0')).toBe('!EINVAL');
    expect(other.ask(XS.RELEASE, '5\0')).toBe('!EACCES');
    expect(other.ask(XS.GET_DOMAIN_PATH, '5\0')).toBe('/local/domain/5\0');
    expect(other.ask(XS.GET_DOMAIN_PATH, 'x\0')).toBe('!EINVAL');
    expect(dom0.ask(XS.CONTROL, 'check\0')).toBe(OK);
  });

  it('of which the toolstack knows nothing are not introduced', () => {
    const { store, dom0 } = setUp();
    store.host = { introduce: () => false, release: () => {} };
    expect(dom0.ask(XS.INTRODUCE, '5\0' + '1\0' + '3\0')).toBe('!EINVAL');
    expect(store.isIntroduced(5)).toBe(false);
  });
});

describe('framing', () => {
  it('does not care how the bytes are cut', () => {
    const { store } = setUp();
    const connection = new Connection(store, 0);
    const requests = [
      encodeMessage(XS.WRITE, 1, 0, toBytes('/a\0' + 'value')),
      encodeMessage(XS.READ, 2, 0, toBytes('/a\0')),
      encodeMessage(XS.DIRECTORY, 3, 0, toBytes('/\0')),
    ];
    for (const request of requests) for (const byte of request) connection.receive(Uint8Array.of(byte));
    const bytes: number[] = [];
    while (connection.pending > 0) bytes.push(...connection.take(3));
    const { messages, rest } = decodeMessages(Uint8Array.from(bytes));
    expect(messages.map(({ id, payload }) => [id, toText(payload)])).toEqual([
      [1, OK],
      [2, 'value'],
      [3, 'tool\0local\0a\0'],
    ]);
    expect(rest.length).toBe(0);
  });

  it('answers what it does not know, and ends with a message that is too long', () => {
    const { guest } = setUp();
    for (const type of [XS.WATCH_EVENT, XS.ERROR, 20, 99, 0xffff, 0xffffffff])
      expect(guest.ask(type, 'x\0')).toBe('!ENOSYS');
    expect(guest.ask(XS.READ, 'data')).toBe('!EINVAL');
    expect(guest.ask(XS.READ, '')).toBe('!EINVAL');
    expect(guest.ask(XS.READ, 'data\0data\0')).toBe('!EINVAL');
    expect(guest.ask(XS.WRITE, 'data')).toBe('!EINVAL');
    guest.connection.receive(encodeMessage(XS.READ, 1, 0, new Uint8Array(4097)));
    expect(guest.connection.broken).toBe(true);
    expect(guest.connection.ready).toBe(false);
  });

  it('refuses events whose path and token are too long together', () => {
    const { dom0 } = setUp();
    const token = 't'.repeat(3000);
    dom0.ask(XS.WATCH, `/a\0${token}\0`);
    dom0.takeEvents();
    dom0.write(`/a/${'x'.repeat(2000)}`, '');
    expect(dom0.takeEvents()).toEqual([]);
  });
});

describe('a client in Domain 0', () => {
  it('reads, writes and watches without messages', () => {
    const { store, guest } = setUp();
    const client = new XenstoreClient(store);
    const seen: string[] = [];
    const end = client.watch('/local/domain/1/data', (path) => {
      seen.push(path);
      // What a listener changes is told after what it is being told of.
      if (path.endsWith('/go')) client.write('/local/domain/1/data/gone', '1');
    });
    guest.write('data/go', '');
    expect(seen).toEqual(['', '/go', '/gone'].map((name) => `/local/domain/1/data${name}`));
    end();
    client.write('/local/domain/1/data/x', 'y', [{ domid: 1, rights: 0 }]);
    expect(seen.length).toBe(3);
    expect(guest.write('data/x', 'z')).toBe(OK);
    expect(client.read('/local/domain/1/data/x')).toBe('z');
    expect(client.read('/nothing')).toBeNull();
    expect(client.list('/local/domain/1/data')).toEqual(['go', 'gone', 'x']);
    client.remove('/nothing/at/all');
    expect(() => client.read('not a path')).toThrow('not a xenstore path');
    expect(() => new XenstoreClient(store, 2).read('/local/domain/1/data/x')).toThrow('EACCES');
  });
});
