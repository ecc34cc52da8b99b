/**
 * UDP through sockets of the host: one for each port of a guest that sends, and one for each port that is forwarded
 * to a guest. What comes back reaches the guest only from addresses that it has sent to.
 */
import { formatIpv4, parseIpv4 } from '../addresses.ts';
import type { HostListener, HostNetwork, HostUdp, HostUdpEvents } from './host.ts';
import type { Clock } from './tcp/types.ts';

const IDLE_MS = 120_000;
const SWEEP_MS = 15_000;
/** Sockets of one guest, and of a network. */
const PER_GUEST = 256;
const IN_ALL = 1024;
/** Addresses that a guest's port has sent to, as far as is remembered. */
const PEERS_MAX = 256;
/** Ports of ours that stand for those who send to a forwarded port. */
const FIRST_CLIENT_PORT = 40_000;
const CLIENT_PORTS = 20_000;

export interface UdpNatHost {
  readonly clock: Clock;
  readonly network: HostNetwork;
  /** Address under which guests reach the host's own loopback, and whether they may. */
  readonly hostAddress: number;
  readonly hostAllowed: boolean;
  /** A datagram for a guest. */
  send(source: number, sourcePort: number, destination: number, port: number, bytes: Uint8Array): void;
}

export interface UdpForward {
  /** Of the host. */
  readonly address: string;
  readonly port: number;
  readonly guestAddress: number;
  readonly guestPort: number;
}

interface Mapping {
  readonly socket: HostUdp;
  readonly guest: number;
  used: number;
  /** Addresses it has sent to. */
  readonly peers: Set<string>;
}

interface Client {
  readonly address: string;
  readonly port: number;
  /** Where the guest's answers go. */
  readonly key: number;
  used: number;
}

interface Forward {
  readonly forward: UdpForward;
  readonly socket: HostUdp;
  /** By the port of ours that stands for it, and by its own address. */
  readonly byPort: Map<number, Client>;
  readonly byPeer: Map<string, Client>;
}

export class UdpNat {
  private readonly host: UdpNatHost;
  /** By address and port of the guest. The least lately made first. */
  private readonly mappings = new Map<number, Mapping>();
  private readonly forwards = new Set<Forward>();
  private nextClientPort = 0;
  private cancelSweep: (() => void) | null = null;

  constructor(host: UdpNatHost) {
    this.host = host;
  }

  get size(): number {
    return this.mappings.size;
  }

  /** A guest sends to the outside. @param bytes the callee's */
  outward(source: number, sourcePort: number, destination: number, port: number, bytes: Uint8Array): void {
    if (port === 0) return;
    const toHost = destination === this.host.hostAddress;
    if (toHost && this.answerClient(source, sourcePort, port, bytes)) return;
    if (toHost && !this.host.hostAllowed) return;
    const mapping = this.mapping(source, sourcePort);
    if (!mapping) return;
    const address = toHost ? '127.0.0.1' : formatIpv4(destination);
    mapping.used = this.host.clock.now();
    mapping.peers.add(address);
    if (mapping.peers.size > PEERS_MAX) mapping.peers.delete(mapping.peers.values().next().value!);
    mapping.socket.send(bytes, address, port);
  }

  /**
   * Passes datagrams to a port of the host on to a guest.
   * @throws Error with the host's code, such as EADDRINUSE
   */
  forward(forward: UdpForward): Promise<HostListener> {
    return new Promise((resolve, reject) => {
      const close = this.open(forward, {
        onReady: (port) => resolve({ port, close }),
        onError: (code) => reject(Object.assign(new Error(code), { code })),
      });
    });
  }

  private open(forward: UdpForward, events: Pick<HostUdpEvents, 'onReady' | 'onError'>): () => void {
    const socket = this.host.network.openUdp(
      { address: forward.address, port: forward.port },
      {
        ...events,
        onMessage: (bytes, address, port) => this.inward(entry, bytes, address, port),
        onError: (code) => {
          this.forwards.delete(entry);
          events.onError(code);
        },
      },
    );
    const entry: Forward = { forward, socket, byPort: new Map(), byPeer: new Map() };
    this.forwards.add(entry);
    return () => {
      if (this.forwards.delete(entry)) socket.close();
    };
  }

  /** A guest is gone. */
  drop(guest: number): void {
    for (const [key, mapping] of this.mappings) if (mapping.guest === guest) this.remove(key, mapping);
  }

