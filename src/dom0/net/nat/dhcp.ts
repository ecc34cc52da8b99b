/**
 * A DHCP server (RFC 2131, 2132) for the guests of one network. A lease is a guest's for as long as there are free
 * addresses; then the oldest that has run out goes to somebody else. Addresses that the toolstack promised to a
 * guest are never given to another.
 */
import { getMac, netmask, type Subnet } from '../addresses.ts';
import { get32, put16, put32 } from '../bytes.ts';
import type { Clock } from './tcp/types.ts';

export const DHCP_SERVER_PORT = 67;
export const DHCP_CLIENT_PORT = 68;

/** Fields of the message. */
const AT = {
  op: 0,
  xid: 4,
  flags: 10,
  ciaddr: 12,
  yiaddr: 16,
  siaddr: 20,
  giaddr: 24,
  chaddr: 28,
  cookie: 236,
  options: 240,
} as const;
const COOKIE = 0x6382_5363;
const BOOTREQUEST = 1;
const BOOTREPLY = 2;
/** Replies are this long at least (RFC 1542, section 2.1). */
const LEAST_LENGTH = 300;

const OPTION = {
  subnet: 1,
  router: 3,
  dns: 6,
  mtu: 26,
  broadcast: 28,
  requestedIp: 50,
  leaseTime: 51,
  messageType: 53,
  serverId: 54,
  end: 255,
} as const;

const MESSAGE = {
  discover: 1,
  offer: 2,
  request: 3,
  decline: 4,
  ack: 5,
  nak: 6,
  release: 7,
  inform: 8,
} as const;

const LEASE_S = 24 * 3600;
/** For an offer that nobody took up. */
const OFFER_S = 60;

export interface DhcpOptions {
  readonly subnet: Subnet;
  /** Ours; also the router and the name server. */
  readonly server: number;
  /** First and last address to give away. */
  readonly first: number;
  readonly last: number;
  readonly mtu: number;
}

interface Lease {
  readonly mac: number;
  /** Milliseconds. */
  until: number;
}

/** An answer, and whom it goes to. */
export interface DhcpReply {
  readonly bytes: Uint8Array;
  /** IPv4 address; null: broadcast. */
  readonly destination: number | null;
  readonly mac: number;
}

export class DhcpServer {
  private readonly options: DhcpOptions;
  private readonly clock: Clock;
  /** By address. At most as many as there are addresses. */
  private readonly leases = new Map<number, Lease>();
  private readonly reserved = new Map<number, number>();

  constructor(options: DhcpOptions, clock: Clock) {
    this.options = options;
    this.clock = clock;
  }

  /** Promises an address to a guest. It need not lie in the range that is given away. */
  reserve(mac: number, address: number): void {
    this.reserved.set(address, mac);
    this.leases.delete(address);
  }

  unreserve(address: number): void {
    this.reserved.delete(address);
  }

  /** Decides now which address a guest will get. @returns null: there is none left */
  promise(mac: number): number | null {
    const address = this.choose(mac, 0);
    if (address !== null) this.lease(mac, address, LEASE_S);
    return address;
  }

  /** Whose an address is, or null: nobody's whom we know of. */
  ownerOf(address: number): number | null {
    const lease = this.leases.get(address);
    return this.reserved.get(address) ?? (lease && lease.until > this.clock.now() ? lease.mac : null);
  }

  /** The address that a guest has, or null. */
  addressOf(mac: number): number | null {
    for (const [address, owner] of this.reserved) if (owner === mac) return address;
    for (const [address, lease] of this.leases) if (lease.mac === mac) return address;
    return null;
  }

