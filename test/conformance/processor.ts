/** Our own processor as an engine. */
import { Frames } from '../../src/machine/frames.ts';
import { Memory, PAGE_SIZE } from '../../src/machine/memory.ts';
import { createProcessor } from '../../src/x86/core/index.ts';
import { Cpu } from '../../src/x86/cpu.ts';
import type { Processor } from '../../src/x86/processor.ts';
import { CPU, CS, DS, ES, Exit, FS, GS, SS, VECTOR } from '../../src/x86/state.ts';
import type { Engine } from './engine.ts';
import { Guest } from './guest.ts';
import {
  align8,
  type Batch,
  CASE,
  COMPLETE,
  FX,
  HUNG,
  PLACE,
  RESULT,
  type Results,
  ResultWriter,
} from './wire.ts';

const MACHINE_BYTES = 64 << 20;
/** More than any case needs: a repeated string instruction ends at the edge of the data region. */
const MOST_INSTRUCTIONS = 60_000;
/** Exit codes that are no exception get a vector of their own, so that reports show them. */
const NO_EXCEPTION = 0x100;

/** Selectors of a Linux process, and its descriptor table as far as user mode may see it. */
const USER_CS = 0x33;
const USER_SS = 0x2b;
const DESCRIPTORS: Readonly<Record<number, readonly [number, number]>> = {
  8: [0x0000ffff, 0x00cf9b00],
  16: [0x0000ffff, 0x00af9b00],
  24: [0x0000ffff, 0x00cf9300],
  32: [0x0000ffff, 0x00cffb00],
  40: [0x0000ffff, 0x00cff300],
  48: [0x0000ffff, 0x00affb00],
};
const DESCRIPTOR_LIMIT = 0x80;
const SELECTORS = [ES, DS, FS, GS];

function descriptor(selector: number): readonly [number, number] | null {
  const offset = selector & 0xfff8;
  // No local table, as in a process that never made one.
  if ((selector & 4) !== 0 || offset >= DESCRIPTOR_LIMIT) return null;
  return DESCRIPTORS[offset] ?? [0, 0];
}

const LEGACY_PREFIXES = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3];
/** CMPS and SCAS. */
const COMPARISONS = [0xa6, 0xa7, 0xae, 0xaf];

/** A fault takes a repeated comparison's flags back to its beginning, which single steps do not know. */
function steppable(code: Uint8Array): boolean {
  const opcode = code.find((byte) => !LEGACY_PREFIXES.includes(byte) && (byte & 0xf0) !== 0x40);
  return opcode === undefined || !COMPARISONS.includes(opcode);
}

export class ProcessorEngine implements Engine {
  readonly name: string;
  private readonly translated: boolean;
  private readonly memory: Memory;
  private readonly guest: Guest;
  private readonly cpu: Cpu;
  private readonly processor: Processor;
  /** What the data region holds when the case begins. */
  private readonly initial = new Uint8Array(PLACE.dataSize);

  /** @param translated every instruction through the translator, as a region of its own */
  constructor(translated = false) {
    this.name = translated ? 'translator' : 'interpreter';
    this.translated = translated;
    this.memory = Memory.create(MACHINE_BYTES);
    const frames = new Frames(this.memory);
    this.guest = new Guest(this.memory, frames);
    this.cpu = new Cpu(this.memory, frames.alloc() * PAGE_SIZE);
    this.cpu.reset();
    this.processor = createProcessor(
      this.memory,
      frames,
      {
        tsc: () => 0,
        random: () => {},
        cpuid: () => [0, 0, 0, 0],
        descriptor: (_cpu, selector) => descriptor(selector),
      },
      { stepTranslated: translated },
    );
    this.processor.attach(this.cpu, this.guest);
    this.processor.loadRoots(this.cpu, this.guest.root, this.guest.root);
    this.processor.setMode(this.cpu, false);
    this.memory.u8.fill(0xcc, this.guest.code, this.guest.code + PLACE.codeSize);
  }

