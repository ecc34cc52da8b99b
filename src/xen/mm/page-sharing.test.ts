import { describe, expect, it } from 'vitest';
import { PAGE_SIZE } from '../../machine/memory.ts';
import { mov, PAGE, store, testGuest, testSystem, va } from '../testing.ts';
import { type TestDomain, testDomains } from '../testing-domains.ts';
import { FrameType } from './frame-table.ts';
import { DIRECT_MAP } from './testing.ts';

/** Two domains that are not paused, and passes of the scan over them. */
function scanned({ pages = 32 } = {}) {
  const machines = testDomains({ domains: 2, pages });
  const { hypervisor, memory, frames } = machines;
  const domains = machines.domains as [TestDomain, TestDomain];
  for (const { domain } of domains) domain.unpause();
  const pass = (settled = true) => {
    while (hypervisor.pageSharing.step(settled));
  };
  const frame = ({ domain }: TestDomain, mfn: number) => domain.memory.machineFrame(mfn);
  const fill = (of: TestDomain, mfn: number, seed: number) => {
    const bytes = memory.frame(frame(of, mfn));
    for (let at = 0; at < PAGE_SIZE; at++) bytes[at] = (at * seed) >>> 3;
  };
  const check = () => {
    for (const { domain } of domains) expect(domain.memory.checkInvariants()).toEqual([]);
  };
  return { ...machines, domains, pass, frame, fill, check, sharing: hypervisor.pageSharing, frames };
}

describe('the scan', () => {
  it('makes one frame of equal pages that stay as they are for a pass', () => {
    const { domains, pass, frame, fill, check, hypervisor } = scanned();
    const [a, b] = domains;
    const [one, other, third] = a.free as [number, number, number];
    fill(a, one, 7);
    fill(b, other, 7);
    fill(b, third, 8);
    pass();
    expect(frame(a, one)).not.toBe(frame(b, other));
    pass();
    expect(frame(a, one)).toBe(frame(b, other));
    expect(frame(b, third)).not.toBe(frame(b, other));
    expect(hypervisor.sharedFrames.isShared(frame(a, one))).toBe(true);
    // Empty pages are one frame, of one domain too.
    expect(frame(a, a.free[5]!)).toBe(frame(b, b.free[6]!));
    expect(frame(a, a.free[5]!)).toBe(frame(a, a.free[6]!));
    check();
  });

  it('frees memory, and all of it comes back with the domains', () => {
    const { domains, pass, frames, hypervisor } = scanned();
    const [a, b] = domains;
    const before = frames.free;
    pass();
    pass();
    expect(frames.free - before).toBeGreaterThan(2 * (a.free.length - 2));
    expect(hypervisor.sharedFrames.saved).toBeGreaterThan(2 * (a.free.length - 2));
    const after = frames.free;
    hypervisor.destroyDomain(a.domain);
    hypervisor.destroyDomain(b.domain);
    // What is left is the frame of zeros, which is no domain's.
    expect(hypervisor.sharedFrames.saved).toBe(-1);
    expect(hypervisor.sharedFrames.used).toBe(0);
    expect(frames.free).toBeGreaterThan(after);
  });

  it('gives a domain that writes a copy, and nobody else sees it', () => {
    const { domains, pass, frame, fill, memory, check } = scanned();
    const [a, b] = domains;
    const mfn = a.free[0]!;
    fill(a, mfn, 5);
    fill(b, mfn, 5);
    pass();
    pass();
    const shared = frame(a, mfn);
    expect(frame(b, mfn)).toBe(shared);
    const text = memory.frame(shared).slice();
    a.vcpu.guest.setU32(a.va(mfn) + 8, 0xdeadbeef);
    expect(frame(a, mfn)).not.toBe(shared);
    expect(a.vcpu.guest.u32(a.va(mfn) + 8)).toBe(0xdeadbeef);
    expect(memory.frame(frame(b, mfn))).toEqual(text);
    // The last owner of a canonical frame does not write to it either: the contents are a promise.
    b.vcpu.guest.setU32(b.va(mfn), 1);
    expect(memory.frame(shared)).toEqual(text);
    expect(memory.frame(frame(a, mfn))[12]).toBe(text[12]);
    check();
  });

  it('takes nothing that somebody but the domain may write to, or that has to stay where it is', () => {
    const { domains, pass, frame, sharing, check } = scanned();
    const [a, b] = domains;
    // All empty, so that nothing but their use keeps them apart.
    const [held, typed, kept, table] = a.free as [number, number, number, number];
    const before = [held, typed, kept, table].map((mfn) => frame(a, mfn));
    a.domain.memory.getPage(held);
    a.domain.memory.getPageType(typed, FrameType.writable);
    a.domain.memory.keep(kept);
    // No entry may map it writable while it is a page table.
    const l1 = a.domain.memory.linear(a.l1) / 4 + a.pages.indexOf(table) * 2;
    const { u32 } = a.domain.memory.table.memory;
    a.domain.memory.pageTables.drop(table);
    u32[l1] = 0;
    expect(a.domain.memory.pin(table, FrameType.l1)).toBe(0);
    pass(false);
    pass(false);
    expect([held, typed, kept, table].map((mfn) => frame(a, mfn))).toEqual(before);
    expect(sharing.merged).toBeGreaterThan(0);
    // All tables of both are where they were: nothing of two address spaces is one.
    for (const mfn of [a.l4, a.l3, a.l2, a.l1]) expect(frame(a, mfn)).not.toBe(frame(b, mfn));
    a.domain.memory.putPage(held);
    a.domain.memory.putPageType(typed);
    check();
  });

  it('leaves a domain alone that is paused', () => {
    const { domains, pass, frame } = scanned();
    const [a, b] = domains;
    b.domain.pause();
    pass(false);
    pass(false);
    expect(frame(a, a.free[0]!)).toBe(frame(a, a.free[1]!));
    expect(frame(b, b.free[0]!)).not.toBe(frame(b, b.free[1]!));
  });

  it('makes a page its own when it becomes a page table, or is held', () => {
    const { domains, pass, frame, check } = scanned();
    const [a] = domains;
    pass();
    pass();
    const [first, second] = a.free as [number, number];
    expect(frame(a, first)).toBe(frame(a, second));
    a.domain.memory.getPage(first);
    expect(frame(a, first)).not.toBe(frame(a, second));
    a.domain.memory.putPage(first);
    check();
  });

  it('does not trust a hash, and ends whatever domains write meanwhile', () => {
    const { domains, pass, frame, fill, memory, check } = scanned();
    const [a, b] = domains;
    const mfn = a.free[0]!;
    for (let round = 0; round < 20; round++) {
      fill(a, mfn, round % 2 ? 3 : 4);
      fill(b, mfn, 3);
      memory.frame(frame(b, mfn))[round] = 0xaa;
      pass(false);
      expect(frame(a, mfn)).not.toBe(frame(b, mfn));
      a.vcpu.guest.setU32(a.va(mfn), round);
      b.vcpu.guest.setU32(b.va(mfn), round + 1);
    }
    check();
  });

  it('rests while there is one domain, and can be switched off', () => {
    const { hypervisor, domains, sharing } = scanned();
    const clock = () => 0;
    expect(sharing.idle(0, clock)).toBeLessThan(Number.POSITIVE_INFINITY);
    sharing.enabled = false;
    expect(sharing.idle(0, clock)).toBe(Number.POSITIVE_INFINITY);
    sharing.enabled = true;
    hypervisor.destroyDomain(domains[1].domain);
    expect(sharing.idle(0, clock)).toBe(Number.POSITIVE_INFINITY);
  });
});

