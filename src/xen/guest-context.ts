/**
 * The first state of a vCPU, as the builder (setVcpuContext) or the guest itself (VCPUOP_initialise) gives it.
 */
import { join64, type VirtualAddress } from '../x86/cpu.ts';
import { CPU, CS, DS, ES, FLAG, FS, GS, RSP, SS } from '../x86/state.ts';
import { writeDebugRegister } from './debugreg.ts';
import { loadGdt, setLdt } from './descriptors.ts';
import { loadFxsave } from './fpu.ts';
import { HypercallError } from './hypercall.ts';
import {
  FIRST_RESERVED_GDT_ENTRY,
  FLAT_KERNEL_CS,
  FLAT_KERNEL_SS,
  GUEST_CONTEXT,
  USER_REG_OFFSETS,
  USER_REGS,
  VGCF,
} from './public/arch-x86.ts';
import { ERRNO } from './public/errno.ts';
import { TRAP_INFO } from './public/xen.ts';
import { isCodeSelector, isStackSelector } from './segments.ts';
import { isCanonical, VECTORS } from './traps.ts';
import type { Vcpu } from './vcpu.ts';

/** The start of a kernel, as the builder knows it. */
export interface StartState {
  rip: VirtualAddress;
  rsp: VirtualAddress;
  /** Address of start_info. */
  rsi: VirtualAddress;
  /** Frame number of the L4 table. */
  root: number;
  rflags?: number;
}

/** Flags that a first state may have beside the ones every vCPU runs with. */
const ALLOWED_FLAGS =
  FLAG.CF | FLAG.PF | FLAG.AF | FLAG.ZF | FLAG.SF | FLAG.DF | FLAG.OF | FLAG.TF | FLAG.AC | FLAG.ID;

/** @throws HypercallError EINVAL: an address that is not one; EINVAL or EBUSY: a root that cannot be one */
export function applyStartState(vcpu: Vcpu, start: StartState): void {
  const { cpu } = vcpu;
  if (!isCanonical(start.rip) || !isCanonical(start.rsp)) throw new HypercallError(ERRNO.EINVAL);
  vcpu.domain.memory.loadRoots(vcpu, start.root, 0);
  for (let register = 0; register < 16; register++) cpu.setRegNumber(register, 0);
  cpu.rip = start.rip;
  cpu.setRegNumber(RSP, start.rsp);
  cpu.setRegNumber(6, start.rsi);
  cpu.rflags = ((start.rflags ?? 0) & ALLOWED_FLAGS) | FLAG.IF | FLAG.ONE;
  cpu.setSelector(CS, FLAT_KERNEL_CS);
  cpu.setSelector(SS, FLAT_KERNEL_SS);
  for (const segment of [DS, ES, FS, GS]) cpu.setSelector(segment, 0);
  vcpu.kernelSs = FLAT_KERNEL_SS;
  vcpu.kernelSp = start.rsp;
  vcpu.initialised = true;
}

/**
 * Takes a struct vcpu_guest_context over.
 * @param image its bytes
 * @throws HypercallError EINVAL: something in it that cannot be
 */
