/**
 * The two-level ABI: a pending bit and a mask bit for each port in shared_info, and in each vcpu_info a selector
 * with one bit for each 64 ports.
 *
 * The order is the ABI: pending, then (if not masked) the selector, then evtchn_upcall_pending. The guest looks in
 * the reverse order and clears before it looks, so an event is never lost. A bit that is set already means that the
 * step after it was done already, so an event is never told twice.
 */
import type { Memory } from '../machine/memory.ts';
import type { Domain } from './domain.ts';
import { type Channel, type EventAbi, raiseUpcall } from './event-abi.ts';
import { EVTCHN_2L_NR_CHANNELS } from './public/event_channel.ts';
import { SHARED_INFO, VCPU_INFO } from './public/xen.ts';

/** Ports behind one selector bit: the bits of a long. */
const PORTS_PER_SELECTOR = 64;

export class TwoLevelAbi implements EventAbi {
  readonly ports = EVTCHN_2L_NR_CHANNELS;
  private readonly domain: Domain;

  constructor(domain: Domain) {
    this.domain = domain;
  }

  setPending(channel: Channel): boolean {
    if (this.set(SHARED_INFO.evtchn_pending, channel.port)) return false;
    if (!this.test(SHARED_INFO.evtchn_mask, channel.port)) this.select(channel);
    return true;
  }

  clearPending(channel: Channel): void {
    this.clear(SHARED_INFO.evtchn_pending, channel.port);
  }

  isPending(channel: Channel): boolean {
    return this.test(SHARED_INFO.evtchn_pending, channel.port);
  }

  isMasked(channel: Channel): boolean {
    return this.test(SHARED_INFO.evtchn_mask, channel.port);
  }

  unmask(channel: Channel): void {
    const masked = this.clear(SHARED_INFO.evtchn_mask, channel.port);
    if (masked && this.isPending(channel)) this.select(channel);
  }

  isBusy(): boolean {
    return false;
  }

  private get memory(): Memory {
    return this.domain.hypervisor.memory;
  }

  /** Sets the selector bit of a pending port and raises the upcall. */
  private select(channel: Channel): void {
    const vcpu = this.domain.vcpus[channel.vcpu];
    if (!vcpu || vcpu.vcpuInfo === 0) return;
    const selector = Math.floor(channel.port / PORTS_PER_SELECTOR);
    const at = vcpu.vcpuInfo + VCPU_INFO.evtchn_pending_sel + (selector >>> 3);
    const bit = 1 << (selector & 7);
    const before = this.memory.u8[at]!;
    if (before & bit) return;
    this.memory.u8[at] = before | bit;
    raiseUpcall(this.memory, vcpu);
  }

  /** Each of these takes one of the bitmaps of shared_info; the last two say what the bit was before. */
  private test(bitmap: number, port: number): boolean {
    return (this.memory.u8[this.domain.memory.sharedInfo + bitmap + (port >>> 3)]! & (1 << (port & 7))) !== 0;
  }

  private set(bitmap: number, port: number): boolean {
    const before = this.test(bitmap, port);
    this.memory.u8[this.domain.memory.sharedInfo + bitmap + (port >>> 3)]! |= 1 << (port & 7);
    return before;
  }

  private clear(bitmap: number, port: number): boolean {
    const before = this.test(bitmap, port);
    this.memory.u8[this.domain.memory.sharedInfo + bitmap + (port >>> 3)]! &= ~(1 << (port & 7));
    return before;
  }
}
