import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GrantAccess } from './grant-access.ts';
import { grantTableOp } from './grant-table-op.ts';
import { FrameType } from './mm/frame-table.ts';
import { entryLow, hypercall, PAGE_RO, PAGE_RW, type TestProcessor } from './mm/testing.ts';
import { ERRNO } from './public/errno.ts';
import { GNTCOPY, GNTMAP, GNTST, GNTTABOP, GTF } from './public/grant_table.ts';
import { DOMID } from './public/xen.ts';
import { type TestDomain, testDomains } from './testing-domains.ts';

const u16s = (low: number, high: number) => (low | (high << 16)) >>> 0;
const i16 = (value: number) => (value << 16) >> 16;
const op = (at: TestDomain, command: number, count = 1) =>
  hypercall(at.vcpu, grantTableOp, command, at.argument, count);
const out = (at: TestDomain, offset: number) => at.vcpu.guest.u32(at.argument + offset);

/** Two domains, the first one with a table that it has mapped nowhere but that the test writes to. */
function two() {
  const machines = testDomains();
  const [a, b] = machines.domains as [TestDomain, TestDomain];
  for (const { domain } of [a, b]) domain.grants.ensure();
  return { ...machines, a, b };
}

/** Linear address of an entry of version 1. */
function entryAt({ domain }: TestDomain, ref: number): number {
  return domain.memory.linear(domain.grants.frames.mfns(1)[0]!) + ref * 8;
}

function grant(
  at: TestDomain,
  ref: number,
  to: number,
  mfn: number,
  flags: number = GTF.permit_access,
): void {
  at.vcpu.memory.write32(entryAt(at, ref) + 4, mfn);
  at.vcpu.memory.write32(entryAt(at, ref), u16s(flags, to));
}

const flagsOf = (at: TestDomain, ref: number) => at.vcpu.memory.read16(entryAt(at, ref));

function map(at: TestDomain, ref: number, dom: number, host: number, flags: number) {
  at.vcpu.guest.setNumber64(at.argument, host);
  at.put({ 8: flags, 12: ref, 16: dom });
  expect(op(at, GNTTABOP.map_grant_ref)).toBe(0);
  return {
    status: i16(out(at, 16) >>> 16),
    handle: out(at, 20),
    bus: at.vcpu.guest.number64(at.argument + 24),
  };
}

function unmap(at: TestDomain, handle: number, host: number, bus = 0): number {
  at.vcpu.guest.setNumber64(at.argument, host);
  at.vcpu.guest.setNumber64(at.argument + 8, bus);
  at.put({ 16: handle });
  expect(op(at, GNTTABOP.unmap_grant_ref)).toBe(0);
  return i16(out(at, 20));
}

const sound = (...all: TestDomain[]) => {
  for (const { domain } of all) expect(domain.memory.checkInvariants()).toEqual([]);
};

/** What TLBs still map though no domain has it any more. */
const stale = (processor: TestProcessor, ...all: TestDomain[]) =>
  all
    .map(({ domain }) => processor.leaks(domain.memory))
    .reduce((some, more) => some.filter((line) => more.includes(line)));

