/**
 * The domain builder: makes a new domain's memory, address space and first virtual CPU what a kernel expects at its
 * start. Domain 0 does this, not the hypervisor: it asks for frames, fills them in the machine's memory, and gives
 * the page tables to the hypervisor, which validates them like any others.
 */
import { type Memory, PAGE_SIZE } from '../../machine/memory.ts';
import { high32, type VirtualAddress } from '../../x86/cpu.ts';
import { SHARE_MAX } from '../../xen/domctl.ts';
import type { StartState } from '../../xen/guest-context.ts';
import { PTE, PTE_SIZE, PTES } from '../../xen/public/mmu.ts';
import { SIF, START_INFO } from '../../xen/public/xen.ts';
import { BuildError } from './error.ts';
import type { KernelImage } from './image.ts';
import { coverage, type Layout, layOut, type Region } from './layout.ts';

/** What the builder asks of the hypervisor: a part of its control interface (src/xen/domctl.ts). */
export interface BuilderControl {
  getSpace(domid: number): Promise<{ frameTable: number; frameLimit: number }>;
  getDomainInfo(domid: number): Promise<{ sharedInfoMfn: number }>;
  populatePhysmap(domid: number, count: number, touched: number): Promise<{ mfns: number[] }>;
  sharePages(domid: number, first: number, count: number): Promise<unknown>;
  setM2pRange(domid: number, firstMfn: number, firstPfn: number, count: number): Promise<unknown>;
  setHypercallPage(domid: number, mfn: number): Promise<unknown>;
  evtchnAllocUnbound(domid: number): Promise<number>;
  setVcpuContext(domid: number, vcpu: number, start: StartState): Promise<unknown>;
}

export interface BuildRequest {
  readonly kernel: KernelImage;
  readonly ramdisk: Uint8Array | null;
  readonly cmdline: string;
  /** Frames of 4 KiB to give the domain. */
  readonly pages: number;
}

/** A page that guest and Domain 0 share, and the guest's event channel that goes with it. */
export interface SharedRing {
  readonly mfn: number;
  /** The linear address of the page in the machine's memory. */
  readonly address: number;
  readonly port: number;
}

export interface BuiltDomain {
  readonly layout: Layout;
  readonly console: SharedRing;
  readonly xenstore: SharedRing;
  /** Frame number (mfn) of start_info. */
  readonly startInfoMfn: number;
}

const MAGIC = 'xen-3.0-x86_64';
const TABLE_FLAGS = PTE.PRESENT | PTE.RW | PTE.USER | PTE.ACCESSED | PTE.DIRTY;
const PAGE_FLAGS = PTE.PRESENT | PTE.RW | PTE.USER | PTE.ACCESSED | PTE.DIRTY;

/**
 * Checks what can be checked without a domain: that kernel, ramdisk and command line fit.
 * @throws BuildError
 */
export function planDomain({ kernel, ramdisk, cmdline, pages }: BuildRequest): Layout {
  const bytes = new TextEncoder().encode(cmdline).length;
  if (bytes >= START_INFO.cmdLineLength) {
    throw new BuildError(
      `the command line is too long: ${bytes} bytes, at most ${START_INFO.cmdLineLength - 1} are possible`,
    );
  }
  return layOut(kernel, ramdisk?.length ?? 0, pages);
}

/**
 * Builds a domain that was just created and is paused, and owns no memory yet. The caller unpauses it.
 * @throws BuildError where the request does not fit; what the control interface throws
 */
