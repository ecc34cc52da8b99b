/**
 * A domain of several virtual CPUs, and what its owner changes while it runs: CPUs and memory, by the store, as the
 * toolstack does. One boot of Debian's kernel for all of it.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Outcome, Session } from './cli.ts';

const VCPUS = 4;
/** XS_WRITE (public/io/xs_wire.h). */
const WRITE = 11;

const folder = mkdtempSync(join(tmpdir(), 'xenolith-smp-'));
const socket = join(folder, 'xenstore');
let session: Session;
let position = 0;

/** Writes a node of the domain's, as Domain 0. */
function store(path: string, value: string): Promise<void> {
  const payload = Buffer.from(`/local/domain/1/${path}\0${value}`);
  const header = Buffer.alloc(16);
  header.writeUInt32LE(WRITE, 0);
  header.writeUInt32LE(payload.length, 12);
  return new Promise((resolve, reject) => {
    const client = connect(socket, () => client.write(Buffer.concat([header, payload])));
    client.on('error', reject);
    client.on('data', (answer) => {
      client.destroy();
      if (answer.readUInt32LE(0) === WRITE) resolve();
      else reject(new Error(`the store says: ${answer.subarray(16)}`));
    });
  });
}

/** Runs a line in the domain. @returns what it printed */
async function shell(line: string): Promise<string> {
  session.type(`${line}; echo "<<$?>>"\n`);
  const from = position;
  position = await session.see(/<<\d+>>/, from);
  return session.stdout.slice(from, position).replaceAll('\r', '');
}

/** Waits in the domain until a condition of the shell's holds. */
const until = (condition: string) => shell(`until ${condition}; do sleep 0.1; done`);

/** Ticks that each CPU spent in programs. */
async function userTicks(): Promise<number[]> {
  const text = await shell('cat /proc/stat');
  return [...text.matchAll(/^cpu\d+ (\d+)/gm)].map((match) => Number(match[1]));
}

beforeAll(async () => {
  session = new Session(['-q', '--vcpus', `${VCPUS}`, '--xenstore', socket]);
  await shell('true');
});

afterAll(() => {
  session.child.kill('SIGKILL');
  rmSync(folder, { recursive: true });
});

describe('a domain of several virtual CPUs', () => {
  it('has them all', async () => {
    expect(await shell('nproc')).toMatch(new RegExp(`^${VCPUS}$`, 'm'));
    expect(await shell('cat /sys/devices/system/cpu/online')).toMatch(/^0-3$/m);
  });

  it('runs a parallel load on all of them, alike', async () => {
    const before = await userTicks();
    expect(before).toHaveLength(VCPUS);
    await shell('for i in 1 2 3 4; do (while :; do :; done) & done');
    let ticks: number[];
    do {
      await shell('sleep 0.5');
      const now = await userTicks();
      ticks = now.map((value, cpu) => value - before[cpu]!);
    } while (ticks.reduce((sum, each) => sum + each) < 100);
    await shell('kill %1 %2 %3 %4');
    expect(Math.min(...ticks)).toBeGreaterThan(Math.max(...ticks) / 2);
  });

  it('loses CPUs that become unavailable, and can bring them up again', async () => {
    await store('cpu/2/availability', 'offline');
    await store('cpu/3/availability', 'offline');
    await until('[ "$(nproc)" = 2 ]');
    expect(await shell('cat /sys/devices/system/cpu/online')).toMatch(/^0-1$/m);
    await store('cpu/2/availability', 'online');
    await store('cpu/3/availability', 'online');
    // Where there is no udev, its rule is the user's to follow.
    for (const cpu of [2, 3]) {
      const file = `/sys/devices/system/cpu/cpu${cpu}/online`;
      await until(`[ -e ${file} ]`);
      await until(`echo 1 > ${file}`);
    }
    expect(await shell('nproc')).toMatch(new RegExp(`^${VCPUS}$`, 'm'));
  });

  it('gives memory back when its target sinks, and takes it again', async () => {
    const info = '/sys/devices/system/xen_memory/xen_memory0/info/current_kb';
    const free = async () => Number(/MemFree: +(\d+)/.exec(await shell('cat /proc/meminfo'))![1]);
    const before = await free();
    await store('memory/target', `${160 << 10}`);
    await until(`[ "$(cat ${info})" = ${160 << 10} ]`);
    expect(before - (await free())).toBeGreaterThan(80 << 10);
    await store('memory/target', `${256 << 10}`);
    await until(`[ "$(cat ${info})" = ${256 << 10} ]`);
    expect(Math.abs(before - (await free()))).toBeLessThan(16 << 10);
    // What it got is memory as any other.
    const big = 'dd if=/dev/urandom of=/tmp/big bs=1M count=16 2>/dev/null; sha256sum /tmp/big';
    const sum = await shell(`${big}; cp /tmp/big /tmp/copy; sha256sum /tmp/copy`);
    const [first, second] = sum.match(/[0-9a-f]{64}/g)!;
    expect(second).toBe(first);
  });

  it('ends', async () => {
    session.type('poweroff\n');
    const outcome: Outcome = await session.ended;
    expect(outcome.status).toBe(0);
  });
});
