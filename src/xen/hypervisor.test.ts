import { describe, expect, it, vi } from 'vitest';
import { CPU, FLAG } from '../x86/state.ts';
import { FLAT_USER_CS, FLAT_USER_SS } from './public/arch-x86.ts';
import { ERRNO } from './public/errno.ts';
import { SCHEDOP, SHUTDOWN } from './public/sched.ts';
import { RUNSTATE } from './public/vcpu.ts';
import { HYPERVISOR, SHARED_INFO, VCPU_INFO, VIRQ } from './public/xen.ts';
import { hypercall, load, mov, PAGE, runUntilIdle, store, testGuest, testSystem, va } from './testing.ts';
import { Tracer } from './trace.ts';

const BLOCK = hypercall(HYPERVISOR.sched_op_compat, SCHEDOP.block, 0);
const shutdown = (reason: number) => hypercall(HYPERVISOR.sched_op_compat, SCHEDOP.shutdown, reason);
/** Result of a hypercall as the guest saw it. */
const signed = (value: bigint) => Number(BigInt.asIntN(64, value));

describe('hypercalls', () => {
  it('return results and errors in rax', () => {
    const system = testSystem();
    const guest = testGuest(system, [
      ...hypercall(HYPERVISOR.xen_version, 0),
      ...store(va(PAGE.data)),
      ...hypercall(50),
      ...store(va(PAGE.data, 8)),
      ...hypercall(HYPERVISOR.console_io, 0, 5, -(2 ** 46)),
      ...store(va(PAGE.data, 16)),
      ...hypercall(HYPERVISOR.domctl, va(PAGE.data)),
      ...store(va(PAGE.data, 24)),
      ...shutdown(SHUTDOWN.poweroff),
    ]);
    expect(runUntilIdle(system)).toBe(Number.POSITIVE_INFINITY);
    expect(guest.read64(PAGE.data, 0)).toBe(0x40011n);
    expect(signed(guest.read64(PAGE.data, 8))).toBe(-ERRNO.ENOSYS);
    expect(signed(guest.read64(PAGE.data, 16))).toBe(-ERRNO.EFAULT);
    expect(signed(guest.read64(PAGE.data, 24))).toBe(-ERRNO.EPERM);
    expect(guest.domain.crashReason).toBeNull();
    expect(system.notifications).toContainEqual({
      kind: 'shutdown',
      domid: guest.domain.id,
      reason: SHUTDOWN.poweroff,
      crashReason: null,
    });
  });

  it('go on where they were interrupted', () => {
    const system = testSystem();
    const text = 'x'.repeat(10_000);
    const guest = testGuest(system, [
      ...hypercall(HYPERVISOR.console_io, 0, text.length, va(PAGE.free)),
      ...store(va(PAGE.data)),
      ...shutdown(SHUTDOWN.poweroff),
    ]);
    for (let page = 0; page < 3; page++) guest.write(PAGE.free + page, 0, new Uint8Array(4096).fill(0x78));
    runUntilIdle(system);
    expect(guest.read64(PAGE.data, 0)).toBe(0n);
    const printed = system.notifications.filter((each) => each.kind === 'console').map((each) => each.text);
    expect(printed.join('')).toBe(text);
  });
});

describe('long hypercalls', () => {
  /** Nanoseconds that a call takes. */
  const LONG = 300_000;
  /** syscall; jmp back */
  const CALLS = [0x0f, 0x05, 0xeb, 0xfc];

  it('leave the others their share', () => {
    const system = testSystem();
    const caller = testGuest(system, CALLS);
    const other = testGuest(system, [0xeb, 0xfe]);
    let calls = 0;
    caller.domain.tracer = new Tracer(() => {
      calls++;
      system.clock.now += LONG;
    });
    const end = system.clock.now + 0.25e9;
    let longest = 0;
    while (system.clock.now < end) {
      const before = system.clock.now;
      system.hypervisor.runSlice();
      longest = Math.max(longest, system.clock.now - before);
    }
    const { now } = system.clock;
    const [first = 0, second = 0] = [caller, other].map(({ vcpu }) =>
      vcpu.runstate.total(RUNSTATE.running, now),
    );
    expect(calls).toBeGreaterThan(250);
    expect(second / (first + second)).toBeGreaterThan(0.45);
    // A turn, and as many calls as are made between two looks at the clock.
    expect(longest).toBeLessThan(5e6);
  });

  it('leave the others the pieces in which they run', () => {
    const system = testSystem(24, 100);
    const { clock, hypervisor } = system;
    const caller = testGuest(system, CALLS);
    const other = testGuest(system, [0xeb, 0xfe]);
    caller.domain.tracer = new Tracer(() => {
      clock.now += LONG;
    });
    const { processor } = hypervisor;
    const run = processor.run.bind(processor);
    let [pieces, instructions] = [0, 0];
    // An instruction is a nanosecond.
    vi.spyOn(processor, 'run').mockImplementation((cpu, budget) => {
      const before = cpu.number(CPU.instructions);
      const exit = run(cpu, budget);
      const executed = cpu.number(CPU.instructions) - before;
      clock.now += executed;
      if (cpu === other.cpu) {
        pieces++;
        instructions += executed;
      }
      return exit;
    });
    for (const start = clock.now; clock.now < start + 30e6; ) hypervisor.runSlice();
    [pieces, instructions] = [0, 0];
    for (const start = clock.now; clock.now < start + 50e6; ) hypervisor.runSlice();
    expect(instructions / pieces).toBeGreaterThan(100_000);
  });
});

