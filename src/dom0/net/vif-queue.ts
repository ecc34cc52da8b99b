/**
 * One queue of a network interface: a ring for what the guest sends, one for what it gets (public/io/netif.h).
 *
 * Sending: a packet's requests are taken off the ring and it is passed on where it lies (or copied, if it is short);
 * only then it is answered. Its pages are not mapped for that: nobody else runs meanwhile. They are if it has to wait.
 * Receiving: the guest offers empty pages, and a packet's pieces
 * are copied into them. So between two guests each byte is copied once, and on no thread but this one.
 *
 * What is sent to a guest that has offered too few pages is kept, up to the size of a ring of frames; then it is lost.
 */
import { PAGE_SIZE } from '../../machine/memory.ts';
import {
  NETIF_EXTRA_INFO,
  NETIF_RSP,
  NETIF_RX_REQUEST,
  NETIF_RX_RESPONSE,
  NETIF_TX_REQUEST,
  NETIF_TX_RESPONSE,
  NETRXF,
  NETTXF,
  XEN_NETIF_EXTRA_FLAG_MORE,
  XEN_NETIF_EXTRA_TYPE,
  XEN_NETIF_NR_SLOTS_MIN,
} from '../../xen/public/io/netif.ts';
import { BackRing, RingError } from '../backend/back-ring.ts';
import type { GuestLink } from '../backend/data-plane.ts';
import { getMac } from './addresses.ts';
import { FRAME_RING_FRAMES, FrameRing } from './frame-ring.ts';
import { ETHERNET } from './headers.ts';
import { GSO, type Gso, OFFLOAD } from './offload.ts';
import { HEADER_BYTES, PACKET_MAX, Packet } from './packet.ts';

/** A packet up to this length is copied as a whole: that costs less than to map it. */
const COPY_MAX = PAGE_SIZE;
const SCRATCH_FRAMES = 2;
/** Answers to packets sent that wait until the guest is told, at most. */
const UNTOLD_MAX = 8;

/** Where the rings are. */
export interface QueueDescription {
  readonly txRing: number;
  readonly rxRing: number;
  readonly txPort: number;
  /** The same as txPort if the front end has but one. */
  readonly rxPort: number;
}

/** What a queue reports. */
export interface QueueOwner {
  /** The guest changes the list of groups that it listens to. */
  onMulticast(mac: number, add: boolean): void;
  /** Answers wait to be told: {@link VifQueue.tell} soon. */
  onUntold(): void;
}

/** What is asked for, and how much of it there is: a packet to be sent, or nothing yet. */
type Outgoing = 'none' | 'packet' | 'again';

/** The requests of a packet, one after the other; made once, used for every packet. */
class Slots {
  count = 0;
  readonly grefs = new Uint32Array(XEN_NETIF_NR_SLOTS_MIN);
  readonly offsets = new Uint16Array(XEN_NETIF_NR_SLOTS_MIN);
  readonly ids = new Uint16Array(XEN_NETIF_NR_SLOTS_MIN);
  readonly sizes = new Int32Array(XEN_NETIF_NR_SLOTS_MIN);
  /** Which of the packet's pieces lies in a page that is had only briefly; 0: none. */
  readonly pieces = new Uint8Array(XEN_NETIF_NR_SLOTS_MIN);
}

export class VifQueue {
  readonly description: QueueDescription;
  /** What is being sent, if {@link prepare} said so. It lies where it does only as long as the call lasts. */
  readonly packet: Packet;
  private readonly link: GuestLink;
  private readonly owner: QueueOwner;
  private readonly tx: BackRing;
  private readonly rx: BackRing;
  /** Two pages of ours: one for headers and for short packets, one on the way into pages that are had slowly. */
  private readonly scratch: number;
  private readonly bounce: number;
  private readonly mapped: number[] = [];
  private readonly slots = new Slots();
  /** Of the packet being sent: how many extra infos follow the first request. */
  private extras = 0;
  private gso: Gso = GSO.none;
  private gsoSize = 0;
  private untold = 0;
  /** Linear address of the ring that keeps what the guest has no room for; 0: none yet. */
  private keptAt = 0;
  private kept: FrameRing | null = null;
  private readonly keptPacket: Packet;

