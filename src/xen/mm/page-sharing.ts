/**
 * Pages with the same contents become one machine frame, copy-on-write.
 *
 * Domains that were booted from one configuration hold the same pages many times over: the kernel's code, its RAM
 * disk, free memory. They are found by looking: when a domain was built (its image), and in the background, a little
 * at a time. What is found equal, by hash and then byte by byte, becomes a *canonical* frame: shared-frames.ts keeps it
 * from being written to, and a domain that wants to write gets a copy, as after a fork.
 *
 *   - A canonical frame has an owner of its own, this object. So it is shared as long as it is canonical, whoever comes
 *     and goes, and its contents do not change. When nobody else has it any more it is given back.
 *   - Only pages that nobody but the domain can write to are looked at: no page tables, no descriptors, nothing that is
 *     held (grants, event pages), nothing that Domain 0 keeps (SharedFrames.keep), and in the background no domain
 *     that is paused, because it may not be finished. That a page is not written to while it is looked at follows: its
 *     domain is on this thread, which is here.
 *   - The background scan takes only pages that were the same one pass ago, as a page that is written to often would be
 *     copied again at once. It merges what it sees twice, and zeros.
 *   - What is known of frames is bounded by the machine's memory: 19 bytes a frame, from the first use on.
 *
 * A guest can find out by the time that a write takes whether somebody else has a page of the same contents (see
 * docs/usage.md). Who minds switches it off.
 */
import type { Frames } from '../../machine/frames.ts';
import type { PhysicalSpace, Processor } from '../../x86/processor.ts';
import type { DomainMemory } from './domain-memory.ts';
import { FIRST_MFN } from './layout.ts';
import { freeFrame, type SharedFrames } from './shared-frames.ts';

/** What the scan needs to know of a domain. */
export interface SharingDomain {
  readonly id: number;
  readonly memory: DomainMemory;
  /** False while it is paused or ends. */
  readonly runnable: boolean;
}

export interface SharingHost {
  readonly frames: Frames;
  readonly shared: SharedFrames;
  readonly processor: Processor;
  /** How many domains there are. */
  count(): number;
  domain(id: number): SharingDomain | undefined;
  allDomains(): Iterable<SharingDomain>;
}

const WORDS = 1024;
/** Pages of a step that are read, and frame numbers that are looked at. */
const STEP_PAGES = 64;
const STEP_NUMBERS = 4096;
/** Places of the table that are tried for a hash. */
const PROBES = 32;

/** For how long the scan goes on at a time while nothing else is to be done, and rests then, ns. */
const BURST = 500_000;
const REST = 20_000_000;
/** From a pass that merged something, or saw this many pages change, to the next; and from one that did not. */
const MANY = 256;
const SOON = 2e9;
const LATER = 60e9;
/** Of the machine's memory: with less free it is scanned while guests have work too; and with less, at all costs. */
const SHORT = 1 / 3;
const VERY_SHORT = 1 / 8;

/** What a frame is to the table. */
const Role = { none: 0, candidate: 1, canonical: 2 } as const;

/** What is known of frames; index: machine frame. */
interface Records {
  readonly hashes: Uint32Array;
  /** Who had it when it became a candidate. */
  readonly domids: Uint16Array;
  readonly mfns: Uint32Array;
  readonly roles: Uint8Array;
  /** Frames by hash; 0: free place. Its size is a power of two. */
  readonly table: Uint32Array;
}

export class PageSharing {
  enabled = true;
  /** Domains that are made from now on have no right to memory that is not theirs yet (Backing.reserved). */
  overcommit = false;
  /** Passes over all domains so far, and pages that were merged. */
  passes = 0;
  merged = 0;
  /** Pages that the last whole pass merged. */
  lastPass = 0;
  private readonly host: SharingHost;
  private records: Records | null = null;
  private readonly canonical = new Set<number>();
  private zeroFrame = 0;
  private zeroHash = 0;
  /** Where the scan is: domains that are still to come in this pass. Null: between two passes. */
  private queue: number[] | null = null;
  private next = FIRST_MFN;
  private mergedBefore = 0;
  /** Pages of this pass that were not what they were in the last one. */
  private changed = 0;
  private nextPass = 0;
  /** Pages that {@link share} was told of while their domain was the only one. */
  private postponed: { readonly id: number; readonly first: number; readonly count: number }[] = [];

  constructor(host: SharingHost) {
    this.host = host;
  }

