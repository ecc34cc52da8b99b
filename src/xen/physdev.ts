/**
 * The hypercalls physdev_op and physdev_op_compat (public/physdev.h), for domains that have no physical devices:
 * a vCPU may set its own I/O privilege, all that concerns interrupts and PCI is refused.
 */
import type { VirtualAddress } from '../x86/cpu.ts';
import type { Arguments } from './hypercall.ts';
import { ERRNO } from './public/errno.ts';
import { PHYSDEV_OP_COMPAT, PHYSDEV_SET_IOBITMAP, PHYSDEV_SET_IOPL, PHYSDEVOP } from './public/physdev.ts';
import type { Vcpu } from './vcpu.ts';

const IOPL_MAX = 3;
const IO_PORTS = 0x10000;

/** Commands that exist, and that only the domain with the hardware may use. */
const PRIVILEGED: ReadonlySet<number> = new Set([
  PHYSDEVOP.apic_read,
  PHYSDEVOP.apic_write,
  PHYSDEVOP.alloc_irq_vector,
  PHYSDEVOP.map_pirq,
  PHYSDEVOP.unmap_pirq,
  PHYSDEVOP.manage_pci_add,
  PHYSDEVOP.manage_pci_remove,
  PHYSDEVOP.manage_pci_add_ext,
  PHYSDEVOP.restore_msi,
  PHYSDEVOP.restore_msi_ext,
  PHYSDEVOP.setup_gsi,
  PHYSDEVOP.get_free_pirq,
  PHYSDEVOP.pci_mmcfg_reserved,
  PHYSDEVOP.pci_device_add,
  PHYSDEVOP.pci_device_remove,
  PHYSDEVOP.prepare_msix,
  PHYSDEVOP.release_msix,
  PHYSDEVOP.dbgp_op,
]);

/** physdev_op(cmd, args). */
export function physdevOp(vcpu: Vcpu, args: Arguments): number {
  return operate(vcpu, args.low(0), args.number(1));
}

/** physdev_op_compat(op): the command lies in front of its argument. */
export function physdevOpCompat(vcpu: Vcpu, args: Arguments): number {
  const at = args.number(0);
  return operate(vcpu, vcpu.guest.u32(at + PHYSDEV_OP_COMPAT.cmd), at + PHYSDEV_OP_COMPAT.u);
}

function operate(vcpu: Vcpu, command: number, at: VirtualAddress): number {
  const { guest } = vcpu;
  switch (command) {
    case PHYSDEVOP.set_iopl: {
      const iopl = guest.u32(at + PHYSDEV_SET_IOPL.iopl);
      if (iopl > IOPL_MAX) return -ERRNO.EINVAL;
      vcpu.iopl = iopl;
      return 0;
    }
    case PHYSDEVOP.set_iobitmap:
      // The bitmap opens ports to the guest's user mode. There are no ports behind it, so it is not read.
      return guest.u32(at + PHYSDEV_SET_IOBITMAP.nr_ports) > IO_PORTS ? -ERRNO.EINVAL : 0;
    case PHYSDEVOP.eoi:
    case PHYSDEVOP.irq_status_query:
      // The domain has no physical interrupt, whichever it names.
      return -ERRNO.EINVAL;
    default:
      return PRIVILEGED.has(command) ? -ERRNO.EPERM : -ERRNO.ENOSYS;
  }
}
