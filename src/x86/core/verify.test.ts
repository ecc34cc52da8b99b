import { describe, expect, it } from 'vitest';
import { Frames } from '../../machine/frames.ts';
import { Memory, PAGE_SIZE } from '../../machine/memory.ts';
import type { ProcessorHost } from '../processor.ts';
import { CPU, Exit, RAX, RCX, RDI, RSI, RSP, VECTOR } from '../state.ts';
import { CODE, cpuWithPages, QUIET_HOST } from '../testing.ts';
import { Compiler, type RegionCompiler } from '../translator/compile.ts';
import { createProcessor } from './index.ts';
import { VerifyLog } from './verify.ts';

const DATA = CODE + 2 * PAGE_SIZE;
const SYSCALL = [0x0f, 0x05];
const int32 = (value: number) => [value & 255, (value >> 8) & 255, (value >> 16) & 255, (value >> 24) & 255];

/** Two pages of code at CODE, two of data at DATA, the first one at ALIAS too. What a module is made of can be spoilt. */
const ALIAS = DATA + 2 * PAGE_SIZE;

function machine({
  host = {},
  spoil,
}: {
  host?: Partial<ProcessorHost>;
  spoil?: (m: Uint8Array) => void;
} = {}) {
  const memory = Memory.create(96 << 20);
  const frames = new Frames(memory);
  const verify = new VerifyLog();
  const reports: string[] = [];
  verify.onDifference = (report) => reports.push(report);
  const processor = createProcessor(
    memory,
    frames,
    { ...QUIET_HOST, ...host },
    { verify, compiler: spoil === undefined ? null : spoiling(memory, spoil) },
  );
  const { cpu, pages } = cpuWithPages(memory, frames, processor, [0, 1, 2, 3, 2]);
  return {
    cpu,
    verify,
    reports,
    memory,
    /** Linear address of the first page of data. */
    data: pages[2]!,
    data2: pages[3]!,
    write(bytes: readonly number[], offset = 0) {
      memory.u8.set(bytes, pages[0]! + offset);
    },
    run(offset = 0): Exit {
      cpu.rip = CODE + offset;
      for (;;) {
        const exit = processor.run(cpu, 500);
        if (exit !== Exit.Budget) return exit;
      }
    },
  };
}

/** Translates at once, and changes the module before it is compiled. */
function spoiling(memory: Memory, spoil: (module: Uint8Array) => void): RegionCompiler {
  class Spoiler extends Compiler {
    override build(regions: Parameters<Compiler['build']>[0]): Uint8Array {
      const module = super.build(regions);
      spoil(module);
      return module;
    }
  }
  const compiler = new Spoiler(memory);
  const results: ReturnType<Compiler['compile']>[] = [];
  return { post: (job) => void results.push(compiler.compile(job)), poll: () => results.shift() ?? null };
}