  /** The canonical frame of zeros. @throws OutOfFrames */
  zero(space: PhysicalSpace): number {
    if (this.zeroFrame !== 0) return this.zeroFrame;
    const { frames, processor } = this.host;
    this.zeroFrame = frames.alloc();
    this.host.shared.notDomains(1);
    processor.share(space, [this.zeroFrame]);
    this.zeroHash = this.hash(this.zeroFrame);
    return this.zeroFrame;
  }

  /**
   * Looks at pages that follow each other of a domain that is not running, and was just written by who builds it. Those
   * of the only domain are looked at when another one is built, so that nobody waits for nothing.
   */
  share(domain: SharingDomain, first: number, count: number): void {
    if (!this.enabled) return;
    // There will be more to find soon.
    this.nextPass = 0;
    if (this.host.count() === 1) {
      this.postponed = this.postponed.filter(({ id }) => id === domain.id);
      this.postponed.push({ id: domain.id, first, count });
      return;
    }
    const earlier = this.postponed.shift();
    const alone = earlier && this.host.domain(earlier.id);
    if (alone) this.look(alone, earlier.first, earlier.count);
    this.look(domain, first, count);
  }

  private look(domain: SharingDomain, first: number, count: number): void {
    const { memory } = domain;
    this.host.processor.tablesChanged(memory.space);
    for (let mfn = first; mfn < first + count; mfn++)
      if (memory.shareable(mfn)) this.consider(domain, mfn, false);
  }

  /**
   * Scans a little, as nothing else is to be done.
   * @param now system time, ns
   * @returns ns after which it wants to go on; Infinity: not before something changes
   */
  idle(now: number, clock: () => number): number {
    if (!this.wanted) return Number.POSITIVE_INFINITY;
    if (now < this.nextPass) return this.nextPass - now;
    const end = now + BURST;
    for (let at = now; at < end; at = clock()) if (!this.step(true)) return this.pause(at);
    return REST;
  }

  /** Scans a little between two turns of guests, if memory is short. */
  busy(now: number): void {
    if (!this.wanted) return;
    const { free, total } = this.host.frames;
    if (free > total * SHORT || (now < this.nextPass && free > total * VERY_SHORT)) return;
    if (!this.step(free > total * VERY_SHORT)) this.pause(now);
  }

  /** One domain alone has next to nothing to share. */
  private get wanted(): boolean {
    return this.enabled && this.host.count() > 1;
  }

  private pause(now: number): number {
    const wait = this.lastPass > 0 || this.changed >= MANY ? SOON : LATER;
    this.nextPass = now + wait;
    return wait;
  }

  /** Goes on with the scan. @param settled only pages that did not change for a pass @returns false: it has come round */
  step(settled: boolean): boolean {
    if (!this.enabled) return false;
    const domain = this.upNext();
    if (domain === null) {
      this.finishPass();
      return false;
    }
    const { memory } = domain;
    const { frameLimit } = memory.space;
    if (this.zeroFrame === 0 && this.host.frames.free > 0) this.zero(memory.space);
    const end = Math.min(this.next + STEP_NUMBERS, frameLimit);
    let pages = 0;
    let { next } = this;
    for (; next < end && pages < STEP_PAGES; next++) {
      if (!memory.shareable(next)) continue;
      // Nothing of what is to change hands may be in a TLB, and guests that write have to come by here.
      if (pages++ === 0) this.host.processor.tablesChanged(memory.space);
      this.consider(domain, next, settled);
    }
    this.next = next;
    if (next >= frameLimit) this.leave();
    return true;
  }

  /** Gives canonical frames back that nobody has. @returns how many */
  reclaim(): number {
    let count = 0;
    for (const frame of this.canonical) {
      if (this.host.shared.isShared(frame)) continue;
      this.canonical.delete(frame);
      this.known.roles[frame] = Role.none;
      this.host.shared.notDomains(-1);
      freeFrame(this.host.frames, this.host.processor, frame);
      count++;
    }
    return count;
  }

  private upNext(): SharingDomain | null {
    if (this.queue === null) {
      this.queue = Array.from(this.host.allDomains(), ({ id }) => id);
      this.mergedBefore = this.merged;
      this.changed = 0;
      this.next = FIRST_MFN;
    }
    for (let id = this.queue[0]; id !== undefined; id = this.queue[0]) {
      const domain = this.host.domain(id);
      if (domain?.runnable) return domain;
      this.leave();
    }
    return null;
  }

  /** Goes on to the next domain. */
  private leave(): void {
    this.queue?.shift();
    this.next = FIRST_MFN;
  }

