/**
 * The frames of a domain's grant table, and its entries in both versions.
 *
 * Version 1 has entries of 8 bytes with the status bits (reading, writing) among the flags; version 2 has entries
 * of 16 bytes and the status bits in frames of their own. The guest writes entries at any time, on another
 * processor too: what is decided here is decided on one value of the header, and the status bits are set only if
 * the header is still that value.
 */
import { OutOfFrames } from '../machine/frames.ts';
import { type Memory, PAGE_SIZE } from '../machine/memory.ts';
import type { Domain } from './domain.ts';
import { HypercallError } from './hypercall.ts';
import { ERRNO } from './public/errno.ts';
import {
  GNTTAB_NR_RESERVED_ENTRIES,
  GRANT_ENTRY_V1,
  GRANT_ENTRY_V2,
  GRANT_STATUS_SIZE,
  GTF,
} from './public/grant_table.ts';

export type GrantVersion = 1 | 2;

const STATUS_PER_FRAME = PAGE_SIZE / GRANT_STATUS_SIZE;
const STATUS = GTF.reading | GTF.writing;

/** How often an entry that its owner keeps changing is looked at again. */
const ATTEMPTS = 4;

/** An entry as it was at one moment. */
export interface GrantEntry {
  /** Without the status bits. */
  flags: number;
  domid: number;
  /** Of a full page or a part of one. */
  frame: number;
  /** The part of the page, bytes. */
  offset: number;
  length: number;
  /** Of a transitive entry. */
  transDomid: number;
  transRef: number;
}

/** The frames as plain data (domain-state.ts): the guest's numbers for them. */
export interface GrantFramesState {
  readonly version: GrantVersion;
  readonly shared: readonly number[];
  readonly status: readonly number[];
}

/** Where they are: linear addresses. */
export interface GrantPlaces {
  readonly shared: readonly number[];
  readonly status: readonly number[];
}

const TABLE_ACCESS = { writable: true, guestMappable: true } as const;

/** A frame of the table: the machine's, and the guest's number for it. */
interface TableFrame {
  machineFrame: number;
  mfn: number;
}

export class GrantFrames {
  version: GrantVersion = 1;
  private readonly domain: Domain;
  private readonly shared: TableFrame[] = [];
  private readonly status: TableFrame[] = [];

  constructor(domain: Domain) {
    this.domain = domain;
  }

  /** Frames of entries, and of status words. */
  get count(): number {
    return this.shared.length;
  }

  get statusCount(): number {
    return this.status.length;
  }

  /** How many entries there are. */
  get entries(): number {
    return this.shared.length * (PAGE_SIZE / this.entrySize);
  }

  /** Frame numbers by which the guest maps the table. */
  mfns(count: number): number[] {
    return this.shared.slice(0, count).map((frame) => frame.mfn);
  }

  statusMfns(count: number): number[] {
    return this.status.slice(0, count).map((frame) => frame.mfn);
  }

  /** Makes the table at least so many frames large. @returns false: no memory; it is smaller then */
  grow(count: number): boolean {
    return extend(this.domain, this.shared, count) && this.growStatus();
  }

  /**
   * Changes the version: the reserved entries stay, all others are cleared.
   * @returns false: a reserved entry has no meaning in version 1, or there is no memory; nothing is changed then
   */
  changeVersion(version: GrantVersion): boolean {
    if (version === this.version) return true;
    const reserved = Array.from({ length: Math.min(GNTTAB_NR_RESERVED_ENTRIES, this.entries) }, (_, ref) =>
      this.read(ref),
    );
    const convertible = reserved.every(
      ({ flags, frame }) =>
        (flags & GTF.type_mask) === GTF.invalid ||
        ((flags & GTF.type_mask) === GTF.permit_access && (flags & GTF.sub_page) === 0 && frame < 2 ** 32),
    );
    if (version === 1 && !convertible) return false;
    this.version = version;
    if (!this.growStatus()) {
      this.version = 1;
      return false;
    }
    for (const { machineFrame } of this.shared) this.memory.frame(machineFrame).fill(0);
    if (version === 1) for (const { machineFrame } of this.status) this.memory.frame(machineFrame).fill(0);
    for (const [ref, entry] of reserved.entries()) this.write(ref, entry);
    return true;
  }

  state(): GrantFramesState {
    const mfns = (list: readonly TableFrame[]) => list.map(({ mfn }) => mfn);
    return { version: this.version, shared: mfns(this.shared), status: mfns(this.status) };
  }

  /** Linear addresses of the frames. */
  get places(): GrantPlaces {
    const addresses = (list: readonly TableFrame[]) =>
      list.map(({ machineFrame }) => machineFrame * PAGE_SIZE);
    return { shared: addresses(this.shared), status: addresses(this.status) };
  }

