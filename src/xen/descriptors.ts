/** Descriptor tables: set_gdt, update_descriptor, and the LDT (MMUEXT_SET_LDT). */
import type { VirtualAddress } from '../x86/cpu.ts';
import { GATE } from './gate-state.ts';
import { type Arguments, HypercallError } from './hypercall.ts';
import { FrameType } from './mm/frame-table.ts';
import { FIRST_RESERVED_GDT_ENTRY, MAX_LDT_ENTRIES } from './public/arch-x86.ts';
import { ERRNO } from './public/errno.ts';
import { checkedDescriptor } from './segments.ts';
import { inHypervisor, isCanonical } from './traps.ts';
import type { Vcpu } from './vcpu.ts';

const ENTRIES_PER_FRAME = 512;

/** set_gdt(frames, entries): a list of frame numbers, one u64 each. */
export function setGdt(vcpu: Vcpu, args: Arguments): number {
  const entries = args.low(1);
  if (entries > FIRST_RESERVED_GDT_ENTRY) return -ERRNO.EINVAL;
  const frames: number[] = [];
  for (let index = 0; index * ENTRIES_PER_FRAME < entries; index++)
    frames.push(vcpu.guest.number64(args.number(0) + index * 8));
  loadGdt(vcpu, frames, entries);
  return 0;
}

/**
 * Gives a vCPU its GDT. The frames stay descriptor tables, which the guest cannot write to, until the next one.
 * @throws HypercallError EINVAL or EBUSY: a frame that cannot be one; the old GDT stays then
 */
export function loadGdt(vcpu: Vcpu, frames: readonly number[], entries: number): void {
  const { memory } = vcpu.domain;
  const taken: number[] = [];
  try {
    for (const mfn of frames) {
      memory.getPageType(mfn, FrameType.segdesc);
      taken.push(mfn);
    }
  } catch (error) {
    for (const mfn of taken) memory.putPageType(mfn);
    throw error instanceof HypercallError ? new HypercallError(ERRNO.EINVAL) : error;
  }
  dropGdt(vcpu);
  vcpu.gdtFrames = taken;
  vcpu.gdtEntries = entries;
}

export function dropGdt(vcpu: Vcpu): void {
  const frames = vcpu.gdtFrames;
  forgetSelectors(vcpu);
  vcpu.gdtFrames = [];
  vcpu.gdtEntries = 0;
  for (const mfn of frames) vcpu.domain.memory.putPageType(mfn);
}

/**
 * MMUEXT_SET_LDT: an LDT at an address of the guest's kernel.
 * @returns 0 or -EINVAL
 */
export function setLdt(vcpu: Vcpu, base: VirtualAddress, entries: number): number {
  if (entries > MAX_LDT_ENTRIES || !isCanonical(base) || inHypervisor(base) || base & 0xfff) {
    return -ERRNO.EINVAL;
  }
  vcpu.ldtBase = entries === 0 ? 0 : base;
  vcpu.ldtEntries = entries;
  return 0;
}

/** The vCPU's GDT changes: what gates know of it is not so any more. */
function forgetSelectors(vcpu: Vcpu): void {
  vcpu.cpu.put(GATE.checkedCs, 0);
  vcpu.cpu.put(GATE.checkedSs, 0);
}

/** update_descriptor(machine address, descriptor). */
export function updateDescriptor(vcpu: Vcpu, args: Arguments): number {
  const { memory } = vcpu.domain;
  const address = args.number(0);
  const mfn = Math.floor(address / 4096);
  const high = checkedDescriptor(args.high(1));
  if (address & 7 || high === null || !memory.owns(mfn)) return -ERRNO.EINVAL;
  // A page that is a descriptor table stays one; any other must be one that the guest may write to itself.
  const type = memory.table.type(mfn) === FrameType.segdesc ? FrameType.segdesc : FrameType.writable;
  try {
    memory.getPageType(mfn, type);
  } catch (error) {
    if (error instanceof HypercallError) return -ERRNO.EINVAL;
    throw error;
  }
  const at = (memory.linear(mfn) + (address & 0xfff)) >>> 2;
  vcpu.memory.u32[at] = args.low(1);
  vcpu.memory.u32[at + 1] = high;
  for (const each of vcpu.domain.vcpus) forgetSelectors(each);
  memory.putPageType(mfn);
  vcpu.processor.written(memory.machineFrame(mfn));
  return 0;
}
