/**
 * Hot code on its way to being translated, and the regions that are.
 *
 * Requests are gathered and given to the compiler as one job; the processor goes on meanwhile. A region is made
 * from bytes and belongs to them: when other code with the same bytes becomes hot, wherever it is mapped, the same
 * function serves. Before a region is installed in machine frames, their bytes are compared with those that it was
 * made from; from then on a write to such a frame drops its decoded code, and with it the region's places in it.
 * A region that has bytes of a dropped frame cannot be entered any more, and does not go on into that frame.
 */
import { type Memory, PAGE_SIZE } from '../../machine/memory.ts';
import { sameBytes } from '../../wasm/index.ts';
import type { Cpu } from '../cpu.ts';
import type { Decoder, Instruction } from '../decoder.ts';
import { CPU } from '../state.ts';
import { regionName } from '../translator/build.ts';
import { GuestCode } from '../translator/code-view.ts';
import {
  type CompileResult,
  Compiler,
  gather,
  KNOWN_REGIONS,
  LOADED,
  type LoadedResult,
  type RegionCompiler,
  STORED,
  type StoredRegion,
  type StoredResult,
} from '../translator/compile.ts';
import { REGION_IMPORTS } from '../translator/imports.ts';
import type { CodeCache } from './code-cache.ts';
import type { Recorder } from './recorder.ts';
import {
  type Batch,
  codePlace,
  comesAgain,
  entryOffset,
  type Request,
  rankOf,
  type Translation,
  wanted,
} from './translation.ts';
import type { Verifier } from './verify.ts';
import { WideRequests } from './wide-requests.ts';

/** Most regions of one module. */
const BATCH = 8;
/**
 * Runs of the processor between looks at what waits and what is finished; a run of so many instructions counts as
 * another one.
 */
const INTERVAL = 32;
const LONG_RUN = 1 << 14;
/** Most jobs under way: more would only wait, and what becomes hot meanwhile with them. */
const JOBS = 2;
/** Most regions that are kept; of these, most that are installed nowhere: their code was written over, or is gone. */
const REGIONS = 8192;
const IDLE_REGIONS = 1024;

/** Where translations came from. */
export class TranslationCounts {
  /** Regions translated in this run; wide ones besides. */
  made = 0;
  wide = 0;
  /** Regions that an earlier run left, and how many of their modules came to be used. */
  stored = 0;
  usedBatches = 0;
}

/** How often a translation was left because a group of accesses was not in one page (see translator/addresses.ts). */
interface Crossings {
  count: number;
  /** Instructions that the CPU had executed at the first of them. */
  since: number;
}

/** After so many crossings it is asked whether they were many: */
const CROSSINGS = 32;
/** they were, if there was more than one in so many instructions. */
const CROSSING_INTERVAL = 5_000;

/** A translation in certain machine frames, one for each of its pages. */
interface Installation {
  readonly translation: Translation;
  readonly frames: readonly number[];
  /** Linear address of the numbers of the frames (see translator/build.ts). */
  readonly numbers: number;
}

type RegionFunction = (cpu: number, entry: number, frames: number) => number;

export class Translations {
  private readonly memory: Memory;
  private readonly code: CodeCache;
  private readonly table: WebAssembly.Table;
  private readonly imports: Record<string, unknown>;
  private readonly compiler: RegionCompiler;
  private readonly alongside: Compiler;
  private readonly verifier: Verifier | null;
  private queue: Request[] = [];
  /** Wide regions take long to compile: they come when nothing else waits, each for itself. */
  private readonly wide: WideRequests;
  /** Places asked for, by frame: each is translated once until the frame's code is dropped. */
  private readonly asked = new Map<number, Set<number>>();
  private readonly jobs = new Map<number, Request[]>();
  /** By the entry's offset in its page; by rank, then the last one made first. */
  private readonly known = new Map<number, Translation[]>();
  private readonly bySlot = new Map<number, Translation>();
  private readonly crossings = new Map<number, Crossings>();
  /** What is installed in a frame. */
  private readonly installed = new Map<number, Set<Installation>>();
  /** Translations that were installed and are no longer, the longest idle first. */
  private readonly idle = new Set<Translation>();
  /** Slots of the table that are free again. */
  private readonly free: number[] = [];
  /** Regions that have slots. */
  private count = 0;
  private nextJob = STORED + 1;
  private readonly counts: TranslationCounts;
  private readonly onStored: () => void;
  /** Translations of earlier runs are still coming. */
  private loading: boolean;
  /** Batches whose modules are on their way, by number. */
  private readonly fetching = new Map<number, Batch>();
  private waited = 0;
  private lastAlone: { key: string; run: RegionFunction } | null = null;

