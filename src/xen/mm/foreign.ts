/** Which domain a memory hypercall is about. A guest may name itself; what else it names decides how it is refused. */
import type { Domain } from '../domain.ts';
import { HypercallError } from '../hypercall.ts';
import { ERRNO } from '../public/errno.ts';
import { DOMID } from '../public/xen.ts';

/**
 * Checks the `foreigndom` of mmu_update, mmuext_op and update_va_mapping_otherdomain: DOMID_SELF.
 * @param foreign the domain in its lower 16 bits
 * @throws HypercallError ESRCH: no such domain; EPERM: one that is not the caller's business
 */
export function requireNotForeign(domain: Domain, foreign: number): void {
  const domid = foreign & 0xffff;
  // Xen does not let a domain name itself by its number here.
  if (domid === domain.id) throw new HypercallError(ERRNO.ESRCH);
  if (domid === DOMID.IO || domid === DOMID.XEN) throw new HypercallError(ERRNO.EPERM);
  requireSelf(domain, domid);
}

/**
 * Checks that a domid names the caller: DOMID_SELF or its own number.
 * @throws HypercallError ESRCH or EPERM
 */
export function requireSelf(domain: Domain, domid: number): void {
  if (domid === DOMID.SELF || domid === domain.id) return;
  throw new HypercallError(domain.hypervisor.domain(domid) === undefined ? ERRNO.ESRCH : ERRNO.EPERM);
}