export function applyGuestContext(vcpu: Vcpu, image: Uint8Array): void {
  const { cpu, domain } = vcpu;
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const low = (offset: number) => view.getUint32(offset, true);
  const number = (offset: number) => join64(low(offset), low(offset + 4));
  const refuse = (): never => {
    throw new HypercallError(ERRNO.EINVAL);
  };
  const regs = GUEST_CONTEXT.user_regs;
  const flags = low(GUEST_CONTEXT.flags);
  const addresses = [
    regs + USER_REGS.rip,
    GUEST_CONTEXT.event_callback_eip,
    GUEST_CONTEXT.failsafe_callback_eip,
    GUEST_CONTEXT.syscall_callback_eip,
    GUEST_CONTEXT.kernel_sp,
    GUEST_CONTEXT.fs_base,
    GUEST_CONTEXT.gs_base_kernel,
    GUEST_CONTEXT.gs_base_user,
  ];
  for (const offset of addresses) if (!isCanonical(number(offset))) refuse();

  const gdtEntries = number(GUEST_CONTEXT.gdt_ents);
  if (gdtEntries < 0 || gdtEntries > FIRST_RESERVED_GDT_ENTRY) refuse();
  const frames: number[] = [];
  for (let index = 0; index * 512 < gdtEntries; index++)
    frames.push(number(GUEST_CONTEXT.gdt_frames + index * 8));
  const kernel = (flags & VGCF.in_kernel) !== 0;
  const user = Math.floor(number(GUEST_CONTEXT.ctrlreg + 8) / 4096);
  if (!kernel && user === 0) refuse();
  if (setLdt(vcpu, number(GUEST_CONTEXT.ldt_base), low(GUEST_CONTEXT.ldt_ents)) !== 0) refuse();
  loadGdt(vcpu, frames, gdtEntries);
  domain.memory.loadRoots(vcpu, Math.floor(number(GUEST_CONTEXT.ctrlreg + 24) / 4096), user);

  for (let register = 0; register < 16; register++) {
    const at = regs + USER_REG_OFFSETS[register]!;
    cpu.put(CPU.regs + register * 8, low(at));
    cpu.put(CPU.regs + register * 8 + 4, low(at + 4));
  }
  cpu.rip = number(regs + USER_REGS.rip);
  const rflags = low(regs + USER_REGS.rflags);
  cpu.rflags = (rflags & ALLOWED_FLAGS) | FLAG.IF | FLAG.ONE;
  // The processor itself runs without: this is the guest's own idea of it.
  vcpu.iopl = (rflags & FLAG.IOPL) >> 12;
  const cs = (low(regs + USER_REGS.cs) & 0xffff) | 3;
  const ss = (low(regs + USER_REGS.ss) & 0xffff) | 3;
  cpu.setSelector(CS, isCodeSelector(vcpu, cs) ? cs : FLAT_KERNEL_CS);
  cpu.setSelector(SS, isStackSelector(vcpu, ss) ? ss : FLAT_KERNEL_SS);
  cpu.setSelector(DS, low(regs + USER_REGS.ds) & 0xffff);
  cpu.setSelector(ES, low(regs + USER_REGS.es) & 0xffff);
  cpu.setSelector(FS, low(regs + USER_REGS.fs) & 0xffff);
  cpu.setSelector(GS, low(regs + USER_REGS.gs) & 0xffff);
  vcpu.setKernelMode(kernel);
  cpu.putNumber(CPU.fsBase, number(GUEST_CONTEXT.fs_base));
  vcpu.setGsBase(true, number(GUEST_CONTEXT.gs_base_kernel));
  vcpu.setGsBase(false, number(GUEST_CONTEXT.gs_base_user));

  for (let index = 0; index < VECTORS; index++) {
    const at = GUEST_CONTEXT.trap_ctxt + index * TRAP_INFO.size;
    const address = number(at + TRAP_INFO.address);
    if (!isCanonical(address)) refuse();
    vcpu.traps.set(index, image[at + TRAP_INFO.flags]!, view.getUint16(at + TRAP_INFO.cs, true) | 3, address);
  }
  vcpu.kernelSs = (low(GUEST_CONTEXT.kernel_ss) & 0xffff) | 3;
  vcpu.kernelSp = number(GUEST_CONTEXT.kernel_sp);
  vcpu.callbacks.event = number(GUEST_CONTEXT.event_callback_eip);
  vcpu.callbacks.failsafe = number(GUEST_CONTEXT.failsafe_callback_eip);
  vcpu.callbacks.failsafeMasksEvents = (flags & VGCF.failsafe_disables_events) !== 0;
  vcpu.callbacks.syscall = number(GUEST_CONTEXT.syscall_callback_eip);
  vcpu.callbacks.syscallMasksEvents = (flags & VGCF.syscall_disables_events) !== 0;
  for (const register of [0, 1, 2, 3, 6, 7])
    writeDebugRegister(vcpu, register, number(GUEST_CONTEXT.debugreg + register * 8));
  if (flags & VGCF.i387_valid) loadFxsave(vcpu, image);
  vcpu.initialised = true;
}
