/**
 * Disks in qcow2 images (QEMU's docs/interop/qcow2.txt), read and written, also as overlays over another disk.
 *
 * What is written is durable after flush, and the image is whole at every moment, whenever the program is killed or
 * the power fails. Data goes to the file at once; the tables that make it reachable are kept in memory until flush,
 * which writes them in the order in which one refers to the other: counts and data, then L2 tables, then the L1
 * table, each durable before the next. So a table in the file never refers to what is not there, and what is lost
 * between two flushes is at worst space.
 */
import { inflateSync } from 'fflate';
import { decompressZstdPrefix } from '../builder/zstd.ts';
import { Mutex } from './mutex.ts';
import {
  COMPRESSED,
  COPIED,
  emptyImage,
  HEADER,
  INCOMPATIBLE,
  type NewImage,
  parseHeader,
  type Qcow2Header,
  ZERO,
} from './qcow2-format.ts';
import { bytesOf as bytesOfView, put64, Refcounts } from './qcow2-refcounts.ts';
import { type BlockSource, bytesOf, cut, DiskError, type RandomAccess } from './source.ts';

/** L2 tables kept in memory, in bytes; more are written out and dropped. */
const MAX_TABLE_BYTES = 16 << 20;

/** Opens what an image is based on; the name is as the image has it. */
export type OpenBacking = (name: string, format: string | null) => Promise<BlockSource>;

interface Table {
  offset: number;
  readonly view: DataView;
  dirty: boolean;
}

/** Where a cluster's bytes are. */
type Place =
  | { kind: 'data'; offset: number; inPlace: boolean }
  | { kind: 'zero' | 'below' }
  | { kind: 'compressed'; offset: number; length: number };

/** Part of a request: clusters that follow each other in the file too. */
interface Run {
  readonly place: Place;
  readonly start: number;
  length: number;
}

export class Qcow2Disk implements BlockSource {
  readonly size: number;
  readonly readonly: boolean;
  readonly discardGranularity: number;
  private readonly file: RandomAccess;
  private readonly header: Qcow2Header;
  private readonly below: BlockSource | null;
  private readonly cluster: number;
  private readonly l1: DataView;
  private readonly dirtyL1 = new Set<number>();
  /** By index in the L1 table; the one used longest ago first. */
  private readonly tables = new Map<number, Table>();
  private readonly loading = new Map<number, Promise<Table | null>>();
  /** null: the image is only read. */
  private readonly refcounts: Refcounts | null;
  /** Whoever changes tables. */
  private readonly mutex = new Mutex();

  private constructor(
    file: RandomAccess,
    header: Qcow2Header,
    l1: DataView,
    refcounts: Refcounts | null,
    below: BlockSource | null,
  ) {
    this.file = file;
    this.header = header;
    this.l1 = l1;
    this.refcounts = refcounts;
    this.below = below;
    this.size = header.size;
    this.readonly = refcounts === null;
    this.cluster = 2 ** header.clusterBits;
    this.discardGranularity = this.readonly ? 0 : this.cluster;
  }

  /**
   * @param openBacking opens the disk below it, if it has one
   * @throws DiskError
   */
  static async open(file: RandomAccess, openBacking: OpenBacking): Promise<Qcow2Disk> {
    const start = new Uint8Array(64 * 1024);
    const header = parseHeader(start.subarray(0, await file.read(0, [start])), file.name);
    const l1 = new Uint8Array(header.l1Entries * 8);
    if ((await file.read(header.l1Offset, [l1])) < l1.length)
      throw new DiskError(`${file.name}: the qcow2 image is cut short`);
    let refcounts: Refcounts | null = null;
    if (!file.readonly) {
      if (header.incompatible & (INCOMPATIBLE.dirty | INCOMPATIBLE.corrupt))
        throw new DiskError(
          `${file.name}: the qcow2 image was not closed or is damaged: qemu-img check -r all`,
        );
      refcounts = await Refcounts.open(file, header);
      // Whoever writes without knowing of a feature says so by clearing it.
      if (header.version === 3) await file.write(HEADER.autoclear_features, [new Uint8Array(8)]);
    }
    const { backing } = header;
    const below = backing && (await openBacking(backing.name, backing.format));
    return new Qcow2Disk(file, header, new DataView(l1.buffer), refcounts, below);
  }

