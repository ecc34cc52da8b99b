/**
 * Machine frames that several domains have in common, copy-on-write.
 *
 * Domains come to share by a fork: the same bytes stand behind the same frame numbers in both. Nobody writes to a
 * frame while it is shared; who wants to gets a copy first, its own frame from then on. Three things keep that:
 *
 *   - The processor has no write tag for a shared frame, and its walker refuses to write to one (FRAME_SHARED in
 *     x86/mmu.ts). So does every access of the hypervisor's at a guest's address (guest-access.ts).
 *   - What the hypervisor itself writes to is never shared: page tables and descriptor tables (they are taken, and
 *     promotion makes them the domain's own), and pages that are held (getPage, getPageType: granted pages, event
 *     pages, vcpu_info). A fork copies these at once.
 *   - A frame goes back to the machine when its last owner lets go of it, and is cleared only then.
 */
import type { VirtualAddress } from '../../x86/cpu.ts';
import type { Vcpu } from '../vcpu.ts';
import { findL1, tableIndex } from './walk.ts';

export class SharedFrames {
  private readonly frames: number;
  /** For each machine frame, how many owners it has beside one. Made when the first frame is shared. */
  private others: Uint32Array | null = null;
  /** Frames that several own, and how many more there would be without sharing. */
  used = 0;
  saved = 0;

  /** @param frames of the machine */
  constructor(frames: number) {
    this.frames = frames;
  }

  /** One owner more. */
  add(machineFrame: number): void {
    this.others ??= new Uint32Array(this.frames);
    if (this.others[machineFrame]!++ === 0) this.used++;
    this.saved++;
  }

  /** Has it more than one owner? */
  isShared(machineFrame: number): boolean {
    return this.others !== null && this.others[machineFrame] !== 0;
  }

  /** One owner less. @returns false: it was the only one, the frame is free */
  drop(machineFrame: number): boolean {
    if (!this.isShared(machineFrame)) return false;
    if (--this.others![machineFrame]! === 0) this.used--;
    this.saved--;
    return true;
  }
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
  return mfn < table.limit && memory.toOwn(mfn);
}
