import { describe, expect, it } from 'vitest';
import { means, median, Samples, table } from '../bench/report.ts';

describe('the bench report', () => {
  it('takes medians', () => {
    expect(median([])).toBeNull();
    expect(median([3, 1, 20])).toBe(3);
    expect(median([4, 1, 2, 9])).toBe(3);
  });

  it('makes one row a quantity, null where a system was not measured', () => {
    const samples = new Samples('boot');
    samples.add('to the shell', 's', 'ours', 9);
    samples.add('to the shell', 's', 'tcg', 6);
    samples.add('to the shell', 's', 'ours', 7);
    samples.add('to the shell', 's', 'ours', 30);
    samples.add('idle', '%', 'ours', 0.5);
    expect(samples.result).toEqual([
      { name: 'to the shell', group: 'boot', unit: 's', ours: 9, native: null, tcg: 6, uml: null },
      { name: 'idle', group: 'boot', unit: '%', ours: 0.5, native: null, tcg: null, uml: null },
    ]);
  });

  it('takes the better of the variants of a system', () => {
    const samples = new Samples('cpu');
    for (const value of [4, 5, 9]) samples.add('loop', 'ns', 'tcg', value, 'small');
    for (const value of [3, 6, 20]) samples.add('loop', 'ns', 'tcg', value, 'large');
    samples.add('loop', 'ns', 'interpreter', 7);
    expect(samples.result).toEqual([
      {
        ...{ name: 'loop', group: 'cpu', unit: 'ns' },
        ...{ ours: null, native: null, tcg: 5, uml: null, interpreter: 7 },
      },
    ]);
  });

  const rows = [
    { name: 'a', group: 'g', unit: 's', ours: 9, native: null, tcg: 6, uml: null },
    { name: 'long name', group: 'g', unit: 'MiB', ours: 0.1234, native: null, tcg: null, uml: null },
    { name: 'b', group: 'h', unit: 'ns', ours: 2, native: 1, tcg: 400, uml: null },
    { name: 'c', group: 'h', unit: 'ns', ours: 1, native: 2, tcg: 8, uml: null },
  ];

  it('prints ours beside its peers, and how many times better it is', () => {
    expect(table(rows).split('\n')).toEqual([
      '              unit   ours  native   tcg  vs native  vs tcg',
      'g: a          s      9.00       -  6.00          -   0.667',
      'g: long name  MiB   0.123       -     -          -       -',
      'h: b          ns     2.00    1.00   400      0.500     200',
      'h: c          ns     1.00    2.00  8.00       2.00    8.00',
      '',
    ]);
  });

  it('takes geometric means of a group', () => {
    expect(means(rows, ['h', 'none', 'g']).split('\n')).toEqual([
      'geometric mean  vs native  vs tcg',
      'h                    1.00    40.0',
      'g                       -   0.667',
      '',
    ]);
  });
});
