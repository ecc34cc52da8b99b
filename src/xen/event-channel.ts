/**
 * The event channels of a domain: which ports it has, what stands at their other ends, and how they open and close.
 *
 * A channel between domains has an end in each, and both ends always agree: each names the other, or one of them is
 * not interdomain. So closing one end changes the other in the same step (it becomes unbound again, waiting for the
 * domain that left).
 *
 * Domain 0 is not a guest: it has no ports of its own. For it a channel is named by the guest and the guest's port.
 */
import type { Domain } from './domain.ts';
import { Channel, type EventAbi } from './event-abi.ts';
import { FifoAbi, type FifoState } from './event-fifo.ts';
import { TwoLevelAbi } from './event-two-level.ts';
import { HypercallError } from './hypercall.ts';
import { ERRNO } from './public/errno.ts';
import { EVTCHN_FIFO_PRIORITY, EVTCHNSTAT, type EventChannelStatus } from './public/event_channel.ts';
import { DOMID, NR_VIRQS, VCPU_INFO, VIRQ } from './public/xen.ts';
import type { Vcpu } from './vcpu.ts';

/** The domain whose services are TypeScript. */
const DOMAIN_0 = 0;

/** Largest port number of a domain unless it is told otherwise (xl.cfg: max_event_channels). */
export const DEFAULT_MAX_PORT = 1023;

const VCPU_VIRQS: ReadonlySet<number> = new Set([VIRQ.TIMER, VIRQ.DEBUG, VIRQ.XENOPROF, VIRQ.XENPMU]);

/** A channel as EVTCHNOP_status tells it. */
export interface ChannelInfo {
  port: number;
  status: EventChannelStatus;
  vcpu: number;
  remoteDomid: number;
  remotePort: number;
  virq: number;
  pending: boolean;
  masked: boolean;
}

/** A port as plain data. Domain numbers of the domain itself are DOMID_SELF. */
export type ChannelState = Readonly<Pick<Channel, keyof Channel>>;

/** The ports of a domain as plain data. */
export interface EventsState {
  readonly channels: readonly ChannelState[];
  /** vCPUs in SCHEDOP_poll, and the ports that they wait for. */
  readonly pollers: readonly (readonly [vcpu: number, ports: readonly number[]])[];
  /** Null: the two-level ABI. */
  readonly fifo: FifoState | null;
}

export class EventChannels {
  readonly domain: Domain;
  /** Largest port number. */
  readonly maxPort: number;
  /** The guest signalled a port whose other end is Domain 0. */
  onDom0: (port: number) => void = () => {};
  private abi: EventAbi;
  private fifo: FifoAbi | null = null;
  /** By port; ports never used have none. Port 0 does not exist. */
  private readonly channels: (Channel | undefined)[] = [];
  /** No port below this one is free. */
  private firstFree = 1;
  /** For each vCPU: the port of each of its VIRQs, 0: none. Global VIRQs are vCPU 0's. */
  private readonly virqPorts: Uint32Array[] = [];
  /** vCPUs in SCHEDOP_poll, and the ports they wait for (empty: any). */
  private readonly pollers = new Map<Vcpu, ReadonlySet<number>>();

  constructor(domain: Domain, maxPort = DEFAULT_MAX_PORT) {
    this.domain = domain;
    this.maxPort = maxPort;
    this.abi = new TwoLevelAbi(domain);
  }

  // --- Opening and closing ---

  /**
   * A port that a domain may bind to.
   * @throws HypercallError ENOSPC
   */
  allocUnbound(remoteDomid: number): number {
    const channel = this.allocate();
    channel.state = EVTCHNSTAT.unbound;
    channel.remoteDomid = remoteDomid;
    return channel.port;
  }

