/** Moving data between domains by grants: GNTTABOP_copy and GNTTABOP_transfer. */
import { PAGE_SIZE } from '../machine/memory.ts';
import type { Domain } from './domain.ts';
import { GuestPage } from './guest-page.ts';
import { HypercallError } from './hypercall.ts';
import { GNTCOPY, GNTST, type GrantStatus } from './public/grant_table.ts';
import { DOMID } from './public/xen.ts';

/** One side of a copy. */
export interface CopyEnd {
  /** A grant reference, or a frame number of the calling domain, as the flags say. */
  readonly frame: number;
  readonly domid: number;
  readonly offset: number;
}

/** A page of one side while it is copied. */
interface Side {
  readonly page: GuestPage;
  /** Bytes of the page that may be touched. */
  readonly start: number;
  readonly end: number;
  release(): void;
}

/** GNTTABOP_copy, one operation. @param length bytes @param flags GNTCOPY */
export function copy(
  caller: Domain,
  source: CopyEnd,
  dest: CopyEnd,
  length: number,
  flags: number,
): GrantStatus {
  if (source.offset + length > PAGE_SIZE || dest.offset + length > PAGE_SIZE) return GNTST.bad_copy_arg;
  const from = openSide(caller, source, false, (flags & GNTCOPY.source_gref) !== 0);
  if (typeof from === 'number') return from;
  try {
    const to = openSide(caller, dest, true, (flags & GNTCOPY.dest_gref) !== 0);
    if (typeof to === 'number') return to;
    try {
      if (!within(from, source.offset, length) || !within(to, dest.offset, length))
        return GNTST.general_error;
      const { u8 } = caller.hypervisor.memory;
      const at = from.page.address + source.offset;
      u8.copyWithin(to.page.address + dest.offset, at, at + length);
      to.page.domain.memory.wrote(to.page.mfn);
      return GNTST.okay;
    } finally {
      to.release();
    }
  } finally {
    from.release();
  }
}

function within({ start, end }: Side, offset: number, length: number): boolean {
  return offset >= start && offset + length <= end;
}

function openSide(caller: Domain, end: CopyEnd, write: boolean, granted: boolean): Side | GrantStatus {
  if (granted) {
    const owner = end.domid === DOMID.SELF ? caller : caller.hypervisor.neighbour(caller, end.domid);
    if (!owner || owner.dying) return GNTST.bad_domain;
    const use = owner.grants.use(end.frame, { domid: caller.id, write, map: false });
    if (typeof use === 'number') return use;
    return { page: use.page, start: use.offset, end: use.offset + use.length, release: () => use.release() };
  }
  if (end.domid !== DOMID.SELF) return GNTST.permission_denied;
  const page = write ? GuestPage.writable(caller, end.frame) : GuestPage.readable(caller, end.frame);
  if (!page) return write ? GNTST.general_error : GNTST.bad_page;
  return { page, start: 0, end: PAGE_SIZE, release: () => page.release() };
}

/**
 * GNTTABOP_transfer, one operation: a page of the caller's becomes one of another domain's, which waits for it in an
 * entry of its grant table. As frame numbers are private to a domain, the page arrives there under a new one.
 * Whatever is answered but bad_page, the caller has lost the page.
 */
export function transfer(caller: Domain, mfn: number, domid: number, ref: number): GrantStatus {
  const { memory } = caller;
  if (!memory.exclusive(mfn)) return GNTST.bad_page;
  const target = domid === DOMID.SELF ? caller : caller.hypervisor.neighbour(caller, domid);
  try {
    if (!target || target.dying) return GNTST.bad_domain;
    const { grants } = target;
    if (ref >= grants.frames.entries) return GNTST.bad_gntref;
    if (target.memory.totalPages >= target.memory.maxPages && target !== caller) return GNTST.general_error;
    if (!grants.frames.commitTransfer(ref, caller.id)) return GNTST.general_error;
    const arrived = populateOne(target);
    if (arrived === null) return GNTST.general_error;
    const from = memory.linear(mfn);
    caller.hypervisor.memory.u8.copyWithin(target.memory.linear(arrived), from, from + PAGE_SIZE);
    target.memory.wrote(arrived);
    grants.frames.completeTransfer(ref, arrived);
    return GNTST.okay;
  } finally {
    memory.giveBack(mfn);
  }
}

function populateOne(domain: Domain): number | null {
  try {
    return domain.memory.populate(1)[0]!;
  } catch (error) {
    if (error instanceof HypercallError) return null;
    throw error;
  }
}
