/** The TCP connections of one network: finds the one that a segment belongs to, and makes new ones. */

import { put16 } from '../../bytes.ts';
import { fold, sum } from '../../checksum.ts';
import { PROTOCOL } from '../../headers.ts';
import { GSO, OFFLOAD, type Offload } from '../../offload.ts';
import { pseudoHeader } from '../ipv4.ts';
import { TcpConnection } from './connection.ts';
import { buildHeader, parseSegment, type Segment, TCP, TCP_CHECKSUM } from './segment.ts';
import { BufferBudget } from './send-buffer.ts';
import { add } from './sequence.ts';
import type { Clock, TcpAddresses, TcpHandler, TcpLink } from './types.ts';

/** Bytes for the send buffers of all connections together. */
const BUDGET = 64 << 20;
/** Connections and SYNs that wait for an answer: of one guest, and in all. */
const PER_GUEST = 1024;
const IN_ALL = 8192;

/** A guest asks for a connection. Exactly one of the two is to be called, at any later time. */
export interface TcpRequest {
  readonly addresses: TcpAddresses;
  /** @returns null: the guest does not want it any more (the network was closed) */
  accept(handler: TcpHandler): TcpConnection | null;
  /** @param quiet without telling the guest */
  refuse(quiet?: boolean): void;
}

export interface TcpStackHost {
  readonly clock: Clock;
  /** Without headers. */
  readonly mss: number;
  /** @returns false: no room; {@link TcpStack.room} is called once there is */
  send(source: number, destination: number, pieces: readonly Uint8Array[], offload: Offload): boolean;
  /** A guest asks for a connection. */
  onRequest(request: TcpRequest): void;
  /** A u32 that nobody guesses. */
  random(): number;
}

type Entry = TcpConnection | 'pending';

export class TcpStack implements TcpLink {
  readonly clock: Clock;
  readonly mss: number;
  readonly tso = true;
  readonly budget = new BufferBudget(BUDGET);
  private readonly host: TcpStackHost;
  /** By the guest's end, then by ours. */
  private readonly table = new Map<number, Map<number, Entry>>();
  private readonly perGuest = new Map<number, number>();
  private count = 0;
  private readonly touched = new Set<TcpConnection>();
  private readonly blocked = new Set<TcpConnection>();
  /** In time-wait, the longest there first. */
  private readonly waiting = new Set<TcpConnection>();

  constructor(host: TcpStackHost) {
    this.host = host;
    this.clock = host.clock;
    this.mss = host.mss;
  }

  /** Connections, and requests for them. */
  get size(): number {
    return this.count;
  }

  /** @param bytes header and payload @param offload as it came with the packet */
  receive(source: number, destination: number, bytes: Uint8Array, { flags }: Offload): void {
    if ((flags & (OFFLOAD.csumBlank | OFFLOAD.validated)) === 0) {
      const pseudo = pseudoHeader(source, destination, PROTOCOL.tcp, bytes.length);
      if (fold(sum(bytes, 0, bytes.length, pseudo)) !== 0xffff) return;
    }
    const segment = parseSegment(bytes);
    if (!segment) return;
    const addresses: TcpAddresses = {
      localAddress: destination,
      localPort: segment.destinationPort,
      remoteAddress: source,
      remotePort: segment.sourcePort,
    };
    const entry = this.find(addresses);
    if (entry === 'pending') return;
    // A new connection may follow one that only waits for stray segments (RFC 9293, section 3.6.1).
    const fresh = (segment.flags & (TCP.SYN | TCP.ACK | TCP.RST)) === TCP.SYN;
    if (entry && !(fresh && entry.state === 'time-wait')) {
      entry.receive(segment);
      this.touched.add(entry);
      return;
    }
    entry?.giveWay();
    if (fresh) this.request(addresses, segment);
    else if ((segment.flags & TCP.RST) === 0) this.reset(addresses, segment);
  }

  /** All that came together has been received. */
  settle(): void {
    for (const connection of this.touched) connection.settle();
    this.touched.clear();
  }

  /** The network has room again. */
  room(): void {
    const waiting = [...this.blocked];
    this.blocked.clear();
    for (const connection of waiting) connection.settle();
  }

  /** A connection to a guest. @returns null: there are too many, or there is one between these ports */
  connect(addresses: TcpAddresses, handler: TcpHandler): TcpConnection | null {
    if (this.find(addresses) || !this.reserve(addresses)) return null;
    const connection = new TcpConnection(this, addresses, handler, this.host.random(), 'syn-sent');
    this.set(addresses, connection);
    connection.open();
    return connection;
  }

  inUse(addresses: TcpAddresses): boolean {
    return this.find(addresses) !== undefined;
  }

  /** Ends all connections, or a guest's. */
  abort(guest?: number): void {
    for (const ends of [...this.table.values()]) {
      for (const entry of [...ends.values()]) {
        if (entry === 'pending') continue;
        if (guest === undefined || entry.addresses.remoteAddress === guest) entry.abort();
      }
    }
  }

