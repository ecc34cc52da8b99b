/**
 * The data plane of a virtual block device: takes requests off the guest's rings, checks them, maps the pages that
 * they name, and hands them to Domain 0's thread, which reads and writes those pages where they are. Reads, writes and
 * flushes of a file it carries out by itself, as long as that is quick (direct.ts); nothing is mapped for that.
 *
 * Nothing on a ring is believed. A request that makes no sense gets an error as its answer; a ring whose indices make
 * none ends the device. A request holds its pages until the host is done with them, whatever becomes of the guest.
 * What is under way at a time is bounded, by requests (the rings' entries) and by pages.
 */

import { PAGE_SIZE } from '../../machine/memory.ts';
import type { GrantStatus } from '../../xen/public/grant_table.ts';
import {
  BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST,
  BLKIF_MAX_SEGMENTS_PER_REQUEST,
  BLKIF_OP,
  BLKIF_REQUEST,
  BLKIF_REQUEST_DISCARD,
  BLKIF_REQUEST_INDIRECT,
  BLKIF_RESPONSE,
  BLKIF_RSP,
  BLKIF_SEGMENT,
  SECTOR_SIZE,
  SECTORS_PER_PAGE,
} from '../../xen/public/io/blkif.ts';
import { BackRing } from '../backend/back-ring.ts';
import type { DataPlane, GuestLink } from '../backend/data-plane.ts';
import { DirectDisk, type DirectFiles } from './direct.ts';
import { PersistentGrants } from './persistent-grants.ts';
import { DiskOp, DRAINED, FLUSH_FAILED, Outcome, outcomeOf, slotOf, type VbdParameters } from './wire.ts';

/** Segments of an indirect request, as offered to front ends (feature-max-indirect-segments). */
export const MAX_INDIRECT_SEGMENTS = 256;
/** Pages that requests may hold at a time; one more request may begin below that. */
const MAX_PAGES = 4096;
/** Pages that stay mapped for each ring. */
const PERSISTENT_PAGES = 1024;
/** Requests taken off a ring before the next ring, or another device, has its turn. */
const TURN = 64;
/** And bytes that it moves by itself before that. */
const TURN_BYTES = 512 << 10;
/** A flush counts as so many of them. */
const FLUSH_COST = TURN_BYTES / 4;

const SEGMENTS_PER_PAGE = PAGE_SIZE / BLKIF_SEGMENT.size;

interface Ring {
  readonly ring: BackRing;
  readonly port: number;
}

/** A request from when it was taken until it is answered. */
interface Slot {
  readonly ring: Ring;
  /** The guest's own number for it, 64 bits. */
  readonly idLow: number;
  readonly idHigh: number;
  readonly operation: number;
  readonly held: Pages;
  readonly pages: number;
  readonly intoGuest: boolean;
  readonly barrier: boolean;
}

/** The pages that a request names, and how they are had. */
interface Pages {
  /** Mappings of its own, to be ended with it. */
  readonly handles: number[];
  /** References of pages that stay mapped. */
  readonly persistent: number[];
  /** They are had for as long as this call lasts, and neither of these. */
  readonly briefly: boolean;
}

/** A page cannot be had briefly: the request's pages are to be mapped. */
const TO_BE_MAPPED = 'a page is to be mapped';

/** A request that is refused: with which status. */
class Refused {
  readonly status: number;

  constructor(status: number) {
    this.status = status;
  }
}

/** What goes on from here to the host: see wire.ts. */
interface Work {
  readonly op: DiskOp;
  readonly sector: number;
  readonly count: number;
  readonly pieces: readonly number[];
}

