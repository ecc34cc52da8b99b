/** A domain on a machine, from its creation to its end, with the back ends that serve it. */
import { type BuiltDomain, buildDomain, type SharedRing } from '../dom0/builder/build.ts';
import { ConsoleBackend } from '../dom0/console.ts';
import { domainPath } from '../dom0/xenstore/path.ts';
import { Right } from '../dom0/xenstore/permissions.ts';
import { Connection } from '../dom0/xenstore/protocol.ts';
import { XenstoreRing } from '../dom0/xenstore/ring.ts';
import { PAGE_SIZE } from '../machine/memory.ts';
import type { SavedDomain } from '../xen/domain-save.ts';
import { SHUTDOWN } from '../xen/public/sched.ts';
import type { Affinity } from './affinity.ts';
import type { DiskSpec } from './devices/disk-spec.ts';
import type { ShareSpec } from './devices/share-spec.ts';
import { type DomainFacts, removeDomainNodes, writeDomainNodes } from './domain-nodes.ts';
import { Failure } from './failure.ts';
import type { Guest } from './guest.ts';
import type { Machine } from './machine.ts';
import type { ForwardSpec } from './net/net-service.ts';
import type { VifSpec } from './net/vif-spec.ts';
import type { DomainBytes } from './saved/contents.ts';
import type { SavedConnections } from './saved/head.ts';

/** How often, and after how many milliseconds, a domain in the middle of a transaction is asked again. */
const TRANSACTION_TRIES = 100;
const TRANSACTION_WAIT = 20;

/** Nodes below its home that are the guest's, and how many of them are kept for a fork or a file. */
const OWN_NODE = /^(control|feature|attr|data|drivers)(\/[\w@-]{1,200}){1,8}$/;
const OWN_NODES_MAX = 4096;

/** A domain that comes from a file. */
export interface RestoredDomain {
  readonly domain: SavedDomain;
  readonly connections: SavedConnections;
  readonly uuid: string;
  readonly name: string;
}

/** How a domain ended. */
export interface DomainEnd {
  /** SHUTDOWN_* */
  readonly code: number;
  /** For a crash: why, in one line; null if the guest itself reported it and gave no reason. */
  readonly crashReason: string | null;
}

/** What a domain is made with, beside its guest. */
export interface DomainOptions {
  /** Traces its hypercalls. */
  readonly trace?: boolean;
  /** 32 hexadecimal digits, with or without dashes; left out: a random one. */
  readonly uuid?: string;
  /** The most virtual CPUs that it can have (1). */
  readonly vcpus?: number;
  /** How many of them it starts with (all). */
  readonly onlineVcpus?: number;
  /** Where its virtual CPUs may run; left out: anywhere. */
  readonly affinity?: Affinity;
  /** The most frames that it may own; left out: those that the guest starts with. */
  readonly maxPages?: number;
  /** Its disks from the start. */
  readonly disks?: readonly DiskSpec[];
  /** Folders of the host's that it shares. */
  readonly shares?: readonly ShareSpec[];
  /** Its network interfaces from the start. */
  readonly vifs?: readonly VifSpec[];
  /** Ports of the host that lead to it. */
  readonly forwards?: readonly ForwardSpec[];
  /** Is left paused; {@link RunningDomain.unpause} lets it run. */
  readonly paused?: boolean;
}

export interface DomainEvents {
  /** The guest printed on its console. */
  onOutput(bytes: Uint8Array): void;
  /** The guest printed by the emergency console (console_io). */
  onLog(text: string): void;
  /** There is room for input again, after {@link RunningDomain.type} did not take all. */
  onRoom(): void;
}

/** Something in Domain 0 that serves a ring of the guest. True: there may be more to do. */
interface BackEnd {
  process(): boolean;
}

export class RunningDomain {
  readonly id: number;
  readonly uuid: string;
  /** Settles when the domain has shut down; it is not destroyed by that. */
  readonly ended: Promise<DomainEnd>;
  private readonly machine: Machine;
  private readonly events: DomainEvents;
  private console: ConsoleBackend | null = null;
  private xenstore: XenstoreRing | null = null;
  /** Where its rings are, and what was written of it into the store. */
  private built: Pick<BuiltDomain, 'console' | 'xenstore'> | null = null;
  private facts: DomainFacts | null = null;
  /** It is being saved or forked; and paused for that. */
  private standing = false;
  private paused = false;
  /** Lets it go to another processor again. */
  private release: () => void = () => {};
  /** Who serves which port. */
  private readonly backEnds = new Map<number, BackEnd>();
  private end!: (end: DomainEnd) => void;

