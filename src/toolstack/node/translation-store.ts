/**
 * Translations kept on disk between runs, so that a machine that does again what one did before starts warm.
 *
 *   <directory>/<version>/<sha256>.xlt    what is to be known of regions, their WebAssembly module, and perhaps what
 *                                         the engine's optimising compiler made of it
 *
 * The version is a hash of the translator's own code and names the engine: others never see them. At the start only the
 * first part is read, which has a hash of its own; the rest counts only if the whole file has its name's hash. That
 * keeps accidents out, not attackers: whoever can write to the directory is the user. What a translation was made from
 * stands beside it, and whoever installs it compares that with the guest's memory (x86/core/translations.ts). Files are
 * written aside and renamed. Those used longest ago go when the directory grows too large.
 */
import { createHash, randomBytes } from 'node:crypto';
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PAGE_SIZE } from '../../machine/memory.ts';
import { KNOWN_REGIONS, type StoredRegion } from '../../x86/index.ts';
import { defaultCacheDirectory } from '../images/cache.ts';

export interface StoredBatch {
  readonly regions: readonly StoredRegion[];
  readonly module: Uint8Array;
  /** See engine.ts, CodeImages; empty: there is none. */
  readonly image: Uint8Array;
}

export interface Limits {
  /** Bytes in the directory, all versions together. */
  readonly directory: number;
  /** Bytes that one run adds. */
  readonly run: number;
  /** Regions that are told of at the start. */
  readonly regions: number;
}

const LIMITS: Limits = { directory: 512 << 20, run: 128 << 20, regions: KNOWN_REGIONS.stored };

const MAGIC = 'XENOLT02';
/** Offsets: the hash of lengths and index; lengths of the four parts; the first of them. Two parts are the index. */
const HASH = 8;
const LENGTHS = HASH + 32;
const PARTS = LENGTHS + 16;
/** Bytes that are read of a file at first: most indexes are shorter. */
const FIRST_READ = 16_384;
const MAX_INDEX = 1 << 20;
const SUFFIX = '.xlt';
/** Work in progress older than this, ms, belongs to nobody any more. */
const ABANDONED_MS = 3600 * 1000;

export class TranslationStore {
  private readonly directory: string;
  private readonly folder: string;
  private readonly limits: Limits;
  private written = 0;

  /**
   * @param directory it is made if it does not exist
   * @param version see {@link translatorVersion}
   */
  constructor(directory: string, version: string, limits: Limits = LIMITS) {
    this.directory = directory;
    this.folder = join(directory, version);
    this.limits = limits;
  }

  /** What earlier runs kept, what was used last first. Damaged files are removed. */
  *index(): Generator<{ name: string; regions: readonly StoredRegion[] }> {
    this.trim();
    let count = 0;
    for (const { path, name } of files(this.folder).sort((a, b) => b.time - a.time)) {
      const regions = readIndex(path);
      if (regions === null) {
        rmSync(path, { force: true });
        continue;
      }
      count += regions.length;
      if (count > this.limits.regions) return;
      yield { name, regions };
    }
  }

  /** @returns null: it is gone, or damaged, and then it is removed */
  load(name: string): StoredBatch | null {
    const path = join(this.folder, name + SUFFIX);
    const batch = read(path, name);
    try {
      const now = new Date();
      if (batch === null) rmSync(path, { force: true });
      else utimesSync(path, now, now);
    } catch {}
    return batch;
  }

  /**
   * Keeps translations. A disk that is full or read-only is no error: then they are not kept.
   * @returns their name; null: they are not kept
   */
  save(batch: StoredBatch): string | null {
    const bytes = encode(batch);
    if (this.written + bytes.length > this.limits.run) return null;
    this.written += bytes.length;
    const name = nameOf(bytes);
    try {
      mkdirSync(this.folder, { recursive: true, mode: 0o700 });
      const temporary = join(this.folder, `${name}.${randomBytes(6).toString('hex')}.tmp`);
      writeFileSync(temporary, bytes, { mode: 0o600 });
      renameSync(temporary, join(this.folder, name + SUFFIX));
      return name;
    } catch {
      return null;
    }
  }

  /** Who has it in its index will find that it is gone. */
  remove(name: string): void {
    try {
      rmSync(join(this.folder, name + SUFFIX), { force: true });
    } catch {}
  }

