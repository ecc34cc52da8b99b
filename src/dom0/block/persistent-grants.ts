/**
 * Pages that a front end uses again and again (feature-persistent), kept mapped. Those used longest ago go when there
 * are too many, but none that is in use.
 */
import type { GuestLink } from '../backend/data-plane.ts';

interface Kept {
  readonly handle: number;
  readonly address: number;
  users: number;
}

export class PersistentGrants {
  private readonly link: GuestLink;
  private readonly limit: number;
  /** By reference, the one used longest ago first. */
  private readonly kept = new Map<number, Kept>();

  /** @param limit pages kept at most */
  constructor(link: GuestLink, limit: number) {
    this.link = link;
    this.limit = limit;
  }

  get count(): number {
    return this.kept.size;
  }

  /** @returns linear address of the page, in use until {@link done}; 0: it cannot be kept */
  use(ref: number): number {
    let entry = this.kept.get(ref);
    if (entry) this.kept.delete(ref);
    else {
      if (this.kept.size >= this.limit && !this.dropOldest()) return 0;
      const page = this.link.map(ref, false);
      if (typeof page === 'number') return 0;
      entry = { ...page, users: 0 };
    }
    entry.users++;
    this.kept.set(ref, entry);
    return entry.address;
  }

  /** @param written something was written to the page */
  done(ref: number, written: boolean): void {
    const entry = this.kept.get(ref);
    if (!entry) return;
    entry.users--;
    if (written) this.link.wrote(entry.handle);
  }

  private dropOldest(): boolean {
    for (const [ref, { handle, users }] of this.kept) {
      if (users > 0) continue;
      this.kept.delete(ref);
      this.link.unmap(handle);
      return true;
    }
    return false;
  }
}
