/** Translations of one machine in another. */
import { describe, expect, it } from 'vitest';
import { Frames } from '../../machine/frames.ts';
import { Memory } from '../../machine/memory.ts';
import { CPU, Exit, RAX } from '../state.ts';
import { CODE, cpuWithPages, QUIET_HOST } from '../testing.ts';
import {
  Compiler,
  LOADED,
  type RegionCompiler,
  STORED,
  type StoredRegion,
  type StoredResult,
} from '../translator/compile.ts';
import { createProcessor } from './index.ts';
import { TranslationCounts } from './translations.ts';
import { VerifyLog } from './verify.ts';

const int32 = (value: number) => [value & 255, (value >> 8) & 255, (value >> 16) & 255, (value >> 24) & 255];
/** mov ecx, times; again: add rax, rcx; dec rcx; jnz again; syscall */
const loop = (times: number) => [
  ...[0xb9, ...int32(times), 0x48, 0x01, 0xc8, 0x48, 0xff, 0xc9, 0x75, 0xf8, 0x0f, 0x05],
];

interface Kept {
  module: Uint8Array;
  regions: readonly StoredRegion[];
}

function machine(
  { stored = [], size = 64 << 20, verify = null, lost = false } = {} as {
    stored?: readonly Kept[];
    size?: number;
    verify?: VerifyLog | null;
    lost?: boolean;
  },
) {
  const memory = Memory.create(size);
  const frames = new Frames(memory);
  const compiler = new Compiler(memory);
  const kept: Kept[] = [];
  compiler.onCompiled = (module, regions) => void kept.push({ module, regions });
  const used: number[] = [];
  const results: ReturnType<RegionCompiler['poll']>[] = [
    ...stored.map(({ regions }, batch): StoredResult => ({ id: STORED, batch, module: null, regions })),
    { id: STORED, batch: -1, module: null, regions: [] } satisfies StoredResult,
  ];
  const counts = new TranslationCounts();
  const processor = createProcessor(memory, frames, QUIET_HOST, {
    counts,
    verify,
    compiler: {
      stored: true,
      post: (job) => void results.push(compiler.compile(job)),
      poll: () => results.shift() ?? null,
      load: (batch) => {
        used.push(batch);
        const bytes = lost ? null : stored[batch]!.module;
        const module = bytes && new WebAssembly.Module(new Uint8Array(bytes));
        results.push({ id: LOADED, batch, module });
      },
    },
  });
  const { cpu, pages } = cpuWithPages(memory, frames, processor, [0]);
  return {
    kept,
    counts,
    used,
    /** Runs code to its system call. @returns RAX */
    run(code: readonly number[]): number {
      memory.u8.set(code, pages[0]!);
      cpu.setRegNumber(RAX, 0);
      cpu.rip = CODE;
      for (;;) {
        const exit = processor.run(cpu, 500);
        if (exit === Exit.Budget) continue;
        expect(exit).toBe(Exit.Syscall);
        expect(cpu.get(CPU.exitReason)).toBe(Exit.Syscall);
        return cpu.regNumber(RAX);
      }
    },
  };
}

/** What a run of a hot loop leaves. */
function translations(): readonly Kept[] {
  const { run, kept, counts } = machine();
  expect(run(loop(100_000))).toBe(5000050000);
  expect(counts.made).toBeGreaterThan(0);
  expect(kept).toHaveLength(1);
  return kept;
}

describe('translations of an earlier run', () => {
  it('are used in another machine, of another size, long before they would be made', () => {
    const stored = translations();
    const { run, kept, counts, used } = machine({ stored, size: 96 << 20 });
    // Until they have arrived, and the loop has been met often enough to be looked for.
    const verify = run(loop(30_000));
    expect(verify).toBe(450015000);
    expect(counts).toMatchObject({ made: 0, usedBatches: 1 });
    expect(counts.stored).toBeGreaterThan(0);
    expect(used).toEqual([0]);
    expect(kept).toEqual([]);
  });

  it('are made again where they are gone', () => {
    const { run, counts, used } = machine({ stored: translations(), lost: true });
    expect(run(loop(100_000))).toBe(5000050000);
    expect(used).toEqual([0]);
    expect(counts.usedBatches).toBe(0);
    expect(counts.made).toBeGreaterThan(0);
  });

  it('agree with the interpreter', () => {
    const verify = new VerifyLog();
    const { run } = machine({ stored: translations(), verify, size: 96 << 20 });
    expect(run(loop(100_000))).toBe(5000050000);
    expect(verify.runs).toBeGreaterThan(10);
    expect(verify.differences).toBe(0);
  });

  it('are not used for other code at the same place', () => {
    const other = loop(30_000);
    // sub rax, rcx
    other[6] = 0x29;
    const { run, counts, used } = machine({ stored: translations() });
    expect(run(other)).toBe(-450015000);
    expect(counts.usedBatches).toBe(0);
    expect(used).toEqual([]);
  });
});