  /** Removes what is too much, and what ended runs left behind. */
  private trim(): void {
    const all = folders(this.directory).flatMap(files);
    for (const folder of folders(this.directory)) removeAbandoned(folder);
    let bytes = all.reduce((sum, { size }) => sum + size, 0);
    for (const { path, size } of all.sort((a, b) => a.time - b.time)) {
      if (bytes <= this.limits.directory) break;
      rmSync(path, { force: true });
      bytes -= size;
    }
  }
}

/** Where they are kept for this user. */
export function defaultTranslations(): string {
  return join(defaultCacheDirectory(), 'translations');
}

/** A hash of the code that translations depend on, all of the layers x86 and wasm, and of the engine's name. */
export function translatorVersion(): string {
  const hash = createHash('sha256').update(`${process.versions['v8']} ${process.arch}\0`);
  for (const layer of ['x86', 'wasm']) {
    const root = fileURLToPath(new URL(`../../${layer}`, import.meta.url));
    const names = readdirSync(root, { recursive: true }) as string[];
    for (const name of names.filter((each) => /(?<!\.d|\.test)\.[jt]s$/.test(each)).sort())
      hash
        .update(name)
        .update('\0')
        .update(readFileSync(join(root, name)))
        .update('\0');
  }
  return hash.digest('hex').slice(0, 32);
}

// --- Files ---

function folders(directory: string): string[] {
  try {
    return readdirSync(directory, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && /^[0-9a-f]{32}$/.test(entry.name))
      .map(({ name }) => join(directory, name));
  } catch {
    return [];
  }
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function files(folder: string): { path: string; name: string; size: number; time: number }[] {
  return list(folder).flatMap((file) => {
    if (!file.endsWith(SUFFIX)) return [];
    const path = join(folder, file);
    const stat = statSync(path, { throwIfNoEntry: false });
    if (!stat?.isFile()) return [];
    return [{ path, name: file.slice(0, -SUFFIX.length), size: stat.size, time: stat.mtimeMs }];
  });
}

function removeAbandoned(folder: string): void {
  for (const file of list(folder)) {
    if (!file.endsWith('.tmp')) continue;
    const path = join(folder, file);
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat && stat.mtimeMs < Date.now() - ABANDONED_MS) rmSync(path, { force: true });
  }
}

function read(path: string, name: string): StoredBatch | null {
  try {
    const bytes = readFileSync(path);
    return nameOf(bytes) === name ? decode(bytes) : null;
  } catch {
    return null;
  }
}

/** Reads no more of a file than its index. @returns null for anything that encode does not make */
function readIndex(path: string): readonly StoredRegion[] | null {
  let file: number;
  try {
    file = openSync(path, 'r');
  } catch {
    return null;
  }
  try {
    let bytes = new Uint8Array(FIRST_READ);
    bytes = bytes.subarray(0, readSync(file, bytes));
    const length = indexLength(bytes);
    if (length > MAX_INDEX) return null;
    if (length > bytes.length) {
      bytes = new Uint8Array(length);
      bytes = bytes.subarray(0, readSync(file, bytes, 0, length, 0));
    }
    return decodeIndex(bytes);
  } catch {
    return null;
  } finally {
    closeSync(file);
  }
}

const nameOf = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

// --- Format ---

interface Header {
  regions: {
    pages: { delta: number; ranges: [number, number][] }[];
    entries: { page: number; offset: number }[];
    apart: number[];
    wide: boolean;
    remakes: number;
  }[];
}

const lengthOf = (ranges: readonly (readonly [number, number])[]) =>
  ranges.reduce((sum, [start, end]) => sum + end - start, 0);