  run(batch: Batch): Results {
    const { memory, guest } = this;
    memory.u8.set(batch.background, guest.data);
    this.initial.set(batch.background);
    const out = new ResultWriter();
    let offset = -1;
    let length = 0;
    let code = '';
    for (const at of batch.offsets) {
      // Cases of one instruction follow each other: its decoded form may live on, as it does in a guest.
      const codeOffset = batch.view.getUint32(at + CASE.codeOffset, true);
      const bytes = batch.bytes.subarray(
        at + CASE.code,
        at + CASE.code + batch.view.getUint32(at + CASE.codeLength, true),
      );
      const text = String.fromCharCode(...bytes);
      if (codeOffset !== offset || text !== code) {
        if (offset >= 0) memory.u8.fill(0xcc, guest.code + offset, guest.code + offset + length);
        memory.u8.set(bytes, guest.code + codeOffset);
        for (let page = 0; page < PLACE.codeSize; page += PAGE_SIZE) {
          this.processor.written((guest.code + page) / PAGE_SIZE);
        }
        offset = codeOffset;
        length = bytes.length;
        code = text;
      }
      this.load(batch, at);
      const exit = this.execute(steppable(bytes));
      this.store(out, exit);
      this.restore(batch, at);
    }
    if (offset >= 0) memory.u8.fill(0xcc, guest.code + offset, guest.code + offset + length);
    return out.results();
  }

  /** Runs to the exit. Some cases (by their registers, so that a replay does the same) go in single steps. */
  private execute(mayStep: boolean): Exit {
    const { cpu, processor } = this;
    if (!this.translated && (!mayStep || (cpu.regLow(9) & 7) !== 5))
      return processor.run(cpu, MOST_INSTRUCTIONS);
    for (let steps = 0; steps < MOST_INSTRUCTIONS; steps++) {
      const exit = processor.step(cpu);
      if (exit !== Exit.Budget) return exit;
    }
    return Exit.Budget;
  }

  private patches(batch: Batch, at: number, each: (offset: number, bytes: Uint8Array) => void): void {
    let patch = at + CASE.end;
    for (let n = batch.view.getUint32(at + CASE.patches, true); n > 0; n--) {
      const length = batch.view.getUint32(patch + 4, true);
      each(batch.view.getUint32(patch, true), batch.bytes.subarray(patch + 8, patch + 8 + length));
      patch += 8 + align8(length);
    }
  }

  private load(batch: Batch, at: number): void {
    const { cpu, memory, guest } = this;
    const { view, bytes } = batch;
    const copy = (to: number, from: number, size: number): void =>
      memory.u8.set(bytes.subarray(at + from, at + from + size), cpu.address + to);
    copy(CPU.regs, CASE.regs, 128);
    copy(CPU.fsBase, CASE.fsBase, 8);
    copy(CPU.gsBase, CASE.gsBase, 8);
    cpu.rip = PLACE.codeBase + view.getUint32(at + CASE.codeOffset, true);
    cpu.rflags = view.getUint32(at + CASE.rflags, true);
    cpu.setSelector(CS, USER_CS);
    cpu.setSelector(SS, USER_SS);
    for (const [i, selector] of SELECTORS.entries()) {
      cpu.setSelector(selector, view.getUint16(at + CASE.selectors + 2 * i, true));
    }
    const fx = CASE.fx;
    copy(CPU.fcw, fx + FX.fcw, 2);
    copy(CPU.fsw, fx + FX.fsw, 2);
    copy(CPU.ftw, fx + FX.ftw, 1);
    copy(CPU.fop, fx + FX.fop, 2);
    copy(CPU.fip, fx + FX.fip, 8);
    copy(CPU.fdp, fx + FX.fdp, 8);
    copy(CPU.mxcsr, fx + FX.mxcsr, 4);
    copy(CPU.xmm, fx + FX.xmm, 256);
    const top = (view.getUint16(at + fx + FX.fsw, true) >> 11) & 7;
    for (let i = 0; i < 8; i++) copy(CPU.st + 16 * ((top + i) & 7), fx + FX.st + 16 * i, 10);
    this.patches(batch, at, (offset, patch) => {
      memory.u8.set(patch, guest.data + offset);
      this.initial.set(patch, offset);
    });
  }

