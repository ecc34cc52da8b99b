/** Copies of a running Debian kernel with two virtual CPUs: each goes on where the first one was, and for itself. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Guest, loadGuest } from '../../src/toolstack/guest.ts';
import { Machine } from '../../src/toolstack/machine.ts';
import { nodePcpus } from '../../src/toolstack/node/pcpu.ts';
import { parseOptions } from '../../src/toolstack/options.ts';
import { type DomainEvents, RunningDomain } from '../../src/toolstack/running-domain.ts';
import { Screen } from './screen.ts';

const FORKS = 4;
/** Milliseconds until an answer is missed. */
const PATIENCE = 120_000;
const WORKERS = new URL('../../dist/toolstack/node/', import.meta.url);

class DomainScreen extends Screen implements DomainEvents {
  domain!: RunningDomain;

  constructor() {
    super(PATIENCE);
  }

  protected type(bytes: Uint8Array): void {
    this.domain.type(bytes);
  }

  onLog(): void {}

  onRoom(): void {}
}

let machine: Machine;
let guest: Guest;
const parent = new DomainScreen();
const screens: DomainScreen[] = [];
let freeBefore = 0;

const free = async () => (await machine.control.machineInfo()).freePages;

beforeAll(async () => {
  const options = parseOptions(['-q', '--memory', '128']);
  if (options.command !== 'boot') throw new Error('not the options of a domain');
  guest = await loadGuest(options, { scripted: false, size: null }, {});
  const start = nodePcpus({
    script: new URL('pcpu-worker.js', WORKERS),
    compilerScript: new URL('compiler-worker.js', WORKERS),
  });
  machine = await Machine.start(options.memory * 3, start);
  parent.domain = await RunningDomain.start(machine, guest, parent, { vcpus: 2 });
  await parent.see(/xenolith:~# /);
});

afterAll(() => machine?.powerOff());

describe('forks of a running domain', () => {
  it('are made while it runs, and share its memory', async () => {
    // What the kernel warns of on a busy host is not to be mixed with answers.
    await parent.run('dmesg -n 1');
    await parent.run('NAME=first; (while :; do COUNT=$((COUNT+1)); sleep 0.1; done) & echo kept > /tmp/file');
    freeBefore = await free();
    for (let number = 0; number < FORKS; number++) {
      const screen = new DomainScreen();
      screen.domain = await parent.domain.fork(`fork${number}`, screen);
      screens.push(screen);
      await screen.domain.unpause();
    }
    const pages = (await machine.control.getDomainInfo(parent.domain.id)).totalPages;
    expect(freeBefore - (await free())).toBeLessThan((FORKS * pages) / 8);
  });

  it('know what it knew, and answer on consoles of their own', async () => {
    const answers = await Promise.all(
      screens.map((screen, number) => screen.run(`echo $NAME $(nproc) ${number}; NAME=fork${number}`)),
    );
    expect(answers).toEqual(screens.map((_, number) => `first 2 ${number}`));
    expect(await parent.run('echo $NAME')).toBe('first');
    expect(await Promise.all(screens.map((screen) => screen.run('echo $NAME')))).toEqual(
      screens.map((_, number) => `fork${number}`),
    );
  });

  it('do not see what the others write', async () => {
    await Promise.all(
      screens.map((screen, number) =>
        screen.run(`dd if=/dev/zero of=/tmp/big bs=64k count=16 2>&-; echo ${number} > /tmp/file`),
      ),
    );
    await parent.run('echo parent >> /tmp/file');
    const files = await Promise.all([parent, ...screens].map((screen) => screen.run('cat /tmp/file')));
    expect(files).toEqual(['kept\nparent', ...screens.map((_, number) => `${number}`)]);
  });

  it('have identities and places in the store of their own', async () => {
    const ids = screens.map(({ domain }) => domain.id);
    expect(new Set([parent.domain.id, ...ids]).size).toBe(FORKS + 1);
    expect(new Set([parent, ...screens].map(({ domain }) => domain.uuid)).size).toBe(FORKS + 1);
    for (const [number, id] of ids.entries())
      expect(machine.store.read(`/local/domain/${id}/name`)).toBe(`fork${number}`);
    // The watches of the guest's kernel are there: it answers to the toolstack.
    const [first] = screens as [DomainScreen];
    machine.store.write(`/local/domain/${first.domain.id}/cpu/1/availability`, 'offline');
    await first.run('until [ $(nproc) = 1 ]; do sleep 0.1; done');
    expect(await parent.run('nproc')).toBe('2');
  });

  it('end for themselves, and give everything back', async () => {
    const [first, ...others] = screens as [DomainScreen, ...DomainScreen[]];
    first.domain.type(new TextEncoder().encode('poweroff\n'));
    expect(await first.domain.ended).toEqual({ code: 0, crashReason: null });
    await first.domain.destroy();
    expect(await others[0]!.run('echo $NAME')).toBe('fork1');
    for (const { domain } of others) await domain.destroy();
    expect(await parent.run('echo $NAME; cat /tmp/file')).toBe('first\nkept\nparent');
    // The first one may have touched pages that it had not before; no more than that is missing.
    expect(freeBefore - (await free())).toBeLessThan(64);
  });
});

describe('a second domain of the same kernel', () => {
  it('comes to share most of its memory with the first, and each has its own', async () => {
    const second = new DomainScreen();
    second.domain = await RunningDomain.start(machine, guest, second);
    await second.see(/xenolith:~# /);
    const { totalPages } = await machine.control.getDomainInfo(second.domain.id);
    const end = Date.now() + PATIENCE;
    // Found equal, a little at a time: both domains have shells that wait.
    while ((await machine.control.machineInfo()).savedPages < totalPages * 1.25 && Date.now() < end)
      await new Promise((resolve) => setTimeout(resolve, 500));
    const info = await machine.control.machineInfo();
    expect(info.savedPages).toBeGreaterThan(totalPages * 1.25);
    // What is saved is promised to them: it is not given to others.
    expect(info.promisedPages).toBeGreaterThan(totalPages);
    await second.run('echo second > /tmp/file; NAME=second');
    expect(await parent.run('echo $NAME; cat /tmp/file')).toBe('first\nkept\nparent');
    expect(await second.run('echo $NAME; cat /tmp/file; ls / | sort | md5sum')).toMatch(/^second\nsecond\n/);
    await second.domain.destroy();
  });
});
