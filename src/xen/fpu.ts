/**
 * The floating-point unit: whose it is at the moment (CR0.TS), and its state as FXSAVE lays it out, which is how
 * vcpu_guest_context carries it (Intel SDM volume 1, table 10-2).
 *
 * The state of each vCPU has its own place in memory, so nothing is switched; TS is the guest's own business.
 */
import { CPU, VECTOR } from '../x86/state.ts';
import type { Arguments } from './hypercall.ts';
import { injectException } from './traps.ts';
import type { Vcpu } from './vcpu.ts';

const FXSAVE = { fcw: 0, fsw: 2, ftw: 4, fop: 6, fip: 8, fdp: 16, mxcsr: 24, st: 32, xmm: 160 } as const;
/** MXCSR bits that exist. */
const MXCSR_MASK = 0xffff;

/** fpu_taskswitch(set): with TS set, the next FPU or SSE instruction raises #NM. */
export function fpuTaskswitch(vcpu: Vcpu, args: Arguments): number {
  vcpu.cpu.put(CPU.ts, args.low(0) === 0 ? 0 : 1);
  return 0;
}

/** #NM: its delivery clears TS. */
export function deviceNotAvailable(vcpu: Vcpu): void {
  vcpu.cpu.put(CPU.ts, 0);
  injectException(vcpu, VECTOR.NM);
}

/** Loads an FXSAVE image of 512 bytes. Bits that do not exist are dropped. */
export function loadFxsave(vcpu: Vcpu, image: Uint8Array): void {
  const { memory, cpu } = vcpu;
  const { u8 } = memory;
  const at = cpu.address;
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const fsw = view.getUint16(FXSAVE.fsw, true);
  memory.write16(at + CPU.fcw, view.getUint16(FXSAVE.fcw, true));
  memory.write16(at + CPU.fsw, fsw);
  u8[at + CPU.ftw] = image[FXSAVE.ftw]!;
  memory.write16(at + CPU.fop, view.getUint16(FXSAVE.fop, true) & 0x7ff);
  u8.set(image.subarray(FXSAVE.fip, FXSAVE.fip + 8), at + CPU.fip);
  u8.set(image.subarray(FXSAVE.fdp, FXSAVE.fdp + 8), at + CPU.fdp);
  cpu.put(CPU.mxcsr, view.getUint32(FXSAVE.mxcsr, true) & MXCSR_MASK);
  for (let index = 0; index < 8; index++) {
    // The image has ST(i), the state has the registers behind them.
    const register = (((fsw >>> 11) & 7) + index) & 7;
    const from = FXSAVE.st + index * 16;
    u8.set(image.subarray(from, from + 10), at + CPU.st + register * 16);
  }
  u8.set(image.subarray(FXSAVE.xmm, FXSAVE.xmm + 256), at + CPU.xmm);
}

/** The reverse of {@link loadFxsave}: into the first 512 bytes of an image. */
export function saveFxsave({ memory, cpu }: Vcpu, image: Uint8Array): void {
  const { u8 } = memory;
  const at = cpu.address;
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const fsw = memory.read16(at + CPU.fsw);
  view.setUint16(FXSAVE.fcw, memory.read16(at + CPU.fcw), true);
  view.setUint16(FXSAVE.fsw, fsw, true);
  image[FXSAVE.ftw] = u8[at + CPU.ftw]!;
  view.setUint16(FXSAVE.fop, memory.read16(at + CPU.fop), true);
  image.set(u8.subarray(at + CPU.fip, at + CPU.fip + 8), FXSAVE.fip);
  image.set(u8.subarray(at + CPU.fdp, at + CPU.fdp + 8), FXSAVE.fdp);
  view.setUint32(FXSAVE.mxcsr, cpu.get(CPU.mxcsr), true);
  for (let index = 0; index < 8; index++) {
    const from = at + CPU.st + ((((fsw >>> 11) & 7) + index) & 7) * 16;
    image.set(u8.subarray(from, from + 10), FXSAVE.st + index * 16);
  }
  image.set(u8.subarray(at + CPU.xmm, at + CPU.xmm + 256), FXSAVE.xmm);
}
