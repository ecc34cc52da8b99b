/**
 * A cache of files by content, in the user's cache directory.
 *
 *   objects/<sha256>       the files themselves; the name is the hash of the content
 *   names/<key>.json       what a recipe made: hashes and sizes of its files, and facts about them
 *   tmp/                   files under way; renamed to their place when complete
 *
 * A file counts only if its content has its name's hash when it is read: anything else (a disk that was full, a
 * power cut, an editor) makes it absent, and it is made again. Several processes may use the cache at once.
 */
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** A file in the cache. */
export interface CachedFile {
  readonly sha256: string;
  /** In bytes. */
  readonly size: number;
}

/** What is kept under a name. */
export interface Entry {
  readonly files: Readonly<Record<string, CachedFile>>;
  readonly facts: Readonly<Record<string, string>>;
}

/** A directory of work in progress older than this, in milliseconds, belongs to nobody any more. */
const ABANDONED_MS = 24 * 3600 * 1000;

/** Where the cache of this user is. */
export function defaultCacheDirectory(
  env: Readonly<Record<string, string | undefined>> = process.env,
): string {
  const base = env['XDG_CACHE_HOME'];
  return join(base?.startsWith('/') ? base : join(homedir(), '.cache'), 'xenolith');
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

export class Cache {
  readonly directory: string;

  constructor(directory: string = defaultCacheDirectory()) {
    this.directory = directory;
  }

  /** The path of a file that was added; whether it is intact is not known. */
  path(file: CachedFile): string {
    return join(this.directory, 'objects', file.sha256);
  }

  /** The content of a file, or null if it is not there or not intact (then it is removed). */
  async read(file: CachedFile): Promise<Uint8Array | null> {
    const bytes = await readFile(this.path(file)).catch(() => null);
    if (bytes && bytes.length === file.size && sha256(bytes) === file.sha256) return bytes;
    if (bytes) await rm(this.path(file), { force: true });
    return null;
  }

  /** Adds a file. */
  async add(bytes: Uint8Array): Promise<CachedFile> {
    const file = { sha256: sha256(bytes), size: bytes.length };
    if ((await this.read(file)) === null) await this.place(bytes, 'objects', file.sha256);
    return file;
  }

  /** What is kept under a name, or null. Its files may be damaged or gone: {@link read} tells. */
  async lookUp(name: string): Promise<Entry | null> {
    try {
      const value: unknown = JSON.parse(await readFile(this.nameFile(name), 'utf8'));
      return isEntry(value) ? value : null;
    } catch {
      return null;
    }
  }

  /** When something was last kept under a name, in ms since the epoch; 0: never. */
  async keptAt(name: string): Promise<number> {
    return (await stat(this.nameFile(name)).catch(() => null))?.mtimeMs ?? 0;
  }

  /** Keeps an entry under a name, in place of what was there. */
  async keep(name: string, entry: Entry): Promise<void> {
    await this.place(new TextEncoder().encode(JSON.stringify(entry, null, 2)), 'names', nameOf(name));
  }

  /** Notes that what is kept under a name is still right. */
  async confirm(name: string): Promise<void> {
    const now = new Date();
    await utimes(this.nameFile(name), now, now).catch(() => {});
  }

  /** An empty directory of one's own; the caller removes it. */
  async temporaryDirectory(): Promise<string> {
    const directory = join(this.directory, 'tmp', `${Date.now()}-${randomBytes(6).toString('hex')}`);
    await mkdir(directory, { recursive: true });
    await this.sweep();
    return directory;
  }

  /** Removes what ended processes left behind. */
  private async sweep(): Promise<void> {
    const names = await readdir(join(this.directory, 'tmp')).catch(() => []);
    for (const name of names) {
      const started = Number.parseInt(name, 10);
      if (started < Date.now() - ABANDONED_MS) {
        await rm(join(this.directory, 'tmp', name), { recursive: true, force: true });
      }
    }
  }

  private nameFile(name: string): string {
    return join(this.directory, 'names', nameOf(name));
  }

  private async place(bytes: Uint8Array, folder: string, name: string): Promise<void> {
    const temporary = await this.temporaryDirectory();
    try {
      const file = join(temporary, name);
      await writeFile(file, bytes, { flush: true });
      await mkdir(join(this.directory, folder), { recursive: true });
      await rename(file, join(this.directory, folder, name));
    } finally {
      await rm(temporary, { recursive: true, force: true });
    }
  }
}

function nameOf(name: string): string {
  return `${name.replace(/[^A-Za-z0-9.+~_-]/g, '_')}.json`;
}

function isEntry(value: unknown): value is Entry {
  if (typeof value !== 'object' || value === null) return false;
  const { files, facts } = value as Partial<Record<'files' | 'facts', unknown>>;
  if (typeof files !== 'object' || files === null || typeof facts !== 'object' || facts === null)
    return false;
  return Object.values(files as Record<string, Partial<CachedFile> | null>).every(
    (file) => /^[0-9a-f]{64}$/.test(String(file?.sha256)) && Number.isSafeInteger(file?.size),
  );
}
