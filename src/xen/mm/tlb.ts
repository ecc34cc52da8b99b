/** TLB flushes that guests ask for. */
import type { VirtualAddress } from '../../x86/cpu.ts';
import type { Domain } from '../domain.ts';
import type { Vcpu } from '../vcpu.ts';

export function flushLocal(vcpu: Vcpu): void {
  vcpu.processor.flush(vcpu.cpu);
}

export function flushPageLocal(vcpu: Vcpu, va: VirtualAddress): void {
  // An address that is not canonical has no entry.
  if (va >= -(2 ** 47) && va < 2 ** 47) vcpu.processor.flushPage(vcpu.cpu, va);
}

/**
 * @param mask which vCPUs, null: all
 * @param va of a page, null: everything
 */
export function flushAll(domain: Domain, mask: ReadonlySet<number> | null, va: VirtualAddress | null): void {
  for (const vcpu of domain.vcpus) {
    if (vcpu.kernelRoot === 0 || (mask !== null && !mask.has(vcpu.id))) continue;
    if (va === null) flushLocal(vcpu);
    else flushPageLocal(vcpu, va);
  }
}

/** The vCPUs in a bitmap in guest memory, as far as the domain has them. @throws HypercallError EFAULT */
export function vcpuMask(vcpu: Vcpu, at: VirtualAddress): ReadonlySet<number> {
  const mask = new Set<number>();
  const { length } = vcpu.domain.vcpus;
  for (let first = 0; first < length; first += 8) {
    const bits = vcpu.guest.u8(at + first / 8);
    for (let bit = 0; bit < 8; bit++) if (bits & (1 << bit)) mask.add(first + bit);
  }
  return mask;
}
