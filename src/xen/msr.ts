/**
 * Model-specific registers as a PV guest's kernel sees them (rdmsr and wrmsr are emulated). A register that is not
 * here does not exist: #GP.
 */
import { high32, join64 } from '../x86/cpu.ts';
import { CPU, VECTOR } from '../x86/state.ts';
import { HypercallError } from './hypercall.ts';
import { fillHypercallPage } from './hypercall-page.ts';
import { FrameType } from './mm/frame-table.ts';
import { XEN_MSR_BASE } from './public/arch-x86.ts';
import { isCanonical } from './traps.ts';
import type { Vcpu } from './vcpu.ts';

/** Numbers, Intel SDM volume 4. */
export const MSR = {
  TSC: 0x10,
  PLATFORM_ID: 0x17,
  APIC_BASE: 0x1b,
  UCODE_REV: 0x8b,
  PLATFORM_INFO: 0xce,
  MISC_FEATURES_ENABLES: 0x140,
  MISC_ENABLE: 0x1a0,
  PAT: 0x277,
  EFER: 0xc0000080,
  STAR: 0xc0000081,
  LSTAR: 0xc0000082,
  CSTAR: 0xc0000083,
  SYSCALL_MASK: 0xc0000084,
  FS_BASE: 0xc0000100,
  GS_BASE: 0xc0000101,
  SHADOW_GS_BASE: 0xc0000102,
  TSC_AUX: 0xc0000103,
} as const;

/** A 64-bit value in two halves. */
export type MsrValue = readonly [low: number, high: number];

/** SCE, LME, LMA, NXE: system calls, 64-bit mode, no-execute. */
const EFER = 0xd01;
/** Enabled, at its usual address. */
const APIC_BASE = 0xfee00800;
const APIC_BASE_BSP = 0x100;
/** Fast strings; no branch trace, no precise events, no xTPR messages. */
const MISC_ENABLE = (1 << 0) | (1 << 11) | (1 << 12) | (1 << 23);
/** The memory types as Xen sets them for all guests: WB WT UC- UC WC WP. */
const PAT: MsrValue = [0x00070406, 0x00000501];

/** Registers with a value that never changes; writing that same value is allowed. */
const CONSTANT: ReadonlyMap<number, MsrValue> = new Map<number, MsrValue>([
  [MSR.PLATFORM_ID, [0, 0]],
  [MSR.UCODE_REV, [0, 0]],
  [MSR.PLATFORM_INFO, [0, 0]],
  [MSR.MISC_FEATURES_ENABLES, [0, 0]],
  [MSR.MISC_ENABLE, [MISC_ENABLE, 0]],
  [MSR.PAT, PAT],
  [MSR.EFER, [EFER, 0]],
]);

const halves = (value: number): MsrValue => [value >>> 0, high32(value) >>> 0];

/** @returns null: no such register for a guest */
export function readMsr(vcpu: Vcpu, number: number): MsrValue | null {
  switch (number) {
    case MSR.FS_BASE:
      return halves(vcpu.cpu.number(CPU.fsBase));
    case MSR.GS_BASE:
      return halves(vcpu.gsBaseKernel);
    case MSR.SHADOW_GS_BASE:
      return halves(vcpu.gsBaseUser);
    case MSR.TSC:
      return halves(vcpu.domain.now());
    case MSR.TSC_AUX:
      return [0, 0];
    case MSR.APIC_BASE:
      return [APIC_BASE | (vcpu.id === 0 ? APIC_BASE_BSP : 0), 0];
    default:
      return CONSTANT.get(number) ?? null;
  }
}

/** @returns false: no such register, or not that value */
export function writeMsr(vcpu: Vcpu, number: number, low: number, high: number): boolean {
  const value = join64(low, high);
  switch (number) {
    case MSR.FS_BASE:
      if (!isCanonical(value)) return false;
      vcpu.cpu.putNumber(CPU.fsBase, value);
      return true;
    case MSR.GS_BASE:
    case MSR.SHADOW_GS_BASE:
      if (!isCanonical(value)) return false;
      vcpu.setGsBase(number === MSR.GS_BASE, value);
      return true;
    case XEN_MSR_BASE:
      return writeHypercallPage(vcpu, value);
    default: {
      const constant = CONSTANT.get(number);
      return constant !== undefined && constant[0] >>> 0 === low >>> 0 && constant[1] === high >>> 0;
    }
  }
}

/** The guest names a page of its own, by machine address, that becomes a hypercall page. */
function writeHypercallPage(vcpu: Vcpu, address: number): boolean {
  const { memory } = vcpu.domain;
  const mfn = address / 4096;
  if (!Number.isInteger(mfn)) return false;
  try {
    memory.getPageType(mfn, FrameType.writable);
  } catch (error) {
    if (error instanceof HypercallError) return false;
    throw error;
  }
  fillHypercallPage(vcpu.memory.frame(memory.machineFrame(mfn)));
  vcpu.processor.written(memory.machineFrame(mfn));
  memory.putPageType(mfn);
  return true;
}

/**
 * Whether a failed rdmsr may be answered with 0: kernels that have no #GP handler yet rely on it
 * (public/arch-x86/xen.h, at trap_info).
 */
export function readsAsZero(vcpu: Vcpu): boolean {
  return vcpu.traps.address(VECTOR.GP) === 0;
}
