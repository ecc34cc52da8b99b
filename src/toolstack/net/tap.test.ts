import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Tap, TapError } from './tap.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'tap-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** A program in socat's place. @param script gets socat's arguments in ARGS */
function program(name: string, script: string): string {
  const path = join(folder, `${name}.cjs`);
  writeFileSync(path, `#!${process.execPath}\nconst ARGS = process.argv.slice(2);\n${script}`);
  chmodSync(path, 0o755);
  return path;
}

/** Sends back what it gets, with a byte in front, as a host does that answers. */
const ECHO = `
const port = Number(/UDP4-CONNECT:127.0.0.1:(\\d+)/.exec(ARGS.join(' '))[1]);
if (!ARGS.at(-1).startsWith('TUN,tun-type=tap,tun-name=xtest0,iff-no-pi')) process.exit(3);
const socket = require('node:dgram').createSocket('udp4');
socket.bind(0, '127.0.0.1', () => socket.connect(port, '127.0.0.1', () => {
  const where = '127.0.0.1:' + socket.address().port;
  console.error('2026/01/01 00:00:00 socat[7] N successfully connected from local address AF=2 ' + where);
  console.error('2026/01/01 00:00:00 socat[7] N starting data transfer loop with FDs [5,5] and [6,6]');
}));
socket.on('message', (frame) => {
  if (frame.toString() === 'end') process.exit(0);
  socket.send(Buffer.concat([Buffer.from('>'), frame]));
});
`;

describe('a TAP device', () => {
  it('passes frames, each whole, and tells of its end', async () => {
    const frames: string[] = [];
    const ends: string[] = [];
    const tap = await Tap.open({
      name: 'xtest0',
      onFrame: (frame) => frames.push(Buffer.from(frame).toString()),
      onEnd: (reason) => ends.push(reason),
      command: program('echo', ECHO),
    });
    tap.send(Buffer.from('one'));
    tap.send(Buffer.from('x'.repeat(9000)));
    while (frames.length < 2) await new Promise((resolve) => setTimeout(resolve, 2));
    expect(frames.sort()).toEqual(['>one', `>${'x'.repeat(9000)}`]);
    tap.send(Buffer.from('end'));
    while (ends.length === 0) await new Promise((resolve) => setTimeout(resolve, 2));
    expect(ends).toEqual([expect.stringMatching(/^the TAP device xtest0: .* ended$/)]);
    tap.send(Buffer.from('lost'));
    tap.close();
  });

  it.each([
    ['/nowhere/socat', '', /needs \/nowhere\/socat, which is not installed/],
    [
      'refused',
      `console.error('2026/01/01 00:00:00 socat[7] E ioctl(3, TUNSETIFF, ..): Operation not permitted'); process.exit(1);`,
      /xtest0: not permitted \(ioctl/,
    ],
    ['silent', 'process.exit(1);', /xtest0: it cannot be attached to/],
  ])('that cannot be had is told: %s', async (name, script, said) => {
    const command = script === '' ? name : program(name, script);
    const opening = Tap.open({ name: 'xtest0', onFrame: () => {}, onEnd: () => {}, command });
    await expect(opening).rejects.toThrow(TapError);
    await expect(opening).rejects.toThrow(said);
  });
});
