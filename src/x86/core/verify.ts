/**
 * Interpreter and translator in lockstep: a region that is about to run is run translated, then the same instructions
 * are interpreted from the same state, and the two must agree in every register, flag and byte of memory.
 *
 * Neither touches the guest's memory. While a run is checked the CPU has a TLB of its own that begins empty, and the
 * walker asks `copyOf` for the address of each page that it enters there: a page is copied when it is first read or
 * written, once for all its mappings, and each of the two runs works on its own copy of that one image. If they agree, the
 * words that changed are written to the real page. So a back end that writes to a ring meanwhile loses nothing, and
 * neither run sees it.
 *
 * The interpreter is a second instance of it, built to stop after exactly so many instructions, with decoded code of
 * its own in which no region is installed. Regions are the very same modules that run otherwise; only what they
 * import is the second instance's.
 */
import type { Frames } from '../../machine/frames.ts';
import { type Memory, PAGE_SIZE } from '../../machine/memory.ts';
import { call, i32, ModuleBuilder } from '../../wasm/index.ts';
import { type Cpu, hex64, type VirtualAddress } from '../cpu.ts';
import type { Decoder } from '../decoder.ts';
import { buildInterpreter } from '../interpreter/build.ts';
import type { HostImplementation } from '../interpreter/host.ts';
import { STATUS } from '../interpreter/status.ts';
import { RING_SIZE } from '../interpreter/transfers.ts';
import { formName } from '../isa/form.ts';
import { definitions } from '../isa/index.ts';
import { TLB_SIZE } from '../mmu.ts';
import type { ProcessorHost } from '../processor.ts';
import { CPU, Exit, VECTOR } from '../state.ts';
import { regionName } from '../translator/build.ts';
import type { StoredResult } from '../translator/compile.ts';
import { REGION_IMPORTS } from '../translator/imports.ts';
import { CodeCache } from './code-cache.ts';
import { compareStates, type Difference, formatState, StateCopy } from './verify-state.ts';

/** Of a sample: a region's first runs are all checked, then one of so many. */
const SAMPLE = { first: 1000, every: 64 } as const;
/** A checked run ends at a branch backwards after so many instructions. */
const RUN_INSTRUCTIONS = 20_000;
/** Most pages that a checked run may touch; those that touch more are not checked. */
const PAGES = 384;
/** Decoded code: address space only, until used. */
const ARENA_SIZE = 64 << 20;
/** Instructions of a differing run that are reported. */
const REPORTED = 100;
/** Differing words of memory that are reported, about. */
const REPORTED_WORDS = 16;

const WORDS = PAGE_SIZE / 4;

/** What came of checking so far. */
export class VerifyLog {
  /** Not every run is checked, only the first thousand of each region, and one of 64 after them. */
  readonly sample: boolean;
  /** Runs of regions that were checked, and instructions in them. */
  runs = 0;
  instructions = 0;
  /** Regions that were made. */
  regions = 0;
  /** Runs that were due, but touched too much memory or looked at a local descriptor table. */
  unchecked = 0;
  differences = 0;
  /** Takes the lines that tell a person about a difference; the domain ends with it. */
  onDifference: (report: string) => void = () => {};

  constructor(sample = false) {
    this.sample = sample;
  }
}

/** The run of a region cannot be checked. Thrown through translated code: nothing was changed yet. */
class Uncheckable extends Error {}

/** Translated code did something else than the interpreter. The domain cannot go on. */
export class VerifyError extends Error {}

type RegionFunction = (cpu: number, entry: number, frames: number) => number;

interface Checked {
  /** As it runs without being checked, and with what the second interpreter exports. */
  readonly plain: RegionFunction;
  readonly copied: RegionFunction;
  /** Of each entry, from the region's first page, in bytes. */
  readonly entries: readonly number[];
  readonly pages: StoredResult['regions'][number]['pages'];
  runs: number;
}

interface Instance {
  run(cpu: number, record: number): number;
  translate(cpu: number, low: number, high: number, kind: number): number;
  revoke(tlb: number, frame: number, writeOnly: number): void;
}

type Phase = 'idle' | 'translated' | 'interpreted';

/** A page that a checked run has touched. */
interface Touched {
  readonly frame: number;
  /** Position of its copies. */
  readonly index: number;
  /** By either run. */
  written: boolean;
  /** The translated, the interpreted run has a copy. */
  translated: boolean;
  interpreted: boolean;
}

