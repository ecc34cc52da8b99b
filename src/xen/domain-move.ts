/**
 * A domain goes to another processor of the same machine. All that is in machine memory stays where it is; what the
 * hypervisor has in objects goes over as plain data. Between the two steps the domain is on no processor.
 *
 * Nobody may have pages of the domain's in use (grants): back ends on the hypervisor's thread leave it before, and
 * connect anew where it is then.
 */
import type { Domain } from './domain.ts';
import { type DomainState, domainState, needWhole, setDomainState } from './domain-state.ts';
import type { GrantPlaces } from './grant-frames.ts';
import { HypercallError } from './hypercall.ts';
import type { Hypervisor } from './hypervisor.ts';
import type { MemoryPlaces } from './mm/domain-memory.ts';
import { setMemoryState } from './mm/memory-state.ts';
import { ERRNO } from './public/errno.ts';

/** A domain that is on no processor: JSON data. */
export interface MovingDomain {
  readonly domid: number;
  /** 16 bytes. */
  readonly uuid: readonly number[];
  readonly pauseCount: number;
  /** The domain's time less system time, which is the same on all processors. ns. */
  readonly timeOffset: number;
  readonly state: DomainState;
  /** Linear addresses. */
  readonly memory: MemoryPlaces;
  /** It has a right to its memory. */
  readonly reserved: boolean;
  readonly grants: GrantPlaces;
  readonly cpus: readonly number[];
  /** What it printed on the emergency console, as far as it is kept. */
  readonly log: readonly number[];
}

/**
 * Takes a domain from its processor, with nothing of it given back. Not while one of its virtual CPUs runs.
 * @throws HypercallError EBUSY, EINVAL as needWhole; EBUSY: somebody uses its pages; nothing has changed then
 */
export function leaveDomain(domain: Domain): MovingDomain {
  const { hypervisor, memory, grants, vcpus } = domain;
  needWhole(domain);
  if (grants.inUse > 0) throw new HypercallError(ERRNO.EBUSY, 'pages of the domain are in use');
  const moving: MovingDomain = {
    domid: domain.id,
    uuid: [...domain.uuid],
    pauseCount: domain.pauseCount,
    timeOffset: domain.timeOffset,
    state: domainState(domain),
    memory: memory.places,
    reserved: memory.backing.reserved,
    grants: grants.frames.places,
    cpus: vcpus.map(({ cpu }) => cpu.address),
    log: [...domain.log.bytes],
  };
  hypervisor.forgetDomain(domain);
  return moving;
}

/**
 * Puts such a domain on a processor.
 * @throws HypercallError ENOMEM: it is still on none then, and can be put on another one
 */
export function adoptDomain(hypervisor: Hypervisor, moving: MovingDomain): Domain {
  const { state, memory, cpus, domid, log } = moving;
  const domain = hypervisor.createDomain(state.memory.capacity, cpus.length, Uint8Array.from(moving.uuid), {
    domid,
    memory,
    cpus,
  });
  domain.pauseCount = moving.pauseCount;
  domain.timeOffset = moving.timeOffset;
  setMemoryState(domain.memory, state.memory);
  domain.memory.backing.reserved = moving.reserved;
  domain.memory.backing.adoptShared();
  domain.memory.pageTables.recountLinear();
  domain.log.restore(Uint8Array.from(log));
  domain.grants.frames.setState(state.grants, { take: moving.grants });
  setDomainState(domain, state, true);
  return domain;
}
