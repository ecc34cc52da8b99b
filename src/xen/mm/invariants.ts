/**
 * Works out all types and counts of a domain anew, from its page tables and from who else holds frames, and
 * compares: the independent second opinion on page-tables.ts. Slow; for tests.
 */
import { PTE, PTE_HIGH, PTES, XEN_END_SLOT, XEN_FIRST_SLOT } from '../public/mmu.ts';
import { ALLOCATED, type FrameTable, FrameType, Kind, PINNED, VALIDATED } from './frame-table.ts';
import { FIRST_MFN } from './layout.ts';

export interface Books {
  readonly table: FrameTable;
  /** What is held from outside the page tables. */
  readonly holds: ReadonlyMap<number, { references: number; types: number }>;
  /** Loaded root tables, one entry for each time that one is loaded. */
  readonly roots: readonly number[];
  /** Tables that calls in their middle hold. */
  readonly pending: readonly number[];
  readonly totalPages: number;
  readonly ramEnd: number;
  /** Has a machine frame several owners? */
  isShared(machineFrame: number): boolean;
  xenSlotLow(slot: number): number;
  xenSlotHigh(slot: number): number;
}

const MAPPABLE: readonly number[] = [
  Kind.ram,
  Kind.xenWritable,
  Kind.xenReadonly,
  Kind.foreignWritable,
  Kind.foreignReadonly,
];
const MAPPABLE_WRITABLE: readonly number[] = [Kind.ram, Kind.xenWritable, Kind.foreignWritable];

/** @returns one line for each thing that is wrong */
export function violations(books: Books): string[] {
  const { table } = books;
  const { limit, kinds, states } = table;
  const found: string[] = [];
  const references = new Float64Array(limit);
  const types = new Float64Array(limit);
  const problem = (mfn: number, text: string) => found.push(`frame ${mfn}: ${text}`);
  const take = (mfn: number, typed: boolean) => {
    references[mfn]!++;
    if (typed) types[mfn]!++;
  };
  const seen = new Set<number>();
  let pages = 0;
  for (let mfn = 0; mfn < limit; mfn++) {
    const kind = kinds[mfn]!;
    const state = states[mfn]!;
    const frame = table.machine[mfn]!;
    if ((kind === Kind.none) !== (frame === 0)) problem(mfn, `kind ${kind} but machine frame ${frame}`);
    if (kind === Kind.none) {
      if (state !== 0) problem(mfn, `free, with state ${state}`);
      continue;
    }
    if (mfn < FIRST_MFN || (kind === Kind.ram) !== mfn < books.ramEnd)
      problem(mfn, `kind ${kind} out of place`);
    if (kind === Kind.ram) {
      pages++;
      if (seen.has(frame) && !books.isShared(frame)) problem(mfn, `shares machine frame ${frame}`);
      seen.add(frame);
    }
    if (state & ALLOCATED) take(mfn, false);
    if (state & PINNED) take(mfn, true);
    const type = table.type(mfn);
    if (table.typeCounts[mfn] === 0) continue;
    if (!(state & VALIDATED)) problem(mfn, `type ${type} in use, not validated`);
    if (type === FrameType.none) problem(mfn, 'type none in use');
    if (type !== FrameType.writable && kind !== Kind.ram) problem(mfn, `type ${type} for kind ${kind}`);
    if (type >= FrameType.l1 && type <= FrameType.l4) checkTable(books, mfn, type, take, problem);
  }
  if (pages !== books.totalPages) found.push(`${pages} pages, but totalPages is ${books.totalPages}`);
  for (const root of books.roots) take(root, true);
  for (const table of books.pending) take(table, true);
  for (const root of books.roots)
    if (table.type(root) !== FrameType.l4) problem(root, 'loaded root is not an L4 table');
  for (const [mfn, hold] of books.holds) {
    references[mfn]! += hold.references;
    types[mfn]! += hold.types;
  }
  for (let mfn = 0; mfn < limit; mfn++) {
    if (references[mfn] !== table.references[mfn])
      problem(mfn, `${table.references[mfn]} references, should be ${references[mfn]}`);
    if (types[mfn] !== table.typeCounts[mfn])
      problem(mfn, `${table.typeCounts[mfn]} of type ${table.type(mfn)}, should be ${types[mfn]}`);
    if (kinds[mfn] !== Kind.none && references[mfn] === 0) problem(mfn, 'kept without a reference');
  }
  return found;
}

function checkTable(
  { table, xenSlotLow, xenSlotHigh }: Books,
  mfn: number,
  level: number,
  take: (mfn: number, typed: boolean) => void,
  problem: (mfn: number, text: string) => void,
): void {
  const { u32 } = table.memory;
  const at = table.machine[mfn]! * 1024;
  for (let i = 0; i < PTES; i++) {
    const low = u32[at + i * 2]!;
    const high = u32[at + i * 2 + 1]!;
    if (level === FrameType.l4 && i >= XEN_FIRST_SLOT && i < XEN_END_SLOT) {
      if (low !== xenSlotLow(i) || high !== xenSlotHigh(i)) problem(mfn, `slot ${i} is not the hypervisor's`);
      continue;
    }
    if (!(low & PTE.PRESENT)) continue;
    const target = (high & PTE_HIGH.FRAME) * 0x100000 + (low >>> 12);
    const kind = table.kinds[target];
    const type = table.type(target);
    const writable = (low & PTE.RW) !== 0;
    if (level === FrameType.l1) {
      if (kind === undefined || !MAPPABLE.includes(kind)) problem(mfn, `entry ${i} maps kind ${kind}`);
      else if (writable && !MAPPABLE_WRITABLE.includes(kind))
        problem(mfn, `entry ${i} writable, kind ${kind}`);
      else if (writable && type !== FrameType.writable) problem(mfn, `entry ${i} writable, type ${type}`);
      if (kind !== undefined) take(target, writable);
      continue;
    }
    if (low & PTE.PSE) problem(mfn, `entry ${i} is a large page`);
    if (kind !== Kind.ram) problem(mfn, `entry ${i} names kind ${kind}`);
    else if (type === level - 1) take(target, true);
    else if (type !== level) problem(mfn, `entry ${i} of an L${level} names type ${type}`);
    else if (writable) problem(mfn, `entry ${i} is linear and writable`);
    else if (target !== mfn) take(target, true);
  }
}
