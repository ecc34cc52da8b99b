/**
 * The toolstack itself: owns a machine and its domains, in this process.
 *
 * When a domain shuts down, what its configuration says is done with it (on_poweroff and the like). A name belongs to
 * one domain from the moment that it is asked for; what is done to one domain is done one after the other. What is
 * done to a domain's devices is in domain-devices.ts, to its CPUs and memory in domain-resources.ts.
 */
import { totalmem } from 'node:os';
import type { Xenstore } from '../../dom0/xenstore/xenstore.ts';
import { DEFAULT_PARAMETERS } from '../../xen/bvt.ts';
import type { MemoryPolicy } from '../../xen/domctl.ts';
import type { ImageOptions } from '../images/index.ts';
import { Machine, maxDomainMemory, type StartPcpu } from '../machine.ts';
import type { DomainEnd } from '../running-domain.ts';
import { RecordReader } from '../saved/format.ts';
import { readHead } from '../saved/head.ts';
import { dumpCore } from './core-dump.ts';
import * as devices from './domain-devices.ts';
import * as resources from './domain-resources.ts';
import { ToolstackError } from './errors.ts';
import { GuestLoader } from './guest-loader.ts';
import { DOMAIN_0_NAME, domain0Info, hostInfo } from './host-info.ts';
import { asked } from './machine-errors.ts';
import { ManagedDomain, shutdownReason } from './managed-domain.ts';
import { MessageLog } from './message-log.ts';
import type {
  DiskInfo,
  DomainConfig,
  DomainEvent,
  DomainInfo,
  DomainScheduling,
  HostInfo,
  SchedulerParameters,
  Trigger,
  VcpuInfo,
  VifInfo,
} from './model.ts';
import { NAME_PATTERN } from './names.ts';
import {
  type ConsoleConnection,
  type ConsoleViewer,
  DOMAIN_0,
  type Replay,
  type RestoreOptions,
  type SaveOptions,
  type Toolstack,
} from './toolstack.ts';

export interface LocalOptions {
  readonly startPcpu: StartPcpu;
  readonly images: ImageOptions;
  /** Of Xenolith, for {@link Toolstack.host}. */
  readonly version: string;
  /** Memory of the machine for its domains, KiB; left out: as much as the host has, up to what a machine can have. */
  readonly memory?: number;
  /** How many processors the machine has (1). */
  readonly pcpus?: number;
  /** How it deals with its memory (equal pages are shared, no more is given than there is). */
  readonly memoryPolicy?: MemoryPolicy;
  /** Where core dumps go that a domain's configuration asks for. */
  readonly dumpFolder: string;
  /** Takes what is worth a line in the daemon's log. */
  readonly say: (line: string) => void;
}

/** The weight that means the scheduler's default. */
const DEFAULT_WEIGHT = 256;

export class LocalToolstack implements Toolstack {
  /** Fails when the machine's processor dies. */
  readonly dead: Promise<never>;
  private readonly machine: Machine;
  private readonly options: LocalOptions;
  private readonly loader: GuestLoader;
  private readonly messages = new MessageLog();
  private readonly domains = new Map<number, ManagedDomain>();
  /** Names that are taken, by domains and by those that are being made. */
  private readonly names = new Set([DOMAIN_0_NAME]);
  private readonly listeners = new Set<(event: DomainEvent) => void>();
  private readonly started = Date.now();
  private stopped = false;

  private constructor(machine: Machine, options: LocalOptions) {
    this.machine = machine;
    this.options = options;
    this.dead = machine.dead;
    this.loader = new GuestLoader(options.images);
  }

  /** Switches a machine on. */
  static async start(options: LocalOptions): Promise<LocalToolstack> {
    const { pcpus = 1 } = options;
    const memory = options.memory ?? Math.min(maxDomainMemory(pcpus), totalmem() >>> 10);
    const machine = await Machine.start(memory, options.startPcpu, options.say, pcpus);
    if (options.memoryPolicy) await machine.control.setMemoryPolicy(options.memoryPolicy);
    const toolstack = new LocalToolstack(machine, options);
    machine.disks.report = (line) => toolstack.note(line);
    toolstack.note(`Xenolith ${options.version}, ${machine.frames.total >> 8} MiB of machine memory`);
    return toolstack;
  }