export async function buildDomain(
  memory: Memory,
  control: BuilderControl,
  domid: number,
  request: BuildRequest,
): Promise<BuiltDomain> {
  const { kernel, ramdisk, cmdline, pages } = request;
  const { description } = kernel;
  const layout = planDomain(request);
  const { mfns } = await control.populatePhysmap(domid, pages, layout.end);
  const [space, info, consolePort, xenstorePort] = await Promise.all([
    control.getSpace(domid),
    control.getDomainInfo(domid),
    control.evtchnAllocUnbound(domid),
    control.evtchnAllocUnbound(domid),
  ]);
  const target = new Target(memory, space.frameTable, mfns);

  for (const piece of kernel.pieces) target.write(piece.address, piece.bytes);
  if (layout.ramdisk) target.write(layout.ramdisk.pfn * PAGE_SIZE, ramdisk!);
  mfns.forEach((mfn, pfn) => {
    target.put64(layout.p2m.pfn * PAGE_SIZE + pfn * 8, mfn);
  });
  const ring = (region: Region, port: number): SharedRing => ({
    mfn: mfns[region.pfn]!,
    address: target.address(region.pfn * PAGE_SIZE),
    port,
  });
  const console = ring(layout.console, consolePort);
  const xenstore = ring(layout.xenstore, xenstorePort);
  writeStartInfo(target, layout, {
    cmdline,
    ramdiskSize: ramdisk?.length ?? 0,
    sharedInfoMfn: info.sharedInfoMfn,
    console,
    xenstore,
  });
  writePageTables(target, layout);

  for (const run of runs(mfns)) await control.setM2pRange(domid, run.mfn, run.pfn, run.count);
  if (description.hypercallPage !== null) {
    const pfn = (description.hypercallPage - description.virtBase) / PAGE_SIZE;
    await control.setHypercallPage(domid, mfns[pfn]!);
  }
  await control.setVcpuContext(domid, 0, {
    rip: description.entry,
    rsp: layout.stack.va! + PAGE_SIZE,
    rsi: layout.startInfo.va!,
    root: mfns[layout.pageTables.pfn]!,
  });
  // Other domains may have been made of the same files.
  const image = mfns.slice(0, Math.ceil(kernel.end / PAGE_SIZE));
  if (layout.ramdisk)
    image.push(...mfns.slice(layout.ramdisk.pfn, layout.ramdisk.pfn + layout.ramdisk.pages));
  for (const run of runs(image))
    for (let at = 0; at < run.count; at += SHARE_MAX)
      await control.sharePages(domid, run.mfn + at, Math.min(run.count - at, SHARE_MAX));
  return { layout, console, xenstore, startInfoMfn: mfns[layout.startInfo.pfn]! };
}

/** The memory of a domain, by pseudo-physical addresses. */
class Target {
  readonly memory: Memory;
  readonly mfns: readonly number[];
  private readonly frameTable: number;

  constructor(memory: Memory, frameTable: number, mfns: readonly number[]) {
    this.memory = memory;
    this.frameTable = frameTable;
    this.mfns = mfns;
  }

  /** The linear address of a pseudo-physical one, valid to the end of its frame. */
  address(physical: number): number {
    const mfn = this.mfns[Math.floor(physical / PAGE_SIZE)]!;
    const frame = this.memory.u32[(this.frameTable >>> 2) + mfn]!;
    if (!frame) throw new Error(`frame ${mfn} of the domain has no memory`);
    return frame * PAGE_SIZE + (physical % PAGE_SIZE);
  }

  write(physical: number, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const size = Math.min(bytes.length - at, PAGE_SIZE - ((physical + at) % PAGE_SIZE));
      this.memory.u8.set(bytes.subarray(at, at + size), this.address(physical + at));
      at += size;
    }
  }

  put32(physical: number, value: number): void {
    this.memory.write32(this.address(physical), value);
  }

  put64(physical: number, value: number): void {
    this.put32(physical, value >>> 0);
    this.put32(physical + 4, high32(value));
  }
}

