/**
 * What a domain is made of: the kernel, its RAM disk, its command line, from the user's files or from Debian's
 * packages.
 */
import { readFile } from 'node:fs/promises';
import { planDomain } from '../dom0/builder/build.ts';
import { BuildError } from '../dom0/builder/error.ts';
import { type KernelImage, readKernel } from '../dom0/builder/image.ts';
import { Symbols } from '../dom0/builder/symbols.ts';
import { PAGE_SIZE } from '../machine/memory.ts';
import { Failure } from './failure.ts';
import {
  type ExtraFile,
  fetchKernel,
  type ImageOptions,
  shellInitramfs,
  unpackedKernel,
} from './images/index.ts';
import type { BootOptions } from './options.ts';

/** On the command line: our initramfs takes lines from a program, and says when (guests/initramfs/etc/session). */
export const SCRIPT_WORD = 'xenolith.script';

export interface Guest {
  /** What it is called in the store. */
  readonly name: string;
  readonly kernel: KernelImage;
  readonly ramdisk: Uint8Array | null;
  readonly cmdline: string;
  /**
   * What it prints on the emergency console (console_io) is for the user. Linux prints a few words there at every
   * start; only with earlyprintk=xen does it mean what it says there to be seen.
   */
  readonly usesEmergencyConsole: boolean;
  /** Frames of 4 KiB that the domain gets. */
  readonly pages: number;
  /** The user's; null: those that the kernel itself carries. */
  readonly symbols: Symbols | null;
  /** Names kernel and memory, for a person. */
  readonly title: string;
}

/** A machine of ours has one domain. */
const NAME = 'xenolith';

/** How the guest's console is used: decides words on the command line that our own initramfs understands. */
export interface ConsoleUse {
  /** Lines from a pipe, not a person. */
  readonly scripted: boolean;
  readonly size: { columns: number; rows: number } | null;
}

/** @throws Failure, UsageError, ImageError, BuildError */
export async function loadGuest(options: BootOptions, use: ConsoleUse, images: ImageOptions): Promise<Guest> {
  const symbolFile = options.symbols === null ? null : await readUserFile(options.symbols);
  const symbols = symbolFile && (await naming(options.symbols!, () => Symbols.parse(symbolFile)));
  const { name, file, modules } = await kernelFile(options, images);
  const kernel = await naming(name, async () => readKernel(await unpackedKernel(file, images)));
  const ramdisk = await ramdiskFile(options, images, modules);
  const pages = (options.memory * 1024) / PAGE_SIZE;
  const cmdline = commandLine(options, use);
  planDomain({ kernel, ramdisk, cmdline, pages });
  return {
    name: NAME,
    kernel,
    ramdisk,
    cmdline,
    usesEmergencyConsole: usesEmergencyConsole(kernel, cmdline),
    pages,
    symbols,
    title: `${name}, ${options.memory / 1024} MiB`,
  };
}

/** Whether what a kernel prints on the emergency console is meant to be seen. */
export function usesEmergencyConsole(kernel: KernelImage, cmdline: string): boolean {
  return kernel.description.guestOs !== 'linux' || /\bearlyprintk=\S*xen/.test(cmdline);
}

async function kernelFile(
  { kernel, kernelPackage }: BootOptions,
  images: ImageOptions,
): Promise<{ name: string; file: Uint8Array; modules: readonly ExtraFile[] }> {
  if (kernel !== null) return { name: kernel, file: await readUserFile(kernel), modules: [] };
  const fetched = await fetchKernel(kernelPackage, images);
  const { modules } = fetched;
  return { name: `${fetched.package} ${fetched.version}`, file: fetched.kernel, modules };
}

async function ramdiskFile(
  options: BootOptions,
  images: ImageOptions,
  modules: readonly ExtraFile[],
): Promise<Uint8Array | null> {
  if (usesOurRamdisk(options)) return shellInitramfs(images, modules);
  return typeof options.ramdisk === 'string' ? readUserFile(options.ramdisk) : null;
}

/** The kernel's command line: what is said (or the default), what our initramfs wants to know, what is appended. */
export function commandLine(options: BootOptions, use: ConsoleUse): string {
  const words: string[] = [];
  const ours = usesOurRamdisk(options);
  if (options.cmdline !== null) words.push(options.cmdline);
  else if (options.kernelPackage !== 'grub') words.push('console=hvc0');
  // Whoever reads a script's output wants nothing of the kernel's in it but what ends it.
  if (ours && use.scripted && options.cmdline === null) words.push('loglevel=3');
  // Every instruction done twice takes longer than Linux's watchdogs think possible.
  if (options.verify === 'all' && options.cmdline === null)
    words.push('nowatchdog', 'rcupdate.rcu_cpu_stall_suppress=1');
  if (ours && use.scripted) words.push(SCRIPT_WORD);
  if (ours && use.size) words.push(`xenolith.cols=${use.size.columns}`, `xenolith.rows=${use.size.rows}`);
  return [...words, options.append].filter((word) => word !== '').join(' ');
}

/** True if the guest starts with our initramfs, which talks to us (guests/initramfs/etc/session). */
function usesOurRamdisk({ ramdisk, kernelPackage }: BootOptions): boolean {
  return ramdisk === undefined && kernelPackage !== 'grub';
}

/** Adds to an error of the builder which file it is about. */
export async function naming<T>(name: string, work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw error instanceof BuildError ? new BuildError(`${name}: ${error.message}`) : error;
  }
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file',
  EISDIR: 'that is a directory',
  EACCES: 'permission denied',
};

/** A file of the user's. @throws Failure */
export async function readUserFile(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new Failure(`${path}: ${REASONS[code ?? ''] ?? message}`);
  }
}
