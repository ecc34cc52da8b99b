/**
 * Translations kept on disk between runs, so that a machine that does again what one did before starts warm.
 *
 *   <directory>/<version>/<sha256>.xlt    a WebAssembly module and what is to be known of its regions
 *
 * The version is a hash of the translator's own code: another translator never sees them. A file counts only if its
 * content has its name's hash. That keeps accidents out, not attackers: whoever can write to the directory is the
 * user. What a translation was made from stands beside it, and whoever installs it compares that with the guest's
 * memory (x86/core/translations.ts). Files are written aside and renamed. Those used longest ago go when the directory
 * grows too large.
 */
import { createHash, randomBytes } from 'node:crypto';
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PAGE_SIZE } from '../../machine/memory.ts';
import type { CompiledPage, CompiledRegion } from '../../x86/index.ts';
import { defaultCacheDirectory } from '../images/cache.ts';

/** What is kept of a region. */
export interface StoredRegion {
  readonly pages: readonly Omit<CompiledPage, 'frame'>[];
  readonly entries: CompiledRegion['entries'];
  readonly apart: CompiledRegion['apart'];
}

export interface StoredBatch {
  readonly module: Uint8Array;
  readonly regions: readonly StoredRegion[];
}

export interface Limits {
  /** Bytes in the directory, all versions together. */
  readonly directory: number;
  /** Bytes that one run adds, and that are read at its start. */
  readonly run: number;
  /** Regions that are read at the start. */
  readonly regions: number;
}

const LIMITS: Limits = { directory: 256 << 20, run: 64 << 20, regions: 4096 };

const MAGIC = 'XENOLT01';
/** Offsets: the hash of all behind it; lengths of the three parts; the first of them. */
const HASH = 8;
const LENGTHS = HASH + 32;
const PARTS = LENGTHS + 12;
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
  *load(): Generator<{ name: string; batch: StoredBatch }> {
    this.trim();
    let bytes = 0;
    let regions = 0;
    for (const { path, name, size } of files(this.folder).sort((a, b) => b.time - a.time)) {
      bytes += size;
      if (bytes > this.limits.run) return;
      const batch = read(path, name);
      if (batch === null) {
        rmSync(path, { force: true });
        continue;
      }
      regions += batch.regions.length;
      if (regions > this.limits.regions) return;
      yield { name, batch };
    }
  }

  /** Keeps translations. A disk that is full or read-only is no error: then they are not kept. */
  save(batch: StoredBatch): void {
    const bytes = encode(batch);
    if (this.written + bytes.length > this.limits.run) return;
    this.written += bytes.length;
    const name = nameOf(bytes);
    try {
      mkdirSync(this.folder, { recursive: true, mode: 0o700 });
      const temporary = join(this.folder, `${name}.${randomBytes(6).toString('hex')}.tmp`);
      writeFileSync(temporary, bytes, { mode: 0o600 });
      renameSync(temporary, join(this.folder, name + SUFFIX));
    } catch {}
  }

  /** Notes that a file was of use. */
  used(name: string): void {
    const now = new Date();
    try {
      utimesSync(join(this.folder, name + SUFFIX), now, now);
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

/** A hash of the code that translations depend on, all of the layers x86 and wasm. */
export function translatorVersion(): string {
  const hash = createHash('sha256');
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

const nameOf = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

// --- Format ---

interface Header {
  regions: {
    pages: { delta: number; ranges: [number, number][] }[];
    entries: { page: number; offset: number }[];
    apart: number[];
  }[];
}

const lengthOf = (ranges: readonly (readonly [number, number])[]) =>
  ranges.reduce((sum, [start, end]) => sum + end - start, 0);

export function encode({ module, regions }: StoredBatch): Uint8Array {
  const header: Header = {
    regions: regions.map(({ pages, entries, apart }) => ({
      pages: pages.map(({ delta, ranges }) => ({ delta, ranges: ranges.map(([a, b]) => [a, b]) })),
      entries: entries.map(({ page, offset }) => ({ page, offset })),
      apart: [...apart],
    })),
  };
  const text = new TextEncoder().encode(JSON.stringify(header));
  const code = regions.flatMap(({ pages }) => pages.map(({ bytes }) => bytes));
  const parts = [text, Buffer.concat(code), module];
  const out = new Uint8Array(PARTS + parts.reduce((sum, part) => sum + part.length, 0));
  out.set(new TextEncoder().encode(MAGIC));
  const view = new DataView(out.buffer);
  let at = PARTS;
  parts.forEach((part, i) => {
    view.setUint32(LENGTHS + i * 4, part.length, true);
    out.set(part, at);
    at += part.length;
  });
  out.set(createHash('sha256').update(out.subarray(LENGTHS)).digest(), HASH);
  return out;
}

/** @returns null for anything that encode does not make */
export function decode(file: Uint8Array): StoredBatch | null {
  if (file.length < PARTS || new TextDecoder().decode(file.subarray(0, HASH)) !== MAGIC) return null;
  const hash = createHash('sha256').update(file.subarray(LENGTHS)).digest();
  if (!hash.equals(file.subarray(HASH, LENGTHS))) return null;
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const parts: Uint8Array[] = [];
  let at = PARTS;
  for (let i = 0; i < 3; i++) {
    const length = view.getUint32(LENGTHS + i * 4, true);
    if (length > file.length - at) return null;
    parts.push(new Uint8Array(file.subarray(at, at + length)));
    at += length;
  }
  const [text, code, module] = parts as [Uint8Array, Uint8Array, Uint8Array];
  if (at !== file.length) return null;
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder().decode(text));
  } catch {
    return null;
  }
  if (!isHeader(header)) return null;
  let taken = 0;
  const regions = header.regions.map(({ pages, entries, apart }) => ({
    entries,
    apart,
    pages: pages.map(({ delta, ranges }) => {
      const length = lengthOf(ranges);
      taken += length;
      return { delta, ranges, bytes: code.slice(taken - length, taken) };
    }),
  }));
  return taken === code.length ? { module, regions } : null;
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
  const { pages, entries, apart } = value;
  if (!Array.isArray(apart) || !apart.every(Number.isSafeInteger)) return false;
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
