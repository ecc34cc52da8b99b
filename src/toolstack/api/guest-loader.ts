/**
 * The guests of configured domains: kernels and RAM disks from files, or out of what comes with Xenolith.
 *
 * The last kernel is kept for a while, as it is often that of the next domain, too.
 */
import { stat } from 'node:fs/promises';
import { planDomain } from '../../dom0/builder/build.ts';
import { type KernelImage, readKernel } from '../../dom0/builder/image.ts';
import { PAGE_SIZE } from '../../machine/memory.ts';
import { OWN_PREFIX } from '../config/domain-config.ts';
import { type Guest, naming, readUserFile, usesEmergencyConsole } from '../guest.ts';
import {
  type ExtraFile,
  fetchKernel,
  type ImageOptions,
  KERNEL_NAMES,
  shellInitramfs,
  unpackedKernel,
} from '../images/index.ts';
import { ToolstackError } from './errors.ts';
import type { DomainConfig } from './model.ts';

/** For how long what was loaded is kept, ms. */
const KEEP = 30_000;

interface Kept {
  readonly key: string;
  readonly loaded: Promise<LoadedKernel>;
}

interface LoadedKernel {
  readonly image: KernelImage;
  /** Modules that go with it into our own RAM disk. */
  readonly modules: readonly ExtraFile[];
}

export class GuestLoader {
  private readonly images: ImageOptions;
  private kept: Kept | null = null;
  private timer: NodeJS.Timeout | undefined;

  constructor(images: ImageOptions) {
    this.images = images;
  }

  /** @throws Failure, ImageError, BuildError, ToolstackError */
  async load(config: DomainConfig): Promise<Guest> {
    const { image: kernel, modules } = await this.kernel(config.kernel);
    const ramdisk = config.ramdisk === null ? null : await this.ramdisk(config.ramdisk, modules);
    const pages = (config.memory * 1024) / PAGE_SIZE;
    const { cmdline, name } = config;
    await naming(name, () => planDomain({ kernel, ramdisk, cmdline, pages }));
    return {
      name,
      kernel,
      ramdisk,
      cmdline,
      usesEmergencyConsole: usesEmergencyConsole(kernel, cmdline),
      pages,
      symbols: null,
      title: `${config.kernel}, ${config.memory >> 10} MiB`,
    };
  }

  private async kernel(source: string): Promise<LoadedKernel> {
    const key = await keyOf(source);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.kept = null;
    }, KEEP);
    this.timer.unref();
    if (this.kept?.key === key) return this.kept.loaded;
    const loaded = this.read(source);
    const kept = { key, loaded };
    this.kept = kept;
    loaded.catch(() => {
      if (this.kept === kept) this.kept = null;
    });
    return loaded;
  }

  private async read(source: string): Promise<LoadedKernel> {
    const { file, modules } = await this.file(source);
    const image = await naming(source, async () => readKernel(await unpackedKernel(file, this.images)));
    return { image, modules };
  }

  private async file(source: string): Promise<{ file: Uint8Array; modules: readonly ExtraFile[] }> {
    const own = ownName(source);
    if (own === null) return { file: await readUserFile(source), modules: [] };
    const name = KERNEL_NAMES.find((each) => each === own);
    if (!name) throw new ToolstackError('invalid', `kernel ${source}: there is no such kernel`);
    const { kernel, modules } = await fetchKernel(name, this.images);
    return { file: kernel, modules };
  }

  private async ramdisk(source: string, modules: readonly ExtraFile[]): Promise<Uint8Array> {
    const own = ownName(source);
    if (own === null) return readUserFile(source);
    if (own !== 'shell') throw new ToolstackError('invalid', `ramdisk ${source}: there is no such RAM disk`);
    return shellInitramfs(this.images, modules);
  }
}

/** The name behind our own prefix; null: it is a file. */
function ownName(source: string): string | null {
  return source.startsWith(OWN_PREFIX) ? source.slice(OWN_PREFIX.length) : null;
}

/** Changes when the file does. */
async function keyOf(source: string): Promise<string> {
  if (ownName(source) !== null) return source;
  const facts = await stat(source).catch(() => null);
  return JSON.stringify([source, facts?.ino, facts?.size, facts?.mtimeMs]);
}
