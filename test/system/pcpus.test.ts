/** A machine with two processors: domains run at the same time, and go from one to the other. */

import { writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Going, XlUser } from './xl-cli.ts';

const SHELL = fileURLToPath(new URL('../../guests/shell.cfg', import.meta.url));
const PROMPT = /xenolith:~# /;
/** Counts rounds until so many seconds of the guest's own time are over. */
const COUNT =
  'count() { n=0; IFS=". " read s x </proc/uptime; e=$((s+$1)); ' +
  'while IFS=". " read t x </proc/uptime; [ $t -lt $e ]; do ' +
  'i=0; while [ $i -lt 300 ]; do i=$((i+1)); done; n=$((n+1)); done; echo "DI""D $n"; }\n';

const user = new XlUser();
const consoles: Record<string, Going> = {};

/** The CPUs that domains are on, by name. */
async function places(): Promise<Record<string, string>> {
  const list = await user.xl('vcpu-list');
  return Object.fromEntries(
    [...list.matchAll(/^(\w+) +\d+ +0 +(\d+) /gm)].map(([, name, cpu]) => [name, cpu]),
  );
}

async function count(name: string, seconds: number): Promise<number> {
  consoles[name]!.type(`count ${seconds}\n`);
  return Number((await consoles[name]!.sees(/DID \d+/)).slice(4));
}

beforeAll(async () => {
  await user.xl('daemon', 'start', '--pcpus', '2', '--memory', '512M');
  await Promise.all(
    ['a', 'b'].map(async (name) => {
      await user.xl('create', SHELL, `name="${name}"`, 'memory=96');
      const console = user.start(['console', name]);
      consoles[name] = console;
      await console.sees(PROMPT, 200);
      console.type(COUNT);
      await console.sees(PROMPT);
    }),
  );
});

afterAll(() => user.leave());

describe('two processors', () => {
  it('are told of, and have a domain each', async () => {
    expect(await user.xl('info', 'nr_cpus')).toBe('2\n');
    const { a, b } = await places();
    expect([a, b].sort()).toEqual(['0', '1']);
  });

  it.skipIf(availableParallelism() < 2)('do the work of two', async () => {
    // Warm, so that nothing is translated while it counts.
    await Promise.all([count('a', 3), count('b', 3)]);
    // Other work on the host may have one of the two cores for a while.
    const seen: string[] = [];
    let best = 0;
    for (let attempt = 0; attempt < 5 && best < 1.4; attempt++) {
      const alone = await count('a', 3);
      const both = await Promise.all([count('a', 3), count('b', 3)]);
      const { a, b } = await places();
      best = Math.max(best, (both[0]! + both[1]!) / alone);
      seen.push(`alone ${alone}, together ${both.join(' and ')} on ${a} and ${b}`);
    }
    expect(best, seen.join('; ')).toBeGreaterThan(1.4);
  });

  it('are where a domain can be moved to while it runs', async () => {
    const { a } = await places();
    const there = a === '0' ? '1' : '0';
    consoles['a']!.type('while read t _ </proc/uptime; do echo "TI""CK $t"; sleep 0.2; done\n');
    const tick = async () => Number((await consoles['a']!.sees(/TICK \d+\.\d+/)).slice(5));
    const first = await tick();
    const began = Date.now();
    await user.xl('vcpu-pin', 'a', 'all', there);
    expect((await places())['a']).toBe(there);
    expect(await user.xl('vcpu-list', 'a')).toMatch(new RegExp(` ${there} / all$`, 'm'));
    let last = first;
    for (let tickNumber = 0; tickNumber < 20; tickNumber++) {
      const next = await tick();
      expect(next).toBeGreaterThan(last);
      last = next;
    }
    // Its clock neither stood still nor jumped. What it printed may have waited for us, and the other way round.
    const passed = (Date.now() - began) / 1000;
    expect(Math.abs(last - first - passed)).toBeLessThan(3);
    consoles['a']!.type('\x03');
    consoles['a']!.type('echo "ST""ILL $((6*7))"\n');
    await consoles['a']!.sees(/STILL 42/);
  });

  it('are not asked for what cannot be', async () => {
    const failing = async (...args: string[]) => {
      const { status, stderr } = await user.run(args);
      expect(status).not.toBe(0);
      return stderr;
    };
    expect(await failing('vcpu-pin', 'a', 'all', '2')).toContain('names none');
    const split = ['create', SHELL, 'name="c"', 'memory=64', 'vcpus=2', 'cpus=["0", "1"]'];
    expect(await failing(...split)).toContain('on one CPU together');
    expect(await user.xl('list')).not.toMatch(/^c /m);
    expect(await failing('daemon', 'start', '--pcpus', '0')).toContain('--pcpus 0');
  });
});

describe('a domain with a disk and a network', () => {
  it('goes to another processor with both', async () => {
    const disk = join(user.folder, 'disk');
    writeFileSync(disk, Buffer.alloc(8 << 20, 1));
    const { b } = await places();
    await user.xl('block-attach', 'b', `${disk},raw,xvda,w`);
    await user.xl('network-attach', 'b');
    const console = consoles['b']!;
    console.type(
      'modprobe xen-blkfront; modprobe xen-netfront; until [ -b /dev/xvda -a -e /sys/class/net/eth0 ]; ' +
        'do sleep 1; done; udhcpc -i eth0 -q -n >/dev/null 2>&1; echo "LE""ASE $?"\n',
    );
    expect(await console.sees(/LEASE \d+/)).toBe('LEASE 0');
    // Reads and pings without end, across the moves.
    console.type(
      'while echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/xvda of=/dev/null bs=64k 2>/dev/null && ' +
        'ping -c 1 -W 20 10.0.2.1 >/dev/null; do echo "RO""UND"; done; echo "FA""ILED"\n',
    );
    const there = b === '0' ? '1' : '0';
    for (const cpu of [there, b!]) {
      await console.sees(/ROUND/);
      await user.xl('vcpu-pin', 'b', 'all', cpu);
      expect((await places())['b']).toBe(cpu);
      for (let round = 0; round < 3; round++) expect(await console.sees(/ROUND|FAILED/)).toBe('ROUND');
    }
    console.type('\x03');
  });
});
