/**
 * Everything that a domain is, as plain data: for a fork (fork.ts), for another processor of the same machine
 * (domain-move.ts), and for a file (domain-save.ts).
 *
 * A domain is three things. *Bytes in machine memory*: its pages, the rows of its frame table, its
 * machine-to-physical table, shared_info, its grant table, and of each virtual CPU's frame what is the guest's. *What
 * the hypervisor holds for it in objects*: that is DomainState, JSON data, made and taken over here. And *who it is*
 * (number, UUID, name, the other ends of its rings), which is not part of its state: that is what a copy has of its
 * own. Whatever is added to a domain has to be added to one of the three; a fork and a saved domain then have it.
 *
 * Times are the domain's own (time.ts). Pages that somebody holds are not in the state: who holds them says so when
 * he takes his part of it over (DomainMemory.adoptHold), and the sums must agree with the counts in the rows.
 *
 * What stands between two guests has no place here: a domain with mappings of another one's pages, or channels to
 * another one, has no state of its own (`whole`).
 */
import type { BvtParameters } from './bvt.ts';
import type { Domain } from './domain.ts';
import { setVcpuState, type VcpuState, vcpuState } from './domain-state-vcpu.ts';
import type { EventsState } from './event-channel.ts';
import type { GrantsState } from './grant-table.ts';
import { HypercallError } from './hypercall.ts';
import { type MemoryState, memoryState } from './mm/memory-state.ts';
import { ERRNO } from './public/errno.ts';

export interface DomainState {
  /** The domain's time when this was true, and the wall-clock time then (since 1970), ns. */
  readonly time: number;
  readonly wallclock: number;
  readonly vmAssist: number;
  readonly latchedReason: number | null;
  readonly memory: MemoryState;
  readonly vcpus: readonly VcpuState[];
  readonly events: EventsState;
  readonly grants: GrantsState;
  /** Deadlines; null: not set. */
  readonly watchdogs: readonly (number | null)[];
  readonly scheduling: BvtParameters;
}

/** @throws HypercallError EBUSY: the domain shares something with another guest; EINVAL: it does not run */
export function needWhole(domain: Domain): void {
  if (domain.dying || domain.shutdown !== null || !domain.vcpus[0]!.initialised)
    throw new HypercallError(ERRNO.EINVAL, 'the domain does not run');
  if (domain.events.toOthers || domain.grants.mappings.count > 0)
    throw new HypercallError(ERRNO.EBUSY, 'the domain shares memory or channels with another one');
}

/** The domain must not run meanwhile. */
export function domainState(domain: Domain): DomainState {
  const { hypervisor } = domain;
  return {
    time: domain.now(),
    wallclock: hypervisor.host.wallclock(),
    vmAssist: domain.vmAssist,
    latchedReason: domain.latchedReason,
    memory: memoryState(domain.memory),
    vcpus: domain.vcpus.map(vcpuState),
    events: domain.events.state(),
    grants: domain.grants.state(),
    watchdogs: domain.watchdogs.state(),
    scheduling: hypervisor.scheduler.parameters(domain),
  };
}

/**
 * A new domain becomes what another one was. Its memory and grant table are there already with their contents, and so
 * are the frames of its virtual CPUs and its time offset.
 * @param accounting whether the time that the virtual CPUs used counts as this one's
 * @throws HypercallError EINVAL: what cannot be; the domain is to be destroyed then
 */
export function setDomainState(domain: Domain, state: DomainState, accounting: boolean): void {
  const { hypervisor, vcpus } = domain;
  if (state.vcpus.length !== vcpus.length) throw new HypercallError(ERRNO.EINVAL);
  domain.vmAssist = state.vmAssist;
  domain.latchedReason = state.latchedReason;
  for (const [id, vcpu] of vcpus.entries()) setVcpuState(vcpu, state.vcpus[id]!, accounting);
  domain.events.setState(state.events);
  domain.grants.setState(state.grants);
  domain.watchdogs.setState(state.watchdogs);
  hypervisor.scheduler.setParameters(domain, state.scheduling);
  for (const vcpu of vcpus) vcpu.reschedule();
}
