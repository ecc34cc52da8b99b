/** The daemon's store, as Xen's own clients find it: what is Domain 0's is there again after the daemon was. */
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { XlUser } from './xl-cli.ts';

const user = new XlUser();
afterAll(() => user.leave());

const hasClients = spawnSync('xenstore-ls', ['--help']).error === undefined;
if (!hasClients) console.warn('xenstore-utils is not installed: its clients are not tried');

const ask = (command: string, ...args: string[]) => {
  const env = { ...process.env, XENSTORED_RUNDIR: join(user.env['XENOLITH_DIR']!, 'xenstored') };
  return execFileSync(command, args, { env, encoding: 'utf8' });
};

describe.skipIf(!hasClients)('the store of a daemon', () => {
  it('lasts, whether the daemon is stopped or killed', async () => {
    await user.xl('daemon', 'start');
    ask('xenstore-write', '/tool/mine', 'a value', '/local/domain/0/site', 'rack 4');
    ask('xenstore-chmod', '/tool/mine', 'r0');
    ask('xenstore-write', '/local/domain/0/backend/vbd/9/1/state', '4', '/local/domain/9/name', 'gone');
    // It is on its way to the file at once.
    const file = join(user.env['XENOLITH_DIR']!, 'xenstore.json');
    await expect.poll(() => readFileSync(file, 'utf8'), { timeout: 10_000 }).toContain('rack 4');
    process.kill(await user.daemonPid(), 'SIGKILL');
    await user.xl('daemon', 'start');
    expect(ask('xenstore-read', '/tool/mine', '/local/domain/0/site')).toBe('a value\nrack 4\n');
    expect(ask('xenstore-ls', '-p', '/tool')).toMatch(/^mine = "a value".*\(r0\)$/m);
    expect(() => ask('xenstore-exists', '/local/domain/9')).toThrow();
    expect(() => ask('xenstore-exists', '/local/domain/0/backend/vbd')).toThrow();
    ask('xenstore-rm', '/tool/mine');
    await user.xl('daemon', 'stop');
    await user.xl('daemon', 'start');
    expect(() => ask('xenstore-exists', '/tool/mine')).toThrow();
    expect(ask('xenstore-read', '/local/domain/0/site')).toBe('rack 4\n');
  });
});
