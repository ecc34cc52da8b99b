/** The processor, put together: interpreter, MMU, code cache. See processor.ts for its contract. */
import type { Frames } from '../../machine/frames.ts';
import { type Memory, PAGE_SIZE } from '../../machine/memory.ts';
import { type Cpu, high32, type VirtualAddress } from '../cpu.ts';
import { Decoder, type Instruction } from '../decoder.ts';
import { SseFloat } from '../fpu/sse.ts';

import { X87 } from '../fpu/x87.ts';
import { GATE_COST } from '../gates.ts';
import { buildInterpreter, INTERPRET, type InterpreterModule } from '../interpreter/build.ts';
import { HEAT_SIZE, Heat } from '../interpreter/heat.ts';
import type { HostImplementation } from '../interpreter/host.ts';
import { JUMPS_SIZE } from '../interpreter/jumps.ts';
import { STATUS } from '../interpreter/status.ts';
import { lastTransfers, RING_SIZE } from '../interpreter/transfers.ts';
import { definitions } from '../isa/index.ts';
import { FRAME_CODE, FRAME_SHARED, FRAME_WRITE, TLB_BLOCK } from '../mmu.ts';
import { Access, type PhysicalSpace, type Processor, type ProcessorHost } from '../processor.ts';
import { GLUE, RECORD } from '../records.ts';
import { CPU, Exit, FLAG, RAX, RBP, RBX, RCX, RDX, RSP, VECTOR } from '../state.ts';
import type { RegionCompiler } from '../translator/compile.ts';
import { ACTIVITY, ACTIVITY_DETAIL, type ActivityBoard, DETAIL, type Detail } from './activity.ts';
import { CodeCache } from './code-cache.ts';
import { fpuCall } from './fpu-calls.ts';
import { Recorder } from './recorder.ts';
import { checkCodeSegment, loadSegment, segmentQuery } from './segments.ts';
import { StepCache } from './step-cache.ts';
import { type Tlb, type TlbEntry, type TlbFunctions, TlbPool } from './tlb-pool.ts';
import { type TranslationCounts, Translations } from './translations.ts';
import { Verifier, type VerifyLog } from './verify.ts';

/** TLBs: one for each root of user mode that is kept, one for each space's supervisor mode. */
const TLBS = 32;
/** Decoded code, most that is kept: address space only, until used. */
const ARENA_SIZE = 96 << 20;

interface Attachment {
  readonly space: PhysicalSpace;
  supervisorRoot: number;
  userRoot: number;
}

/** For tests. */
export interface InspectableProcessor extends Processor {
  /** All that TLBs hold. */
  tlbEntries(): TlbEntry[];
}

interface CoreExports extends TlbFunctions {
  run(cpu: number, record: number): number;
  translate(cpu: number, low: number, high: number, kind: number): number;
}

class Core implements InspectableProcessor {
  readonly memory: Memory;
  readonly frames: Frames;
  readonly undefinedInstructions = new Map<string, number>();
  private readonly host: ProcessorHost;
  private readonly decoder: Decoder;
  private readonly code: CodeCache;
  private readonly pool: TlbPool;
  private readonly wasm: CoreExports;
  private readonly frameFlags: number;
  private readonly codeMaps: number;
  private readonly heat: number;
  private readonly heatCounters: Heat;
  private readonly jumps: number;
  private readonly translations: Translations;
  private readonly recorder = new Recorder();
  /** Instructions of the last run. */
  private executed = 0;
  private readonly translating: boolean;
  private readonly stepTranslated: boolean;
  private readonly board: ActivityBoard | null;
  private readonly verifier: Verifier | null = null;
  private readonly holders: number;
  private readonly attachments = new Map<number, Attachment>();
  /** The CPU whose TLBs are in place, theirs and nobody else's. */
  private loaded: Cpu | null = null;
  private readonly steps: StepCache;
  private readonly cpus = new Map<number, Cpu>();

