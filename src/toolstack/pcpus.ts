/**
 * The processors of a machine, seen from Domain 0's thread: each request goes to the one that has the domain.
 *
 * Which one that is stands in the machine's memory (xen/common.ts). Who asks for something of one domain after the
 * other has it done in that order, wherever the domain is.
 */
import type { PlaneHandle, PlaneListener, PlaneOpener } from '../dom0/backend/data-plane.ts';
import type { PlaneNotification } from '../dom0/backend/data-planes.ts';
import { PlaneClient } from '../dom0/backend/plane-client.ts';
import { MailboxSender } from '../machine/mailbox.ts';
import type { Memory } from '../machine/memory.ts';
import { PcpuClient, type PcpuMessage, type Remote, remote } from '../machine/pcpu.ts';
import type { Common } from '../xen/common.ts';
import type { Control, CreateDomain, DomainInfo, Notification } from '../xen/domctl.ts';
import type { Instruments, PcpuSeat } from './hypervisor-thread.ts';

/** The hypervisor's control interface, whichever processor a domain is on. */
export type MachineControl = Omit<Remote<Control>, 'createDomain'> & {
  /** @param options `pcpus`: numbers of the processors that it may be on; left out: any */
  createDomain(options: CreateDomain & { readonly pcpus?: readonly number[] }): Promise<number>;
};

export interface PcpusListener {
  onNotification(notification: Notification): void;
  /** A processor died, and with it the machine. */
  onDeath(error: Error): void;
}

/** One of them. */
class Pcpu {
  readonly number: number;
  readonly client: PcpuClient;
  readonly control: Remote<Control>;
  readonly planes: PlaneClient;

  constructor(memory: Memory, { number, mailbox }: PcpuSeat, listener: PcpusListener) {
    this.number = number;
    this.client = new PcpuClient(
      new MailboxSender(memory, mailbox),
      (value) => this.notified(value as Notification | PlaneNotification, listener),
      (error) => {
        this.planes.fail(error);
        listener.onDeath(error);
      },
    );
    this.control = remote<Control>(this.client);
    this.planes = new PlaneClient({
      call: (method, args) => this.client.call(method, args),
      signal: (a, b) => this.client.signal(a, b),
    });
  }

  private notified(notification: Notification | PlaneNotification, listener: PcpusListener): void {
    switch (notification.kind) {
      case 'plane':
      case 'plane-failed':
      case 'plane-closed':
        this.planes.receive(notification);
        return;
      default:
        listener.onNotification(notification);
    }
  }
}

export class Pcpus implements PlaneOpener {
  readonly control: MachineControl;
  /** What is not of a domain is told by the first processor. */
  readonly instruments: Remote<Instruments>;
  private readonly all: readonly Pcpu[];
  private readonly common: Common;
  /** The processors that a domain may be on; those that may be on any are not here. */
  private readonly affinities = new Map<number, readonly number[]>();

  constructor(memory: Memory, common: Common, seats: readonly PcpuSeat[], listener: PcpusListener) {
    this.common = common;
    const onDeath = (error: Error) => {
      for (const { client } of this.all) client.fail(error);
      listener.onDeath(error);
    };
    this.all = seats.map((seat) => new Pcpu(memory, seat, { ...listener, onDeath }));
    this.control = this.makeControl();
    this.instruments = this.routed<Instruments>({});
  }

  /** How many there are. */
  get count(): number {
    return this.all.length;
  }

  /** Settles when all of them run, or one fails to start. */
  async ready(): Promise<void> {
    await Promise.all(this.all.map(({ client }) => client.ready));
  }

  /** Takes what a processor's thread posted. */
  receive(number: number, message: PcpuMessage): void {
    this.all[number]!.client.receive(message);
  }

  /** They are gone. */
  fail(error: Error): void {
    for (const { client } of this.all) client.fail(error);
  }

  /** Asks them to end after their current slices. */
  stop(): void {
    for (const { client } of this.all) client.stop();
  }

  /** Nothing of a data plane is left: the threads are gone. */
  stopped(): void {
    for (const { planes } of this.all) planes.fail(new Error('the machine was switched off'));
  }

  /** The number of the processor that a domain is on. */
  pcpuOf(domid: number): number {
    return this.common.pcpuOf(domid) ?? 0;
  }

  /** Numbers of the processors that a domain may be on; null: any. */
  affinity(domid: number): readonly number[] | null {
    return this.affinities.get(domid) ?? null;
  }

  /** Signals a port of a domain. */
  sendEvent(domid: number, port: number): void {
    this.of(domid).client.signal(domid, port);
  }

  /** Makes a data plane where its domain is; those of no domain are on the first processor. */
  open(kind: string, domid: number, parameters: unknown, listener: PlaneListener): Promise<PlaneHandle> {
    return this.of(domid).planes.open(kind, domid, parameters, listener);
  }

  private of(domid: number): Pcpu {
    return this.all[this.pcpuOf(domid)]!;
  }

  private makeControl(): MachineControl {
    return this.routed<Control>({
      createDomain: (options: CreateDomain & { readonly pcpus?: readonly number[] }) => this.create(options),
      destroyDomain: async (domid: number) => {
        await this.of(domid).control.destroyDomain(domid);
        this.affinities.delete(domid);
      },
      listDomains: () => this.list(),
      allowanceGet: () => this.all[0]!.control.allowanceGet(),
      allowanceSet: async (allowance: number) => {
        await Promise.all(this.all.map(({ control }) => control.allowanceSet(allowance)));
      },
      machineInfo: async () => {
        const [first, ...others] = await Promise.all(this.all.map(({ control }) => control.machineInfo()));
        const counts = new Map(first!.undefinedInstructions);
        for (const { undefinedInstructions } of others)
          for (const [name, count] of undefinedInstructions)
            counts.set(name, (counts.get(name) ?? 0) + count);
        return { ...first!, undefinedInstructions: [...counts] };
      },
    } satisfies Partial<MachineControl>);
  }

  private async create({
    pcpus,
    ...options
  }: CreateDomain & { readonly pcpus?: readonly number[] }): Promise<number> {
    const domid = await this.leastLoaded(pcpus ?? null).control.createDomain(options);
    if (pcpus !== undefined) this.affinities.set(domid, pcpus);
    return domid;
  }

  /** Of those that are allowed, the one with the fewest domains. */
  private leastLoaded(allowed: readonly number[] | null): Pcpu {
    const counts = this.common.domainsOn(this.count);
    const candidates = this.all.filter(({ number }) => allowed === null || allowed.includes(number));
    if (candidates.length === 0) throw new RangeError('the machine has none of the processors asked for');
    return candidates.reduce((best, pcpu) => (counts[pcpu.number]! < counts[best.number]! ? pcpu : best));
  }

  private async list(): Promise<DomainInfo[]> {
    const lists = await Promise.all(this.all.map(({ control }) => control.listDomains()));
    return lists.flat().sort((a, b) => a.domid - b.domid);
  }

  /** An object whose methods go to the processor of the domain that is their first argument, but for some. */
  private routed<T extends object>(own: object): Remote<T> {
    return new Proxy(own as Remote<T>, {
      get: (methods, method) => {
        // A promise resolved with this object asks for `then`; that one is not the processors'.
        if (typeof method !== 'string' || method === 'then') return undefined;
        if (Object.hasOwn(methods, method)) return methods[method as keyof typeof methods];
        return (...args: unknown[]) =>
          this.of(typeof args[0] === 'number' ? args[0] : 0).client.call(method, args);
      },
    });
  }
}
