/**
 * A sample of the conformance run: every form with a few states, the same ones every time. `npm run conformance` is
 * the long run.
 */
import { expect, test } from 'vitest';
import { definitions } from '../../src/x86/isa/index.ts';
import { NativeEngine } from './native.ts';
import { failureText, summary } from './present.ts';
import { ProcessorEngine } from './processor.ts';
import { runPlan } from './run.ts';
import { allVariants } from './variants.ts';

const STATES = 12;

test('our processor does what the host CPU does', { timeout: 180_000 }, () => {
  const { variants, excluded } = allVariants(definitions);
  const engine = new ProcessorEngine();
  const oracle = new NativeEngine(process.cwd());
  const report = runPlan({ variants, seed: 'npm test', states: STATES }, oracle, engine);
  console.log(`${summary(report, engine.name)}\nnot compared: ${excluded.join(' ')}`);
  expect(report.failures.slice(0, 5).map(failureText).join('\n\n')).toBe('');
  expect(report.mismatches).toBe(0);
  expect(report.hung).toBe(0);
  expect(report.variants).toBe(variants.length);
});