  /**
   * @param bytes payload of a UDP datagram to our port
   * @param sender the frame's source: a guest speaks for itself alone, or it could use up all addresses
   * @returns null: no answer
   */
  receive(bytes: Uint8Array, sender: number): DhcpReply | null {
    if (bytes.length < AT.options || bytes[AT.op] !== BOOTREQUEST) return null;
    // Ethernet, directly, with DHCP's options.
    if (bytes[1] !== 1 || bytes[2] !== 6 || get32(bytes, AT.giaddr) !== 0) return null;
    if (get32(bytes, AT.cookie) !== COOKIE) return null;
    const options = readOptions(bytes);
    const number = (option: number) => {
      const value = options.get(option);
      return value?.length === 4 ? get32(value, 0) : null;
    };
    const mac = getMac(bytes, AT.chaddr);
    if (mac !== sender) return null;
    const current = get32(bytes, AT.ciaddr);
    const wanted = number(OPTION.requestedIp);
    switch (options.get(OPTION.messageType)?.[0]) {
      case MESSAGE.discover: {
        const address = this.choose(mac, wanted ?? current);
        if (address === null) return null;
        this.lease(mac, address, OFFER_S);
        return this.reply(bytes, MESSAGE.offer, mac, address);
      }
      case MESSAGE.request: {
        const server = number(OPTION.serverId);
        // It took somebody else's offer.
        if (server !== null && server !== this.options.server) return null;
        const asked = wanted ?? current;
        if (asked === 0 || this.choose(mac, asked) !== asked)
          return this.reply(bytes, MESSAGE.nak, mac, null);
        this.lease(mac, asked, LEASE_S);
        return this.reply(bytes, MESSAGE.ack, mac, asked);
      }
      case MESSAGE.inform:
        return this.reply(bytes, MESSAGE.ack, mac, null);
      case MESSAGE.release:
      case MESSAGE.decline: {
        const address = wanted ?? current;
        if (this.leases.get(address)?.mac === mac) this.leases.delete(address);
        return null;
      }
      default:
        return null;
    }
  }

  /** Its own address, the one that it would like if that is free, or any. */
  private choose(mac: number, wanted: number): number | null {
    const own = this.addressOf(mac);
    if (own !== null) return own;
    if (this.free(wanted)) return wanted;
    const { first, last } = this.options;
    let oldest: number | null = null;
    for (let address = first; address <= last; address++) {
      if (this.reserved.has(address)) continue;
      const lease = this.leases.get(address);
      if (!lease) return address;
      if (lease.until > this.clock.now()) continue;
      if (oldest === null || lease.until < this.leases.get(oldest)!.until) oldest = address;
    }
    return oldest;
  }

  private free(address: number): boolean {
    const { first, last } = this.options;
    if (address < first || address > last || this.reserved.has(address)) return false;
    const lease = this.leases.get(address);
    return !lease || lease.until <= this.clock.now();
  }

  private lease(mac: number, address: number, seconds: number): void {
    if (this.reserved.has(address)) return;
    const until = this.clock.now() + seconds * 1000;
    const before = this.leases.get(address);
    this.leases.set(address, { mac, until: before?.mac === mac ? Math.max(before.until, until) : until });
  }

  private reply(request: Uint8Array, type: number, mac: number, address: number | null): DhcpReply {
    const { server, subnet, mtu } = this.options;
    const bytes = new Uint8Array(LEAST_LENGTH);
    bytes.set(request.subarray(0, AT.chaddr + 16));
    bytes[AT.op] = BOOTREPLY;
    bytes[3] = 0;
    put16(bytes, 8, 0);
    put32(bytes, AT.yiaddr, address ?? 0);
    put32(bytes, AT.siaddr, 0);
    if (type === MESSAGE.nak) put32(bytes, AT.ciaddr, 0);
    put32(bytes, AT.cookie, COOKIE);
    let at: number = AT.options;
    const option = (code: number, length: number, ...words: number[]) => {
      bytes[at] = code;
      bytes[at + 1] = length * words.length;
      at += 2;
      for (const word of words) {
        if (length === 1) bytes[at] = word;
        else if (length === 2) put16(bytes, at, word);
        else put32(bytes, at, word);
        at += length;
      }
    };
    option(OPTION.messageType, 1, type);
    option(OPTION.serverId, 4, server);
    if (type !== MESSAGE.nak) {
      if (address !== null) option(OPTION.leaseTime, 4, LEASE_S);
      const mask = netmask(subnet.length);
      option(OPTION.subnet, 4, mask);
      option(OPTION.broadcast, 4, (subnet.address | ~mask) >>> 0);
      option(OPTION.router, 4, server);
      option(OPTION.dns, 4, server);
      option(OPTION.mtu, 2, mtu);
    }
    bytes[at] = OPTION.end;
    const current = get32(request, AT.ciaddr);
    const direct = type !== MESSAGE.nak && current !== 0;
    return { bytes, destination: direct ? current : null, mac };
  }
}

function readOptions(bytes: Uint8Array): Map<number, Uint8Array> {
  const options = new Map<number, Uint8Array>();
  for (let at: number = AT.options; at < bytes.length && bytes[at] !== OPTION.end; ) {
    const code = bytes[at]!;
    if (code === 0) {
      at++;
      continue;
    }
    const length = bytes[at + 1] ?? 0;
    if (at + 2 + length > bytes.length) break;
    options.set(code, bytes.subarray(at + 2, at + 2 + length));
    at += 2 + length;
  }
  return options;
}
