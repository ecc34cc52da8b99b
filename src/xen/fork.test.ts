import { describe, expect, it, vi } from 'vitest';
import { OutOfFrames } from '../machine/frames.ts';
import type { Domain } from './domain.ts';
import { ERRNO } from './public/errno.ts';
import { SCHEDOP, SHUTDOWN } from './public/sched.ts';
import { HYPERVISOR } from './public/xen.ts';
import { hypercall, mov, PAGE, PAGES, store, type TestSystem, testGuest, testSystem, va } from './testing.ts';

/** inc qword [data]; jmp back */
const COUNT = [...mov(0, va(PAGE.data)), 0x48, 0xff, 0x00, 0xeb, 0xfb];

const word = ({ memory }: TestSystem, domain: Domain, mfn: number) =>
  Number(memory.read64(domain.memory.linear(mfn)));

function run({ hypervisor }: TestSystem, slices: number): void {
  for (let count = 0; count < slices; count++) hypervisor.runSlice();
}

/** A domain that counts, and was running for a while. */
function counting(vcpus = 1) {
  const system = testSystem();
  const free = system.frames.free;
  const guest = testGuest(system, COUNT, vcpus);
  run(system, 3);
  return { system, guest, free, control: system.hypervisor.control, data: guest.mfns[PAGE.data]! };
}

