/**
 * How an event reaches the guest: what the two ABIs (two-level and FIFO) have in common.
 */
import type { Memory } from '../machine/memory.ts';
import { EVTCHN_FIFO_PRIORITY, EVTCHNSTAT, type EventChannelStatus } from './public/event_channel.ts';
import { VCPU_INFO } from './public/xen.ts';

/**
 * One end of an event channel. The object of a port lives as long as the domain: the FIFO ABI must know on which
 * queue a port was last, even after it was closed and allocated again.
 */
export class Channel {
  readonly port: number;
  state: EventChannelStatus = EVTCHNSTAT.closed;
  /** The vCPU that is told of its events. */
  vcpu = 0;
  /** Unbound: who may bind. Interdomain: who is at the other end. */
  remoteDomid = 0;
  remotePort = 0;
  virq = 0;
  /** FIFO: the queue that the next event goes to, and the one that the last event went to. */
  priority: number = EVTCHN_FIFO_PRIORITY.DEFAULT;
  lastPriority: number = EVTCHN_FIFO_PRIORITY.DEFAULT;
  lastVcpu = 0;
  /** FIFO: pending, but the guest has no event word for this port yet. */
  pending = false;

  constructor(port: number) {
    this.port = port;
  }
}

/** The part of a vCPU that event delivery needs. */
export interface EventTarget {
  /** Linear address of its vcpu_info; 0: it has none yet. */
  readonly vcpuInfo: number;
  kick(): void;
}

/** An ABI for event delivery. Every method takes a channel of the domain that the ABI belongs to. */
export interface EventAbi {
  /** Ports it can address. */
  readonly ports: number;
  /** An event happened. Marks it, and tells the vCPU unless it is masked. True if it was not pending before. */
  setPending(channel: Channel): boolean;
  clearPending(channel: Channel): void;
  isPending(channel: Channel): boolean;
  isMasked(channel: Channel): boolean;
  /** Unmasks; an event that is pending is delivered then. */
  unmask(channel: Channel): void;
  /** The port is closed, but the guest still has it in a queue: it must not be used again yet. */
  isBusy(channel: Channel): boolean;
}

/** Tells a vCPU that it has events: evtchn_upcall_pending last, after everything that the guest looks at then. */
export function raiseUpcall(memory: Memory, vcpu: EventTarget): void {
  const at = vcpu.vcpuInfo + VCPU_INFO.evtchn_upcall_pending;
  if (memory.u8[at] !== 0) return;
  memory.u8[at] = 1;
  vcpu.kick();
}
