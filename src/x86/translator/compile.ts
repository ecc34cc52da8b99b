/**
 * Translation as a job that any thread can do: pages with the places to translate go in, one WebAssembly module
 * with a function for each comes out. Nothing of it depends on the machine but the size of its memory.
 */
import { Decoder } from '../decoder.ts';
import { expandForms } from '../isa/form.ts';
import { definitions } from '../isa/index.ts';
import { buildRegions } from './build.ts';
import { findRegion, type Region } from './region.ts';

export interface CompileJob {
  readonly id: number;
  /** Size of the machine's memory in 64 KiB pages. */
  readonly memoryPages: number;
  readonly pages: readonly { readonly bytes: Uint8Array; readonly entry: number }[];
}

/** What is to be known of a translated region: the i-th function of the module (see build.ts, regionName). */
export interface CompiledRegion {
  /** Index of the page in the job. */
  readonly page: number;
  /** Offsets where it can be entered, in the order of entry numbers. */
  readonly entries: readonly number[];
  /** The bytes that it was made from: pairs of start and end offsets. */
  readonly ranges: readonly (readonly [number, number])[];
}

export interface CompileResult {
  readonly id: number;
  /** null: nothing in the job could be translated. */
  readonly module: WebAssembly.Module | null;
  readonly regions: readonly CompiledRegion[];
}

/** A thread that translates while the processor goes on. */
export interface RegionCompiler {
  post(job: CompileJob): void;
  /** A finished job, or null if none is. */
  poll(): CompileResult | null;
}

export function compileRegions(decoder: Decoder, job: CompileJob): CompileResult {
  const regions: Region[] = [];
  const compiled: CompiledRegion[] = [];
  job.pages.forEach(({ bytes, entry }, page) => {
    const region = findRegion(decoder, bytes, entry);
    if (region === null) return;
    regions.push(region);
    compiled.push({
      page,
      entries: region.entries,
      ranges: region.blocks.map((block) => [block.start, Math.min(block.end, bytes.length)] as const),
    });
  });
  if (regions.length === 0) return { id: job.id, module: null, regions: [] };
  const module = new WebAssembly.Module(buildRegions(regions, job.memoryPages));
  return { id: job.id, module, regions: compiled };
}

/** The decoder for a thread that only compiles. */
export function compilerDecoder(): Decoder {
  return new Decoder(expandForms(definitions));
}
