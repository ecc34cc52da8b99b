/**
 * What the hypervisors of one machine have in common, when it has several processors: who owns which frames together,
 * and which domain numbers are taken. It lies in the machine's memory; each hypervisor has an object over it.
 *
 * A domain is on one processor at a time. Its place is written by the thread that has it (or is taking it over), and
 * read by all: so a domain of another processor can be told from one that does not exist.
 */
import type { Frames } from '../machine/frames.ts';
import { type Memory, PAGE_SIZE } from '../machine/memory.ts';
import { SharedFrames } from './mm/shared-frames.ts';
import { DOMID } from './public/xen.ts';

/** Word: where the search for a free number goes on. Word: linear address of the counts of shared frames. */
const NEXT = 0;
const SHARED = 1;
/** A byte for each domain number: 0: free, otherwise its processor's number and one. */
const PLACES = 64;
const SIZE = PLACES + DOMID.FIRST_RESERVED;
/** Most processors of a machine: their numbers fit that byte. */
export const PCPUS_MAX = 254;

/** All domain numbers are taken. */
export class OutOfDomids extends Error {}

export class Common {
  /** Linear: whoever has it sees the same. */
  readonly address: number;
  readonly sharedFrames: SharedFrames;
  private readonly memory: Memory;

  /** @param address of what the machine has already; left out: it is made. @throws OutOfFrames */
  constructor(frames: Frames, address?: number) {
    const { memory } = frames;
    this.memory = memory;
    this.address = address ?? frames.allocContiguous(Math.ceil(SIZE / PAGE_SIZE)) * PAGE_SIZE;
    const word = this.address >>> 2;
    this.sharedFrames = new SharedFrames(frames, address && memory.u32[word + SHARED]!);
    memory.u32[word + SHARED] = this.sharedFrames.address;
  }

  /** A domain number that nobody has; numbers are used again as late as possible. @throws OutOfDomids */
  claim(pcpu: number): number {
    const { u32 } = this.memory;
    const next = (this.address >>> 2) + NEXT;
    for (let tries = 0; tries < DOMID.FIRST_RESERVED; tries++) {
      const domid = (Atomics.add(u32, next, 1) % (DOMID.FIRST_RESERVED - 1)) + 1;
      if (this.exchange(domid, 0, pcpu + 1)) return domid;
    }
    throw new OutOfDomids('all domain numbers are in use');
  }

  release(domid: number): void {
    Atomics.store(this.memory.u8, this.place(domid), 0);
  }

  /** The processor that has a domain; null: there is no such domain. @param domid any number */
  pcpuOf(domid: number): number | null {
    if (!(domid > 0 && domid < DOMID.FIRST_RESERVED)) return null;
    const place = Atomics.load(this.memory.u8, this.place(domid));
    return place === 0 ? null : place - 1;
  }

  /** How many domains each of the first `count` processors has. */
  domainsOn(count: number): number[] {
    const counts = new Array<number>(count).fill(0);
    const places = this.memory.u8.subarray(this.place(1), this.place(DOMID.FIRST_RESERVED));
    for (const place of places) if (place > 0 && place <= count) counts[place - 1]!++;
    return counts;
  }

  /** A domain is on another processor from now on. */
  move(domid: number, pcpu: number): void {
    Atomics.store(this.memory.u8, this.place(domid), pcpu + 1);
  }

  private exchange(domid: number, from: number, to: number): boolean {
    return Atomics.compareExchange(this.memory.u8, this.place(domid), from, to) === from;
  }

  private place(domid: number): number {
    return this.address + PLACES + domid;
  }
}
