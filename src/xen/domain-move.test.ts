import { describe, expect, it } from 'vitest';
import { createProcessor } from '../x86/index.ts';
import type { Domain } from './domain.ts';
import { adoptDomain, leaveDomain, type MovingDomain } from './domain-move.ts';
import { Hypervisor } from './hypervisor.ts';
import { ERRNO } from './public/errno.ts';
import { SCHEDOP, SHUTDOWN } from './public/sched.ts';
import { HYPERVISOR } from './public/xen.ts';
import { hypercall, mov, PAGE, store, type TestSystem, testGuest, testSystem, va } from './testing.ts';

/** inc qword [data]; jmp back */
const COUNT = [...mov(0, va(PAGE.data)), 0x48, 0xff, 0x00, 0xeb, 0xfb];

/** A machine with two processors, and a domain on the first. */
function machine(code: readonly number[] = COUNT, vcpus = 1) {
  const system = testSystem();
  const { memory, frames, hypervisor, clock } = system;
  const reused = frames.onReuse;
  const second: TestSystem = {
    ...system,
    hypervisor: new Hypervisor(
      memory,
      frames,
      createProcessor,
      {
        now: hypervisor.host.now,
        wallclock: () => 1_700_000_000e9 + clock.now,
        random: (bytes) => bytes.fill(1),
      },
      { number: 1, common: hypervisor.common },
    ),
  };
  const reusedThere = frames.onReuse;
  // Each thread has an allocator of its own in a real machine.
  frames.onReuse = (frame) => {
    reused?.(frame);
    reusedThere?.(frame);
  };
  const free = frames.free;
  const guest = testGuest(system, code, vcpus);
  run(system, 3);
  return { first: system, second, guest, free, data: guest.mfns[PAGE.data]! };
}

function run({ hypervisor }: TestSystem, slices: number): void {
  for (let count = 0; count < slices; count++) hypervisor.runSlice();
}

const word = ({ memory }: TestSystem, domain: Domain, mfn: number) =>
  Number(memory.read64(domain.memory.linear(mfn)));

/** As it crosses threads. */
function move(domain: Domain, { hypervisor }: TestSystem): Domain {
  return adoptDomain(hypervisor, JSON.parse(JSON.stringify(leaveDomain(domain))) as MovingDomain);
}

describe('a domain that moves to another processor', () => {
  it('goes on there, with the same memory, and back', () => {
    const { first, second, guest, free, data } = machine();
    const { id } = guest.domain;
    let before = word(first, guest.domain, data);
    let domain = guest.domain;
    for (const to of [second, first, second]) {
      const { cpuTimeNs } = domain.hypervisor.control.getDomainInfo(id);
      const frame = domain.memory.machineFrame(data);
      const from = domain.hypervisor;
      domain = move(domain, to);
      expect(from.domain(id)).toBeUndefined();
      expect(to.hypervisor.common.pcpuOf(id)).toBe(to.hypervisor.pcpu);
      expect(domain.id).toBe(id);
      expect(domain.memory.machineFrame(data)).toBe(frame);
      run(to, 3);
      const now = word(to, domain, data);
      expect(now).toBeGreaterThan(before);
      before = now;
      expect(domain.crashReason).toBeNull();
      expect(domain.memory.check()).toEqual([]);
      expect(to.hypervisor.control.getDomainInfo(id).cpuTimeNs).toBeGreaterThan(cpuTimeNs);
    }
    run(first, 3);
    expect(word(second, domain, data)).toBe(before);
    second.hypervisor.destroyDomain(domain);
    expect(first.frames.free).toBe(free);
  });

  it('shares with its forks as before', () => {
    const { first, second, guest, free, data } = machine();
    const { control } = first.hypervisor;
    const fork = first.hypervisor.domain(control.forkDomain(guest.domain.id, []))!;
    const at = word(first, fork, data);
    const child = move(fork, second);
    expect(child.memory.machineFrame(data)).toBe(guest.domain.memory.machineFrame(data));
    run(first, 2);
    second.hypervisor.control.unpauseDomain(child.id);
    expect(word(second, child, data)).toBe(at);
    run(second, 2);
    expect(word(second, child, data)).toBeGreaterThan(at);
    const parents = word(first, guest.domain, data);
    run(second, 2);
    expect(word(first, guest.domain, data)).toBe(parents);
    for (const domain of [guest.domain, child]) expect(domain.memory.checkInvariants()).toEqual([]);
    control.destroyDomain(guest.domain.id);
    run(second, 1);
    second.hypervisor.destroyDomain(child);
    expect(first.frames.free).toBe(free);
  });

  it('takes its ports, what is pending, and its timers along', () => {
    const code = [
      ...hypercall(HYPERVISOR.set_timer_op, 3_000_000_000),
      ...hypercall(HYPERVISOR.sched_op_compat, SCHEDOP.block, 0),
      ...store(va(PAGE.data)),
      ...hypercall(HYPERVISOR.sched_op_compat, SCHEDOP.shutdown, SHUTDOWN.reboot),
    ];
    const { first, second, guest } = machine(code);
    const { control } = first.hypervisor;
    const port = control.evtchnAllocUnbound(guest.domain.id);
    guest.domain.events.bindVirq(0, 0);
    expect(guest.vcpu.blocked).toBe(true);
    const ports = guest.domain.events.list();
    const moved = move(guest.domain, second);
    expect(moved.events.list()).toEqual(ports);
    expect(moved.vcpus[0]!.blocked).toBe(true);
    expect(moved.vcpus[0]!.timer.deadline).toBe(3_000_000_000);
    expect(second.hypervisor.timers.next).toBe(3_000_000_000);
    second.hypervisor.control.evtchnSend(moved.id, port);
    expect(moved.events.isPending(port)).toBe(true);
    second.clock.now = 3_000_000_001;
    run(second, 3);
    expect(moved.events.isPending(moved.events.list().find(({ virq }) => virq === 0)!.port)).toBe(true);
  });

  it('keeps what it printed, its parameters and its pauses', () => {
    const { second, guest } = machine(COUNT, 2);
    const { control } = guest.domain.hypervisor;
    guest.domain.log.write(new TextEncoder().encode('hello'));
    control.schedulerSet(guest.domain.id, { mcuAdvance: 3 });
    control.pauseDomain(guest.domain.id);
    const uuid = [...guest.domain.uuid];
    const moved = move(guest.domain, second);
    expect(second.hypervisor.control.readConsole(moved.id)).toBe('hello');
    expect(second.hypervisor.control.schedulerGet(moved.id).mcuAdvance).toBe(3);
    expect(moved.pauseCount).toBe(1);
    expect([...moved.uuid]).toEqual(uuid);
    expect(moved.vcpus).toHaveLength(2);
  });

  it('stays while somebody uses its pages, or it shares them', () => {
    const { guest } = machine();
    const { domain } = guest;
    domain.grants.seed(1, guest.mfns[PAGE.free]!);
    const use = domain.grants.use(1, { domid: 0, write: true, map: true });
    if (typeof use === 'number') throw new Error('not granted');
    expect(() => leaveDomain(domain)).toThrow(expect.objectContaining({ errno: ERRNO.EBUSY }));
    expect(domain.hypervisor.domain(domain.id)).toBe(domain);
    use.release();
    expect(leaveDomain(domain).domid).toBe(domain.id);
  });
});
