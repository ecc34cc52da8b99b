/**
 * The guest's code as a translating thread sees it: page tables, pages and the interpreter's traces of what ran, read
 * while the guest goes on.
 *
 * Nothing seen here is trusted: a page is copied once and translated from the copy; whoever installs the translation
 * compares bytes (see core/translations.ts), and translated code compares frames before it enters another page.
 */
import { type Memory, PAGE_SIZE } from '../../machine/memory.ts';
import { high32, type VirtualAddress } from '../cpu.ts';
import { RING_SIZE } from '../interpreter/transfers.ts';
import { GLUE, RECORD } from '../records.ts';

/** Where to look: plain data, as it crosses threads. */
export interface CodePlace {
  /** Virtual address of the page that the region is to be entered in. */
  readonly page: VirtualAddress;
  /** Machine frame that was behind it. */
  readonly frame: number;
  /** Linear addresses: of the root page table; of the physical space's table of frames, and its size (see mmu.ts). */
  readonly root: number;
  readonly frameTable: number;
  readonly frameLimit: number;
  /** Linear addresses: of the table of code maps; of the ring of control transfers. */
  readonly codeMaps: number;
  readonly ring: number;
}

export interface CodePage {
  /** Distance from the entry's page, in pages. */
  readonly delta: number;
  readonly frame: number;
  readonly bytes: Uint8Array;
}

/** What region-finding asks. Addresses count from the start of the entry's page. */
export interface CodeView {
  /** The page at a distance, or null where there is none. */
  page(delta: number): CodePage | null;
  /** Code at this address has been decoded by the interpreter: it probably ran. */
  executed(address: number): boolean;
  /** The direct branch at this address was taken; null: unknown. */
  taken(address: number, behind: number): boolean | null;
  /** The conditional branch at this address was not taken, as far as is known. */
  passed(address: number, behind: number): boolean;
  /** Where the indirect transfer at this address went lately, most frequent first. */
  targets(address: number): number[];
}

export class GuestCode implements CodeView {
  private readonly memory: Memory;
  private readonly place: CodePlace;
  private readonly pages = new Map<number, CodePage | null>();
  private transfers: Map<number, Map<number, number>> | null = null;

  constructor(memory: Memory, place: CodePlace) {
    this.memory = memory;
    this.place = place;
  }

  page(delta: number): CodePage | null {
    let page = this.pages.get(delta);
    if (page === undefined) {
      const frame = delta === 0 ? this.place.frame : this.walk(this.place.page + delta * PAGE_SIZE);
      const start = frame * PAGE_SIZE;
      page =
        frame === 0 || start + PAGE_SIZE > this.memory.size
          ? null
          : { delta, frame, bytes: this.memory.u8.slice(start, start + PAGE_SIZE) };
      this.pages.set(delta, page);
    }
    return page;
  }

  /** Machine frame behind a virtual page, or 0. */
  private walk(va: VirtualAddress): number {
    const { memory, place } = this;
    const low = va >>> 0;
    const high = high32(va);
    const indexes = [(high >>> 7) & 511, ((high & 0x7f) << 2) | (low >>> 30), low >>> 21, low >>> 12];
    let table = place.root;
    for (const index of indexes) {
      const at = (table >>> 2) + (index & 511) * 2;
      const entry = memory.u32[at] ?? 0;
      if ((entry & 1) === 0) return 0;
      const mfn = ((entry >>> 12) | ((memory.u32[at + 1]! & 0xff) << 20)) >>> 0;
      if (mfn >= place.frameLimit) return 0;
      const frame = memory.u32[(place.frameTable >>> 2) + mfn] ?? 0;
      if (frame === 0) return 0;
      table = frame * PAGE_SIZE;
    }
    return table / PAGE_SIZE;
  }

  /** The interpreter's record of an address, or 0. */
  private record(address: number): number {
    const page = this.page(Math.floor(address / PAGE_SIZE));
    if (page === null) return 0;
    const map = this.memory.u32[(this.place.codeMaps >>> 2) + page.frame]!;
    return map === 0 ? 0 : (this.memory.u32[(map >>> 2) + (address & (PAGE_SIZE - 1))] ?? 0);
  }

  executed(address: number): boolean {
    return this.record(address) !== 0;
  }