describe('the table', () => {
  it('tells its size, grows, and gives frame numbers that the guest can map', () => {
    const { a } = two();
    a.put({ 0: DOMID.SELF });
    expect(op(a, GNTTABOP.query_size)).toBe(0);
    expect([out(a, 4), out(a, 8), i16(out(a, 12))]).toEqual([1, 64, GNTST.okay]);
    const list = a.va(a.free[0]!);
    a.put({ 0: DOMID.SELF, 4: 3 });
    a.vcpu.guest.setNumber64(a.argument + 16, list);
    expect(op(a, GNTTABOP.setup_table)).toBe(0);
    expect(i16(out(a, 8))).toBe(GNTST.okay);
    const mfns = [0, 1, 2].map((index) => a.vcpu.guest.number64(list + index * 8));
    expect(new Set(mfns).size).toBe(3);
    for (const [index, mfn] of mfns.entries())
      expect(a.domain.memory.pageTables.update(a.l1, 100 + index, entryLow(mfn, PAGE_RW), 0)).toBe(0);
    expect(a.domain.grants.frames.entries).toBe(3 * 512);
    a.put({ 0: DOMID.SELF, 4: 65 });
    op(a, GNTTABOP.setup_table);
    expect(i16(out(a, 8))).toBe(GNTST.general_error);
    sound(a);
  });

  it('of others is none of the guest’s business', () => {
    const { a, b } = two();
    for (const [dom, status] of [
      [b.domain.id, GNTST.permission_denied],
      [99, GNTST.bad_domain],
    ] as const) {
      a.put({ 0: dom, 4: 1 });
      op(a, GNTTABOP.setup_table);
      expect(i16(out(a, 8))).toBe(status);
      a.put({ 0: dom });
      op(a, GNTTABOP.query_size);
      expect(i16(out(a, 12))).toBe(status);
    }
    a.put({ 0: b.domain.id });
    expect(op(a, GNTTABOP.get_version)).toBe(-ERRNO.EPERM);
  });

  it('refuses bad counts and commands', () => {
    const { a } = two();
    expect(op(a, GNTTABOP.setup_table, 2)).toBe(-ERRNO.EINVAL);
    expect(op(a, GNTTABOP.copy, 0x80000000)).toBe(-ERRNO.EINVAL);
    expect(op(a, GNTTABOP.copy, 0)).toBe(0);
    expect(op(a, GNTTABOP.cache_flush)).toBe(-ERRNO.EOPNOTSUPP);
    expect(op(a, 77)).toBe(-ERRNO.ENOSYS);
    expect(hypercall(a.vcpu, grantTableOp, GNTTABOP.copy, -1, 0x7fffffff)).toBe(-ERRNO.EFAULT);
  });

  it('changes its version and keeps the reserved entries', () => {
    const { a } = two();
    a.domain.grants.seed(1, a.free[0]!);
    grant(a, 20, 0, a.free[1]!);
    a.put({ 0: 2 });
    expect(op(a, GNTTABOP.set_version)).toBe(0);
    expect(a.domain.grants.frames.read(1)).toMatchObject({ flags: GTF.permit_access, frame: a.free[0] });
    expect(a.domain.grants.frames.read(20).flags).toBe(0);
    a.put({ 0: 1, 4: DOMID.SELF });
    a.vcpu.guest.setNumber64(a.argument + 8, a.va(a.free[2]!));
    op(a, GNTTABOP.get_status_frames);
    expect(out(a, 4) >>> 16).toBe(0);
    expect(a.vcpu.guest.number64(a.va(a.free[2]!))).toBe(a.domain.grants.frames.statusMfns(1)[0]);
    a.put({ 0: 1 });
    expect(op(a, GNTTABOP.set_version)).toBe(0);
    expect(a.domain.grants.frames.read(1)).toMatchObject({ flags: GTF.permit_access, frame: a.free[0] });
    a.put({ 0: 3 });
    expect(op(a, GNTTABOP.set_version)).toBe(-ERRNO.EINVAL);
    expect(out(a, 0)).toBe(1);
  });

  it('keeps its version while an entry is in use, the reserved ones excepted', () => {
    const { a } = two();
    const access = new GrantAccess(a.domain);
    a.domain.grants.seed(0, a.free[0]!);
    grant(a, 9, 0, a.free[1]!);
    const console = access.map(0, false) as { handle: number };
    const other = access.map(9, true) as { handle: number };
    a.put({ 0: 2 });
    expect(op(a, GNTTABOP.set_version)).toBe(-ERRNO.EBUSY);
    access.unmap(other.handle);
    a.put({ 0: 2 });
    expect(op(a, GNTTABOP.set_version)).toBe(0);
    const status = a.domain.memory.linear(a.domain.grants.frames.statusMfns(1)[0]!);
    expect(a.vcpu.memory.read16(status)).toBe(GTF.reading | GTF.writing);
    access.unmap(console.handle);
    expect(a.vcpu.memory.read16(status)).toBe(0);
    sound(a);
  });

  it('swaps entries that are not in use', () => {
    const { a, b } = two();
    grant(a, 8, b.domain.id, a.free[0]!);
    grant(a, 9, 0, a.free[1]!, GTF.permit_access | GTF.readonly);
    a.put({ 0: 8, 4: 9 });
    op(a, GNTTABOP.swap_grant_ref);
    expect(a.domain.grants.frames.read(9)).toMatchObject({ domid: b.domain.id, frame: a.free[0] });
    expect(a.domain.grants.frames.read(8)).toMatchObject({ domid: 0, frame: a.free[1] });
    new GrantAccess(a.domain).map(8, true);
    op(a, GNTTABOP.swap_grant_ref);
    expect(i16(out(a, 8))).toBe(GNTST.eagain);
    a.put({ 0: 512, 4: 9 });
    op(a, GNTTABOP.swap_grant_ref);
    expect(i16(out(a, 8))).toBe(GNTST.bad_gntref);
  });
});