  /** Makes a new image in an empty file. @throws DiskError */
  static async create(file: RandomAccess, image: NewImage): Promise<void> {
    await file.write(0, [emptyImage(image)]);
    await file.flush();
  }

  async read(offset: number, buffers: readonly Uint8Array[]): Promise<void> {
    const runs = await this.runs(offset, bytesOf(buffers), false);
    await Promise.all(runs.map((run) => this.readRun(run, cut(buffers, run.start - offset, run.length))));
  }

  async write(offset: number, buffers: readonly Uint8Array[]): Promise<void> {
    const runs = await this.runs(offset, bytesOf(buffers), true);
    await Promise.all(
      runs.map((run) => {
        const part = cut(buffers, run.start - offset, run.length);
        const { place, start } = run;
        if (place.kind === 'data' && place.inPlace)
          return this.file.write(place.offset + (start % this.cluster), part);
        return this.mutex.run(() => this.writeNew(start, part));
      }),
    );
  }

  flush(): Promise<void> {
    return this.mutex.run(() => this.writeTables());
  }

  discard(offset: number, length: number): Promise<void> {
    return this.mutex.run(async () => {
      const end =
        offset + length === this.size
          ? Math.ceil(this.size / this.cluster)
          : Math.floor((offset + length) / this.cluster);
      for (let index = Math.ceil(offset / this.cluster); index < end; index++)
        await this.discardCluster(index);
    });
  }

  async close(): Promise<void> {
    try {
      if (!this.readonly) {
        await this.flush();
        // What became free by that is counted.
        if (this.refcounts!.dirty) await this.flush();
      }
    } finally {
      await this.file.close();
      await this.below?.close();
    }
  }

  // --- Reading ---

  private async readRun({ place, start, length }: Run, buffers: readonly Uint8Array[]): Promise<void> {
    switch (place.kind) {
      case 'data': {
        const got = await this.file.read(place.offset + (start % this.cluster), buffers);
        for (const buffer of cut(buffers, got, length - got)) buffer.fill(0);
        return;
      }
      case 'compressed': {
        const bytes = await this.decompress(place.offset, place.length);
        let at = start % this.cluster;
        for (const buffer of buffers) {
          buffer.set(bytes.subarray(at, at + buffer.length));
          at += buffer.length;
        }
        return;
      }
      case 'below':
        return this.readBelow(start, buffers, length);
      case 'zero':
        for (const buffer of buffers) buffer.fill(0);
    }
  }

  /** What the disk below has; it may be shorter. */
  private async readBelow(start: number, buffers: readonly Uint8Array[], length: number): Promise<void> {
    const { below } = this;
    const there = below === null ? 0 : Math.min(Math.max(below.size - start, 0), length);
    if (there > 0) await below!.read(start, cut(buffers, 0, there));
    for (const buffer of cut(buffers, there, length - there)) buffer.fill(0);
  }

  private async decompress(offset: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    await this.file.read(offset, [bytes]);
    try {
      return this.header.compression === 'zstd'
        ? decompressZstdPrefix(bytes, this.cluster)
        : inflateSync(bytes, { out: new Uint8Array(this.cluster) });
    } catch {
      throw new DiskError(`${this.file.name}: a damaged compressed cluster`);
    }
  }

