/** vm_assist: what the hypervisor does for a guest beyond what it must. */
import type { Domain } from './domain.ts';
import type { Arguments } from './hypercall.ts';
import { ERRNO } from './public/errno.ts';
import { VMASST_CMD, VMASST_TYPE } from './public/xen.ts';
import type { Vcpu } from './vcpu.ts';

const KNOWN: ReadonlySet<number> = new Set(Object.values(VMASST_TYPE));

/** Has the domain switched an assist on? @param type of VMASST_TYPE; these go beyond bit 31 */
export function assists(domain: Domain, type: number): boolean {
  return Math.floor(domain.vmAssist / 2 ** type) % 2 === 1;
}

/** vm_assist(command, type). Every assist of 64-bit guests can be chosen; some change nothing here. */
export function vmAssist(vcpu: Vcpu, args: Arguments): number {
  const { domain } = vcpu;
  const command = args.low(0);
  const type = args.low(1);
  if (!KNOWN.has(type)) return -ERRNO.EINVAL;
  if (command !== VMASST_CMD.enable && command !== VMASST_CMD.disable) return -ERRNO.ENOSYS;
  const enable = command === VMASST_CMD.enable;
  if (assists(domain, type) !== enable) domain.vmAssist += enable ? 2 ** type : -(2 ** type);
  for (const each of domain.vcpus) each.openGates();
  return 0;
}
