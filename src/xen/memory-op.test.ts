import { describe, expect, it } from 'vitest';
import { Access } from '../x86/processor.ts';
import { Arguments, RESTART } from './hypercall.ts';
import { memoryOp } from './memory-op.ts';
import { boot, DIRECT_MAP, hypercall, type TestMachine, testMachine } from './mm/testing.ts';
import { ERRNO } from './public/errno.ts';
import { E820, MEMOP_EXTENT_SHIFT, XENMEM } from './public/memory.ts';
import { MACH2PHYS_VIRT_END } from './public/mmu.ts';
import { DOMID, MACH2PHYS_VIRT_START, SHARED_INFO, VMASST_CMD, VMASST_TYPE } from './public/xen.ts';
import { assists, vmAssist } from './vm-assist.ts';

const ARGS = DIRECT_MAP + 20 * 4096;
const LIST = DIRECT_MAP + 21 * 4096;
const LIST2 = DIRECT_MAP + 22 * 4096;

function guest(maxPages = 256, machine: TestMachine = testMachine({ maxPages })) {
  const layout = boot(machine, 64);
  const { vcpu, domain, frames } = machine;
  const dm = domain.memory;
  const { guest } = vcpu;
  const unmap = (pfn: number) => dm.pageTables.update(layout.l1, pfn, 0, 0);
  /** An unmapped page. */
  const take = (pfn: number) => {
    unmap(pfn);
    return layout.pages[pfn]!;
  };
  const list = (at: number, values: readonly number[]) =>
    values.forEach((value, i) => void guest.setNumber64(at + i * 8, value));
  const read = (at: number, count: number) =>
    Array.from({ length: count }, (_, i) => guest.number64(at + i * 8));
  const reservation = (at: number, start: number, count: number, order: number, domid: number) => {
    guest.setNumber64(at, start);
    guest.setNumber64(at + 8, count);
    guest.setU32(at + 16, order);
    guest.setU32(at + 20, 0);
    guest.setU16(at + 24, domid);
  };
  const change = (command: number, start: number, count: number, order = 0, domid: number = DOMID.SELF) => {
    reservation(ARGS, start, count, order, domid);
    return hypercall(vcpu, memoryOp, command, ARGS);
  };
  const exchange = (ins: readonly number[], inOrder: number, outs: readonly number[], outOrder: number) => {
    list(LIST, ins);
    list(LIST2, outs);
    reservation(ARGS, LIST, ins.length, inOrder, DOMID.SELF);
    reservation(ARGS + 32, LIST2, outs.length, outOrder, DOMID.SELF);
    guest.setNumber64(ARGS + 64, 0);
    return hypercall(vcpu, memoryOp, XENMEM.exchange, ARGS);
  };
  const op = (command: number, at = ARGS) => hypercall(vcpu, memoryOp, command, at);
  return { ...machine, ...layout, dm, guest, frames, unmap, take, list, read, change, exchange, op };
}

