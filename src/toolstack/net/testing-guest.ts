/** A guest for tests of the NAT: speaks ARP, IPv4, UDP and TCP to it, over a link that is a function call. */
import { BROADCAST_MAC, getMac, putMac } from '../../dom0/net/addresses.ts';
import { get16, get32, put16, put32 } from '../../dom0/net/bytes.ts';
import { fold, sum } from '../../dom0/net/checksum.ts';
import {
  ARP,
  ARP_FORMAT,
  ARP_REPLY,
  ARP_REQUEST,
  ETHERNET,
  ETHERTYPE,
  PROTOCOL,
  UDP,
} from '../../dom0/net/headers.ts';
import type { HostNetwork } from '../../dom0/net/nat/host.ts';
import { type Ipv4Packet, pseudoHeader, readIpv4, writeIpv4 } from '../../dom0/net/nat/ipv4.ts';
import { Nat, type NatOptions } from '../../dom0/net/nat/nat.ts';
import type { TcpConnection } from '../../dom0/net/nat/tcp/connection.ts';
import { TcpStack } from '../../dom0/net/nat/tcp/stack.ts';
import type { TcpEnd, TcpHandler } from '../../dom0/net/nat/tcp/types.ts';
import { NO_OFFLOAD, OFFLOAD, type Offload } from '../../dom0/net/offload.ts';
import { nodeClock } from './host-network.ts';

export const GUEST_MAC = 0x0016_3e00_0001;
export const GATEWAY_MAC = 0x0200_0a00_0201;

export interface Datagram {
  readonly source: number;
  readonly sourcePort: number;
  readonly port: number;
  readonly bytes: Uint8Array;
}

/** A TCP connection of the guest's, as tests like to see it. */
export class GuestTcp implements TcpHandler {
  connection!: TcpConnection;
  received: Uint8Array[] = [];
  established = false;
  ended = false;
  end: TcpEnd | null = null;
  /** Takes no more than what fits into the window. */
  lazy = false;
  private waiting: { test: () => boolean; done: () => void }[] = [];
  private rest: Uint8Array | null = null;

  onEstablished(): void {
    this.established = true;
    this.look();
  }
  onData(bytes: Uint8Array): void {
    this.received.push(bytes.slice());
    if (!this.lazy) this.connection.consumed(bytes.length);
    this.look();
  }
  onEnd(): void {
    this.ended = true;
    this.look();
  }
  onRoom(): void {
    if (this.rest) this.write(this.rest);
    this.look();
  }
  onClosed(end: TcpEnd): void {
    this.end = end;
    this.look();
  }

  write(bytes: Uint8Array): void {
    const taken = this.connection.write(bytes);
    this.rest = taken < bytes.length ? bytes.subarray(taken) : null;
  }

  get writing(): boolean {
    return this.rest !== null;
  }

  get length(): number {
    return this.received.reduce((total, { length }) => total + length, 0);
  }

  get bytes(): Buffer {
    return Buffer.concat(this.received);
  }

  /** Settles once the test holds. */
  until(test: () => boolean): Promise<void> {
    if (test()) return Promise.resolve();
    return new Promise((done) => this.waiting.push({ test, done }));
  }

  private look(): void {
    for (const each of this.waiting) if (each.test()) each.done();
    this.waiting = this.waiting.filter(({ test }) => !test());
  }
}

export class Guest {
  readonly nat: Nat;
  readonly stack: TcpStack;
  address = 0;
  /** Frames that came, other than TCP and ARP. */
  readonly packets: Ipv4Packet[] = [];
  readonly datagrams: Datagram[] = [];
  /** Loses everything. */
  deaf = false;
  gatewayMac = 0;
  largest = 0;
  private onPacket: (() => void)[] = [];

  constructor(options: NatOptions, network: HostNetwork) {
    const link = {
      send: (pieces: readonly Uint8Array[], offload: Offload) => {
        const frame = Uint8Array.from(Buffer.concat(pieces));
        if (!this.deaf) setImmediate(() => this.receive(frame, offload));
        return true;
      },
    };
    this.nat = new Nat(options, link, network, nodeClock, (bytes) => {
      for (let at = 0; at < bytes.length; at++) bytes[at] = Math.random() * 256;
    });
    this.stack = new TcpStack({
      clock: nodeClock,
      mss: options.mtu - 40,
      send: (_source, destination, pieces, offload) => {
        this.sendIp(destination, PROTOCOL.tcp, Uint8Array.from(Buffer.concat(pieces)), offload);
        return true;
      },
      onRequest: (request) =>
        this.onRequest?.(request.addresses.localPort, (handler) => request.accept(handler)!),
      random: () => Math.floor(Math.random() * 2 ** 32),
    });
  }

  onRequest: ((port: number, accept: (handler: TcpHandler) => TcpConnection) => void) | null = null;

