import { describe, expect, it } from 'vitest';
import { Frames } from '../../machine/frames.ts';
import { Memory, PAGE_SIZE } from '../../machine/memory.ts';
import { CPU, Exit, PF, RAX, RCX, RDI, VECTOR } from '../state.ts';
import { CODE, cpuWithPages, QUIET_HOST } from '../testing.ts';
import { createProcessor, type ProcessorOptions } from './index.ts';

const SYSCALL = [0x0f, 0x05];
const BUDGET = 1_000_000;

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
  const run = (offset: number): Exit => {
    cpu.rip = CODE + offset;
    for (;;) {
      const exit = processor.run(cpu, BUDGET);
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
});
