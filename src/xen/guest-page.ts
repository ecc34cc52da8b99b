/** A page of a guest's own memory that the hypervisor uses for longer than one call (event arrays, grants in use). */
import type { Domain } from './domain.ts';
import { HypercallError } from './hypercall.ts';
import { FrameType } from './mm/frame-table.ts';

export class GuestPage {
  readonly domain: Domain;
  readonly mfn: number;
  readonly writable: boolean;
  /** Linear address. */
  readonly address: number;

  private constructor(domain: Domain, mfn: number, writable: boolean) {
    this.domain = domain;
    this.mfn = mfn;
    this.writable = writable;
    this.address = domain.memory.linear(mfn);
  }

  /** Keeps a page from becoming anything but writable memory. @param mfn any number @returns null: not such a page */
  static writable(domain: Domain, mfn: number): GuestPage | null {
    return GuestPage.take(domain, mfn, true);
  }

  /** Keeps a page, whatever it is in use as, to be read. @param mfn any number @returns null: not a page of its own */
  static readable(domain: Domain, mfn: number): GuestPage | null {
    return GuestPage.take(domain, mfn, false);
  }

  /**
   * A writable page whose counts say that it is held already (domain-state.ts).
   * @throws HypercallError EINVAL: they do not
   */
  static adopt(domain: Domain, mfn: number): GuestPage {
    domain.memory.adoptHold(mfn, FrameType.writable);
    return new GuestPage(domain, mfn, true);
  }

  private static take(domain: Domain, mfn: number, writable: boolean): GuestPage | null {
    try {
      if (writable) domain.memory.getPageType(mfn, FrameType.writable);
      else domain.memory.getPage(mfn);
    } catch (error) {
      if (error instanceof HypercallError) return null;
      throw error;
    }
    return new GuestPage(domain, mfn, writable);
  }

  /** Lets go of the page. Once. */
  release(): void {
    if (this.writable) this.domain.memory.putPageType(this.mfn);
    else this.domain.memory.putPage(this.mfn);
  }
}
