/**
 * The receiving half of a connection: which bytes are next, which window the peer was told of, what is to be
 * acknowledged. What was offered as window is never taken back.
 */
import { Reassembly } from './reassembly.ts';
import { type Segment, TCP } from './segment.ts';
import { add, distance } from './sequence.ts';
import type { TcpLink } from './types.ts';

/** The largest window, bytes. */
export const WINDOW = 1 << 20;
export const SCALE = 5;
/** The window that our SYN names, which is never scaled; and the one that every connection may have. */
export const SYN_WINDOW = 0xffff;
const WINDOW_LEAST = 1 << 16;

/** What is done with bytes that have come in order. */
export interface Delivery {
  onData(bytes: Uint8Array): void;
  /** The connection ended because of them. */
  gone(): boolean;
}

export class Receiver {
  /** The number that is expected next. */
  next = 0;
  /** Scale of the windows that we send. */
  scale = SCALE;
  /** The peer has sent its FIN, and all before it. */
  finished = false;
  /** Bytes delivered that were not acknowledged yet; and whether the peer must hear of something at once. */
  unacknowledged = 0;
  ackNow = false;
  private readonly budget: TcpLink['budget'];
  /** The right edge of the window that the peer was told of. */
  private edge = 0;
  /** Delivered, not consumed. */
  private unread = 0;
  /** The window as large as it may be: it grows as its user shows that he takes what comes. */
  private most = WINDOW_LEAST;
  private taken = 0;
  private readonly early = new Reassembly();
  /** Number of the peer's FIN, once it has come, though maybe not all before it; -1: not yet. */
  private finSeq = -1;

  constructor(budget: TcpLink['budget']) {
    this.budget = budget;
  }

  /** The peer's SYN has come. @param scaled it scales windows, too */
  begin(seq: number, scaled: boolean): void {
    this.next = add(seq, 1);
    this.edge = add(this.next, SYN_WINDOW);
    // Both scale, or none does.
    this.scale = scaled ? SCALE : 0;
  }

  /** Whether a segment is of the window (RFC 9293, section 3.10.7.4). */
  acceptable({ seq, flags, payload }: Segment): boolean {
    const length = payload.length + ((flags & (TCP.SYN | TCP.FIN)) !== 0 ? 1 : 0);
    const from = distance(seq, this.next);
    const window = distance(this.edge, this.next);
    // Exactly in place: what it acknowledges is news even where its data finds no room.
    if (from === 0) return true;
    if (length === 0) return from > 0 && from < window;
    return from < window && from + length > 0;
  }

  /**
   * Takes a segment's data and FIN.
   * @returns the FIN is next: {@link end} is to be called
   */
  take(segment: Segment, delivery: Delivery): boolean {
    let { seq, payload } = segment;
    const edge = distance(this.edge, seq);
    let fin = (segment.flags & TCP.FIN) !== 0;
    if (payload.length > edge) {
      payload = payload.subarray(0, Math.max(edge, 0));
      fin = false;
      this.ackNow = true;
    }
    const known = distance(this.next, seq);
    if (known > 0) {
      if (known >= payload.length && !(fin && known === payload.length)) this.ackNow = true;
      payload = payload.subarray(Math.min(known, payload.length));
      seq = add(seq, known);
    }
    if (fin && this.finSeq < 0) this.finSeq = add(segment.seq, segment.payload.length);
    if (payload.length > 0 && !this.finished) {
      if (seq === this.next) this.deliver(payload, delivery);
      else {
        this.early.insert(seq, payload);
        this.ackNow = true;
      }
    }
    return this.finSeq === this.next && !this.finished && !delivery.gone();
  }

  /** Takes the FIN. */
  end(): void {
    this.next = add(this.next, 1);
    this.finished = true;
    this.early.clear();
    this.ackNow = true;
  }

  /** So many bytes of those delivered have gone on: they may be replaced. @param open the window may grow */
  consumed(count: number, open: boolean): void {
    this.unread -= count;
    if (!open) return;
    this.taken += count;
    if (this.taken >= this.most) this.grow();
  }

  /**
   * The window could open so far that the peer is to hear of it. One that opens by little is no news (RFC 9293,
   * section 3.8.6.2.2).
   */
  hasNews(much: number): boolean {
    return distance(add(this.next, this.free()), this.edge) >= Math.min(this.most / 2, much);
  }

  /** The window, as a header has it: the peer hears of it now. */
  offer(): number {
    const edge = add(this.next, this.free());
    if (distance(edge, this.edge) > 0) this.edge = edge;
    return Math.min(distance(this.edge, this.next) >>> this.scale, 0xffff);
  }

  /** Gives its memory back. */
  release(): void {
    this.early.clear();
    this.budget.give(this.most - WINDOW_LEAST);
  }

  private deliver(payload: Uint8Array, delivery: Delivery): void {
    for (let next: Uint8Array | null = payload; next; next = this.early.take(this.next)) {
      this.next = add(this.next, next.length);
      this.unread += next.length;
      this.unacknowledged += next.length;
      delivery.onData(next);
      if (delivery.gone()) return;
    }
    if (!this.early.empty) this.ackNow = true;
  }

  private free(): number {
    return Math.max(Math.min(this.most, 0xffff << this.scale) - this.unread, 0);
  }

  /** Memory that a peer may fill is shared by all connections, beyond the least that each has. */
  private grow(): void {
    this.taken = 0;
    if (this.most >= WINDOW || !this.budget.take(this.most)) return;
    this.most *= 2;
  }
}
