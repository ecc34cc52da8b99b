/** Disks out of archives, as debugfs sees what is on them. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ImageError } from '../error.ts';
import { makeDisk } from './disk.ts';

const env = { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin` };
const installed = (program: string) => spawnSync(program, ['-V'], { env }).error === undefined;
const root = process.getuid?.() === 0;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'xenolith-disk-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** One member of an archive, with extended attributes as pax has them. */
function member(
  name: string,
  type: string,
  data: string,
  fields: { mode: number; uid: number; gid: number },
) {
  const header = Buffer.alloc(512);
  const octal = (value: number, at: number, digits: number) =>
    header.write(`${value.toString(8).padStart(digits, '0')}\0`, at);
  header.write(name);
  octal(fields.mode, 100, 7);
  octal(fields.uid, 108, 7);
  octal(fields.gid, 116, 7);
  octal(Buffer.byteLength(data, 'latin1'), 124, 11);
  octal(0, 136, 11);
  header.write(`        ${type}`, 148);
  header.write('ustar\x0000', 257);
  octal(
    header.reduce((sum, byte) => sum + byte, 0),
    148,
    6,
  );
  const body = Buffer.alloc(Math.ceil(data.length / 512) * 512);
  body.write(data, 'latin1');
  return Buffer.concat([header, body]);
}

/** cap_net_raw, permitted (struct vfs_cap_data, version 2). */
const CAPABILITY = '\x00\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00';

function archive(): string {
  const path = join(folder, 'system.tar');
  const own = { mode: 0o755, uid: 0, gid: 0 };
  const record = `SCHILY.xattr.security.capability=${CAPABILITY}\n`;
  const length = record.length + 3;
  writeFileSync(
    path,
    Buffer.concat([
      member('./', '5', '', own),
      member('./dev/', '5', '', own),
      member('./dev/null', '0', 'not to be there', own),
      member('x', 'x', `${length} ${record}`, own),
      member('./ping', '0', 'program', own),
      member('./mail', '0', 'letters', { mode: 0o2660, uid: 8, gid: 12 }),
      member('./closed/', '5', '', { mode: 0o500, uid: 7, gid: 7 }),
      Buffer.alloc(1024),
    ]),
  );
  return path;
}

/** As somebody who is not root, where the tests run as root. */
async function asNobody<T>(use: () => Promise<T>): Promise<T> {
  if (!root) return use();
  const real = process.getuid!;
  process.getuid = () => 1;
  try {
    return await use();
  } finally {
    process.getuid = real;
  }
}

const debugfs = (image: string, command: string) =>
  execFileSync('debugfs', ['-R', command, image], { env, encoding: 'utf8', stdio: 'pipe' });

describe.skipIf(!installed('mke2fs') || !installed('debugfs'))('a disk', () => {
  const cases: [string, boolean, <T>(use: () => Promise<T>) => Promise<T>][] = [
    ['by root', root, (use) => use()],
    ['with fakeroot', installed('fakeroot'), asNobody],
  ];
  it.each(cases)('has owners, permissions and capabilities: %s', async (_, possible, run) => {
    if (!possible) return;
    const work = join(folder, 'work');
    mkdirSync(work);
    const image = join(folder, 'disk');
    await run(() => makeDisk(archive(), image, 8192, work));
    const files = debugfs(image, 'ls -p /');
    expect(files).toMatch(/^\/\d+\/102660\/8\/12\/mail\/7\//m);
    expect(files).toMatch(/^\/\d+\/100755\/0\/0\/ping\/7\//m);
    expect(files).toMatch(/^\/\d+\/040500\/7\/7\/closed\//m);
    expect(debugfs(image, 'ls -p /dev')).not.toContain('null');
    expect(debugfs(image, 'ea_list /ping')).toMatch(
      /security\.capability \(20\) = 00 00 00 02 00 20( 00){14}/,
    );
  });

  it('that is too small is told', async () => {
    const work = join(folder, 'work');
    mkdirSync(work);
    const path = join(folder, 'large.tar');
    const own = { mode: 0o644, uid: 0, gid: 0 };
    writeFileSync(
      path,
      Buffer.concat([member('./large', '0', 'x'.repeat(4 << 20), own), Buffer.alloc(1024)]),
    );
    const failed = await makeDisk(path, join(folder, 'disk'), 2048, work).catch((error: unknown) => error);
    expect(failed).toBeInstanceOf(ImageError);
    expect((failed as Error).message).toMatch(/does not fit on a disk of 2 MiB/);
  });
});
