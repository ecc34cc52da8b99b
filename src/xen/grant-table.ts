/**
 * The grants of a domain: what it lets others do with its pages, and what of that is in use.
 *
 * An entry that is in use is *active*: it was looked at once, and what it said then (page, part of the page) holds
 * for every further use until the last one ends, whatever the guest writes into it meanwhile. Each use holds the
 * page: to be read a reference, to be written also a count of the type writable, so that no page ever becomes a
 * page table while another domain can write to it. The status bits that the guest sees say what of it is in use.
 */
import { PAGE_SIZE } from '../machine/memory.ts';
import type { Domain } from './domain.ts';
import { type GrantEntry, GrantFrames, type GrantFramesState, type GrantVersion } from './grant-frames.ts';
import { GrantMappings } from './grant-map.ts';
import { GuestPage } from './guest-page.ts';
import { HypercallError } from './hypercall.ts';
import { FrameType } from './mm/frame-table.ts';
import { ERRNO } from './public/errno.ts';
import { GNTST, type GrantStatus, GTF } from './public/grant_table.ts';

/** Largest size of the table, in frames (xl.cfg: max_grant_frames). */
export const DEFAULT_MAX_FRAMES = 64;

/** An entry that is in use. */
interface Active {
  readonly domid: number;
  readonly mfn: number;
  readonly offset: number;
  readonly length: number;
  readonly partial: boolean;
  readers: number;
  writers: number;
}

/** One use of a granted page. */
export interface GrantUse {
  /** Linear address of the page. */
  readonly address: number;
  /** Bytes of the page that are granted. */
  readonly offset: number;
  readonly length: number;
  readonly page: GuestPage;
  /** Ends the use. Once. */
  release(): void;
}

/** How a grant is wanted. */
export interface GrantWish {
  /** Who wants it. */
  readonly domid: number;
  readonly write: boolean;
  /** To map it: then it must be a whole page, and the domain's own. Otherwise it is to be copied. */
  readonly map: boolean;
}

/** A grant table as plain data, and which of its entries are in use: reference, page, readers, writers. */
export interface GrantsState extends GrantFramesState {
  readonly uses: readonly (readonly [ref: number, mfn: number, readers: number, writers: number])[];
}

export class GrantTable {
  readonly domain: Domain;
  readonly maxFrames: number;
  readonly frames: GrantFrames;
  /** What this domain has mapped of others. */
  readonly mappings: GrantMappings;
  private readonly active = new Map<number, Active>();
  private destroyed = false;

  constructor(domain: Domain, maxFrames = DEFAULT_MAX_FRAMES) {
    this.domain = domain;
    this.maxFrames = maxFrames;
    this.frames = new GrantFrames(domain);
    this.mappings = new GrantMappings(domain);
  }

  /** The table exists from the first use on, with one frame. @returns false: no memory */
  ensure(frames = 1): boolean {
    return this.frames.count >= frames || (frames <= this.maxFrames && this.frames.grow(frames));
  }

  /**
   * Fills a reserved entry: a page of the domain's for Domain 0 (console, xenstore).
   * @returns false: no memory for the table
   */
  seed(ref: number, mfn: number, domid = 0): boolean {
    if (!this.ensure()) return false;
    this.frames.write(ref, { flags: GTF.permit_access, domid, frame: mfn });
    return true;
  }

  /** Entries that others have in use now. */
  get inUse(): number {
    return this.active.size;
  }

  /** As plain data (domain-state.ts). */
  state(): GrantsState {
    return {
      ...this.frames.state(),
      uses: [...this.active].map(([ref, { mfn, readers, writers }]) => [ref, mfn, readers, writers] as const),
    };
  }

  /**
   * The frames are those of such a table: nothing of it is in use, as what others had mapped was the other domain's.
   * @throws HypercallError EINVAL: what cannot be
   */
  setState({ uses }: GrantsState): void {
    const { memory } = this.domain;
    for (const [ref, mfn, readers, writers] of uses) {
      if (ref >= this.frames.entries) throw new HypercallError(ERRNO.EINVAL);
      for (let use = 0; use < readers + writers; use++) {
        memory.adoptHold(mfn, use < readers ? null : FrameType.writable);
        if (use < readers) memory.putPage(mfn);
        else memory.putPageType(mfn);
      }
      this.frames.unmark(ref, false, false);
    }
  }

  isActive(ref: number): boolean {
    return this.active.has(ref);
  }

  /**
   * Changes the version of the entries. The first `reserved` ones may be in use meanwhile.
   * @returns false: others are in use, or the reserved ones mean nothing in that version, or there is no memory
   */
  setVersion(version: GrantVersion, reserved: number): boolean {
    for (const ref of this.active.keys()) if (ref >= reserved) return false;
    if (!this.ensure() || !this.frames.changeVersion(version)) return false;
    for (const [ref, { writers }] of this.active) this.frames.markInUse(ref, writers > 0);
    return true;
  }

