import { describe, expect, it } from 'vitest';
import { parseAffinity, together } from './affinity.ts';

describe('where virtual CPUs may run', () => {
  it('is one text for all, or one each', () => {
    expect(parseAffinity('1-2', 2, 4)).toEqual([
      [1, 2],
      [1, 2],
    ]);
    expect(parseAffinity(['0', 'all,^0'], 3, 4)).toEqual([[0], [1, 2, 3], null]);
    expect(parseAffinity('all', 1, 4)).toEqual([null]);
    expect(parseAffinity(null, 2, 4)).toEqual([null, null]);
    expect(() => parseAffinity('4', 1, 4)).toThrow('names none');
  });

  it('is what all of them allow, as they are on one processor together', () => {
    expect(together([])).toBeNull();
    expect(together([null, null])).toBeNull();
    expect(together([[1, 2], null, [2, 3]])).toEqual([2]);
    expect(together([[0], [1]])).toEqual([]);
  });
});