  constructor(
    memory: Memory,
    frames: Frames,
    host: ProcessorHost,
    module: InterpreterModule,
    options: ProcessorOptions,
  ) {
    this.translating = options.translate ?? true;
    this.stepTranslated = options.stepTranslated ?? false;
    this.board = options.activity ?? null;
    this.memory = memory;
    this.steps = new StepCache(memory);
    this.frames = frames;
    this.host = host;
    this.decoder = new Decoder(module.forms);
    const pages = (bytes: number) => frames.allocContiguous(Math.ceil(bytes / PAGE_SIZE)) * PAGE_SIZE;
    this.frameFlags = pages(frames.total);
    this.codeMaps = pages(frames.total * 4);
    const tlbs = pages(TLBS * TLB_BLOCK);
    this.holders = pages(frames.total * 4);
    const arenaSize = Math.min(ARENA_SIZE, (memory.size >>> 2) & ~0xfff);
    this.code = new CodeCache({
      memory,
      decoder: this.decoder,
      handlers: module.handlers,
      host: {
        fetchPage: (cpu, page) => this.translate(cpu, page, Access.Fetch),
        revokeWrites: (frame) => this.revokeWrites(frame),
        dropped: (frame) => {
          this.translations.drop(frame);
          if (frame === null) this.verifier?.drop(null);
          if (frame === null) memory.u8.fill(0, this.jumps, this.jumps + JUMPS_SIZE);
          // A region that is running may have been dropped: it looks after its store.
          for (const cpu of this.cpus.values()) cpu.put(CPU.codeDropped, 1);
        },
      },
      arena: pages(arenaSize),
      arenaSize,
      codeMaps: this.codeMaps,
      frameFlags: this.frameFlags,
    });
    this.heat = pages(HEAT_SIZE);
    this.heatCounters = new Heat(memory, this.heat);
    this.jumps = pages(JUMPS_SIZE);
    const imports = this.imports();
    if (options.verify) {
      this.verifier = new Verifier({
        memory,
        frames,
        decoder: this.decoder,
        imports,
        frameFlags: this.frameFlags,
        revokeWrites: (frame) => this.revokeWrites(frame),
        forgetAll: () => this.code.clear(),
        cpuAt: (address) => this.cpus.get(address >>> 0)!,
        log: options.verify,
      });
      this.host = this.verifier.wrapHost(host);
    }
    const instance = new WebAssembly.Instance(new WebAssembly.Module(module.bytes), {
      env: { memory: memory.wasm, ...imports },
    });
    this.wasm = instance.exports as unknown as CoreExports;
    this.pool = new TlbPool(memory, tlbs, TLBS, this.holders, this.wasm);
    this.translations = new Translations({
      memory,
      code: this.code,
      decoder: this.decoder,
      table: instance.exports['table'] as WebAssembly.Table,
      imports: { ...imports, ...instance.exports },
      compiler: options.compiler ?? null,
      recorder: this.recorder,
      verifier: this.verifier,
      counts: options.counts ?? null,
      onStored: () => this.heatCounters.raise(),
    });
  }

  private imports(): HostImplementation {
    const sse = new SseFloat(this.memory);
    const x87 = new X87(this.memory);
    const { memory } = this;
    const randomBytes = new Uint8Array(8);
    const cpuAt = (address: number) => this.cpus.get(address >>> 0)!;
    /** For profiles: something takes its time in the middle of guest code. */
    const note = (cpu: number, detail: Detail) => {
      memory.u8[(cpu >>> 0) + ACTIVITY_DETAIL] = detail;
    };
    return {
      codeWritten: (frame) => this.dropCode(frame!),
      decode: (cpu) => {
        note(cpu!, DETAIL.decoding);
        const record = this.code.decode(cpuAt(cpu!));
        note(cpu!, DETAIL.none);
        return record;
      },
      hot: (cpu, record) => this.hot(cpuAt(cpu!), record!),
      often: (cpu, record, before) => (this.often(cpuAt(cpu!), record!, before!) ? 1 : 0),
      leftApart: (cpu, record) => this.translations.leftApart(cpuAt(cpu!), record!),
      straddleChanged: (_cpu, record) => this.code.straddleChanged(record!),
      undefinedInstruction: (_cpu, record) => this.count(this.code.nameOf(record!)),
      sseFloat: (op, cpu, dst, src, imm) => {
        note(cpu!, DETAIL.floatingPoint);
        const vector = sse.execute(op!, cpu! >>> 0, dst! >>> 0, src! >>> 0, imm!);
        note(cpu!, DETAIL.none);
        return vector;
      },
      x87: (cpu, escape, modrm, operand) => {
        note(cpu!, DETAIL.floatingPoint);
        const vector = x87.execute(cpu! >>> 0, escape!, modrm!, operand! >>> 0);
        note(cpu!, DETAIL.none);
        return vector;
      },
      fpu: (which, cpu, operand) => fpuCall(x87, which!, cpu! >>> 0, operand! >>> 0),
      rdtsc: (address, withAux) => this.rdtsc(cpuAt(address!), withAux !== 0),
      cpuid: (address) => this.cpuid(cpuAt(address!)),
      random: (address) => {
        // Through a buffer of its own: sources of randomness do not fill shared memory.
        this.host.random(randomBytes);
        memory.u8.set(randomBytes, (address! >>> 0) + CPU.temp);
        return 0;
      },
      segmentQuery: (cpu, kind, selector) => segmentQuery(this.host, cpuAt(cpu!), kind!, selector!),
      loadSegment: (cpu, register, selector) => loadSegment(this.host, cpuAt(cpu!), register!, selector!),
      checkCodeSegment: (cpu, selector, isReturn) =>
        checkCodeSegment(this.host, cpuAt(cpu!), selector!, isReturn !== 0),
    };
  }

