/**
 * Requests for wide regions (see translator/region.ts): they wait until what runs there has been recorded.
 *
 * Where a wide region turns out to leave often by a branch, it is made anew with that way in it, instead of a region
 * of its own for what follows.
 */
import { type Memory, PAGE_SIZE } from '../../machine/memory.ts';
import type { Cpu, VirtualAddress } from '../cpu.ts';
import type { Decoder, Instruction } from '../decoder.ts';
import type { EnteredRegion } from './code-cache.ts';
import type { Recorder } from './recorder.ts';
import type { Request, Translation } from './translation.ts';

/** Most requests that wait: the oldest are given up. */
const WAITING = 256;
/** Most recordings that a wide region is made from; how often one is made anew. */
const TRACES = 4;
const REMAKES = 3;
/** So many that were recorded wait for the compiler: nothing more is recorded, which would only slow down the CPU. */
const AHEAD = 2;

interface Waiting {
  readonly request: Request;
  readonly cpu: Cpu;
  /** The wide region that led to it. */
  readonly before: EnteredRegion | null;
  /** How often the CPU has come there since. */
  arrivals: number;
  /** There was a recording of it when that was last looked for. */
  recorded: boolean;
}

/** Where what is wanted begins. */
const addressOf = ({ request: { code, entry } }: Waiting): VirtualAddress => code.page + entry;

export interface WideRequestsHost {
  /** The translation in a slot of the table. */
  translation(slot: number): Translation | undefined;
  /** A machine frame has decoded code. */
  holds(frame: number): boolean;
  /** What was asked for may be asked for again. */
  givenUp(request: Request): void;
}

export class WideRequests {
  private readonly memory: Memory;
  private readonly decoder: Decoder;
  private readonly recorder: Recorder;
  private readonly host: WideRequestsHost;
  private queue: Waiting[] = [];
  /** How many recordings there were when those that wait were last looked for in them. */
  private seen = 0;

  constructor(memory: Memory, decoder: Decoder, recorder: Recorder, host: WideRequestsHost) {
    this.memory = memory;
    this.decoder = decoder;
    this.recorder = recorder;
    this.host = host;
  }

  get empty(): boolean {
    return this.queue.length === 0;
  }

  /** @param before the wide region that led there, or null */
  add(cpu: Cpu, request: Request, before: EnteredRegion | null): void {
    const waiting = { request, cpu, before, arrivals: 0, recorded: false };
    waiting.recorded = this.isRecorded(waiting);
    this.queue.push(waiting);
    if (this.queue.length > WAITING) this.host.givenUp(this.queue.shift()!.request);
  }

  /** The CPU is at an address once more. @returns whether somebody waited for a recording from there, and it starts */
  remind(cpu: Cpu, address: VirtualAddress): boolean {
    const waiting = this.queue.find((each) => each.cpu === cpu && addressOf(each) === address);
    if (waiting === undefined) return false;
    waiting.arrivals++;
    if (!this.recorder.free(cpu) || this.isRecorded(waiting) || this.recorded().length >= AHEAD) return false;
    this.recorder.start(cpu);
    return true;
  }

  private isRecorded(waiting: Waiting): boolean {
    return this.recorder.has(waiting.cpu, addressOf(waiting));
  }

  /** Those that were recorded. */
  private recorded(): Waiting[] {
    if (this.seen !== this.recorder.completed) {
      this.seen = this.recorder.completed;
      for (const waiting of this.queue) waiting.recorded = this.isRecorded(waiting);
    }
    return this.queue.filter(({ recorded }) => recorded);
  }

  /** Of those that were recorded, the one that the CPU comes to most, with recordings. */
  next(): { request: Request; traces: readonly Float64Array[] } | null {
    let best: Waiting | null = null;
    for (const waiting of this.recorded())
      if (best === null || waiting.arrivals > best.arrivals) best = waiting;
    if (best === null) return null;
    const traces = this.recorder.find(best.cpu, addressOf(best));
    // It may have been too long ago meanwhile.
    best.recorded = traces.length > 0;
    if (!best.recorded) return null;
    this.queue.splice(this.queue.indexOf(best), 1);
    return { request: this.remake(best, traces[0]!) ?? best.request, traces: traces.slice(0, TRACES) };
  }

  /** @returns null: it does not follow a branch of a wide region, or that was made anew too often */
  private remake(waiting: Waiting, trace: Float64Array): Request | null {
    const { request, before } = waiting;
    const translation = before === null ? undefined : this.host.translation(before.slot);
    if (before === null || translation?.wide !== true || translation.remakes >= REMAKES) return null;
    const { page, distance, offset, number, slot } = before;
    const index = translation.pages.findIndex(({ delta }) => delta * PAGE_SIZE === distance);
    const frame = this.memory.u32[(before.numbers >>> 2) + index]!;
    const start = page + distance;
    // A recording may begin there.
    const from = trace.indexOf(addressOf(waiting), 1) - 1;
    if (from < 0 || !trace.includes(start + offset) || !this.host.holds(frame)) return null;
    const instruction = this.instructionOf(translation, trace[from]! - page);
    const definition = instruction?.form?.definition;
    if (definition === undefined || definition.name === 'CALL' || definition.name === 'RET') return null;
    if (!instruction!.relative && definition.ends !== true) return null;
    this.host.givenUp(request);
    return {
      code: { ...request.code, page: start, frame },
      entry: offset,
      apart: translation.apart.map((address) => address - distance),
      wide: true,
      remakes: translation.remakes + 1,
      replaces: number === 0 ? slot : null,
    };
  }

  /** The instruction at a distance from the start of a translation's first page, if it is part of it. */
  private instructionOf({ pages }: Translation, address: number): Instruction | null {
    return this.decoder.decode((i) => {
      const delta = Math.floor((address + i) / PAGE_SIZE);
      const offset = address + i - delta * PAGE_SIZE;
      const page = pages.find((each) => each.delta === delta);
      let before = 0;
      for (const [start, end] of page?.ranges ?? []) {
        if (offset >= start && offset < end) return page!.bytes[before + offset - start]!;
        before += end - start;
      }
      return -1;
    });
  }

  /** A CPU is no more. */
  forget(cpu: Cpu): void {
    this.recorder.forget(cpu);
    this.queue = this.queue.filter((waiting) => waiting.cpu !== cpu);
  }

  clear(): void {
    this.queue = [];
  }
}
