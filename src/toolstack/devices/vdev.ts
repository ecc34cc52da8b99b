/** Names and numbers of virtual disks, as guests and people call them (xen-vbd-interface(7)). */

const XVD_MAJOR = 202;
const SD_MAJOR = 8;
const HD_MAJORS = [3, 22] as const;
/** Numbers of disks or partitions that do not fit the old form. */
const EXTENDED = 1 << 28;
const MAX_EXTENDED_DISK = (1 << 20) - 1;

interface Vdev {
  /** The name in its usual form. */
  readonly name: string;
  /** The number that guests know it by. */
  readonly devid: number;
}

/** @returns null: no name of a disk @param text xvda, xvda1, sdb, hdc, d0p1, 51712, 0xca00 */
export function parseVdev(text: string): Vdev | null {
  const numbered = /^d(\d{1,7})(?:p(\d{1,3}))?$/.exec(text);
  if (numbered) return make('xvd', Number(numbered[1]), Number(numbered[2] ?? 0));
  const named = /^(xvd|sd|hd)([a-z]{1,4})(\d{0,3})$/.exec(text);
  if (named) return make(named[1]!, letters(named[2]!), Number(named[3] || 0));
  if (/^(0x[0-9a-f]{1,8}|[1-9]\d{0,9})$/i.test(text)) {
    const devid = Number(text);
    return devid > 0 && devid < 2 ** 31 ? { name: vdevName(devid), devid } : null;
  }
  return null;
}

/** The name that goes with a number. */
export function vdevName(devid: number): string {
  const name = (kind: string, disk: number, partition: number) =>
    `${kind}${lettersOf(disk)}${partition === 0 ? '' : partition}`;
  if ((devid & EXTENDED) !== 0) return name('xvd', (devid & (EXTENDED - 1)) >>> 8, devid & 0xff);
  const major = devid >>> 8;
  if (major === XVD_MAJOR) return name('xvd', (devid >>> 4) & 0xf, devid & 0xf);
  if (major === SD_MAJOR) return name('sd', (devid >>> 4) & 0xf, devid & 0xf);
  const ide = (HD_MAJORS as readonly number[]).indexOf(major);
  if (ide >= 0) return name('hd', ide * 2 + ((devid >>> 6) & 3), devid & 0x3f);
  return `${devid}`;
}

function make(kind: string, disk: number, partition: number): Vdev | null {
  const name = `${kind}${lettersOf(disk)}${partition === 0 ? '' : partition}`;
  switch (kind) {
    case 'hd': {
      if (disk >= 4 || partition >= 64) return null;
      return { name, devid: (HD_MAJORS[disk >> 1]! << 8) | ((disk & 1) << 6) | partition };
    }
    case 'sd':
      return disk >= 16 || partition >= 16
        ? null
        : { name, devid: (SD_MAJOR << 8) | (disk << 4) | partition };
    default:
      if (disk > MAX_EXTENDED_DISK || partition >= 256) return null;
      return disk < 16 && partition < 16
        ? { name, devid: (XVD_MAJOR << 8) | (disk << 4) | partition }
        : { name, devid: (EXTENDED | (disk << 8) | partition) >>> 0 };
  }
}

/** a is 0, z is 25, aa is 26. */
function letters(text: string): number {
  let value = 0;
  for (const letter of text) value = value * 26 + letter.charCodeAt(0) - 96;
  return value - 1;
}

function lettersOf(disk: number): string {
  let text = '';
  for (let rest = disk + 1; rest > 0; rest = Math.floor((rest - 1) / 26))
    text = String.fromCharCode(97 + ((rest - 1) % 26)) + text;
  return text;
}
