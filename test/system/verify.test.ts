/** Interpreter and translator in lockstep, over all that Linux does from its start to a shell. */
import { describe, expect, it } from 'vitest';
import { lines, xenolith } from './cli.ts';

interface Verified {
  readonly runs: number;
  readonly instructions: number;
  readonly differences: number;
}

/** Boots, does the commands, and powers off. */
async function verified(option: string, commands: string): Promise<Verified> {
  const { status, stdout, stderr } = await xenolith(
    ['-q', option, '--no-translation-cache'],
    `${commands}echo done; poweroff\n`,
  );
  expect(lines(stdout)).toContain('done');
  const [, runs, instructions, differences] =
    /verified (\d+) region runs, (\d+) instructions, (\d+) differences/.exec(stderr)!;
  expect(status, stderr).toBe(0);
  return { runs: Number(runs), instructions: Number(instructions), differences: Number(differences) };
}

describe('--verify', () => {
  it('finds no difference in a boot of Linux', async () => {
    const { runs, instructions, differences } = await verified('--verify', '');
    expect(differences).toBe(0);
    expect(runs).toBeGreaterThan(1_000_000);
    expect(instructions).toBeGreaterThan(1_000_000_000);
  });
});

describe('--verify-sample', () => {
  it('finds no difference in programs that compute and programs that start', async () => {
    const { runs, instructions, differences } = await verified(
      '--verify-sample',
      'sha256sum /bin/busybox >/dev/null; for i in $(seq 30); do /bin/true; done; ',
    );
    expect(differences).toBe(0);
    expect(runs).toBeGreaterThan(100_000);
    expect(instructions).toBeGreaterThan(10_000_000);
  });
});
