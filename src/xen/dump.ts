/**
 * What a dump of a domain needs to know of it: the state of its vCPUs, and where its pages are. The pages themselves
 * are read straight from the machine's memory, by whoever makes sure that the domain stays.
 */
import { PAGE_SIZE } from '../machine/memory.ts';
import type { Domain } from './domain.ts';
import { guestContext } from './saved-context.ts';

export interface DomainDump {
  /** struct vcpu_guest_context of each vCPU that has a state. */
  readonly contexts: readonly Uint8Array[];
  /** Linear address of the shared info page. */
  readonly sharedInfo: number;
  /**
   * Its pages, in the order of their pseudo-physical numbers, three words each: that number (0xffffffff: the guest
   * gave it none; these come last), the frame number that the guest knows, and the frame of the machine behind it.
   */
  readonly pages: Uint32Array;
}

export const NO_PFN = 0xffff_ffff;

/** Read it only while no vCPU of the domain runs. */
export function describeForDump(domain: Domain): DomainDump {
  const { memory } = domain;
  const found: [pfn: number, mfn: number, frame: number][] = [];
  const limit = domain.space.frameLimit;
  for (let mfn = 0; mfn < limit; mfn++) {
    if (!memory.owns(mfn)) continue;
    const pfn = memory.machineToPhys.get(mfn);
    found.push([pfn >= 0 && pfn < NO_PFN ? pfn : NO_PFN, mfn, memory.machineFrame(mfn)]);
  }
  found.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  return {
    contexts: domain.vcpus.filter((vcpu) => vcpu.initialised).map(guestContext),
    sharedInfo: memory.machineFrame(memory.sharedInfoMfn) * PAGE_SIZE,
    pages: Uint32Array.from(found.flat()),
  };
}
