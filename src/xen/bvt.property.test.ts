/** What Borrowed Virtual Time promises, on random sets of tasks in simulated time. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MCU } from './bvt.ts';
import { Simulation, type Task, type TaskSpec } from './bvt-testing.ts';

const MS = 1_000_000;
const SECOND = 1000 * MS;
const RUNS = Number(process.env['PROPERTY_RUNS'] ?? 60);

const allowanceArb = fc.constantFrom(0, MCU, 1 * MS, 5 * MS, 7_777_777, 50 * MS);
const advanceArb = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constantFrom(2.56, 0.5, 1000));
const hogArb: fc.Arbitrary<TaskSpec> = fc.record({
  parameters: fc.record({ mcuAdvance: advanceArb }),
  start: fc.integer({ min: 0, max: 40 * MS }),
});
const sleeperArb: fc.Arbitrary<TaskSpec> = fc.record({
  parameters: fc.record({ mcuAdvance: advanceArb }),
  start: fc.integer({ min: 0, max: 40 * MS }),
  run: fc.integer({ min: 20_000, max: 30 * MS }),
  sleep: fc.integer({ min: 20_000, max: 200 * MS }),
});
const taskArb = fc.oneof(hogArb, sleeperArb);
const warpArb = fc.record({
  warpback: fc.boolean(),
  warpValue: fc.integer({ min: 0, max: 5000 }),
  warpLimit: fc.constantFrom(0, 1 * MS, 20 * MS, 2 * SECOND),
  unwarpTime: fc.constantFrom(0, 1 * MS, 100 * MS),
});
const warpingArb = fc
  .tuple(taskArb, warpArb)
  .map(([task, warp]): TaskSpec => ({ ...task, parameters: { ...task.parameters, ...warp } }));

const m = (task: Task) => task.entry.parameters.mcuAdvance;
/** How far one entry may be ahead of the first, in its own virtual time. */
const bound = (task: Task, allowance: number) => (Math.max(allowance, MCU) / MCU + 1) * m(task);