  /** A request, cut where its bytes do not follow each other. */
  private async runs(offset: number, length: number, write: boolean): Promise<Run[]> {
    const runs: Run[] = [];
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const place = await this.place(Math.floor(at / this.cluster));
      const piece = Math.min(this.cluster - (at % this.cluster), end - at);
      const last = runs.at(-1);
      if (last && joins(last, place, at, this.cluster, write)) last.length += piece;
      else runs.push({ place, start: at, length: piece });
      at += piece;
    }
    return runs;
  }

  private async place(index: number): Promise<Place> {
    const { table, slot } = await this.tableOf(index);
    if (!table) return { kind: 'below' };
    const high = table.view.getUint32(slot);
    const low = table.view.getUint32(slot + 4);
    if (high & COMPRESSED) {
      const bits = 62 - (this.header.clusterBits - 8);
      const descriptor = (BigInt(high & 0x3fff_ffff) << 32n) | BigInt(low);
      const offset = Number(BigInt.asUintN(bits, descriptor));
      const sectors = Number(descriptor >> BigInt(bits)) + 1;
      return { kind: 'compressed', offset, length: sectors * 512 - (offset % 512) };
    }
    if (low & ZERO && this.header.version === 3) return { kind: 'zero' };
    const offset = offsetOf(high, low);
    if (offset === 0) return { kind: 'below' };
    if (offset % this.cluster !== 0 || this.refcounts?.holds(offset) === false)
      throw new DiskError(`${this.file.name}: a damaged L2 table`);
    return { kind: 'data', offset, inPlace: (high & COPIED) !== 0 };
  }

  // --- Tables ---

  /** The L2 table with a cluster's entry, and where in it; null: there is none. */
  private async tableOf(index: number): Promise<{ table: Table | null; slot: number }> {
    const perTable = this.cluster / 8;
    const number = Math.floor(index / perTable);
    const slot = (index % perTable) * 8;
    const known = this.tables.get(number);
    if (known) return { table: known, slot };
    let loading = this.loading.get(number);
    if (!loading) {
      loading = this.load(number).finally(() => this.loading.delete(number));
      this.loading.set(number, loading);
    }
    return { table: await loading, slot };
  }

  private async load(number: number): Promise<Table | null> {
    const offset = offsetOf(this.l1.getUint32(number * 8), this.l1.getUint32(number * 8 + 4));
    if (offset === 0) return null;
    if (offset % this.cluster !== 0 || this.refcounts?.holds(offset) === false)
      throw new DiskError(`${this.file.name}: a damaged L1 table`);
    const view = new DataView(new ArrayBuffer(this.cluster));
    await this.file.read(offset, [bytesOfView(view)]);
    const table = { offset, view, dirty: false };
    this.tables.set(number, table);
    this.dropTables();
    return table;
  }

  /** Tables that are as in the file need not be kept. */
  private dropTables(): void {
    let over = this.tables.size - Math.max(MAX_TABLE_BYTES / this.cluster, 2);
    for (const [number, { dirty }] of this.tables) {
      if (over <= 0) return;
      if (dirty) continue;
      this.tables.delete(number);
      over--;
    }
  }

  /** The L2 table with a cluster's entry, to be changed. The mutex is held. */
  private async tableForChange(index: number): Promise<{ table: Table; slot: number }> {
    const number = Math.floor(index / (this.cluster / 8));
    const { table, slot } = await this.tableOf(index);
    const own = (this.l1.getUint32(number * 8) & COPIED) !== 0;
    if (table && own) {
      // It may have been dropped while it was waited for.
      this.tables.set(number, table);
      return { table, slot };
    }
    const offset = await this.refcounts!.allocate(1);
    const copy: Table = { offset, view: new DataView(new ArrayBuffer(this.cluster)), dirty: true };
    if (table) {
      bytesOfView(copy.view).set(bytesOfView(table.view));
      this.refcounts!.drop(table.offset);
    }
    this.tables.set(number, copy);
    put64(this.l1, number * 8, offset);
    this.l1.setUint32(number * 8, this.l1.getUint32(number * 8) | COPIED);
    this.dirtyL1.add(number);
    return { table: copy, slot };
  }

  /** The mutex is held. */
  private async writeTables(): Promise<void> {
    const { file, refcounts } = this;
    if (!refcounts) return;
    const dirty = [...this.tables.values()].filter((table) => table.dirty);
    if (refcounts.dirty) await refcounts.write();
    await file.flush();
    if (dirty.length > 0) {
      for (const table of dirty) {
        // What changes it while it is being written makes it dirty again.
        table.dirty = false;
        try {
          await file.write(table.offset, [bytesOfView(table.view)]);
        } catch (error) {
          table.dirty = true;
          throw error;
        }
      }
      await file.flush();
    }
    if (this.dirtyL1.size > 0) {
      for (const number of this.dirtyL1)
        await file.write(this.header.l1Offset + number * 8, [
          bytesOfView(this.l1).slice(number * 8, number * 8 + 8),
        ]);
      await file.flush();
      this.dirtyL1.clear();
    }
    await refcounts.settle();
  }

  // --- Writing ---

  /** Writes clusters that have no place of their own yet. The mutex is held. */
  private async writeNew(offset: number, buffers: readonly Uint8Array[]): Promise<void> {
    const { cluster } = this;
    const length = bytesOf(buffers);
    // Somebody else may have been here first.
    for (const run of await this.runs(offset, length, true)) {
      const part = cut(buffers, run.start - offset, run.length);
      const { place } = run;
      if (place.kind === 'data' && place.inPlace) {
        await this.file.write(place.offset + (run.start % cluster), part);
        continue;
      }
      const first = Math.floor(run.start / cluster);
      const end = Math.ceil((run.start + run.length) / cluster);
      const head = run.start % cluster;
      const tail = end * cluster - (run.start + run.length);
      const around = [new Uint8Array(head), new Uint8Array(tail)] as const;
      if (head > 0) await this.readOld(first * cluster, around[0]);
      if (tail > 0) await this.readOld(run.start + run.length, around[1]);
      const to = await this.refcounts!.allocate(end - first);
      await this.file.write(
        to,
        [around[0], ...part, around[1]].filter((buffer) => buffer.length > 0),
      );
      for (let index = first; index < end; index++)
        await this.setPlace(index, to + (index - first) * cluster);
    }
    if (this.dirtyTables() * cluster > MAX_TABLE_BYTES) await this.writeTables();
  }

  private async readOld(offset: number, buffer: Uint8Array): Promise<void> {
    const there = Math.min(buffer.length, Math.max(this.size - offset, 0));
    if (there > 0) await this.read(offset, [buffer.subarray(0, there)]);
  }

  private async setPlace(index: number, offset: number): Promise<void> {
    const before = await this.place(index);
    const { table, slot } = await this.tableForChange(index);
    put64(table.view, slot, offset);
    table.view.setUint32(slot, table.view.getUint32(slot) | COPIED);
    table.dirty = true;
    this.forget(before);
  }

  private async discardCluster(index: number): Promise<void> {
    const before = await this.place(index);
    if (before.kind === 'zero' || (before.kind === 'below' && this.below === null)) return;
    if (this.below !== null && this.header.version === 2) return;
    const { table, slot } = await this.tableForChange(index);
    put64(table.view, slot, this.below === null ? 0 : ZERO);
    table.dirty = true;
    this.forget(before);
  }

  /** Nothing refers any more to where a cluster was. */
  private forget(place: Place): void {
    if (place.kind === 'data') this.refcounts!.drop(place.offset);
    if (place.kind !== 'compressed') return;
    const last = place.offset + place.length - 1;
    for (let at = place.offset - (place.offset % this.cluster); at <= last; at += this.cluster)
      this.refcounts!.drop(at);
  }

  private dirtyTables(): number {
    let count = 0;
    for (const { dirty } of this.tables.values()) if (dirty) count++;
    return count;
  }
}

/** The host offset in a table's entry: bits 9 to 55. */
function offsetOf(high: number, low: number): number {
  return (high & 0x00ff_ffff) * 2 ** 32 + ((low & 0xffff_fe00) >>> 0);
}

/** Whether a cluster at `at` goes on where a run ends. */
function joins(
  { place, start, length }: Run,
  next: Place,
  at: number,
  cluster: number,
  write: boolean,
): boolean {
  if (place.kind === 'data' && next.kind === 'data') {
    if (place.inPlace !== next.inPlace) return false;
    if (write && !place.inPlace) return true;
    return next.offset === place.offset + (at - (start - (start % cluster)));
  }
  if (place.kind === 'compressed' || next.kind === 'compressed') return false;
  const isNew = (each: Place) => each.kind !== 'data';
  return write ? isNew(place) && isNew(next) : place.kind === next.kind && length > 0;
}
