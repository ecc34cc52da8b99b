/**
 * The state of a vCPU as Xen lays it out (struct vcpu_guest_context): the reverse of applyGuestContext, for whoever
 * looks at a domain from outside. Read it only while the vCPU does not run.
 */
import { PAGE_SIZE } from '../machine/memory.ts';
import { high32 } from '../x86/cpu.ts';
import { CPU, CS, DS, ES, FS, GS, SS } from '../x86/state.ts';
import { readDebugRegister } from './debugreg.ts';
import { saveFxsave } from './fpu.ts';
import { GUEST_CONTEXT, USER_REG_OFFSETS, USER_REGS, VGCF } from './public/arch-x86.ts';
import { TRAP_INFO } from './public/xen.ts';
import { VECTORS } from './traps.ts';
import type { Vcpu } from './vcpu.ts';

export function guestContext(vcpu: Vcpu): Uint8Array {
  const { cpu } = vcpu;
  const image = new Uint8Array(GUEST_CONTEXT.size);
  const view = new DataView(image.buffer);
  const put = (offset: number, value: number) => {
    view.setUint32(offset, value, true);
    view.setUint32(offset + 4, high32(value), true);
  };

  saveFxsave(vcpu, image);
  const { callbacks, kernelMode } = vcpu;
  const flags =
    VGCF.i387_valid |
    (kernelMode ? VGCF.in_kernel : 0) |
    (callbacks.failsafeMasksEvents ? VGCF.failsafe_disables_events : 0) |
    (callbacks.syscallMasksEvents ? VGCF.syscall_disables_events : 0) |
    (vcpu.down ? 0 : VGCF.online);
  view.setUint32(GUEST_CONTEXT.flags, flags, true);

  const regs = GUEST_CONTEXT.user_regs;
  for (let register = 0; register < 16; register++) {
    const at = regs + USER_REG_OFFSETS[register]!;
    view.setUint32(at, cpu.get(CPU.regs + register * 8), true);
    view.setUint32(at + 4, cpu.get(CPU.regs + register * 8 + 4), true);
  }
  put(regs + USER_REGS.rip, cpu.rip);
  put(regs + USER_REGS.rflags, cpu.rflags);
  const segments = [
    ...([
      [USER_REGS.cs, CS],
      [USER_REGS.ss, SS],
      [USER_REGS.ds, DS],
    ] as const),
    ...([
      [USER_REGS.es, ES],
      [USER_REGS.fs, FS],
      [USER_REGS.gs, GS],
    ] as const),
  ];
  for (const [offset, segment] of segments) view.setUint16(regs + offset, cpu.selector(segment), true);

  for (let vector = 0; vector < VECTORS; vector++) {
    const at = GUEST_CONTEXT.trap_ctxt + vector * TRAP_INFO.size;
    image[at + TRAP_INFO.vector] = vector;
    image[at + TRAP_INFO.flags] = vcpu.traps.flags(vector);
    view.setUint16(at + TRAP_INFO.cs, vcpu.traps.cs[vector]!, true);
    put(at + TRAP_INFO.address, vcpu.traps.address(vector));
  }
  put(GUEST_CONTEXT.ldt_base, vcpu.ldtBase);
  put(GUEST_CONTEXT.ldt_ents, vcpu.ldtEntries);
  vcpu.gdtFrames.forEach((mfn, index) => {
    put(GUEST_CONTEXT.gdt_frames + index * 8, mfn);
  });
  put(GUEST_CONTEXT.gdt_ents, vcpu.gdtEntries);
  put(GUEST_CONTEXT.kernel_ss, vcpu.kernelSs);
  put(GUEST_CONTEXT.kernel_sp, vcpu.kernelSp);
  put(GUEST_CONTEXT.ctrlreg + 3 * 8, vcpu.kernelRoot * PAGE_SIZE);
  // Bit 0 says that it is there.
  if (vcpu.userRoot !== 0) put(GUEST_CONTEXT.ctrlreg + 1 * 8, vcpu.userRoot * PAGE_SIZE + 1);
  put(GUEST_CONTEXT.ctrlreg + 4 * 8, vcpu.cr4);
  for (const register of [0, 1, 2, 3, 6, 7])
    put(GUEST_CONTEXT.debugreg + register * 8, readDebugRegister(vcpu, register));
  put(GUEST_CONTEXT.event_callback_eip, callbacks.event);
  put(GUEST_CONTEXT.failsafe_callback_eip, callbacks.failsafe);
  put(GUEST_CONTEXT.syscall_callback_eip, callbacks.syscall);
  put(GUEST_CONTEXT.vm_assist, vcpu.domain.vmAssist);
  const gsBase = cpu.number(CPU.gsBase);
  put(GUEST_CONTEXT.fs_base, cpu.number(CPU.fsBase));
  put(GUEST_CONTEXT.gs_base_kernel, kernelMode ? gsBase : vcpu.shadowGsBase);
  put(GUEST_CONTEXT.gs_base_user, kernelMode ? vcpu.shadowGsBase : gsBase);
  return image;
}
