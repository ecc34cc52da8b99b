/** The hypercalls that are about a vCPU itself, called as handlers on a domain with real memory. */
import { describe, expect, it } from 'vitest';
import { Cpu, high32 } from '../x86/cpu.ts';
import { CPU, GS, RSP } from '../x86/state.ts';
import { callbackOp } from './callback.ts';
import { getDebugreg, setDebugreg } from './debugreg.ts';
import { setGdt, updateDescriptor } from './descriptors.ts';
import { fpuTaskswitch } from './fpu.ts';
import { FrameType } from './mm/frame-table.ts';
import { hypercall as call } from './mm/testing.ts';
import { GUEST_CONTEXT, SEGBASE, USER_REGS, VGCF } from './public/arch-x86.ts';
import { ERRNO } from './public/errno.ts';
import { SCHEDOP, SHUTDOWN } from './public/sched.ts';
import { RUNSTATE, VCPUOP } from './public/vcpu.ts';
import { HYPERVISOR, SHARED_INFO, VCPU_INFO, VIRQ } from './public/xen.ts';
import { schedOp } from './sched.ts';
import { lookUpDescriptor, setSegmentBase } from './segments.ts';
import { hypercall, PAGE, runUntilIdle, store, testGuest, testSystem, va } from './testing.ts';
import { vcpuOp } from './vcpu-op.ts';

const DATA = va(PAGE.data);

/** A domain that does nothing but block, with so many vCPUs; the first one is as if it ran. */
function paused(vcpus = 1) {
  const system = testSystem();
  const block = hypercall(HYPERVISOR.sched_op_compat, SCHEDOP.block);
  const guest = testGuest(system, [...block, 0xeb, 0x100 - block.length - 2], vcpus);
  guest.vcpu.period = 0;
  runUntilIdle(system);
  guest.vcpu.kick();
  guest.vcpu.enter(RUNSTATE.running);
  return { system, guest, vcpu: guest.vcpu, cpu: guest.cpu, domain: guest.domain };
}