describe('a fork', () => {
  it('goes on where the other one was, and each for itself', () => {
    const { system, guest, control, data } = counting();
    const child = system.hypervisor.domain(control.forkDomain(guest.domain.id, []))!;
    const before = word(system, guest.domain, data);
    expect(before).toBeGreaterThan(100);
    expect(word(system, child, data)).toBe(before);
    expect(child.memory.machineFrame(data)).toBe(guest.domain.memory.machineFrame(data));
    run(system, 3);
    // It is paused.
    expect(word(system, child, data)).toBe(before);
    const parents = word(system, guest.domain, data);
    expect(parents).toBeGreaterThan(before);
    expect(child.memory.machineFrame(data)).not.toBe(guest.domain.memory.machineFrame(data));
    control.pauseDomain(guest.domain.id);
    control.unpauseDomain(child.id);
    run(system, 3);
    expect(word(system, guest.domain, data)).toBe(parents);
    expect(word(system, child, data)).toBeGreaterThan(before);
    for (const domain of [guest.domain, child]) {
      expect(domain.crashReason).toBeNull();
      expect(domain.memory.checkInvariants()).toEqual([]);
    }
  });

  it('shares all but tables and what is written to', () => {
    const { system, guest, control } = counting();
    control.pauseDomain(guest.domain.id);
    const before = system.frames.free;
    const child = system.hypervisor.domain(control.forkDomain(guest.domain.id, [guest.mfns[PAGE.free]!]))!;
    const { overheadPages, totalPages } = control.getDomainInfo(child.id);
    expect(totalPages).toBe(PAGES);
    // Four page tables, and the page of Domain 0.
    expect(before - system.frames.free).toBe(overheadPages + 5);
  });

  it('can be forked again, and ends in any order without loss', () => {
    for (const order of [
      [0, 1, 2, 3],
      [3, 2, 1, 0],
      [1, 3, 0, 2],
    ]) {
      const { system, guest, free, control, data } = counting();
      const ids = [guest.domain.id, control.forkDomain(guest.domain.id, [])];
      control.unpauseDomain(ids[1]!);
      run(system, 4);
      ids.push(control.forkDomain(ids[1]!, []), control.forkDomain(guest.domain.id, []));
      run(system, 4);
      for (const index of order) {
        control.destroyDomain(ids[index]!);
        run(system, 2);
        for (const domain of system.hypervisor.allDomains()) {
          expect(domain.crashReason).toBeNull();
          expect(domain.memory.checkInvariants()).toEqual([]);
          expect(word(system, domain, data)).toBeGreaterThan(100);
        }
      }
      expect(system.frames.free).toBe(free);
    }
  });

  it('has the ports, pending events and timers of the other', () => {
    const block = hypercall(HYPERVISOR.sched_op_compat, SCHEDOP.block, 0);
    const system = testSystem();
    const guest = testGuest(system, [
      ...block,
      ...store(va(PAGE.data)),
      ...hypercall(HYPERVISOR.sched_op_compat, SCHEDOP.shutdown, SHUTDOWN.reboot),
    ]);
    const { control } = system.hypervisor;
    const port = control.evtchnAllocUnbound(guest.domain.id);
    run(system, 2);
    expect(guest.vcpu.blocked).toBe(true);
    const child = system.hypervisor.domain(control.forkDomain(guest.domain.id, []))!;
    control.unpauseDomain(child.id);
    run(system, 2);
    expect(child.vcpus[0]!.blocked).toBe(true);
    expect(child.events.list()).toEqual(guest.domain.events.list());
    // An event for the fork is one for the fork alone.
    system.memory.u8[child.memory.sharedInfo + 2048] = 0;
    control.evtchnSend(child.id, port);
    expect(child.events.isPending(port)).toBe(true);
    expect(guest.domain.events.isPending(port)).toBe(false);
    expect(guest.vcpu.blocked).toBe(true);
  });

  it('of a domain that is not running, or does not exist, is refused', () => {
    const { guest, control } = counting();
    expect(() => control.forkDomain(99, [])).toThrow(expect.objectContaining({ errno: ERRNO.ESRCH }));
    const empty = control.createDomain({ maxPages: 10, vcpus: 1 });
    expect(() => control.forkDomain(empty, [])).toThrow(expect.objectContaining({ errno: ERRNO.EINVAL }));
    control.shutdownDomain(guest.domain.id, SHUTDOWN.poweroff);
    expect(() => control.forkDomain(guest.domain.id, [])).toThrow(/does not run/);
  });

  it('on a machine without memory for it is refused, and nothing is lost', () => {
    const { system, guest, control } = counting();
    const filler = control.createDomain({ maxPages: 6000, vcpus: 1 });
    for (const left of [3, 10, 20, 30, 34, 36]) {
      const { memory } = system.hypervisor.domain(filler)!;
      control.populatePhysmap(filler, Math.max(system.frames.free - left, 1));
      const before = system.frames.free;
      try {
        control.destroyDomain(control.forkDomain(guest.domain.id, []));
      } catch (error) {
        expect(error).toMatchObject({ errno: ERRNO.ENOMEM });
      }
      expect(system.frames.free).toBe(before);
      expect(guest.domain.memory.checkInvariants()).toEqual([]);
      for (let mfn = 0; system.frames.free < 100; mfn++) memory.giveBack(mfn);
    }
  });

  it('for which another processor leaves no memory, at any moment, is refused, and nothing is lost', () => {
    const { system, guest, control } = counting();
    const { frames } = system;
    control.pauseDomain(guest.domain.id);
    const before = frames.free;
    const original = frames.allocContiguous;
    const alloc = vi.spyOn(frames, 'allocContiguous');
    let refused = 0;
    for (let allowed = 0; ; allowed++) {
      let left = allowed;
      alloc.mockImplementation((count) => {
        if (left-- === 0) throw new OutOfFrames(count);
        return original.call(frames, count);
      });
      try {
        control.destroyDomain(control.forkDomain(guest.domain.id, []));
        break;
      } catch (error) {
        refused++;
        expect(error).toMatchObject({ errno: ERRNO.ENOMEM });
      }
      expect(frames.free).toBe(before);
      expect(guest.domain.memory.checkInvariants()).toEqual([]);
    }
    alloc.mockRestore();
    expect(refused).toBeGreaterThan(5);
    expect(frames.free).toBe(before);
  });

  it('that finds no memory for a copy ends, alone', () => {
    const { system, guest, control, data } = counting();
    const child = control.forkDomain(guest.domain.id, []);
    control.pauseDomain(guest.domain.id);
    const filler = control.createDomain({ maxPages: 6000, vcpus: 1 });
    control.populatePhysmap(filler, system.frames.free);
    control.unpauseDomain(child);
    run(system, 3);
    expect(control.getDomainInfo(child).crashReason).toBe(
      'the machine has no memory left for a copy of a page that it shares',
    );
    control.destroyDomain(child);
    const before = word(system, guest.domain, data);
    control.unpauseDomain(guest.domain.id);
    run(system, 3);
    expect(word(system, guest.domain, data)).toBeGreaterThan(before);
    expect(guest.domain.crashReason).toBeNull();
  });
});
