/** The recipes, on Debian's real packages: fetched once into the user's own cache. */
import { execFileSync } from 'node:child_process';
import { mkdtemp, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { planDomain } from '../../dom0/builder/build.ts';
import { readKernel } from '../../dom0/builder/image.ts';
import { Symbols } from '../../dom0/builder/symbols.ts';
import { Cache, fetchKernel, KERNEL_NAMES, shellInitramfs, unpackedKernel } from './index.ts';

const hasApt = (() => {
  try {
    execFileSync('apt-get', ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
})();

describe.skipIf(!hasApt)("Debian's packages", () => {
  it.each(KERNEL_NAMES)('%s is a kernel that a domain can be made of', { timeout: 300_000 }, async (name) => {
    const fetched = await fetchKernel(name);
    expect(fetched.version).not.toBe('');
    const kernel = readKernel(await unpackedKernel(fetched.kernel));
    const { description } = kernel;
    expect(description.source).toBe('PT_NOTE');
    planDomain({ kernel, ramdisk: null, cmdline: '', pages: 32768 });
    if (name === 'grub') {
      expect(description).toMatchObject({ guestOs: 'GRUB', loader: 'generic', virtBase: 0, entry: 0 });
      return;
    }
    expect(description).toMatchObject({
      guestOs: 'linux',
      virtBase: -(2 ** 31),
      initP2m: 2 ** 39,
      modStartPfn: true,
      hypercallPage: expect.toSatisfy((page) => page === null || page > -(2 ** 31)),
    });
    if (name !== 'cloud') {
      const modules = new Map(fetched.modules.map(({ path, bytes }) => [path.replace(/^.*\//, ''), bytes]));
      for (const each of ['xen-blkfront.ko', 'xen-netfront.ko', 'ext4.ko', '9pnet_xen.ko'])
        expect(new TextDecoder('latin1').decode(modules.get(each)!.subarray(1, 4))).toBe('ELF');
      expect(new TextDecoder().decode(modules.get('modules.alias'))).toContain('alias xen:vbd xen_blkfront');
    }
    // The kernel's own symbols say that its entry point is where Xen guests start.
    const symbols = Symbols.ofKernel(kernel.elf)!;
    expect(symbols.size).toBeGreaterThan(50_000);
    expect(symbols.addressOf('start_kernel')).toBeLessThan(0);
    if (symbols.addressOf('startup_xen') !== null) {
      expect(symbols.symbolize(description.entry)).toMatch(/^startup_xen\+0x0\//);
    }
  });

  it('a damaged cache is repaired', { timeout: 300_000 }, async () => {
    const directory = await mkdtemp(join(tmpdir(), 'xenolith-test-'));
    const cache = new Cache(directory);
    const first = await shellInitramfs({ cache });
    const entry = (await cache.lookUp('busybox'))!;
    await writeFile(cache.path(entry.files['busybox']!), 'damaged');
    expect(Buffer.compare(await shellInitramfs({ cache }), first)).toBe(0);
    // One that was not asked about for long is asked about, and found to be new still.
    const file = join(cache.directory, 'names', 'busybox.json');
    await utimes(file, 1000, 1000);
    await shellInitramfs({ cache });
    expect(await cache.keptAt('busybox')).toBeGreaterThan(Date.now() - 60_000);
    await rm(directory, { recursive: true });
  });
});