describe('descriptors', () => {
  /** A GDT frame has to be read-only to the guest first: as a kernel does it, but from outside. */
  function makeReadOnly({ guest, domain }: ReturnType<typeof paused>, page: number): void {
    const l1 = guest.mfns[3]!;
    const low = ((guest.mfns[page]! << 12) | 5) >>> 0;
    expect(domain.memory.pageTables.update(l1, page, low, 0)).toBe(0);
  }

  it('a GDT is checked, raised to level 3, and then only the hypervisor writes it', () => {
    const it_ = paused();
    const { guest, vcpu, domain } = it_;
    const mfn = guest.mfns[PAGE.free]!;
    // Kernel code and data at level 0, as a kernel would have them natively.
    guest.write64(PAGE.free, 8, 0x00af9b000000ffffn);
    guest.write64(PAGE.free, 16, 0x00cf93000000ffffn);
    guest.write64(PAGE.data, 0, mfn);
    expect(call(vcpu, setGdt, DATA, 512)).toBe(-ERRNO.EINVAL); // still writable
    makeReadOnly(it_, PAGE.free);
    expect(call(vcpu, setGdt, DATA, 512)).toBe(0);
    expect(lookUpDescriptor(vcpu, 8)).toEqual([0x0000ffff, 0x00affb00]);
    expect(lookUpDescriptor(vcpu, 0x13)).toEqual([0x0000ffff, 0x00cff300]);
    expect(lookUpDescriptor(vcpu, 0xe033)).toEqual([0x0000ffff, 0x00affb00]);
    expect(lookUpDescriptor(vcpu, 0x2000)).toBeNull();
    expect(domain.memory.table.type(mfn)).toBe(FrameType.segdesc);

    const address = mfn * 4096 + 24;
    expect(call(vcpu, updateDescriptor, address, [0x0000ffff, 0x00cf9300])).toBe(0);
    expect(lookUpDescriptor(vcpu, 24)).toEqual([0x0000ffff, 0x00cff300]);
    // A task state segment; an address within a descriptor; somebody else's frame.
    expect(call(vcpu, updateDescriptor, address, [0, 0x00008900])).toBe(-ERRNO.EINVAL);
    expect(call(vcpu, updateDescriptor, address + 4, [0, 0])).toBe(-ERRNO.EINVAL);
    expect(call(vcpu, updateDescriptor, 0x7fffff000, [0, 0])).toBe(-ERRNO.EINVAL);
    expect(call(vcpu, setGdt, DATA, 7169)).toBe(-ERRNO.EINVAL);
    // Given up, it is a page like any other.
    expect(call(vcpu, setGdt, DATA, 0)).toBe(0);
    expect(domain.memory.table.typeCounts[mfn]).toBe(0);
    expect(domain.memory.checkInvariants()).toEqual([]);
  });

  it('a frame with a system segment is refused', () => {
    const it_ = paused();
    makeReadOnly(it_, PAGE.free);
    it_.guest.write64(PAGE.free, 8, 0x0000890000000067n);
    it_.guest.write64(PAGE.data, 0, it_.guest.mfns[PAGE.free]!);
    expect(call(it_.vcpu, setGdt, DATA, 512)).toBe(-ERRNO.EINVAL);
  });

  it('segment bases', () => {
    const { vcpu, cpu } = paused();
    expect(call(vcpu, setSegmentBase, SEGBASE.FS, 0x1234)).toBe(0);
    expect(call(vcpu, setSegmentBase, SEGBASE.GS_KERNEL, -4096)).toBe(0);
    expect(call(vcpu, setSegmentBase, SEGBASE.GS_USER, 0x7000)).toBe(0);
    expect(cpu.number(CPU.fsBase)).toBe(0x1234);
    expect(cpu.number(CPU.gsBase)).toBe(-4096);
    expect(vcpu.gsBaseUser).toBe(0x7000);
    expect(call(vcpu, setSegmentBase, SEGBASE.FS, 2 ** 47)).toBe(-ERRNO.EINVAL);
    expect(call(vcpu, setSegmentBase, 9, 0)).toBe(-ERRNO.EINVAL);
    // A selector with no descriptor becomes the null selector.
    expect(call(vcpu, setSegmentBase, SEGBASE.GS_USER_SEL, 0x63)).toBe(0);
    expect(cpu.selector(GS)).toBe(0);
    expect(vcpu.gsBaseUser).toBe(0);
    expect(call(vcpu, setSegmentBase, SEGBASE.GS_USER_SEL, 0xe02b)).toBe(0);
    expect(cpu.selector(GS)).toBe(0xe02b);
    expect(vcpu.gsBaseKernel).toBe(-4096);
  });
});

describe('debug registers and FPU', () => {
  it('take only what concerns the guest', () => {
    const { vcpu, cpu } = paused();
    expect(call(vcpu, setDebugreg, 0, DATA)).toBe(0);
    expect(call(vcpu, getDebugreg, 0)).toBe(DATA);
    expect(call(vcpu, setDebugreg, 1, -(2 ** 47) + 8)).toBe(-ERRNO.EPERM);
    expect(call(vcpu, setDebugreg, 7, 1 << 13)).toBe(-ERRNO.EPERM);
    expect(call(vcpu, setDebugreg, 7, 0x1)).toBe(0);
    expect(call(vcpu, getDebugreg, 7)).toBe(0x401);
    expect(call(vcpu, setDebugreg, 7, 0x0002_0001)).toBe(-ERRNO.EPERM); // an I/O breakpoint
    expect(call(vcpu, getDebugreg, 8)).toBe(-ERRNO.EINVAL);
    expect(call(vcpu, fpuTaskswitch, 1)).toBe(0);
    expect(cpu.get(CPU.ts)).toBe(1);
  });
});

