/**
 * Page types and counts: what makes direct page tables safe (the paper, section 3.3).
 *
 * A guest's page tables are what the processor walks; nothing stands between. Isolation therefore rests on one
 * statement, true after every operation:
 *
 *     whatever a walk from a loaded root can reach, the guest may reach.
 *
 * It is kept by giving each frame at most one *type* at a time, and by counting who relies on it:
 *
 *   - As an L1..L4 table a frame was checked entry by entry when it became one (*promotion*), and from then on
 *     changes only through update() here, which checks the entry that is written. Each present entry holds a
 *     reference on the frame it names and, for a table below, a count of that table's type. So a tree of tables is
 *     held from its root, and the checks of a frame are done once however many tables name it.
 *   - A writable mapping holds a count of the type *writable*. A frame has one type, so no frame is ever table and
 *     writable at once: a guest that wants a table must first drop each writable mapping of it, and reads the
 *     table through read-only mappings as it likes.
 *   - Frames of segment descriptors are a type of the same sort (their contents are checked by segments.ts).
 *   - A type can change only at count zero; then the promise it stood for has no holder left. Stale TLB entries would be
 *     holders too, so there are none: with each entry that is replaced the processor forgets what its TLBs have
 *     through it, at once, whether the guest asks for that or not (forget; the rules are in x86/core/tlb-pool.ts).
 *   - The other count, *references*, is everybody who knows the frame, whatever for (read-only mappings too). A
 *     frame without references is free; the domain's own claim on its memory is one reference.
 *   - A *pin* is a count of the type and a reference that the guest asked for, so that a table stays one while no
 *     table names it.
 *
 * What fails half-way is undone to the entry: a refused promotion leaves all counts as they were.
 *
 * Linear page tables: an entry may name a table of its own level (the classic trick to see the tables at a fixed
 * virtual address), but only read-only, since a walk then takes a table's entries for those of the level below.
 * An entry for the very table it is in holds nothing. One for another table of the level holds both counts; such
 * references are never chained (a table that others name so may itself name none), so they form no cycle.
 *
 * One promotion can be as much work as the domain has memory, and so can the end of one. `work` counts the entries
 * looked at; past a limit a promotion ends with RESTART, and tables below one that is dropped are dropped later. No
 * work is lost by that: a table that had been checked keeps its counts, which are no longer (or not yet) those of an
 * entry but of the list of what is pending. Who takes it then has no work; settle() lets go of them.
 */
import { PAGE_SHIFT } from '../../machine/memory.ts';
import type { PhysicalSpace, Processor } from '../../x86/processor.ts';
import { RESTART } from '../hypercall.ts';
import { ERRNO } from '../public/errno.ts';
import { PTE, PTE_HIGH, PTES, XEN_END_SLOT, XEN_FIRST_SLOT } from '../public/mmu.ts';
import { COUNT_MAX, type FrameTable, FrameType, Kind, TYPE_MASK, VALIDATED } from './frame-table.ts';

const { EBUSY, EINVAL, EPERM } = ERRNO;
const { PRESENT, RW, PSE } = PTE;
const AD = PTE.ACCESSED | PTE.DIRTY;
/** Of an entry that a walk may have passed: walks set the A bit. */
const WALKED = PRESENT | PTE.ACCESSED;
/** u32 words of a frame. */
const WORDS = 1024;
/** What letting go of a table that others hold counts for. */
const SETTLE_WORK = 8;

/** What the page tables need to know of the domain that they are part of. */
export interface PageTableOwner {
  /** A frame lost its last reference. */
  freed(mfn: number): void;
  /** A frame is about to be something that only its domain may see: it is not to be shared. False: no memory. */
  toOwn(mfn: number): boolean;
  /** Are all descriptors of a frame such that a guest may have them? @param linear address of the frame */
  descriptorsValid(linear: number): boolean;
  /** The two halves of what a slot of the hypervisor's in every L4 table holds. */
  xenSlotLow(slot: number): number;
  xenSlotHigh(slot: number): number;
}