  /** Tells of everything that happens to domains. @returns ends that */
  listen(listener: (event: DomainEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** The store that its domains share. */
  get xenstore(): Xenstore {
    return this.machine.xenstore;
  }

  /** Names of the domains that there are, without Domain 0. */
  get domainNames(): string[] {
    return [...this.domains.values()].map(({ name }) => name);
  }

  /** Switches the machine off, with all domains. */
  async stop(): Promise<void> {
    this.stopped = true;
    for (const domain of [...this.domains.values()]) await this.remove(domain).catch(() => {});
    await this.machine.powerOff();
  }

  // --- The machine ---

  async host(): Promise<HostInfo> {
    const info = await asked(() => this.machine.control.machineInfo());
    return hostInfo(this.machine, info, this.options.version, this.started);
  }

  async log(clear = false): Promise<string> {
    const text = this.messages.read();
    if (clear) this.messages.clear();
    return text;
  }

  // --- Domains ---

  async list(): Promise<DomainInfo[]> {
    const [infos, machine] = await asked(() =>
      Promise.all([this.machine.control.listDomains(), this.machine.control.machineInfo()]),
    );
    const guests = infos.reduce((sum, { totalPages }) => sum + totalPages, 0);
    const taken = machine.totalPages - machine.freePages - machine.promisedPages;
    const list = [domain0Info(taken - (guests - machine.savedPages), this.started)];
    for (const info of infos) {
      const domain = this.domains.get(info.domid);
      if (domain) list.push(domain.info(info));
    }
    return list.sort((a, b) => a.domid - b.domid);
  }

  async domain(domid: number): Promise<DomainInfo> {
    const found = (await this.list()).find((each) => each.domid === domid);
    if (!found) throw noDomain(domid);
    return found;
  }

  async create(config: DomainConfig, paused = false): Promise<DomainInfo> {
    const domain = await this.make(config);
    if (!paused) await asked(() => domain.running.unpause());
    return this.domain(domain.id);
  }

  async fork(domid: number, count = 1, paused = false): Promise<DomainInfo[]> {
    const parent = this.need(domid);
    const forks: ManagedDomain[] = [];
    for (let made = 0; made < count; made++) {
      let number = 1;
      while (this.names.has(`${parent.name}-${number}`)) number++;
      const name = `${parent.name}-${number}`;
      this.takeName(name);
      try {
        if (this.stopped || parent.dying)
          throw new ToolstackError('not-found', 'the domain is being destroyed');
        const fork = await asked(() => parent.use(() => parent.fork(name, this.messages)));
        this.enter(fork, `forked from domain ${domid} (${parent.name})`);
        forks.push(fork);
      } catch (error) {
        this.names.delete(name);
        throw error;
      }
    }
    if (!paused) for (const { running } of forks) await asked(() => running.unpause());
    const numbers = new Set(forks.map(({ id }) => id));
    return (await this.list()).filter((info) => numbers.has(info.domid));
  }

  async save(domid: number, path: string, options: SaveOptions = {}): Promise<void> {
    const domain = this.need(domid);
    const { after = 'destroy', config = null } = options;
    await asked(() => domain.use(() => domain.save(path, config, this.options.version)));
    this.note(`Domain ${domid} (${domain.name}) saved to ${path}`);
    if (after === 'destroy') await this.remove(domain);
    else await asked(() => domain.goOn(after === 'pause'));
  }

  async restore(
    path: string,
    { paused = false, config: given = null }: RestoreOptions = {},
  ): Promise<DomainInfo> {
    const reader = await RecordReader.open(path);
    try {
      const head = await readHead(reader);
      const config = { ...(given ?? head.config), uuid: head.uuid };
      this.takeName(config.name);
      try {
        if (this.stopped) throw new ToolstackError('failed', 'the machine is being switched off');
        this.checkUuid(config);
        const pages = head.domain.pages.reduce((sum, [, count]) => sum + count, 0);
        await this.checkRoom({ ...config, memory: pages * 4 });
        const domain = await asked(() =>
          ManagedDomain.restore(this.machine, config, head, reader, this.messages),
        );
        this.enter(domain, `restored from ${path}`);
        if (!paused) await asked(() => domain.running.unpause());
        return await this.domain(domain.id);
      } catch (error) {
        if (![...this.domains.values()].some(({ name }) => name === config.name))
          this.names.delete(config.name);
        throw error;
      }
    } finally {
      await reader.close();
    }
  }

  async destroy(domid: number): Promise<void> {
    await this.remove(this.need(domid));
  }

  async shutdown(domid: number, how: 'poweroff' | 'reboot' = 'poweroff'): Promise<void> {
    const domain = this.need(domid);
    const info = await this.domain(domid);
    if (info.shutdown !== null) throw new ToolstackError('busy', `domain ${domid} has shut down already`);
    domain.control('shutdown', how);
  }

  async pause(domid: number): Promise<void> {
    this.need(domid);
    if (!(await this.domain(domid)).paused) await asked(() => this.machine.control.pauseDomain(domid));
  }

  async unpause(domid: number): Promise<void> {
    this.need(domid);
    if ((await this.domain(domid)).paused) await asked(() => this.machine.control.unpauseDomain(domid));
  }

  async rename(domid: number, name: string): Promise<void> {
    const domain = this.need(domid);
    if (domain.name === name) return;
    if (!new RegExp(NAME_PATTERN).test(name)) {
      throw new ToolstackError('invalid', `${JSON.stringify(name)} cannot be a domain's name`);
    }
    this.takeName(name);
    this.names.delete(domain.name);
    domain.rename(name);
    this.happened(domain, 'renamed', null);
  }

  async configuration(domid: number): Promise<DomainConfig> {
    return this.need(domid).config;
  }

  async setConfiguration(domid: number, config: DomainConfig): Promise<void> {
    const domain = this.need(domid);
    domain.next = config;
  }

  async wait(domid: number, until: 'shutdown' | 'death', signal?: AbortSignal): Promise<DomainEvent> {
    const domain = this.domains.get(domid);
    const gone = (name: string): DomainEvent => ({ kind: 'destroyed', domid, name, reason: null });
    if (!domain) return gone('');
    const { shutdown } = await this.domain(domid).catch(() => ({ shutdown: null }));
    if (this.domains.get(domid) !== domain) return gone(domain.name);
    if (shutdown !== null && until === 'shutdown') {
      return { kind: 'shutdown', domid, name: domain.name, reason: shutdown };
    }
    return new Promise((resolve, reject) => {
      const give = () => {
        stop();
        reject(new ToolstackError('failed', 'nobody waits any more'));
      };
      signal?.addEventListener('abort', give, { once: true });
      const stop = this.listen((event) => {
        if (event.domid !== domid) return;
        if (event.kind !== 'destroyed' && !(event.kind === 'shutdown' && until === 'shutdown')) return;
        stop();
        signal?.removeEventListener('abort', give);
        resolve(event);
      });
    });
  }

  // --- CPU and memory ---

  async vcpus(domid: number): Promise<VcpuInfo[]> {
    this.need(domid);
    const vcpus = await asked(() => this.machine.control.listVcpus(domid));
    return resources.vcpuInfos(this.machine, await this.domain(domid), vcpus);
  }

  async setVcpus(domid: number, count: number): Promise<void> {
    const domain = this.need(domid);
    const { maxVcpus } = await this.domain(domid);
    resources.setVcpus(domain, maxVcpus, count);
  }

  async setAffinity(domid: number, vcpu: number | null, cpus: string): Promise<void> {
    const domain = this.need(domid);
    const { maxVcpus } = await this.domain(domid);
    await resources.setAffinity(this.machine, domain, maxVcpus, vcpu, cpus);
  }

  async setMemory(domid: number, kib: number): Promise<void> {
    await resources.setMemory(this.machine, this.need(domid), kib);
  }

  async setMaxMemory(domid: number, kib: number): Promise<void> {
    await resources.setMaxMemory(this.machine, this.need(domid), kib);
  }

  async scheduler(): Promise<SchedulerParameters> {
    return { contextSwitchAllowance: Math.round((await this.machine.control.allowanceGet()) / 1000) };
  }

  async setScheduler({ contextSwitchAllowance }: SchedulerParameters): Promise<void> {
    await asked(() => this.machine.control.allowanceSet(contextSwitchAllowance * 1000));
  }

  async domainScheduling(domid: number): Promise<DomainScheduling> {
    this.need(domid);
    return resources.schedulingOf(this.machine, domid);
  }

  async setDomainScheduling(domid: number, parameters: Partial<DomainScheduling>): Promise<void> {
    this.need(domid);
    await resources.setScheduling(this.machine, domid, parameters);
  }

  // --- Devices ---

  disks(domid: number): Promise<DiskInfo[]> {
    return asked(async () => devices.disksOf(this.machine, this.need(domid)));
  }

  async attachDisk(domid: number, spec: string): Promise<void> {
    const domain = this.need(domid);
    return asked(() => domain.use(() => devices.attachDisk(this.machine, domain, spec)));
  }

  async detachDisk(domid: number, vdev: string, force = false): Promise<void> {
    const domain = this.need(domid);
    return asked(() => domain.use(() => devices.detachDisk(this.machine, domain, vdev, force)));
  }

  vifs(domid: number): Promise<VifInfo[]> {
    return asked(() => devices.vifsOf(this.machine, this.need(domid)));
  }

  async attachVif(domid: number, spec: string): Promise<void> {
    const domain = this.need(domid);
    return asked(() => domain.use(() => devices.attachVif(this.machine, domain, spec)));
  }

  async detachVif(domid: number, devid: number, force = false): Promise<void> {
    const domain = this.need(domid);
    return asked(() => domain.use(() => devices.detachVif(this.machine, domain, devid, force)));
  }

  // --- Into the guest ---

  async sysrq(domid: number, letter: string): Promise<void> {
    const domain = this.need(domid);
    if (!/^[\x21-\x7e]$/.test(letter)) throw new ToolstackError('invalid', 'a SysRq is one character');
    domain.control('sysrq', letter);
  }

  async trigger(domid: number, trigger: Trigger, vcpu = 0): Promise<void> {
    this.need(domid);
    switch (trigger) {
      case 'nmi':
        await asked(() => this.machine.control.sendTrigger(domid, 'nmi', vcpu));
        return;
      case 'power':
        return this.shutdown(domid, 'poweroff');
      case 'reset':
        return this.shutdown(domid, 'reboot');
      default:
        throw new ToolstackError('unsupported', `a paravirtual domain knows no ${trigger}`);
    }
  }

  async dumpCore(domid: number, path: string): Promise<void> {
    const domain = this.need(domid);
    await asked(() => domain.use(() => dumpCore(this.machine, domid, path)));
  }

  async console(domid: number, viewer: ConsoleViewer, replay: Replay = 'unread'): Promise<ConsoleConnection> {
    return this.need(domid).console.attach(viewer, replay);
  }

  // --- How domains come and go ---

  private async make(config: DomainConfig): Promise<ManagedDomain> {
    this.takeName(config.name);
    try {
      if (this.stopped) throw new ToolstackError('failed', 'the machine is being switched off');
      resources.checkCpus(this.machine, config);
      this.checkUuid(config);
      await this.checkRoom(config);
      const guest = await asked(() => this.loader.load(config));
      const domain = await asked(() => ManagedDomain.build(this.machine, config, guest, this.messages));
      const mcuAdvance = (DEFAULT_PARAMETERS.mcuAdvance * DEFAULT_WEIGHT) / config.weight;
      if (config.weight !== DEFAULT_WEIGHT) {
        await asked(() => this.machine.control.schedulerSet(domain.id, { mcuAdvance })).catch(
          async (error) => {
            await domain.destroy();
            throw error;
          },
        );
      }
      this.enter(domain, 'created');
      return domain;
    } catch (error) {
      this.names.delete(config.name);
      throw error;
    }
  }

  /** A domain is there: its end will be seen to. */
  private enter(domain: ManagedDomain, how: string): void {
    this.domains.set(domain.id, domain);
    this.note(`Domain ${domain.id} (${domain.name}) ${how}`);
    void domain.running.ended
      .then((end) => this.ended(domain, end))
      .catch((error) => this.failed(domain, error));
    this.happened(domain, 'created', null);
  }

  private checkUuid({ uuid, name }: DomainConfig): void {
    const digits = (text: string) => text.replaceAll('-', '').toLowerCase();
    const other = [...this.domains.values()].find(
      ({ running }) => uuid !== null && digits(running.uuid) === digits(uuid),
    );
    if (other)
      throw new ToolstackError('exists', `${name}: domain ${other.id} (${other.name}) has this UUID`);
  }

  private async checkRoom({ name, memory }: DomainConfig): Promise<void> {
    const { freeMemory } = await this.host();
    if (memory > freeMemory) {
      const say = (kib: number) => `${kib >> 10} MiB`;
      throw new ToolstackError('no-memory', `${name}: needs ${say(memory)}, and ${say(freeMemory)} are free`);
    }
  }

  /** A domain has shut down: what its configuration says is done. */
  private async ended(domain: ManagedDomain, end: DomainEnd): Promise<void> {
    this.messages.close(`d${domain.id}`);
    if (domain.dying) return;
    const { config } = domain;
    const reason = shutdownReason(end.code);
    const action = domain.action(reason);
    if (reason === 'crash') this.messages.text('XEN', `${await domain.crashText(end)}\n`);
    this.note(`Domain ${domain.id} (${domain.name}) shut down: ${reason}; ${action}`);
    this.happened(domain, 'shutdown', reason);
    domain.console.end();
    if (action === 'coredump-destroy' || action === 'coredump-restart') await this.dumpOf(domain);
    if (domain.dying) return;
    const restarts = action.endsWith('restart');
    const { hopeless } = domain;
    if (restarts && hopeless)
      this.note(`Domain ${domain.id} (${domain.name}) ended at once too often: it is not restarted`);
    if (action === 'preserve') return;
    if (action !== 'rename-restart') await this.remove(domain);
    else if (!hopeless) await this.keepAside(domain);
    if (restarts && !hopeless && !this.stopped) await this.again(domain, config);
  }

  /** @param config the one that ended had, under its own name */
  private async again(domain: ManagedDomain, config: DomainConfig): Promise<void> {
    const { restartDelay, short } = domain;
    if (restartDelay > 0) await new Promise((resolve) => setTimeout(resolve, restartDelay));
    if (this.stopped) return;
    // It goes on under the name that it had; `rename` is how that changes.
    const again = { ...(domain.next ?? config), name: config.name };
    // Two domains cannot have one UUID: one that stays keeps it.
    const next = await this.make(domain.dying ? again : { ...again, uuid: null });
    next.shortLives = short ? domain.shortLives + 1 : 0;
    await asked(() => next.running.unpause());
  }

  /** A domain that ended stays under another name, so that a new one can have its name. */
  private async keepAside(domain: ManagedDomain): Promise<void> {
    const { config } = domain;
    const stamp = new Date().toISOString().replace(/^(\d+)-(\d\d)-(\d\d)T(\d\d):(\d\d).*/, '$1$2$3T$4$5Z');
    let name = `${config.name}-${stamp}`;
    for (let count = 2; this.names.has(name); count++) name = `${config.name}-${stamp}-${count}`;
    await this.rename(domain.id, name);
    // Its devices are the new one's; what it did not write is not to be had any more.
    await this.machine.disks.removeAll(domain.id);
    await this.machine.shares.removeAll(domain.id);
    await this.machine.networks.removeAll(domain.id);
  }

  private async dumpOf(domain: ManagedDomain): Promise<void> {
    const path = `${this.options.dumpFolder}/${domain.name}`;
    try {
      await domain.use(() => dumpCore(this.machine, domain.id, path));
      this.note(`Domain ${domain.id} (${domain.name}): core dumped to ${path}`);
    } catch (error) {
      this.note(`Domain ${domain.id} (${domain.name}): no core dump: ${(error as Error).message}`);
    }
  }

  private async remove(domain: ManagedDomain): Promise<void> {
    if (domain.dying) return;
    await asked(() => domain.destroy());
    this.domains.delete(domain.id);
    this.names.delete(domain.name);
    this.note(`Domain ${domain.id} (${domain.name}) destroyed`);
    this.happened(domain, 'destroyed', null);
  }

  private failed(domain: ManagedDomain, error: unknown): void {
    this.note(`Domain ${domain.id} (${domain.name}): ${(error as Error).message}`);
  }

  // --- Small things ---

  private need(domid: number): ManagedDomain {
    if (domid === DOMAIN_0) throw new ToolstackError('invalid', 'that cannot be done to Domain 0');
    const domain = this.domains.get(domid);
    if (!domain) throw noDomain(domid);
    return domain;
  }

  private takeName(name: string): void {
    if (this.names.has(name)) {
      throw new ToolstackError('exists', `Domain with name "${name}" already exists.`);
    }
    this.names.add(name);
  }

  private note(text: string): void {
    this.messages.line('XEN', text);
    this.options.say(text);
  }

  private happened(domain: ManagedDomain, kind: DomainEvent['kind'], reason: DomainEvent['reason']): void {
    const event: DomainEvent = { kind, domid: domain.id, name: domain.name, reason };
    for (const listener of [...this.listeners]) listener(event);
  }
}

function noDomain(domid: number): ToolstackError {
  return new ToolstackError('not-found', `Domain '${domid}' does not exist.`);
}
