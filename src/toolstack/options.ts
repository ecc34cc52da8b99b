/**
 * The command line of xenolith: what it accepts, what it says about itself.
 */
import { parseArgs } from 'node:util';
import { DiskError } from '../dom0/block/source.ts';
import { VCPUS_MAX } from '../xen/domctl.ts';
import { type DiskSpec, parseDiskSpec } from './devices/disk-spec.ts';
import { parseShareOption, ShareError, type ShareSpec } from './devices/share-spec.ts';
import { KERNEL_NAMES, type KernelName } from './images/index.ts';
import { ForwardSpecError, parseForward } from './net/forward-spec.ts';
import type { ForwardSpec } from './net/net-service.ts';
import { parseVifSpec, type VifSpec, VifSpecError } from './net/vif-spec.ts';
import { defaultTranslations } from './node/translation-store.ts';

/** The command line is wrong: exit status 2. */
export class UsageError extends Error {}

export interface BootOptions {
  /** The user's own kernel, or null: the package's. */
  kernel: string | null;
  kernelPackage: KernelName;
  /** The user's own initial RAM disk; null: none; undefined: the one that goes with the kernel. */
  ramdisk: string | null | undefined;
  /** Replaces the default command line. */
  cmdline: string | null;
  /** Added at the end of the command line. */
  append: string;
  /** Memory of the domain in KiB, a multiple of 4. */
  memory: number;
  /** Virtual CPUs of the domain. */
  vcpus: number;
  trace: boolean;
  /** Translate hot code; without it everything is interpreted. */
  translate: boolean;
  /** Check translated code against the interpreter while it runs: each run of it, or a sample. */
  verify: 'all' | 'sample' | null;
  /** The directory in which translations are kept between runs; null: they are not. */
  translations: string | null;
  /** Sample where the time goes, and print it at the end. */
  profile: boolean;
  /** Where xenstore's clients on the host find the store; null: nowhere. */
  xenstore: string | null;
  /** Its disks. */
  disks: readonly DiskSpec[];
  /** Folders of the host's that it shares. */
  shares: readonly ShareSpec[];
  /** Its network interfaces. */
  vifs: readonly VifSpec[];
  /** Ports of the host that lead to it. */
  forwards: readonly ForwardSpec[];
  /** It may reach what listens on the host's loopback. */
  hostLoopback: boolean;
  /** A System.map, or an ELF file with symbols. */
  symbols: string | null;
  quiet: boolean;
}

export type Options = { command: 'help' } | { command: 'version' } | ({ command: 'boot' } & BootOptions);

/** What a domain gets if nobody says otherwise, in KiB. */
const DEFAULT_MEMORY = 256 << 10;

export const USAGE = `Usage: xenolith [options]
       xenolith COMMAND ...      (the commands of xl: see 'xenolith help')

Boots a kernel that knows Xen's paravirtual interface, unmodified, as a domain on a
processor made of WebAssembly. Without options: Debian's stock kernel and a shell.

  --kernel FILE          boot this kernel (a bzImage or an ELF file)
  --kernel-package NAME  boot the kernel of a Debian package, fetched through apt:
                         debian (default), cloud, backports or grub
  --ramdisk FILE         initial RAM disk, instead of the one with the busybox shell
  --no-ramdisk           no initial RAM disk
  --cmdline STRING       the kernel's command line, instead of the default one
  --append STRING        added to the command line
  --memory SIZE          memory of the domain: MiB, or with a suffix K, M or G (256)
  --vcpus N              virtual CPUs of the domain, 1 to ${VCPUS_MAX} (1)
  --no-translator        interpret everything: slow, and simple to compare with
  --translations DIR     keep translated code there between runs, instead of in the
                         user's cache directory
  --no-translation-cache keep none, and use none
  --verify               check all translated code against the interpreter: slow
  --verify-sample        the same for a sample: about as fast as without
  --profile              print at the end what the time went to
  --trace                print every hypercall and its result on standard error
  --disk SPEC            a virtual disk, as xl.cfg has them: file.img,,xvda (repeatable)
  --share TAG=DIR        a folder of this machine, in the domain: mount -t 9p
                         -o trans=xen,version=9p2000.L TAG /mnt; DIR,ro: read-only (repeatable)
  --net SPEC             a network interface, as vif= in xl.cfg: mac=00:16:3e:01:02:03,
                         or 'default'; it reaches the world through the host's sockets
  --forward SPEC         a port of this machine leads to the domain: [ADDRESS:]PORT:GUESTPORT
                         or the same with /udp behind it; ADDRESS is 127.0.0.1 if left out
  --host-loopback        the domain reaches this machine's loopback, as 10.0.2.2
  --xenstore PATH        serve xenstore on this socket, for xenstore-ls and its kin
                         (XENSTORED_PATH=PATH xenstore-ls)
  --symbols FILE         System.map or ELF file that names addresses in a crash dump
                         (Linux kernels carry their own symbols)
  -q, --quiet            no progress messages
  -h, --help             print this
  -V, --version          print the version

On a terminal, Ctrl-] switches the domain off. If standard input is not a terminal, its
lines go to the shell in the domain, which powers off at their end.

Exit status: 0 the domain powered off (for piped-in lines: the status of the shell);
1 it could not be started; 2 wrong usage; 70 it crashed; 128+N ended by signal N.
`;

