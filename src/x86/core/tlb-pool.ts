/**
 * The TLBs of a processor, and what keeps them true.
 *
 * The invariant: *what a TLB holds, a walk from its root would find*, with the same frame and no fewer rights. It
 * is an isolation boundary: the hypervisor gives frames to others, and makes page tables of them, relying on it, and
 * no flush happens then. It rests on A bits: a walk sets them on its way in each of its four entries, and nobody
 * changes an entry in use without telling the processor. So when an entry changes that had its A bit:
 *
 *   - What was learned from it as the last of a walk is forgotten, place by place (entryChanged).
 *   - If it led to a table with entries that have A bits themselves, more may have been learned through it than is
 *     worth searching: every TLB of the space is emptied (tablesChanged). A kernel that takes an address space apart
 *     clears the lower levels first, and does not come here.
 *   - A table that no table names any more is in no walk; its parents' entries were dealt with as above. Only a root
 *     has no parents: the TLBs of a root that stops being one are given up (rootDropped).
 *
 * User mode has a TLB for each root. Supervisor mode has one for each space, of the root loaded last: kernels map
 * themselves into every address space alike. When another root comes whose upper half has the same entries, only
 * what was learned of the lower half goes.
 */
import type { Memory } from '../../machine/memory.ts';
import { join64, type VirtualAddress } from '../cpu.ts';
import { TLB, TLB_BIT, TLB_BLOCK, TLB_ENTRY_SIZE, TLB_SIZE } from '../mmu.ts';
import type { PhysicalSpace } from '../processor.ts';

export interface Tlb {
  readonly address: number;
  /** null: free. */
  space: PhysicalSpace | null;
  /** Guest frame number of the root, and whether supervisor rules hold. */
  root: number;
  supervisor: boolean;
  used: number;
}

/** What one place of a TLB holds. */
export interface TlbEntry {
  readonly space: PhysicalSpace | null;
  readonly root: number;
  readonly supervisor: boolean;
  /** Of the page. */
  readonly va: VirtualAddress;
  /** Machine frame. */
  readonly frame: number;
  readonly writable: boolean;
  readonly executable: boolean;
}

/** In WebAssembly (mmu.ts). */
export interface TlbFunctions {
  empty(tlb: number, all: number): void;
  forget(tlb: number, entry: number): void;
  revoke(tlb: number, frame: number, writeOnly: number): void;
  sameUpperHalf(a: number, b: number): number;
}

/** Half of a tag that no page has. */
const EMPTY = 0xffff_ffff;
/** A root that is none. */
const NO_ROOT = -1;

export class TlbPool {
  private readonly tlbs: Tlb[] = [];
  private readonly memory: Memory;
  private readonly wasm: TlbFunctions;
  /** Index of the word of each machine frame that says which TLBs may have something from it. */
  private readonly holders: number;
  private clock = 0;

  /** @param address linear, of `count` (at most 32) blocks @param holders linear address: a u32 for each frame */
  constructor(memory: Memory, address: number, count: number, holders: number, wasm: TlbFunctions) {
    this.memory = memory;
    this.wasm = wasm;
    this.holders = holders >>> 2;
    for (let i = 0; i < count; i++) {
      const tlb = {
        address: address + i * TLB_BLOCK,
        space: null,
        root: NO_ROOT,
        supervisor: false,
        used: 0,
      };
      memory.u32[(tlb.address + TLB_BIT) >>> 2] = 1 << i;
      this.wasm.empty(tlb.address, 1);
      this.tlbs.push(tlb);
    }
  }

  /** The TLB of user mode for a root; takes any but the one to keep if there is none yet. */
  user(space: PhysicalSpace, root: number, keep: Tlb): Tlb {
    for (const tlb of this.tlbs) {
      if (tlb.root !== root || tlb.space !== space || tlb.supervisor) continue;
      tlb.used = ++this.clock;
      return tlb;
    }
    return this.take(space, root, false, keep);
  }

  /** The TLB of supervisor mode, for a root from now on. */
  supervisor(space: PhysicalSpace, root: number): Tlb {
    for (const tlb of this.tlbs) {
      if (!tlb.supervisor || tlb.space !== space) continue;
      tlb.used = ++this.clock;
      if (tlb.root === root) return tlb;
      this.wasm.empty(tlb.address, this.related(space, tlb.root, root) ? 0 : 1);
      tlb.root = root;
      return tlb;
    }
    return this.take(space, root, true, null);
  }