export interface VerifierParts {
  readonly memory: Memory;
  readonly frames: Frames;
  readonly decoder: Decoder;
  readonly imports: HostImplementation;
  /** Linear address of the frames' flags (see mmu.ts). */
  readonly frameFlags: number;
  /** Takes away all write tags of a frame, in the TLBs of the processor. */
  revokeWrites(frame: number): void;
  /** All decoded code has to go: the other cache's as well. */
  forgetAll(): void;
  cpuAt(address: number): Cpu;
  readonly log: VerifyLog;
}

export class Verifier {
  /** The CPU's TLB while a run is checked. */
  readonly tlb: number;
  private readonly parts: VerifierParts;
  private readonly memory: Memory;
  private readonly wasm: Instance;
  private readonly regionImports: Record<string, unknown>;
  private readonly code: CodeCache;
  private readonly codeMaps: number;
  private readonly ring: number;
  /** Linear addresses of the copies: as found, of the translated run, of the interpreted run. */
  private readonly images: number;
  private readonly translatedCopies: number;
  private readonly interpretedCopies: number;
  private readonly regions: Checked[] = [];
  private readonly touched = new Map<number, Touched>();
  private readonly slots: number[] = [];
  private phase: Phase = 'idle';
  /** Time-stamp reads and random bytes of the translated run, for the interpreted one. */
  private recorded: (number | Uint8Array)[] = [];
  private replayed = 0;
  private readonly before = new StateCopy();
  private readonly translated = new StateCopy();
  private readonly interpreted = new StateCopy();

  constructor(parts: VerifierParts) {
    const { memory, frames } = parts;
    this.parts = parts;
    this.memory = memory;
    const pages = (bytes: number) => frames.allocContiguous(Math.ceil(bytes / PAGE_SIZE)) * PAGE_SIZE;
    this.tlb = pages(TLB_SIZE);
    memory.u8.fill(0xff, this.tlb, this.tlb + TLB_SIZE);
    this.ring = pages(RING_SIZE);
    this.codeMaps = pages(frames.total * 4);
    this.images = pages(PAGES * PAGE_SIZE);
    this.translatedCopies = pages(PAGES * PAGE_SIZE);
    this.interpretedCopies = pages(PAGES * PAGE_SIZE);
    const module = buildInterpreter(definitions, memory.size / 0x1_0000, true);
    const arenaSize = Math.min(ARENA_SIZE, (memory.size >>> 3) & ~0xfff);
    this.code = new CodeCache({
      memory,
      decoder: parts.decoder,
      handlers: module.handlers,
      host: {
        fetchPage: (cpu, page) => this.translate(cpu, page, 2),
        revokeWrites: (frame) => {
          this.revoke(frame, true);
          parts.revokeWrites(frame);
        },
        dropped: (frame) => {
          if (frame === null) parts.forgetAll();
        },
      },
      arena: pages(arenaSize),
      arenaSize,
      codeMaps: this.codeMaps,
      frameFlags: parts.frameFlags,
    });
    const instance = new WebAssembly.Instance(new WebAssembly.Module(module.bytes), {
      env: {
        memory: memory.wasm,
        ...parts.imports,
        decode: (cpu: number) => this.code.decode(parts.cpuAt(cpu)),
        hot: () => {},
        leftApart: () => {},
        often: () => 0,
        straddleChanged: (_cpu: number, record: number) => this.code.straddleChanged(record),
        undefinedInstruction: () => {},
        copyOf: (frame: number, kind: number, slot: number) => this.copyOf(frame, kind, slot >>> 0),
      } satisfies Record<string, unknown>,
    });
    this.wasm = instance.exports as unknown as Instance;
    const available: Record<string, unknown> = { ...parts.imports, ...instance.exports };
    this.regionImports = { memory: memory.wasm };
    for (const name of REGION_IMPORTS) this.regionImports[name] = available[name];
  }

  /** A run is being checked: guest memory is to be seen through {@link translate}. */
  get active(): boolean {
    return this.phase !== 'idle';
  }

