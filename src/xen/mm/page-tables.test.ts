import { describe, expect, it } from 'vitest';
import { Access } from '../../x86/processor.ts';
import { HypercallError } from '../hypercall.ts';
import { ERRNO } from '../public/errno.ts';
import { PTE, XEN_FIRST_SLOT } from '../public/mmu.ts';
import { MACH2PHYS_VIRT_START } from '../public/xen.ts';
import { COUNT_MAX, FrameType, VALIDATED } from './frame-table.ts';
import { boot, DIRECT_MAP, entryLow, PAGE_RO, PAGE_RW, poke, TABLE, testMachine } from './testing.ts';
import { tableIndex } from './walk.ts';

function booted(count = 32) {
  const machine = testMachine();
  const layout = boot(machine, count);
  const { memory } = machine.domain;
  const { table, pageTables } = memory;
  expect(memory.checkInvariants()).toEqual([]);
  /** Types, counts and references of everything, to compare. */
  const snapshot = () => [
    Array.from(table.references),
    Array.from(table.typeCounts),
    Array.from(table.states, (state, mfn) =>
      table.typeCounts[mfn] === 0 ? state & ~(7 | VALIDATED) : state,
    ),
  ];
  /** Makes a page read-only in the direct map. */
  const protect = (mfn: number) =>
    pageTables.update(layout.l1, layout.pages.indexOf(mfn), entryLow(mfn, PAGE_RO), 0);
  return { ...machine, ...layout, dm: memory, table, pageTables, snapshot, protect };
}