describe('pages of domains that are built', () => {
  it('are looked at when there is another domain that may have the same', () => {
    const { hypervisor, memory } = testDomains({ domains: 0 });
    const sharing = hypervisor.pageSharing;
    /** A domain of two pages, that begin with these numbers. */
    const build = (numbers: readonly number[]) => {
      const domain = hypervisor.createDomain(8, 1, null);
      const mfns = domain.memory.populate(numbers.length);
      const frames = () => mfns.map((mfn) => domain.memory.machineFrame(mfn));
      for (const [i, frame] of frames().entries()) memory.frame(frame).set([numbers[i]!, 1, 2]);
      for (const mfn of mfns) sharing.share(domain, mfn, 1);
      return { domain, frames };
    };
    const gone = build([1, 2]);
    hypervisor.destroyDomain(gone.domain);
    const alone = build([3, 4]);
    expect(sharing.merged).toBe(0);
    const second = build([4, 5]);
    expect(second.frames()[0]).toBe(alone.frames()[1]);
    const third = build([5, 3]);
    expect(third.frames()).toEqual([second.frames()[1], alone.frames()[0]]);
    expect(sharing.merged).toBe(3);
  });
});

describe('on the processor', () => {
  const WRITTEN = 0x1122334455;

  it('code and data of running guests are one, until a guest writes', () => {
    const system = testSystem();
    const { hypervisor } = system;
    /** Waits until the test says go, then writes. */
    const wait = [...mov(0, va(PAGE.data)), 0x48, 0x83, 0x38, 0x00, 0x74, 0xfa];
    const code = [...wait, ...mov(0, WRITTEN), ...store(va(PAGE.free, 64)), 0xeb, 0xfe];
    const guests = [0, 1].map(() => testGuest(system, code));
    const [a, b] = guests as [(typeof guests)[0], (typeof guests)[0]];
    const run = () => {
      for (let count = 0; count < 12; count++) hypervisor.runSlice();
    };
    const frame = (guest: typeof a, page: number) => guest.domain.memory.machineFrame(guest.mfns[page]!);
    run();
    for (let passes = 0; passes < 2; passes++) while (hypervisor.pageSharing.step(true));
    expect(frame(a, PAGE.code)).toBe(frame(b, PAGE.code));
    expect(frame(a, PAGE.free)).toBe(frame(b, PAGE.free));
    run();
    a.vcpu.guest.setU32(DIRECT_MAP + PAGE.data * PAGE_SIZE, 1);
    run();
    expect(a.read64(PAGE.free, 64)).toBe(BigInt(WRITTEN));
    expect(b.read64(PAGE.free, 64)).toBe(0n);
    expect(frame(a, PAGE.code)).toBe(frame(b, PAGE.code));
    // One of the two changes its code: the other one runs on with its own.
    a.vcpu.guest.setU8(va(PAGE.code, 4095), 0x90);
    expect(frame(a, PAGE.code)).not.toBe(frame(b, PAGE.code));
    run();
    for (const { domain } of guests) {
      expect(domain.crashReason).toBeNull();
      expect(domain.memory.checkInvariants()).toEqual([]);
    }
  });
});

