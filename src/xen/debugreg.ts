/** The debug registers of a guest, checked so that they concern it alone. */
import { CPU } from '../x86/state.ts';
import { type Arguments, HypercallError } from './hypercall.ts';
import { ERRNO } from './public/errno.ts';
import { inHypervisor, isCanonical } from './traps.ts';
import type { Vcpu } from './vcpu.ts';

/** CR4.DE: DR4 and DR5 do not exist. */
export const CR4_DE = 1 << 3;

/** Bits that always read as 1, and those that can be set (Intel SDM volume 3, 17.2). */
const DR6_ONES = 0xffff0ff0;
const DR6_SETTABLE = 0x0000e00f;
const DR7_ONES = 0x400;
const DR7_SETTABLE = 0xffff0fff & ~0x2c00;
const DR7_GENERAL_DETECT = 1 << 13;

/** Which of dr0..dr3, dr6, dr7 a number means; null: none. */
function resolve(vcpu: Vcpu, register: number): number | null {
  if (register === 4 || register === 5) return vcpu.cr4 & CR4_DE ? null : register + 2;
  return register >= 0 && register <= 7 ? register : null;
}

/**
 * @throws HypercallError EINVAL: no such register; EPERM: a value that is not allowed
 */
export function writeDebugRegister(vcpu: Vcpu, register: number, value: number): void {
  const index = resolve(vcpu, register);
  if (index === null) throw new HypercallError(ERRNO.EINVAL);
  const at = CPU.dr + index * 8;
  if (index < 4) {
    if (!isCanonical(value) || inHypervisor(value)) throw new HypercallError(ERRNO.EPERM);
    vcpu.cpu.putNumber(at, value);
    return;
  }
  if (value < 0 || value > 0xffffffff) throw new HypercallError(ERRNO.EPERM);
  if (index === 6) {
    vcpu.cpu.put(at, (value & DR6_SETTABLE) | DR6_ONES);
    return;
  }
  const settable = value & DR7_SETTABLE;
  if (value & DR7_GENERAL_DETECT) throw new HypercallError(ERRNO.EPERM);
  for (let breakpoint = 0; breakpoint < 4; breakpoint++) {
    // I/O breakpoints: type 2 of each enabled register.
    const enabled = (settable >>> (breakpoint * 2)) & 3;
    if (enabled !== 0 && ((settable >>> (16 + breakpoint * 4)) & 3) === 2)
      throw new HypercallError(ERRNO.EPERM);
  }
  vcpu.cpu.put(at, settable | DR7_ONES);
}

/** @throws HypercallError EINVAL: no such register */
export function readDebugRegister(vcpu: Vcpu, register: number): number {
  const index = resolve(vcpu, register);
  if (index === null) throw new HypercallError(ERRNO.EINVAL);
  return vcpu.cpu.number(CPU.dr + index * 8);
}

/** set_debugreg(register, value). */
export function setDebugreg(vcpu: Vcpu, args: Arguments): number {
  writeDebugRegister(vcpu, args.number(0), args.number(1));
  return 0;
}

/** get_debugreg(register). */
export function getDebugreg(vcpu: Vcpu, args: Arguments): number {
  return readDebugRegister(vcpu, args.number(0));
}