describe('validation', () => {
  it('counts each reference of a booted address space', () => {
    const { table, l4, l3, l1, free } = booted();
    expect(table.type(l4)).toBe(FrameType.l4);
    // Pinned and loaded.
    expect(table.typeCounts[l4]).toBe(2);
    expect(table.typeCounts[l3]).toBe(1);
    expect(table.type(l1)).toBe(FrameType.l1);
    // The domain's claim, the L2 entry, the read-only mapping.
    expect(table.references[l1]).toBe(3);
    expect(table.type(free[0]!)).toBe(FrameType.writable);
  });

  it('refuses a writable mapping of a page table, in the table itself too', () => {
    const { pageTables, dm, l1, l2, free, protect } = booted();
    for (const mfn of [l1, l2])
      expect(pageTables.update(l1, 40, entryLow(mfn, PAGE_RW), 0)).toBe(-ERRNO.EBUSY);
    const fresh = free[0]!;
    poke(dm, fresh, 7, entryLow(fresh, PAGE_RW));
    expect(protect(fresh)).toBe(0);
    expect(dm.pin(fresh, FrameType.l1)).toBe(-ERRNO.EBUSY);
    expect(dm.checkInvariants()).toEqual([]);
  });

  it('refuses a table that is mapped writable', () => {
    const { dm, free, protect } = booted();
    expect(dm.pin(free[0]!, FrameType.l1)).toBe(-ERRNO.EBUSY);
    protect(free[0]!);
    expect(dm.pin(free[0]!, FrameType.l1)).toBe(0);
    expect(dm.pin(free[0]!, FrameType.l1)).toBe(-ERRNO.EINVAL);
    expect(dm.pin(free[0]!, FrameType.l2)).toBe(-ERRNO.EBUSY);
    expect(dm.checkInvariants()).toEqual([]);
  });

  it.each([
    ['beyond the table', 0xfffff000 | PAGE_RO, 0, ERRNO.EPERM],
    ['with high address bits', entryLow(300, PAGE_RO), 0x100, ERRNO.EPERM],
    ['with the highest address bit', entryLow(300, PAGE_RO), 0x80000, ERRNO.EPERM],
    ['of an unused number', entryLow(3, PAGE_RO), 0, ERRNO.EPERM],
    ['of a free number', entryLow(0x100 + 100, PAGE_RO), 0, ERRNO.EPERM],
  ])('refuses an L1 entry %s', (_, low, high, errno) => {
    const { pageTables, l1, snapshot } = booted();
    const before = snapshot();
    expect(pageTables.update(l1, 40, low, high)).toBe(-errno);
    expect(snapshot()).toEqual(before);
  });

  it('allows software, caching, global and no-execute bits in L1 entries', () => {
    const { pageTables, dm, l1, free } = booted();
    const flags = PAGE_RW | PTE.PAT | PTE.PCD | PTE.PWT | PTE.GLOBAL | PTE.AVAIL | PTE.DIRTY;
    expect(pageTables.update(l1, 40, entryLow(free[0]!, flags), 0xfff00000)).toBe(0);
    expect(dm.checkInvariants()).toEqual([]);
  });

  it('takes anything that is not present', () => {
    const { pageTables, l1, l2, snapshot } = booted();
    const before = snapshot();
    for (const table of [l1, l2]) expect(pageTables.update(table, 40, 0xfffffffe, 0xffffffff)).toBe(0);
    expect(snapshot()).toEqual(before);
  });

  it('refuses large pages', () => {
    const { pageTables, dm, l2, l3, l4, free, protect } = booted();
    protect(free[0]!);
    for (const table of [l2, l3, l4])
      expect(pageTables.update(table, 9, entryLow(free[0]!, TABLE | PTE.PSE), 0)).toBe(-ERRNO.EINVAL);
    // Nor may it come by a change of flags alone.
    expect(pageTables.update(l2, 9, entryLow(free[0]!, TABLE), 0)).toBe(0);
    expect(pageTables.update(l2, 9, entryLow(free[0]!, TABLE | PTE.PSE), 0)).toBe(-ERRNO.EINVAL);
    expect(dm.checkInvariants()).toEqual([]);
  });

  it('undoes a promotion that fails half-way, down to the last table', () => {
    const { dm, free, protect, snapshot, processor } = booted();
    const [a4, a3, a2, a1, b1, page] = free as [number, number, number, number, number, number];
    for (const mfn of [a4, a3, a2, a1, b1]) protect(mfn);
    poke(dm, a4, 0, entryLow(a3, TABLE));
    poke(dm, a3, 1, entryLow(a2, TABLE));
    poke(dm, a2, 2, entryLow(a1, TABLE));
    poke(dm, a2, 3, entryLow(a1, TABLE));
    poke(dm, a2, 4, entryLow(b1, TABLE));
    for (let i = 0; i < 511; i++) poke(dm, a1, i, entryLow(page, i & 1 ? PAGE_RW : PAGE_RO));
    for (let i = 0; i < 511; i++) poke(dm, b1, i, entryLow(page, i & 1 ? PAGE_RW : PAGE_RO));
    poke(dm, b1, 511, entryLow(a4, PAGE_RW));
    const before = snapshot();
    expect(dm.pin(a4, FrameType.l4)).toBe(-ERRNO.EINVAL);
    expect(snapshot()).toEqual(before);
    expect(dm.checkInvariants()).toEqual([]);
    poke(dm, b1, 511, 0);
    expect(dm.pin(a4, FrameType.l4)).toBe(0);
    expect(dm.table.typeCounts[page]).toBe(1 + 2 * 255);
    expect(dm.checkInvariants()).toEqual([]);
    expect(processor.leaks(dm)).toEqual([]);
    expect(dm.unpin(a4)).toBe(0);
    expect(snapshot()).toEqual(before);
  });

  it('leaves no stale TLB entry that could write when a page becomes a table', () => {
    const { dm, vcpu, processor, pages, free, protect } = booted();
    const page = free[3]!;
    const va = DIRECT_MAP + pages.indexOf(page) * 4096;
    expect(processor.translate(vcpu.cpu, va, Access.Write)).toBe(dm.linear(page));
    protect(page);
    // No flush was asked for, but the entry is gone.
    expect(processor.translate(vcpu.cpu, va, Access.Write)).toBe(0);
    expect(dm.pin(page, FrameType.l1)).toBe(0);
    expect(processor.leaks(dm)).toEqual([]);
    expect(processor.translate(vcpu.cpu, va, Access.Write)).toBe(0);
  });

  it('refuses to count further than it can', () => {
    const { table, pageTables, l1, l2, free, protect, dm } = booted();
    const [page, inner] = free as [number, number];
    protect(inner);
    expect(dm.pin(inner, FrameType.l1)).toBe(0);
    table.references[page] = COUNT_MAX;
    for (const flags of [PAGE_RO, PAGE_RW])
      expect(pageTables.update(l1, 50, entryLow(page, flags), 0)).toBe(-ERRNO.EBUSY);
    expect(() => dm.getPage(page)).toThrow(HypercallError);
    table.references[page] = 2;
    table.typeCounts[page] = COUNT_MAX;
    expect(pageTables.update(l1, 50, entryLow(page, PAGE_RW), 0)).toBe(-ERRNO.EBUSY);
    table.typeCounts[page] = 1;
    table.typeCounts[inner] = COUNT_MAX;
    expect(pageTables.update(l2, 50, entryLow(inner, TABLE), 0)).toBe(-ERRNO.EINVAL);
    table.typeCounts[inner] = 1;
    expect(dm.checkInvariants()).toEqual([]);
  });

  it('has the processor forget an entry that walks passed, and only then', () => {
    const { pageTables, processor, l1, free } = booted();
    const { calls } = processor;
    const forgets = (low: number, high = 0) => {
      const before = calls.entryChanged;
      expect(pageTables.update(l1, 50, low, high)).toBe(0);
      return calls.entryChanged !== before;
    };
    expect(forgets(0x1000)).toBe(false);
    expect(forgets(entryLow(free[0]!, PAGE_RO))).toBe(false);
    expect(forgets(entryLow(free[0]!, PAGE_RO))).toBe(false);
    expect(forgets(entryLow(free[0]!, PAGE_RO), 0x80000000)).toBe(true);
    expect(forgets(entryLow(free[0]!, PAGE_RW))).toBe(true);
    expect(forgets(entryLow(free[1]!, PAGE_RW & ~PTE.ACCESSED))).toBe(true);
    expect(forgets(entryLow(free[0]!, PAGE_RW))).toBe(false);
    expect(forgets(0)).toBe(true);
    expect(forgets(0)).toBe(false);
  });

  it('has all forgotten with an entry of an upper level, if walks passed through what is below', () => {
    const { pageTables, processor, l2, l1, free, table } = booted();
    const { calls } = processor;
    const inner = free[0]!;
    // Its mapping in the first L1 table must go before it can be a table itself.
    for (let index = 0; index < 512; index++) {
      const at = table.machine[l1]! * 1024 + index * 2;
      if (table.memory.u32[at]! >>> 12 === inner) expect(pageTables.update(l1, index, 0, 0)).toBe(0);
    }
    const set = (page: number) => {
      expect(pageTables.update(l2, 50, entryLow(inner, TABLE), 0)).toBe(0);
      expect(pageTables.update(inner, 7, page, 0)).toBe(0);
    };
    set(0);
    expect(pageTables.update(l2, 50, 0, 0)).toBe(0);
    set(entryLow(free[1]!, PAGE_RO & ~PTE.ACCESSED));
    expect(pageTables.update(l2, 50, 0, 0)).toBe(0);
    expect(calls.tablesChanged).toBe(0);
    set(entryLow(free[1]!, PAGE_RO));
    expect(pageTables.update(l2, 50, entryLow(inner, TABLE), 0x80000000)).toBe(0);
    expect(calls.tablesChanged).toBe(1);
    expect(pageTables.update(l2, 50, 0, 0)).toBe(0);
    expect(calls.tablesChanged).toBe(2);
  });

  it('demotes a tree when its last holder goes', () => {
    const { dm, table, pageTables, l2, l1, vcpu, l4, processor } = booted();
    expect(dm.unpin(l4)).toBe(0);
    expect(processor.calls.rootDropped).toBe(0);
    expect(table.typeCounts[l2]).toBe(1);
    dm.dropRoots(vcpu);
    expect(table.typeCounts[l2]).toBe(0);
    expect(table.typeCounts[l1]).toBe(0);
    expect(table.references[l1]).toBe(1);
    expect(processor.calls.rootDropped).toBe(1);
    expect(pageTables.takeType(l1, FrameType.writable)).toBe(0);
    pageTables.dropType(l1);
    expect(dm.checkInvariants()).toEqual([]);
  });
});