describe('the balloon', () => {
  it('gives pages back and takes them again', () => {
    const { dm, frames, pages, unmap, list, read, change, memory } = guest();
    const free = frames.free;
    const victims = [30, 31, 32].map((pfn) => pages[pfn]!);
    for (const mfn of victims) memory.frame(dm.machineFrame(mfn)).fill(0xee);
    const behind = victims.map((mfn) => dm.machineFrame(mfn));
    for (const pfn of [30, 31, 32]) unmap(pfn);
    list(LIST, victims);
    expect(change(XENMEM.decrease_reservation, LIST, 3)).toBe(3);
    expect(frames.free).toBe(free + 3);
    expect(dm.totalPages).toBe(61);
    for (const [i, mfn] of victims.entries()) {
      expect(dm.owns(mfn)).toBe(false);
      expect(dm.m2p(mfn)).toBe(-1);
      expect(memory.frame(behind[i]!).every((byte) => byte === 0)).toBe(true);
    }
    // A second time there is nothing to give.
    expect(change(XENMEM.decrease_reservation, LIST, 3)).toBe(0);
    list(LIST, [130, 131, 132]);
    expect(change(XENMEM.populate_physmap, LIST, 3)).toBe(3);
    const fresh = read(LIST, 3);
    expect(fresh.map((mfn) => dm.m2p(mfn))).toEqual([130, 131, 132]);
    expect(frames.free).toBe(free);
    expect(dm.checkInvariants()).toEqual([]);
  });

  it('keeps a page that is still mapped, until it is not', () => {
    const { dm, frames, pages, unmap, list, change, processor, vcpu } = guest();
    const free = frames.free;
    processor.translate(vcpu.cpu, DIRECT_MAP + 30 * 4096, Access.Write);
    list(LIST, [pages[30]!]);
    expect(change(XENMEM.decrease_reservation, LIST, 1)).toBe(1);
    expect(dm.owns(pages[30]!)).toBe(true);
    expect(dm.totalPages).toBe(64);
    expect(dm.checkInvariants()).toEqual([]);
    expect(change(XENMEM.decrease_reservation, LIST, 1)).toBe(0);
    unmap(30);
    expect(dm.owns(pages[30]!)).toBe(false);
    // Though the guest asked for no flush.
    expect(processor.leaks(dm)).toEqual([]);
    expect(frames.free).toBe(free + 1);
    expect(dm.checkInvariants()).toEqual([]);
  });

  it('stops at its maximum, having done what it could', () => {
    const { dm, change, read } = guest(66);
    expect(change(XENMEM.increase_reservation, LIST, 5)).toBe(2);
    expect(dm.totalPages).toBe(66);
    expect(read(LIST, 2).every((mfn) => dm.owns(mfn))).toBe(true);
    expect(change(XENMEM.increase_reservation, LIST, 1)).toBe(0);
    expect(change(XENMEM.increase_reservation, 0, 1)).toBe(0);
  });

  it('stops where the machine has no more', () => {
    const machine = testMachine({ megabytes: 1, maxPages: 4096 });
    const { dm, frames, change } = guest(4096, machine);
    const free = frames.free;
    expect(change(XENMEM.increase_reservation, 0, 4096)).toBe(free);
    expect(frames.free).toBe(0);
    expect(dm.checkInvariants()).toEqual([]);
  });

  it('knows extents of several pages', () => {
    const { dm, change, read, list, pages } = guest();
    list(LIST, [200]);
    expect(change(XENMEM.populate_physmap, LIST, 1, 5)).toBe(1);
    const [first] = read(LIST, 1) as [number];
    expect(first % 32).toBe(0);
    for (let i = 0; i < 32; i++) expect(dm.m2p(first + i)).toBe(200 + i);
    expect(change(XENMEM.decrease_reservation, LIST, 1, 5)).toBe(1);
    expect(dm.totalPages).toBe(64);
    expect(change(XENMEM.increase_reservation, LIST, 1, 10)).toBe(0);
    expect(change(XENMEM.increase_reservation, LIST, 1, 0xffffffff)).toBe(0);
    // An extent that is not all there is not an extent done.
    list(LIST, [pages[63]!]);
    expect(change(XENMEM.decrease_reservation, LIST, 1, 1)).toBe(0);
    expect(dm.checkInvariants()).toEqual([]);
  });

  it('refuses nonsense', () => {
    const { change, list, op, vcpu, dm } = guest();
    for (const mfn of [0, 3, dm.sharedInfoMfn, dm.machineToPhys.firstMfn, 2 ** 40, -1, 2 ** 52]) {
      list(LIST, [mfn]);
      expect(change(XENMEM.decrease_reservation, LIST, 1)).toBe(0);
    }
    expect(change(XENMEM.increase_reservation, LIST, 2 ** 40)).toBe(0);
    expect(change(XENMEM.increase_reservation, LIST, -1)).toBe(0);
    expect(change(XENMEM.increase_reservation, LIST, 1, 0, 77)).toBe(0);
    expect(change(XENMEM.increase_reservation, LIST, 1, 0, vcpu.domain.id)).toBe(1);
    expect(change(XENMEM.populate_physmap, 8, 1)).toBe(0);
    expect(change(XENMEM.increase_reservation, 8, 1)).toBe(0);
    expect(op(XENMEM.decrease_reservation, 8)).toBe(0);
    expect(dm.totalPages).toBe(65);
  });

  it('pauses in a long list and goes on', () => {
    const machine = testMachine({ megabytes: 32, maxPages: 6000 });
    const { vcpu, dm, change } = guest(6000, machine);
    change(XENMEM.increase_reservation, 0, 1);
    const args = new Arguments();
    args.set(0, XENMEM.increase_reservation);
    args.set(1, ARGS);
    vcpu.guest.setNumber64(ARGS + 8, 5000);
    expect(memoryOp(vcpu, args)).toBe(RESTART);
    expect(args.low(0) >>> MEMOP_EXTENT_SHIFT).toBe(dm.totalPages - 65);
    let result: number;
    do result = memoryOp(vcpu, args);
    while (result === RESTART);
    expect(result).toBe(5000);
    expect(dm.totalPages).toBe(5065);
  });
});

