/**
 * Frames on their way from one thread to another (or kept for later), in a ring in the machine's memory. Each lies in
 * one piece, so that it can be used where it is until it is released.
 *
 * One side produces, one consumes. head and tail count bytes for ever (modulo 2^32); the consumer owns head, the
 * producer owns tail. Neither is signalled without need: who finds nothing to do says that he sleeps and looks once
 * more; the other, if he sees that, has to wake him.
 */
import { type Memory, PAGE_SIZE } from '../../machine/memory.ts';
import { GSO, type Gso, type Offload } from './offload.ts';
import { PACKET_MAX } from './packet.ts';

/** Words of the header. */
const HEAD = 0;
const TAIL = 1;
const CONSUMER_SLEEPS = 2;
const PRODUCER_SLEEPS = 3;

const RING_BYTES = 1 << 20;
/** Frames that a ring takes, one after the other. */
export const FRAME_RING_FRAMES = RING_BYTES / PAGE_SIZE + 1;

/** In front of each frame: its length, OFFLOAD flags with the kind of GSO in the second byte, gsoSize. */
const RECORD = { length: 0, flags: 4, gsoSize: 8, bytes: 16 } as const;
/** Instead of a length: what follows lies at the ring's start. */
const WRAP = 0xffff_ffff;
const ALIGN = 16;

const padded = (length: number) => RECORD.bytes + Math.ceil(length / ALIGN) * ALIGN;

/** A frame in the ring. */
export interface RingFrame extends Offload {
  /** Linear. */
  readonly address: number;
  readonly length: number;
}

export class FrameRing {
  private readonly memory: Memory;
  private readonly word: number;
  private readonly data: number;

  /** @param address linear, of {@link FRAME_RING_FRAMES} frames, zeroed before either end exists */
  constructor(memory: Memory, address: number) {
    this.memory = memory;
    this.word = address >>> 2;
    this.data = address + PAGE_SIZE;
  }

  get empty(): boolean {
    return this.load(HEAD) === this.load(TAIL);
  }

  // --- The producer's side ---

  /**
   * Room for a frame. It counts only with {@link commit}.
   * @returns linear address, or 0: there is no room now
   */
  reserve(length: number): number {
    if (length > PACKET_MAX) return 0;
    const tail = this.load(TAIL);
    const at = tail & (RING_BYTES - 1);
    const size = padded(length);
    const skip = RING_BYTES - at < size ? RING_BYTES - at : 0;
    const used = (tail - this.load(HEAD)) >>> 0;
    // Never full to the last byte: head and tail would be the same modulo the ring's size, which is harmless, but
    // then a skip could be the whole ring.
    if (used + skip + size >= RING_BYTES) return 0;
    return this.data + (skip > 0 ? 0 : at) + RECORD.bytes;
  }

  /** @param address as it was reserved @returns true: the consumer sleeps and must be woken */
  commit(address: number, length: number, { flags, gso, gsoSize }: Offload): boolean {
    const { u32 } = this.memory;
    const tail = this.load(TAIL);
    const at = tail & (RING_BYTES - 1);
    const record = address - RECORD.bytes;
    const skipped = record !== this.data + at;
    if (skipped) u32[(this.data + at) >>> 2] = WRAP;
    u32[(record + RECORD.length) >>> 2] = length;
    u32[(record + RECORD.flags) >>> 2] = flags | (gso << 8);
    u32[(record + RECORD.gsoSize) >>> 2] = gsoSize;
    this.store(TAIL, tail + (skipped ? RING_BYTES - at : 0) + padded(length));
    return this.load(CONSUMER_SLEEPS) !== 0 && this.exchange(CONSUMER_SLEEPS, 0) !== 0;
  }

  /** There was no room for a frame of that length. @returns true: there is now; otherwise the consumer will tell */
  waitForRoom(length: number): boolean {
    this.store(PRODUCER_SLEEPS, 1);
    return this.reserve(length) !== 0;
  }

  // --- The consumer's side ---

  /** The next frame, which stays until {@link release}. */
  next(): RingFrame | null {
    const { u32 } = this.memory;
    for (;;) {
      const head = this.load(HEAD);
      if (head === this.load(TAIL)) return null;
      const at = head & (RING_BYTES - 1);
      const record = this.data + at;
      const length = u32[(record + RECORD.length) >>> 2]!;
      if (length === WRAP) {
        this.store(HEAD, head + RING_BYTES - at);
        continue;
      }
      const flags = u32[(record + RECORD.flags) >>> 2]!;
      const gso = (flags >>> 8) as Gso;
      return {
        address: record + RECORD.bytes,
        length,
        flags: flags & 0xff,
        gso: gso === GSO.tcp4 || gso === GSO.tcp6 ? gso : GSO.none,
        gsoSize: u32[(record + RECORD.gsoSize) >>> 2]!,
      };
    }
  }

  /** @returns true: the producer waits for room and there is a good deal of it: it must be woken */
  release({ length }: RingFrame): boolean {
    const head = this.load(HEAD) + padded(length);
    this.store(HEAD, head);
    if (this.load(PRODUCER_SLEEPS) === 0) return false;
    const used = (this.load(TAIL) - head) >>> 0;
    return used <= RING_BYTES / 2 && this.exchange(PRODUCER_SLEEPS, 0) !== 0;
  }

  /** Nothing is left. @returns true: something came meanwhile; otherwise the producer will tell */
  sleep(): boolean {
    this.store(CONSUMER_SLEEPS, 1);
    if (this.empty) return false;
    this.store(CONSUMER_SLEEPS, 0);
    return true;
  }

  private load(word: number): number {
    return Atomics.load(this.memory.u32, this.word + word);
  }

  private store(word: number, value: number): void {
    Atomics.store(this.memory.u32, this.word + word, value >>> 0);
  }

  private exchange(word: number, value: number): number {
    return Atomics.exchange(this.memory.u32, this.word + word, value);
  }
}
