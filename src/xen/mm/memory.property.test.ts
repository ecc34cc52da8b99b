/**
 * Random and structured sequences of everything that a guest may do to its memory. After each step all types and
 * counts are worked out anew, no TLB allows what the domain may not do, and no machine frame is lost or doubled.
 */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { Access } from '../../x86/processor.ts';
import { HypercallError } from '../hypercall.ts';
import { memoryOp } from '../memory-op.ts';
import { ERRNO } from '../public/errno.ts';
import { XENMEM } from '../public/memory.ts';
import { MMU, MMUEXT, PTE, UVMF } from '../public/mmu.ts';
import { DOMID } from '../public/xen.ts';
import { FrameType, PINNED } from './frame-table.ts';
import { mmuUpdate, updateVaMapping } from './mmu-update.ts';
import { mmuextOp } from './mmuext.ts';
import { handlePageTableWrite } from './page-table-write.ts';
import {
  addVcpu,
  type Booted,
  boot,
  DIRECT_MAP,
  emptyMachine,
  entryLow,
  hypercall,
  PAGE_RO,
  PAGE_RW,
  TABLE,
  type TestMachine,
  testMachine,
} from './testing.ts';

/** More for a long run. */
const RUNS = Number(process.env['PROPERTY_RUNS'] ?? 150);
const MEGABYTES = 4;
const PAGES = 28;
/** Page of the direct map that holds the arguments, and the guest leaves alone (mostly). */
const ARGUMENTS_PFN = 20;
const ARGUMENTS = DIRECT_MAP + ARGUMENTS_PFN * 4096;

/** A frame to name: one of the domain's, one it could get, one of the hypervisor's, or garbage. */
type Frame = { of: 'page'; pfn: number } | { of: 'number'; mfn: number } | { of: 'xen'; offset: number };
const pageArb: fc.Arbitrary<Frame> = fc.record({
  of: fc.constant('page' as const),
  pfn: fc.integer({ min: 0, max: 13 }),
});
const frameArb: fc.Arbitrary<Frame> = fc.oneof(
  { weight: 20, arbitrary: pageArb },
  {
    weight: 2,
    arbitrary: fc.record({ of: fc.constant('xen' as const), offset: fc.integer({ min: 0, max: 1100 }) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ of: fc.constant('number' as const), mfn: fc.integer({ min: 0, max: 0xfffff }) }),
  },
);

type Entry = { frame: Frame; flags: number; high: number };
const flagsArb = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(PAGE_RO, PAGE_RW, TABLE, TABLE & ~PTE.RW) },
  { weight: 3, arbitrary: fc.constantFrom(PAGE_RO, PAGE_RW, TABLE).map((flags) => flags & ~PTE.ACCESSED) },
  { weight: 2, arbitrary: fc.constant(0) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 0xfff }) },
);
const highArb = fc.oneof(
  { weight: 12, arbitrary: fc.constantFrom(0, 0x80000000) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 0xffffffff }) },
);
const entryArb: fc.Arbitrary<Entry> = fc.record({ frame: frameArb, flags: flagsArb, high: highArb });

/** Few indices, so that steps meet: low ones, those in use by the direct map, the hypervisor's, the last. */
const indexArb = fc.constantFrom(0, 0, 1, 2, 3, 5, 8, 256, 258, 271, 272, 300, 510, 511);
const vaArb = fc.oneof(
  { weight: 10, arbitrary: fc.integer({ min: 0, max: 15 }).map((page) => DIRECT_MAP + page * 4096) },
  { weight: 1, arbitrary: fc.integer({ min: -(2 ** 48), max: 2 ** 48 }) },
  { weight: 1, arbitrary: fc.constantFrom(-(2 ** 47), 0, 4096, DIRECT_MAP + 40 * 4096) },
);

