/**
 * The way from a network of guests to the world, through ordinary sockets of the host: no root, no device. To the
 * guests it is a host on their network: their router, DHCP server and name server.
 *
 *   .1 (gateway)    us: router, DHCP, DNS, answers to ping
 *   .2 (host)       the host's own loopback, if that is allowed; also who sends to a forwarded port from there
 *   .16 ...         given away by DHCP
 *
 * IPv4 only. TCP is terminated here on both sides (tcp/), UDP passes through sockets, of ICMP only echo requests.
 */
import {
  BROADCAST_MAC,
  formatIpv4,
  getMac,
  inSubnet,
  isGroup,
  netmask,
  putMac,
  type Subnet,
} from '../addresses.ts';
import { get16, get32, put16, put32 } from '../bytes.ts';
import { finish, fold, sum } from '../checksum.ts';
import {
  ARP,
  ARP_FORMAT,
  ARP_REPLY,
  ARP_REQUEST,
  ETHERNET,
  ETHERTYPE,
  ICMP,
  ICMP_TYPE,
  IPV4,
  PROTOCOL,
  UDP,
  UNREACHABLE,
} from '../headers.ts';
import { NO_OFFLOAD, OFFLOAD, type Offload } from '../offload.ts';
import { DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpServer } from './dhcp.ts';
import { DNS_PORT, DnsForwarder } from './dns.ts';
import type { HostListener, HostNetwork } from './host.ts';
import { Fragments, type Ipv4Packet, pseudoHeader, readIpv4, writeIpv4 } from './ipv4.ts';
import { mayForward } from './policy.ts';
import { TCP_HEADER } from './tcp/segment.ts';
import { TcpStack } from './tcp/stack.ts';
import type { Clock } from './tcp/types.ts';
import { TcpNat } from './tcp-nat.ts';
import { UdpNat } from './udp-nat.ts';

/** The network that Ethernet frames go to and come from. */
export interface NatLink {
  /**
   * Sends a frame, given in pieces, which are copied.
   * @returns false: no room; {@link Nat.room} is to be called once there is
   */
  send(pieces: readonly Uint8Array[], offload: Offload): boolean;
}

export interface NatOptions {
  readonly subnet: Subnet;
  readonly mac: number;
  /** Largest IP packet, bytes. */
  readonly mtu: number;
  /** Guests may reach what listens on the host's loopback. */
  readonly hostLoopback: boolean;
}

export type Protocol = 'tcp' | 'udp';

export interface PortForward {
  readonly protocol: Protocol;
  /** Address of the host to listen at. */
  readonly address: string;
  readonly port: number;
  readonly guestAddress: number;
  readonly guestPort: number;
}

const GATEWAY = 1;
const HOST = 2;
const FIRST_LEASE = 16;
/** Neighbours that are remembered. */
const NEIGHBOURS_MAX = 4096;
/** Neighbours whose Ethernet address is asked for, and packets that wait for each. */
const WAITING_MAX = 64;
const WAITING_EACH = 8;
/** Echo requests to others that are under way. */
const PINGS_MAX = 4;

export class Nat {
  readonly gateway: number;
  readonly hostAddress: number;
  readonly dhcp: DhcpServer;
  private readonly options: NatOptions;
  private readonly link: NatLink;
  private readonly network: HostNetwork;
  private readonly fragments: Fragments;
  private readonly dns: DnsForwarder;
  private readonly stack: TcpStack;
  private readonly tcp: TcpNat;
  private readonly udp: UdpNat;
  /** Ethernet addresses by IPv4 address. */
  private readonly neighbours = new Map<number, number>();
  private readonly waiting = new Map<number, { pieces: Uint8Array[]; offload: Offload }[]>();
  private pings = 0;
  private packetId = 0;
  private closed = false;

  /** @param random fills an array with random bytes */
  constructor(
    options: NatOptions,
    link: NatLink,
    network: HostNetwork,
    clock: Clock,
    random: (bytes: Uint8Array) => void,
  ) {
    const { subnet, mtu } = options;
    this.options = options;
    this.link = link;
    this.network = network;
    this.gateway = subnet.address + GATEWAY;
    this.hostAddress = subnet.address + HOST;
    const last = ((subnet.address | ~netmask(subnet.length)) >>> 0) - 1;
    this.dhcp = new DhcpServer(
      { subnet, server: this.gateway, first: subnet.address + FIRST_LEASE, last, mtu },
      clock,
    );
    this.fragments = new Fragments(clock);
    this.dns = new DnsForwarder(network, clock);
    this.stack = new TcpStack({
      clock,
      mss: mtu - IPV4.size - TCP_HEADER,
      send: (source, destination, pieces, offload) =>
        this.sendIp(source, destination, PROTOCOL.tcp, pieces, offload),
      onRequest: (request) => this.tcp.request(request),
      random: () => {
        const bytes = new Uint8Array(4);
        random(bytes);
        return get32(bytes, 0);
      },
    });
    const host = { network, hostAddress: this.hostAddress, hostAllowed: options.hostLoopback };
    this.tcp = new TcpNat({
      ...host,
      stack: this.stack,
      gateway: this.gateway,
      isLocal: (address) => inSubnet(address, subnet),
      service: (port) => (port === DNS_PORT ? this.dns.server : null),
    });
    this.udp = new UdpNat({ ...host, clock, send: (...parts) => this.sendUdp(...parts) });
  }

