/**
 * The machine frames behind the pages of a domain: where they come from and go to.
 *
 * They enter and leave a domain here only (add, addShared, substitute, toOwn, forkFrom; release):
 *
 *   - Free machine frames hold nothing of anybody: they are cleared when they are given back.
 *   - Some are shared with other domains, copy-on-write. What keeps them from being written to is the subject of
 *     shared-frames.ts.
 *   - For a page that is shared although nobody forked the domain, a free frame is promised, if the domain has a
 *     right to its memory. The promise ends with the sharing, or with the page.
 *
 * How long a page stays is decided by claims and references: see domain-memory.ts.
 */
import { type Frames, OutOfFrames } from '../../machine/frames.ts';
import { type Memory, PAGE_SIZE } from '../../machine/memory.ts';
import type { PhysicalSpace, Processor } from '../../x86/processor.ts';
import { HypercallError } from '../hypercall.ts';
import { ERRNO } from '../public/errno.ts';
import { type FrameTable, Kind } from './frame-table.ts';
import { FIRST_MFN, type FrameLayout } from './layout.ts';
import type { MachineToPhys } from './machine-to-phys.ts';
import { freeFrame, type SharedFrames } from './shared-frames.ts';

/** What it works with: of the machine, and of the domain. */
export interface BackingParts {
  readonly frames: Frames;
  readonly shared: SharedFrames;
  readonly table: FrameTable;
  readonly machineToPhys: MachineToPhys;
  readonly layout: FrameLayout;
  readonly space: PhysicalSpace;
  /** The processor that the domain is on. */
  readonly processorOf: () => Processor;
}

export class Backing {
  readonly shared: SharedFrames;
  /**
   * It has a right to its memory: a free frame is promised for each page that is shared with others although nobody
   * forked it. (One that has not ends when it writes to a shared page and nothing is left.)
   */
  reserved = false;
  /** Pages that the domain owns now, those included that it gave back but that are still referred to. */
  totalPages = 0;
  /** Where the search for a free number begins. */
  nextFree = FIRST_MFN;
  private readonly frames: Frames;
  private readonly table: FrameTable;
  private readonly machineToPhys: MachineToPhys;
  private readonly layout: FrameLayout;
  private readonly space: PhysicalSpace;
  private readonly processorOf: () => Processor;
  /** By frame number: a frame is promised for it. Null: for none so far. */
  private promises: Uint8Array | null = null;
  private promised = 0;

  constructor({ frames, shared, table, machineToPhys, layout, space, processorOf }: BackingParts) {
    this.frames = frames;
    this.shared = shared;
    this.table = table;
    this.machineToPhys = machineToPhys;
    this.layout = layout;
    this.space = space;
    this.processorOf = processorOf;
  }

  /** @throws HypercallError ENOMEM: not so many frames are free that are promised to nobody */
  needFree(count: number): void {
    if (this.available < count) throw new HypercallError(ERRNO.ENOMEM);
  }

  /** The lowest free number for a page of RAM. The caller has checked that the domain may have one. */
  freeNumber(): number {
    let mfn = this.table.findFree(this.nextFree, this.layout.ramEnd);
    if (mfn < 0) mfn = this.table.findFree(FIRST_MFN, this.layout.ramEnd);
    if (mfn < 0) throw new HypercallError(ERRNO.ENOMEM);
    this.nextFree = mfn + 1;
    return mfn;
  }

  /** A new page under a free number. @returns the number @throws OutOfFrames */
  add(mfn: number): number {
    this.table.enter(mfn, this.frames.alloc(), Kind.ram);
    this.totalPages++;
    return mfn;
  }

  /** A page whose frame others have too. @returns its number */
  addShared(mfn: number, machineFrame: number): number {
    this.shared.add(machineFrame);
    this.table.enter(mfn, machineFrame, Kind.ram);
    this.totalPages++;
    this.promise(mfn);
    return mfn;
  }

  /**
   * Puts a frame of the same contents, that is shared from now on, behind a number.
   * @param mfn of a shareable page (DomainMemory.shareable), of which no TLB has anything
   */
  substitute(mfn: number, machineFrame: number): void {
    const { machine } = this.table;
    const old = machine[mfn]!;
    this.shared.add(machineFrame);
    machine[mfn] = machineFrame;
    this.promise(mfn);
    this.processorOf().released(old);
    if (!this.shared.drop(old)) this.freeFrame(old);
  }

