import { spawnSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { FileError, FileNode, OpenMode } from '../../dom0/9pfs/files.ts';
import { ERRNO } from '../../xen/public/errno.ts';
import { DescriptorBudget, openFolder } from './host-folder.ts';

const READ: OpenMode = { read: true, write: false, truncate: false, sync: false };
const WRITE: OpenMode = { read: true, write: true, truncate: false, sync: false };

let base: string;
let path: string;
let root: FileNode;
let budget: DescriptorBudget;

beforeEach(async () => {
  base = mkdtempSync(join(tmpdir(), 'folder-'));
  path = join(base, 'shared');
  mkdirSync(path);
  writeFileSync(join(base, 'secret'), 'not yours');
  budget = new DescriptorBudget(40);
  root = await openFolder(path, budget);
});

afterEach(() => {
  root.release();
  rmSync(base, { recursive: true, force: true });
});

const fails = (work: Promise<unknown>, errno: number) =>
  expect(work).rejects.toEqual(expect.objectContaining({ errno }) as FileError);
const text = async (node: FileNode) => {
  const file = await node.open(READ);
  const bytes = new Uint8Array(100);
  const length = await file.read(0, bytes);
  await file.close();
  return Buffer.from(bytes.subarray(0, length)).toString();
};

describe('a folder of the host', () => {
  it('has files, which are made, written, read, and hold on to what they are', async () => {
    const { node, file } = await root.create('file', WRITE, 0o640, true);
    expect(await file.write(3, Buffer.from('abc'))).toBe(3);
    await file.sync(true);
    expect(readFileSync(join(path, 'file'))).toEqual(Buffer.from('\0\0\0abc'));
    expect(lstatSync(join(path, 'file')).mode & 0o777).toBe(0o640);
    renameSync(join(path, 'file'), join(path, 'other'));
    writeFileSync(join(path, 'file'), 'another');
    await node.change({ size: 4, mode: 0o600, mtime: 1_000_000_001_500_000_000n });
    const stats = lstatSync(join(path, 'other'));
    expect([stats.size, stats.mode & 0o777, stats.mtimeMs]).toEqual([4, 0o600, 1_000_000_001_500]);
    expect(await text(node)).toBe('\0\0\0a');
    await file.close();
    node.release();
    await fails(root.create('file', WRITE, 0o600, true), ERRNO.EEXIST);
    const again = await root.create('file', { ...WRITE, truncate: true }, 0o600, false);
    expect(readFileSync(join(path, 'file'), 'utf8')).toBe('');
    await again.file.close();
    again.node.release();
  });

  it('shows symbolic links, and follows none', async () => {
    symlinkSync('../secret', join(path, 'link'));
    symlinkSync('..', join(path, 'up'));
    const link = await root.lookup('link');
    expect([link.kind, await link.readlink()]).toEqual(['symlink', '../secret']);
    await fails(link.open(READ), ERRNO.EPERM);
    await fails(link.change({ size: 0 }), ERRNO.EPERM);
    const up = await root.lookup('up');
    await fails(up.lookup('secret'), ERRNO.ENOTDIR);
    await fails(up.create('new', WRITE, 0o600, true), ERRNO.ENOTDIR);
    await fails(up.list(), ERRNO.ENOTDIR);
    // Not by a name either that is being made.
    await fails(root.create('link', { ...WRITE, truncate: true }, 0o600, false), ERRNO.EPERM);
    await fails(root.mkdir('up', 0o700), ERRNO.EEXIST);
    await link.change({ mtime: 5_000_000_000n });
    expect(lstatSync(join(base, 'secret')).mtimeMs).not.toBe(5000);
    expect(readFileSync(join(base, 'secret'), 'utf8')).toBe('not yours');
    (await root.symlink('mine', '/etc/passwd')).release();
    expect(readlinkSync(join(path, 'mine'))).toBe('/etc/passwd');
    for (const node of [link, up]) node.release();
  });

  it('is not left when a directory becomes a link while it is in use', async () => {
    mkdirSync(join(path, 'dir'));
    const dir = await root.lookup('dir');
    renameSync(join(path, 'dir'), join(path, 'was'));
    symlinkSync(base, join(path, 'dir'));
    const { node, file } = await dir.create('inside', WRITE, 0o600, true);
    expect(readdirSync(join(path, 'was'))).toEqual(['inside']);
    expect(existsSync(join(base, 'inside'))).toBe(false);
    await fails(dir.lookup('secret'), ERRNO.ENOENT);
    await file.close();
    for (const each of [node, dir]) each.release();
  });

  it('opens no pipes and no devices', async () => {
    expect(spawnSync('mkfifo', [join(path, 'pipe')]).status).toBe(0);
    const pipe = await root.lookup('pipe');
    expect(pipe.kind).toBe('other');
    await fails(pipe.open(READ), ERRNO.EPERM);
    await fails(pipe.change({ size: 0 }), ERRNO.EPERM);
    await fails(root.create('pipe', WRITE, 0o600, false), ERRNO.EPERM);
    pipe.release();
  });

  it('has directories, which are listed whole', async () => {
    const dir = await root.mkdir('dir', 0o750);
    expect(lstatSync(join(path, 'dir')).mode & 0o777).toBe(0o750);
    const names = Array.from({ length: 100 }, (_, index) => `n${index}`);
    for (const name of names) writeFileSync(join(path, 'dir', name), name);
    // Not every name is text.
    writeFileSync(Buffer.concat([Buffer.from(join(path, 'dir/')), Buffer.from([0xff, 0x80])]), '');
    const listed = await dir.list();
    const seen: string[] = [];
    for (let some = await listed.next(); some.length > 0; some = await listed.next())
      for (const { name, attributes } of some) {
        expect(Number(attributes.mode >> 12n)).toBe(8);
        seen.push(name);
      }
    await listed.close();
    expect(seen.sort()).toEqual([...names, '\xff\x80'].sort());
    const odd = await dir.lookup('\xff\x80');
    expect(odd.kind).toBe('file');
    await dir.rename('\xff\x80', root, 'plain');
    expect(existsSync(join(path, 'plain'))).toBe(true);
    // What was moved is found at its new place.
    await root.link('twice', odd);
    expect(lstatSync(join(path, 'twice')).nlink).toBe(2);
    await odd.moveTo(dir, 'back');
    await odd.remove();
    expect(existsSync(join(path, 'dir/back'))).toBe(false);
    await fails(root.rmdir('dir'), ERRNO.ENOTEMPTY);
    await fails(odd.remove(), ERRNO.ENOENT);
    await fails(root.remove(), ERRNO.EBUSY);
    for (const node of [odd, dir]) node.release();
  });

  it('takes no more descriptors than it may, and gives them back', async () => {
    writeFileSync(join(path, 'file'), '');
    for (let round = 0; round < 3; round++) {
      const nodes: FileNode[] = [];
      while (nodes.length < 39) nodes.push(await root.lookup('file'));
      await fails(root.lookup('file'), ERRNO.ENFILE);
      await fails(nodes[0]!.open(READ), ERRNO.ENFILE);
      for (const node of nodes) node.release();
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  });
});
