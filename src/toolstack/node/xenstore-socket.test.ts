import { execFile, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { XenstoreClient } from '../../dom0/xenstore/client.ts';
import { decodeMessages, encodeMessage } from '../../dom0/xenstore/protocol.ts';
import { Xenstore } from '../../dom0/xenstore/xenstore.ts';
import { XS } from '../../xen/public/xs_wire.ts';
import { XenstoreSocket } from './xenstore-socket.ts';

let folder: string;
let path: string;
let store: Xenstore;
let dom0: XenstoreClient;
let server: XenstoreSocket;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'xenstore-'));
  path = join(folder, 'socket');
  store = new Xenstore();
  dom0 = new XenstoreClient(store);
  server = await XenstoreSocket.listen(store, path);
});

afterEach(async () => {
  await server.close();
  rmSync(folder, { recursive: true });
});

describe('the socket', () => {
  it('is the user’s alone', () => {
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  it('is not taken from a store that is served, but from one that is dead', async () => {
    await expect(XenstoreSocket.listen(store, path)).rejects.toThrow(/another store/);
    const child = spawnSync(process.execPath, [
      '-e',
      `require('net').createServer().listen(${JSON.stringify(`${path}2`)}, () => process.kill(process.pid, 9))`,
    ]);
    expect(child.signal).toBe('SIGKILL');
    const second = await XenstoreSocket.listen(store, `${path}2`);
    await second.close();
  });

  it('says in one line what is wrong with a path', async () => {
    await expect(XenstoreSocket.listen(store, join(folder, 'no', 'socket'))).rejects.toThrow(
      /no such directory/,
    );
    await expect(XenstoreSocket.listen(store, `/tmp/${'x'.repeat(200)}`)).rejects.toThrow(/too long/);
  });

  it('ends a client that breaks the protocol, and no other', async () => {
    const good = connect(path);
    const bad = connect(path);
    const ended = new Promise((resolve) => bad.on('close', resolve));
    bad.resume();
    const wild = new Uint8Array(16).fill(0xff);
    bad.write(wild);
    await ended;
    const answer = new Promise<Buffer>((resolve) => good.once('data', resolve));
    good.write(encodeMessage(XS.READ, 7, 0, new TextEncoder().encode('/tool\0')));
    const { messages } = decodeMessages(await answer);
    expect(messages[0]).toMatchObject({ type: XS.READ, id: 7 });
    good.destroy();
  });

  it('serves many requests to a client that reads slowly, without keeping them all', async () => {
    dom0.write('/big', 'x'.repeat(4000));
    const client = connect(path);
    const requests = 2000;
    const one = encodeMessage(XS.READ, 1, 0, new TextEncoder().encode('/big\0'));
    for (let index = 0; index < requests; index++) client.write(one);
    let bytes = 0;
    await new Promise<void>((resolve) => {
      client.on('data', (chunk) => {
        bytes += chunk.length;
        if (bytes === requests * 4016) resolve();
      });
    });
    expect(bytes).toBe(requests * 4016);
    client.destroy();
  });

  it('forgets the watches of a client that is gone', async () => {
    const client = connect(path);
    client.write(encodeMessage(XS.WATCH, 1, 0, new TextEncoder().encode('/a\0token\0')));
    await new Promise((resolve) => client.once('data', resolve));
    client.destroy();
    for (let turn = 0; turn < 100; turn++) {
      dom0.write('/a', `${turn}`);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(dom0.read('/a')).toBe('99');
  });

  it('does not take the place of a file', async () => {
    writeFileSync(join(folder, 'file'), 'text');
    await expect(XenstoreSocket.listen(store, join(folder, 'file'))).rejects.toThrow(/no socket/);
    expect(readFileSync(join(folder, 'file'), 'utf8')).toBe('text');
  });
});

const hasClients = spawnSync('xenstore-ls', ['--help']).error === undefined;
if (!hasClients) console.warn('xenstore-utils is not installed: its clients are not tried');

describe.skipIf(!hasClients)("Debian's xenstore-utils", () => {
  const run = async (command: string, ...args: string[]) => {
    const env = { ...process.env, XENSTORED_PATH: path, XENSTORED_RUNDIR: folder };
    const { stdout } = await promisify(execFile)(command, args, { env, timeout: 20_000 });
    return stdout;
  };

  it('read and write', async () => {
    await run('xenstore-write', '/a/b', 'value', '/a/c', 'other');
    expect(dom0.read('/a/b')).toBe('value');
    dom0.write('/a/d', 'from within');
    expect(await run('xenstore-read', '/a/d')).toBe('from within\n');
    expect(await run('xenstore-list', '/a')).toBe('b\nc\nd\n');
    expect(await run('xenstore-ls', '/a')).toBe('b = "value"\nc = "other"\nd = "from within"\n');
    expect(await run('xenstore-ls', '-f', '/a')).toContain('/a/b = "value"');
    await run('xenstore-exists', '/a/b');
    await expect(run('xenstore-exists', '/a/x')).rejects.toMatchObject({ code: 1 });
    await run('xenstore-rm', '/a/b');
    expect(dom0.read('/a/b')).toBeNull();
    await expect(run('xenstore-read', '/a/b')).rejects.toMatchObject({ code: 1 });
  });

  it('change rights', async () => {
    store.introduce(5);
    await run('xenstore-write', '/shared', 'x');
    await run('xenstore-chmod', '/shared', 'n0', 'r5');
    expect(new XenstoreClient(store, 5).read('/shared')).toBe('x');
    expect(await run('xenstore-ls', '-p', '/')).toMatch(/^shared = "x" .*\(n0,r5\)$/m);
    dom0.write('/shared/a/b', 'y');
    const guest = new XenstoreClient(store, 5);
    await run('xenstore-chmod', '-r', '/shared', 'n0', 'b5');
    guest.write('/shared/a/b', 'z');
    expect(await run('xenstore-read', '/shared/a/b')).toBe('z\n');
    await run('xenstore-chmod', '/shared/a/b', 'n5');
    expect(dom0.permissions('/shared/a/b')).toEqual([{ domid: 5, rights: 0 }]);
    // With all above it.
    await run('xenstore-chmod', '-u', '/shared/a/b', 'n0');
    expect(dom0.permissions('/shared')).toEqual([{ domid: 0, rights: 0 }]);
    expect(() => guest.read('/shared/a/b')).toThrow(/EACCES/);
    await expect(run('xenstore-chmod', '/nothing', 'n0')).rejects.toMatchObject({ code: 1 });
    await expect(run('xenstore-chmod', '/shared', 'x0')).rejects.toMatchObject({ code: 1 });
  });

  it('are not held to the quotas that hold a guest', async () => {
    store.introduce(5);
    await run('xenstore-write', '/of/5', '');
    await run('xenstore-chmod', '/of/5', 'n5');
    const guest = new XenstoreClient(store, 5);
    let made = 0;
    expect(() => {
      for (; made < 10_000; made++) guest.write(`/of/5/${made % 20}/${made}`, '');
    }).toThrow(/ENOSPC/);
    expect(store.tree.owned(5)).toBe(store.quota.nodes);
    await run('xenstore-write', '/of/5/more', 'x'.repeat(3000));
    expect(await run('xenstore-read', '/of/5/more')).toBe(`${'x'.repeat(3000)}\n`);
    expect(() => guest.write('/of/5/again', '')).toThrow(/ENOSPC/);
    await run('xenstore-rm', '/of/5/0');
    guest.write('/of/5/again', '');
  });

  it('tidy up, and carry out what many do at once', async () => {
    await run('xenstore-write', '/t/a/b/c', 'x', '/t/d', 'y');
    await run('xenstore-rm', '-t', '/t/a/b/c');
    expect(dom0.list('/t')).toEqual(['d']);
    // Each in a transaction, against each other and against us.
    const names = Array.from({ length: 8 }, (_, index) => `/t/many/${index}`);
    for (const name of names) dom0.write(name, '');
    const removing = Promise.all(names.map((name) => run('xenstore-rm', name)));
    for (let round = 0; round < 20; round++) {
      dom0.write('/t/many/kept', `${round}`);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    await removing;
    expect(dom0.list('/t/many')).toEqual(['kept']);
  });

  it('show large directories whole', async () => {
    for (let index = 0; index < 400; index++) dom0.write(`/many/child-with-a-long-name-${index}`, `${index}`);
    const listed = (await run('xenstore-list', '/many')).trim().split('\n');
    expect(listed).toHaveLength(400);
  });

  it('watch', async () => {
    dom0.write('/w', '0');
    const env = { ...process.env, XENSTORED_PATH: path };
    const watcher = spawn('xenstore-watch', ['-n', '3', '/w'], { env, stdio: ['ignore', 'pipe', 'inherit'] });
    let output = '';
    let changes = 0;
    watcher.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString();
      if (changes++ < 5) dom0.write('/w/x', `${changes}`);
    });
    await new Promise((resolve) => watcher.on('exit', resolve));
    expect(output.split('\n').slice(0, 3)).toEqual(['/w', '/w/x', '/w/x']);
  });
});