  /** A record was branched to often: what begins there is worth translating. */
  private hot(cpu: Cpu, record: number): void {
    if (!this.translating || this.memory.u16[record >>> 1]! < GLUE.count) return;
    const linear = this.translate(cpu, cpu.number(CPU.page), Access.Fetch);
    if (linear === 0) return;
    const offset = this.memory.u16[(record + RECORD.offset) >>> 1]!;
    if (!this.heatCounters.early(record)) this.translations.request(cpu, linear >>> 12, offset);
    else this.translations.installKnown(cpu, linear >>> 12, offset);
  }

  /**
   * A region is entered often: what goes on from there is worth translating in one.
   * @returns whether what follows is recorded
   */
  private often(cpu: Cpu, record: number, before: number): boolean {
    const page = cpu.number(CPU.page);
    const linear = this.translate(cpu, page, Access.Fetch);
    const offset = this.memory.u16[(record + RECORD.offset) >>> 1]!;
    return linear !== 0 && this.translations.requestWide(cpu, linear >>> 12, offset, before);
  }

  private count(name: string): void {
    if (this.undefinedInstructions.size < 1000 || this.undefinedInstructions.has(name))
      this.undefinedInstructions.set(name, (this.undefinedInstructions.get(name) ?? 0) + 1);
  }

  private rdtsc(cpu: Cpu, withAux: boolean): number {
    const now = this.host.tsc();
    cpu.putNumber(CPU.regs + RAX * 8, now >>> 0);
    cpu.putNumber(CPU.regs + RDX * 8, high32(now) >>> 0);
    if (withAux) cpu.putNumber(CPU.regs + RCX * 8, 0);
    return 0;
  }

  private cpuid(cpu: Cpu): number {
    const [a, b, c, d] = this.host.cpuid(cpu.regLow(RAX), cpu.regLow(RCX));
    cpu.putNumber(CPU.regs + RAX * 8, a >>> 0);
    cpu.putNumber(CPU.regs + RBX * 8, b >>> 0);
    cpu.putNumber(CPU.regs + RCX * 8, c >>> 0);
    cpu.putNumber(CPU.regs + RDX * 8, d >>> 0);
    return 0;
  }

  attach(cpu: Cpu, space: PhysicalSpace): void {
    this.cpus.set(cpu.address, cpu);
    this.attachments.set(cpu.address, { space, supervisorRoot: 0, userRoot: 0 });
    cpu.put(CPU.frameTable, space.frameTable);
    cpu.put(CPU.frameLimit, space.frameLimit);
    cpu.put(CPU.frameFlags, this.frameFlags);
    cpu.put(CPU.holders, this.holders);
    cpu.put(CPU.codeMaps, this.codeMaps);
    cpu.put(CPU.heat, this.heat);
    cpu.put(CPU.jumps, this.jumps);
    if (cpu.get(CPU.ring) === 0)
      cpu.put(CPU.ring, this.frames.allocContiguous(RING_SIZE / PAGE_SIZE) * PAGE_SIZE);
  }

  detach(cpu: Cpu): void {
    const attachment = this.attachments.get(cpu.address);
    if (attachment === undefined) return;
    this.attachments.delete(cpu.address);
    this.cpus.delete(cpu.address);
    this.translations.forget(cpu);
    if (this.loaded === cpu) this.loaded = null;
    const others = [...this.attachments.values()].some((each) => each.space === attachment.space);
    if (!others) this.pool.release(attachment.space);
    this.frames.release(cpu.get(CPU.ring) / PAGE_SIZE, RING_SIZE / PAGE_SIZE);
    cpu.put(CPU.ring, 0);
  }

