/**
 * What offloads leave undone, done after all: for an interface whose front end cannot take a blank checksum or a
 * segment that is still to be cut up. It needs memory of its own to do it in, which all interfaces share.
 */
import type { Frames } from '../../machine/frames.ts';
import { type Memory, PAGE_SIZE } from '../../machine/memory.ts';
import { get16, get32, put16, put32 } from './bytes.ts';
import { finish, sum } from './checksum.ts';
import { ETHERNET, ETHERTYPE, IPV4, IPV6, PROTOCOL, UDP } from './headers.ts';
import { GSO, NO_OFFLOAD, OFFLOAD } from './offload.ts';
import { PACKET_MAX, Packet } from './packet.ts';

const TCP_SEQ = 4;
const TCP_OFFSET = 12;
const TCP_FLAGS = 13;
const TCP_CHECKSUM = 16;
const FIN_PSH = 0x09;
const CWR = 0x80;

const WHOLE_FRAMES = Math.ceil(PACKET_MAX / PAGE_SIZE);

/** Where the headers of a packet lie. */
interface Layout {
  /** Of IP and of what it carries, from the packet's start. */
  readonly ip: number;
  readonly transport: number;
  readonly version: 4 | 6;
  readonly protocol: number;
}

export class Segmentation {
  private readonly memory: Memory;
  /** Linear addresses: the whole packet, and one segment of it. */
  private readonly whole: number;
  private readonly part: number;
  private readonly packet: Packet;

  /** @throws OutOfFrames */
  constructor(memory: Memory, frames: Frames) {
    this.memory = memory;
    this.whole = frames.allocContiguous(WHOLE_FRAMES * 2) * PAGE_SIZE;
    this.part = this.whole + WHOLE_FRAMES * PAGE_SIZE;
    this.packet = new Packet(memory);
  }

  /**
   * Makes packets that need nothing any more out of one that does.
   * @param emit takes each; it holds only during the call
   * @returns false: its headers make no sense
   */
  complete(packet: Packet, emit: (packet: Packet) => void): boolean {
    packet.copyTo(this.whole);
    const layout = this.layout(packet.length);
    if (!layout) return false;
    return packet.gso === GSO.none
      ? this.fillIn(layout, packet.length, emit)
      : this.cutUp(layout, packet, emit);
  }

  private fillIn({ transport, protocol }: Layout, length: number, emit: (packet: Packet) => void): boolean {
    const { u8 } = this.memory;
    const field = this.whole + transport + (protocol === PROTOCOL.tcp ? TCP_CHECKSUM : UDP.checksum);
    // The field holds the pseudo-header's sum, which so is counted in.
    const value = finish(sum(u8, this.whole + transport, this.whole + length));
    put16(u8, field, protocol === PROTOCOL.udp ? value || 0xffff : value);
    this.emit(this.whole, length, emit);
    return true;
  }

  private cutUp(layout: Layout, packet: Packet, emit: (packet: Packet) => void): boolean {
    const { u8 } = this.memory;
    const { ip, transport, version, protocol } = layout;
    if (protocol !== PROTOCOL.tcp) return false;
    const at = this.whole + transport;
    const header = transport + (u8[at + TCP_OFFSET]! >>> 4) * 4;
    const { length, gsoSize } = packet;
    if (header > length || header < transport + 20 || gsoSize === 0) return false;
    const seq = get32(u8, at + TCP_SEQ);
    const flags = u8[at + TCP_FLAGS]!;
    const id = get16(u8, this.whole + ip + IPV4.id);
    for (let from = header, count = 0; from < length; from += gsoSize, count++) {
      const size = Math.min(gsoSize, length - from);
      const last = from + size === length;
      const to = this.part;
      this.memory.copy(to, this.whole, header);
      this.memory.copy(to + header, this.whole + from, size);
      const tcp = to + transport;
      put32(u8, tcp + TCP_SEQ, (seq + from - header) >>> 0);
      u8[tcp + TCP_FLAGS] = flags & (last ? 0xff : ~FIN_PSH) & (count === 0 ? 0xff : ~CWR);
      const end = to + header + size;
      const carried = end - tcp;
      if (version === 4) {
        put16(u8, to + ip + IPV4.length, end - to - ip);
        put16(u8, to + ip + IPV4.id, id + count);
        put16(u8, to + ip + IPV4.checksum, 0);
        put16(u8, to + ip + IPV4.checksum, finish(sum(u8, to + ip, tcp)));
      } else put16(u8, to + ip + IPV6.length, end - to - ip - IPV6.size);
      const addresses = to + ip + (version === 4 ? IPV4.source : IPV6.source);
      const pseudo = sum(u8, addresses, addresses + (version === 4 ? 8 : 32), protocol + carried);
      put16(u8, tcp + TCP_CHECKSUM, 0);
      put16(u8, tcp + TCP_CHECKSUM, finish(sum(u8, tcp, end, pseudo)));
      this.emit(to, end - to, emit);
    }
    return true;
  }

  private emit(address: number, length: number, emit: (packet: Packet) => void): void {
    this.packet.clear({ ...NO_OFFLOAD, flags: OFFLOAD.validated });
    this.packet.addRange(address, length);
    emit(this.packet);
  }

  private layout(length: number): Layout | null {
    const { u8 } = this.memory;
    const type = get16(u8, this.whole + ETHERNET.type);
    const tagged = type === ETHERTYPE.vlan;
    const ip = ETHERNET.size + (tagged ? 4 : 0);
    const at = this.whole + ip;
    const inner = tagged ? get16(u8, at - 2) : type;
    if (inner === ETHERTYPE.ipv4) {
      const transport = ip + (u8[at]! & 15) * 4;
      return this.checked({ ip, transport, version: 4, protocol: u8[at + IPV4.protocol]! }, length);
    }
    if (inner !== ETHERTYPE.ipv6) return null;
    return this.checked({ ip, transport: ip + IPV6.size, version: 6, protocol: u8[at + IPV6.next]! }, length);
  }

  private checked(layout: Layout, length: number): Layout | null {
    const { transport, protocol, ip, version } = layout;
    if (transport < ip + (version === 4 ? IPV4.size : IPV6.size)) return null;
    if (protocol === PROTOCOL.tcp) return transport + 20 <= length ? layout : null;
    return protocol === PROTOCOL.udp && transport + UDP.size <= length ? layout : null;
  }
}
