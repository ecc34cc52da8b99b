/**
 * Ways between a guest's user mode and its kernel that need no validation, in WebAssembly (x86/gates.ts): system
 * calls, page faults and iret, and the hypercalls that only set a field of the vCPU.
 *
 * Each does, for the plain case, exactly what its counterpart in TypeScript does, and nothing else: callback.ts
 * (enterSyscall), traps.ts (bounce, injectException), iret.ts, segments.ts, fpu.ts. Those are the definition; a test
 * holds the two side by side (gates.test.ts). Whatever is out of the ordinary is left to them: a gate looks first,
 * and changes the guest's state only when nothing can go wrong any more. In particular it never unmasks a pending
 * event, never touches an address of the hypervisor's, and never loads a selector that nobody looked at.
 */
import { call, type Func, type I32, type I64, i32, i64, type Local, select } from '../wasm/index.ts';
import { emitSetMode, emitTranslate, type GateBuilder } from '../x86/gates.ts';
import { notCanonical } from '../x86/mmu.ts';
import { CPU, CS, Exit, FLAG, PF, R11, RAX, RCX, RDI, RSI, RSP, SS, VECTOR } from '../x86/state.ts';
import { GATE } from './gate-state.ts';
import {
  FLAT_KERNEL_CS,
  FLAT_KERNEL_SS,
  FLAT_USER_CS,
  FLAT_USER_SS,
  IRET_CONTEXT,
  SEGBASE,
  VGCF_IN_SYSCALL,
} from './public/arch-x86.ts';
import { HYPERVISOR, HYPERVISOR_VIRT_END, HYPERVISOR_VIRT_START, TI_IF, VCPU_INFO } from './public/xen.ts';
import { CLEARED_ON_ENTRY, IRET_FLAGS } from './traps.ts';

const register = (number: number) => CPU.regs + number * 8;
const selector = (number: number) => CPU.selectors + number * 8;

/** Leaves the gate: nothing happened. */
const refuse = (f: Func) => f.return(i32.const(0));
const answered = (f: Func) => f.return(i32.const(1));

function inHypervisor(va: I64): I32 {
  const size = BigInt(HYPERVISOR_VIRT_END - HYPERVISOR_VIRT_START);
  return i64.lt_u(i64.sub(va, i64.const(BigInt(HYPERVISOR_VIRT_START))), i64.const(size));
}

/** Not within one page, in bytes from an address on. */
function crosses(va: I64, bytes: I32 | number): I32 {
  return i32.gt_u(i32.add(i32.and(i32.wrap(va), 0xfff), bytes), 0x1000);
}

/** Vcpu.setKernelMode, where the mode does change. */
function emitKernelMode(f: Func, cpu: I32, kernel: boolean): void {
  const base = f.let(i64.load(cpu, CPU.gsBase));
  f.store(cpu, i64.load(cpu, GATE.shadowGsBase), CPU.gsBase);
  f.store(cpu, base, GATE.shadowGsBase);
  f.store(cpu, i32.const(kernel ? 1 : 0), GATE.kernelMode);
  emitSetMode(f, cpu, kernel);
}

/** (exit fields) -> 1 or 0: the one gate that the processor knows. */
export const buildGate: GateBuilder = (module, parts) => {
  const bounce = buildBounce(module, parts);
  const iret = buildIret(module, parts);
  const f = module.func('gate', ['i32'], ['i32']);
  const cpu = f.arg('i32', 0);
  f.if(i32.eqz(i32.load(cpu, GATE.open)), () => refuse(f));
  const info = f.let(i32.load(cpu, GATE.vcpuInfo));
  f.if(i32.eqz(info), () => refuse(f));
  // The guest unmasked its events by a store of its own: this exit is when they are delivered.
  const pending = i32.load8u(info, VCPU_INFO.evtchn_upcall_pending);
  const waiting = i32.and(i32.ne(pending, 0), i32.eqz(i32.load8u(info, VCPU_INFO.evtchn_upcall_mask)));
  f.if(waiting, () => refuse(f));
  const reason = f.let(i32.load(cpu, CPU.exitReason));
  const kernel = f.let(i32.load(cpu, GATE.kernelMode));
  f.if(i32.eq(reason, Exit.Syscall), () => {
    f.if(i32.eqz(kernel), () => {
      const address = f.let(i64.load(cpu, GATE.syscall));
      const masks = i32.load(cpu, GATE.syscallMasks);
      f.if(i64.eqz(address), () => refuse(f));
      f.return(call('i32', bounce, cpu, address, masks, i32.const(-1)));
    });
    const number = f.let(i64.load(cpu, register(RAX)));
    f.if(i64.eq(number, HYPERVISOR.iret), () => f.return(call('i32', iret, cpu)));
    emitSetters(f, cpu, number);
    refuse(f);
  });
  const pageFault = i32.and(i32.eq(reason, Exit.Exception), i32.eq(i32.load(cpu, CPU.exitVector), VECTOR.PF));
  f.if(pageFault, () => {
    const error = f.let(i32.load(cpu, CPU.exitError));
    // The kernel's store to a page that is there may be one to a page table.
    const store = i32.eq(i32.and(error, PF.P | PF.W), PF.P | PF.W);
    f.if(i32.and(kernel, store), () => refuse(f));
    const address = f.let(i64.load(cpu, GATE.pageFault));
    f.if(i64.eqz(address), () => refuse(f));
    const masks = f.let(i32.and(i32.load(cpu, GATE.pageFaultFlags), TI_IF));
    const code = f.let(i32.or(i32.and(error, ~PF.U), select(kernel, i32.const(0), i32.const(PF.U))));
    f.if(i32.eqz(call('i32', bounce, cpu, address, masks, code)), () => refuse(f));
    f.store(info, i64.load(cpu, CPU.cr2), VCPU_INFO.arch_cr2);
    answered(f);
  });
  f.result(i32.const(0));
  return f;
};

