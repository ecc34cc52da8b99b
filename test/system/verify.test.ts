/** Interpreter and translator in lockstep, over all that Linux does from its start to a shell. */
import { describe, expect, it } from 'vitest';
import { lines, xenolith } from './cli.ts';

describe('--verify', () => {
  it('finds no difference in a boot of Linux', async () => {
    const { status, stdout, stderr } = await xenolith(
      ['-q', '--verify', '--no-translation-cache'],
      'echo done; poweroff\n',
    );
    expect(lines(stdout)).toContain('done');
    const [, runs, instructions, differences] =
      /verified (\d+) region runs, (\d+) instructions, (\d+) differences/.exec(stderr)!;
    expect(Number(differences)).toBe(0);
    expect(Number(runs)).toBeGreaterThan(1_000_000);
    expect(Number(instructions)).toBeGreaterThan(1_000_000_000);
    expect(status, stderr).toBe(0);
  });
});
