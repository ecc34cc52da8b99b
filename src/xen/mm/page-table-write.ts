/**
 * Writable page tables: a guest's kernel stores into an L1 table as if it might, and the fault that this raises is
 * answered by doing the store for it, checked like any other update (the paper, 3.3; VMASST_TYPE_writable_pagetables).
 *
 * The processor runs the one instruction with the frame's number in CPU.interceptFrame: a store into that frame
 * ends up in the CPU's scratch bytes instead. So every instruction that stores works here (mov, xchg, lock cmpxchg,
 * rep stos one step at a time), and none is known by name. If the store is refused, the CPU's state is put back as it
 * was before the instruction, and the guest gets its fault.
 */
import { PAGE_SIZE } from '../../machine/memory.ts';
import type { VirtualAddress } from '../../x86/cpu.ts';
import { CPU, Exit, PF } from '../../x86/state.ts';
import { PTE_SIZE } from '../public/mmu.ts';
import type { Vcpu } from '../vcpu.ts';
import { FrameType } from './frame-table.ts';
import { findL1, isTable, tableIndex } from './walk.ts';

/** What an instruction may change, up to its operands' scratch. */
const STATE_WORDS = CPU.scratch >>> 2;

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
  const { u32 } = cpu.memory;
  const word = cpu.address >>> 2;
  const before = u32.slice(word, word + STATE_WORDS);
  cpu.put(CPU.interceptFrame, target + 1);
  const exit = processor.step(cpu);
  cpu.put(CPU.interceptFrame, 0);
  if (exit === Exit.Intercept && applyStore(vcpu, target)) return true;
  // The instruction did no store there after all, and is done.
  if (exit === Exit.Budget) return true;
  u32.set(before, word);
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
  const entry = new Uint8Array(PTE_SIZE);
  const halves = new Uint32Array(entry.buffer);
  const at = table.machine[mfn]! * (PAGE_SIZE / 4) + index * 2;
  halves[0] = u32[at]!;
  halves[1] = u32[at + 1]!;
  entry.set(u8.subarray(scratch, scratch + size), offset & (PTE_SIZE - 1));
  return pageTables.update(mfn, index, halves[0]!, halves[1]!) === 0;
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
