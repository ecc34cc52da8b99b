import { describe, expect, it } from 'vitest';
import { Access } from '../../x86/processor.ts';
import { Arguments, HypercallError, RESTART } from '../hypercall.ts';
import { GUEST_CONTEXT, VGCF } from '../public/arch-x86.ts';
import { ERRNO } from '../public/errno.ts';
import { MMU, MMUEXT, PTE, UVMF } from '../public/mmu.ts';
import { VCPUOP } from '../public/vcpu.ts';
import { DOMID } from '../public/xen.ts';
import { vcpuOp } from '../vcpu-op.ts';
import { FrameType } from './frame-table.ts';
import { mmuUpdate, updateVaMapping, updateVaMappingOtherdomain } from './mmu-update.ts';
import { mmuextOp } from './mmuext.ts';
import {
  addVcpu,
  boot,
  DIRECT_MAP,
  entryLow,
  hypercall,
  PAGE_RO,
  PAGE_RW,
  TABLE,
  testMachine,
} from './testing.ts';

const ARGS_PFN = 20;
const ARGS = DIRECT_MAP + ARGS_PFN * 4096;
const PDONE = ARGS + 0xf00;

function guest(count = 64) {
  const machine = testMachine({ maxPages: Math.max(count, 256) });
  const second = addVcpu(machine.domain, machine.processor);
  const layout = boot(machine, count);
  const { vcpu, domain } = machine;
  const dm = domain.memory;
  const words = (values: readonly number[], at = 0) =>
    machine.memory.u32.set(values, dm.linear(layout.pages[ARGS_PFN]!) / 4 + at / 4);
  /** One mmu_update. */
  const update = (
    mfn: number,
    index: number,
    low: number,
    high = 0,
    command: number = MMU.NORMAL_PT_UPDATE,
  ) => {
    words([((mfn << 12) | (index * 8) | command) >>> 0, mfn >>> 20, low, high]);
    return hypercall(vcpu, mmuUpdate, ARGS, 1, 0, DOMID.SELF);
  };
  /** One mmuext_op. */
  const ext = (command: number, arg1: number, arg2 = 0, foreign: number = DOMID.SELF) => {
    words([command, 0, arg1 >>> 0, Math.floor(arg1 / 2 ** 32), arg2 >>> 0, Math.floor(arg2 / 2 ** 32)]);
    return hypercall(vcpu, mmuextOp, ARGS, 1, 0, foreign);
  };
  const va = (pfn: number) => DIRECT_MAP + pfn * 4096;
  const set = (pfn: number, low: number, flags = 0) =>
    hypercall(vcpu, updateVaMapping, va(pfn), [low, 0], flags);
  const entry = (mfn: number, index: number) => machine.memory.u32[dm.linear(mfn) / 4 + index * 2]!;
  return { ...machine, ...layout, second, dm, words, update, ext, va, set, entry };
}

