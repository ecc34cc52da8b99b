/** vcpu_op (public/vcpu.h): bringing vCPUs up and down, their timers, and the areas they share with Xen. */

import { applyGuestContext } from './guest-context.ts';
import { type Arguments, HypercallError } from './hypercall.ts';
import { MAX_WORK } from './mm/batch.ts';
import { FrameType } from './mm/frame-table.ts';
import { GUEST_CONTEXT } from './public/arch-x86.ts';
import { ERRNO } from './public/errno.ts';
import { SHUTDOWN } from './public/sched.ts';
import {
  REGISTER_VCPU_INFO,
  RUNSTATE,
  RUNSTATE_INFO,
  SET_SINGLESHOT_TIMER,
  VCPU_SSHOTTMR_FUTURE,
  VCPUOP,
} from './public/vcpu.ts';
import { TIME_INFO, VCPU_INFO } from './public/xen.ts';
import { isCanonical } from './traps.ts';
import type { Vcpu } from './vcpu.ts';

/** Shortest period of a periodic timer, ns. */
const PERIOD_MIN = 1_000_000;
/** Longest: what a guest computes with 63 bits of time must not wrap. */
const PERIOD_MAX = 2 ** 50;

/** vcpu_op(cmd, vcpu, arg). */
export function vcpuOp(caller: Vcpu, args: Arguments): number {
  const { guest, domain } = caller;
  const vcpu = domain.vcpus[args.low(1)];
  if (vcpu === undefined) return -ERRNO.ENOENT;
  const at = args.number(2);
  switch (args.low(0)) {
    case VCPUOP.initialise:
      return initialise(caller, vcpu, at);
    case VCPUOP.up:
      if (!vcpu.initialised) return -ERRNO.EINVAL;
      vcpu.down = false;
      vcpu.publishTime(domain.hypervisor.now());
      vcpu.reschedule();
      return 0;
    case VCPUOP.down:
      if (domain.vcpus.every((other) => other === vcpu || other.down)) {
        domain.shutDown(SHUTDOWN.poweroff);
      } else {
        vcpu.down = true;
        vcpu.reschedule();
      }
      return 0;
    case VCPUOP.is_up:
      return vcpu.down ? 0 : 1;
    case VCPUOP.get_runstate_info: {
      const words = vcpu.runstate.words(domain.hypervisor.now(), domain.timeOffset);
      guest.copyTo(at, new Uint8Array(words.buffer, 0, RUNSTATE_INFO.size));
      return 0;
    }
    case VCPUOP.register_runstate_memory_area: {
      const area = guest.number64(at);
      if (!isCanonical(area)) return -ERRNO.EFAULT;
      vcpu.runstate.area = area === 0 ? null : area;
      // Another vCPU's is written when that one is scheduled: only its own page tables tell where it lies.
      if (vcpu === caller) vcpu.publishRunstate(domain.hypervisor.now());
      return 0;
    }
    case VCPUOP.set_periodic_timer: {
      const period = guest.number64(at);
      if (period < PERIOD_MIN || period > PERIOD_MAX) return -ERRNO.EINVAL;
      vcpu.period = period;
      vcpu.nextPeriod = domain.hypervisor.now() + period;
      return 0;
    }
    case VCPUOP.stop_periodic_timer:
      vcpu.period = 0;
      return 0;
    case VCPUOP.set_singleshot_timer: {
      const timeout = guest.number64(at + SET_SINGLESHOT_TIMER.timeout_abs_ns);
      const flags = guest.u32(at + SET_SINGLESHOT_TIMER.flags);
      if (vcpu !== caller) return -ERRNO.EINVAL;
      if (flags & VCPU_SSHOTTMR_FUTURE && timeout < domain.now()) return -ERRNO.ETIME;
      domain.hypervisor.setTimer(vcpu.timer, timeout - domain.timeOffset);
      return 0;
    }
    case VCPUOP.stop_singleshot_timer:
      if (vcpu !== caller) return -ERRNO.EINVAL;
      domain.hypervisor.timers.cancel(vcpu.timer);
      return 0;
    case VCPUOP.register_vcpu_info:
      return registerVcpuInfo(
        vcpu,
        guest.number64(at + REGISTER_VCPU_INFO.mfn),
        guest.u32(at + REGISTER_VCPU_INFO.offset),
      );
    case VCPUOP.send_nmi:
      vcpu.nmiPending = true;
      vcpu.kick();
      return 0;
    case VCPUOP.get_physid:
      // No vCPU of ours is bound to a processor by its guest.
      return -ERRNO.EINVAL;
    case VCPUOP.register_vcpu_time_memory_area: {
      const area = guest.number64(at);
      if (!isCanonical(area)) return -ERRNO.EFAULT;
      if (area !== 0) guest.probe(area, TIME_INFO.size, 1);
      vcpu.timeArea = area === 0 ? null : area;
      vcpu.publishTime(domain.hypervisor.now());
      return 0;
    }
    default:
      return -ERRNO.ENOSYS;
  }
}

/**
 * Its root tables may still have to be promoted, with all below them: then the call pauses, and goes on with what it
 * has checked so far. What that still holds in the end goes with the caller's next batch, or at once if it is little.
 */
function initialise(caller: Vcpu, vcpu: Vcpu, at: number): number {
  // A vCPU beyond those in shared_info needs a vcpu_info of its own first.
  if (vcpu.vcpuInfo === 0) return -ERRNO.EINVAL;
  if (vcpu.initialised) return -ERRNO.EEXIST;
  const image = caller.guest.copyFrom(at, GUEST_CONTEXT.size);
  const { pageTables } = caller.domain.memory;
  pageTables.begin(caller.id, MAX_WORK);
  try {
    applyGuestContext(vcpu, image);
    pageTables.settle();
  } finally {
    pageTables.end();
  }
  return 0;
}

/**
 * Moves a vCPU's vcpu_info to a place of the guest's choice, once. Everything is marked pending: an event that was
 * raised while the guest moved could have been seen at neither place.
 */
function registerVcpuInfo(vcpu: Vcpu, mfn: number, offset: number): number {
  const { memory, domain } = vcpu;
  if (offset > 4096 - VCPU_INFO.size || offset & 7 || vcpu.vcpuInfoMfn >= 0) return -ERRNO.EINVAL;
  if (vcpu.state !== RUNSTATE.running && !vcpu.down) return -ERRNO.EINVAL;
  try {
    domain.memory.getPageType(mfn, FrameType.writable);
  } catch (error) {
    if (error instanceof HypercallError) return -ERRNO.EINVAL;
    throw error;
  }
  const to = domain.memory.linear(mfn) + offset;
  if (vcpu.vcpuInfo !== 0) {
    memory.u8.copyWithin(to, vcpu.vcpuInfo, vcpu.vcpuInfo + VCPU_INFO.size);
  } else {
    memory.u8.fill(0, to, to + VCPU_INFO.size);
    memory.u8[to + VCPU_INFO.evtchn_upcall_mask] = 1;
  }
  vcpu.vcpuInfo = to;
  vcpu.vcpuInfoMfn = mfn;
  vcpu.publishTime(domain.hypervisor.now());
  memory.u8[to + VCPU_INFO.evtchn_upcall_pending] = 1;
  memory.write32(to + VCPU_INFO.evtchn_pending_sel, 0xffffffff);
  memory.write32(to + VCPU_INFO.evtchn_pending_sel + 4, 0xffffffff);
  return 0;
}
