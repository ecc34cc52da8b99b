/**
 * The toolstack itself: owns a machine and its domains, in this process.
 *
 * When a domain shuts down, what its configuration says is done with it (on_poweroff and the like). A name belongs to
 * one domain from the moment that it is asked for; what is done to one domain is done one after the other.
 */
import { machine as hostMachine, hostname, version as kernelVersion, release, totalmem } from 'node:os';
import { performance } from 'node:perf_hooks';
import type { Xenstore } from '../../dom0/xenstore/xenstore.ts';
import { type BvtParameters, DEFAULT_PARAMETERS } from '../../xen/bvt.ts';
import type { MemoryPolicy } from '../../xen/domctl.ts';
import { XEN_VERSION } from '../../xen/xen-version.ts';
import { parseAffinity, together } from '../affinity.ts';
import type { ImageOptions } from '../images/index.ts';
import { Machine, maxDomainMemory, type StartPcpu } from '../machine.ts';
import type { DomainEnd } from '../running-domain.ts';
import { RecordReader } from '../saved/format.ts';
import { readHead } from '../saved/head.ts';
import { dumpCore } from './core-dump.ts';
import * as devices from './domain-devices.ts';
import { ToolstackError } from './errors.ts';
import { GuestLoader } from './guest-loader.ts';
import { translated } from './machine-errors.ts';
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

