/**
 * Writable page tables: a guest's kernel stores into an L1 table as if it might, and the fault that this raises is
 * answered by doing the store for it, checked like any other update (the paper, 3.3; VMASST_TYPE_writable_pagetables).
 *
 * The processor runs the one instruction with the frame's number in CPU.interceptFrame: a store into that frame
 * ends up in the CPU's scratch bytes instead. So every instruction that stores works here (mov, xchg, lock cmpxchg,
 * rep stos one step at a time), and none is known by name. If the store is refused, the CPU's state is put back as it
 * was before the instruction, and the guest gets its fault.
 */
import { PAGE_SHIFT, PAGE_SIZE } from '../../machine/memory.ts';
import type { VirtualAddress } from '../../x86/cpu.ts';
import { CPU, Exit, PF } from '../../x86/state.ts';
import { GATE } from '../gate-state.ts';
import { PTE_SIZE } from '../public/mmu.ts';
import type { Vcpu } from '../vcpu.ts';
import { FrameType } from './frame-table.ts';
import { findL1, isTable, tableIndex } from './walk.ts';

/** What an instruction that stores may change of the CPU's state ends here; a copy of it goes to GATE.saved. */
const STATE_SIZE = CPU.exitReason;

/**
 * Handles a page fault if it is a write of the kernel's to an L1 table that it has mapped read-only.
 * @returns true: the store is done, the guest goes on; false: nothing changed, the fault is the guest's
 */
export function handlePageTableWrite(vcpu: Vcpu, cr2: VirtualAddress, errorCode: number): boolean {
  if ((errorCode & (PF.P | PF.W | PF.RSVD | PF.I)) !== (PF.P | PF.W) || !vcpu.kernelMode) return false;
  const { memory } = vcpu.domain;
  const target = frameAt(vcpu, cr2);
  if (!isTable(memory, target, FrameType.l1)) return false;

  const { cpu, processor } = vcpu;
  const { u8 } = cpu.memory;
  const saved = cpu.address + GATE.saved;
  u8.copyWithin(saved, cpu.address, cpu.address + STATE_SIZE);
  cpu.put(CPU.interceptFrame, target + 1);
  const exit = processor.step(cpu);
  cpu.put(CPU.interceptFrame, 0);
  if (exit === Exit.Intercept && applyStore(vcpu, target)) return true;
  // The instruction did no store there after all, and is done.
  if (exit === Exit.Budget) return true;
  u8.copyWithin(cpu.address, saved, saved + STATE_SIZE);
  return false;
}

/** Applies the store in scratch, entry by entry, bytes that it does not touch staying as they are. */
function applyStore(vcpu: Vcpu, mfn: number): boolean {
  const { cpu } = vcpu;
  const { table, pageTables } = vcpu.domain.memory;
  const { u8, u32 } = cpu.memory;
  const offset = cpu.get(CPU.crossAddress) & (PAGE_SIZE - 1);
  const size = cpu.get(CPU.crossSize);
  const scratch = cpu.address + CPU.scratch;
  // Only a store within one entry can be done or refused as a whole.
  if (size === 0 || (offset & (PTE_SIZE - 1)) + size > PTE_SIZE) return false;
  const index = offset >>> 3;
  if (size < PTE_SIZE) {
    // The whole entry, in the scratch bytes.
    const entry = (table.machine[mfn]! << PAGE_SHIFT) + index * PTE_SIZE;
    const within = offset & (PTE_SIZE - 1);
    u8.copyWithin(scratch + within, scratch, scratch + size);
    for (let byte = 0; byte < PTE_SIZE; byte++)
      if (byte < within || byte >= within + size) u8[scratch + byte] = u8[(entry >>> 0) + byte]!;
  }
  return pageTables.update(mfn, index, u32[scratch >>> 2]!, u32[(scratch >>> 2) + 1]!) === 0;
}

/** Frame number that the kernel has mapped at an address; 0: none. */
function frameAt(vcpu: Vcpu, va: VirtualAddress): number {
  const { memory } = vcpu.domain;
  const { table, pageTables } = memory;
  const l1 = findL1(memory, vcpu.kernelRoot, va);
  if (l1 === 0) return 0;
  const at = table.machine[l1]! * (PAGE_SIZE / 4) + tableIndex(va, 1) * 2;
  const { u32 } = table.memory;
  if ((u32[at]! & 1) === 0) return 0;
  const mfn = pageTables.frameOf(u32[at]!, u32[at + 1]!);
  return mfn < table.limit ? mfn : 0;
}
