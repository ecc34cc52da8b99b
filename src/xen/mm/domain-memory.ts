/**
 * A domain's memory: its frame numbers, what it owns of what is behind them, and what it is lent.
 *
 * Who may use a frame for what, and the counts that decide it, is the subject of page-tables.ts; read its head
 * first. The machine frames behind the numbers come and go in backing.ts. This file says how long a page stays:
 *
 *   - A page of the domain's own memory (*RAM*) is entered with one reference, the domain's claim on it. Giving a
 *     page back drops that claim; the frame itself is free, and its number too, when the last reference is gone
 *     (a mapping, a pin, a grant in use). Until then it counts as the domain's.
 *   - References that others hold (descriptor tables, grants, registered areas) are recorded in `holds`, so that
 *     all counts can be derived anew, which checkInvariants() does. They outlive destroy(): a frame that is still
 *     held goes when it is put, and the last one takes the tables with it.
 *   - Frames that are not the domain's (the hypervisor's, other domains') get and lose numbers here only (enter,
 *     leave); whoever has one entered keeps the machine frame.
 *
 * How all of it is taken over by another object is the subject of memory-state.ts.
 */
import type { Frames } from '../../machine/frames.ts';
import { PAGE_SHIFT, PAGE_SIZE } from '../../machine/memory.ts';
import type { PhysicalSpace, Processor } from '../../x86/processor.ts';
import type { Domain } from '../domain.ts';
import { HypercallError, RESTART } from '../hypercall.ts';
import { ERRNO } from '../public/errno.ts';
import { E820 } from '../public/memory.ts';
import { descriptorsValid } from '../segments.ts';
import type { Vcpu } from '../vcpu.ts';
import { Backing, outOfMemory } from './backing.ts';
import { ALLOCATED, FrameTable, FrameType, Kind, PINNED } from './frame-table.ts';
import { type Books, violations } from './invariants.ts';
import { FIRST_MFN, type FrameLayout, frameLayout } from './layout.ts';
import { MachineToPhys } from './machine-to-phys.ts';
import { PageTables } from './page-tables.ts';
import { SharedFrames } from './shared-frames.ts';

/** A range of the pseudo-physical memory map that the guest is told. Bytes. */
export interface MemoryMapEntry {
  readonly address: number;
  readonly length: number;
  /** public/memory.ts E820. */
  readonly type: number;
}

/** Where a domain's tables are: linear addresses. */
export interface MemoryPlaces {
  readonly frameTable: number;
  readonly machineToPhys: number;
  readonly sharedInfo: number;
}

/** How a frame of the hypervisor appears to the guest. */
export interface XenFrameAccess {
  readonly writable: boolean;
  readonly guestMappable: boolean;
}

export class DomainMemory {
  readonly space: PhysicalSpace;
  /** The most pages that the domain may own; at most those that it was created for. */
  maxPages: number;
  readonly capacity: number;
  /** shared_info's frame number and linear address. */
  readonly sharedInfoMfn: number;
  readonly sharedInfo: number;
  /** What XENMEM_memory_map answers. */
  memoryMap: readonly MemoryMapEntry[];
  readonly table: FrameTable;
  readonly pageTables: PageTables;
  readonly machineToPhys: MachineToPhys;
  readonly layout: FrameLayout;
  /** The machine frames of its own memory. */
  readonly backing: Backing;
  private readonly domain: Domain;
  private readonly frames: Frames;
  private readonly processorOf: () => Processor;
  /** References and type counts that code outside the page tables holds, by frame number. */
  private readonly holds = new Map<number, { references: number; types: number }>();
  private destroyed = false;
  private released = false;

