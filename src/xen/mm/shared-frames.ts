/**
 * Machine frames that several domains have in common, copy-on-write.
 *
 * Domains come to share by a fork (the same bytes stand behind the same frame numbers in both), and because pages were
 * found to have the same contents (page-sharing.ts). Nobody writes to a frame while it is shared; who wants to gets a
 * copy first, its own frame from then on. Three things keep that:
 *
 *   - The processor has no write tag for a shared frame, and its walker refuses to write to one (FRAME_SHARED in
 *     x86/mmu.ts). So does every access of the hypervisor's at a guest's address (guest-access.ts).
 *   - What the hypervisor itself writes to is never shared: page tables and descriptor tables (they are taken, and
 *     promotion makes them the domain's own), and pages that are held (getPage, getPageType: granted pages, event
 *     pages, vcpu_info). A fork copies these at once. What Domain 0 writes to is marked (keep).
 *   - A frame goes back to the machine when its last owner lets go of it, and is cleared only then.
 *
 * A domain that was made for some memory has a right to it, whatever of it is shared: for each page that it has
 * accepted a shared frame for, without having asked, one free frame is promised to it (Backing.reserved). Forks, and
 * all domains where the machine's owner says so, live on what is left over.
 *
 * The owners may be on different processors. So the counts are in the machine's memory and change atomically: of two
 * owners that let go at once exactly one is the last. A frame that gets a second owner has its first one on the
 * thread that adds it, so nobody writes to it unawares.
 */
import type { Frames } from '../../machine/frames.ts';
import { PAGE_SIZE } from '../../machine/memory.ts';
import type { VirtualAddress } from '../../x86/cpu.ts';
import type { Processor } from '../../x86/processor.ts';
import type { Vcpu } from '../vcpu.ts';
import { findL1, tableIndex } from './walk.ts';

/** Words in front of the counts. */
const USED = 0;
const SAVED = 1;
const PROMISED = 2;
const HEADER = 3;
/** In a frame's word: the count, and that it is kept. */
const COUNT = 0x7fff_ffff;
const KEPT = 0x8000_0000;

export class SharedFrames {
  /** Linear address of the counts: whoever has it (and the memory) sees the same. */
  readonly address: number;
  private readonly u32: Uint32Array;
  /** Index of the word for machine frame 0: how many owners it has beside one. */
  private readonly others: number;

  /** @param address of the counts of the machine; left out: new ones are made. @throws OutOfFrames */
  constructor(frames: Frames, address?: number) {
    const words = HEADER + frames.total;
    this.address = address ?? frames.allocContiguous(Math.ceil((words * 4) / PAGE_SIZE)) * PAGE_SIZE;
    this.u32 = frames.memory.u32;
    this.others = (this.address >>> 2) + HEADER;
  }

  /** Frames that several own. */
  get used(): number {
    return Atomics.load(this.u32, (this.address >>> 2) + USED);
  }

  /** How many fewer frames there are than pages of domains. */
  get saved(): number {
    return Atomics.load(this.u32, (this.address >>> 2) + SAVED) | 0;
  }

  /** One of a frame's owners is no domain (or, with -1: none such is any more): it saves nothing. */
  notDomains(change: 1 | -1): void {
    this.count(SAVED, -change);
  }

  /** Frames that are free and that domains have a right to: for pages of theirs that are shared now. */
  get promised(): number {
    return Atomics.load(this.u32, (this.address >>> 2) + PROMISED);
  }

  promise(change: number): void {
    this.count(PROMISED, change);
  }

  /** One owner more. The caller knows that it has one that stays meanwhile. */
  add(machineFrame: number): void {
    if ((Atomics.add(this.u32, this.others + machineFrame, 1) & COUNT) === 0) this.count(USED, 1);
    this.count(SAVED, 1);
  }

  /**
   * Has it more than one owner? If not, and the caller is the owner, it stays so: only an owner's own thread adds
   * the second one.
   */
  isShared(machineFrame: number): boolean {
    return (Atomics.load(this.u32, this.others + machineFrame) & COUNT) !== 0;
  }

  /** Domain 0 reads and writes it by itself: as long as it is in use, its contents are nobody else's. */
  keep(machineFrame: number): void {
    Atomics.or(this.u32, this.others + machineFrame, KEPT);
  }

  isKept(machineFrame: number): boolean {
    return (Atomics.load(this.u32, this.others + machineFrame) & KEPT) !== 0;
  }

  /** One owner less. @returns false: it was the only one, the frame is free */
  drop(machineFrame: number): boolean {
    const { u32 } = this;
    const at = this.others + machineFrame;
    for (;;) {
      const word = Atomics.load(u32, at);
      const count = word & COUNT;
      if (Atomics.compareExchange(u32, at, word, count === 0 ? 0 : word - 1) !== word) continue;
      if (count === 0) return false;
      if (count === 1) this.count(USED, -1);
      this.count(SAVED, -1);
      return true;
    }
  }

  private count(which: number, change: number): void {
    Atomics.add(this.u32, (this.address >>> 2) + which, change);
  }
}

/** Nobody owns a frame any more: it is cleared and goes back to the machine. */
export function freeFrame(frames: Frames, processor: Processor, machineFrame: number): void {
  processor.unshare(machineFrame);
  const start = machineFrame * PAGE_SIZE;
  frames.memory.u8.fill(0, start, start + PAGE_SIZE);
  processor.written(machineFrame);
  frames.release(machineFrame);
}

/**
 * Makes the page at an address the domain's own, so that it can be written to.
 * @returns false: no page there, or no memory for the copy
 */
export function ownPage(vcpu: Vcpu, va: VirtualAddress): boolean {
  const { memory } = vcpu.domain;
  const l1 = findL1(memory, vcpu.kernelMode ? vcpu.kernelRoot : vcpu.userRoot, va);
  if (l1 === 0) return false;
  const { table, pageTables } = memory;
  const at = table.machine[l1]! * 1024 + tableIndex(va, 1) * 2;
  const mfn = pageTables.frameOf(table.memory.u32[at]!, table.memory.u32[at + 1]!);
  return mfn < table.limit && memory.backing.toOwn(mfn);
}
