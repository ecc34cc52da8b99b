import { describe, expect, it } from 'vitest';
import { ImageError } from './error.ts';
import { kernelModules, moduleTables } from './modules.ts';

/** A module as the kernel's build makes them, as far as anybody looks here: an ELF file with a section .modinfo. */
function module(fields: readonly string[]): Uint8Array {
  const info = new TextEncoder().encode(fields.map((field) => `${field}\0`).join(''));
  const names = new TextEncoder().encode('\0.modinfo\0.shstrtab\0');
  const table = 64;
  const infoAt = table + 3 * 64;
  const bytes = new Uint8Array(infoAt + info.length + names.length);
  const view = new DataView(bytes.buffer);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setBigUint64(0x28, BigInt(table), true);
  view.setUint16(0x3a, 64, true);
  view.setUint16(0x3c, 3, true);
  view.setUint16(0x3e, 2, true);
  const header = (index: number, name: number, type: number, offset: number, size: number) => {
    const at = table + index * 64;
    view.setUint32(at, name, true);
    view.setUint32(at + 4, type, true);
    view.setBigUint64(at + 0x18, BigInt(offset), true);
    view.setBigUint64(at + 0x20, BigInt(size), true);
  };
  header(1, 1, 1, infoAt, info.length);
  header(2, 10, 3, infoAt + info.length, names.length);
  bytes.set(info, infoAt);
  bytes.set(names, infoAt + info.length);
  return bytes;
}

const BASE = 'lib/modules/6.1.0/';
const file = (path: string, ...fields: string[]) => ({ path: `${BASE}${path}`, bytes: module(fields) });

describe('the tables of modules', () => {
  const modules = [
    file(
      'kernel/fs/ext4/ext4.ko',
      'alias=fs-ext4',
      'softdep=pre: crypto-crc32c',
      'depends=jbd2,mbcache,missing',
    ),
    file('kernel/fs/jbd2/jbd2.ko', 'depends='),
    file('kernel/fs/mbcache.ko', 'depends=jbd2'),
    file('kernel/crypto/crc32c_generic.ko', 'alias=crypto-crc32c', 'depends='),
    file('kernel/drivers/block/xen-blkfront.ko', 'alias=xen:vbd', 'depends='),
  ];
  const tables = new Map(
    moduleTables(BASE, modules).map(({ path, bytes }) => [path, new TextDecoder().decode(bytes).split('\n')]),
  );

  it('say what each needs, each once, and last what is to be loaded first', () => {
    const dep = tables.get(`${BASE}modules.dep`)!;
    // mbcache stands before jbd2, which it needs, although ext4 names them the other way round.
    expect(dep[0]).toBe(
      'kernel/fs/ext4/ext4.ko: kernel/crypto/crc32c_generic.ko kernel/fs/mbcache.ko kernel/fs/jbd2/jbd2.ko',
    );
    expect(dep[2]).toBe('kernel/fs/mbcache.ko: kernel/fs/jbd2/jbd2.ko');
    expect(dep[4]).toBe('kernel/drivers/block/xen-blkfront.ko:');
  });

  it.each([
    ['a,b', 'c', 'c', ''],
    ['b,a', 'c', 'c', ''],
    ['a,c', 'c', 'c', ''],
    ['c,a,b', 'b', 'c', ''],
    ['a', 'b', 'c', 'a'],
  ])('have an order in which everything can be loaded: %s, %s, %s, %s', (top, a, b, c) => {
    const needs: Record<string, string> = { top, a, b, c };
    const each = Object.entries(needs).map(([name, list]) => file(`${name}.ko`, `depends=${list}`));
    const dep = new TextDecoder().decode(moduleTables(BASE, each)[0]!.bytes);
    for (const line of dep.trim().split('\n')) {
      const [, name, list] = /^(\w+)\.ko:(.*)$/.exec(line)!;
      const order = [name!, ...list!.split(' ').filter((path) => path !== '')].map((path) =>
        path.replace('.ko', ''),
      );
      order.reverse();
      expect(new Set(order).size).toBe(order.length);
      // In the last case they are in a circle, which only softdep may be: each is there all the same.
      if (c === 'a') expect(order).toHaveLength(name === 'top' ? 4 : 3);
      else
        for (const [index, one] of order.entries())
          for (const need of needs[one]!.split(',').filter((other) => other !== ''))
            expect(order.slice(0, index)).toContain(need);
    }
  });

  it('say by what names they are asked for', () => {
    expect(tables.get(`${BASE}modules.alias`)).toEqual(
      expect.arrayContaining(['alias fs-ext4 ext4', 'alias xen:vbd xen_blkfront']),
    );
  });
});

describe('modules of a package', () => {
  const files = (path: string, bytes: Uint8Array) => ({
    package: 'linux',
    version: '1',
    files: new Map([['xen-blkfront', bytes]]),
    paths: new Map([['xen-blkfront', path]]),
  });
  const good = module(['alias=xen:vbd', 'depends=']);

  it('come with their tables, from wherever the package has them', () => {
    for (const prefix of ['', 'usr/']) {
      const found = kernelModules(files(`${prefix}${BASE}kernel/drivers/block/xen-blkfront.ko`, good));
      expect(found.map(({ path }) => path)).toEqual([
        `${BASE}kernel/drivers/block/xen-blkfront.ko`,
        `${BASE}modules.dep`,
        `${BASE}modules.alias`,
      ]);
    }
  });

  it('may be none', () => {
    expect(kernelModules({ package: 'p', version: '1', files: new Map(), paths: new Map() })).toEqual([]);
  });

  it.each([
    ['not ELF', 'x.ko', new Uint8Array(100)],
    ['cut short', 'x.ko', good.subarray(0, 100)],
    ['not xz', 'x.ko.xz', new Uint8Array(100).fill(0xff)],
    ['nothing', 'x.ko.xz', new Uint8Array(3)],
  ])('that are damaged are told: %s', (_, name, bytes) => {
    expect(() => kernelModules(files(`${BASE}kernel/${name}`, bytes))).toThrow(ImageError);
  });
});