  /** TCP connections and UDP ports in use. */
  get flows(): { tcp: number; udp: number } {
    return { tcp: this.stack.size, udp: this.udp.size };
  }

  /** Takes a frame; a view is enough. Afterwards {@link settle}, once for all that came together. */
  receive(frame: Uint8Array, offload: Offload = NO_OFFLOAD): void {
    if (this.closed || frame.length < ETHERNET.size) return;
    const destination = getMac(frame, ETHERNET.destination);
    if (destination !== this.options.mac && !isGroup(destination)) return;
    const payload = frame.subarray(ETHERNET.size);
    const source = getMac(frame, ETHERNET.source);
    switch (get16(frame, ETHERNET.type)) {
      case ETHERTYPE.arp:
        this.receiveArp(payload);
        break;
      case ETHERTYPE.ipv4:
        this.receiveIp(payload, source, destination === this.options.mac, offload);
    }
  }

  settle(): void {
    this.stack.settle();
  }

  /** The link has room again. */
  room(): void {
    this.stack.room();
  }

  /**
   * Passes what comes to a port of the host on to a guest.
   * @returns what ends that, and the port @throws Error with the host's code, such as EADDRINUSE
   */
  forward({ protocol, ...forward }: PortForward): Promise<HostListener> {
    return protocol === 'tcp' ? this.tcp.forward(forward) : this.udp.forward(forward);
  }

  /** A guest is gone: its connections end. */
  drop(mac: number): void {
    for (const [address, owner] of this.neighbours) {
      if (owner !== mac) continue;
      this.neighbours.delete(address);
      this.stack.abort(address);
      this.udp.drop(address);
    }
  }

  close(): void {
    if (this.closed) return;
    this.tcp.close();
    this.udp.close();
    this.dns.close();
    this.closed = true;
  }

  // --- ARP ---

  private receiveArp(bytes: Uint8Array): void {
    if (bytes.length < ARP.size || get32(bytes, 0) !== ARP_FORMAT[0] || get16(bytes, 4) !== ARP_FORMAT[1])
      return;
    const senderMac = getMac(bytes, ARP.senderMac);
    const senderIp = get32(bytes, ARP.senderIp);
    const targetIp = get32(bytes, ARP.targetIp);
    const operation = get16(bytes, ARP.operation);
    if (senderIp !== 0 && !this.learn(senderIp, senderMac)) return;
    if (operation === ARP_REQUEST && this.isOurs(targetIp))
      this.sendArp(ARP_REPLY, targetIp, senderMac, senderIp);
  }

  private sendArp(operation: number, ourIp: number, mac: number, ip: number): boolean {
    const frame = new Uint8Array(ETHERNET.size + ARP.size);
    putMac(frame, ETHERNET.destination, operation === ARP_REQUEST ? BROADCAST_MAC : mac);
    putMac(frame, ETHERNET.source, this.options.mac);
    put16(frame, ETHERNET.type, ETHERTYPE.arp);
    const at = ETHERNET.size;
    put32(frame, at, ARP_FORMAT[0]);
    put16(frame, at + 4, ARP_FORMAT[1]);
    put16(frame, at + ARP.operation, operation);
    putMac(frame, at + ARP.senderMac, this.options.mac);
    put32(frame, at + ARP.senderIp, ourIp);
    putMac(frame, at + ARP.targetMac, operation === ARP_REQUEST ? 0 : mac);
    put32(frame, at + ARP.targetIp, ip);
    return this.link.send([frame], NO_OFFLOAD);
  }

  private isOurs(address: number): boolean {
    return address === this.gateway || address === this.hostAddress;
  }

  /** @returns false: the address is not that guest's */
  private learn(address: number, mac: number): boolean {
    if (isGroup(mac) || this.isOurs(address) || !inSubnet(address, this.options.subnet)) return false;
    const owner = this.dhcp.ownerOf(address);
    if (owner !== null && owner !== mac) return false;
    if (this.neighbours.get(address) !== mac) {
      this.neighbours.delete(address);
      this.neighbours.set(address, mac);
      if (this.neighbours.size > NEIGHBOURS_MAX) this.neighbours.delete(this.neighbours.keys().next().value!);
    }
    const held = this.waiting.get(address);
    if (held) {
      this.waiting.delete(address);
      for (const { pieces, offload } of held) this.sendFrame(mac, pieces, offload);
    }
    return true;
  }

