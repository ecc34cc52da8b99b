/**
 * What a virtual disk is made of, as users write it: xl-disk-configuration(5).
 *
 * Beside what is written there, `target` may be an address (http:, https:) or `memory:SIZE`, and there are keys for
 * what Xen leaves to the host: `overlay=FILE` (or `overlay=memory`) keeps what the guest writes apart from the
 * target, `rate=` and `iops=` limit the device.
 */
import type { DiskLimits } from '../../dom0/block/scheduler.ts';
import { DiskError } from '../../dom0/block/source.ts';
import { parseVdev } from './vdev.ts';

export const DISK_FORMATS = ['raw', 'qcow2'] as const;
export type DiskFormat = (typeof DISK_FORMATS)[number];

export interface DiskSpec {
  /** A path, an address, `memory:SIZE`; null: a drive for CD-ROMs without one. */
  readonly target: string | null;
  readonly format: DiskFormat;
  readonly vdev: string;
  readonly devid: number;
  readonly readonly: boolean;
  readonly cdrom: boolean;
  readonly removable: boolean;
  readonly discard: boolean;
  /** Where writes go: a path, or 'memory'; null: to the target. */
  readonly overlay: string | null;
  readonly limits: DiskLimits;
  /** Keys that mean nothing here, one line each. */
  readonly warnings: readonly string[];
}

const POSITIONS = ['target', 'format', 'vdev', 'access'] as const;
const KEYS = new Set([
  ...POSITIONS,
  ...['devtype', 'backend', 'backendtype', 'script', 'overlay', 'rate', 'iops', 'removable', 'specification'],
]);
const FLAGS = new Set(['cdrom', 'discard', 'no-discard', 'direct-io-safe', 'removable']);
/** Old prefixes of a target, and the format that each meant. */
const PREFIXES: Readonly<Record<string, string | null>> = {
  phy: 'raw',
  file: 'raw',
  raw: 'raw',
  aio: 'raw',
  tap: null,
  tap2: null,
  tapdisk: null,
  qcow2: 'qcow2',
};

/** @throws DiskError in one line that says which part is wrong */
export function parseDiskSpec(text: string): DiskSpec {
  const wrong = (what: string) => new DiskError(`disk "${text}": ${what}`);
  const values = new Map<string, string>();
  const flags = new Set<string>();
  const set = (key: string, value: string) => {
    if (values.has(key) && values.get(key) !== '') throw wrong(`${key} is given twice`);
    values.set(key, value);
  };
  let rest = text;
  let positions = 0;
  for (let first = true; first || rest !== ''; first = false) {
    rest = rest.trimStart();
    const target = /^target=/.exec(rest);
    if (target) {
      set('target', rest.slice(target[0].length));
      break;
    }
    const comma = rest.indexOf(',');
    const part = (comma < 0 ? rest : rest.slice(0, comma)).trimEnd();
    rest = comma < 0 ? '' : rest.slice(comma + 1);
    const key = /^([a-z][a-z0-9_-]*)=(.*)$/s.exec(part);
    if (key && KEYS.has(key[1]!)) set(key[1]!, key[2]!);
    else if (FLAGS.has(part)) flags.add(part);
    else if (part.includes('=') && !/^[a-z]+:|^\//.test(part))
      throw wrong(`unknown key "${part.split('=')[0]}"`);
    else {
      while (positions < POSITIONS.length && (values.get(POSITIONS[positions]!) ?? '') !== '') positions++;
      // After an old prefix, which says the format, the next part is the vdev.
      if (
        POSITIONS[positions] === 'format' &&
        splitPrefix(values.get('target')!) &&
        parseVdev(part.split(':')[0]!)
      )
        positions++;
      const name = POSITIONS[positions++];
      if (name === undefined) throw wrong(`"${part}" is one part too many`);
      set(name, part);
    }
  }
  const value = (key: string) => values.get(key) || null;

  let format = value('format');
  let target = value('target');
  const cdromByVdev = /^(.*):cdrom$/.exec(value('vdev') ?? '');
  for (let found = splitPrefix(target); found; found = splitPrefix(target)) {
    target = found.rest;
    format ??= found.format;
  }
  format ??= 'raw';
  if (!DISK_FORMATS.some((known) => known === format))
    throw wrong(`format ${format} is not among ${DISK_FORMATS.join(', ')}`);

  const vdev = cdromByVdev ? cdromByVdev[1]! : value('vdev');
  if (vdev === null) throw wrong('vdev is missing (for example xvda)');
  const device = parseVdev(vdev);
  if (!device) throw wrong(`vdev ${vdev} is not the name of a disk (for example xvda)`);

  const devtype = value('devtype');
  if (devtype !== null && devtype !== 'cdrom' && devtype !== 'disk')
    throw wrong(`devtype ${devtype} is unknown`);
  const cdrom = devtype === 'cdrom' || flags.has('cdrom') || cdromByVdev !== null;
  const access = value('access') ?? (cdrom ? 'r' : 'w');
  if (!/^(r|ro|w|rw|w!)$/.test(access)) throw wrong(`access ${access} is none of r, ro, w, rw`);
  if (target === null && !cdrom) throw wrong('target is missing');
  const backend = value('backend');
  if (backend !== null && backend !== '0' && backend !== 'Domain-0')
    throw wrong(`backend ${backend}: only Domain 0 serves disks`);
  if (value('script') !== null) throw wrong('there are no scripts for disks');
  if (flags.has('discard') && flags.has('no-discard'))
    throw wrong('discard and no-discard exclude each other');

  const limits: { bytes?: number; requests?: number } = {};
  const rate = value('rate');
  if (rate !== null)
    limits.bytes = parseBytes(rate.replace(/\/s$/, '')) ?? fail(wrong(`rate ${rate}: not bytes a second`));
  const iops = value('iops');
  if (iops !== null) {
    if (!/^[1-9]\d{0,8}$/.test(iops)) throw wrong(`iops ${iops}: not a number of requests a second`);
    limits.requests = Number(iops);
  }
  const warnings: string[] = [];
  for (const key of ['backendtype', 'specification'])
    if (value(key) !== null) warnings.push(`disk "${text}": ${key} means nothing here`);
  return {
    target,
    format: format as DiskFormat,
    vdev: device.name,
    devid: device.devid,
    readonly: access === 'r' || access === 'ro' || cdrom,
    cdrom,
    removable: flags.has('removable') || value('removable') === '1' || cdrom,
    discard: !flags.has('no-discard'),
    overlay: value('overlay'),
    limits,
    warnings,
  };
}

/** Bytes, as people write them: 512, 64K, 10M, 2G, also with B or iB behind. @returns null: not a size */
export function parseBytes(text: string): number | null {
  const match = /^(\d{1,12})(?:([KMGT])i?)?B?$/i.exec(text);
  if (!match) return null;
  const unit = 'KMGT'.indexOf((match[2] ?? '').toUpperCase() || 'x');
  const bytes = Number(match[1]) * 1024 ** (unit + 1);
  return bytes > 0 && Number.isSafeInteger(bytes) ? bytes : null;
}

function splitPrefix(target: string | null): { rest: string; format: string | null } | null {
  const match = /^([a-z0-9]+):(.*)$/s.exec(target ?? '');
  if (!match || !Object.hasOwn(PREFIXES, match[1]!)) return null;
  return { rest: match[2]!, format: PREFIXES[match[1]!]! };
}

function fail(error: Error): never {
  throw error;
}