export class VbdPlane implements DataPlane {
  private readonly link: GuestLink;
  private readonly parameters: VbdParameters;
  private readonly rings: Ring[];
  private readonly grants: PersistentGrants | null;
  private readonly direct: DirectDisk | null;
  private readonly slots: (Slot | undefined)[] = [];
  private readonly freeSlots: number[] = [];
  private readonly entry = new Uint8Array(BLKIF_REQUEST.size);
  private readonly view = new DataView(this.entry.buffer);
  private readonly response = new Uint8Array(BLKIF_RESPONSE.size);
  private readonly responseView = new DataView(this.response.buffer);
  private inFlight = 0;
  /** Bytes that were moved by itself in this turn. */
  private moved = 0;
  private pages = 0;
  /** A barrier that waits for what is under way, or is under way itself: no request is taken meanwhile. */
  private barrier: { slot: number; work: Work } | 'under way' | null = null;
  private draining = false;
  private closed = false;
  /** Here, or on Domain 0's thread: that one knows then that none succeeds any more, and the host may not. */
  private flushFailed = false;

  /** @param files null: all requests go by Domain 0's thread */
  constructor(link: GuestLink, parameters: unknown, files: DirectFiles | null = null) {
    this.link = link;
    this.parameters = parameters as VbdParameters;
    const { rings, persistent, file } = this.parameters;
    this.direct = files === null || file === null ? null : new DirectDisk(files, file, link.now);
    this.rings = rings.map(({ refs, port }) => {
      const pages = refs.map((ref) => mapped(link.map(ref, false), `the ring's page ${ref}`));
      return { ring: new BackRing(link.memory, pages, BLKIF_REQUEST.size), port };
    });
    this.grants = persistent ? new PersistentGrants(link, PERSISTENT_PAGES * rings.length) : null;
    for (const { port } of this.rings)
      if (!link.bind(port)) throw new Error(`event channel ${port} cannot be bound`);
    // The front end may have asked before there was anybody to hear it.
    link.schedule();
  }

  onEvent(): void {
    if (this.takeAll()) this.link.schedule();
  }

  work(): boolean {
    return !this.closed && this.takeAll();
  }

  /** The only message is DRAIN: no further requests are taken. Tells DRAINED when all of them are answered. */
  onMessage(): void {
    this.draining = true;
    this.tellDrained();
  }

  /** A completion. */
  onSignal(signal: number): void {
    const number = slotOf(signal);
    const slot = this.slots[number];
    if (!slot) return;
    const outcome = outcomeOf(signal);
    if (outcome === Outcome.error && (slot.barrier || slot.operation === BLKIF_OP.FLUSH_DISKCACHE))
      this.flushFailed = true;
    this.finish(number, slot, outcome === Outcome.okay ? BLKIF_RSP.OKAY : failure(outcome));
    if (slot.barrier) this.barrier = null;
    if (this.closed) return;
    this.publish(slot.ring);
    if (this.takeAll()) this.link.schedule();
    this.tellDrained();
  }

  close(): boolean {
    this.closed = true;
    return this.idle();
  }

  idle(): boolean {
    return this.inFlight === 0;
  }

  private tellDrained(): void {
    if (this.draining && this.inFlight === 0) this.link.post(DRAINED);
  }

  // --- Rings ---

  /** Takes what is there from all rings. @returns true: there is more, but others come first */
  private takeAll(): boolean {
    const posted: number[] = [];
    let more = false;
    for (const ring of this.rings) if (this.takeFrom(ring, posted)) more = true;
    this.startBarrier(posted);
    if (posted.length > 0) this.link.post(posted);
    return more;
  }

  /** @returns true: there is more on it */
  private takeFrom(ring: Ring, posted: number[]): boolean {
    const { ring: shared } = ring;
    let answered = false;
    let more = false;
    this.moved = 0;
    // While the device is full, or at a barrier, its next completion looks at the rings again.
    for (let count = 0; this.barrier === null && this.pages < MAX_PAGES && !this.draining; count++) {
      if (shared.available() === 0 && !shared.moreRequests()) break;
      more = count === TURN || this.moved >= TURN_BYTES;
      if (more) break;
      shared.take(this.entry);
      if (!this.begin(ring, posted)) answered = true;
    }
    if (answered) this.publish(ring);
    return more;
  }

