/**
 * A domain's memory as plain data, and how another object takes it over: the part of domain-state.ts that is about
 * memory, and what a fork and a saved domain do with the pages.
 *
 * Most of what a memory is stands in the machine's memory (the pages, the rows of the frame table), and is moved,
 * copied or read from a file. MemoryState is the rest. The counts in the rows say from the start that pages are in
 * use; those who use them say so after it: frames of the hypervisor's (shared_info, grants) are entered by those who
 * own them (DomainMemory.adoptXenFrame), what is held by those who hold it (adoptHold). DomainMemory.check() tells
 * whether all of it agrees.
 */
import { PAGE_SHIFT } from '../../machine/memory.ts';
import { HypercallError } from '../hypercall.ts';
import { ERRNO } from '../public/errno.ts';
import { copyFrame, outOfMemory } from './backing.ts';
import type { DomainMemory, MemoryMapEntry } from './domain-memory.ts';
import { FrameType, Kind } from './frame-table.ts';
import { FIRST_MFN } from './layout.ts';

/** What is known of a domain's memory beside its tables. */
export interface MemoryState {
  /** Pages that it was created for, the most that it may own, and how many it owns. */
  readonly capacity: number;
  readonly maxPages: number;
  readonly totalPages: number;
  readonly memoryMap: readonly MemoryMapEntry[];
}

/** Frame numbers that follow each other: the first, and how many. */
export type Run = readonly [first: number, count: number];

export function memoryState(memory: DomainMemory): MemoryState {
  memory.pageTables.settleAll();
  const { capacity, maxPages, totalPages, memoryMap } = memory;
  return { capacity, maxPages, totalPages, memoryMap };
}

export function setMemoryState(memory: DomainMemory, state: MemoryState): void {
  const { backing } = memory;
  memory.maxPages = state.maxPages;
  memory.memoryMap = state.memoryMap;
  backing.totalPages = state.totalPages;
  backing.nextFree = FIRST_MFN;
}

/** The numbers of a domain's own memory. */
export function memoryRuns({ table, layout }: DomainMemory): Run[] {
  const { kinds } = table;
  const runs: Run[] = [];
  for (let mfn = FIRST_MFN; mfn < layout.ramEnd; mfn++) {
    if (kinds[mfn] !== Kind.ram) continue;
    const first = mfn;
    while (mfn < layout.ramEnd && kinds[mfn] === Kind.ram) mfn++;
    runs.push([first, mfn - first]);
  }
  return runs;
}

/**
 * Gives a domain without memory new pages under numbers of the caller's choice, cleared.
 * @throws HypercallError ENOMEM; EINVAL: numbers that it cannot have. The domain is to be destroyed then.
 */
export function populateRuns(memory: DomainMemory, runs: readonly Run[]): void {
  const { table, layout, backing } = memory;
  backing.needFree(runs.reduce((sum, [, count]) => sum + count, 0));
  for (const [first, count] of runs) {
    const end = first + count;
    if (!(first >= FIRST_MFN && count > 0 && end <= layout.ramEnd))
      throw new HypercallError(ERRNO.EINVAL, 'memory outside of the domain');
    for (let mfn = first; mfn < end; mfn++) {
      if (table.kinds[mfn] !== Kind.none) throw new HypercallError(ERRNO.EINVAL, 'memory given twice');
      if (memory.totalPages >= memory.maxPages) throw new HypercallError(ERRNO.ENOMEM);
      try {
        backing.add(mfn);
      } catch (error) {
        throw outOfMemory(error);
      }
    }
  }
}

/**
 * A domain's memory becomes what another one's is: the same numbers, with the same frames behind them. What a domain
 * does not share (see shared-frames.ts) is copied. Nothing may have been done to this memory yet, and both were made
 * for the same number of pages.
 * @param own pages that are to be copied too: Domain 0 writes to them
 * @throws HypercallError ENOMEM, and nothing has changed
 */
export function forkMemory(memory: DomainMemory, parent: DomainMemory, own: ReadonlySet<number>): void {
  parent.pageTables.settleAll();
  const { table, layout, backing } = memory;
  const from = parent.table;
  const copied = (mfn: number) =>
    (from.typeCounts[mfn] !== 0 && from.type(mfn) !== FrameType.writable) || parent.held(mfn) || own.has(mfn);
  backing.forkFrom(parent.backing, copied);
  // Its own frames of the hypervisor's kind are entered anew, but for those that every domain has from the start.
  for (let mfn = layout.ramEnd; mfn < layout.xenEnd; mfn++)
    if (mfn !== memory.sharedInfoMfn) table.kinds[mfn] = Kind.none;
  copyFrame(table.memory, parent.sharedInfo >>> PAGE_SHIFT, memory.sharedInfo >>> PAGE_SHIFT);
  memory.machineToPhys.copyFrom(parent.machineToPhys);
  memory.pageTables.copyFrom(parent.pageTables);
  setMemoryState(memory, memoryState(parent));
  backing.nextFree = parent.backing.nextFree;
}