describe('mappings', () => {
  const HOST = GNTMAP.host_map;

  it('show the page to the mapper, and only until they are unmapped', () => {
    const { a, b, processor } = two();
    const [shared] = a.free as [number];
    const host = b.va(b.free[0]!);
    grant(a, 8, b.domain.id, shared);
    const mapped = map(b, 8, a.domain.id, host, HOST);
    expect(mapped.status).toBe(GNTST.okay);
    a.vcpu.guest.setU32(a.va(shared), 0xcafe);
    expect(b.vcpu.guest.u32(host)).toBe(0xcafe);
    b.vcpu.guest.setU32(host + 4, 0xbeef);
    expect(a.vcpu.guest.u32(a.va(shared) + 4)).toBe(0xbeef);
    expect(flagsOf(a, 8)).toBe(GTF.permit_access | GTF.reading | GTF.writing);
    sound(a, b);
    // The page is held as writable: its owner makes no page table of it.
    expect(a.domain.memory.pageTables.update(a.l1, a.pages.indexOf(shared), 0, 0)).toBe(0);
    expect(a.domain.memory.pin(shared, FrameType.l1)).toBe(-ERRNO.EBUSY);

    expect(unmap(b, mapped.handle, host)).toBe(GNTST.okay);
    expect(() => b.vcpu.guest.u32(host)).toThrow('EFAULT');
    expect(flagsOf(a, 8)).toBe(GTF.permit_access);
    expect(a.domain.memory.pin(shared, FrameType.l1)).toBe(0);
    expect(stale(processor, a, b)).toEqual([]);
    expect(unmap(b, mapped.handle, host)).toBe(GNTST.bad_handle);
    sound(a, b);
  });

  it('that are read-only cannot be written through, nor made writable later', () => {
    const { a, b } = two();
    const host = b.va(b.free[0]!);
    grant(a, 8, b.domain.id, a.free[0]!, GTF.permit_access | GTF.readonly);
    expect(map(b, 8, a.domain.id, host, HOST).status).toBe(GNTST.general_error);
    expect(flagsOf(a, 8)).toBe(GTF.permit_access | GTF.readonly);
    const mapped = map(b, 8, a.domain.id, host, HOST | GNTMAP.readonly);
    expect(mapped.status).toBe(GNTST.okay);
    expect(() => b.vcpu.guest.setU32(host, 1)).toThrow('EFAULT');
    const mfn = mapped.bus / 4096;
    const slot = b.pages.indexOf(b.free[0]!);
    const { pageTables } = b.domain.memory;
    expect(pageTables.update(b.l1, slot, entryLow(mfn, PAGE_RW), 0)).toBeLessThan(0);
    expect(pageTables.update(b.l1, 200, entryLow(mfn, PAGE_RO), 0)).toBeLessThan(0);
    expect(unmap(b, mapped.handle, host)).toBe(GNTST.okay);
    sound(a, b);
  });

  it('can be placed by the machine address of their entry, and carry the guest’s bits', () => {
    const { a, b } = two();
    grant(a, 8, b.domain.id, a.free[0]!);
    const entry = b.l1 * 4096 + 300 * 8;
    const flags = HOST | GNTMAP.contains_pte | GNTMAP.application_map | (1 << GNTMAP.guest_avail_shift);
    const mapped = map(b, 8, a.domain.id, entry, flags);
    expect(mapped.status).toBe(GNTST.okay);
    const low = b.vcpu.memory.read32(b.domain.memory.linear(b.l1) + 300 * 8);
    expect(low).toBe(mapped.bus + (PAGE_RW | 0x40 | (1 << 9)));
    expect(unmap(b, mapped.handle, entry + 8)).toBe(GNTST.general_error);
    expect(unmap(b, mapped.handle, entry)).toBe(GNTST.okay);
    for (const bad of [b.free[0]! * 4096, b.l2 * 4096, entry + 4, 2 ** 45, -8])
      expect(map(b, 8, a.domain.id, bad, flags).status).toBe(GNTST.general_error);
    expect(flagsOf(a, 8)).toBe(GTF.permit_access);
    sound(a, b);
  });

  it('can do without an entry (for devices), and end by their machine address', () => {
    const { a, b } = two();
    grant(a, 8, b.domain.id, a.free[0]!);
    const mapped = map(b, 8, a.domain.id, 0, GNTMAP.device_map);
    expect(unmap(b, mapped.handle, 0, mapped.bus + 4096)).toBe(GNTST.bad_dev_addr);
    expect(unmap(b, mapped.handle, 0)).toBe(GNTST.okay);
    expect(flagsOf(a, 8) & GTF.writing).not.toBe(0);
    expect(unmap(b, mapped.handle, 0, mapped.bus)).toBe(GNTST.okay);
    expect(flagsOf(a, 8)).toBe(GTF.permit_access);
    expect(map(b, 8, a.domain.id, 0, 0).status).toBe(GNTST.bad_gntref);
    sound(a, b);
  });

  it('can be replaced by another mapping in one step', () => {
    const { a, b } = two();
    const [host, spare] = [b.va(b.free[0]!), b.va(b.free[1]!)];
    b.vcpu.guest.setU32(spare, 0x5a5a);
    grant(a, 8, b.domain.id, a.free[0]!);
    const mapped = map(b, 8, a.domain.id, host, HOST);
    b.vcpu.guest.setNumber64(b.argument, host);
    b.vcpu.guest.setNumber64(b.argument + 8, spare);
    b.put({ 16: mapped.handle });
    expect(op(b, GNTTABOP.unmap_and_replace)).toBe(0);
    expect(i16(out(b, 20))).toBe(GNTST.okay);
    expect(b.vcpu.guest.u32(host)).toBe(0x5a5a);
    expect(() => b.vcpu.guest.u32(spare)).toThrow('EFAULT');
    sound(a, b);
  });

  it('are refused for what is not granted', () => {
    const { a, b } = two();
    const host = b.va(b.free[0]!);
    grant(a, 8, 77, a.free[0]!);
    grant(a, 9, b.domain.id, a.l1);
    grant(a, 10, b.domain.id, a.domain.memory.sharedInfoMfn);
    grant(a, 11, b.domain.id, 0xffffffff);
    grant(a, 12, b.domain.id, a.free[0]!, GTF.accept_transfer);
    for (const ref of [7, 8, 9, 10, 11, 12])
      expect(map(b, ref, a.domain.id, host, HOST).status).toBe(GNTST.general_error);
    for (const ref of [512, 0xffffffff])
      expect(map(b, ref, a.domain.id, host, HOST).status).toBe(GNTST.bad_gntref);
    expect(map(b, 8, 77, host, HOST).status).toBe(GNTST.bad_domain);
    // A page table may be looked at, as its owner may.
    expect(map(b, 9, a.domain.id, host, HOST | GNTMAP.readonly).status).toBe(GNTST.okay);
    for (const ref of [8, 10, 11, 12]) expect(flagsOf(a, ref) & 0x18).toBe(0);
    sound(a, b);
  });

  it('outlive their owner, and end with their mapper', () => {
    const { a, b, frames, hypervisor } = two();
    const free = frames.free;
    const host = b.va(b.free[0]!);
    grant(a, 8, b.domain.id, a.free[0]!);
    const mapped = map(b, 8, a.domain.id, host, HOST);
    a.vcpu.guest.setU32(a.va(a.free[0]!), 1234);
    hypervisor.destroyDomain(a.domain);
    expect(b.vcpu.guest.u32(host)).toBe(1234);
    expect(unmap(b, mapped.handle, host)).toBe(GNTST.okay);
    sound(b);
    hypervisor.destroyDomain(b.domain);
    expect(frames.free).toBeGreaterThan(free);
    const { frames: untouched } = testDomains({ domains: 0 });
    expect(frames.free).toBe(untouched.free);
  });

  it('leave nothing behind when the mapper is destroyed first', () => {
    const { a, b, frames, hypervisor } = two();
    grant(a, 8, b.domain.id, a.free[0]!);
    map(b, 8, a.domain.id, b.va(b.free[0]!), HOST);
    hypervisor.destroyDomain(b.domain);
    expect(flagsOf(a, 8)).toBe(GTF.permit_access);
    sound(a);
    hypervisor.destroyDomain(a.domain);
    expect(frames.free).toBe(testDomains({ domains: 0 }).frames.free);
  });
});

