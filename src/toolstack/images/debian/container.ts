/**
 * The file system of a container's image, as one tar archive: what `docker save` writes, or a tar file of an OCI image
 * layout (OCI Image Format Specification: "Image Layout", "Image Manifest", "Image Layer Filesystem Changeset").
 *
 * Nothing of an image is unpacked onto this machine's file system, where links in it could lead out of the tree: which
 * entries of the layers are left in the end is decided on their names alone, and those are copied as they are, the
 * lowest layer's first. Whoever unpacks the result into an empty folder with tar has tar's own protection.
 */
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, open, rm } from 'node:fs/promises';
import { dirname, join, normalize } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { ImageError } from '../error.ts';
import { TarError, tarMembers } from '../tar.ts';
import { runTool } from '../tool.ts';

const WHITEOUT = '.wh.';
const OPAQUE = '.wh..wh..opq';
/** Longer lists of layers, manifests within indexes and descriptions are not made by anybody. */
const LAYERS_MAX = 512;
const INDEX_DEPTH_MAX = 4;
const JSON_MAX = 16 << 20;
const ZSTD_MAGIC = 0xfd2fb528;

/**
 * @param archive the image's file, perhaps compressed with gzip
 * @param output where the tree goes
 * @param folder an empty one for work
 * @throws ImageError
 */
