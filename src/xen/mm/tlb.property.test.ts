/**
 * Random changes of page tables, loads of roots and accesses, on the real processor. After each step everything that
 * any of its TLBs holds is looked up anew in the page tables: nothing may be stale (x86/core/tlb-pool.ts).
 */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { Frames } from '../../machine/frames.ts';
import { Memory } from '../../machine/memory.ts';
import { createProcessor } from '../../x86/core/index.ts';
import type { VirtualAddress } from '../../x86/cpu.ts';
import { Access } from '../../x86/processor.ts';
import { HypercallError } from '../hypercall.ts';
import { Hypervisor } from '../hypervisor.ts';
import { PTE } from '../public/mmu.ts';
import { FrameType } from './frame-table.ts';
import { entryLow, PAGE_RO, PAGE_RW, poke, TABLE } from './testing.ts';
import { isTable, tableIndex } from './walk.ts';

/** More for a long run. */
const RUNS = Number(process.env['PROPERTY_RUNS'] ?? 25);
/** Pages: three trees (L4, L3, L2, L1 each), one for the upper half that all share (L3, L2, L1), and data. */
const SPACES = 3;
const UPPER = SPACES * 4;
const DATA = UPPER + 3;
const PAGES = DATA + 5;
const ROOTS = [0, 4, 8];
/** Where the pages of the upper half begin: at other places of a TLB than those of the lower half, at 0. */
const UPPER_HALF = -(2 ** 39) + 2 ** 21;
/** Few indices, so that steps meet; the last one of an L4 table is the shared upper half. */
const INDICES = [0, 1, 511];

const memory = Memory.create(64 * 2 ** 20);
const frames = new Frames(memory);
const host = { now: () => 0, wallclock: () => 0, random: () => {} };
let processor: ReturnType<typeof createProcessor> | undefined;
const hypervisor = new Hypervisor(
  memory,
  frames,
  (...parts) => {
    processor = createProcessor(...parts, { translate: false });
    return processor;
  },
  host,
);

const pageArb = fc.oneof(
  { weight: 3, arbitrary: fc.integer({ min: 0, max: PAGES - 1 }) },
  { weight: 2, arbitrary: fc.integer({ min: DATA, max: PAGES - 1 }) },
);
const tableArb = fc.integer({ min: 0, max: DATA - 1 });
const indexArb = fc.constantFrom(...INDICES);
const rootArb = fc.constantFrom(...ROOTS);
const flagsArb = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(PAGE_RO, PAGE_RW, TABLE) },
  { weight: 4, arbitrary: fc.constantFrom(PAGE_RO, PAGE_RW, TABLE).map((flags) => flags & ~PTE.ACCESSED) },
  { weight: 2, arbitrary: fc.constantFrom(0, PAGE_RW & ~PTE.USER, PAGE_RW | PTE.DIRTY) },
);
const highArb = fc.constantFrom(0, 0, 0x8000_0000);
/** Mostly below the tables that there are in the beginning. */
const innerArb = fc.oneof({ weight: 6, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: indexArb });
const vaArb = fc.tuple(fc.boolean(), innerArb, innerArb, indexArb).map(([upper, i3, i2, i1]) => {
  const l2 = upper && i2 < 2 ? 1 - i2 : i2;
  return (upper ? -(2 ** 39) : 0) + i3 * 2 ** 30 + l2 * 2 ** 21 + i1 * 2 ** 12;
});
const cpuArb = fc.integer({ min: 0, max: 1 });

const stepArb = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      do: fc.constant('touch' as const),
      cpu: cpuArb,
      va: vaArb,
      supervisor: fc.boolean(),
      access: fc.constantFrom(Access.Read, Access.Write, Access.Fetch),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('update' as const),
      table: tableArb,
      index: indexArb,
      page: pageArb,
      flags: flagsArb,
      high: highArb,
    }),
  },
  // Whatever is mapped in the beginning, in both modes.
  { weight: 5, arbitrary: fc.record({ do: fc.constant('fill' as const), cpu: cpuArb }) },
  // An entry of a place that an address has, found from a root.
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('change' as const),
      root: rootArb,
      va: vaArb,
      level: fc.integer({ min: 1, max: 4 }),
      page: fc.option(pageArb),
      flags: flagsArb,
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('change' as const),
      root: rootArb,
      va: vaArb,
      level: fc.constantFrom(4, 4, 3, 2),
      page: fc.constant(null),
      flags: fc.constant(0),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('load' as const),
      cpu: cpuArb,
      kernel: rootArb,
      user: fc.option(rootArb),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('pin' as const), root: rootArb }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('unpin' as const), root: rootArb }) },
);