  /**
   * Connects a new port to a port that another domain (or this one) holds out to it.
   * @throws HypercallError ESRCH: no such domain; EINVAL: not a port for us; ENOSPC
   */
  bindInterdomain(remoteDomid: number, remotePort: number): number {
    const remote = this.domain.hypervisor.neighbour(this.domain, remoteDomid)?.events;
    if (!remote) throw new HypercallError(remoteDomid === DOMAIN_0 ? ERRNO.EINVAL : ERRNO.ESRCH);
    const there = remote.channel(remotePort);
    if (!there || there.state !== EVTCHNSTAT.unbound || there.remoteDomid !== this.domain.id) {
      throw new HypercallError(ERRNO.EINVAL);
    }
    const here = this.allocate();
    this.connect(here, remoteDomid, remotePort);
    remote.connect(there, this.domain.id, here.port);
    // What was sent before there was an other end was lost: let the binder look.
    this.raise(here);
    return here.port;
  }

  /** @throws HypercallError EINVAL, ENOENT: no such vCPU; EEXIST: bound already; ENOSPC */
  bindVirq(virq: number, vcpu: number): number {
    if (virq >= NR_VIRQS || (!VCPU_VIRQS.has(virq) && vcpu !== 0)) throw new HypercallError(ERRNO.EINVAL);
    this.needVcpu(vcpu);
    const ports = this.virqsOf(vcpu);
    if (ports[virq] !== 0) throw new HypercallError(ERRNO.EEXIST);
    const channel = this.allocate();
    channel.state = EVTCHNSTAT.virq;
    channel.vcpu = vcpu;
    channel.virq = virq;
    ports[virq] = channel.port;
    return channel.port;
  }

  /** @throws HypercallError ENOENT: no such vCPU; ENOSPC */
  bindIpi(vcpu: number): number {
    this.needVcpu(vcpu);
    const channel = this.allocate();
    channel.state = EVTCHNSTAT.ipi;
    channel.vcpu = vcpu;
    return channel.port;
  }

  /** @throws HypercallError EINVAL: no such port */
  close(port: number): void {
    const channel = this.need(port);
    if (channel.state === EVTCHNSTAT.interdomain) {
      this.peerOf(channel)?.disconnected();
    } else if (channel.state === EVTCHNSTAT.virq) {
      for (const ports of this.virqPorts) {
        if (ports?.[channel.virq] === port) ports[channel.virq] = 0;
      }
    }
    this.free(channel);
  }

  /** EVTCHNOP_reset: closes everything and returns to the two-level ABI. */
  reset(): void {
    for (const channel of this.channels) {
      if (channel && channel.state !== EVTCHNSTAT.closed) this.close(channel.port);
    }
    this.fifo?.destroy();
    this.fifo = null;
    this.abi = new TwoLevelAbi(this.domain);
  }

  /** The domain ends: every other end learns of it, and the guest's pages are given back. */
  destroy(): void {
    this.reset();
    this.pollers.clear();
    this.onDom0 = () => {};
  }

  /** Whether it has channels to other guests. */
  get toOthers(): boolean {
    const { id } = this.domain;
    return this.channels.some(
      (channel) =>
        channel?.state === EVTCHNSTAT.interdomain &&
        channel.remoteDomid !== DOMAIN_0 &&
        channel.remoteDomid !== id,
    );
  }

  // --- Taking over what is known of a domain (domain-state.ts) ---

  state(): EventsState {
    const { id } = this.domain;
    const channels = this.channels.flatMap((channel): ChannelState[] =>
      channel === undefined
        ? []
        : [{ ...channel, remoteDomid: channel.remoteDomid === id ? DOMID.SELF : channel.remoteDomid }],
    );
    return {
      channels,
      pollers: [...this.pollers].map(([vcpu, ports]) => [vcpu.id, [...ports]] as const),
      fifo: this.fifo?.state() ?? null,
    };
  }