  loadRoots(cpu: Cpu, supervisorRoot: number, userRoot: number): void {
    const attachment = this.attachments.get(cpu.address)!;
    attachment.supervisorRoot = supervisorRoot;
    attachment.userRoot = userRoot;
    this.place(cpu);
  }

  setMode(cpu: Cpu, supervisor: boolean): void {
    if (this.loaded !== cpu) this.place(cpu);
    this.enterMode(cpu, supervisor);
  }

  private enterMode(cpu: Cpu, supervisor: boolean): void {
    const index = supervisor ? 4 : 0;
    cpu.supervisor = supervisor;
    cpu.put(CPU.tlb, cpu.get(CPU.modeTlbs + index));
    cpu.put(CPU.root, cpu.get(CPU.modeRoots + index));
  }

  /** Finds the CPU's TLBs: other CPUs may have had them since it ran. */
  private place(cpu: Cpu): void {
    const { space, supervisorRoot, userRoot } = this.attachments.get(cpu.address)!;
    const supervisor = this.pool.supervisor(space, supervisorRoot);
    // Without user tables: a root that maps nothing (machine frame 0 is never used).
    const user = this.pool.user(space, userRoot, supervisor);
    this.setModeTables(cpu, 4, space, supervisor, supervisorRoot);
    this.setModeTables(cpu, 0, space, user, userRoot);
    this.loaded = cpu;
    this.enterMode(cpu, cpu.supervisor);
  }

  private setModeTables(cpu: Cpu, index: number, space: PhysicalSpace, tlb: Tlb, root: number): void {
    cpu.put(CPU.modeTlbs + index, tlb.address);
    const frame = root === 0 ? 0 : this.memory.u32[(space.frameTable >>> 2) + root]!;
    cpu.put(CPU.modeRoots + index, frame * PAGE_SIZE);
  }

  run(cpu: Cpu, budget: number): Exit {
    if (this.loaded !== cpu) this.place(cpu);
    this.board?.enterCpu(cpu.address);
    cpu.put(CPU.activity, ACTIVITY.translation);
    this.translations.work(this.executed);
    cpu.put(CPU.activity, ACTIVITY.interpreter);
    if (cpu.get(CPU.rflags) & FLAG.TF) return this.trap(cpu, this.step(cpu));
    cpu.put(CPU.stepping, 0);
    cpu.put(CPU.codeDropped, 0);
    if (this.recorder.wants(cpu)) return this.record(cpu, budget);
    return this.enter(cpu, budget, 0);
  }

  /** Runs in single steps that are recorded. */
  private record(cpu: Cpu, budget: number): Exit {
    for (let i = 0; i < budget && this.recorder.note(cpu, cpu.rip); i++) {
      const exit = this.step(cpu);
      if (exit !== Exit.Budget) return exit;
    }
    return Exit.Budget;
  }

  /** After a single step with TF: the debug trap, unless something else happened. */
  private trap(cpu: Cpu, exit: Exit): Exit {
    if (exit !== Exit.Budget) return exit;
    cpu.put(CPU.exitReason, Exit.Exception);
    cpu.put(CPU.exitVector, VECTOR.DB);
    cpu.put(CPU.exitError, 0);
    const dr6 = (cpu.address + CPU.dr + 6 * 8) >>> 2;
    this.memory.u32[dr6]! |= 1 << 14;
    return Exit.Exception;
  }

  private enter(cpu: Cpu, budget: number, record: number): Exit {
    cpu.put(CPU.budget, budget);
    const passages = cpu.get(CPU.passages);
    let exit = this.wasm.run(cpu.address, record);
    let executed = budget - (cpu.get(CPU.budget) | 0);
    while (exit === INTERPRET) {
      // A step counts itself.
      exit = this.step(cpu);
      if (exit !== Exit.Budget || executed + 1 >= budget) break;
      const left = budget - executed - 1;
      cpu.put(CPU.budget, left);
      exit = this.wasm.run(cpu.address, 0);
      executed += left - (cpu.get(CPU.budget) | 0);
    }
    executed -= ((cpu.get(CPU.passages) - passages) >>> 0) * GATE_COST;
    this.executed = executed;
    const low = cpu.get(CPU.instructions) + executed;
    cpu.put(CPU.instructions, low);
    if (low >= 0x1_0000_0000) cpu.put(CPU.instructions + 4, cpu.get(CPU.instructions + 4) + 1);
    if (exit === Exit.Exception) this.refine(cpu);
    return exit as Exit;
  }

