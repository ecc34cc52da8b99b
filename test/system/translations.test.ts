/** Translations kept on disk: a second boot finds those of the first, and makes few. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Session } from './cli.ts';

/** Boots to the shell. @returns how many regions were translated, and how many were kept from before */
async function boot(directory: string): Promise<{ made: number; stored: number }> {
  const session = new Session(['-q', '--translations', directory]);
  session.type('echo ready\n');
  await session.see(/ready/);
  session.child.kill('SIGUSR1');
  const line = /(\d+) regions translated, (\d+) kept from earlier runs/;
  for (let tries = 0; tries < 500 && !line.test(session.stderr); tries++)
    await new Promise((resolve) => setTimeout(resolve, 20));
  session.type('poweroff\n');
  session.end();
  const { status, stderr } = await session.ended;
  expect(status, stderr).toBe(0);
  const [, made, stored] = line.exec(stderr)!;
  return { made: Number(made), stored: Number(stored) };
}

describe('--translations', () => {
  it('a second boot uses what the first one made', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'xenolith-translations-'));
    try {
      const cold = await boot(directory);
      expect(cold.stored).toBe(0);
      expect(cold.made).toBeGreaterThan(100);
      expect(readdirSync(directory)).toHaveLength(1);
      const warm = await boot(directory);
      expect(warm.stored).toBeGreaterThanOrEqual(cold.made);
      expect(warm.made).toBeLessThan(cold.made / 2);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
