/**
 * One TCP connection of ours (RFC 9293), with a guest at the other end.
 *
 * The link to the guest is memory: it loses a segment only if the guest leaves its ring empty, and it carries
 * segments of up to 60 KiB that nobody has to cut up (TSO). So what counts is to move much at a time. Still it is a
 * whole TCP: guests are hostile, and a network can have a rate limit that drops.
 *
 * What the connection promises to whoever uses it: bytes come in order, once; what was offered as window is never
 * taken back; memory is bounded by the two buffers, whatever the peer sends or does not acknowledge.
 *
 * Sequence numbers of what we send: `una` is the first one not acknowledged, `nxt` the next to be sent, `max` the
 * furthest ever sent (after a timeout nxt goes back to una). The send buffer begins at una once our SYN is
 * acknowledged; our FIN takes the number behind the buffer's last byte.
 */
import { Congestion } from './congestion.ts';
import { type Delivery, Receiver, SCALE, SYN_WINDOW, WINDOW } from './receiver.ts';
import { RoundTrip } from './round-trip.ts';
import { buildHeader, type Segment, TCP } from './segment.ts';
import { SendBuffer } from './send-buffer.ts';
import { add, distance } from './sequence.ts';
import type { TcpAddresses, TcpEnd, TcpHandler, TcpLink, TcpState } from './types.ts';

/** Payload of a segment that the link cuts up (TSO): with its headers it fills 16 pages. */
const BURST = 60 * 1024;
/** Into how many of those a window is divided at most, while it is small. */
const BURSTS_A_WINDOW = 4;
/** Segment size where the peer names none (RFC 9293, section 3.7.1), and the least that we go along with. */
const DEFAULT_MSS = 536;
const LEAST_MSS = 64;
const DELAYED_ACK_MS = 40;
const TIME_WAIT_MS = 10_000;
/** Timeouts in a row after which the peer is given up: of a handshake, and later (about nine minutes). */
const HANDSHAKE_TRIES = 6;
const TRIES = 15;
const PERSIST_MAX_MS = 60_000;
const NEVER = Number.POSITIVE_INFINITY;

export class TcpConnection {
  readonly addresses: TcpAddresses;
  state: TcpState;
  private readonly link: TcpLink;
  private readonly handler: TcpHandler;

  private una: number;
  private nxt: number;
  private max: number;
  private readonly buffer: SendBuffer;
  private readonly congestion = new Congestion();
  private readonly roundTrip = new RoundTrip();
  private mss = DEFAULT_MSS;
  private peerWindow = 0;
  private peerWindowMost = 0;
  private peerScale = 0;
  private windowSeq = 0;
  private windowAck = 0;
  private timedSeq = 0;
  private timedAt = -1;
  private wantsRoom = false;
  /** Our FIN: asked for; sent before the peer's had come; acknowledged. */
  private finQueued = false;
  private closedFirst = false;
  private finAcked = false;

  private readonly receiver: Receiver;
  private readonly delivery: Delivery;

  private retransmitAt = NEVER;
  private persistAt = NEVER;
  /** Probes of a closed window since something was acknowledged, and since anything was heard. */
  private probes = 0;
  private silentProbes = 0;
  private ackAt = NEVER;
  /** End of time-wait. */
  private endAt = NEVER;
  private timerAt = NEVER;
  private cancelTimer: () => void = () => {};

  /** @param iss our initial sequence number */
  constructor(link: TcpLink, addresses: TcpAddresses, handler: TcpHandler, iss: number, state: TcpState) {
    this.link = link;
    this.addresses = addresses;
    this.handler = handler;
    this.state = state;
    this.una = iss;
    this.nxt = iss;
    this.max = iss;
    this.buffer = new SendBuffer(link.budget, WINDOW);
    this.receiver = new Receiver(link.budget);
    this.delivery = { onData: (bytes) => handler.onData(bytes), gone: () => this.gone() };
  }

  /** Begins a connection: sends a SYN. */
  open(): void {
    this.sendSyn();
  }

  /** Answers a SYN. */
  accept(syn: Segment): void {
    this.peerSyn(syn);
    this.sendSyn();
  }

