import { describe, expect, it } from 'vitest';
import { RSP } from '../../x86/state.ts';
import { PTE } from '../public/mmu.ts';
import { FrameType } from './frame-table.ts';
import { handlePageTableWrite } from './page-table-write.ts';
import { boot, DIRECT_MAP, entryLow, PAGE_RO, PAGE_RW, testMachine } from './testing.ts';

const WRITE_FAULT = 3;

function guest() {
  const machine = testMachine();
  const layout = boot(machine, 32);
  const { vcpu, processor, domain, memory } = machine;
  const dm = domain.memory;
  /** A store of the kernel's into a page of the direct map, as it faults. */
  const store = (pfn: number, offset: number, bytes: Uint8Array, error = WRITE_FAULT) => {
    const va = DIRECT_MAP + pfn * 4096 + offset;
    processor.store = { va, bytes };
    return handlePageTableWrite(vcpu, va, error);
  };
  const entry = (low: number, high = 0) => new Uint8Array(new Uint32Array([low, high]).buffer);
  const at = (mfn: number, index: number) => memory.read64(dm.linear(mfn) + index * 8);
  // boot() gives the L1 table pfn 3.
  return { ...machine, ...layout, dm, store, entry, at, l1Pfn: 3 };
}

describe('stores into page tables', () => {
  it('are checked and done', () => {
    const { store, entry, at, l1, l1Pfn, pages, dm, vcpu } = guest();
    const { rip } = vcpu.cpu;
    expect(store(l1Pfn, 40 * 8, entry(entryLow(pages[9]!, PAGE_RW), 0x80000000))).toBe(true);
    expect(at(l1, 40)).toBe((1n << 63n) | BigInt(entryLow(pages[9]!, PAGE_RW)));
    expect(vcpu.cpu.rip).toBe(rip + 1);
    expect(dm.table.typeCounts[pages[9]!]).toBe(2);
    expect(store(l1Pfn, 40 * 8, entry(0))).toBe(true);
    expect(dm.checkInvariants()).toEqual([]);
  });

  it('may be halves of an entry', () => {
    const { store, at, l1, l1Pfn, pages, dm } = guest();
    const low = new Uint8Array(new Uint32Array([entryLow(pages[9]!, PAGE_RO)]).buffer);
    const high = new Uint8Array(new Uint32Array([0x80000000]).buffer);
    expect(store(l1Pfn, 40 * 8 + 4, high)).toBe(true);
    expect(store(l1Pfn, 40 * 8, low)).toBe(true);
    expect(at(l1, 40)).toBe((1n << 63n) | BigInt(entryLow(pages[9]!, PAGE_RO)));
    // One byte can make it name a frame that is not there.
    expect(store(l1Pfn, 40 * 8 + 3, Uint8Array.of(0xff))).toBe(false);
    expect(store(l1Pfn, 40 * 8, new Uint8Array(1))).toBe(true);
    expect(at(l1, 40) & 1n).toBe(0n);
    expect(dm.checkInvariants()).toEqual([]);
  });

  it('that may not be leave everything as it was', () => {
    const { store, entry, at, l1, l1Pfn, l2, vcpu, dm } = guest();
    vcpu.cpu.rip = 0x1234;
    vcpu.cpu.setRegNumber(RSP, 99);
    const before = at(l1, 5);
    expect(store(l1Pfn, 5 * 8, entry(entryLow(l2, PAGE_RW)))).toBe(false);
    expect(store(l1Pfn, 5 * 8, entry(entryLow(0xfffff, PAGE_RO)))).toBe(false);
    // More than one entry.
    expect(store(l1Pfn, 5 * 8 + 4, entry(0, 0))).toBe(false);
    expect(store(l1Pfn, 5 * 8, new Uint8Array(16))).toBe(false);
    expect(at(l1, 5)).toBe(before);
    expect(vcpu.cpu.rip).toBe(0x1234);
    expect(dm.checkInvariants()).toEqual([]);
  });

  it('are the guest’s own matter elsewhere', () => {
    const { store, entry, l1Pfn, l1, dm, pages, vcpu, processor } = guest();
    const nothing = entry(0);
    // Higher tables, plain read-only pages, unmapped ones, other faults, user mode.
    for (const pfn of [0, 1, 2]) expect(store(pfn, 8, nothing)).toBe(false);
    dm.pageTables.update(l1, 9, entryLow(pages[9]!, PAGE_RO), 0);
    expect(store(9, 0, nothing)).toBe(false);
    expect(store(100, 0, nothing)).toBe(false);
    for (const error of [0, 1, 2, 3 | 8, 1 | 16]) expect(store(l1Pfn, 8, nothing, error)).toBe(false);
    vcpu.kernelMode = false;
    expect(store(l1Pfn, 8, nothing)).toBe(false);
    vcpu.kernelMode = true;
    processor.store = null;
    expect(handlePageTableWrite(vcpu, 2 ** 50, WRITE_FAULT)).toBe(false);
    expect(dm.table.type(l1)).toBe(FrameType.l1);
  });

  it('do not stop a page from being taken apart', () => {
    const { store, entry, l1Pfn, pages, dm } = guest();
    expect(store(l1Pfn, 7 * 8, entry(entryLow(pages[8]!, PAGE_RW & ~PTE.USER)))).toBe(true);
    expect(store(l1Pfn, 7 * 8, entry(entryLow(pages[7]!, PAGE_RW)))).toBe(true);
    expect(dm.checkInvariants()).toEqual([]);
  });
});