  /** @throws RingError, OutOfFrames, or Error: the front end's rings or ports are not there */
  constructor(link: GuestLink, description: QueueDescription, owner: QueueOwner) {
    this.link = link;
    this.owner = owner;
    this.description = description;
    this.packet = new Packet(link.memory);
    this.keptPacket = new Packet(link.memory);
    const { txRing, rxRing, txPort, rxPort } = description;
    const ring = (ref: number, entry: number) => {
      const page = link.map(ref, false);
      if (typeof page === 'number') throw new RingError(`a ring's page cannot be mapped (${page})`);
      return new BackRing(link.memory, [page.address], entry);
    };
    this.tx = ring(txRing, NETIF_TX_REQUEST.bytes);
    this.rx = ring(rxRing, NETIF_RX_RESPONSE.bytes);
    if (!link.bind(txPort) || (rxPort !== txPort && !link.bind(rxPort)))
      throw new RingError('an event channel of the front end is not there');
    this.scratch = link.frames.allocContiguous(SCRATCH_FRAMES) * PAGE_SIZE;
    this.bounce = this.scratch + PAGE_SIZE;
  }

  /**
   * Gives back what is ours. The mappings end with the data plane. The rings are left such that another back end can
   * go on with them: it begins behind the last answer that the guest can see.
   */
  close(): void {
    this.tell();
    this.link.frames.release(this.scratch / PAGE_SIZE, SCRATCH_FRAMES);
    if (this.keptAt !== 0) this.link.frames.release(this.keptAt / PAGE_SIZE, FRAME_RING_FRAMES);
    this.keptAt = 0;
    this.kept = null;
    this.unmapAll();
  }

  // --- What the guest sends ---

  /**
   * Takes the next packet off the ring, which is then in {@link packet}: until {@link complete}, or until the data
   * plane returns, whatever is first, unless {@link hold} is called before that.
   * @returns `again`: what there was is done already
   * @throws RingError
   */
  prepare(): Outgoing {
    const { tx, slots, packet } = this;
    if (tx.available() === 0 && !tx.moreRequests()) return 'none';
    if (this.untold >= UNTOLD_MAX) this.tell();
    slots.count = 0;
    this.extras = 0;
    this.gso = GSO.none;
    this.gsoSize = 0;
    const flags = this.takeRequest();
    if ((flags & NETTXF.extra_info) !== 0 && this.takeExtras()) {
      this.complete(NETIF_RSP.OKAY);
      return 'again';
    }
    const { sizes } = slots;
    // The first request says how long the whole is.
    const total = sizes[0]!;
    let rest = total;
    for (let more = flags & NETTXF.more_data; more !== 0; rest -= sizes[slots.count - 1]!) {
      if (slots.count >= XEN_NETIF_NR_SLOTS_MIN) throw new RingError('a packet of too many requests');
      more = this.takeRequest() & NETTXF.more_data;
    }
    sizes[0] = rest;
    packet.begin(offloadOf(flags), this.gso, this.gsoSize);
    if (total >= ETHERNET.size && rest >= 0 && this.sound() && this.gather(total)) return 'packet';
    this.complete(NETIF_RSP.ERROR);
    return 'again';
  }

  /** The packet is to be sent later: what it lies in is kept. @returns false: it cannot be, and is lost */
  hold(): boolean {
    const { link, slots, packet, mapped } = this;
    for (let index = 0; index < slots.count; index++) {
      const piece = slots.pieces[index]!;
      if (piece === 0) continue;
      const page = link.map(slots.grefs[index]!, true);
      if (typeof page === 'number') return false;
      mapped.push(page.handle);
      slots.pieces[index] = 0;
      packet.addresses[piece] = page.address + (packet.addresses[piece]! % PAGE_SIZE);
    }
    return true;
  }

  /** The packet has been passed on, or not. @param status NETIF_RSP */
  complete(status: number): void {
    this.unmapAll();
    const { tx, slots } = this;
    const { u16 } = this.link.memory;
    const answer = (id: number, code: number) => {
      const at = tx.putInPlace() >>> 1;
      u16[at + NETIF_TX_RESPONSE.id / 2] = id;
      u16[at + NETIF_TX_RESPONSE.status / 2] = code;
    };
    for (let index = 0; index < slots.count; index++) {
      answer(slots.ids[index]!, status);
      if (index > 0) continue;
      for (let extra = 0; extra < this.extras; extra++) answer(0, NETIF_RSP.NULL);
    }
    // A guest that goes on sending looks for answers after each packet: then it need not be signalled at all.
    tx.show();
    if (++this.untold === 1) this.owner.onUntold();
  }