describe('copies', () => {
  const COPY = (
    source: [number, number, number],
    dest: [number, number, number],
    len: number,
    flags: number,
  ) => ({
    0: source[0],
    4: 0,
    8: u16s(source[1], source[2]),
    16: dest[0],
    20: 0,
    24: u16s(dest[1], dest[2]),
    32: u16s(len, flags),
  });
  const run = (at: TestDomain, fields: Record<number, number>) => {
    at.put(fields);
    expect(op(at, GNTTABOP.copy)).toBe(0);
    return i16(out(at, 36));
  };

  it('go from a grant to the own page and back', () => {
    const { a, b } = two();
    grant(a, 8, b.domain.id, a.free[0]!);
    a.vcpu.guest.copyTo(a.va(a.free[0]!) + 100, Uint8Array.of(1, 2, 3, 4, 5));
    const own = b.free[0]!;
    const id = a.domain.id;
    expect(run(b, COPY([8, id, 100], [own, DOMID.SELF, 7], 5, GNTCOPY.source_gref))).toBe(GNTST.okay);
    expect([...b.vcpu.guest.copyFrom(b.va(own) + 6, 7)]).toEqual([0, 1, 2, 3, 4, 5, 0]);
    expect(run(b, COPY([own, DOMID.SELF, 8], [8, id, 4093], 3, GNTCOPY.dest_gref))).toBe(GNTST.okay);
    expect([...a.vcpu.guest.copyFrom(a.va(a.free[0]!) + 4093, 3)]).toEqual([2, 3, 4]);
    expect(flagsOf(a, 8)).toBe(GTF.permit_access);
    sound(a, b);
  });

  it('respect rights and ends of pages', () => {
    const { a, b } = two();
    const id = a.domain.id;
    const own = b.free[0]!;
    grant(a, 8, b.domain.id, a.free[0]!, GTF.permit_access | GTF.readonly);
    grant(a, 9, b.domain.id, a.l1);
    const self = DOMID.SELF;
    expect(run(b, COPY([own, self, 0], [8, id, 0], 1, GNTCOPY.dest_gref))).toBe(GNTST.general_error);
    expect(run(b, COPY([own, self, 0], [9, id, 0], 1, GNTCOPY.dest_gref))).toBe(GNTST.general_error);
    expect(run(b, COPY([own, self, 0], [b.l1, self, 0], 1, 0))).toBe(GNTST.general_error);
    expect(run(b, COPY([own, self, 4000], [own, self, 0], 97, 0))).toBe(GNTST.bad_copy_arg);
    expect(run(b, COPY([own, self, 0], [own, self, 4095], 2, 0))).toBe(GNTST.bad_copy_arg);
    expect(run(b, COPY([a.free[0]!, id, 0], [own, self, 0], 1, 0))).toBe(GNTST.permission_denied);
    expect(run(b, COPY([3, self, 0], [own, self, 0], 1, 0))).toBe(GNTST.bad_page);
    expect(run(b, COPY([8, 99, 0], [own, self, 0], 1, GNTCOPY.source_gref))).toBe(GNTST.bad_domain);
    sound(a, b);
  });

  it('reach only the granted part of a page, and may pass through one domain', () => {
    const { domains } = testDomains({ domains: 3 });
    const [a, b, c] = domains as [TestDomain, TestDomain, TestDomain];
    for (const { domain } of domains) {
      domain.grants.ensure();
      domain.grants.setVersion(2, 8);
    }
    const entry = (at: TestDomain, ref: number) =>
      at.domain.memory.linear(at.domain.grants.frames.mfns(1)[0]!) + ref * 16;
    const { memory } = a.vcpu;
    // a lets b have 16 bytes from 64 on; b passes that on to c.
    memory.write32(entry(a, 8) + 8, a.free[0]!);
    memory.write32(entry(a, 8) + 4, u16s(64, 16));
    memory.write32(entry(a, 8), u16s(GTF.permit_access | GTF.sub_page, b.domain.id));
    memory.write32(entry(b, 9) + 4, a.domain.id);
    memory.write32(entry(b, 9) + 8, 8);
    memory.write32(entry(b, 9), u16s(GTF.transitive, c.domain.id));
    a.vcpu.guest.copyTo(
      a.va(a.free[0]!) + 64,
      Uint8Array.from({ length: 16 }, (_, i) => i + 1),
    );
    const own = c.free[0]!;
    const through = (offset: number, length: number) =>
      run(c, COPY([9, b.domain.id, offset], [own, DOMID.SELF, 0], length, GNTCOPY.source_gref));
    expect(through(70, 10)).toBe(GNTST.okay);
    expect([...c.vcpu.guest.copyFrom(c.va(own), 11)]).toEqual([7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0]);
    expect(through(63, 2)).toBe(GNTST.general_error);
    expect(through(70, 11)).toBe(GNTST.general_error);
    expect(map(c, 9, b.domain.id, c.va(own), GNTMAP.host_map).status).toBe(GNTST.general_error);
    expect(map(b, 8, a.domain.id, b.va(b.free[0]!), GNTMAP.host_map).status).toBe(GNTST.general_error);
    // It goes no further: a chain of two is refused, and a circle ends.
    memory.write32(entry(c, 9) + 4, b.domain.id);
    memory.write32(entry(c, 9) + 8, 9);
    memory.write32(entry(c, 9), u16s(GTF.transitive, a.domain.id));
    expect(run(a, COPY([9, c.domain.id, 70], [a.free[1]!, DOMID.SELF, 0], 1, GNTCOPY.source_gref))).toBe(
      GNTST.general_error,
    );
    sound(a, b, c);
  });

  it('of a long list are all done, in pieces', () => {
    const { a } = two();
    const [from, to] = [a.free[0]!, a.free[1]!];
    const list = a.va(a.free[2]!);
    a.vcpu.guest.copyTo(
      a.va(from),
      Uint8Array.from({ length: 4096 }, (_, i) => i * 7),
    );
    // 300 operations do not fit three pages of the direct map's free ones unless these follow each other.
    for (let index = 0; index < 300; index++)
      a.put(COPY([from, DOMID.SELF, index * 8], [to, DOMID.SELF, index * 8], 8, 0), list + index * 40);
    expect(hypercall(a.vcpu, grantTableOp, GNTTABOP.copy, list, 300)).toBe(0);
    expect(a.vcpu.guest.copyFrom(a.va(to), 2400)).toEqual(a.vcpu.guest.copyFrom(a.va(from), 2400));
  });
});

