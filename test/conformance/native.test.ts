import { expect, test } from 'vitest';
import { NativeEngine } from './native.ts';
import { Batch, CASE, COMPLETE, FX, HUNG, PLACE, RESULT } from './wire.ts';

const engine = new NativeEngine(process.cwd());

function batch(
  ...cases: { code: number[]; regs?: Record<number, bigint>; patch?: [number, number[]]; at?: number }[]
) {
  const all = new Batch(new Uint8Array(PLACE.dataSize).map((_, i) => i * 7));
  for (const { code, regs, patch, at } of cases) {
    all.begin();
    const { view } = all;
    view.setUint32(all.at + CASE.codeOffset, at ?? 0x100, true);
    view.setUint32(all.at + CASE.codeLength, code.length, true);
    all.bytes.set(code, all.at + CASE.code);
    for (const [r, value] of Object.entries(regs ?? {}))
      view.setBigUint64(all.at + CASE.regs + 8 * Number(r), value, true);
    view.setBigUint64(all.at + CASE.rflags, 0x202n, true);
    view.setUint16(all.at + CASE.fx + FX.fcw, 0x37f, true);
    view.setUint32(all.at + CASE.fx + FX.mxcsr, 0x1f80, true);
    if (patch) all.patch(patch[0], Uint8Array.from(patch[1]));
    all.end();
  }
  return all;
}

test('an instruction runs with the state it was given', () => {
  const { view, offsets } = engine.run(
    batch(
      { code: [0x48, 0x01, 0xd8], regs: { 0: 5n, 3: 0xffff_ffff_ffff_fffbn } },
      { code: [0x89, 0x07], regs: { 0: 0x12345678n, 7: BigInt(PLACE.dataBase + 8) } },
      { code: [0x89, 0x07], regs: { 7: BigInt(PLACE.dataBase + PLACE.dataWritable) } },
      { code: [0xeb, 0xfe] },
      { code: [0x0f, 0x0b] },
      { code: [0xf7, 0xf1] },
      { code: [0x0f], at: PLACE.codeSize - 1 },
      { code: [0x8b, 0x07], regs: { 7: BigInt(PLACE.dataBase + 9) }, patch: [8, [1, 2, 3, 4, 5]] },
    ),
  );
  const field = (i: number, f: number) => view.getUint32(offsets[i]! + f, true);
  expect(offsets.map((at) => view.getUint32(at + RESULT.vector, true))).toEqual([
    COMPLETE,
    COMPLETE,
    14,
    HUNG,
    6,
    0,
    14,
    COMPLETE,
  ]);
  expect(field(0, RESULT.regs)).toBe(0);
  expect(field(0, RESULT.rflags) & 0x8d5).toBe(0x55);
  expect(field(0, RESULT.rip)).toBe(PLACE.codeBase + 0x103);
  expect(field(1, RESULT.words)).toBe(1);
  expect(field(1, RESULT.end)).toBe(8);
  expect(field(1, RESULT.end + 8)).toBe(0x12345678);
  expect(field(2, RESULT.error)).toBe(7);
  expect(field(2, RESULT.cr2)).toBe(PLACE.dataBase + PLACE.dataWritable);
  expect(field(6, RESULT.error)).toBe(0x14);
  expect(field(6, RESULT.cr2)).toBe(PLACE.codeBase + PLACE.codeSize);
  expect(field(7, RESULT.regs)).toBe(0x05040302);
});

test('thousands of cases a second', () => {
  const many = batch(...Array.from({ length: 20000 }, () => ({ code: [0x48, 0x01, 0xd8] })));
  const start = performance.now();
  const results = engine.run(many);
  const rate = 20000 / ((performance.now() - start) / 1000);
  console.log(`${Math.round(rate)} native cases a second`);
  expect(results.offsets.length).toBe(20000);
  expect(rate).toBeGreaterThan(2000);
});