  private related(space: PhysicalSpace, from: number, to: number): boolean {
    if (from <= 0 || to <= 0) return false;
    const { u32 } = this.memory;
    const table = space.frameTable >>> 2;
    return this.wasm.sameUpperHalf(u32[table + from]! << 12, u32[table + to]! << 12) !== 0;
  }

  /** The least recently used one. */
  private take(space: PhysicalSpace, root: number, supervisor: boolean, keep: Tlb | null): Tlb {
    let taken: Tlb | null = null;
    for (const tlb of this.tlbs) {
      if (tlb === keep) continue;
      if (taken === null || tlb.used < taken.used) taken = tlb;
    }
    const tlb = taken!;
    // What a supervisor's TLB holds is not all in its log.
    this.wasm.empty(tlb.address, tlb.supervisor ? 1 : 0);
    tlb.space = space;
    tlb.root = root;
    tlb.supervisor = supervisor;
    tlb.used = ++this.clock;
    return tlb;
  }

  /** Empties a TLB. */
  flush(tlb: Tlb): void {
    this.wasm.empty(tlb.address, tlb.supervisor ? 1 : 0);
  }

  /** A page-table entry that had its A bit is another one now. @param entry its linear address */
  entryChanged(entry: number): void {
    for (let left = this.holdersOf(entry >>> 12); left !== 0; left &= left - 1)
      this.wasm.forget(this.at(left), entry);
  }

  private holdersOf(machineFrame: number): number {
    return this.memory.u32[this.holders + machineFrame]! | 0;
  }

  /** Address of the TLB of the lowest bit. */
  private at(bits: number): number {
    return this.tlbs[31 - Math.clz32(bits & -bits)]!.address;
  }

  /** What lies below an entry of an upper level is not there any more. */
  tablesChanged(space: PhysicalSpace): void {
    for (const tlb of this.tlbs) if (tlb.space === space) this.flush(tlb);
  }

  /** A root table is none any more. */
  rootDropped(space: PhysicalSpace, root: number): void {
    for (const tlb of this.tlbs) if (tlb.root === root && tlb.space === space) this.drop(tlb);
  }

  /** No TLB learned from a machine frame, or has a write tag for it. */
  released(machineFrame: number): void {
    this.memory.u32[this.holders + machineFrame] = 0;
  }

  /** Takes what TLBs have of a machine frame. @param space left out: those of all */
  revoke(machineFrame: number, space?: PhysicalSpace): void {
    for (const tlb of this.tlbs)
      if (tlb.space !== null && (space === undefined || tlb.space === space))
        this.wasm.revoke(tlb.address, machineFrame, 0);
  }

  /** Takes the write tags for a machine frame. */
  revokeWrites(machineFrame: number): void {
    for (let left = this.holdersOf(machineFrame); left !== 0; left &= left - 1)
      this.wasm.revoke(this.at(left), machineFrame, 1);
  }

  /** Forgets every TLB of a physical space. */
  release(space: PhysicalSpace): void {
    for (const tlb of this.tlbs) {
      if (tlb.space !== space) continue;
      this.drop(tlb);
      tlb.space = null;
    }
  }

  /** The TLB keeps its space, but no root. */
  private drop(tlb: Tlb): void {
    this.flush(tlb);
    tlb.root = NO_ROOT;
    if (!tlb.supervisor) tlb.used = 0;
  }

  /** For tests: everything that is in TLBs. */
  entries(): TlbEntry[] {
    const found: TlbEntry[] = [];
    const { u32 } = this.memory;
    for (const { address, space, root, supervisor } of this.tlbs)
      for (let slot = address; slot < address + TLB_SIZE; slot += TLB_ENTRY_SIZE) {
        const high = (tag: number) => u32[(slot + tag + 4) >>> 2]!;
        const low = (tag: number) => u32[(slot + tag) >>> 2]!;
        // No page's address has all ones below; whatever is there can be read.
        if (low(TLB.read) === EMPTY) continue;
        found.push({
          space,
          root,
          supervisor,
          va: join64(low(TLB.read), high(TLB.read)),
          frame: low(TLB.frame),
          writable: low(TLB.write) !== EMPTY,
          executable: low(TLB.fetch) !== EMPTY,
        });
      }
    return found;
  }
}
