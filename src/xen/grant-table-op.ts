/** The hypercall grant_table_op (public/grant_table.h): from arrays of operations to the grants of domains. */
import type { VirtualAddress } from '../x86/cpu.ts';
import type { Domain } from './domain.ts';
import { type CopyEnd, copy, transfer } from './grant-copy.ts';
import type { GrantVersion } from './grant-frames.ts';
import { type Arguments, HypercallError, NotYet, RESTART } from './hypercall.ts';
import { ERRNO } from './public/errno.ts';
import {
  GNTCOPY,
  GNTST,
  GNTTAB_COPY,
  GNTTAB_COPY_PTR,
  GNTTAB_GET_STATUS_FRAMES,
  GNTTAB_GET_VERSION,
  GNTTAB_MAP_GRANT_REF,
  GNTTAB_NR_RESERVED_ENTRIES,
  GNTTAB_QUERY_SIZE,
  GNTTAB_SET_VERSION,
  GNTTAB_SETUP_TABLE,
  GNTTAB_SWAP_GRANT_REF,
  GNTTAB_TRANSFER,
  GNTTAB_UNMAP_AND_REPLACE,
  GNTTAB_UNMAP_GRANT_REF,
  GNTTABOP,
  type GrantStatus,
} from './public/grant_table.ts';
import { DOMID } from './public/xen.ts';
import type { Vcpu } from './vcpu.ts';

/** Operations of one call that are done before other work of the machine may run. */
const MAX_OPERATIONS = 256;
const COUNT_MAX = 0x7fffffff;

type Operation = (vcpu: Vcpu, at: VirtualAddress) => void;

/** Commands that take an array of operations: the size of one, and what it does. */
const ARRAYS: ReadonlyMap<number, { size: number; operation: Operation }> = new Map([
  [GNTTABOP.map_grant_ref, { size: GNTTAB_MAP_GRANT_REF.size, operation: mapGrantRef }],
  [GNTTABOP.unmap_grant_ref, { size: GNTTAB_UNMAP_GRANT_REF.size, operation: unmapGrantRef }],
  [GNTTABOP.unmap_and_replace, { size: GNTTAB_UNMAP_AND_REPLACE.size, operation: unmapAndReplace }],
  [GNTTABOP.transfer, { size: GNTTAB_TRANSFER.size, operation: transferPage }],
  [GNTTABOP.copy, { size: GNTTAB_COPY.size, operation: copyData }],
  [GNTTABOP.swap_grant_ref, { size: GNTTAB_SWAP_GRANT_REF.size, operation: swapGrantRef }],
]);

/** Commands that take exactly one structure. */
const SINGLE: ReadonlyMap<number, Operation> = new Map([
  [GNTTABOP.setup_table, setupTable],
  [GNTTABOP.query_size, querySize],
  [GNTTABOP.get_status_frames, getStatusFrames],
]);

/** grant_table_op(cmd, args, count). */
export function grantTableOp(vcpu: Vcpu, args: Arguments): number {
  const command = args.low(0);
  const at = args.number(1);
  const count = args.low(2);
  if (count > COUNT_MAX) return -ERRNO.EINVAL;
  if (!vcpu.domain.grants.ensure()) return -ERRNO.ENOMEM;

  const array = ARRAYS.get(command);
  if (array) {
    const now = Math.min(count, MAX_OPERATIONS);
    let done = 0;
    try {
      for (; done < now; done++) array.operation(vcpu, at + done * array.size);
    } catch (error) {
      // This one has to wait; those before it are not done again.
      if (!(error instanceof NotYet)) throw error;
    }
    if (done === count) return 0;
    args.set(1, at + done * array.size);
    args.set(2, count - done);
    return RESTART;
  }
  const single = SINGLE.get(command);
  if (single) {
    if (count !== 1) return -ERRNO.EINVAL;
    single(vcpu, at);
    return 0;
  }
  switch (command) {
    case GNTTABOP.set_version:
      return setVersion(vcpu, at);
    case GNTTABOP.get_version:
      return getVersion(vcpu, at);
    case GNTTABOP.cache_flush:
      // There are no caches to flush between domains and devices.
      return -ERRNO.EOPNOTSUPP;
    default:
      return -ERRNO.ENOSYS;
  }
}

