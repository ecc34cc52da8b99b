/** qcow2 against QEMU's own tool where there is one, and against a copy in memory always. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { MemoryOverlay } from './memory-overlay.ts';
import { Qcow2Disk } from './qcow2.ts';
import { HEADER } from './qcow2-format.ts';
import { type BlockSource, bytesOf, DiskError, MemorySource, type RandomAccess } from './source.ts';

/** A file in memory that knows what is durable. */
class TestFile implements RandomAccess {
  readonly name = 'test';
  readonly readonly: boolean;
  bytes: Uint8Array;
  /** Writes since the last flush: a power failure keeps any of them. */
  pending: { offset: number; bytes: Uint8Array }[] = [];
  durable: Uint8Array;
  failing = false;

  constructor(bytes: Uint8Array = new Uint8Array(0), readonly = false) {
    this.bytes = bytes;
    this.durable = bytes.slice();
    this.readonly = readonly;
  }

  async size(): Promise<number> {
    return this.bytes.length;
  }

  async read(offset: number, buffers: readonly Uint8Array[]): Promise<number> {
    let at = offset;
    for (const buffer of buffers) {
      const part = this.bytes.subarray(at, at + buffer.length);
      buffer.set(part);
      at += part.length;
      if (part.length < buffer.length) break;
    }
    return at - offset;
  }

  async write(offset: number, buffers: readonly Uint8Array[]): Promise<void> {
    if (this.failing) throw new Error('no space left');
    let at = offset;
    for (const buffer of buffers) {
      this.bytes = put(this.bytes, at, buffer);
      this.pending.push({ offset: at, bytes: buffer.slice() });
      at += buffer.length;
    }
  }

  async flush(): Promise<void> {
    if (this.failing) throw new Error('no space left');
    for (const { offset, bytes } of this.pending) this.durable = put(this.durable, offset, bytes);
    this.pending = [];
  }

  async close(): Promise<void> {}

  /** What the file is after a power failure: any of the last writes, in any order, may have made it. */
  afterCrash(keep: (index: number) => boolean): TestFile {
    let bytes: Uint8Array = this.durable.slice();
    for (const [index, write] of this.pending.entries())
      if (keep(index)) bytes = put(bytes, write.offset, write.bytes);
    return new TestFile(bytes);
  }
}

function put(bytes: Uint8Array, offset: number, part: Uint8Array): Uint8Array {
  let to: Uint8Array = bytes;
  if (offset + part.length > bytes.length) {
    to = new Uint8Array(offset + part.length);
    to.set(bytes);
  }
  to.set(part, offset);
  return to;
}

const none = () => Promise.reject(new DiskError('there is nothing below'));
const SECTOR = 512;

async function image(size: number, clusterBits: number, below: BlockSource | null = null) {
  const file = new TestFile();
  const backing = below && { name: 'below', format: 'raw' };
  await Qcow2Disk.create(file, { size, backing, clusterBits });
  return { file, disk: await Qcow2Disk.open(file, below ? async () => below : none) };
}

async function contents(disk: BlockSource): Promise<Uint8Array> {
  const all = new Uint8Array(disk.size);
  await disk.read(0, [all]);
  return all;
}

function pattern(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, at) => (at * 7 + seed * 31 + (at >> 8)) & 0xff);
}

