import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Symbols, SymbolsError } from './symbols.ts';

const map = new TextEncoder().encode(`0000000000000000 A cpu_number
0000000000014000 D per_cpu_thing
ffffffff81000000 T _text
ffffffff81001000 t start_kernel
ffffffff83000000 D _data
`);

describe('symbols', () => {
  it('of a System.map', () => {
    const symbols = Symbols.parse(map);
    expect(symbols.name(-0x7f000000)).toBe('_text+0x0');
    expect(symbols.name(-0x7f000000 + 0x1234)).toBe('start_kernel+0x234');
    expect(symbols.name(-0x7f000001)).toBeNull();
    expect(symbols.name(0x14000)).toBeNull();
    expect(symbols.name(-0x7e000000)).toBeNull();
  });

  it('go behind the addresses of a dump', () => {
    const symbols = Symbols.parse(map);
    expect(symbols.annotate('rip ffffffff81001010 rsp 0000000000000008\n0xffffffff83000004')).toBe(
      'rip ffffffff81001010 <start_kernel+0x10> rsp 0000000000000008\n0xffffffff83000004 <_data+0x4>',
    );
  });

  it('of an ELF file', () => {
    const folder = mkdtempSync(join(tmpdir(), 'xenolith-symbols-'));
    try {
      writeFileSync(join(folder, 'a.s'), '.globl _start\n_start: nop\nnop\nhere: ret\n.comm room, 8\n');
      execFileSync('as', ['-o', 'a.o', 'a.s'], { cwd: folder });
      execFileSync('ld', ['-Ttext=0x401000', '-o', 'a', 'a.o'], { cwd: folder });
      const symbols = Symbols.parse(readFileSync(join(folder, 'a')));
      expect(symbols.name(0x401001)).toBe('_start+0x1');
      expect(symbols.name(0x401002)).toBe('here+0x0');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('of anything else are refused', () => {
    expect(() => Symbols.parse(new Uint8Array(100))).toThrow(SymbolsError);
    expect(() => Symbols.parse(new TextEncoder().encode('hello'))).toThrow('no symbols');
  });
});
