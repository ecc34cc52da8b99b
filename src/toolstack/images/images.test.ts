import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Cache, defaultCacheDirectory } from './cache.ts';
import { CpioArchive } from './cpio.ts';
import { ImageError } from './error.ts';
import { appletNames, buildInitramfs } from './initramfs.ts';
import { progressOn } from './progress.ts';
import { TarError, tarFiles } from './tar.ts';

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'xenolith-test-'));
});

afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

const bytes = (text: string) => new TextEncoder().encode(text);

describe('the cache', () => {
  it('keeps files by content and entries by name', async () => {
    const cache = new Cache(directory);
    const file = await cache.add(bytes('content'));
    await cache.keep('a name/../x', { files: { it: file }, facts: { version: '1' } });
    const entry = await new Cache(directory).lookUp('a name/../x');
    expect(entry).toEqual({ files: { it: file }, facts: { version: '1' } });
    expect(await cache.read(entry!.files['it']!)).toEqual(Buffer.from('content'));
    expect(await readdir(join(directory, 'names'))).toEqual(['a_name_.._x.json']);
    expect(await readdir(join(directory, 'tmp'))).toEqual([]);
  });

  it.each([
    ['changed', async (path: string) => writeFile(path, 'kontent')],
    ['truncated', async (path: string) => writeFile(path, 'con')],
    ['gone', async (path: string) => rm(path)],
  ])('does not believe a file that is %s, and takes it again', async (_what, damage) => {
    const cache = new Cache(directory);
    const file = await cache.add(bytes('content'));
    await damage(cache.path(file));
    expect(await cache.read(file)).toBeNull();
    await cache.add(bytes('content'));
    expect(await cache.read(file)).not.toBeNull();
  });

  it.each([
    '',
    '{',
    '[]',
    'null',
    '{"files":{"a":{"sha256":"../../etc/passwd","size":1}},"facts":{}}',
    '{"files":{"a":null},"facts":{}}',
  ])('does not believe an entry that says %s', async (text) => {
    const cache = new Cache(directory);
    await mkdir(join(directory, 'names'), { recursive: true });
    await writeFile(join(directory, 'names', 'x.json'), text);
    expect(await cache.lookUp('x')).toBeNull();
  });

  it('removes what dead processes left', async () => {
    await mkdir(join(directory, 'tmp', '1000-dead'), { recursive: true });
    const cache = new Cache(directory);
    const own = await cache.temporaryDirectory();
    expect((await readdir(join(directory, 'tmp'))).map((name) => join(directory, 'tmp', name))).toEqual([
      own,
    ]);
  });

  it("is in the user's cache directory", () => {
    expect(defaultCacheDirectory({ XDG_CACHE_HOME: '/x/y' })).toBe('/x/y/xenolith');
    expect(defaultCacheDirectory({ XDG_CACHE_HOME: 'relative' })).toMatch(/\/\.cache\/xenolith$/);
    expect(defaultCacheDirectory({})).toMatch(/\/\.cache\/xenolith$/);
  });
});

describe('cpio archives', () => {
  it('are as the kernel reads them', () => {
    const archive = new CpioArchive(86400);
    archive.file('etc/deep/file', 'text\n', 0o600);
    archive.file('bin/tool', bytes('#!/bin/sh\n'), 0o755);
    archive.symlink('bin/link', 'tool');
    archive.directory('tmp', 0o1777);
    archive.characterDevice('dev/console', 5, 1);
    const data = archive.finish();
    expect(data.length % 512).toBe(0);
    expect(listCpio(data)).toEqual([
      ['etc', 0o40755, 0],
      ['etc/deep', 0o40755, 0],
      ['etc/deep/file', 0o100600, 5],
      ['bin', 0o40755, 0],
      ['bin/tool', 0o100755, 10],
      ['bin/link', 0o120777, 4],
      ['tmp', 0o41777, 0],
      ['dev', 0o40755, 0],
      ['dev/console', 0o20600, 0],
    ]);
  });

  it('refuse names that make no sense', () => {
    const archive = new CpioArchive();
    archive.file('a', '');
    expect(() => archive.file('a', '')).toThrow(RangeError);
    expect(() => archive.file('/a', '')).toThrow(RangeError);
    expect(() => archive.file('', '')).toThrow(RangeError);
  });
});

/** Name, mode and size of each member, as the buffer format describes them. */
function listCpio(data: Uint8Array): [string, number, number][] {
  const members: [string, number, number][] = [];
  const text = (at: number, size: number) => Buffer.from(data.subarray(at, at + size)).toString('latin1');
  for (let at = 0; ; ) {
    expect(text(at, 6)).toBe('070701');
    const field = (index: number) => Number.parseInt(text(at + 6 + index * 8, 8), 16);
    const nameSize = field(11);
    const name = text(at + 110, nameSize - 1);
    const dataAt = (at + 110 + nameSize + 3) & ~3;
    if (name === 'TRAILER!!!') return members;
    members.push([name, field(1), field(6)]);
    at = (dataAt + field(6) + 3) & ~3;
  }
}

