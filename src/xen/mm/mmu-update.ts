/** mmu_update and update_va_mapping: a guest's changes to its page tables, and to its machine-to-physical table. */
import { PAGE_SHIFT, PAGE_SIZE } from '../../machine/memory.ts';
import type { VirtualAddress } from '../../x86/cpu.ts';
import { Access } from '../../x86/processor.ts';
import type { Arguments } from '../hypercall.ts';
import { ERRNO } from '../public/errno.ts';
import { MMU, MMU_UPDATE, PTE, PTE_SIZE, UVMF } from '../public/mmu.ts';
import { DOMID } from '../public/xen.ts';
import type { Vcpu } from '../vcpu.ts';
import { runBatch } from './batch.ts';
import type { DomainMemory } from './domain-memory.ts';
import { requireNotForeign } from './foreign.ts';
import { FrameType } from './frame-table.ts';
import { checkVcpuMask } from './tlb.ts';
import { findL1, isTable, tableIndex } from './walk.ts';

/** mmu_update(requests, count, pdone, foreigndom). */
export function mmuUpdate(vcpu: Vcpu, args: Arguments): number {
  const { domain } = vcpu;
  const foreign = args.low(3);
  // The upper half names the owner of the page tables, plus one; 0: the caller.
  const tableOwner = foreign >>> 16;
  if (tableOwner !== 0 && tableOwner - 1 !== domain.id)
    return domain.hypervisor.domain(tableOwner - 1) === undefined ? -ERRNO.EINVAL : -ERRNO.EPERM;
  const io = (foreign & 0xffff) === DOMID.IO;
  if (!io) requireNotForeign(domain, foreign);
  return runBatch(vcpu, args, MMU_UPDATE.size, readRequest, io);
}

/** @param io the request is on behalf of the domain of all I/O memory */
function readRequest(vcpu: Vcpu, request: VirtualAddress, io: boolean): number {
  const { guest } = vcpu;
  const { memory } = vcpu.domain;
  if ((request & 3) === 0 && (request & (PAGE_SIZE - 1)) <= PAGE_SIZE - MMU_UPDATE.size) {
    const { u32 } = vcpu.memory;
    const at = guest.linear(request, Access.Read) >>> 2;
    return mmuRequest(memory, io, u32[at]!, u32[at + 1]!, u32[at + 2]!, u32[at + 3]!);
  }
  return mmuRequest(
    memory,
    io,
    guest.u32(request + MMU_UPDATE.ptr),
    guest.u32(request + MMU_UPDATE.ptr + 4),
    guest.u32(request + MMU_UPDATE.val),
    guest.u32(request + MMU_UPDATE.val + 4),
  );
}

function mmuRequest(
  memory: DomainMemory,
  io: boolean,
  ptrLow: number,
  ptrHigh: number,
  low: number,
  high: number,
): number {
  const command = ptrLow & (PTE_SIZE - 1);
  if (command > MMU.PT_UPDATE_NO_TRANSLATE) return -ERRNO.ENOSYS;
  // Frame numbers have 32 bits at most: far fewer, in truth.
  if (ptrHigh >>> PAGE_SHIFT !== 0) return -ERRNO.EINVAL;
  const mfn = ((ptrHigh << (32 - PAGE_SHIFT)) | (ptrLow >>> PAGE_SHIFT)) >>> 0;
  if (!memory.owns(mfn)) return -ERRNO.EINVAL;
  if (command === MMU.MACHPHYS_UPDATE) {
    if (io) return -ERRNO.EINVAL;
    memory.machineToPhys.set(mfn, low, high);
    return 0;
  }
  const index = (ptrLow & (PAGE_SIZE - 1)) >>> 3;
  const { table, pageTables } = memory;
  const type = table.type(mfn);
  if (table.typeCounts[mfn] !== 0 && type >= FrameType.l1 && type <= FrameType.l4) {
    // What the domain of all I/O memory owns is nothing.
    if (io && type === FrameType.l1 && (low & PTE.PRESENT) !== 0) return -ERRNO.EPERM;
    return pageTables.update(mfn, index, low, high, command === MMU.PT_UPDATE_PRESERVE_AD);
  }
  // No page table: then it is a plain write, as the guest could do it itself.
  if (pageTables.takeType(mfn, FrameType.writable) !== 0) return -ERRNO.EINVAL;
  const own = memory.backing.toOwn(mfn);
  if (own) {
    const at = (memory.linear(mfn) >>> 2) + index * 2;
    table.memory.u32[at] = low;
    table.memory.u32[at + 1] = high;
    memory.wrote(mfn);
  }
  pageTables.dropType(mfn);
  return own ? 0 : -ERRNO.ENOMEM;
}

/** update_va_mapping(va, val, flags). */
export function updateVaMapping(vcpu: Vcpu, args: Arguments): number {
  const result = setEntryAt(vcpu, args.number(0), args.low(1), args.high(1));
  const flags = args.low(2);
  const what = flags & UVMF.FLUSHTYPE_MASK;
  if (what !== UVMF.TLB_FLUSH && what !== UVMF.INVLPG) return result;
  const who = args.number(2) - what;
  if (who !== UVMF.LOCAL && who !== UVMF.ALL) checkVcpuMask(vcpu, who);
  return result;
}

/** update_va_mapping_otherdomain(va, val, flags, domid): a guest has no domain to name here but itself. */
export function updateVaMappingOtherdomain(vcpu: Vcpu, args: Arguments): number {
  requireNotForeign(vcpu.domain, args.low(3));
  return updateVaMapping(vcpu, args);
}

/**
 * Writes the L1 entry for an address under the vCPU's kernel root.
 * @param grant the entry may name another domain's frame (grant operations only)
 * @returns 0 or -errno; -EINVAL: there is no L1 table for the address
 */
export function setEntryAt(vcpu: Vcpu, va: VirtualAddress, low: number, high: number, grant = false): number {
  const { memory } = vcpu.domain;
  const mfn = findL1(memory, vcpu.kernelRoot, va);
  if (!isTable(memory, mfn, FrameType.l1)) return -ERRNO.EINVAL;
  return memory.pageTables.update(mfn, tableIndex(va, 1), low, high, false, grant);
}

/**
 * The L1 entry for an address under the vCPU's kernel root, where it lies.
 * @returns frame number of the L1 table and index in it, or null: there is none
 */
export function entryAt(vcpu: Vcpu, va: VirtualAddress): { mfn: number; index: number } | null {
  const { memory } = vcpu.domain;
  const mfn = findL1(memory, vcpu.kernelRoot, va);
  return isTable(memory, mfn, FrameType.l1) ? { mfn, index: tableIndex(va, 1) } : null;
}

/**
 * Writes an L1 entry at a machine address (as GNTMAP_contains_pte names it).
 * @param mfn and index of the entry; any numbers
 * @returns 0 or -errno; -EINVAL: not an L1 table of the domain's
 */
export function setEntryIn(
  memory: DomainMemory,
  mfn: number,
  index: number,
  low: number,
  high: number,
  grant = false,
): number {
  if (!isTable(memory, mfn, FrameType.l1) || index < 0 || index >= 512) return -ERRNO.EINVAL;
  return memory.pageTables.update(mfn, index, low, high, false, grant);
}
