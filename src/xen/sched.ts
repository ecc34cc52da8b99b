/** sched_op (public/sched.h): what a guest says about its running: yield, block, poll, shutdown, watchdog. */
import type { Domain } from './domain.ts';
import type { Arguments } from './hypercall.ts';
import { ERRNO } from './public/errno.ts';
import { SCHED_POLL, SCHED_WATCHDOG, SCHEDOP, SHUTDOWN, SHUTDOWN_MAX } from './public/sched.ts';
import { Timer } from './timers.ts';
import type { Vcpu } from './vcpu.ts';

/** Ports that one poll may name. */
const MAX_POLL_PORTS = 128;
const NS_PER_SECOND = 1e9;

/** Watchdogs that a domain has. */
export const WATCHDOGS = 2;

/** A domain's watchdog timers: one that fires ends the domain. Identifiers start with 1. */
export class Watchdogs {
  private readonly domain: Domain;
  readonly timers: readonly Timer[];
  private readonly inUse: boolean[] = new Array(WATCHDOGS).fill(false);

  constructor(domain: Domain) {
    this.domain = domain;
    const fire = () => domain.shutDown(SHUTDOWN.watchdog);
    this.timers = this.inUse.map(() => new Timer(fire));
  }

  /** As SCHEDOP_watchdog. @param timeout in seconds */
  operate(id: number, timeout: number): number {
    if (id > WATCHDOGS) return -ERRNO.EINVAL;
    if (id === 0) {
      if (timeout === 0) return -ERRNO.EINVAL;
      const free = this.inUse.indexOf(false);
      if (free < 0) return -ERRNO.ENOSPC;
      this.inUse[free] = true;
      this.set(free, timeout);
      return free + 1;
    }
    if (!this.inUse[id - 1]) return -ERRNO.EINVAL;
    if (timeout !== 0) this.set(id - 1, timeout);
    else this.stop(id - 1);
    return 0;
  }

  /** As plain data: for each the guest's time at which it fires, or null. */
  state(): (number | null)[] {
    return this.timers.map((timer) => this.domain.guestDeadline(timer));
  }

  setState(deadlines: readonly (number | null)[]): void {
    for (let index = 0; index < WATCHDOGS; index++) {
      const deadline = deadlines[index] ?? null;
      this.inUse[index] = deadline !== null;
      this.domain.setGuestDeadline(this.timers[index]!, deadline);
    }
  }

  stopAll(): void {
    for (let index = 0; index < WATCHDOGS; index++) this.stop(index);
  }

  private set(index: number, timeout: number): void {
    const { hypervisor } = this.domain;
    hypervisor.timers.set(this.timers[index]!, hypervisor.now() + timeout * NS_PER_SECOND);
  }

  private stop(index: number): void {
    this.inUse[index] = false;
    this.domain.hypervisor.timers.cancel(this.timers[index]!);
  }
}

/** sched_op(cmd, arg). */
export function schedOp(vcpu: Vcpu, args: Arguments): number {
  const { guest, domain } = vcpu;
  const at = args.number(1);
  switch (args.low(0)) {
    case SCHEDOP.yield:
      domain.hypervisor.yield(vcpu);
      return 0;
    case SCHEDOP.block:
      return block(vcpu);
    case SCHEDOP.shutdown:
      return shutDown(domain, guest.u32(at));
    case SCHEDOP.poll:
      return poll(vcpu, at);
    case SCHEDOP.shutdown_code: {
      const reason = guest.u32(at);
      if (reason > SHUTDOWN_MAX) return -ERRNO.EINVAL;
      domain.latchedReason ??= reason;
      return 0;
    }
    case SCHEDOP.watchdog:
      return domain.watchdogs.operate(
        guest.u32(at + SCHED_WATCHDOG.id),
        guest.u32(at + SCHED_WATCHDOG.timeout),
      );
    case SCHEDOP.remote_shutdown:
    case SCHEDOP.pin_override:
      // For domains that control others, or the hardware.
      return -ERRNO.EPERM;
    default:
      return -ERRNO.ENOSYS;
  }
}

/** sched_op_compat(cmd, arg): the form of Xen before 3.0.2. */
export function schedOpCompat(vcpu: Vcpu, args: Arguments): number {
  switch (args.low(0)) {
    case SCHEDOP.yield:
      vcpu.domain.hypervisor.yield(vcpu);
      return 0;
    case SCHEDOP.block:
      return block(vcpu);
    case SCHEDOP.shutdown:
      return shutDown(vcpu.domain, args.low(1));
    default:
      return -ERRNO.ENOSYS;
  }
}

/** Events are let in, and the vCPU waits for one, unless one is there. */
function block(vcpu: Vcpu): number {
  vcpu.upcallMasked = false;
  if (!vcpu.upcallPending) vcpu.block();
  return 0;
}

function shutDown(domain: Domain, reason: number): number {
  if (reason > SHUTDOWN_MAX) return -ERRNO.EINVAL;
  domain.shutDown(reason);
  return 0;
}

function poll(vcpu: Vcpu, at: number): number {
  const { guest, domain } = vcpu;
  const { hypervisor } = domain;
  const count = guest.u32(at + SCHED_POLL.nr_ports);
  const list = guest.number64(at + SCHED_POLL.ports);
  const timeout = guest.number64(at + SCHED_POLL.timeout);
  if (count > MAX_POLL_PORTS) return -ERRNO.EINVAL;
  const ports: number[] = [];
  for (let index = 0; index < count; index++) ports.push(guest.u32(list + index * 4));
  // An event that the vCPU lets in would be delivered at once: no need to sleep.
  if (vcpu.upcallPending && !vcpu.upcallMasked) return 0;
  if (timeout > 0 && timeout <= domain.now()) return 0;
  if (!domain.events.poll(vcpu, ports)) return 0;
  if (timeout > 0) hypervisor.timers.set(vcpu.pollTimer, timeout - domain.timeOffset);
  vcpu.block();
  return 0;
}
