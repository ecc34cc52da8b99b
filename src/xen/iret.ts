/**
 * The way back out of the guest's kernel: iret, and stack_switch, which says where it is entered the next time.
 */
import { join64 } from '../x86/cpu.ts';
import { Access } from '../x86/processor.ts';
import { CPU, CS, FLAG, RAX, RCX, RSP, SS } from '../x86/state.ts';
import { enterFailsafe } from './callback.ts';
import { GATE } from './gate-state.ts';
import { type Arguments, HypercallError, NO_RESULT } from './hypercall.ts';
import { FLAT_USER_CS, FLAT_USER_SS, IRET_CONTEXT, VGCF_IN_SYSCALL } from './public/arch-x86.ts';
import { ERRNO } from './public/errno.ts';
import { VMASST_TYPE } from './public/xen.ts';
import { isCodeSelector, isStackSelector } from './segments.ts';
import { IRET_FLAGS, isCanonical } from './traps.ts';
import type { Vcpu } from './vcpu.ts';

const WORDS = IRET_CONTEXT.size / 4;

/** iret(): the context lies on the guest kernel's stack. rax comes from there as well. */
export function iret(vcpu: Vcpu, _args: Arguments): number {
  const { cpu } = vcpu;
  const frame = frameWord(vcpu);
  if (frame < 0) return NO_RESULT;
  const { u32 } = vcpu.memory;
  const low = (offset: number) => u32[frame + (offset >>> 2)]!;
  const number = (offset: number) => join64(low(offset), low(offset + 4));
  const copy = (offset: number, register: number) => {
    cpu.put(CPU.regs + register * 8, low(offset));
    cpu.put(CPU.regs + register * 8 + 4, low(offset + 4));
  };

  let cs = low(IRET_CONTEXT.cs) & 0xffff;
  const toUser = (cs & 3) === 3;
  if (toUser) {
    if (vcpu.userRoot === 0) {
      vcpu.domain.crash('iret to user mode, and the guest has no user page tables', vcpu);
      return NO_RESULT;
    }
    vcpu.setKernelMode(false);
  }
  const inSyscall = (low(IRET_CONTEXT.flags) & VGCF_IN_SYSCALL) !== 0;
  const rflags = low(IRET_CONTEXT.rflags);
  if (vcpu.domain.vmAssist & (1 << VMASST_TYPE.architectural_iopl)) vcpu.iopl = (rflags & FLAG.IOPL) >> 12;
  let ss = (low(IRET_CONTEXT.ss) & 0xffff) | 3;
  cs |= 3;
  copy(IRET_CONTEXT.rax, RAX);
  copy(IRET_CONTEXT.rsp, RSP);
  const rip = number(IRET_CONTEXT.rip);
  if (inSyscall) {
    // SYSRET leaves the address and the flags in these, and flat segments.
    copy(IRET_CONTEXT.rip, RCX);
    cpu.setRegNumber(11, (rflags & IRET_FLAGS) | FLAG.IF | FLAG.ONE);
    cs = FLAT_USER_CS;
    ss = FLAT_USER_SS;
  } else {
    copy(IRET_CONTEXT.r11, 11);
    copy(IRET_CONTEXT.rcx, RCX);
  }
  cpu.rip = rip;
  cpu.rflags = (rflags & IRET_FLAGS) | FLAG.IF | FLAG.ONE;
  cpu.setSelector(CS, cs);
  cpu.setSelector(SS, ss);
  vcpu.upcallMasked = (rflags & FLAG.IF) === 0;
  vcpu.nmiMasked = false;
  // The flat segments are what nearly every return has: no look-up for them.
  const goodCs = cs === FLAT_USER_CS || isCodeSelector(vcpu, cs);
  const goodSs = ss === FLAT_USER_SS || isStackSelector(vcpu, ss);
  // The next time gates know; not of an LDT, which the guest may write to.
  if (goodCs && (cs & 4) === 0) cpu.put(GATE.checkedCs, cs);
  if (goodSs && (ss & 4) === 0) cpu.put(GATE.checkedSs, ss);
  if (!isCanonical(rip) || !goodCs || !goodSs) enterFailsafe(vcpu);
  return NO_RESULT;
}

/** Index of the u32 with which the context begins; -1 if the domain crashed because it cannot be read. */
function frameWord(vcpu: Vcpu): number {
  const { guest, memory, cpu } = vcpu;
  const at = cpu.regNumber(RSP);
  try {
    if ((at & 3) === 0 && (at & 0xfff) + IRET_CONTEXT.size <= 4096)
      return guest.linear(at, Access.Read) >>> 2;
    const word = (cpu.address + CPU.temp) >>> 2;
    for (let index = 0; index < WORDS; index++) memory.u32[word + index] = guest.u32(at + index * 4);
    return word;
  } catch (error) {
    if (!(error instanceof HypercallError)) throw error;
    vcpu.domain.crash('iret, but the stack with its context cannot be read', vcpu);
    return -1;
  }
}

/** stack_switch(ss, sp): the stack on which user mode enters the kernel. */
export function stackSwitch(vcpu: Vcpu, args: Arguments): number {
  const sp = args.number(1);
  if (!isCanonical(sp)) return -ERRNO.EPERM;
  vcpu.kernelSs = (args.low(0) & 0xffff) | 3;
  vcpu.kernelSp = sp;
  return 0;
}
