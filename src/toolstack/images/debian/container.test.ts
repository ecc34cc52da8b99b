/** Container images as tar archives, made with the machine's own tar; what comes out is unpacked by it, too. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { chmod, link, mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ImageError } from '../error.ts';
import { flattenContainer } from './container.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'xenolith-container-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Contents of files; null: a folder; "-> x": a symbolic link; "= x": a hard link. */
type Tree = Readonly<Record<string, string | null>>;

/** A layer as tar writes it. */
async function layer(tree: Tree, ...options: string[]): Promise<Buffer> {
  const root = join(folder, 'layer');
  await mkdir(root);
  for (const [name, content] of Object.entries(tree)) {
    const path = join(root, name);
    await mkdir(content === null ? path : dirname(path), { recursive: true });
    if (content?.startsWith('-> ')) await symlink(content.slice(3), path);
    else if (content?.startsWith('= ')) await link(join(root, content.slice(2)), path);
    else if (content !== null) await writeFile(path, content);
  }
  const bytes = execFileSync('tar', [
    '--sort=name',
    ...options,
    '-C',
    root,
    '-cf',
    '-',
    ...readdirSync(root),
  ]);
  await rm(root, { recursive: true });
  return bytes;
}

async function archive(files: Readonly<Record<string, Uint8Array | string>>): Promise<string> {
  const root = join(folder, 'image');
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(root, name)), { recursive: true });
    await writeFile(join(root, name), content);
  }
  const path = join(folder, 'image.tar');
  execFileSync('tar', ['-C', root, '-cf', path, ...readdirSync(root)]);
  await rm(root, { recursive: true });
  return path;
}

/** As docker save wrote it before it wrote OCI layouts. */
async function saved(...layers: readonly Uint8Array[]): Promise<string> {
  const names = layers.map((_, index) => `layer${index}/layer.tar`);
  return archive({
    'manifest.json': JSON.stringify([{ Config: 'c.json', RepoTags: ['x:latest'], Layers: names }]),
    ...Object.fromEntries(layers.map((bytes, index) => [names[index]!, bytes])),
  });
}

const digest = (bytes: Uint8Array | string) => createHash('sha256').update(bytes).digest('hex');

/** The tree that an image becomes. */
async function flattened(image: string): Promise<Record<string, string | null>> {
  const work = join(folder, 'work');
  await mkdir(work);
  const output = join(folder, 'flat.tar');
  await flattenContainer(image, output, work);
  expect(readdirSync(work)).toEqual([]);
  const root = join(folder, 'root');
  await mkdir(root);
  execFileSync('tar', ['-C', root, '-xpf', output]);
  const tree: Record<string, string | null> = {};
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    tree[path.slice(root.length + 1)] = entry.isDirectory()
      ? null
      : entry.isSymbolicLink()
        ? `-> ${readlinkSync(path)}`
        : readFileSync(path, 'utf8');
  }
  return tree;
}

