/** A domain of the toolstack's: what it is made of, what it is called, its console, and what became of it. */
import { Symbols } from '../../dom0/builder/symbols.ts';
import { domainPath } from '../../dom0/xenstore/path.ts';
import type { SavedDomain } from '../../xen/domain-save.ts';
import type { DomainInfo as ControlInfo } from '../../xen/domctl.ts';
import { parseAffinity } from '../affinity.ts';
import { vifText, withAbsoluteFiles } from '../config/device-text.ts';
import { parseDiskSpec } from '../devices/disk-spec.ts';
import { parseShareSpec } from '../devices/share-spec.ts';
import type { Guest } from '../guest.ts';
import type { Machine } from '../machine.ts';
import { parseForward } from '../net/forward-spec.ts';
import { forkBridge } from '../net/net-service.ts';
import { parseVifSpec } from '../net/vif-spec.ts';
import { type DomainEnd, type DomainEvents, type DomainOptions, RunningDomain } from '../running-domain.ts';
import { readContents, writeContents } from '../saved/contents.ts';
import { type RecordReader, RecordWriter } from '../saved/format.ts';
import { headRecord, type SavedHead } from '../saved/head.ts';
import { ConsoleHub } from './console-hub.ts';
import { replaceFile } from './core-dump.ts';
import type { MessageLog } from './message-log.ts';
import type { Action, DomainConfig, DomainInfo, ShutdownReason } from './model.ts';
import { SHUTDOWN_REASONS } from './names.ts';

/** Milliseconds between two domains that take each other's place, when they end as soon as they start. */
const LEAST_LIFE = 1000;
/** A life shorter than this is a short one, ms; so many of them after each other, and there is no further one. */
const SHORT_LIFE = 10_000;
const SHORT_LIVES = 5;

/** What is known of the guest in a domain. A kernel of which no file is at hand is null. */
interface GuestFacts {
  readonly usesEmergencyConsole: boolean;
  readonly kernel: Guest['kernel'] | null;
}

export class ManagedDomain {
  readonly running: RunningDomain;
  readonly console: ConsoleHub;
  /** What it was made of; its name is what it is called now. */
  config: DomainConfig;
  /** What it will be made of when it is made again, if that is something else. */
  next: DomainConfig | null = null;
  /** ms since the epoch. */
  readonly started = Date.now();
  /** It is being destroyed. */
  dying = false;
  /** Short lives before this one, without a longer one in between. */
  shortLives = 0;
  private readonly machine: Machine;
  private readonly guest: GuestFacts;
  /** Work that needs its memory to stay: it is not destroyed before that has ended. */
  private readonly using = new Set<Promise<unknown>>();

  private constructor(
    machine: Machine,
    config: DomainConfig,
    guest: GuestFacts,
    running: RunningDomain,
    hub: ConsoleHub,
  ) {
    this.machine = machine;
    this.config = config;
    this.guest = guest;
    this.running = running;
    this.console = hub;
  }

  /** Builds a domain, and leaves it paused. */
  static async build(
    machine: Machine,
    config: DomainConfig,
    guest: Guest,
    log: MessageLog,
  ): Promise<ManagedDomain> {
    const hub = new ConsoleHub();
    const { events, named } = eventsOf(guest, hub, log);
    const running = await RunningDomain.start(machine, guest, events, {
      ...(config.uuid === null ? {} : { uuid: config.uuid }),
      vcpus: config.maxVcpus,
      onlineVcpus: config.vcpus,
      maxPages: config.maxMemory / 4,
      affinity: parseAffinity(config.cpus, config.maxVcpus, machine.pcpus.count),
      ...devicesOf(config),
      paused: true,
    });
    named(running.id);
    hub.connect(running);
    machine.store.write(`/vm/${running.uuid}/start_time`, (Date.now() / 1000).toFixed(2));
    // Interfaces that were given an address keep it when the domain restarts.
    const given = machine.networks.list(running.id);
    const vifs = config.vifs.map((text, index) => vifText(text, given[index]!.description.mac));
    return new ManagedDomain(machine, { ...config, vifs }, guest, running, hub);
  }