/** stack_switch, fpu_taskswitch, set_segment_base with a base: rax becomes 0. */
function emitSetters(f: Func, cpu: I32, number: Local<'i64'>): void {
  const first = f.let(i32.load(cpu, register(RDI)));
  const second = f.let(i64.load(cpu, register(RSI)));
  const done = () => {
    f.store(cpu, i64.const(0), register(RAX));
    f.store(cpu, i32.const(FLAT_KERNEL_CS), selector(CS), 16);
    f.store(cpu, i32.const(FLAT_KERNEL_SS), selector(SS), 16);
    answered(f);
  };
  f.if(i64.eq(number, HYPERVISOR.fpu_taskswitch), () => {
    f.store(cpu, i32.ne(first, 0), CPU.ts);
    done();
  });
  f.if(notCanonical(second), () => refuse(f));
  f.if(i64.eq(number, HYPERVISOR.stack_switch), () => {
    f.store(cpu, i32.or(i32.and(first, 0xffff), 3), GATE.kernelSs);
    f.store(cpu, second, GATE.kernelSp);
    done();
  });
  f.if(i64.eq(number, HYPERVISOR.set_segment_base), () => {
    for (const [which, field] of [
      [SEGBASE.FS, CPU.fsBase],
      // In kernel mode.
      [SEGBASE.GS_USER, GATE.shadowGsBase],
      [SEGBASE.GS_KERNEL, CPU.gsBase],
    ] as const)
      f.if(i32.eq(first, which), () => {
        f.store(cpu, second, field);
        done();
      });
  });
}

/** bounce(cpu, address, masks events, error code or -1) -> 1, or 0 with nothing changed. */
function buildBounce(...[module, { mmu, getFlags }]: Parameters<GateBuilder>): Func {
  const f = module.func('bounce', ['i32', 'i64', 'i32', 'i32'], ['i32']);
  const cpu = f.arg('i32', 0);
  const error = f.arg('i32', 3);
  const withError = f.let(i32.ge_s(error, 0));
  const kernel = f.let(i32.load(cpu, GATE.kernelMode));
  const info = f.let(i32.load(cpu, GATE.vcpuInfo));
  const old = f.let(select(kernel, i64.load(cpu, register(RSP)), i64.load(cpu, GATE.kernelSp)));
  const bytes = f.let(select(withError, i32.const(64), i32.const(56)));
  const sp = f.let(i64.sub(i64.and(old, i64.const(~15n)), i64.extend_u(bytes)));
  f.if(i32.or(i32.or(notCanonical(sp), inHypervisor(sp)), crosses(sp, bytes)), () => refuse(f));
  f.if(i32.eqz(kernel), () => emitSetMode(f, cpu, true));
  const frame = emitTranslate(f, mmu, cpu, sp, true);
  f.if(i32.eqz(frame), () => {
    f.if(i32.eqz(kernel), () => emitSetMode(f, cpu, false));
    refuse(f);
  });

  const masked = f.let(i32.load8u(info, VCPU_INFO.evtchn_upcall_mask));
  f.store(frame, i64.load(cpu, register(RCX)));
  f.store(frame, i64.load(cpu, register(R11)), 8);
  const at = f.let(i32.add(frame, 16));
  f.if(withError, () => {
    f.store(at, i64.extend_u(error));
    f.set(at, i32.add(at, 8));
  });
  f.store(at, i64.load(cpu, CPU.rip));
  // A system call leaves flat segments; what else is in them came from the guest.
  const flat = i32.eqz(withError);
  const cs = f.let(select(flat, i32.const(FLAT_KERNEL_CS), i32.load16u(cpu, selector(CS))));
  const level = select(kernel, i32.and(cs, ~3), i32.or(cs, 3));
  f.store(at, level, 8);
  f.store(at, i32.ne(masked, 0), 12);
  const flags = i32.and(call('i32', getFlags, cpu), ~(FLAG.IF | FLAG.IOPL));
  const iopl = i32.mul(i32.load(cpu, GATE.architecturalIopl), i32.shl(i32.load(cpu, GATE.iopl), 12));
  const interrupts = select(masked, i32.const(0), i32.const(FLAG.IF));
  f.store(at, i64.extend_u(i32.or(i32.or(flags, iopl), interrupts)), 16);
  f.store(at, i64.load(cpu, register(RSP)), 24);
  const ss = select(flat, i32.const(FLAT_KERNEL_SS), i32.load16u(cpu, selector(SS)));
  f.store(at, i64.extend_u(ss), 32);

  f.if(i32.eqz(kernel), () => emitKernelMode(f, cpu, true));
  f.store(cpu, i32.or(i32.and(i32.load(cpu, CPU.rflags), ~CLEARED_ON_ENTRY), FLAG.IF), CPU.rflags);
  f.store(cpu, f.arg('i64', 1), CPU.rip);
  f.store(cpu, sp, register(RSP));
  f.store(cpu, i32.const(FLAT_KERNEL_CS), selector(CS), 16);
  f.store(cpu, i32.const(FLAT_KERNEL_SS), selector(SS), 16);
  f.if(f.arg('i32', 2), () => f.store(info, i32.const(1), VCPU_INFO.evtchn_upcall_mask, 8));
  f.result(i32.const(1));
  return f;
}