describe('callbacks', () => {
  it('are registered by type', () => {
    const { guest, vcpu } = paused();
    const register = (type: number, flags: number, address: number) => {
      guest.write64(PAGE.data, 0, BigInt(type | (flags << 16)));
      guest.write64(PAGE.data, 8, address);
      return call(vcpu, callbackOp, 0, DATA);
    };
    expect(register(0, 0, 0x1000)).toBe(0);
    expect(register(1, 1, 0x2000)).toBe(0);
    expect(register(2, 1, 0x3000)).toBe(0);
    expect(register(4, 0, 0x4000)).toBe(0);
    expect(register(6, 0, 0x5000)).toBe(-ERRNO.ENOSYS);
    expect(register(0, 0, 2 ** 47)).toBe(-ERRNO.EINVAL);
    const { event, failsafe, failsafeMasksEvents, syscall, syscallMasksEvents } = vcpu.callbacks;
    expect([event, failsafe, failsafeMasksEvents, syscall, syscallMasksEvents]).toEqual([
      0x1000,
      0x2000,
      true,
      0x3000,
      true,
    ]);
    expect(vcpu.traps.address(2)).toBe(0x4000);
    guest.write64(PAGE.data, 0, 0n);
    expect(call(vcpu, callbackOp, 1, DATA)).toBe(-ERRNO.EINVAL);
    guest.write64(PAGE.data, 0, 4n);
    expect(call(vcpu, callbackOp, 1, DATA)).toBe(0);
    expect(vcpu.traps.address(2)).toBe(0);
  });

  it('an NMI is delivered once, and the next one after iret', () => {
    const system = testSystem();
    const guest = testGuest(system, hypercall(HYPERVISOR.sched_op_compat, SCHEDOP.block));
    guest.vcpu.traps.set(2, 4, 0xe033, va(PAGE.free));
    // inc dword [data]; block
    guest.write(PAGE.free, 0, [
      ...[0x48, 0xb8, ...new Uint8Array(new BigInt64Array([BigInt(DATA)]).buffer), 0xff, 0x00],
      ...hypercall(HYPERVISOR.sched_op_compat, SCHEDOP.block),
    ]);
    const { control } = system.hypervisor;
    for (let count = 0; count < 3; count++) {
      control.sendTrigger(guest.domain.id, 'nmi');
      runUntilIdle(system);
    }
    expect(guest.read32(PAGE.data, 0)).toBe(1);
    expect(guest.vcpu.nmiPending).toBe(true);
  });
});

