/**
 * The reference counts of a qcow2 image's clusters, and which of them are free. Changes are kept in memory until
 * {@link write}. A count in the file is never lower than the references to the cluster in the file, at any moment:
 * clusters are counted before anything refers to them, and one reference less is counted only when the tables that
 * do not refer to it any more are durable ({@link settle}). So a crash loses at worst space.
 */
import { HEADER, type Qcow2Header } from './qcow2-format.ts';
import { DiskError, type RandomAccess } from './source.ts';

interface Block {
  readonly offset: number;
  readonly view: DataView;
  dirty: boolean;
}

export class Refcounts {
  private readonly file: RandomAccess;
  private readonly header: Qcow2Header;
  private readonly cluster: number;
  private readonly perBlock: number;
  private table: DataView;
  private readonly blocks = new Map<number, Block>();
  private readonly dirtyEntries = new Set<number>();
  /** The table moved: the header has to say so. */
  private moved = false;
  /** No cluster from this one on is in use. */
  private end: number;
  /** Clusters that became free, the last one first. */
  private free: number[] = [];
  /** No so many of them follow each other. */
  private noRunOf = Number.POSITIVE_INFINITY;
  /** Clusters with one reference less, once that is durable. */
  private dropped: number[] = [];

  private constructor(file: RandomAccess, header: Qcow2Header, table: DataView, end: number) {
    this.file = file;
    this.header = header;
    this.cluster = 2 ** header.clusterBits;
    this.perBlock = (this.cluster * 8) / 2 ** header.refcountOrder;
    this.table = table;
    this.end = end;
  }

  /** @throws DiskError */
  static async open(file: RandomAccess, header: Qcow2Header): Promise<Refcounts> {
    const cluster = 2 ** header.clusterBits;
    const bytes = new Uint8Array(header.refcountTableClusters * cluster);
    if ((await file.read(header.refcountTableOffset, [bytes])) < bytes.length)
      throw new DiskError(`${file.name}: the qcow2 image is cut short`);
    const end = Math.ceil((await file.size()) / cluster);
    const self = new Refcounts(file, header, new DataView(bytes.buffer), end);
    await self.findEnd();
    return self;
  }

  get dirty(): boolean {
    return this.moved || this.dirtyEntries.size > 0 || [...this.blocks.values()].some(({ dirty }) => dirty);
  }

  /** The image has a cluster at an offset: in its file, or counted. What a damaged table names may be anywhere. */
  holds(offset: number): boolean {
    return offset < this.end * this.cluster;
  }

  /** Clusters that follow each other, counted once each. @returns offset of the first */
  async allocate(count: number): Promise<number> {
    let first = this.freeRun(count);
    if (first < 0) {
      first = this.end;
      this.end += count;
    }
    for (let index = first; index < first + count; index++) await this.set(index, 1);
    return first * this.cluster;
  }

  /** One reference less to the cluster at an offset: as soon as the tables say so in the file too. */
  drop(offset: number): void {
    this.dropped.push(Math.floor(offset / this.cluster));
  }

  /** All tables are durable as they are now: what was dropped before is counted, and free if nobody else has it. */
  async settle(): Promise<void> {
    const dropped = this.dropped;
    this.dropped = [];
    for (const index of dropped) {
      const count = await this.get(index);
      if (count <= 0) throw new DiskError(`${this.file.name}: damaged reference counts`);
      await this.set(index, count - 1);
      if (count === 1) this.free.push(index);
    }
    if (dropped.length === 0) return;
    this.free.sort((a, b) => b - a);
    this.noRunOf = Number.POSITIVE_INFINITY;
  }

  /** Takes free clusters that follow each other. @returns the first; -1: there are not so many */
  private freeRun(count: number): number {
    const { free } = this;
    if (count >= this.noRunOf) return -1;
    let run = 0;
    for (let at = free.length - 1; at >= 0; at--) {
      run = run > 0 && free[at] === free[at + 1]! + 1 ? run + 1 : 1;
      if (run < count) continue;
      const first = free[at]! - count + 1;
      free.splice(at, count);
      return first;
    }
    this.noRunOf = count;
    return -1;
  }

  /** Writes what changed. Not durable before the next flush of the file. */
  async write(): Promise<void> {
    for (const block of this.blocks.values()) {
      if (!block.dirty) continue;
      block.dirty = false;
      await this.writing(block, () => this.file.write(block.offset, [bytesOf(block.view)]));
    }
    if (this.moved) {
      // The new table is in place before the header names it.
      await this.file.write(this.header.refcountTableOffset, [bytesOf(this.table)]);
      await this.file.flush();
      const header = new DataView(new ArrayBuffer(12));
      put64(header, 0, this.header.refcountTableOffset);
      header.setUint32(8, this.header.refcountTableClusters);
      await this.file.write(HEADER.refcount_table_offset, [bytesOf(header)]);
      this.moved = false;
      this.dirtyEntries.clear();
    }
    // A block is in place before the table names it.
    if (this.dirtyEntries.size > 0) await this.file.flush();
    for (const index of this.dirtyEntries) {
      await this.file.write(this.header.refcountTableOffset + index * 8, [
        bytesOf(this.table).slice(index * 8, index * 8 + 8),
      ]);
      this.dirtyEntries.delete(index);
    }
  }

