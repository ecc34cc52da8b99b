/**
 * What processors of a machine have to do with each other's domains, at the request of Domain 0, which carries the
 * data from one to the other: domains that go from here to there (domain-move.ts), and the virtual times by which it
 * is decided which (bvt-balance.ts).
 */
import { adoptDomain, leaveDomain, type MovingDomain } from './domain-move.ts';
import { HypercallError } from './hypercall.ts';
import type { Hypervisor } from './hypervisor.ts';
import { ERRNO } from './public/errno.ts';
import type { DomainQueue } from './scheduler.ts';

/** JSON data. */
export interface DomainInTraffic {
  readonly domain: MovingDomain;
  /** Its actual virtual time. */
  readonly actual: number;
  readonly tracing: boolean;
}

export class DomainTraffic {
  private readonly hypervisor: Hypervisor;

  constructor(hypervisor: Hypervisor) {
    this.hypervisor = hypervisor;
  }

  /**
   * Takes a domain from this processor. It is on none until it is {@link arrive}d at one.
   * @throws HypercallError ESRCH, EBUSY: it cannot leave now
   */
  depart(domid: number): DomainInTraffic {
    const { hypervisor } = this;
    const domain = hypervisor.domain(domid);
    if (domain === undefined) throw new HypercallError(ERRNO.ESRCH, `there is no domain ${domid}`);
    const actual = hypervisor.scheduler.actual(domain);
    const tracing = domain.tracer !== null;
    return { domain: leaveDomain(domain), actual, tracing };
  }

  /** Puts such a domain on this processor. @throws HypercallError ENOMEM: it is still on none */
  arrive({ domain: moving, actual, tracing }: DomainInTraffic): void {
    const { hypervisor } = this;
    const domain = adoptDomain(hypervisor, moving);
    hypervisor.scheduler.place(domain, actual);
    if (tracing) hypervisor.control.setTrace(domain.id, true);
  }

  /** The domain asked for another one's company (Hypervisor.neighbour), and has it now, or cannot have it. */
  sought(domid: number, other: number): void {
    const domain = this.hypervisor.domain(domid);
    if (domain !== undefined) this.hypervisor.sought(domain, other);
  }

  /** Who runs here or waits for it. */
  queue(): DomainQueue {
    return this.hypervisor.scheduler.queue();
  }

  /** Brings virtual time forward where nobody waits. */
  lift(time: number): void {
    this.hypervisor.scheduler.lift(time);
  }
}
