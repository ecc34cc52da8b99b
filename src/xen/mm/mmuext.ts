/** mmuext_op: pins, root tables, TLB flushes, and clearing and copying of pages. */
import { PAGE_SIZE } from '../../machine/memory.ts';
import type { VirtualAddress } from '../../x86/cpu.ts';
import { setLdt } from '../descriptors.ts';
import { type Arguments, HypercallError } from '../hypercall.ts';
import { ERRNO } from '../public/errno.ts';
import { MMUEXT, MMUEXT_OP } from '../public/mmu.ts';
import type { Vcpu } from '../vcpu.ts';
import { runBatch } from './batch.ts';
import type { DomainMemory } from './domain-memory.ts';
import { requireNotForeign } from './foreign.ts';
import { FrameType } from './frame-table.ts';
import { checkVcpuMask } from './tlb.ts';

/** mmuext_op(operations, count, pdone, foreigndom). */
export function mmuextOp(vcpu: Vcpu, args: Arguments): number {
  requireNotForeign(vcpu.domain, args.low(3));
  return runBatch(vcpu, args, MMUEXT_OP.size, mmuextRequest);
}

function mmuextRequest(vcpu: Vcpu, at: VirtualAddress): number {
  const { guest } = vcpu;
  return operate(
    vcpu,
    guest.u32(at + MMUEXT_OP.cmd),
    guest.number64(at + MMUEXT_OP.arg1),
    guest.number64(at + MMUEXT_OP.arg2),
  );
}

/** One operation. The arguments are signed numbers, and any numbers. @returns 0 or -errno */
function operate(vcpu: Vcpu, command: number, arg1: number, arg2: number): number {
  const { memory } = vcpu.domain;
  switch (command) {
    case MMUEXT.PIN_L1_TABLE:
    case MMUEXT.PIN_L2_TABLE:
    case MMUEXT.PIN_L3_TABLE:
    case MMUEXT.PIN_L4_TABLE:
      return memory.pin(arg1, (command - MMUEXT.PIN_L1_TABLE + FrameType.l1) as FrameType);
    case MMUEXT.UNPIN_TABLE:
      return memory.unpin(arg1);
    case MMUEXT.NEW_BASEPTR:
      memory.loadRoots(vcpu, arg1, vcpu.userRoot);
      return 0;
    case MMUEXT.NEW_USER_BASEPTR:
      memory.loadRoots(vcpu, vcpu.kernelRoot, arg1);
      return 0;
    case MMUEXT.TLB_FLUSH_MULTI:
    case MMUEXT.INVLPG_MULTI:
      checkVcpuMask(vcpu, arg2);
      return 0;
    case MMUEXT.TLB_FLUSH_LOCAL:
    case MMUEXT.INVLPG_LOCAL:
    case MMUEXT.TLB_FLUSH_ALL:
    case MMUEXT.INVLPG_ALL:
      // Nothing is stale (see tlb.ts).
      return 0;
    case MMUEXT.FLUSH_CACHE:
    case MMUEXT.FLUSH_CACHE_GLOBAL:
      // Only for domains that have devices.
      return -ERRNO.EACCES;
    case MMUEXT.SET_LDT:
      // nr_ents is an unsigned int.
      return setLdt(vcpu, arg1, arg2 >>> 0);
    case MMUEXT.CLEAR_PAGE:
      return overwrite(
        memory,
        arg1,
        (linear) => void memory.table.memory.u8.fill(0, linear, linear + PAGE_SIZE),
      );
    case MMUEXT.COPY_PAGE: {
      if (!memory.owns(arg2)) return -ERRNO.EINVAL;
      const from = memory.linear(arg2);
      return overwrite(
        memory,
        arg1,
        (linear) => void memory.table.memory.u8.copyWithin(linear, from, from + PAGE_SIZE),
      );
    }
    case MMUEXT.MARK_SUPER:
    case MMUEXT.UNMARK_SUPER:
      return -ERRNO.EOPNOTSUPP;
    default:
      return -ERRNO.ENOSYS;
  }
}

/** Writes a page of the domain's own that may be writable. */
function overwrite(memory: DomainMemory, mfn: number, write: (linear: number) => void): number {
  try {
    memory.getPageType(mfn, FrameType.writable);
  } catch (error) {
    if (error instanceof HypercallError) return -ERRNO.EINVAL;
    throw error;
  }
  write(memory.linear(mfn));
  memory.wrote(mfn);
  memory.putPageType(mfn);
  return 0;
}