  /** Tells the guest of answers, if it has not seen them by itself. */
  tell(): void {
    if (this.untold === 0) return;
    this.untold = 0;
    if (this.tx.awaited()) this.link.notify(this.description.txPort);
  }

  /** @returns its flags */
  private takeRequest(): number {
    const { tx, slots } = this;
    const { u16, u32 } = this.link.memory;
    // A packet's requests are published together.
    if (tx.available() === 0) throw new RingError('a packet without its end');
    const at = tx.takeInPlace();
    const index = slots.count++;
    slots.grefs[index] = u32[(at + NETIF_TX_REQUEST.gref) >>> 2]!;
    slots.offsets[index] = u16[(at + NETIF_TX_REQUEST.offset) >>> 1]!;
    slots.ids[index] = u16[(at + NETIF_TX_REQUEST.id) >>> 1]!;
    slots.sizes[index] = u16[(at + NETIF_TX_REQUEST.size) >>> 1]!;
    return u16[(at + NETIF_TX_REQUEST.flags) >>> 1]!;
  }

  /** What stands between a packet's first request and the others. @returns true: there is no packet */
  private takeExtras(): boolean {
    const { tx } = this;
    const { u8 } = this.link.memory;
    let groups = false;
    let more = true;
    while (more) {
      if (tx.available() === 0) throw new RingError('extra infos without their end');
      const at = tx.takeInPlace();
      const info = u8.slice(at, at + NETIF_EXTRA_INFO.bytes);
      this.extras++;
      const type = info[NETIF_EXTRA_INFO.type]!;
      more = (info[NETIF_EXTRA_INFO.flags]! & XEN_NETIF_EXTRA_FLAG_MORE) !== 0;
      if (type === 0 || type >= XEN_NETIF_EXTRA_TYPE.MAX)
        throw new RingError(`an extra info of type ${type}`);
      if (type === XEN_NETIF_EXTRA_TYPE.GSO) this.readGso(info);
      else if (type !== XEN_NETIF_EXTRA_TYPE.HASH) {
        groups = true;
        const add = type === XEN_NETIF_EXTRA_TYPE.MCAST_ADD;
        this.owner.onMulticast(getMac(info, NETIF_EXTRA_INFO.mcast_addr), add);
      }
    }
    return groups;
  }

  private readGso(info: Uint8Array): void {
    const size = info[NETIF_EXTRA_INFO.gso_size]! | (info[NETIF_EXTRA_INFO.gso_size + 1]! << 8);
    const type = info[NETIF_EXTRA_INFO.gso_type]!;
    if ((type !== GSO.tcp4 && type !== GSO.tcp6) || size === 0)
      throw new RingError(`segments of kind ${type} and size ${size}`);
    this.gso = type;
    this.gsoSize = size;
  }

  /** Does each request stay within its page? */
  private sound(): boolean {
    const { count, offsets, sizes } = this.slots;
    for (let index = 0; index < count; index++) if (offsets[index]! + sizes[index]! > PAGE_SIZE) return false;
    return true;
  }

  /** Makes the packet of its requests: the first bytes are copied, the rest stays where it is. */
  private gather(total: number): boolean {
    const { link, packet, scratch, slots } = this;
    const { grefs, offsets, sizes, pieces } = slots;
    const copied = total <= COPY_MAX ? total : HEADER_BYTES;
    packet.add(scratch, copied);
    let at = 0;
    for (let index = 0; index < slots.count; index++) {
      const gref = grefs[index]!;
      const offset = offsets[index]!;
      const size = sizes[index]!;
      const piece = Math.min(size, copied - at);
      if (piece > 0 && link.copyFrom(gref, offset, piece, scratch + at) < 0) return false;
      at += piece;
      pieces[index] = 0;
      if (piece === size) continue;
      let address = link.briefly(gref, false);
      if (address === 0) {
        const page = link.map(gref, true);
        if (typeof page === 'number') return false;
        this.mapped.push(page.handle);
        address = page.address;
      } else pieces[index] = packet.pieces;
      packet.add(address + offset + piece, size - piece);
    }
    return true;
  }

  private unmapAll(): void {
    if (this.mapped.length === 0) return;
    for (const handle of this.mapped) this.link.unmap(handle);
    this.mapped.length = 0;
  }

  // --- What the guest gets ---

  /** @returns false: it is lost @throws RingError */
  deliver(packet: Packet): boolean {
    if (this.kept && !this.kept.empty) return this.keep(packet);
    return this.put(packet) || this.keep(packet);
  }