  constructor(options: {
    memory: Memory;
    code: CodeCache;
    decoder: Decoder;
    table: WebAssembly.Table;
    /** By name: what regions import (see translator/imports.ts). */
    imports: Record<string, unknown>;
    /** null: translation happens at once, on the processor's own thread. */
    compiler: RegionCompiler | null;
    /** Knows what is executed now. */
    recorder: Recorder;
    /** Checks regions when they run. */
    verifier?: Verifier | null;
    counts?: TranslationCounts | null;
    /** There are translations of earlier runs: {@link installKnown} is worth asking. */
    onStored?: () => void;
  }) {
    this.counts = options.counts ?? new TranslationCounts();
    this.onStored = options.onStored ?? (() => {});
    this.loading = options.compiler?.stored ?? false;
    this.verifier = options.verifier ?? null;
    this.memory = options.memory;
    this.code = options.code;
    this.table = options.table;
    this.imports = { memory: options.memory.wasm };
    for (const name of REGION_IMPORTS) this.imports[name] = options.imports[name];
    this.alongside = new Compiler(options.memory, options.decoder);
    this.compiler = options.compiler ?? compileAtOnce(this.alongside);
    this.wide = new WideRequests(options.memory, options.decoder, options.recorder, {
      translation: (slot) => this.bySlot.get(slot),
      holds: (frame) => this.code.holds(frame),
      givenUp: ({ code, entry }) => this.asked.get(code.frame)?.delete(WIDE + entry),
    });
  }

  /** What begins at an offset of the CPU's page, in a machine frame, has become hot. */
  request(cpu: Cpu, frame: number, entry: number): void {
    if (this.ask(frame, entry)) this.queue.push(wanted(cpu, frame, entry));
  }

  /** @param place in the frame: an offset, or {@link WIDE} and one @returns false: it was asked for before */
  private ask(frame: number, place: number): boolean {
    const asked = this.asked.get(frame) ?? new Set();
    this.asked.set(frame, asked);
    if (asked.has(place)) return false;
    asked.add(place);
    return true;
  }

  /**
   * A region that begins at an offset of the CPU's page, in a machine frame, is entered often.
   * @param before the record at which the region was entered that led to it, if that is wide; 0: it is not
   * @returns whether what follows is recorded
   */
  requestWide(cpu: Cpu, frame: number, entry: number, before: number): boolean {
    if (this.ask(frame, WIDE + entry)) {
      const request = { ...wanted(cpu, frame, entry), wide: true };
      if (this.reuse(request)) return false;
      const from = before === 0 ? null : this.code.regionAt(before, cpu.number(CPU.base));
      this.wide.add(cpu, request, from);
    }
    return this.wide.remind(cpu, cpu.number(CPU.page) + entry);
  }

  /** Installs what is known to begin at an offset of the CPU's page, if anything is. */
  installKnown(cpu: Cpu, frame: number, entry: number): boolean {
    return this.known.has(entry) && this.reuse(wanted(cpu, frame, entry));
  }

  /** The region entered at a record was left before an instruction: a group of accesses was not in one page. */
  leftApart(cpu: Cpu, region: number): void {
    const { slot, page, numbers } = this.code.regionAt(region, cpu.number(CPU.base));
    const translation = this.bySlot.get(slot);
    if (translation === undefined) return;
    // Within a run the budget goes down, behind it the count goes up.
    const now = cpu.number(CPU.instructions) - (cpu.get(CPU.budget) | 0);
    const crossings = this.crossings.get(slot) ?? { count: 0, since: now };
    this.crossings.set(slot, crossings);
    if (++crossings.count !== CROSSINGS) return;
    // A wide one goes on until the other one is there, uncounted.
    if (!translation.wide || now - crossings.since > CROSSINGS * CROSSING_INTERVAL)
      this.crossings.delete(slot);
    if (now - crossings.since > CROSSINGS * CROSSING_INTERVAL) return;
    if (translation.apart.includes(cpu.rip - page)) return;
    const frame = this.memory.u32[numbers >>> 2]!;
    if (!this.code.holds(frame)) return;
    const { wide } = translation;
    if (!wide) this.remove(slot, frame);
    const request: Request = {
      code: { ...codePlace(cpu, page), frame },
      entry: entryOffset(translation),
      apart: [...translation.apart, cpu.rip - page],
      wide,
      remakes: translation.remakes,
      replaces: slot,
    };
    if (wide) this.wide.add(cpu, request, null);
    else this.queue.push(request);
  }

