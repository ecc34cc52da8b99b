/**
 * The x87 and SSE state as it goes to memory and comes back: FNSTENV, FNSAVE, FXSAVE and their loads, and the changes
 * that MMX makes to it (SDM volume 1, 8.1.10, 9.5 and 10.5; the layouts: figures 8-9 and table 10-2).
 *
 * In CPU.ftw only one bit a register is kept, as FXSAVE has it. The two bits of the older images follow from what is
 * in the register.
 */
import type { Memory } from '../../machine/memory.ts';
import { CPU, VECTOR } from '../state.ts';

/** Bits of MXCSR that exist; what FXSAVE stores as MXCSR_MASK. */
export const MXCSR_MASK = 0xffff;

/** FNINIT's control word. */
export const FCW_INITIAL = 0x37f;

const FCW_WRITABLE = 0x1f3f;
/** Bit 6 reads as one. */
const FCW_ONE = 0x40;
const ES = 0x80;
const BUSY = 0x8000;
const FOP_MASK = 0x7ff;

const ENVIRONMENT = 28;
const REGISTER = 10;

function field16(cpu: number, offset: number): number {
  return ((cpu >>> 0) + offset) >>> 1;
}

/** What the control word becomes when this value is loaded. */
export function controlWord(value: number): number {
  return (value & FCW_WRITABLE) | FCW_ONE;
}

/** A status word whose summary bits (ES and B) tell whether one of its exceptions is not masked. */
export function summarised(status: number, control: number): number {
  return (status & ~control & 0x3f) !== 0 ? status | ES | BUSY : status & ~(ES | BUSY);
}

/** The full tag word: 0 valid, 1 zero, 2 special (NaN, infinity, denormal, unsupported), 3 empty. */
function fullTags(memory: Memory, cpu: number): number {
  const valid = memory.u8[cpu + CPU.ftw]!;
  let tags = 0;
  for (let i = 0; i < 8; i++) {
    let tag = 3;
    if ((valid >> i) & 1) {
      const at = cpu + CPU.st + 16 * i;
      const high = memory.u32[(at + 4) >>> 2]!;
      const exponent = memory.u16[(at + 8) >>> 1]! & 0x7fff;
      if (exponent === 0) tag = high === 0 && memory.u32[at >>> 2] === 0 ? 1 : 2;
      else tag = exponent === 0x7fff || high >>> 31 === 0 ? 2 : 0;
    }
    tags |= tag << (2 * i);
  }
  return tags;
}

function abridge(tags: number): number {
  let valid = 0;
  for (let i = 0; i < 8; i++) if (((tags >> (2 * i)) & 3) !== 3) valid |= 1 << i;
  return valid;
}

/** FNSTENV in 64-bit mode: 28 bytes. Afterwards all exceptions are masked. */
export function storeEnvironment(memory: Memory, cpu: number, address: number): void {
  const status = memory.u16[field16(cpu, CPU.fsw)]!;
  const control = memory.u16[field16(cpu, CPU.fcw)]!;
  memory.write32(address, 0xffff0000 | control);
  memory.write32(address + 4, 0xffff0000 | status);
  memory.write32(address + 8, 0xffff0000 | fullTags(memory, cpu));
  memory.write32(address + 12, memory.read32(cpu + CPU.fip));
  memory.write32(address + 16, (memory.u16[field16(cpu, CPU.fop)]! & FOP_MASK) << 16);
  memory.write32(address + 20, memory.read32(cpu + CPU.fdp));
  memory.write32(address + 24, 0xffff0000);
  memory.u16[field16(cpu, CPU.fcw)] = control | 0x3f;
  memory.u16[field16(cpu, CPU.fsw)] = summarised(status, 0x3f);
}

/** FLDENV in 64-bit mode. */
export function loadEnvironment(memory: Memory, cpu: number, address: number): void {
  const control = controlWord(memory.read16(address));
  memory.u16[field16(cpu, CPU.fcw)] = control;
  memory.u16[field16(cpu, CPU.fsw)] = summarised(memory.read16(address + 4), control);
  memory.u8[cpu + CPU.ftw] = abridge(memory.read16(address + 8));
  memory.write32(cpu + CPU.fip, memory.read32(address + 12));
  memory.write32(cpu + CPU.fip + 4, 0);
  memory.u16[field16(cpu, CPU.fop)] = memory.read16(address + 18) & FOP_MASK;
  memory.write32(cpu + CPU.fdp, memory.read32(address + 20));
  memory.write32(cpu + CPU.fdp + 4, 0);
}

/** FNINIT: the registers themselves stay. */
export function initialise(memory: Memory, cpu: number): void {
  memory.u16[field16(cpu, CPU.fcw)] = FCW_INITIAL;
  memory.u16[field16(cpu, CPU.fsw)] = 0;
  memory.u8[cpu + CPU.ftw] = 0;
  memory.u16[field16(cpu, CPU.fop)] = 0;
  memory.u8.fill(0, cpu + CPU.fip, cpu + CPU.fip + 16);
}

function topOf(memory: Memory, cpu: number): number {
  return (memory.u16[field16(cpu, CPU.fsw)]! >> 11) & 7;
}