export class PageTables {
  /** Entries looked at so far. */
  work = 0;
  /** What of it is done before the others get their turn. */
  private limit = Number.POSITIVE_INFINITY;
  /** Tables with a count of their type and a reference each, by the vCPU whose call it was; and those of this call. */
  private readonly pendingOf = new Map<number, number[]>();
  private pending: number[] = [];
  private readonly table: FrameTable;
  private readonly space: PhysicalSpace;
  private readonly processor: () => Processor;
  private readonly owner: PageTableOwner;
  private readonly u32: Uint32Array;
  /**
   * For tables with linear references to or from others: how many others name it (positive), or how many of its
   * entries name others (negative).
   */
  private readonly linear = new Map<number, number>();

  constructor(table: FrameTable, space: PhysicalSpace, processor: () => Processor, owner: PageTableOwner) {
    this.table = table;
    this.space = space;
    this.processor = processor;
    this.owner = owner;
    this.u32 = table.memory.u32;
  }

  /** Takes over what is known of the tables of a domain of which this one is a copy. */
  copyFrom(other: PageTables): void {
    for (const [mfn, count] of other.linear) this.linear.set(mfn, count);
  }

  /**
   * Works out which tables name others of their level, from the tables themselves.
   * @returns false: a table both names others and is named
   */
  recountLinear(): boolean {
    const { limit, kinds, states, typeCounts, machine } = this.table;
    const { u32 } = this;
    const naming = new Set<number>();
    const named = new Set<number>();
    this.linear.clear();
    for (let mfn = 0; mfn < limit; mfn++) {
      const level = states[mfn]! & TYPE_MASK;
      if (kinds[mfn] !== Kind.ram || typeCounts[mfn] === 0) continue;
      if (level < FrameType.l2 || level > FrameType.l4) continue;
      const at = machine[mfn]! * WORDS;
      for (let i = 0; i < PTES; i++) {
        const low = u32[at + i * 2]!;
        if ((low & PRESENT) === 0 || (level === FrameType.l4 && i >= XEN_FIRST_SLOT && i < XEN_END_SLOT))
          continue;
        const target = this.frameOf(low, u32[at + i * 2 + 1]!);
        if (target === mfn || target >= limit || (states[target]! & TYPE_MASK) !== level) continue;
        naming.add(mfn);
        named.add(target);
        this.countLinear(mfn, -1);
        this.countLinear(target, 1);
      }
    }
    return ![...naming].some((mfn) => named.has(mfn));
  }

  /**
   * What a vCPU has done pauses after so much work, until {@link end}. @param vcpu its number
   * @returns the work so far at which it will
   */
  begin(vcpu: number, work: number): number {
    let pending = this.pendingOf.get(vcpu);
    if (pending === undefined) {
      pending = [];
      this.pendingOf.set(vcpu, pending);
    }
    this.pending = pending;
    this.limit = this.work + work;
    return this.limit;
  }

  end(): void {
    this.limit = Number.POSITIVE_INFINITY;
  }

  /** Lets go of what this vCPU's calls that paused still hold. @returns false: there is more of it than the limit */
  settle(): boolean {
    const { pending } = this;
    while (pending.length > 0) {
      if (this.work > this.limit) return false;
      this.work += SETTLE_WORK;
      this.drop(pending.pop()!);
    }
    return true;
  }

  /** Lets go of all that is pending, for as long as it takes. */
  settleAll(): void {
    for (const pending of this.pendingOf.values()) {
      this.pending = pending;
      this.settle();
    }
  }

  /** Tables that are held by calls that paused. */
  get held(): number[] {
    return [...this.pendingOf.values()].flat();
  }

  /** The frame number in an entry; one at or above the table's limit where there is no such frame. */
  frameOf(low: number, high: number): number {
    const top = high & PTE_HIGH.FRAME;
    return top > 0xff ? this.table.limit : (top << 20) | (low >>> PAGE_SHIFT);
  }

  /** Takes a reference. @param mfn of a frame that exists @returns 0 or -errno */
  reference(mfn: number): number {
    const { references } = this.table;
    const count = references[mfn]!;
    if (count === 0 || count >= COUNT_MAX) return -EINVAL;
    references[mfn] = count + 1;
    return 0;
  }

