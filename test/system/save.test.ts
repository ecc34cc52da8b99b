/** Debian's kernel with a disk and a network interface: saved into a file, restored, and forked, while it works. */
import { mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LocalToolstack } from '../../src/toolstack/api/local.ts';
import type { DomainInfo } from '../../src/toolstack/api/model.ts';
import type { ConsoleConnection } from '../../src/toolstack/api/toolstack.ts';
import { readDomainConfig } from '../../src/toolstack/config/domain-config.ts';
import { nodePcpus } from '../../src/toolstack/node/pcpu.ts';
import { Screen } from './screen.ts';

/** Milliseconds until an answer is missed. */
const PATIENCE = Number(process.env['PATIENCE'] ?? 120_000);
const WORKERS = new URL(process.env['XENOLITH_WORKERS'] ?? '../../dist/toolstack/node/', import.meta.url);

class ConsoleScreen extends Screen {
  ended = false;
  private connection!: ConsoleConnection;

  static async of(toolstack: LocalToolstack, domid: number): Promise<ConsoleScreen> {
    const screen = new ConsoleScreen(PATIENCE);
    screen.connection = await toolstack.console(domid, {
      onOutput: (bytes) => {
        screen.onOutput(bytes);
        return true;
      },
      onEnd: () => {
        screen.ended = true;
      },
    });
    return screen;
  }

  protected type(bytes: Uint8Array): void {
    this.connection.type(bytes);
  }
}

let folder: string;
let toolstack: LocalToolstack;
let domain: DomainInfo;
let screen: ConsoleScreen;
const file = () => join(folder, 'saved');

/** How far the guest's clock is ahead, s: at least, and at most. */
async function clockError(): Promise<[least: number, most: number]> {
  const before = Date.now() / 1000;
  const seconds = Number(await screen.run('date +%s'));
  return [seconds - Date.now() / 1000, seconds + 1 - before];
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'xenolith-save-'));
  await writeFile(join(folder, 'disk'), new Uint8Array(8 << 20));
  const startPcpu = nodePcpus({
    script: new URL('pcpu-worker.js', WORKERS),
    compilerScript: new URL('compiler-worker.js', WORKERS),
  });
  const say = () => {};
  toolstack = await LocalToolstack.start({
    ...{ startPcpu, images: {}, version: 'test', dumpFolder: folder, say },
    memory: 512 << 10,
  });
  const text = `name = "box"
kernel = "xenolith:debian"
ramdisk = "xenolith:shell"
extra = "console=hvc0"
memory = 128
vcpus = 2
disk = [ "${join(folder, 'disk')},raw,xvda,rw" ]
vif = [ "" ]`;
  const { config } = readDomainConfig([{ text, name: 'box.cfg' }], folder);
  domain = await toolstack.create(config);
  screen = await ConsoleScreen.of(toolstack, domain.domid);
  await screen.see(/xenolith:~# /);
  // What the kernel says of a busy machine would stand between the answers.
  await screen.run('dmesg -n 1');
});

afterAll(async () => {
  await toolstack?.stop();
  await rm(folder, { recursive: true, force: true });
});

