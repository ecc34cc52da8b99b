/**
 * A domain goes into a file, and comes out of it: on this machine or another one, now or later.
 *
 * What the hypervisor has in objects goes as plain data (domain-state.ts). What is in machine memory, others read and
 * write where it lies: the *places* named here in their order, then the domain's pages by their numbers. A place has
 * the same size for every domain that was made for the same number of pages, so a new domain has the same places.
 *
 * A file may have been written by anybody. So nothing in it is believed: machine frames are never in it, and before
 * the new domain can run, all types and counts are worked out anew from the page tables that came with it, and compared
 * (DomainMemory.check). A domain that fails is thrown away with its memory.
 */
import { PAGE_SIZE } from '../machine/memory.ts';
import type { Domain } from './domain.ts';
import { type DomainState, domainState, needWhole, setDomainState } from './domain-state.ts';
import { checkSelectors, cpuBytes, setCpuBytes } from './domain-state-vcpu.ts';
import { HypercallError } from './hypercall.ts';
import type { Hypervisor } from './hypervisor.ts';
import { memoryRuns, populateRuns, type Run, setMemoryState } from './mm/memory-state.ts';
import { ERRNO } from './public/errno.ts';
import { publishWallclock } from './time.ts';

/** A domain without the contents of its memory: JSON data. */
export interface SavedDomain {
  readonly state: DomainState;
  /** For each virtual CPU, what the guest has of its frame (domain-state-vcpu.ts): hexadecimal. */
  readonly cpus: readonly string[];
  /** The numbers of its pages. */
  readonly pages: readonly Run[];
  /** How many frame numbers it has: this depends on the version of the hypervisor. */
  readonly frameNumbers: number;
}

/** Machine memory that belongs to a domain: linear address, bytes. */
export type Place = readonly [address: number, length: number];

/** The domain must be paused, and stay so until its memory has been read. @throws HypercallError as needWhole */
export function saveDomain(domain: Domain): { saved: SavedDomain; places: Place[] } {
  needWhole(domain);
  const { memory } = domain;
  const state = domainState(domain);
  const saved: SavedDomain = {
    state,
    cpus: domain.vcpus.map((vcpu) => toHex(cpuBytes(vcpu))),
    pages: memoryRuns(memory),
    frameNumbers: memory.table.limit,
  };
  return { saved, places: placesOf(domain) };
}

/**
 * A new domain for a saved one: paused, with pages that are all zero, for {@link finishRestore}.
 * @param uuid 16 bytes; null: random ones
 * @throws HypercallError ENOMEM; EINVAL: what cannot be
 */
export function beginRestore(
  hypervisor: Hypervisor,
  { state, pages, frameNumbers }: SavedDomain,
  uuid: Uint8Array | null,
): { domain: Domain; places: Place[] } {
  const domain = hypervisor.createDomain(state.memory.capacity, state.vcpus.length, uuid);
  try {
    const { memory } = domain;
    if (memory.table.limit !== frameNumbers)
      throw new HypercallError(ERRNO.EINVAL, 'it was saved by a version with another layout of memory');
    populateRuns(memory, pages);
    domain.grants.frames.setState(state.grants, null);
    return { domain, places: placesOf(domain) };
  } catch (error) {
    hypervisor.destroyDomain(domain);
    throw error;
  }
}

/**
 * Its memory has its contents: the domain becomes what was saved, still paused.
 * @throws HypercallError EINVAL: what was saved cannot be a domain; nothing is left of it then
 */
export function finishRestore(domain: Domain, { state, cpus }: SavedDomain): void {
  const { hypervisor, memory, vcpus } = domain;
  try {
    const { host } = hypervisor;
    domain.timeOffset = state.time + Math.max(0, host.wallclock() - state.wallclock) - hypervisor.now();
    if (!(state.memory.maxPages <= memory.capacity))
      throw new HypercallError(ERRNO.EINVAL, 'it has more memory than it was made for');
    setMemoryState(memory, { ...state.memory, totalPages: memory.totalPages });
    for (const [id, vcpu] of vcpus.entries()) setCpuBytes(vcpu, fromHex(cpus[id] ?? ''));
    setDomainState(domain, state, true);
    const [wrong] = memory.check();
    if (wrong !== undefined)
      throw new HypercallError(ERRNO.EINVAL, `its page tables are not sound: ${wrong}`);
    for (const vcpu of vcpus) checkSelectors(vcpu);
    publishWallclock(domain);
  } catch (error) {
    memory.scrap();
    hypervisor.destroyDomain(domain);
    throw error;
  }
}

/** The rows of its frame table but for machine frames and kinds; its machine-to-physical table; shared_info; grants. */
function placesOf({ memory, grants }: Domain): Place[] {
  const { table, machineToPhys, sharedInfo } = memory;
  const { limit } = table;
  const { shared, status } = grants.frames.places;
  return [
    [table.references.byteOffset, 4 * limit],
    [table.typeCounts.byteOffset, 4 * limit],
    [table.states.byteOffset, limit],
    [machineToPhys.address, 8 * limit],
    [sharedInfo, PAGE_SIZE],
    ...[...shared, ...status].map((address): Place => [address, PAGE_SIZE]),
  ];
}

function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** @throws HypercallError EINVAL */
function fromHex(text: string): Uint8Array {
  if (!/^([0-9a-f]{2})*$/.test(text)) throw new HypercallError(ERRNO.EINVAL, 'the state of a CPU is not one');
  return Uint8Array.from({ length: text.length / 2 }, (_, index) =>
    Number.parseInt(text.slice(index * 2, index * 2 + 2), 16),
  );
}