describe('tar archives', () => {
  const long = `${'d'.repeat(90)}/${'e'.repeat(90)}/file`;

  async function archive(...options: string[]): Promise<Uint8Array> {
    await mkdir(join(directory, long, '..'), { recursive: true });
    await writeFile(join(directory, long), 'long');
    await writeFile(join(directory, 'a'), 'x'.repeat(1000));
    await writeFile(join(directory, 'b'), '');
    return execFileSync('tar', [...options, '-C', directory, '-cf', '-', './a', `./${long}`, './b']);
  }

  async function* inPieces(data: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < data.length; at += size) yield data.subarray(at, at + size);
  }

  async function read(
    data: Uint8Array,
    wanted = (_: string) => true,
    size = 700,
  ): Promise<[string, string][]> {
    const files: [string, string][] = [];
    for await (const file of tarFiles(inPieces(data, size), wanted)) {
      files.push([file.path, new TextDecoder().decode(file.bytes)]);
    }
    return files;
  }

  it.each(['gnu', 'ustar'])('of format %s are read', async (format) => {
    const data = await archive(`--format=${format}`);
    const all: [string, string][] = [
      ['a', 'x'.repeat(1000)],
      [long, 'long'],
      ['b', ''],
    ];
    expect(await read(data)).toEqual(all);
    expect(await read(data, undefined, 1 << 20)).toEqual(all);
    expect(await read(data, (path) => path === 'b')).toEqual([['b', '']]);
  });

  it('that are damaged are refused', async () => {
    const data = new Uint8Array(await archive());
    await expect(read(data.subarray(0, 900))).rejects.toThrow(TarError);
    data[3] = 0x41;
    await expect(read(data)).rejects.toThrow('damaged header');
  });
});

describe('the initramfs', () => {
  const names = ['[', '[[', 'ash', 'cat', 'ls', 'mount', 'poweroff', 'reboot', 'setsid', 'sh', 'stty', 'vi'];
  const busybox = bytes(`\x7fELF...\0${names.join('\0')}\0\0more`);

  it('has busybox under its names, and what a system needs', async () => {
    expect(appletNames(busybox)).toEqual(names);
    const extra = [{ path: 'root/hello', bytes: bytes('hi') }];
    const archive = await buildInitramfs(busybox, extra);
    const members = new Map(listCpio(archive).map(([name, mode]) => [name, mode]));
    expect(members.get('init')).toBe(0o100755);
    expect(members.get('dev/console')).toBe(0o20600);
    expect(members.get('bin/busybox')).toBe(0o100755);
    expect(members.get('bin/ls')).toBe(0o120777);
    // Ours, not busybox's: they end the domain at once.
    expect(members.get('bin/poweroff')).toBe(0o100755);
    expect(members.get('root/hello')).toBe(0o100644);
    expect(members.get('tmp')).toBe(0o41777);
    expect(await buildInitramfs(busybox, extra)).toEqual(archive);
  });

  it('is not made of something else', () => {
    expect(() => appletNames(bytes('not busybox'))).toThrow(ImageError);
    expect(() => appletNames(bytes('\0[\0[[\0ash\0'))).toThrow('this busybox has no ls');
  });

  it('has scripts that the shell can read', async () => {
    const root = new URL('../../../guests/initramfs/', import.meta.url);
    for (const path of [
      'init',
      'etc/session',
      'etc/root',
      'etc/profile',
      'bin/poweroff',
      'bin/reboot',
      'bin/halt',
    ]) {
      const script = await readFile(new URL(path, root), 'utf8');
      execFileSync('sh', ['-n'], { input: script });
    }
  });
});

describe('progress', () => {
  it('is one line on a terminal', () => {
    let text = '';
    let now = 0;
    const progress = progressOn(
      { isTTY: true, columns: 60, write: (part: string) => (text += part) },
      () => now,
    );
    progress.update('fetching', 0);
    progress.update('fetching', 0.1);
    now += 1000;
    progress.update('fetching', 0.5);
    progress.clear();
    progress.clear();
    expect(text).toBe(
      `\r\x1b[Kfetching [${'.'.repeat(24)}]   0%\r\x1b[Kfetching [${'#'.repeat(12)}${'.'.repeat(12)}]  50%\r\x1b[K`,
    );
    expect(text.split('\r').every((line) => line.length < 64)).toBe(true);
  });

  it('is nothing elsewhere', () => {
    let text = '';
    const progress = progressOn({ write: (part: string) => (text += part) });
    progress.update('fetching', 0);
    progress.clear();
    expect(text).toBe('');
  });
});
