/**
 * A disk with one ext4 file system on it (no partitions), from a tar archive of what is to be in it. Nothing is mounted:
 * mke2fs reads a folder. Who is not root has fakeroot remember the owners and devices meanwhile.
 */
import { createReadStream } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ImageError } from '../error.ts';
import { tarMembers } from '../tar.ts';
import { complaint, runTool } from '../tool.ts';

/**
 * Archive, folder, image and size in KiB are its arguments, and then the names of what has extended attributes, which it
 * gets when it is there already: fakeroot forgets what kind of file it is that gets one first. What is in /dev is the
 * kernel's business.
 */
const SCRIPT = `set -e
export PATH="$PATH:/usr/sbin:/sbin"
archive=$1 tree=$2 image=$3 size=$4
shift 4
extract() {
  tar --extract --file "$archive" --directory "$tree" --preserve-permissions --numeric-owner "$@"
}
extract --exclude='./dev/*'
if [ $# -gt 0 ]; then extract --overwrite --no-recursion --xattrs --xattrs-include='*' -- "$@"; fi
mke2fs -q -F -t ext4 -m 1 -L debian -d "$tree" "$image" "\${size}k"
`;
/** A record of pax's headers that says so. */
const ATTRIBUTE = Buffer.from('SCHILY.xattr.');

/**
 * @param archive a tar file
 * @param image the disk's file, which is made sparse
 * @param size in KiB
 * @param folder an empty one for work
 * @throws ImageError
 */
export async function makeDisk(archive: string, image: string, size: number, folder: string): Promise<void> {
  const tree = join(folder, 'tree');
  await mkdir(tree);
  try {
    const names = await withAttributes(archive);
    const command = ['sh', '-c', SCRIPT, 'sh', archive, tree, image, String(size), ...names];
    const [program, ...args] = process.getuid?.() === 0 ? command : ['fakeroot', '--', ...command];
    const { status, errors } = await runTool(program!, args);
    if (status === 0) return;
    if (/Could not allocate|No space left|too small/i.test(errors))
      throw new ImageError(`the system does not fit on a disk of ${size >> 10} MiB (or on this machine's)`);
    throw new ImageError(`the disk cannot be made: ${complaint(errors, 'mke2fs failed')}`);
  } finally {
    // Folders in it may be closed to their owner.
    await runTool('chmod', ['-R', 'u+rwX', tree]);
    await rm(tree, { recursive: true, force: true });
  }
}

/** The names of files and folders that have extended attributes: capabilities of programs, access lists. */
async function withAttributes(archive: string): Promise<string[]> {
  const names: string[] = [];
  for await (const { path, type, header } of tarMembers(createReadStream(archive)))
    if ((type === '0' || type === '5') && Buffer.from(header).includes(ATTRIBUTE)) names.push(path);
  return names;
}
