// Tools that the tests need beyond npm's own packages: installs them as root, else names the command that does.
import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Program, and the Debian package that brings it. */
const TOOLS = [
  ['gcc', 'gcc'],
  ['as', 'binutils'],
  ['objcopy', 'binutils'],
  ['apt-get', 'apt'],
  ['dpkg-deb', 'dpkg'],
  ['mkfs.ext4', 'e2fsprogs'],
  ['mmdebstrap', 'mmdebstrap'],
  ['fakeroot', 'fakeroot'],
  ['qemu-img', 'qemu-utils'],
  ['xenstore-ls', 'xenstore-utils'],
  ['socat', 'socat'],
];

function installed(program) {
  return `${process.env.PATH ?? ''}${delimiter}/usr/sbin${delimiter}/sbin`.split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Debian packages whose programs are not there, libc's headers included. */
export function missingPackages() {
  const packages = new Set();
  for (const [program, name] of TOOLS) if (!installed(program)) packages.add(name);
  try {
    accessSync('/usr/include/stdio.h');
  } catch {
    packages.add('libc6-dev');
  }
  return [...packages];
}

/** Makes sure that the tools are there. Returns what a person has to type, or null if nothing is missing. */
export function provide() {
  const packages = missingPackages();
  if (packages.length === 0) return null;
  const install = ['apt-get', 'install', '-y', '--no-install-recommends', ...packages];
  const command = `apt-get update && ${install.join(' ')}`;
  if (process.getuid?.() !== 0) return `sudo sh -c '${command}'`;
  console.log(`installing ${packages.join(', ')}`);
  const environment = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  for (const [program, ...args] of [['apt-get', 'update', '-qq'], install]) {
    const { status } = spawnSync(program, args, { stdio: ['ignore', 'ignore', 'inherit'], env: environment });
    if (status !== 0) return command;
  }
  return missingPackages().length > 0 ? command : null;
}