describe('mmu_update', () => {
  it('updates entries of tables of every level', () => {
    const { update, set, pages, l1, l2, l3, l4, dm, entry } = guest();
    const [a1, a2, a3] = [pages[10]!, pages[11]!, pages[12]!];
    for (const pfn of [10, 11, 12]) expect(set(pfn, entryLow(pages[pfn]!, PAGE_RO))).toBe(0);
    expect(update(l4, 5, entryLow(a3, TABLE))).toBe(0);
    expect(update(l3, 5, entryLow(a2, TABLE))).toBe(0);
    expect(update(l2, 5, entryLow(a1, TABLE))).toBe(0);
    expect(update(l1, 50, entryLow(pages[13]!, PAGE_RW))).toBe(0);
    expect(dm.table.type(a3)).toBe(FrameType.l3);
    expect(entry(l1, 50)).toBe(entryLow(pages[13]!, PAGE_RW));
    expect(dm.checkInvariants()).toEqual([]);
    expect(update(l2, 6, entryLow(a3, TABLE))).toBe(-ERRNO.EINVAL);
    expect(update(l4, 5, 0)).toBe(0);
    expect(dm.table.typeCounts[a3]).toBe(0);
    expect(dm.checkInvariants()).toEqual([]);
  });

  it('keeps the accessed and dirty bits that are asked to be kept', () => {
    const { update, pages, l1, entry } = guest();
    const page = pages[13]!;
    update(l1, 50, entryLow(page, PAGE_RW | PTE.DIRTY));
    expect(update(l1, 50, entryLow(page, PTE.PRESENT), 0, MMU.PT_UPDATE_PRESERVE_AD)).toBe(0);
    expect(entry(l1, 50)).toBe(entryLow(page, PTE.PRESENT | PTE.ACCESSED | PTE.DIRTY));
    expect(update(l1, 50, entryLow(page, PTE.PRESENT), 0, MMU.PT_UPDATE_NO_TRANSLATE)).toBe(0);
    expect(entry(l1, 50)).toBe(entryLow(page, PTE.PRESENT));
  });

  it('writes pages that are no tables like memory, but not descriptor tables', () => {
    const { update, pages, dm, entry } = guest();
    expect(update(pages[13]!, 7, 0x12345678, 0x9abcdef0)).toBe(0);
    expect(entry(pages[13]!, 7)).toBe(0x12345678);
    const gdt = pages[14]!;
    dm.pageTables.update(pages[3]!, 14, entryLow(gdt, PAGE_RO), 0);
    dm.getPageType(gdt, FrameType.segdesc);
    expect(update(gdt, 1, 1, 0)).toBe(-ERRNO.EINVAL);
    expect(dm.checkInvariants()).toEqual([]);
  });

  it('sets the machine-to-physical table, for its own frames', () => {
    const { update, pages, dm, vcpu } = guest();
    expect(update(pages[13]!, 0, 0xabc, 1, MMU.MACHPHYS_UPDATE)).toBe(0);
    expect(dm.m2p(pages[13]!)).toBe(0x1_0000_0abc);
    expect(update(dm.sharedInfoMfn, 0, 1, 0, MMU.MACHPHYS_UPDATE)).toBe(-ERRNO.EINVAL);
    expect(update(0xffffff, 0, 1, 0, MMU.MACHPHYS_UPDATE)).toBe(-ERRNO.EINVAL);
    expect(vcpu.kernelRoot).toBe(pages[0]);
  });

  it('stops at the first that fails, and says how many were done', () => {
    const { words, pages, l1, l2, vcpu, entry, memory, dm } = guest();
    const request = (index: number, mfn: number) => [(l1 << 12) | (index * 8), 0, entryLow(mfn, PAGE_RW), 0];
    words([...request(50, pages[13]!), ...request(51, l2), ...request(52, pages[13]!)]);
    expect(hypercall(vcpu, mmuUpdate, ARGS, 3, PDONE, DOMID.SELF)).toBe(-ERRNO.EBUSY);
    expect(memory.u32[dm.linear(pages[ARGS_PFN]!) / 4 + 0xf00 / 4]).toBe(1);
    expect(entry(l1, 50)).not.toBe(0);
    expect(entry(l1, 52)).toBe(entryLow(pages[52]!, PAGE_RW));
  });

  it('refuses commands, frames and domains that do not exist', () => {
    const { update, words, vcpu, l1 } = guest();
    for (const command of [4, 5, 6, 7]) expect(update(l1, 50, 0, 0, command)).toBe(-ERRNO.ENOSYS);
    for (const mfn of [0, 5, 0xfffff, 0xfffffff]) expect(update(mfn, 0, 0)).toBe(-ERRNO.EINVAL);
    words([(l1 << 12) | 400, 0xfff00000, 0, 0]);
    expect(hypercall(vcpu, mmuUpdate, ARGS, 1, 0, DOMID.SELF)).toBe(-ERRNO.EINVAL);
    const call = (foreign: number) => hypercall(vcpu, mmuUpdate, ARGS, 0, 0, foreign);
    expect(call(77)).toBe(-ERRNO.ESRCH);
    expect(call(vcpu.domain.id)).toBe(-ERRNO.ESRCH);
    expect(call(DOMID.XEN)).toBe(-ERRNO.EPERM);
    expect(call(DOMID.IO)).toBe(0);
    expect(call(DOMID.SELF | ((vcpu.domain.id + 1) << 16))).toBe(0);
    expect(call((DOMID.SELF | (78 << 16)) >>> 0)).toBe(-ERRNO.EINVAL);
  });

  it('faults on requests that are not there', () => {
    const { vcpu } = guest();
    for (const at of [0, ARGS + 4096 * 100, -(2 ** 47), 2 ** 60])
      expect(hypercall(vcpu, mmuUpdate, at, 1, 0, DOMID.SELF)).toBe(-ERRNO.EFAULT);
    expect(hypercall(vcpu, mmuUpdate, 0, 0, 0, DOMID.SELF)).toBe(0);
  });

  it('takes requests that cross pages and are not aligned', () => {
    const { vcpu, l1, entry, pages } = guest();
    // The next page of the direct map is the next of the machine, or not: write both halves apart.
    const bytes = new Uint8Array(
      new Uint32Array([(l1 << 12) | 400, 0, entryLow(pages[13]!, PAGE_RW), 0]).buffer,
    );
    vcpu.guest.copyTo(ARGS + 4096 - 5, bytes);
    expect(hypercall(vcpu, mmuUpdate, ARGS + 4096 - 5, 1, 0, DOMID.SELF)).toBe(0);
    expect(entry(l1, 50)).toBe(entryLow(pages[13]!, PAGE_RW));
  });

  it('pauses when there is much to do, and a huge count ends where its requests do', () => {
    const { vcpu, words, l1, memory, dm, pages } = guest();
    words(Array.from({ length: 200 }, () => [(l1 << 12) | 400, 0, 0, 0]).flat());
    const args = new Arguments();
    args.set(0, ARGS);
    args.set(1, 0x7fffffff);
    args.set(2, PDONE + 0x80);
    args.set(3, DOMID.SELF);
    expect(() => mmuUpdate(vcpu, args)).not.toThrow();
    const done = memory.u32[dm.linear(pages[ARGS_PFN]!) / 4 + 0xf80 / 4];
    expect(done).toBeGreaterThan(199);

    // Four pages of requests: more than one call does.
    const many = Array.from({ length: 256 }, () => [(l1 << 12) | 400, 0, 0, 0]).flat();
    for (let page = 30; page < 36; page++) memory.u32.set(many, dm.linear(pages[page]!) / 4);
    args.set(0, DIRECT_MAP + 30 * 4096);
    args.set(1, 256 * 6);
    let calls = 1;
    while (mmuUpdate(vcpu, args) === RESTART) calls++;
    expect(calls).toBe(2);
    expect(memory.u32[dm.linear(pages[ARGS_PFN]!) / 4 + 0xf80 / 4]).toBe(256 * 6);
  });
});

