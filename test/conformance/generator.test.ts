/** The oracle against itself: the generator makes cases that end, twice the same, and that reach what they should. */
import { expect, test } from 'vitest';
import type { Definition } from '../../src/x86/isa/definition.ts';
import { FLAG } from '../../src/x86/state.ts';
import type { Engine } from './engine.ts';
import { NativeEngine } from './native.ts';
import { runPlan } from './run.ts';
import { allVariants } from './variants.ts';
import { type Batch, COMPLETE, RESULT, type Results } from './wire.ts';

const exec = (): void => {};
const SOME: Definition[] = [
  { name: 'ADD', code: '01 /r', operands: 'Ev+,Gv', lock: true, exec },
  { name: 'ADD', code: '00 /r', operands: 'Eb+,Gb', lock: true, exec },
  { name: 'MOV', code: 'B8+r iv', operands: 'Zv=,Iv', exec },
  { name: 'SHL', code: 'D3 /4', operands: 'Ev+,CL', undefinedFlags: 'AF', exec },
  { name: 'DIV', code: 'F7 /6', operands: 'Ev', undefinedFlags: 'CF PF AF ZF SF OF', exec },
  { name: 'MOVS', code: 'A4', rep: true, exec },
  { name: 'PUSH', code: 'FF /6', operands: 'Ev', default64: true, exec },
  { name: 'RET', code: 'C3', default64: true, exec },
  { name: 'JMP', code: 'FF /4', operands: 'Eq', default64: true, exec },
  { name: 'ADDPS', code: 'NP 0F 58 /r', operands: 'Vx+,Wx', fpu: true, exec },
  { name: 'FADD', code: 'D8 /0', operands: 'Md', fpu: true, exec },
];

const oracle = new NativeEngine(process.cwd());

test('the oracle agrees with itself, and cases end', () => {
  const endings = new Map<number, number>();
  const again: Engine = {
    name: 'native again',
    run(batch: Batch): Results {
      const results = oracle.run(batch);
      for (const at of results.offsets) {
        const vector = results.view.getUint32(at + RESULT.vector, true);
        endings.set(vector, (endings.get(vector) ?? 0) + 1);
      }
      return results;
    },
  };
  const { variants } = allVariants(SOME);
  const report = runPlan({ variants, seed: 'self', states: 40 }, oracle, again);
  expect(report.mismatches).toBe(0);
  expect(report.hung).toBe(0);
  expect(report.states).toBe(variants.length * 40);
  // Most cases complete; page faults and divide errors are among them.
  expect(endings.get(3)! / report.states).toBeGreaterThan(0.6);
  expect(endings.get(14)! / report.states).toBeGreaterThan(0.05);
  expect(endings.get(0)).toBeGreaterThan(5);
});

test('a wrong result is found', () => {
  const liar: Engine = {
    name: 'liar',
    run(batch: Batch): Results {
      const results = oracle.run(batch);
      for (const at of results.offsets) results.bytes[at + RESULT.regs + 8]! ^= 1;
      return results;
    },
  };
  const { variants } = allVariants(SOME, 'add 32 mem base');
  const report = runPlan({ variants, seed: 'self', states: 20 }, oracle, liar);
  expect(report.mismatches).toBe(report.states);
  expect(report.failures[0]!.differences.map(({ what }) => what)).toEqual(['rcx']);
});

/** The oracle with one flag inverted wherever an instruction completed. */
function flipping(flag: number): Engine {
  return {
    name: 'flag liar',
    run(batch: Batch): Results {
      const results = oracle.run(batch);
      for (const at of results.offsets) {
        if (results.view.getUint32(at + RESULT.vector, true) === COMPLETE)
          results.bytes[at + RESULT.rflags]! ^= flag;
      }
      return results;
    },
  };
}

test('undefined flags are not compared, defined ones are', () => {
  const { variants } = allVariants(SOME, 'shl 64');
  const plan = { variants, seed: 'flags', states: 60 };
  // A count of zero leaves AF alone, any other makes it undefined.
  const af = runPlan(plan, oracle, flipping(FLAG.AF));
  expect(af.mismatches).toBeGreaterThan(0);
  expect(af.mismatches).toBeLessThan(af.states / 2);
  // A count of 64 or more is masked to the size: CF is always defined.
  const cf = runPlan(plan, oracle, flipping(FLAG.CF));
  expect(cf.mismatches).toBeGreaterThan(af.states / 2);
  const div = allVariants(SOME, 'div').variants;
  expect(runPlan({ variants: div, seed: 'flags', states: 20 }, oracle, flipping(0xd5)).mismatches).toBe(0);
});