describe('translations checked against the interpreter', () => {
  it('agree in a loop, and it ends as it should', () => {
    const { cpu, write, run, verify } = machine();
    const times = 400_000;
    // mov ecx, times; again: add rax, rcx; dec rcx; jnz again; syscall
    write([0xb9, ...int32(times), 0x48, 0x01, 0xc8, 0x48, 0xff, 0xc9, 0x75, 0xf8, ...SYSCALL]);
    expect(run()).toBe(Exit.Syscall);
    expect(cpu.regNumber(RAX)).toBe((times * (times + 1)) / 2);
    expect(cpu.number(CPU.instructions)).toBe(2 + 3 * times);
    expect(verify.differences).toBe(0);
    expect(verify.runs).toBeGreaterThan(10);
    expect(verify.instructions).toBeGreaterThan(times / 2);
  });

  it('agree in what they store, through two mappings of a page and over a page border', () => {
    const { cpu, write, run, verify, memory, data, data2 } = machine();
    cpu.setRegNumber(RDI, DATA + 16);
    cpu.setRegNumber(RSI, ALIAS + 16);
    cpu.setRegNumber(RSP, DATA + PAGE_SIZE - 4);
    // mov ecx, n; again: inc qword [rdi]; mov rax, [rsi]; add [rsi+8], rax; add [rsp], rax; dec ecx; jnz; syscall
    const n = 100_000;
    write([
      ...[0xb9, ...int32(n), 0x48, 0xff, 0x07, 0x48, 0x8b, 0x06, 0x48, 0x01, 0x46, 0x08],
      ...[0x48, 0x01, 0x04, 0x24, 0xff, 0xc9, 0x75, 0xee, ...SYSCALL],
    ]);
    expect(run()).toBe(Exit.Syscall);
    const sum = (BigInt(n) * (BigInt(n) + 1n)) / 2n;
    expect(memory.read64(data + 16)).toBe(BigInt(n));
    expect(memory.read64(data + 24)).toBe(sum);
    expect(memory.u32[(data + PAGE_SIZE - 4) >>> 2]).toBe(Number(sum & 0xffffffffn));
    expect(memory.u32[data2 >>> 2]).toBe(Number(sum >> 32n));
    expect(verify.runs).toBeGreaterThan(5);
    expect(verify.unchecked).toBe(0);
  });

  it('see one value of the time-stamp counter and of randomness', () => {
    let now = 1000;
    let seed = 1;
    const host = {
      tsc: () => now++,
      random: (bytes: Uint8Array) => {
        seed = (seed * 7 + 3) & 255;
        bytes.fill(seed);
      },
    };
    const { cpu, write, run, verify } = machine({ host });
    // mov ecx, n; again: rdtsc; add esi, eax; rdrand rax; xor rdi, rax; dec ecx; jnz again; syscall
    write([
      ...[0xb9, ...int32(60_000), 0x0f, 0x31, 0x01, 0xc6, 0x48, 0x0f, 0xc7, 0xf0, 0x48, 0x31, 0xc7],
      ...[0xff, 0xc9, 0x75, 0xf1, ...SYSCALL],
    ]);
    expect(run()).toBe(Exit.Syscall);
    expect(now).toBe(1000 + 60_000);
    expect(cpu.regNumber(RSI)).not.toBe(0);
    expect(verify.runs).toBeGreaterThan(3);
  });

  it('fault alike, and pause alike within repeated instructions', () => {
    const { cpu, write, run, verify } = machine();
    // again: mov rdi, DATA; mov ecx, 5000; rep stosb, in odd steps; mov dl, [rax]; inc rax; jmp again: until unmapped
    write([
      ...[0xbf, ...int32(DATA), 0xb9, ...int32(5000), 0xf3, 0xaa, 0x8a, 0x10, 0x48, 0xff, 0xc0, 0xeb, 0xed],
    ]);
    cpu.setRegNumber(RAX, CODE);
    for (let round = 0; round < 3; round++) {
      cpu.setRegNumber(RAX, CODE);
      expect(run()).toBe(Exit.Exception);
      expect(cpu.get(CPU.exitVector)).toBe(VECTOR.PF);
      expect(cpu.number(CPU.cr2)).toBe(ALIAS + PAGE_SIZE);
      expect(cpu.rip).toBe(CODE + 12);
      expect(cpu.regNumber(RCX)).toBe(0);
    }
    expect(verify.runs).toBeGreaterThan(1);
    expect(verify.differences).toBe(0);
  });

  it('do not lose what others write meanwhile', () => {
    let written = 0;
    const parts = machine({
      host: {
        // Called within translated code: another thread, so to say.
        tsc: () => {
          parts.memory.u32[(parts.data + 64) >>> 2] = ++written;
          return 0;
        },
      },
    });
    const { cpu, write, run, memory, data, verify } = parts;
    cpu.setRegNumber(RDI, DATA);
    // mov ecx, n; again: rdtsc; inc dword [rdi]; dec ecx; jnz again; syscall
    write([0xb9, ...int32(50_000), 0x0f, 0x31, 0xff, 0x07, 0xff, 0xc9, 0x75, 0xf8, ...SYSCALL]);
    expect(run()).toBe(Exit.Syscall);
    expect(memory.u32[data >>> 2]).toBe(50_000);
    expect(memory.u32[(data + 64) >>> 2]).toBe(50_000);
    expect(verify.runs).toBeGreaterThan(3);
  });

  it('tell a difference in a register', () => {
    // i64.add becomes i64.sub wherever a constant 77 was added.
    const spoil = (module: Uint8Array) => {
      for (let i = 2; i < module.length; i++)
        if (module[i] === 0x7c && module[i - 1] === 0xcd - 0x80 && module[i - 2] === 0xcd) module[i] = 0x7d;
        else if (module[i] === 0x7c && module[i - 2] === 0xcd && module[i - 1] === 0x00) module[i] = 0x7d;
    };
    const { write, run, verify, reports } = machine({ spoil });
    // mov ecx, n; again: add rax, 77; dec ecx; jnz again; syscall
    write([0xb9, ...int32(400_000), 0x48, 0x83, 0xc0, 77, 0xff, 0xc9, 0x75, 0xf8, ...SYSCALL]);
    expect(() => run()).toThrow(/translated code at 0000000000400005 differs from the interpreter in rax/);
    expect(verify.differences).toBe(1);
    expect(reports[0]).toContain('rax: translated');
    expect(reports[0]).toContain('DEC');
  });

  it('tell a difference in memory', () => {
    // A store of 64 bits becomes one of 32.
    const spoil = (module: Uint8Array) => {
      for (let i = 0; i < module.length - 2; i++)
        if (module[i] === 0x37 && module[i + 1] === 0 && module[i + 2] === 0) module[i] = 0x3e;
    };
    const { cpu, write, run } = machine({ spoil });
    cpu.setRegNumber(RDI, DATA);
    cpu.setRegNumber(RAX, 0x1234567);
    // mov ecx, n; again: mov [rdi], rax; rol rax, 1; dec ecx; jnz again; syscall
    write([
      ...[0xb9, ...int32(400_000), 0x48, 0x89, 0x07, 0x48, 0xd1, 0xc0, 0xff, 0xc9, 0x75, 0xf6, ...SYSCALL],
    ]);
    expect(() => run()).toThrow(/differs from the interpreter in .*memory/);
  });
});