  private publish({ ring, port }: Ring): void {
    if (ring.publish()) this.link.notify(port);
  }

  private answer({ ring }: Ring, idLow: number, idHigh: number, operation: number, status: number): void {
    this.responseView.setUint32(BLKIF_RESPONSE.id, idLow, true);
    this.responseView.setUint32(BLKIF_RESPONSE.id + 4, idHigh, true);
    this.response[BLKIF_RESPONSE.operation] = operation;
    this.responseView.setInt16(BLKIF_RESPONSE.status, status, true);
    ring.put(this.response);
  }

  // --- Requests ---

  /** Begins the request in `entry`. @returns false: it was answered at once */
  private begin(ring: Ring, posted: number[]): boolean {
    const { view } = this;
    let operation = view.getUint8(BLKIF_REQUEST.operation);
    const idLow = view.getUint32(BLKIF_REQUEST.id, true);
    const idHigh = view.getUint32(BLKIF_REQUEST.id + 4, true);
    const indirect = operation === BLKIF_OP.INDIRECT;
    if (indirect) operation = view.getUint8(BLKIF_REQUEST_INDIRECT.indirect_op);
    const held: Pages = { handles: [], persistent: [], briefly: false };
    const intoGuest = operation === BLKIF_OP.READ;
    try {
      if (this.atOnce(operation, indirect)) {
        this.answer(ring, idLow, idHigh, operation, BLKIF_RSP.OKAY);
        return false;
      }
      const work = this.check(operation, indirect, held);
      const pages = held.handles.length + held.persistent.length;
      const barrier = work.op === DiskOp.barrier;
      const slot: Slot = { ring, idLow, idHigh, operation, held, pages, intoGuest, barrier };
      const number = this.freeSlots.pop() ?? this.slots.length;
      this.slots[number] = slot;
      this.inFlight++;
      this.pages += pages;
      if (work.op === DiskOp.write) this.direct?.writtenElsewhere(bytesOf(work.pieces));
      else if (work.op === DiskOp.flush) this.direct?.flushedElsewhere();
      if (barrier) this.barrier = { slot: number, work };
      else posted.push(number, work.op, work.sector, work.count, ...work.pieces);
      return true;
    } catch (error) {
      this.release(held, false);
      if (!(error instanceof Refused)) throw error;
      this.answer(ring, idLow, idHigh, operation, error.status);
      return false;
    }
  }

  /** Carries the request out, if that can be done here. @throws Refused */
  private atOnce(operation: number, indirect: boolean): boolean {
    const { direct } = this;
    if (direct === null) return false;
    if (operation === BLKIF_OP.FLUSH_DISKCACHE) return this.flushAtOnce(direct, indirect);
    if (!direct.ready || (operation !== BLKIF_OP.READ && operation !== BLKIF_OP.WRITE)) return false;
    let work: Work;
    try {
      work = this.check(operation, indirect, { handles: [], persistent: [], briefly: true });
    } catch (error) {
      if (error === TO_BE_MAPPED) return false;
      throw error;
    }
    const bytes = bytesOf(work.pieces);
    this.moved += bytes;
    return direct.move(work.op === DiskOp.write, work.sector * SECTOR_SIZE, bytes, work.pieces);
  }

  /** Flushes, if that is all that is asked for and it can be done here. */
  private flushAtOnce(direct: DirectDisk, indirect: boolean): boolean {
    const alone = !indirect && this.view.getUint8(BLKIF_REQUEST.nr_segments) === 0;
    if (!alone || this.flushFailed || !direct.readyToFlush) return false;
    this.moved += FLUSH_COST;
    if (direct.flush()) return true;
    // Domain 0's thread says so to the guest, and to the user.
    this.flushFailed = true;
    this.link.post(FLUSH_FAILED);
    return false;
  }

