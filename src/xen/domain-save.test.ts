import { describe, expect, it } from 'vitest';
import type { Domain } from './domain.ts';
import type { Place, SavedDomain } from './domain-save.ts';
import { GRANT_ENTRY_V1 } from './public/grant_table.ts';
import { SCHEDOP, SHUTDOWN } from './public/sched.ts';
import { HYPERVISOR, VIRQ } from './public/xen.ts';
import { hypercall, mov, PAGE, store, type TestSystem, testGuest, testSystem, va } from './testing.ts';

/** inc qword [data]; jmp back */
const COUNT = [...mov(0, va(PAGE.data)), 0x48, 0xff, 0x00, 0xeb, 0xfb];

/** A domain as it would be in a file. */
interface File {
  saved: SavedDomain;
  places: Uint8Array[];
  /** Pages, in order. */
  pages: Uint8Array[];
}

function run({ hypervisor }: TestSystem, slices: number): void {
  for (let count = 0; count < slices; count++) hypervisor.runSlice();
}

const numbers = ({ pages }: SavedDomain) =>
  pages.flatMap(([first, count]) => Array.from({ length: count }, (_, index) => first + index));

function save(system: TestSystem, domain: Domain): File {
  const { control } = system.hypervisor;
  control.pauseDomain(domain.id);
  const { saved, places } = JSON.parse(JSON.stringify(control.saveDomain(domain.id))) as {
    saved: SavedDomain;
    places: Place[];
  };
  const { u8 } = system.memory;
  return {
    saved,
    places: places.map(([address, length]) => u8.slice(address, address + length)),
    pages: numbers(saved).map((mfn) => u8.slice(domain.memory.linear(mfn), domain.memory.linear(mfn) + 4096)),
  };
}

function restore(system: TestSystem, { saved, places, pages }: File): Domain {
  const { control } = system.hypervisor;
  const begun = control.beginRestore(saved);
  const domain = system.hypervisor.domain(begun.domid)!;
  const { u8 } = system.memory;
  for (const [index, [address, length]] of begun.places.entries()) {
    expect(places[index]).toHaveLength(length);
    u8.set(places[index]!, address);
  }
  for (const [index, mfn] of numbers(saved).entries()) u8.set(pages[index]!, domain.memory.linear(mfn));
  control.finishRestore(begun.domid, saved);
  return domain;
}

const word = ({ memory }: TestSystem, domain: Domain, mfn: number) =>
  Number(memory.read64(domain.memory.linear(mfn)));