const DOMAIN_0_NAME = 'Domain-0';
/** MHz of the time-stamp counter. */
const TSC_MHZ = 1000;
/** Pages that a domain may own beyond its balloon's target (1 MiB, as libxl has it). */
const BALLOON_SLACK = 256;
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
    const { totalPages, freePages, sharedPages, savedPages } = await this.ask(() =>
      this.machine.control.machineInfo(),
    );
    return {
      version: this.options.version,
      xenVersion: `${XEN_VERSION.major}.${XEN_VERSION.minor}${XEN_VERSION.extra}`,
      processors: this.machine.pcpus.count,
      mhz: TSC_MHZ,
      totalMemory: totalPages * 4,
      freeMemory: freePages * 4,
      sharedMemory: sharedPages * 4,
      savedMemory: savedPages * 4,
      scheduler: 'bvt',
      host: hostname(),
      release: release(),
      kernelVersion: kernelVersion(),
      machine: hostMachine(),
      uptime: (Date.now() - this.started) / 1000,
    };
  }

  async log(clear = false): Promise<string> {
    const text = this.messages.read();
    if (clear) this.messages.clear();
    return text;
  }

  // --- Domains ---

  async list(): Promise<DomainInfo[]> {
    const [infos, machine] = await this.ask(() =>
      Promise.all([this.machine.control.listDomains(), this.machine.control.machineInfo()]),
    );
    const guests = infos.reduce((sum, { totalPages }) => sum + totalPages, 0);
    const taken = machine.totalPages - machine.freePages - machine.promisedPages;
    const list = [this.domain0(taken - (guests - machine.savedPages))];
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
    if (!paused) await this.ask(() => domain.running.unpause());
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
        const fork = await this.ask(() => parent.use(() => parent.fork(name, this.messages)));
        this.enter(fork, `forked from domain ${domid} (${parent.name})`);
        forks.push(fork);
      } catch (error) {
        this.names.delete(name);
        throw error;
      }
    }
    if (!paused) for (const { running } of forks) await this.ask(() => running.unpause());
    const numbers = new Set(forks.map(({ id }) => id));
    return (await this.list()).filter((info) => numbers.has(info.domid));
  }

  async save(domid: number, path: string, options: SaveOptions = {}): Promise<void> {
    const domain = this.need(domid);
    const { after = 'destroy', config = null } = options;
    await this.ask(() => domain.use(() => domain.save(path, config, this.options.version)));
    this.note(`Domain ${domid} (${domain.name}) saved to ${path}`);
    if (after === 'destroy') await this.remove(domain);
    else await this.ask(() => domain.goOn(after === 'pause'));
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
        const domain = await this.ask(() =>
          ManagedDomain.restore(this.machine, config, head, reader, this.messages),
        );
        this.enter(domain, `restored from ${path}`);
        if (!paused) await this.ask(() => domain.running.unpause());
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
    if (!(await this.domain(domid)).paused) await this.ask(() => this.machine.control.pauseDomain(domid));
  }

  async unpause(domid: number): Promise<void> {
    this.need(domid);
    if ((await this.domain(domid)).paused) await this.ask(() => this.machine.control.unpauseDomain(domid));
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
    const vcpus = await this.ask(() => this.machine.control.listVcpus(domid));
    const { paused, shutdown } = await this.domain(domid);
    const stands = paused || shutdown !== null;
    const cpu = this.machine.pcpus.pcpuOf(domid);
    const affinity = this.machine.pcpus.affinity(domid);
    return vcpus.map(({ vcpu, online, running, blocked, cpuTimeNs }) => ({
      vcpu,
      online,
      running: running && !stands,
      blocked,
      cpu,
      cpuTime: cpuTimeNs / 1e9,
      affinity: affinity[vcpu]?.slice() ?? null,
    }));
  }

  async setVcpus(domid: number, count: number): Promise<void> {
    const domain = this.need(domid);
    const { maxVcpus } = await this.domain(domid);
    if (!Number.isInteger(count) || count < 1 || count > maxVcpus) {
      throw new ToolstackError('invalid', `${count} virtual CPUs: domain ${domid} can have 1 to ${maxVcpus}`);
    }
    for (let vcpu = 0; vcpu < maxVcpus; vcpu++) {
      const availability = vcpu < count ? 'online' : 'offline';
      const path = `cpu/${vcpu}/availability`;
      if (domain.readNode(path) !== availability) domain.writeNode(path, availability);
    }
  }

  async setAffinity(domid: number, vcpu: number | null, cpus: string): Promise<void> {
    const domain = this.need(domid);
    const { pcpus } = this.machine;
    const { maxVcpus } = await this.domain(domid);
    if (vcpu !== null && !(vcpu < maxVcpus)) {
      throw new ToolstackError('invalid', `domain ${domid} has no virtual CPU ${vcpu}`);
    }
    const chosen = parseAffinity(cpus, maxVcpus, pcpus.count);
    const before = pcpus.affinity(domid);
    const affinity = chosen.map((each, id) => (vcpu === null || vcpu === id ? each : (before[id] ?? null)));
    if (together(affinity)?.length === 0)
      throw new ToolstackError(
        'unsupported',
        `the virtual CPUs of a domain are on one CPU together: no CPU would suit all of domain ${domid}`,
      );
    await this.ask(() => domain.use(() => pcpus.pin(domid, affinity)));
  }

  async setMemory(domid: number, kib: number): Promise<void> {
    const domain = this.need(domid);
    const most = Number(domain.readNode('memory/static-max'));
    if (kib < 1024 || kib > most) {
      throw new ToolstackError(
        'invalid',
        `${kib} KiB: the balloon of domain ${domid} goes up to ${most} KiB`,
      );
    }
    domain.writeNode('memory/target', String(Math.floor(kib)));
    // It may not have more than that from now on, but for what its kernel counts otherwise.
    const pages = Math.min(Math.floor(kib / 4) + BALLOON_SLACK, Math.floor(most / 4));
    await this.ask(() => this.machine.control.setMaxMem(domid, pages));
  }

  async setMaxMemory(domid: number, kib: number): Promise<void> {
    const target = Number(this.need(domid).readNode('memory/target'));
    if (kib < target) {
      throw new ToolstackError(
        'invalid',
        `${kib} KiB: less than the target of domain ${domid} (${target} KiB)`,
      );
    }
    await this.ask(() => this.machine.control.setMaxMem(domid, Math.floor(kib / 4)));
  }

  async scheduler(): Promise<SchedulerParameters> {
    return { contextSwitchAllowance: Math.round((await this.machine.control.allowanceGet()) / 1000) };
  }

  async setScheduler({ contextSwitchAllowance }: SchedulerParameters): Promise<void> {
    await this.ask(() => this.machine.control.allowanceSet(contextSwitchAllowance * 1000));
  }

  async domainScheduling(domid: number): Promise<DomainScheduling> {
    this.need(domid);
    const { warpLimit, unwarpTime, ...rest } = await this.ask(() => this.machine.control.schedulerGet(domid));
    return { ...rest, warpLimit: Math.round(warpLimit / 1000), unwarpTime: Math.round(unwarpTime / 1000) };
  }

  async setDomainScheduling(domid: number, parameters: Partial<DomainScheduling>): Promise<void> {
    this.need(domid);
    const { warpLimit, unwarpTime, ...rest } = parameters;
    const changes: Partial<BvtParameters> = {
      ...rest,
      ...(warpLimit === undefined ? {} : { warpLimit: warpLimit * 1000 }),
      ...(unwarpTime === undefined ? {} : { unwarpTime: unwarpTime * 1000 }),
    };
    await this.ask(() => this.machine.control.schedulerSet(domid, changes));
  }

  // --- Devices ---

  disks(domid: number): Promise<DiskInfo[]> {
    return this.ask(async () => devices.disksOf(this.machine, this.need(domid)));
  }

  async attachDisk(domid: number, spec: string): Promise<void> {
    const domain = this.need(domid);
    return this.ask(() => domain.use(() => devices.attachDisk(this.machine, domain, spec)));
  }

  async detachDisk(domid: number, vdev: string, force = false): Promise<void> {
    const domain = this.need(domid);
    return this.ask(() => domain.use(() => devices.detachDisk(this.machine, domain, vdev, force)));
  }

  vifs(domid: number): Promise<VifInfo[]> {
    return this.ask(() => devices.vifsOf(this.machine, this.need(domid)));
  }

  async attachVif(domid: number, spec: string): Promise<void> {
    const domain = this.need(domid);
    return this.ask(() => domain.use(() => devices.attachVif(this.machine, domain, spec)));
  }

  async detachVif(domid: number, devid: number, force = false): Promise<void> {
    const domain = this.need(domid);
    return this.ask(() => domain.use(() => devices.detachVif(this.machine, domain, devid, force)));
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
        await this.ask(() => this.machine.control.sendTrigger(domid, 'nmi', vcpu));
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
    await this.ask(() => domain.use(() => dumpCore(this.machine, domid, path)));
  }

  async console(domid: number, viewer: ConsoleViewer, replay: Replay = 'unread'): Promise<ConsoleConnection> {
    return this.need(domid).console.attach(viewer, replay);
  }

  // --- How domains come and go ---

  private async make(config: DomainConfig): Promise<ManagedDomain> {
    this.takeName(config.name);
    try {
      if (this.stopped) throw new ToolstackError('failed', 'the machine is being switched off');
      this.checkCpus(config);
      this.checkUuid(config);
      await this.checkRoom(config);
      const guest = await this.ask(() => this.loader.load(config));
      const domain = await this.ask(() => ManagedDomain.build(this.machine, config, guest, this.messages));
      const mcuAdvance = (DEFAULT_PARAMETERS.mcuAdvance * DEFAULT_WEIGHT) / config.weight;
      if (config.weight !== DEFAULT_WEIGHT) {
        await this.ask(() => this.machine.control.schedulerSet(domain.id, { mcuAdvance })).catch(
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

  private checkCpus({ cpus, name, maxVcpus }: DomainConfig): void {
    if (together(parseAffinity(cpus, maxVcpus, this.machine.pcpus.count))?.length === 0)
      throw new ToolstackError(
        'unsupported',
        `${name}: cpus: the virtual CPUs of a domain are on one CPU together, and none would suit all of them`,
      );
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
    await this.ask(() => next.running.unpause());
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
    await this.ask(() => domain.destroy());
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

  private domain0(pages: number): DomainInfo {
    return {
      domid: DOMAIN_0,
      name: DOMAIN_0_NAME,
      uuid: '00000000-0000-0000-0000-000000000000',
      memory: pages * 4,
      maxMemory: pages * 4,
      vcpus: 1,
      maxVcpus: 1,
      running: true,
      blocked: false,
      paused: false,
      dying: false,
      shutdown: null,
      crashReason: null,
      // Time for which this thread was not waiting.
      cpuTime: performance.eventLoopUtilization().active / 1000,
      uptime: (Date.now() - this.started) / 1000,
      disks: 0,
      vifs: 0,
    };
  }

  /** Does something on the machine; its errors become ours. */
  private async ask<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw translated(error);
    }
  }
}

function noDomain(domid: number): ToolstackError {
  return new ToolstackError('not-found', `Domain '${domid}' does not exist.`);
}