describe('exchange', () => {
  it('makes one extent of many pages, and many of one', () => {
    const { dm, take, exchange, read, guest: access } = guest();
    const ins = [33, 40, 35, 50].map((pfn) => take(pfn));
    expect(exchange(ins, 0, [700], 2)).toBe(0);
    const [first] = read(LIST2, 1) as [number];
    expect(first % 4).toBe(0);
    for (let i = 0; i < 4; i++) expect(dm.m2p(first + i)).toBe(700 + i);
    expect(ins.some((mfn) => dm.owns(mfn) && (mfn < first || mfn >= first + 4))).toBe(false);
    expect(access.number64(ARGS + 64)).toBe(4);
    expect(dm.totalPages).toBe(64);
    expect(exchange([first], 2, [33, 40, 35, 50], 0)).toBe(0);
    expect(read(LIST2, 4).map((mfn) => dm.m2p(mfn))).toEqual([33, 40, 35, 50]);
    expect(dm.checkInvariants()).toEqual([]);
  });

  it('works at the domain’s maximum', () => {
    const { dm, take, exchange } = guest(64);
    const ins = [33, 34].map((pfn) => take(pfn));
    expect(exchange(ins, 0, [1], 1)).toBe(0);
    expect(dm.totalPages).toBe(64);
  });

  it('takes no page that is in use, and none twice', () => {
    const { dm, pages, unmap, exchange, guest: access } = guest();
    unmap(33);
    unmap(34);
    expect(exchange([pages[33]!, pages[35]!], 0, [1, 2], 0)).toBe(-ERRNO.EINVAL);
    // The first was exchanged.
    expect(access.number64(ARGS + 64)).toBe(1);
    expect(exchange([pages[34]!, pages[34]!], 0, [1], 1)).toBe(-ERRNO.EINVAL);
    expect(access.number64(ARGS + 64)).toBe(0);
    expect(dm.owns(pages[34]!)).toBe(true);
    expect(dm.checkInvariants()).toEqual([]);
  });

  it('refuses lists that do not match', () => {
    const { exchange, pages } = guest();
    expect(exchange([pages[33]!], 0, [1], 1)).toBe(-ERRNO.EINVAL);
    expect(exchange([pages[33]!], 10, [1], 10)).toBe(-ERRNO.EPERM);
    expect(exchange([], 0, [], 0)).toBe(0);
  });
});

