import { describe, expect, it } from 'vitest';
import { Frames } from '../../machine/frames.ts';
import { Memory } from '../../machine/memory.ts';
import { Cpu } from '../cpu.ts';
import { CPU, Exit, RAX, RCX } from '../state.ts';
import { createProcessor } from './index.ts';

describe('processor', () => {
  it('runs a loop', () => {
    const memory = Memory.create(256 << 20);
    const frames = new Frames(memory);
    const t0 = performance.now();
    const processor = createProcessor(memory, frames, {
      tsc: () => 0,
      random: () => {},
      cpuid: () => [0, 0, 0, 0],
      descriptor: () => null,
    });
    console.log('created in', performance.now() - t0);
    const table = frames.allocContiguous(16) * 4096;
    const guest: number[] = [];
    for (let i = 0; i < 16; i++) {
      guest.push(frames.alloc());
      memory.u32[(table >>> 2) + i] = guest[i]!;
    }
    const lin = (mfn: number) => guest[mfn]! * 4096;
    // L4=1 L3=2 L2=3 L1=4 code=5 at va 0x400000, data=6 at 0x401000
    const pte = (at: number, index: number, mfn: number) =>
      memory.write64(lin(at) + index * 8, BigInt(mfn * 4096 + 7));
    pte(1, 0, 2);
    pte(2, 0, 3);
    pte(3, 2, 4);
    pte(4, 0, 5);
    pte(4, 1, 6);
    const cpu = new Cpu(memory, frames.alloc() * 4096);
    cpu.reset();
    const space = { frameTable: table, frameLimit: 16, generation: 0 };
    processor.attach(cpu, space);
    processor.loadRoots(cpu, 1, 1);
    // mov ecx, 100000000 ; l: add rax, rcx ; dec rcx ; jnz l ; syscall
    const code = [0xb9, 0x00, 0xe1, 0xf5, 0x05, 0x48, 0x01, 0xc8, 0x48, 0xff, 0xc9, 0x75, 0xf8, 0x0f, 0x05];
    memory.u8.set(code, lin(5));
    cpu.rip = 0x400000;
    for (let round = 0; round < 3; round++) {
      cpu.rip = 0x400000;
      cpu.setReg(RAX, 0n);
      const t = performance.now();
      const before = cpu.number(CPU.instructions);
      let exit: number = Exit.Budget;
      while (exit === Exit.Budget) exit = processor.run(cpu, 1_000_000);
      const n = cpu.number(CPU.instructions) - before;
      console.log('MIPS', n / 1000 / (performance.now() - t), n);
      expect(exit).toBe(Exit.Syscall);
      expect(cpu.reg(RAX)).toBe(5000000050000000n);
      expect(cpu.reg(RCX)).toBe(0x40000fn);
    }
  });
});
