/**
 * What is translated together: the basic blocks that an entry reaches by direct branches, by indirect ones to where
 * they went lately, through small calls and back from them, in as many pages as that takes.
 *
 * All places count from the start of the entry's page, so that a region is the same wherever its pages are mapped:
 * its bytes, and the distances of its pages, are its identity.
 *
 * A small function is translated once for every call in the region (a *context* each), so that its return is known:
 * the return address is compared, and control stays. Code that has never run is left out: a way there leaves.
 *
 * Where a region is entered often it is translated once more as a *wide* one, with larger functions inside: a system
 * call's whole path through a kernel is then a few regions. It can be entered behind every call that leaves, in called
 * functions too. Which context such an entry belongs to does not matter: contexts differ in what they compare a return
 * address with, not in what they do.
 */
import { PAGE_SIZE } from '../../machine/memory.ts';
import type { Decoder, Instruction } from '../decoder.ts';
import type { CodePage, CodeView } from './code-view.ts';

export interface Block {
  /** Address of the first instruction. */
  readonly start: number;
  readonly instructions: readonly { readonly offset: number; readonly instruction: Instruction }[];
  /** Address behind the last instruction. */
  readonly end: number;
  /** Which of the region's pages its bytes are in. */
  readonly pages: readonly number[];
  /** Where control goes within the region: positions of blocks. A call that stays in the region is a taken branch. */
  taken: number | null;
  next: number | null;
  /** For a return or an indirect branch: where it stays in the region. */
  readonly targets: readonly Target[];
}

export interface Target {
  readonly address: number;
  readonly block: number;
}

export interface Region {
  readonly pages: readonly CodePage[];
  /** The first one is the entry. */
  readonly blocks: readonly Block[];
  /** Blocks at which the region may be entered: the entry, and the places behind calls that leave. */
  readonly entries: readonly number[];
  /** Addresses of instructions whose memory accesses are checked alone (see addresses.ts). */
  readonly apart: ReadonlySet<number>;
  readonly wide: boolean;
}

interface Limits {
  /** Most instructions of a region: V8's compile time per instruction grows beyond (see docs/engine.md). */
  readonly region: number;
  /** Most instructions of a function, with what it calls, that becomes part of its caller's region. */
  readonly inline: number;
  /** Most calls within each other. */
  readonly depth: number;
  /** Most functions that an indirect call may lead to within the region. */
  readonly callees: number;
}

const NARROW: Limits = { region: 300, inline: 60, depth: 3, callees: 1 };
const WIDE: Limits = { region: 700, inline: 300, depth: 12, callees: 4 };
/** A region without a loop that is smaller is hardly worth being entered. */
const WORTHWHILE_INSTRUCTIONS = 8;
/** Most pages: each has a bit. */
const PAGES = 63;
/**
 * How far away a page may be, in pages: distances in bytes fit 32 bits (code-cache.ts, RegionEntry), and places with what
 * is beside them 53 (build.ts, `at`). A program and its libraries are farther apart.
 */
const FAR = 1 << 19;
/** Most targets of an indirect branch that are looked for. */
const TARGETS = 24;

const isCall = (instruction: Instruction) => instruction.form?.definition.name === 'CALL';
const isReturn = (instruction: Instruction) => instruction.form?.definition.name === 'RET';

/** One function in the region, as called from one place; or what the entry belongs to. */
interface Context {
  readonly parent: Context | null;
  readonly entry: number;
  readonly returnTo: number;
  readonly leaders: Set<number>;
  readonly seen: Set<number>;
  /** By address of the instruction: the contexts of calls that stay in the region; of calls back to the entry: itself. */
  readonly calls: Map<number, Context[]>;
  readonly targets: Map<number, { context: Context; address: number }[]>;
  /** Addresses of returns. */
  readonly returns: Set<number>;
  /** Behind calls to the own entry. */
  readonly sites: Set<number>;
  readonly positions: Map<number, number>;
}