  // --- IPv4 ---

  private receiveIp(bytes: Uint8Array, mac: number, direct: boolean, offload: Offload): void {
    let packet = readIpv4(bytes);
    if (!packet) return;
    const dhcp = packet.source === 0 && packet.protocol === PROTOCOL.udp;
    if (!dhcp && !this.learn(packet.source, mac)) return;
    if (packet.more || packet.offset > 0) packet = this.fragments.add(packet);
    if (!packet) return;
    switch (packet.protocol) {
      case PROTOCOL.tcp:
        if (direct && !dhcp) this.stack.receive(packet.source, packet.destination, packet.payload, offload);
        break;
      case PROTOCOL.udp:
        this.receiveUdp(packet, mac, direct, offload);
        break;
      case PROTOCOL.icmp:
        if (direct) this.receiveIcmp(packet);
    }
  }

  private receiveUdp(packet: Ipv4Packet, mac: number, direct: boolean, { flags }: Offload): void {
    const { source, destination, payload } = packet;
    if (payload.length < UDP.size) return;
    const length = get16(payload, UDP.length);
    if (length < UDP.size || length > payload.length) return;
    const datagram = payload.subarray(0, length);
    const unchecked = (flags & (OFFLOAD.csumBlank | OFFLOAD.validated)) !== 0;
    if (!unchecked && get16(datagram, UDP.checksum) !== 0) {
      const pseudo = pseudoHeader(source, destination, PROTOCOL.udp, length);
      if (fold(sum(datagram, 0, length, pseudo)) !== 0xffff) return;
    }
    const port = get16(datagram, UDP.destination);
    const sourcePort = get16(datagram, UDP.source);
    const bytes = datagram.slice(UDP.size);
    if (port === DHCP_SERVER_PORT && (destination === this.gateway || !direct)) {
      const reply = this.dhcp.receive(bytes, mac);
      if (reply) this.sendDhcp(reply.bytes, reply.destination, reply.mac);
      return;
    }
    if (source === 0 || !direct) return;
    if (destination === this.gateway) {
      if (port !== DNS_PORT) {
        this.sendUnreachable(packet, UNREACHABLE.port);
        return;
      }
      this.dns.receive(bytes, (answer) => this.sendUdp(this.gateway, DNS_PORT, source, sourcePort, answer));
      return;
    }
    const local = inSubnet(destination, this.options.subnet);
    if (destination !== this.hostAddress && (local || !mayForward(destination))) {
      this.sendUnreachable(packet, local ? UNREACHABLE.host : UNREACHABLE.prohibited);
      return;
    }
    this.udp.outward(source, sourcePort, destination, port, bytes);
  }

  private receiveIcmp(packet: Ipv4Packet): void {
    const { source, destination, payload } = packet;
    if (payload.length < ICMP.size || payload[ICMP.type] !== ICMP_TYPE.echo) return;
    if (fold(sum(payload, 0, payload.length)) !== 0xffff) return;
    const reply = payload.slice();
    reply[ICMP.type] = ICMP_TYPE.echoReply;
    put16(reply, ICMP.checksum, 0);
    put16(reply, ICMP.checksum, finish(sum(reply, 0, reply.length)));
    const answer = () => this.sendIp(destination, source, PROTOCOL.icmp, [reply], NO_OFFLOAD);
    const { hostLoopback, subnet } = this.options;
    if (destination === this.gateway || (destination === this.hostAddress && hostLoopback)) answer();
    else if (!inSubnet(destination, subnet) && mayForward(destination)) this.ping(destination, answer);
  }

  private ping(destination: number, answer: () => void): void {
    if (this.pings >= PINGS_MAX) return;
    this.pings++;
    const address = formatIpv4(destination);
    this.network
      .ping(address)
      .catch(() => null)
      .then((milliseconds) => {
        this.pings--;
        if (milliseconds !== null && !this.closed) answer();
      });
  }

  // --- Sending ---

  private sendDhcp(bytes: Uint8Array, destination: number | null, mac: number): void {
    const to = destination ?? 0xffff_ffff;
    const datagram = this.udpHeader(this.gateway, DHCP_SERVER_PORT, to, DHCP_CLIENT_PORT, bytes);
    const packet = this.ipHeader(this.gateway, to, PROTOCOL.udp, UDP.size + bytes.length);
    // Clients that have no address yet hear broadcasts for sure; only theirs is wanted here, so it goes to them.
    const offload: Offload = { ...NO_OFFLOAD, flags: OFFLOAD.csumBlank | OFFLOAD.validated };
    this.sendFrame(mac, [packet, datagram, bytes], offload);
  }

