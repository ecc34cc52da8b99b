/**
 * Grant mappings: other domains' pages in a domain's page tables (GNTTABOP_map_grant_ref and its reverse).
 *
 * A mapping gives the page a frame number in the mapping domain (dev_bus_addr says which), and usually an entry in
 * one of its page tables. Only the operations here make such entries, so when the mapping goes, the number means
 * nothing any more and nothing of the other domain's page can be reached.
 */
import { PAGE_SHIFT, PAGE_SIZE } from '../machine/memory.ts';
import type { Domain } from './domain.ts';
import type { GrantUse } from './grant-table.ts';
import { HypercallError } from './hypercall.ts';
import { entryAt, setEntryIn } from './mm/mmu-update.ts';
import { GNTMAP, GNTST, type GrantStatus } from './public/grant_table.ts';
import { PTE, PTE_SIZE } from './public/mmu.ts';
import type { Vcpu } from './vcpu.ts';

/** Mappings that a domain may have at once. */
const MAX_MAPPINGS = 1024;
/** The bits that a guest may keep in an entry. */
const AVAIL_SHIFT = 9;

interface Mapping {
  readonly use: GrantUse;
  /** The page's number in the mapping domain. */
  readonly mfn: number;
  /** GNTMAP flags; host_map and device_map go as they are unmapped. */
  flags: number;
}

/** Where an entry lies: the frame number of its L1 table, and its index there. */
interface EntryPlace {
  mfn: number;
  index: number;
}

/** What map answers: a status, and if it is okay the handle and the page's machine address for the guest. */
export interface MapResult {
  status: GrantStatus;
  handle: number;
  busAddress: number;
}

export class GrantMappings {
  private readonly domain: Domain;
  /** By handle. */
  private readonly mappings: (Mapping | undefined)[] = [];
  private readonly freeHandles: number[] = [];

  constructor(domain: Domain) {
    this.domain = domain;
  }

  get count(): number {
    return this.mappings.length - this.freeHandles.length;
  }

  /**
   * @param hostAddress virtual address, or with GNTMAP_contains_pte machine address of the entry
   * @param flags GNTMAP_*
   */
  map(vcpu: Vcpu, hostAddress: number, flags: number, ref: number, domid: number): MapResult {
    const failed = (status: GrantStatus): MapResult => ({ status, handle: 0, busAddress: 0 });
    if ((flags & (GNTMAP.host_map | GNTMAP.device_map)) === 0) return failed(GNTST.bad_gntref);
    const owner = this.domain.hypervisor.neighbour(this.domain, domid);
    if (!owner || owner.dying) return failed(GNTST.bad_domain);
    if (this.count >= MAX_MAPPINGS) return failed(GNTST.no_space);

    const readonly = (flags & GNTMAP.readonly) !== 0;
    const use = owner.grants.use(ref, { domid: this.domain.id, write: !readonly, map: true });
    if (typeof use === 'number') return failed(use);
    let mfn: number;
    try {
      mfn = this.domain.memory.mapForeign(use.address >>> PAGE_SHIFT, readonly);
    } catch (error) {
      use.release();
      if (error instanceof HypercallError) return failed(GNTST.no_space);
      throw error;
    }
    if ((flags & GNTMAP.host_map) !== 0) {
      const place = this.place(vcpu, hostAddress, flags);
      const low = ((mfn << PAGE_SHIFT) | entryFlags(flags)) >>> 0;
      const high = mfn >>> (32 - PAGE_SHIFT);
      if (!place || setEntryIn(this.domain.memory, place.mfn, place.index, low, high, true) !== 0) {
        this.domain.memory.unmapForeign(mfn);
        use.release();
        return failed(GNTST.general_error);
      }
    }
    const handle = this.freeHandles.pop() ?? this.mappings.length;
    this.mappings[handle] = { use, mfn, flags };
    return { status: GNTST.okay, handle, busAddress: mfn * PAGE_SIZE };
  }