  /** Drops a reference; the last one frees the frame. */
  unreference(mfn: number): void {
    const { references } = this.table;
    const count = references[mfn]! - 1;
    references[mfn] = count;
    if (count === 0) this.owner.freed(mfn);
  }

  /**
   * Takes a count of a type, promoting the frame if it has no type in use.
   * @param mfn of a frame that exists
   * @returns 0; -EBUSY: in use as another type; -EINVAL: its contents do not fit the type, or it can never have it;
   *   RESTART: that was more work than the limit, to be tried again
   */
  takeType(mfn: number, type: FrameType): number {
    const { typeCounts, states, kinds } = this.table;
    const count = typeCounts[mfn]!;
    const state = states[mfn]!;
    const old = state & TYPE_MASK;
    if (count !== 0) {
      if (old !== type) return -EBUSY;
      if ((state & VALIDATED) === 0 || count >= COUNT_MAX) return -EINVAL;
      typeCounts[mfn] = count + 1;
      return 0;
    }
    const kind = kinds[mfn]!;
    if (kind !== Kind.ram && !(kind === Kind.xenWritable && type === FrameType.writable)) return -EINVAL;
    if (type === FrameType.writable) {
      this.beginWritable(mfn);
      return 0;
    }
    if (!this.owner.toOwn(mfn)) return -EINVAL;
    if (old === FrameType.writable) this.processor().released(this.table.machine[mfn]!);
    // While it is being checked it has its type, but not VALIDATED: entries in it that want it writable fail.
    states[mfn] = (state & ~(TYPE_MASK | VALIDATED)) | type;
    typeCounts[mfn] = 1;
    const error = this.promote(mfn, type);
    if (error !== 0) {
      typeCounts[mfn] = 0;
      return error;
    }
    states[mfn]! |= VALIDATED;
    return 0;
  }

  /** Drops a count of a frame's type; with the last one the frame stops being of it. */
  dropType(mfn: number): void {
    const { typeCounts, states } = this.table;
    const count = typeCounts[mfn]! - 1;
    if (count !== 0) {
      typeCounts[mfn] = count;
      return;
    }
    const type = states[mfn]! & TYPE_MASK;
    // Entries are dropped while the frame still has its type, so that a linear entry for itself is known as such.
    if (type <= FrameType.l4 && type !== FrameType.none) this.demote(mfn, type);
    states[mfn]! &= ~VALIDATED;
    typeCounts[mfn] = 0;
  }

  /** Both counts. @returns 0 or -errno, and then nothing is held */
  take(mfn: number, type: FrameType): number {
    let error = this.reference(mfn);
    if (error !== 0) return error;
    error = this.takeType(mfn, type);
    if (error !== 0) this.unreference(mfn);
    return error;
  }

  drop(mfn: number): void {
    this.dropType(mfn);
    this.unreference(mfn);
  }

  /**
   * Writes an entry of a page table, if it may be what it is to be.
   * @param mfn of a frame in use as a table (typeCounts > 0, VALIDATED)
   * @param preserve keeps the A and D bits that the entry has
   * @param grant the entry may name another domain's frame
   */
  update(mfn: number, index: number, low: number, high: number, preserve = false, grant = false): number {
    const { u32 } = this;
    const level = this.table.states[mfn]! & TYPE_MASK;
    const at = this.table.machine[mfn]! * WORDS + index * 2;
    const oldLow = u32[at]!;
    const oldHigh = u32[at + 1]!;
    if (level === FrameType.l4 && index >= XEN_FIRST_SLOT && index < XEN_END_SLOT) return -EINVAL;
    if (preserve && (low & PRESENT) !== 0) low = (low | (oldLow & AD)) >>> 0;
    const old = (oldLow & PRESENT) !== 0;
    const known = (oldLow & WALKED) === WALKED && (low !== oldLow || high !== oldHigh);
    if ((low & PRESENT) === 0) {
      this.write(at, low, high);
      if (known) this.forget(at, level, oldLow, oldHigh);
      if (old) this.dropEntry(mfn, level, oldLow, oldHigh);
    } else if (old && samePage(low, high, oldLow, oldHigh)) {
      if (level !== FrameType.l1 && (low & PSE) !== 0) return -EINVAL;
      this.write(at, low, high);
      if (known) this.forget(at, level, oldLow, oldHigh);
    } else {
      const error =
        level === FrameType.l1 ? this.takeL1(low, high, grant) : this.takeTable(mfn, level, low, high);
      if (error !== 0) return error;
      this.write(at, low, high);
      if (known) this.forget(at, level, oldLow, oldHigh);
      if (old) this.dropEntry(mfn, level, oldLow, oldHigh);
    }
    this.processor().written(at >>> 10);
    return 0;
  }

