import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openFolder } from '../../toolstack/devices/host-folder.ts';
import { ERRNO } from '../../xen/public/errno.ts';
import { MAX_FIDS } from './fid.ts';
import type { FileNode } from './files.ts';
import { FileLocks, LockType } from './locks.ts';
import { P9 } from './messages.ts';
import { P9Server } from './server.ts';
import { P9Client } from './testing.ts';

const ROOT = 1;
const MSIZE = 8192;

let base: string;
let path: string;
let root: FileNode;
let locks: FileLocks;
let server: P9Server;
let client: P9Client;

const connect = async (readonly = false): Promise<[P9Server, P9Client]> => {
  const made = new P9Server({ root, readonly, locks }, 1 << 17);
  const user = new P9Client((request) => made.handle(request));
  await user.version(MSIZE);
  await user.attach(ROOT);
  return [made, user];
};

beforeEach(async () => {
  base = mkdtempSync(join(tmpdir(), '9p-'));
  path = join(base, 'shared');
  mkdirSync(path);
  writeFileSync(join(base, 'secret'), 'not yours');
  root = await openFolder(path);
  locks = new FileLocks();
  [server, client] = await connect();
});

afterEach(async () => {
  await server.close();
  root.release();
  rmSync(base, { recursive: true, force: true });
});

const fails = (work: Promise<unknown>, errno: number) =>
  expect(work).rejects.toEqual(expect.objectContaining({ errno }));

