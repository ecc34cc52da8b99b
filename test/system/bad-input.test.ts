import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { lines, xenolith } from './cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'xenolith-bad-'));
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, bytes: Uint8Array | string): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

/** An ELF header with nothing behind it. */
function elf(bits: 32 | 64, machine: number): Uint8Array {
  const bytes = new Uint8Array(256);
  const view = new DataView(bytes.buffer);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, bits === 64 ? 2 : 1, 1, 1]);
  view.setUint16(16, 2, true);
  view.setUint16(18, machine, true);
  view.setUint32(20, 1, true);
  return bytes;
}

/** One clear line on standard error, a status, no stack trace, nothing else. */
async function refused(args: string[], status: number, ...said: (string | RegExp)[]): Promise<void> {
  const outcome = await xenolith(['-q', ...args], '', 60_000);
  expect(outcome.stdout).toBe('');
  expect(lines(outcome.stderr)).toEqual([expect.stringMatching(/^xenolith: /), '']);
  for (const text of said) expect(outcome.stderr).toMatch(text);
  expect(outcome.status).toBe(status);
}

describe('a wrong command line', () => {
  it.each([
    [['--nope'], "unknown option '--nope'"],
    [['kernel'], "unexpected argument 'kernel'"],
    [['--memory', 'lots'], 'not a size'],
    [['--memory', '3K'], 'multiple of 4 KiB'],
    [['--memory', '64G'], /more than the machine can have/],
    [['--kernel-package', 'hurd'], 'choose one of'],
    [['--kernel', 'x', '--kernel-package', 'cloud'], 'exclude each other'],
  ])('%j', (args, said) => refused(args, 2, said));
});

describe('a kernel that is none', () => {
  const kernel = (path: string) => ['--kernel', path, '--no-ramdisk'];

  it('is missing', () => refused(kernel(join(folder, 'nothing')), 1, 'nothing', /no such file/i));
  it('is a folder', () => refused(kernel(folder), 1, folder, /director|folder/i));
  it('is empty', () => refused(kernel(file('empty', '')), 1, 'empty'));
  it('is a text', () => refused(kernel(file('text', 'not a kernel\n'.repeat(1000))), 1, 'text'));
  it('is an ELF header only', () => refused(kernel(file('header', elf(64, 62))), 1, 'header'));
  it('is for 32 bits', () => refused(kernel(file('i386', elf(32, 3))), 1, /32-bit/));
  it('is for another processor', () => refused(kernel(file('arm', elf(64, 183))), 1, 'arm'));
  it('is a program of this machine, not a PV kernel', () => refused(kernel('/bin/sh'), 1, '/bin/sh', /Xen/));
});

describe('other files', () => {
  it('a RAM disk that is not there', () => refused(['--ramdisk', join(folder, 'no.img')], 1, 'no.img'));
  it('a RAM disk larger than the memory', () =>
    refused(
      ['--memory', '64', '--ramdisk', file('large', new Uint8Array(100 << 20))],
      1,
      /ram disk|ramdisk/i,
    ));
  it('symbols that are not there', () => refused(['--symbols', join(folder, 'no.map')], 1, 'no.map'));
  it('memory too small for the kernel', () => refused(['--memory', '8'], 1, /memory/));
});

describe('a RAM disk that is garbage', () => {
  it('is the kernel’s to refuse: it panics', async () => {
    const ramdisk = file(
      'garbage',
      new Uint8Array(65536).map((_, at) => (at * 2654435761) >>> 13),
    );
    const { status, stdout } = await xenolith([
      '-q',
      '--ramdisk',
      ramdisk,
      '--append',
      'panic=1 earlyprintk=xen',
    ]);
    expect(stdout).toContain('Kernel panic');
    expect(status).not.toBe(0);
  });
});
