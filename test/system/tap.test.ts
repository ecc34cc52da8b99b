/** A domain on a TAP device of the host's, in a network namespace of its own: no rights are needed for that. */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const MAIN = fileURLToPath(new URL('../../dist/toolstack/main.js', import.meta.url));
const BYTES = 3_000_000;

/** Runs in the namespace: the host's side, and the domain. */
const WORLD = `
const { execFileSync, spawn } = require('node:child_process');
const { createHash } = require('node:crypto');
const { createServer } = require('node:net');
const [main, length] = process.argv.slice(1);
const bytes = Buffer.from(Uint8Array.from({ length: Number(length) }, (_, at) => (at * 31) ^ (at >> 9)));
execFileSync('ip', ['link', 'set', 'lo', 'up']);
createServer((socket) => socket.end(bytes)).listen(8001);
createServer((socket) => {
  const sum = createHash('sha256');
  socket.on('data', (data) => sum.update(data));
  socket.on('end', () => { console.log('host', sum.digest('hex')); socket.end(); });
}).listen(8002);
const timer = setInterval(() => {
  try {
    execFileSync('ip', ['addr', 'add', '10.9.0.1/24', 'dev', 'xtap0'], { stdio: 'ignore' });
    clearInterval(timer);
  } catch {}
}, 100);
const child = spawn(process.execPath, [main, '-q', '--net', 'tap=xtap0'], { stdio: ['pipe', 'inherit', 'inherit'] });
child.stdin.end(\`
killall udhcpc; sleep 1; ip addr add 10.9.0.2/24 dev eth0
until ping -c 1 -W 2 10.9.0.1 >/dev/null; do :; done; echo reached
nc 10.9.0.1 8001 </dev/null > /tmp/got; sha256sum < /tmp/got
nc 10.9.0.1 8002 < /tmp/got
poweroff
\`);
child.on('exit', (code) => process.exit(code));
`;

const can =
  spawnSync('socat', ['-V']).error === undefined &&
  spawnSync('unshare', ['-rn', 'ip', 'tuntap', 'add', 'xtap1', 'mode', 'tap']).status === 0;
if (!can) console.warn('socat or user namespaces are missing: TAP devices are not tried');

it.skipIf(!can)('a domain and the host reach each other over a TAP device', async () => {
  const world = spawn('unshare', ['-rn', process.execPath, '-e', WORLD, MAIN, `${BYTES}`]);
  let output = '';
  for (const stream of [world.stdout, world.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  // What it said tells more than that it took too long.
  const patience = setTimeout(() => world.kill(), 120_000);
  const status = await new Promise((resolve) => world.on('close', resolve));
  clearTimeout(patience);
  const bytes = Uint8Array.from({ length: BYTES }, (_, at) => (at * 31) ^ (at >> 9));
  const sum = createHash('sha256').update(bytes).digest('hex');
  expect(output.replaceAll('\r', '').split('\n')).toEqual(
    expect.arrayContaining(['reached', `${sum}  -`, `host ${sum}`]),
  );
  expect(status).toBe(0);
});