  /** The same host; what is not the same twice is recorded in the first run and repeated in the second. */
  wrapHost(host: ProcessorHost): ProcessorHost {
    return {
      cpuid: (leaf, subleaf) => host.cpuid(leaf, subleaf),
      tsc: () => this.repeatable(() => host.tsc()) as number,
      random: (bytes) => {
        const made = this.repeatable(() => {
          const fresh = new Uint8Array(bytes.length);
          host.random(fresh);
          return fresh;
        });
        bytes.set(made as Uint8Array);
      },
      descriptor: (cpu, selector) => {
        // Those of a local table are read through the CPU's page tables, in the mode of the guest's kernel.
        if (this.active && selector & 4) throw new Uncheckable();
        return host.descriptor(cpu, selector);
      },
    };
  }

  private repeatable(make: () => number | Uint8Array): number | Uint8Array {
    if (this.phase === 'interpreted' && this.replayed < this.recorded.length)
      return this.recorded[this.replayed++]!;
    const made = make();
    if (this.phase === 'translated') this.recorded.push(made);
    return made;
  }

  translate(cpu: Cpu, va: VirtualAddress, kind: number): number {
    return this.wasm.translate(cpu.address, va >>> 0, Math.floor(va / 0x1_0000_0000) | 0, kind) >>> 0;
  }

  /** What was decoded of a frame is not valid any more (null: nothing is). */
  drop(frame: number | null): void {
    if (frame === null) this.code.clear();
    else this.code.drop(frame);
  }

  /** The TLB must not hold a frame any more (for writing). */
  revoke(frame: number, writeOnly: boolean): void {
    if (this.active) this.wasm.revoke(this.tlb, frame, writeOnly ? 1 : 0);
  }

  /** Functions for the processor's table, that check the regions of a module when these are called. */
  wrap(
    module: WebAssembly.Module,
    plain: WebAssembly.Instance['exports'],
    regions: StoredResult['regions'],
  ): WebAssembly.Instance['exports'] {
    const copied = new WebAssembly.Instance(module, { env: this.regionImports }).exports;
    const builder = new ModuleBuilder(this.memory.size / 0x1_0000);
    const check = builder.import('check', ['i32', 'i32', 'i32', 'i32'], ['i32']);
    regions.forEach(({ pages, entries }, i) => {
      const name = regionName(i);
      const id = this.regions.push({
        plain: plain[name] as RegionFunction,
        copied: copied[name] as RegionFunction,
        entries: entries.map(({ page, offset }) => pages[page]!.delta * PAGE_SIZE + offset),
        pages,
        runs: 0,
      });
      const f = builder.func(name, ['i32', 'i32', 'i32'], ['i32']);
      f.result(call('i32', check, i32.const(id - 1), f.arg('i32', 0), f.arg('i32', 1), f.arg('i32', 2)));
      builder.export(name, f);
    });
    const env = {
      memory: this.memory.wasm,
      check: (id: number, cpu: number, entry: number, frames: number) =>
        this.enter(this.regions[id]!, cpu, entry, frames),
    };
    this.parts.log.regions = this.regions.length;
    return new WebAssembly.Instance(new WebAssembly.Module(builder.encode()), { env }).exports;
  }

  private enter(region: Checked, address: number, entry: number, frames: number): number {
    region.runs++;
    if (this.parts.log.sample && region.runs > SAMPLE.first && region.runs % SAMPLE.every !== 0)
      return region.plain(address, entry, frames);
    const cpu = this.parts.cpuAt(address);
    this.before.take(cpu);
    try {
      const status = this.check(region, cpu, entry, frames);
      if (status !== null) return status;
    } finally {
      this.forget();
      this.phase = 'idle';
    }
    this.parts.log.unchecked++;
    this.before.give(cpu);
    return region.plain(address, entry, frames);
  }

