/** Interpreter and translator in lockstep, over all that Linux does from its start to a shell. */
import { describe, expect, it } from 'vitest';
import { lines, xenolith } from './cli.ts';

describe('--verify-sample', () => {
  it('finds no difference in a boot of Linux', async () => {
    // All of it (--verify) takes minutes, and was 16 million runs of regions when it was tried.
    const { status, stdout, stderr } = await xenolith(
      ['-q', '--verify-sample', '--no-translation-cache'],
      'sha256sum /bin/busybox >/dev/null; for i in $(seq 30); do /bin/true; done; echo done; poweroff\n',
    );
    expect(lines(stdout)).toContain('done');
    const [, runs, instructions, differences] =
      /verified (\d+) region runs, (\d+) instructions, (\d+) differences/.exec(stderr)!;
    expect(Number(differences)).toBe(0);
    expect(Number(runs)).toBeGreaterThan(100_000);
    expect(Number(instructions)).toBeGreaterThan(10_000_000);
    expect(status, stderr).toBe(0);
  });
});
