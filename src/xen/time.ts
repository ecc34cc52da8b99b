/**
 * Time as guests see it.
 *
 * The time-stamp counter runs at 1 GHz and starts with the machine, as system time does: both are the same number
 * of nanoseconds. So what a guest computes from vcpu_time_info never drifts and never has to be corrected.
 *
 * A domain that comes from another machine (domain-state.ts) has its own of both: system time and an offset
 * (Domain.timeOffset), so that neither ever goes back for it. Everything that a guest is told, and every time that it
 * names, is the domain's; timers and everything else in the hypervisor have system time.
 */
import { high32 } from '../x86/cpu.ts';
import type { Domain } from './domain.ts';
import type { Arguments } from './hypercall.ts';
import { PVCLOCK, SHARED_INFO, TIME_INFO } from './public/xen.ts';
import type { Vcpu } from './vcpu.ts';

/** Frequency of the time-stamp counter. */
export const TSC_KHZ = 1_000_000;
/** ns = ((ticks << shift) * multiplier) >> 32: with these, one tick is one nanosecond. */
export const TSC_TO_SYSTEM_MUL = 0x80000000;
export const TSC_SHIFT = 1;

/**
 * Writes a struct vcpu_time_info. Its version is odd while the rest changes.
 * @param put writes a u32 at an offset @param version the one that is there now @param now the domain's time, ns
 * @param flags PVCLOCK_* beside TSC_STABLE
 */
export function writeTimeInfo(
  put: (offset: number, value: number) => void,
  version: number,
  now: number,
  flags = 0,
): void {
  const updating = (version | 1) >>> 0;
  put(TIME_INFO.version, updating);
  put(TIME_INFO.tsc_timestamp, now >>> 0);
  put(TIME_INFO.tsc_timestamp + 4, high32(now));
  put(TIME_INFO.system_time, now >>> 0);
  put(TIME_INFO.system_time + 4, high32(now));
  put(TIME_INFO.tsc_to_system_mul, TSC_TO_SYSTEM_MUL);
  put(TIME_INFO.tsc_shift, TSC_SHIFT | ((PVCLOCK.TSC_STABLE | flags) << 8));
  put(TIME_INFO.version, (updating + 1) >>> 0);
}

/** Writes the wall-clock time at the domain's time 0 to shared_info. */
export function publishWallclock(domain: Domain): void {
  const { memory, host } = domain.hypervisor;
  const base = host.wallclock() - domain.now();
  const seconds = Math.floor(base / 1e9);
  const at = domain.memory.sharedInfo;
  const version = (memory.read32(at + SHARED_INFO.wc_version) | 1) >>> 0;
  memory.write32(at + SHARED_INFO.wc_version, version);
  memory.write32(at + SHARED_INFO.wc_sec, seconds);
  memory.write32(at + SHARED_INFO.wc_sec_hi, high32(seconds));
  memory.write32(at + SHARED_INFO.wc_nsec, Math.floor(base - seconds * 1e9));
  memory.write32(at + SHARED_INFO.wc_version, (version + 1) >>> 0);
}

/** A timeout farther away than this (13 days) comes from a guest's arithmetic having wrapped. */
const FAR_FUTURE = 2 ** 50;
const WRAPPED_DELAY = 100_000_000;

/** set_timer_op(timeout): VIRQ_TIMER at a system time in ns; 0 stops it. */
export function setTimerOp(vcpu: Vcpu, args: Arguments): number {
  const { hypervisor } = vcpu.domain;
  const timeout = args.number(0);
  const now = vcpu.domain.now();
  const { timeOffset } = vcpu.domain;
  if (timeout === 0) hypervisor.timers.cancel(vcpu.timer);
  // A guest with work to do that wrapped must not wait; one that means "never" must not spin.
  else if (timeout < 0 || timeout - now > FAR_FUTURE)
    hypervisor.setTimer(vcpu.timer, now + WRAPPED_DELAY - timeOffset);
  else hypervisor.setTimer(vcpu.timer, timeout - timeOffset);
  return 0;
}