  /**
   * @param hostAddress as it was mapped; 0: leave that
   * @param busAddress as it was answered; 0: leave that
   * @param replaceBy virtual address of an entry that moves to where the page was; 0: nothing comes there
   */
  unmap(vcpu: Vcpu, handle: number, hostAddress: number, busAddress: number, replaceBy = 0): GrantStatus {
    const mapping = this.mappings[handle];
    if (!mapping) return GNTST.bad_handle;
    if (busAddress !== 0 && (mapping.flags & GNTMAP.device_map) !== 0) {
      if (busAddress !== mapping.mfn * PAGE_SIZE) return GNTST.bad_dev_addr;
      mapping.flags &= ~GNTMAP.device_map;
    }
    if (hostAddress !== 0 && (mapping.flags & GNTMAP.host_map) !== 0) {
      const status = this.unmapHost(vcpu, mapping, hostAddress, replaceBy);
      if (status !== GNTST.okay) return status;
      mapping.flags &= ~GNTMAP.host_map;
    }
    if ((mapping.flags & (GNTMAP.host_map | GNTMAP.device_map)) === 0) {
      this.domain.memory.unmapForeign(mapping.mfn);
      this.drop(handle, mapping);
    }
    return GNTST.okay;
  }

  /** The domain is gone, and its page tables with it: the owners get their pages back. */
  destroy(): void {
    for (const [handle, mapping] of this.mappings.entries()) if (mapping) this.drop(handle, mapping);
  }

  private drop(handle: number, mapping: Mapping): void {
    this.mappings[handle] = undefined;
    this.freeHandles.push(handle);
    mapping.use.release();
  }

  private unmapHost(vcpu: Vcpu, mapping: Mapping, hostAddress: number, replaceBy: number): GrantStatus {
    const { memory } = this.domain;
    const place = this.place(vcpu, hostAddress, mapping.flags);
    if (!place || this.frameAt(place) !== mapping.mfn) return GNTST.general_error;
    if (replaceBy === 0) {
      return setEntryIn(memory, place.mfn, place.index, 0, 0) === 0 ? GNTST.okay : GNTST.general_error;
    }
    const from = (mapping.flags & GNTMAP.contains_pte) !== 0 ? null : entryAt(vcpu, replaceBy);
    if (!from || (from.mfn === place.mfn && from.index === place.index)) return GNTST.general_error;
    const [low, high] = this.entry(from);
    // The new mapping stands before the old one goes, so that its page is held throughout.
    if (setEntryIn(memory, place.mfn, place.index, low, high) !== 0) return GNTST.general_error;
    setEntryIn(memory, from.mfn, from.index, 0, 0);
    return GNTST.okay;
  }

  private place(vcpu: Vcpu, hostAddress: number, flags: number): EntryPlace | null {
    if ((flags & GNTMAP.contains_pte) === 0) return entryAt(vcpu, hostAddress);
    if (hostAddress < 0 || hostAddress % PTE_SIZE !== 0) return null;
    return {
      mfn: Math.floor(hostAddress / PAGE_SIZE),
      index: (hostAddress % PAGE_SIZE) / PTE_SIZE,
    };
  }

  /** The two halves of an entry. */
  private entry({ mfn, index }: EntryPlace): [number, number] {
    const { memory } = this.domain.hypervisor;
    const at = this.domain.memory.linear(mfn) + index * PTE_SIZE;
    return [memory.read32(at), memory.read32(at + 4)];
  }

  /** The frame number in a present entry, -1 if it is not present. */
  private frameAt(place: EntryPlace): number {
    if (this.domain.memory.linear(place.mfn) === 0) return -1;
    const [low, high] = this.entry(place);
    return (low & PTE.PRESENT) === 0 ? -1 : this.domain.memory.pageTables.frameOf(low, high);
  }
}

/** Bits of the entry that a mapping with these flags gets. */
function entryFlags(flags: number): number {
  let bits = PTE.PRESENT | PTE.ACCESSED | PTE.DIRTY;
  if ((flags & GNTMAP.readonly) === 0) bits |= PTE.RW;
  if ((flags & GNTMAP.application_map) !== 0) bits |= PTE.USER;
  return bits | (((flags >>> GNTMAP.guest_avail_shift) << AVAIL_SHIFT) & PTE.AVAIL);
}