function context(parent: Context | null, entry: number, returnTo: number): Context {
  return {
    parent,
    entry,
    returnTo,
    leaders: new Set([entry]),
    seen: new Set(),
    calls: new Map(),
    targets: new Map(),
    returns: new Set(),
    sites: new Set(),
    positions: new Map(),
  };
}

const pageOf = (address: number) => Math.floor(address / PAGE_SIZE);

/** @returns null if nothing useful starts there */
export function findRegion(
  decoder: Decoder,
  view: CodeView,
  entry: number,
  apart: ReadonlySet<number>,
  wide: boolean,
): Region | null {
  return new Explorer(decoder, view, wide).explore(entry, apart);
}

/**
 * Whether entering it costs less than interpreting what is in it. What is small and has no loop becomes part of those that
 * call it; but where code that is interpreted calls it, as a region it would only be in the way.
 */
export function worthwhile({ blocks }: Region): boolean {
  const size = blocks.reduce((sum, { instructions }) => sum + instructions.length, 0);
  const backwards = ({ start, taken, next }: Block) =>
    [taken, next].some((to) => to !== null && blocks[to]!.start <= start);
  return size >= WORTHWHILE_INSTRUCTIONS || blocks.some(backwards);
}

class Explorer {
  private readonly decoder: Decoder;
  private readonly view: CodeView;
  private readonly wide: boolean;
  private readonly limits: Limits;
  private readonly decoded = new Map<number, Instruction | null>();
  private readonly sizes = new Map<number, number>();
  private readonly pages: CodePage[] = [];
  private readonly contexts: Context[] = [];
  /** By address, in which context. */
  private readonly entries = new Map<number, Context>();
  private readonly queue: [Context, number][] = [];
  private count = 0;

  constructor(decoder: Decoder, view: CodeView, wide: boolean) {
    this.decoder = decoder;
    this.view = view;
    this.wide = wide;
    this.limits = wide ? WIDE : NARROW;
  }

  explore(entry: number, apart: ReadonlySet<number>): Region | null {
    const root = context(null, entry, 0);
    this.contexts.push(root);
    this.entries.set(entry, root);
    this.queue.push([root, entry]);
    for (let next = this.queue.shift(); next !== undefined; next = this.queue.shift()) this.walk(...next);
    const first = root.seen.has(entry) ? this.at(entry) : null;
    if (first === null || straddles(entry, first)) return null;
    return { ...this.build(root), apart };
  }

  /** The instruction at an address; null: a region ends before it. */
  private at(address: number): Instruction | null {
    let instruction = this.decoded.get(address);
    if (instruction === undefined) {
      instruction = this.decoder.decode((i) => {
        const page = this.page(pageOf(address + i));
        return page === null ? -1 : page.bytes[(address + i) & (PAGE_SIZE - 1)]!;
      });
      if (instruction !== null && leavesTo(instruction)) instruction = null;
      this.decoded.set(address, instruction);
    }
    return instruction;
  }

  private page(delta: number): CodePage | null {
    const known = this.pages.find((page) => page.delta === delta);
    if (known !== undefined) return known;
    if (this.pages.length >= PAGES || Math.abs(delta) >= FAR) return null;
    const page = this.view.page(delta);
    if (page !== null) this.pages.push(page);
    return page;
  }

  /** Where the instruction at an address goes within its function; callees apart. */
  private ways(address: number, instruction: Instruction): { next: boolean; branch: number | null } {
    const behind = address + instruction.length;
    if (!instruction.relative || isCall(instruction)) return { next: !ends(instruction), branch: null };
    const to = behind + instruction.immediateLow;
    const within = pageOf(to) === pageOf(address);
    const taken = within || this.wide ? this.view.taken(address, behind) : null;
    const worth = ends(instruction) || (taken ?? this.view.executed(to));
    return {
      next: !ends(instruction) && this.view.passed(address, behind),
      branch: worth && this.at(to) !== null ? to : null,
    };
  }