  /** The table starts anew, with what is canonical. */
  private finishPass(): void {
    this.queue = null;
    this.passes++;
    this.lastPass = this.merged - this.mergedBefore;
    if (this.records === null) return;
    this.reclaim();
    const { table, roles } = this.records;
    table.fill(0);
    for (let frame = 0; frame < roles.length; frame++)
      if (roles[frame] === Role.candidate) roles[frame] = Role.none;
    for (const frame of this.canonical) this.enter(frame);
  }

  private get known(): Records {
    if (this.records === null) {
      const { total } = this.host.frames;
      this.records = {
        hashes: new Uint32Array(total),
        domids: new Uint16Array(total),
        mfns: new Uint32Array(total),
        roles: new Uint8Array(total),
        table: new Uint32Array(2 ** Math.ceil(Math.log2(total) + 0.5)),
      };
    }
    return this.records;
  }

  /** @param settled only if it was the same before */
  private consider(domain: SharingDomain, mfn: number, settled: boolean): void {
    const { memory } = domain;
    const { hashes } = this.known;
    const frame = memory.machineFrame(mfn);
    const hash = this.hash(frame);
    if (settled && hashes[frame] !== hash) {
      hashes[frame] = hash;
      this.changed++;
      return;
    }
    hashes[frame] = hash;
    if (hash === this.zeroHash && this.zeroFrame !== 0 && this.same(frame, this.zeroFrame)) {
      this.merge(memory, mfn, this.zeroFrame);
      return;
    }
    const found = this.find(frame, hash);
    if (found !== 0) this.merge(memory, mfn, found);
    else this.propose(frame, domain.id, mfn);
  }

  /** A canonical frame with the contents of another one, made so if need be; 0: there is none. */
  private find(frame: number, hash: number): number {
    const { table, hashes, roles } = this.known;
    const mask = table.length - 1;
    for (let probe = 0; probe < PROBES; probe++) {
      const found = table[(hash + probe) & mask]!;
      if (found === 0) return 0;
      if (found === frame || hashes[found] !== hash) continue;
      if (roles[found] === Role.canonical) {
        if (this.same(found, frame)) return found;
      } else if (roles[found] === Role.candidate && this.promote(found, frame)) return found;
    }
    return 0;
  }

  /** Makes a candidate canonical if it still is what it was, and equal to a frame. */
  private promote(candidate: number, frame: number): boolean {
    const { domids, mfns, roles } = this.known;
    const owner = this.host.domain(domids[candidate]!);
    const mfn = mfns[candidate]!;
    if (owner === undefined || owner.memory.machineFrame(mfn) !== candidate) return false;
    if (!owner.memory.shareable(mfn) || !this.same(candidate, frame)) return false;
    roles[candidate] = Role.canonical;
    this.canonical.add(candidate);
    // This object is the other owner.
    this.host.shared.add(candidate);
    this.host.shared.notDomains(1);
    this.host.processor.share(owner.memory.space, [candidate]);
    return true;
  }

  private propose(frame: number, domid: number, mfn: number): void {
    const { domids, mfns, roles } = this.known;
    domids[frame] = domid;
    mfns[frame] = mfn;
    if (roles[frame] !== Role.none) return;
    if (this.enter(frame)) roles[frame] = Role.candidate;
  }

  private enter(frame: number): boolean {
    const { table, hashes } = this.known;
    const mask = table.length - 1;
    const hash = hashes[frame]!;
    for (let probe = 0; probe < PROBES; probe++) {
      const at = (hash + probe) & mask;
      if (table[at] !== 0) continue;
      table[at] = frame;
      return true;
    }
    return false;
  }

  private merge(memory: DomainMemory, mfn: number, frame: number): void {
    memory.backing.substitute(mfn, frame);
    this.merged++;
  }

  private same(a: number, b: number): boolean {
    const { u32 } = this.host.frames.memory;
    let [at, other] = [a * WORDS, b * WORDS];
    for (const end = at + WORDS; at < end; at++, other++) if (u32[at] !== u32[other]) return false;
    return true;
  }

  private hash(frame: number): number {
    const { u32 } = this.host.frames.memory;
    let a = 0x9e3779b9;
    let b = 0x7f4a7c15;
    const end = (frame + 1) * WORDS;
    for (let at = frame * WORDS; at < end; at += 2) {
      a = Math.imul(a ^ u32[at]!, 0x85ebca6b);
      b = Math.imul(b ^ u32[at + 1]!, 0xc2b2ae35);
      a ^= b >>> 15;
      b ^= a >>> 13;
    }
    return (a ^ Math.imul(b ^ (b >>> 16), 0x27d4eb2f)) >>> 0;
  }
}
