/**
 * Hot code on its way to being translated, and the regions that are.
 *
 * Requests are gathered and given to the compiler as one job; the processor goes on meanwhile. A region is made
 * from bytes and belongs to them: when other code with the same bytes becomes hot, wherever it is mapped, the same
 * function serves. Where a region is installed belongs to a machine frame; when the frame's decoded code is
 * dropped, so are the region's places in it, and requests under way for it come to nothing.
 */
import { type Memory, PAGE_SIZE } from '../../machine/memory.ts';
import type { Decoder, Instruction } from '../decoder.ts';
import { buildRegions, regionName } from '../translator/build.ts';
import { type CompileResult, compileRegions, type RegionCompiler } from '../translator/compile.ts';
import { REGION_IMPORTS } from '../translator/imports.ts';
import type { CodeCache } from './code-cache.ts';

/** Most regions of one module. */
const BATCH = 32;
/** Runs of the processor between looks at what waits and what is finished. */
const INTERVAL = 32;
/** Most jobs under way: more would only wait, and their code may have changed by then. */
const JOBS = 4;
/** Most regions that are kept. */
const REGIONS = 8192;

/** A translated region, wherever it is installed. */
interface Translation {
  readonly slot: number;
  readonly entries: readonly number[];
  readonly ranges: readonly (readonly [number, number])[];
  /** The bytes of the ranges, one after the other. */
  readonly bytes: Uint8Array;
}

interface Request {
  readonly frame: number;
  readonly offset: number;
  /** The frame's code has been dropped since. */
  stale: boolean;
  readonly bytes: Uint8Array;
}

export class Translations {
  private readonly memory: Memory;
  private readonly code: CodeCache;
  private readonly table: WebAssembly.Table;
  private readonly imports: Record<string, unknown>;
  private readonly compiler: RegionCompiler;
  private readonly queue: { frame: number; offset: number }[] = [];
  /** Places asked for, by frame: each is translated once until the frame's code is dropped. */
  private readonly asked = new Map<number, Set<number>>();
  private readonly jobs = new Map<number, Request[]>();
  /** By entry offset and hash of the bytes there (see keyOf). */
  private readonly known = new Map<string, Translation[]>();
  private count = 0;
  private nextJob = 1;
  private waited = 0;
  private lastAlone: { key: string; run: (cpu: number, entry: number) => number } | null = null;

  constructor(options: {
    memory: Memory;
    code: CodeCache;
    decoder: Decoder;
    table: WebAssembly.Table;
    /** By name: what regions import (see translator/imports.ts). */
    imports: Record<string, unknown>;
    /** null: translation happens at once, on the processor's own thread. */
    compiler: RegionCompiler | null;
  }) {
    this.memory = options.memory;
    this.code = options.code;
    this.table = options.table;
    this.imports = { memory: options.memory.wasm };
    for (const name of REGION_IMPORTS) this.imports[name] = options.imports[name];
    this.compiler = options.compiler ?? compileAtOnce(options.decoder);
  }

  /** What begins at an offset of a machine frame has become hot. */
  request(frame: number, offset: number): void {
    let asked = this.asked.get(frame);
    if (asked === undefined) {
      asked = new Set();
      this.asked.set(frame, asked);
    }
    if (asked.has(offset)) return;
    asked.add(offset);
    this.queue.push({ frame, offset });
  }

  /** Starts what waits, installs what is finished. Cheap where there is neither. */
  work(): void {
    if (this.queue.length === 0 && this.jobs.size === 0) return;
    if (++this.waited < INTERVAL) return;
    this.waited = 0;
    for (let result = this.compiler.poll(); result !== null; result = this.compiler.poll())
      this.finish(result);
    if (this.queue.length > 0 && this.jobs.size < JOBS) this.start();
  }

  private start(): void {
    const requests: Request[] = [];
    for (const { frame, offset } of this.queue.splice(0, BATCH)) {
      if (!this.code.holds(frame)) continue;
      const bytes = this.memory.u8.slice(frame * PAGE_SIZE, (frame + 1) * PAGE_SIZE);
      if (!this.reuse(frame, offset, bytes)) requests.push({ frame, offset, stale: false, bytes });
    }
    if (requests.length === 0) return;
    if (this.count + requests.length > REGIONS) this.forgetAll();
    const id = this.nextJob++;
    this.jobs.set(id, requests);
    this.compiler.post({
      id,
      memoryPages: this.memory.size / 0x1_0000,
      pages: requests.map(({ bytes, offset }) => ({ bytes, entry: offset })),
    });
  }