/** Whose table a query is about: a guest may ask only about its own. */
function subject(vcpu: Vcpu, domid: number): Domain | GrantStatus {
  if (domid === DOMID.SELF || domid === vcpu.domain.id) return vcpu.domain;
  return vcpu.domain.hypervisor.domain(domid) ? GNTST.permission_denied : GNTST.bad_domain;
}

/** Writes frame numbers to the guest's list. */
function putFrames({ guest }: Vcpu, at: VirtualAddress, mfns: readonly number[]): void {
  for (const [index, mfn] of mfns.entries()) guest.setNumber64(at + index * 8, mfn);
}

function setupTable(vcpu: Vcpu, at: VirtualAddress): void {
  const { guest } = vcpu;
  const frames = guest.u32(at + GNTTAB_SETUP_TABLE.nr_frames);
  const domain = subject(vcpu, guest.u16(at + GNTTAB_SETUP_TABLE.dom));
  let status: GrantStatus = GNTST.okay;
  if (typeof domain === 'number') status = domain;
  else if (frames > domain.grants.maxFrames || !domain.grants.ensure(frames)) status = GNTST.general_error;
  else {
    putFrames(vcpu, guest.number64(at + GNTTAB_SETUP_TABLE.frame_list), domain.grants.frames.mfns(frames));
  }
  guest.setU16(at + GNTTAB_SETUP_TABLE.status, status);
}

function querySize(vcpu: Vcpu, at: VirtualAddress): void {
  const { guest } = vcpu;
  const domain = subject(vcpu, guest.u16(at + GNTTAB_QUERY_SIZE.dom));
  let status: GrantStatus = GNTST.okay;
  if (typeof domain === 'number') status = domain;
  else {
    guest.setU32(at + GNTTAB_QUERY_SIZE.nr_frames, domain.grants.frames.count);
    guest.setU32(at + GNTTAB_QUERY_SIZE.max_nr_frames, domain.grants.maxFrames);
  }
  guest.setU16(at + GNTTAB_QUERY_SIZE.status, status);
}

function getStatusFrames(vcpu: Vcpu, at: VirtualAddress): void {
  const { guest } = vcpu;
  const count = guest.u32(at + GNTTAB_GET_STATUS_FRAMES.nr_frames);
  const domain = subject(vcpu, guest.u16(at + GNTTAB_GET_STATUS_FRAMES.dom));
  let status: GrantStatus = GNTST.okay;
  if (typeof domain === 'number') status = domain;
  else if (count > domain.grants.frames.statusCount) status = GNTST.general_error;
  else {
    putFrames(
      vcpu,
      guest.number64(at + GNTTAB_GET_STATUS_FRAMES.frame_list),
      domain.grants.frames.statusMfns(count),
    );
  }
  guest.setU16(at + GNTTAB_GET_STATUS_FRAMES.status, status);
}

function setVersion({ guest, domain }: Vcpu, at: VirtualAddress): number {
  const { grants } = domain;
  const version = guest.u32(at + GNTTAB_SET_VERSION.version);
  let result = 0;
  if (version !== 1 && version !== 2) result = -ERRNO.EINVAL;
  else if (!grants.setVersion(version as GrantVersion, GNTTAB_NR_RESERVED_ENTRIES)) result = -ERRNO.EBUSY;
  guest.setU32(at + GNTTAB_SET_VERSION.version, grants.frames.version);
  return result;
}

function getVersion(vcpu: Vcpu, at: VirtualAddress): number {
  const { guest } = vcpu;
  const domain = subject(vcpu, guest.u16(at + GNTTAB_GET_VERSION.dom));
  if (typeof domain === 'number') {
    throw new HypercallError(domain === GNTST.permission_denied ? ERRNO.EPERM : ERRNO.ESRCH);
  }
  guest.setU32(at + GNTTAB_GET_VERSION.version, domain.grants.frames.version);
  return 0;
}

