/**
 * Domain 0's use of guests' grants: back ends get at granted pages by their linear address, with the same checks
 * that a guest's mapping goes through. Handles are numbers, so that they can be given to another thread.
 */
import { PAGE_SIZE } from '../machine/memory.ts';
import type { Domain } from './domain.ts';
import type { GrantUse } from './grant-table.ts';
import { GNTST, type GrantStatus } from './public/grant_table.ts';

const DOMAIN_0 = 0;

export interface GrantHandle {
  handle: number;
  /** Linear address of the page: the whole of it may be used, to be read or also to be written as was asked. */
  address: number;
}

export class GrantAccess {
  private readonly domain: Domain;
  private readonly uses = new Map<number, GrantUse>();
  private last = 0;

  /** @param domain whose grants */
  constructor(domain: Domain) {
    this.domain = domain;
  }

  /** Pages in use now. */
  get count(): number {
    return this.uses.size;
  }

  /** @returns the page, or why it cannot be had (GNTST) */
  map(ref: number, readonly: boolean): GrantHandle | GrantStatus {
    if (this.domain.dying) return GNTST.bad_domain;
    const use = this.domain.grants.use(ref, { domid: DOMAIN_0, write: !readonly, map: true });
    if (typeof use === 'number') return use;
    const handle = ++this.last;
    this.uses.set(handle, use);
    return { handle, address: use.address };
  }

  /** @returns false: there is no such handle */
  unmap(handle: number): boolean {
    const use = this.uses.get(handle);
    if (!use) return false;
    this.uses.delete(handle);
    this.written(use);
    use.release();
    return true;
  }

  /** Something other than guests (a host's read into it) wrote to a mapped page: code in it is translated anew. */
  wrote(handle: number): void {
    const use = this.uses.get(handle);
    if (use) this.written(use);
  }

  /**
   * A granted page for as long as nothing else happens on this processor: until the data plane returns.
   * @param write it is going to be written to, now
   * @returns its linear address, or 0: it cannot be had so, but perhaps by the other ways
   */
  briefly(ref: number, write: boolean): number {
    return this.domain.grants.briefly(ref, DOMAIN_0, write);
  }

  /** Copies bytes out of a granted page. @param to linear address */
  copyFrom(ref: number, offset: number, length: number, to: number): GrantStatus {
    const page = this.briefly(ref, false);
    if (page !== 0) {
      if (!within(offset, length)) return GNTST.bad_copy_arg;
      this.domain.hypervisor.memory.u8.copyWithin(to, page + offset, page + offset + length);
      return GNTST.okay;
    }
    return this.once(ref, false, offset, length, (at): GrantStatus => {
      this.domain.hypervisor.memory.u8.copyWithin(to, at, at + length);
      return GNTST.okay;
    });
  }

  /** Copies bytes into a granted page. @param from linear address */
  copyTo(ref: number, offset: number, length: number, from: number): GrantStatus {
    const page = this.briefly(ref, true);
    if (page !== 0) {
      if (!within(offset, length)) return GNTST.bad_copy_arg;
      this.domain.hypervisor.memory.u8.copyWithin(page + offset, from, from + length);
      return GNTST.okay;
    }
    return this.once(ref, true, offset, length, (at): GrantStatus => {
      this.domain.hypervisor.memory.u8.copyWithin(at, from, from + length);
      return GNTST.okay;
    });
  }

  /** Copies bytes out of a granted page. @returns the bytes (a copy), or why not */
  read(ref: number, offset: number, length: number): Uint8Array | GrantStatus {
    return this.once(ref, false, offset, length, (at) =>
      this.domain.hypervisor.memory.u8.slice(at, at + length),
    );
  }

  /** Copies bytes into a granted page. */
  write(ref: number, offset: number, bytes: Uint8Array): GrantStatus {
    return this.once(ref, true, offset, bytes.length, (at): GrantStatus => {
      this.domain.hypervisor.memory.u8.set(bytes, at);
      return GNTST.okay;
    });
  }

  /** Ends all uses. */
  close(): void {
    for (const handle of [...this.uses.keys()]) this.unmap(handle);
  }

  private once<T>(
    ref: number,
    write: boolean,
    offset: number,
    length: number,
    work: (address: number) => T,
  ): T | GrantStatus {
    if (this.domain.dying) return GNTST.bad_domain;
    const use = this.domain.grants.use(ref, { domid: DOMAIN_0, write, map: false });
    if (typeof use === 'number') return use;
    try {
      if (!(offset >= use.offset && length >= 0 && offset + length <= use.offset + use.length))
        return GNTST.bad_copy_arg;
      const result = work(use.address + offset);
      this.written(use);
      return result;
    } finally {
      use.release();
    }
  }

  private written({ page }: GrantUse): void {
    if (page.writable) page.domain.memory.wrote(page.mfn);
  }
}

function within(offset: number, length: number): boolean {
  return offset >= 0 && length >= 0 && offset + length <= PAGE_SIZE;
}
