/**
 * Forks of forks, each doing at random what a guest may do to its memory: every domain reads what it wrote itself
 * (or what was there when it was forked), and never what another one wrote.
 */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { Domain } from './domain.ts';
import { FrameType } from './mm/frame-table.ts';
import { mmuUpdate } from './mm/mmu-update.ts';
import { mmuextOp } from './mm/mmuext.ts';
import { entryLow, hypercall, PAGE_RO, PAGE_RW } from './mm/testing.ts';
import { MMUEXT } from './public/mmu.ts';
import { DOMID } from './public/xen.ts';
import { PAGES, type TestSystem, testGuest, testSystem, va } from './testing.ts';

const RUNS = Number(process.env['PROPERTY_RUNS'] ?? 25);
/** Pages that are played with; those above hold arguments. */
const FIRST = 10;
const LAST = 19;
const ARGUMENTS = 30;

type Step =
  | { do: 'write' | 'update' | 'hold'; which: number; page: number; value: number }
  | { do: 'clear' | 'table' | 'renew'; which: number; page: number }
  | { do: 'copy'; which: number; page: number; from: number }
  | { do: 'fork' | 'destroy'; which: number };

const which = fc.nat({ max: 5 });
const page = fc.integer({ min: FIRST, max: LAST });
const value = fc.integer({ min: 1, max: 0xffff });
const stepArb: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constantFrom('write' as const, 'update' as const, 'hold' as const),
      which,
      page,
      value,
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constantFrom('clear' as const, 'table' as const, 'renew' as const),
      which,
      page,
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('copy' as const), which, page, from: page }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('fork' as const, 'destroy' as const), which }) },
);

/** A domain and what it should find: the first word of each page, by page; and where its pages are. */
interface Model {
  readonly domain: Domain;
  readonly words: number[];
  readonly mfns: number[];
}

class World {
  readonly system: TestSystem;
  readonly models: Model[];

  constructor(system: TestSystem) {
    this.system = system;
    const { domain, mfns } = testGuest(system, [0xeb, 0xfe]);
    this.models = [{ domain, words: mfns.map(() => 0), mfns: [...mfns] }];
  }

  apply(step: Step): void {
    const { models } = this;
    const { control } = this.system.hypervisor;
    const model = models[step.which % models.length]!;
    const { domain, words, mfns } = model;
    const vcpu = domain.vcpus[0]!;
    switch (step.do) {
      case 'fork': {
        if (models.length >= 6) return;
        const child = this.system.hypervisor.domain(control.forkDomain(domain.id, []))!;
        models.push({ domain: child, words: [...words], mfns: [...mfns] });
        return;
      }
      case 'destroy':
        if (models.length === 1) return;
        models.splice(models.indexOf(model), 1);
        control.destroyDomain(domain.id);
        return;
      case 'write':
        vcpu.guest.setU32(va(step.page), step.value);
        words[step.page] = step.value;
        return;
      case 'update':
        // mmu_update of a page that is no table: a plain write.
        this.put(model, 0, mfns[step.page]! * 4096);
        this.put(model, 8, step.value);
        expect(hypercall(vcpu, mmuUpdate, va(ARGUMENTS), 1, 0, DOMID.SELF)).toBe(0);
        words[step.page] = step.value;
        return;
      case 'hold': {
        // As a grant in use: written to at its linear address.
        const mfn = mfns[step.page]!;
        domain.memory.getPageType(mfn, FrameType.writable);
        this.system.memory.write32(domain.memory.linear(mfn), step.value);
        domain.memory.putPageType(mfn);
        words[step.page] = step.value;
        return;
      }
      case 'clear':
        this.extended(model, MMUEXT.CLEAR_PAGE, mfns[step.page]!, 0);
        words[step.page] = 0;
        return;
      case 'copy':
        this.extended(model, MMUEXT.COPY_PAGE, mfns[step.page]!, mfns[step.from]!);
        words[step.page] = words[step.from]!;
        return;
      case 'table':
        this.asTable(model, step.page);
        return;
      case 'renew':
        this.renew(model, step.page);
    }
  }

  check(): void {
    const { models } = this;
    for (const { domain, words } of models) {
      expect(domain.crashReason).toBeNull();
      expect(domain.memory.checkInvariants()).toEqual([]);
      const { guest } = domain.vcpus[0]!;
      const found = words.slice(FIRST, LAST + 1).map((_, index) => guest.u32(va(FIRST + index)));
      expect(found).toEqual(words.slice(FIRST, LAST + 1));
    }
  }

  end(): void {
    const { control } = this.system.hypervisor;
    for (const { domid } of control.listDomains()) control.destroyDomain(domid);
  }

  /** A page is a page table for a while, and loses its contents before. */
  private asTable(model: Model, page: number): void {
    const { domain, words, mfns } = model;
    const mfn = mfns[page]!;
    this.extended(model, MMUEXT.CLEAR_PAGE, mfn, 0);
    words[page] = 0;
    this.map(model, page, mfn, PAGE_RO);
    expect(domain.memory.pin(mfn, FrameType.l1)).toBe(0);
    expect(domain.memory.pageTables.update(mfn, 3, entryLow(mfns[FIRST]!, PAGE_RO), 0)).toBe(0);
    expect(domain.memory.pageTables.update(mfn, 3, 0, 0)).toBe(0);
    expect(domain.memory.unpin(mfn)).toBe(0);
    this.map(model, page, mfn, PAGE_RW);
  }

  /** A page is given back, and another one comes in its place. */
  private renew(model: Model, page: number): void {
    const { domain, words, mfns } = model;
    this.map(model, page, 0, 0);
    expect(domain.memory.giveBack(mfns[page]!)).toBe(true);
    mfns[page] = domain.memory.populate(1)[0]!;
    this.map(model, page, mfns[page]!, PAGE_RW);
    words[page] = 0;
  }

  private map({ domain, mfns }: Model, page: number, mfn: number, flags: number): void {
    const entry = flags === 0 ? 0 : entryLow(mfn, flags);
    expect(domain.memory.pageTables.update(mfns[3]!, page, entry, 0)).toBe(0);
  }

  private extended(model: Model, command: number, arg1: number, arg2: number): void {
    this.put(model, 0, command);
    this.put(model, 8, arg1);
    this.put(model, 16, arg2);
    expect(hypercall(model.domain.vcpus[0]!, mmuextOp, va(ARGUMENTS), 1, 0, DOMID.SELF)).toBe(0);
  }

  private put({ domain }: Model, offset: number, value: number): void {
    domain.vcpus[0]!.guest.setNumber64(va(ARGUMENTS, offset), value);
  }
}

it('never shows a domain what another one wrote', () => {
  const system = testSystem();
  const free = system.frames.free;
  let world: World | null = null;
  const property = fc
    .property(fc.array(stepArb, { minLength: 5, maxLength: 60 }), (steps) => {
      world = new World(system);
      world.models[0]!.domain.pause();
      expect(PAGES).toBeGreaterThan(ARGUMENTS);
      for (const step of steps) {
        world.apply(step);
        world.check();
      }
    })
    .afterEach(() => {
      world?.end();
      expect(system.frames.free).toBe(free);
    });
  fc.assert(property, { numRuns: RUNS });
});