describe('a saved domain', () => {
  it('is gone, and goes on where it was once it is restored', async () => {
    await screen.run('(while :; do COUNT=$((COUNT+1)); echo $COUNT > /tmp/count; sleep 0.1; done) & true');
    await screen.run('ip link set eth0 up; udhcpc -q -n -i eth0 > /dev/null 2>&1');
    await screen.run('echo before | dd of=/dev/xvda conv=fsync 2> /dev/null');
    const address = await screen.run('ip -4 -o addr show eth0');
    expect(address).toMatch(/10\.0\.2\./);
    const counted = Number(await screen.run('cat /tmp/count'));
    expect(counted).toBeGreaterThan(0);
    // Kernels lose time in the first moments of their start, on a machine with other things to do.
    const error = await clockError();
    await toolstack.save(domain.domid, file());
    expect((await toolstack.list()).map(({ name }) => name)).toEqual(['Domain-0']);
    expect(screen.ended).toBe(true);
    const { size } = await stat(file());
    expect(size).toBeLessThan(100 << 20);
    await new Promise((resolve) => setTimeout(resolve, 2000));

    const restored = await toolstack.restore(file());
    expect(restored.name).toBe('box');
    expect(restored.uuid).toBe(domain.uuid);
    expect(restored.domid).not.toBe(domain.domid);
    domain = restored;
    screen = await ConsoleScreen.of(toolstack, domain.domid);
    const then = Number(await screen.run('cat /tmp/count'));
    expect(then).toBeGreaterThanOrEqual(counted);
    await screen.run('sleep 0.5');
    expect(Number(await screen.run('cat /tmp/count'))).toBeGreaterThan(then);
    // The clock is right, although the domain did not run for two seconds.
    const [least, most] = await clockError();
    expect(least).toBeLessThan(error[1] + 0.5);
    expect(most).toBeGreaterThan(error[0] - 0.5);
    // So are disk and network.
    expect(await screen.run('dd if=/dev/xvda bs=7 count=1 iflag=direct 2> /dev/null')).toBe('before');
    await screen.run('echo behind | dd of=/dev/xvda conv=fsync 2> /dev/null');
    expect((await readFile(join(folder, 'disk'))).toString('latin1', 0, 6)).toBe('behind');
    expect(await screen.run('ip -4 -o addr show eth0')).toBe(address);
    expect(await screen.run('ping -c 1 -W 5 10.0.2.1 | grep -c "1 packets received"')).toBe('1');
    expect(await screen.run('nproc')).toBe('2');
    expect(await screen.run('dmesg | grep -ciE "lockup|hung|warning:|bug:"')).toBe('0');
  });

  it('may go on after it was saved, and cannot be there twice', async () => {
    await toolstack.save(domain.domid, file(), { after: 'continue' });
    await screen.run('echo later | dd of=/dev/xvda conv=fsync 2> /dev/null');
    await expect(toolstack.restore(file())).rejects.toMatchObject({ code: 'exists' });
    await toolstack.rename(domain.domid, 'other');
    await expect(toolstack.restore(file())).rejects.toThrow(/UUID/);
    await toolstack.rename(domain.domid, 'box');
    expect(await screen.run('echo here')).toBe('here');
  });

  it('is refused when its file is damaged, and nothing is left', async () => {
    const { freeMemory } = await toolstack.host();
    const bytes = await readFile(file());
    const refused = async (change: () => Promise<void>, pattern: RegExp) => {
      await writeFile(file(), bytes);
      await change();
      const error = await toolstack.restore(file()).catch((reason: Error) => reason);
      expect(error).toBeInstanceOf(Error);
      expect((error as Error).message).toMatch(pattern);
      expect((error as Error).message).not.toContain('\n');
    };
    const flip = (at: number) => async () => {
      const copy = Buffer.from(bytes);
      copy[at]! ^= 0x10;
      await writeFile(file(), copy);
    };
    await refused(flip(3), /is not a saved domain/);
    await refused(flip(16), /format 17, and this program reads format 1/);
    await refused(flip(100), /damaged \(its checksum is wrong\)/);
    await refused(flip(bytes.length >> 1), /damaged \(its checksum is wrong\)/);
    await refused(flip(bytes.length - 1), /damaged \(its checksum is wrong\)/);
    await refused(() => truncate(file(), bytes.length - 100), /cut off/);
    await refused(() => truncate(file(), 10), /is not a saved domain/);
    await refused(() => rm(file()), /No such file/);
    expect((await toolstack.list()).map(({ name }) => name)).toEqual(['Domain-0', 'box']);
    expect((await toolstack.host()).freeMemory).toBeGreaterThan(freeMemory - 4096);
  });

  it('leaves no file behind where it cannot be written, and goes on', async () => {
    const there = (await readdir(folder)).length;
    await expect(toolstack.save(domain.domid, '/proc/nowhere/saved')).rejects.toThrow(/\/proc\/nowhere/);
    // A device that is always full.
    await expect(toolstack.save(domain.domid, '/dev/full/saved')).rejects.toThrow();
    expect(await readdir(folder)).toHaveLength(there);
    expect(await screen.run('echo here')).toBe('here');
  });
});

describe('a fork with a disk and a network', () => {
  it('has them as they were, and neither sees what the other writes', async () => {
    await screen.run('echo common | dd of=/dev/xvda conv=fsync 2> /dev/null');
    const [fork] = await toolstack.fork(domain.domid);
    const copy = await ConsoleScreen.of(toolstack, fork!.domid);
    const read = 'dd if=/dev/xvda bs=6 count=1 iflag=direct 2> /dev/null';
    expect(await copy.run(read)).toBe('common');
    await screen.run('echo parent | dd of=/dev/xvda conv=fsync 2> /dev/null');
    await copy.run('echo childs | dd of=/dev/xvda conv=fsync 2> /dev/null');
    expect(await screen.run(read)).toBe('parent');
    expect(await copy.run(read)).toBe('childs');
    expect((await readFile(join(folder, 'disk'))).toString('latin1', 0, 6)).toBe('parent');
    for (const each of [screen, copy])
      expect(await each.run('ping -c 1 -W 5 10.0.2.1 | grep -c "1 packets received"')).toBe('1');
    const [vif] = await toolstack.vifs(fork!.domid);
    expect(vif!.bridge).toBe(`xenbr0.fork${fork!.domid}`);
    await expect(toolstack.save(fork!.domid, file())).rejects.toThrow(/xvda is in memory only/);
    await toolstack.destroy(fork!.domid);
    expect(await screen.run(read)).toBe('parent');
  });
});