const stepArb = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('mmu_update' as const),
      table: frameArb,
      index: indexArb,
      command: fc.constantFrom<number>(...Object.values(MMU), MMU.NORMAL_PT_UPDATE, 5),
      entry: entryArb,
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant('store' as const), va: vaArb, index: indexArb, entry: entryArb }),
  },
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant('protect' as const), pfn: fc.integer({ min: 0, max: 13 }) }),
  },
  {
    // What a kernel does to make a page table: fill a page, write-protect it, pin it.
    weight: 10,
    arbitrary: fc.record({
      do: fc.constant('table' as const),
      pfn: fc.integer({ min: 0, max: 13 }),
      level: fc.integer({ min: 1, max: 4 }),
      entries: fc.array(fc.record({ index: indexArb, pick: fc.nat(20), flags: flagsArb }), { maxLength: 4 }),
      flush: fc.boolean(),
    }),
  },
  {
    // A table of one level names another of it.
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('linear' as const),
      from: fc.nat(20),
      to: fc.nat(20),
      index: indexArb,
      flags: fc.constantFrom(PAGE_RO, PAGE_RO, PAGE_RO, 0, PAGE_RW),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('unpin' as const), pick: fc.nat(20) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('unmap' as const),
      pfn: fc.integer({ min: 0, max: 13 }),
      exchange: fc.boolean(),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('mmuext' as const),
      command: fc.oneof(
        {
          weight: 6,
          arbitrary: fc.constantFrom<number>(
            MMUEXT.PIN_L1_TABLE,
            MMUEXT.PIN_L2_TABLE,
            MMUEXT.PIN_L3_TABLE,
            MMUEXT.PIN_L4_TABLE,
            MMUEXT.UNPIN_TABLE,
          ),
        },
        { weight: 2, arbitrary: fc.constantFrom<number>(MMUEXT.NEW_BASEPTR, MMUEXT.NEW_USER_BASEPTR) },
        { weight: 2, arbitrary: fc.integer({ min: 0, max: 25 }) },
      ),
      frame: frameArb,
      other: frameArb,
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('update_va' as const),
      va: vaArb,
      entry: entryArb,
      flags: fc.constantFrom(0, 0, 1, 2, 5, 6, 3, 4097, 4098),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('decrease' as const),
      frame: frameArb,
      order: fc.constantFrom(0, 0, 0, 1, 10),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('increase' as const),
      count: fc.integer({ min: 0, max: 4 }),
      order: fc.constantFrom(0, 0, 1, 3),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('exchange' as const),
      frames: fc.array(frameArb, { minLength: 1, maxLength: 4 }),
      order: fc.constantFrom(0, 1, 2),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('hold' as const),
      frame: frameArb,
      type: fc.constantFrom<FrameType>(...Object.values(FrameType)),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('put' as const) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('garbage' as const),
      words: fc.array(fc.integer({ min: 0, max: 0xffffffff }), { minLength: 12, maxLength: 12 }),
      args: fc.array(fc.integer({ min: -(2 ** 33), max: 2 ** 33 }), { minLength: 4, maxLength: 4 }),
      which: fc.constantFrom(0, 1, 2, 3),
    }),
  },
);
type Step = typeof stepArb extends fc.Arbitrary<infer T> ? T : never;

class Run {
  readonly machine: TestMachine = testMachine({ megabytes: MEGABYTES, maxPages: 40 });
  readonly booted: Booted;
  readonly pages: number[];
  readonly holds: { mfn: number; typed: boolean }[] = [];
  readonly done = new Map<string, number>();
  private readonly conserved: number;

  constructor() {
    addVcpu(this.machine.domain, this.machine.processor);
    this.booted = boot(this.machine, PAGES);
    this.pages = this.booted.pages.slice();
    this.conserved = this.frames;
  }

  get memory() {
    return this.machine.domain.memory;
  }

  /** Free frames of the machine and those of the domain. */
  private get frames(): number {
    return this.machine.frames.free + this.memory.totalPages;
  }

  mfn(frame: Frame): number {
    if (frame.of === 'page') return this.pages[frame.pfn]!;
    return frame.of === 'number' ? frame.mfn : this.memory.sharedInfoMfn + frame.offset;
  }

  entry({ frame, flags, high }: Entry): [number, number] {
    return [entryLow(this.mfn(frame), flags), high];
  }

  /** Puts words where a hypercall finds them; maps the place again if the steps have lost it. */
  arguments(words: readonly number[]): number {
    const { domain, vcpu } = this.machine;
    const mfn = this.pages[ARGUMENTS_PFN]!;
    if (vcpu.kernelRoot !== this.booted.l4) {
      try {
        domain.memory.loadRoots(vcpu, this.booted.l4, vcpu.userRoot);
      } catch (error) {
        if (!(error instanceof HypercallError)) throw error;
      }
    }
    if (domain.memory.owns(mfn)) this.machine.memory.u32.set(words, domain.memory.linear(mfn) / 4);
    return ARGUMENTS;
  }