  private sendUdp(
    source: number,
    sourcePort: number,
    destination: number,
    port: number,
    bytes: Uint8Array,
  ): void {
    const header = this.udpHeader(source, sourcePort, destination, port, bytes);
    if (IPV4.size + UDP.size + bytes.length <= this.options.mtu) {
      const offload: Offload = { ...NO_OFFLOAD, flags: OFFLOAD.csumBlank | OFFLOAD.validated };
      this.sendIp(source, destination, PROTOCOL.udp, [header, bytes], offload);
      return;
    }
    // Nobody fills in the checksum of a datagram in fragments, so that is done here.
    const blank = get16(header, UDP.checksum);
    put16(header, UDP.checksum, 0);
    const total = sum(bytes, 0, bytes.length, sum(header, 0, UDP.size, blank));
    put16(header, UDP.checksum, finish(total) || 0xffff);
    const whole = new Uint8Array(UDP.size + bytes.length);
    whole.set(header);
    whole.set(bytes, UDP.size);
    this.sendFragments(source, destination, PROTOCOL.udp, whole);
  }

  private sendFragments(source: number, destination: number, protocol: number, whole: Uint8Array): void {
    const id = ++this.packetId & 0xffff;
    const most = (this.options.mtu - IPV4.size) & ~7;
    for (let at = 0; at < whole.length; at += most) {
      const part = whole.subarray(at, at + most);
      const header = new Uint8Array(IPV4.size);
      const more = at + most < whole.length;
      writeIpv4(header, 0, source, destination, protocol, part.length, id, at, more);
      this.sendTo(destination, [header, part], NO_OFFLOAD);
    }
  }

  /** With the sum of the pseudo-header for a checksum. */
  private udpHeader(
    source: number,
    sourcePort: number,
    destination: number,
    port: number,
    bytes: Uint8Array,
  ): Uint8Array {
    const header = new Uint8Array(UDP.size);
    const length = UDP.size + bytes.length;
    put16(header, UDP.source, sourcePort);
    put16(header, UDP.destination, port);
    put16(header, UDP.length, length);
    put16(header, UDP.checksum, fold(pseudoHeader(source, destination, PROTOCOL.udp, length)));
    return header;
  }

  private sendUnreachable({ source, destination, bytes }: Ipv4Packet, code: number): void {
    // The header and eight bytes of what could not be delivered (RFC 792).
    const quote = bytes.subarray(0, (bytes[0]! & 15) * 4 + 8);
    const message = new Uint8Array(ICMP.size + quote.length);
    message[ICMP.type] = ICMP_TYPE.unreachable;
    message[ICMP.code] = code;
    message.set(quote, ICMP.size);
    put16(message, ICMP.checksum, finish(sum(message, 0, message.length)));
    const from = this.isOurs(destination) ? destination : this.gateway;
    this.sendIp(from, source, PROTOCOL.icmp, [message], NO_OFFLOAD);
  }

  private ipHeader(source: number, destination: number, protocol: number, length: number): Uint8Array {
    const header = new Uint8Array(IPV4.size);
    writeIpv4(header, 0, source, destination, protocol, length);
    return header;
  }

  /** @returns false: no room */
  private sendIp(
    source: number,
    destination: number,
    protocol: number,
    pieces: readonly Uint8Array[],
    offload: Offload,
  ): boolean {
    const length = pieces.reduce((total, piece) => total + piece.length, 0);
    const header = this.ipHeader(source, destination, protocol, length);
    return this.sendTo(destination, [header, ...pieces], offload);
  }

  private sendTo(destination: number, pieces: Uint8Array[], offload: Offload): boolean {
    if (this.closed) return true;
    const mac = this.neighbours.get(destination);
    if (mac !== undefined) return this.sendFrame(mac, pieces, offload);
    if (!inSubnet(destination, this.options.subnet)) return true;
    const held = this.waiting.get(destination) ?? [];
    this.waiting.delete(destination);
    this.waiting.set(destination, held);
    if (this.waiting.size > WAITING_MAX) this.waiting.delete(this.waiting.keys().next().value!);
    // The newest of them are kept; the others are lost, as on any network.
    held.push({ pieces: pieces.map((piece) => piece.slice()), offload });
    if (held.length > WAITING_EACH) held.shift();
    return this.sendArp(ARP_REQUEST, this.gateway, 0, destination);
  }

  private sendFrame(mac: number, pieces: readonly Uint8Array[], offload: Offload): boolean {
    const ethernet = new Uint8Array(ETHERNET.size);
    putMac(ethernet, ETHERNET.destination, mac);
    putMac(ethernet, ETHERNET.source, this.options.mac);
    put16(ethernet, ETHERNET.type, ETHERTYPE.ipv4);
    return this.link.send([ethernet, ...pieces], offload);
  }
}