  /**
   * Opens the ports of such a domain, for a new one.
   * @throws HypercallError EINVAL: what cannot be
   */
  setState({ channels, pollers, fifo }: EventsState): void {
    const { domain } = this;
    for (const { port, ...channel } of channels) {
      const { vcpu, virq, state, lastVcpu, remoteDomid, priority, lastPriority } = channel;
      const { MIN } = EVTCHN_FIFO_PRIORITY;
      if (port < 1 || port > this.maxPort || this.channels[port]) throw new HypercallError(ERRNO.EINVAL);
      if (!domain.vcpus[vcpu] || !domain.vcpus[lastVcpu] || priority > MIN || lastPriority > MIN)
        throw new HypercallError(ERRNO.EINVAL);
      const self = remoteDomid === DOMID.SELF;
      if (!self && state === EVTCHNSTAT.interdomain && remoteDomid !== DOMAIN_0)
        throw new HypercallError(ERRNO.EINVAL, `port ${port} leads to another domain`);
      if (state === EVTCHNSTAT.virq) {
        const ports = virq < NR_VIRQS ? this.virqsOf(VCPU_VIRQS.has(virq) ? vcpu : 0) : null;
        if (ports === null || ports[virq] !== 0) throw new HypercallError(ERRNO.EINVAL);
        ports[virq] = port;
      }
      const own = { ...channel, remoteDomid: self ? domain.id : remoteDomid };
      this.channels[port] = Object.assign(new Channel(port), own);
    }
    for (const [vcpu, ports] of pollers) {
      const poller = domain.vcpus[vcpu];
      if (!poller) throw new HypercallError(ERRNO.EINVAL);
      this.pollers.set(poller, new Set(ports));
    }
    this.firstFree = 1;
    if (fifo === null) return;
    this.fifo = FifoAbi.of(domain, fifo);
    this.abi = this.fifo;
  }

  // --- Events ---

  /**
   * EVTCHNOP_send.
   * @throws HypercallError EINVAL: no such port, or nothing that one sends to
   */
  send(port: number): void {
    const channel = this.need(port);
    switch (channel.state) {
      case EVTCHNSTAT.interdomain:
      case EVTCHNSTAT.unbound:
        // Domain 0 listens to a port that is held out to it from the first event on; others have to bind first.
        if (channel.remoteDomid === DOMAIN_0) this.onDom0(port);
        else if (channel.state === EVTCHNSTAT.interdomain) this.peerOf(channel)?.raise();
        break;
      case EVTCHNSTAT.ipi:
        this.raise(channel);
        break;
      default:
        throw new HypercallError(ERRNO.EINVAL);
    }
  }

  /** An event on a port of this domain, from the hypervisor itself. Nothing happens if the port is closed. */
  setPending(port: number): void {
    const channel = this.channel(port);
    if (channel) this.raise(channel);
  }

  /** A virtual interrupt that each vCPU has for itself. Nothing happens if the guest has not bound it. */
  sendVirq(vcpu: Vcpu, virq: number): void {
    const port = this.virqPorts[vcpu.id]?.[virq] ?? 0;
    if (port !== 0) this.setPending(port);
  }

  /** A virtual interrupt of the whole domain. */
  sendGlobalVirq(virq: number): void {
    const port = this.virqPorts[0]?.[virq] ?? 0;
    if (port !== 0) this.setPending(port);
  }

  /** @throws HypercallError EINVAL: no such port */
  unmask(port: number): void {
    this.abi.unmask(this.need(port));
  }

  /** Whether an event waits on a port, masked or not. */
  isPending(port: number): boolean {
    const channel = this.channel(port);
    return channel !== undefined && this.abi.isPending(channel);
  }

  /** An upcall is due: events are pending and the vCPU does not hold them off. */
  hasPending(vcpu: Vcpu): boolean {
    const { u8 } = this.domain.hypervisor.memory;
    return (
      u8[vcpu.vcpuInfo + VCPU_INFO.evtchn_upcall_pending] !== 0 &&
      u8[vcpu.vcpuInfo + VCPU_INFO.evtchn_upcall_mask] === 0
    );
  }

  /**
   * SCHEDOP_poll: the vCPU wants to sleep until one of the ports has an event, masked or not.
   * @param ports none: until any port has
   * @returns false if one has already: do not sleep. Otherwise the vCPU is kicked once.
   * @throws HypercallError EINVAL: no such port
   */
  poll(vcpu: Vcpu, ports: readonly number[]): boolean {
    const channels = ports.map((port) => this.need(port));
    if (channels.some((channel) => this.abi.isPending(channel))) return false;
    this.pollers.set(vcpu, new Set(ports));
    return true;
  }