  take(step: Step): number {
    const { vcpu, processor } = this.machine;
    const { memory } = this;
    switch (step.do) {
      case 'mmu_update': {
        const mfn = this.mfn(step.table);
        const at = this.arguments([
          ((mfn << 12) | (step.index * 8) | step.command) >>> 0,
          mfn >>> 20,
          ...this.entry(step.entry),
        ]);
        return hypercall(vcpu, mmuUpdate, at, 1, 0, DOMID.SELF);
      }
      case 'store': {
        const [low, high] = this.entry(step.entry);
        const va = step.va - (((step.va % 4096) + 4096) % 4096) + step.index * 8;
        const linear = processor.translate(vcpu.cpu, va, Access.Write);
        if (linear !== 0) {
          this.machine.memory.write32(linear, low);
          this.machine.memory.write32(linear + 4, high);
          return 0;
        }
        const bytes = new Uint8Array(new Uint32Array([low, high]).buffer);
        processor.store = { va, bytes };
        const { rip } = vcpu.cpu;
        const code = processor.faultCode(vcpu.cpu, va, Access.Write);
        const handled = handlePageTableWrite(vcpu, va, code);
        if (!handled) expect(vcpu.cpu.rip).toBe(rip);
        return handled ? 1 : -ERRNO.EFAULT;
      }
      case 'protect':
        return hypercall(
          vcpu,
          updateVaMapping,
          DIRECT_MAP + step.pfn * 4096,
          [entryLow(this.pages[step.pfn]!, PAGE_RO), 0],
          0,
        );
      case 'table':
        return this.makeTable(step.pfn, step.level, step.entries, step.flush);
      case 'linear': {
        const { table } = memory;
        const tables = this.pages.filter(
          (mfn) => table.typeCounts[mfn] !== 0 && table.type(mfn) <= FrameType.l4,
        );
        const from = tables[step.from % tables.length];
        if (from === undefined) return -1;
        const peers = tables.filter((mfn) => table.type(mfn) === table.type(from));
        const at = this.arguments([
          ((from << 12) | (step.index * 8)) >>> 0,
          0,
          entryLow(peers[step.to % peers.length]!, step.flags),
          0,
        ]);
        return hypercall(vcpu, mmuUpdate, at, 1, 0, DOMID.SELF);
      }
      case 'unpin': {
        const { table } = memory;
        const pinned = this.pages.filter((mfn) => table.states[mfn]! & PINNED);
        if (pinned.length === 0) return -1;
        const at = this.arguments([MMUEXT.UNPIN_TABLE, 0, pinned[step.pick % pinned.length]!, 0, 0, 0]);
        return hypercall(vcpu, mmuextOp, at, 1, 0, DOMID.SELF);
      }
      case 'unmap': {
        const result = hypercall(vcpu, updateVaMapping, DIRECT_MAP + step.pfn * 4096, 0, UVMF.INVLPG);
        return step.exchange ? this.exchange([this.pages[step.pfn]!], 0) : result;
      }
      case 'mmuext': {
        const at = this.arguments([step.command, 0, this.mfn(step.frame), 0, this.mfn(step.other), 0]);
        return hypercall(vcpu, mmuextOp, at, 1, 0, DOMID.SELF);
      }
      case 'update_va':
        return hypercall(vcpu, updateVaMapping, step.va, this.entry(step.entry), step.flags);
      case 'decrease':
        return this.reservation(XENMEM.decrease_reservation, [this.mfn(step.frame)], step.order);
      case 'increase': {
        const list = Array.from({ length: step.count }, (_, i) => 30 + i);
        const done = this.reservation(XENMEM.populate_physmap, list, step.order);
        for (let i = 0; i < done; i++) this.pages[i] = this.argument(16 + i * 2);
        return done;
      }
      case 'exchange':
        return this.exchange(
          step.frames.map((frame) => this.mfn(frame)),
          step.order,
        );
      case 'hold':
        try {
          const mfn = this.mfn(step.frame);
          if (step.type === FrameType.none) memory.getPage(mfn);
          else memory.getPageType(mfn, step.type);
          this.holds.push({ mfn, typed: step.type !== FrameType.none });
          return 0;
        } catch (error) {
          if (!(error instanceof HypercallError)) throw error;
          return -error.errno;
        }
      case 'put': {
        const hold = this.holds.pop();
        if (hold === undefined) return -1;
        if (hold.typed) memory.putPageType(hold.mfn);
        else memory.putPage(hold.mfn);
        return 0;
      }
      case 'garbage': {
        this.arguments(step.words);
        const handler = [mmuUpdate, mmuextOp, updateVaMapping, memoryOp][step.which]!;
        const [a, b, c, d] = step.args as [number, number, number, number];
        const count = step.which < 2 ? Math.abs(b) % 8 : b;
        return hypercall(
          vcpu,
          handler,
          step.which === 3 ? a : ARGUMENTS,
          step.which === 3 ? ARGUMENTS : count,
          c,
          d,
        );
      }
    }
  }

