import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { describeForDump } from '../../xen/dump.ts';
import { PAGE, testGuest, testSystem } from '../../xen/testing.ts';
import { writeDump } from './core-dump.ts';

/** A file in memory. */
function memoryFile() {
  let bytes = new Uint8Array(1 << 20);
  let size = 0;
  return {
    get content() {
      return bytes.subarray(0, size);
    },
    async write(piece: Uint8Array, from: number, length: number, at: number) {
      // A disk takes less than it is given now and then.
      const taken = Math.ceil(length / 2);
      while (at + taken > bytes.length) {
        const more = new Uint8Array(bytes.length * 2);
        more.set(bytes);
        bytes = more;
      }
      bytes.set(piece.subarray(from, from + taken), at);
      size = Math.max(size, at + taken);
      return { bytesWritten: taken, buffer: piece };
    },
  };
}

interface Section {
  type: number;
  bytes: Uint8Array;
}

function sectionsOf(file: Uint8Array): Map<string, Section> {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const count = view.getUint16(60, true);
  const all = Array.from({ length: count }, (_, index) => {
    const at = 64 + index * 64;
    const offset = Number(view.getBigUint64(at + 24, true));
    const size = Number(view.getBigUint64(at + 32, true));
    const bytes = file.subarray(offset, offset + size);
    return { name: view.getUint32(at, true), type: view.getUint32(at + 4, true), bytes };
  });
  const names = new TextDecoder().decode(all[view.getUint16(62, true)]!.bytes);
  return new Map(all.slice(1).map((it) => [names.slice(it.name, names.indexOf('\0', it.name)), it]));
}

async function dumped() {
  const system = testSystem();
  const guest = testGuest(system, [0xeb, 0xfe], 2);
  system.hypervisor.runSlice();
  guest.write(PAGE.data, 0, new TextEncoder().encode('found'));
  guest.domain.pause();
  const file = memoryFile();
  await writeDump(file as never, describeForDump(guest.domain), system.memory.u8);
  return { guest, file: file.content };
}

describe('a core dump', () => {
  it('has every page of the domain, by its numbers', async () => {
    const { guest, file } = await dumped();
    const sections = sectionsOf(file);
    expect([...sections.keys()]).toEqual([
      ...['.shstrtab', '.note.Xen', '.xen_prstatus', '.xen_shared_info', '.xen_p2m', '.xen_pages'],
    ]);
    const notes = sections.get('.note.Xen')!.bytes;
    const words = new BigUint64Array(notes.slice(16 + 16, 16 + 16 + 32).buffer);
    expect([...words]).toEqual([0xf00febedn, 1n, BigInt(guest.mfns.length), 4096n]);
    const p2m = sections.get('.xen_p2m')!.bytes;
    const numbers = new BigUint64Array(p2m.slice().buffer);
    expect([...numbers]).toEqual(guest.mfns.flatMap((mfn, pfn) => [BigInt(pfn), BigInt(mfn)]));
    const pages = sections.get('.xen_pages')!.bytes;
    expect(pages.length).toBe(guest.mfns.length * 4096);
    expect(new TextDecoder().decode(pages.subarray(PAGE.data * 4096, PAGE.data * 4096 + 5))).toBe('found');
    // One of its two virtual CPUs was never started.
    expect(sections.get('.xen_prstatus')!.bytes.length).toBe(5168);
    expect(sections.get('.xen_shared_info')!.bytes.length).toBe(4096);
  });

  it('is an ELF file that others read', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'xenolith-dump-'));
    try {
      const path = join(folder, 'core');
      writeFileSync(path, (await dumped()).file);
      const text = execFileSync('readelf', ['-hS', path], { encoding: 'utf8' });
      expect(text).toMatch(/Type:\s+CORE/);
      expect(text).toContain('.xen_pages');
      expect(text).not.toMatch(/warning/i);
    } catch (error) {
      // Without binutils there is nobody to ask.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
