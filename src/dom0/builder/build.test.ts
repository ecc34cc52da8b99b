import { describe, expect, it } from 'vitest';
import { Frames } from '../../machine/frames.ts';
import { Memory, PAGE_SIZE } from '../../machine/memory.ts';
import type { StartState } from '../../xen/guest-context.ts';
import { ELFNOTE } from '../../xen/public/elfnote.ts';
import { SIF, START_INFO } from '../../xen/public/xen.ts';
import { type BuilderControl, buildDomain, planDomain } from './build.ts';
import { BuildError } from './error.ts';
import { readKernel } from './image.ts';
import { TEST_BASE, testKernel } from './test-kernels.ts';

const FIRST_MFN = 5000;
const SHARED_INFO = 4;

/** A hypervisor's control interface over plain frames: mfns run downward, so that none equals its pfn. */
class FakeControl implements BuilderControl {
  readonly memory = Memory.create(64 << 20);
  readonly frames = new Frames(this.memory);
  readonly table = this.frames.allocContiguous(16) * PAGE_SIZE;
  readonly m2p = new Map<number, number>();
  context: StartState | null = null;
  hypercallPage: number | null = null;
  /** Behind all pages that the builder does not say it writes to. */
  readonly zeros = this.frames.alloc();
  readonly shared = new Set<number>();
  private ports = 0;

  linear(mfn: number): number {
    return this.memory.u32[this.table / 4 + mfn]! * PAGE_SIZE;
  }
  async getSpace() {
    return { frameTable: this.table, frameLimit: 16384 };
  }
  async getDomainInfo() {
    return { sharedInfoMfn: SHARED_INFO };
  }
  async populatePhysmap(_domid: number, count: number, touched: number) {
    const mfns = Array.from({ length: count }, (_, index) => FIRST_MFN + count - index);
    for (const [index, mfn] of mfns.entries())
      this.memory.u32[this.table / 4 + mfn] = index < touched ? this.frames.alloc() : this.zeros;
    return { mfns };
  }
  async sharePages(_domid: number, first: number, count: number) {
    for (let mfn = first; mfn < first + count; mfn++) this.shared.add(mfn);
  }
  async setM2pRange(_domid: number, firstMfn: number, firstPfn: number, count: number) {
    for (let i = 0; i < count; i++) this.m2p.set(firstMfn + i, firstPfn + i);
  }
  async setHypercallPage(_domid: number, mfn: number) {
    this.hypercallPage = mfn;
  }
  async evtchnAllocUnbound() {
    return ++this.ports;
  }
  async setVcpuContext(_domid: number, _vcpu: number, context: StartState) {
    this.context = context;
  }
  /** Walks the page tables: the entry of the last level as [mfn, flags], or null. */
  walk(va: bigint): { mfn: number; writable: boolean } | null {
    let mfn = this.context!.root;
    for (let level = 4; ; level--) {
      const index = Number((BigInt.asUintN(64, va) >> BigInt(12 + 9 * (level - 1))) & 511n);
      const entry = this.memory.read64(this.linear(mfn) + index * 8);
      if ((entry & 1n) === 0n) return null;
      mfn = Number((entry >> 12n) & 0xffffffffffn);
      if (level === 1) return { mfn, writable: (entry & 2n) !== 0n };
    }
  }
  u64(va: bigint): bigint {
    return this.memory.read64(this.linear(this.walk(va)!.mfn) + Number(va & 0xfffn));
  }
  bytes(va: bigint, length: number): Uint8Array {
    const at = this.linear(this.walk(va)!.mfn) + Number(va & 0xfffn);
    return this.memory.u8.slice(at, at + length);
  }
}

const ramdisk = Uint8Array.from({ length: 9000 }, (_, index) => index * 13);

async function build(options: {
  notes?: [number, bigint | number | string][];
  pages?: number;
  ramdisk?: Uint8Array | null;
}) {
  const control = new FakeControl();
  const kernel = readKernel(
    testKernel({
      notes: [
        [ELFNOTE.VIRT_BASE, TEST_BASE],
        [ELFNOTE.ENTRY, TEST_BASE + 0x100010n],
        ...(options.notes ?? []),
      ],
    }),
  );
  const pages = options.pages ?? 2048;
  const built = await buildDomain(control.memory, control, 1, {
    kernel,
    ramdisk: options.ramdisk === undefined ? ramdisk : options.ramdisk,
    cmdline: 'console=hvc0 quiet',
    pages,
  });
  const context = control.context!;
  const info = (field: number) => control.u64(BigInt(context.rsi) + BigInt(field));
  return { control, built, context, info, pages };
}