  private makeTable(
    pfn: number,
    level: number,
    entries: readonly { index: number; pick: number; flags: number }[],
    flush: boolean,
  ): number {
    const { vcpu, processor, memory: machineMemory } = this.machine;
    const { table } = this.memory;
    const va = DIRECT_MAP + pfn * 4096;
    const mfn = this.pages[pfn]!;
    const set = (flags: number) =>
      hypercall(vcpu, updateVaMapping, va, [entryLow(mfn, flags), 0], flush ? UVMF.INVLPG : UVMF.NONE);
    if (set(PAGE_RW) !== 0) return -1;
    const linear = processor.translate(vcpu.cpu, va, Access.Write);
    machineMemory.u8.fill(0, linear, linear + 4096);
    // Tables of the level below first, of the own level now and then; pages for an L1 table.
    const below = this.pages.filter((page) => table.typeCounts[page] !== 0 && table.type(page) === level - 1);
    const same = this.pages.filter((page) => table.typeCounts[page] !== 0 && table.type(page) === level);
    for (const { index, pick, flags } of entries) {
      const choice = level === 1 ? this.pages.slice(0, 14) : pick < 15 ? below : [...same, mfn];
      if (choice.length === 0) continue;
      const linearFlags = level > 1 && pick >= 15 ? flags & ~PTE.RW : flags;
      machineMemory.write32(linear + index * 8, entryLow(choice[pick % choice.length]!, linearFlags));
    }
    set(PAGE_RO);
    const at = this.arguments([MMUEXT.PIN_L1_TABLE + level - 1, 0, mfn, 0, 0, 0]);
    return hypercall(vcpu, mmuextOp, at, 1, 0, DOMID.SELF);
  }

  private exchange(inputs: readonly number[], order: number): number {
    const outputs = inputs.length >> order;
    const at = ARGUMENTS;
    this.arguments([
      ...[at + 128, inputs.length, 0].flatMap(u64),
      ...u64(DOMID.SELF),
      ...[at + 256, outputs].flatMap(u64),
      order,
      0,
      ...u64(DOMID.SELF),
      ...u64(0),
      ...Array.from({ length: 14 }, () => 0),
      ...inputs.flatMap(u64),
    ]);
    const result = hypercall(this.machine.vcpu, memoryOp, XENMEM.exchange, at);
    if (result !== 0) return result;
    inputs.forEach((old, i) => {
      const first = this.argument(64 + (i >> order) * 2);
      const pfn = this.pages.indexOf(old);
      if (pfn >= 0) this.pages[pfn] = first + (i & ((1 << order) - 1));
    });
    return 0;
  }

  check(): void {
    expect(this.memory.checkInvariants()).toEqual([]);
    expect(this.machine.processor.leaks(this.memory)).toEqual([]);
    expect(this.frames).toBe(this.conserved);
  }

  private argument(word: number): number {
    return this.machine.memory.u32[this.memory.linear(this.pages[ARGUMENTS_PFN]!) / 4 + word]!;
  }

  private reservation(command: number, list: readonly number[], order: number): number {
    const at = ARGUMENTS;
    this.arguments([
      ...u64(at + 64),
      ...u64(list.length),
      order,
      0,
      ...u64(DOMID.SELF),
      ...Array.from({ length: 8 }, () => 0),
      ...list.flatMap(u64),
    ]);
    return hypercall(this.machine.vcpu, memoryOp, command, at);
  }
}

function u64(value: number): [number, number] {
  return [value >>> 0, Math.floor(value / 2 ** 32) >>> 0];
}

it('keeps all types and counts through any sequence of operations', { timeout: 60_000 + RUNS * 100 }, () => {
  const outcomes = new Map<string, number>();
  // All frames but what the two vCPUs' own state takes.
  const pristine = emptyMachine(MEGABYTES).free - 2;
  fc.assert(
    fc.property(fc.array(stepArb, { minLength: 10, maxLength: 60, size: 'max' }), (steps) => {
      const run = new Run();
      run.check();
      for (const step of steps) {
        const result = run.take(step);
        const detail = 'command' in step ? ` ${step.command}` : 'level' in step ? ` ${step.level}` : '';
        const outcome = `${step.do}${detail} ${result < 0 ? 'refused' : 'done'}`;
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
        run.check();
      }
      const pages = run.memory.totalPages;
      const free = run.machine.frames.free;
      run.memory.destroy();
      expect(run.machine.frames.free).toBeGreaterThanOrEqual(free + pages - run.holds.length);
      for (const { mfn, typed } of run.holds) {
        if (typed) run.memory.putPageType(mfn);
        else run.memory.putPage(mfn);
      }
      expect(run.machine.frames.free).toBe(pristine);
    }),
    { numRuns: RUNS },
  );
  // The sequences are of use only if much of them succeeds.
  for (const command of [
    'mmu_update 0',
    'mmu_update 1',
    'mmu_update 2',
    'store',
    'protect',
    'mmuext 5',
    'mmuext 15',
    'update_va',
    'decrease',
    'increase',
    'unmap',
    'table 1',
    'table 2',
    'table 3',
    'table 4',
    'linear',
    'unpin',
    'hold',
  ])
    expect(outcomes.get(`${command} done`) ?? 0, command).toBeGreaterThan(0);
});