export async function flattenContainer(archive: string, output: string, folder: string): Promise<void> {
  const work = join(folder, 'container');
  await mkdir(work);
  try {
    const files = await unpackImage(archive, work);
    const layers = await layersOf(files);
    const plain: string[] = [];
    for (const layer of layers) plain.push(await uncompressed(layer, work, plain.length));
    await merge(plain, output);
  } catch (error) {
    if (error instanceof TarError) throw new ImageError(`${archive}: ${error.message}`);
    throw error;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** The files of an image by their names in it; each goes into a file of its own. */
async function unpackImage(archive: string, work: string): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  const links = new Map<string, string>();
  for await (const member of tarMembers(await plainStream(archive))) {
    const name = cleanName(member.path);
    if (member.type === '2') links.set(name, normalize(join(dirname(name), member.link)));
    if (member.type !== '0') continue;
    const path = join(work, `part-${files.size}`);
    await pipeline(member.data(), createWriteStream(path));
    files.set(name, path);
  }
  // Old versions of docker save have links from one layer to another that is the same.
  for (const [name, to] of links) {
    const path = files.get(to);
    if (path !== undefined && !files.has(name)) files.set(name, path);
  }
  return files;
}

/** The files of the layers, the lowest first. */
async function layersOf(files: ReadonlyMap<string, string>): Promise<string[]> {
  const file = (name: string): string => {
    const path = files.get(name);
    if (path === undefined) throw new ImageError(`the container image has no ${name} in it`);
    return path;
  };
  const names: string[] = [];
  if (files.has('manifest.json')) {
    const images = await readJson(file('manifest.json'));
    const image: unknown = Array.isArray(images) ? images[0] : null;
    names.push(...strings(field(image, 'Layers')));
    if (Array.isArray(images) && images.length > 1)
      throw new ImageError(`the archive has ${images.length} container images in it: save one alone`);
  } else if (files.has('index.json')) {
    let descriptor: unknown = await readJson(file('index.json'));
    // An index may name indexes, of several kinds of machines, and in the end a manifest.
    for (let depth = 0; depth < INDEX_DEPTH_MAX && Array.isArray(field(descriptor, 'manifests')); depth++) {
      const manifests = field(descriptor, 'manifests') as unknown[];
      const ours =
        manifests.find((each) => field(field(each, 'platform'), 'architecture') === 'amd64') ?? manifests[0];
      if (ours === undefined) break;
      descriptor = await readJson(await blob(field(ours, 'digest'), file));
    }
    for (const layer of list(field(descriptor, 'layers'))) {
      await blob(field(layer, 'digest'), file);
      names.push(blobName(field(layer, 'digest')));
    }
  } else throw new ImageError('that is no container image: no manifest.json and no index.json in it');
  if (names.length === 0 || names.length > LAYERS_MAX)
    throw new ImageError(`the container image has ${names.length} layers`);
  return names.map(file);
}

function blobName(digest: unknown): string {
  const [, hash] = /^sha256:([0-9a-f]{64})$/.exec(String(digest)) ?? [];
  if (hash === undefined)
    throw new ImageError('the container image names a blob in a way that is unknown here');
  return `blobs/sha256/${hash}`;
}

/** A blob's file, whose content is what its name says. */
async function blob(digest: unknown, file: (name: string) => string): Promise<string> {
  const name = blobName(digest);
  const path = file(name);
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  if (!name.endsWith(hash.digest('hex'))) throw new ImageError(`the container image is damaged: ${name}`);
  return path;
}

/** Who decides what becomes of a name. */
interface Decided {
  /** The topmost layer that has it: its number. */
  readonly layer: number;
  readonly directory: boolean;
}

/** Devices, and what is in /dev, are the kernel's business. Nobody but root could unpack them. */
function isDevice(name: string, type: string): boolean {
  return type === '3' || type === '4' || name.startsWith('dev/');
}

/**
 * Which entries are left: goes through the layers from the top, and then copies from the bottom, so that the targets of
 * hard links come before them.
 */
async function merge(layers: readonly string[], output: string): Promise<void> {
  const decided = new Map<string, Decided>();
  /** Names that are gone in the layers below a number, with all that is under them. */
  const gone = new Map<string, number>();
  for (let layer = layers.length - 1; layer >= 0; layer--) {
    const here: [string, number][] = [];
    const entries: [string, boolean][] = [];
    for await (const { path, type } of tarMembers(createReadStream(layers[layer]!))) {
      const name = cleanName(path);
      const base = name.slice(name.lastIndexOf('/') + 1);
      const above = dirname(name);
      if (isDevice(name, type)) continue;
      if (base === OPAQUE) here.push([above, layer]);
      else if (base.startsWith(WHITEOUT)) here.push([join(above, base.slice(WHITEOUT.length)), layer]);
      else if (!hidden(name, layer, gone, decided)) entries.push([name, type === '5']);
    }
    for (const [name, directory] of entries) {
      const before = decided.get(name);
      // A folder goes on below what an upper layer says of it; an entry that stands twice in a layer counts once.
      if (!before || before.layer === layer) decided.set(name, { layer, directory });
    }
    for (const [name, below] of here) if (!gone.has(name)) gone.set(name, below);
  }

  const out = await open(output, 'w');
  try {
    for (const [layer, path] of layers.entries()) {
      /** The first link that is left, by the file that it leads to. */
      const links = new Map<string, string>();
      for await (const { path: link, type, link: file } of tarMembers(createReadStream(path))) {
        const name = cleanName(link);
        if (type === '1' && decided.get(name)?.layer === layer && !links.has(cleanName(file)))
          links.set(cleanName(file), name);
      }
      /** Files that are not left, though links to them are: they stand under the first link's name. */
      const moved = new Map<string, string>();
      for await (const member of tarMembers(createReadStream(path))) {
        const name = cleanName(member.path);
        if (name.slice(name.lastIndexOf('/') + 1).startsWith(WHITEOUT)) continue;
        const link = links.get(name);
        const left = decided.get(name)?.layer === layer;
        if (!left && (link === undefined || member.type !== '0')) continue;
        const target = member.type === '1' ? moved.get(cleanName(member.link)) : undefined;
        if (target === name) continue;
        if (!left) moved.set(name, link!);
        await out.write(
          !left ? member.renamed(link!, '') : target ? member.renamed(name, target) : member.header,
        );
        for await (const chunk of member.padded()) await out.write(chunk);
      }
    }
    await out.write(new Uint8Array(1024));
  } finally {
    await out.close();
  }
}

/** Is a name gone for a layer: by a whiteout above it, or because an upper layer has something else in its way? */
function hidden(
  name: string,
  layer: number,
  gone: ReadonlyMap<string, number>,
  decided: ReadonlyMap<string, Decided>,
): boolean {
  if ((gone.get('.') ?? -1) > layer) return true;
  for (let at = name; ; at = at.slice(0, at.lastIndexOf('/'))) {
    if ((gone.get(at) ?? -1) > layer) return true;
    const upper = decided.get(at);
    if (at !== name && upper && upper.layer > layer && !upper.directory) return true;
    if (!at.includes('/')) return false;
  }
}

/** A name without "./" and such. @throws ImageError: it leads out of the tree */
function cleanName(path: string): string {
  const name = normalize(path).replace(/^\/+|\/+$/g, '');
  if (name === '..' || name.startsWith('../')) throw new ImageError(`the container image names ${path}`);
  return name === '' ? '.' : name;
}

async function plainStream(file: string): Promise<AsyncIterable<Uint8Array>> {
  const source = createReadStream(file);
  if (!(await startsWith(file, [0x1f, 0x8b]))) return source;
  const gunzip = createGunzip();
  pipeline(source, gunzip).catch(() => {});
  return gunzip;
}

/** A layer as plain tar. */
async function uncompressed(file: string, work: string, index: number): Promise<string> {
  const zstd = new Uint8Array(new Uint32Array([ZSTD_MAGIC]).buffer);
  const path = join(work, `layer-${index}`);
  if (await startsWith(file, [...zstd])) {
    const { status } = await runTool('zstd', ['-q', '-d', '-o', path, file]);
    if (status !== 0) throw new ImageError(`layer ${index} of the container image is damaged`);
    return path;
  }
  if (!(await startsWith(file, [0x1f, 0x8b]))) return file;
  try {
    await pipeline(createReadStream(file), createGunzip(), createWriteStream(path));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code?.startsWith('Z_'))
      throw new ImageError(`layer ${index} of the container image is damaged`);
    throw error;
  }
  return path;
}

async function startsWith(file: string, bytes: readonly number[]): Promise<boolean> {
  const handle = await open(file);
  try {
    const { buffer } = await handle.read(new Uint8Array(bytes.length), 0, bytes.length, 0);
    return bytes.every((byte, index) => buffer[index] === byte);
  } finally {
    await handle.close();
  }
}

async function readJson(file: string): Promise<unknown> {
  const handle = await open(file);
  try {
    if ((await handle.stat()).size > JSON_MAX) throw new ImageError('the container image is damaged');
    return JSON.parse(await handle.readFile('utf8'));
  } catch (error) {
    if (error instanceof SyntaxError) throw new ImageError('the container image is damaged');
    throw error;
  } finally {
    await handle.close();
  }
}

function field(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function strings(value: unknown): string[] {
  return list(value).filter((each) => typeof each === 'string');
}