  /** Makes a domain that is what this one is at this moment, under another name, and leaves it paused. */
  async fork(name: string, log: MessageLog): Promise<ManagedDomain> {
    const { machine, guest } = this;
    const hub = new ConsoleHub();
    const { events, named } = eventsOf(guest, hub, log);
    const running = await this.running.fork(name, events);
    named(running.id);
    hub.connect(running);
    machine.store.write(`/vm/${running.uuid}/start_time`, (Date.now() / 1000).toFixed(2));
    const vifs = this.config.vifs.map((text) =>
      onBridge(text, forkBridge(parseVifSpec(text).bridge, running.id)),
    );
    const config = { ...this.config, name, uuid: null, vifs, forwards: [] };
    return new ManagedDomain(machine, config, guest, running, hub);
  }

  /**
   * Writes it into a file (saved/format.ts), and leaves it standing, for {@link goOn} or {@link destroy}.
   * @param config what it is made of when it is restored; null: what it is made of now
   * @throws ToolstackError failed: the file cannot be written; and what RunningDomain.save throws. It goes on then.
   */
  async save(path: string, config: DomainConfig | null, version: string): Promise<void> {
    try {
      await replaceFile(path, async (file) => {
        const writer = new RecordWriter(file);
        await writer.begin();
        await this.running.save(async (connections, domain, bytes) => {
          const { kind, bytes: head } = headRecord({
            xenolith: version,
            saved: new Date().toISOString(),
            config: { ...(config ?? this.config), name: config?.name ?? this.name },
            uuid: this.running.uuid,
            usesEmergencyConsole: this.guest.usesEmergencyConsole,
            connections,
            domain: domain as SavedHead['domain'],
          });
          await writer.add(kind, head);
          await writeContents(writer, domain, bytes);
          await writer.end();
        });
      });
    } catch (error) {
      await this.running.goOn();
      throw error;
    }
  }

  /** Goes on after {@link save}. @param paused stays paused */
  async goOn(paused: boolean): Promise<void> {
    if (paused) await this.machine.control.pauseDomain(this.id);
    await this.running.goOn();
  }

  /** Makes a domain of a saved one, and leaves it paused. @throws ToolstackError invalid; what RunningDomain throws */
  static async restore(
    machine: Machine,
    config: DomainConfig,
    head: SavedHead,
    reader: RecordReader,
    log: MessageLog,
  ): Promise<ManagedDomain> {
    const hub = new ConsoleHub();
    const guest: GuestFacts = { usesEmergencyConsole: head.usesEmergencyConsole, kernel: null };
    const { events, named } = eventsOf(guest, hub, log);
    const { connections, uuid } = head;
    const domain = head.domain as SavedDomain;
    const affinity = parseAffinity(config.cpus, config.maxVcpus, machine.pcpus.count);
    const running = await RunningDomain.restore(
      machine,
      { domain, connections, uuid, name: config.name },
      { ...devicesOf(config), affinity },
      events,
      (bytes) => readContents(reader, domain, bytes),
    );
    named(running.id);
    hub.connect(running);
    machine.store.write(`/vm/${running.uuid}/start_time`, (Date.now() / 1000).toFixed(2));
    return new ManagedDomain(machine, config, guest, running, hub);
  }

  get id(): number {
    return this.running.id;
  }

  get name(): string {
    return this.config.name;
  }

  /** What is to be done when it has ended so. */
  action(reason: ShutdownReason): Action {
    switch (reason) {
      case 'poweroff':
        return this.config.onPoweroff;
      case 'reboot':
        return this.config.onReboot;
      case 'crash':
        return this.config.onCrash;
      case 'watchdog':
        return this.config.onWatchdog;
      case 'suspend':
        return 'preserve';
      case 'soft_reset':
        return 'destroy';
    }
  }

  /** How long to wait until another one takes its place: a guest that dies at once must not take all our time. */
  get restartDelay(): number {
    return Math.max(0, LEAST_LIFE - (Date.now() - this.started));
  }

  /** It was a short life. */
  get short(): boolean {
    return Date.now() - this.started < SHORT_LIFE;
  }

  /** It ended as soon as it started, again and again: another one would do the same. */
  get hopeless(): boolean {
    return this.short && this.shortLives + 1 >= SHORT_LIVES;
  }