describe('linear page tables', () => {
  const slot = 300;

  it('lets a table name itself read-only, and holds nothing by it', () => {
    const { pageTables, dm, table, l4 } = booted();
    const count = table.typeCounts[l4];
    expect(pageTables.update(l4, slot, entryLow(l4, TABLE), 0)).toBe(-ERRNO.EINVAL);
    expect(pageTables.update(l4, slot, entryLow(l4, TABLE & ~PTE.RW), 0)).toBe(0);
    expect(table.typeCounts[l4]).toBe(count);
    expect(pageTables.update(l4, slot, entryLow(l4, TABLE), 0)).toBe(-ERRNO.EINVAL);
    expect(dm.checkInvariants()).toEqual([]);
    expect(pageTables.update(l4, slot, 0, 0)).toBe(0);
    expect(dm.checkInvariants()).toEqual([]);
  });

  it('validates a table that came with an entry for itself', () => {
    const { dm, free, protect, snapshot } = booted();
    const own = free[0]!;
    protect(own);
    poke(dm, own, slot, entryLow(own, TABLE & ~PTE.RW));
    const before = snapshot();
    expect(dm.pin(own, FrameType.l4)).toBe(0);
    expect(dm.checkInvariants()).toEqual([]);
    expect(dm.unpin(own)).toBe(0);
    expect(snapshot()).toEqual(before);
  });

  it('lets tables name others of their level, but not in chains', () => {
    const { dm, pageTables, l1, pages, free, protect, snapshot } = booted();
    const [a, b, c] = free as [number, number, number];
    const before = snapshot();
    for (const mfn of [a, b, c]) {
      protect(mfn);
      expect(dm.pin(mfn, FrameType.l4)).toBe(0);
    }
    const name = (from: number, to: number, index = slot) =>
      pageTables.update(from, index, entryLow(to, TABLE & ~PTE.RW), 0);
    expect(name(a, b)).toBe(0);
    expect(name(b, c)).toBe(-ERRNO.EINVAL);
    expect(name(c, a)).toBe(-ERRNO.EINVAL);
    expect(name(b, a)).toBe(-ERRNO.EINVAL);
    expect(name(c, b)).toBe(0);
    // Each may have its own beside it.
    expect(name(b, b, slot + 1)).toBe(0);
    expect(dm.checkInvariants()).toEqual([]);
    // A named table stays one when it is not pinned any more.
    expect(dm.unpin(b)).toBe(0);
    expect(dm.table.typeCounts[b]).toBe(2);
    expect(dm.unpin(a)).toBe(0);
    expect(dm.unpin(c)).toBe(0);
    expect(dm.checkInvariants()).toEqual([]);
    for (const mfn of [a, b, c]) {
      expect(dm.table.typeCounts[mfn]).toBe(0);
      expect(pageTables.update(l1, pages.indexOf(mfn), entryLow(mfn, PAGE_RW), 0)).toBe(0);
    }
    expect(snapshot()).toEqual(before);
  });
});