  /** @returns null: it cannot be checked @throws VerifyError */
  private check(region: Checked, cpu: Cpu, entry: number, frames: number): number | null {
    const { before, translated, interpreted } = this;
    const budget = before.get(CPU.budget) | 0;
    const limit = Math.min(budget, RUN_INSTRUCTIONS);
    const rip = cpu.number(CPU.base) + region.entries[entry]!;
    before.put(CPU.rip, rip >>> 0);
    before.put(CPU.rip + 4, Math.floor(rip / 0x1_0000_0000));
    this.recorded = [];
    this.begin(cpu, 'translated', limit);
    const status = this.attempt(() => region.copied(cpu.address, entry, frames));
    if (status === null) return null;
    translated.take(cpu);
    const flags = cpu.rflags;
    const done = limit - (translated.get(CPU.budget) | 0);

    /** Interprets so many instructions. */
    const interpret = (count: number): Exit | null => {
      this.forgetInterpreted();
      this.begin(cpu, 'interpreted', count);
      if (count <= 0) return Exit.Budget;
      return this.attempt(() => this.wasm.run(cpu.address, 0)) as Exit | null;
    };
    const compare = (exit: Exit): Difference[] => {
      interpreted.take(cpu);
      const differences = this.compareExits(status, exit);
      this.compareMemory(differences);
      const interpretedFlags = cpu.rflags;
      if (!translated.matches(cpu) || flags !== interpretedFlags)
        differences.unshift(...compareStates(translated, interpreted, [flags, interpretedFlags]));
      return differences;
    };
    // What faults has not been counted.
    const count = done + (status === STATUS.fault ? 1 : 0);
    let exit = interpret(count);
    if (exit === null) return null;
    let differences = compare(exit);
    if (differences.length > 0 && status === STATUS.transfer && this.repeats(cpu, translated.rip)) {
      // A repeated string instruction that pauses in its middle has not been counted either.
      exit = interpret(count + 1);
      if (exit === null) return null;
      differences = compare(exit);
    }
    if (differences.length > 0) {
      this.parts.log.differences++;
      const report = this.report(cpu, region, differences, count);
      this.before.give(cpu);
      this.parts.log.onDifference(report);
      const names = differences.map(({ what }) => what).join(', ');
      throw new VerifyError(`translated code at ${hex64(rip)} differs from the interpreter in ${names}`);
    }
    this.parts.log.runs++;
    this.parts.log.instructions += count;
    this.phase = 'idle';
    this.commit();
    translated.give(cpu);
    cpu.put(CPU.tlb, before.get(CPU.tlb));
    cpu.put(CPU.budget, budget - done);
    return status;
  }

  private attempt(work: () => number): number | null {
    try {
      return work();
    } catch (error) {
      if (error instanceof Uncheckable) return null;
      throw error;
    }
  }

  private begin(cpu: Cpu, phase: 'translated' | 'interpreted', budget: number): void {
    this.before.give(cpu);
    this.wipe();
    cpu.put(CPU.tlb, this.tlb);
    cpu.put(CPU.budget, budget);
    if (phase === 'interpreted') {
      cpu.put(CPU.codeMaps, this.codeMaps);
      cpu.put(CPU.ring, this.ring);
      this.replayed = 0;
    }
    this.phase = phase;
  }

  // --- Memory ---

  /** Where a page is for the run that is being checked (see mmu.ts). */
  private copyOf(frame: number, kind: number, slot: number): number {
    this.slots.push(slot);
    if (kind === 2) return frame * PAGE_SIZE;
    let page = this.touched.get(frame);
    const { u8 } = this.memory;
    if (page === undefined) {
      const index = this.touched.size;
      if (index >= PAGES) throw new Uncheckable();
      page = { frame, index, written: false, translated: false, interpreted: false };
      this.touched.set(frame, page);
      u8.copyWithin(this.images + index * PAGE_SIZE, frame * PAGE_SIZE, (frame + 1) * PAGE_SIZE);
    }
    if (kind === 1) page.written = true;
    const at = page.index * PAGE_SIZE;
    const copy = (this.phase === 'translated' ? this.translatedCopies : this.interpretedCopies) + at;
    if (!page[this.phase as 'translated' | 'interpreted']) {
      page[this.phase as 'translated' | 'interpreted'] = true;
      u8.copyWithin(copy, this.images + at, this.images + at + PAGE_SIZE);
    }
    return copy;
  }

  /** Empties the TLB. */
  private wipe(): void {
    const { u32 } = this.memory;
    for (const slot of this.slots) u32.fill(0xffffffff, slot >>> 2, (slot + 24) >>> 2);
    this.slots.length = 0;
  }

  private forget(): void {
    this.wipe();
    this.touched.clear();
  }

  private forgetInterpreted(): void {
    for (const page of this.touched.values()) page.interpreted = false;
  }

  /** A run that did not touch a page has it as it was found. */
  private copyIn(page: Touched, which: 'translated' | 'interpreted'): number {
    const base = page[which]
      ? which === 'translated'
        ? this.translatedCopies
        : this.interpretedCopies
      : this.images;
    return (base + page.index * PAGE_SIZE) >>> 2;
  }

