import { describe, expect, it } from 'vitest';
import { commandLine, loadGuest } from './guest.ts';
import { type BootOptions, parseOptions } from './options.ts';

const boot = (...args: string[]) => parseOptions(args) as BootOptions & { command: 'boot' };
const person = { scripted: false, size: { columns: 80, rows: 24 } };
const script = { scripted: true, size: null };

describe('the command line', () => {
  it('has a console, and what our initramfs wants to know', () => {
    expect(commandLine(boot(), person)).toBe('console=hvc0 xenolith.cols=80 xenolith.rows=24');
    expect(commandLine(boot(), script)).toBe('console=hvc0 loglevel=3 xenolith.script');
  });

  it('is replaced, and appended to', () => {
    expect(commandLine(boot('--cmdline', 'a b', '--append', 'c'), script)).toBe('a b xenolith.script c');
    expect(commandLine(boot('--cmdline', '', '--no-ramdisk'), person)).toBe('');
  });

  it("is the user's alone with the user's RAM disk, and empty for GRUB", () => {
    expect(commandLine(boot('--ramdisk', 'x'), script)).toBe('console=hvc0');
    expect(commandLine(boot('--kernel-package', 'grub'), person)).toBe('');
    expect(commandLine(boot('--kernel-package', 'grub', '--append', 'x'), person)).toBe('x');
  });
});

describe('files that cannot be read', () => {
  it.each([
    [['--kernel', '/nowhere/kernel'], '/nowhere/kernel: no such file'],
    [['--kernel', '/'], '/: that is a directory'],
    [['--symbols', '/nowhere/map'], '/nowhere/map: no such file'],
    [['--kernel', '/dev/null'], '/dev/null: the kernel is an empty file'],
  ])('%j', async (args, message) => {
    await expect(loadGuest(boot(...args), person, {})).rejects.toThrow(message);
  });
});