/** iret(cpu) -> 1, or 0 with nothing changed. */
function buildIret(...[module, { mmu, setFlags }]: Parameters<GateBuilder>): Func {
  const f = module.func('iret', ['i32'], ['i32']);
  const cpu = f.arg('i32', 0);
  const info = f.let(i32.load(cpu, GATE.vcpuInfo));
  const sp = f.let(i64.load(cpu, register(RSP)));
  const place = i32.or(i32.wrap(i64.and(sp, 7)), crosses(sp, IRET_CONTEXT.size));
  f.if(i32.or(i32.or(notCanonical(sp), inHypervisor(sp)), place), () => refuse(f));
  f.if(i32.load(cpu, GATE.nmiPending), () => refuse(f));
  const frame = emitTranslate(f, mmu, cpu, sp, false);
  f.if(i32.eqz(frame), () => refuse(f));

  const cs = f.let(i32.load16u(frame, IRET_CONTEXT.cs));
  const ss = f.let(i32.load16u(frame, IRET_CONTEXT.ss));
  const rflags = f.let(i32.load(frame, IRET_CONTEXT.rflags));
  const rip = f.let(i64.load(frame, IRET_CONTEXT.rip));
  const inSyscall = f.let(i32.and(i32.load(frame, IRET_CONTEXT.flags), VGCF_IN_SYSCALL));
  const toUser = f.let(i32.eq(i32.and(cs, 3), 3));
  f.if(i32.or(notCanonical(rip), i32.and(rflags, FLAG.TF)), () => refuse(f));
  f.if(i32.and(toUser, i32.eqz(i32.load(cpu, GATE.userRoot))), () => refuse(f));
  f.if(
    inSyscall,
    () => {
      f.set(cs, i32.const(FLAT_USER_CS));
      f.set(ss, i32.const(FLAT_USER_SS));
    },
    () => {
      f.set(cs, i32.or(cs, 3));
      f.set(ss, i32.or(ss, 3));
    },
  );
  const good = (found: I32, flat: number, checked: number) =>
    i32.or(i32.eq(found, flat), i32.eq(found, i32.load(cpu, checked)));
  const both = i32.and(good(cs, FLAT_USER_CS, GATE.checkedCs), good(ss, FLAT_USER_SS, GATE.checkedSs));
  f.if(i32.eqz(both), () => refuse(f));
  const unmasks = i32.and(rflags, FLAG.IF);
  const pending = i32.load8u(info, VCPU_INFO.evtchn_upcall_pending);
  f.if(i32.and(i32.ne(unmasks, 0), i32.ne(pending, 0)), () => refuse(f));

  const copy = (offset: number, to: number) => f.store(cpu, i64.load(frame, offset), register(to));
  const flags = f.let(i32.or(i32.and(rflags, IRET_FLAGS), FLAG.IF | FLAG.ONE));
  copy(IRET_CONTEXT.rax, RAX);
  copy(IRET_CONTEXT.rsp, RSP);
  f.if(
    inSyscall,
    () => {
      copy(IRET_CONTEXT.rip, RCX);
      f.store(cpu, i64.extend_u(flags), register(R11));
    },
    () => {
      copy(IRET_CONTEXT.r11, R11);
      copy(IRET_CONTEXT.rcx, RCX);
    },
  );
  f.store(cpu, rip, CPU.rip);
  f.do(setFlags, cpu, flags, i32.const(-1));
  f.store(cpu, cs, selector(CS), 16);
  f.store(cpu, ss, selector(SS), 16);
  f.store(info, i32.eqz(i32.and(rflags, FLAG.IF)), VCPU_INFO.evtchn_upcall_mask, 8);
  f.store(cpu, i32.const(0), GATE.nmiMasked);
  f.if(i32.load(cpu, GATE.architecturalIopl), () =>
    f.store(cpu, i32.and(i32.shr_u(rflags, 12), 3), GATE.iopl),
  );
  f.if(toUser, () => emitKernelMode(f, cpu, false));
  f.result(i32.const(1));
  return f;
}
