/** Borrowed Virtual Time on several processors, in simulated time: one machine, shared by weight. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Simulation, type TaskSpec } from './bvt-testing.ts';

const MS = 1_000_000;
const SECOND = 1000 * MS;
const RUNS = Number(process.env['PROPERTY_RUNS'] ?? 30);

const pcpusArb = fc.integer({ min: 2, max: 6 });
const hog = (mcuAdvance: number): TaskSpec => ({ parameters: { mcuAdvance } });

/**
 * What each weight can have of so many processors, none more than a whole one: those that are entitled to more
 * than one get one, and the others share the rest.
 */
function shares(weights: readonly number[], pcpus: number): number[] {
  const result = weights.map(() => 0);
  let left = weights.map((_, index) => index);
  let rest = pcpus;
  for (;;) {
    const sum = left.reduce((total, index) => total + weights[index]!, 0);
    const whole = left.filter((index) => (weights[index]! / sum) * rest >= 1);
    if (whole.length === 0 || left.length <= rest) {
      for (const index of left) result[index] = Math.min(1, (weights[index]! / sum) * rest);
      return result;
    }
    for (const index of whole) result[index] = 1;
    left = left.filter((index) => !whole.includes(index));
    rest -= whole.length;
  }
}

describe('several processors', () => {
  it('are shared by weight as one machine', () => {
    const property = fc.property(
      pcpusArb,
      fc.array(fc.integer({ min: 2, max: 12 }), { minLength: 7, maxLength: 16 }),
      (pcpus, advances) => {
        const simulation = new Simulation(advances.map(hog), { pcpus });
        simulation.run(2 * SECOND);
        const before = simulation.tasks.map(({ ran }) => ran);
        const window = 60 * SECOND;
        simulation.run(2 * SECOND + window);
        const expected = shares(
          advances.map((advance) => 1 / advance),
          pcpus,
        );
        simulation.tasks.forEach((task, index) => {
          const share = (task.ran - before[index]!) / window;
          expect(share / expected[index]!).toBeGreaterThan(0.95);
          expect(share / expected[index]!).toBeLessThan(1.05);
        });
      },
    );
    fc.assert(property, { numRuns: Math.ceil(RUNS / 3) });
  });

  it('give one with too much weight a whole one, and the others the rest', () => {
    const simulation = new Simulation([hog(0.1), hog(10), hog(10), hog(10)], { pcpus: 2 });
    simulation.run(60 * SECOND);
    const [heavy, ...light] = simulation.tasks.map(({ ran }) => ran / (60 * SECOND));
    expect(heavy).toBeGreaterThan(0.97);
    for (const share of light) expect(share).toBeCloseTo(1 / 3, 1);
  });

  it('pay no debts of the time in which nobody waited', () => {
    // The heavy one runs alone for a long time; whoever joins it then gets its share from the start.
    const late = { ...hog(10), start: 100 * SECOND, pcpus: [0] };
    const simulation = new Simulation([{ ...hog(1), pcpus: [0] }, hog(10), late], { pcpus: 2 });
    simulation.run(102 * SECOND);
    expect(simulation.tasks[2]!.ran / (2 * SECOND)).toBeGreaterThan(0.05);
  });

  it('are never idle while somebody waits who may run there', () => {
    const taskArb: fc.Arbitrary<TaskSpec> = fc.record(
      {
        parameters: fc.record({ mcuAdvance: fc.integer({ min: 1, max: 30 }) }),
        run: fc.integer({ min: 50_000, max: 30 * MS }),
        sleep: fc.integer({ min: 50_000, max: 60 * MS }),
        pcpus: fc.constantFrom([0], [1], [0, 1]),
      },
      { requiredKeys: ['parameters'] },
    );
    const property = fc.property(fc.array(taskArb, { minLength: 2, maxLength: 10 }), (specs) => {
      const simulation = new Simulation(specs, { pcpus: 2 });
      simulation.run(2 * SECOND);
      expect(simulation.wasted).toBe(0);
    });
    fc.assert(property, { numRuns: RUNS });
  });

  it('run a pinned one only where it may, and the others around it', () => {
    const specs = [hog(10), hog(10), hog(10), hog(10)].map((spec) => ({ ...spec, pcpus: [1] }));
    const simulation = new Simulation([...specs, hog(10)], { pcpus: 3 });
    simulation.run(20 * SECOND, () => {
      if (specs.some((_, index) => simulation.tasks[index]!.pcpu !== 1)) expect.fail('a pinned task moved');
    });
    for (const { ran } of simulation.tasks.slice(0, 4)) expect(ran / (20 * SECOND)).toBeCloseTo(0.25, 2);
    expect(simulation.tasks[4]!.ran / (20 * SECOND)).toBeGreaterThan(0.99);
  });

  it('move tasks no more often than fairness asks', () => {
    const even = new Simulation(
      Array.from({ length: 8 }, () => hog(10)),
      { pcpus: 4 },
    );
    even.run(10 * SECOND);
    expect(even.tasks.reduce((sum, { moves }) => sum + moves, 0)).toBe(0);
    const odd = new Simulation(
      Array.from({ length: 3 }, () => hog(10)),
      { pcpus: 2 },
    );
    odd.run(10 * SECOND);
    const moves = odd.tasks.reduce((sum, task) => sum + task.moves, 0);
    expect(moves).toBeGreaterThan(0);
    expect(moves).toBeLessThan(10 * 20);
  });
});