function machine() {
  const domain = hypervisor.createDomain(64, 2, null);
  const { memory: dm } = domain;
  const mfns = dm.populate(PAGES);
  const set = (table: number, index: number, page: number, flags: number) =>
    poke(dm, mfns[table]!, index, entryLow(mfns[page]!, flags));
  const tree = (l3: number, data: number, index2 = 0) => {
    set(l3, 0, l3 + 1, TABLE & ~PTE.ACCESSED);
    set(l3 + 1, index2, l3 + 2, TABLE & ~PTE.ACCESSED);
    for (const index of INDICES) set(l3 + 2, index, data + (index & 3), PAGE_RW & ~PTE.ACCESSED);
  };
  for (const root of ROOTS) {
    set(root, 0, root + 1, TABLE & ~PTE.ACCESSED);
    set(root, 511, UPPER, TABLE & ~PTE.ACCESSED);
    tree(root + 1, DATA);
  }
  tree(UPPER, DATA + 1, 1);
  for (const root of ROOTS) expect(dm.pin(mfns[root]!, FrameType.l4)).toBe(0);
  for (const vcpu of domain.vcpus) dm.loadRoots(vcpu, mfns[0]!, mfns[0]!);

  /** The walk of the manual, in words of its own: null, or what it allows. */
  const walk = (root: number, va: VirtualAddress, supervisor: boolean) => {
    let mfn = root;
    let [writable, user, executable, dirty] = [true, true, true, false];
    for (let level = 4; level >= 1; level--) {
      const at = dm.linear(mfn) / 4 + tableIndex(va, level) * 2;
      const [low, high] = [memory.u32[at]!, memory.u32[at + 1]!];
      if (!(low & PTE.PRESENT)) return null;
      writable &&= (low & PTE.RW) !== 0;
      user &&= (low & PTE.USER) !== 0;
      executable &&= high >>> 31 === 0;
      dirty = (low & PTE.DIRTY) !== 0;
      mfn = dm.pageTables.frameOf(low, high);
      if (dm.machineFrame(mfn) === 0) return null;
    }
    if (!user && !supervisor) return null;
    return { frame: dm.machineFrame(mfn), writable: writable && dirty, executable };
  };
  const stale = (held: ReturnType<NonNullable<typeof processor>['tlbEntries']>) =>
    held.filter(({ space, root, supervisor, va, frame, writable, executable }) => {
      if (space !== domain.space || dm.table.type(root) !== FrameType.l4) return true;
      if (dm.table.typeCounts[root] === 0) return true;
      const now = walk(root, va, supervisor);
      return (
        now === null || now.frame !== frame || (writable && !now.writable) || (executable && !now.executable)
      );
    });
  return { domain, dm, mfns, stale };
}

type Machine = ReturnType<typeof machine>;