  /**
   * @param maxPages the most pages that the domain may own, at least 1
   * @param existing the tables of a domain that is there already; null: new ones are made
   * @throws HypercallError ENOMEM
   */
  constructor(
    domain: Domain,
    frames: Frames,
    processorOf: () => Processor,
    maxPages: number,
    shared = new SharedFrames(frames),
    existing: MemoryPlaces | null = null,
  ) {
    this.domain = domain;
    this.frames = frames;
    this.processorOf = processorOf;
    this.maxPages = maxPages;
    this.capacity = maxPages;
    this.memoryMap = [{ address: 0, length: maxPages * PAGE_SIZE, type: E820.RAM }];
    this.layout = frameLayout(maxPages);
    const taken: { release(): void }[] = [];
    try {
      this.sharedInfoMfn = this.layout.ramEnd;
      this.table = new FrameTable(frames, this.layout.limit, existing?.frameTable);
      taken.push(this.table);
      this.machineToPhys = new MachineToPhys(frames, this.table, this.layout, existing?.machineToPhys);
      taken.push(this.machineToPhys);
      this.sharedInfo = existing?.sharedInfo ?? frames.alloc() * PAGE_SIZE;
      if (existing === null)
        this.table.enter(this.sharedInfoMfn, this.sharedInfo / PAGE_SIZE, Kind.xenWritable);
    } catch (error) {
      for (const part of taken) part.release();
      throw outOfMemory(error);
    }
    this.space = { frameTable: this.table.address, frameLimit: this.layout.limit };
    const { table, machineToPhys, layout, space } = this;
    this.backing = new Backing({ frames, shared, table, machineToPhys, layout, space, processorOf });
    this.pageTables = new PageTables(this.table, this.space, processorOf, {
      freed: (mfn) => this.freed(mfn),
      toOwn: (mfn) => this.backing.toOwn(mfn),
      descriptorsValid: (linear) => descriptorsValid(frames.memory, linear),
      xenSlotLow: (slot) => this.machineToPhys.slotLow(slot),
      xenSlotHigh: (slot) => this.machineToPhys.slotHigh(slot),
    });
  }

  /** Machine frames that the hypervisor needs for it, beside the domain's own. */
  get overhead(): number {
    return this.table.size + this.machineToPhys.size + 1;
  }

  /** Pages that it owns now, those included that it gave back but that are still referred to. */
  get totalPages(): number {
    return this.backing.totalPages;
  }

  /** The machine frame behind a frame number, 0 if none. @param mfn any number */
  machineFrame(mfn: number): number {
    return mfn >= 0 && mfn < this.layout.limit && !this.released ? this.table.machine[mfn]! : 0;
  }

  /** Linear address of a frame, 0 if none. @param mfn any number */
  linear(mfn: number): number {
    return this.machineFrame(mfn) * PAGE_SIZE;
  }

  /** Is it a frame of the domain's own memory? @param mfn any number */
  owns(mfn: number): boolean {
    return mfn >= FIRST_MFN && mfn < this.layout.ramEnd && this.table.kinds[mfn] === Kind.ram;
  }

  /**
   * New pages for the domain, cleared.
   * @param zeros so many of them, at the end, are a frame of zeros that the domain has in common with others
   * @param zeroFrame that frame
   * @returns their frame numbers, ascending
   * @throws HypercallError ENOMEM: more than the domain may have, or than there is; nothing is given then
   */
  populate(count: number, zeros = 0, zeroFrame = 0): number[] {
    if (count < 0 || this.totalPages + count > this.maxPages) throw new HypercallError(ERRNO.ENOMEM);
    const { backing } = this;
    backing.needFree(backing.reserved ? count : count - zeros);
    const mfns: number[] = [];
    try {
      for (let i = 0; i < count - zeros; i++) mfns.push(backing.add(backing.freeNumber()));
      while (mfns.length < count) mfns.push(backing.addShared(backing.freeNumber(), zeroFrame));
    } catch (error) {
      for (const mfn of mfns) this.pageTables.unreference(mfn);
      throw outOfMemory(error);
    }
    return mfns;
  }

