/** The systems that are compared, and what they boot: the same kernel, the same initramfs, the same memory. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { fetchKernel, shellInitramfs, unpackedKernel } from '#dist/toolstack/images/index.js';
import { System } from './process.ts';
import type { SystemName } from './report.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** Of the domain, in MiB. */
export const MEMORY = 128;
/** Where the probe is, in the guest. */
export const PROBE = '/bin/probe';

export interface Images {
  readonly folder: string;
  /** The kernel's ELF file: QEMU enters it directly (PVH), without a boot loader, as we do. */
  readonly kernel: string;
  readonly ramdisk: string;
  /** The probe, for this machine. */
  readonly probe: string;
  readonly title: string;
}

/** Kernel and initramfs, with the probe in it, as files. @throws Error if gcc is missing or fails */
export async function makeImages(): Promise<Images> {
  const folder = mkdtempSync(join(tmpdir(), 'xenolith-bench-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  const probe = join(folder, 'probe');
  const source = join(ROOT, 'bench/probe.c');
  const { status, error } = spawnSync('gcc', ['-O2', '-static', '-o', probe, source], { stdio: 'inherit' });
  if (status !== 0) throw new Error(`the probe cannot be compiled: ${error?.message ?? 'gcc failed'}`);
  const fetched = await fetchKernel('debian');
  const kernel = join(folder, 'vmlinux');
  writeFileSync(kernel, await unpackedKernel(fetched.kernel));
  const ramdisk = join(folder, 'initramfs');
  const bytes = new Uint8Array(readFileSync(probe));
  writeFileSync(ramdisk, await shellInitramfs({}, [{ path: PROBE.slice(1), bytes, permissions: 0o755 }]));
  return { folder, kernel, ramdisk, probe, title: `${fetched.package} ${fetched.version}` };
}

/** Boots a guest on a system; its standard output is the guest's console. */
export type Boot = (images: Images) => System;

/** Both say what the kernel prints from its first moment on, and take lines as a script does. */
const WORDS = 'quiet xenolith.script';

const ours: Boot = ({ kernel, ramdisk }) =>
  new System(process.execPath, [
    join(ROOT, 'dist/toolstack/main.js'),
    ...['--quiet', '--kernel', kernel, '--ramdisk', ramdisk, '--memory', `${MEMORY}`],
    ...['--cmdline', `console=hvc0 earlyprintk=xen ${WORDS}`],
  ]);

const tcg: Boot = ({ kernel, ramdisk }) =>
  new System('qemu-system-x86_64', [
    ...['-accel', 'tcg', '-cpu', 'max', '-m', `${MEMORY}`, '-nodefaults', '-no-user-config', '-no-reboot'],
    ...['-display', 'none', '-serial', 'stdio', '-kernel', kernel, '-initrd', ramdisk],
    ...['-append', `console=ttyS0 earlyprintk=serial,ttyS0,115200 ${WORDS}`],
  ]);

/** What can be booted on this machine. */
export function bootable(): Map<SystemName, Boot> {
  const systems = new Map<SystemName, Boot>([['ours', ours]]);
  if (spawnSync('qemu-system-x86_64', ['--version']).status === 0) systems.set('tcg', tcg);
  return systems;
}

/** Waits until the shell has answered a line; gives that moment, in ms of performance.now(). */
export async function untilShell(system: System, name: SystemName): Promise<number> {
  // Init in the guest says when it takes lines (guests/initramfs/etc/session). xenolith waits for that by itself, and
  // takes it out of the output.
  if (name !== 'ours') await system.see(/xenolith;ready/);
  system.type('echo a-$((6*7))\n');
  await system.see(/a-42/);
  return performance.now();
}