describe("the hypervisor's slots", () => {
  it('are written at validation and closed to the guest', () => {
    const { dm, pageTables, free, protect } = booted();
    const own = free[0]!;
    protect(own);
    for (let i = 256; i < 272; i++) poke(dm, own, i, entryLow(free[1]!, PAGE_RW));
    expect(dm.pin(own, FrameType.l4)).toBe(0);
    expect(dm.checkInvariants()).toEqual([]);
    for (const index of [256, 260, 271]) expect(pageTables.update(own, index, 0, 0)).toBe(-ERRNO.EINVAL);
    expect(pageTables.update(own, 272, 0, 0)).toBe(0);
  });

  it('map the machine-to-physical table, for the kernel alone, read-only', () => {
    const { dm, vcpu, processor, pages, memory } = booted();
    const { cpu } = vcpu;
    for (const [pfn, mfn] of pages.entries()) {
      const linear = processor.translate(cpu, MACH2PHYS_VIRT_START + mfn * 8, Access.Read);
      expect(memory.read64(linear)).toBe(BigInt(pfn));
    }
    const last = processor.translate(cpu, MACH2PHYS_VIRT_START + (dm.space.frameLimit - 1) * 8, Access.Read);
    expect(memory.read64(last)).toBe(0xffffffffffffffffn);
    expect(processor.translate(cpu, MACH2PHYS_VIRT_START, Access.Write)).toBe(0);
    dm.loadRoots(vcpu, vcpu.kernelRoot, vcpu.kernelRoot);
    processor.setMode(cpu, false);
    expect(processor.translate(cpu, MACH2PHYS_VIRT_START, Access.Read)).toBe(0);
    processor.setMode(cpu, true);
  });

  it("do not let a guest name the table's own frames otherwise than read-only", () => {
    const { dm, pageTables, l1, l4, l3 } = booted();
    const first = dm.machineToPhys.firstMfn;
    expect(pageTables.update(l1, 40, entryLow(first, PAGE_RO), 0)).toBe(0);
    expect(pageTables.update(l1, 41, entryLow(first, PAGE_RW), 0)).toBe(-ERRNO.EINVAL);
    const top = dm.machineToPhys.slotLow(XEN_FIRST_SLOT) >>> 12;
    expect(pageTables.update(l1, 41, entryLow(top, PAGE_RO), 0)).toBe(-ERRNO.EINVAL);
    for (const table of [l4, l3])
      expect(pageTables.update(table, 9, entryLow(top, TABLE), 0)).toBe(-ERRNO.EINVAL);
    expect(dm.checkInvariants()).toEqual([]);
  });
});

