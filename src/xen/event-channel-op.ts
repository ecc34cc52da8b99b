/** The hypercall event_channel_op (public/event_channel.h): from a guest's arguments to its event channels. */
import type { VirtualAddress } from '../x86/cpu.ts';
import type { EventChannels } from './event-channel.ts';
import { type Arguments, HypercallError } from './hypercall.ts';
import type { GuestAccess } from './mm/guest-access.ts';
import { ERRNO } from './public/errno.ts';
import {
  EVTCHN_ALLOC_UNBOUND,
  EVTCHN_BIND_INTERDOMAIN,
  EVTCHN_BIND_IPI,
  EVTCHN_BIND_VCPU,
  EVTCHN_BIND_VIRQ,
  EVTCHN_EXPAND_ARRAY,
  EVTCHN_FIFO_LINK_BITS,
  EVTCHN_INIT_CONTROL,
  EVTCHN_OP_COMPAT,
  EVTCHN_PORT,
  EVTCHN_RESET,
  EVTCHN_SET_PRIORITY,
  EVTCHN_STATUS,
  EVTCHNOP,
  EVTCHNSTAT,
} from './public/event_channel.ts';
import { DOMID } from './public/xen.ts';
import type { Vcpu } from './vcpu.ts';

/** event_channel_op(cmd, args). */
export function eventChannelOp(vcpu: Vcpu, args: Arguments): number {
  return operate(vcpu, args.low(0), args.number(1));
}

/** event_channel_op_compat(op): the command lies in front of its argument. */
export function eventChannelOpCompat(vcpu: Vcpu, args: Arguments): number {
  const at = args.number(0);
  const command = vcpu.guest.u32(at + EVTCHN_OP_COMPAT.cmd);
  if (command > EVTCHNOP.unmask) return -ERRNO.ENOSYS;
  return operate(vcpu, command, at + EVTCHN_OP_COMPAT.u);
}

/**
 * A port is written back after the channel exists, as the guest may have given an address that cannot be written:
 * then the channel is closed again.
 */
function deliver(guest: GuestAccess, events: EventChannels, at: VirtualAddress, port: number): number {
  try {
    guest.setU32(at, port);
  } catch (error) {
    events.close(port);
    throw error;
  }
  return 0;
}

function operate(vcpu: Vcpu, command: number, at: VirtualAddress): number {
  const { guest, domain } = vcpu;
  const { events } = domain;
  switch (command) {
    case EVTCHNOP.alloc_unbound: {
      self(vcpu, guest.u16(at + EVTCHN_ALLOC_UNBOUND.dom));
      const remote = domidOf(vcpu, guest.u16(at + EVTCHN_ALLOC_UNBOUND.remote_dom));
      return deliver(guest, events, at + EVTCHN_ALLOC_UNBOUND.port, events.allocUnbound(remote));
    }
    case EVTCHNOP.bind_interdomain: {
      const remote = domidOf(vcpu, guest.u16(at + EVTCHN_BIND_INTERDOMAIN.remote_dom));
      const port = events.bindInterdomain(remote, guest.u32(at + EVTCHN_BIND_INTERDOMAIN.remote_port));
      return deliver(guest, events, at + EVTCHN_BIND_INTERDOMAIN.local_port, port);
    }
    case EVTCHNOP.bind_virq: {
      const port = events.bindVirq(
        guest.u32(at + EVTCHN_BIND_VIRQ.virq),
        guest.u32(at + EVTCHN_BIND_VIRQ.vcpu),
      );
      return deliver(guest, events, at + EVTCHN_BIND_VIRQ.port, port);
    }
    case EVTCHNOP.bind_ipi: {
      const port = events.bindIpi(guest.u32(at + EVTCHN_BIND_IPI.vcpu));
      return deliver(guest, events, at + EVTCHN_BIND_IPI.port, port);
    }
    case EVTCHNOP.bind_pirq:
      // No domain of ours has physical interrupts.
      return -ERRNO.EPERM;
    case EVTCHNOP.close:
      events.close(guest.u32(at + EVTCHN_PORT.port));
      return 0;
    case EVTCHNOP.send:
      events.send(guest.u32(at + EVTCHN_PORT.port));
      return 0;
    case EVTCHNOP.unmask:
      events.unmask(guest.u32(at + EVTCHN_PORT.port));
      return 0;
    case EVTCHNOP.status:
      return status(vcpu, at);
    case EVTCHNOP.bind_vcpu:
      events.bindVcpu(guest.u32(at + EVTCHN_BIND_VCPU.port), guest.u32(at + EVTCHN_BIND_VCPU.vcpu));
      return 0;
    case EVTCHNOP.reset:
      self(vcpu, guest.u16(at + EVTCHN_RESET.dom));
      events.reset();
      return 0;
    case EVTCHNOP.init_control: {
      const gfn = guest.number64(at + EVTCHN_INIT_CONTROL.control_gfn);
      const offset = guest.u32(at + EVTCHN_INIT_CONTROL.offset);
      events.initControl(guest.u32(at + EVTCHN_INIT_CONTROL.vcpu), gfn, offset);
      guest.setU8(at + EVTCHN_INIT_CONTROL.link_bits, EVTCHN_FIFO_LINK_BITS);
      return 0;
    }
    case EVTCHNOP.expand_array:
      events.expandArray(guest.number64(at + EVTCHN_EXPAND_ARRAY.array_gfn));
      return 0;
    case EVTCHNOP.set_priority:
      events.setPriority(
        guest.u32(at + EVTCHN_SET_PRIORITY.port),
        guest.u32(at + EVTCHN_SET_PRIORITY.priority),
      );
      return 0;
    default:
      return -ERRNO.ENOSYS;
  }
}

function status(vcpu: Vcpu, at: VirtualAddress): number {
  const { guest, domain } = vcpu;
  self(vcpu, guest.u16(at + EVTCHN_STATUS.dom));
  const info = domain.events.status(guest.u32(at + EVTCHN_STATUS.port));
  guest.setU32(at + EVTCHN_STATUS.status, info.status);
  guest.setU32(at + EVTCHN_STATUS.vcpu, info.vcpu);
  if (info.status === EVTCHNSTAT.virq) {
    guest.setU32(at + EVTCHN_STATUS.virq, info.virq);
  } else if (info.status === EVTCHNSTAT.unbound || info.status === EVTCHNSTAT.interdomain) {
    guest.setU16(at + EVTCHN_STATUS.remote_dom, info.remoteDomid);
    if (info.status === EVTCHNSTAT.interdomain) {
      guest.setU32(at + EVTCHN_STATUS.remote_port, info.remotePort);
    }
  }
  return 0;
}

/** A domain identifier with DOMID_SELF resolved. */
function domidOf(vcpu: Vcpu, domid: number): number {
  return domid === DOMID.SELF ? vcpu.domain.id : domid;
}

/** Refuses everything but the calling domain: no guest is privileged. */
function self(vcpu: Vcpu, domid: number): void {
  const id = domidOf(vcpu, domid);
  if (id === vcpu.domain.id) return;
  const exists = id === 0 || vcpu.domain.hypervisor.domain(id) !== undefined;
  throw new HypercallError(exists ? ERRNO.EPERM : ERRNO.ESRCH);
}