  taken(address: number): boolean | null {
    const record = this.record(address);
    if (record === 0 || this.memory.u16[record >>> 1]! < GLUE.count) return null;
    // Only branches within their page are linked.
    return this.memory.u32[(record + RECORD.link) >>> 2] !== 0;
  }

  passed(): boolean {
    return true;
  }

  targets(address: number): number[] {
    const seen = this.observed().get(address);
    if (seen === undefined) return [];
    return [...seen].sort((a, b) => b[1] - a[1]).map(([to]) => to);
  }

  private observed(): Map<number, Map<number, number>> {
    if (this.transfers !== null) return this.transfers;
    const transfers = new Map<number, Map<number, number>>();
    const { u32 } = this.memory;
    const { page, ring } = this.place;
    for (let at = ring >>> 2; at < (ring + RING_SIZE) >>> 2; at += 4) {
      const from = (u32[at + 1]! | 0) * 2 ** 32 + u32[at]! - page;
      const to = (u32[at + 3]! | 0) * 2 ** 32 + u32[at + 2]! - page;
      let targets = transfers.get(from);
      if (targets === undefined) {
        targets = new Map();
        transfers.set(from, targets);
      }
      targets.set(to, (targets.get(to) ?? 0) + 1);
    }
    this.transfers = transfers;
    return transfers;
  }
}

/** What followed an instruction in a recording, and how often; usually it is one place. */
interface Successors {
  readonly first: VirtualAddress;
  count: number;
  others: Map<VirtualAddress, number> | null;
}

/** A recording (see core/recorder.ts), made ready to be asked. */
class Recording {
  readonly trace: Float64Array;
  readonly successors = new Map<VirtualAddress, Successors>();

  constructor(trace: Float64Array) {
    this.trace = trace;
    for (let i = 0; i + 1 < trace.length; i++) {
      const to = trace[i + 1]!;
      const known = this.successors.get(trace[i]!);
      if (known === undefined) this.successors.set(trace[i]!, { first: to, count: 1, others: null });
      else if (known.first === to) known.count++;
      else {
        known.others ??= new Map();
        known.others.set(to, (known.others.get(to) ?? 0) + 1);
      }
    }
  }

  is(trace: Float64Array): boolean {
    return this.trace.length === trace.length && this.trace.every((address, i) => address === trace[i]);
  }
}

/** Recordings that are kept, because several regions are made from each. */
const KEPT = 32;

/** The recordings that were used last. */
export class Recordings {
  private kept: Recording[] = [];

  /** @param trace virtual addresses of instructions, in the order of execution */
  of(trace: Float64Array): Recording {
    const recording = this.kept.find((each) => each.is(trace)) ?? new Recording(trace);
    this.kept = [recording, ...this.kept.filter((each) => each !== recording)].slice(0, KEPT);
    return recording;
  }
}

/** The same code, but only what recordings show. */
export class RecordedCode implements CodeView {
  private readonly code: Pick<CodeView, 'page'>;
  private readonly start: VirtualAddress;
  private readonly recordings: readonly Recording[];

  /** @param start of the entry's page */
  constructor(code: Pick<CodeView, 'page'>, start: VirtualAddress, recordings: readonly Recording[]) {
    this.code = code;
    this.start = start;
    this.recordings = recordings;
  }

  page(delta: number): CodePage | null {
    return this.code.page(delta);
  }

  private *successors(address: number): Generator<Successors> {
    for (const { successors } of this.recordings) {
      const known = successors.get(address + this.start);
      if (known !== undefined) yield known;
    }
  }

  executed(address: number): boolean {
    const va = address + this.start;
    return this.recordings.some(({ successors }) => successors.has(va));
  }

  taken(address: number, behind: number): boolean {
    const va = behind + this.start;
    for (const { first, others } of this.successors(address))
      if (first !== va || others !== null) return true;
    return false;
  }

  passed(address: number, behind: number): boolean {
    const va = behind + this.start;
    for (const { first, others } of this.successors(address))
      if (first === va || others?.has(va) === true) return true;
    return false;
  }

  targets(address: number): number[] {
    const seen = new Map<number, number>();
    const note = (to: VirtualAddress, count: number) => seen.set(to, (seen.get(to) ?? 0) + count);
    for (const { first, count, others } of this.successors(address)) {
      note(first, count);
      for (const [to, often] of others ?? []) note(to, often);
    }
    return [...seen].sort((a, b) => b[1] - a[1]).map(([to]) => to - this.start);
  }
}
