/**
 * The back end's side of a shared ring (public/io/ring.h), over one or several pages.
 *
 * The front end may write anything into the pages at any time. An index is read once for one use; one that cannot be
 * (more requests than the ring has room for beside the answers that are due) ends the device. What is on the ring is
 * copied out before anybody looks at it, or each word of it is read once, so that it does not change between the look
 * and the use.
 */
import { type Memory, PAGE_SIZE } from '../../machine/memory.ts';
import { ringEntries, SRING } from '../../xen/public/ring.ts';

/** The front end broke the ring's rules: the device closes with this. */
export class RingError extends Error {}

export class BackRing {
  /** How many entries it has: a power of two. */
  readonly entries: number;
  private readonly memory: Memory;
  private readonly pages: readonly number[];
  private readonly entrySize: number;
  private reqCons: number;
  private rspProd: number;
  /** Answers up to which {@link awaited} was asked. */
  private asked: number;

  /**
   * @param pages linear addresses @param entrySize bytes of the larger of request and response
   * @throws RingError
   */
  constructor(memory: Memory, pages: readonly number[], entrySize: number) {
    this.memory = memory;
    this.pages = pages;
    this.entrySize = entrySize;
    this.entries = ringEntries(pages.length * PAGE_SIZE, entrySize);
    // A ring that was in use before goes on where its answers end.
    this.rspProd = this.load(SRING.rsp_prod);
    this.reqCons = this.rspProd;
    this.asked = this.rspProd;
    this.available();
  }

  /** Requests that were not taken yet. @throws RingError */
  available(): number {
    const produced = this.load(SRING.req_prod);
    const unanswered = (produced - this.rspProd) >>> 0;
    if (unanswered > this.entries) throw new RingError(`${unanswered} requests in a ring of ${this.entries}`);
    return (produced - this.reqCons) >>> 0;
  }

  /** Copies the next request out. Only if one is {@link available}. @param to as long as an entry */
  take(to: Uint8Array): void {
    this.copyOut(this.reqCons, to);
    this.reqCons = (this.reqCons + 1) >>> 0;
  }

  /**
   * Takes the next request off a ring of one page. Only if one is {@link available}.
   * @returns its linear address; each word of it is to be read once
   */
  takeInPlace(): number {
    const address = this.pages[0]! + this.offset(this.reqCons);
    this.reqCons = (this.reqCons + 1) >>> 0;
    return address;
  }

  /**
   * Adds an answer to a ring of one page. The front end sees it after {@link publish}.
   * @returns linear address, to be filled before that
   */
  putInPlace(): number {
    const address = this.pages[0]! + this.offset(this.rspProd);
    this.rspProd = (this.rspProd + 1) >>> 0;
    return address;
  }

  /**
   * To be asked when no request is left: tells the front end to signal the next one.
   * @returns true: one came meanwhile, and will not be signalled
   * @throws RingError
   */
  moreRequests(): boolean {
    this.store(SRING.req_event, this.reqCons + 1);
    return this.available() > 0;
  }

  /**
   * Are so many requests there? If not, the next one beyond those that are will be signalled: the front end looks
   * whether the one that is waited for is among those that it adds, so that one already there would never be.
   * @throws RingError
   */
  awaitRequests(count: number): boolean {
    for (let available = this.available(); available < count; ) {
      this.store(SRING.req_event, this.reqCons + available + 1);
      const now = this.available();
      if (now === available) return false;
      available = now;
    }
    return true;
  }

  /** Adds an answer. @param bytes at most an entry's length. The front end sees it after {@link publish}. */
  put(bytes: Uint8Array): void {
    this.copyIn(this.rspProd, bytes);
    this.rspProd = (this.rspProd + 1) >>> 0;
  }

  /** Shows the answers to the front end. @returns true: it is to be signalled */
  publish(): boolean {
    this.show();
    return this.awaited();
  }

  /** Shows the answers to the front end, which may come upon them by itself before {@link awaited} is asked. */
  show(): void {
    this.store(SRING.rsp_prod, this.rspProd);
  }

  /** Does the front end still wait for an answer that was shown since this was asked last? Then it is to be signalled. */
  awaited(): boolean {
    const added = (this.rspProd - this.asked) >>> 0;
    this.asked = this.rspProd;
    return (this.rspProd - this.load(SRING.rsp_event)) >>> 0 < added;
  }

  /** Answers that are due: requests taken and not answered. */
  get unanswered(): number {
    return (this.reqCons - this.rspProd) >>> 0;
  }

  private copyOut(index: number, to: Uint8Array): void {
    let at = this.offset(index);
    for (let done = 0; done < to.length; ) {
      const piece = Math.min(to.length - done, PAGE_SIZE - (at % PAGE_SIZE));
      const from = this.address(at);
      to.set(this.memory.u8.subarray(from, from + piece), done);
      done += piece;
      at += piece;
    }
  }

  private copyIn(index: number, bytes: Uint8Array): void {
    let at = this.offset(index);
    for (let done = 0; done < bytes.length; ) {
      const piece = Math.min(bytes.length - done, PAGE_SIZE - (at % PAGE_SIZE));
      this.memory.u8.set(bytes.subarray(done, done + piece), this.address(at));
      done += piece;
      at += piece;
    }
  }

  private offset(index: number): number {
    return SRING.entries + (index & (this.entries - 1)) * this.entrySize;
  }

  private address(offset: number): number {
    return this.pages[Math.floor(offset / PAGE_SIZE)]! + (offset % PAGE_SIZE);
  }

  private load(field: number): number {
    return Atomics.load(this.memory.u32, (this.pages[0]! + field) >>> 2);
  }

  private store(field: number, value: number): void {
    Atomics.store(this.memory.u32, (this.pages[0]! + field) >>> 2, value >>> 0);
  }
}
