/**
 * Kernels out of Debian's packages, by name:
 *
 *   debian     the stock kernel: whatever linux-image-amd64 depends on now
 *   cloud      the one for clouds, from linux-image-cloud-amd64
 *   backports  a newer kernel: from backports if apt is set up for them, else Debian 12's package of Linux 6.12
 *   grub       GRUB's image for paravirtual domains, from grub-xen-host
 */
import { unpackKernel } from '../../dom0/builder/image.ts';
import type { Apt, Offer } from './apt.ts';
import { Cache, sha256 } from './cache.ts';
import type { ExtraFile } from './initramfs.ts';
import { kernelModules, MODULE_FILES } from './modules.ts';
import { fetchPackageFiles, type ImageOptions } from './package-files.ts';
import { SILENT } from './progress.ts';

export const KERNEL_NAMES = ['debian', 'cloud', 'backports', 'grub'] as const;
export type KernelName = (typeof KERNEL_NAMES)[number];

export interface KernelFiles {
  readonly name: KernelName;
  readonly package: string;
  readonly version: string;
  /** The kernel as the package has it: a bzImage or an ELF file. */
  readonly kernel: Uint8Array;
  /** Its System.map, if the package has a real one (Debian's is in the -dbg package). */
  readonly systemMap: Uint8Array | null;
  /** Its modules that an initramfs needs, as files for it. */
  readonly modules: readonly ExtraFile[];
}

const LINUX_FILES = { kernel: /^boot\/vmlinuz-/, systemMap: /^boot\/System\.map-/, ...MODULE_FILES };
/** A System.map shorter than this only says where the real one is. */
const SYSTEM_MAP_LEAST = 10_000;

/** How to find a package with a kernel in it, and which of its files are wanted. */
const RECIPES: Readonly<
  Record<
    KernelName,
    { find: (apt: Apt) => Promise<Offer | null>; files: Record<string, RegExp>; what: string }
  >
> = {
  debian: {
    find: (apt) => kernelBehind(apt, 'linux-image-amd64'),
    files: LINUX_FILES,
    what: 'linux-image-amd64',
  },
  cloud: {
    find: (apt) => kernelBehind(apt, 'linux-image-cloud-amd64'),
    files: LINUX_FILES,
    what: 'linux-image-cloud-amd64',
  },
  backports: { find: backportedKernel, files: LINUX_FILES, what: 'a backported linux-image-amd64' },
  grub: {
    find: (apt) => apt.offer('grub-xen-host'),
    files: { kernel: /^usr\/lib\/(grub-xen|xen[^/]*\/boot)\/grub-x86_64-xen\.bin$/ },
    what: 'grub-xen-host',
  },
};

/** The real package that a meta-package of kernels depends on. */
async function kernelBehind(apt: Apt, meta: string, version: string | null = null): Promise<Offer | null> {
  const offer = await apt.offer(meta, version);
  const real = /(?:^|,)\s*(linux-image-[^\s,(]+)(?:\s*\(=\s*([^)\s]+)\))?/.exec(offer?.depends ?? '');
  if (!offer || !real) return offer;
  return apt.offer(real[1]!, real[2] ?? null);
}

async function backportedKernel(apt: Apt): Promise<Offer | null> {
  const backported = (await apt.versions('linux-image-amd64')).find((version) => version.includes('~bpo'));
  if (backported) return kernelBehind(apt, 'linux-image-amd64', backported);
  return kernelBehind(apt, 'linux-image-6.12-amd64');
}

/** The package that a kernel comes from, as apt has it now; null: it has none. */
export function findKernel(name: KernelName, apt: Apt): Promise<Offer | null> {
  return RECIPES[name].find(apt);
}

/**
 * A kernel by name: out of the cache, or fetched.
 * @throws ImageError
 */
export async function fetchKernel(name: KernelName, options: ImageOptions = {}): Promise<KernelFiles> {
  const { find, files, what } = RECIPES[name];
  const found = await fetchPackageFiles(
    `kernel-with-modules-${name}`,
    what,
    find,
    files,
    ['kernel'],
    options,
  );
  const systemMap = found.files.get('systemMap');
  return {
    name,
    package: found.package,
    version: found.version,
    kernel: found.files.get('kernel')!,
    systemMap: systemMap && systemMap.length >= SYSTEM_MAP_LEAST ? systemMap : null,
    modules: kernelModules(found),
  };
}

/**
 * A kernel's ELF file (see {@link unpackKernel}), out of the cache if it was unpacked before.
 * @throws BuildError
 */
export async function unpackedKernel(
  kernel: Uint8Array,
  { cache = new Cache(), progress = SILENT }: ImageOptions = {},
): Promise<Uint8Array> {
  const name = `elf-${sha256(kernel)}`;
  const known = (await cache.lookUp(name))?.files['elf'];
  const kept = known && (await cache.read(known));
  if (kept) return kept;
  progress.update('unpacking the kernel', null);
  const elf = unpackKernel(kernel);
  progress.clear();
  if (elf === kernel) return elf;
  // A cache that cannot be written costs a second the next time, nothing else.
  await cache.add(elf).then(
    (file) => cache.keep(name, { files: { elf: file }, facts: {} }),
    () => {},
  );
  return elf;
}