  /** A non-canonical address through the stack segment is #SS, not #GP: told from the instruction. */
  private refine(cpu: Cpu): void {
    if (cpu.get(CPU.exitVector) !== VECTOR.GP || cpu.get(CPU.exitLength) === 0) return;
    const instruction = this.decodeAt(cpu, cpu.rip);
    if (instruction === null || instruction.form === null) return;
    const { form, rm, segment } = instruction;
    const onStack = form.memory
      ? segment === CPU.zero && (rm === CPU.regs + RSP * 8 || rm === CPU.regs + RBP * 8)
      : form.definition.stack === true;
    if (onStack) cpu.put(CPU.exitVector, VECTOR.SS);
  }

  /** Decodes the instruction at a virtual address, or null if it cannot be fetched. */
  decodeAt(cpu: Cpu, va: VirtualAddress): ReturnType<Decoder['decode']> {
    return this.decoder.decode((offset) => {
      const linear = this.translate(cpu, va + offset, Access.Fetch);
      return linear === 0 ? -1 : this.memory.u8[linear]!;
    });
  }

  step(cpu: Cpu): Exit {
    const rip = cpu.rip;
    const offset = rip & 0xfff;
    const page = rip - offset;
    let missing = -1;
    const first = this.translate(cpu, rip, Access.Fetch);
    let instruction = first === 0 ? null : this.steps.find(first);
    if (instruction === null) {
      instruction = this.decoder.decode((i) => {
        const linear = this.translate(cpu, rip + i, Access.Fetch);
        if (linear === 0) missing = i;
        return linear === 0 ? -1 : this.memory.u8[linear]!;
      });
      if (instruction !== null && offset + instruction.length <= PAGE_SIZE)
        this.steps.keep(first, instruction);
    }
    if (instruction === null) {
      const canonical = rip >= -(2 ** 47) && rip < 2 ** 47;
      cpu.put(CPU.exitReason, Exit.Exception);
      cpu.put(CPU.exitVector, canonical ? VECTOR.PF : VECTOR.GP);
      cpu.put(CPU.exitError, canonical ? this.faultCode(cpu, rip + missing, Access.Fetch) : 0);
      cpu.putNumber(CPU.cr2, rip + missing);
      return Exit.Exception;
    }
    cpu.putNumber(CPU.page, page);
    const at = cpu.address + CPU.stepRecords;
    const end = at + this.code.place(at, instruction, offset);
    this.memory.u32.fill(0, end >>> 2, (end + RECORD.size) >>> 2);
    this.memory.u16[end >>> 1] = GLUE.stop;
    this.memory.u16[(end + RECORD.offset) >>> 1] = offset + instruction.length;
    cpu.put(CPU.stepping, this.stepTranslated ? 0 : 1);
    cpu.put(CPU.crossKind, 0);
    cpu.put(CPU.codeDropped, 0);
    const exit = this.stepTranslated ? this.enterAlone(cpu, instruction, offset, at) : this.enter(cpu, 0, at);
    cpu.put(CPU.stepping, 0);
    if (exit === Exit.Budget && cpu.get(CPU.crossKind) === 2) {
      cpu.put(CPU.exitReason, Exit.Intercept);
      return Exit.Intercept;
    }
    return exit;
  }

  /** Runs one instruction as a region of its own: for tests of the translator. */
  private enterAlone(cpu: Cpu, instruction: Instruction, offset: number, record: number): Exit {
    const run = this.translations.alone(instruction, offset);
    if (run === null) return this.enter(cpu, 0, record);
    cpu.put(CPU.budget, 0);
    cpu.putNumber(CPU.base, cpu.number(CPU.page));
    const status = run(cpu.address, 0, 0);
    if (status === STATUS.interpret || status === STATUS.apart) return this.enter(cpu, 0, record);
    if (status === STATUS.transfer) cpu.put(CPU.exitReason, Exit.Budget);
    const exit = cpu.get(CPU.exitReason) as Exit;
    if (exit === Exit.Exception) this.refine(cpu);
    return exit;
  }

