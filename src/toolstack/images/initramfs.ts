/**
 * The root file system that the kernels start with: busybox, from Debian's busybox-static, under all its names, and
 * the small set of files in guests/initramfs. It is made anew each time, which takes a few milliseconds; the same
 * inputs give the same bytes.
 */
import { readFile } from 'node:fs/promises';
import { CpioArchive } from './cpio.ts';
import { ImageError } from './error.ts';
import { fetchPackageFiles, type ImageOptions } from './package-files.ts';

/** The files of guests/initramfs: path in the archive, permissions. */
const FILES: readonly (readonly [path: string, permissions: number])[] = [
  ['init', 0o755],
  ['bin/halt', 0o755],
  ['bin/poweroff', 0o755],
  ['bin/reboot', 0o755],
  ['etc/session', 0o755],
  ['etc/root', 0o644],
  ['etc/udhcpc/default.script', 0o755],
  ['etc/profile', 0o644],
  ['etc/passwd', 0o644],
  ['etc/group', 0o644],
];

/** Empty directories. */
const DIRECTORIES: readonly (readonly [path: string, permissions: number])[] = [
  ['dev', 0o755],
  ['proc', 0o555],
  ['sys', 0o555],
  ['run', 0o755],
  ['mnt', 0o755],
  ['root', 0o700],
  ['tmp', 0o1777],
  ['var/log', 0o755],
];

/** Names that must be among busybox's for its list to be believed. */
const EXPECTED = ['ash', 'ls', 'mount', 'poweroff', 'reboot', 'setsid', 'sh', 'stty', 'vi'];

/** What else goes into the archive. */
export interface ExtraFile {
  /** Without a leading slash. */
  readonly path: string;
  readonly bytes: Uint8Array;
  readonly permissions?: number;
}

/**
 * The initramfs with a shell.
 * @throws ImageError
 */
export async function shellInitramfs(
  options: ImageOptions = {},
  extra: readonly ExtraFile[] = [],
): Promise<Uint8Array> {
  const { files } = await fetchPackageFiles(
    'busybox',
    'busybox-static',
    (apt) => apt.offer('busybox-static'),
    { busybox: /^(usr\/)?bin\/busybox$/ },
    ['busybox'],
    options,
  );
  return buildInitramfs(files.get('busybox')!, extra);
}

/**
 * An initramfs around a busybox binary (a static one).
 * @throws ImageError
 */
export async function buildInitramfs(
  busybox: Uint8Array,
  extra: readonly ExtraFile[] = [],
): Promise<Uint8Array> {
  const archive = new CpioArchive();
  for (const [path, permissions] of DIRECTORIES) archive.directory(path, permissions);
  // The kernel opens /dev/console for init before anything is mounted on /dev.
  archive.characterDevice('dev/console', 5, 1, 0o600);
  archive.characterDevice('dev/null', 1, 3, 0o666);
  archive.file('bin/busybox', busybox, 0o755);
  const own = new Set([...FILES.map(([path]) => path), 'bin/busybox']);
  for (const applet of appletNames(busybox)) {
    if (!own.has(`bin/${applet}`)) archive.symlink(`bin/${applet}`, 'busybox');
  }
  for (const path of ['sbin', 'usr/bin', 'usr/sbin']) archive.symlink(path, '/bin');
  for (const [path, permissions] of FILES) {
    const source = new URL(`../../../guests/initramfs/${path}`, import.meta.url);
    archive.file(path, await readFile(source), permissions);
  }
  for (const { path, bytes, permissions } of extra) archive.file(path, bytes, permissions ?? 0o644);
  return archive.finish();
}

/**
 * The names of a busybox binary's applets, read off the table in it: zero-terminated, sorted, "[" first.
 * @throws ImageError if that does not look like busybox
 */
export function appletNames(busybox: Uint8Array): string[] {
  const names: string[] = [];
  const bytes = Buffer.from(busybox.buffer, busybox.byteOffset, busybox.byteLength);
  let at = bytes.indexOf('\0[\0[[\0', 0, 'latin1') + 1;
  while (at > 0) {
    const end = bytes.indexOf(0, at);
    const name = bytes.toString('latin1', at, Math.max(end, at));
    if (!/^[\w[.+-]{1,32}$/.test(name) || name <= (names.at(-1) ?? '')) break;
    names.push(name);
    at = end + 1;
  }
  const missing = EXPECTED.find((name) => !names.includes(name));
  if (missing) throw new ImageError(`this busybox has no ${missing}`);
  return names;
}