  /**
   * An entry that walks may have passed was replaced: TLBs forget what they have through it, before anything that
   * it held is let go.
   */
  private forget(at: number, level: number, oldLow: number, oldHigh: number): void {
    this.processor().entryChanged(at * 4);
    if (level === FrameType.l1) return;
    const below = this.table.machine[this.frameOf(oldLow, oldHigh)]! * WORDS;
    const { u32 } = this;
    this.work += PTES;
    for (let i = below; i < below + WORDS; i += 2) {
      if ((u32[i]! & WALKED) !== WALKED) continue;
      this.processor().tablesChanged(this.space);
      return;
    }
  }

  private write(at: number, low: number, high: number): void {
    this.u32[at] = low;
    this.u32[at + 1] = high;
  }

  private beginWritable(mfn: number): void {
    const { typeCounts, states } = this.table;
    states[mfn] = (states[mfn]! & ~TYPE_MASK) | FrameType.writable | VALIDATED;
    typeCounts[mfn] = 1;
  }

  /** Checks all of a frame for a type, and takes what its entries hold. */
  private promote(mfn: number, type: number): number {
    const frame = this.table.machine[mfn]!;
    this.work += PTES;
    if (type === FrameType.l1) return this.promoteL1(frame);
    if (type === FrameType.segdesc)
      return this.owner.descriptorsValid((frame << PAGE_SHIFT) >>> 0) ? 0 : -EINVAL;
    const { u32 } = this;
    const at = frame * WORDS;
    for (let i = 0; i < PTES; i++) {
      if (type === FrameType.l4 && i === XEN_FIRST_SLOT) i = XEN_END_SLOT;
      const low = u32[at + i * 2]!;
      if ((low & PRESENT) === 0) continue;
      const error = this.work > this.limit ? RESTART : this.takeTable(mfn, type, low, u32[at + i * 2 + 1]!);
      if (error === 0) continue;
      this.dropEntries(mfn, type, i);
      return error;
    }
    if (type === FrameType.l4) {
      for (let slot = XEN_FIRST_SLOT; slot < XEN_END_SLOT; slot++)
        this.write(at + slot * 2, this.owner.xenSlotLow(slot), this.owner.xenSlotHigh(slot));
      this.processor().written(frame);
    }
    return 0;
  }

  private promoteL1(frame: number): number {
    const { u32 } = this;
    const start = frame * WORDS;
    const end = start + WORDS;
    for (let at = start; at < end; at += 2) {
      const low = u32[at]!;
      if ((low & PRESENT) === 0) continue;
      const error = this.takeL1(low, u32[at + 1]!, false);
      if (error === 0) continue;
      for (let undo = start; undo < at; undo += 2)
        if ((u32[undo]! & PRESENT) !== 0) this.dropL1(u32[undo]!, u32[undo + 1]!);
      return error;
    }
    return 0;
  }

  /** The frame stops being a table: drops what its entries hold. */
  private demote(mfn: number, level: number): void {
    this.work += PTES;
    if (level === FrameType.l4) this.processor().rootDropped(this.space, mfn);
    this.dropEntries(mfn, level, PTES);
  }

  /** Drops what the first `count` entries of a table hold. */
  private dropEntries(mfn: number, level: number, count: number): void {
    const { u32 } = this;
    const at = this.table.machine[mfn]! * WORDS;
    for (let i = 0; i < count; i++) {
      if (level === FrameType.l4 && i === XEN_FIRST_SLOT) i = XEN_END_SLOT;
      if (i >= count) break;
      const low = u32[at + i * 2]!;
      if ((low & PRESENT) !== 0) this.dropEntry(mfn, level, low, u32[at + i * 2 + 1]!);
    }
  }

