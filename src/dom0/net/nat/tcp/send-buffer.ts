/**
 * Bytes that were given to a connection and that its peer has not acknowledged: a ring that grows as it is used, up
 * to its limit and as far as the budget that all connections share allows.
 */

/** Every connection gets this much, whatever the others use. */
export const BUFFER_LEAST = 16 * 1024;

/** Free bytes that are a lot. */
const ROOMY = 128 * 1024;

/** Memory for buffers that connections share, beyond the least that each has. */
export class BufferBudget {
  private left: number;

  /** @param bytes in all */
  constructor(bytes: number) {
    this.left = bytes;
  }

  /** @returns false: there is not that much left */
  take(bytes: number): boolean {
    if (bytes > this.left) return false;
    this.left -= bytes;
    return true;
  }

  give(bytes: number): void {
    this.left += bytes;
  }
}

export class SendBuffer {
  private readonly budget: BufferBudget;
  private readonly limit: number;
  private ring: Uint8Array = new Uint8Array(0);
  private head = 0;
  private used = 0;
  private taken = 0;

  /** @param limit bytes, a power of two times {@link BUFFER_LEAST} */
  constructor(budget: BufferBudget, limit: number) {
    this.budget = budget;
    this.limit = limit;
  }

  get length(): number {
    return this.used;
  }

  /** Half of it is free, or a lot. */
  get roomy(): boolean {
    return this.ring.length - this.used >= Math.min(this.ring.length / 2, ROOMY);
  }

  /** Takes bytes. @returns how many there was room for */
  push(bytes: Uint8Array): number {
    while (this.ring.length - this.used < bytes.length && this.grow());
    const count = Math.min(bytes.length, this.ring.length - this.used);
    if (count === 0) return 0;
    const at = (this.head + this.used) % this.ring.length;
    const first = Math.min(count, this.ring.length - at);
    this.ring.set(bytes.subarray(0, first), at);
    if (count > first) this.ring.set(bytes.subarray(first, count));
    this.used += count;
    return count;
  }

  /** Bytes from an offset on, without a copy: they hold until the next push or drop. */
  slices(offset: number, length: number): Uint8Array[] {
    if (length === 0) return [];
    const at = (this.head + offset) % this.ring.length;
    const first = Math.min(length, this.ring.length - at);
    const slice = this.ring.subarray(at, at + first);
    return first === length ? [slice] : [slice, this.ring.subarray(0, length - first)];
  }

  /** Forgets bytes at the front. */
  drop(count: number): void {
    this.used -= count;
    this.head = this.used === 0 ? 0 : (this.head + count) % this.ring.length;
  }

  /** Gives the memory back; the buffer is empty then. */
  release(): void {
    this.budget.give(this.taken);
    this.taken = 0;
    this.ring = new Uint8Array(0);
    this.head = 0;
    this.used = 0;
  }

  private grow(): boolean {
    const size = this.ring.length === 0 ? BUFFER_LEAST : this.ring.length * 2;
    if (size > this.limit) return false;
    const more = this.ring.length === 0 ? 0 : size - this.ring.length;
    if (!this.budget.take(more)) return false;
    this.taken += more;
    const ring = new Uint8Array(size);
    let at = 0;
    for (const slice of this.slices(0, this.used)) {
      ring.set(slice, at);
      at += slice.length;
    }
    this.ring = ring;
    this.head = 0;
    return true;
  }
}