  private finish({ id, module, regions }: CompileResult): void {
    const requests = this.jobs.get(id);
    this.jobs.delete(id);
    if (requests === undefined || module === null) return;
    const { exports } = new WebAssembly.Instance(module, { env: this.imports });
    for (const [i, { page, entries, ranges }] of regions.entries()) {
      const request = requests[page]!;
      const slot = this.table.grow(1);
      this.table.set(slot, exports[regionName(i)]);
      const translation = { slot, entries, ranges, bytes: gather(request.bytes, ranges) };
      const key = keyOf(request.offset, request.bytes);
      const list = this.known.get(key);
      if (list === undefined) this.known.set(key, [translation]);
      else list.push(translation);
      this.count++;
      if (!request.stale) this.install(request.frame, translation);
    }
  }

  /** Code with the same bytes was translated before. */
  private reuse(frame: number, offset: number, bytes: Uint8Array): boolean {
    const translation = this.known
      .get(keyOf(offset, bytes))
      ?.find((each) => same(gather(bytes, each.ranges), each.bytes));
    if (translation === undefined) return false;
    this.install(frame, translation);
    return true;
  }

  private install(frame: number, { slot, entries }: Translation): void {
    for (const [number, offset] of entries.entries()) this.code.enterRegion(frame, offset, slot, number);
  }

  /** A frame's code is gone (null: that of all frames). */
  drop(frame: number | null): void {
    if (frame === null) this.asked.clear();
    else this.asked.delete(frame);
    for (const requests of this.jobs.values())
      for (const request of requests) if (frame === null || request.frame === frame) request.stale = true;
  }

  /** Too much is kept: every region is forgotten, with the decoded code that leads to it. */
  private forgetAll(): void {
    this.code.clear();
    for (const list of this.known.values()) for (const { slot } of list) this.table.set(slot, null);
    this.known.clear();
    this.count = 0;
  }

  /** One instruction as a region of its own, or null if it is left to the interpreter. For tests. */
  alone(instruction: Instruction, offset: number): ((cpu: number, entry: number) => number) | null {
    if (instruction.form === null || instruction.form.definition.untranslated === true) return null;
    const { form, ...rest } = instruction;
    const key = JSON.stringify([form.index, offset, rest]);
    if (this.lastAlone?.key === key) return this.lastAlone.run;
    const end = offset + instruction.length;
    const block = { start: offset, instructions: [{ offset, instruction }], end, taken: null, next: null };
    const bytes = buildRegions(
      [{ entry: offset, blocks: [block], entries: [offset] }],
      this.memory.size / 0x1_0000,
    );
    const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: this.imports });
    const run = instance.exports[regionName(0)] as (cpu: number, entry: number) => number;
    this.lastAlone = { key, run };
    return run;
  }
}

/** A compiler that is done when it is asked. */
function compileAtOnce(decoder: Decoder): RegionCompiler {
  const results: CompileResult[] = [];
  return {
    post: (job) => void results.push(compileRegions(decoder, job)),
    poll: () => results.shift() ?? null,
  };
}

/** The place in the page and the first bytes there (FNV-1a): a first guess, to be compared in full. */
function keyOf(offset: number, page: Uint8Array): string {
  let hash = 0x811c9dc5;
  for (let i = offset; i < Math.min(offset + 32, page.length); i++)
    hash = Math.imul(hash ^ page[i]!, 0x01000193);
  return `${offset}:${hash}`;
}

function gather(page: Uint8Array, ranges: readonly (readonly [number, number])[]): Uint8Array {
  const out = new Uint8Array(ranges.reduce((sum, [start, end]) => sum + end - start, 0));
  let at = 0;
  for (const [start, end] of ranges) {
    out.set(page.subarray(start, end), at);
    at += end - start;
  }
  return out;
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