describe('update_va_mapping', () => {
  it('maps, remaps and unmaps, seen at once by all vCPUs', () => {
    const { set, va, pages, vcpu, second, processor, dm } = guest();
    dm.loadRoots(second, vcpu.kernelRoot, 0);
    const read = (cpu = vcpu.cpu) => processor.translate(cpu, va(40), Access.Read);
    expect(read()).toBe(dm.linear(pages[40]!));
    expect(read(second.cpu)).toBe(dm.linear(pages[40]!));
    const other = entryLow(pages[41]!, PAGE_RO);
    expect(set(40, other)).toBe(0);
    expect(read()).toBe(dm.linear(pages[41]!));
    expect(set(40, other, UVMF.INVLPG | UVMF.LOCAL)).toBe(0);
    expect(set(40, other, UVMF.INVLPG | UVMF.ALL)).toBe(0);
    expect(read(second.cpu)).toBe(dm.linear(pages[41]!));
    expect(set(40, 0, UVMF.TLB_FLUSH | UVMF.LOCAL)).toBe(0);
    expect(read()).toBe(0);
    // To the vCPUs of a bitmap.
    vcpu.guest.setU8(ARGS, 2);
    expect(hypercall(vcpu, updateVaMapping, va(40), 0, ARGS + UVMF.TLB_FLUSH)).toBe(0);
    expect(read(second.cpu)).toBe(0);
    expect(hypercall(vcpu, updateVaMapping, va(40), 0, 0x1000 + UVMF.TLB_FLUSH)).toBe(-ERRNO.EFAULT);
    expect(dm.checkInvariants()).toEqual([]);
  });

  it('refuses addresses without an L1 table, and the hypervisor’s', () => {
    const { vcpu, dm } = guest();
    for (const va of [0, -4096 * 1024, 2 ** 47, -(2 ** 47), -(2 ** 47) + 2 ** 39, 2 ** 62])
      expect(hypercall(vcpu, updateVaMapping, va, 0, UVMF.INVLPG)).toBe(-ERRNO.EINVAL);
    expect(dm.checkInvariants()).toEqual([]);
  });

  it('in its form for other domains has none to offer', () => {
    const { vcpu, va, pages } = guest();
    const call = (domid: number) =>
      hypercall(vcpu, updateVaMappingOtherdomain, va(40), [entryLow(pages[41]!, PAGE_RO), 0], 0, domid);
    expect(call(DOMID.SELF)).toBe(0);
    expect(call(99)).toBe(-ERRNO.ESRCH);
    expect(call(DOMID.IO)).toBe(-ERRNO.EPERM);
    expect(call(DOMID.XEN)).toBe(-ERRNO.EPERM);
  });
});

