import { describe, expect, it } from 'vitest';
import { median, Samples, table } from '../bench/report.ts';

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

  it('prints ours beside its peers, with ratios', () => {
    const rows = [
      { name: 'a', group: 'g', unit: 's', ours: 9, native: null, tcg: 6, uml: null },
      { name: 'long name', group: 'g', unit: 'MiB', ours: 0.1234, native: null, tcg: null, uml: null },
    ];
    expect(table(rows).split('\n')).toEqual([
      '              unit   ours   tcg  ours/tcg',
      'g: a          s      9.00  6.00     1.50x',
      'g: long name  MiB   0.123     -         -',
      '',
    ]);
  });
});