  /**
   * 2^order new pages whose numbers follow each other, the first one a multiple of the count.
   * @param returning how many pages the domain is about to give back for them
   * @returns the first one's number
   * @throws HypercallError ENOMEM, as populate
   */
  populateExtent(order: number, returning = 0): number {
    const { backing } = this;
    const count = 2 ** order;
    if (this.totalPages + count > this.maxPages + returning) throw new HypercallError(ERRNO.ENOMEM);
    backing.needFree(count);
    const first =
      order === 0 ? backing.freeNumber() : this.table.findFreeRun(FIRST_MFN, this.layout.ramEnd, count);
    if (first < 0) throw new HypercallError(ERRNO.ENOMEM);
    let done = 0;
    try {
      for (; done < count; done++) backing.add(first + done);
    } catch (error) {
      while (done > 0) this.pageTables.unreference(first + --done);
      throw outOfMemory(error);
    }
    return first;
  }

  /** The domain gives up its claim on a page. @returns false if it has none (not its own, or given up before) */
  giveBack(mfn: number): boolean {
    if (!this.claims(mfn)) return false;
    this.table.states[mfn]! &= ~ALLOCATED;
    this.pageTables.unreference(mfn);
    return true;
  }

  /** Does the domain have a claim on the page? False for a page that was given back and is only still referred to. */
  claims(mfn: number): boolean {
    return this.owns(mfn) && (this.table.states[mfn]! & ALLOCATED) !== 0;
  }

  /** Is the domain's claim all that there is to the page: nothing maps it, nobody holds it? */
  exclusive(mfn: number): boolean {
    return this.claims(mfn) && this.table.references[mfn] === 1;
  }

  /**
   * A frame of the hypervisor gets a frame number in this domain. The machine frame stays the caller's.
   * @throws HypercallError ENOMEM: no numbers left
   */
  addXenFrame(machineFrame: number, { writable, guestMappable }: XenFrameAccess): number {
    return this.enter(machineFrame, xenKind(writable, guestMappable));
  }

  /**
   * Takes such a number away again.
   * @throws HypercallError EBUSY: the guest maps it
   */
  removeXenFrame(mfn: number): void {
    this.leave(mfn, (kind) => kind >= Kind.xenWritable && kind <= Kind.xenPrivate);
  }

  /**
   * Another domain's machine frame gets a frame number in this domain, for a grant mapping. Its owner has to hold
   * a reference (for a writable mapping also a count of the type writable) until unmapForeign.
   * @throws HypercallError ENOMEM: no numbers left
   */
  mapForeign(machineFrame: number, readonly: boolean): number {
    return this.enter(machineFrame, readonly ? Kind.foreignReadonly : Kind.foreignWritable);
  }

  /** @throws HypercallError EBUSY: an entry still maps it */
  unmapForeign(mfn: number): void {
    this.leave(mfn, (kind) => kind === Kind.foreignReadonly || kind === Kind.foreignWritable);
  }

  /**
   * Keeps a page of the domain's own from being freed, until putPage.
   * @throws HypercallError EINVAL: not a page of its own
   */
  getPage(mfn: number): void {
    if (!this.owns(mfn) || this.pageTables.reference(mfn) !== 0) throw new HypercallError(ERRNO.EINVAL);
    this.hold(mfn, 1, 0);
    // Whoever reads it is to see what the domain writes to it later.
    if (this.backing.toOwn(mfn)) return;
    this.putPage(mfn);
    throw new HypercallError(ERRNO.ENOMEM);
  }

  putPage(mfn: number): void {
    this.hold(mfn, -1, 0);
    this.pageTables.unreference(mfn);
    this.releaseIfUnused();
  }

  /**
   * Keeps a page of the domain's own a page of a type (a reference too), until putPageType. Whoever writes to a
   * guest's page by other means than the guest's own mappings, for longer than a moment, needs `writable`.
   * @throws HypercallError EINVAL: not a page of its own, or contents that do not fit; EBUSY: in use otherwise
   */
  getPageType(mfn: number, type: FrameType): void {
    const error = this.owns(mfn) ? this.pageTables.take(mfn, type) : -ERRNO.EINVAL;
    if (error !== 0) throw new HypercallError(error === -ERRNO.EBUSY ? ERRNO.EBUSY : ERRNO.EINVAL);
    this.hold(mfn, 1, 1);
    if (this.backing.toOwn(mfn)) return;
    this.putPageType(mfn);
    throw new HypercallError(ERRNO.ENOMEM);
  }