describe('transfer', () => {
  const run = (at: TestDomain, mfn: number, domid: number, ref: number) => {
    at.put({ 0: mfn, 4: 0, 8: domid, 12: ref });
    expect(op(at, GNTTABOP.transfer)).toBe(0);
    return i16(out(at, 16));
  };
  /** A page that nothing maps. */
  const loose = (at: TestDomain) => at.domain.memory.populate(1)[0]!;

  it('moves a page and its contents to a domain that accepts it', () => {
    const { a, b } = two();
    const page = loose(a);
    a.vcpu.memory.write32(a.domain.memory.linear(page), 0x1357);
    grant(b, 8, a.domain.id, 0, GTF.accept_transfer);
    const owned = [a.domain.memory.totalPages, b.domain.memory.totalPages];
    expect(run(a, page, b.domain.id, 8)).toBe(GNTST.okay);
    expect([a.domain.memory.totalPages, b.domain.memory.totalPages]).toEqual([owned[0]! - 1, owned[1]! + 1]);
    expect(flagsOf(b, 8)).toBe(GTF.accept_transfer | GTF.transfer_committed | GTF.transfer_completed);
    const arrived = b.vcpu.memory.read32(entryAt(b, 8) + 4);
    expect(b.vcpu.memory.read32(b.domain.memory.linear(arrived))).toBe(0x1357);
    expect(run(a, loose(a), b.domain.id, 8)).toBe(GNTST.general_error);
    sound(a, b);
  });

  it('refuses pages that are in use, and loses those that nobody takes', () => {
    const { a, b } = two();
    expect(run(a, a.l1, b.domain.id, 8)).toBe(GNTST.bad_page);
    expect(run(a, a.free[0]!, b.domain.id, 8)).toBe(GNTST.bad_page);
    expect(run(a, 3, b.domain.id, 8)).toBe(GNTST.bad_page);
    const page = loose(a);
    expect(run(a, page, 99, 8)).toBe(GNTST.bad_domain);
    expect(a.domain.memory.owns(page)).toBe(false);
    expect(run(a, loose(a), b.domain.id, 0xffffffff)).toBe(GNTST.bad_gntref);
    sound(a, b);
  });
});