  private dropEntry(mfn: number, level: number, low: number, high: number): void {
    if (level === FrameType.l1) this.dropL1(low, high);
    else this.dropTable(mfn, level, low, high);
  }

  /** What a present L1 entry holds: a reference, and the type writable if it maps the page so. */
  private takeL1(low: number, high: number, grant: boolean): number {
    const { limit, kinds, states, typeCounts, references } = this.table;
    const mfn = this.frameOf(low, high);
    if (mfn >= limit) return -EPERM;
    const kind = kinds[mfn]!;
    if (kind !== Kind.ram) {
      if (kind === Kind.none) return -EPERM;
      if (kind === Kind.xenPrivate) return -EINVAL;
      if ((kind === Kind.foreignWritable || kind === Kind.foreignReadonly) && !grant) return -EINVAL;
      if ((low & RW) !== 0 && (kind === Kind.xenReadonly || kind === Kind.foreignReadonly)) return -EINVAL;
    }
    const count = references[mfn]!;
    if (count >= COUNT_MAX) return -EBUSY;
    if ((low & RW) !== 0) {
      const types = typeCounts[mfn]!;
      if (types === 0) this.beginWritable(mfn);
      else if ((states[mfn]! & TYPE_MASK) !== FrameType.writable || types >= COUNT_MAX) return -EBUSY;
      else typeCounts[mfn] = types + 1;
    }
    references[mfn] = count + 1;
    return 0;
  }

  private dropL1(low: number, high: number): void {
    const mfn = this.frameOf(low, high);
    if ((low & RW) !== 0) this.dropType(mfn);
    this.unreference(mfn);
  }

  /** What a present entry of an L2, L3 or L4 table holds: a table of the level below, with both counts. */
  private takeTable(table: number, level: number, low: number, high: number): number {
    const { limit, kinds, states, typeCounts } = this.table;
    if ((low & PSE) !== 0) return -EINVAL;
    const mfn = this.frameOf(low, high);
    if (mfn >= limit || kinds[mfn] !== Kind.ram) return -EINVAL;
    if (typeCounts[mfn] !== 0 && (states[mfn]! & TYPE_MASK) === level)
      return this.takeLinear(table, mfn, low);
    const error = this.take(mfn, (level - 1) as FrameType);
    return error === 0 || error === RESTART ? error : -EINVAL;
  }

  private dropTable(table: number, level: number, low: number, high: number): void {
    const mfn = this.frameOf(low, high);
    const { states, typeCounts } = this.table;
    if ((states[mfn]! & TYPE_MASK) !== level) {
      if (this.work > this.limit && typeCounts[mfn] === 1) this.pending.push(mfn);
      else this.drop(mfn);
    } else if (mfn !== table) {
      this.countLinear(table, 1);
      this.countLinear(mfn, -1);
      this.drop(mfn);
    }
  }

  private takeLinear(table: number, mfn: number, low: number): number {
    if ((low & RW) !== 0) return -EINVAL;
    if (mfn === table) return 0;
    if ((this.linear.get(table) ?? 0) > 0 || (this.linear.get(mfn) ?? 0) < 0) return -EINVAL;
    const error = this.take(mfn, (this.table.states[mfn]! & TYPE_MASK) as FrameType);
    if (error !== 0) return error;
    this.countLinear(table, -1);
    this.countLinear(mfn, 1);
    return 0;
  }

  private countLinear(mfn: number, by: number): void {
    const count = (this.linear.get(mfn) ?? 0) + by;
    if (count === 0) this.linear.delete(mfn);
    else this.linear.set(mfn, count);
  }
}

/** The entries name the same page with the same right to write: neither count differs between them. */
function samePage(low: number, high: number, oldLow: number, oldHigh: number): boolean {
  const LOW = 0xfffff000 | RW;
  return ((low ^ oldLow) & LOW) === 0 && ((high ^ oldHigh) & PTE_HIGH.FRAME) === 0;
}