  private constructor(machine: Machine, id: number, uuid: string, events: DomainEvents) {
    this.machine = machine;
    this.id = id;
    this.uuid = uuid;
    this.events = events;
    this.ended = new Promise((resolve) => {
      this.end = resolve;
    });
    machine.listen(id, {
      onEvent: (port) => this.serve(port),
      onLog: (text) => events.onLog(text),
      onShutdown: (code, crashReason) => {
        this.console?.close();
        machine.xenstore.stopped(id);
        this.end({ code, crashReason });
      },
    });
  }

  /** Creates a domain, builds the guest in it and lets it run. */
  static async start(
    machine: Machine,
    guest: Guest,
    events: DomainEvents,
    options: DomainOptions = {},
  ): Promise<RunningDomain> {
    const { control } = machine;
    const { vcpus = 1, maxPages = guest.pages, uuid: wanted } = options;
    const id = await control.createDomain({
      maxPages,
      vcpus,
      ...(options.affinity === undefined ? {} : { affinity: options.affinity }),
      ...(wanted === undefined ? {} : { uuid: wanted }),
    });
    const { uuid } = await control.getDomainInfo(id);
    const domain = new RunningDomain(machine, id, uuid, events);
    try {
      await domain.build(guest, options);
      if (options.trace) await control.setTrace(id, true);
      if (!options.paused) await domain.unpause();
    } catch (error) {
      await domain.destroy().catch(() => {});
      throw error;
    }
    return domain;
  }

  private async build(guest: Guest, options: DomainOptions): Promise<void> {
    const { machine, id } = this;
    const built = await buildDomain(machine.memory, machine.control, id, guest);
    this.connect(built, new Connection(machine.xenstore, id));
    const { vcpus = 1, onlineVcpus = vcpus, maxPages = guest.pages } = options;
    const facts = {
      domid: id,
      uuid: this.uuid,
      name: guest.name,
      memory: (guest.pages * PAGE_SIZE) / 1024,
      maxMemory: (maxPages * PAGE_SIZE) / 1024,
      vcpus,
      onlineVcpus,
      cmdline: guest.cmdline,
    };
    this.describe(facts, built);
    for (const disk of options.disks ?? []) await machine.disks.attach(id, disk);
    for (const share of options.shares ?? []) await machine.shares.attach(id, share);
    for (const vif of options.vifs ?? []) await machine.networks.attach(id, vif);
    for (const forward of options.forwards ?? []) await machine.networks.forward(id, forward);
    machine.xenstore.introduce(id);
  }

  /** Serves its console and its connection to the store. */
  private connect(built: Pick<BuiltDomain, 'console' | 'xenstore'>, connection: Connection): void {
    const { machine, id } = this;
    const notify = (port: number) => () => machine.sendEvent(id, port);
    this.console = new ConsoleBackend(machine.memory, built.console.address, {
      onOutput: (bytes) => this.events.onOutput(bytes),
      onRoom: () => this.events.onRoom(),
      notify: notify(built.console.port),
    });
    this.backEnds.set(built.console.port, this.console);
    this.xenstore = new XenstoreRing(
      machine.memory,
      built.xenstore.address,
      connection,
      notify(built.xenstore.port),
    );
    this.backEnds.set(built.xenstore.port, this.xenstore);
    // It is paused, so this comes before anything that could move its pages.
    machine.control.keepPages(id, [built.console.mfn, built.xenstore.mfn]).catch(() => {});
  }

  private describe(facts: DomainFacts, built: Pick<BuiltDomain, 'console' | 'xenstore'>): void {
    this.built = built;
    this.facts = facts;
    writeDomainNodes(this.machine.store, facts, built);
  }

  /**
   * Makes a domain that is at this moment what this one is (src/xen/fork.ts), with a console, disks and networks of
   * its own. It is left paused; this one goes on.
   * @throws Failure: the domain has shared folders, or is in the middle of a transaction for too long; DiskError,
   *   NetError; what the control interface throws
   */
  async fork(name: string, events: DomainEvents): Promise<RunningDomain> {
    const { machine, id, built } = this;
    const { control } = machine;
    if (built === null) throw new Failure('the domain is not built yet');
    this.needNoShares('forked');
    await this.stand();
    let child: RunningDomain | null = null;
    try {
      const forked = await control.forkDomain(id, [built.console.mfn, built.xenstore.mfn]);
      const { uuid } = await control.getDomainInfo(forked);
      child = new RunningDomain(machine, forked, uuid, events);
      await child.takeUp(this.connections(), name, async () => {
        await machine.disks.fork(id, forked);
        await machine.networks.fork(id, forked);
      });
      return child;
    } catch (error) {
      await child?.destroy().catch(() => {});
      throw error;
    } finally {
      await this.goOn();
    }
  }

