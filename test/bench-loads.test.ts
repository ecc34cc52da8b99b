import { describe, expect, it } from 'vitest';
import { flatness, LOADS, Progress } from '../bench/loads.ts';

const all = (rounds: number) => LOADS.map((name) => `soak: ${name} ${rounds}\r\n`).join('');

describe('the soak', () => {
  it('calls memory flat that does not grow in the last third', () => {
    expect(flatness([10, 50, 90, 100, 100, 100, 102, 103, 103]).flat).toBe(true);
    expect(flatness([100, 100, 100, 100, 100, 100, 104, 104, 104]).flat).toBe(false);
    // Growth early on is allowed, giving memory back is too.
    expect(flatness([10, 20, 30, 100, 100, 100, 60, 60, 60])).toEqual({ flat: true, middle: 100, last: 60 });
    // What is left over counts with the first third.
    expect(flatness([900, 900, 9, 9, 1, 1, 2, 2])).toMatchObject({ middle: 1, last: 2 });
    expect(flatness([5]).flat).toBe(false);
  });

  it('hears what the loads say', () => {
    const progress = new Progress(LOADS);
    progress.take(`noise\r\n${all(3)}soak: code 17\r\nsoak: storm`, 10);
    expect(progress.counts).toEqual([3, 17, 3, 3]);
    expect(() => progress.take('soak: code failed: wrong result\r\n', 20)).toThrow('code: wrong result');
  });

  it('misses a load that is silent', () => {
    const progress = new Progress(LOADS);
    progress.take(all(1), 100);
    progress.take('soak: files 2\nsoak: code 2\nsoak: signals 2\n', 390);
    expect(() => progress.take('soak: files 3\n', 410)).toThrow('storm: not a word for 300 s');
  });
});
