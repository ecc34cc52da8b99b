import { describe, expect, it } from 'vitest';
import { RSP } from '../../x86/state.ts';
import { PTE } from '../public/mmu.ts';
import { SCHEDOP, SHUTDOWN } from '../public/sched.ts';
import { HYPERVISOR } from '../public/xen.ts';
import { hypercall, load, mov, PAGE, runUntilIdle, store, testGuest, testSystem, va } from '../testing.ts';
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
  const storeInto = (pfn: number, offset: number, bytes: Uint8Array, error = WRITE_FAULT) => {
    const va = DIRECT_MAP + pfn * 4096 + offset;
    processor.store = { va, bytes };
    return handlePageTableWrite(vcpu, va, error);
  };
  const entry = (low: number, high = 0) => new Uint8Array(new Uint32Array([low, high]).buffer);
  const at = (mfn: number, index: number) => memory.read64(dm.linear(mfn) + index * 8);
  // boot() gives the L1 table pfn 3.
  return { ...machine, ...layout, dm, store: storeInto, entry, at, l1Pfn: 3 };
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
    vcpu.setKernelMode(false);
    expect(store(l1Pfn, 8, nothing)).toBe(false);
    vcpu.setKernelMode(true);
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

describe('on the processor', () => {
  const RCX = 1;
  const RDI = 7;
  const L1_PAGE = 3;
  const poweroff = hypercall(HYPERVISOR.sched_op_compat, SCHEDOP.shutdown, SHUTDOWN.poweroff);
  /** Where entry `index` of the L1 table is mapped, read-only. */
  const entryAt = (index: number) => va(L1_PAGE, index * 8);

  function run(code: (mfns: readonly number[]) => number[]) {
    const system = testSystem();
    const guest = testGuest(system, []);
    guest.write(PAGE.code, 0, [...code(guest.mfns), ...poweroff]);
    runUntilIdle(system);
    expect(guest.domain.memory.checkInvariants()).toEqual([]);
    const entry = (index: number) => guest.read64(L1_PAGE, index * 8);
    /** Without the bits that the processor sets. */
    const clean = (index: number) => Number(entry(index) & 0xffff_ffff_ffff_ff9fn);
    return { ...guest, entry, clean };
  }
  const flags = PTE.PRESENT | PTE.RW | PTE.USER;

  it('plain stores, exchanges and locked instructions change entries', () => {
    const { clean, mfns, read64, domain } = run((mfns) => [
      ...mov(0, entryLow(mfns[50]!, flags)),
      ...store(entryAt(40)),
      // xchg [rdi], rax: the old entry comes back.
      ...mov(RDI, entryAt(41)),
      ...mov(0, entryLow(mfns[51]!, flags)),
      ...[0x48, 0x87, 0x07],
      ...store(va(PAGE.data)),
      // lock cmpxchg [rdi], rcx, with what is there in rax.
      ...mov(RDI, entryAt(42)),
      ...load(entryAt(42)),
      ...mov(RCX, entryLow(mfns[52]!, flags)),
      ...[0xf0, 0x48, 0x0f, 0xb1, 0x0f],
      // lock btr qword [rdi], 1: no more writable.
      ...mov(RDI, entryAt(43)),
      ...[0xf0, 0x48, 0x0f, 0xba, 0x37, 1],
      // and byte [rdi], 0xfe: not present.
      ...mov(RDI, entryAt(44)),
      ...[0x80, 0x27, 0xfe],
    ]);
    expect(domain.crashReason).toBeNull();
    expect(clean(40)).toBe(entryLow(mfns[50]!, flags));
    expect(clean(41)).toBe(entryLow(mfns[51]!, flags));
    expect(Number(read64(PAGE.data, 0)) & ~0x60).toBe(entryLow(mfns[41]!, flags) & ~0x60);
    expect(clean(42)).toBe(entryLow(mfns[52]!, flags));
    expect(clean(43)).toBe(entryLow(mfns[43]!, flags & ~PTE.RW));
    expect(clean(44) & 1).toBe(0);
    expect(domain.memory.table.typeCounts[mfns[50]!]).toBe(2);
    expect(domain.memory.table.typeCounts[mfns[43]!]).toBe(0);
  });

  it('rep stos clears many', () => {
    const { entry, domain, cpu } = run(() => [
      ...mov(RDI, entryAt(48)),
      ...mov(RCX, 8),
      ...mov(0, 0),
      ...[0xf3, 0x48, 0xab],
      ...mov(3, 7),
    ]);
    expect(domain.crashReason).toBeNull();
    for (let index = 48; index < 56; index++) expect(entry(index)).toBe(0n);
    expect(entry(47)).not.toBe(0n);
    expect(entry(56)).not.toBe(0n);
    expect(cpu.regNumber(3)).toBe(7);
  });

  it('a compare that fails leaves the entry', () => {
    const { clean, mfns, domain } = run((mfns) => [
      ...mov(RDI, entryAt(42)),
      ...mov(0, 12345),
      ...mov(RCX, entryLow(mfns[52]!, flags)),
      ...[0xf0, 0x48, 0x0f, 0xb1, 0x0f],
    ]);
    expect(domain.crashReason).toBeNull();
    expect(clean(42)).toBe(entryLow(mfns[42]!, flags));
  });

  it('what may not be stored is the guest’s fault, with nothing done', () => {
    const { clean, mfns, domain, cpu } = run((mfns) => [
      ...mov(0, entryLow(mfns[0]!, flags)),
      ...store(entryAt(40)),
    ]);
    expect(domain.crashReason).toContain('#PF');
    expect(clean(40)).toBe(entryLow(mfns[40]!, flags));
    // At the store, which follows a mov of ten bytes.
    expect(cpu.rip).toBe(va(PAGE.code, 10));
  });

  it('a page that was writable in the TLB is not, once it is a table', () => {
    const { domain, mfns } = run((mfns) => [
      ...mov(0, 0),
      ...store(va(30)),
      ...mov(0, entryLow(mfns[30]!, PTE.PRESENT | PTE.USER)),
      // Without a flush.
      ...store(entryAt(30)),
      // mmuext_op: pin it as an L1 table.
      ...mov(0, 0),
      ...store(va(PAGE.data)),
      ...mov(0, mfns[30]!),
      ...store(va(PAGE.data, 8)),
      ...hypercall(HYPERVISOR.mmuext_op, va(PAGE.data), 1, 0, 0x7ff0),
      ...store(va(PAGE.data, 64)),
      // An entry that may not be: a page table, writable.
      ...mov(0, entryLow(mfns[0]!, flags)),
      ...store(va(30, 8)),
    ]);
    expect(domain.crashReason).toContain('#PF');
    expect(domain.memory.table.type(mfns[30]!)).toBe(FrameType.l1);
    expect(domain.memory.table.typeCounts[mfns[30]!]).toBe(1);
  });
});
