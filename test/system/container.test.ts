/** A container's image becomes a disk, as `npm run guest:debian -- --container` has it, and a domain starts from it. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, expect, it } from 'vitest';
import { debianImage } from '../../src/toolstack/images/debian/build.ts';
import { fetchPackageFiles } from '../../src/toolstack/images/package-files.ts';
import { xenolith } from './cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'xenolith-container-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Contents of files; "-> x" is a symbolic link, null a folder. */
type Tree = Readonly<Record<string, string | Uint8Array | null>>;

/** As a tar file, the same each time: then the disk is in the cache. */
function tar(files: Tree): Buffer {
  const root = mkdtempSync(join(folder, 'tree-'));
  for (const [name, content] of Object.entries(files)) {
    const path = join(root, name);
    mkdirSync(content === null ? path : dirname(path), { recursive: true });
    if (typeof content === 'string' && content.startsWith('-> ')) symlinkSync(content.slice(3), path);
    else if (content !== null) writeFileSync(path, content, { mode: 0o755 });
  }
  const options = ['--sort=name', '--mtime=@0', '--owner=0', '--group=0', '--numeric-owner', '--mode=go=rX'];
  return execFileSync('tar', [...options, '-C', root, '-cf', '-', ...readdirSync(root)], {
    maxBuffer: 64 << 20,
  });
}

/** What says that it was reached, and by which layer. */
const INIT = `#!/bin/sh
mount -t proc proc /proc
echo "container: $(cat /srv/layer) on $(sed -n 's,^/dev/\\(xvd.\\) / ,\\1 ,p' /proc/mounts)"
ls -ln /srv; ls /etc/gone; modprobe tun && grep -c '^tun ' /proc/modules
mount -o remount,ro / && poweroff -f
`;

it('starts from its files, over each other as its layers say, with the modules of our kernel', async () => {
  const { files } = await fetchPackageFiles(
    'busybox',
    'busybox-static',
    (apt) => apt.offer('busybox-static'),
    { busybox: /^(usr\/)?bin\/busybox$/ },
    ['busybox'],
  );
  const busybox = '-> busybox';
  const applets = [
    'sh',
    'cat',
    'depmod',
    'grep',
    'ls',
    'mkdir',
    'modprobe',
    'mount',
    'mv',
    'poweroff',
    'sed',
  ];
  const trees: Tree[] = [
    {
      'bin/busybox': files.get('busybox')!,
      ...Object.fromEntries(applets.map((name) => [`bin/${name}`, busybox])),
      ...{ 'sbin/init': INIT, 'etc/gone': 'still there', 'srv/layer': 'the lower' },
      ...{ dev: null, proc: null, sys: null, run: null, tmp: null, lib: null },
    },
    { 'etc/.wh.gone': '', 'srv/layer': 'the upper', 'srv/more': 'x' },
  ];
  const layers = trees.map((tree) => gzipSync(tar(tree)));

  const digest = (bytes: Uint8Array | string) => createHash('sha256').update(bytes).digest('hex');
  const describe = (bytes: Uint8Array | string) => ({ digest: `sha256:${digest(bytes)}` });
  const manifest = JSON.stringify({ schemaVersion: 2, layers: layers.map(describe) });
  const archive = join(folder, 'image.tar');
  const blobs = [manifest, ...layers].map((bytes) => [`blobs/sha256/${digest(bytes)}`, bytes] as const);
  writeFileSync(
    archive,
    tar({
      'oci-layout': '{"imageLayoutVersion":"1.0.0"}',
      'index.json': JSON.stringify({ schemaVersion: 2, manifests: [describe(manifest)] }),
      ...Object.fromEntries(blobs),
    }),
  );

  const { path } = await debianImage({ packages: [], size: 256 << 10, container: archive, update: false });
  const { stdout, stderr } = await xenolith([
    ...['-q', '--memory', '128', '--disk', `vdev=xvda,overlay=${join(folder, 'o.qcow2')},target=${path}`],
    ...['--cmdline', 'console=hvc0 quiet root=/dev/xvda rw'],
  ]);
  const text = stdout.replaceAll('\r', '');
  expect(text, stderr).toContain('container: the upper on xvda');
  expect(text).toMatch(/^-rwxr-xr-x\s+1 0\s+0\s+1 .* more$/m);
  expect(text).toMatch(/ls: \/etc\/gone: No such file/);
  expect(text).toMatch(/^1$/m);
}, 600_000);