  /**
   * Gives out what it is, and leaves it standing, for {@link goOn} or {@link destroy}.
   * @param write stores it; the domain stands still meanwhile
   * @throws Failure: it has what cannot be saved, or is in the middle of a transaction for too long; what the control
   *   interface and `write` throw. It goes on then.
   */
  async save(
    write: (connections: SavedConnections, domain: SavedDomain, bytes: DomainBytes) => Promise<void>,
  ): Promise<void> {
    const { machine, id } = this;
    if (this.built === null) throw new Failure('the domain is not built yet');
    this.needNoShares('saved');
    const disk = machine.disks.volatileDisk(id);
    if (disk !== null)
      throw new Failure(`disk ${disk} is in memory only: a domain with such a disk cannot be saved`);
    await this.stand();
    try {
      const { saved, places } = await machine.control.saveDomain(id);
      const { frameTable } = await machine.control.getSpace(id);
      await write(this.connections(), saved, { ...machine.memory, places, frameTable });
    } catch (error) {
      await this.goOn();
      throw error;
    }
  }

  /**
   * Makes a domain of a saved one, and leaves it paused.
   * @param fill puts the contents into its memory
   * @throws DiskError, NetError; what the control interface and `fill` throw
   */
  static async restore(
    machine: Machine,
    { domain, connections, uuid, name }: RestoredDomain,
    {
      disks = [],
      vifs = [],
      forwards = [],
      affinity = [],
    }: Pick<DomainOptions, 'disks' | 'vifs' | 'forwards' | 'affinity'>,
    events: DomainEvents,
    fill: (bytes: DomainBytes) => Promise<void>,
  ): Promise<RunningDomain> {
    const { control } = machine;
    const { domid, places } = await control.beginRestore(domain, uuid, affinity);
    const running = new RunningDomain(machine, domid, uuid, events);
    try {
      const { frameTable } = await control.getSpace(domid);
      await fill({ ...machine.memory, places, frameTable });
      await control.finishRestore(domid, domain);
      await running.takeUp(connections, name, async () => {
        const taken = (kind: string, devid: number) =>
          connections.devices.find((each) => each.kind === kind && each.devid === devid)?.nodes ?? null;
        for (const disk of disks) await machine.disks.attach(domid, disk, taken('vbd', disk.devid));
        for (const [index, vif] of vifs.entries()) {
          const devid = vif.devid ?? index;
          await machine.networks.attach(domid, { ...vif, devid }, taken('vif', devid));
        }
        for (const forward of forwards) await machine.networks.forward(domid, forward);
      });
      return running;
    } catch (error) {
      await running.destroy().catch(() => {});
      throw error;
    }
  }

  /** What Domain 0 knows of a domain that stands. */
  private connections(): SavedConnections {
    const { machine, id } = this;
    const { store } = machine;
    const { console, xenstore } = this.built!;
    const { input, output, broken, domids, watches } = this.xenstore!.connection.state();
    const { cmdline, ...facts } = this.facts!;
    const online = (vcpu: number) => store.read(`${domainPath(id)}/cpu/${vcpu}/availability`) === 'online';
    return {
      console: { mfn: console.mfn, port: console.port },
      xenstore: { mfn: xenstore.mfn, port: xenstore.port },
      store: {
        input: hex(input),
        output: hex(output),
        broken,
        domids: [...domids],
        watches: watches.map(([...each]) => each),
      },
      nodes: this.ownNodes(),
      devices: [
        ...machine.disks.list(id).map(({ device }) => device),
        ...machine.networks.list(id).map(({ device }) => device),
      ].flatMap((device) => {
        const nodes = device.frontEndNodes();
        const { kind, devid } = device;
        return nodes === null ? [] : [{ kind, devid, nodes: nodes.map(([...each]) => each) }];
      }),
      memory: Number(store.read(`${domainPath(id)}/memory/target`) ?? facts.memory),
      maxMemory: facts.maxMemory,
      vcpus: facts.vcpus,
      onlineVcpus: Array.from({ length: facts.vcpus }, (_, vcpu) => vcpu).filter(online).length,
      cmdline,
    };
  }

  /** Domain 0's part of a domain that has its memory already: it takes up where those connections were left. */
  private async takeUp(
    connections: SavedConnections,
    name: string,
    attach: () => Promise<void>,
  ): Promise<void> {
    const { machine, id, uuid } = this;
    const { store } = machine;
    const { frameTable } = await machine.control.getSpace(id);
    const ring = ({ mfn, port }: { mfn: number; port: number }): SharedRing => ({
      mfn,
      port,
      address: machine.memory.u32[(frameTable >>> 2) + mfn]! * PAGE_SIZE,
    });
    // The pages are its own, whatever the caller says.
    await machine.control.keepPages(id, [connections.console.mfn, connections.xenstore.mfn]);
    const rings = { console: ring(connections.console), xenstore: ring(connections.xenstore) };
    const { memory, maxMemory, vcpus, onlineVcpus, cmdline } = connections;
    this.describe({ domid: id, uuid, name, memory, maxMemory, vcpus, onlineVcpus, cmdline }, rings);
    const owner = { domid: id, rights: Right.none };
    for (const [path, value] of connections.nodes)
      if (OWN_NODE.test(path)) store.write(`${domainPath(id)}/${path}`, value, [owner]);
    await attach();
    const { input, output, broken, domids, watches } = connections.store;
    const connection = Connection.of(machine.xenstore, id, {
      input: Buffer.from(input, 'hex'),
      output: Buffer.from(output, 'hex'),
      broken,
      domids,
      watches,
    });
    this.connect(rings, connection);
    machine.xenstore.introduce(id);
    this.serve(rings.console.port);
    this.serve(rings.xenstore.port);
  }

