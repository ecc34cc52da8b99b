/**
 * Segments: which descriptors a guest may have, which selectors it may run with, and segment bases.
 *
 * The processor runs everything at CPL 3 and takes no rights from descriptors, so a wrong one could confuse only
 * the guest itself. They are checked nevertheless, as Xen checks them: guests rely on the answers.
 */
import type { Memory } from '../machine/memory.ts';
import { CPU, GS } from '../x86/state.ts';
import type { Arguments } from './hypercall.ts';
import {
  FIRST_RESERVED_GDT_ENTRY,
  FLAT_RING3_CS32,
  FLAT_RING3_CS64,
  FLAT_RING3_DS32,
  SEGBASE,
} from './public/arch-x86.ts';
import { ERRNO } from './public/errno.ts';
import { isCanonical } from './traps.ts';
import type { Vcpu } from './vcpu.ts';

/** The upper half of a segment descriptor, Intel SDM volume 3, 3.4.5. */
const DESCRIPTOR = {
  TYPE: 0xf << 8,
  ACCESSED: 1 << 8,
  /** Data: writable; code: readable. */
  WRITABLE: 1 << 9,
  CODE: 1 << 11,
  /** Code or data, not a system segment. */
  S: 1 << 12,
  DPL: 3 << 13,
  P: 1 << 15,
  L: 1 << 21,
  DB: 1 << 22,
} as const;

export type Descriptor = readonly [low: number, high: number];

/** Descriptors of the hypervisor's own part of every GDT: flat, level 3, accessed. */
const RESERVED: ReadonlyMap<number, Descriptor> = new Map([
  [FLAT_RING3_CS32 >>> 3, [0x0000ffff, 0x00cffb00]],
  [FLAT_RING3_DS32 >>> 3, [0x0000ffff, 0x00cff300]],
  [FLAT_RING3_CS64 >>> 3, [0x0000ffff, 0x00affb00]],
]);

/**
 * The descriptor as the guest may have it: code and data at level 3, whatever level the guest wrote.
 * @returns its upper half, or null: a guest may not have this one (system segments and gates)
 */
export function checkedDescriptor(high: number): number | null {
  if (!(high & DESCRIPTOR.P)) return high;
  if (!(high & DESCRIPTOR.S)) return high & DESCRIPTOR.TYPE ? null : high;
  const both = DESCRIPTOR.L | DESCRIPTOR.DB;
  if (high & DESCRIPTOR.CODE && (high & both) === both) return null;
  return (high | DESCRIPTOR.DPL) >>> 0;
}

/** Checks all descriptors of a frame, and raises their levels where it is needed. @param linear of the frame */
export function descriptorsValid(memory: Memory, linear: number): boolean {
  const { u32 } = memory;
  const word = linear >>> 2;
  for (let at = word; at < word + 1024; at += 2) if (checkedDescriptor(u32[at + 1]!) === null) return false;
  for (let at = word; at < word + 1024; at += 2) u32[at + 1] = checkedDescriptor(u32[at + 1]!)!;
  return true;
}

/** The descriptor of a selector; null if it is beyond its table. */
export function lookUpDescriptor(vcpu: Vcpu, selector: number): Descriptor | null {
  const index = selector >>> 3;
  if (selector & 4) return index < vcpu.ldtEntries ? readLdt(vcpu, index) : null;
  if (index >= FIRST_RESERVED_GDT_ENTRY) return RESERVED.get(index) ?? null;
  if (index >= vcpu.gdtEntries) return null;
  const { memory } = vcpu;
  const at = vcpu.domain.memory.linear(vcpu.gdtFrames[index >>> 9]!) + (index & 511) * 8;
  return [memory.read32(at), memory.read32(at + 4)];
}

/** The LDT lies at an address of the guest's kernel. A descriptor is checked each time, as its page is not. */
function readLdt(vcpu: Vcpu, index: number): Descriptor | null {
  const at = vcpu.ldtBase + index * 8;
  let found: Descriptor | null = null;
  vcpu.inKernelMode(() => {
    const low = vcpu.guest.u32(at);
    const high = checkedDescriptor(vcpu.guest.u32(at + 4));
    if (high !== null) found = [low, high];
  });
  return found;
}

/** May code run with it in CS? 64-bit code segments only. */
export function isCodeSelector(vcpu: Vcpu, selector: number): boolean {
  const high = lookUpDescriptor(vcpu, selector)?.[1] ?? 0;
  const wanted = DESCRIPTOR.P | DESCRIPTOR.S | DESCRIPTOR.CODE | DESCRIPTOR.DPL | DESCRIPTOR.L;
  return (high & (wanted | DESCRIPTOR.DB)) === wanted;
}

/** May it be in SS? Writable data segments only. */
export function isStackSelector(vcpu: Vcpu, selector: number): boolean {
  const high = lookUpDescriptor(vcpu, selector)?.[1] ?? 0;
  const wanted = DESCRIPTOR.P | DESCRIPTOR.S | DESCRIPTOR.WRITABLE | DESCRIPTOR.DPL;
  return (high & (wanted | DESCRIPTOR.CODE)) === wanted;
}

/** The base of a data segment. */
function baseOf([low, high]: Descriptor): number {
  return ((low >>> 16) | ((high & 0xff) << 16) | (high & 0xff000000)) >>> 0;
}

/** set_segment_base(which, base). */
export function setSegmentBase(vcpu: Vcpu, args: Arguments): number {
  const base = args.number(1);
  const which = args.low(0);
  if (which === SEGBASE.GS_USER_SEL) return loadUserGs(vcpu, args.low(1) & 0xffff);
  if (!isCanonical(base)) return -ERRNO.EINVAL;
  switch (which) {
    case SEGBASE.FS:
      vcpu.cpu.putNumber(CPU.fsBase, base);
      return 0;
    case SEGBASE.GS_USER:
      vcpu.setGsBase(false, base);
      return 0;
    case SEGBASE.GS_KERNEL:
      vcpu.setGsBase(true, base);
      return 0;
    default:
      return -ERRNO.EINVAL;
  }
}

/** Loads GS for user mode; a selector that cannot be loaded becomes the null selector. */
function loadUserGs(vcpu: Vcpu, selector: number): number {
  const wanted = DESCRIPTOR.P | DESCRIPTOR.S | DESCRIPTOR.DPL;
  const descriptor = (selector & ~3) === 0 ? null : lookUpDescriptor(vcpu, selector | 3);
  const good = descriptor !== null && (descriptor[1] & wanted) === wanted;
  vcpu.cpu.setSelector(GS, good ? selector | 3 : 0);
  vcpu.setGsBase(false, good ? baseOf(descriptor) : 0);
  return 0;
}