describe('Domain 0', () => {
  it('gets at what is granted to it, with the same checks', () => {
    const { a, b } = two();
    const access = new GrantAccess(a.domain);
    grant(a, 8, 0, a.free[0]!, GTF.permit_access | GTF.readonly);
    grant(a, 9, b.domain.id, a.free[0]!);
    expect(access.map(8, false)).toBe(GNTST.general_error);
    expect(access.map(9, true)).toBe(GNTST.general_error);
    expect(access.map(-1, true)).toBe(GNTST.bad_gntref);
    const mapped = access.map(8, true) as { handle: number; address: number };
    expect(mapped.address).toBe(a.domain.memory.linear(a.free[0]!));
    expect(flagsOf(a, 8) & 0x18).toBe(GTF.reading);
    expect(access.write(8, 0, Uint8Array.of(1))).toBe(GNTST.general_error);
    expect(access.unmap(mapped.handle)).toBe(true);
    expect(access.unmap(mapped.handle)).toBe(false);
    grant(a, 8, 0, a.free[0]!);
    expect(access.write(8, 10, Uint8Array.of(4, 5, 6))).toBe(GNTST.okay);
    expect(access.read(8, 9, 5)).toEqual(Uint8Array.of(0, 4, 5, 6, 0));
    expect(access.read(8, 4090, 7)).toBe(GNTST.bad_copy_arg);
    expect(flagsOf(a, 8)).toBe(GTF.permit_access);
    sound(a);
  });

  it('gets at a page for a moment, if it is plain memory that nobody has in use', () => {
    const { a, b } = two();
    const access = new GrantAccess(a.domain);
    const page = a.free[0]!;
    grant(a, 8, 0, page);
    expect(access.briefly(8, true)).toBe(a.domain.memory.linear(page));
    expect(flagsOf(a, 8)).toBe(GTF.permit_access);
    expect(access.copyTo(8, 4090, 7, a.domain.memory.linear(page))).toBe(GNTST.bad_copy_arg);
    expect(access.copyFrom(8, -1, 7, a.domain.memory.linear(page))).toBe(GNTST.bad_copy_arg);
    for (const ref of [-1, 0.5, 1e9, Number.NaN, 9]) expect(access.briefly(ref, false)).toBe(0);
    // Not for Domain 0, read-only, accepting a page, a part of a page, not the domain's own.
    grant(a, 8, b.domain.id, page);
    expect(access.briefly(8, false)).toBe(0);
    grant(a, 8, 0, page, GTF.permit_access | GTF.readonly);
    expect(access.briefly(8, true)).toBe(0);
    expect(access.briefly(8, false)).not.toBe(0);
    grant(a, 8, 0, page, GTF.accept_transfer);
    expect(access.briefly(8, false)).toBe(0);
    grant(a, 8, 0, 1 << 20);
    expect(access.briefly(8, false)).toBe(0);
    // Page tables, and what is in use, go the long way.
    grant(a, 8, 0, a.l1);
    expect(access.briefly(8, true)).toBe(0);
    grant(a, 8, 0, page);
    const mapped = access.map(8, false) as { handle: number };
    expect(access.briefly(8, false)).toBe(0);
    access.unmap(mapped.handle);
    expect(access.briefly(8, false)).not.toBe(0);
    a.domain.memory.giveBack(page);
    sound(a);
  });

  it('keeps what it has mapped when the domain ends, and gives all back', () => {
    const { a, b, frames, hypervisor } = two();
    const access = new GrantAccess(a.domain);
    grant(a, 8, 0, a.free[0]!);
    access.map(8, false);
    hypervisor.destroyDomain(a.domain);
    access.close();
    hypervisor.destroyDomain(b.domain);
    expect(frames.free).toBe(testDomains({ domains: 0 }).frames.free);
  });
});