/** What must hold of every domain. */
function checkInvariants({ control, built, context, info, pages }: Awaited<ReturnType<typeof build>>): void {
  const { layout } = built;
  // What it did not announce it did not write to; what Domain 0 goes on writing to is not shared, nor are tables.
  expect(control.memory.frame(control.zeros).every((byte) => byte === 0)).toBe(true);
  for (const mfn of [built.console.mfn, built.xenstore.mfn, built.startInfoMfn, context.root])
    expect(control.shared.has(mfn)).toBe(false);
  expect(control.shared.size).toBeGreaterThan(0);
  const base = BigInt(layout.virtBase);
  const tablePfns = new Set(layout.tables.map(({ pfn }) => pfn));
  // The bootstrap mapping is the first pseudo-physical frames in order, page tables read-only.
  for (let pfn = 0; pfn < (layout.virtEnd - layout.virtBase) / PAGE_SIZE; pfn++) {
    const page = control.walk(base + BigInt(pfn * PAGE_SIZE));
    if (pfn >= pages) expect(page).toBeNull();
    else {
      expect(control.m2p.get(page!.mfn)).toBe(pfn);
      expect(page!.writable).toBe(!tablePfns.has(pfn));
    }
  }
  expect(Math.abs(layout.virtEnd % (4 << 20))).toBe(0);
  expect(layout.virtEnd - (layout.stack.va! + PAGE_SIZE)).toBeGreaterThanOrEqual(512 << 10);
  // The list of frames is the inverse of the machine-to-physical table.
  const list = info(START_INFO.mfn_list);
  for (let pfn = 0; pfn < pages; pfn++) {
    expect(control.m2p.get(Number(control.u64(BigInt.asIntN(64, list) + BigInt(pfn * 8))))).toBe(pfn);
  }
  expect(info(START_INFO.first_p2m_pfn)).toBe(BigInt(layout.p2m.pfn));
  expect(info(START_INFO.nr_p2m_frames)).toBe(BigInt(layout.p2m.pages));
  expect(info(START_INFO.nr_pages)).toBe(BigInt(pages));
  expect(info(START_INFO.shared_info)).toBe(BigInt(SHARED_INFO * PAGE_SIZE));
  expect(BigInt.asIntN(64, info(START_INFO.pt_base))).toBe(BigInt(layout.pageTables.va!));
  expect(info(START_INFO.nr_pt_frames)).toBe(BigInt(layout.pageTables.pages));
  expect(control.walk(BigInt(layout.pageTables.va!))!.mfn).toBe(context.root);
  expect(info(START_INFO.console_mfn)).toBe(BigInt(built.console.mfn));
  expect(info(START_INFO.store_mfn)).toBe(BigInt(built.xenstore.mfn));
  expect(control.linear(built.console.mfn)).toBe(built.console.address);
  expect(context.rsp).toBe(layout.stack.va! + PAGE_SIZE);
  // Nothing overlaps.
  const regions = [
    layout.startInfo,
    layout.xenstore,
    layout.console,
    layout.pageTables,
    layout.stack,
    layout.p2m,
  ];
  if (layout.ramdisk) regions.push(layout.ramdisk);
  const used = regions.flatMap(({ pfn, pages: count }) => Array.from({ length: count }, (_, i) => pfn + i));
  expect(new Set(used).size).toBe(used.length);
  expect(Math.min(...used)).toBeGreaterThanOrEqual(0x103);
}