function carryOut(
  { domain, dm, mfns }: Machine,
  step: typeof stepArb extends fc.Arbitrary<infer T> ? T : never,
) {
  switch (step.do) {
    case 'touch': {
      const { cpu } = domain.vcpus[step.cpu]!;
      processor!.setMode(cpu, step.supervisor);
      processor!.translate(cpu, step.va, step.access);
      return;
    }
    case 'fill':
      for (const supervisor of [false, true])
        for (const half of [UPPER_HALF, 0])
          for (const index of INDICES) {
            const { cpu } = domain.vcpus[step.cpu]!;
            processor!.setMode(cpu, supervisor);
            processor!.translate(cpu, half + index * 4096, Access.Write);
          }
      return;
    case 'update': {
      const table = mfns[step.table]!;
      const level = dm.table.type(table);
      if (level < FrameType.l1 || level > FrameType.l4 || !isTable(dm, table, level)) return;
      dm.pageTables.update(table, step.index, entryLow(mfns[step.page]!, step.flags), step.high);
      return;
    }
    case 'change': {
      let table = mfns[step.root]!;
      for (let level = 4; level > step.level; level--) {
        const at = dm.linear(table) / 4 + tableIndex(step.va, level) * 2;
        if (!(memory.u32[at]! & PTE.PRESENT)) return;
        table = memory.u32[at]! >>> 12;
      }
      const level = dm.table.type(table);
      if (level < FrameType.l1 || level > FrameType.l4 || !isTable(dm, table, level)) return;
      const index = tableIndex(step.va, step.level);
      const at = dm.linear(table) / 4 + index * 2;
      const frame = step.page === null ? memory.u32[at]! >>> 12 : mfns[step.page]!;
      dm.pageTables.update(table, index, step.flags === 0 ? 0 : entryLow(frame, step.flags), 0);
      return;
    }
    case 'load':
      try {
        dm.loadRoots(domain.vcpus[step.cpu]!, mfns[step.kernel]!, step.user === null ? 0 : mfns[step.user]!);
      } catch (error) {
        if (!(error instanceof HypercallError)) throw error;
      }
      return;
    case 'pin':
      dm.pin(mfns[step.root]!, FrameType.l4);
      return;
    case 'unpin':
      dm.unpin(mfns[step.root]!);
  }
}

it('TLBs hold nothing that the page tables do not say', () => {
  let seen = 0;
  fc.assert(
    fc.property(fc.array(stepArb, { maxLength: 80, size: 'max' }), (steps) => {
      const made = machine();
      try {
        for (const step of steps) {
          carryOut(made, step);
          const held = processor!.tlbEntries();
          expect(made.stale(held)).toEqual([]);
          seen = Math.max(seen, held.length);
        }
        expect(made.dm.checkInvariants()).toEqual([]);
      } finally {
        hypervisor.destroyDomain(made.domain);
      }
      expect(processor!.tlbEntries()).toEqual([]);
    }),
    { numRuns: RUNS },
  );
  // The steps do meet: TLBs were not simply empty.
  expect(seen).toBeGreaterThan(8);
});

it('a root that is none any more leaves nothing behind', () => {
  const made = machine();
  const { domain, dm, mfns, stale } = made;
  const [first, second] = [mfns[ROOTS[0]!]!, mfns[ROOTS[1]!]!];
  carryOut(made, { do: 'load', cpu: 0, kernel: 0, user: ROOTS[1]! });
  carryOut(made, { do: 'fill', cpu: 0 });
  const of = (root: number) => processor!.tlbEntries().filter((entry) => entry.root === root);
  expect(of(second).length).toBeGreaterThan(2);
  expect(dm.unpin(second)).toBe(0);
  expect(of(second).length).toBeGreaterThan(2);
  carryOut(made, { do: 'load', cpu: 0, kernel: 0, user: 0 });
  expect(of(second)).toEqual([]);
  expect(of(first).length).toBeGreaterThan(2);
  expect(stale(processor!.tlbEntries())).toEqual([]);
  hypervisor.destroyDomain(domain);
});

it('the upper half stays with another root of the same, and goes with its entry in that one', () => {
  const made = machine();
  const { domain, dm, mfns } = made;
  carryOut(made, { do: 'fill', cpu: 0 });
  const upper = () => processor!.tlbEntries().filter(({ supervisor, va }) => supervisor && va < 0).length;
  expect(upper()).toBe(3);
  carryOut(made, { do: 'load', cpu: 0, kernel: ROOTS[1]!, user: null });
  expect(upper()).toBe(3);
  expect(processor!.tlbEntries().filter(({ supervisor, va }) => supervisor && va >= 0)).toEqual([]);
  // No walk went through this root's entry itself.
  expect(dm.pageTables.update(mfns[ROOTS[1]!]!, 511, 0, 0)).toBe(0);
  expect(upper()).toBe(0);
  // Of different upper halves, neither has the other's.
  carryOut(made, { do: 'load', cpu: 0, kernel: ROOTS[0]!, user: null });
  carryOut(made, { do: 'fill', cpu: 0 });
  expect(upper()).toBe(3);
  carryOut(made, { do: 'load', cpu: 0, kernel: ROOTS[1]!, user: null });
  expect(upper()).toBe(0);
  hypervisor.destroyDomain(domain);
});