  putPageType(mfn: number): void {
    this.hold(mfn, -1, -1);
    this.pageTables.drop(mfn);
    this.releaseIfUnused();
  }

  /** Does somebody hold the page from outside the page tables? */
  held(mfn: number): boolean {
    return this.holds.has(mfn);
  }

  /** Domain 0 reads and writes the page by itself from now on. @throws HypercallError EINVAL: not a page of its own */
  keep(mfn: number): void {
    if (!this.owns(mfn)) throw new HypercallError(ERRNO.EINVAL);
    if (!this.backing.toOwn(mfn)) throw new HypercallError(ERRNO.ENOMEM);
    this.backing.shared.keep(this.table.machine[mfn]!);
  }

  /**
   * Is it a page that may become another frame of the same contents: one that only the domain itself can write to, by
   * mappings of its own, and that is not shared yet? @param mfn any number
   */
  shareable(mfn: number): boolean {
    if (!this.claims(mfn) || this.held(mfn)) return false;
    const { machine, typeCounts } = this.table;
    if (typeCounts[mfn] !== 0 && this.table.type(mfn) !== FrameType.writable) return false;
    const { shared } = this.backing;
    return !shared.isShared(machine[mfn]!) && !shared.isKept(machine[mfn]!);
  }

  /**
   * The guest pins a page table.
   * @returns 0; -EINVAL: pinned already, not its own, or contents that do not fit; -EBUSY: in use otherwise
   */
  pin(mfn: number, type: FrameType): number {
    if (!this.owns(mfn)) return -ERRNO.EINVAL;
    const error = this.pageTables.take(mfn, type);
    if (error !== 0) return error;
    if ((this.table.states[mfn]! & PINNED) !== 0) {
      this.pageTables.drop(mfn);
      return -ERRNO.EINVAL;
    }
    this.table.states[mfn]! |= PINNED;
    return 0;
  }

  /** @returns 0, or -EINVAL: not pinned */
  unpin(mfn: number): number {
    if (!this.owns(mfn) || (this.table.states[mfn]! & PINNED) === 0) return -ERRNO.EINVAL;
    this.table.states[mfn]! &= ~PINNED;
    this.pageTables.drop(mfn);
    return 0;
  }

  /**
   * Gives a vCPU its root tables, validated and held as long as they are loaded, and loads them.
   * @param userMfn 0: none
   * @throws HypercallError EINVAL or EBUSY as getPageType; the old roots stay then
   */
  loadRoots(vcpu: Vcpu, kernelMfn: number, userMfn: number): void {
    const { kernelRoot, userRoot } = vcpu;
    if (kernelMfn !== kernelRoot) this.takeRoot(kernelMfn);
    if (userMfn !== userRoot && userMfn !== 0) {
      try {
        this.takeRoot(userMfn);
      } catch (error) {
        if (kernelMfn !== kernelRoot) this.pageTables.drop(kernelMfn);
        throw error;
      }
    }
    vcpu.kernelRoot = kernelMfn;
    vcpu.userRoot = userMfn;
    this.processorOf().loadRoots(vcpu.cpu, kernelMfn, userMfn);
    if (kernelRoot !== 0 && kernelMfn !== kernelRoot) this.pageTables.drop(kernelRoot);
    if (userRoot !== 0 && userMfn !== userRoot) this.pageTables.drop(userRoot);
  }

  /** A vCPU that will not run again (or starts anew) lets go of its root tables. */
  dropRoots(vcpu: Vcpu): void {
    const { kernelRoot, userRoot } = vcpu;
    vcpu.kernelRoot = 0;
    vcpu.userRoot = 0;
    this.processorOf().loadRoots(vcpu.cpu, 0, 0);
    if (kernelRoot !== 0) this.pageTables.drop(kernelRoot);
    if (userRoot !== 0) this.pageTables.drop(userRoot);
  }

