/**
 * The back end of a guest's console: the page that it shares (struct xencons_interface) and its event channel.
 *
 * The guest may write anything into the page at any time. Indices that cannot be right move nothing: the console
 * stands still until they are right again, which harms nobody but that guest. What is typed waits here, up to a
 * limit, until the guest has taken what is in its ring.
 */
import type { Memory } from '../machine/memory.ts';
import { XENCONS_INTERFACE } from '../xen/public/console.ts';

/** How much typed input waits at most, in bytes. */
export const DEFAULT_INPUT_BYTES = 64 * 1024;

/** Times that the ring is emptied in one go, before somebody else has his turn. */
const ROUNDS = 16;

export interface ConsoleOptions {
  /** What the guest prints, as it comes. The bytes are the callee's. */
  onOutput: (bytes: Uint8Array) => void;
  /** Signals the guest's event channel. */
  notify: () => void;
  /** There is room for input again, after {@link ConsoleBackend.write} did not take all. */
  onRoom?: () => void;
  /** How much input waits at most, in bytes. */
  inputBytes?: number;
}

export class ConsoleBackend {
  private readonly memory: Memory;
  private readonly page: number;
  private readonly options: ConsoleOptions;
  private readonly inputBytes: number;
  private readonly waiting: Uint8Array[] = [];
  private waitingBytes = 0;
  private refused = false;
  private held = false;
  private frozen = false;
  private closed = false;

  /** @param page linear address of the guest's page */
  constructor(memory: Memory, page: number, options: ConsoleOptions) {
    this.memory = memory;
    this.page = page;
    this.options = options;
    this.inputBytes = options.inputBytes ?? DEFAULT_INPUT_BYTES;
  }

  /**
   * Moves what can be moved, in both directions. To be called when the guest signals, and again when it returned
   * true: then there may be more output.
   */
  process(): boolean {
    if (this.closed || this.frozen) return false;
    let moved = this.feed();
    let rounds = 0;
    while (rounds < ROUNDS && !this.held && this.drain()) {
      moved = true;
      rounds++;
    }
    if (moved) this.options.notify();
    return rounds === ROUNDS;
  }

  /**
   * Input for the guest.
   * @returns how many bytes were taken; if not all, onRoom tells when to go on
   */
  write(bytes: Uint8Array): number {
    if (this.closed) return bytes.length;
    const taken = Math.min(bytes.length, this.inputBytes - this.waitingBytes);
    if (taken > 0) {
      this.waiting.push(bytes.slice(0, taken));
      this.waitingBytes += taken;
    }
    if (taken < bytes.length) this.refused = true;
    if (this.feed()) this.options.notify();
    return taken;
  }

  /** Input that the guest has not taken yet, in bytes: what waits here and what is in its ring. */
  get pendingInput(): number {
    const used = (this.load(XENCONS_INTERFACE.in_prod) - this.load(XENCONS_INTERFACE.in_cons)) >>> 0;
    return this.waitingBytes + Math.min(used, XENCONS_INTERFACE.inSize);
  }

  /** Takes no more output for now (who shows it cannot keep up): the guest's ring fills and the guest waits. */
  pause(): void {
    this.held = true;
  }

  resume(): void {
    this.held = false;
    this.process();
  }

  /** Leaves the page as it is, until told otherwise: it is being copied. */
  freeze(frozen: boolean): void {
    this.frozen = frozen;
    if (!frozen) this.process();
  }

  /** The domain is gone: what it printed last is taken, then the page is not touched any more. */
  close(): void {
    if (this.closed) return;
    this.drain();
    this.closed = true;
    this.waiting.length = 0;
    this.waitingBytes = 0;
  }

  /** Guest to us. True if there was something. */
  private drain(): boolean {
    const { out, outSize, out_cons, out_prod } = XENCONS_INTERFACE;
    const consumer = this.load(out_cons);
    const used = (this.load(out_prod) - consumer) >>> 0;
    if (used === 0 || used > outSize) return false;
    const bytes = new Uint8Array(used);
    const at = consumer % outSize;
    const first = Math.min(used, outSize - at);
    const ring = this.page + out;
    bytes.set(this.memory.u8.subarray(ring + at, ring + at + first));
    bytes.set(this.memory.u8.subarray(ring, ring + used - first), first);
    this.store(out_cons, consumer + used);
    this.options.onOutput(bytes);
    return true;
  }

  /** Us to guest. True if something went. */
  private feed(): boolean {
    if (this.frozen) return false;
    const { in_cons, in_prod, inSize } = XENCONS_INTERFACE;
    const producer = this.load(in_prod);
    const used = (producer - this.load(in_cons)) >>> 0;
    if (used > inSize) return false;
    let room = inSize - used;
    let at = producer;
    while (room > 0 && this.waiting.length > 0) {
      const next = this.waiting[0]!;
      const piece = next.subarray(0, room);
      this.place(at, piece);
      at += piece.length;
      room -= piece.length;
      this.waitingBytes -= piece.length;
      if (piece.length === next.length) this.waiting.shift();
      else this.waiting[0] = next.subarray(piece.length);
    }
    if (at === producer) return false;
    this.store(in_prod, at);
    if (this.refused) {
      this.refused = false;
      this.options.onRoom?.();
    }
    return true;
  }

  private place(index: number, bytes: Uint8Array): void {
    const ring = this.page + XENCONS_INTERFACE.in;
    const at = index % XENCONS_INTERFACE.inSize;
    const first = Math.min(bytes.length, XENCONS_INTERFACE.inSize - at);
    this.memory.u8.set(bytes.subarray(0, first), ring + at);
    this.memory.u8.set(bytes.subarray(first), ring);
  }

  private load(field: number): number {
    return Atomics.load(this.memory.u32, (this.page + field) >>> 2);
  }

  private store(field: number, value: number): void {
    Atomics.store(this.memory.u32, (this.page + field) >>> 2, value >>> 0);
  }
}