  private compareMemory(differences: Difference[]): void {
    const { u32 } = this.memory;
    for (const page of this.touched.values()) {
      if (!page.written) continue;
      const a = this.copyIn(page, 'translated');
      const b = this.copyIn(page, 'interpreted');
      for (let i = 0; i < WORDS && differences.length < REPORTED_WORDS; i++) {
        if (u32[a + i] === u32[b + i]) continue;
        differences.push({
          what: `memory ${(page.frame * PAGE_SIZE + i * 4).toString(16)}`,
          translated: u32[a + i]!.toString(16).padStart(8, '0'),
          interpreted: u32[b + i]!.toString(16).padStart(8, '0'),
        });
      }
    }
  }

  /** The words that changed become the guest's. */
  private commit(): void {
    const { u32 } = this.memory;
    for (const page of this.touched.values()) {
      if (!page.written) continue;
      const image = (this.images + page.index * PAGE_SIZE) >>> 2;
      const copy = this.copyIn(page, 'translated');
      const real = (page.frame * PAGE_SIZE) >>> 2;
      for (let i = 0; i < WORDS; i++) if (u32[copy + i] !== u32[image + i]) u32[real + i] = u32[copy + i]!;
    }
  }

  // --- What is not in registers or memory ---

  private compareExits(status: number, exit: Exit): Difference[] {
    const { translated, interpreted } = this;
    const expected =
      status === STATUS.transfer || status >= STATUS.interpret
        ? Exit.Budget
        : status === STATUS.fault
          ? Exit.Exception
          : (translated.get(CPU.exitReason) as Exit);
    const difference = (what: string, a: number, b: number) => ({
      what,
      translated: a.toString(16),
      interpreted: b.toString(16),
    });
    if (exit !== expected) return [difference('exit', expected, exit)];
    if (exit === Exit.Budget) return [];
    const fields: [string, number][] = [['vector', CPU.exitVector]];
    if (exit === Exit.Exception) fields.push(['error code', CPU.exitError]);
    if (exit === Exit.SoftwareInterrupt) fields.push(['exit length', CPU.exitLength]);
    if (exit === Exit.Exception && translated.get(CPU.exitVector) === VECTOR.PF)
      fields.push(['cr2', CPU.cr2], ['cr2 (upper half)', CPU.cr2 + 4]);
    if (exit === Exit.Syscall) fields.length = 0;
    return fields
      .filter(([, offset]) => translated.get(offset) !== interpreted.get(offset))
      .map(([what, offset]) => difference(what, translated.get(offset), interpreted.get(offset)));
  }

  private instructionAt(cpu: Cpu, rip: VirtualAddress) {
    return this.parts.decoder.decode((i) => {
      const linear = this.translate(cpu, rip + i, 2);
      return linear === 0 ? -1 : this.memory.u8[linear]!;
    });
  }

  private repeats(cpu: Cpu, rip: VirtualAddress): boolean {
    const repeat = this.instructionAt(cpu, rip)?.form?.repeat;
    return repeat === 'rep' || repeat === 'repne';
  }

  /** For a person: the differences, the state before, and the last of the instructions, interpreted once more. */
  private report(cpu: Cpu, region: Checked, differences: readonly Difference[], count: number): string {
    const lines = ['translated code differs from the interpreter:'];
    for (const { what, translated, interpreted } of differences)
      lines.push(`  ${what}: translated ${translated}, interpreted ${interpreted}`);
    lines.push('registers before:', formatState(this.before));
    lines.push('interpreted:', formatState(this.interpreted), 'translated:', formatState(this.translated));
    const base = this.before.rip;
    lines.push(`entries: ${region.entries.map((at) => at.toString(16)).join(' ')}`);
    lines.push(`${count} instructions from ${hex64(base)}, the last ones:`);
    this.forgetInterpreted();
    const steps: string[] = [];
    this.begin(cpu, 'interpreted', 0);
    for (let i = 0; i < Math.min(count, RUN_INSTRUCTIONS); i++) {
      const { rip } = cpu;
      const instruction = this.instructionAt(cpu, rip);
      const name = instruction?.form ? formName(instruction.form) : '?';
      cpu.put(CPU.budget, 1);
      const exit = this.attempt(() => this.wasm.run(cpu.address, 0));
      steps.push(`  ${hex64(rip)} ${name}`);
      if (exit !== Exit.Budget) break;
    }
    if (steps.length > REPORTED) lines.push('  ...');
    return [...lines, ...steps.slice(-REPORTED)].join('\n');
  }
}