  /** The vCPU woke for another reason (its timeout). */
  endPoll(vcpu: Vcpu): void {
    this.pollers.delete(vcpu);
  }

  // --- Binding to vCPUs, status ---

  /** @throws HypercallError ENOENT: no such vCPU; EINVAL: no such port, or one that cannot move */
  bindVcpu(port: number, vcpu: number): void {
    this.needVcpu(vcpu);
    const channel = this.need(port);
    const fixed =
      channel.state === EVTCHNSTAT.ipi ||
      (channel.state === EVTCHNSTAT.virq && VCPU_VIRQS.has(channel.virq)) ||
      channel.state === EVTCHNSTAT.closed;
    if (fixed) throw new HypercallError(ERRNO.EINVAL);
    channel.vcpu = vcpu;
  }

  /** @throws HypercallError EINVAL: a number that no port can have */
  status(port: number): ChannelInfo {
    if (port < 1 || port > this.lastPort()) throw new HypercallError(ERRNO.EINVAL);
    const channel = this.channels[port] ?? new Channel(port);
    return {
      port,
      status: channel.state,
      vcpu: channel.vcpu,
      remoteDomid: channel.remoteDomid,
      remotePort: channel.remotePort,
      virq: channel.virq,
      pending: this.abi.isPending(channel),
      masked: this.abi.isMasked(channel),
    };
  }

  /** All open channels. */
  list(): ChannelInfo[] {
    return this.channels
      .filter((channel) => channel !== undefined && channel.state !== EVTCHNSTAT.closed)
      .map((channel) => this.status(channel!.port));
  }

  // --- The FIFO ABI ---

  /**
   * EVTCHNOP_init_control. The first call changes the domain to the FIFO ABI.
   * @throws HypercallError ENOENT: no such vCPU; EINVAL
   */
  initControl(vcpu: number, gfn: number, offset: number): void {
    this.needVcpu(vcpu);
    if (this.fifo) {
      this.fifo.addControlBlock(vcpu, gfn, offset);
      return;
    }
    const fifo = new FifoAbi(this.domain);
    fifo.addControlBlock(vcpu, gfn, offset);
    for (const channel of this.channels) {
      if (!channel) continue;
      // What is pending under the old ABI is delivered once its port has an event word.
      channel.pending = channel.state !== EVTCHNSTAT.closed && this.abi.isPending(channel);
      channel.priority = EVTCHN_FIFO_PRIORITY.DEFAULT;
    }
    this.fifo = fifo;
    this.abi = fifo;
  }

  /** EVTCHNOP_expand_array. @throws HypercallError EOPNOTSUPP: not the FIFO ABI; EINVAL; ENOSPC */
  expandArray(gfn: number): void {
    if (!this.fifo) throw new HypercallError(ERRNO.EOPNOTSUPP);
    const { first, count } = this.fifo.addPage(gfn);
    for (const channel of this.channels.slice(first, first + count)) {
      if (!channel?.pending) continue;
      channel.pending = false;
      this.raise(channel);
    }
  }

  /** EVTCHNOP_set_priority. @throws HypercallError EOPNOTSUPP: not the FIFO ABI; EINVAL */
  setPriority(port: number, priority: number): void {
    if (!this.fifo) throw new HypercallError(ERRNO.EOPNOTSUPP);
    const channel = this.need(port);
    if (priority > EVTCHN_FIFO_PRIORITY.MIN) throw new HypercallError(ERRNO.EINVAL);
    channel.priority = priority;
  }

  // --- Domain 0 ---

  /**
   * Domain 0 binds to a port that is held out to it.
   * @returns false if the port is not for Domain 0
   */
  bindFromDom0(port: number): boolean {
    const channel = this.channel(port);
    if (!channel || channel.remoteDomid !== DOMAIN_0) return false;
    if (channel.state === EVTCHNSTAT.interdomain) return true;
    if (channel.state !== EVTCHNSTAT.unbound) return false;
    this.connect(channel, DOMAIN_0, port);
    return true;
  }