const OPTIONS = {
  kernel: { type: 'string' },
  'kernel-package': { type: 'string' },
  ramdisk: { type: 'string' },
  'no-ramdisk': { type: 'boolean' },
  cmdline: { type: 'string' },
  append: { type: 'string' },
  memory: { type: 'string' },
  vcpus: { type: 'string' },
  trace: { type: 'boolean' },
  'no-translator': { type: 'boolean' },
  translations: { type: 'string' },
  'no-translation-cache': { type: 'boolean' },
  verify: { type: 'boolean' },
  'verify-sample': { type: 'boolean' },
  profile: { type: 'boolean' },
  disk: { type: 'string', multiple: true },
  share: { type: 'string', multiple: true },
  net: { type: 'string', multiple: true },
  forward: { type: 'string', multiple: true },
  'host-loopback': { type: 'boolean' },
  xenstore: { type: 'string' },
  symbols: { type: 'string' },
  quiet: { type: 'boolean', short: 'q' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean', short: 'V' },
} as const;

/** @throws UsageError */
export function parseOptions(args: readonly string[]): Options {
  const values = parse(args);
  if (values.help) return { command: 'help' };
  if (values.version) return { command: 'version' };
  if (values.kernel !== undefined && values['kernel-package'] !== undefined) {
    throw new UsageError('--kernel and --kernel-package exclude each other');
  }
  if (values.ramdisk !== undefined && values['no-ramdisk']) {
    throw new UsageError('--ramdisk and --no-ramdisk exclude each other');
  }
  if (values.translations !== undefined && values['no-translation-cache']) {
    throw new UsageError('--translations and --no-translation-cache exclude each other');
  }
  const verify = values.verify ? 'all' : values['verify-sample'] ? 'sample' : null;
  if (verify && values['no-translator']) {
    throw new UsageError('--verify and --no-translator exclude each other');
  }
  return {
    command: 'boot',
    kernel: file('kernel', values.kernel) ?? null,
    kernelPackage: kernelPackage(values['kernel-package'] ?? 'debian'),
    ramdisk: values['no-ramdisk'] ? null : file('ramdisk', values.ramdisk),
    cmdline: values.cmdline ?? null,
    append: values.append ?? '',
    memory: values.memory === undefined ? DEFAULT_MEMORY : parseSize(values.memory),
    vcpus: values.vcpus === undefined ? 1 : parseVcpus(values.vcpus),
    trace: values.trace ?? false,
    translate: !(values['no-translator'] ?? false),
    translations: values['no-translation-cache']
      ? null
      : (file('translations', values.translations) ?? defaultTranslations()),
    verify,
    profile: values.profile ?? false,
    xenstore: file('xenstore', values.xenstore) ?? null,
    disks: disks(values.disk ?? []),
    shares: shares(values.share ?? []),
    ...networking(values.net ?? [], values.forward ?? [], values['host-loopback'] ?? false),
    symbols: file('symbols', values.symbols) ?? null,
    quiet: values.quiet ?? false,
  };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: OPTIONS, allowPositionals: false, strict: true }).values;
  } catch (error) {
    // Node adds advice in further sentences that does not fit here ("To specify a positional argument ...").
    const [sentence] = (error as Error).message.split(/\.(?:\s|$)|\n/);
    throw new UsageError(sentence!.charAt(0).toLowerCase() + sentence!.slice(1));
  }
}

function file(option: string, name: string | undefined): string | undefined {
  if (name === '') throw new UsageError(`--${option} needs the name of a file`);
  return name;
}

function disks(texts: readonly string[]): DiskSpec[] {
  try {
    return texts.map(parseDiskSpec);
  } catch (error) {
    throw error instanceof DiskError ? new UsageError(`--${error.message}`) : error;
  }
}

function shares(texts: readonly string[]): ShareSpec[] {
  try {
    return texts.map(parseShareOption);
  } catch (error) {
    throw error instanceof ShareError ? new UsageError(`--share ${error.message}`) : error;
  }
}

function networking(nets: readonly string[], forwards: readonly string[], hostLoopback: boolean) {
  if (nets.length === 0 && (forwards.length > 0 || hostLoopback))
    throw new UsageError(`--${hostLoopback ? 'host-loopback' : 'forward'} needs an interface (--net)`);
  try {
    return {
      vifs: nets.map((text) => parseVifSpec(text === 'default' ? '' : text)),
      forwards: forwards.map(parseForward),
      hostLoopback,
    };
  } catch (error) {
    if (error instanceof VifSpecError) throw new UsageError(`--net: ${error.message}`);
    throw error instanceof ForwardSpecError ? new UsageError(`--forward ${error.message}`) : error;
  }
}

function kernelPackage(name: string): KernelName {
  const known = KERNEL_NAMES.find((each) => each === name);
  if (!known) throw new UsageError(`--kernel-package ${name}: choose one of ${KERNEL_NAMES.join(', ')}`);
  return known;
}

/** A size as people write it: MiB, or with K, M or G. @returns KiB, a multiple of 4 @throws UsageError */
export function parseSize(text: string): number {
  const match = /^(\d{1,9})([KMG]?)$/i.exec(text);
  if (!match) throw new UsageError(`--memory ${text}: not a size (examples: 256, 256M, 1G)`);
  const unit = match[2]!.toUpperCase();
  const kib = Number(match[1]) * (unit === 'K' ? 1 : unit === 'G' ? 1 << 20 : 1 << 10);
  if (kib === 0 || kib % 4 !== 0)
    throw new UsageError(`--memory ${text}: must be a multiple of 4 KiB above 0`);
  return kib;
}

/** @throws UsageError */
function parseVcpus(text: string): number {
  const count = /^\d{1,3}$/.test(text) ? Number(text) : 0;
  if (count < 1 || count > VCPUS_MAX) throw new UsageError(`--vcpus ${text}: must be 1 to ${VCPUS_MAX}`);
  return count;
}
