/**
 * Hot code on its way to being translated, and the regions that are.
 *
 * Requests are gathered and compiled as one module. A region belongs to one machine frame; when the frame's decoded
 * code is dropped, so are the region's records, and its place in the table of functions is free again.
 */
import { type Memory, PAGE_SIZE } from '../../machine/memory.ts';
import type { Decoder, Instruction } from '../decoder.ts';
import { buildRegions, regionName } from '../translator/build.ts';
import { REGION_IMPORTS } from '../translator/imports.ts';
import { findRegion, type Region } from '../translator/region.ts';
import type { CodeCache } from './code-cache.ts';

/** Regions of one module. */
const BATCH = 8;
/** Runs of the processor after which a smaller batch is translated as well. */
const PATIENCE = 64;

interface Installed {
  readonly slots: number[];
}

export class Translations {
  private readonly memory: Memory;
  private readonly code: CodeCache;
  private readonly decoder: Decoder;
  private readonly table: WebAssembly.Table;
  private readonly imports: Record<string, unknown>;
  private readonly queue: { frame: number; offset: number }[] = [];
  private readonly installed = new Map<number, Installed>();
  private readonly free: number[] = [];
  private waited = 0;
  private lastAlone: { key: string; run: (cpu: number, entry: number) => number } | null = null;

  constructor(options: {
    memory: Memory;
    code: CodeCache;
    decoder: Decoder;
    table: WebAssembly.Table;
    /** By name: what regions import (see translator/imports.ts). */
    imports: Record<string, unknown>;
  }) {
    this.memory = options.memory;
    this.code = options.code;
    this.decoder = options.decoder;
    this.table = options.table;
    this.imports = { memory: options.memory.wasm };
    for (const name of REGION_IMPORTS) this.imports[name] = options.imports[name];
  }

  request(frame: number, offset: number): void {
    this.queue.push({ frame, offset });
  }

  /** Translates what is due. */
  work(): void {
    if (this.queue.length === 0) return;
    if (this.queue.length < BATCH && ++this.waited < PATIENCE) return;
    this.waited = 0;
    const jobs: { frame: number; region: Region }[] = [];
    for (const { frame, offset } of this.queue.splice(0)) {
      if (!this.code.holds(frame)) continue;
      const page = this.memory.u8.slice(frame * PAGE_SIZE, (frame + 1) * PAGE_SIZE);
      const region = findRegion(this.decoder, page, offset);
      if (region !== null) jobs.push({ frame, region });
    }
    if (jobs.length === 0) return;
    const bytes = buildRegions(
      jobs.map((job) => job.region),
      this.memory.size / 0x1_0000,
    );
    const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: this.imports });
    for (const [i, { frame, region }] of jobs.entries())
      this.install(frame, region, instance.exports[regionName(i)]);
  }

  /** One instruction as a region of its own, or null if it is left to the interpreter. */
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

  private install(frame: number, region: Region, func: unknown): void {
    const slot = this.free.pop() ?? this.table.grow(1);
    this.table.set(slot, func);
    let installed = this.installed.get(frame);
    if (installed === undefined) {
      installed = { slots: [] };
      this.installed.set(frame, installed);
    }
    installed.slots.push(slot);
    for (const [number, offset] of region.entries.entries())
      this.code.enterRegion(frame, offset, slot, number);
  }

  /** A frame's code is gone (null: that of all frames). */
  drop(frame: number | null): void {
    const gone = frame === null ? [...this.installed.keys()] : [frame];
    for (const each of gone) {
      const installed = this.installed.get(each);
      if (installed === undefined) continue;
      this.installed.delete(each);
      for (const slot of installed.slots) {
        this.table.set(slot, null);
        this.free.push(slot);
      }
    }
  }
}
