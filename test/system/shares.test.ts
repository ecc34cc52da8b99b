/** Folders of the host in Debian's stock kernel, by its own 9pfs front end. */
import { createHash } from 'node:crypto';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { lines, xenolith } from './cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'xenolith-share-'));
afterAll(() => rmSync(folder, { recursive: true }));
const path = (name: string) => join(folder, name);
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const MOUNT = 'mount -t 9p -o trans=xen,version=9p2000.L';

describe('folders of the host', () => {
  it('are read and written by a domain, as far as they may be', async () => {
    mkdirSync(path('work'));
    mkdirSync(path('fixed'));
    writeFileSync(path('secret'), 'not the guest’s');
    writeFileSync(path('work/from-host'), 'hello\n');
    symlinkSync('../secret', path('work/outside'));
    const big = Uint8Array.from({ length: 5_000_001 }, (_, at) => (at * 31) ^ (at >> 9));
    writeFileSync(path('fixed/big'), big);
    const script = `
mkdir /mnt/work /mnt/fixed
${MOUNT} work /mnt/work && ${MOUNT},ro fixed /mnt/fixed && echo mounted
sha256sum < /mnt/fixed/big
touch /mnt/fixed/new 2>/dev/null || echo fixed
cat /mnt/work/from-host; cat /mnt/work/outside 2>/dev/null || echo not outside
cd /mnt/work
cp /mnt/fixed/big copy; sync; cp -a copy second; cmp copy second && rm copy && echo copied
dd if=/dev/zero of=second bs=4k count=1 seek=100 conv=notrunc 2>/dev/null; dd if=second bs=4k skip=100 count=1 2>/dev/null | sha256sum
mkdir -p a/b; echo one > a/b/file; mv a/b/file a/moved; mv a c; ln -s c/moved link; ln c/moved hard; cat link
chmod 640 hard; touch -d @1000000000 hard; stat -c '%a %Y %h' hard
mkdir many; for n in $(seq 1 1000); do : > many/$n; done; ls many | wc -l; rm many/?; ls many | wc -l
echo more >> hard; truncate -s 3 second; stat -c %s hard second
df /mnt/work | tail -1 | awk '{ print $1 }'
rm -r many && cd / && umount /mnt/work && echo clean
poweroff
`;
    const { status, stdout, stderr } = await xenolith(
      ['-q', '--share', `work=${path('work')}`, '--share', `fixed=${path('fixed')},ro`],
      script,
    );
    const seen = lines(stdout);
    expect(stderr).toBe('');
    const zeros = `${sha256(new Uint8Array(4096))}  -`;
    expect(seen.filter((line) => line !== '')).toEqual([
      'mounted',
      `${sha256(big)}  -`,
      ...['fixed', 'hello', 'not outside', 'copied'],
      zeros,
      ...['one', '640 1000000000 2', '1000', '991', '9', '3', 'work', 'clean'],
    ]);
    expect(status).toBe(0);
    expect(readFileSync(path('work/hard'), 'utf8')).toBe('one\nmore\n');
    expect(lstatSync(path('work/hard')).ino).toBe(lstatSync(path('work/c/moved')).ino);
    expect(readlinkSync(path('work/link'))).toBe('c/moved');
    expect(readdirSync(path('work')).sort()).toEqual(
      ['c', 'from-host', 'hard', 'link', 'outside', 'second'].sort(),
    );
    expect(existsSync(path('fixed/new'))).toBe(false);
  });

  it('that are not there are told in one line', async () => {
    const { status, stderr } = await xenolith(['-q', '--share', `x=${path('none')}`], '', 60_000);
    expect(lines(stderr)).toEqual([`xenolith: ${path('none')}: no such folder`, '']);
    expect(status).toBe(1);
  });
});