  /** The hypervisor wrote to a page of the domain's. */
  wrote(mfn: number): void {
    this.processorOf().written(this.table.machine[mfn]!);
  }

  /** Pseudo-physical number of a frame as the guest set it, -1 if none. */
  m2p(mfn: number): number {
    return this.machineToPhys.get(mfn);
  }

  /** @param mfn of a frame of the domain's own; others are left as they are @param pfn -1: none */
  setM2p(mfn: number, pfn: number): void {
    if (!this.owns(mfn)) return;
    if (pfn < 0) this.machineToPhys.set(mfn, 0xffffffff, 0xffffffff);
    else this.machineToPhys.set(mfn, pfn >>> 0, Math.floor(pfn / 2 ** 32));
  }

  /** Everything that is wrong with the types and counts, worked out from the tables themselves. */
  checkInvariants(): string[] {
    if (this.destroyed) return [];
    const books: Books = {
      table: this.table,
      holds: this.holds,
      roots: this.domain.vcpus.flatMap((vcpu) => [vcpu.kernelRoot, vcpu.userRoot]).filter((mfn) => mfn !== 0),
      pending: this.pageTables.held,
      totalPages: this.totalPages,
      ramEnd: this.layout.ramEnd,
      isShared: (frame) => this.backing.shared.isShared(frame),
      xenSlotLow: (slot) => this.machineToPhys.slotLow(slot),
      xenSlotHigh: (slot) => this.machineToPhys.slotHigh(slot),
    };
    return violations(books);
  }

  /**
   * Ends the domain's memory: no vCPU of it runs again. Frames that others still hold follow when they are put.
   * The page tables are not taken apart: with the domain all that they held is gone, and so is every TLB of it.
   */
  destroy(): void {
    if (this.destroyed) return;
    this.destroyed = true;
    for (const vcpu of this.domain.vcpus) {
      vcpu.kernelRoot = 0;
      vcpu.userRoot = 0;
    }
    this.processorOf().tablesChanged(this.space);
    const { kinds } = this.table;
    for (let mfn = FIRST_MFN; mfn < this.layout.ramEnd; mfn++) {
      if (kinds[mfn] !== Kind.ram) continue;
      if (this.held(mfn)) this.scrapFrame(mfn);
      else this.backing.release(mfn);
    }
    this.releaseIfUnused();
  }

  // --- For who takes it over (memory-state.ts) ---

  get places(): MemoryPlaces {
    const { table, machineToPhys, sharedInfo } = this;
    return { frameTable: table.address, machineToPhys: machineToPhys.address, sharedInfo };
  }

  /**
   * A frame of the hypervisor's is behind a number that is known already, with its counts.
   * @throws HypercallError EINVAL: it is not a number for one
   */
  adoptXenFrame(mfn: number, machineFrame: number, { writable, guestMappable }: XenFrameAccess): void {
    const { table, layout } = this;
    const free = table.kinds[mfn] === Kind.none || table.machine[mfn] === machineFrame;
    if (!(mfn >= layout.ramEnd && mfn < layout.xenEnd && free)) throw new HypercallError(ERRNO.EINVAL);
    table.kinds[mfn] = xenKind(writable, guestMappable);
    table.machine[mfn] = machineFrame;
  }

  /**
   * A page is held from now on whose counts say so already.
   * @param type the type that it is held as; null: as any
   * @throws HypercallError EINVAL: it cannot be
   */
  adoptHold(mfn: number, type: FrameType | null): void {
    const { table } = this;
    const held = table.references[mfn]! > 0 && this.owns(mfn);
    if (!held || (type !== null && (table.typeCounts[mfn] === 0 || table.type(mfn) !== type)))
      throw new HypercallError(ERRNO.EINVAL, `page ${mfn} is not in use as that`);
    this.hold(mfn, 1, type === null ? 0 : 1);
  }