  /** Domain 0 signals a port of the guest; it binds first if it had not. False if the port is not for Domain 0. */
  notifyFromDom0(port: number): boolean {
    if (!this.bindFromDom0(port)) return false;
    this.raise(this.channels[port]!);
    return true;
  }

  /** Domain 0 leaves a channel: the guest's end is unbound again. */
  closeFromDom0(port: number): void {
    const channel = this.channel(port);
    if (channel?.state === EVTCHNSTAT.interdomain && channel.remoteDomid === DOMAIN_0)
      this.disconnect(channel);
  }

  // --- Inside ---

  private lastPort(): number {
    return Math.min(this.maxPort, this.abi.ports - 1);
  }

  /** The channel of an open port. */
  private channel(port: number): Channel | undefined {
    const channel = this.channels[port];
    return channel && channel.state !== EVTCHNSTAT.closed ? channel : undefined;
  }

  private need(port: number): Channel {
    const channel = this.channel(port);
    if (!channel) throw new HypercallError(ERRNO.EINVAL);
    return channel;
  }

  private needVcpu(vcpu: number): void {
    if (!this.domain.vcpus[vcpu]) throw new HypercallError(ERRNO.ENOENT);
  }

  private virqsOf(vcpu: number): Uint32Array {
    this.virqPorts[vcpu] ??= new Uint32Array(NR_VIRQS);
    return this.virqPorts[vcpu];
  }

  /** The lowest free port, open from now on as far as the caller sets its state. */
  private allocate(): Channel {
    if (this.domain.dying) throw new HypercallError(ERRNO.ENOSPC);
    const last = this.lastPort();
    let lowest = 0;
    for (let port = this.firstFree; port <= last; port++) {
      const channel = this.channels[port] ?? new Channel(port);
      this.channels[port] = channel;
      if (channel.state !== EVTCHNSTAT.closed) continue;
      lowest ||= port;
      if (this.abi.isBusy(channel)) continue;
      // Ports that are free but busy lie below: they are looked at again the next time.
      this.firstFree = lowest;
      channel.vcpu = 0;
      channel.priority = EVTCHN_FIFO_PRIORITY.DEFAULT;
      channel.pending = false;
      channel.remoteDomid = 0;
      channel.remotePort = 0;
      channel.virq = 0;
      return channel;
    }
    throw new HypercallError(ERRNO.ENOSPC);
  }

  private free(channel: Channel): void {
    this.abi.clearPending(channel);
    channel.state = EVTCHNSTAT.closed;
    channel.vcpu = 0;
    if (channel.port < this.firstFree) this.firstFree = channel.port;
  }

  private connect(channel: Channel, remoteDomid: number, remotePort: number): void {
    channel.state = EVTCHNSTAT.interdomain;
    channel.remoteDomid = remoteDomid;
    channel.remotePort = remotePort;
  }

  private disconnect(channel: Channel): void {
    channel.state = EVTCHNSTAT.unbound;
    channel.remotePort = 0;
  }

  /** The other end of an interdomain channel, with what can be done to it. */
  private peerOf(channel: Channel): { raise(): void; disconnected(): void } | null {
    const events = this.domain.hypervisor.domain(channel.remoteDomid)?.events;
    const there = events?.channel(channel.remotePort);
    if (!events || there?.state !== EVTCHNSTAT.interdomain) return null;
    if (there.remoteDomid !== this.domain.id || there.remotePort !== channel.port) return null;
    return { raise: () => events.raise(there), disconnected: () => events.disconnect(there) };
  }

  private raise(channel: Channel): void {
    if (!this.abi.setPending(channel) || this.pollers.size === 0) return;
    for (const [vcpu, ports] of this.pollers) {
      if (ports.size !== 0 && !ports.has(channel.port)) continue;
      this.pollers.delete(vcpu);
      vcpu.kick();
    }
  }
}