  /** What a request asks for. Pages that it maps are added to the lists. @throws Refused */
  private check(operation: number, indirect: boolean, held: Pages): Work {
    const { view, parameters } = this;
    switch (operation) {
      case BLKIF_OP.READ:
      case BLKIF_OP.WRITE:
      case BLKIF_OP.WRITE_BARRIER:
      case BLKIF_OP.FLUSH_DISKCACHE: {
        const write = operation !== BLKIF_OP.READ;
        if (indirect && operation !== BLKIF_OP.READ && operation !== BLKIF_OP.WRITE)
          throw new Refused(BLKIF_RSP.EOPNOTSUPP);
        if (write && parameters.readonly && operation !== BLKIF_OP.FLUSH_DISKCACHE)
          throw new Refused(BLKIF_RSP.ERROR);
        const count = indirect
          ? view.getUint16(BLKIF_REQUEST_INDIRECT.nr_segments, true)
          : view.getUint8(BLKIF_REQUEST.nr_segments);
        if (operation === BLKIF_OP.FLUSH_DISKCACHE && count === 0)
          return { op: DiskOp.flush, sector: 0, count: 0, pieces: [] };
        const emptyBarrier = operation === BLKIF_OP.WRITE_BARRIER && count === 0;
        if (count > (indirect ? MAX_INDIRECT_SEGMENTS : BLKIF_MAX_SEGMENTS_PER_REQUEST))
          throw new Refused(BLKIF_RSP.ERROR);
        if (count === 0 && !emptyBarrier) throw new Refused(BLKIF_RSP.ERROR);
        const pieces: number[] = [];
        const first = number64(view, BLKIF_REQUEST.sector_number);
        const sectors = indirect
          ? this.indirectSegments(count, !write, pieces, held)
          : this.segments(this.view, BLKIF_REQUEST.seg, count, !write, pieces, held);
        this.inside(first, sectors);
        // A flush with data is a write with nothing around it that waits: what a barrier does covers it.
        const op = !write ? DiskOp.read : operation === BLKIF_OP.WRITE ? DiskOp.write : DiskOp.barrier;
        return { op, sector: first, count: pieces.length / 2, pieces };
      }
      case BLKIF_OP.DISCARD: {
        if (indirect || !parameters.discard) throw new Refused(BLKIF_RSP.EOPNOTSUPP);
        if (parameters.readonly) throw new Refused(BLKIF_RSP.ERROR);
        const sector = number64(view, BLKIF_REQUEST_DISCARD.sector_number);
        const count = number64(view, BLKIF_REQUEST_DISCARD.nr_sectors);
        this.inside(sector, count);
        return { op: DiskOp.discard, sector, count, pieces: [] };
      }
      default:
        throw new Refused(BLKIF_RSP.EOPNOTSUPP);
    }
  }

  /** @throws Refused if sectors lie beyond the end */
  private inside(first: number, count: number): void {
    // Numbers beyond 2^53 are not exact, but are beyond the end of any disk.
    if (!(first + count <= this.parameters.sectors)) throw new Refused(BLKIF_RSP.ERROR);
  }

  /**
   * Maps the pages of segments.
   * @param pieces gets pairs of address and length; what lies side by side in memory becomes one
   * @returns how many sectors they are
   * @throws Refused
   */
  private segments(
    view: DataView,
    at: number,
    count: number,
    intoGuest: boolean,
    pieces: number[],
    held: Pages,
  ): number {
    let sectors = 0;
    for (let index = 0; index < count; index++) {
      const segment = at + index * BLKIF_SEGMENT.size;
      const first = view.getUint8(segment + BLKIF_SEGMENT.first_sect);
      const last = view.getUint8(segment + BLKIF_SEGMENT.last_sect);
      if (first > last || last >= SECTORS_PER_PAGE) throw new Refused(BLKIF_RSP.ERROR);
      const ref = view.getUint32(segment + BLKIF_SEGMENT.gref, true);
      const start = this.page(ref, intoGuest, held) + first * SECTOR_SIZE;
      const length = (last - first + 1) * SECTOR_SIZE;
      const end = pieces.length;
      if (end > 0 && pieces[end - 2]! + pieces[end - 1]! === start) pieces[end - 1]! += length;
      else pieces.push(start, length);
      sectors += last - first + 1;
    }
    return sectors;
  }