  private async writing(block: Block, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      block.dirty = true;
      throw error;
    }
  }

  /** Images can have clusters in use beyond the end of their file. */
  private async findEnd(): Promise<void> {
    for (let index = this.table.byteLength / 8 - 1; index >= 0; index--) {
      if (get64(this.table, index * 8) === 0) continue;
      const first = index * this.perBlock;
      if (first + this.perBlock <= this.end) return;
      for (let at = this.perBlock - 1; at >= 0 && first + at >= this.end; at--) {
        if ((await this.get(first + at)) === 0) continue;
        this.end = first + at + 1;
        return;
      }
    }
  }

  private async get(index: number): Promise<number> {
    const block = await this.block(Math.floor(index / this.perBlock), false);
    return block ? this.read(block.view, index % this.perBlock) : 0;
  }

  private async set(index: number, count: number): Promise<void> {
    const block = (await this.block(Math.floor(index / this.perBlock), true))!;
    this.store(block.view, index % this.perBlock, count);
    block.dirty = true;
  }

  /** @param create makes it if there is none */
  private async block(number: number, create: boolean): Promise<Block | null> {
    const known = this.blocks.get(number);
    if (known) return known;
    const offset = number < this.table.byteLength / 8 ? get64(this.table, number * 8) : 0;
    if (offset === 0) return create ? this.addBlock(number) : null;
    if (offset % this.cluster !== 0 || !this.holds(offset))
      throw new DiskError(`${this.file.name}: damaged reference counts`);
    const view = new DataView(new ArrayBuffer(this.cluster));
    await this.file.read(offset, [bytesOf(view)]);
    const block = { offset, view, dirty: false };
    this.blocks.set(number, block);
    return block;
  }

  private async addBlock(number: number): Promise<Block> {
    if (number >= this.table.byteLength / 8) await this.growTable(number + 1);
    const index = this.end++;
    const block = {
      offset: index * this.cluster,
      view: new DataView(new ArrayBuffer(this.cluster)),
      dirty: true,
    };
    this.blocks.set(number, block);
    put64(this.table, number * 8, block.offset);
    this.dirtyEntries.add(number);
    await this.set(index, 1);
    return block;
  }

  private async growTable(entries: number): Promise<void> {
    const before = { offset: this.header.refcountTableOffset, clusters: this.header.refcountTableClusters };
    const clusters = Math.max(Math.ceil((entries * 8) / this.cluster), before.clusters * 2);
    const table = new DataView(new ArrayBuffer(clusters * this.cluster));
    bytesOf(table).set(bytesOf(this.table));
    const first = this.end;
    this.end += clusters;
    this.table = table;
    this.header.refcountTableOffset = first * this.cluster;
    this.header.refcountTableClusters = clusters;
    this.moved = true;
    for (let index = 0; index < clusters; index++) await this.set(first + index, 1);
    for (let index = 0; index < before.clusters; index++) this.drop(before.offset + index * this.cluster);
  }

  private read(view: DataView, index: number): number {
    const { refcountOrder: order } = this.header;
    switch (order) {
      case 3:
        return view.getUint8(index);
      case 4:
        return view.getUint16(index * 2);
      case 5:
        return view.getUint32(index * 4);
      case 6:
        return get64(view, index * 8);
      default: {
        const bits = 2 ** order;
        const at = index * bits;
        return (view.getUint8(at >>> 3) >>> (at & 7)) & (2 ** bits - 1);
      }
    }
  }

  private store(view: DataView, index: number, count: number): void {
    const { refcountOrder: order } = this.header;
    switch (order) {
      case 3:
        view.setUint8(index, count);
        break;
      case 4:
        view.setUint16(index * 2, count);
        break;
      case 5:
        view.setUint32(index * 4, count);
        break;
      case 6:
        put64(view, index * 8, count);
        break;
      default: {
        const bits = 2 ** order;
        const at = index * bits;
        const mask = (2 ** bits - 1) << (at & 7);
        view.setUint8(at >>> 3, (view.getUint8(at >>> 3) & ~mask) | ((count << (at & 7)) & mask));
      }
    }
  }
}

export function bytesOf(view: DataView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

export function get64(view: DataView, at: number): number {
  return view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);
}

export function put64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / 2 ** 32));
  view.setUint32(at + 4, value >>> 0);
}