  // --- What its user does ---

  /** @returns how many bytes were taken; if not all, onRoom tells when to go on */
  write(bytes: Uint8Array): number {
    if (this.finQueued || this.state === 'closed') return bytes.length;
    const taken = this.buffer.push(bytes);
    if (taken < bytes.length) this.wantsRoom = true;
    this.pump();
    return taken;
  }

  /** Sends no more after what was written. */
  end(): void {
    if (this.finQueued || this.state === 'closed') return;
    this.finQueued = true;
    this.pump();
  }

  /** So many bytes of those delivered have gone on: they may be replaced. */
  consumed(count: number): void {
    this.receiver.consumed(count, this.state !== 'closed');
    if (this.state !== 'closed' && this.receiver.hasNews(2 * BURST)) this.sendAck();
  }

  /** Ends it at once with a reset. */
  abort(): void {
    if (this.state === 'closed') return;
    if (this.state !== 'syn-sent' && this.state !== 'time-wait') this.sendFlags(TCP.RST | TCP.ACK);
    this.finish('aborted');
  }

  /** Waits no longer for stray segments, if that is what it does: somebody else needs its place. */
  giveWay(): void {
    if (this.state === 'time-wait') this.finish('done');
  }

  // --- What comes from the peer ---

  /** Takes a segment. Afterwards {@link settle} is to be called, once for all that came together. */
  receive(segment: Segment): void {
    if (this.state === 'closed') return;
    if (this.state === 'syn-sent') this.receiveSynSent(segment);
    else this.receiveOpen(segment);
  }

  /** What came together has been taken: acknowledges, sends what may be sent. */
  settle(): void {
    if (this.state === 'closed') return;
    this.pump();
    if (this.receiver.ackNow || this.receiver.unacknowledged >= 2 * this.mss) this.sendAck();
    else if (this.receiver.unacknowledged > 0 && this.ackAt === NEVER) {
      this.ackAt = this.link.clock.now() + DELAYED_ACK_MS;
      this.arm();
    }
  }

  private receiveSynSent(segment: Segment): void {
    const { flags } = segment;
    if ((flags & TCP.ACK) !== 0 && segment.ack !== this.nxt) {
      if ((flags & TCP.RST) === 0) this.sendReset(segment.ack);
      return;
    }
    if ((flags & TCP.RST) !== 0) {
      if ((flags & TCP.ACK) !== 0) this.finish('refused');
      return;
    }
    // A SYN without an ACK would be a simultaneous open. Nothing of ours opens to a port that opens to us.
    if ((flags & (TCP.SYN | TCP.ACK)) !== (TCP.SYN | TCP.ACK)) return;
    this.peerSyn(segment);
    this.synAcknowledged(segment);
    this.receiver.ackNow = true;
  }

  private receiveOpen(segment: Segment): void {
    const { flags, payload } = segment;
    if (!this.receiver.acceptable(segment)) {
      if ((flags & TCP.RST) !== 0) return;
      // Our answer to its SYN was lost.
      if (this.state === 'syn-received' && (flags & TCP.SYN) !== 0) this.sendSyn();
      else this.receiver.ackNow = true;
      return;
    }
    if ((flags & TCP.RST) !== 0) {
      // Only one that names the very next number is believed (RFC 5961, section 3.2).
      if (segment.seq === this.receiver.next)
        this.finish(this.state === 'syn-received' ? 'refused' : 'reset');
      else this.receiver.ackNow = true;
      return;
    }
    if ((flags & TCP.SYN) !== 0) {
      this.receiver.ackNow = true;
      return;
    }
    if ((flags & TCP.ACK) === 0) return;
    if (this.state === 'syn-received') {
      if (segment.ack !== this.nxt) {
        this.sendReset(segment.ack);
        return;
      }
      this.synAcknowledged(segment);
    } else if (!this.acknowledge(segment)) {
      return;
    }
    if (this.gone()) return;
    if (payload.length > 0 || (flags & TCP.FIN) !== 0) this.takeData(segment);
  }