  /** @throws Failure */
  private needNoShares(what: string): void {
    if ((this.machine.store.list(`${domainPath(this.id)}/device/9pfs`) ?? []).length > 0)
      throw new Failure(`a domain with shared folders cannot be ${what}`);
  }

  /** Nothing of it moves any more: it is paused, its rings are left as they are, and nothing is under way for it. */
  private async stand(): Promise<void> {
    if (this.standing) throw new Failure('the domain is being saved or forked already');
    this.standing = true;
    try {
      this.release = await this.machine.pcpus.hold(this.id);
      await this.pauseQuiet();
      this.paused = true;
      await this.machine.disks.suspend(this.id);
      await this.machine.networks.suspend(this.id);
    } catch (error) {
      await this.goOn();
      throw error;
    }
  }

  /** Goes on after {@link save}. */
  async goOn(): Promise<void> {
    if (!this.standing) return;
    await this.machine.disks.resume(this.id);
    await this.machine.networks.resume(this.id);
    this.freeze(false);
    if (this.paused) await this.unpause();
    this.paused = false;
    this.release();
    this.standing = false;
  }

  /** What the guest said of itself when it started: it will not say it again. */
  private ownNodes(): [path: string, value: string][] {
    const { store } = this.machine;
    const nodes: [string, string][] = [];
    const visit = (path: string) => {
      for (const name of store.list(`${domainPath(this.id)}/${path}`) ?? []) {
        const value = store.read(`${domainPath(this.id)}/${path}/${name}`);
        if (value && nodes.length < OWN_NODES_MAX) nodes.push([`${path}/${name}`, value]);
        visit(`${path}/${name}`);
      }
    };
    for (const place of ['control', 'feature', 'attr', 'data', 'drivers']) visit(place);
    return nodes;
  }

  private freeze(frozen: boolean): void {
    this.console?.freeze(frozen);
    this.xenstore?.freeze(frozen);
  }

  /** Pauses it at a moment at which the store has no transaction of its open. */
  private async pauseQuiet(): Promise<void> {
    const { control } = this.machine;
    for (let attempt = 0; ; attempt++) {
      await control.pauseDomain(this.id);
      this.console?.process();
      this.xenstore?.process();
      if (this.xenstore?.connection.transactions.size === 0) {
        this.freeze(true);
        return;
      }
      await this.unpause();
      if (attempt === TRANSACTION_TRIES) throw new Failure('the domain has a transaction open for too long');
      await new Promise((resolve) => setTimeout(resolve, TRANSACTION_WAIT));
    }
  }

  /** Takes one reason away for which it does not run. */
  async unpause(): Promise<void> {
    await this.machine.control.unpauseDomain(this.id);
  }

  /** Types on its console. @returns how many bytes were taken; if not all, onRoom tells when to go on */
  type(bytes: Uint8Array): number {
    return this.console?.write(bytes) ?? 0;
  }

  /** Bytes typed that the guest has not taken yet. */
  get pendingInput(): number {
    return this.console?.pendingInput ?? 0;
  }

  /** Whoever shows its output cannot keep up, or can again. */
  holdOutput(hold: boolean): void {
    if (hold) this.console?.pause();
    else this.console?.resume();
  }

  /** The domain's state as text, for a person: registers, stack, last transfers. */
  crashDump(): Promise<string> {
    return this.machine.control.crashDump(this.id);
  }

  /** Ends it, whatever it is doing, and gives its memory back. */
  async destroy(): Promise<void> {
    const { machine, id } = this;
    this.console?.close();
    this.xenstore?.close();
    this.backEnds.clear();
    machine.listen(id, null);
    this.end({ code: SHUTDOWN.poweroff, crashReason: null });
    await machine.control.destroyDomain(id);
    await machine.disks.removeAll(id);
    await machine.shares.removeAll(id);
    await machine.networks.removeAll(id);
    machine.xenstore.release(id);
    removeDomainNodes(machine.store, id, this.uuid);
  }

  private serve(port: number): void {
    // A guest that fills its rings without end must not keep this thread from its other work.
    if (this.backEnds.get(port)?.process()) setImmediate(() => this.serve(port));
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