  /**
   * Starts what waits, installs what is finished. Cheap where there is neither.
   * @param executed instructions since the last time
   */
  work(executed: number): void {
    const coming = this.queue.length + this.jobs.size + this.fetching.size;
    if (coming === 0 && this.wide.empty && !this.loading) return;
    this.waited += 1 + executed / LONG_RUN;
    if (this.waited < INTERVAL) return;
    this.waited = 0;
    for (let result = this.compiler.poll(); result !== null; result = this.compiler.poll())
      if (result.id === STORED) this.keep(result as StoredResult);
      else if (result.id === LOADED) this.loaded(result as LoadedResult);
      else this.finish(result as CompileResult);
    // What became hot last is what runs now.
    if (this.queue.length > 0 && this.jobs.size < JOBS) this.start(this.queue.splice(-BATCH).reverse());
    else if (this.jobs.size < JOBS) {
      const next = this.wide.next();
      if (next !== null) this.start([next.request], next.traces);
    }
  }

  /** A CPU is no more. */
  forget(cpu: Cpu): void {
    this.wide.forget(cpu);
  }

  private start(requests: readonly Request[], traces: readonly Float64Array[] = []): void {
    const places = requests.filter((request) => this.code.holds(request.code.frame) && !this.reuse(request));
    if (places.length === 0) return;
    if (this.count + places.length > REGIONS) this.forgetAll();
    const id = this.nextJob++;
    this.jobs.set(id, places);
    this.compiler.post({
      id,
      places: places.map(({ code, entry, apart, remakes }) => ({ code, entry, apart, remakes, traces })),
    });
  }

  private finish({ id, module, regions }: CompileResult): void {
    const requests = this.jobs.get(id);
    this.jobs.delete(id);
    if (requests === undefined || module === null) return;
    const translations: Translation[] = regions.map((region) => ({
      ...described(region),
      ...{ slot: -1, installations: 0, batch: null },
    }));
    this.instantiate(module, translations, regions);
    for (const [i, { place, pages, wide }] of regions.entries()) {
      const translation = translations[i]!;
      this.learn(translation);
      if (wide) this.counts.wide++;
      else this.counts.made++;
      const frames = pages.map(({ frame }) => frame);
      if (this.fits(translation, frames)) this.install(translation, frames, requests[place]!.replaces);
    }
  }

  /** Puts a module's functions into the table. */
  private instantiate(
    module: WebAssembly.Module,
    translations: readonly Translation[],
    regions: readonly StoredRegion[],
  ): void {
    const plain = new WebAssembly.Instance(module, { env: this.imports }).exports;
    const exports = this.verifier?.wrap(module, plain, regions) ?? plain;
    for (const [i, translation] of translations.entries()) {
      // It stayed when others of its batch went.
      if (translation.slot >= 0) continue;
      translation.slot = this.slot();
      this.count++;
      this.table.set(translation.slot, exports[regionName(i)]);
      this.bySlot.set(translation.slot, translation);
    }
  }

  private slot(): number {
    return this.free.pop() ?? this.table.grow(1);
  }

  /** It is installed in one place less. */
  private uninstalled(translation: Translation): void {
    if (--translation.installations > 0) return;
    this.idle.add(translation);
    if (this.idle.size <= IDLE_REGIONS) return;
    const [oldest] = this.idle;
    this.idle.delete(oldest!);
    this.discard(oldest!);
    if (!comesAgain(oldest!)) this.unlearn(oldest!);
  }

  private discard(translation: Translation): void {
    const { slot } = translation;
    if (slot < 0) return;
    translation.slot = -1;
    this.count--;
    this.table.set(slot, null);
    this.bySlot.delete(slot);
    this.crossings.delete(slot);
    this.free.push(slot);
  }