describe('whatever guests do with grants', () => {
  const who = fc.integer({ min: 0, max: 1 });
  const ref = fc.constantFrom(8, 9, 10);
  const page = fc.integer({ min: 0, max: 4 });
  const slot = fc.integer({ min: 300, max: 303 });
  const step = fc.oneof(
    fc.record({
      do: fc.constant('grant' as const),
      who,
      ref,
      page,
      flags: fc.constantFrom(0, 1, 1, 1, 5, 2, 3, 0x101),
      stranger: fc.boolean(),
    }),
    fc.record({ do: fc.constant('map' as const), who, ref, slot, flags: fc.constantFrom(2, 2, 6, 1, 3, 7) }),
    fc.record({ do: fc.constant('unmap' as const), who, slot, handle: fc.integer({ min: 0, max: 4 }) }),
    fc.record({
      do: fc.constant('copy' as const),
      who,
      ref,
      page,
      flags: fc.integer({ min: 0, max: 3 }),
      offset: fc.constantFrom(0, 8, 4090),
    }),
    fc.record({ do: fc.constant('entry' as const), who, slot, page, write: fc.boolean() }),
    fc.record({ do: fc.constant('pin' as const), who, page }),
    fc.record({ do: fc.constant('unpin' as const), who, page }),
    fc.record({ do: fc.constant('give' as const), who, page }),
  );

  it('keeps types and counts right, and the machine whole', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60, size: 'max' }), (steps) => {
        const { domains, frames, hypervisor, processor } = testDomains({ megabytes: 4, pages: 16 });
        for (const { domain } of domains) domain.grants.ensure();
        for (const it of steps) {
          const at = domains[it.who]!;
          const other = domains[1 - it.who]!;
          const { memory } = at.domain;
          switch (it.do) {
            case 'grant':
              grant(at, it.ref, it.stranger ? 9 : other.domain.id, at.free[it.page]!, it.flags);
              break;
            case 'map':
              map(at, it.ref, other.domain.id, at.l1 * 4096 + it.slot * 8, it.flags | GNTMAP.contains_pte);
              break;
            case 'unmap':
              unmap(at, it.handle, at.l1 * 4096 + it.slot * 8, 0);
              break;
            case 'copy':
              at.put({
                0: it.flags & 1 ? it.ref : at.free[it.page]!,
                4: 0,
                8: u16s(it.flags & 1 ? other.domain.id : DOMID.SELF, it.offset),
                16: it.flags & 2 ? it.ref : at.free[it.page]!,
                20: 0,
                24: u16s(it.flags & 2 ? other.domain.id : DOMID.SELF, it.offset),
                32: u16s(8, it.flags),
              });
              op(at, GNTTABOP.copy);
              break;
            case 'entry':
              memory.pageTables.update(
                at.l1,
                it.slot,
                entryLow(at.free[it.page]!, it.write ? PAGE_RW : PAGE_RO),
                0,
              );
              break;
            case 'pin':
              memory.pageTables.update(at.l1, at.pages.indexOf(at.free[it.page]!), 0, 0);
              memory.pin(at.free[it.page]!, FrameType.l1);
              break;
            case 'unpin':
              memory.unpin(at.free[it.page]!);
              break;
            case 'give':
              memory.giveBack(at.free[it.page]!);
          }
          const left = stale(processor, ...domains);
          if (left.length > 0) throw new Error(`after ${JSON.stringify(it)}: ${left.join('; ')}`);
          for (const { domain } of domains) {
            const wrong = domain.memory.checkInvariants();
            if (wrong.length > 0) throw new Error(`after ${JSON.stringify(it)}: ${wrong.join('; ')}`);
          }
        }
        for (const { domain } of domains) hypervisor.destroyDomain(domain);
        expect(frames.free).toBe(testDomains({ domains: 0, megabytes: 4 }).frames.free);
      }),
      { numRuns: Number(process.env['PROPERTY_RUNS'] ?? 60) },
    );
  });
});