  /** A function, so that the compiler does not take the state for unchanged by the calls between. */
  private gone(): boolean {
    return this.state === 'closed';
  }

  private peerSyn(syn: Segment): void {
    this.receiver.begin(syn.seq, syn.scale >= 0);
    this.mss = Math.min(Math.max(syn.mss || DEFAULT_MSS, LEAST_MSS), this.link.mss);
    this.peerScale = Math.max(syn.scale, 0);
    // The window of a SYN itself is never scaled.
    this.peerWindow = syn.window;
    this.peerWindowMost = syn.window;
    this.windowSeq = syn.seq;
    this.windowAck = syn.ack;
  }

  private synAcknowledged(segment: Segment): void {
    this.una = segment.ack;
    this.windowSeq = segment.seq;
    this.windowAck = segment.ack;
    if (this.state === 'syn-received') this.peerWindow = segment.window << this.peerScale;
    this.peerWindowMost = Math.max(this.peerWindowMost, this.peerWindow);
    this.congestion.start(this.mss, this.una);
    this.roundTrip.progress();
    this.retransmitAt = NEVER;
    this.state = 'open';
    this.handler.onEstablished();
  }

  /** @returns false: the segment is not to be looked at further */
  private acknowledge(segment: Segment): boolean {
    this.silentProbes = 0;
    const ahead = distance(segment.ack, this.una);
    if (distance(segment.ack, this.max) > 0) {
      this.receiver.ackNow = true;
      return false;
    }
    if (ahead < 0) return true;
    const flight = distance(this.max, this.una);
    const before = this.peerWindow;
    // First the window, then what is sent because of the rest: it counts from what is acknowledged now.
    this.peerWindow = Math.max(before - ahead, 0);
    this.updateWindow(segment);
    if (ahead > 0) this.advance(segment.ack, ahead);
    else if (flight > 0 && before < this.mss && this.peerWindow >= this.mss) {
      // What was under way when the window closed was not taken. It is sent again now, not when a timer runs out.
      this.sendAgain();
    } else if (
      flight > 0 &&
      segment.payload.length === 0 &&
      (segment.flags & TCP.FIN) === 0 &&
      this.peerWindow === before &&
      this.congestion.duplicate(flight, this.una, this.max)
    ) {
      this.resendFirst();
    }
    return !this.gone();
  }

  private updateWindow({ seq, ack, window }: Segment): void {
    const newer = distance(seq, this.windowSeq);
    if (newer < 0 || (newer === 0 && distance(ack, this.windowAck) < 0)) return;
    this.peerWindow = window << this.peerScale;
    this.peerWindowMost = Math.max(this.peerWindowMost, this.peerWindow);
    this.windowSeq = seq;
    this.windowAck = ack;
  }

  /** All that is not acknowledged is to be sent once more. */
  private sendAgain(): void {
    this.nxt = this.una;
    this.timedAt = -1;
    this.retransmitAt = NEVER;
  }

  /** New bytes, maybe our FIN, are acknowledged. */
  private advance(ack: number, count: number): void {
    const bytes = Math.min(count, this.buffer.length);
    const finDone = count > bytes;
    if (this.timedAt >= 0 && distance(ack, this.timedSeq) >= 0) {
      this.roundTrip.sample(this.link.clock.now() - this.timedAt);
      this.timedAt = -1;
    }
    this.buffer.drop(bytes);
    this.una = ack;
    if (distance(this.nxt, ack) < 0) this.nxt = ack;
    this.roundTrip.progress();
    this.probes = 0;
    this.persistAt = NEVER;
    this.retransmitAt = this.nxt === ack ? NEVER : this.link.clock.now() + this.roundTrip.timeout;
    if (this.congestion.acknowledged(bytes, ack) && this.buffer.length > 0) this.resendFirst();
    // Not for every few bytes: a writer does better with much at a time.
    if (this.wantsRoom && this.buffer.roomy) {
      this.wantsRoom = false;
      this.handler.onRoom();
    }
    if (!finDone || this.gone()) return;
    this.finAcked = true;
    if (this.receiver.finished) this.over();
  }

