/** Files out of Debian's packages, fetched once and kept in the cache. */
import { rm } from 'node:fs/promises';
import { Apt, filesOfPackage, type Offer } from './apt.ts';
import { Cache, type Entry } from './cache.ts';
import { ImageError } from './error.ts';
import { type Progress, SILENT } from './progress.ts';

export interface ImageOptions {
  readonly cache?: Cache;
  readonly progress?: Progress;
  /** Ask apt for the newest version even if the one in the cache was asked for lately. */
  readonly update?: boolean;
}

/** Files out of a package, by the recipe's names for them. */
export interface PackageFiles {
  readonly package: string;
  readonly version: string;
  readonly files: ReadonlyMap<string, Uint8Array>;
  /** Path of each within its package. */
  readonly paths: ReadonlyMap<string, string>;
}

/** How long a version counts as new, in milliseconds. */
const FRESH_MS = 24 * 3600 * 1000;

/**
 * Files out of a package, through the cache.
 * @param key names the recipe in the cache
 * @param what is looked for, for messages
 * @param find asks apt
 * @param needed those of the files that must be there
 * @throws ImageError
 */
export async function fetchPackageFiles(
  key: string,
  what: string,
  find: (apt: Apt) => Promise<Offer | null>,
  files: Readonly<Record<string, RegExp>>,
  needed: readonly string[],
  { cache = new Cache(), progress = SILENT, update = false }: ImageOptions = {},
): Promise<PackageFiles> {
  try {
    const known = await cache.lookUp(key);
    const kept = known && (await intact(cache, known, needed));
    if (kept && !update && Date.now() - (await cache.keptAt(key)) < FRESH_MS) return kept;
    const apt = new Apt(progress);
    progress.update(`looking for ${what}`, null);
    let offer: Offer | null;
    try {
      offer = await find(apt);
      if (!offer && !kept && (await apt.update())) offer = await find(apt);
    } catch (error) {
      if (kept) return kept;
      throw error;
    }
    if (!offer) {
      if (kept) return kept;
      throw new ImageError(`apt offers no package ${what} (${apt.advice})`);
    }
    if (kept && known.facts['packageSha256'] === offer.sha256) {
      await cache.confirm(key);
      return kept;
    }
    try {
      return await download(cache, apt, key, offer, files, needed);
    } catch (error) {
      // Lists that are old name packages that are gone; a version in the cache is better than none.
      const again = (await apt.update()) ? await find(apt) : null;
      if (again) return await download(cache, apt, key, again, files, needed);
      if (kept) return kept;
      throw error;
    }
  } catch (error) {
    const { code, path } = error as NodeJS.ErrnoException;
    if (code && path) throw new ImageError(`the cache of images cannot be written: ${code} at ${path}`);
    throw error;
  } finally {
    progress.clear();
  }
}

/** The files of an entry, if all that are needed are there as they were. */
async function intact(cache: Cache, entry: Entry, needed: readonly string[]): Promise<PackageFiles | null> {
  const files = new Map<string, Uint8Array>();
  const paths = new Map<string, string>();
  for (const [name, file] of Object.entries(entry.files)) {
    const bytes = await cache.read(file);
    if (!bytes) return null;
    files.set(name, bytes);
    paths.set(name, entry.facts[`path of ${name}`] ?? '');
  }
  if (needed.some((name) => !files.has(name))) return null;
  return { package: entry.facts['package'] ?? '', version: entry.facts['version'] ?? '', files, paths };
}

async function download(
  cache: Cache,
  apt: Apt,
  key: string,
  offer: Offer,
  wanted: Readonly<Record<string, RegExp>>,
  needed: readonly string[],
): Promise<PackageFiles> {
  const directory = await cache.temporaryDirectory();
  try {
    const found = await filesOfPackage(await apt.download(offer, directory), wanted);
    const missing = needed.find((name) => !found.has(name));
    if (missing) throw new ImageError(`the package ${offer.name} ${offer.version} has no ${missing} in it`);
    const files = new Map<string, Uint8Array>();
    const paths = new Map<string, string>();
    const entry = {
      files: {} as Record<string, { sha256: string; size: number }>,
      facts: { package: offer.name, version: offer.version, packageSha256: offer.sha256 } as Record<
        string,
        string
      >,
    };
    for (const [name, { path, bytes }] of found) {
      files.set(name, bytes);
      paths.set(name, path);
      entry.files[name] = await cache.add(bytes);
      entry.facts[`path of ${name}`] = path;
    }
    await cache.keep(key, entry);
    return { package: offer.name, version: offer.version, files, paths };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
