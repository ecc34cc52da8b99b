/**
 * What the two halves of a block back end say to each other. The data plane posts lists of numbers, several requests
 * one after the other: slot, operation, first sector, count, then `count` pairs of linear address and length in bytes
 * (for a discard, count is the number of sectors, and no pairs follow). A completion is a signal: the slot and how it
 * ended.
 */

export const DiskOp = {
  read: 0,
  write: 1,
  flush: 2,
  discard: 3,
  /** flush, write, flush */ barrier: 4,
} as const;
export type DiskOp = (typeof DiskOp)[keyof typeof DiskOp];

export const Outcome = { okay: 0, error: 1, unsupported: 2 } as const;
export type Outcome = (typeof Outcome)[keyof typeof Outcome];

/** Domain 0's thread: take no more requests. The data plane, when all that it took are answered. */
export const DRAIN = 'drain';
export const DRAINED = 'drained';
/** The data plane flushed the file itself, and it failed: what was written may be lost, so no later flush succeeds. */
export const FLUSH_FAILED = 'flush failed';

export function completion(slot: number, outcome: Outcome): number {
  return slot * 4 + outcome;
}

export function slotOf(signal: number): number {
  return signal >>> 2;
}

export function outcomeOf(signal: number): Outcome {
  return (signal & 3) as Outcome;
}

/** What the data plane is told when it is made. */
export interface VbdParameters {
  readonly rings: readonly { readonly refs: readonly number[]; readonly port: number }[];
  readonly sectors: number;
  readonly readonly: boolean;
  readonly discard: boolean;
  /** The front end uses the same pages again and again: they stay mapped. */
  readonly persistent: boolean;
  /** Descriptor of the file that it may read and write by itself (direct.ts): the disk's bytes are the file's. */
  readonly file: number | null;
}
