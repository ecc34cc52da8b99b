import { describe, expect, it } from 'vitest';
import { Frames } from '../../machine/frames.ts';
import { Memory, PAGE_SIZE } from '../../machine/memory.ts';
import { CPU, Exit, PF, RAX, RBX, RCX, RDI, RDX, VECTOR } from '../state.ts';
import { CODE, cpuWithPages, QUIET_HOST } from '../testing.ts';
import { createProcessor, type ProcessorOptions } from './index.ts';
import { TranslationCounts } from './translations.ts';

const SYSCALL = [0x0f, 0x05];
const BUDGET = 1_000_000;
/** Offsets of three functions of {@link ADDS} additions each. */
const F = 0x400;
const G = 0x700;
const RARE = 0xa00;
const ADDS = 130;
const ROUNDS = 1 << 17;

/** A CPU with two pages of code, writable, at CODE; the page behind them is not mapped. */
function machine(options: ProcessorOptions) {
  const memory = Memory.create(64 << 20);
  const frames = new Frames(memory);
  const processor = createProcessor(memory, frames, QUIET_HOST, options);
  const { cpu, pages } = cpuWithPages(memory, frames, processor, [0, 1]);
  /** Puts code at an offset of the two pages. */
  const write = (offset: number, bytes: readonly number[]) =>
    bytes.forEach((byte, i) => {
      const at = offset + i;
      memory.u8[pages[at < PAGE_SIZE ? 0 : 1]! + (at % PAGE_SIZE)] = byte;
    });
  /** Runs from an offset until something other than a spent budget. */
  const run = (offset: number, budget = BUDGET): Exit => {
    cpu.rip = CODE + offset;
    for (;;) {
      const exit = processor.run(cpu, budget);
      if (exit !== Exit.Budget) return exit;
    }
  };
  return { cpu, write, run, processor };
}

const int32 = (value: number) => [value & 255, (value >> 8) & 255, (value >> 16) & 255, (value >> 24) & 255];

describe.each([
  ['interpreted', { translate: false }],
  ['translated', { translate: true }],
])('the processor, %s', (_name, options) => {
  it('runs a hot loop, and counts its instructions', () => {
    const { cpu, write, run } = machine(options);
    const times = 3_000_000;
    // mov ecx, times; again: add rax, rcx; dec rcx; jnz again; syscall
    write(0, [0xb9, ...int32(times), 0x48, 0x01, 0xc8, 0x48, 0xff, 0xc9, 0x75, 0xf8, ...SYSCALL]);
    expect(run(0)).toBe(Exit.Syscall);
    expect(cpu.regNumber(RAX)).toBe((times * (times + 1)) / 2);
    expect(cpu.regNumber(RCX)).toBe(CODE + 15);
    expect(cpu.number(CPU.instructions)).toBe(2 + 3 * times);
  });

  it('runs a hot loop through an instruction that reaches into the next page', () => {
    const { cpu, write, run } = machine(options);
    // mov ecx, 200000; again: add rax, 1 (four bytes, two of them in the next page); dec ecx; jnz again; syscall
    const at = PAGE_SIZE - 7;
    write(at, [0xb9, ...int32(200_000), 0x48, 0x83, 0xc0, 0x01, 0xff, 0xc9, 0x75, 0xf8, ...SYSCALL]);
    expect(run(at)).toBe(Exit.Syscall);
    expect(cpu.regNumber(RAX)).toBe(200_000);
  });

  it('sees code that changes itself', () => {
    const { cpu, write, run } = machine(options);
    cpu.setRegNumber(RDI, CODE + 10);
    // mov ecx, 100000; again: add eax, imm32 (imm at 6); inc byte [rdi]; ...: each round adds one more, modulo 256
    write(0, [
      0xb9,
      ...int32(20_000),
      0x90,
      0x90,
      0x90,
      0x90,
      0x05,
      0,
      0,
      0,
      0,
      0xfe,
      0x07,
      0xff,
      0xc9,
      0x75,
      0xf3,
      ...SYSCALL,
    ]);
    expect(run(0)).toBe(Exit.Syscall);
    let sum = 0;
    for (let round = 0; round < 20_000; round++) sum += round & 255;
    expect(cpu.regNumber(RAX)).toBe(sum);
  });

  it('faults precisely in a hot loop', () => {
    const { cpu, write, run } = machine(options);
    cpu.setRegNumber(RDI, CODE);
    // again: mov dl, [rdi]; inc rdi; inc eax; jmp again: until the pages end
    write(0, [0x8a, 0x17, 0x48, 0xff, 0xc7, 0xff, 0xc0, 0xeb, 0xf7]);
    for (let round = 0; round < 4; round++) {
      cpu.setRegNumber(RAX, 0);
      cpu.setRegNumber(RDI, CODE);
      expect(run(0)).toBe(Exit.Exception);
      expect(cpu.get(CPU.exitVector)).toBe(VECTOR.PF);
      expect(cpu.get(CPU.exitError)).toBe(PF.U);
      expect(cpu.number(CPU.cr2)).toBe(CODE + 2 * PAGE_SIZE);
      expect(cpu.rip).toBe(CODE);
      expect(cpu.regNumber(RAX)).toBe(2 * PAGE_SIZE);
      expect(cpu.regNumber(RDI)).toBe(CODE + 2 * PAGE_SIZE);
    }
  });

  it('runs functions that call each other, too long for one region, and what is rare in them', () => {
    const counts = new TranslationCounts();
    const { cpu, write, run } = machine({ ...options, counts });
    // mov rsp, the end of the pages; mov ecx, ROUNDS; again: call f; dec ecx; jnz again; syscall
    const call = (from: number, to: number) => [0xe8, ...int32(to - from - 5)];
    write(0, [0x48, 0xc7, 0xc4, ...int32(CODE + 2 * PAGE_SIZE), 0xb9, ...int32(ROUNDS)]);
    write(12, [...call(12, F), 0xff, 0xc9, 0x75, 0xf7, ...SYSCALL]);
    // f: add rax, 1 (often); test cl, 63; jnz on; call rare; on: call g; ret
    const adds = Array.from({ length: ADDS }, () => [0x48, 0x83, 0xc0, 0x01]).flat();
    const at = F + adds.length;
    write(F, [...adds, 0xf6, 0xc1, 0x3f, 0x75, 0x05]);
    write(at + 5, [...call(at + 5, RARE), ...call(at + 10, G), 0xc3]);
    // g: add rbx, 1 (often); ret. rare: add rdx, 1 (often); jmp g
    write(G, [...adds.map((byte) => (byte === 0xc0 ? 0xc3 : byte)), 0xc3]);
    const behind = RARE + adds.length;
    write(RARE, [...adds.map((byte) => (byte === 0xc0 ? 0xc2 : byte)), 0xe9, ...int32(G - behind - 5)]);
    // Short runs: between them translations are installed.
    expect(run(0, 20_000)).toBe(Exit.Syscall);
    const rare = Math.floor(ROUNDS / 64);
    expect(cpu.regNumber(RAX)).toBe(ROUNDS * ADDS);
    expect(cpu.regNumber(RDX)).toBe(rare * ADDS);
    expect(cpu.regNumber(RBX)).toBe((ROUNDS + rare) * ADDS);
    expect(cpu.number(CPU.instructions)).toBe(
      3 + ROUNDS * (3 + ADDS + 2 + 2 + ADDS + 1) + rare * (1 + 2 * ADDS + 2),
    );
    if (options.translate) expect(counts.wide).toBeGreaterThan(0);
  });
});
