/**
 * The machine-to-physical table of a domain: for each frame number the pseudo-physical number that the guest gave
 * it. Guests read it at MACH2PHYS_VIRT_START, through slot 256 of every L4 table; its frames and the page tables
 * that map it have frame numbers of their own, so that a walk finds them as it finds anything.
 */
import type { Frames } from '../../machine/frames.ts';
import { PAGE_SHIFT, PAGE_SIZE } from '../../machine/memory.ts';
import { join64 } from '../../x86/cpu.ts';
import { PTE, PTE_HIGH, PTES, XEN_FIRST_SLOT } from '../public/mmu.ts';
import { type FrameTable, Kind } from './frame-table.ts';
import type { FrameLayout } from './layout.ts';

/** No USER bit: a guest's user mode does not see the table. No RW bit: its kernel only reads it. */
const FLAGS = PTE.PRESENT | PTE.ACCESSED;

export class MachineToPhys {
  /** Frame number of the table's first frame; the others follow. */
  readonly firstMfn: number;
  /** Frames of the table and its page tables. */
  readonly size: number;
  private readonly frames: Frames;
  private readonly u32: Uint32Array;
  private readonly word: number;
  private readonly firstFrame: number;
  private readonly topMfn: number;
  private readonly limit: number;

  /** @param address of a table that is there already; left out: a new one is made. @throws OutOfFrames */
  constructor(frames: Frames, table: FrameTable, layout: FrameLayout, address?: number) {
    const { m2pFrames, m2pL1, m2pL2, xenEnd } = layout;
    this.frames = frames;
    this.u32 = frames.memory.u32;
    this.limit = layout.limit;
    this.size = m2pFrames + m2pL1 + m2pL2 + 1;
    this.firstFrame = address === undefined ? frames.allocContiguous(this.size) : address / PAGE_SIZE;
    this.firstMfn = xenEnd;
    this.topMfn = xenEnd + this.size - 1;
    this.word = (this.firstFrame * PAGE_SIZE) >>> 2;
    if (address !== undefined) return;
    this.u32.fill(0xffffffff, this.word, this.word + (m2pFrames * PAGE_SIZE) / 4);
    for (let i = 0; i < this.size; i++)
      table.enter(xenEnd + i, this.firstFrame + i, i < m2pFrames ? Kind.xenReadonly : Kind.xenPrivate);
    const l1 = m2pFrames;
    const l2 = l1 + m2pL1;
    this.link(l1, 0, m2pFrames, PTE_HIGH.NX);
    this.link(l2, l1, m2pL1, 0);
    this.link(l2 + m2pL2, l2, m2pL2, 0);
  }

  /** Entries for `count` frames from `first` on, in the tables from `tables` on (numbers from the table's start). */
  private link(tables: number, first: number, count: number, high: number): void {
    const at = ((this.firstFrame + tables) * PAGE_SIZE) >>> 2;
    for (let i = 0; i < count; i++) {
      const mfn = this.firstMfn + first + i;
      this.u32[at + i * 2] = (mfn << PAGE_SHIFT) | FLAGS;
      this.u32[at + i * 2 + 1] = (mfn >>> (32 - PAGE_SHIFT)) | high;
    }
  }

  /** The two halves of what the hypervisor's slots of an L4 table hold. */
  slotLow(slot: number): number {
    return slot === XEN_FIRST_SLOT ? ((this.topMfn << PAGE_SHIFT) | FLAGS) >>> 0 : 0;
  }

  slotHigh(slot: number): number {
    return slot === XEN_FIRST_SLOT ? this.topMfn >>> (32 - PAGE_SHIFT) : 0;
  }

  /** Linear address of the entries, 8 bytes for each frame number. */
  get address(): number {
    return this.firstFrame * PAGE_SIZE;
  }

  /** Takes over the entries of the table of a domain of the same size. */
  copyFrom(other: MachineToPhys): void {
    const words = 2 * this.limit;
    this.u32.copyWithin(this.word, other.word, other.word + words);
  }

  /** How many 2 MiB extents the table has. */
  get extents(): number {
    return Math.ceil(this.limit / (PTES * PTES));
  }

  /** The pseudo-physical number, or -1 where there is none (any value at or above 2^53 is none). */
  get(mfn: number): number {
    if (mfn < 0 || mfn >= this.limit) return -1;
    const pfn = join64(this.u32[this.word + mfn * 2]!, this.u32[this.word + mfn * 2 + 1]!);
    return pfn >= 0 && Number.isSafeInteger(pfn) ? pfn : -1;
  }

  /** @param low half of the entry, any value @param mfn below the limit */
  set(mfn: number, low: number, high: number): void {
    this.u32[this.word + mfn * 2] = low;
    this.u32[this.word + mfn * 2 + 1] = high;
  }

  release(): void {
    this.frames.release(this.firstFrame, this.size);
  }
}