  /**
   * Becomes such a table, for a domain whose counts know it already, or will.
   * @param source frames to take over, or to copy; null: new ones, cleared
   * @throws OutOfFrames; HypercallError EINVAL: what cannot be
   */
  setState(
    { version, shared, status }: GrantFramesState,
    source: { take: GrantPlaces } | { copy: GrantPlaces } | null,
  ): void {
    const { domain } = this;
    const { frames } = domain.hypervisor;
    if (shared.length > domain.grants.maxFrames) throw new HypercallError(ERRNO.EINVAL);
    this.version = version;
    const places = source === null ? null : 'take' in source ? source.take : source.copy;
    const take = source !== null && 'take' in source;
    for (const [mfns, list, from] of [
      [shared, this.shared, places?.shared],
      [status, this.status, places?.status],
    ] as const)
      for (const [index, mfn] of mfns.entries()) {
        const machineFrame = take ? from![index]! / PAGE_SIZE : frames.alloc();
        if (from !== undefined && !take)
          this.memory.u8.copyWithin(machineFrame * PAGE_SIZE, from[index]!, from[index]! + PAGE_SIZE);
        // From here on it goes with the table.
        list.push({ machineFrame, mfn });
        domain.memory.adoptXenFrame(mfn, machineFrame, TABLE_ACCESS);
      }
    if (version === 2 && this.status.length < Math.ceil(this.entries / STATUS_PER_FRAME))
      throw new HypercallError(ERRNO.EINVAL);
  }

  /** An entry as it is now. @param ref below entries */
  read(ref: number): GrantEntry {
    const { memory } = this;
    const at = this.entry(ref);
    const header = Atomics.load(memory.u32, at >>> 2);
    const v1 = this.version === 1;
    return {
      flags: header & 0xffff & ~(v1 ? this.statusMask(header) : 0),
      domid: header >>> 16,
      frame: v1 ? memory.read32(at + GRANT_ENTRY_V1.frame) : this.frameV2(at),
      offset: v1 ? 0 : memory.read16(at + GRANT_ENTRY_V2.page_off),
      length: v1 ? PAGE_SIZE : memory.read16(at + GRANT_ENTRY_V2.length),
      transDomid: v1 ? 0 : memory.read16(at + GRANT_ENTRY_V2.trans_domid),
      transRef: v1 ? 0 : memory.read32(at + GRANT_ENTRY_V2.gref),
    };
  }

  /**
   * The page of an entry that grants all of it and that nobody has in use, without anything being marked.
   * @returns -1: another kind of entry (or version 2), or not for this
   */
  plainPage(ref: number, domid: number, write: boolean): number {
    if (this.version !== 1) return -1;
    const at = this.entry(ref) >>> 2;
    const { u32 } = this.memory;
    const header = Atomics.load(u32, at);
    const flags = header & 0xffff & ~(write ? 0 : GTF.readonly);
    if (flags !== GTF.permit_access || header >>> 16 !== domid) return -1;
    return u32[at + GRANT_ENTRY_V1.frame / 4]!;
  }

  /** Fills an entry with a page that is granted in full, as the builder does for the reserved ones. */
  write(ref: number, entry: Pick<GrantEntry, 'flags' | 'domid' | 'frame'>): void {
    const { memory } = this;
    const at = this.entry(ref);
    if (this.version === 1) memory.write32(at + GRANT_ENTRY_V1.frame, entry.frame);
    else {
      memory.write32(at + GRANT_ENTRY_V2.frame, entry.frame >>> 0);
      memory.write32(at + GRANT_ENTRY_V2.frame + 4, Math.floor(entry.frame / 2 ** 32));
    }
    Atomics.store(memory.u32, at >>> 2, (entry.flags | (entry.domid << 16)) >>> 0);
  }