describe('a saved domain', () => {
  it('does not change while it is read, whatever time goes by', () => {
    const system = testSystem();
    const { control } = system.hypervisor;
    const guest = testGuest(system, [
      ...hypercall(HYPERVISOR.set_timer_op, 1_500_000_000),
      ...hypercall(HYPERVISOR.sched_op_compat, SCHEDOP.block),
      ...store(va(PAGE.data)),
    ]);
    guest.vcpu.period = 0;
    guest.domain.events.bindVirq(VIRQ.TIMER, 0);
    const { vcpu, domain } = guest;
    while (!vcpu.blocked) run(system, 1);
    control.pauseDomain(domain.id);
    const { saved, places } = control.saveDomain(domain.id);
    const bytes = () => places.map(([address, length]) => system.memory.u8.slice(address, address + length));
    const before = bytes();
    system.clock.now += 5_000_000_000;
    run(system, 3);
    expect(bytes()).toEqual(before);
    expect(vcpu.blocked).toBe(true);
    expect(saved.state.vcpus[0]).toMatchObject({ blocked: true, timer: 1_500_000_000 });
    // What is written out once more says the same of its timer; then it fires.
    expect(control.saveDomain(domain.id).saved.state.vcpus[0]!.timer).toBe(1_500_000_000);
    control.unpauseDomain(domain.id);
    run(system, 3);
    expect(vcpu.blocked).toBe(false);
  });

  it('goes on where it was, on another machine and more than once', () => {
    const system = testSystem();
    const guest = testGuest(system, COUNT, 2);
    run(system, 3);
    const file = save(system, guest.domain);
    const data = guest.mfns[PAGE.data]!;
    const before = word(system, guest.domain, data);
    expect(before).toBeGreaterThan(100);
    const other = testSystem();
    const free: number[] = [];
    for (let time = 0; time < 3; time++) {
      const domain = restore(other, file);
      expect(word(other, domain, data)).toBe(before);
      expect(domain.pauseCount).toBe(1);
      run(other, 1);
      expect(word(other, domain, data)).toBe(before);
      other.hypervisor.control.unpauseDomain(domain.id);
      run(other, 3);
      other.hypervisor.control.pauseDomain(domain.id);
      expect(word(other, domain, data)).toBeGreaterThan(before);
      expect(domain.crashReason).toBeNull();
      expect(domain.memory.check()).toEqual([]);
      other.hypervisor.control.destroyDomain(domain.id);
      free.push(other.frames.free);
    }
    // The processor keeps some memory for code from the first time on.
    expect(free[2]).toBe(free[1]);
  });

  it('has the time that it would have had', () => {
    const system = testSystem();
    // rdtsc; shl rdx, 32; or rax, rdx
    const tsc = [0x0f, 0x31, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0];
    const guest = testGuest(system, [...tsc, ...store(va(PAGE.data)), 0xeb, 0xeb]);
    system.clock.now = 500e9;
    run(system, 2);
    const domain = guest.domain;
    domain.setGuestDeadline(domain.vcpus[0]!.timer, 700e9);
    const file = save(system, domain);
    expect(file.saved.state.vcpus[0]!.timer).toBe(700e9);
    // Another machine, started later, whose own clock is behind; 60 s went by.
    const other = testSystem();
    other.clock.now = 3e9;
    const saved = { ...file.saved, state: { ...file.saved.state, wallclock: 1_700_000_000e9 + 3e9 - 60e9 } };
    const restored = restore(other, { ...file, saved });
    expect(Math.abs(restored.now() - (file.saved.state.time + 60e9))).toBeLessThan(0.1e9);
    expect(restored.vcpus[0]!.timer.deadline + restored.timeOffset).toBeCloseTo(700e9, -3);
    other.hypervisor.control.unpauseDomain(restored.id);
    run(other, 2);
    const seen = word(other, restored, guest.mfns[PAGE.data]!);
    expect(Math.abs(seen - restored.now())).toBeLessThan(0.1e9);
    // Saved again, its own time is in the file.
    const again = save(other, restored).saved.state;
    expect(Math.abs(again.time - restored.now())).toBeLessThan(0.1e9);
    expect(again.vcpus[0]!.timer).toBeCloseTo(700e9, -3);
  });

  it('has its ports, what is pending, and its grants', () => {
    const system = testSystem();
    const guest = testGuest(system, [
      ...hypercall(HYPERVISOR.sched_op_compat, SCHEDOP.block, 0),
      ...hypercall(HYPERVISOR.sched_op_compat, SCHEDOP.shutdown, SHUTDOWN.reboot),
    ]);
    run(system, 2);
    const { domain } = guest;
    const { control } = system.hypervisor;
    const port = control.evtchnAllocUnbound(domain.id);
    control.evtchnSend(domain.id, control.evtchnAllocUnbound(domain.id));
    domain.events.bindIpi(0);
    domain.grants.seed(1, guest.mfns[PAGE.free]!);
    const use = domain.grants.use(1, { domid: 0, write: true, map: true });
    expect(typeof use).toBe('object');
    const list = domain.events.list();
    const other = testSystem();
    const restored = restore(other, save(system, domain));
    expect(restored.events.list()).toEqual(list);
    expect(restored.memory.check()).toEqual([]);
    expect(restored.grants.inUse).toBe(0);
    const [entries] = restored.grants.frames.places.shared;
    expect(other.memory.read32(entries! + GRANT_ENTRY_V1.size + GRANT_ENTRY_V1.frame)).toBe(
      guest.mfns[PAGE.free],
    );
    expect(restored.grants.frames.read(1).flags).toBe(domain.grants.frames.read(1).flags);
    expect(typeof restored.grants.use(1, { domid: 0, write: true, map: true })).toBe('object');
    other.hypervisor.control.unpauseDomain(restored.id);
    other.hypervisor.control.evtchnSend(restored.id, port);
    expect(restored.events.isPending(port)).toBe(true);
  });

  it('of which anything was changed is refused, and nothing stays', () => {
    const system = testSystem();
    const guest = testGuest(system, COUNT);
    run(system, 2);
    const file = save(system, guest.domain);
    const { state, pages } = file.saved;
    const [l4] = guest.mfns;
    const limit = file.saved.frameNumbers;
    const changed = (change: (copy: File) => void): File => {
      const copy = structuredClone(file);
      change(copy);
      return copy;
    };
    const vcpu = (fields: object) =>
      changed((copy) => Object.assign(copy.saved.state.vcpus[0] as object, fields));
    const put32 = (bytes: Uint8Array, at: number, value: number) =>
      new DataView(bytes.buffer, bytes.byteOffset).setUint32(at, value, true);
    const wrong: Record<string, File> = {
      'a count too few': changed(({ places }) => put32(places[1]!, 4 * l4!, 0)),
      'a reference too many': changed(({ places }) => put32(places[0]!, 4 * guest.mfns[9]!, 7)),
      'a table that is writable': changed(({ places }) => {
        places[2]![l4!] = places[2]![guest.mfns[9]!]!;
      }),
      'an entry for a frame that is not there': changed((copy) => put32(copy.pages[3]!, 0, 0x7fff0063)),
      'an entry of the hypervisor’s': changed((copy) => put32(copy.pages[0]!, 256 * 8, 0x63)),
      'a root that is no table': vcpu({ kernelRoot: guest.mfns[9]! }),
      'no root': vcpu({ kernelRoot: 0 }),
      'a vcpu_info in a table': vcpu({ vcpuInfo: [l4!, 0] }),
      'a GDT in a page that is writable': vcpu({ gdtFrames: [guest.mfns[9]!], gdtEntries: 10 }),
      'a handler that is no address': vcpu({ traps: [[3, 0, 0, 2 ** 50]] }),
      'an event page that is a table': changed(({ saved }) => {
        (saved.state.events as { fifo: object }).fifo = { pages: [l4!], queues: [] };
      }),
      'memory elsewhere': changed(({ saved }) => {
        (saved as { pages: unknown }).pages = [[limit, 5]];
      }),
      'memory twice': changed(({ saved }) => {
        (saved as { pages: unknown }).pages = [...pages, pages[0]];
      }),
      'another layout': changed(({ saved }) => {
        (saved as { frameNumbers: number }).frameNumbers++;
      }),
      'a processor too few': changed(({ saved }) => {
        (saved as { cpus: unknown }).cpus = [];
      }),
    };
    expect(state.vcpus).toHaveLength(1);
    const other = testSystem();
    const { free } = other.frames;
    for (const [what, copy] of Object.entries(wrong)) {
      expect(() => restore(other, copy), what).toThrow(
        expect.objectContaining({ errno: expect.any(Number) }),
      );
      for (const { domid } of other.hypervisor.control.listDomains())
        other.hypervisor.control.destroyDomain(domid);
      expect(other.frames.free, what).toBe(free);
    }
    expect(restore(other, file).crashReason).toBeNull();
  });
});
