/**
 * The processors of a machine, seen from Domain 0's thread: each request goes to the one that has the domain.
 *
 * Which one that is stands in the machine's memory (xen/common.ts). What is asked of a domain is done in the order in
 * which it was asked: while a domain is on its way from one processor to another, requests and events wait here.
 *
 * Domains that wait for a processor while another one has time are moved there (xen/bvt-balance.ts). A processor on
 * which domains wait tells so; where nobody waits, nobody wakes anybody.
 */
import type { PlaneHandle, PlaneListener, PlaneOpener } from '../dom0/backend/data-plane.ts';
import type { PlaneNotification } from '../dom0/backend/data-planes.ts';
import { PlaneClient } from '../dom0/backend/plane-client.ts';
import { MailboxSender } from '../machine/mailbox.ts';
import type { Memory } from '../machine/memory.ts';
import { PcpuClient, PcpuError, type PcpuMessage, type Remote, remote } from '../machine/pcpu.ts';
import { MCU } from '../xen/bvt.ts';
import { planBalance } from '../xen/bvt-balance.ts';
import type { Common } from '../xen/common.ts';
import type { Place, SavedDomain } from '../xen/domain-save.ts';
import type { DomainTraffic } from '../xen/domain-traffic.ts';
import type { Control, CreateDomain, DomainInfo, MemoryPolicy, Notification } from '../xen/domctl.ts';
import { type Affinity, together } from './affinity.ts';
import { Failure } from './failure.ts';
import type { Crowded, Instruments, PcpuSeat } from './hypervisor-thread.ts';

/** The hypervisor's control interface, whichever processor a domain is on. */
export type MachineControl = Omit<Remote<Control>, 'createDomain' | 'beginRestore'> & {
  createDomain(options: CreateOptions): Promise<number>;
  /** @param affinity where its virtual CPUs may run; left out: anywhere */
  beginRestore(
    saved: SavedDomain,
    uuid?: string,
    affinity?: Affinity,
  ): Promise<{ domid: number; places: Place[] }>;
};

export interface CreateOptions extends CreateDomain {
  /** Where its virtual CPUs may run; left out: anywhere. */
  readonly affinity?: Affinity;
}

export interface PcpusListener {
  /**
   * A domain is about to leave its processor: its back ends have to leave it. Whatever comes of that, onSettled
   * follows. @throws Error: it has what cannot leave
   */
  onLeaving(domid: number): Promise<void>;
  /** It is on a processor again: another one, or if it could not leave the same. */
  onSettled(domid: number): Promise<void>;
  onNotification(notification: Exclude<Notification, Seek>): void;
  /** A processor died, and with it the machine. */
  onDeath(error: Error): void;
}

type Seek = Extract<Notification, { kind: 'seek' }>;
type PcpuNotification = Notification | PlaneNotification | Crowded;

interface PcpuListener extends PcpusListener {
  onCrowded(): void;
  onSeek(seek: Seek): void;
}

/** How much time a domain must be owed on another processor to be moved there, ns. */
const THRESHOLD = 400_000_000;
/** One that could not be moved is not tried again for so long, ms. */
const STAYS = 5_000;

/** From one such request of a domain's to the next, ms. */
const SEEK_INTERVAL = 1000;

/** A domain that is on no processor. */
interface Journey {
  readonly done: Promise<void>;
  /** Ports that were signalled meanwhile. */
  readonly ports: Set<number>;
}

/** One of them. */
class Pcpu {
  readonly number: number;
  readonly client: PcpuClient;
  readonly control: Remote<Control>;
  readonly traffic: Remote<DomainTraffic>;
  readonly instruments: Remote<Instruments>;
  readonly planes: PlaneClient;

  constructor(memory: Memory, { number, mailbox }: PcpuSeat, listener: PcpuListener) {
    this.number = number;
    this.client = new PcpuClient(
      new MailboxSender(memory, mailbox),
      (value) => this.notified(value as PcpuNotification, listener),
      (error) => {
        this.planes.fail(error);
        listener.onDeath(error);
      },
    );
    this.control = remote<Control>(this.client);
    this.traffic = remote<DomainTraffic>(this.client);
    this.instruments = remote<Instruments>(this.client);
    this.planes = new PlaneClient({
      call: (method, args) => this.client.call(method, args),
      signal: (a, b) => this.client.signal(a, b),
    });
  }

