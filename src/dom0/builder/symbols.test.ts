import { describe, expect, it } from 'vitest';
import { BuildError } from './error.ts';
import { Symbols } from './symbols.ts';
import { makeElf } from './test-kernels.ts';

const BASE = -0x80000000;

const MAP = `0000000000000000 D __per_cpu_start
ffffffff81000000 T _text
ffffffff81000000 T startup_64
ffffffff81000100 t helper.part.0
ffffffff81000200 T do_it
0000000000001234 A some_number
ffffffff82000000 B _end
`;

describe('symbols of a System.map', () => {
  const symbols = Symbols.parse(new TextEncoder().encode(MAP));

  it.each([
    [BASE + 0x1000000, '_text+0x0/0x100'],
    [BASE + 0x10000ff, '_text+0xff/0x100'],
    [BASE + 0x1000100, 'helper.part.0+0x0/0x100'],
    [BASE + 0x1000234, 'do_it+0x34/0xfffe00'],
    [BASE + 0x2000010, '_end+0x10'],
    [BASE + 0xffffff, null],
    [BASE + 0x1900000, null],
    [BASE + 0x3000000, null],
    [0, null],
    [0x1234, null],
  ])('%d is %s', (address, name) => {
    expect(symbols.symbolize(address)).toBe(name);
  });

  it('name addresses in a dump', () => {
    expect(symbols.annotate('rip ffffffff81000203 rax 0000000000000010')).toBe(
      'rip ffffffff81000203 <do_it+0x3> rax 0000000000000010',
    );
    expect(symbols.addressOf('do_it')).toBe(BASE + 0x1000200);
    expect(symbols.addressOf('nothing')).toBeNull();
  });
});

describe('symbols of an ELF file', () => {
  it('come from its symbol table', () => {
    const entries = new Uint8Array(24 * 4);
    const view = new DataView(entries.buffer);
    const put = (index: number, name: number, info: number, section: number, value: bigint) => {
      view.setUint32(index * 24, name, true);
      view.setUint8(index * 24 + 4, info);
      view.setUint16(index * 24 + 6, section, true);
      view.setBigUint64(index * 24 + 8, value, true);
    };
    put(1, 1, 0x12, 1, 0x1000n);
    put(2, 7, 0x04, 1, 0x1800n);
    put(3, 12, 0x11, 0xfff1, 0x1900n);
    const names = new TextEncoder().encode('\0start\0file\0number\0');
    const file = makeElf({
      segments: [{ pa: 0n, bytes: new Uint8Array(16) }],
      sections: [
        { name: '.symtab', type: 2, bytes: entries, link: 2 },
        { name: '.strtab', type: 3, bytes: names },
      ],
    });
    const symbols = Symbols.parse(file);
    expect(symbols.size).toBe(1);
    expect(symbols.symbolize(0x1810)).toBe('start+0x810');
  });

  it('are missed where there are none', () => {
    expect(() => Symbols.parse(makeElf({ segments: [{ pa: 0n, bytes: new Uint8Array(16) }] }))).toThrow(
      BuildError,
    );
    const debian = 'ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n';
    expect(() => Symbols.parse(new TextEncoder().encode(debian))).toThrow(BuildError);
    expect(() => Symbols.parse(new TextEncoder().encode('hello'))).toThrow(/no symbols/);
  });
});