  private learn(translation: Translation): void {
    const key = entryOffset(translation);
    const list = this.known.get(key) ?? [];
    this.known.set(key, list);
    const rank = rankOf(translation);
    const behind = list.findIndex((each) => rankOf(each) <= rank);
    list.splice(behind < 0 ? list.length : behind, 0, translation);
  }

  private unlearn(translation: Translation): void {
    const key = entryOffset(translation);
    const list = this.known.get(key) ?? [];
    const others = list.filter((each) => each !== translation);
    if (others.length === list.length) return;
    if (others.length > 0) this.known.set(key, others);
    else this.known.delete(key);
  }

  /** Somebody else's translations: what they are made for is not known yet. */
  private keep({ batch: number, module, regions }: StoredResult): void {
    if (regions.length === 0) {
      this.loading = false;
      return;
    }
    if (this.counts.stored + regions.length > KNOWN_REGIONS.stored + KNOWN_REGIONS.shared) return;
    if (this.counts.stored === 0) this.onStored();
    const batch: Batch = { number, module, translations: [], waiting: [] };
    for (const region of regions) {
      const translation = { ...described(region), ...{ slot: -1, installations: 0, batch } };
      batch.translations.push(translation);
      this.learn(translation);
    }
    this.counts.stored += regions.length;
  }

  /** The module of a batch came: what waited for it is installed. */
  private loaded({ batch: number, module }: LoadedResult): void {
    const batch = this.fetching.get(number);
    if (batch === undefined) return;
    this.fetching.delete(number);
    batch.module = module;
    if (module === null)
      for (const translation of batch.translations) if (translation.slot < 0) this.unlearn(translation);
    for (const request of batch.waiting.splice(0))
      if (module === null || !this.reuse(request)) {
        // It may be asked for again.
        const { code, entry, wide } = request;
        this.asked.get(code.frame)?.delete(wide ? WIDE + entry : entry);
      }
  }

  /** @returns false: the module is not there yet */
  private ready(batch: Batch, request: Request): boolean {
    const { module, translations, waiting, number } = batch;
    if (module !== null) {
      this.instantiate(module, translations, translations);
      batch.module = null;
      this.counts.usedBatches++;
      return true;
    }
    waiting.push(request);
    if (!this.fetching.has(number)) {
      this.fetching.set(number, batch);
      this.compiler.load?.(number);
    }
    return false;
  }

  /** Code with the same bytes was translated before. @returns whether that is installed, or will be */
  private reuse(request: Request): boolean {
    const { code, entry, apart, wide, remakes, replaces } = request;
    const list = this.known.get(entry);
    if (list === undefined) return false;
    const view = new GuestCode(this.memory, code);
    for (const translation of list) {
      if ((wide && !translation.wide) || translation.remakes < remakes) continue;
      if (!this.beginsWith(code.frame, translation)) continue;
      if (apart.some((address) => !translation.apart.includes(address))) continue;
      const frames = translation.pages.map(({ delta }) => view.page(delta)?.frame ?? 0);
      if (frames.includes(0) || !this.fits(translation, frames)) continue;
      if (translation.slot >= 0 || this.ready(translation.batch!, request))
        this.install(translation, frames, replaces);
      return true;
    }
    return false;
  }

  /** The bytes of its entry's page are those of a frame: most are told apart by this. */
  private beginsWith(frame: number, { pages, entries }: Translation): boolean {
    const { ranges, bytes } = pages[entries[0]!.page]!;
    const { u8 } = this.memory;
    const start = frame * PAGE_SIZE;
    let i = 0;
    for (const [from, to] of ranges)
      for (let at = from; at < to; at++) if (u8[start + at] !== bytes[i++]) return false;
    return true;
  }

  /** Frames hold the bytes that it was made from. */
  private fits({ pages }: Translation, frames: readonly number[]): boolean {
    const { u8 } = this.memory;
    return pages.every(({ ranges, bytes }, i) => {
      const start = frames[i]! * PAGE_SIZE;
      return sameBytes(gather(u8.subarray(start, start + PAGE_SIZE), ranges), bytes);
    });
  }

