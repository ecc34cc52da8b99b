import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { acquire, holderOf, Locked } from './lock.ts';

const folder = mkdtempSync(join(tmpdir(), 'xenolith-lock-'));
const path = join(folder, 'lock');
beforeEach(() => rmSync(path, { force: true }));
afterAll(() => rmSync(folder, { recursive: true }));

describe('a lock', () => {
  it('is held by one, and can be given back', () => {
    const { dead, release } = acquire(path);
    expect(dead).toBeNull();
    expect(holderOf(path)).toMatchObject({ pid: process.pid });
    expect(() => acquire(path)).toThrow(Locked);
    release();
    expect(holderOf(path)).toBeNull();
    acquire(path).release();
    expect(readdirSync(folder)).toEqual([]);
  });

  it('of a dead process is found out', () => {
    const pid = spawnSync('true').pid;
    writeFileSync(path, JSON.stringify({ pid, start: null, since: 5 }));
    expect(holderOf(path)).toBeNull();
    expect(acquire(path).dead).toEqual({ pid, start: null, since: 5 });
    expect(holderOf(path)?.pid).toBe(process.pid);
  });

  it('of a process whose number another one has now is found out', () => {
    writeFileSync(path, JSON.stringify({ pid: process.pid, start: 'another time', since: 5 }));
    expect(acquire(path).dead).toMatchObject({ pid: process.pid, start: 'another time' });
  });

  it('that is damaged is no lock', () => {
    for (const text of ['', 'null', '{}', '{"pid":"x"}', '\0\0\0']) {
      writeFileSync(path, text);
      const { dead, release } = acquire(path);
      expect(dead).toBeNull();
      release();
    }
  });

  it('that is somebody else’s by now is not given back', () => {
    const { release } = acquire(path);
    writeFileSync(path, 'another');
    release();
    expect(readFileSync(path, 'utf8')).toBe('another');
  });

  it('goes to one of many that want a stale one at once', async () => {
    const tsc = fileURLToPath(new URL('../../../node_modules/.bin/tsc', import.meta.url));
    const source = fileURLToPath(new URL('./lock.ts', import.meta.url));
    const options = ['--target', 'es2022', '--module', 'nodenext', '--types', 'node', '--skipLibCheck'];
    const compiled = mkdtempSync(join(tmpdir(), 'xenolith-lock-js-'));
    writeFileSync(join(compiled, 'package.json'), '{"type":"module"}');
    execFileSync(tsc, [...options, '--ignoreConfig', '--outDir', compiled, source]);
    const script = join(compiled, 'contender.js');
    writeFileSync(
      script,
      `import { acquire } from './lock.js';
       while (Date.now() < Number(process.argv[2]));
       let mine = false;
       try { acquire(${JSON.stringify(path)}); mine = true; } catch {}
       setTimeout(() => console.log(mine), 500);`,
    );
    try {
      for (let round = 0; round < 3; round++) {
        writeFileSync(path, JSON.stringify({ pid: 2 ** 22 + 1, start: null, since: 0 }));
        const start = `${Date.now() + 500}`;
        const said = await Promise.all(Array.from({ length: 6 }, () => output(script, start)));
        expect(said.filter((text) => text === 'true')).toHaveLength(1);
      }
    } finally {
      rmSync(compiled, { recursive: true });
    }
  });
});

function output(script: string, ...args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [script, ...args], (error, stdout) =>
      error ? reject(error) : resolve(stdout.trim()),
    );
  });
}