  /** Nothing that the tables say is to be relied on: only what is held outside of them still counts. */
  scrap(): void {
    const { kinds } = this.table;
    for (let mfn = FIRST_MFN; mfn < this.layout.ramEnd; mfn++)
      if (kinds[mfn] === Kind.ram) this.scrapFrame(mfn);
  }

  /** Leaves everything where it is, for another hypervisor that takes it over. Nothing may use this object then. */
  abandon(): void {
    this.backing.abandon();
    this.destroyed = true;
    this.released = true;
  }

  /**
   * Whether a domain that was taken over is what its tables say: its types, counts, and the contents that they
   * promise. Slow. @returns what is wrong, one line each
   */
  check(): string[] {
    const { table, pageTables } = this;
    const wrong = this.checkInvariants();
    if (!pageTables.recountLinear()) wrong.push('page tables that name each other');
    for (let mfn = FIRST_MFN; mfn < this.layout.ramEnd; mfn++) {
      if (table.typeCounts[mfn] === 0 || table.type(mfn) !== FrameType.segdesc) continue;
      if (!descriptorsValid(table.memory, table.machine[mfn]! * PAGE_SIZE))
        wrong.push(`frame ${mfn}: descriptors that a guest may not have`);
    }
    return wrong;
  }

  // --- Within ---

  /** Only those who hold a frame know it, and what it is now is nobody's page table: no later drop goes through it. */
  private scrapFrame(mfn: number): void {
    const hold = this.holds.get(mfn);
    this.table.references[mfn] = hold?.references ?? 0;
    this.table.typeCounts[mfn] = hold?.types ?? 0;
    this.table.states[mfn] = FrameType.writable;
  }

  /** A frame of the domain's own has lost its last reference, while the domain goes on. */
  private freed(mfn: number): void {
    this.processorOf().released(this.table.machine[mfn]!);
    this.backing.release(mfn);
  }

  private enter(machineFrame: number, kind: Kind): number {
    const mfn = this.table.findFree(this.layout.ramEnd, this.layout.xenEnd);
    if (mfn < 0) throw new HypercallError(ERRNO.ENOMEM);
    this.table.enter(mfn, machineFrame, kind);
    return mfn;
  }

  private leave(mfn: number, expected: (kind: number) => boolean): void {
    const { kinds, references } = this.table;
    if (mfn < this.layout.ramEnd || mfn >= this.layout.xenEnd || !expected(kinds[mfn]!))
      throw new HypercallError(ERRNO.EINVAL);
    if (references[mfn] !== 1) throw new HypercallError(ERRNO.EBUSY);
    this.table.clear(mfn);
  }

  private takeRoot(mfn: number): void {
    const error = this.owns(mfn) ? this.pageTables.take(mfn, FrameType.l4) : -ERRNO.EINVAL;
    if (error === RESTART) throw new HypercallError(ERRNO.ERESTART);
    if (error !== 0) throw new HypercallError(error === -ERRNO.EBUSY ? ERRNO.EBUSY : ERRNO.EINVAL);
  }

  private hold(mfn: number, references: number, types: number): void {
    const hold = this.holds.get(mfn) ?? { references: 0, types: 0 };
    hold.references += references;
    hold.types += types;
    if (hold.references < 0 || hold.types < 0)
      throw new RangeError(`frame ${mfn} was put more often than got`);
    if (hold.references === 0) this.holds.delete(mfn);
    else this.holds.set(mfn, hold);
  }

  private releaseIfUnused(): void {
    if (!this.destroyed || this.released || this.totalPages !== 0) return;
    this.released = true;
    this.frames.release(this.sharedInfo >>> PAGE_SHIFT);
    this.machineToPhys.release();
    this.table.release();
  }
}

function xenKind(writable: boolean, guestMappable: boolean): Kind {
  return !guestMappable ? Kind.xenPrivate : writable ? Kind.xenWritable : Kind.xenReadonly;
}
