/**
 * The systems that are compared, and what they boot: the same initramfs with the same memory, and the same kernel
 * where that can be (User-Mode Linux is a kernel of its own).
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { fetchKernel, shellInitramfs, unpackedKernel } from '#dist/toolstack/images/index.js';
import { System } from './process.ts';
import type { SystemName } from './report.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const XENOLITH = join(ROOT, 'dist/toolstack/main.js');
/** Of the domain, in MiB. */
export const MEMORY = 128;
/** In the guest: the probe (bench/probe), and what starts the soak's load (bench/guest). */
export const PROBE = '/bin/probe';
export const SOAK = '/bin/soak';

export interface Images {
  readonly folder: string;
  /** The kernel's ELF file: QEMU enters it directly (PVH), without a boot loader, as we do. */
  readonly kernel: string;
  readonly ramdisk: string;
  /** The probe, for this machine. */
  readonly probe: string;
  /** What starts User-Mode Linux. */
  readonly startUml: string;
  readonly title: string;
}

/** @throws Error if gcc is missing or fails */
export function compile(output: string, sources: readonly string[]): void {
  const args = ['-O2', '-static', '-pthread', '-o', output, ...sources];
  const { status, error } = spawnSync('gcc', args, { stdio: 'inherit' });
  if (status !== 0) throw new Error(`${sources[0]} cannot be compiled: ${error?.message ?? 'gcc failed'}`);
}

/** Kernel and initramfs, with the probe in it, as files. @throws Error if gcc is missing or fails */
export async function makeImages(): Promise<Images> {
  const folder = mkdtempSync(join(tmpdir(), 'xenolith-bench-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  const probe = join(folder, 'probe');
  const sources = join(ROOT, 'bench/probe');
  compile(
    probe,
    readdirSync(sources)
      .filter((name) => name.endsWith('.c'))
      .map((name) => join(sources, name)),
  );
  const startUml = join(folder, 'uml');
  compile(startUml, [join(ROOT, 'bench/host/uml.c')]);
  const fetched = await fetchKernel('debian');
  const kernel = join(folder, 'vmlinux');
  writeFileSync(kernel, await unpackedKernel(fetched.kernel));
  const ramdisk = join(folder, 'initramfs');
  const program = (path: string, file: string) => ({
    ...{ path: path.slice(1), bytes: new Uint8Array(readFileSync(file)), permissions: 0o755 },
  });
  const programs = [program(PROBE, probe), program(SOAK, join(ROOT, 'bench/guest/soak.sh'))];
  writeFileSync(ramdisk, await shellInitramfs({}, programs));
  return { folder, kernel, ramdisk, probe, startUml, title: `${fetched.package} ${fetched.version}` };
}

export interface BootSettings {
  /** The scheduling priority of its processes, as nice(1) has it. */
  readonly nice: number;
  /** Where it may keep translations for its next boot; without it, nowhere. */
  readonly translations?: string | undefined;
  /** More for its command line: devices. */
  readonly devices?: readonly string[];
  /** Makes the command that starts it (QEMU) somewhere else: in a network namespace. */
  readonly wrap?: (program: string, args: readonly string[]) => readonly [string, readonly string[]];
}

/** A system in one of its variants, as it is measured. */
export interface Peer {
  readonly system: SystemName;
  /** What tells it from the system's other variants; empty if there is one. */
  readonly variant: string;
  /** Boots a guest; its standard output is the guest's console. Null for the host, which is there. */
  readonly boot: ((images: Images, settings: BootSettings) => System) | null;
}

/** All say what the kernel prints from its first moment on, and take lines as a script does. */
const WORDS = 'quiet xenolith.script';

function ours(system: SystemName, options: readonly string[]): Peer {
  return {
    system,
    variant: '',
    boot: ({ kernel, ramdisk }, { translations, nice, devices = [] }) => {
      const args = [
        XENOLITH,
        ...['--quiet', '--kernel', kernel, '--ramdisk', ramdisk, '--memory', `${MEMORY}`],
        ...['--cmdline', `console=hvc0 earlyprintk=xen ${WORDS}`],
        ...(translations === undefined ? [] : ['--translations', translations]),
        ...options,
        ...devices,
      ];
      return new System(process.execPath, args, nice);
    },
  };
}

function tcg(model: string): Peer {
  return {
    system: 'tcg',
    variant: model,
    boot: ({ kernel, ramdisk }, { nice, devices = [], wrap = (...command) => command }) => {
      const args = [
        ...['-accel', 'tcg', '-cpu', model, '-m', `${MEMORY}`, '-nodefaults', '-no-user-config'],
        ...['-no-reboot', '-display', 'none', '-serial', 'stdio', '-kernel', kernel, '-initrd', ramdisk],
        ...['-append', `console=ttyS0 earlyprintk=serial,ttyS0,115200 ${WORDS}`],
        ...devices,
      ];
      return new System(...wrap('qemu-system-x86_64', args), nice);
    },
  };
}

/** Debian's package user-mode-linux. */
const UML = 'linux';

/**
 * What the C library in the guest is told, so that it uses no registers beyond SSE's: UML does not keep them
 * (host/uml.c).
 */
const NARROW = `GLIBC_TUNABLES=glibc.cpu.hwcaps=${['AVX_Fast_Unaligned_Load', 'AVX2', 'AVX512F', 'AVX512VL']
  .map((name) => `-${name}`)
  .join(',')}`;

const uml: Peer = {
  system: 'uml',
  variant: '',
  boot: ({ ramdisk, startUml }, { nice, devices = [] }) => {
    const args = [UML, `mem=${MEMORY}M`, `initrd=${ramdisk}`, 'con0=fd:0,fd:1', 'con=null', NARROW];
    return new System(startUml, [...args, ...WORDS.split(' '), ...devices], nice);
  },
};

const PEERS: readonly Peer[] = [
  { system: 'native', variant: '', boot: null },
  ours('ours', []),
  ours('interpreter', ['--no-translator']),
  tcg('qemu64'),
  tcg('max'),
  uml,
];

/** Does this build keep translations on disk? */
export function keepsTranslations(): boolean {
  return spawnSync(process.execPath, [XENOLITH, '--help'], { encoding: 'utf8' }).stdout.includes(
    '--translations',
  );
}

function installed(program: string): boolean {
  return spawnSync(program, ['--version']).status === 0;
}

/** What of the wanted systems is on this machine, and what to say about the rest. */
export function available(wanted: ReadonlySet<SystemName>): { peers: Peer[]; notes: string[] } {
  const notes: string[] = [];
  const missing = new Set<SystemName>();
  if (wanted.has('tcg') && !installed('qemu-system-x86_64')) {
    missing.add('tcg');
    notes.push('qemu-system-x86_64 (package qemu-system-x86) is not installed: no comparison with TCG');
  }
  if (wanted.has('uml') && !installed(UML)) {
    missing.add('uml');
    notes.push('linux (package user-mode-linux) is not installed: no comparison with User-Mode Linux');
  }
  return { peers: PEERS.filter(({ system }) => wanted.has(system) && !missing.has(system)), notes };
}

/** Waits until the shell has answered a line; gives that moment, in ms of performance.now(). */
export async function untilShell(system: System, name: SystemName): Promise<number> {
  // Init in the guest says when it takes lines (guests/initramfs/etc/session). xenolith waits for that by itself, and
  // takes it out of the output.
  if (name !== 'ours' && name !== 'interpreter') await system.see(/xenolith;ready/);
  system.type('echo a-$((6*7))\n');
  await system.see(/a-42/);
  return performance.now();
}
