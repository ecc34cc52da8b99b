/**
 * memory_op: a domain's reservation, given back and taken anew (the balloon), and what it may know of the machine's
 * memory.
 *
 * The calls that work through a list of extents return how many of them they did, whatever ended them, as Xen does.
 * A long one pauses and goes on: the extent to start at is in the upper bits of the command.
 */
import { Access } from '../x86/processor.ts';
import { type Arguments, HypercallError, RESTART } from './hypercall.ts';
import type { DomainMemory } from './mm/domain-memory.ts';
import { requireSelf } from './mm/foreign.ts';
import { ERRNO } from './public/errno.ts';
import {
  E820_ENTRY,
  E820_MAX,
  FOREIGN_MEMORY_MAP,
  MACHPHYS_MAPPING,
  MACHPHYS_MFN_LIST,
  MEMOP_CMD_MASK,
  MEMOP_EXTENT_SHIFT,
  MEMORY_EXCHANGE,
  MEMORY_MAP,
  MEMORY_RESERVATION,
  XENMEM,
} from './public/memory.ts';
import { MACH2PHYS_VIRT_END, PTES } from './public/mmu.ts';
import { MACH2PHYS_VIRT_START, SHARED_INFO } from './public/xen.ts';
import type { Vcpu } from './vcpu.ts';

/** The largest extents that a guest without devices may ask for: 2 MiB. */
const MAX_ORDER = 9;
/** Pages after which a call pauses. */
const MAX_PAGES = 2048;
/** Extents that fit beside the command. */
const MAX_EXTENTS = 0xffff_ffff >>> MEMOP_EXTENT_SHIFT;

interface Reservation {
  /** Guest address of the list, 0: none. */
  readonly list: number;
  readonly extents: number;
  readonly order: number;
  readonly domid: number;
}

/** memory_op(command, argument). */
export function memoryOp(vcpu: Vcpu, args: Arguments): number {
  const { domain, guest } = vcpu;
  const { memory } = domain;
  const at = args.number(1);
  const command = args.low(0) & MEMOP_CMD_MASK;
  switch (command) {
    case XENMEM.increase_reservation:
    case XENMEM.decrease_reservation:
    case XENMEM.populate_physmap:
      return changeReservation(vcpu, args, command);
    case XENMEM.exchange:
      return exchange(vcpu, args);
    case XENMEM.maximum_ram_page:
      return memory.space.frameLimit - 1;
    case XENMEM.current_reservation:
      requireSelf(domain, guest.u16(at));
      return memory.totalPages;
    case XENMEM.maximum_reservation:
      requireSelf(domain, guest.u16(at));
      return memory.maxPages;
    case XENMEM.maximum_gpfn: {
      requireSelf(domain, guest.u16(at));
      // The guest says how many it uses.
      const pfns = vcpu.memory.read32(memory.sharedInfo + SHARED_INFO.arch_max_pfn);
      return Math.max(pfns, 1) - 1;
    }
    case XENMEM.machphys_mfn_list:
      return machphysList(vcpu, at);
    case XENMEM.machphys_mapping:
      guest.setNumber64(at + MACHPHYS_MAPPING.v_start, MACH2PHYS_VIRT_START);
      guest.setNumber64(at + MACHPHYS_MAPPING.v_end, MACH2PHYS_VIRT_END);
      guest.setNumber64(at + MACHPHYS_MAPPING.max_mfn, memory.space.frameLimit - 1);
      return 0;
    case XENMEM.memory_map:
      return memoryMap(vcpu, at);
    case XENMEM.set_memory_map:
      return setMemoryMap(vcpu, at);
    case XENMEM.add_to_physmap:
    case XENMEM.add_to_physmap_batch:
    case XENMEM.remove_from_physmap:
      // For guests whose physical map the hypervisor keeps; each of these starts with the domid.
      requireSelf(domain, guest.u16(at));
      return -ERRNO.EACCES;
    case XENMEM.get_vnumainfo:
      requireSelf(domain, guest.u16(at));
      return -ERRNO.EOPNOTSUPP;
    case XENMEM.machine_memory_map:
    case XENMEM.set_pod_target:
    case XENMEM.get_pod_target:
    case XENMEM.claim_pages:
    case XENMEM.acquire_resource:
    case XENMEM.access_op:
    case XENMEM.paging_op:
    case XENMEM.sharing_op:
      return -ERRNO.EPERM;
    case XENMEM.get_sharing_freed_pages:
    case XENMEM.get_sharing_shared_pages:
      return 0;
    default:
      return -ERRNO.ENOSYS;
  }
}

