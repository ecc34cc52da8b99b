/** Virtual disks in Debian's stock kernel, with its own front end and ext4. */
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseDiskSpec } from '../../src/toolstack/devices/disk-spec.ts';
import { loadGuest } from '../../src/toolstack/guest.ts';
import { Machine } from '../../src/toolstack/machine.ts';
import { nodePcpus } from '../../src/toolstack/node/pcpu.ts';
import { type BootOptions, parseOptions } from '../../src/toolstack/options.ts';
import { RunningDomain } from '../../src/toolstack/running-domain.ts';
import { lines, Session, xenolith } from './cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'xenolith-disk-'));
afterAll(() => rmSync(folder, { recursive: true }));
const path = (name: string) => join(folder, name);
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

/** Bytes that no file system would make up. */
function noise(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let at = 0, state = 1; at < length; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[at] = state >>> 24;
  }
  return bytes;
}

const tool = (name: string) => spawnSync(name, ['-V']).error === undefined;
const hasExt4 = tool('mkfs.ext4') && tool('e2fsck');
if (!hasExt4) console.warn('e2fsprogs is not installed: file systems on disks are not tried');

describe('disks', () => {
  const data = noise(3 << 20);

  beforeAll(() => {
    writeFileSync(path('data.img'), data);
    writeFileSync(path('empty.img'), '');
    truncateSync(path('empty.img'), 8 << 20);
  });

  it('are read, written, kept apart and protected', async () => {
    const script = `
cat /sys/block/xvd*/size | tr '\\n' ' '; echo
cat /sys/block/xvd*/ro | tr '\\n' ' '; echo
sha256sum < /dev/xvda
dd if=/dev/xvda of=/dev/xvdb bs=256k conv=fsync 2>/dev/null; echo copied $?
dd if=/dev/xvdb bs=64k count=48 iflag=direct 2>/dev/null | sha256sum
dd if=/dev/xvdb of=/dev/xvdc bs=64k count=48 oflag=direct 2>/dev/null; sync
dd if=/dev/xvdc bs=4k count=768 2>/dev/null | sha256sum
echo x | dd of=/dev/xvda conv=fsync 2>/dev/null || echo refused
dd if=/dev/zero of=/dev/xvdd bs=1M count=1 seek=1 conv=fsync 2>/dev/null; echo overlay $?
dd if=/dev/xvdd bs=1M count=1 skip=1 iflag=direct 2>/dev/null | sha256sum
poweroff
`;
    const disks = [
      `${path('data.img')},raw,xvda,r`,
      `${path('empty.img')},,xvdb,w`,
      'memory:4M,,xvdc',
      `vdev=xvdd,overlay=${path('over.qcow2')},target=${path('data.img')}`,
    ];
    const { status, stdout, stderr } = await xenolith(
      ['-q', ...disks.flatMap((disk) => ['--disk', disk])],
      script,
    );
    const seen = lines(stdout);
    const sum = `${sha256(data)}  -`;
    expect(seen.filter((line) => line === sum)).toHaveLength(3);
    expect(seen).toEqual(
      expect.arrayContaining(['6144 16384 8192 6144 ', '1 0 0 0 ', 'copied 0', 'overlay 0']),
    );
    expect(seen).toContain('refused');
    expect(seen).toContain(`${sha256(new Uint8Array(1 << 20))}  -`);
    expect(stderr).toBe('');
    expect(status).toBe(0);
    expect(sha256(readFileSync(path('data.img')))).toBe(sha256(data));
    expect(sha256(readFileSync(path('empty.img')).subarray(0, data.length))).toBe(sha256(data));
    expect(statSync(path('over.qcow2')).size).toBeLessThan(2 << 20);
  });

  it.skipIf(!hasExt4)('keep what was synced when everything dies under a load of writes', async () => {
    const image = path('ext4.img');
    writeFileSync(image, '');
    truncateSync(image, 96 << 20);
    execFileSync('mkfs.ext4', ['-q', '-F', image]);
    const overlay = path('ext4.qcow2');
    const args = ['-q', '--disk', `vdev=xvda,overlay=${overlay},target=${image}`];

    const first = new Session(args);
    first.type(`
mount -t ext4 /dev/xvda /mnt && cd /mnt
mkdir -p a/b && seq 1 30000 > a/b/numbers && cp /bin/busybox . && sync
append() { dd of=$1 oflag=append conv=notrunc,fsync 2>/dev/null; }
echo load | append a/state
sha256sum a/b/numbers busybox a/state | append sums && echo synced
(while :; do cp busybox copy; rm copy; seq 1 5000 > noise; done) &
while :; do date | append journal; echo at $(wc -l < journal); done
`);
    const at = await first.see(/^synced/m, 0, 200_000);
    await first.see(/^at 12\r?$/m, at, 200_000);
    first.child.kill('SIGKILL');
    const { stdout } = await first.ended;
    const acknowledged = Math.max(...[...stdout.slice(at).matchAll(/^at (\d+)/gm)].map(([, n]) => Number(n)));
    expect(acknowledged).toBeGreaterThanOrEqual(12);

    const second = await xenolith(
      args,
      `
mount -t ext4 /dev/xvda /mnt && cd /mnt && sha256sum -c sums
[ $(wc -l < journal) -ge ${acknowledged} ] && echo journal whole
cd / && umount /mnt && echo clean
poweroff
`,
    );
    const seen = lines(second.stdout);
    for (const name of ['a/b/numbers', 'busybox', 'a/state']) expect(seen).toContain(`${name}: OK`);
    expect(seen).toEqual(expect.arrayContaining(['journal whole', 'clean']));
    if (tool('qemu-img')) {
      execFileSync('qemu-img', ['convert', '-O', 'raw', overlay, path('merged.img')]);
      expect(spawnSync('e2fsck', ['-fn', path('merged.img')]).status).toBe(0);
    }
  });

  it.skipIf(!hasExt4)('are read by GRUB, with a front end of its own', async () => {
    mkdirSync(path('root'));
    writeFileSync(path('root/greeting'), 'from the disk\n');
    writeFileSync(path('grub.img'), '');
    truncateSync(path('grub.img'), 16 << 20);
    execFileSync('mkfs.ext4', ['-q', '-F', '-d', path('root'), path('grub.img')]);
    const session = new Session(['-q', '--kernel-package', 'grub', '--disk', `${path('grub.img')},,xvda,r`]);
    await session.see(/grub>/);
    session.type('cat (xen/xvda)/greeting\n');
    await session.see(/from the disk/);
    session.child.kill('SIGTERM');
    expect((await session.ended).status).toBe(143);
  });

  it('come and go while the domain runs, and leave nothing behind', async () => {
    const dist = (name: string) => new URL(`../../dist/toolstack/node/${name}`, import.meta.url);
    const startPcpu = nodePcpus({
      script: dist('pcpu-worker.js'),
      compilerScript: dist('compiler-worker.js'),
    });
    const options = parseOptions(['-q']) as BootOptions;
    const guest = await loadGuest(options, { scripted: true, size: null }, {});
    const machine = await Machine.start(options.memory, startPcpu);
    const free = (await machine.control.machineInfo()).freePages;
    let output = '';
    const onOutput = (bytes: Uint8Array) => {
      output += Buffer.from(bytes).toString('latin1');
    };
    const domain = await RunningDomain.start(machine, guest, { onOutput, onLog: () => {}, onRoom: () => {} });
    const see = async (pattern: RegExp) => {
      while (!pattern.test(output)) await new Promise((resolve) => setTimeout(resolve, 20));
      const seen = output;
      output = '';
      return seen;
    };
    const run = (script: string) => {
      domain.type(Buffer.from(`${script}; echo done $?\n`));
      return see(/^done \d+\r?\n/m);
    };
    await see(/ready/);
    await run('modprobe xen-blkfront');
    const attach = () => machine.disks.attach(domain.id, parseDiskSpec('memory:16M,,xvda'));
    const wait = 'while [ ! -b /dev/xvda ]; do sleep 0.1; done';

    for (let round = 0; round < 2; round++) {
      await attach();
      await run(`${wait}; dd if=/dev/zero of=/dev/xvda bs=1M count=4 conv=fsync`);
      expect(machine.disks.list(domain.id)[0]!.statistics).toMatchObject({
        bytesWritten: 4 << 20,
        errors: 0,
      });
      expect(await machine.disks.detach(domain.id, 51712)).toBe(true);
      expect(await run('sleep 0.5; ls /sys/block')).not.toContain('xvda');
    }
    await attach();
    await run(
      `${wait}; (while :; do dd if=/dev/zero of=/dev/xvda bs=64k oflag=direct; done) 2>/dev/null & sleep 1`,
    );
    await machine.disks.detach(domain.id, 51712, true);
    await attach();
    await domain.destroy();
    // All but the machine's page of zeros, which the first domain brought (xen/mm/page-sharing.ts).
    expect((await machine.control.machineInfo()).freePages).toBe(free - 1);
    await machine.powerOff();
  });

  it('that cannot be had are told in one line', async () => {
    for (const [disk, said] of [
      [`${path('no.img')},,xvda`, /no such file/],
      [`${path('data.img')},qcow2,xvda`, /not a qcow2 image/],
    ] as const) {
      const { status, stderr } = await xenolith(['-q', '--disk', disk], '', 60_000);
      expect(lines(stderr)).toEqual([expect.stringMatching(/^xenolith: /), '']);
      expect(stderr).toMatch(said);
      expect(status).toBe(1);
    }
  });
});
