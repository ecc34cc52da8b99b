/**
 * The data plane of a network interface: what its guest sends is checked by its rules and its rate and goes to its
 * bridge; what the bridge has for it goes to the guest.
 */
import { NETIF_RSP } from '../../xen/public/io/netif.ts';
import { RingError } from '../backend/back-ring.ts';
import type { DataPlane, GuestLink } from '../backend/data-plane.ts';
import { BROADCAST_MAC, getMac, isGroup } from './addresses.ts';
import type { Bridge, BridgePort, Fate, Waiter } from './bridge.ts';
import { get16, get32 } from './bytes.ts';
import { Filter, type Rule } from './filter.ts';
import { ETHERNET, ETHERTYPE, IPV4 } from './headers.ts';
import type { Networks } from './networks.ts';
import { GSO, OFFLOAD } from './offload.ts';
import type { Packet } from './packet.ts';
import { RateLimit } from './rate-limit.ts';
import { type QueueDescription, VifQueue } from './vif-queue.ts';

/** Plain JSON. */
export interface VifParameters {
  readonly bridge: string;
  readonly rules: readonly Rule[];
  readonly rate: { readonly bytes: number; readonly interval: number } | null;
  readonly queues: readonly QueueDescription[];
  /** What the front end can take. */
  readonly front: {
    readonly sg: boolean;
    readonly tcp4: boolean;
    readonly tcp6: boolean;
    /** Blank checksums, over IPv4 and over IPv6. */
    readonly csum4: boolean;
    readonly csum6: boolean;
  };
  readonly multicastControl: boolean;
}

/** To a data plane. */
export type VifMessage = { kind: 'multicast-control'; on: boolean } | { kind: 'statistics'; id: number };
/** From it. */
export type VifReport =
  | { kind: 'statistics'; id: number; statistics: VifStatistics }
  /** The guest broke the rules of its rings: the interface is of no use any more. */
  | { kind: 'broken'; reason: string };

/** Counts, from the guest's point of view: tx is what it sent. */
export interface VifStatistics {
  txPackets: number;
  txBytes: number;
  /** Against its rules, or with nowhere to go. */
  txDropped: number;
  rxPackets: number;
  rxBytes: number;
  /** It had no room. */
  rxDropped: number;
}

export const NO_TRAFFIC: Readonly<VifStatistics> = {
  txPackets: 0,
  txBytes: 0,
  txDropped: 0,
  rxPackets: 0,
  rxBytes: 0,
  rxDropped: 0,
};

/** Packets that a queue may send before somebody else has his turn. */
const TURN = 64;
/** Groups that a guest may listen to. */
const GROUPS_MAX = 64;

/** A queue that sends, as the bridge's ports know it. */
class Sender implements Waiter {
  readonly queue: VifQueue;
  /** A packet is in hand that could not be sent yet. */
  holding = false;
  /** Its length has been counted against the rate. */
  paid = false;
  /** It waits for a port or for its rate: nothing else may make it go on. */
  waiting = false;
  private readonly plane: VifPlane;

  constructor(plane: VifPlane, queue: VifQueue) {
    this.plane = plane;
    this.queue = queue;
  }

  resume(bytes: number): boolean {
    this.waiting = false;
    return this.plane.send(this, bytes);
  }
}

export class VifPlane implements DataPlane, BridgePort {
  private readonly link: GuestLink;
  private readonly networks: Networks;
  private readonly bridge: Bridge;
  private readonly parameters: VifParameters;
  private readonly filter: Filter;
  private readonly rate: RateLimit | null;
  private readonly senders: Sender[] = [];
  private readonly groups = new Set<number>();
  private multicastControl: boolean;
  /** Those that wait for their rate. */
  private readonly limited = new Set<Sender>();
  private readonly busy = new Set<Sender>();
  private untold = false;
  private closed = false;
  private readonly statistics: VifStatistics = { ...NO_TRAFFIC };

  /** @throws RuleError, RingError, OutOfFrames */
  constructor(link: GuestLink, parameters: VifParameters, networks: Networks) {
    this.link = link;
    this.parameters = parameters;
    this.networks = networks;
    this.filter = new Filter(parameters.rules);
    const { rate } = parameters;
    this.rate = rate && new RateLimit(rate.bytes, rate.interval * 1000, link.now());
    this.multicastControl = parameters.multicastControl;
    const owner = {
      onMulticast: (mac: number, add: boolean) => this.changeGroup(mac, add),
      onUntold: () => {
        this.untold = true;
        link.schedule();
      },
    };
    try {
      for (const each of parameters.queues)
        this.senders.push(new Sender(this, new VifQueue(link, each, owner)));
    } catch (error) {
      for (const { queue } of this.senders) queue.close();
      throw error;
    }
    this.bridge = networks.join(parameters.bridge, this);
    // What came before there was a back end was signalled to nobody.
    for (const sender of this.senders) this.busy.add(sender);
    link.schedule();
  }

  onEvent(port: number): void {
    for (const sender of this.senders) {
      const { txPort, rxPort } = sender.queue.description;
      if (port === rxPort) this.guarded(() => sender.queue.resume());
      if (port === txPort) this.send(sender);
    }
  }

  onMessage(message: unknown): void {
    const vif = message as VifMessage;
    if (vif.kind === 'multicast-control') this.multicastControl = vif.on;
    else {
      const report: VifReport = { kind: 'statistics', id: vif.id, statistics: { ...this.statistics } };
      this.link.post(report);
    }
  }

  onSignal(): void {}

  onTimer(): void {
    const waiting = [...this.limited];
    this.limited.clear();
    for (const sender of waiting) {
      sender.waiting = false;
      this.send(sender);
    }
  }

