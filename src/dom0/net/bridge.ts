/**
 * A learning bridge (IEEE 802.1D without the spanning tree: there are no loops between ports of ours). Which address
 * lies behind which port it learns from the packets that come in; what goes to an address that it does not know, or
 * to a group, goes to all ports but the one that it came from.
 */
import { getMac, isGroup } from './addresses.ts';
import { ETHERNET } from './headers.ts';
import type { Packet } from './packet.ts';

/** Somebody who waits for room at a port. */
export interface Waiter {
  /**
   * There is room again. Sends about as many bytes; if there is no room again meanwhile, it waits again.
   * @returns true: it has more to send
   */
  resume(bytes: number): boolean;
}

/** What became of a packet. `wait`: nothing yet; the sender keeps it and is told when to try again. */
export type Fate = 'taken' | 'dropped' | 'wait';

export interface BridgePort {
  /** @param waiter the sender, if it can wait */
  deliver(packet: Packet, waiter: Waiter | null): Fate;
}

/** Addresses that are remembered, and for how long, ns. */
const TABLE_MAX = 4096;
const AGEING = 300e9;

interface Entry {
  port: BridgePort;
  seen: number;
}

export class Bridge {
  readonly name: string;
  private readonly ports = new Set<BridgePort>();
  /** The least lately learnt first. */
  private readonly table = new Map<number, Entry>();

  constructor(name: string) {
    this.name = name;
  }

  get empty(): boolean {
    return this.ports.size === 0;
  }

  attach(port: BridgePort): void {
    this.ports.add(port);
    // Whoever comes may have been elsewhere before: on another processor's bridge.
    this.table.clear();
  }

  detach(port: BridgePort): void {
    this.ports.delete(port);
    for (const [mac, entry] of this.table) if (entry.port === port) this.table.delete(mac);
  }

  /** Where an address was seen last. */
  portOf(mac: number, now: number): BridgePort | null {
    const entry = this.table.get(mac);
    if (!entry) return null;
    if (now - entry.seen <= AGEING) return entry.port;
    this.table.delete(mac);
    return null;
  }

  /**
   * Passes a packet on. It has an Ethernet header at least.
   * @param now system time, ns @param waiter who sends it, if he can wait
   */
  forward(from: BridgePort, packet: Packet, now: number, waiter: Waiter | null): Fate {
    const { u8 } = packet.memory;
    this.learn(getMac(u8, packet.head + ETHERNET.source), from, now);
    const destination = getMac(u8, packet.head + ETHERNET.destination);
    const port = isGroup(destination) ? null : this.portOf(destination, now);
    if (port === from) return 'dropped';
    if (port) return port.deliver(packet, waiter);
    // Nobody waits for one of many.
    let fate: Fate = 'dropped';
    for (const each of this.ports) {
      if (each !== from && each.deliver(packet, null) === 'taken') fate = 'taken';
    }
    return fate;
  }

  private learn(mac: number, port: BridgePort, now: number): void {
    if (isGroup(mac)) return;
    const entry = this.table.get(mac);
    if (entry) {
      entry.port = port;
      entry.seen = now;
      return;
    }
    this.table.set(mac, { port, seen: now });
    if (this.table.size > TABLE_MAX) this.table.delete(this.table.keys().next().value!);
  }
}

/** What each of those who wait may send before it is the next one's turn, bytes: one large packet, or many small. */
const TURN_BYTES = 65_536;

/** Those who wait for room at a port, served in turn. */
export class Waiters {
  private readonly queue = new Set<Waiter>();
  private serving = false;

  add(waiter: Waiter): void {
    this.queue.add(waiter);
  }

  delete(waiter: Waiter): void {
    this.queue.delete(waiter);
  }

  /** Whoever comes now has to wait behind others. */
  get before(): boolean {
    return !this.serving && this.queue.size > 0;
  }

  /** Lets them send, turn by turn, as long as there is room. */
  serve(): void {
    this.serving = true;
    for (let next = this.first(); next; next = this.first()) {
      this.queue.delete(next);
      const more = next.resume(TURN_BYTES);
      // It waits again: there is no room any more.
      if (this.queue.has(next)) break;
      if (more) this.queue.add(next);
    }
    this.serving = false;
  }

  private first(): Waiter | undefined {
    return this.queue.values().next().value;
  }
}