function reservation(vcpu: Vcpu, at: number): Reservation {
  const { guest } = vcpu;
  return {
    list: guest.number64(at + MEMORY_RESERVATION.extent_start),
    extents: guest.number64(at + MEMORY_RESERVATION.nr_extents),
    order: guest.u32(at + MEMORY_RESERVATION.extent_order),
    domid: guest.u16(at + MEMORY_RESERVATION.domid),
  };
}

/** increase_reservation, decrease_reservation, populate_physmap. @returns how many extents are done */
function changeReservation(vcpu: Vcpu, args: Arguments, command: number): number {
  const start = args.low(0) >>> MEMOP_EXTENT_SHIFT;
  let index = start;
  let pages = 0;
  try {
    const { list, extents, order, domid } = reservation(vcpu, args.number(1));
    requireSelf(vcpu.domain, domid);
    if (!(extents >= 0 && extents <= MAX_EXTENTS) || order > MAX_ORDER) return start;
    for (; index < extents; index++) {
      if (pages >= MAX_PAGES) {
        args.set(0, command + index * 2 ** MEMOP_EXTENT_SHIFT);
        return RESTART;
      }
      pages += 2 ** order;
      if (command === XENMEM.decrease_reservation) releaseExtent(vcpu, list + index * 8, order);
      else
        allocateExtent(vcpu, list === 0 ? 0 : list + index * 8, order, command === XENMEM.populate_physmap);
    }
  } catch (error) {
    if (!(error instanceof HypercallError)) throw error;
  }
  return index;
}

/** @param at guest address of the list's entry: the pseudo-physical number on entry, the frame number afterwards */
function allocateExtent(vcpu: Vcpu, at: number, order: number, populate: boolean): void {
  const { guest } = vcpu;
  const { memory } = vcpu.domain;
  const pfn = populate ? guest.number64(at) : 0;
  // Where the answer cannot be given, nothing is.
  if (at !== 0) guest.probe(at, 8, Access.Write);
  const mfn = memory.populateExtent(order);
  if (populate) for (let i = 0; i < 2 ** order; i++) memory.setM2p(mfn + i, pfn + i);
  if (at !== 0) guest.setNumber64(at, mfn);
}

function releaseExtent(vcpu: Vcpu, at: number, order: number): void {
  const { memory } = vcpu.domain;
  const mfn = vcpu.guest.number64(at);
  for (let i = 0; i < 2 ** order; i++) if (!memory.giveBack(mfn + i)) throw new HypercallError(ERRNO.EINVAL);
}

/**
 * exchange: gives pages back and gets others, in extents of another size. Each step is complete or not done:
 * it covers the larger of both extents.
 */
function exchange(vcpu: Vcpu, args: Arguments): number {
  const { guest, domain } = vcpu;
  const { memory } = domain;
  const at = args.number(1);
  const input = reservation(vcpu, at + MEMORY_EXCHANGE.in);
  const output = reservation(vcpu, at + MEMORY_EXCHANGE.out);
  let done = guest.number64(at + MEMORY_EXCHANGE.nr_exchanged);
  guest.probe(at + MEMORY_EXCHANGE.nr_exchanged, 8, Access.Write);
  if (input.order > MAX_ORDER || output.order > MAX_ORDER) return -ERRNO.EPERM;
  if (!(input.extents >= 0 && input.extents <= MAX_EXTENTS)) return -ERRNO.EINVAL;
  if (input.extents * 2 ** input.order !== output.extents * 2 ** output.order) return -ERRNO.EINVAL;
  if (input.domid !== output.domid || !(done >= 0 && done <= input.extents)) return -ERRNO.EINVAL;
  requireSelf(domain, input.domid);
  const order = Math.max(input.order, output.order);
  const step = 2 ** (order - input.order);
  if (done % step !== 0) return -ERRNO.EINVAL;
  let pages = 0;
  let result = 0;
  while (done < input.extents) {
    if (pages >= MAX_PAGES) {
      result = RESTART;
      break;
    }
    pages += 2 ** order;
    try {
      const outputs = 2 ** (order - output.order);
      exchangeStep(vcpu, memory, input, output, done, step, (done / step) * outputs, outputs);
    } catch (error) {
      if (!(error instanceof HypercallError)) throw error;
      result = -error.errno;
      break;
    }
    done += step;
  }
  guest.setNumber64(at + MEMORY_EXCHANGE.nr_exchanged, done);
  return result;
}