  translate(cpu: Cpu, va: VirtualAddress, access: Access): number {
    if (this.loaded !== cpu) this.place(cpu);
    if (this.verifier?.active) return this.verifier.translate(cpu, va, access);
    return this.wasm.translate(cpu.address, va >>> 0, high32(va), access) >>> 0;
  }

  faultCode(cpu: Cpu, va: VirtualAddress, access: Access): number {
    return this.translate(cpu, va, access) === 0 ? cpu.get(CPU.walkError) : 0;
  }

  entryChanged(entry: number): void {
    this.pool.entryChanged(entry);
  }

  tablesChanged(space: PhysicalSpace): void {
    this.pool.tablesChanged(space);
  }

  rootDropped(space: PhysicalSpace, root: number): void {
    this.pool.rootDropped(space, root);
    // What is in place may have been of that root.
    this.loaded = null;
  }

  tlbEntries(): TlbEntry[] {
    return this.pool.entries();
  }

  released(machineFrame: number): void {
    this.pool.released(machineFrame);
    if (this.memory.u8[this.frameFlags + machineFrame]! & FRAME_CODE) this.dropCode(machineFrame);
    this.memory.u8[this.frameFlags + machineFrame]! &= ~FRAME_WRITE;
  }

  revoke(machineFrame: number): void {
    const flags = this.memory.u8[this.frameFlags + machineFrame]!;
    if (flags & FRAME_CODE) this.dropCode(machineFrame);
    if ((flags & ~FRAME_CODE) === 0) return;
    this.pool.revoke(machineFrame);
    this.memory.u8[this.frameFlags + machineFrame] = flags & FRAME_SHARED;
  }

  share(space: PhysicalSpace, machineFrames: readonly number[]): void {
    this.tablesChanged(space);
    const { u8 } = this.memory;
    for (const frame of machineFrames)
      u8[this.frameFlags + frame] = (u8[this.frameFlags + frame]! & ~FRAME_WRITE) | FRAME_SHARED;
  }

  replaced(space: PhysicalSpace, machineFrame: number): void {
    // What was decoded from it may be linked to by addresses that now mean the other one.
    if (this.memory.u8[this.frameFlags + machineFrame]! & FRAME_CODE) this.dropCode(machineFrame);
    this.pool.revoke(machineFrame, space);
  }

  unshare(machineFrame: number): void {
    this.memory.u8[this.frameFlags + machineFrame]! &= ~FRAME_SHARED;
  }

  /** A frame's decoded code, and what was made of it, is not valid any more. */
  private dropCode(frame: number): void {
    this.code.drop(frame);
    this.verifier?.drop(frame);
  }

  private revokeWrites(frame: number): void {
    const flags = this.memory.u8[this.frameFlags + frame]!;
    if ((flags & FRAME_WRITE) === 0) return;
    this.pool.revokeWrites(frame);
    this.verifier?.revoke(frame, true);
    this.memory.u8[this.frameFlags + frame] = flags & ~FRAME_WRITE;
  }

  written(machineFrame: number): void {
    if (this.memory.u8[this.frameFlags + machineFrame]! & FRAME_CODE) this.dropCode(machineFrame);
  }

  lastTransfers(cpu: Cpu): { from: VirtualAddress; to: VirtualAddress }[] {
    return lastTransfers(cpu);
  }
}

export interface ProcessorOptions {
  /** Translate hot code (default). */
  translate?: boolean;
  /** Translates on another thread; without one it happens on the processor's own. */
  compiler?: RegionCompiler | null;
  /** Where to note what it is doing; without one only the CPUs' own words are kept. */
  activity?: ActivityBoard | null;
  /** Where it is noted how many translations there are. */
  counts?: TranslationCounts | null;
  /** Checks translations against the interpreter while they run, which is slow; what comes of it is noted here. */
  verify?: VerifyLog | null;
  /** step() runs the instruction translated, as a region of its own (a repeated one to its end): for tests. */
  stepTranslated?: boolean;
}

export function createProcessor(
  memory: Memory,
  frames: Frames,
  host: ProcessorHost,
  options: ProcessorOptions = {},
): InspectableProcessor {
  const module = buildInterpreter(definitions, memory.size / 0x1_0000, false, host.gate);
  return new Core(memory, frames, host, module, options);
}