  /** Begins a use of a grant. @param ref any number @returns the use, or why not */
  use(ref: number, wish: GrantWish): GrantUse | GrantStatus {
    return this.begin(ref, wish, !wish.map);
  }

  /**
   * A use of a whole page that is over before anything else happens on this processor, which is the one that the
   * domain runs on: nobody can see that it was in use, so nothing is counted. For the plain case alone.
   * @param ref any number
   * @returns linear address of the page, or 0: see what {@link use} says
   */
  briefly(ref: number, domid: number, write: boolean): number {
    const { frames, domain } = this;
    if (this.destroyed || domain.dying || !(ref >= 0 && ref < frames.entries) || this.active.has(ref))
      return 0;
    const mfn = frames.plainPage(ref, domid, write);
    // Memory that the domain can write to as it likes, and nobody else.
    if (mfn < 0 || !domain.memory.shareable(mfn)) return 0;
    const address = domain.memory.linear(mfn);
    if (write) domain.memory.wrote(mfn);
    return address;
  }

  /** The domain is gone. Uses of its pages that others have go on until they end them. */
  destroy(): void {
    if (this.destroyed) return;
    this.destroyed = true;
    this.mappings.destroy();
    this.frames.destroy();
  }

  private begin(ref: number, wish: GrantWish, transitive: boolean): GrantUse | GrantStatus {
    if (this.destroyed || !Number.isInteger(ref) || ref < 0 || ref >= this.frames.entries)
      return GNTST.bad_gntref;
    const before = this.active.get(ref);
    if (before && before.domid !== wish.domid) return GNTST.general_error;
    if (before && wish.map && before.partial) return GNTST.general_error;

    const entry = this.frames.mark(ref, wish.write, (candidate) => allows(candidate, wish, transitive));
    if (!entry) {
      this.settle(ref, before);
      return GNTST.general_error;
    }
    if (!before && (entry.flags & GTF.type_mask) === GTF.transitive)
      return this.beginTransitive(ref, entry, wish);

    const now: Active = before ?? {
      domid: wish.domid,
      mfn: entry.frame,
      offset: (entry.flags & GTF.sub_page) === 0 ? 0 : entry.offset,
      length: (entry.flags & GTF.sub_page) === 0 ? PAGE_SIZE : entry.length,
      partial: (entry.flags & GTF.sub_page) !== 0,
      readers: 0,
      writers: 0,
    };
    const page =
      now.offset + now.length > PAGE_SIZE
        ? null
        : wish.write
          ? GuestPage.writable(this.domain, now.mfn)
          : GuestPage.readable(this.domain, now.mfn);
    if (!page) {
      this.settle(ref, before);
      return GNTST.general_error;
    }
    this.active.set(ref, now);
    if (wish.write) now.writers++;
    else now.readers++;
    return {
      address: page.address,
      offset: now.offset,
      length: now.length,
      page,
      release: () => {
        page.release();
        if (wish.write) now.writers--;
        else now.readers--;
        if (now.readers + now.writers === 0) this.active.delete(ref);
        this.settle(ref, this.active.get(ref));
      },
    };
  }

  /** A grant that passes on what a third domain granted to this one. It is for one copy, and goes no further. */
  private beginTransitive(ref: number, entry: GrantEntry, wish: GrantWish): GrantUse | GrantStatus {
    const third = this.domain.hypervisor.domain(entry.transDomid)?.grants;
    const inner = third
      ? third.begin(entry.transRef, { ...wish, domid: this.domain.id }, false)
      : GNTST.general_error;
    if (typeof inner === 'number') {
      this.settle(ref, undefined);
      return inner;
    }
    return {
      ...inner,
      release: () => {
        inner.release();
        this.settle(ref, this.active.get(ref));
      },
    };
  }

  /** Brings the status bits in line with what is in use. */
  private settle(ref: number, active: Active | undefined): void {
    if (this.destroyed) return;
    this.frames.unmark(ref, active !== undefined, active !== undefined && active.writers > 0);
  }
}

function allows(entry: GrantEntry, wish: GrantWish, transitive: boolean): boolean {
  if (entry.domid !== wish.domid) return false;
  if (wish.write && (entry.flags & GTF.readonly) !== 0) return false;
  const type = entry.flags & GTF.type_mask;
  if (type === GTF.transitive) return transitive;
  return type === GTF.permit_access && !(wish.map && (entry.flags & GTF.sub_page) !== 0);
}