describe('exceptions', () => {
  /** A trap table entry. */
  const trap = (vector: number, flags: number, handler: number): number[] => {
    const entry = new Uint8Array(16);
    const view = new DataView(entry.buffer);
    view.setUint8(0, vector);
    view.setUint8(1, flags);
    view.setUint16(2, 0xe033, true);
    view.setBigInt64(8, BigInt(handler), true);
    return [...entry];
  };
  const TRAPS = va(PAGE.free);
  const HANDLER = va(PAGE.free + 1);
  const setTraps = hypercall(HYPERVISOR.set_trap_table, TRAPS);
  /** mov rax, rsp; store; shut down */
  const report = [0x48, 0x89, 0xe0, ...store(va(PAGE.data)), ...shutdown(SHUTDOWN.poweroff)];

  it('enter the handler with the frame of the 64-bit interface', () => {
    const system = testSystem();
    const code = [
      ...setTraps,
      ...mov(1, 0x1111),
      ...mov(11, 0x2222),
      // Unaligned, so that alignment shows: sub rsp, 4
      ...[0x48, 0x83, 0xec, 0x04],
      ...load(0x123000),
    ];
    const guest = testGuest(system, code);
    guest.write(PAGE.free, 0, [...trap(14, 4, HANDLER), ...new Uint8Array(16)]);
    guest.write(PAGE.free + 1, 0, report);
    runUntilIdle(system);
    expect(guest.domain.crashReason).toBeNull();
    const top = va(PAGE.stack, 4096) - 16;
    expect(signed(guest.read64(PAGE.data, 0))).toBe(top - 64);
    const frame = (word: number) => guest.read64(PAGE.stack, 4096 - 16 - 64 + word * 8);
    expect(frame(0)).toBe(0x1111n);
    expect(frame(1)).toBe(0x2222n);
    expect(frame(2)).toBe(0n); // error code: not present, read, kernel
    expect(signed(frame(3))).toBe(va(PAGE.code, code.length - 10));
    expect(frame(4)).toBe(0x1_0000_e030n); // level 0, events were masked
    expect(frame(5) & BigInt(FLAG.IF | FLAG.IOPL)).toBe(0n);
    expect(signed(frame(6))).toBe(va(PAGE.stack, 4096) - 4);
    expect(frame(7)).toBe(0xe02bn);
    expect(guest.vcpu.pageFaultAddress).toBe(0x123000);
  });

  it('without a handler end the domain, with a reason', () => {
    const system = testSystem();
    const guest = testGuest(system, [0x0f, 0x0b]);
    runUntilIdle(system);
    expect(guest.domain.shutdown).toBe(SHUTDOWN.crash);
    expect(guest.domain.crashReason).toBe(
      '#UD in kernel mode at ffffffff80004000, and the guest has no handler for it',
    );
    const dump = system.hypervisor.control.crashDump(guest.domain.id);
    expect(dump).toContain('rip ffffffff80004000');
    expect(dump).toContain('code 0f 0b 00');
  });

  it('on an impossible stack end the domain', () => {
    const system = testSystem();
    const guest = testGuest(system, [...setTraps, ...mov(4, 0x1000), 0x0f, 0x0b]);
    guest.write(PAGE.free, 0, [...trap(6, 0, HANDLER), ...new Uint8Array(16)]);
    runUntilIdle(system);
    expect(guest.domain.crashReason).toMatch(/the kernel's stack at 0000000000001000 cannot be written/);
  });

  it('of a frame across two pages are the same', () => {
    const system = testSystem();
    const guest = testGuest(system, [...setTraps, ...mov(4, va(PAGE.data, 32)), 0xcc]);
    guest.write(PAGE.free, 0, [...trap(3, 0, HANDLER), ...new Uint8Array(16)]);
    guest.write(PAGE.free + 1, 0, shutdown(SHUTDOWN.reboot));
    runUntilIdle(system);
    expect(guest.domain.shutdown).toBe(SHUTDOWN.reboot);
    expect(signed(guest.read64(PAGE.data, 16))).toBe(va(PAGE.data, 32)); // rsp
    expect(signed(guest.read64(PAGE.stack, 4096 - 8))).toBe(va(PAGE.code, setTraps.length + 11)); // rip
  });

  it('of INT n ask for the level', () => {
    for (const [flags, reason] of [
      [1, SHUTDOWN.reboot],
      [0, SHUTDOWN.suspend],
    ] as const) {
      const system = testSystem();
      const guest = testGuest(system, [...setTraps, 0xcd, 0x80]);
      const other = va(PAGE.free + 2);
      guest.write(PAGE.free, 0, [
        ...trap(0x80, flags, HANDLER),
        ...trap(13, 0, other),
        ...new Uint8Array(16),
      ]);
      guest.write(PAGE.free + 1, 0, shutdown(SHUTDOWN.reboot));
      guest.write(PAGE.free + 2, 0, shutdown(SHUTDOWN.suspend));
      runUntilIdle(system);
      expect(guest.domain.shutdown).toBe(reason);
      if (flags === 0) expect(guest.read64(PAGE.stack, 4096 - 48)).toBe(0x402n); // error code
    }
  });

  it('after a single step', () => {
    const system = testSystem();
    // pushf; or dword [rsp], TF; popf; nop; nop
    const code = [...setTraps, 0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d, 0x90, 0x90];
    const guest = testGuest(system, code);
    guest.write(PAGE.free, 0, [...trap(1, 0, HANDLER), ...new Uint8Array(16)]);
    guest.write(PAGE.free + 1, 0, [
      ...hypercall(HYPERVISOR.get_debugreg, 6),
      ...store(va(PAGE.data)),
      ...shutdown(SHUTDOWN.poweroff),
    ]);
    runUntilIdle(system);
    expect(guest.domain.crashReason).toBeNull();
    expect(guest.read64(PAGE.data, 0) & 0x4000n).toBe(0x4000n);
    expect(signed(guest.read64(PAGE.stack, 4096 - 40))).toBe(va(PAGE.code, code.length - 1));
  });
});

describe('user mode', () => {
  it('is entered by iret and left by a system call', () => {
    const system = testSystem();
    const kernelStack = va(PAGE.stack, 4096);
    const iretFrame = [
      [0x77, 0x1b, 0x1c, 0], // rax r11 rcx flags
      [va(PAGE.userCode), FLAT_USER_CS, FLAG.IF | FLAG.CF, va(PAGE.userStack, 4096), FLAT_USER_SS],
    ].flat();
    const syscallEntry = va(PAGE.free);
    const guest = testGuest(system, [
      ...hypercall(HYPERVISOR.set_callbacks, va(PAGE.free + 1), va(PAGE.free + 2), syscallEntry),
      ...hypercall(HYPERVISOR.stack_switch, 0xe02b, kernelStack),
      ...mov(4, va(PAGE.data, 512)),
      ...mov(0, HYPERVISOR.iret),
      0x0f,
      0x05,
    ]);
    iretFrame.forEach((value, index) => {
      guest.write64(PAGE.data, 512 + index * 8, value);
    });
    guest.domain.memory.loadRoots(guest.vcpu, guest.mfns[0]!, guest.mfns[0]!);
    guest.vcpu.setGsBase(true, 0x1000);
    guest.vcpu.setGsBase(false, 0x2000);
    // Keeps rax, makes a system call.
    guest.write(PAGE.userCode, 0, [...store(va(PAGE.data, 64)), 0x0f, 0x05]);
    guest.write(PAGE.free, 0, [0x48, 0x89, 0xe0, ...store(va(PAGE.data)), ...shutdown(SHUTDOWN.poweroff)]);
    runUntilIdle(system);
    expect(guest.domain.crashReason).toBeNull();
    expect(guest.read64(PAGE.data, 64)).toBe(0x77n);
    expect(signed(guest.read64(PAGE.data, 0))).toBe(kernelStack - 56);
    const frame = (word: number) => guest.read64(PAGE.stack, 4096 - 56 + word * 8);
    expect(signed(frame(0))).toBe(va(PAGE.userCode, 12)); // rcx
    expect(signed(frame(2))).toBe(va(PAGE.userCode, 12)); // rip
    expect(frame(3)).toBe(0xe033n); // user level, events were open
    expect(frame(4) & 0x201n).toBe(0x201n);
    expect(frame(1)).toBe(frame(4));
    expect(signed(frame(5))).toBe(va(PAGE.userStack, 4096));
    expect(guest.vcpu.kernelMode).toBe(true);
    expect(guest.cpu.number(CPU.gsBase)).toBe(0x1000);
    expect(guest.vcpu.shadowGsBase).toBe(0x2000);
  });

  it('needs page tables', () => {
    const system = testSystem();
    const guest = testGuest(system, [...mov(4, va(PAGE.data, 512)), ...mov(0, HYPERVISOR.iret), 0x0f, 0x05]);
    guest.write64(PAGE.data, 512 + 40, FLAT_USER_CS);
    runUntilIdle(system);
    expect(guest.domain.crashReason).toBe('iret to user mode, and the guest has no user page tables');
  });

  it('with a bad segment goes to the failsafe callback', () => {
    const system = testSystem();
    const guest = testGuest(system, [
      ...hypercall(HYPERVISOR.set_callbacks, va(PAGE.free + 1), va(PAGE.free), va(PAGE.free + 1)),
      ...mov(4, va(PAGE.data, 512)),
      ...mov(0, HYPERVISOR.iret),
      0x0f,
      0x05,
    ]);
    [0, 0, 0, 0, va(PAGE.code), 0x8888, 0, va(PAGE.stack, 4096), FLAT_USER_SS].forEach((value, index) => {
      guest.write64(PAGE.data, 512 + index * 8, value);
    });
    guest.write(PAGE.free, 0, shutdown(SHUTDOWN.reboot));
    runUntilIdle(system);
    expect(guest.domain.shutdown).toBe(SHUTDOWN.reboot);
    // rcx r11 ds es fs gs rip cs rflags rsp ss: eleven words; cs is the bad one.
    expect(guest.read64(PAGE.stack, 4096 - 32) & 0xffffn).toBe(0x8888n);
  });
});

describe('events and time', () => {
  const pending = (guest: ReturnType<typeof testGuest>, system: ReturnType<typeof testSystem>) =>
    system.memory.u8[guest.vcpu.vcpuInfo + VCPU_INFO.evtchn_upcall_pending];

  it('a blocked guest sleeps until its timer, and takes the upcall', () => {
    const system = testSystem();
    const guest = testGuest(system, [
      ...hypercall(HYPERVISOR.set_callbacks, va(PAGE.free), 0, 0),
      ...hypercall(HYPERVISOR.vcpu_op, 7, 0, 0),
      ...hypercall(HYPERVISOR.set_timer_op, 1_500_000_000),
      ...BLOCK,
      ...hypercall(HYPERVISOR.console_io, 0, 1, va(PAGE.code)),
    ]);
    guest.write(PAGE.free, 0, shutdown(SHUTDOWN.poweroff));
    guest.domain.events.bindVirq(VIRQ.TIMER, 0);
    const idle = runUntilIdle(system);
    expect(guest.vcpu.blocked).toBe(true);
    expect(idle).toBeGreaterThan(490_000_000);
    expect(idle).toBeLessThanOrEqual(500_000_000);
    expect(pending(guest, system)).toBe(0);
    system.clock.now = 1_500_000_000;
    expect(runUntilIdle(system)).toBe(Number.POSITIVE_INFINITY);
    expect(guest.domain.shutdown).toBe(SHUTDOWN.poweroff);
    // The upcall masked events, and its frame says that they were open.
    expect(guest.vcpu.upcallMasked).toBe(true);
    expect(guest.read64(PAGE.stack, 4096 - 32)).toBe(0xe030n);
  });

  it('a timer in the past fires at once', () => {
    const system = testSystem();
    const guest = testGuest(system, [
      ...hypercall(HYPERVISOR.set_timer_op, 5),
      ...shutdown(SHUTDOWN.poweroff),
    ]);
    guest.vcpu.period = 0;
    guest.domain.events.bindVirq(VIRQ.TIMER, 0);
    runUntilIdle(system);
    expect(pending(guest, system)).toBe(1);
  });

  it('a spinning guest still gets its timer', () => {
    const system = testSystem();
    const guest = testGuest(system, [
      ...hypercall(HYPERVISOR.set_callbacks, va(PAGE.free), 0, 0),
      ...hypercall(HYPERVISOR.set_timer_op, 1_030_000_000),
      0xeb,
      0xfe,
    ]);
    guest.vcpu.upcallMasked = false;
    guest.vcpu.period = 0;
    guest.write(PAGE.free, 0, shutdown(SHUTDOWN.poweroff));
    guest.domain.events.bindVirq(VIRQ.TIMER, 0);
    let slices = 0;
    while (guest.domain.shutdown === null && slices++ < 200) {
      system.hypervisor.runSlice();
      system.clock.now += 1_000_000;
    }
    expect(guest.domain.shutdown).toBe(SHUTDOWN.poweroff);
    expect(slices).toBeLessThan(60);
  });

  it('a watchdog ends a domain', () => {
    const system = testSystem();
    const guest = testGuest(system, [
      ...hypercall(HYPERVISOR.sched_op, SCHEDOP.watchdog, va(PAGE.data)),
      ...store(va(PAGE.data, 64)),
      ...hypercall(HYPERVISOR.sched_op_compat, SCHEDOP.block),
    ]);
    guest.write(PAGE.data, 0, [0, 0, 0, 0, 2, 0, 0, 0]);
    const idle = runUntilIdle(system);
    expect(guest.read64(PAGE.data, 64)).toBe(1n);
    expect(idle).toBeGreaterThan(1.9e9);
    system.clock.now += 2e9;
    runUntilIdle(system);
    expect(guest.domain.shutdown).toBe(SHUTDOWN.watchdog);
  });

  it('time information is one nanosecond a tick', () => {
    const system = testSystem();
    const guest = testGuest(system, BLOCK);
    const { memory } = system;
    const at = guest.vcpu.vcpuInfo + VCPU_INFO.time;
    const version = memory.read32(at);
    expect(version & 1).toBe(0);
    expect(version).toBeGreaterThan(0);
    const stamp = memory.read64(at + 8);
    const time = memory.read64(at + 16);
    const multiplier = BigInt(memory.read32(at + 24));
    const shift = BigInt(memory.u8[at + 28]!);
    const ns = time + (((stamp + 12_345n - stamp) << shift) * multiplier) / (1n << 32n);
    expect(ns).toBe(time + 12_345n);
    expect(stamp).toBe(time);
    const seconds = memory.read32(guest.domain.memory.sharedInfo + SHARED_INFO.wc_sec);
    expect(Math.abs(seconds - 1_700_000_000)).toBeLessThanOrEqual(1);
  });

  it('several domains take turns', () => {
    const system = testSystem();
    // inc qword [data]; jmp back
    const code = [...mov(0, va(PAGE.data)), 0x48, 0xff, 0x00, 0xeb, 0xfb];
    const guests = [testGuest(system, code), testGuest(system, code)];
    for (let slice = 0; slice < 24; slice++) {
      system.hypervisor.runSlice();
      system.clock.now += 1_000_000;
    }
    const [a, b] = guests.map((guest) => Number(guest.read64(PAGE.data, 0))) as [number, number];
    expect(a).toBeGreaterThan(1000);
    expect(b).toBeGreaterThan(1000);
    const times = guests.map(({ domain }) => system.hypervisor.control.getDomainInfo(domain.id).cpuTimeNs);
    expect(Math.min(...times) / Math.max(...times)).toBeGreaterThan(0.5);
    // Runstates add up to the time that each exists.
    for (const { vcpu } of guests) {
      const total = [0, 1, 2, 3].reduce(
        (sum, state) => sum + vcpu.runstate.total(state as 0, system.clock.now),
        0,
      );
      expect(total).toBeLessThanOrEqual(system.clock.now - 1e9);
      expect(total).toBeGreaterThan(system.clock.now - 1e9 - 5e6);
    }
  });
});

describe('the life of a domain', () => {
  it('gives back every frame', () => {
    const system = testSystem();
    const { hypervisor, frames } = system;
    const before = frames.free;
    for (let round = 0; round < 3; round++) {
      const guest = testGuest(system, shutdown(SHUTDOWN.poweroff), 2);
      runUntilIdle(system);
      hypervisor.control.destroyDomain(guest.domain.id);
      expect(frames.free).toBe(before);
      expect(() => hypervisor.control.getDomainInfo(guest.domain.id)).toThrow(/there is no domain/);
    }
  });

  it('can be refused', () => {
    const { hypervisor, frames } = testSystem();
    const before = frames.free;
    const { control } = hypervisor;
    expect(() => control.createDomain({ maxPages: 1 << 24, vcpus: 1 })).toThrow(/less memory/);
    expect(() => control.createDomain({ maxPages: 16, vcpus: 1000 })).toThrow();
    expect(() => control.createDomain({ maxPages: 16, vcpus: 1, uuid: 'xyz' })).toThrow(/not a UUID/);
    expect(frames.free).toBe(before);
  });
});