describe('vcpu_op', () => {
  it('knows which vCPUs there are', () => {
    const { vcpu } = paused(2);
    expect(call(vcpu, vcpuOp, VCPUOP.is_up, 0, 0)).toBe(1);
    expect(call(vcpu, vcpuOp, VCPUOP.is_up, 1, 0)).toBe(0);
    expect(call(vcpu, vcpuOp, VCPUOP.is_up, 2, 0)).toBe(-ERRNO.ENOENT);
    expect(call(vcpu, vcpuOp, VCPUOP.up, 1, 0)).toBe(-ERRNO.EINVAL);
    expect(call(vcpu, vcpuOp, 99, 0, 0)).toBe(-ERRNO.ENOSYS);
    expect(call(vcpu, vcpuOp, VCPUOP.get_physid, 0, DATA)).toBe(-ERRNO.EINVAL);
  });

  it('brings a second vCPU up, which runs', () => {
    const { system, guest, vcpu, domain } = paused(2);
    const context = new Uint8Array(GUEST_CONTEXT.size);
    const view = new DataView(context.buffer);
    const put = (offset: number, value: number) => {
      view.setUint32(offset, value >>> 0, true);
      view.setInt32(offset + 4, high32(value), true);
    };
    const pages = PAGE.free + 4;
    put(GUEST_CONTEXT.flags, VGCF.in_kernel);
    put(GUEST_CONTEXT.user_regs + USER_REGS.rip, va(PAGE.free));
    put(GUEST_CONTEXT.user_regs + USER_REGS.rsp, va(PAGE.userStack, 4096));
    put(GUEST_CONTEXT.user_regs + USER_REGS.rax, 0x1234);
    put(GUEST_CONTEXT.user_regs + USER_REGS.rflags, 0x1202);
    put(GUEST_CONTEXT.user_regs + USER_REGS.cs, 0xe033);
    put(GUEST_CONTEXT.user_regs + USER_REGS.ss, 0xe02b);
    put(GUEST_CONTEXT.ctrlreg + 24, guest.mfns[0]! * 4096);
    put(GUEST_CONTEXT.gs_base_kernel, 0x5555);
    guest.write(pages, 0, context.subarray(0, 4096));
    guest.write(pages + 1, 0, context.subarray(4096));
    guest.write(PAGE.free, 0, [...store(DATA), ...hypercall(HYPERVISOR.vcpu_op, VCPUOP.down, 1)]);
    expect(call(vcpu, vcpuOp, VCPUOP.initialise, 1, va(pages))).toBe(0);
    expect(call(vcpu, vcpuOp, VCPUOP.initialise, 1, va(pages))).toBe(-ERRNO.EEXIST);
    expect(call(vcpu, vcpuOp, VCPUOP.up, 1, 0)).toBe(0);
    const second = domain.vcpus[1]!;
    expect(second.cpu).toBeInstanceOf(Cpu);
    expect(second.gsBaseKernel).toBe(0x5555);
    expect(second.iopl).toBe(1);
    for (let slice = 0; slice < 20; slice++) system.hypervisor.runSlice();
    expect(guest.read64(PAGE.data, 0)).toBe(0x1234n);
    expect(second.down).toBe(true);
    expect(second.cpu.regNumber(RSP)).toBe(va(PAGE.userStack, 4096));
    expect(domain.shutdown).toBeNull();
    // The last one that goes down takes the domain with it.
    expect(call(vcpu, vcpuOp, VCPUOP.down, 0, 0)).toBe(0);
    expect(domain.shutdown).toBe(SHUTDOWN.poweroff);
    expect(domain.memory.checkInvariants()).toEqual([]);
  });

  it('moves vcpu_info once, and then everything is pending', () => {
    const { system, guest, vcpu, domain } = paused();
    const shared = domain.memory.sharedInfo + SHARED_INFO.vcpu_info;
    system.memory.u8[shared + VCPU_INFO.evtchn_upcall_mask] = 1;
    guest.write64(PAGE.data, 0, guest.mfns[PAGE.free]!);
    guest.write64(PAGE.data, 8, 4040n);
    expect(call(vcpu, vcpuOp, VCPUOP.register_vcpu_info, 0, DATA)).toBe(-ERRNO.EINVAL);
    guest.write64(PAGE.data, 8, 128n);
    expect(call(vcpu, vcpuOp, VCPUOP.register_vcpu_info, 0, DATA)).toBe(0);
    expect(guest.read64(PAGE.free, 128) & 0xffffn).toBe(0x0101n);
    expect(guest.read64(PAGE.free, 136)).toBe(0xffff_ffff_ffff_ffffn);
    expect(vcpu.upcallMasked).toBe(true);
    expect(call(vcpu, vcpuOp, VCPUOP.register_vcpu_info, 0, DATA)).toBe(-ERRNO.EINVAL);
    // A page table cannot take it.
    expect(guest.read64(PAGE.free, 128 + 32) & 1n).toBe(0n);
    expect(domain.memory.checkInvariants()).toEqual([]);
  });

  it('tells the runstate', () => {
    const { guest, vcpu } = paused();
    expect(call(vcpu, vcpuOp, VCPUOP.get_runstate_info, 0, DATA)).toBe(0);
    expect(guest.read32(PAGE.data, 0)).toBe(RUNSTATE.running);
    const times = [0, 1, 2, 3].map((state) => Number(guest.read64(PAGE.data, 16 + state * 8)));
    expect(times[RUNSTATE.running]).toBeGreaterThan(0);
    expect(times[RUNSTATE.blocked]).toBeGreaterThan(0);
    guest.write64(PAGE.data, 0, va(PAGE.free, 4090));
    expect(call(vcpu, vcpuOp, VCPUOP.register_runstate_memory_area, 0, DATA)).toBe(0);
    // Across two pages.
    expect(guest.read64(PAGE.free + 1, 2)).toBe(BigInt(vcpu.runstate.since));
  });

  it('timers', () => {
    const { system, guest, vcpu, domain } = paused();
    domain.events.bindVirq(VIRQ.TIMER, 0);
    guest.write64(PAGE.data, 0, 5n);
    guest.write64(PAGE.data, 8, 1n);
    expect(call(vcpu, vcpuOp, VCPUOP.set_singleshot_timer, 0, DATA)).toBe(-ERRNO.ETIME);
    expect(call(vcpu, vcpuOp, VCPUOP.set_periodic_timer, 0, DATA)).toBe(-ERRNO.EINVAL);
    guest.write64(PAGE.data, 0, BigInt(system.clock.now + 1e9));
    expect(call(vcpu, vcpuOp, VCPUOP.set_singleshot_timer, 0, DATA)).toBe(0);
    expect(system.hypervisor.timers.next - system.clock.now).toBeLessThanOrEqual(1e9);
    expect(call(vcpu, vcpuOp, VCPUOP.stop_singleshot_timer, 0, 0)).toBe(0);
    expect(system.hypervisor.timers.next).toBe(Number.POSITIVE_INFINITY);
    expect(vcpu.upcallPending).toBe(false);
  });
});