describe('pages that nobody wrote to', () => {
  /** A domain of 100 pages, 10 of them written to by who builds it. */
  function untouched({ overcommit = false, megabytes = 8 } = {}) {
    const machines = testDomains({ domains: 1, megabytes });
    const { hypervisor } = machines;
    const { control } = hypervisor;
    control.setMemoryPolicy({ sharing: true, overcommit });
    const domid = control.createDomain({ maxPages: 100, vcpus: 1 });
    const { mfns } = control.populatePhysmap(domid, 100, 10);
    return { ...machines, control, domid, mfns, domain: hypervisor.domain(domid)!.memory };
  }

  it('are one frame of zeros, and become pages when the guest writes', () => {
    const { domain, mfns, control, domid, frames, hypervisor } = untouched();
    expect(domain.totalPages).toBe(100);
    expect(domain.machineFrame(mfns[10]!)).toBe(domain.machineFrame(mfns[99]!));
    const before = frames.free;
    expect(domain.backing.toOwn(mfns[10]!)).toBe(true);
    expect(frames.free).toBe(before - 1);
    expect(domain.machineFrame(mfns[10]!)).not.toBe(domain.machineFrame(mfns[99]!));
    expect(domain.checkInvariants()).toEqual([]);
    control.destroyDomain(domid);
    expect(hypervisor.sharedFrames.saved).toBe(-1);
    expect(hypervisor.sharedFrames.promised).toBe(0);
  });

  it('are promised to the domain: nobody else gets the memory for them', () => {
    const { domain, mfns, control, frames, hypervisor } = untouched();
    expect(hypervisor.sharedFrames.promised).toBe(90);
    expect(control.machineInfo().freePages).toBe(frames.free - 90);
    const other = control.createDomain({ maxPages: frames.free, vcpus: 1 });
    const left = () => control.machineInfo().freePages;
    expect(() => control.populatePhysmap(other, left() + 1)).toThrow();
    expect(() => control.populatePhysmap(other, left() + 1, 0)).toThrow();
    control.populatePhysmap(other, left());
    expect(left()).toBe(0);
    // There are 90 left, and it gets them all.
    for (const mfn of mfns) expect(domain.backing.toOwn(mfn)).toBe(true);
    expect(hypervisor.sharedFrames.promised).toBe(0);
    expect(frames.free).toBe(0);
  });

  it('are not, where more is given than there is: whoever comes too late gets none', () => {
    const { domain, mfns, control, frames, hypervisor } = untouched({ overcommit: true });
    expect(hypervisor.sharedFrames.promised).toBe(0);
    const other = control.createDomain({ maxPages: frames.free, vcpus: 1 });
    control.populatePhysmap(other, frames.free - 5);
    const got = mfns.filter((mfn) => domain.backing.toOwn(mfn));
    expect(got.length).toBe(15);
    expect(domain.checkInvariants()).toEqual([]);
  });
});

it('a merged page is promised to the domain until it has a frame of its own again', () => {
  const { domains, pass, hypervisor, frame } = scanned();
  for (const { domain } of domains) domain.memory.backing.reserved = true;
  pass();
  pass();
  const { promised, saved } = hypervisor.sharedFrames;
  expect(promised).toBeGreaterThan(20);
  expect(promised).toBe(saved + 1);
  const [a] = domains;
  a.vcpu.guest.setU8(a.va(a.free[0]!), 1);
  expect(frame(a, a.free[0]!)).not.toBe(frame(a, a.free[1]!));
  expect(hypervisor.sharedFrames.promised).toBe(promised - 1);
  for (const { domain } of domains) hypervisor.destroyDomain(domain);
  expect(hypervisor.sharedFrames.promised).toBe(0);
});
