/**
 * Translation as a job that any thread can do that sees the machine's memory: places in go in, one WebAssembly
 * module with a function for each comes out.
 */
import type { Memory } from '../../machine/memory.ts';
import { PAGE_SIZE } from '../../machine/memory.ts';
import { Decoder } from '../decoder.ts';
import { expandForms } from '../isa/form.ts';
import { definitions } from '../isa/index.ts';
import { buildRegions } from './build.ts';
import { type CodePlace, GuestCode, RecordedCode, Recordings } from './code-view.ts';
import { KnownForms } from './facts.ts';
import { findRegion, type Region, worthwhile } from './region.ts';

/** Where a region is to begin. */
export interface WantedRegion {
  readonly code: CodePlace;
  /** Offset in the page. */
  readonly entry: number;
  /** Instructions whose memory accesses are checked alone: their distances from the start of the entry's page. */
  readonly apart: readonly number[];
  /** Of a wide region: how often it was made anew. */
  readonly remakes: number;
  /** For a wide region (see region.ts): what was executed lately, as addresses of instructions; empty: no wide one. */
  readonly traces: readonly Float64Array[];
}

export interface CompileJob {
  readonly id: number;
  readonly places: readonly WantedRegion[];
}

/** The bytes that a region was made from, in one page. */
export interface CompiledPage {
  /** Distance from the entry's page, in pages; the machine frame that was behind it. */
  readonly delta: number;
  readonly frame: number;
  /** Pairs of start and end offsets. */
  readonly ranges: readonly (readonly [number, number])[];
  /** The bytes of the ranges, one after the other. */
  readonly bytes: Uint8Array;
}

/** What is to be known of a translated region: the i-th function of the module (see build.ts, regionName). */
export interface CompiledRegion {
  /** Which of the job's places it begins at. */
  readonly place: number;
  readonly pages: readonly CompiledPage[];
  /** Where it can be entered, in the order of entry numbers: which page, and the offset there. */
  readonly entries: readonly { readonly page: number; readonly offset: number }[];
  /** As they were wanted. */
  readonly apart: readonly number[];
  readonly remakes: number;
  readonly wide: boolean;
}

export interface CompileResult {
  readonly id: number;
  /** null: nothing in the job could be translated. */
  readonly module: WebAssembly.Module | null;
  readonly regions: readonly CompiledRegion[];
}

/** What is to be known of a region that was translated elsewhere or earlier. */
export interface StoredRegion {
  readonly pages: readonly Omit<CompiledPage, 'frame'>[];
  readonly entries: CompiledRegion['entries'];
  readonly apart: CompiledRegion['apart'];
  readonly wide: boolean;
  /** Of a wide one: how often it had been made anew. */
  readonly remakes: number;
}

/** What somebody else translated, or an earlier run: results with this id instead of a job's. */
export const STORED = 0;

/** Most regions that a processor knows from earlier runs, and from other processors of its machine. */
export const KNOWN_REGIONS = { stored: 16_384, shared: 4096 } as const;

export interface StoredResult {
  readonly id: typeof STORED;
  /** Its number, for {@link RegionCompiler.load}. */
  readonly batch: number;
  /** null: it has to be asked for. */
  readonly module: WebAssembly.Module | null;
  /** None: that was all that there is of earlier runs. */
  readonly regions: readonly StoredRegion[];
}

/** A stored batch that was asked for: results with this id. */
export const LOADED = -1;

export interface LoadedResult {
  readonly id: typeof LOADED;
  readonly batch: number;
  /** null: it is not there any more. */
  readonly module: WebAssembly.Module | null;
}

/** A thread that translates while the processor goes on. */
export interface RegionCompiler {
  post(job: CompileJob): void;
  /** Something finished, or null if nothing is. */
  poll(): CompileResult | StoredResult | LoadedResult | null;
  /** Translations of earlier runs are among the results. */
  readonly stored?: boolean;
  /** The module of such a batch is wanted: it will be among the results. */
  load?(batch: number): void;
}

/** Translates, on the thread that calls it. */
export class Compiler {
  private readonly memory: Memory;
  private readonly decoder: Decoder;
  private readonly forms = new KnownForms();
  private readonly recordings = new Recordings();
  /** Takes each module with its bytes and regions, to be kept for later runs. */
  onCompiled: (bytes: Uint8Array, regions: readonly CompiledRegion[], module: WebAssembly.Module) => void =
    () => {};
  /** Compiles what is known to be hot, by the engine's optimising compiler where the host can ask for it. */
  optimise: (module: Uint8Array) => WebAssembly.Module = (module) => new WebAssembly.Module(module);

  constructor(memory: Memory, decoder = new Decoder(expandForms(definitions))) {
    this.memory = memory;
    this.decoder = decoder;
  }

  compile({ id, places }: CompileJob): CompileResult {
    const regions: Region[] = [];
    const compiled: CompiledRegion[] = [];
    places.forEach(({ code, entry, apart, remakes, traces }, place) => {
      const guest = new GuestCode(this.memory, code);
      const wide = traces.length > 0;
      const view = wide
        ? new RecordedCode(
            guest,
            code.page,
            traces.map((trace) => this.recordings.of(trace)),
          )
        : guest;
      const region = findRegion(this.decoder, view, entry, new Set(apart), wide);
      if (region === null || (!wide && !worthwhile(region))) return;
      regions.push(region);
      compiled.push(describe(region, place, remakes));
    });
    if (regions.length === 0) return { id, module: null, regions: [] };
    const bytes = this.build(regions);
    const wide = regions.some((region) => region.wide);
    const module = wide ? this.optimise(bytes) : new WebAssembly.Module(bytes);
    this.onCompiled(bytes, compiled, module);
    return { id, module, regions: compiled };
  }

  build(regions: readonly Region[]): Uint8Array {
    return buildRegions(regions, this.forms);
  }
}

function describe(region: Region, place: number, remakes: number): CompiledRegion {
  const ranges: [number, number][][] = region.pages.map(() => []);
  const note = (start: number, end: number) => {
    const delta = Math.floor(start / PAGE_SIZE);
    const border = (delta + 1) * PAGE_SIZE;
    const page = region.pages.findIndex((each) => each.delta === delta);
    ranges[page]!.push([start - delta * PAGE_SIZE, Math.min(end, border) - delta * PAGE_SIZE]);
    if (end > border) note(border, end);
  };
  for (const { start, end } of region.blocks) note(start, end);
  return {
    place,
    apart: [...region.apart],
    remakes,
    wide: region.wide,
    pages: region.pages.map(({ delta, frame, bytes }, i) => {
      const merged = union(ranges[i]!);
      return { delta, frame, ranges: merged, bytes: gather(bytes, merged) };
    }),
    entries: region.entries.map((position) => {
      const { start, pages } = region.blocks[position]!;
      return { page: pages[0]!, offset: start & (PAGE_SIZE - 1) };
    }),
  };
}

/** Sorted, and without overlaps. */
function union(ranges: readonly [number, number][]): [number, number][] {
  const out: [number, number][] = [];
  for (const [start, end] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const last = out.at(-1);
    if (last !== undefined && start <= last[1]) last[1] = Math.max(last[1], end);
    else out.push([start, end]);
  }
  return out;
}

/** The bytes of some ranges of a page, one after the other. */
export function gather(page: Uint8Array, ranges: readonly (readonly [number, number])[]): Uint8Array {
  const out = new Uint8Array(ranges.reduce((sum, [start, end]) => sum + end - start, 0));
  let at = 0;
  for (const [start, end] of ranges) {
    out.set(page.subarray(start, end), at);
    at += end - start;
  }
  return out;
}
