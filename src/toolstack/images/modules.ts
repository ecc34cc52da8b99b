/**
 * Modules out of a kernel's package, for the initramfs: the front ends of Xen's devices and the file systems that a
 * disk is likely to have, with the tables that modprobe finds them by (made here from what the modules themselves
 * say, as depmod does).
 */
import { LzmaError } from '../../dom0/builder/lzma.ts';
import { decompressXz } from '../../dom0/builder/xz.ts';
import { ImageError } from './error.ts';
import type { ExtraFile } from './initramfs.ts';
import type { PackageFiles } from './package-files.ts';

/** Names of modules; those that a version of the kernel does not have are left out. */
const MODULES = [
  ...['xen-blkfront', 'xen-netfront'],
  ...['ext4', 'jbd2', 'mbcache', 'crc16', 'crc32c_generic'],
  ...['9p', '9pnet', '9pnet_xen', 'netfs', 'fscache'],
] as const;
/** No module is larger. */
const MODULE_MAX = 64 << 20;

/** Where they are in a kernel's package, by their names. */
export const MODULE_FILES: Readonly<Record<string, RegExp>> = Object.fromEntries(
  MODULES.map((name) => [name, new RegExp(`^(usr/)?lib/modules/[^/]+/kernel/.*/${name}\\.ko(\\.xz)?$`)]),
);

/**
 * The modules among a package's files, as files of an initramfs, with their tables.
 * @throws ImageError: a module is damaged
 */
export function kernelModules({ files, paths }: PackageFiles): ExtraFile[] {
  const modules: ExtraFile[] = [];
  for (const name of MODULES) {
    const bytes = files.get(name);
    if (!bytes) continue;
    const path = paths.get(name)!.replace(/^usr\//, '');
    modules.push(path.endsWith('.xz') ? { path: path.slice(0, -3), bytes: unxz(bytes) } : { path, bytes });
  }
  if (modules.length === 0) return [];
  const directory = /^lib\/modules\/[^/]+\//.exec(modules[0]!.path)![0];
  return [...modules, ...moduleTables(directory, modules)];
}

function unxz(bytes: Uint8Array): Uint8Array {
  try {
    return decompressXz(bytes, xzSize(bytes));
  } catch (error) {
    if (error instanceof LzmaError) throw new ImageError(`a kernel module is damaged: ${error.message}`);
    throw error;
  }
}

/** Length of what is in an xz stream, as its index says (The .xz File Format, 4 and 2.1.2). */
function xzSize(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = bytes.length - 12 - (bytes.length < 32 ? 0 : (view.getUint32(bytes.length - 8, true) + 1) * 4);
  if (at < 12) throw new LzmaError('no index');
  const next = () => {
    let value = 0;
    for (let shift = 0; shift < 49; shift += 7) {
      const byte = bytes[at++] ?? 0;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) break;
    }
    return value;
  };
  at++;
  let size = 0;
  for (let left = Math.min(next(), bytes.length); left > 0; left--) {
    next();
    size += next();
  }
  if (size > MODULE_MAX) throw new LzmaError('the index is wrong');
  return size;
}

/** modules.dep and modules.alias. */
export function moduleTables(directory: string, modules: readonly ExtraFile[]): ExtraFile[] {
  const infos = modules.map(({ path, bytes }) => ({
    path: path.slice(directory.length),
    name: moduleName(path),
    info: modinfo(bytes),
  }));
  const byName = new Map(infos.map((each) => [each.name, each]));
  const byAlias = new Map(infos.flatMap((each) => each.info.alias.map((alias) => [alias, each] as const)));
  /**
   * Puts paths into an order: the module's, after those of all that has to be loaded before it. Modules may ask for each
   * other in a circle by softdep: who has begun is not waited for.
   */
  const load = (name: string, order: string[], begun: Set<string>): void => {
    const each = byName.get(name);
    if (!each || begun.has(name)) return;
    begun.add(name);
    const before = each.info.softdep.map((alias) => byAlias.get(alias)?.name ?? alias);
    for (const other of [...each.info.depends, ...before]) load(other, order, begun);
    order.push(each.path);
  };
  /** modules.dep has what is loaded last first: modprobe goes through a line from its end. */
  const dep = infos.map(({ path, name }) => {
    const order: string[] = [];
    load(name, order, new Set());
    return `${path}: ${order.slice(0, -1).reverse().join(' ')}`.trimEnd();
  });
  const alias = infos.flatMap(({ name, info }) => info.alias.map((each) => `alias ${each} ${name}`));
  const text = (lines: readonly string[]) => new TextEncoder().encode(`${lines.join('\n')}\n`);
  return [
    { path: `${directory}modules.dep`, bytes: text(dep) },
    { path: `${directory}modules.alias`, bytes: text(alias) },
  ];
}

/** As modprobe writes it: xen_blkfront. */
function moduleName(path: string): string {
  return path.replace(/^.*\/|\.ko$/g, '').replaceAll('-', '_');
}

interface ModuleInfo {
  readonly alias: readonly string[];
  readonly depends: readonly string[];
  /** What is to be loaded before it, if it is there. */
  readonly softdep: readonly string[];
}

const SHT_STRTAB = 3;

/** What a module says of itself: its section .modinfo. @throws ImageError: no module for a 64-bit kernel */
function modinfo(bytes: Uint8Array): ModuleInfo {
  const fields = new TextDecoder('latin1').decode(section(bytes, '.modinfo')).split('\0');
  const values = (key: string) =>
    fields.filter((field) => field.startsWith(`${key}=`)).map((field) => field.slice(key.length + 1));
  return {
    alias: values('alias'),
    depends: values('depends').flatMap((list) => list.split(',').filter((name) => name !== '')),
    softdep: values('softdep').flatMap((text) => (text.startsWith('pre: ') ? text.slice(5).split(' ') : [])),
  };
}

/** The bytes of a section of a 64-bit ELF file. */
function section(bytes: Uint8Array, wanted: string): Uint8Array {
  try {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    if (view.getUint32(0) !== 0x7f454c46 || bytes[4] !== 2) throw new RangeError();
    const table = Number(view.getBigUint64(0x28, true));
    const size = view.getUint16(0x3a, true);
    const header = (index: number) => {
      const at = table + index * size;
      return {
        name: view.getUint32(at, true),
        type: view.getUint32(at + 4, true),
        offset: Number(view.getBigUint64(at + 0x18, true)),
        size: Number(view.getBigUint64(at + 0x20, true)),
      };
    };
    const names = header(view.getUint16(0x3e, true));
    if (names.type !== SHT_STRTAB) throw new RangeError();
    for (let index = 0; index < view.getUint16(0x3c, true); index++) {
      const each = header(index);
      const at = names.offset + each.name;
      const name = new TextDecoder('latin1').decode(bytes.subarray(at, at + wanted.length + 1));
      if (name === `${wanted}\0`) return bytes.subarray(each.offset, each.offset + each.size);
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  throw new ImageError('a kernel module is damaged');
}
