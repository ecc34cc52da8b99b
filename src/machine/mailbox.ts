/**
 * A mailbox: how one thread speaks to another that is busy, through the machine's memory.
 *
 * One sender, one receiver, one ring of bytes. head and tail count bytes for ever (modulo 2^32); each is written by
 * one side only: the receiver owns head, the sender owns tail. A byte between them belongs to the receiver. The
 * sender publishes tail after the bytes, then rings the doorbell, so a receiver that read the doorbell *before* it
 * looked at the ring can sleep on that value and never misses a message.
 *
 * Neither side ever blocks on the other's account: what does not fit waits in the sender's own backlog, and the
 * sender asks (the `wanted` word) to be told once there is room. A text longer than a chunk travels in several
 * records.
 */
import { type Memory, PAGE_SIZE } from './memory.ts';

/** Words of the header. */
const DOORBELL = 0;
const HEAD = 1;
const TAIL = 2;
/** The sender has a backlog and wants to hear of free room. */
const WANTED = 3;

const HEADER_BYTES = 64;
/** A power of two, so that positions survive the wrap of head and tail. */
const RING_BYTES = 1 << 16;
/** Frames that a mailbox takes, one after the other. */
export const MAILBOX_FRAMES = RING_BYTES / PAGE_SIZE + 1;
/** Largest payload of one record: a quarter of the ring, so that filling and draining overlap. */
const CHUNK = RING_BYTES / 4;

/** A record starts with one word: the kind in the upper 8 bits, the payload's length in the lower 24. */
const Kind = { Text: 1, TextPart: 2, Signal: 3 } as const;

/** What arrives: a text, or a signal of two u32. */
export type Mail = { kind: 'text'; text: string } | { kind: 'signal'; a: number; b: number };

/** What both ends know of the ring. */
class Ring {
  protected readonly memory: Memory;
  protected readonly word: number;
  private readonly data: number;

  /** @param address linear address of {@link MAILBOX_FRAMES} frames, zeroed before either end exists. */
  constructor(memory: Memory, address: number) {
    this.memory = memory;
    this.word = address >>> 2;
    this.data = address + HEADER_BYTES;
  }

  protected load(word: number): number {
    return Atomics.load(this.memory.u32, this.word + word);
  }

  protected store(word: number, value: number): void {
    Atomics.store(this.memory.u32, this.word + word, value >>> 0);
  }

  /** Bytes between head and tail. */
  protected used(): number {
    return (this.load(TAIL) - this.load(HEAD)) >>> 0;
  }

  protected read(position: number, into: Uint8Array): void {
    const at = position & (RING_BYTES - 1);
    const first = Math.min(into.length, RING_BYTES - at);
    const { u8 } = this.memory;
    into.set(u8.subarray(this.data + at, this.data + at + first));
    into.set(u8.subarray(this.data, this.data + into.length - first), first);
  }

  protected write(position: number, bytes: Uint8Array): void {
    const at = position & (RING_BYTES - 1);
    const first = Math.min(bytes.length, RING_BYTES - at);
    const { u8 } = this.memory;
    u8.set(bytes.subarray(0, first), this.data + at);
    u8.set(bytes.subarray(first), this.data);
  }
}

function record(kind: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(4 + payload.length);
  new DataView(bytes.buffer).setUint32(0, (kind << 24) | payload.length, true);
  bytes.set(payload, 4);
  return bytes;
}

export class MailboxSender extends Ring {
  private readonly encoder = new TextEncoder();
  private readonly backlog: Uint8Array[] = [];

  /** Records that wait for room. */
  get waiting(): number {
    return this.backlog.length;
  }

  send(text: string): void {
    const bytes = this.encoder.encode(text);
    let at = 0;
    for (; bytes.length - at > CHUNK; at += CHUNK) {
      this.backlog.push(record(Kind.TextPart, bytes.subarray(at, at + CHUNK)));
    }
    this.backlog.push(record(Kind.Text, bytes.subarray(at)));
    this.flush();
  }

  /** Two u32: the small message for what happens often. */
  signal(a: number, b: number): void {
    const payload = new Uint8Array(8);
    const view = new DataView(payload.buffer);
    view.setUint32(0, a, true);
    view.setUint32(4, b, true);
    this.backlog.push(record(Kind.Signal, payload));
    this.flush();
  }

  /** Puts what waits into the ring, as far as there is room. Call it when the receiver says that there is. */
  flush(): void {
    this.fill();
    if (this.backlog.length > 0) {
      // Ask first, look again then: the receiver may have drained the ring in between and would never tell.
      this.store(WANTED, 1);
      this.fill();
    }
    this.ring();
  }

  /** Wakes the receiver. */
  ring(): void {
    Atomics.add(this.memory.i32, this.word + DOORBELL, 1);
    Atomics.notify(this.memory.i32, this.word + DOORBELL);
  }

  private fill(): void {
    for (
      let next = this.backlog[0];
      next && next.length <= RING_BYTES - this.used();
      next = this.backlog[0]
    ) {
      const tail = this.load(TAIL);
      this.write(tail, next);
      this.store(TAIL, tail + next.length);
      this.backlog.shift();
    }
  }
}

export class MailboxReceiver extends Ring {
  private readonly decoder = new TextDecoder();
  private readonly onRoom: () => void;
  private parts: Uint8Array[] = [];

  /** @param onRoom tells the sender to flush its backlog (by some other way than this mailbox). */
  constructor(memory: Memory, address: number, onRoom: () => void) {
    super(memory, address);
    this.onRoom = onRoom;
  }

  /** The doorbell's count: read it before looking at the ring, and give it to {@link wait}. */
  get doorbell(): number {
    return this.load(DOORBELL);
  }

  /** True if something lies in the ring. Cheap. */
  get pending(): boolean {
    return this.load(HEAD) !== this.load(TAIL);
  }

  /** The next message, or null if there is none (yet). */
  receive(): Mail | null {
    while (this.pending) {
      const head = this.load(HEAD);
      const header = new Uint8Array(4);
      this.read(head, header);
      const word = new DataView(header.buffer).getUint32(0, true);
      const payload = new Uint8Array(word & 0xffffff);
      this.read(head + 4, payload);
      this.store(HEAD, head + 4 + payload.length);
      if (Atomics.exchange(this.memory.u32, this.word + WANTED, 0) !== 0) this.onRoom();
      const kind = word >>> 24;
      if (kind === Kind.Signal) {
        const view = new DataView(payload.buffer);
        return { kind: 'signal', a: view.getUint32(0, true), b: view.getUint32(4, true) };
      }
      this.parts.push(payload);
      if (kind === Kind.Text) return { kind: 'text', text: this.text() };
    }
    return null;
  }

  /** Sleeps until the doorbell is no longer at `doorbell`, or for so many milliseconds (Infinity: for ever). */
  wait(doorbell: number, milliseconds: number): void {
    Atomics.wait(this.memory.i32, this.word + DOORBELL, doorbell | 0, milliseconds);
  }

  private text(): string {
    const parts = this.parts;
    this.parts = [];
    if (parts.length === 1) return this.decoder.decode(parts[0]!);
    return parts
      .map((part, index) => this.decoder.decode(part, { stream: index < parts.length - 1 }))
      .join('');
  }
}