/** Exchanges `inputs` extents from number `firstIn` on for `outputs` extents from number `firstOut` on. */
function exchangeStep(
  vcpu: Vcpu,
  memory: DomainMemory,
  input: Reservation,
  output: Reservation,
  firstIn: number,
  inputs: number,
  firstOut: number,
  outputs: number,
): void {
  const { guest } = vcpu;
  const old = new Set<number>();
  for (let i = 0; i < inputs; i++) {
    const mfn = guest.number64(input.list + (firstIn + i) * 8);
    for (let page = 0; page < 2 ** input.order; page++) {
      if (!memory.exclusive(mfn + page) || old.has(mfn + page)) throw new HypercallError(ERRNO.EINVAL);
      old.add(mfn + page);
    }
  }
  const list = output.list + firstOut * 8;
  const pfns: number[] = [];
  for (let i = 0; i < outputs; i++) pfns.push(guest.number64(list + i * 8));
  guest.probe(list, outputs * 8, Access.Write);
  const count = 2 ** output.order;
  const fresh: number[] = [];
  try {
    while (fresh.length < outputs) fresh.push(memory.populateExtent(output.order, old.size));
  } catch (error) {
    for (const mfn of fresh) for (let page = 0; page < count; page++) memory.giveBack(mfn + page);
    throw error;
  }
  for (const mfn of old) memory.giveBack(mfn);
  fresh.forEach((mfn, i) => {
    for (let page = 0; page < count; page++) memory.setM2p(mfn + page, pfns[i]! + page);
    guest.setNumber64(list + i * 8, mfn);
  });
}

/** The first frame of each 2 MiB of the machine-to-physical table. */
function machphysList(vcpu: Vcpu, at: number): number {
  const { guest } = vcpu;
  const { machineToPhys } = vcpu.domain.memory;
  const count = Math.min(guest.u32(at + MACHPHYS_MFN_LIST.max_extents), machineToPhys.extents);
  const list = guest.number64(at + MACHPHYS_MFN_LIST.extent_start);
  for (let i = 0; i < count; i++) guest.setNumber64(list + i * 8, machineToPhys.firstMfn + i * PTES);
  guest.setU32(at + MACHPHYS_MFN_LIST.nr_extents, count);
  return 0;
}

function memoryMap(vcpu: Vcpu, at: number): number {
  const { guest } = vcpu;
  const map = vcpu.domain.memory.memoryMap;
  const count = Math.min(guest.u32(at + MEMORY_MAP.nr_entries), map.length);
  const buffer = guest.number64(at + MEMORY_MAP.buffer);
  for (let i = 0; i < count; i++) {
    const entry = buffer + i * E820_ENTRY.size;
    guest.setNumber64(entry + E820_ENTRY.address, map[i]!.address);
    guest.setNumber64(entry + E820_ENTRY.length, map[i]!.length);
    guest.setU32(entry + E820_ENTRY.type, map[i]!.type);
  }
  guest.setU32(at + MEMORY_MAP.nr_entries, count);
  return 0;
}

function setMemoryMap(vcpu: Vcpu, at: number): number {
  const { guest, domain } = vcpu;
  requireSelf(domain, guest.u16(at + FOREIGN_MEMORY_MAP.domid));
  const count = guest.u32(at + FOREIGN_MEMORY_MAP.map + MEMORY_MAP.nr_entries);
  if (count > E820_MAX) return -ERRNO.EINVAL;
  const buffer = guest.number64(at + FOREIGN_MEMORY_MAP.map + MEMORY_MAP.buffer);
  domain.memory.memoryMap = Array.from({ length: count }, (_, i) => {
    const entry = buffer + i * E820_ENTRY.size;
    return {
      address: guest.number64(entry + E820_ENTRY.address),
      length: guest.number64(entry + E820_ENTRY.length),
      type: guest.u32(entry + E820_ENTRY.type),
    };
  });
  return 0;
}