export function encode({ regions, module, image }: StoredBatch): Uint8Array {
  const header: Header = {
    regions: regions.map(({ pages, entries, apart, wide, remakes }) => ({
      pages: pages.map(({ delta, ranges }) => ({ delta, ranges: ranges.map(([a, b]) => [a, b]) })),
      entries: entries.map(({ page, offset }) => ({ page, offset })),
      apart: [...apart],
      wide,
      remakes,
    })),
  };
  const text = new TextEncoder().encode(JSON.stringify(header));
  const code = Buffer.concat(regions.flatMap(({ pages }) => pages.map(({ bytes }) => bytes)));
  const parts = [text, code, module, image];
  const out = new Uint8Array(PARTS + parts.reduce((sum, part) => sum + part.length, 0));
  out.set(new TextEncoder().encode(MAGIC));
  const view = new DataView(out.buffer);
  let at = PARTS;
  parts.forEach((part, i) => {
    view.setUint32(LENGTHS + i * 4, part.length, true);
    out.set(part, at);
    at += part.length;
  });
  out.set(hashOf(out.subarray(LENGTHS, PARTS + text.length + code.length)), HASH);
  return out;
}

const hashOf = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest();

/** @returns null for anything that encode does not make */
export function decode(file: Uint8Array): StoredBatch | null {
  const regions = decodeIndex(file);
  if (regions === null) return null;
  const [, , module, image] = lengthsIn(file);
  const at = indexLength(file);
  if (file.length !== at + module + image) return null;
  const part = (start: number, length: number) => new Uint8Array(file.subarray(start, start + length));
  return { regions, module: part(at, module), image: part(at + module, image) };
}

type Lengths = [text: number, code: number, module: number, image: number];

/** @param file {@link PARTS} bytes of it at least */
function lengthsIn(file: Uint8Array): Lengths {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  return [0, 1, 2, 3].map((i) => view.getUint32(LENGTHS + i * 4, true)) as Lengths;
}

/** How much of a file is up to the index's end. */
function indexLength(file: Uint8Array): number {
  if (file.length < PARTS) return 0;
  const [text, code] = lengthsIn(file);
  return PARTS + text + code;
}

/** @param file up to the index's end at least @returns null for anything that encode does not make */
function decodeIndex(file: Uint8Array): readonly StoredRegion[] | null {
  if (file.length < PARTS || new TextDecoder().decode(file.subarray(0, HASH)) !== MAGIC) return null;
  const end = indexLength(file);
  if (end > file.length) return null;
  if (!hashOf(file.subarray(LENGTHS, end)).equals(file.subarray(HASH, LENGTHS))) return null;
  const [length] = lengthsIn(file);
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder().decode(file.subarray(PARTS, PARTS + length)));
  } catch {
    return null;
  }
  if (!isHeader(header)) return null;
  const code = new Uint8Array(file.subarray(PARTS + length, end));
  let taken = 0;
  const regions = header.regions.map(({ pages, ...rest }) => ({
    ...rest,
    pages: pages.map(({ delta, ranges }) => {
      const bytes = lengthOf(ranges);
      taken += bytes;
      return { delta, ranges, bytes: code.slice(taken - bytes, taken) };
    }),
  }));
  return taken === code.length ? regions : null;
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null;
const isOffset = (value: unknown, most: number): value is number =>
  Number.isInteger(value) && (value as number) >= 0 && (value as number) <= most;

function isHeader(value: unknown): value is Header {
  return isObject(value) && Array.isArray(value['regions']) && value['regions'].every(isRegion);
}

function isRegion(value: unknown): boolean {
  if (!isObject(value)) return false;
  const { pages, entries, apart, wide, remakes } = value;
  if (!Array.isArray(apart) || !apart.every(Number.isSafeInteger)) return false;
  if (typeof wide !== 'boolean' || !isOffset(remakes, 255)) return false;
  if (!Array.isArray(pages) || pages.length === 0 || !Array.isArray(entries) || entries.length === 0)
    return false;
  // Lookups begin at the page of the entry.
  if (!pages.every(isPage) || pages[(entries[0] as { page: number } | null)?.page ?? -1]?.delta !== 0)
    return false;
  return entries.every(
    (entry: unknown) =>
      isObject(entry) &&
      isOffset(entry['page'], pages.length - 1) &&
      isOffset(entry['offset'], PAGE_SIZE - 1),
  );
}

function isPage(value: unknown): boolean {
  if (!isObject(value) || !Number.isSafeInteger(value['delta']) || !Array.isArray(value['ranges']))
    return false;
  return value['ranges'].every(
    (range: unknown) =>
      Array.isArray(range) &&
      range.length === 2 &&
      isOffset(range[1], PAGE_SIZE) &&
      isOffset(range[0], range[1] - 1),
  );
}
