/**
 * A machine, switched on: its memory, its processor, and the way from Domain 0's thread to the hypervisor.
 *
 * Which host this runs on is the business of the function that starts processors.
 */

import type { PlaneOpener } from '../dom0/backend/data-plane.ts';
import type { PlaneNotification } from '../dom0/backend/data-planes.ts';
import { PlaneClient } from '../dom0/backend/plane-client.ts';
import { XenstoreClient } from '../dom0/xenstore/client.ts';
import { Xenstore } from '../dom0/xenstore/xenstore.ts';
import { Frames } from '../machine/frames.ts';
import { MAILBOX_FRAMES, MailboxSender } from '../machine/mailbox.ts';
import { MEMORY_MAX, Memory, PAGE_SIZE } from '../machine/memory.ts';
import { PcpuClient, type PcpuMessage, type Remote, remote } from '../machine/pcpu.ts';
import type { Control, Notification } from '../xen/domctl.ts';
import { DiskService } from './devices/disk-service.ts';
import type { Instruments } from './hypervisor-thread.ts';
import { NetService } from './net/net-service.ts';
import { Profiler } from './profile.ts';

/** A processor that runs on a thread of its own. */
export interface PcpuThread {
  /** Milliseconds for which the thread that translates for it was busy so far, where that is known. */
  compilerBusy?(): number;
  /** Ends it, even in the middle of a slice. */
  terminate(): Promise<void>;
}

/** Starts a processor with the hypervisor on it (see hypervisor-thread.ts). */
export type StartPcpu = (
  machine: { memory: Memory; mailbox: number },
  receive: (message: PcpuMessage) => void,
  died: (error: Error) => void,
) => PcpuThread;

/** Memory, in bytes, that the machine itself may need beside the domains: tables, code, page tables of the p2m. */
const OVERHEAD = 192 << 20;
/** The most memory, in KiB, that a domain can be given. */
export const MAX_DOMAIN_MEMORY = (MEMORY_MAX - OVERHEAD) >>> 10;

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
  readonly control: Remote<Control>;
  readonly instruments: Remote<Instruments>;
  /** Domain 0's store, which all domains share. */
  readonly xenstore = new Xenstore();
  /** The store in Domain 0's own name. */
  readonly store = new XenstoreClient(this.xenstore);
  /** Makes the halves of back ends that run on the hypervisor's thread. */
  readonly planes: PlaneOpener;
  /** The disks of its domains. */
  readonly disks: DiskService;
  /** Their networks. */
  readonly networks: NetService;
  /** Fails when the processor dies; never settles otherwise. */
  readonly dead: Promise<never>;
  private readonly client: PcpuClient;
  private readonly planeClient: PlaneClient;
  private readonly thread: PcpuThread;
  private readonly listeners = new Map<number, DomainListener>();
  private readonly onTrace: (line: string) => void;

  private constructor(bytes: number, start: StartPcpu, onTrace: (line: string) => void) {
    this.onTrace = onTrace;
    this.memory = Memory.create(bytes);
    this.frames = new Frames(this.memory);
    const mailbox = this.frames.allocContiguous(MAILBOX_FRAMES) * PAGE_SIZE;
    let died!: (error: Error) => void;
    this.dead = new Promise((_, reject) => {
      died = reject;
    });
    this.dead.catch(() => {});
    this.client = new PcpuClient(
      new MailboxSender(this.memory, mailbox),
      (value) => this.notified(value as Notification | PlaneNotification),
      (error) => {
        died(error);
        this.planeClient.fail(error);
      },
    );
    this.planeClient = new PlaneClient({
      call: (method, args) => this.client.call(method, args),
      signal: (a, b) => this.client.signal(a, b),
    });
    this.planes = this.planeClient;
    this.disks = new DiskService(this);
    this.networks = new NetService(this);
    this.control = remote<Control>(this.client);
    this.instruments = remote<Instruments>(this.client);
    this.thread = start(
      { memory: this.memory, mailbox },
      (message) => this.client.receive(message),
      (error) => this.client.fail(error),
    );
  }

  /**
   * Switches a machine on.
   * @param domainMemory KiB that its domains need together, at most {@link MAX_DOMAIN_MEMORY}
   * @param onTrace takes lines of the trace
   */
  static async start(
    domainMemory: number,
    start: StartPcpu,
    onTrace: (line: string) => void = () => {},
  ): Promise<Machine> {
    const machine = new Machine(domainMemory * 1024 + OVERHEAD, start, onTrace);
    await machine.client.ready;
    return machine;
  }

  /** Tells from now on what a domain does; null: no longer. */
  listen(domid: number, listener: DomainListener | null): void {
    if (listener) this.listeners.set(domid, listener);
    else this.listeners.delete(domid);
  }

  /** Signals a port of a domain. Cheap: nothing is awaited, nothing answered. */
  sendEvent(domid: number, port: number): void {
    this.client.signal(domid, port);
  }

  /** What samples where its time goes; it is not started. */
  async profiler(): Promise<Profiler> {
    return new Profiler(this.memory, await this.instruments.activityBoard(), {
      compilerBusy: () => this.thread.compilerBusy?.() ?? null,
    });
  }

  /** Switches it off, whatever it is doing. */
  async powerOff(): Promise<void> {
    this.client.stop();
    await this.thread.terminate();
    this.planeClient.fail(new Error('the machine was switched off'));
    await this.disks.close();
    await this.networks.close();
  }

  private notified(notification: Notification | PlaneNotification): void {
    switch (notification.kind) {
      case 'plane':
      case 'plane-failed':
      case 'plane-closed':
        this.planeClient.receive(notification);
        return;
    }
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
