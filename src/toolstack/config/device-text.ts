/** Devices as text: what xl.cfg would say, with everything in it that was left open or depends on where one stands. */
import { resolve } from 'node:path';
import type { DiskSpec } from '../devices/disk-spec.ts';

/** A disk, with keys for everything and the target at the end, where it may have commas in it. */
export function diskText(spec: DiskSpec): string {
  const { target, format, vdev, readonly, cdrom, removable, discard, overlay, limits } = spec;
  const parts = [`format=${format}`, `vdev=${vdev}`, `access=${readonly ? 'ro' : 'rw'}`];
  if (cdrom) parts.push('devtype=cdrom');
  if (removable && !cdrom) parts.push('removable');
  if (!discard) parts.push('no-discard');
  if (overlay !== null) parts.push(`overlay=${overlay}`);
  if (limits.bytes !== undefined) parts.push(`rate=${limits.bytes}`);
  if (limits.requests !== undefined) parts.push(`iops=${limits.requests}`);
  if (target !== null) parts.push(`target=${target}`);
  return parts.join(',');
}

/** The same disk whatever the folder is that names start from. */
export function withAbsoluteFiles(spec: DiskSpec, folder: string): DiskSpec {
  const file = (name: string | null) =>
    name === null || /^https?:|^memory(?::|$)/.test(name) ? name : resolve(folder, name);
  return { ...spec, target: file(spec.target), overlay: file(spec.overlay) };
}

/** A network interface that has the address it was given. */
export function vifText(text: string, mac: string): string {
  if (/(?:^|,)\s*mac\s*=/.test(text)) return text;
  return text.trim() === '' ? `mac=${mac}` : `mac=${mac},${text}`;
}
