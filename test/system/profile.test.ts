/** --profile, on a domain that does nothing and on one that does nothing else but compute. */
import { describe, expect, it } from 'vitest';
import { Session } from './cli.ts';

const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Share in percent of a line of the table; 0 where it is not listed. */
function share(table: string, title: string): number {
  return Number(new RegExp(`^ *([\\d.]+) % +${title}$`, 'm').exec(table)?.[1] ?? 0);
}

describe('--profile', () => {
  it('shows an idle domain as idle, and a busy loop as translated code', async () => {
    const session = new Session(['-q', '--profile']);
    /** What the table says of the next so many milliseconds. */
    const during = async (milliseconds: number) => {
      session.child.kill('SIGUSR1');
      await pause(milliseconds);
      const before = session.stderr.length;
      session.child.kill('SIGUSR1');
      for (let waited = 0; waited < 100 && !session.stderr.slice(before).includes(' % '); waited++)
        await pause(20);
      await pause(100);
      return session.stderr.slice(before);
    };
    session.type('echo ready\n');
    await session.see(/ready/);
    await pause(500);
    /** Looks until it is so: kernels settle, loops warm up. */
    const until = async (so: (table: string) => boolean) => {
      let table = '';
      for (let tries = 0; tries < 30 && !so(table); tries++) table = await during(1000);
      return table;
    };
    const idle = await until((table) => share(table, 'idle') > 90);
    expect(share(idle, 'idle'), idle).toBeGreaterThan(90);
    session.type('while :; do :; done\n');
    const busy = await until((table) => share(table, 'translated code') > 80);
    expect(share(busy, 'translated code'), busy).toBeGreaterThan(80);
    expect(share(busy, 'idle'), busy).toBeLessThan(10);
    session.child.kill('SIGTERM');
    const { status, stderr } = await session.ended;
    expect(status).toBe(143);
    expect(stderr).toContain('functions of domain 1');
  });
});
