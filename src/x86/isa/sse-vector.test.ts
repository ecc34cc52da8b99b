import { expect, test } from 'vitest';
import { type I64, i32, i64, ModuleBuilder, type V128, v128 } from '../../wasm/index.ts';
import {
  align,
  bytesDown,
  bytesUp,
  type Immediate,
  laneMask,
  shiftLanes,
  shuffleDwords,
  shufflePair,
  shuffleWords,
} from './sse-vector.ts';

type Operation = (a: V128, b: V128, imm: Immediate, count: I64) => V128;

const shift = (op: Parameters<typeof shiftLanes>[0], bits: number, arithmetic: boolean): Operation => {
  const run = shiftLanes(op, bits, arithmetic);
  return (a, _b, _imm, count) => run(a, count);
};

const OPERATIONS: Record<string, Operation> = {
  shuffleDwords: (a, _b, imm) => shuffleDwords(a, imm),
  shuffleLowWords: (a, _b, imm) => shuffleWords(a, imm, false),
  shuffleHighWords: (a, _b, imm) => shuffleWords(a, imm, true),
  shufflePair,
  align,
  bytesDown: (a, _b, imm) => bytesDown(a, imm),
  bytesUp: (a, _b, imm) => bytesUp(a, imm),
  wordMask: (_a, _b, imm) => laneMask(16, imm),
  dwordMask: (_a, _b, imm) => laneMask(32, imm),
  quadMask: (_a, _b, imm) => laneMask(64, imm),
  shiftWordsLeft: shift(v128.i16x8_shl, 16, false),
  shiftDwordsRight: shift(v128.i32x4_shr_s, 32, true),
  shiftQuadsRight: shift(v128.i64x2_shr_u, 64, false),
};

/** What a few of them are for, in plain words. */
const REFERENCE: Record<string, (a: number[], b: number[], imm: number) => number[]> = {
  shuffleDwords: (a, _b, imm) =>
    [0, 2, 4, 6].flatMap((at) => a.slice(4 * ((imm >> at) & 3), 4 * ((imm >> at) & 3) + 4)),
  align: (a, b, imm) => Array.from({ length: 16 }, (_, i) => [...a, ...b][i + imm] ?? 0),
  bytesDown: (a, _b, imm) => Array.from({ length: 16 }, (_, i) => a[i + imm] ?? 0),
  bytesUp: (a, _b, imm) => Array.from({ length: 16 }, (_, i) => a[i - imm] ?? 0),
};

const BYTES_A = Array.from({ length: 16 }, (_, i) => (37 * i + 0x81) & 255);
const BYTES_B = Array.from({ length: 16 }, (_, i) => (91 * i + 0x13) & 255);

test('an immediate means the same at run time and as a constant', () => {
  const module = new ModuleBuilder(1);
  const names = Object.keys(OPERATIONS);
  const a = v128.load(i32.const(0));
  const b = v128.load(i32.const(16));
  for (const [name, operation] of Object.entries(OPERATIONS)) {
    const dynamic = module.func(name, ['i32'], []);
    const value = dynamic.arg('i32', 0);
    dynamic.store(
      i32.const(32),
      operation(a, b, { value, known: undefined }, dynamic.let(i64.extend_u(value))),
    );
    module.export(name, dynamic);
    const fixed = module.func(`${name}Fixed`, [], []);
    for (let imm = 0; imm < 256; imm++) {
      const known = { value: i32.const(imm), known: imm };
      fixed.store(i32.const(1024 + 16 * imm), operation(a, b, known, i64.const(imm)));
    }
    module.export(`${name}Fixed`, fixed);
  }
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  const compiled = new WebAssembly.Module(module.encode());
  const { exports } = new WebAssembly.Instance(compiled, { env: { memory } });
  const run = exports as Record<string, (imm?: number) => void>;
  const view = new Uint8Array(memory.buffer);
  view.set([...BYTES_A, ...BYTES_B]);
  const vectorAt = (at: number) => [...view.slice(at, at + 16)];
  for (const name of names) {
    run[`${name}Fixed`]!();
    for (let imm = 0; imm < 256; imm++) {
      run[name]!(imm);
      const result = vectorAt(32);
      expect(vectorAt(1024 + 16 * imm), `${name} ${imm}`).toEqual(result);
      const expected = REFERENCE[name]?.(BYTES_A, BYTES_B, imm);
      if (expected !== undefined) expect(result, `${name} ${imm}`).toEqual(expected);
    }
  }
});
