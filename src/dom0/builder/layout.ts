/**
 * Where everything lies when a domain starts: public/xen.h, "Start-of-day memory layout".
 *
 * One run of virtual addresses, from the kernel's VIRT_BASE to a multiple of 4 MiB, maps the first pseudo-physical
 * frames in order:
 *
 *   kernel, ramdisk, frame list, start_info, xenstore ring, console ring, page tables, stack, 512 KiB or more of room
 *
 * Two kinds of kernel want it otherwise. With MOD_START_PFN the ramdisk, and with INIT_P2M the list of frames, stay
 * out of that run: their frames follow the stack, the ramdisk's first. The list is then mapped at an address of the
 * kernel's choice, by page tables that lie behind the list and are mapped nowhere.
 *
 * All numbers of frames here are pseudo-physical.
 */
import { PAGE_SIZE } from '../../machine/memory.ts';
import type { VirtualAddress } from '../../x86/cpu.ts';
import { PTES } from '../../xen/public/mmu.ts';
import { BuildError, mebibytes } from './error.ts';
import type { KernelImage } from './image.ts';

const REGION_ALIGNMENT = 4 << 20;
const ROOM_BEHIND = 512 << 10;
const P2M_ENTRY = 8;
const LEVELS = 4;

/** A run of frames, and where the kernel finds it. */
export interface Region {
  readonly pfn: number;
  readonly pages: number;
  /** null: not mapped. */
  readonly va: VirtualAddress | null;
}

/** A page table: what level it is of (4 is the root), which addresses it covers, and its frame. */
export interface PageTable {
  readonly level: number;
  /** The first address it covers. */
  readonly va: VirtualAddress;
  readonly pfn: number;
}

export interface Layout {
  /** Frames of the domain. */
  readonly pages: number;
  readonly virtBase: VirtualAddress;
  /** Behind the last address of the bootstrap mapping. */
  readonly virtEnd: VirtualAddress;
  readonly ramdisk: Region | null;
  /** The list of frames; with INIT_P2M its page tables lie behind it and are counted in `pages`. */
  readonly p2m: Region;
  readonly startInfo: Region;
  readonly xenstore: Region;
  readonly console: Region;
  readonly pageTables: Region;
  readonly stack: Region;
  /** Behind the last frame that has something in it. */
  readonly end: number;
  /** All page tables: first those of the bootstrap mapping, the root before all. */
  readonly tables: readonly PageTable[];
}

/**
 * Lays a domain out.
 * @param ramdiskSize in bytes, 0: none
 * @param pages frames of the domain
 * @throws BuildError if that is more than the domain's memory
 */
export function layOut(kernel: KernelImage, ramdiskSize: number, pages: number): Layout {
  const { virtBase, initP2m, modStartPfn } = kernel.description;
  const ramdiskPages = Math.ceil(ramdiskSize / PAGE_SIZE);
  const p2mPages = Math.ceil((pages * P2M_ENTRY) / PAGE_SIZE);
  let next = Math.ceil(kernel.end / PAGE_SIZE);
  const take = (count: number, mapped: boolean): Region => {
    const region = { pfn: next, pages: count, va: mapped ? virtBase + next * PAGE_SIZE : null };
    next += count;
    return region;
  };
  let ramdisk = ramdiskPages > 0 && !modStartPfn ? take(ramdiskPages, true) : null;
  let p2m = initP2m === null ? take(p2mPages, true) : null;
  const startInfo = take(1, true);
  const xenstore = take(1, true);
  const console = take(1, true);

  // The page tables map themselves: grow the mapping until they fit into it.
  let virtEnd = alignUp(virtBase + next * PAGE_SIZE + ROOM_BEHIND);
  let wanted = tableRanges(virtBase, virtEnd);
  while (virtBase + (next + wanted.length + 1) * PAGE_SIZE + ROOM_BEHIND > virtEnd) {
    virtEnd += REGION_ALIGNMENT;
    wanted = tableRanges(virtBase, virtEnd);
  }
  if (virtBase < 0 && virtEnd > 0) {
    throw new BuildError(
      'the ramdisk is too large: this kernel wants it mapped, and it leaves no room for that',
    );
  }
  const pageTables = take(wanted.length, true);
  const stack = take(1, true);
  const tables = wanted.map((table, index) => ({ ...table, pfn: pageTables.pfn + index }));

  if (ramdiskPages > 0) ramdisk ??= take(ramdiskPages, false);
  if (initP2m !== null) {
    const have = new Set(tables.map(keyOf));
    const more = tableRanges(initP2m, initP2m + p2mPages * PAGE_SIZE).filter(
      (table) => !have.has(keyOf(table)),
    );
    p2m = { ...take(p2mPages + more.length, false), va: initP2m };
    for (const [index, table] of more.entries()) {
      tables.push({ ...table, pfn: p2m.pfn + p2mPages + index });
    }
  }
  if (next > pages) {
    const least = leastPages(next, p2mPages, pages);
    const parts = `the kernel takes ${mebibytes(kernel.end)}${ramdiskSize > 0 ? `, the ramdisk ${mebibytes(ramdiskSize)}` : ''}`;
    throw new BuildError(
      `not enough memory: the domain has ${mebibytes(pages * PAGE_SIZE)}, at least ${mebibytes(least * PAGE_SIZE)} is needed (${parts})`,
    );
  }
  return {
    pages,
    virtBase,
    virtEnd,
    ramdisk,
    p2m: p2m!,
    startInfo,
    xenstore,
    console,
    pageTables,
    stack,
    end: next,
    tables,
  };
}

/** The least memory, in frames, given what a too small domain would have needed: the frame list grows with it. */
function leastPages(needed: number, p2mPages: number, pages: number): number {
  let least = needed;
  while (needed - p2mPages + Math.ceil((Math.max(least, pages) * P2M_ENTRY) / PAGE_SIZE) > least) least++;
  return least;
}

function alignUp(va: VirtualAddress): VirtualAddress {
  return Math.ceil(va / REGION_ALIGNMENT) * REGION_ALIGNMENT;
}

function keyOf(table: { level: number; va: VirtualAddress }): string {
  return `${table.level} ${table.va}`;
}

/** The page tables that map [start, end): root first, then level by level, in the order of addresses. */
function tableRanges(start: VirtualAddress, end: VirtualAddress): { level: number; va: VirtualAddress }[] {
  const tables = [];
  for (let level = LEVELS; level > 0; level--) {
    const span = coverage(level);
    // The root covers everything; it is named by address 0 whichever half of the address space is mapped.
    if (level === LEVELS) tables.push({ level, va: 0 });
    else for (let va = Math.floor(start / span) * span; va < end; va += span) tables.push({ level, va });
  }
  return tables;
}

/** Bytes of virtual addresses that a table of a level covers. */
export function coverage(level: number): number {
  return PAGE_SIZE * PTES ** level;
}