  private takeData(segment: Segment): void {
    if (!this.receiver.take(segment, this.delivery)) return;
    this.receiver.end();
    this.handler.onEnd();
    if (this.finAcked && !this.gone()) this.over();
  }

  /** Both directions have ended. Who ended first waits, in case its last acknowledgement is lost. */
  private over(): void {
    if (!this.closedFirst) {
      this.finish('done');
      return;
    }
    this.state = 'time-wait';
    this.link.waits(this);
    this.endAt = this.link.clock.now() + TIME_WAIT_MS;
    this.arm();
  }

  // --- Sending ---

  /** Sends what window, congestion and link let through. */
  private pump(): void {
    if (this.state !== 'open') return;
    while (this.sendNext());
    // The FIN comes right behind the last byte.
    if (this.finQueued && !this.finAcked && distance(this.nxt, this.una) === this.buffer.length)
      this.sendFin();
    this.arm();
  }

  /** @returns true: there may be more to send */
  private sendNext(): boolean {
    const flight = distance(this.nxt, this.una);
    const unsent = this.buffer.length - flight;
    if (unsent <= 0) return false;
    const window = Math.min(this.congestion.window, this.peerWindow);
    const usable = window - flight;
    let count = Math.min(unsent, usable, this.link.tso ? BURST : this.mss);
    if (count <= 0 || (count < this.mss && count < unsent && usable < this.peerWindowMost / 2)) {
      // Nothing is under way and the peer's window lets nothing out: it has to be asked for a better one.
      if (flight === 0 && this.persistAt === NEVER)
        this.persistAt = this.link.clock.now() + this.persistTime();
      return false;
    }
    // Acknowledgements are on their way and will let more out at a time, which costs less for all.
    const worthwhile = Math.min(BURST, window / BURSTS_A_WINDOW);
    if (this.link.tso && count < unsent && count < worthwhile && flight >= 2 * this.mss) return false;
    if (count > this.mss && count < unsent) count -= count % this.mss;
    if (!this.sendData(flight, count)) return false;
    const now = this.link.clock.now();
    if (this.nxt === this.max && this.timedAt < 0) {
      this.timedSeq = add(this.nxt, count);
      this.timedAt = now;
    }
    this.sent(count, now);
    return true;
  }

  private sendFin(): void {
    if (!this.sendFlags(TCP.FIN | TCP.ACK, this.nxt)) return;
    if (!this.receiver.finished) this.closedFirst = true;
    this.sent(1, this.link.clock.now());
  }

  private sent(count: number, now: number): void {
    this.nxt = add(this.nxt, count);
    if (distance(this.nxt, this.max) > 0) this.max = this.nxt;
    this.persistAt = NEVER;
    if (this.retransmitAt === NEVER) this.retransmitAt = now + this.roundTrip.timeout;
  }

  /** The first segment that is not acknowledged, once more. */
  private resendFirst(): void {
    this.timedAt = -1;
    const count = Math.min(this.mss, this.buffer.length);
    if (count > 0) this.sendData(0, count);
    else this.sendFlags(TCP.FIN | TCP.ACK, this.una);
    this.retransmitAt = this.link.clock.now() + this.roundTrip.timeout;
  }

  private sendData(offset: number, count: number): boolean {
    const last = offset + count === this.buffer.length;
    const header = this.header(TCP.ACK | (last ? TCP.PSH : 0), add(this.una, offset));
    return this.send(header, this.buffer.slices(offset, count));
  }

  private sendSyn(): void {
    const answer = this.state === 'syn-received';
    const header = buildHeader({
      sourcePort: this.addresses.localPort,
      destinationPort: this.addresses.remotePort,
      seq: this.una,
      ack: this.receiver.next,
      flags: answer ? TCP.SYN | TCP.ACK : TCP.SYN,
      window: SYN_WINDOW,
      mss: this.link.mss,
      scale: answer && this.receiver.scale === 0 ? -1 : SCALE,
    });
    this.link.send(this, header, [], this.mss);
    this.nxt = add(this.una, 1);
    this.max = this.nxt;
    this.retransmitAt = this.link.clock.now() + this.roundTrip.timeout;
    this.arm();
  }