/** Registers go to memory from the top of the stack. @param step bytes from one to the next */
function storeRegisters(memory: Memory, cpu: number, address: number, step: number): void {
  const top = topOf(memory, cpu);
  for (let i = 0; i < 8; i++) {
    const from = cpu + CPU.st + 16 * ((top + i) & 7);
    memory.u8.copyWithin(address + step * i, from, from + REGISTER);
  }
}

function loadRegisters(memory: Memory, cpu: number, address: number, step: number): void {
  const top = topOf(memory, cpu);
  for (let i = 0; i < 8; i++) {
    const from = address + step * i;
    memory.u8.copyWithin(cpu + CPU.st + 16 * ((top + i) & 7), from, from + REGISTER);
  }
}

/** FNSAVE: 108 bytes, then as FNINIT. */
export function save(memory: Memory, cpu: number, address: number): void {
  storeEnvironment(memory, cpu, address);
  storeRegisters(memory, cpu, address + ENVIRONMENT, REGISTER);
  initialise(memory, cpu);
}

/** FRSTOR. */
export function restore(memory: Memory, cpu: number, address: number): void {
  loadEnvironment(memory, cpu, address);
  loadRegisters(memory, cpu, address + ENVIRONMENT, REGISTER);
}

/**
 * FXSAVE (rexW: FXSAVE64) to 512 bytes at a linear address; the last 96 are left alone.
 */
export function fxsave(memory: Memory, cpu: number, address: number, rexW: boolean): void {
  cpu >>>= 0;
  address >>>= 0;
  memory.write16(address, memory.u16[field16(cpu, CPU.fcw)]!);
  memory.write16(address + 2, memory.u16[field16(cpu, CPU.fsw)]!);
  memory.write16(address + 4, memory.u8[cpu + CPU.ftw]!);
  memory.write16(address + 6, memory.u16[field16(cpu, CPU.fop)]! & FOP_MASK);
  memory.write32(address + 8, memory.read32(cpu + CPU.fip));
  memory.write32(address + 12, rexW ? memory.read32(cpu + CPU.fip + 4) : 0);
  memory.write32(address + 16, memory.read32(cpu + CPU.fdp));
  memory.write32(address + 20, rexW ? memory.read32(cpu + CPU.fdp + 4) : 0);
  memory.write32(address + 24, memory.read32(cpu + CPU.mxcsr));
  memory.write32(address + 28, MXCSR_MASK);
  memory.u8.fill(0, address + 32, address + 160);
  storeRegisters(memory, cpu, address + 32, 16);
  memory.u8.copyWithin(address + 160, cpu + CPU.xmm, cpu + CPU.xmm + 256);
}

/**
 * FXRSTOR (rexW: FXRSTOR64) from 512 bytes at a linear address.
 * @returns 0, or VECTOR.GP where the image has reserved bits of MXCSR set (then nothing is loaded)
 */
export function fxrstor(memory: Memory, cpu: number, address: number, rexW: boolean): number {
  cpu >>>= 0;
  address >>>= 0;
  const mxcsr = memory.read32(address + 24);
  if ((mxcsr & ~MXCSR_MASK) !== 0) return VECTOR.GP;
  const control = controlWord(memory.read16(address));
  memory.u16[field16(cpu, CPU.fcw)] = control;
  memory.u16[field16(cpu, CPU.fsw)] = summarised(memory.read16(address + 2), control);
  memory.u8[cpu + CPU.ftw] = memory.read16(address + 4);
  memory.u16[field16(cpu, CPU.fop)] = memory.read16(address + 6) & FOP_MASK;
  memory.write32(cpu + CPU.fip, memory.read32(address + 8));
  // The processor keeps as much of a linear address as it has: 57 bits, sign-extended.
  memory.write32(cpu + CPU.fip + 4, rexW ? (memory.read32(address + 12) << 7) >> 7 : 0);
  memory.write32(cpu + CPU.fdp, memory.read32(address + 16));
  memory.write32(cpu + CPU.fdp + 4, rexW ? memory.read32(address + 20) : 0);
  memory.write32(cpu + CPU.mxcsr, mxcsr);
  loadRegisters(memory, cpu, address + 32, 16);
  memory.u8.copyWithin(cpu + CPU.xmm, address + 160, address + 416);
  return 0;
}

/** LDMXCSR. @returns 0, or VECTOR.GP where reserved bits are set */
export function ldmxcsr(memory: Memory, cpu: number, value: number): number {
  if ((value & ~MXCSR_MASK) !== 0) return VECTOR.GP;
  memory.write32((cpu >>> 0) + CPU.mxcsr, value);
  return 0;
}

/**
 * What any MMX instruction but EMMS does to the x87: TOP becomes 0, all registers valid. (The instruction itself
 * sets bits 64-79 of an MMX register that it writes to ones.)
 */
export function mmxEnter(memory: Memory, cpu: number): void {
  cpu >>>= 0;
  memory.u16[field16(cpu, CPU.fsw)] = memory.u16[field16(cpu, CPU.fsw)]! & ~0x3800;
  memory.u8[cpu + CPU.ftw] = 0xff;
}

/** EMMS: all registers empty. */
export function emms(memory: Memory, cpu: number): void {
  cpu >>>= 0;
  memory.u16[field16(cpu, CPU.fsw)] = memory.u16[field16(cpu, CPU.fsw)]! & ~0x3800;
  memory.u8[cpu + CPU.ftw] = 0;
}