describe('sched_op', () => {
  it('poll waits for a port, or until its time', () => {
    const { system, guest, vcpu, domain } = paused();
    const port = domain.events.allocUnbound(0);
    guest.write64(PAGE.data, 0, DATA + 64);
    guest.write64(PAGE.data, 8, 1n);
    guest.write64(PAGE.data, 16, 0n);
    guest.write64(PAGE.data, 64, BigInt(port));
    expect(call(vcpu, schedOp, SCHEDOP.poll, DATA)).toBe(0);
    expect(vcpu.blocked).toBe(true);
    system.hypervisor.control.evtchnSend(domain.id, port);
    expect(vcpu.blocked).toBe(false);
    // Pending already: no sleep.
    expect(call(vcpu, schedOp, SCHEDOP.poll, DATA)).toBe(0);
    expect(vcpu.blocked).toBe(false);

    vcpu.upcallMasked = true;
    domain.events.close(port);
    guest.write64(PAGE.data, 64, BigInt(domain.events.allocUnbound(0)));
    guest.write64(PAGE.data, 16, BigInt(system.clock.now + 5e6));
    expect(call(vcpu, schedOp, SCHEDOP.poll, DATA)).toBe(0);
    expect(vcpu.blocked).toBe(true);
    system.hypervisor.timers.expire(system.clock.now + 6e6);
    expect(vcpu.blocked).toBe(false);

    guest.write64(PAGE.data, 8, 129n);
    expect(call(vcpu, schedOp, SCHEDOP.poll, DATA)).toBe(-ERRNO.EINVAL);
  });

  it('refuses what is for others, and keeps a latched code', () => {
    const { guest, vcpu, domain } = paused();
    expect(call(vcpu, schedOp, SCHEDOP.remote_shutdown, DATA)).toBe(-ERRNO.EPERM);
    expect(call(vcpu, schedOp, SCHEDOP.pin_override, DATA)).toBe(-ERRNO.EPERM);
    guest.write64(PAGE.data, 0, 6n);
    expect(call(vcpu, schedOp, SCHEDOP.shutdown, DATA)).toBe(-ERRNO.EINVAL);
    guest.write64(PAGE.data, 0, BigInt(SHUTDOWN.reboot));
    expect(call(vcpu, schedOp, SCHEDOP.shutdown_code, DATA)).toBe(0);
    guest.write64(PAGE.data, 0, BigInt(SHUTDOWN.poweroff));
    expect(call(vcpu, schedOp, SCHEDOP.shutdown, DATA)).toBe(0);
    expect(domain.shutdown).toBe(SHUTDOWN.reboot);
  });
});

describe('the trace', () => {
  it('names calls, commands and results', () => {
    const system = testSystem();
    const guest = testGuest(system, [
      ...hypercall(HYPERVISOR.xen_version, 0, 0),
      ...hypercall(HYPERVISOR.sched_op, SCHEDOP.remote_shutdown, DATA),
      ...hypercall(HYPERVISOR.sched_op_compat, SCHEDOP.shutdown, 0),
    ]);
    const { control } = system.hypervisor;
    control.setTrace(guest.domain.id, true);
    runUntilIdle(system);
    const lines = system.notifications.filter((each) => each.kind === 'trace').map((each) => each.line);
    const name = `d${guest.domain.id}v0`;
    expect(lines).toEqual([
      `${name} xen_version(version, 0x0) = 0x40011`,
      `${name} sched_op(remote_shutdown, 0xffffffff80006000) = -EPERM`,
      `${name} sched_op_compat(shutdown, 0x0) = 0`,
    ]);
  });
});