  private store(out: ResultWriter, exit: Exit): void {
    const { cpu, memory, guest } = this;
    out.begin();
    const { view, at } = out;
    let vector = HUNG;
    if (exit === Exit.Exception) vector = cpu.get(CPU.exitVector);
    else if (exit !== Exit.Budget) vector = NO_EXCEPTION + exit;
    view.setUint32(at + RESULT.vector, vector, true);
    const exception = exit === Exit.Exception && vector !== COMPLETE;
    view.setUint32(at + RESULT.error, exception ? cpu.get(CPU.exitError) : 0, true);
    const copy = (to: number, from: number, size: number): void =>
      out.bytes.set(memory.u8.subarray(cpu.address + from, cpu.address + from + size), at + to);
    if (vector === VECTOR.PF) copy(RESULT.cr2, CPU.cr2, 8);
    view.setBigInt64(at + RESULT.rip, BigInt(cpu.rip) - (vector === COMPLETE ? 1n : 0n), true);
    copy(RESULT.regs, CPU.regs, 128);
    view.setBigUint64(at + RESULT.rflags, BigInt(cpu.rflags), true);
    copy(RESULT.fsBase, CPU.fsBase, 8);
    copy(RESULT.gsBase, CPU.gsBase, 8);
    for (const [i, selector] of SELECTORS.entries()) {
      view.setUint16(at + RESULT.selectors + 2 * i, cpu.selector(selector), true);
    }
    const fx = RESULT.fx;
    copy(fx + FX.fcw, CPU.fcw, 2);
    copy(fx + FX.fsw, CPU.fsw, 2);
    copy(fx + FX.ftw, CPU.ftw, 1);
    copy(fx + FX.fop, CPU.fop, 2);
    copy(fx + FX.fip, CPU.fip, 8);
    copy(fx + FX.fdp, CPU.fdp, 8);
    copy(fx + FX.mxcsr, CPU.mxcsr, 4);
    copy(fx + FX.xmm, CPU.xmm, 256);
    const top = (view.getUint16(at + fx + FX.fsw, true) >> 11) & 7;
    for (let i = 0; i < 8; i++) copy(fx + FX.st + 16 * i, CPU.st + 16 * ((top + i) & 7), 10);
    for (let page = 0; page < PLACE.dataSize; page += PAGE_SIZE) {
      const now = Buffer.from(memory.u8.buffer, guest.data + page, PAGE_SIZE);
      const before = Buffer.from(this.initial.buffer, page, PAGE_SIZE);
      if (now.equals(before)) continue;
      const words = new Int32Array(this.initial.buffer, page, PAGE_SIZE / 4);
      const from = (guest.data + page) / 4;
      for (let i = 0; i < PAGE_SIZE / 4; i += 2) {
        const low = memory.i32[from + i]!;
        const high = memory.i32[from + i + 1]!;
        if (low === words[i] && high === words[i + 1]) continue;
        out.word(page + i * 4, low, high);
        memory.i32[from + i] = words[i]!;
        memory.i32[from + i + 1] = words[i + 1]!;
      }
    }
    out.end();
  }

  /** Takes the case's patches back. */
  private restore(batch: Batch, at: number): void {
    this.patches(batch, at, (offset, patch) => {
      const original = batch.background.subarray(offset, offset + patch.length);
      this.memory.u8.set(original, this.guest.data + offset);
      this.initial.set(original, offset);
    });
  }
}