  /** The guest may have offered pages: what was kept for it goes on. @throws RingError */
  resume(): void {
    const { kept, keptPacket } = this;
    if (!kept) return;
    for (let frame = kept.next(); frame; frame = kept.next()) {
      keptPacket.begin(frame.flags, frame.gso, frame.gsoSize);
      keptPacket.addRange(frame.address, frame.length);
      if (!this.put(keptPacket)) return;
      kept.release(frame);
    }
  }

  private keep(packet: Packet): boolean {
    if (packet.length > PACKET_MAX) return false;
    if (this.keptAt === 0) {
      try {
        this.keptAt = this.link.frames.allocContiguous(FRAME_RING_FRAMES) * PAGE_SIZE;
      } catch {
        // A machine without memory loses packets, nothing else.
        return false;
      }
      this.kept = new FrameRing(this.link.memory, this.keptAt);
    }
    const address = this.kept!.reserve(packet.length);
    if (address === 0) return false;
    packet.copyTo(address);
    this.kept!.commit(address, packet.length, packet);
    return true;
  }

  /**
   * Copies a packet into the guest's pages, which are filled one after the other: each costs the guest the same,
   * however much is in it.
   * @returns false: it has offered too few
   */
  private put(packet: Packet): boolean {
    const { rx } = this;
    const extra = packet.gso === GSO.none ? 0 : 1;
    const pages = Math.ceil(packet.length / PAGE_SIZE);
    if (!rx.awaitRequests(pages + extra)) return false;
    const { u16, u32 } = this.link.memory;
    let failed = false;
    for (let index = 0; index < pages; index++) {
      const request = rx.takeInPlace();
      const id = u16[(request + NETIF_RX_REQUEST.id) >>> 1]!;
      const gref = u32[(request + NETIF_RX_REQUEST.gref) >>> 2]!;
      const from = index * PAGE_SIZE;
      const length = Math.min(PAGE_SIZE, packet.length - from);
      failed ||= !this.fill(gref, packet, from, length);
      let flags = index + 1 < pages ? NETRXF.more_data : 0;
      if (index === 0) flags |= rxFlagsOf(packet.flags) | (extra > 0 ? NETRXF.extra_info : 0);
      const at = rx.putInPlace() >>> 1;
      u16[at + NETIF_RX_RESPONSE.id / 2] = id;
      u16[at + NETIF_RX_RESPONSE.offset / 2] = 0;
      u16[at + NETIF_RX_RESPONSE.flags / 2] = flags;
      u16[at + NETIF_RX_RESPONSE.status / 2] = failed ? NETIF_RSP.ERROR : length;
      if (index === 0 && extra > 0) {
        rx.takeInPlace();
        this.putGso(packet);
      }
    }
    if (rx.publish()) this.link.notify(this.description.rxPort);
    return true;
  }

  /** Copies a part of a packet to the start of a page. @returns false: the page cannot be had */
  private fill(gref: number, packet: Packet, from: number, length: number): boolean {
    const { link } = this;
    const page = link.briefly(gref, true);
    if (page !== 0) {
      packet.copyPart(page, from, length);
      return true;
    }
    packet.copyPart(this.bounce, from, length);
    return link.copyTo(gref, 0, length, this.bounce) >= 0;
  }

  private putGso({ gso, gsoSize }: Packet): void {
    const { u8 } = this.link.memory;
    const at = this.rx.putInPlace();
    u8.fill(0, at, at + NETIF_EXTRA_INFO.bytes);
    u8[at + NETIF_EXTRA_INFO.type] = XEN_NETIF_EXTRA_TYPE.GSO;
    u8[at + NETIF_EXTRA_INFO.gso_size] = gsoSize;
    u8[at + NETIF_EXTRA_INFO.gso_size + 1] = gsoSize >>> 8;
    u8[at + NETIF_EXTRA_INFO.gso_type] = gso;
  }
}

function offloadOf(flags: number): number {
  return (
    ((flags & NETTXF.csum_blank) !== 0 ? OFFLOAD.csumBlank : 0) |
    ((flags & NETTXF.data_validated) !== 0 ? OFFLOAD.validated : 0)
  );
}

function rxFlagsOf(flags: number): number {
  // A blank checksum cannot be wrong.
  if ((flags & OFFLOAD.csumBlank) !== 0) return NETRXF.csum_blank | NETRXF.data_validated;
  return (flags & OFFLOAD.validated) !== 0 ? NETRXF.data_validated : 0;
}
