/**
 * A domain's frame numbers, in order: numbers never used (so that no pseudo-physical number is by chance its own
 * machine number from the start), the domain's memory, frames of the hypervisor that it may map, and the
 * machine-to-physical table with its page tables.
 */
import { PTES } from '../public/mmu.ts';

/** The first frame number of a domain's own memory. */
export const FIRST_MFN = 0x100;

/** Numbers for frames that are not the domain's: shared_info, grant table frames, grant mappings. */
export const XEN_FRAMES = 1024;

/** Entries of the machine-to-physical table in a frame. */
export const M2P_PER_FRAME = 512;

export interface FrameLayout {
  /** The domain's own memory is numbered from FIRST_MFN to below this. */
  readonly ramEnd: number;
  /** Frames that are not its own: ramEnd to below this. */
  readonly xenEnd: number;
  /** Frames of the machine-to-physical table, and of each level of its page tables. */
  readonly m2pFrames: number;
  readonly m2pL1: number;
  readonly m2pL2: number;
  /** All numbers are below this. */
  readonly limit: number;
}

/** @param maxPages the most pages that the domain may own */
export function frameLayout(maxPages: number): FrameLayout {
  // More numbers than pages: an aligned run can be found for an exchange, and pages given back live on while mapped.
  const ramEnd = FIRST_MFN + maxPages + 1024 + (maxPages >>> 5);
  const xenEnd = ramEnd + XEN_FRAMES;
  let limit = xenEnd;
  // The table has entries for its own frames too.
  for (;;) {
    const m2pFrames = Math.ceil(limit / M2P_PER_FRAME);
    const m2pL1 = Math.ceil(m2pFrames / PTES);
    const m2pL2 = Math.ceil(m2pL1 / PTES);
    const needed = xenEnd + m2pFrames + m2pL1 + m2pL2 + 1;
    if (needed <= limit) return { ramEnd, xenEnd, m2pFrames, m2pL1, m2pL2, limit };
    limit = needed;
  }
}
