import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const SOURCES = fileURLToPath(new URL('../bench/probe', import.meta.url));

/** The bytes that the probe hashes: the low ones of a xorshift generator's numbers. */
function randomBytes(length: number): Uint8Array {
  const mask = (1n << 64n) - 1n;
  let x = 99n;
  return Uint8Array.from({ length }, () => {
    x ^= (x << 13n) & mask;
    x ^= x >> 7n;
    x ^= (x << 17n) & mask;
    return Number(x & 255n);
  });
}

describe('the probe of the bench', () => {
  const folder = mkdtempSync(join(tmpdir(), 'xenolith-probe-'));
  const probe = join(folder, 'probe');
  const run = (...args: string[]) => spawnSync(probe, args, { encoding: 'utf8' });
  beforeAll(() => {
    const sources = readdirSync(SOURCES).filter((name) => name.endsWith('.c'));
    const args = ['-O2', '-static', '-Wall', '-Wextra', '-Werror', '-o', probe];
    const gcc = spawnSync('gcc', [...args, ...sources.map((name) => join(SOURCES, name))], {
      encoding: 'utf8',
    });
    expect(gcc.stderr).toBe('');
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it('comes to the same result in every batch and every run', () => {
    const list = run('list').stdout.trimEnd().split('\n');
    const results = () => {
      const { stdout, status } = run('0', '1');
      expect(status).toBe(0);
      return stdout.replace(/^(row \d+) \d+\.\d+/gm, '$1');
    };
    const first = results();
    expect(first.match(/^row \d+ [0-9a-f]{16}$/gm)).toHaveLength(list.length);
    expect(first).toMatch(/\nprobe end\n$/);
    expect(results()).toBe(first);
  });

  it('computes SHA-256', () => {
    const [index] = /^(\d+)\t.*\tSHA-256$/m.exec(run('list').stdout)!.slice(1);
    const hash = createHash('sha256')
      .update(randomBytes(1 << 16))
      .digest('hex');
    expect(run('0', '1', index!).stdout).toMatch(
      new RegExp(`^row ${index} \\d+\\.\\d+ ${hash.slice(0, 16)}\n`),
    );
  });

  it('knows what it is asked for', () => {
    expect(run().status).toBe(2);
    expect(run('load', 'nothing').status).toBe(2);
    expect(run('exit').status).toBe(3);
  });
});