function writeStartInfo(
  target: Target,
  layout: Layout,
  info: {
    cmdline: string;
    ramdiskSize: number;
    sharedInfoMfn: number;
    console: SharedRing;
    xenstore: SharedRing;
  },
): void {
  const base = layout.startInfo.pfn * PAGE_SIZE;
  const text = new TextEncoder();
  const { ramdisk, p2m } = layout;
  const byFrame = ramdisk !== null && ramdisk.va === null;
  // Telling Linux that a mapped list of frames is enough spares it a second tree of them.
  const flags = SIF.VIRT_P2M_4TOOLS | (byFrame ? SIF.MOD_START_PFN : 0);
  const put = (field: number, value: number) => target.put64(base + field, value);
  target.write(base + START_INFO.magic, text.encode(MAGIC));
  put(START_INFO.nr_pages, layout.pages);
  put(START_INFO.shared_info, info.sharedInfoMfn * PAGE_SIZE);
  target.put32(base + START_INFO.flags, flags);
  put(START_INFO.store_mfn, info.xenstore.mfn);
  target.put32(base + START_INFO.store_evtchn, info.xenstore.port);
  put(START_INFO.console_mfn, info.console.mfn);
  target.put32(base + START_INFO.console_evtchn, info.console.port);
  put(START_INFO.pt_base, layout.pageTables.va!);
  put(START_INFO.nr_pt_frames, layout.pageTables.pages);
  put(START_INFO.mfn_list, p2m.va!);
  if (ramdisk) {
    put(START_INFO.mod_start, ramdisk.va ?? ramdisk.pfn);
    put(START_INFO.mod_len, info.ramdiskSize);
  }
  target.write(base + START_INFO.cmd_line, text.encode(info.cmdline));
  put(START_INFO.first_p2m_pfn, p2m.pfn);
  put(START_INFO.nr_p2m_frames, p2m.pages);
}

/**
 * Fills the page tables. A page table is never mapped writable, wherever it lies: the hypervisor would refuse it.
 */
function writePageTables(target: Target, layout: Layout): void {
  const { tables, p2m, virtBase, virtEnd, pages } = layout;
  const frames = new Set(tables.map(({ pfn }) => pfn));
  const entry = (table: number, index: number, pfn: number, flags: number) => {
    target.put64(table * PAGE_SIZE + index * PTE_SIZE, target.mfns[pfn]! * PAGE_SIZE + flags);
  };
  const p2mApart = p2m.va! < virtBase || p2m.va! >= virtEnd;
  const listPages = Math.ceil((pages * 8) / PAGE_SIZE);
  for (const { level, va, pfn } of tables) {
    if (level === 1) {
      for (let index = 0; index < PTES; index++) {
        const page = va + index * PAGE_SIZE;
        let mapped = -1;
        if (page >= virtBase && page < virtEnd) mapped = (page - virtBase) / PAGE_SIZE;
        else if (p2mApart && page >= p2m.va! && page < p2m.va! + listPages * PAGE_SIZE) {
          mapped = p2m.pfn + (page - p2m.va!) / PAGE_SIZE;
        }
        // The bootstrap mapping may go on beyond the end of a small domain's memory.
        if (mapped < 0 || mapped >= pages) continue;
        entry(pfn, index, mapped, frames.has(mapped) ? PAGE_FLAGS & ~PTE.RW : PAGE_FLAGS);
      }
    } else {
      const span = coverage(level - 1);
      for (const child of tables) {
        if (child.level !== level - 1 || parentAddress(child.level, child.va) !== va) continue;
        entry(pfn, Math.floor(child.va / span) & (PTES - 1), child.pfn, TABLE_FLAGS);
      }
    }
  }
}

/** The address by which the table above is known: the root's is 0. */
function parentAddress(level: number, va: VirtualAddress): VirtualAddress {
  const span = coverage(level + 1);
  return level === 3 ? 0 : Math.floor(va / span) * span;
}

/** Runs of consecutive frame numbers in a list. */
function runs(mfns: readonly number[]): { mfn: number; pfn: number; count: number }[] {
  const found: { mfn: number; pfn: number; count: number }[] = [];
  mfns.forEach((mfn, pfn) => {
    const last = found.at(-1);
    if (last && last.mfn + last.count === mfn) last.count++;
    else found.push({ mfn, pfn, count: 1 });
  });
  return found;
}
