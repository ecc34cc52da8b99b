/**
 * Debian disk images, kept in the cache: the same packages for the same kernel are put together once a week, and
 * copied from then on.
 */
import { createHash, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, stat, utimes } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { Apt } from '../apt.ts';
import { Cache } from '../cache.ts';
import { ImageError } from '../error.ts';
import { findKernel } from '../kernels.ts';
import { type Progress, SILENT } from '../progress.ts';
import { complaint, runTool } from '../tool.ts';
import { type AptSettings, aptSettings } from './apt-settings.ts';
import { type Bootstrap, bootstrap, GUEST_FOLDER, packageList } from './bootstrap.ts';
import { flattenContainer } from './container.ts';
import { makeDisk } from './disk.ts';
import { modulesArchive } from './modules.ts';

/** Changes when images of the same recipe come out differently. */
const FORMAT = 1;
/** How long an image counts as new, in milliseconds. */
const FRESH_MS = 7 * 24 * 3600 * 1000;
/** As many are kept. */
const KEPT = 4;

export interface DebianOptions {
  /** Besides those of guests/debian/packages. */
  readonly packages: readonly string[];
  /** The disk's, in KiB. */
  readonly size: number;
  /** An archive of a container's image to begin with, or null: Debian's packages alone. */
  readonly container: string | null;
  /** Make it anew, with the packages as they are now. */
  readonly update: boolean;
}

export interface DebianImage {
  /** The disk in the cache: to be copied, or written to in an overlay only. */
  readonly path: string;
  /** Nothing had to be made. */
  readonly cached: boolean;
  readonly kernelVersion: string | null;
  /** Proxies of this machine's that a guest cannot reach. */
  readonly unreachable: readonly string[];
}

/**
 * A Debian image out of the cache, or made.
 * @throws ImageError
 */
export async function debianImage(
  { packages: more, size, container, update }: DebianOptions,
  { cache = new Cache(), progress = SILENT }: { cache?: Cache; progress?: Progress } = {},
): Promise<DebianImage> {
  const apt = new Apt(progress);
  try {
    if (update) await apt.update();
    const settings = await settingsOf(apt);
    const kernel = await findKernel('debian', apt);
    if (!kernel) throw new ImageError(`apt offers no package linux-image-amd64 (${apt.advice})`);
    const packages = [...new Set([...(await packageList()), ...more])];
    const parts = [
      FORMAT,
      settings,
      kernel.sha256,
      packages,
      size,
      await guestFiles(),
      await digest(container),
    ];
    const key = createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 32);
    const folder = join(cache.directory, 'guests');
    const path = join(folder, `debian-${key}.img`);
    const { unreachable } = settings;
    const made = await stat(path).catch(() => null);
    if (made && !update && Date.now() - made.mtimeMs < FRESH_MS)
      return { path, cached: true, kernelVersion: null, unreachable };

    const work = await cache.temporaryDirectory();
    try {
      const files = join(work, 'files.tar');
      await filesArchive(files);
      const modules = join(work, 'modules.tar');
      const kernelVersion = await modulesArchive(apt, kernel, modules, work);
      let tree: string | null = null;
      if (container !== null) {
        tree = join(work, 'container.tar');
        progress.update('reading the container image', null);
        await flattenContainer(container, tree, work);
      }
      const recipe: Bootstrap = {
        apt: settings,
        packages,
        overlays: [files, modules],
        kernelVersion,
        container: tree,
      };
      const system = join(work, 'system.tar');
      await bootstrap(recipe, system, progress);
      progress.update('making the disk', null);
      const image = join(work, `disk-${randomBytes(4).toString('hex')}`);
      await makeDisk(system, image, size, work);
      await mkdir(folder, { recursive: true });
      await rename(image, path);
      await prune(folder);
      return { path, cached: false, kernelVersion, unreachable };
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  } catch (error) {
    const { code, path } = error as NodeJS.ErrnoException;
    if (code && path) throw new ImageError(`the image cannot be made: ${code} at ${path}`);
    throw error;
  } finally {
    progress.clear();
  }
}

/** Copies a disk, leaving out what is empty. @throws ImageError */
export async function copyDisk(from: string, to: string): Promise<void> {
  const temporary = `${to}.${randomBytes(4).toString('hex')}`;
  const { status, errors } = await runTool('cp', ['--sparse=always', '--reflink=auto', from, temporary]);
  if (status !== 0) {
    await rm(temporary, { force: true });
    throw new ImageError(`${to} cannot be written: ${complaint(errors, 'cp failed')}`);
  }
  const now = new Date();
  await utimes(temporary, now, now);
  await rename(temporary, to);
}

async function settingsOf(apt: Apt): Promise<AptSettings> {
  try {
    return await aptSettings();
  } catch (error) {
    if (error instanceof ImageError && (await apt.update())) return aptSettings();
    throw error;
  }
}

/** What guests/debian/files has, owned by root. */
async function filesArchive(archive: string): Promise<void> {
  const { status, errors } = await runTool('tar', [
    ...['--create', '--file', archive, '--directory', join(GUEST_FOLDER, 'files')],
    ...['--owner=0', '--group=0', '--numeric-owner', '--mode=u=rwX,go=rX', 'etc'],
  ]);
  if (status !== 0)
    throw new ImageError(`${GUEST_FOLDER} cannot be read: ${complaint(errors, 'tar failed')}`);
}

/** Names and contents of all files that go into an image. */
async function guestFiles(): Promise<[string, string][]> {
  const entries = await readdir(GUEST_FOLDER, { recursive: true, withFileTypes: true });
  const paths = entries
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name));
  return Promise.all(
    paths
      .sort()
      .map(
        async (path): Promise<[string, string]> => [
          relative(GUEST_FOLDER, path),
          await readFile(path, 'latin1'),
        ],
      ),
  );
}

async function digest(file: string | null): Promise<string> {
  if (file === null) return '';
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(file)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

/** Removes images beyond those that are kept, the oldest first. */
async function prune(folder: string): Promise<void> {
  const names = (await readdir(folder)).filter((name) => /^debian-.*\.img$/.test(name));
  const dated = await Promise.all(
    names.map(async (name) => ({ name, at: (await stat(join(folder, name))).mtimeMs })),
  );
  dated.sort((a, b) => b.at - a.at);
  for (const { name } of dated.slice(KEPT)) await rm(join(folder, name), { force: true });
}