function mapGrantRef(vcpu: Vcpu, at: VirtualAddress): void {
  const { guest, domain } = vcpu;
  const domid = guest.u16(at + GNTTAB_MAP_GRANT_REF.dom);
  const { status, handle, busAddress } = domain.grants.mappings.map(
    vcpu,
    guest.number64(at + GNTTAB_MAP_GRANT_REF.host_addr),
    guest.u32(at + GNTTAB_MAP_GRANT_REF.flags),
    guest.u32(at + GNTTAB_MAP_GRANT_REF.ref),
    domid === DOMID.SELF ? domain.id : domid,
  );
  guest.setU16(at + GNTTAB_MAP_GRANT_REF.status, status);
  guest.setU32(at + GNTTAB_MAP_GRANT_REF.handle, handle);
  guest.setNumber64(at + GNTTAB_MAP_GRANT_REF.dev_bus_addr, busAddress);
}

function unmapGrantRef(vcpu: Vcpu, at: VirtualAddress): void {
  const { guest, domain } = vcpu;
  const status = domain.grants.mappings.unmap(
    vcpu,
    guest.u32(at + GNTTAB_UNMAP_GRANT_REF.handle),
    guest.number64(at + GNTTAB_UNMAP_GRANT_REF.host_addr),
    guest.number64(at + GNTTAB_UNMAP_GRANT_REF.dev_bus_addr),
  );
  guest.setU16(at + GNTTAB_UNMAP_GRANT_REF.status, status);
}

function unmapAndReplace(vcpu: Vcpu, at: VirtualAddress): void {
  const { guest, domain } = vcpu;
  const status = domain.grants.mappings.unmap(
    vcpu,
    guest.u32(at + GNTTAB_UNMAP_AND_REPLACE.handle),
    guest.number64(at + GNTTAB_UNMAP_AND_REPLACE.host_addr),
    0,
    guest.number64(at + GNTTAB_UNMAP_AND_REPLACE.new_addr),
  );
  guest.setU16(at + GNTTAB_UNMAP_AND_REPLACE.status, status);
}

function transferPage({ guest, domain }: Vcpu, at: VirtualAddress): void {
  const status = transfer(
    domain,
    guest.number64(at + GNTTAB_TRANSFER.mfn),
    guest.u16(at + GNTTAB_TRANSFER.domid),
    guest.u32(at + GNTTAB_TRANSFER.ref),
  );
  guest.setU16(at + GNTTAB_TRANSFER.status, status);
}

function copyData(vcpu: Vcpu, at: VirtualAddress): void {
  const { guest, domain } = vcpu;
  const flags = guest.u16(at + GNTTAB_COPY.flags);
  const status = copy(
    domain,
    copyEnd(vcpu, at + GNTTAB_COPY.source, (flags & GNTCOPY.source_gref) !== 0),
    copyEnd(vcpu, at + GNTTAB_COPY.dest, (flags & GNTCOPY.dest_gref) !== 0),
    guest.u16(at + GNTTAB_COPY.len),
    flags,
  );
  guest.setU16(at + GNTTAB_COPY.status, status);
}

function copyEnd({ guest }: Vcpu, at: VirtualAddress, granted: boolean): CopyEnd {
  return {
    frame: granted ? guest.u32(at + GNTTAB_COPY_PTR.ref) : guest.number64(at + GNTTAB_COPY_PTR.gmfn),
    domid: guest.u16(at + GNTTAB_COPY_PTR.domid),
    offset: guest.u16(at + GNTTAB_COPY_PTR.offset),
  };
}

function swapGrantRef({ guest, domain }: Vcpu, at: VirtualAddress): void {
  const { grants } = domain;
  const a = guest.u32(at + GNTTAB_SWAP_GRANT_REF.ref_a);
  const b = guest.u32(at + GNTTAB_SWAP_GRANT_REF.ref_b);
  let status: GrantStatus = GNTST.okay;
  if (a >= grants.frames.entries || b >= grants.frames.entries) status = GNTST.bad_gntref;
  else if (a !== b && (grants.isActive(a) || grants.isActive(b))) status = GNTST.eagain;
  else if (a !== b) grants.frames.swap(a, b);
  guest.setU16(at + GNTTAB_SWAP_GRANT_REF.status, status);
}
