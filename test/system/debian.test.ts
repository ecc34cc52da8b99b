/** Debian from a disk, as `npm run guest:debian` and guests/debian.cfg have it. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { debianImage } from '../../src/toolstack/images/debian/build.ts';
import { type Going, XlUser } from './xl-cli.ts';

const DEBIAN = fileURLToPath(new URL('../../guests/debian.cfg', import.meta.url));
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
  console.type('stty -echo; export TERM=dumb PS1=; bind "set enable-bracketed-paste off"; echo logged-in\n');
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

it('boots to its login, and systemd says that it runs', async () => {
  const console = await started();
  expect(await run(console, 'systemctl is-system-running --wait')).toBe('running\n');
}, 900_000);
