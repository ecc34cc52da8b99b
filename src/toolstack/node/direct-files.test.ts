import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { Memory } from '../../machine/memory.ts';
import { DiskFile } from '../devices/file.ts';
import { directFiles } from './direct-files.ts';

const folder = mkdtempSync(join(tmpdir(), 'direct-files-'));
afterAll(() => rmSync(folder, { recursive: true }));
const path = join(folder, 'file');
const bytes = Uint8Array.from({ length: 1 << 16 }, (_, at) => (at * 13 + (at >> 9)) & 0xff);

/** The file, opened as a disk, and what a processor's thread does with its descriptor. */
async function opened(readonly = false) {
  writeFileSync(path, bytes);
  const file = await DiskFile.open(path, readonly);
  const memory = Memory.create(1 << 20);
  return { file, memory, files: directFiles(memory), descriptor: file.handOut()! };
}

describe('a file that is handed out', () => {
  it('is read into pages, and written from them, wherever they lie', async () => {
    const { file, memory, files, descriptor } = await opened();
    expect(descriptor).toBeTypeOf('number');
    expect(files.read(descriptor, 4096, [0x9000, 4096])).toBe(true);
    expect(memory.u8.subarray(0x9000, 0xa000)).toEqual(bytes.subarray(4096, 8192));
    expect(files.read(descriptor, 512, [0x4200, 512, 0x3000, 4096, 0x8000, 1024])).toBe(true);
    expect(memory.u8.slice(0x4200, 0x4400)).toEqual(bytes.slice(512, 1024));
    expect(memory.u8.slice(0x3000, 0x4000)).toEqual(bytes.slice(1024, 5120));
    expect(memory.u8.slice(0x8000, 0x8400)).toEqual(bytes.slice(5120, 6144));
    memory.u8.fill(0x55, 0x3000, 0x3200);
    memory.u8.fill(0x66, 0x7000, 0x7200);
    expect(files.write(descriptor, 1024, [0x3000, 512, 0x7000, 512])).toBe(true);
    expect(files.write(descriptor, 8192, [0x7000, 512])).toBe(true);
    await file.flush();
    const now = readFileSync(path);
    expect([1023, 1024, 1535, 1536, 2047, 2048, 8192].map((at) => now[at])).toEqual([
      bytes[1023],
      0x55,
      0x55,
      0x66,
      0x66,
      bytes[2048],
      0x66,
    ]);
    await file.close();
  });

  it('that ends too soon, or cannot be written, says so and throws nothing', async () => {
    const { file, files, descriptor } = await opened(true);
    expect(files.write(descriptor, 0, [0x3000, 512])).toBe(false);
    expect(files.write(descriptor, 0, [0x3000, 512, 0x5000, 512])).toBe(false);
    truncateSync(path, 5000);
    expect(files.read(descriptor, 4096, [0x3000, 4096])).toBe(false);
    expect(files.read(descriptor, 4096, [0x3000, 512, 0x5000, 512])).toBe(false);
    expect(files.read(descriptor, 4096, [0x3000, 512])).toBe(true);
    await file.close();
    expect(files.read(descriptor, 0, [0x3000, 512])).toBe(false);
  });
});
