/**
 * A machine, switched on: its memory, its processors, and the way from Domain 0's thread to the hypervisor.
 *
 * Which host this runs on is the business of the function that starts processors.
 */

import type { PlaneOpener } from '../dom0/backend/data-plane.ts';
import { XenstoreClient } from '../dom0/xenstore/client.ts';
import { Xenstore } from '../dom0/xenstore/xenstore.ts';
import { Frames } from '../machine/frames.ts';
import { MAILBOX_FRAMES } from '../machine/mailbox.ts';
import { MEMORY_MAX, Memory, PAGE_SIZE } from '../machine/memory.ts';
import type { PcpuMessage, Remote } from '../machine/pcpu.ts';
import { Common } from '../xen/common.ts';
import type { Notification } from '../xen/domctl.ts';
import { DiskService } from './devices/disk-service.ts';
import { ShareService } from './devices/share-service.ts';
import { Failure } from './failure.ts';
import type { Instruments, PcpuSeat } from './hypervisor-thread.ts';
import { NetService } from './net/net-service.ts';
import { type MachineControl, Pcpus } from './pcpus.ts';
import { Profiler } from './profile.ts';

/** Processors, each on a thread of its own. */
export interface PcpuThreads {
  /** Milliseconds for which the thread that translates for them was busy so far, where that is known. */
  compilerBusy?(): number;
  /** Ends them, even in the middle of a slice. */
  terminate(): Promise<void>;
}

/** Starts processors with the hypervisor on them (see hypervisor-thread.ts). */
export type StartPcpu = (
  machine: { memory: Memory; seats: readonly PcpuSeat[] },
  receive: (pcpu: number, message: PcpuMessage) => void,
  died: (error: Error) => void,
) => PcpuThreads;

/** Memory, in bytes, that the machine itself may need beside the domains: tables, code, page tables of the p2m. */
const OVERHEAD = 192 << 20;
/** And for each processor but the first: code, TLBs, its own knowledge of each frame. */
const PCPU_OVERHEAD = 112 << 20;
/** The most processors that a machine can have. */
export const MAX_PCPUS = 16;
/** The most memory, in KiB, that a domain can be given. */
export const MAX_DOMAIN_MEMORY = maxDomainMemory(1);

/** The most memory, in KiB, that the domains of a machine with so many processors can have together. */
export function maxDomainMemory(pcpus: number): number {
  return (MEMORY_MAX - overhead(pcpus)) >>> 10;
}

function overhead(pcpus: number): number {
  return OVERHEAD + (pcpus - 1) * PCPU_OVERHEAD;
}

/** What a domain tells, as it happens. */
export interface DomainListener {
  /** It signalled a port whose other end is in Domain 0. */
  onEvent(port: number): void;
  /** It shut down: a SHUTDOWN_* code, and for a crash the reason in one line. */
  onShutdown(code: number, crashReason: string | null): void;
  /** It printed by console_io. */
  onLog(text: string): void;
}

export class Machine {
  readonly memory: Memory;
  readonly frames: Frames;
  /** The hypervisor's control interface. */
  readonly control: MachineControl;
  readonly instruments: Remote<Instruments>;
  /** Domain 0's store, which all domains share. */
  readonly xenstore = new Xenstore();
  /** The store in Domain 0's own name. */
  readonly store = new XenstoreClient(this.xenstore);
  readonly pcpus: Pcpus;
  /** Makes the halves of back ends that run on the hypervisor's threads. */
  readonly planes: PlaneOpener;
  /** The same, on each of its processors. */
  readonly pcpuPlanes: readonly PlaneOpener[];
  /** The disks of its domains. */
  readonly disks: DiskService;
  /** The folders that they share with the host. */
  readonly shares: ShareService;
  /** Their networks. */
  readonly networks: NetService;
  /** Fails when a processor dies; never settles otherwise. */
  readonly dead: Promise<never>;
  private readonly threads: PcpuThreads;
  private readonly listeners = new Map<number, DomainListener>();
  private readonly onTrace: (line: string) => void;

  private constructor(bytes: number, start: StartPcpu, onTrace: (line: string) => void, pcpus: number) {
    this.onTrace = onTrace;
    this.memory = Memory.create(bytes);
    this.frames = new Frames(this.memory);
    const common = new Common(this.frames);
    const seats = Array.from({ length: pcpus }, (_, number) => ({
      number,
      mailbox: this.frames.allocContiguous(MAILBOX_FRAMES) * PAGE_SIZE,
      common: common.address,
      alone: pcpus === 1,
    }));
    let died!: (error: Error) => void;
    this.dead = new Promise((_, reject) => {
      died = reject;
    });
    this.dead.catch(() => {});
    this.pcpus = new Pcpus(this.memory, common, seats, {
      onNotification: (notification) => this.notified(notification),
      onDeath: (error) => died(error),
      onLeaving: async (domid) => {
        if (this.shares.list(domid).length > 0)
          throw new Failure('a domain with shared folders stays on its CPU');
        await this.disks.suspend(domid);
        await this.networks.suspend(domid);
      },
      onSettled: async (domid) => {
        await this.disks.resume(domid);
        await this.networks.resume(domid);
        this.networks.moved();
      },
    });
    this.planes = this.pcpus;
    this.pcpuPlanes = this.pcpus.openers;
    this.control = this.pcpus.control;
    this.instruments = this.pcpus.instruments;
    this.disks = new DiskService(this);
    this.shares = new ShareService(this);
    this.networks = new NetService(this);
    this.threads = start(
      { memory: this.memory, seats },
      (pcpu, message) => this.pcpus.receive(pcpu, message),
      (error) => this.pcpus.fail(error),
    );
  }

  /**
   * Switches a machine on.
   * @param domainMemory KiB that its domains need together, at most {@link maxDomainMemory}
   * @param onTrace takes lines of the trace
   * @param pcpus how many processors it has, at most {@link MAX_PCPUS}
   */
  static async start(
    domainMemory: number,
    start: StartPcpu,
    onTrace: (line: string) => void = () => {},
    pcpus = 1,
  ): Promise<Machine> {
    const machine = new Machine(domainMemory * 1024 + overhead(pcpus), start, onTrace, pcpus);
    await machine.pcpus.ready();
    return machine;
  }

  /** Tells from now on what a domain does; null: no longer. */
  listen(domid: number, listener: DomainListener | null): void {
    if (listener) this.listeners.set(domid, listener);
    else this.listeners.delete(domid);
  }

  /** Signals a port of a domain. Cheap: nothing is awaited, nothing answered. */
  sendEvent(domid: number, port: number): void {
    this.pcpus.sendEvent(domid, port);
  }

  /** What samples where the time of its processors goes; it is not started. */
  async profiler(): Promise<Profiler> {
    return new Profiler(this.memory, await this.pcpus.activityBoards(), {
      compilerBusy: () => this.threads.compilerBusy?.() ?? null,
    });
  }

  /** Switches it off, whatever it is doing. */
  async powerOff(): Promise<void> {
    this.pcpus.stop();
    await this.threads.terminate();
    this.pcpus.stopped();
    await this.disks.close();
    await this.shares.close();
    await this.networks.close();
  }

  private notified(notification: Exclude<Notification, { kind: 'seek' }>): void {
    if (notification.kind === 'trace') {
      this.onTrace(notification.line);
      return;
    }
    const listener = this.listeners.get(notification.domid);
    if (!listener) return;
    if (notification.kind === 'event') listener.onEvent(notification.port);
    else if (notification.kind === 'console') listener.onLog(notification.text);
    else listener.onShutdown(notification.reason, notification.crashReason);
  }
}
