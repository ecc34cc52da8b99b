/**
 * Memory as Domain 0 hands it out: whatever it asks for, every frame of the machine is free, or a domain's, or what
 * the hypervisor says it needs for a domain; and a machine that is full answers ENOMEM.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { HypercallError } from './hypercall.ts';
import { ERRNO } from './public/errno.ts';
import { type TestSystem, testSystem } from './testing.ts';

const RUNS = Number(process.env['PROPERTY_RUNS'] ?? 40);

type Step =
  | { do: 'create'; maxPages: number; vcpus: number }
  | { do: 'populate' | 'setMax'; which: number; pages: number }
  | { do: 'giveBack'; which: number; page: number }
  | { do: 'grants' | 'destroy'; which: number };

const which = fc.nat({ max: 7 });
const stepArb: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    do: fc.constant('create' as const),
    maxPages: fc.integer({ min: 1, max: 2000 }),
    vcpus: fc.integer({ min: 1, max: 5 }),
  }),
  fc.record({
    do: fc.constantFrom('populate' as const, 'setMax' as const),
    which,
    pages: fc.integer({ min: 1, max: 1500 }),
  }),
  fc.record({ do: fc.constant('giveBack' as const), which, page: fc.nat({ max: 1500 }) }),
  fc.record({ do: fc.constantFrom('grants' as const, 'destroy' as const), which }),
);

/** @returns the errno, or 0 */
function attempt(work: () => unknown): number {
  try {
    work();
    return 0;
  } catch (error) {
    if (error instanceof HypercallError) return error.errno;
    throw error;
  }
}

function apply({ hypervisor }: TestSystem, step: Step): number {
  const { control } = hypervisor;
  if (step.do === 'create')
    return attempt(() => control.createDomain({ maxPages: step.maxPages, vcpus: step.vcpus }));
  const domains = [...hypervisor.allDomains()];
  const domain = domains[step.which % Math.max(domains.length, 1)];
  if (domain === undefined) return 0;
  switch (step.do) {
    case 'populate':
      return attempt(() => control.populatePhysmap(domain.id, step.pages));
    case 'setMax':
      return attempt(() => control.setMaxMem(domain.id, step.pages));
    case 'giveBack':
      for (let mfn = step.page; mfn < step.page + 300; mfn++) domain.memory.giveBack(mfn);
      return 0;
    case 'grants':
      return attempt(() => control.seedGrantTable(domain.id, 1, 2));
    case 'destroy':
      return attempt(() => control.destroyDomain(domain.id));
  }
}

describe('the machine’s memory', () => {
  it('is free, a domain’s, or accounted for', () => {
    const system = testSystem(16);
    const { control } = system.hypervisor;
    const before = system.frames.free;
    const end = () => {
      for (const { domid } of control.listDomains()) control.destroyDomain(domid);
    };
    const property = fc.property(fc.array(stepArb, { minLength: 1, maxLength: 40 }), (steps) => {
      for (const step of steps) {
        const errno = apply(system, step);
        expect([0, ERRNO.ENOMEM]).toContain(errno);
        const domains = control.listDomains();
        const used = domains.reduce(
          (sum, { totalPages, overheadPages }) => sum + totalPages + overheadPages,
          0,
        );
        expect(system.frames.free + used).toBe(before);
        for (const { domid, totalPages, maxPages } of domains) {
          // Nothing is given beyond the maximum.
          if (errno === 0 && step.do === 'populate' && totalPages > maxPages) expect.fail(`domain ${domid}`);
        }
      }
      end();
      expect(system.frames.free).toBe(before);
    });
    fc.assert(property.afterEach(end), { numRuns: RUNS });
  });

  it('can be all used, and then goes on', () => {
    const { hypervisor, frames } = testSystem(8);
    const { control } = hypervisor;
    const domid = control.createDomain({ maxPages: 1500, vcpus: 1 });
    control.populatePhysmap(domid, frames.free - 10);
    const { totalPages } = control.getDomainInfo(domid);
    const noMemory = expect.objectContaining({ errno: ERRNO.ENOMEM });
    expect(() => control.populatePhysmap(domid, 11)).toThrow(noMemory);
    expect(() => control.createDomain({ maxPages: 100, vcpus: 1 })).toThrow(noMemory);
    expect(() => control.createDomain({ maxPages: 1e9, vcpus: 1 })).toThrow(noMemory);
    expect(control.getDomainInfo(domid).totalPages).toBe(totalPages);
    expect(frames.free).toBe(10);
    control.populatePhysmap(domid, 10);
    expect(frames.free).toBe(0);
    control.destroyDomain(domid);
    expect(control.createDomain({ maxPages: 100, vcpus: 4 })).toBeGreaterThan(domid);
  });

  it('may not suffice for the virtual CPUs', () => {
    const { hypervisor, frames } = testSystem(8);
    const { control } = hypervisor;
    const domid = control.createDomain({ maxPages: 1500, vcpus: 1 });
    const { overheadPages } = control.getDomainInfo(domid);
    for (let left = 10; left < 60; left++) {
      const before = frames.free;
      control.populatePhysmap(domid, frames.free - left);
      const full = frames.free;
      const errno = attempt(() => control.createDomain({ maxPages: 64, vcpus: 4 }));
      expect(errno).toBe(errno === 0 ? 0 : ERRNO.ENOMEM);
      if (errno !== 0) expect(frames.free).toBe(full);
      for (const { domid: other } of control.listDomains()) if (other !== domid) control.destroyDomain(other);
      const { memory } = hypervisor.domain(domid)!;
      for (let mfn = 0; frames.free < before; mfn++) memory.giveBack(mfn);
    }
    expect(control.getDomainInfo(domid).overheadPages).toBe(overheadPages);
  });

  it('has a maximum for each domain, up to what it was created for', () => {
    const { control } = testSystem(16).hypervisor;
    const domid = control.createDomain({ maxPages: 500, vcpus: 1 });
    control.populatePhysmap(domid, 300);
    control.setMaxMem(domid, 200);
    expect(control.getDomainInfo(domid)).toMatchObject({ maxPages: 200, totalPages: 300 });
    expect(() => control.populatePhysmap(domid, 1)).toThrow(expect.objectContaining({ errno: ERRNO.ENOMEM }));
    control.setMaxMem(domid, 301);
    control.populatePhysmap(domid, 1);
    expect(() => control.setMaxMem(domid, 501)).toThrow(/created for at most 500/);
    for (const wrong of [0, -1, 1.5, Number.NaN])
      expect(() => control.setMaxMem(domid, wrong)).toThrow(expect.objectContaining({ errno: ERRNO.EINVAL }));
  });

  it('costs the hypervisor little for a domain', () => {
    const { control } = testSystem(64).hypervisor;
    const small = control.getDomainInfo(control.createDomain({ maxPages: 1024, vcpus: 1 })).overheadPages;
    // 22 bytes for each frame number (there are a few thousand more than pages), 36 KiB for a virtual CPU.
    expect(small * 4).toBeLessThanOrEqual(128);
  });
});
