/**
 * Finds the page-table entry behind a guest virtual address, for the hypervisor's own purposes. The processor has
 * a walker of its own, which looks for a page; this one looks for the L1 table.
 */
import { high32, type VirtualAddress } from '../../x86/cpu.ts';
import { PTE } from '../public/mmu.ts';
import type { DomainMemory } from './domain-memory.ts';
import type { FrameType } from './frame-table.ts';

/** Index into the table of a level (4 to 1) for an address. */
export function tableIndex(va: VirtualAddress, level: number): number {
  switch (level) {
    case 1:
      return (va >>> 12) & 511;
    case 2:
      return (va >>> 21) & 511;
    case 3:
      return ((high32(va) << 2) | (va >>> 30)) & 511;
    default:
      return (high32(va) >> 7) & 511;
  }
}

/**
 * @param root frame number of the L4 table
 * @returns frame number of the L1 table that has the entry for `va`, or 0: not canonical, or a level not present
 */
export function findL1(memory: DomainMemory, root: number, va: VirtualAddress): number {
  if (!(va >= -(2 ** 47) && va < 2 ** 47) || root === 0) return 0;
  const { pageTables, table } = memory;
  const { u32 } = table.memory;
  let mfn = root;
  for (let level = 4; level > 1; level--) {
    const at = table.machine[mfn]! * 1024 + tableIndex(va, level) * 2;
    const low = u32[at]!;
    if ((low & PTE.PRESENT) === 0) return 0;
    mfn = pageTables.frameOf(low, u32[at + 1]!);
    if (mfn >= table.limit) return 0;
  }
  return mfn;
}

/** Is the frame an L1 table that is in use as one, so that PageTables.update may change it? */
export function isTable(memory: DomainMemory, mfn: number, level: FrameType): boolean {
  const { table } = memory;
  return memory.owns(mfn) && table.typeCounts[mfn] !== 0 && table.type(mfn) === level;
}