  /** @param frames those that it {@link fits} */
  private install(translation: Translation, frames: readonly number[], replaces: number | null): void {
    const { code } = this;
    const { pages, entries } = translation;
    const numbers = code.hold(frames);
    // No room: it will be asked for again when all has been forgotten.
    if (numbers === 0) return;
    if (replaces !== null) this.remove(replaces, frames[0]!);
    const installation = { translation, frames, numbers };
    translation.installations++;
    this.idle.delete(translation);
    for (const frame of frames) {
      const there = this.installed.get(frame);
      if (there === undefined) this.installed.set(frame, new Set([installation]));
      else there.add(installation);
    }
    for (const [number, { page, offset }] of entries.entries()) {
      const { delta } = pages[page]!;
      code.enterRegion(frames[page]!, offset, {
        slot: translation.slot,
        number,
        numbers,
        distance: delta * PAGE_SIZE,
        wide: translation.wide,
      });
    }
  }

  /** A translation is not to be entered any more where it begins in a frame: another one takes its place. */
  private remove(slot: number, frame: number): void {
    for (const installation of this.installed.get(frame) ?? []) {
      const { translation, frames, numbers } = installation;
      if (translation.slot !== slot || frames[0] !== frame) continue;
      for (const each of frames) this.installed.get(each)?.delete(installation);
      for (const { page, offset } of translation.entries)
        this.code.leaveRegion(frames[page]!, offset, numbers);
      this.uninstalled(translation);
    }
  }

  /** A frame's code is gone (null: that of all frames). */
  drop(frame: number | null): void {
    if (frame === null) {
      this.asked.clear();
      for (const there of this.installed.values())
        for (const { translation } of there) translation.installations = 0;
      this.installed.clear();
      this.queue = [];
      this.wide.clear();
      return;
    }
    this.asked.delete(frame);
    const there = this.installed.get(frame);
    if (there === undefined) return;
    this.installed.delete(frame);
    for (const installation of there) {
      const { translation, frames, numbers } = installation;
      for (const [i, each] of frames.entries()) {
        if (each === frame) this.memory.u32[(numbers >>> 2) + i] = NO_FRAME;
        else this.installed.get(each)?.delete(installation);
      }
      for (const { page, offset } of translation.entries)
        if (frames[page] !== frame) {
          this.code.leaveRegion(frames[page]!, offset, numbers);
          this.asked.get(frames[page]!)?.delete(offset);
          this.asked.get(frames[page]!)?.delete(WIDE + offset);
        }
      this.uninstalled(translation);
    }
  }

  /** Too much is kept: every region goes, with the decoded code that leads to it; what can come again stays known. */
  private forgetAll(): void {
    this.code.clear();
    for (const [key, list] of this.known) {
      for (const translation of list) this.discard(translation);
      const left = list.filter(comesAgain);
      if (left.length > 0) this.known.set(key, left);
      else this.known.delete(key);
    }
    this.idle.clear();
    for (const { waiting } of this.fetching.values()) waiting.length = 0;
    this.fetching.clear();
  }

  /** One instruction as a region of its own, or null if it is left to the interpreter. For tests. */
  alone(instruction: Instruction, offset: number): RegionFunction | null {
    if (instruction.form === null || instruction.form.definition.untranslated === true) return null;
    const { form, ...rest } = instruction;
    const key = JSON.stringify([form.index, offset, rest]);
    if (this.lastAlone?.key === key) return this.lastAlone.run;
    const block = {
      start: offset,
      instructions: [{ offset, instruction }],
      end: offset + instruction.length,
      pages: [0],
      taken: null,
      next: null,
      targets: [],
    };
    const page = { delta: 0, frame: 0, bytes: new Uint8Array() };
    const region = { pages: [page], blocks: [block], entries: [0], apart: new Set<number>(), wide: false };
    const bytes = this.alongside.build([region]);
    const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: this.imports });
    const run = instance.exports[regionName(0)] as RegionFunction;
    this.lastAlone = { key, run };
    return run;
  }
}

/** Among what was asked for in a frame, wide regions: their offsets with this added. */
const WIDE = PAGE_SIZE;

/** No frame has this number. */
const NO_FRAME = 0xffffffff;

/** What is kept of a region, and nothing else of it. */
function described({ pages, entries, apart, wide, remakes }: StoredRegion): StoredRegion {
  return { pages, entries, apart, wide, remakes };
}

/** A compiler that is done when it is asked. */
function compileAtOnce(compiler: Compiler): RegionCompiler {
  const results: CompileResult[] = [];
  return {
    post: (job) => void results.push(compiler.compile(job)),
    poll: () => results.shift() ?? null,
  };
}