  private sendAck(): void {
    // Without room it stays due, and goes out when the link has some.
    this.receiver.ackNow = true;
    this.sendFlags(TCP.ACK);
  }

  /**
   * A segment without data. Its number is the furthest: after a timeout nxt lies behind what the peer may have got
   * already, and two ends in that state would take each other's acknowledgements for old segments for ever.
   */
  private sendFlags(flags: number, seq = this.max): boolean {
    return this.send(this.header(flags, seq), []);
  }

  /** Refuses a segment that acknowledges what was never sent. */
  private sendReset(seq: number): void {
    const { localPort, remotePort } = this.addresses;
    const fields = {
      sourcePort: localPort,
      destinationPort: remotePort,
      seq,
      ack: 0,
      flags: TCP.RST,
      window: 0,
    };
    this.link.send(this, buildHeader(fields), [], this.mss);
  }

  private header(flags: number, seq: number): Uint8Array {
    const window = this.receiver.offer();
    return buildHeader({
      sourcePort: this.addresses.localPort,
      destinationPort: this.addresses.remotePort,
      seq,
      ack: this.receiver.next,
      flags,
      window,
    });
  }

  private send(header: Uint8Array, payload: readonly Uint8Array[]): boolean {
    if (!this.link.send(this, header, payload, this.mss)) return false;
    this.receiver.ackNow = false;
    this.receiver.unacknowledged = 0;
    this.ackAt = NEVER;
    return true;
  }

  // --- Time ---

  private persistTime(): number {
    return Math.min(this.roundTrip.timeout * 2 ** this.probes, PERSIST_MAX_MS);
  }

  /** Makes sure that the timer runs out when the next thing is due. It may run out early. */
  private arm(): void {
    if (this.state === 'closed') return;
    const due = Math.min(this.retransmitAt, this.persistAt, this.ackAt, this.endAt);
    if (due >= this.timerAt) return;
    this.cancelTimer();
    this.timerAt = due;
    this.cancelTimer = this.link.clock.after(Math.max(due - this.link.clock.now(), 0), () => this.expire());
  }

  private expire(): void {
    this.timerAt = NEVER;
    this.cancelTimer = () => {};
    const now = this.link.clock.now();
    if (now >= this.endAt) {
      this.finish('done');
      return;
    }
    if (now >= this.ackAt) {
      this.ackAt = NEVER;
      this.sendAck();
    }
    if (now >= this.retransmitAt) this.retransmit();
    else if (now >= this.persistAt) this.probe();
    this.arm();
  }

  private retransmit(): void {
    this.roundTrip.expired();
    const handshake = this.state !== 'open';
    if (this.roundTrip.expiries > (handshake ? HANDSHAKE_TRIES : TRIES)) {
      if (!handshake) this.sendFlags(TCP.RST | TCP.ACK);
      this.finish('timeout');
      return;
    }
    if (handshake) {
      this.sendSyn();
      return;
    }
    this.congestion.timedOut(distance(this.max, this.una), this.una, this.max);
    this.sendAgain();
    this.pump();
    // The link had no room: it will be asked again, by its own word or in a while.
    if (this.retransmitAt === NEVER && this.persistAt === NEVER)
      this.retransmitAt = this.link.clock.now() + this.roundTrip.timeout;
  }

  /** A byte beyond the window, to make the peer say how large it is. */
  private probe(): void {
    if (++this.silentProbes > TRIES) {
      this.finish('timeout');
      return;
    }
    this.probes++;
    this.persistAt = this.link.clock.now() + this.persistTime();
    if (this.buffer.length === 0 || !this.sendData(0, 1)) return;
    const behind = add(this.una, 1);
    if (distance(behind, this.max) > 0) this.max = behind;
  }

  private finish(end: TcpEnd): void {
    this.state = 'closed';
    this.cancelTimer();
    this.buffer.release();
    this.receiver.release();
    this.link.closed(this);
    this.handler.onClosed(end);
  }
}
