import { describe, expect, it } from 'vitest';
import { getopt, OptionError } from './getopt.ts';

const LONG = { quiet: 'q', defconfig: 'f', dryrun: 'n', debug: 'd' };
const parse = (...args: string[]) => getopt(args, 'qndf:', LONG);

describe('getopt', () => {
  it('takes options and operands in any order', () => {
    expect(parse('a', '-qn', 'b', '--dryrun')).toEqual({
      options: [
        ['q', ''],
        ['n', ''],
        ['n', ''],
      ],
      operands: ['a', 'b'],
    });
  });

  it('takes values with the option or behind it', () => {
    for (const args of [['-fx'], ['-f', 'x'], ['--defconfig', 'x'], ['--defconfig=x'], ['--def=x']])
      expect(parse(...args)).toEqual({ options: [['f', 'x']], operands: [] });
    expect(parse('-qfx=1')).toEqual({
      options: [
        ['q', ''],
        ['f', 'x=1'],
      ],
      operands: [],
    });
  });

  it('leaves the rest alone behind --', () => {
    expect(parse('-q', '--', '-n', '--')).toEqual({ options: [['q', '']], operands: ['-n', '--'] });
    expect(parse('-')).toEqual({ options: [], operands: ['-'] });
  });

  it.each([
    [['-x'], "option `x' not supported."],
    [['-q:'], "option `:' not supported."],
    [['--nothing'], "option `--nothing' not supported."],
    [['--d'], "option `--d' not supported."],
    [['-f'], "option `f' needs a value."],
    [['--defconfig'], "option `--defconfig' needs a value."],
    [['--quiet=1'], "option `--quiet' takes no value."],
    [['--'.concat('=')], "option `--' not supported."],
  ])('refuses %j', (args, message) => {
    expect(() => parse(...args)).toThrow(OptionError);
    expect(() => parse(...args)).toThrow(message);
  });
});