  work(): boolean {
    if (this.untold) {
      this.untold = false;
      for (const { queue } of this.senders) queue.tell();
    }
    const busy = [...this.busy];
    this.busy.clear();
    for (const sender of busy) this.send(sender);
    return this.busy.size > 0;
  }

  close(): boolean {
    if (this.closed) return true;
    this.closed = true;
    this.networks.leave(this.bridge, this);
    for (const sender of this.senders) {
      this.networks.forget(this.bridge, sender);
      sender.queue.close();
    }
    return true;
  }

  // --- From the guest ---

  /**
   * Passes on what a queue has to send, as far as it is its turn.
   * @param bytes how much about; left out: its turn is as long as any, and it gets another one by itself
   * @returns true: it has more to send and nothing but the end of its turn holds it up
   */
  send(sender: Sender, bytes?: number): boolean {
    if (this.closed || sender.waiting) return false;
    let more = false;
    this.guarded(() => {
      const most = this.statistics.txBytes + (bytes ?? Number.POSITIVE_INFINITY);
      for (let count = 0; count < TURN && this.statistics.txBytes < most; count++)
        if (!this.sendOne(sender)) return;
      more = true;
    });
    if (!more || bytes !== undefined) return more;
    this.busy.add(sender);
    this.link.schedule();
    return true;
  }

  /** @returns false: there is nothing more to do now */
  private sendOne(sender: Sender): boolean {
    const { queue } = sender;
    if (!sender.holding) {
      const outgoing = queue.prepare();
      if (outgoing !== 'packet') return outgoing === 'again';
      if (!this.filter.passes(queue.packet, 'out')) {
        this.statistics.txDropped++;
        queue.complete(NETIF_RSP.DROPPED);
        return true;
      }
      sender.holding = true;
      sender.paid = false;
    }
    const { length } = queue.packet;
    const now = this.link.now();
    const later = sender.paid ? 0 : (this.rate?.take(length, now) ?? 0);
    if (later > 0) {
      if (!this.hold(sender)) return true;
      sender.waiting = true;
      this.limited.add(sender);
      this.link.setTimer(later);
      return false;
    }
    sender.paid = true;
    const fate = this.bridge.forward(this, queue.packet, now, sender);
    if (fate === 'wait') {
      sender.waiting = this.hold(sender);
      return !sender.waiting;
    }
    sender.holding = false;
    if (fate === 'taken') {
      this.statistics.txPackets++;
      this.statistics.txBytes += length;
    } else this.statistics.txDropped++;
    queue.complete(NETIF_RSP.OKAY);
    return true;
  }

  /** The packet has to wait. @returns false: it is lost instead */
  private hold(sender: Sender): boolean {
    if (sender.queue.hold()) return true;
    sender.holding = false;
    this.statistics.txDropped++;
    sender.queue.complete(NETIF_RSP.ERROR);
    return false;
  }

  private changeGroup(mac: number, add: boolean): void {
    if (!add) this.groups.delete(mac);
    else if (this.groups.size < GROUPS_MAX && isGroup(mac)) this.groups.add(mac);
  }

  // --- To the guest ---

  deliver(packet: Packet): Fate {
    if (this.closed) return 'dropped';
    const { u8 } = packet.memory;
    const destination = getMac(u8, packet.head + ETHERNET.destination);
    if (this.multicastControl && isGroup(destination) && destination !== BROADCAST_MAC) {
      if (!this.groups.has(destination)) return 'dropped';
    }
    if (!this.filter.passes(packet, 'in')) return 'dropped';
    let taken = true;
    this.guarded(() => {
      if (this.suits(packet)) taken = this.hand(packet);
      else {
        const whole = this.networks.segmentation.complete(packet, (part) => {
          taken = this.hand(part) && taken;
        });
        taken &&= whole;
      }
    });
    return taken ? 'taken' : 'dropped';
  }

  /** The front end can take it as it is. */
  private suits(packet: Packet): boolean {
    const { front } = this.parameters;
    if (packet.gso === GSO.tcp4 && !front.tcp4) return false;
    if (packet.gso === GSO.tcp6 && !front.tcp6) return false;
    if (packet.pieces > 1 && !front.sg) return false;
    if ((packet.flags & OFFLOAD.csumBlank) === 0) return true;
    const six = get16(packet.memory.u8, packet.head + ETHERNET.type) === ETHERTYPE.ipv6;
    return six ? front.csum6 : front.csum4;
  }

  private hand(packet: Packet): boolean {
    const { senders, statistics } = this;
    const sender = senders.length === 1 ? senders[0]! : senders[flowOf(packet) % senders.length]!;
    if (!sender.queue.deliver(packet)) {
      statistics.rxDropped++;
      return false;
    }
    statistics.rxPackets++;
    statistics.rxBytes += packet.length;
    return true;
  }

  /** What the guest did wrong on its rings is its own end: nobody else's, whoever's turn it is. */
  private guarded(work: () => void): void {
    if (this.closed) return;
    try {
      work();
    } catch (error) {
      if (!(error instanceof RingError)) throw error;
      this.close();
      const report: VifReport = { kind: 'broken', reason: error.message };
      this.link.post(report);
    }
  }
}

/** A number that is the same for the packets of a flow. */
function flowOf({ memory: { u8 }, head, headLength }: Packet): number {
  if (get16(u8, head + ETHERNET.type) !== ETHERTYPE.ipv4 || headLength < ETHERNET.size + IPV4.size + 4)
    return 0;
  const at = head + ETHERNET.size;
  // Addresses and, where there are no options, ports.
  const mixed = get32(u8, at + IPV4.source) ^ get32(u8, at + IPV4.destination) ^ get32(u8, at + IPV4.size);
  return (Math.imul(mixed, 0x9e37_79b1) >>> 16) & 0xffff;
}
