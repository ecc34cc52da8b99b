/**
 * TLB flushes that guests ask for: there is nothing to do. Every change of a page table passes through
 * PageTables.update, which has the processor forget what TLBs knew (x86/core/tlb-pool.ts); a guest never sees a
 * translation that its tables do not have any more. What remains is to look at the arguments as Xen does.
 */
import type { VirtualAddress } from '../../x86/cpu.ts';
import type { Vcpu } from '../vcpu.ts';

/** A bitmap of vCPUs in guest memory, as long as the domain has vCPUs. @throws HypercallError EFAULT */
export function checkVcpuMask(vcpu: Vcpu, at: VirtualAddress): void {
  const { length } = vcpu.domain.vcpus;
  for (let first = 0; first < length; first += 8) vcpu.guest.u8(at + first / 8);
}