describe('frames that are not the domain’s own', () => {
  it('shared_info may be mapped both ways', () => {
    const { dm, pageTables, l1 } = booted();
    expect(pageTables.update(l1, 40, entryLow(dm.sharedInfoMfn, PAGE_RW), 0)).toBe(0);
    expect(pageTables.update(l1, 41, entryLow(dm.sharedInfoMfn, PAGE_RO), 0)).toBe(0);
    expect(dm.checkInvariants()).toEqual([]);
  });

  it('frames of the hypervisor come and go, but not while they are mapped', () => {
    const { dm, pageTables, l1, frames, vcpu, processor } = booted();
    const frame = frames.alloc();
    const mfn = dm.addXenFrame(frame, { writable: true, guestMappable: true });
    expect(dm.owns(mfn)).toBe(false);
    expect(() => dm.getPage(mfn)).toThrow(HypercallError);
    expect(dm.pin(mfn, FrameType.l1)).toBe(-ERRNO.EINVAL);
    expect(pageTables.update(l1, 40, entryLow(mfn, PAGE_RW), 0)).toBe(0);
    expect(processor.translate(vcpu.cpu, DIRECT_MAP + 40 * 4096, Access.Write)).toBe(frame * 4096);
    expect(() => dm.removeXenFrame(mfn)).toThrow('EBUSY');
    expect(pageTables.update(l1, 40, 0, 0)).toBe(0);
    dm.removeXenFrame(mfn);
    expect(processor.leaks(dm)).toEqual([]);
    expect(() => dm.removeXenFrame(mfn)).toThrow('EINVAL');
    const hidden = dm.addXenFrame(frame, { writable: true, guestMappable: false });
    expect(pageTables.update(l1, 40, entryLow(hidden, PAGE_RO), 0)).toBe(-ERRNO.EINVAL);
    expect(dm.checkInvariants()).toEqual([]);
  });

  it('frames of other domains are mapped by grant operations only, and as these say', () => {
    const { dm, pageTables, l1, frames } = booted();
    const writable = dm.mapForeign(frames.alloc(), false);
    const readonly = dm.mapForeign(frames.alloc(), true);
    for (const mfn of [writable, readonly])
      expect(pageTables.update(l1, 40, entryLow(mfn, PAGE_RO), 0)).toBe(-ERRNO.EINVAL);
    expect(pageTables.update(l1, 40, entryLow(writable, PAGE_RW), 0, false, true)).toBe(0);
    expect(pageTables.update(l1, 41, entryLow(readonly, PAGE_RW), 0, false, true)).toBe(-ERRNO.EINVAL);
    expect(pageTables.update(l1, 41, entryLow(readonly, PAGE_RO), 0, false, true)).toBe(0);
    expect(() => dm.unmapForeign(readonly)).toThrow('EBUSY');
    // Software bits may change, the right to write may not.
    expect(pageTables.update(l1, 41, entryLow(readonly, PAGE_RO | PTE.AVAIL), 0)).toBe(0);
    expect(pageTables.update(l1, 41, entryLow(readonly, PAGE_RW), 0)).toBe(-ERRNO.EINVAL);
    expect(dm.checkInvariants()).toEqual([]);
    for (const index of [40, 41]) expect(pageTables.update(l1, index, 0, 0)).toBe(0);
    dm.unmapForeign(readonly);
    dm.unmapForeign(writable);
    expect(dm.checkInvariants()).toEqual([]);
  });
});

describe('table indices', () => {
  it.each([0, 4096, 2 ** 21 * 7, 2 ** 30 * 5, 2 ** 39 * 3, 2 ** 47 - 4096, -(2 ** 47), -4096, DIRECT_MAP])(
    'of %d are its bits',
    (va) => {
      const bits = BigInt.asUintN(64, BigInt(va));
      for (const level of [1, 2, 3, 4])
        expect(tableIndex(va, level)).toBe(Number((bits >> BigInt(3 + 9 * level)) & 511n));
    },
  );
});