  rename(name: string): void {
    const { store } = this.machine;
    this.config = { ...this.config, name };
    store.write(`${domainPath(this.id)}/name`, name);
    store.write(`/vm/${this.running.uuid}/name`, name);
  }

  /** Writes to one of its control nodes, which the guest watches (xenstore-paths, ~/control). */
  control(node: 'shutdown' | 'sysrq', value: string): void {
    this.machine.store.write(`${domainPath(this.id)}/control/${node}`, value);
  }

  /** Writes to another node of its home. */
  writeNode(path: string, value: string): void {
    this.machine.store.write(`${domainPath(this.id)}/${path}`, value);
  }

  readNode(path: string): string | null {
    return this.machine.store.read(`${domainPath(this.id)}/${path}`);
  }

  /** What the hypervisor says of it, with what we know. */
  info(control: ControlInfo): DomainInfo {
    return {
      domid: this.id,
      name: this.name,
      uuid: control.uuid,
      memory: control.totalPages * 4,
      maxMemory: control.maxPages * 4,
      vcpus: control.onlineVcpus,
      maxVcpus: control.vcpus,
      running: control.running && control.shutdown === null && !control.paused,
      blocked: control.blocked && control.shutdown === null,
      paused: control.paused,
      dying: control.dying || this.dying,
      shutdown: control.shutdown === null ? null : shutdownReason(control.shutdown),
      crashReason: control.crashReason,
      cpuTime: control.cpuTimeNs / 1e9,
      uptime: (Date.now() - this.started) / 1000,
      disks: this.config.disks.length,
      vifs: this.config.vifs.length,
    };
  }

  /** Why it crashed, and its state then, for the log. */
  async crashText(end: DomainEnd): Promise<string> {
    const why = end.crashReason ?? 'the guest itself reported it (a kernel panic)';
    const dump = await this.running.crashDump();
    const { kernel } = this.guest;
    const symbols = kernel && Symbols.ofKernel(kernel.elf);
    return `Domain ${this.id} (${this.name}) crashed: ${why}\n${(symbols?.annotate(dump) ?? dump).trimEnd()}`;
  }

  /** Does something for which the domain must stay. */
  async use<T>(work: () => Promise<T>): Promise<T> {
    const done = work();
    const marker = done.catch(() => {});
    this.using.add(marker);
    try {
      return await done;
    } finally {
      this.using.delete(marker);
    }
  }

  async destroy(): Promise<void> {
    this.dying = true;
    await Promise.all(this.using);
    try {
      await this.running.destroy();
    } finally {
      this.console.end();
    }
  }
}

/** An interface's configuration, on another bridge. */
function onBridge(text: string, bridge: string): string {
  const others = text.split(',').filter((part) => !/^\s*bridge\s*=/.test(part) && part.trim() !== '');
  return [...others, `bridge=${bridge}`].join(',');
}

/** Where what a domain prints goes. `named` tells the number that it got. */
function eventsOf(
  guest: GuestFacts,
  hub: ConsoleHub,
  log: MessageLog,
): { events: DomainEvents; named: (domid: number) => void } {
  let origin = 'd?';
  const events: DomainEvents = {
    onOutput: (bytes) => hub.output(bytes),
    onLog: (text) => {
      log.text(origin, text);
      if (guest.usesEmergencyConsole) hub.output(new TextEncoder().encode(text.replaceAll(/\r?\n/g, '\r\n')));
    },
    onRoom: () => hub.room(),
  };
  return {
    events,
    named: (domid) => {
      origin = `d${domid}`;
    },
  };
}

/** Its devices. @throws DiskError, ShareError, VifSpecError, ForwardSpecError */
function devicesOf(config: DomainConfig): Pick<DomainOptions, 'disks' | 'shares' | 'vifs' | 'forwards'> {
  return {
    disks: config.disks.map((text) => withAbsoluteFiles(parseDiskSpec(text), '/')),
    shares: config.p9.map(parseShareSpec),
    vifs: config.vifs.map(parseVifSpec),
    forwards: config.forwards.map(parseForward),
  };
}

/** @param code SHUTDOWN_* */
export function shutdownReason(code: number): ShutdownReason {
  return SHUTDOWN_REASONS[code] ?? 'crash';
}