  connect(
    remoteAddress: number,
    remotePort: number,
    localPort = 10_000 + Math.floor(Math.random() * 20_000),
  ): GuestTcp {
    const tcp = new GuestTcp();
    tcp.connection = this.stack.connect(
      { localAddress: this.address, localPort, remoteAddress, remotePort },
      tcp,
    )!;
    return tcp;
  }

  /** Gives a frame to the NAT. */
  sendFrame(destination: number, type: number, payload: Uint8Array, offload: Offload = NO_OFFLOAD): void {
    const frame = new Uint8Array(ETHERNET.size + payload.length);
    putMac(frame, ETHERNET.destination, destination);
    putMac(frame, ETHERNET.source, GUEST_MAC);
    put16(frame, ETHERNET.type, type);
    frame.set(payload, ETHERNET.size);
    setImmediate(() => {
      this.nat.receive(frame, offload);
      this.nat.settle();
    });
  }

  sendIp(
    destination: number,
    protocol: number,
    payload: Uint8Array,
    offload: Offload = NO_OFFLOAD,
    source = this.address,
  ): void {
    const packet = new Uint8Array(20 + payload.length);
    writeIpv4(packet, 0, source, destination, protocol, payload.length);
    packet.set(payload, 20);
    const mac = destination === 0xffff_ffff ? BROADCAST_MAC : GATEWAY_MAC;
    this.sendFrame(mac, ETHERTYPE.ipv4, packet, offload);
  }

  sendUdp(
    destination: number,
    port: number,
    bytes: Uint8Array,
    sourcePort: number,
    source = this.address,
  ): void {
    const datagram = new Uint8Array(UDP.size + bytes.length);
    put16(datagram, UDP.source, sourcePort);
    put16(datagram, UDP.destination, port);
    put16(datagram, UDP.length, datagram.length);
    datagram.set(bytes, UDP.size);
    this.sendIp(destination, PROTOCOL.udp, datagram, { ...NO_OFFLOAD, flags: OFFLOAD.csumBlank }, source);
  }

  askArp(target: number, sender = this.address): void {
    const bytes = new Uint8Array(ARP.size);
    put32(bytes, 0, ARP_FORMAT[0]);
    put16(bytes, 4, ARP_FORMAT[1]);
    put16(bytes, ARP.operation, ARP_REQUEST);
    putMac(bytes, ARP.senderMac, GUEST_MAC);
    put32(bytes, ARP.senderIp, sender);
    put32(bytes, ARP.targetIp, target);
    this.sendFrame(BROADCAST_MAC, ETHERTYPE.arp, bytes);
  }

  /** Waits for something to be true after a packet. */
  async until(test: () => boolean, milliseconds = 5000): Promise<void> {
    const end = Date.now() + milliseconds;
    while (!test()) {
      if (Date.now() > end) throw new Error('it did not come');
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 20);
        this.onPacket.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }

  private receive(frame: Uint8Array, offload: Offload): void {
    const payload = frame.subarray(ETHERNET.size);
    this.largest = Math.max(this.largest, frame.length);
    if (get16(frame, ETHERNET.type) === ETHERTYPE.arp) this.receiveArp(payload);
    else this.receiveIp(payload, offload);
    for (const work of this.onPacket.splice(0)) work();
  }

  private receiveArp(bytes: Uint8Array): void {
    if (get16(bytes, ARP.operation) === ARP_REPLY) {
      this.gatewayMac = getMac(bytes, ARP.senderMac);
      return;
    }
    if (get32(bytes, ARP.targetIp) !== this.address) return;
    const reply = bytes.slice();
    put16(reply, ARP.operation, ARP_REPLY);
    putMac(reply, ARP.senderMac, GUEST_MAC);
    put32(reply, ARP.senderIp, this.address);
    putMac(reply, ARP.targetMac, getMac(bytes, ARP.senderMac));
    put32(reply, ARP.targetIp, get32(bytes, ARP.senderIp));
    this.sendFrame(GATEWAY_MAC, ETHERTYPE.arp, reply);
  }

  private receiveIp(bytes: Uint8Array, offload: Offload): void {
    const packet = readIpv4(bytes);
    if (!packet) throw new Error('the NAT sent a broken packet');
    const { source, destination, protocol, payload } = packet;
    if (protocol === PROTOCOL.tcp) {
      const blank = fold(pseudoHeader(source, destination, protocol, payload.length));
      if (get16(payload, 16) !== blank) throw new Error('not the sum of the pseudo-header');
      this.stack.receive(source, destination, payload, offload);
      this.stack.settle();
      return;
    }
    this.packets.push(packet);
    if (protocol !== PROTOCOL.udp || packet.more || packet.offset > 0) return;
    if ((offload.flags & OFFLOAD.csumBlank) === 0) {
      const pseudo = pseudoHeader(source, destination, protocol, payload.length);
      if (fold(sum(payload, 0, payload.length, pseudo)) !== 0xffff) throw new Error('a wrong UDP checksum');
    }
    this.datagrams.push({
      source,
      sourcePort: get16(payload, UDP.source),
      port: get16(payload, UDP.destination),
      bytes: payload.subarray(UDP.size),
    });
  }
}
