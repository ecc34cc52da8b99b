/**
 * Runs variants on the oracle and on an engine under test, and collects what differs.
 *
 * The run goes over all variants in passes of a few states each, so that a run that is stopped by its time limit
 * has seen them all. Every variant has its own random sequence in every pass: a failure comes again whatever else runs.
 */
import { compare, type Difference } from './compare.ts';
import type { Engine } from './engine.ts';
import { chooseInstruction, type Instruction, memoryBytes } from './instruction.ts';
import { Random } from './random.ts';
import { addCase, operandAddress } from './states.ts';
import type { Variant } from './variants.ts';
import { Batch, HUNG, PLACE, RESULT } from './wire.ts';

/** Cases that go to an engine at once. */
const BATCH_CASES = 6000;
/** States of a variant in one pass. */
const PASS_STATES = 20;
/** States that share one encoded instruction. */
const STATES_PER_INSTRUCTION = 4;
/** Failures kept in full of one variant. */
const KEPT_PER_VARIANT = 3;

export interface Plan {
  readonly variants: readonly Variant[];
  readonly seed: string;
  /** States of each variant. */
  readonly states: number;
  /** Milliseconds after which no further pass begins (and the first is thinned, but never skips a variant). */
  readonly timeLimit?: number;
  readonly progress?: (done: number, total: number) => void;
}

export interface Failure {
  readonly instruction: Instruction;
  /** Linear address of the memory operand; -1n: none. */
  readonly target: bigint;
  /** The case's record. */
  readonly record: Uint8Array;
  /** How the case ends natively (RESULT.vector). */
  readonly vector: number;
  readonly differences: readonly Difference[];
}

export interface Report {
  readonly variants: number;
  /** Forms of the processor (src/x86/isa/form.ts) that the variants cover. */
  readonly forms: number;
  readonly definitions: number;
  states: number;
  mismatches: number;
  /** Cases that did not end on the oracle: a fault of the generator. */
  hung: number;
  /** Mismatches by the variant's name. */
  readonly byVariant: Map<string, number>;
  readonly failures: Failure[];
  milliseconds: number;
}

interface Pending {
  readonly instruction: Instruction;
  readonly target: bigint;
}

/** Contents of the data region where a case does not set them. */
export function background(seed: string): Uint8Array {
  const random = new Random(`${seed}/background`);
  return new Uint8Array(PLACE.dataSize).map(() => random.below(256));
}

function check(
  batch: Batch,
  pending: readonly Pending[],
  oracle: Engine,
  engine: Engine,
  report: Report,
): void {
  const expected = oracle.run(batch);
  const got = engine.run(batch);
  for (const [index, { instruction, target: at }] of pending.entries()) {
    report.states++;
    const vector = expected.view.getUint32(expected.offsets[index]! + RESULT.vector, true);
    if (vector === HUNG) {
      report.hung++;
      continue;
    }
    const differences = compare(batch, index, instruction, at, expected, got);
    if (differences.length === 0) continue;
    report.mismatches++;
    const { name } = instruction.variant;
    const seen = report.byVariant.get(name) ?? 0;
    report.byVariant.set(name, seen + 1);
    if (seen >= KEPT_PER_VARIANT) continue;
    const record = batch.record(index).slice();
    report.failures.push({ instruction, target: at, record, vector, differences });
  }
}

export function runPlan(plan: Plan, oracle: Engine, engine: Engine): Report {
  const start = performance.now();
  const { variants, seed } = plan;
  const report: Report = {
    variants: variants.length,
    forms: new Set(variants.map(({ form }) => form)).size,
    definitions: new Set(variants.map(({ form }) => form.definition)).size,
    states: 0,
    mismatches: 0,
    hung: 0,
    byVariant: new Map(),
    failures: [],
    milliseconds: 0,
  };
  const data = background(seed);
  let batch = new Batch(data);
  let pending: Pending[] = [];
  const flush = (): void => {
    if (pending.length > 0) check(batch, pending, oracle, engine, report);
    batch = new Batch(data);
    pending = [];
  };
  const passes = Math.ceil(plan.states / PASS_STATES);
  const room = plan.timeLimit ?? Number.POSITIVE_INFINITY;
  for (let pass = 0; pass < passes; pass++) {
    for (const [number, variant] of variants.entries()) {
      const elapsed = performance.now() - start;
      // The first pass gets thinner when it runs late.
      const late = pass === 0 && elapsed > (room * (number + 1)) / variants.length + 2000;
      if (pass > 0 && elapsed > room) break;
      const random = new Random(`${seed}/${variant.name}/${pass}`);
      let left = Math.min(PASS_STATES, plan.states - pass * PASS_STATES);
      if (late) left = Math.min(left, STATES_PER_INSTRUCTION);
      while (left > 0) {
        const fixed = operandAddress(random, Math.max(memoryBytes(variant), 1));
        const instruction = chooseInstruction(random, variant, fixed);
        for (let i = Math.min(left, STATES_PER_INSTRUCTION); i > 0; i--, left--) {
          pending.push({ instruction, target: addCase(random, batch, instruction) });
        }
      }
      if (pending.length >= BATCH_CASES) {
        flush();
        plan.progress?.(pass * variants.length + number, passes * variants.length);
      }
    }
  }
  flush();
  report.milliseconds = performance.now() - start;
  return report;
}
