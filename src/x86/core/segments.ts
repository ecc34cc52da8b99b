/** Segment registers at CPL 3 in 64-bit mode: what may be loaded, and what it means. Intel SDM volume 3, 5.6 and 5.8. */
import type { Cpu } from '../cpu.ts';
import type { ProcessorHost } from '../processor.ts';
import { CPU, FS, GS, SS, VECTOR } from '../state.ts';

/** Bits of a descriptor's upper half. */
const D = {
  typeShift: 8,
  writable: 1 << 9,
  readable: 1 << 9,
  conforming: 1 << 10,
  code: 1 << 11,
  system: 1 << 12,
  dplShift: 13,
  present: 1 << 15,
  long: 1 << 21,
  big: 1 << 22,
  granularity: 1 << 23,
} as const;

const fault = (vector: number, selector: number) => vector | ((selector & 0xfffc) << 8);

const dpl = (high: number) => (high >>> D.dplShift) & 3;

function baseOf(low: number, high: number): number {
  return ((low >>> 16) | ((high & 0xff) << 16) | (high & 0xff000000)) >>> 0;
}

/** 0, or vector | error code << 8. */
export function loadSegment(host: ProcessorHost, cpu: Cpu, register: number, selector: number): number {
  if ((selector & ~3) === 0) {
    if (register === SS) return fault(VECTOR.GP, 0);
    setSegment(cpu, register, selector, 0);
    return 0;
  }
  const descriptor = host.descriptor(cpu, selector);
  if (descriptor === null) return fault(VECTOR.GP, selector);
  const [low, high] = descriptor;
  if ((high & D.system) === 0) return fault(VECTOR.GP, selector);
  const code = (high & D.code) !== 0;
  if (register === SS) {
    if ((selector & 3) !== 3 || code || (high & D.writable) === 0 || dpl(high) !== 3)
      return fault(VECTOR.GP, selector);
    if ((high & D.present) === 0) return fault(VECTOR.SS, selector);
  } else {
    if (code && (high & D.readable) === 0) return fault(VECTOR.GP, selector);
    const conforming = code && (high & D.conforming) !== 0;
    if (!conforming && dpl(high) < 3) return fault(VECTOR.GP, selector);
    if ((high & D.present) === 0) return fault(VECTOR.NP, selector);
  }
  setSegment(cpu, register, selector, baseOf(low, high));
  return 0;
}

function setSegment(cpu: Cpu, register: number, selector: number, base: number): void {
  cpu.setSelector(register, selector);
  if (register === FS) cpu.putNumber(CPU.fsBase, base);
  if (register === GS) cpu.putNumber(CPU.gsBase, base);
}

/** A code segment for a far transfer without change of privilege: 64-bit code with DPL 3 (or conforming). */
export function checkCodeSegment(host: ProcessorHost, cpu: Cpu, selector: number, isReturn: boolean): number {
  if ((selector & ~3) === 0) return fault(VECTOR.GP, 0);
  const descriptor = host.descriptor(cpu, selector);
  if (descriptor === null) return fault(VECTOR.GP, selector);
  const high = descriptor[1];
  if ((high & D.system) === 0 || (high & D.code) === 0) return fault(VECTOR.GP, selector);
  // A return cannot raise the privilege; a jump or call to a lower RPL keeps level 3.
  if (isReturn && (selector & 3) !== 3) return fault(VECTOR.GP, selector);
  if ((high & D.conforming) === 0 && dpl(high) !== 3) return fault(VECTOR.GP, selector);
  if ((high & D.present) === 0) return fault(VECTOR.NP, selector);
  // Compatibility mode is not there: such a segment is as good as none.
  if ((high & D.long) === 0) return fault(VECTOR.GP, selector);
  return 0;
}

/** LAR, LSL, VERR, VERW (0..3): 1 and the value at CPU.temp, or 0. */
export function segmentQuery(host: ProcessorHost, cpu: Cpu, kind: number, selector: number): number {
  if ((selector & ~3) === 0) return 0;
  const descriptor = host.descriptor(cpu, selector);
  if (descriptor === null) return 0;
  const [low, high] = descriptor;
  const segment = (high & D.system) !== 0;
  const code = (high & D.code) !== 0;
  const conforming = segment && code && (high & D.conforming) !== 0;
  if (!conforming && dpl(high) < 3) return 0;
  if (kind === 2 && (!segment || (code && (high & D.readable) === 0))) return 0;
  if (kind === 3 && (!segment || code || (high & D.writable) === 0)) return 0;
  if (kind === 0) cpu.put(CPU.temp, high & 0x00f0ff00);
  if (kind === 1) {
    const limit = (low & 0xffff) | (high & 0x000f0000);
    cpu.put(CPU.temp, high & D.granularity ? ((limit << 12) | 0xfff) >>> 0 : limit);
  }
  return 1;
}