  private notified(notification: PcpuNotification, listener: PcpuListener): void {
    switch (notification.kind) {
      case 'crowded':
        listener.onCrowded();
        return;
      case 'seek':
        listener.onSeek(notification);
        return;
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
  /** Domains whose virtual CPUs may run anywhere are not here. */
  private readonly affinities = new Map<number, Affinity>();
  /** Moves that are under way, from when back ends leave until they are back; they do not fail. */
  private readonly moves = new Map<number, Promise<void>>();
  /** Of these, domains that are on no processor. */
  private readonly journeys = new Map<number, Journey>();
  /** Domains that could not be moved, and until when they are left alone (ms, as Date.now() has it). */
  private readonly staying = new Map<number, number>();
  /** How many want that a domain stays where it is. */
  private readonly holds = new Map<number, number>();
  private readonly listener: PcpusListener;
  /** When domains last had their way that asked for another one's company, ms as Date.now() has it. */
  private readonly seekers = new Map<number, number>();
  private balancing = false;
  private over = false;

  constructor(memory: Memory, common: Common, seats: readonly PcpuSeat[], listener: PcpusListener) {
    this.common = common;
    this.listener = listener;
    const onDeath = (error: Error) => {
      for (const { client } of this.all) client.fail(error);
      listener.onDeath(error);
    };
    const onCrowded = () => void this.balance();
    const onSeek = ({ domid, other }: Seek) => void this.bringTogether(domid, other).catch(() => {});
    this.all = seats.map((seat) => new Pcpu(memory, seat, { ...listener, onDeath, onCrowded, onSeek }));
    this.control = this.makeControl();
    this.instruments = this.routed<Instruments>({});
  }

  /** What makes data planes on each of them. */
  get openers(): readonly PlaneOpener[] {
    return this.all.map(({ planes }) => planes);
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
    this.over = true;
    for (const { client } of this.all) client.stop();
  }

  /** Nothing of a data plane is left: the threads are gone. */
  stopped(): void {
    for (const { planes } of this.all) planes.fail(new Error('the machine was switched off'));
  }

  /** Linear addresses of what they say of what they are doing, by number. */
  activityBoards(): Promise<number[]> {
    return Promise.all(this.all.map(({ instruments }) => instruments.activityBoard()));
  }

  /** The number of the processor that a domain is on. */
  pcpuOf(domid: number): number {
    return this.common.pcpuOf(domid) ?? 0;
  }

  /** Where the virtual CPUs of a domain may run; those that are not in it: anywhere. */
  affinity(domid: number): Affinity {
    return this.affinities.get(domid) ?? [];
  }

  /** Signals a port of a domain. */
  sendEvent(domid: number, port: number): void {
    const journey = this.journeys.get(domid);
    if (journey) journey.ports.add(port);
    else this.of(domid).client.signal(domid, port);
  }

  /** Makes a data plane where its domain is; those of no domain are on the first processor. */
  async open(
    kind: string,
    domid: number,
    parameters: unknown,
    listener: PlaneListener,
  ): Promise<PlaneHandle> {
    await this.arrival(domid);
    return this.of(domid).planes.open(kind, domid, parameters, listener);
  }

  /**
   * Says where the virtual CPUs of a domain may run, and moves it if it is elsewhere.
   * @param affinity with a processor that suits all of them
   * @throws Error: it cannot be moved; nothing has changed then
   */
  async pin(domid: number, affinity: Affinity): Promise<void> {
    await this.moved(domid);
    const allowed = together(affinity);
    if (allowed !== null && !allowed.includes(this.pcpuOf(domid)))
      await this.move(domid, this.leastLoaded(allowed).number);
    if (allowed === null) this.affinities.delete(domid);
    else this.affinities.set(domid, affinity);
  }

  /** Keeps a domain on its processor. @returns ends that */
  async hold(domid: number): Promise<() => void> {
    await this.moved(domid);
    this.holds.set(domid, (this.holds.get(domid) ?? 0) + 1);
    let held = true;
    return () => {
      const left = (this.holds.get(domid) ?? 0) - (held ? 1 : 0);
      held = false;
      if (left > 0) this.holds.set(domid, left);
      else this.holds.delete(domid);
    };
  }

  /** It is not to be moved now: it is on its way, or held where it is. */
  private busy(domid: number): boolean {
    return this.moves.has(domid) || this.holds.has(domid);
  }

  /** Settles when no move of the domain is under way. */
  private async moved(domid: number): Promise<void> {
    for (let move = this.moves.get(domid); move; move = this.moves.get(domid)) await move;
  }

  /** Settles when the domain is on a processor. */
  private async arrival(domid: number): Promise<void> {
    for (let journey = this.journeys.get(domid); journey; journey = this.journeys.get(domid))
      await journey.done;
  }

  /** Asks something of the processor that has a domain. */
  private async ask(domid: number, method: string, args: readonly unknown[]): Promise<unknown> {
    if (this.journeys.has(domid)) await this.arrival(domid);
    return this.of(domid).client.call(method, args);
  }

  /** The domain is on a processor. @throws Error: it cannot leave that; it goes on there */
  private async move(domid: number, to: number): Promise<void> {
    if (this.pcpuOf(domid) === to) return;
    if (this.busy(domid)) throw new Failure('the domain is being moved, copied or saved');
    const move = this.moveWithBackEnds(domid, to);
    this.moves.set(
      domid,
      move.catch(() => {}),
    );
    try {
      await move;
    } finally {
      this.moves.delete(domid);
    }
  }

  private async moveWithBackEnds(domid: number, to: number): Promise<void> {
    try {
      await this.listener.onLeaving(domid);
      await this.transfer(domid, to);
    } finally {
      await this.listener.onSettled(domid);
    }
  }

  private async transfer(domid: number, to: number): Promise<void> {
    const from = this.of(domid);
    let arrived!: () => void;
    const ports = new Set<number>();
    const done = new Promise<void>((resolve) => {
      arrived = resolve;
    });
    this.journeys.set(domid, { done, ports });
    try {
      const traffic = await from.traffic.depart(domid);
      try {
        await this.all[to]!.traffic.arrive(traffic);
      } catch (error) {
        await from.traffic.arrive(traffic);
        throw error;
      }
    } finally {
      this.journeys.delete(domid);
      for (const port of ports) this.sendEvent(domid, port);
      arrived();
    }
  }

  /** Domains wait for a processor: moves those that another one has time for. */
  private async balance(): Promise<void> {
    if (this.balancing || this.over || this.count === 1) return;
    this.balancing = true;
    try {
      const queues = await Promise.all(this.all.map(({ traffic }) => traffic.queue()));
      const views = queues.map(({ virtualTime, runnable }, pcpu) => ({
        virtualTime,
        runnable: runnable.map((entry) => ({ ...entry, pcpus: this.choices(entry.domid, pcpu) })),
      }));
      const { lifts, moves } = planBalance(views, THRESHOLD, MCU);
      for (const [pcpu, time] of lifts.entries())
        if (time > queues[pcpu]!.virtualTime) await this.all[pcpu]!.traffic.lift(time);
      for (const { from, entry, to } of moves)
        await this.tryMove(views[from]!.runnable[entry]!.domid, from, to);
    } catch (error) {
      // That a processor is gone is told elsewhere.
      if (!(error instanceof PcpuError)) throw error;
    } finally {
      this.balancing = false;
    }
  }

  /** Processors that a domain may be on, as far as it can be moved; null: any. */
  private choices(domid: number, pcpu: number): readonly number[] | null {
    const until = this.staying.get(domid);
    if (until !== undefined && until > Date.now()) return [pcpu];
    if (until !== undefined) this.staying.delete(domid);
    return together(this.affinity(domid));
  }

  /** A domain waits until it is on the processor of another one, with which it wants to share something. */
  private async bringTogether(domid: number, other: number): Promise<void> {
    // A guest that asks for one after the other is not carried about without end.
    const wait = (this.seekers.get(domid) ?? 0) + SEEK_INTERVAL - Date.now();
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    for (const [who, whom] of [
      [domid, other],
      [other, domid],
    ] as const) {
      const to = this.common.pcpuOf(whom);
      const allowed = together(this.affinity(who));
      if (to === null || (allowed !== null && !allowed.includes(to))) continue;
      if (this.common.pcpuOf(who) !== to) await this.move(who, to).catch(() => {});
      if (this.common.pcpuOf(who) === to) break;
    }
    this.seekers.set(domid, Date.now());
    await this.ask(domid, 'sought', [domid, other]);
  }

  private async tryMove(domid: number, from: number, to: number): Promise<void> {
    if (this.common.pcpuOf(domid) !== from || this.busy(domid)) return;
    // It may have been pinned since this was planned.
    if (this.choices(domid, from)?.includes(to) === false) return;
    try {
      await this.move(domid, to);
    } catch {
      // It uses what is on this processor only, or is gone.
      this.staying.set(domid, Date.now() + STAYS);
    }
  }

  private of(domid: number): Pcpu {
    return this.all[this.pcpuOf(domid)]!;
  }

  private makeControl(): MachineControl {
    return this.routed<Control>({
      createDomain: (options: CreateOptions) => this.create(options),
      beginRestore: async (saved: SavedDomain, uuid?: string, affinity: Affinity = []) => {
        const allowed = together(affinity);
        const made = await this.leastLoaded(allowed).control.beginRestore(
          saved,
          ...(uuid === undefined ? [] : [uuid]),
        );
        if (allowed !== null) this.affinities.set(made.domid, affinity);
        return made;
      },
      forkDomain: async (domid: number, own: readonly number[]) => {
        const child = (await this.ask(domid, 'forkDomain', [domid, own])) as number;
        const affinity = this.affinities.get(domid);
        if (affinity) this.affinities.set(child, affinity);
        return child;
      },
      destroyDomain: async (domid: number) => {
        await this.ask(domid, 'destroyDomain', [domid]);
        for (const known of [this.affinities, this.staying, this.holds, this.seekers]) known.delete(domid);
      },
      listDomains: () => this.list(),
      allowanceGet: () => this.all[0]!.control.allowanceGet(),
      allowanceSet: async (allowance: number) => {
        await Promise.all(this.all.map(({ control }) => control.allowanceSet(allowance)));
      },
      setMemoryPolicy: async (policy: MemoryPolicy) => {
        await Promise.all(this.all.map(({ control }) => control.setMemoryPolicy(policy)));
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

  private async create({ affinity = [], ...options }: CreateOptions): Promise<number> {
    const domid = await this.leastLoaded(together(affinity)).control.createDomain(options);
    if (together(affinity) !== null) this.affinities.set(domid, affinity);
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
        return (...args: unknown[]) => this.ask(typeof args[0] === 'number' ? args[0] : 0, method, args);
      },
    });
  }
}