describe('what a guest may know', () => {
  it('its reservation', () => {
    const { op, guest: access, vcpu, memory, dm } = guest();
    access.setU16(ARGS, DOMID.SELF);
    expect(op(XENMEM.current_reservation)).toBe(64);
    expect(op(XENMEM.maximum_reservation)).toBe(256);
    memory.write32(dm.sharedInfo + SHARED_INFO.arch_max_pfn, 64);
    expect(op(XENMEM.maximum_gpfn)).toBe(63);
    access.setU16(ARGS, vcpu.domain.id);
    expect(op(XENMEM.current_reservation)).toBe(64);
    access.setU16(ARGS, 0);
    for (const command of [XENMEM.current_reservation, XENMEM.maximum_reservation, XENMEM.maximum_gpfn])
      expect(op(command)).toBe(-ERRNO.ESRCH);
    expect(op(XENMEM.current_reservation, 8)).toBe(-ERRNO.EFAULT);
    expect(op(XENMEM.maximum_ram_page, 0)).toBe(dm.space.frameLimit - 1);
  });

  it('where the machine-to-physical table is', () => {
    const { op, read, guest: access, dm } = guest();
    expect(op(XENMEM.machphys_mapping)).toBe(0);
    expect(read(ARGS, 3)).toEqual([MACH2PHYS_VIRT_START, MACH2PHYS_VIRT_END, dm.space.frameLimit - 1]);
    access.setU32(ARGS, 16);
    access.setNumber64(ARGS + 8, LIST);
    expect(op(XENMEM.machphys_mfn_list)).toBe(0);
    expect(access.u32(ARGS + 16)).toBe(1);
    expect(read(LIST, 1)).toEqual([dm.machineToPhys.firstMfn]);
  });

  it('its memory map', () => {
    const { op, read, guest: access, dm } = guest();
    access.setU32(ARGS, 128);
    access.setNumber64(ARGS + 8, LIST);
    expect(op(XENMEM.memory_map)).toBe(0);
    expect(access.u32(ARGS)).toBe(1);
    expect([...read(LIST, 2), access.u32(LIST + 16)]).toEqual([0, 256 * 4096, E820.RAM]);
    access.setU16(ARGS, DOMID.SELF);
    access.setU32(ARGS + 8, 1);
    access.setNumber64(ARGS + 16, LIST);
    access.setNumber64(LIST, 0x1000);
    expect(op(XENMEM.set_memory_map)).toBe(0);
    expect(dm.memoryMap).toEqual([{ address: 0x1000, length: 256 * 4096, type: E820.RAM }]);
    access.setU32(ARGS + 8, 129);
    expect(op(XENMEM.set_memory_map)).toBe(-ERRNO.EINVAL);
  });

  it('and what it may not', () => {
    const { op, guest: access } = guest();
    access.setU16(ARGS, DOMID.SELF);
    for (const command of [XENMEM.add_to_physmap, XENMEM.add_to_physmap_batch, XENMEM.remove_from_physmap])
      expect(op(command)).toBe(-ERRNO.EACCES);
    expect(op(XENMEM.get_vnumainfo)).toBe(-ERRNO.EOPNOTSUPP);
    for (const command of [XENMEM.machine_memory_map, XENMEM.claim_pages, XENMEM.acquire_resource])
      expect(op(command)).toBe(-ERRNO.EPERM);
    for (const command of [8, 29, 63]) expect(op(command)).toBe(-ERRNO.ENOSYS);
  });
});

describe('vm_assist', () => {
  it('switches each assist on and off', () => {
    const { vcpu } = testMachine();
    for (const type of Object.values(VMASST_TYPE)) {
      for (const expected of [true, true, false, false]) {
        const command = expected ? VMASST_CMD.enable : VMASST_CMD.disable;
        expect(hypercall(vcpu, vmAssist, command, type)).toBe(0);
        expect(assists(vcpu.domain, type)).toBe(expected);
      }
    }
    expect(vcpu.domain.vmAssist).toBe(0);
    for (const type of [6, 31, 33, 63, 0xffffffff])
      expect(hypercall(vcpu, vmAssist, VMASST_CMD.enable, type)).toBe(-ERRNO.EINVAL);
    expect(hypercall(vcpu, vmAssist, 2, 0)).toBe(-ERRNO.ENOSYS);
  });
});