  send(connection: TcpConnection, header: Uint8Array, payload: readonly Uint8Array[], mss: number): boolean {
    if (this.emit(connection.addresses, header, payload, mss)) return true;
    this.blocked.add(connection);
    return false;
  }

  waits(connection: TcpConnection): void {
    this.waiting.add(connection);
  }

  closed(connection: TcpConnection): void {
    this.blocked.delete(connection);
    this.waiting.delete(connection);
    this.remove(connection.addresses);
  }

  private emit(
    { localAddress, remoteAddress }: TcpAddresses,
    header: Uint8Array,
    payload: readonly Uint8Array[],
    mss: number,
  ): boolean {
    const length = payload.reduce((total, piece) => total + piece.length, header.length);
    put16(header, TCP_CHECKSUM, fold(pseudoHeader(localAddress, remoteAddress, PROTOCOL.tcp, length)));
    const long = length - header.length > mss;
    const offload: Offload = {
      flags: OFFLOAD.csumBlank | OFFLOAD.validated,
      gso: long ? GSO.tcp4 : GSO.none,
      gsoSize: long ? mss : 0,
    };
    return this.host.send(localAddress, remoteAddress, [header, ...payload], offload);
  }

  private request(addresses: TcpAddresses, syn: Segment): void {
    // The guest asks again; maybe there is room then.
    if (!this.reserve(addresses)) return;
    this.set(addresses, 'pending');
    let answered = false;
    const answer = () => {
      const first = !answered && this.find(addresses) === 'pending';
      answered = true;
      return first;
    };
    const header: Segment = { ...syn, payload: syn.payload.subarray(0, 0) };
    this.host.onRequest({
      addresses,
      accept: (handler) => {
        if (!answer()) return null;
        const connection = new TcpConnection(this, addresses, handler, this.host.random(), 'syn-received');
        this.set(addresses, connection);
        connection.accept(header);
        return connection;
      },
      refuse: (quiet = false) => {
        if (!answer()) return;
        this.remove(addresses);
        if (!quiet) this.reset(addresses, header);
      },
    });
  }

  /** Refuses a segment for which there is no connection (RFC 9293, section 3.5.2). */
  private reset(addresses: TcpAddresses, segment: Segment): void {
    const { flags, payload } = segment;
    const acknowledges = (flags & TCP.ACK) !== 0;
    const length = payload.length + ((flags & TCP.SYN) !== 0 ? 1 : 0) + ((flags & TCP.FIN) !== 0 ? 1 : 0);
    const header = buildHeader({
      sourcePort: addresses.localPort,
      destinationPort: addresses.remotePort,
      seq: acknowledges ? segment.ack : 0,
      ack: acknowledges ? 0 : add(segment.seq, length),
      flags: acknowledges ? TCP.RST : TCP.RST | TCP.ACK,
      window: 0,
    });
    this.emit(addresses, header, [], this.mss);
  }

  // --- The table ---

  private find(addresses: TcpAddresses): Entry | undefined {
    return this.table.get(remoteKey(addresses))?.get(localKey(addresses));
  }

  /** Who only waits for stray segments makes room: short connections come faster than their waiting ends. */
  private reserve({ remoteAddress }: TcpAddresses): boolean {
    const used = () => this.perGuest.get(remoteAddress) ?? 0;
    if (used() >= PER_GUEST)
      find(this.waiting, ({ addresses }) => addresses.remoteAddress === remoteAddress)?.giveWay();
    if (this.count >= IN_ALL) find(this.waiting, () => true)?.giveWay();
    if (used() >= PER_GUEST || this.count >= IN_ALL) return false;
    this.perGuest.set(remoteAddress, used() + 1);
    this.count++;
    return true;
  }

  private set(addresses: TcpAddresses, entry: Entry): void {
    const key = remoteKey(addresses);
    let ends = this.table.get(key);
    if (!ends) {
      ends = new Map();
      this.table.set(key, ends);
    }
    ends.set(localKey(addresses), entry);
  }

  private remove(addresses: TcpAddresses): void {
    const key = remoteKey(addresses);
    const ends = this.table.get(key);
    if (!ends?.delete(localKey(addresses))) return;
    if (ends.size === 0) this.table.delete(key);
    this.count--;
    const left = (this.perGuest.get(addresses.remoteAddress) ?? 1) - 1;
    if (left === 0) this.perGuest.delete(addresses.remoteAddress);
    else this.perGuest.set(addresses.remoteAddress, left);
  }
}

function find<T>(all: Iterable<T>, test: (each: T) => boolean): T | undefined {
  for (const each of all) if (test(each)) return each;
  return undefined;
}

function remoteKey({ remoteAddress, remotePort }: TcpAddresses): number {
  return remoteAddress * 0x1_0000 + remotePort;
}

function localKey({ localAddress, localPort }: TcpAddresses): number {
  return localAddress * 0x1_0000 + localPort;
}