const hasQemu = spawnSync('qemu-img', ['--version']).error === undefined;
const folder = mkdtempSync(join(tmpdir(), 'qcow2-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** QEMU finds nothing wrong, and no space lost if that is asked for. */
function checked(bytes: Uint8Array, leaksAllowed = false): void {
  if (!hasQemu) return;
  const path = join(folder, 'check');
  writeFileSync(join(folder, 'below'), new Uint8Array(1024));
  writeFileSync(path, bytes);
  const { status, stdout, stderr } = spawnSync('qemu-img', ['check', '-U', '-f', 'qcow2', path], {
    encoding: 'utf8',
  });
  // 3: leaked clusters only.
  if (leaksAllowed && status === 3) return;
  expect(`${stdout}${stderr}`).toContain('No errors');
  expect(status).toBe(0);
}

type Step = { kind: 'write' | 'discard' | 'flush' | 'reopen'; at: number; count: number; seed: number };
const SECTORS = 256;
const steps = (max: number): fc.Arbitrary<Step[]> =>
  fc.array(
    fc.record({
      kind: fc.constantFrom('write', 'write', 'write', 'discard', 'flush', 'reopen'),
      at: fc.nat(SECTORS - 1),
      count: fc.integer({ min: 1, max: 40 }),
      seed: fc.nat(255),
    }) as fc.Arbitrary<Step>,
    { maxLength: max },
  );

describe('a qcow2 disk', () => {
  it.each([9, 12, 16])('holds what is written, with clusters of 2^%d bytes', async (bits) => {
    await fc.assert(
      fc.asyncProperty(steps(40), fc.boolean(), async (list, layered) => {
        const below = layered ? new MemorySource(SECTORS * SECTOR - 1024) : null;
        if (below) below.close = async () => {};
        await below?.write(0, [pattern(below.size, 3)]);
        const model = new Uint8Array(SECTORS * SECTOR);
        if (below) model.set(await contents(below));
        let { file, disk } = await image(model.length, bits, below);
        for (const { kind, at, count, seed } of list) {
          const length = Math.min(count, SECTORS - at) * SECTOR;
          if (kind === 'write') {
            const bytes = pattern(length, seed);
            await disk.write(at * SECTOR, [bytes.subarray(0, SECTOR), bytes.subarray(SECTOR)]);
            model.set(bytes, at * SECTOR);
          } else if (kind === 'discard') {
            await disk.discard(at * SECTOR, length);
            const cluster = 2 ** bits;
            const first = Math.ceil((at * SECTOR) / cluster) * cluster;
            const end = at * SECTOR + length;
            const last = end === model.length ? end : Math.floor(end / cluster) * cluster;
            if (last > first) model.fill(0, first, last);
          } else if (kind === 'flush') await disk.flush();
          else {
            await disk.close();
            file = new TestFile(file.bytes);
            disk = await Qcow2Disk.open(file, below ? async () => below : none);
          }
        }
        expect(Buffer.from(await contents(disk)).equals(Buffer.from(model))).toBe(true);
        await disk.close();
        checked(file.bytes);
      }),
      { numRuns: hasQemu ? 25 : 60 },
    );
  });

  it('loses nothing that was flushed, whatever is lost of the rest', async () => {
    await fc.assert(
      fc.asyncProperty(steps(25), fc.infiniteStream(fc.boolean()), async (list, luck) => {
        const { file, disk } = await image(SECTORS * SECTOR, 9);
        let flushed: Uint8Array = new Uint8Array(SECTORS * SECTOR);
        const model = flushed.slice();
        /** Sectors written or discarded since: nobody was promised anything of them. */
        const open = new Set<number>();
        for (const { kind, at, count, seed } of list) {
          const sectors = Math.min(count, SECTORS - at);
          if (kind === 'flush' || kind === 'reopen') {
            await disk.flush();
            flushed = model.slice();
            open.clear();
            continue;
          }
          if (kind === 'write') {
            const bytes = pattern(sectors * SECTOR, seed);
            await disk.write(at * SECTOR, [bytes]);
            model.set(bytes, at * SECTOR);
          } else {
            await disk.discard(at * SECTOR, sectors * SECTOR);
            model.fill(0, at * SECTOR, (at + sectors) * SECTOR);
          }
          for (let sector = at; sector < at + sectors; sector++) open.add(sector);
        }
        const crashed = file.afterCrash(() => luck.next().value);
        checked(crashed.bytes, true);
        const after = await contents(await Qcow2Disk.open(crashed, none));
        for (let sector = 0; sector < SECTORS; sector++) {
          if (open.has(sector)) continue;
          const part = (bytes: Uint8Array) =>
            Buffer.from(bytes.subarray(sector * SECTOR, (sector + 1) * SECTOR));
          expect(part(after).equals(part(flushed))).toBe(true);
        }
      }),
      { numRuns: hasQemu ? 30 : 80 },
    );
  });

  it('is written by many at once', async () => {
    const { file, disk } = await image(1 << 20, 12);
    const model = new Uint8Array(1 << 20);
    const work: Promise<void>[] = [];
    for (let index = 0; index < 400; index++) {
      const at = (index * 2654435761) % 2000;
      const bytes = pattern(SECTOR, index);
      // No two touch the same sector.
      if (model[at * SECTOR + 1] !== 0) continue;
      model.set(bytes, at * SECTOR);
      work.push(disk.write(at * SECTOR, [bytes]));
      if (index % 50 === 0) work.push(disk.flush());
    }
    await Promise.all(work);
    expect(Buffer.from(await contents(disk)).equals(Buffer.from(model))).toBe(true);
    await disk.close();
    checked(file.bytes);
  });

  it('uses again what was discarded', async () => {
    const { file, disk } = await image(1 << 20, 12);
    for (let round = 0; round < 20; round++) {
      await disk.write(0, [pattern(64 << 10, round)]);
      await disk.flush();
      await disk.discard(0, 64 << 10);
      await disk.flush();
    }
    await disk.close();
    expect(file.bytes.length).toBeLessThan(400 << 10);
    checked(file.bytes);
  });

  it('tells of a medium that is full, and goes on when it is not', async () => {
    const { file, disk } = await image(1 << 20, 12);
    await disk.write(0, [pattern(8192, 1)]);
    file.failing = true;
    await expect(disk.write(8192, [pattern(8192, 2)])).rejects.toThrow(/no space/);
    await expect(disk.flush()).rejects.toThrow(/no space/);
    file.failing = false;
    await disk.write(8192, [pattern(8192, 2)]);
    await disk.close();
    const again = await Qcow2Disk.open(new TestFile(file.bytes), none);
    expect((await contents(again)).slice(0, 16384)).toEqual(
      Uint8Array.from([...pattern(8192, 1), ...pattern(8192, 2)]),
    );
    checked(file.bytes, true);
  });
});

describe('a damaged image', () => {
  let good: Uint8Array;
  beforeEach(async () => {
    const { file, disk } = await image(1 << 20, 9);
    await disk.write(0, [pattern(64 << 10, 9)]);
    await disk.close();
    good = file.bytes;
  });

  it.each<[string, number, number]>([
    ['magic', HEADER.magic, 0],
    ['version', HEADER.version, 9],
    ['cluster bits', HEADER.cluster_bits, 31],
    ['encryption', HEADER.crypt_method, 1],
    ['L1 size', HEADER.l1_size, 0xffffffff],
    ['L1 offset', HEADER.l1_table_offset + 4, 13],
    ['counts', HEADER.refcount_table_clusters, 0],
    ['size', HEADER.size, 0xffffffff],
    ['refcount order', HEADER.refcount_order, 7],
    ['features', HEADER.incompatible_features + 4, 64],
  ])('is refused: %s', async (_, at, value) => {
    const bytes = good.slice();
    new DataView(bytes.buffer).setUint32(at, value);
    await expect(Qcow2Disk.open(new TestFile(bytes), none)).rejects.toThrow(DiskError);
  });

  it('never does more than fail, whatever is in it', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 30 }),
        async (changes) => {
          const bytes = good.slice();
          for (const [at, value] of changes) bytes[at] = value;
          try {
            const disk = await Qcow2Disk.open(new TestFile(bytes), none);
            await contents(disk);
            await disk.write(0, [pattern(4096, 1)]);
            await disk.close();
          } catch (error) {
            expect(error).toBeInstanceOf(DiskError);
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe.skipIf(!hasQemu)("QEMU's images", () => {
  const qemu = (...args: string[]) => execFileSync('qemu-img', args, { stdio: 'pipe' });
  const raw = join(folder, 'raw');
  const converted = join(folder, 'converted');
  const bytes = pattern(1 << 20, 5).fill(0, 100_000, 400_000);

  it.each([
    ['plain', []],
    ['compressed', ['-c']],
    ['compressed by zstd', ['-c', '-o', 'compression_type=zstd']],
    ['compressed by zstd, small clusters', ['-c', '-o', 'compression_type=zstd,cluster_size=4k']],
    ['version 2', ['-o', 'compat=0.10']],
    ['small clusters', ['-o', 'cluster_size=512']],
    ['large clusters', ['-o', 'cluster_size=2M']],
    ['counts of 1 bit', ['-o', 'refcount_bits=1']],
    ['counts of 64 bits', ['-o', 'refcount_bits=64']],
    ['preallocated', ['-o', 'preallocation=metadata']],
  ])('are read and written: %s', async (_, options) => {
    writeFileSync(raw, bytes);
    qemu('convert', '-f', 'raw', '-O', 'qcow2', ...options, raw, converted);
    const file = new TestFile(new Uint8Array(readFileSync(converted)));
    const disk = await Qcow2Disk.open(file, none);
    expect(Buffer.from(await contents(disk)).equals(Buffer.from(bytes))).toBe(true);
    const model = bytes.slice();
    for (const [at, count, seed] of [
      [3, 1, 1],
      [200, 300, 2],
      [1900, 148, 3],
    ] as const) {
      await disk.write(at * SECTOR, [pattern(count * SECTOR, seed)]);
      model.set(pattern(count * SECTOR, seed), at * SECTOR);
    }
    await disk.close();
    checked(file.bytes);
    writeFileSync(converted, file.bytes);
    writeFileSync(raw, model);
    expect(qemu('compare', '-f', 'raw', '-F', 'qcow2', raw, converted).toString()).toContain('identical');
  });

  it('with snapshots in them keep those', async () => {
    writeFileSync(raw, bytes);
    qemu('convert', '-f', 'raw', '-O', 'qcow2', raw, converted);
    qemu('snapshot', '-c', 'before', converted);
    const file = new TestFile(new Uint8Array(readFileSync(converted)));
    const disk = await Qcow2Disk.open(file, none);
    await disk.write(0, [pattern(200 << 10, 77)]);
    await disk.close();
    checked(file.bytes);
    writeFileSync(converted, file.bytes);
    qemu('snapshot', '-a', 'before', converted);
    expect(qemu('compare', '-f', 'raw', '-F', 'qcow2', raw, converted).toString()).toContain('identical');
  });
});

describe('an overlay in memory', () => {
  it('holds what is written and leaves the disk below alone', async () => {
    await fc.assert(
      fc.asyncProperty(steps(30), async (list) => {
        const below = new MemorySource(SECTORS * SECTOR);
        const before = pattern(below.size, 8);
        await below.write(0, [before]);
        const model = before.slice();
        const disk = new MemoryOverlay(below);
        for (const { kind, at, count, seed } of list) {
          if (kind !== 'write') continue;
          const bytes = pattern(Math.min(count, SECTORS - at) * SECTOR, seed);
          await disk.write(at * SECTOR, [bytes.subarray(0, 100), bytes.subarray(100)]);
          model.set(bytes, at * SECTOR);
        }
        const halves = [new Uint8Array(1536), new Uint8Array(disk.size - 1536)];
        expect(bytesOf(halves)).toBe(disk.size);
        await disk.read(0, halves);
        expect(Buffer.concat(halves).equals(Buffer.from(model))).toBe(true);
        expect(Buffer.from(await contents(below)).equals(Buffer.from(before))).toBe(true);
      }),
      { numRuns: 60 },
    );
  });
});
