import { afterEach, expect, test, vi } from 'vitest';
import { Frames } from '../../machine/frames.ts';
import { Memory } from '../../machine/memory.ts';
import { createProcessor } from '../core/index.ts';
import { Cpu } from '../cpu.ts';
import { SseFloat } from '../fpu/sse.ts';
import { CPU, Exit, RAX } from '../state.ts';

const CODE = 0x400000;

/** A processor with one page of code. */
function machine() {
  const memory = Memory.create(64 << 20);
  const frames = new Frames(memory);
  const host = { tsc: () => 0, random: () => {}, cpuid: () => [0, 0, 0, 0] as const, descriptor: () => null };
  const processor = createProcessor(memory, frames, host);
  const frameTable = frames.allocContiguous(1) * 4096;
  const linear = [0];
  for (let mfn = 1; mfn <= 5; mfn++) {
    const frame = frames.alloc();
    memory.u32[(frameTable >>> 2) + mfn] = frame;
    linear[mfn] = frame * 4096;
  }
  const entry = (table: number, index: number, mfn: number) =>
    memory.write64(linear[table]! + index * 8, BigInt(mfn * 4096 + 7));
  entry(1, 0, 2);
  entry(2, 0, 3);
  entry(3, 2, 4);
  entry(4, 0, 5);
  const cpu = new Cpu(memory, frames.alloc() * 4096);
  cpu.reset();
  processor.attach(cpu, { frameTable, frameLimit: 6 });
  processor.loadRoots(cpu, 1, 1);
  const xmm = (register: number) => (cpu.address + CPU.xmm + 16 * register) / 8;
  return {
    cpu,
    f64: (register: number, lane = 0) => memory.f64[xmm(register) + lane]!,
    /** Runs instructions up to a SYSCALL behind them. */
    run(bytes: number[], mxcsr: number, operands: [number, number]) {
      memory.u8.set([...bytes, 0x0f, 0x05], linear[5]!);
      processor.written(linear[5]! / 4096);
      for (let lane = 0; lane < 2; lane++)
        operands.forEach((value, register) => {
          memory.f64[xmm(register) + lane] = value;
        });
      memory.u32[(cpu.address + CPU.mxcsr) >>> 2] = mxcsr;
      cpu.rip = CODE;
      expect(processor.run(cpu, 1000)).toBe(Exit.Syscall);
    },
  };
}

/** All exceptions masked; without and with the precision flag. */
const CLEAR = 0x1f80;
const INEXACT = 0x1fa0;

const ADDSD = [0xf2, 0x0f, 0x58, 0xc1];
const MULSD = [0xf2, 0x0f, 0x59, 0xc1];
const DIVPD = [0x66, 0x0f, 0x5e, 0xc1];
const SQRTSD = [0xf2, 0x0f, 0x51, 0xc1];
const MINPD = [0x66, 0x0f, 0x5d, 0xc1];
const UCOMISD = [0x66, 0x0f, 0x2e, 0xc1];
const CVTTSD2SI = [0xf2, 0x0f, 0x2c, 0xc1];
const CVTSI2SD = [0xf2, 0x0f, 0x2a, 0xc0];

afterEach(() => {
  vi.restoreAllMocks();
});

test('ordinary arithmetic stays in WebAssembly', () => {
  const host = vi.spyOn(SseFloat.prototype, 'execute');
  const { run, f64, cpu } = machine();
  run([...ADDSD, ...MULSD, ...DIVPD], INEXACT, [0.1, 3]);
  expect(f64(0)).toBe(((0.1 + 3) * 3) / 3);
  expect(f64(0, 1)).toBe(0.1 / 3);
  run([...SQRTSD, ...MINPD], INEXACT, [-5, 2]);
  expect([f64(0), f64(0, 1)]).toEqual([Math.SQRT2, -5]);
  // Exact results and comparisons need no flag at all.
  run([...UCOMISD, ...CVTTSD2SI, ...CVTSI2SD], CLEAR, [1, -7]);
  expect(cpu.reg(RAX)).toBe(0xffff_fff9n);
  expect(f64(0)).toBe(-7);
  expect(host).not.toHaveBeenCalled();
});

test('what may raise a flag or is no ordinary number goes to the host', () => {
  const host = vi.spyOn(SseFloat.prototype, 'execute');
  const { run } = machine();
  const asked = (bytes: number[], mxcsr: number, operands: [number, number]): boolean => {
    host.mockClear();
    run(bytes, mxcsr, operands);
    return host.mock.calls.length === 1;
  };
  const tiny = 2 ** -1060;
  expect(asked(ADDSD, CLEAR, [0.1, 3])).toBe(true);
  expect(asked(ADDSD, INEXACT | 0x6000, [0.1, 3])).toBe(true);
  expect(asked(ADDSD, INEXACT, [tiny, 1])).toBe(true);
  expect(asked(ADDSD, INEXACT, [Number.MAX_VALUE, Number.MAX_VALUE])).toBe(true);
  expect(asked(MULSD, INEXACT, [2 ** -600, 2 ** -600])).toBe(true);
  expect(asked(DIVPD, INEXACT, [1, 0])).toBe(true);
  expect(asked(SQRTSD, INEXACT, [0, -1])).toBe(true);
  expect(asked(MINPD, INEXACT, [Number.NaN, 1])).toBe(true);
  expect(asked(UCOMISD, INEXACT, [1, tiny])).toBe(true);
  expect(asked(CVTTSD2SI, CLEAR, [0, 0.5])).toBe(true);
  expect(asked(CVTTSD2SI, INEXACT, [0, 2 ** 31])).toBe(true);
});
