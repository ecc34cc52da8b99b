/** Debian from a disk, as `npm run guest:debian` and guests/debian.cfg have it: systemd, a network, a file system that lasts. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { debianImage } from '../../src/toolstack/images/debian/build.ts';
import { type Going, XlUser } from './xl-cli.ts';

const DEBIAN = fileURLToPath(new URL('../../guests/debian.cfg', import.meta.url));
const SHELL = fileURLToPath(new URL('../../guests/shell.cfg', import.meta.url));
/** On a busy machine all this takes its time. */
const SECONDS = 400;

const user = new XlUser();
const overlay = join(user.folder, 'debian.qcow2');
let image = '';
let port = 0;

beforeAll(async () => {
  ({ path: image } = await debianImage({ packages: [], size: 2 << 20, container: null, update: false }));
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve));
  ({ port } = probe.address() as AddressInfo);
  probe.close();
}, 900_000);
afterAll(() => user.leave());

/** Starts Debian and logs in. */
async function started(): Promise<Going> {
  const settings = `disk=["vdev=xvda,overlay=${overlay},target=${image}"]; xenolith_forward=["${port}:80"]`;
  await user.xl('create', '-q', DEBIAN, settings);
  const console = user.start(['console', 'debian']);
  await console.sees(/debian login: $/, SECONDS);
  console.type('root\n');
  await console.sees(/root@debian:~# $/, SECONDS);
  // No colours, no echo: what is seen from now on is what programs print.
  console.type(
    'dmesg -n 1; stty -echo; export TERM=dumb PS1=; bind "set enable-bracketed-paste off"; echo logged-in\n',
  );
  await console.sees(/^logged-in\r?\n/m, SECONDS);
  return console;
}

/** Runs a line in the guest. @returns what it printed */
async function run(console: Going, line: string): Promise<string> {
  console.type(`${line}; echo "status $?:"\n`);
  let text = '';
  const end = Date.now() + SECONDS * 1000;
  for (;;) {
    text = console.stdout.replaceAll('\r', '');
    const match = /status (\d+):\n/.exec(text);
    if (match) {
      console.stdout = '';
      return match[1] === '0'
        ? text.slice(0, match.index)
        : `${text.slice(0, match.index)}[status ${match[1]}]`;
    }
    if (Date.now() > end || console.child.exitCode !== null) throw new Error(`no end of: ${line}\n${text}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

it('runs with systemd, serves pages, meets others on its network, and keeps what it wrote', async () => {
  const first = await started();
  expect(await run(first, 'systemctl is-system-running --wait')).toBe('running\n');
  expect(await run(first, 'systemctl --failed --no-legend')).toBe('');

  // Modules, entropy, the time of day, the store.
  expect(await run(first, 'modprobe tun && lsmod | grep -c "^tun"')).toBe('1\n');
  expect(Number(await run(first, 'cat /proc/sys/kernel/random/entropy_avail'))).toBeGreaterThan(200);
  const now = Number(await run(first, 'date +%s'));
  expect(Math.abs(now - Date.now() / 1000)).toBeLessThan(60);
  const store = 'xenstore-write data/greeting "from the guest" && xenstore-read data/greeting name';
  expect(await run(first, store)).toBe('from the guest\ndebian\n');
  const domid = (await user.xl('domid', 'debian')).trim();
  const env = { ...process.env, XENSTORED_PATH: join(user.env['XENOLITH_DIR']!, 'xenstored/socket') };
  const path = `/local/domain/${domid}/data/greeting`;
  expect(execFileSync('xenstore-read', [path], { env, encoding: 'utf8' })).toBe('from the guest\n');

  // The host and another domain fetch a page that the guest serves.
  await run(first, 'head -c 300000 /dev/urandom | base64 >/var/www/html/page');
  const [sum] = (await run(first, 'md5sum </var/www/html/page')).split(' ');
  const address = /inet ([\d.]+)/.exec(await run(first, 'ip -4 addr show eth0'))![1];
  const page = await (await fetch(`http://127.0.0.1:${port}/page`)).text();
  expect(execFileSync('md5sum', { input: page, encoding: 'utf8' })).toBe(`${sum}  -\n`);
  await user.xl('create', '-q', SHELL, 'name="other"; memory=128; vif=[""]');
  const other = user.start(['console', 'other']);
  await other.sees(/^\S+:~# /m, SECONDS);
  other.type(`wget -q -O - http://${address}/page | md5sum\n`);
  await other.sees(new RegExp(`^${sum} {2}-`, 'm'), SECONDS);
  await user.xl('destroy', 'other');

  // What is synced is there after the plug was pulled.
  expect(await run(first, 'echo kept >/root/synced && sync /root/synced')).toBe('');
  await user.xl('destroy', 'debian');
  const second = await started();
  expect(await run(second, 'cat /root/synced; md5sum </var/www/html/page')).toMatch(/^kept\n/);
  expect(await run(second, 'systemctl is-system-running --wait')).toBe('running\n');

  // Shut down, it leaves a file system that was unmounted.
  await user.xl('shutdown', '-w', 'debian');
  await second.sees(/reboot: (Power down|System halted)/);
  await user.xl('daemon', 'stop', '--force');
  const raw = join(user.folder, 'debian.img');
  execFileSync('qemu-img', ['convert', '-O', 'raw', overlay, raw]);
  const check = spawnSync('e2fsck', ['-fn', raw], {
    encoding: 'utf8',
    env: { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin` },
  });
  expect(check.stdout).not.toContain('recovering journal');
  expect(check.status).toBe(0);
  expect(existsSync(image)).toBe(true);
}, 1_500_000);
