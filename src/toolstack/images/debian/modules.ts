/** The modules of a kernel that a paravirtual guest has a use for, as a tar archive for its tree. */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Apt, Offer } from '../apt.ts';
import { ImageError } from '../error.ts';
import { complaint, runTool } from '../tool.ts';

/**
 * What is left out of lib/modules/VERSION/kernel: drivers of hardware, radio, file systems of clusters. A quarter stays:
 * of drivers, block, char, md, net and xen.
 */
const UNWANTED = [
  ...[
    'sound',
    'virt',
    'net/bluetooth',
    'net/mac80211',
    'net/wireless',
    'net/nfc',
    'net/ieee802154',
    'net/can',
  ],
  ...['fs/ocfs2', 'fs/gfs2', 'fs/ceph', 'fs/dlm'],
  ...['drivers/[ad-lo-wyz]*', 'drivers/bluetooth', 'drivers/b[!l]*', 'drivers/c[!h]*', 'drivers/m[!d]*'],
  ...['drivers/n[!e]*', 'drivers/char/[!h]*'],
  ...['can', 'ethernet', 'fddi', 'hamradio', 'ieee802154', 'phy', 'usb', 'wireless', 'wwan'].map(
    (name) => `drivers/net/${name}`,
  ),
];

/** Unpacks a package, puts its modules into an archive, and prints the kernel's version. */
const SCRIPT = `set -e
package=$1 work=$2 archive=$3
shift 3
mkdir "$work/package" "$work/tree" "$work/tree/usr" "$work/tree/usr/lib"
dpkg-deb --fsys-tarfile "$package" | tar --extract --directory "$work/package" \\
  --wildcards --wildcards-match-slash "$@" '*/lib/modules'
lib=$work/package/lib
[ -d "$lib/modules" ] || lib=$work/package/usr/lib
mv "$lib/modules" "$work/tree/usr/lib/modules"
tar --create --file "$archive" --directory "$work/tree" --owner=0 --group=0 --numeric-owner usr/lib/modules
ls "$work/tree/usr/lib/modules"
`;

/**
 * @param archive where it is to be
 * @param folder an empty one for work
 * @returns the kernel's version
 * @throws ImageError
 */
export async function modulesArchive(
  apt: Apt,
  kernel: Offer,
  archive: string,
  folder: string,
): Promise<string> {
  const download = join(folder, 'download');
  const work = join(folder, 'modules');
  await mkdir(download);
  await mkdir(work);
  try {
    const file = await apt.download(kernel, download);
    const { status, output, errors } = await runTool('sh', [
      ...['-c', SCRIPT, 'sh', file, work, archive],
      ...UNWANTED.map((path) => `--exclude=*/kernel/${path}`),
    ]);
    const [version] = output.trim().split('\n');
    if (status !== 0 || !version)
      throw new ImageError(
        `the modules of ${kernel.name} cannot be unpacked: ${complaint(errors, 'tar failed')}`,
      );
    return version;
  } finally {
    await rm(work, { recursive: true, force: true });
    await rm(download, { recursive: true, force: true });
  }
}