describe('Borrowed Virtual Time', () => {
  it('shares the processor by weight: below 1 % of error over a long window', () => {
    const property = fc.property(
      fc.array(fc.integer({ min: 2, max: 24 }), { minLength: 2, maxLength: 8 }),
      allowanceArb,
      (advances, allowance) => {
        const specs = advances.map((mcuAdvance) => ({ parameters: { mcuAdvance: mcuAdvance / 2 } }));
        const simulation = new Simulation(specs, { allowance });
        const { tasks } = simulation;
        simulation.run(50 * MS);
        const before = tasks.map(({ ran }) => ran);
        const weights = tasks.reduce((sum, task) => sum + 1 / m(task), 0);
        // Long enough that what the bound allows is a third of a per cent of the smallest share.
        const longest = Math.max(...tasks.map((task) => m(task) * weights));
        const window = 300 * 2 * (Math.max(allowance, MCU) + MCU) * longest;
        simulation.run(50 * MS + window);
        tasks.forEach((task, index) => {
          const share = (task.ran - before[index]!) / window;
          expect(share * m(task) * weights).toBeGreaterThan(0.99);
          expect(share * m(task) * weights).toBeLessThan(1.01);
        });
      },
    );
    fc.assert(property, { numRuns: Math.ceil(RUNS / 3) });
  });

  it('keeps everybody within the allowance and one MCU of the first, and so starves nobody', () => {
    const property = fc.property(
      fc.array(taskArb, { minLength: 1, maxLength: 10 }),
      allowanceArb,
      (specs, allowance) => {
        const simulation = new Simulation(specs, { allowance });
        const { bvt, tasks } = simulation;
        simulation.run(2 * SECOND, () => {
          const first = Math.min(...bvt.waiting.map((entry) => entry.avt));
          const ahead = tasks.filter(
            (task) => task.entry.runnable && task.entry.avt - first > bound(task, allowance) + 1e-6,
          );
          if (ahead.length > 0) expect(ahead).toEqual([]);
        });
        for (const task of tasks) if (task.spec.run === undefined) expect(task.ran).toBeGreaterThan(0);
      },
    );
    fc.assert(property, { numRuns: RUNS });
  });

  it('gives one that never sleeps its share, whatever others do: sleeping, waking and warping', () => {
    const property = fc.property(
      fc.array(warpingArb, { minLength: 1, maxLength: 8 }),
      advanceArb,
      allowanceArb,
      (specs, mcuAdvance, allowance) => {
        const simulation = new Simulation([{ parameters: { mcuAdvance } }, ...specs], { allowance });
        const { tasks } = simulation;
        const [victim, ...others] = tasks as [Task, ...Task[]];
        simulation.run(3 * SECOND);
        const entitled = victim.entry.avt;
        for (const task of others) {
          // It may have borrowed W, and no more than that.
          const { warpback, warpValue } = task.entry.parameters;
          const borrowed = warpback ? warpValue : 0;
          const used = (task.ran / MCU) * m(task);
          expect(used).toBeLessThanOrEqual(entitled + borrowed + bound(task, allowance) + bound(victim, 0));
        }
      },
    );
    fc.assert(property, { numRuns: RUNS });
  });

  it('never lets the processor idle while somebody is runnable', () => {
    const property = fc.property(
      fc.array(warpingArb, { minLength: 1, maxLength: 8 }),
      allowanceArb,
      (specs, c) => {
        const simulation = new Simulation([...specs, {}], { allowance: c });
        simulation.run(SECOND);
        const total = simulation.tasks.reduce((sum, { ran }) => sum + ran, 0);
        expect(total).toBe(SECOND);
      },
    );
    fc.assert(property, { numRuns: RUNS });
  });

  it('runs one that wakes after the allowance at the latest', () => {
    const property = fc.property(
      fc.array(fc.integer({ min: 1, max: 10 }), { minLength: 1, maxLength: 20 }),
      fc.integer({ min: 1, max: 10 }),
      fc.integer({ min: 100, max: 200 }),
      allowanceArb,
      (advances, mcuAdvance, sleep, allowance) => {
        // It sleeps for so long that what it used the last time is forgotten: each of the others had its turns.
        const longest = (sleep / 100) * (advances.length + 2) * (Math.max(allowance, MCU) + 2 * MCU) * 10;
        const ping: TaskSpec = { parameters: { mcuAdvance }, start: longest, run: MCU / 2, sleep: longest };
        const hogs = advances.map((advance) => ({ parameters: { mcuAdvance: advance } }));
        const simulation = new Simulation([ping, ...hogs], { allowance });
        simulation.run(10 * longest);
        const [task] = simulation.tasks as [Task];
        expect(task.wakes).toBeGreaterThan(5);
        expect(task.longestWait).toBeLessThanOrEqual(Math.max(allowance, MCU) + MCU);
      },
    );
    fc.assert(property, { numRuns: RUNS });
  });

  it('dispatches one that wakes warped before all that are not, at once', () => {
    const property = fc.property(
      fc.array(hogArb, { minLength: 1, maxLength: 20 }),
      allowanceArb,
      (specs, c) => {
        const parameters = { warpback: true, warpValue: 1e7, warpLimit: 0 };
        const ping: TaskSpec = { parameters, start: 50 * MS, run: 30_000, sleep: 20 * MS };
        const simulation = new Simulation([ping, ...specs], { allowance: c });
        simulation.run(2 * SECOND);
        const [task] = simulation.tasks as [Task];
        expect(task.wakes).toBeGreaterThan(90);
        expect(task.longestWait).toBeLessThanOrEqual(MCU);
      },
    );
    fc.assert(property, { numRuns: RUNS });
  });

  it('keeps the limits of warping', () => {
    const property = fc.property(
      fc.array(warpingArb, { minLength: 2, maxLength: 6 }),
      allowanceArb,
      (specs, allowance) => {
        const simulation = new Simulation(specs, { allowance });
        const limited = simulation.tasks
          .filter(({ entry: { parameters } }) => parameters.warpLimit > 0 && parameters.unwarpTime > 0)
          .map((task) => ({ task, least: 0, exhaustedAt: Number.NaN }));
        simulation.run(SECOND, () => {
          for (const each of limited) {
            const { parameters, exhausted } = each.task.entry;
            const { warpLimit, unwarpTime } = parameters;
            // Over any window: L, and what U brings back.
            const over = each.task.warpedFor - simulation.now * (warpLimit / unwarpTime);
            each.least = Math.min(each.least, over);
            if (over - each.least > warpLimit + 2) expect(over - each.least).toBeLessThanOrEqual(warpLimit);
            // Once L is used up it does not warp for U.
            if (exhausted && Number.isNaN(each.exhaustedAt)) each.exhaustedAt = simulation.now;
            if (!exhausted && !Number.isNaN(each.exhaustedAt)) {
              expect(simulation.now - each.exhaustedAt).toBeGreaterThanOrEqual(unwarpTime - 2);
              each.exhaustedAt = Number.NaN;
            }
          }
        });
      },
    );
    fc.assert(property, { numRuns: RUNS });
  });

  it('makes the same choices whatever its virtual times are', () => {
    const integers = fc.record({
      parameters: fc.record({ mcuAdvance: fc.integer({ min: 1, max: 1000 }) }),
      run: fc.integer({ min: 20_000, max: 30 * MS }),
      sleep: fc.integer({ min: 20_000, max: 200 * MS }),
    });
    const property = fc.property(
      fc.array(integers, { minLength: 2, maxLength: 8 }),
      allowanceArb,
      (specs, c) => {
        const tasks: TaskSpec[] = [...specs, { parameters: { mcuAdvance: 7 } }];
        const plain = new Simulation(tasks, { allowance: c });
        const rebased = new Simulation(tasks, { allowance: c, rebaseAt: 100 });
        plain.run(SECOND);
        rebased.run(SECOND);
        expect(rebased.trace).toEqual(plain.trace);
        expect(rebased.tasks.map(({ ran }) => ran)).toEqual(plain.tasks.map(({ ran }) => ran));
        expect(rebased.bvt.virtualTime).toBe(plain.bvt.virtualTime);
      },
    );
    fc.assert(property, { numRuns: RUNS });
  });
});
