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

// Compiling a region for each instruction takes the translator's time, not its states.
const ENGINES = [
  { translated: false, states: 12 },
  { translated: true, states: 4 },
];

test.each(ENGINES)(
  'our processor does what the host CPU does: %o',
  { timeout: 240_000 },
  ({ translated, states }) => {
    const { variants, excluded } = allVariants(definitions);
    const engine = new ProcessorEngine(translated);
    const oracle = new NativeEngine(process.cwd());
    const report = runPlan({ variants, seed: 'npm test', states }, oracle, engine);
    console.log(`${summary(report, engine.name)}\nnot compared: ${excluded.join(' ')}`);
    expect(report.failures.slice(0, 5).map(failureText).join('\n\n')).toBe('');
    expect(report.mismatches).toBe(0);
    expect(report.hung).toBe(0);
    expect(report.variants).toBe(variants.length);
  },
);
