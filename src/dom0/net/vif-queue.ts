/**
 * One queue of a network interface: a ring for what the guest sends, one for what it gets (public/io/netif.h).
 *
 * Sending: a packet's requests are taken off the ring, its bytes are mapped (or copied, if they are few), and it is
 * passed on where it lies; only then it is answered. Receiving: the guest offers empty pages, and a packet's pieces
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
import { GSO, OFFLOAD } from './offload.ts';
import { HEADER_BYTES, PACKET_MAX, Packet } from './packet.ts';

/** A packet up to this length is copied as a whole: that costs less than to map it. */
const COPY_MAX = PAGE_SIZE;
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

interface Slot {
  readonly gref: number;
  readonly offset: number;
  readonly id: number;
  size: number;
}

export class VifQueue {
  readonly description: QueueDescription;
  /** What is being sent, if {@link prepare} said so. */
  readonly packet: Packet;
  private readonly link: GuestLink;
  private readonly owner: QueueOwner;
  private readonly tx: BackRing;
  private readonly rx: BackRing;
  /** A page of ours for headers and for short packets. */
  private readonly scratch: number;
  private readonly mapped: number[] = [];
  private readonly entry = new Uint8Array(NETIF_TX_REQUEST.bytes);
  private readonly view = new DataView(this.entry.buffer);
  /** Of the packet being sent: its requests' ids, and how many extra infos follow the first. */
  private readonly ids: number[] = [];
  private extras = 0;
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
    this.scratch = link.frames.alloc() * PAGE_SIZE;
  }

  /** Gives back what is ours. The mappings end with the data plane. */
  close(): void {
    this.link.frames.release(this.scratch / PAGE_SIZE);
    if (this.keptAt !== 0) this.link.frames.release(this.keptAt / PAGE_SIZE, FRAME_RING_FRAMES);
    this.keptAt = 0;
    this.kept = null;
    this.unmapAll();
  }

  // --- What the guest sends ---

  /**
   * Takes the next packet off the ring, which is then in {@link packet} until {@link complete}.
   * @returns `again`: what there was is done already
   * @throws RingError
   */
  prepare(): Outgoing {
    const { tx } = this;
    if (tx.available() === 0 && !tx.moreRequests()) return 'none';
    this.ids.length = 0;
    this.extras = 0;
    const first = this.takeRequest();
    const offload = { flags: offloadOf(first.flags), gso: GSO.none as Packet['gso'], gsoSize: 0 };
    if ((first.flags & NETTXF.extra_info) !== 0) {
      const gso = this.takeExtras();
      if (gso === 'only-extras') return 'again';
      if (gso) Object.assign(offload, gso);
    }
    const slots: Slot[] = [first];
    let more = (first.flags & NETTXF.more_data) !== 0;
    let rest = first.size;
    while (more) {
      if (slots.length >= XEN_NETIF_NR_SLOTS_MIN) throw new RingError('a packet of too many requests');
      const slot = this.takeRequest();
      slots.push(slot);
      rest -= slot.size;
      more = (slot.flags & NETTXF.more_data) !== 0;
    }
    const total = first.size;
    // The first request says how long the whole is.
    slots[0]!.size = rest;
    this.packet.clear(offload);
    const sound =
      total >= ETHERNET.size &&
      rest >= 0 &&
      slots.every(({ offset, size }) => offset + size <= PAGE_SIZE) &&
      this.gather(slots, total);
    if (sound) return 'packet';
    this.complete(NETIF_RSP.ERROR);
    return 'again';
  }

  /** The packet has been passed on, or not. @param status NETIF_RSP */
  complete(status: number): void {
    this.unmapAll();
    const { tx, ids, view, entry } = this;
    const answer = (id: number, code: number) => {
      view.setUint16(NETIF_TX_RESPONSE.id, id, true);
      view.setInt16(NETIF_TX_RESPONSE.status, code, true);
      tx.put(entry.subarray(0, NETIF_TX_RESPONSE.bytes));
    };
    for (let index = 0; index < ids.length; index++) {
      answer(ids[index]!, status);
      if (index > 0) continue;
      for (let extra = 0; extra < this.extras; extra++) answer(0, NETIF_RSP.NULL);
    }
    if (++this.untold >= UNTOLD_MAX) this.tell();
    else if (this.untold === 1) this.owner.onUntold();
  }

  /** Shows the guest the answers that it has not seen. */
  tell(): void {
    if (this.untold === 0) return;
    this.untold = 0;
    if (this.tx.publish()) this.link.notify(this.description.txPort);
  }

  private takeRequest(): Slot & { flags: number } {
    const { tx, view, entry } = this;
    // A packet's requests are published together.
    if (tx.available() === 0) throw new RingError('a packet without its end');
    tx.take(entry);
    const slot = {
      gref: view.getUint32(NETIF_TX_REQUEST.gref, true),
      offset: view.getUint16(NETIF_TX_REQUEST.offset, true),
      flags: view.getUint16(NETIF_TX_REQUEST.flags, true),
      id: view.getUint16(NETIF_TX_REQUEST.id, true),
      size: view.getUint16(NETIF_TX_REQUEST.size, true),
    };
    this.ids.push(slot.id);
    return slot;
  }

  /** What stands between a packet's first request and the others. `only-extras`: there is no packet. */
  private takeExtras(): { gso: Packet['gso']; gsoSize: number } | 'only-extras' | null {
    const { tx, view, entry } = this;
    let gso: { gso: Packet['gso']; gsoSize: number } | null = null;
    let groups = false;
    let more = true;
    while (more) {
      if (tx.available() === 0) throw new RingError('extra infos without their end');
      tx.take(entry);
      this.extras++;
      const type = view.getUint8(NETIF_EXTRA_INFO.type);
      more = (view.getUint8(NETIF_EXTRA_INFO.flags) & XEN_NETIF_EXTRA_FLAG_MORE) !== 0;
      if (type === 0 || type >= XEN_NETIF_EXTRA_TYPE.MAX)
        throw new RingError(`an extra info of type ${type}`);
      if (type === XEN_NETIF_EXTRA_TYPE.GSO) gso = this.readGso();
      else if (type !== XEN_NETIF_EXTRA_TYPE.HASH) {
        groups = true;
        const add = type === XEN_NETIF_EXTRA_TYPE.MCAST_ADD;
        this.owner.onMulticast(getMac(entry, NETIF_EXTRA_INFO.mcast_addr), add);
      }
    }
    if (!groups) return gso;
    this.complete(NETIF_RSP.OKAY);
    return 'only-extras';
  }

  private readGso(): { gso: Packet['gso']; gsoSize: number } {
    const gsoSize = this.view.getUint16(NETIF_EXTRA_INFO.gso_size, true);
    const type = this.view.getUint8(NETIF_EXTRA_INFO.gso_type);
    if ((type !== GSO.tcp4 && type !== GSO.tcp6) || gsoSize === 0)
      throw new RingError(`segments of kind ${type} and size ${gsoSize}`);
    return { gso: type, gsoSize };
  }

  /** Makes the packet of its requests: the first bytes are copied, the rest is mapped. */
  private gather(slots: readonly Slot[], total: number): boolean {
    const { link, packet, scratch } = this;
    const copied = total <= COPY_MAX ? total : HEADER_BYTES;
    let at = 0;
    for (const slot of slots) {
      const piece = Math.min(slot.size, copied - at);
      if (piece > 0 && link.copyFrom(slot.gref, slot.offset, piece, scratch + at) < 0) return false;
      at += Math.max(piece, 0);
      if (at === copied) break;
    }
    packet.add(scratch, copied);
    let skip = copied;
    for (const slot of slots) {
      const passed = Math.min(skip, slot.size);
      skip -= passed;
      if (passed === slot.size) continue;
      const page = link.map(slot.gref, true);
      if (typeof page === 'number') return false;
      this.mapped.push(page.handle);
      packet.add(page.address + slot.offset + passed, slot.size - passed);
    }
    return true;
  }

  private unmapAll(): void {
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
      keptPacket.clear(frame);
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

  /** Copies a packet into the guest's pages. @returns false: it has offered too few */
  private put(packet: Packet): boolean {
    const { rx, link } = this;
    const extra = packet.gso === GSO.none ? 0 : 1;
    const needed = packet.pieces + extra;
    if (rx.available() < needed) {
      // Ask to be told of more, then look once more.
      if (!rx.moreRequests() || rx.available() < needed) return false;
    }
    let failed = false;
    for (let index = 0; index < packet.pieces; index++) {
      const { id, gref } = this.takeRx();
      const length = packet.lengths[index]!;
      failed ||= link.copyTo(gref, 0, length, packet.addresses[index]!) < 0;
      let flags = index + 1 < packet.pieces ? NETRXF.more_data : 0;
      if (index === 0) flags |= rxFlagsOf(packet.flags) | (extra > 0 ? NETRXF.extra_info : 0);
      this.answerRx(id, flags, failed ? NETIF_RSP.ERROR : length);
      if (index === 0 && extra > 0) {
        this.takeRx();
        this.putGso(packet);
      }
    }
    if (rx.publish()) link.notify(this.description.rxPort);
    return true;
  }

  private takeRx(): { id: number; gref: number } {
    const { rx, view, entry } = this;
    rx.take(entry.subarray(0, NETIF_RX_REQUEST.bytes));
    return {
      id: view.getUint16(NETIF_RX_REQUEST.id, true),
      gref: view.getUint32(NETIF_RX_REQUEST.gref, true),
    };
  }

  private answerRx(id: number, flags: number, status: number): void {
    const { view } = this;
    view.setUint16(NETIF_RX_RESPONSE.id, id, true);
    view.setUint16(NETIF_RX_RESPONSE.offset, 0, true);
    view.setUint16(NETIF_RX_RESPONSE.flags, flags, true);
    view.setInt16(NETIF_RX_RESPONSE.status, status, true);
    this.rx.put(this.entry.subarray(0, NETIF_RX_RESPONSE.bytes));
  }

  private putGso({ gso, gsoSize }: Packet): void {
    const { view } = this;
    this.entry.fill(0);
    view.setUint8(NETIF_EXTRA_INFO.type, XEN_NETIF_EXTRA_TYPE.GSO);
    view.setUint16(NETIF_EXTRA_INFO.gso_size, gsoSize, true);
    view.setUint8(NETIF_EXTRA_INFO.gso_type, gso);
    this.rx.put(this.entry.subarray(0, NETIF_EXTRA_INFO.bytes));
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