  private indirectSegments(count: number, intoGuest: boolean, pieces: number[], held: Pages): number {
    let sectors = 0;
    const pages = Math.ceil(count / SEGMENTS_PER_PAGE);
    if (pages > BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST) throw new Refused(BLKIF_RSP.ERROR);
    for (let page = 0; page < pages; page++) {
      const ref = this.view.getUint32(BLKIF_REQUEST_INDIRECT.indirect_grefs + page * 4, true);
      const here = Math.min(count - page * SEGMENTS_PER_PAGE, SEGMENTS_PER_PAGE);
      // A copy, so that what was checked is what is used.
      const table = this.readPage(ref, here * BLKIF_SEGMENT.size);
      sectors += this.segments(new DataView(table.buffer), 0, here, intoGuest, pieces, held);
    }
    return sectors;
  }

  private readPage(ref: number, length: number): Uint8Array<ArrayBuffer> {
    const { link } = this;
    const copy = new Uint8Array(length);
    const near = link.briefly(ref, false);
    if (near !== 0) {
      copy.set(link.memory.u8.subarray(near, near + length));
      return copy;
    }
    const page = link.map(ref, true);
    if (typeof page === 'number') throw new Refused(BLKIF_RSP.ERROR);
    copy.set(link.memory.u8.subarray(page.address, page.address + length));
    link.unmap(page.handle);
    return copy;
  }

  /** @returns linear address @throws Refused, TO_BE_MAPPED */
  private page(ref: number, intoGuest: boolean, { handles, persistent, briefly }: Pages): number {
    if (briefly) {
      const near = this.link.briefly(ref, intoGuest);
      if (near === 0) throw TO_BE_MAPPED;
      return near;
    }
    const kept = this.grants?.use(ref);
    if (kept !== undefined && kept !== 0) {
      persistent.push(ref);
      return kept;
    }
    const page = this.link.map(ref, !intoGuest);
    if (typeof page === 'number') throw new Refused(BLKIF_RSP.ERROR);
    handles.push(page.handle);
    return page.address;
  }

  /** A barrier begins when nothing else is under way. */
  private startBarrier(posted: number[]): void {
    if (this.barrier === null || this.barrier === 'under way' || this.inFlight > 1) return;
    const { slot, work } = this.barrier;
    posted.push(slot, work.op, work.sector, work.count, ...work.pieces);
    this.barrier = 'under way';
  }

  private finish(number: number, slot: Slot, status: number): void {
    this.slots[number] = undefined;
    this.freeSlots.push(number);
    this.inFlight--;
    this.pages -= slot.pages;
    this.release(slot.held, slot.intoGuest);
    if (!this.closed) this.answer(slot.ring, slot.idLow, slot.idHigh, slot.operation, status);
  }

  private release({ handles, persistent }: Pages, written: boolean): void {
    for (const handle of handles) this.link.unmap(handle);
    for (const ref of persistent) this.grants!.done(ref, written);
  }
}

/** @param pieces pairs of address and length */
function bytesOf(pieces: readonly number[]): number {
  let bytes = 0;
  for (let index = 1; index < pieces.length; index += 2) bytes += pieces[index]!;
  return bytes;
}

/** A number of 64 bits; from 2^53 on about. */
function number64(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 0x1_0000_0000;
}

function mapped(page: { address: number } | GrantStatus, what: string): number {
  if (typeof page === 'number') throw new Error(`${what} cannot be mapped (status ${page})`);
  return page.address;
}

function failure(outcome: Outcome): number {
  return outcome === Outcome.unsupported ? BLKIF_RSP.EOPNOTSUPP : BLKIF_RSP.ERROR;
}