describe('mmuext_op', () => {
  it('pins and unpins', () => {
    const { ext, set, pages, dm } = guest();
    expect(ext(MMUEXT.PIN_L1_TABLE, pages[10]!)).toBe(-ERRNO.EBUSY);
    set(10, entryLow(pages[10]!, PAGE_RO));
    expect(ext(MMUEXT.PIN_L1_TABLE, pages[10]!)).toBe(0);
    expect(ext(MMUEXT.PIN_L1_TABLE, pages[10]!)).toBe(-ERRNO.EINVAL);
    expect(dm.checkInvariants()).toEqual([]);
    expect(ext(MMUEXT.UNPIN_TABLE, pages[10]!)).toBe(0);
    expect(ext(MMUEXT.UNPIN_TABLE, pages[10]!)).toBe(-ERRNO.EINVAL);
    for (const mfn of [0, dm.sharedInfoMfn, 2 ** 40, -1, 2 ** 52])
      expect(ext(MMUEXT.PIN_L4_TABLE, mfn)).toBe(-ERRNO.EINVAL);
  });

  it('pauses by the work that it does', () => {
    const { set, va, pages, vcpu, dm } = guest();
    set(10, entryLow(pages[10]!, PAGE_RO));
    const pair = [MMUEXT.PIN_L1_TABLE, MMUEXT.UNPIN_TABLE];
    const requests = Array.from({ length: 600 }, (_, i) => [pair[i & 1]!, 0, pages[10]!, 0, 0, 0]).flat();
    vcpu.guest.copyTo(va(30), new Uint8Array(new Uint32Array(requests).buffer));
    const args = new Arguments();
    args.set(0, va(30));
    args.set(1, 600);
    args.set(3, DOMID.SELF);
    for (let before = dm.pageTables.work; mmuextOp(vcpu, args) === RESTART; before = dm.pageTables.work)
      expect(dm.pageTables.work - before).toBeLessThan(64 * 512 + 2048);
    expect(dm.pageTables.work).toBeGreaterThanOrEqual(600 * 512);
  });

  describe('of a tree of many tables', () => {
    const TABLES = 300;

    /** An L2 table, not yet one, that names L1 tables, each full of read-only entries. */
    function tree() {
      const made = guest(TABLES + 40);
      const { set, pages, dm, memory, vcpu, words } = made;
      const [l2, ...l1s] = pages.slice(30, 31 + TABLES) as [number, ...number[]];
      const put = (mfn: number, index: number, low: number) => {
        memory.u32[dm.linear(mfn) / 4 + index * 2] = low;
      };
      l1s.forEach((mfn, index) => {
        for (let i = 0; i < 512; i++) put(mfn, i, entryLow(pages[25]!, PAGE_RO));
        put(l2, index, entryLow(mfn, TABLE));
      });
      for (let pfn = 30; pfn < 31 + TABLES; pfn++) set(pfn, entryLow(pages[pfn]!, PAGE_RO));
      const counts = () => pages.map((mfn) => [dm.table.references[mfn], dm.table.typeCounts[mfn]]);
      /** One call, as often as it restarts. @returns its result, and how often that was */
      const run = (command: number, mfn: number, pauses = 1000) => {
        words([command, 0, mfn, 0, 0, 0]);
        const args = new Arguments();
        args.set(0, ARGS);
        args.set(1, 1);
        args.set(3, DOMID.SELF);
        for (let paused = 0; ; paused++) {
          const before = dm.pageTables.work;
          const result = mmuextOp(vcpu, args);
          expect(dm.pageTables.work - before).toBeLessThan(64 * 512 + 2048);
          expect(dm.checkInvariants()).toEqual([]);
          if (result !== RESTART || paused === pauses) return { result, paused };
        }
      };
      return { ...made, l2, l1s, put, counts, run };
    }

    it('pauses, and comes to the same', () => {
      const { l2, l1s, counts, run, dm } = tree();
      const before = counts();
      const { result, paused } = run(MMUEXT.PIN_L2_TABLE, l2);
      expect(result).toBe(0);
      expect(paused).toBeGreaterThan(3);
      expect(l1s.every((mfn) => dm.table.typeCounts[mfn] === 1)).toBe(true);
      expect(dm.pageTables.held).toEqual([]);
      const unpinned = run(MMUEXT.UNPIN_TABLE, l2);
      expect(unpinned.result).toBe(0);
      expect(unpinned.paused).toBeGreaterThan(3);
      expect(counts()).toEqual(before);
    });

    it('that is given up leaves nothing behind', () => {
      const { l2, counts, run, second, dm } = tree();
      const before = counts();
      expect(run(MMUEXT.PIN_L2_TABLE, l2, 2).result).toBe(RESTART);
      expect(dm.pageTables.held.length).toBeGreaterThan(100);
      // Another vCPU's calls do not undo it; another one of the same vCPU does.
      hypercall(second, mmuextOp, ARGS, 0, 0, DOMID.SELF);
      expect(dm.pageTables.held.length).toBeGreaterThan(100);
      expect(run(MMUEXT.TLB_FLUSH_LOCAL, 0).result).toBe(0);
      expect(counts()).toEqual(before);
    });

    it('that fails is undone', () => {
      const { l2, l1s, put, counts, run } = tree();
      put(l1s.at(-1)!, 511, entryLow(l2, PAGE_RW));
      const before = counts();
      expect(run(MMUEXT.PIN_L2_TABLE, l2).result).toBe(-ERRNO.EINVAL);
      expect(run(MMUEXT.TLB_FLUSH_LOCAL, 0).result).toBe(0);
      expect(counts()).toEqual(before);
    });

    it('pauses when a vCPU is brought up with it', () => {
      const { l2, l1s, l4, put, set, counts, second, vcpu, va, pages, dm, memory } = tree();
      const [root, l3] = [pages[10]!, pages[11]!];
      put(root, 0, entryLow(l3, TABLE));
      put(l3, 0, entryLow(l2, TABLE));
      for (const pfn of [10, 11]) set(pfn, entryLow(pages[pfn]!, PAGE_RO));
      second.vcpuInfo = dm.sharedInfo;
      const context = new Uint32Array(GUEST_CONTEXT.size / 4);
      // The tree is its user mode's.
      context[GUEST_CONTEXT.flags / 4] = VGCF.in_kernel;
      context[(GUEST_CONTEXT.ctrlreg + 24) / 4] = l4 * 4096;
      context[(GUEST_CONTEXT.ctrlreg + 8) / 4] = root * 4096;
      for (const [index, pfn] of [12, 13].entries())
        memory.u32.set(context.subarray(index * 1024, (index + 1) * 1024), dm.linear(pages[pfn]!) / 4);
      const before = counts();
      const call = () => {
        const args = new Arguments();
        [VCPUOP.initialise, 1].forEach((value, index) => void args.set(index, value));
        args.set(2, va(12));
        const work = dm.pageTables.work;
        try {
          return vcpuOp(vcpu, args);
        } catch (error) {
          if (!(error instanceof HypercallError)) throw error;
          return -error.errno;
        } finally {
          expect(dm.pageTables.work - work).toBeLessThan(64 * 512 + 4096);
          expect(dm.checkInvariants()).toEqual([]);
        }
      };
      let paused = 0;
      while (call() === RESTART && paused < 1000) paused++;
      expect(second.initialised).toBe(true);
      expect(paused).toBeGreaterThan(3);
      expect([second.kernelRoot, second.userRoot]).toEqual([l4, root]);
      hypercall(vcpu, mmuextOp, ARGS, 0, 0, DOMID.SELF);
      expect(dm.pageTables.held).toEqual([]);
      expect(l1s.every((mfn) => dm.table.typeCounts[mfn] === 1)).toBe(true);
      dm.dropRoots(second);
      expect(counts()).toEqual(before);
    });

    it('is put back for a copy of the domain', () => {
      const { l2, counts, run, dm } = tree();
      const before = counts();
      run(MMUEXT.PIN_L2_TABLE, l2, 2);
      dm.pageTables.settleAll();
      expect(dm.checkInvariants()).toEqual([]);
      expect(counts()).toEqual(before);
      expect(run(MMUEXT.PIN_L2_TABLE, l2).result).toBe(0);
    });
  });

  it('loads root tables, and holds them while they are loaded', () => {
    const { ext, set, pages, vcpu, dm, l4, processor, va } = guest();
    const user = pages[10]!;
    set(10, entryLow(user, PAGE_RO));
    expect(ext(MMUEXT.NEW_USER_BASEPTR, user)).toBe(0);
    expect(vcpu.userRoot).toBe(user);
    expect(dm.table.type(user)).toBe(FrameType.l4);
    expect(ext(MMUEXT.NEW_BASEPTR, pages[11]!)).toBe(-ERRNO.EBUSY);
    expect(vcpu.kernelRoot).toBe(l4);
    expect(ext(MMUEXT.NEW_BASEPTR, 0)).toBe(-ERRNO.EINVAL);
    expect(ext(MMUEXT.NEW_BASEPTR, user)).toBe(0);
    expect(dm.table.typeCounts[user]).toBe(2);
    // That one maps nothing.
    expect(processor.translate(vcpu.cpu, va(0), Access.Read)).toBe(0);
    expect(hypercall(vcpu, mmuextOp, ARGS, 1, 0, DOMID.SELF)).toBe(-ERRNO.EFAULT);
    dm.loadRoots(vcpu, l4, user);
    expect(ext(MMUEXT.NEW_USER_BASEPTR, 0)).toBe(0);
    expect(vcpu.userRoot).toBe(0);
    expect(dm.table.typeCounts[user]).toBe(0);
    expect(dm.checkInvariants()).toEqual([]);
  });

  it('answers flushes; nothing was stale', () => {
    const { ext, va, processor, vcpu, second, dm, set } = guest();
    dm.loadRoots(second, vcpu.kernelRoot, 0);
    const reads = () => [vcpu, second].map(({ cpu }) => processor.translate(cpu, va(40), Access.Read) !== 0);
    reads();
    set(40, 0);
    expect(reads()).toEqual([false, false]);
    expect(ext(MMUEXT.INVLPG_LOCAL, va(40))).toBe(0);
    vcpu.guest.setU8(ARGS + 0x800, 2);
    expect(ext(MMUEXT.INVLPG_MULTI, va(40), ARGS + 0x800)).toBe(0);
    expect(ext(MMUEXT.INVLPG_MULTI, va(40), 8)).toBe(-ERRNO.EFAULT);
    for (const command of [MMUEXT.TLB_FLUSH_LOCAL, MMUEXT.TLB_FLUSH_ALL, MMUEXT.INVLPG_ALL])
      expect(ext(command, 2 ** 50)).toBe(0);
    expect(ext(MMUEXT.TLB_FLUSH_MULTI, 0, 8)).toBe(-ERRNO.EFAULT);
    for (const command of [MMUEXT.FLUSH_CACHE, MMUEXT.FLUSH_CACHE_GLOBAL])
      expect(ext(command, 0)).toBe(-ERRNO.EACCES);
  });

  it('clears and copies pages, but no page tables', () => {
    const { ext, pages, l1, memory, dm } = guest();
    memory.frame(dm.machineFrame(pages[30]!)).fill(0x5a);
    expect(ext(MMUEXT.COPY_PAGE, pages[31]!, pages[30]!)).toBe(0);
    expect(memory.frame(dm.machineFrame(pages[31]!)).every((byte) => byte === 0x5a)).toBe(true);
    expect(ext(MMUEXT.CLEAR_PAGE, pages[31]!)).toBe(0);
    expect(memory.frame(dm.machineFrame(pages[31]!)).every((byte) => byte === 0)).toBe(true);
    for (const mfn of [l1, dm.sharedInfoMfn, dm.machineToPhys.firstMfn, 0]) {
      expect(ext(MMUEXT.CLEAR_PAGE, mfn)).toBe(-ERRNO.EINVAL);
      expect(ext(MMUEXT.COPY_PAGE, mfn, pages[30]!)).toBe(-ERRNO.EINVAL);
    }
    expect(ext(MMUEXT.COPY_PAGE, pages[31]!, dm.sharedInfoMfn)).toBe(-ERRNO.EINVAL);
    expect(ext(MMUEXT.COPY_PAGE, pages[31]!, l1)).toBe(0);
    expect(dm.checkInvariants()).toEqual([]);
  });

  it('sets the LDT, and refuses what is none', () => {
    const { ext, vcpu, va } = guest();
    expect(ext(MMUEXT.SET_LDT, va(40), 8192)).toBe(0);
    expect([vcpu.ldtBase, vcpu.ldtEntries]).toEqual([va(40), 8192]);
    expect(ext(MMUEXT.SET_LDT, va(40), 8193)).toBe(-ERRNO.EINVAL);
    expect(ext(MMUEXT.SET_LDT, va(40) + 8, 1)).toBe(-ERRNO.EINVAL);
    expect(ext(MMUEXT.SET_LDT, 0, 0)).toBe(0);
    expect(vcpu.ldtEntries).toBe(0);
  });

  it('refuses the rest', () => {
    const { ext } = guest();
    expect(ext(MMUEXT.MARK_SUPER, 0)).toBe(-ERRNO.EOPNOTSUPP);
    expect(ext(MMUEXT.UNMARK_SUPER, 0)).toBe(-ERRNO.EOPNOTSUPP);
    for (const command of [14, 21, 0xffffffff]) expect(ext(command, 0)).toBe(-ERRNO.ENOSYS);
    expect(ext(MMUEXT.TLB_FLUSH_LOCAL, 0, 0, DOMID.IO)).toBe(-ERRNO.EPERM);
    expect(ext(MMUEXT.TLB_FLUSH_LOCAL, 0, 0, 5)).toBe(-ERRNO.ESRCH);
  });
});
