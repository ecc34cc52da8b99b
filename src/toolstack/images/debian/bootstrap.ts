/**
 * A Debian system as a tar archive, by mmdebstrap: from packages, or from the tree of a container's image to which it
 * adds what makes a machine of it. mmdebstrap works as root, in a user namespace or with fakechroot, whichever this
 * machine allows.
 */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ImageError } from '../error.ts';
import type { Progress } from '../progress.ts';
import { complaint, runTool } from '../tool.ts';
import type { AptSettings } from './apt-settings.ts';

/** What a Debian image is made of, for people to read and change. */
export const GUEST_FOLDER = fileURLToPath(new URL('../../../../guests/debian', import.meta.url));

const MERGED_USR = '/usr/share/mmdebstrap/hooks/maybe-merged-usr';
/** What nobody reads in a guest of 2 GiB. */
const LEFT_OUT = [
  ...['exclude=/usr/share/man/*', 'exclude=/usr/share/locale/*', 'exclude=/usr/share/info/*'],
  ...['exclude=/usr/share/doc/*', 'include=/usr/share/doc/*/copyright'],
];
/** Where the script waits in the new tree: a container's may have no folders but this one. */
const SETUP = '/.xenolith-setup';

export interface Bootstrap {
  readonly apt: AptSettings;
  readonly packages: readonly string[];
  /** Archives of files to add, in order; paths begin at the root. */
  readonly overlays: readonly string[];
  readonly kernelVersion: string;
  /** The archive of a container's tree, or null: from packages alone. */
  readonly container: string | null;
}

/** The packages that guests/debian/packages names. */
export async function packageList(): Promise<string[]> {
  const text = await readFile(join(GUEST_FOLDER, 'packages'), 'utf8');
  return text.split('\n').flatMap((line) => {
    const name = line.replace(/#.*/, '').trim();
    return name ? [name] : [];
  });
}

/** The arguments of mmdebstrap. @param target the archive */
export function bootstrapArguments(recipe: Bootstrap, target: string): string[] {
  const { apt, packages, overlays, kernelVersion, container } = recipe;
  const setup = ['chroot', '"$1"', 'sh', SETUP, kernelVersion, ...(container === null ? [] : packages)];
  return [
    '--format=tar',
    ...(container === null
      ? [
          '--variant=minbase',
          ...(existsSync(MERGED_USR) ? [`--hook-dir=${MERGED_USR}`] : []),
          ...LEFT_OUT.map((rule) => `--dpkgopt=path-${rule}`),
          `--include=${packages.join(',')}`,
        ]
      : ['--variant=custom', '--skip=update', `--setup-hook=tar-in ${container} /`]),
    ...apt.options.map((option) => `--aptopt=${option}`),
    ...overlays.map((archive) => `--customize-hook=tar-in ${archive} /`),
    `--customize-hook=upload ${join(GUEST_FOLDER, 'setup')} ${SETUP}`,
    `--customize-hook=${setup.join(' ')}`,
    `--customize-hook=rm "$1${SETUP}"`,
    apt.suite,
    target,
    ...(container === null ? ['-'] : []),
  ];
}

/** @throws ImageError */
export async function bootstrap(recipe: Bootstrap, target: string, progress: Progress): Promise<void> {
  const { status, errors } = await runTool('mmdebstrap', bootstrapArguments(recipe, target), {
    input: recipe.container === null ? `${recipe.apt.sources.join('\n')}\n` : '',
    // Half an image is of no use to anybody: what dpkg writes need not be on the disk before it goes on.
    env: { DPKG_FORCE: 'unsafe-io' },
    onError: (line) => {
      const [, what] = /^I: (.*?)\.*$/.exec(line) ?? [];
      if (what) progress.update(what, null);
    },
  });
  if (status === 0) return;
  if (/unable to pick chroot mode/.test(errors)) throw new ImageError(withoutRoot());
  // Who fails says what was wrong; then those who had started it say that it failed.
  const first = errors.split('\n').find((line) => line.startsWith('E: '));
  const what = first?.split('E: ').at(-1)?.trim() || complaint(errors, 'mmdebstrap failed');
  throw new ImageError(`the system cannot be put together: ${what}`);
}

/** What somebody who is not root needs: ids that stand for a system's users (subuid(5)). */
function withoutRoot(): string {
  const ids = '100000-165535';
  return (
    'without root the system is put together in a user namespace, run: sudo apt-get install uidmap; ' +
    'and if /etc/subuid names no ids for this user: ' +
    `sudo usermod --add-subuids ${ids} --add-subgids ${ids} ${userName()}`
  );
}

function userName(): string {
  try {
    return userInfo().username;
  } catch {
    // This user's number has no name.
    return 'USER';
  }
}
