/**
 * A fork: a second domain that is at this moment what another one is, and goes its own way from here.
 *
 * The guest does not take part in it. It finds the same memory behind the same frame numbers (shared copy-on-write,
 * mm/shared-frames.ts), its virtual CPUs at the same instruction, the same ports and grants. What differs is who it
 * is: domain number, UUID, and the other ends of its rings, which Domain 0 has to serve for the new domain too: the
 * ports are the same, and the pages have the same frame numbers with memory of their own behind them. What belongs to
 * a domain is the subject of domain-state.ts.
 *
 * What stands between two guests cannot be doubled: a domain that has mapped pages of others, or has channels to
 * other guests, is refused. What Domain 0 has mapped of the parent's (the rings of disks and networks) stays the
 * parent's; for the fork they are grants that nobody uses yet.
 *
 * The work is a copy of the tables (22 bytes a page), and of the guest's page tables and what else is not shared.
 */
import type { Domain } from './domain.ts';
import { domainState, needWhole, setDomainState } from './domain-state.ts';
import { CPU_PARTS } from './domain-state-vcpu.ts';
import type { Hypervisor } from './hypervisor.ts';
import { outOfMemory } from './mm/backing.ts';
import { forkMemory } from './mm/memory-state.ts';

/**
 * @param own frame numbers of pages that Domain 0 reads and writes by itself: the fork gets its own at once
 * @returns the new domain, paused
 * @throws HypercallError ENOMEM; EBUSY: the domain shares something with another guest; EINVAL: it has shut down, or
 *   was never started
 */
export function forkDomain(hypervisor: Hypervisor, parent: Domain, own: readonly number[]): Domain {
  needWhole(parent);
  const { memory } = parent;
  const { u8 } = hypervisor.memory;
  const child = hypervisor.createDomain(memory.capacity, parent.vcpus.length, null);
  try {
    child.timeOffset = parent.timeOffset;
    forkMemory(child.memory, memory, new Set(own));
    for (const [id, { cpu }] of parent.vcpus.entries())
      for (const [start, end] of CPU_PARTS)
        u8.copyWithin(child.vcpus[id]!.cpu.address + start, cpu.address + start, cpu.address + end);
    child.grants.frames.setState(parent.grants.frames.state(), { copy: parent.grants.frames.places });
    setDomainState(child, domainState(parent), false);
  } catch (error) {
    hypervisor.destroyDomain(child);
    throw outOfMemory(error);
  }
  return child;
}
