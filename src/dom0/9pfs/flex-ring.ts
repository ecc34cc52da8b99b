/**
 * The back end's side of a ring of bytes (public/io/ring.h, XEN_FLEX_RING): requests come out of one half of its
 * pages, answers go into the other.
 *
 * The front end may write anything into the pages at any time. An index is read once for one use, and one that cannot
 * be ends the device. Bytes are copied out before anybody looks at them. The front end takes an answer's header for a
 * sign that all of it is there, so an answer is put in whole or not at all.
 */
import { type Memory, PAGE_SIZE } from '../../machine/memory.ts';
import { XEN_9PFS_DATA_INTF } from '../../xen/public/io/9pfs.ts';
import { RingError } from '../backend/back-ring.ts';

export class FlexRing {
  /** Bytes in each direction: a power of two. */
  readonly size: number;
  private readonly memory: Memory;
  private readonly intf: number;
  private readonly pages: readonly number[];
  /** Our own indices: what the shared page says of them is for the front end. */
  private outCons: number;
  private inProd: number;

  /** @param intf linear address of the describing page @param pages linear addresses: a power of two, 2 or more */
  constructor(memory: Memory, intf: number, pages: readonly number[]) {
    this.memory = memory;
    this.intf = intf;
    this.pages = pages;
    this.size = (pages.length * PAGE_SIZE) / 2;
    this.outCons = this.load(XEN_9PFS_DATA_INTF.out_cons);
    this.inProd = this.load(XEN_9PFS_DATA_INTF.in_prod);
  }

  /** Bytes of requests that were not taken yet. @throws RingError */
  queued(): number {
    return this.checked(this.load(XEN_9PFS_DATA_INTF.out_prod) - this.outCons);
  }

  /** Copies the next bytes out and leaves them there; only as many as are {@link queued}. */
  peek(length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    const { u8 } = this.memory;
    this.pieces(this.size, this.outCons, length, (address, done, piece) =>
      bytes.set(u8.subarray(address, address + piece), done),
    );
    return bytes;
  }

  /** The same, and gives their room back. */
  take(length: number): Uint8Array {
    const bytes = this.peek(length);
    this.outCons = (this.outCons + length) >>> 0;
    this.store(XEN_9PFS_DATA_INTF.out_cons, this.outCons);
    return bytes;
  }

  /** Puts an answer in. @returns false: there is no room for it @throws RingError */
  put(bytes: Uint8Array): boolean {
    const used = this.checked(this.inProd - this.load(XEN_9PFS_DATA_INTF.in_cons));
    if (this.size - used < bytes.length) return false;
    const { u8 } = this.memory;
    this.pieces(0, this.inProd, bytes.length, (address, done, piece) =>
      u8.set(bytes.subarray(done, done + piece), address),
    );
    this.inProd = (this.inProd + bytes.length) >>> 0;
    this.store(XEN_9PFS_DATA_INTF.in_prod, this.inProd);
    return true;
  }

  private checked(difference: number): number {
    const bytes = difference >>> 0;
    if (bytes > this.size) throw new RingError(`${bytes} bytes in a ring of ${this.size}`);
    return bytes;
  }

  /** Walks a range of one half, page by page. @param half where it begins in the pages */
  private pieces(
    half: number,
    index: number,
    length: number,
    visit: (address: number, done: number, piece: number) => void,
  ): void {
    for (let done = 0; done < length; ) {
      const at = half + ((index + done) & (this.size - 1));
      const piece = Math.min(length - done, PAGE_SIZE - (at % PAGE_SIZE));
      visit(this.pages[Math.floor(at / PAGE_SIZE)]! + (at % PAGE_SIZE), done, piece);
      done += piece;
    }
  }

  private load(field: number): number {
    return Atomics.load(this.memory.u32, (this.intf + field) >>> 2);
  }

  private store(field: number, value: number): void {
    Atomics.store(this.memory.u32, (this.intf + field) >>> 2, value >>> 0);
  }
}