  close(): void {
    this.cancelSweep?.();
    for (const [key, mapping] of this.mappings) this.remove(key, mapping);
    for (const { socket } of this.forwards) socket.close();
    this.forwards.clear();
  }

  private mapping(source: number, sourcePort: number): Mapping | null {
    const key = source * 0x1_0000 + sourcePort;
    const known = this.mappings.get(key);
    if (known) return known;
    this.makeRoom(source);
    const mapping: Mapping = {
      guest: source,
      used: this.host.clock.now(),
      peers: new Set(),
      socket: this.host.network.openUdp(null, {
        onMessage: (bytes, from, port) => {
          if (!mapping.peers.has(from)) return;
          mapping.used = this.host.clock.now();
          const address = from === '127.0.0.1' ? this.host.hostAddress : parseIpv4(from);
          if (address !== null) this.host.send(address, port, source, sourcePort, bytes);
        },
        onError: () => {
          if (this.mappings.get(key) === mapping) this.mappings.delete(key);
        },
      }),
    };
    this.mappings.set(key, mapping);
    this.sweepLater();
    return mapping;
  }

  /** The one that was not used for longest makes room: of the same guest, if that has its share. */
  private makeRoom(guest: number): void {
    let own = 0;
    for (const mapping of this.mappings.values()) if (mapping.guest === guest) own++;
    if (own < PER_GUEST && this.mappings.size < IN_ALL) return;
    let oldest: [number, Mapping] | null = null;
    for (const each of this.mappings) {
      if (own >= PER_GUEST && each[1].guest !== guest) continue;
      if (!oldest || each[1].used < oldest[1].used) oldest = each;
    }
    if (oldest) this.remove(...oldest);
  }

  private remove(key: number, mapping: Mapping): void {
    this.mappings.delete(key);
    mapping.socket.close();
  }

  private inward(entry: Forward, bytes: Uint8Array, address: string, port: number): void {
    const { forward, byPeer } = entry;
    const peer = `${address} ${port}`;
    const client = byPeer.get(peer) ?? this.newClient(entry, peer, address, port);
    if (!client) return;
    client.used = this.host.clock.now();
    this.host.send(this.host.hostAddress, client.key, forward.guestAddress, forward.guestPort, bytes);
  }

  private newClient(entry: Forward, peer: string, address: string, port: number): Client | null {
    if (entry.byPort.size >= PEERS_MAX) {
      const [oldest] = [...entry.byPort.values()].sort((a, b) => a.used - b.used);
      this.forget(entry, oldest!);
    }
    // The ports are many more than the clients of all forwards can be.
    let key: number;
    do key = FIRST_CLIENT_PORT + (this.nextClientPort++ % CLIENT_PORTS);
    while ([...this.forwards].some(({ byPort }) => byPort.has(key)));
    const client: Client = { address, port, key, used: this.host.clock.now() };
    entry.byPort.set(key, client);
    entry.byPeer.set(peer, client);
    this.sweepLater();
    return client;
  }

  private forget(entry: Forward, client: Client): void {
    entry.byPort.delete(client.key);
    entry.byPeer.delete(`${client.address} ${client.port}`);
  }

  /** @returns false: it is no answer to somebody who sent to a forwarded port */
  private answerClient(source: number, sourcePort: number, port: number, bytes: Uint8Array): boolean {
    for (const { forward, socket, byPort } of this.forwards) {
      if (forward.guestAddress !== source || forward.guestPort !== sourcePort) continue;
      const client = byPort.get(port);
      if (!client) continue;
      client.used = this.host.clock.now();
      socket.send(bytes, client.address, client.port);
      return true;
    }
    return false;
  }

  private sweepLater(): void {
    this.cancelSweep ??= this.host.clock.after(SWEEP_MS, () => {
      this.cancelSweep = null;
      this.sweep();
    });
  }

  private sweep(): void {
    const since = this.host.clock.now() - IDLE_MS;
    let left = 0;
    for (const [key, mapping] of this.mappings) if (mapping.used < since) this.remove(key, mapping);
    for (const entry of this.forwards) {
      for (const client of entry.byPort.values()) if (client.used < since) this.forget(entry, client);
      left += entry.byPort.size;
    }
    if (this.mappings.size + left > 0) this.sweepLater();
  }
}
