import { describe, expect, it } from 'vitest';
import { defaultTranslations } from './node/translation-store.ts';
import { parseOptions, parseSize, USAGE, UsageError } from './options.ts';

describe('options', () => {
  it('boots Debian without any', () => {
    expect(parseOptions([])).toEqual({
      command: 'boot',
      kernel: null,
      kernelPackage: 'debian',
      ramdisk: undefined,
      cmdline: null,
      append: '',
      memory: 256 * 1024,
      vcpus: 1,
      trace: false,
      translate: true,
      translations: defaultTranslations(),
      verify: null,
      profile: false,
      vifs: [],
      forwards: [],
      hostLoopback: false,
      xenstore: null,
      disks: [],
      shares: [],
      symbols: null,
      quiet: false,
    });
  });

  it('takes every option', () => {
    const line =
      '--kernel=vmlinuz --no-ramdisk --cmdline=a --append b --memory 64 --vcpus 4 --trace --no-translator --translations t --profile --disk=d.img,,xvda,r --share src=dir,ro --xenstore x --symbols s -q';
    expect(parseOptions(line.split(' '))).toEqual({
      command: 'boot',
      kernel: 'vmlinuz',
      kernelPackage: 'debian',
      ramdisk: null,
      cmdline: 'a',
      append: 'b',
      memory: 64 * 1024,
      vcpus: 4,
      trace: true,
      translate: false,
      translations: 't',
      verify: null,
      profile: true,
      vifs: [],
      forwards: [],
      hostLoopback: false,
      xenstore: 'x',
      disks: [expect.objectContaining({ target: 'd.img', vdev: 'xvda', readonly: true })],
      shares: [{ tag: 'src', path: 'dir', readonly: true, warnings: [] }],
      symbols: 's',
      quiet: true,
    });
  });

  it('keeps no translations where it is told so', () => {
    expect(parseOptions(['--no-translation-cache'])).toMatchObject({ translations: null });
  });

  it('verifies everything, or a sample', () => {
    expect(parseOptions(['--verify'])).toMatchObject({ verify: 'all' });
    expect(parseOptions(['--verify-sample'])).toMatchObject({ verify: 'sample' });
    expect(parseOptions(['--verify-sample', '--verify'])).toMatchObject({ verify: 'all' });
  });

  it('help and version go before everything else', () => {
    expect(parseOptions(['--memory', 'x', '--help'])).toEqual({ command: 'help' });
    expect(parseOptions(['-V'])).toEqual({ command: 'version' });
  });

  it.each([
    [['--nope'], "unknown option '--nope'"],
    [['--share', 'dir'], '--share "dir": not as TAG=DIR or TAG=DIR,ro'],
    [['vmlinuz'], "unexpected argument 'vmlinuz'"],
    [['--kernel'], "option '--kernel <value>' argument missing"],
    [['--trace=1'], "option '--trace' does not take an argument"],
    [['--kernel', ''], '--kernel needs the name of a file'],
    [['--kernel', 'a', '--kernel-package', 'cloud'], 'exclude each other'],
    [['--ramdisk', 'a', '--no-ramdisk'], 'exclude each other'],
    [['--translations', 't', '--no-translation-cache'], 'exclude each other'],
    [['--translations', ''], '--translations needs the name'],
    [['--verify', '--no-translator'], 'exclude each other'],
    [['--verify-sample', '--no-translator'], 'exclude each other'],
    [['--kernel-package', 'arch'], 'choose one of debian, cloud, backports, grub'],
    [['--disk', 'd.img'], '--disk "d.img": vdev is missing'],
    [['--memory', '12Q'], 'not a size'],
    [['--vcpus', '0'], '1 to 128'],
    [['--vcpus', '129'], '1 to 128'],
    [['--vcpus', 'two'], '1 to 128'],
    [['--memory', '-1'], 'memory'],
    [['--memory', '0'], 'multiple of 4 KiB'],
  ])('refuses %j', (args, message) => {
    expect(() => parseOptions(args)).toThrow(UsageError);
    expect(() => parseOptions(args)).toThrow(message);
    try {
      parseOptions(args);
    } catch (error) {
      expect((error as Error).message).not.toContain('\n');
    }
  });

  it('reads sizes', () => {
    expect(parseSize('128')).toBe(131072);
    expect(parseSize('128m')).toBe(131072);
    expect(parseSize('2G')).toBe(2 << 20);
    expect(parseSize('64K')).toBe(64);
    expect(() => parseSize('63K')).toThrow('multiple of 4 KiB');
  });

  it('documents each option', () => {
    for (const name of [
      'kernel',
      'ramdisk',
      'cmdline',
      'append',
      'memory',
      'trace',
      'no-translator',
      'translations',
      'no-translation-cache',
      'verify',
      'profile',
      'symbols',
      'quiet',
    ]) {
      expect(USAGE).toContain(`--${name}`);
    }
  });
});
