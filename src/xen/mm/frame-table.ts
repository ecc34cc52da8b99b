/**
 * What is known of each frame number of one domain: the machine frame behind it, whose it is, its type, and its
 * two counts. Rows of plain numbers in machine memory, one entry a frame number, so that a look-up is an index
 * and a domain's record is a handful of arrays. The rules between them are in page-tables.ts.
 */
import type { Frames } from '../../machine/frames.ts';
import { type Memory, PAGE_SIZE } from '../../machine/memory.ts';

/** Whose a frame is, and so what a guest may do with it. */
export const Kind = {
  /** No frame behind this number. */
  none: 0,
  /** The domain's own memory. */
  ram: 1,
  /** The hypervisor's, and the guest may map it read and write (shared_info, grant table). */
  xenWritable: 2,
  /** The hypervisor's, and the guest may map it read-only (the machine-to-physical table). */
  xenReadonly: 3,
  /** The hypervisor's own (page tables of the machine-to-physical table): no guest entry may name it. */
  xenPrivate: 4,
  /** Another domain's, mapped by a grant: only a grant operation makes entries for it. */
  foreignWritable: 5,
  foreignReadonly: 6,
} as const;
export type Kind = (typeof Kind)[keyof typeof Kind];

/** What a frame is in use as. The page tables' types are their levels. */
export const FrameType = { none: 0, l1: 1, l2: 2, l3: 3, l4: 4, segdesc: 5, writable: 7 } as const;
export type FrameType = (typeof FrameType)[keyof typeof FrameType];

/** A frame's state: the type in the low bits, and these flags. */
export const TYPE_MASK = 7;
/** The contents were checked for the type, and are kept right. */
export const VALIDATED = 1 << 3;
/** The guest holds the type by a pin. */
export const PINNED = 1 << 4;
/** The domain itself (or, for frames not its own, who put it here) holds one reference. */
export const ALLOCATED = 1 << 5;

/** Counts stop here; whoever would go beyond is refused. */
export const COUNT_MAX = 0x7fff_ffff;

/** Bytes of each entry: three u32, two u8. */
const ENTRY = 14;

export class FrameTable {
  readonly memory: Memory;
  /** Frame numbers are below this. */
  readonly limit: number;
  /** Linear address of the row of machine frames (the processor reads it). */
  readonly address: number;
  readonly machine: Uint32Array;
  /** References of any sort: a frame with none is free. */
  readonly references: Uint32Array;
  /** How many references need the frame to be of its type. */
  readonly typeCounts: Uint32Array;
  readonly kinds: Uint8Array;
  readonly states: Uint8Array;
  /** Frames that the rows themselves take. */
  readonly size: number;
  private readonly frames: Frames;

  /** @param address of rows that are there already; left out: new ones are made. @throws OutOfFrames */
  constructor(frames: Frames, limit: number, address?: number) {
    const { memory } = frames;
    this.frames = frames;
    this.memory = memory;
    this.limit = limit;
    this.size = Math.ceil((limit * ENTRY) / PAGE_SIZE);
    this.address = address ?? frames.allocContiguous(this.size) * PAGE_SIZE;
    const word = this.address >>> 2;
    this.machine = memory.u32.subarray(word, word + limit);
    this.references = memory.u32.subarray(word + limit, word + 2 * limit);
    this.typeCounts = memory.u32.subarray(word + 2 * limit, word + 3 * limit);
    const bytes = this.address + 12 * limit;
    this.kinds = memory.u8.subarray(bytes, bytes + limit);
    this.states = memory.u8.subarray(bytes + limit, bytes + 2 * limit);
  }

  /** Gives the rows' own memory back; nothing may use them afterwards. */
  release(): void {
    this.frames.release(this.address / PAGE_SIZE, this.size);
  }

  /** Lowest frame number at or above `from` and below `end` with nothing behind it, or -1. */
  findFree(from: number, end: number): number {
    const found = this.kinds.indexOf(Kind.none, from);
    return found >= 0 && found < end ? found : -1;
  }

  /** Lowest aligned run of `count` (a power of two) free numbers within [from, end), or -1. */
  findFreeRun(from: number, end: number, count: number): number {
    const { kinds } = this;
    let first = Math.ceil(from / count) * count;
    for (; first + count <= end; first += count) {
      let i = 0;
      while (i < count && kinds[first + i] === Kind.none) i++;
      if (i === count) return first;
    }
    return -1;
  }

  /** Puts a machine frame behind a free number, with one reference. */
  enter(mfn: number, machineFrame: number, kind: Kind): void {
    this.machine[mfn] = machineFrame;
    this.kinds[mfn] = kind;
    this.states[mfn] = ALLOCATED;
    this.references[mfn] = 1;
    this.typeCounts[mfn] = 0;
  }

  /** The number has nothing behind it any more. */
  clear(mfn: number): void {
    this.machine[mfn] = 0;
    this.kinds[mfn] = Kind.none;
    this.states[mfn] = 0;
    this.references[mfn] = 0;
    this.typeCounts[mfn] = 0;
  }

  type(mfn: number): FrameType {
    return (this.states[mfn]! & TYPE_MASK) as FrameType;
  }
}
