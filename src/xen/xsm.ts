/** The hypercall xsm_op: there is no security module, which is what a Xen built without one answers. */
import { ERRNO } from './public/errno.ts';

export function xsmOp(): number {
  return -ERRNO.ENOSYS;
}