describe('a server of files', () => {
  it('speaks 9P2000.L and nothing else', async () => {
    expect(await client.version(1 << 20)).toEqual([1 << 17, '9P2000.L']);
    expect(await client.version(1 << 14, '9P2000.u')).toEqual([1 << 14, 'unknown']);
    await fails(client.version(100), ERRNO.EINVAL);
    await fails(client.walk(ROOT, 2), ERRNO.EBADF);
    await fails(client.ask(P9.auth), ERRNO.EOPNOTSUPP);
    await fails(
      client.ask(P9.xattrwalk, (w) => w.u32(ROOT).u32(2).string('user.x')),
      ERRNO.EOPNOTSUPP,
    );
    await fails(client.ask(250), ERRNO.EOPNOTSUPP);
  });

  it('makes, writes, reads and removes files', async () => {
    await client.walk(ROOT, 2);
    await client.create(2, 'file');
    const bytes = Uint8Array.from({ length: 5000 }, (_, at) => at * 7);
    expect(await client.write(2, 100, bytes)).toBe(5000);
    await client.ask(P9.fsync, (w) => w.u32(2).u32(1));
    expect(readFileSync(join(path, 'file')).subarray(100)).toEqual(Buffer.from(bytes));
    expect(Buffer.from(await client.read(2, 150, 4000))).toEqual(Buffer.from(bytes.subarray(50, 4050)));
    // Not more than a message holds, and nothing behind the end.
    expect(await client.read(2, 0, 1 << 30)).toHaveLength(5100);
    expect(await client.read(2, 6000, 10)).toHaveLength(0);
    await client.walk(ROOT, 3, 'file');
    await client.ask(P9.setattr, (w) =>
      w
        .u32(3)
        .u32(1 | 8)
        .u32(0o4755)
        .u32(0)
        .u32(0)
        .u64(10n)
        .u64(0n)
        .u64(0n)
        .u64(0n)
        .u64(0n),
    );
    const { mode, size } = statSync(join(path, 'file'));
    expect([mode & 0o7777, size]).toEqual([0o755, 10]);
    const attributes = await client.ask(P9.getattr, (w) => w.u32(3).u64(0x7ffn));
    attributes.rest(8 + 13);
    expect(attributes.u32()).toBe(mode);
    await client.ask(P9.remove, (w) => w.u32(3));
    await fails(client.clunk(3), ERRNO.EBADF);
    await fails(client.walk(ROOT, 3, 'file'), ERRNO.ENOENT);
    // The other one has it still.
    expect(await client.read(2, 0, 100)).toHaveLength(10);
  });

  it('renames, links, and follows no links', async () => {
    for (const name of ['a', 'b'])
      await client.ask(P9.mkdir, (w) => w.u32(ROOT).string(name).u32(0o755).u32(0));
    expect(await client.walk(ROOT, 2, 'a')).toBe(1);
    expect(await client.walk(ROOT, 3, 'b')).toBe(1);
    await client.walk(2, 4);
    await client.create(4, 'file');
    await client.ask(P9.renameat, (w) => w.u32(2).string('file').u32(3).string('moved'));
    expect(await client.walk(3, 5, 'moved')).toBe(1);
    await client.ask(P9.rename, (w) => w.u32(5).u32(2).string('back'));
    await client.ask(P9.link, (w) => w.u32(3).u32(5).string('twice'));
    expect(statSync(join(path, 'b/twice')).ino).toBe(statSync(join(path, 'a/back')).ino);
    await client.ask(P9.symlink, (w) => w.u32(ROOT).string('out').string('../secret').u32(0));
    await client.walk(ROOT, 6, 'out');
    expect((await client.ask(P9.readlink, (w) => w.u32(6))).string()).toBe('../secret');
    await fails(client.open(6), ERRNO.EPERM);
    await client.ask(P9.unlinkat, (w) => w.u32(2).string('back').u32(0));
    await fails(
      client.ask(P9.unlinkat, (w) => w.u32(ROOT).string('b').u32(0x200)),
      ERRNO.ENOTEMPTY,
    );
    await client.ask(P9.unlinkat, (w) => w.u32(ROOT).string('a').u32(0x200));
  });

  it('cannot be led out of its folder', async () => {
    symlinkSync(base, join(path, 'up'));
    // The folder's parent is the folder.
    expect(await client.walk(ROOT, 2, '..')).toBe(1);
    await fails(client.walk(2, 3, 'shared'), ERRNO.ENOENT);
    expect(await client.walk(ROOT, 4, 'up', 'secret')).toBe(1);
    await fails(client.clunk(4), ERRNO.EBADF);
    for (const name of ['.', '..', '', 'up/secret', '../secret', '/etc/passwd', 'a\0b'])
      await fails(
        client.ask(P9.mkdir, (w) => w.u32(ROOT).string(name).u32(0o755).u32(0)),
        ERRNO.EINVAL,
      );
    for (const name of ['.', '', '../secret', 'up/secret'])
      await fails(client.walk(ROOT, 5, name), ERRNO.EINVAL);
    await fails(client.walk(ROOT, 5, 'x'.repeat(256)), ERRNO.ENAMETOOLONG);
    await fails(
      client.ask(P9.renameat, (w) => w.u32(ROOT).string('up').u32(ROOT).string('../gone')),
      ERRNO.EINVAL,
    );
    expect(statSync(join(base, 'secret')).size).toBe(9);
  });

  it('reads directories in pieces, and again from anywhere', async () => {
    const names = Array.from({ length: 300 }, (_, index) => `name-${index}`);
    for (const name of names) writeFileSync(join(path, name), '');
    await client.walk(ROOT, 2);
    await client.open(2);
    const all: string[] = [];
    const cookies: number[] = [];
    for (let at = 0; ; ) {
      const { names: some, cookie } = await client.readdir(2, at, 1000);
      if (some.length === 0) break;
      all.push(...some);
      cookies.push(cookie);
      at = cookie;
    }
    expect(all.slice(0, 2)).toEqual(['.', '..']);
    expect(all.slice(2).sort()).toEqual([...names].sort());
    expect(cookies.length).toBeGreaterThan(5);
    const again = await client.readdir(2, cookies[3]!, 1000);
    expect(again.names[0]).toBe(all[cookies[3]!]);
    expect((await client.readdir(2, 0, 60)).names).toEqual(['.', '..']);
    expect((await client.readdir(2, 100_000, 1000)).names).toEqual([]);
    // There is no room for even one.
    expect((await client.readdir(2, 0, 10)).names).toEqual([]);
  });

  it('changes nothing if it is read-only', async () => {
    writeFileSync(join(path, 'file'), 'kept');
    const [other, reader] = await connect(true);
    await reader.walk(ROOT, 2, 'file');
    await fails(reader.open(2, 1), ERRNO.EROFS);
    await fails(reader.open(2, 0o1000), ERRNO.EROFS);
    await reader.open(2);
    expect(Buffer.from(await reader.read(2, 0, 10)).toString()).toBe('kept');
    await fails(reader.write(2, 0, new Uint8Array(4)), ERRNO.EROFS);
    await fails(reader.create(ROOT, 'new'), ERRNO.EROFS);
    for (const [type, fill] of [
      [P9.mkdir, (w) => w.u32(ROOT).string('d').u32(0).u32(0)],
      [P9.symlink, (w) => w.u32(ROOT).string('d').string('e').u32(0)],
      [P9.link, (w) => w.u32(ROOT).u32(2).string('d')],
      [P9.unlinkat, (w) => w.u32(ROOT).string('file').u32(0)],
      [P9.renameat, (w) => w.u32(ROOT).string('file').u32(ROOT).string('d')],
      [P9.rename, (w) => w.u32(2).u32(ROOT).string('d')],
      [P9.setattr, (w) => w.u32(2).u32(8).room(56)],
      [P9.remove, (w) => w.u32(2)],
    ] as [number, Parameters<P9Client['ask']>[1]][])
      await fails(reader.ask(type, fill), ERRNO.EROFS);
    expect(readFileSync(join(path, 'file'), 'utf8')).toBe('kept');
    await other.close();
  });

  it('keeps locks apart, between clients too', async () => {
    writeFileSync(join(path, 'file'), '');
    const [other, second] = await connect();
    for (const user of [client, second]) await user.walk(ROOT, 2, 'file');
    const lock = async (user: P9Client, type: number, start: bigint, length: bigint, pid = 7) =>
      (
        await user.ask(P9.lock, (w) =>
          w.u32(2).u8(type).u32(0).u64(start).u64(length).u32(pid).string('host'),
        )
      ).u8();
    expect(await lock(client, LockType.write, 10n, 10n)).toBe(0);
    expect(await lock(second, LockType.read, 15n, 1n)).toBe(1);
    expect(await lock(second, LockType.write, 20n, 0n)).toBe(0);
    expect(await lock(client, LockType.read, 0n, 0n)).toBe(1);
    expect(await lock(client, LockType.unlock, 12n, 4n)).toBe(0);
    expect(await lock(second, LockType.write, 12n, 4n)).toBe(0);
    const found = await client.ask(P9.getlock, (w) =>
      w.u32(2).u8(LockType.write).u64(30n).u64(1n).u32(7).string('host'),
    );
    expect([found.u8(), found.u64(), found.u64()]).toEqual([LockType.write, 20n, 0n]);
    await other.close();
    expect(await lock(client, LockType.read, 0n, 0n)).toBe(0);
    for (let at = 0; at < 1023; at++) expect(await lock(client, LockType.read, 0n, 1n, 100 + at)).toBe(0);
    await fails(lock(client, LockType.read, 1n << 40n, 1n, 5), ERRNO.ENOLCK);
  });

  it('gives a client so many numbers and no more, and all back at its end', async () => {
    for (let fid = 2; fid <= MAX_FIDS; fid++) await client.walk(ROOT, fid);
    await fails(client.walk(ROOT, MAX_FIDS + 1), ERRNO.EMFILE);
    await fails(client.walk(ROOT, 2), ERRNO.EBADF);
    await client.version(MSIZE);
    await fails(client.clunk(2), ERRNO.EBADF);
  });

  it('takes numbers as large as they come', async () => {
    writeFileSync(join(path, 'file'), 'text');
    await client.walk(ROOT, 2, 'file');
    const most = 0xffff_ffff_ffff_ffffn;
    const set = (valid: number, size: bigint, time: bigint) =>
      client.ask(P9.setattr, (w) =>
        w
          .u32(2)
          .u32(valid)
          .u32(0)
          .u32(0xffff_fffe)
          .u32(0xffff_fffe)
          .u64(size)
          .u64(time)
          .u64(time)
          .u64(time)
          .u64(time),
      );
    await fails(set(8, most, 0n), ERRNO.EINVAL);
    // No file system has such a file.
    await expect(set(8, BigInt(Number.MAX_SAFE_INTEGER), 0n)).rejects.toThrow(/errno (22|27)$/);
    // What a file system makes of such numbers is its own business, as long as it is an answer.
    const refused = (error: { errno?: number }) => expect(error.errno).toBe(ERRNO.EINVAL);
    await set(0x1b0, 0n, most).catch(refused);
    await client.ask(P9.getattr, (w) => w.u32(2).u64(most));
    await client.open(2, 2);
    await client
      .read(2, Number.MAX_SAFE_INTEGER, 100)
      .then(({ length }) => expect(length).toBe(0))
      .catch(refused);
    await expect(client.write(2, Number.MAX_SAFE_INTEGER, new Uint8Array(10))).rejects.toThrow(
      /errno (22|27)$/,
    );
    expect(statSync(join(path, 'file')).size).toBe(4);
  });

  it('answers whatever it is asked', async () => {
    writeFileSync(join(path, 'file'), 'text');
    const types = Object.values(P9);
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({
            type: fc.oneof(fc.constantFrom(...types), fc.nat(255)),
            body: fc.oneof(
              fc.uint8Array({ maxLength: 80 }),
              // Numbers that mean something, more often than chance has it.
              fc
                .array(fc.constantFrom(0, 1, 2, 3, 4, 8, 0x04000400, 0x656c6966), { maxLength: 16 })
                .map((words) => new Uint8Array(Uint32Array.from(words).buffer)),
            ),
          }),
          { minLength: 1, maxLength: 12 },
        ),
        async (requests) => {
          const answers = await Promise.all(
            requests.map(({ type, body }, tag) => {
              const bytes = new Uint8Array(7 + body.length);
              new DataView(bytes.buffer).setUint32(0, bytes.length, true);
              bytes.set([type, tag, 0], 4);
              bytes.set(body, 7);
              return server.handle(bytes);
            }),
          );
          answers.forEach((answer, tag) => {
            expect(new DataView(answer.buffer).getUint32(0, true)).toBe(answer.length);
            expect(answer[5]).toBe(tag);
            expect([requests[tag]!.type + 1, P9.lerror + 1]).toContain(answer[4]! || 256);
            if (answer[4] === P9.lerror + 1) expect(answer[7]).not.toBe(ERRNO.EIO);
          });
        },
      ),
      { numRuns: 200 },
    );
    expect(readFileSync(join(base, 'secret'), 'utf8')).toBe('not yours');
  });
});