describe('a built domain', () => {
  it('has ramdisk and frame list mapped behind the kernel', async () => {
    const domain = await build({});
    checkInvariants(domain);
    const { control, info, context } = domain;
    const text = new TextDecoder().decode(control.bytes(BigInt(context.rsi), 15));
    expect(text).toBe('xen-3.0-x86_64\0');
    const cmdline = control.bytes(BigInt(context.rsi + START_INFO.cmd_line), 19);
    expect(new TextDecoder().decode(cmdline)).toBe('console=hvc0 quiet\0');
    expect(Number(info(START_INFO.flags) & 0xffffffffn) & SIF.MOD_START_PFN).toBe(0);
    const start = BigInt.asIntN(64, info(START_INFO.mod_start));
    expect(info(START_INFO.mod_len)).toBe(9000n);
    expect(control.bytes(start, 4096)).toEqual(ramdisk.slice(0, 4096));
    expect(control.bytes(start + 8192n, 808)).toEqual(ramdisk.slice(8192));
    expect(context.rip).toBe(Number(BigInt.asIntN(64, TEST_BASE)) + 0x100010);
    expect(control.bytes(BigInt.asIntN(64, TEST_BASE) + 0x100000n, 4096)[3]).toBe(21);
    expect(control.hypercallPage).toBeNull();
  });

  it('has the ramdisk unmapped and the frame list elsewhere where the kernel says so', async () => {
    const domain = await build({
      notes: [
        [ELFNOTE.INIT_P2M, 0x8000000000n],
        [ELFNOTE.MOD_START_PFN, 1],
      ],
    });
    checkInvariants(domain);
    const { control, info, built } = domain;
    expect(info(START_INFO.mfn_list)).toBe(0x8000000000n);
    expect(Number(info(START_INFO.flags) & 0xffffffffn) & SIF.MOD_START_PFN).toBe(SIF.MOD_START_PFN);
    const pfn = Number(info(START_INFO.mod_start));
    expect(pfn).toBe(built.layout.ramdisk!.pfn);
    const mfn = FIRST_MFN + domain.pages - pfn;
    expect(control.memory.u8.slice(control.linear(mfn), control.linear(mfn) + 4096)).toEqual(
      ramdisk.slice(0, 4096),
    );
    // The list's own page tables are behind it and counted.
    expect(built.layout.p2m.pages).toBe((2048 * 8) / 4096 + 3);
  });

  it('gets a hypercall page where it asks for one', async () => {
    const domain = await build({ notes: [[ELFNOTE.HYPERCALL_PAGE, TEST_BASE + 0x101000n]], ramdisk: null });
    checkInvariants(domain);
    expect(domain.control.m2p.get(domain.control.hypercallPage!)).toBe(0x101);
    expect(domain.info(START_INFO.mod_start)).toBe(0n);
  });

  it('may have less memory than the bootstrap mapping covers', async () => {
    const domain = await build({ pages: 400, ramdisk: null });
    checkInvariants(domain);
    expect(domain.built.layout.virtEnd - domain.built.layout.virtBase).toBeGreaterThan(400 * PAGE_SIZE);
  });
});

describe('a domain that cannot be', () => {
  const kernel = readKernel(testKernel());
  const plan = (change: object) => () =>
    planDomain({ kernel, ramdisk: null, cmdline: '', pages: 2048, ...change });

  it('needs more memory: the message says how much, and that much is enough', () => {
    expect(plan({ pages: 100 })).toThrow(BuildError);
    expect(plan({ pages: 100 })).toThrow(/the domain has 1 MiB, at least 2 MiB is needed/);
    expect(plan({ pages: 512 })).not.toThrow();
    const big = new Uint8Array(200 << 20);
    expect(plan({ ramdisk: big })).toThrow(/domain has 8 MiB, at least (\d+) MiB is needed.*ramdisk 200 MiB/);
    const least = Number(/least (\d+) MiB/.exec(messageOf(plan({ ramdisk: big })))![1]);
    expect(plan({ ramdisk: big, pages: least * 256 })).not.toThrow();
    expect(plan({ ramdisk: big, pages: (least - 1) * 256 })).toThrow(BuildError);
  });

  it('has a command line that does not fit', () => {
    expect(plan({ cmdline: 'x'.repeat(1023) })).not.toThrow();
    expect(plan({ cmdline: 'x'.repeat(1024) })).toThrow(/command line is too long: 1024 bytes, at most 1023/);
    expect(plan({ cmdline: 'é'.repeat(512) })).toThrow(BuildError);
  });
});

function messageOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    return (error as Error).message;
  }
  return '';
}