  private walk(here: Context, from: number): void {
    let at = from;
    for (;;) {
      if (here.seen.has(at)) {
        here.leaders.add(at);
        return;
      }
      if (this.count >= this.limits.region) return;
      const instruction = this.at(at);
      if (instruction === null) return;
      here.seen.add(at);
      this.count++;
      const behind = at + instruction.length;
      if (straddles(at, instruction)) here.leaders.add(at);
      if (pageOf(at) !== pageOf(behind)) here.leaders.add(behind);
      if (isCall(instruction)) {
        here.leaders.add(behind);
        this.call(here, at, instruction);
        return;
      }
      if (isReturn(instruction)) {
        here.returns.add(at);
        this.reach(here.parent, here.returnTo);
        return;
      }
      if (!instruction.relative && ends(instruction)) {
        this.indirect(here, at);
        return;
      }
      const { next, branch } = this.ways(at, instruction);
      if (branch !== null) this.reach(here, branch);
      if (instruction.relative) {
        here.leaders.add(behind);
        if (next) this.queue.push([here, behind]);
        return;
      }
      at = behind;
    }
  }

  private reach(there: Context | null, address: number): void {
    if (there === null) return;
    there.leaders.add(address);
    if (!there.seen.has(address)) this.queue.push([there, address]);
  }

  private call(here: Context, at: number, instruction: Instruction): void {
    const behind = at + instruction.length;
    const targets = instruction.relative
      ? [behind + instruction.immediateLow]
      : this.view.targets(at).slice(0, this.limits.callees);
    let stays = instruction.relative;
    for (const to of targets) {
      if (!this.view.executed(to) && to !== this.contexts[0]!.entry) stays = false;
      else if (here.parent === null && to === here.entry) {
        // To itself: the return is one of several places.
        here.calls.set(at, [here]);
        here.sites.add(behind);
        stays = false;
      } else if (this.inlines(here, to)) {
        const callee = context(here, to, behind);
        this.contexts.push(callee);
        here.calls.set(at, [...(here.calls.get(at) ?? []), callee]);
        this.queue.push([callee, to]);
      } else stays = false;
    }
    if (!stays) this.leaving(here, behind);
  }

  /** A call that leaves the region comes back to it here. */
  private leaving(here: Context, behind: number): void {
    if (here.parent !== null && !this.wide) return;
    if (!this.entries.has(behind)) this.entries.set(behind, here);
    this.reach(here, behind);
  }

  private inlines(here: Context, to: number): boolean {
    let depth = 0;
    for (let each: Context | null = here; each !== null; each = each.parent) {
      if (each.entry === to) return false;
      depth++;
    }
    const { limits } = this;
    if (depth > limits.depth) return false;
    const size = this.sizeOf(to, limits.depth - depth);
    return this.count + size <= limits.region && size <= limits.inline;
  }

  /**
   * Instructions of a function as far as it has run, with all that it calls (in a wide region: what is small enough of
   * that); Infinity if it cannot be one region's part.
   */
  private sizeOf(entry: number, depth: number): number {
    if (depth < 0) return Number.POSITIVE_INFINITY;
    const known = this.sizes.get(entry);
    if (known !== undefined) return known;
    // A function that calls itself finds this.
    this.sizes.set(entry, Number.POSITIVE_INFINITY);
    const seen = new Set<number>();
    const queue = [entry];
    let size = 0;
    const { inline } = this.limits;
    for (let from = queue.pop(); from !== undefined && size <= inline; from = queue.pop()) {
      for (let at = from; !seen.has(at) && size <= inline; ) {
        const instruction = this.at(at);
        if (instruction === null) {
          size = at === entry ? Number.POSITIVE_INFINITY : size;
          break;
        }
        seen.add(at);
        size++;
        const behind = at + instruction.length;
        if (isCall(instruction)) {
          if (instruction.relative && !this.view.executed(behind + instruction.immediateLow)) break;
          const callee = instruction.relative
            ? this.sizeOf(behind + instruction.immediateLow, depth - 1)
            : Number.POSITIVE_INFINITY;
          if (callee <= inline || !this.wide) size += callee;
        } else {
          const { next, branch } = this.ways(at, instruction);
          if (branch !== null) queue.push(branch);
          if (!next) break;
        }
        at = behind;
      }
    }
    this.sizes.set(entry, size);
    return size;
  }