  /**
   * Makes sure that a page of the domain's is shared with nobody, by a copy of its own if need be.
   * @returns false: no memory for the copy
   */
  toOwn(mfn: number): boolean {
    const machineFrame = this.table.machine[mfn]!;
    const processor = this.processorOf();
    if (!this.shared.isShared(machineFrame)) {
      processor.unshare(machineFrame);
      this.keepPromise(mfn);
      return true;
    }
    if (!this.promises?.[mfn] && this.available < 1) return false;
    let copy: number;
    try {
      copy = this.frames.alloc();
    } catch (error) {
      if (error instanceof OutOfFrames) return false;
      throw error;
    }
    copyFrame(this.table.memory, machineFrame, copy);
    this.table.machine[mfn] = copy;
    this.keepPromise(mfn);
    processor.replaced(this.space, machineFrame);
    // The other owners may have let go of it meanwhile, on their processors: then nobody else frees it.
    if (!this.shared.drop(machineFrame)) this.freeFrame(machineFrame);
    return true;
  }

  /**
   * Takes over the rows of another domain's frame table, and its pages behind the same numbers: shared with it, or
   * copied. How many there are is left to the caller to set, who has nothing here yet.
   * @param copied is it a page that cannot be shared?
   * @throws HypercallError ENOMEM, and nothing has changed
   */
  forkFrom(parent: Backing, copied: (mfn: number) => boolean): void {
    const { table } = this;
    const from = parent.table;
    const ram: number[] = [];
    let count = 0;
    for (let mfn = FIRST_MFN; mfn < this.layout.ramEnd; mfn++) {
      if (from.kinds[mfn] !== Kind.ram) continue;
      ram.push(mfn);
      if (copied(mfn)) count++;
    }
    this.needFree(count);
    // Before anything says that there is a page: another processor may be faster to take what is free.
    const copies = this.someFrames(count);
    for (const row of ['references', 'typeCounts', 'kinds', 'states'] as const) table[row].set(from[row]);
    const shared: number[] = [];
    for (const mfn of ram) {
      const machineFrame = from.machine[mfn]!;
      if (!copied(mfn)) {
        this.shared.add(machineFrame);
        shared.push(machineFrame);
        table.machine[mfn] = machineFrame;
        continue;
      }
      const copy = copies.pop()!;
      copyFrame(table.memory, machineFrame, copy);
      table.machine[mfn] = copy;
    }
    this.processorOf().share(parent.space, shared);
  }

  /**
   * The processor is another one: what it knows of the frames is from before, if anything, and it learns which are
   * shared.
   */
  adoptShared(): void {
    const { kinds, machine } = this.table;
    const processor = this.processorOf();
    const shared: number[] = [];
    for (let mfn = FIRST_MFN; mfn < this.layout.limit; mfn++) {
      if (kinds[mfn] === Kind.none) continue;
      const machineFrame = machine[mfn]!;
      if (kinds[mfn] === Kind.ram && this.shared.isShared(machineFrame)) {
        // Other domains there may have it too.
        processor.written(machineFrame);
        shared.push(machineFrame);
        this.promise(mfn);
      } else {
        processor.released(machineFrame);
        processor.unshare(machineFrame);
      }
    }
    if (shared.length > 0) processor.share(this.space, shared);
  }

  /** The page is no more: its number is free, and its frame too if nobody else has it. */
  release(mfn: number): void {
    const machineFrame = this.table.machine[mfn]!;
    this.keepPromise(mfn);
    this.table.clear(mfn);
    this.machineToPhys.set(mfn, 0xffffffff, 0xffffffff);
    this.totalPages--;
    if (mfn < this.nextFree) this.nextFree = mfn;
    if (!this.shared.drop(machineFrame)) this.freeFrame(machineFrame);
  }

  /** Leaves the promises to another object that makes them anew. */
  abandon(): void {
    this.shared.promise(-this.promised);
  }

  /** Free frames that are not promised to domains. */
  private get available(): number {
    return this.frames.free - this.shared.promised;
  }

  private promise(mfn: number): void {
    if (!this.reserved) return;
    this.promises ??= new Uint8Array(this.layout.ramEnd);
    if (this.promises[mfn]) return;
    this.promises[mfn] = 1;
    this.promised++;
    this.shared.promise(1);
  }

  /** The page has a frame of its own, or there is no such page any more. */
  private keepPromise(mfn: number): void {
    if (!this.promises?.[mfn]) return;
    this.promises[mfn] = 0;
    this.promised--;
    this.shared.promise(-1);
  }

  /** @throws HypercallError ENOMEM, and none was taken */
  private someFrames(count: number): number[] {
    const taken: number[] = [];
    try {
      while (taken.length < count) taken.push(this.frames.alloc());
    } catch (error) {
      for (const frame of taken) this.frames.release(frame);
      throw outOfMemory(error);
    }
    return taken;
  }

  private freeFrame(machineFrame: number): void {
    freeFrame(this.frames, this.processorOf(), machineFrame);
  }
}

export function copyFrame({ u8 }: Memory, from: number, to: number): void {
  u8.copyWithin(to * PAGE_SIZE, from * PAGE_SIZE, (from + 1) * PAGE_SIZE);
}

/** As the errno that a caller of the hypervisor gets. */
export function outOfMemory(error: unknown): unknown {
  return error instanceof OutOfFrames ? new HypercallError(ERRNO.ENOMEM) : error;
}