describe('a container image', () => {
  it('is its layers one over the other, without what they take away', async () => {
    const image = await saved(
      await layer({
        'etc/a': '1',
        'etc/b': '1',
        'etc/sub/c': '1',
        'opaque/old': '1',
        'gone/x': '1',
        'file-then-folder': '1',
        'folder-then-file/x': '1',
        lib: '-> usr/lib',
        'usr/lib/l': '1',
      }),
      await layer({
        'etc/a': '2',
        'etc/.wh.b': '',
        'opaque/.wh..wh..opq': '',
        'opaque/new': '2',
        '.wh.gone': '',
        'file-then-folder/y': '2',
        'folder-then-file': '2',
      }),
      await layer({ 'etc/b': '3', 'gone/z': '3' }),
    );
    expect(await flattened(image)).toEqual({
      etc: null,
      'etc/a': '2',
      'etc/b': '3',
      'etc/sub': null,
      'etc/sub/c': '1',
      opaque: null,
      'opaque/new': '2',
      gone: null,
      'gone/z': '3',
      'file-then-folder': null,
      'file-then-folder/y': '2',
      'folder-then-file': '2',
      lib: '-> usr/lib',
      usr: null,
      'usr/lib': null,
      'usr/lib/l': '1',
    });
  });

  it('keeps links whose file an upper layer replaces, and long names', async () => {
    const long = `${'d'.repeat(120)}/${'e'.repeat(140)}`;
    const image = await saved(
      await layer({ a: 'one', b: '= a', [long]: '= a', d: 'other' }, '--format=gnu'),
      await layer({ a: 'two', [`x${long}`]: 'x' }, '--format=pax'),
    );
    const tree = await flattened(image);
    expect(tree).toMatchObject({ a: 'two', b: 'one', [long]: 'one', d: 'other', [`x${long}`]: 'x' });
    const number = (name: string) => statSync(join(folder, 'root', name)).ino;
    expect(number('b')).toBe(number(long));
    expect(number('b')).not.toBe(number('a'));
  });

  it('may be an OCI layout, with compressed layers and an index of several machines', async () => {
    const bytes = gzipSync(await layer({ 'bin/sh': 'shell' }));
    const manifest = JSON.stringify({ layers: [{ digest: `sha256:${digest(bytes)}` }] });
    const index = JSON.stringify({
      manifests: [
        { digest: `sha256:${'0'.repeat(64)}`, platform: { architecture: 'arm64' } },
        { digest: `sha256:${digest(manifest)}`, platform: { architecture: 'amd64' } },
      ],
    });
    const files = {
      'oci-layout': '{"imageLayoutVersion":"1.0.0"}',
      'index.json': JSON.stringify({ manifests: [{ digest: `sha256:${digest(index)}` }] }),
      [`blobs/sha256/${digest(index)}`]: index,
      [`blobs/sha256/${digest(manifest)}`]: manifest,
      [`blobs/sha256/${digest(bytes)}`]: bytes,
    };
    expect(await flattened(await archive(files))).toEqual({ bin: null, 'bin/sh': 'shell' });
  });

  it('has no devices, which only root could make', async () => {
    const fifo = join(folder, 'layer/pipe');
    await mkdir(dirname(fifo));
    execFileSync('mkfifo', [fifo]);
    const bytes = execFileSync('tar', ['-C', dirname(fifo), '-cf', '-', 'pipe']);
    // From a FIFO to a character device: its type, and the sum that goes with it.
    bytes[156] = '3'.charCodeAt(0);
    const sum = Number.parseInt(bytes.toString('latin1', 148, 154), 8) + 3 - 6;
    bytes.write(sum.toString(8).padStart(6, '0'), 148);
    await rm(dirname(fifo), { recursive: true });
    const image = await saved(bytes, await layer({ 'dev/shm/x': '1', a: '1' }));
    expect(await flattened(image)).toEqual({ dev: null, a: '1' });
  });

  it('keeps permissions', async () => {
    const root = join(folder, 'layer');
    await mkdir(root);
    await writeFile(join(root, 'su'), '');
    await chmod(join(root, 'su'), 0o4755);
    const bytes = execFileSync('tar', ['-C', root, '-cf', '-', 'su']);
    await flattened(await saved(bytes));
    expect(statSync(join(folder, 'root/su')).mode & 0o7777).toBe(0o4755);
  });

  it.each<[string, () => Promise<string>, RegExp]>([
    ['no image', () => archive({ a: 'b' }), /that is no container image/],
    [
      'not an archive',
      async () => {
        const path = join(folder, 'x');
        await writeFile(path, Buffer.alloc(2000, 1));
        return path;
      },
      /damaged header/,
    ],
    [
      'a layer that is missing',
      () => archive({ 'manifest.json': '[{"Layers":["x/layer.tar"]}]' }),
      /has no x\/layer\.tar/,
    ],
    ['a manifest that is not JSON', () => archive({ 'manifest.json': '[' }), /damaged/],
    [
      'two images',
      () => archive({ 'manifest.json': '[{"Layers":["a"]},{"Layers":["a"]}]', a: '' }),
      /2 container images/,
    ],
    [
      'a blob that is not what its name says',
      async () => {
        const hash = digest('{"layers":[]}');
        return archive({
          'index.json': JSON.stringify({ manifests: [{ digest: `sha256:${hash}` }] }),
          [`blobs/sha256/${hash}`]: '{"layers":[ ]}',
        });
      },
      /damaged: blobs/,
    ],
    [
      'a name out of the tree',
      async () => saved(await layer({ x: '' }, '--transform=s,x,a/../../x,', '-P')),
      /names a\/\.\.\/\.\.\/x/,
    ],
  ])('is refused: %s', async (_, make, message) => {
    const image = await make();
    const work = join(folder, 'work');
    await mkdir(work);
    const failed = await flattenContainer(image, join(folder, 'out'), work).catch((error: unknown) => error);
    expect(failed).toBeInstanceOf(ImageError);
    expect((failed as Error).message).toMatch(message);
  });
});