  private indirect(here: Context, at: number): void {
    const targets = this.view
      .targets(at)
      .filter((to) => this.at(to) !== null)
      .slice(0, TARGETS);
    here.targets.set(
      at,
      targets.map((address) => ({ context: here, address })),
    );
    for (const to of targets) this.reach(here, to);
  }

  private build(root: Context): Omit<Region, 'apart'> {
    const blocks: Block[] = [];
    const shells: { context: Context; block: Block; last: number }[] = [];
    for (const here of this.contexts) {
      const starts = [...here.leaders].filter((leader) => here.seen.has(leader)).sort((a, b) => a - b);
      // The entry comes first.
      if (here === root) starts.sort((a, b) => Number(b === root.entry) - Number(a === root.entry));
      for (const start of starts) {
        here.positions.set(start, blocks.length);
        const { block, last } = this.block(here, start);
        shells.push({ context: here, block, last });
        blocks.push(block);
      }
    }
    for (const { context: here, block, last } of shells) this.connect(here, block, last);
    const entries = [...this.entries].flatMap(([address, here]) => {
      const position = here.positions.get(address);
      const instruction = this.at(address);
      return position === undefined || instruction === null || straddles(address, instruction)
        ? []
        : [position];
    });
    return { pages: this.pages, blocks, entries, wide: this.wide };
  }

  private block(here: Context, start: number): { block: Block; last: number } {
    const instructions: { offset: number; instruction: Instruction }[] = [];
    let at = start;
    let last = start;
    while (here.seen.has(at)) {
      const instruction = this.at(at)!;
      instructions.push({ offset: at, instruction });
      last = at;
      at += instruction.length;
      if (instruction.relative || ends(instruction) || here.leaders.has(at)) break;
    }
    const deltas = new Set([pageOf(start), pageOf(at - 1)]);
    const pages = [...deltas].map((delta) => this.pages.findIndex((page) => page.delta === delta));
    return { block: { start, instructions, end: at, pages, taken: null, next: null, targets: [] }, last };
  }

  private connect(here: Context, block: Block, last: number): void {
    const instruction = this.at(last)!;
    const position = (there: Context, address: number) => there.positions.get(address) ?? null;
    const targets = block.targets as Target[];
    const aim = (there: Context, address: number) => {
      const found = position(there, address);
      if (found !== null) targets.push({ address, block: found });
    };
    if (isCall(instruction)) {
      for (const callee of here.calls.get(last) ?? [])
        if (instruction.relative) block.taken = position(callee, callee.entry);
        else aim(callee, callee.entry);
    } else if (isReturn(instruction)) {
      if (here.parent !== null) aim(here.parent, here.returnTo);
      else for (const site of here.sites) aim(here, site);
    } else if (!instruction.relative && ends(instruction)) {
      for (const { context: there, address } of here.targets.get(last) ?? []) aim(there, address);
    } else {
      if (instruction.relative) {
        const { branch } = this.ways(last, instruction);
        if (branch !== null) block.taken = position(here, branch);
      }
      if (!ends(instruction)) block.next = position(here, block.end);
    }
  }
}

const ends = (instruction: Instruction) => instruction.form?.definition.ends === true;

/** Its bytes lie in two pages. */
const straddles = (address: number, { length }: Instruction) =>
  pageOf(address) !== pageOf(address + length - 1);

/** Instructions at which a region ends, to be interpreted: far transfers, and what leaves the processor anyway. */
function leavesTo(instruction: Instruction): boolean {
  return instruction.form === null || instruction.form.definition.untranslated === true;
}