  /**
   * Marks an entry as in use, if `accept` agrees to it as it stands.
   * @returns the entry that was accepted, or null: not accepted, or the guest would not leave it alone
   */
  mark(ref: number, write: boolean, accept: (entry: GrantEntry) => boolean): GrantEntry | null {
    const bits = write ? STATUS : GTF.reading;
    const { u16, u32 } = this.memory;
    if (this.version === 2) {
      // The status is not in the header: set it first, look then, so that the guest sees it before it revokes.
      Atomics.or(u16, this.statusWord(ref), bits);
      const entry = this.read(ref);
      return accept(entry) ? entry : null;
    }
    const at = this.entry(ref) >>> 2;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const header = Atomics.load(u32, at);
      const entry = this.read(ref);
      const now = (entry.flags | (entry.domid << 16)) >>> 0;
      if ((now ^ header) >>> 0 !== (header & this.statusMask(header)) >>> 0) continue;
      if (!accept(entry)) return null;
      if (Atomics.compareExchange(u32, at, header, (header | bits) >>> 0) === header) return entry;
    }
    return null;
  }

  /** Sets the status bits of an entry that is known to be in use. */
  markInUse(ref: number, writing: boolean): void {
    const word = this.version === 2 ? this.statusWord(ref) : this.entry(ref) >>> 1;
    Atomics.or(this.memory.u16, word, writing ? STATUS : GTF.reading);
  }

  /** Takes status bits away: what remains says whether it is still being read, or written. */
  unmark(ref: number, reading: boolean, writing: boolean): void {
    const gone = (reading ? 0 : GTF.reading) | (writing ? 0 : GTF.writing);
    const word = this.version === 2 ? this.statusWord(ref) : this.entry(ref) >>> 1;
    Atomics.and(this.memory.u16, word, ~gone & 0xffff);
  }

  /**
   * Says to the guest that a page is on its way into an entry that accepts one from `domid`.
   * @returns false: the entry does not accept
   */
  commitTransfer(ref: number, domid: number): boolean {
    const at = this.entry(ref) >>> 2;
    const { u32 } = this.memory;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const header = Atomics.load(u32, at);
      if (header >>> 16 !== domid || (header & 0xffff) !== GTF.accept_transfer) return false;
      if (Atomics.compareExchange(u32, at, header, (header | GTF.transfer_committed) >>> 0) === header)
        return true;
    }
    return false;
  }

  /** The page has come: its frame number, then the flag that says so. */
  completeTransfer(ref: number, mfn: number): void {
    const { memory } = this;
    const at = this.entry(ref);
    if (this.version === 1) memory.write32(at + GRANT_ENTRY_V1.frame, mfn);
    else {
      memory.write32(at + GRANT_ENTRY_V2.frame, mfn);
      memory.write32(at + GRANT_ENTRY_V2.frame + 4, 0);
    }
    Atomics.or(memory.u16, at >>> 1, GTF.transfer_completed);
  }

  /** Exchanges two entries that are not in use. */
  swap(a: number, b: number): void {
    const { u8 } = this.memory;
    const size = this.entrySize;
    const [at, other] = [this.entry(a), this.entry(b)];
    const bytes = u8.slice(at, at + size);
    u8.copyWithin(at, other, other + size);
    u8.set(bytes, other);
  }

  /** Gives the machine frames back. The domain's frame numbers must be out of use already. */
  destroy(): void {
    for (const { machineFrame } of [...this.shared, ...this.status]) {
      this.domain.hypervisor.processor.revoke(machineFrame);
      this.domain.hypervisor.frames.release(machineFrame);
    }
    this.shared.length = 0;
    this.status.length = 0;
  }

  private get memory(): Memory {
    return this.domain.hypervisor.memory;
  }

  private get entrySize(): number {
    return this.version === 1 ? GRANT_ENTRY_V1.size : GRANT_ENTRY_V2.size;
  }

  /** Linear address of an entry. */
  private entry(ref: number): number {
    const perFrame = PAGE_SIZE / this.entrySize;
    const frame = this.shared[Math.floor(ref / perFrame)]!;
    return frame.machineFrame * PAGE_SIZE + (ref % perFrame) * this.entrySize;
  }

  /** Index into u16 of an entry's status. */
  private statusWord(ref: number): number {
    const frame = this.status[Math.floor(ref / STATUS_PER_FRAME)]!;
    return (frame.machineFrame * PAGE_SIZE) / 2 + (ref % STATUS_PER_FRAME);
  }

  private frameV2(at: number): number {
    return (
      this.memory.read32(at + GRANT_ENTRY_V2.frame) +
      this.memory.read32(at + GRANT_ENTRY_V2.frame + 4) * 2 ** 32
    );
  }

  /** In version 1, which bits of the flags are status: those bits mean something else where a page is accepted. */
  private statusMask(header: number): number {
    return (header & GTF.type_mask) === GTF.permit_access ? STATUS : 0;
  }

  private growStatus(): boolean {
    if (this.version === 1) return true;
    return extend(this.domain, this.status, Math.ceil(this.entries / STATUS_PER_FRAME));
  }
}

/** Adds cleared frames that the guest may map, until there are `count`. @returns false: no memory */
function extend(domain: Domain, list: TableFrame[], count: number): boolean {
  const { frames } = domain.hypervisor;
  while (list.length < count) {
    let machineFrame: number;
    try {
      machineFrame = frames.alloc();
    } catch (error) {
      if (error instanceof OutOfFrames) return false;
      throw error;
    }
    try {
      const mfn = domain.memory.addXenFrame(machineFrame, TABLE_ACCESS);
      list.push({ machineFrame, mfn });
    } catch (error) {
      frames.release(machineFrame);
      if (error instanceof HypercallError) return false;
      throw error;
    }
  }
  return true;
}
