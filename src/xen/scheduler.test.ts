/** The scheduler's two steps with domains that are only names, and its parameters on a real machine. */
import { describe, expect, it } from 'vitest';
import { DEFAULT_PARAMETERS } from './bvt.ts';
import type { Domain } from './domain.ts';
import { ERRNO } from './public/errno.ts';
import { SCHEDOP } from './public/sched.ts';
import { HYPERVISOR } from './public/xen.ts';
import { Scheduler } from './scheduler.ts';
import { hypercall, mov, PAGE, store, type TestSystem, testGuest, testSystem, va } from './testing.ts';
import type { Vcpu } from './vcpu.ts';

const MS = 1_000_000;

/** A domain and its vCPUs, as far as the scheduler looks at them. */
function names(vcpus: number): { domain: Domain; vcpus: Vcpu[] } {
  const domain = {} as Domain;
  return { domain, vcpus: Array.from({ length: vcpus }, (_, id) => ({ domain, id }) as Vcpu) };
}

class Run {
  readonly scheduler = new Scheduler(0);
  now = 0;
  readonly ran = new Map<Vcpu, number>();

  constructor() {
    this.scheduler.resume(0);
  }

  wake(...vcpus: Vcpu[]): void {
    for (const vcpu of vcpus) this.scheduler.wake(vcpu, this.now);
  }

  /** @param most the longest step, as the machine's turn is one */
  until(end: number, most = 2 * MS): void {
    while (this.now < end) {
      const vcpu = this.scheduler.pick()!;
      const time = Math.min(this.scheduler.slice, most, end - this.now);
      this.now += time;
      this.scheduler.account(this.now);
      this.ran.set(vcpu, this.of(vcpu) + time);
    }
  }

  of(...vcpus: Vcpu[]): number {
    return vcpus.reduce((sum, vcpu) => sum + (this.ran.get(vcpu) ?? 0), 0);
  }
}

describe('the scheduler', () => {
  it('gives a domain its share whatever number of virtual CPUs it has, and each of those the same', () => {
    const run = new Run();
    const [one, four] = [names(1), names(4)];
    run.wake(...one.vcpus, ...four.vcpus);
    run.until(10_000 * MS);
    expect(run.of(...one.vcpus) / (5000 * MS)).toBeCloseTo(1, 2);
    for (const vcpu of four.vcpus) expect(run.of(vcpu) / (1250 * MS)).toBeCloseTo(1, 2);
  });

  it('follows parameters that change', () => {
    const run = new Run();
    const [a, b] = [names(1), names(2)];
    run.wake(...a.vcpus, ...b.vcpus);
    run.until(1000 * MS);
    run.scheduler.setParameters(b.domain, { ...DEFAULT_PARAMETERS, mcuAdvance: 2.5 });
    const before = run.of(...b.vcpus);
    run.until(11_000 * MS);
    expect((run.of(...b.vcpus) - before) / (8000 * MS)).toBeCloseTo(1, 2);
  });

  it('switches between domains no more often than the allowance says', () => {
    for (const allowance of [5 * MS, 50 * MS]) {
      const { scheduler } = new Run();
      scheduler.allowance = allowance;
      const domains = Array.from({ length: 128 }, () => names(1));
      for (const { vcpus } of domains) scheduler.wake(vcpus[0]!, 0);
      let [now, switches, before] = [0, 0, null as Vcpu | null];
      while (now < 20_000 * MS) {
        const vcpu = scheduler.pick();
        if (vcpu !== before) switches++;
        before = vcpu;
        now += Math.min(scheduler.slice, 2 * MS);
        scheduler.account(now);
      }
      expect(switches).toBeLessThanOrEqual((20_000 * MS) / allowance + 128);
      expect(switches).toBeGreaterThan((20_000 * MS) / allowance / 2.1);
    }
  });

  it('charges a domain for what is done for it while no guest runs', () => {
    const run = new Run();
    const [served, other] = [names(1), names(1)];
    run.wake(...served.vcpus, ...other.vcpus);
    // For each 3 ms of the guests there is 1 ms of work for one of them.
    for (let round = 0; round < 1000; round++) {
      run.until(run.now + 3 * MS);
      run.scheduler.pause(run.now);
      run.scheduler.served(served.domain, MS);
      run.now += MS;
      run.scheduler.resume(run.now);
    }
    expect(run.of(...other.vcpus) / (2000 * MS)).toBeCloseTo(1, 1);
    expect(run.of(...served.vcpus) / (1000 * MS)).toBeCloseTo(1, 1);
  });

  it('lets a domain make up for it only within limits', () => {
    const run = new Run();
    const [served, other] = [names(1), names(1)];
    run.wake(...other.vcpus);
    run.until(10 * MS);
    // Work for one that sleeps, for a minute in which nobody else wanted the processor.
    run.scheduler.pause(run.now);
    for (let second = 0; second < 60; second++) run.scheduler.served(served.domain, 1000 * MS);
    run.scheduler.resume(run.now);
    run.wake(...served.vcpus);
    run.until(run.now + 1000 * MS);
    expect(run.of(...served.vcpus)).toBeGreaterThan(430 * MS);
    expect(run.of(...served.vcpus)).toBeLessThan(470 * MS);
  });

  it('charges nobody for time in which no guest runs', () => {
    const run = new Run();
    const [a, b] = [names(1), names(1)];
    run.wake(...a.vcpus, ...b.vcpus);
    const [vcpu] = a.vcpus;
    while (run.of(vcpu!) < 1000 * MS) {
      run.until(run.now + MS);
      // Domain 0 takes its time whenever the first one was running.
      if (run.scheduler.pick() !== vcpu) continue;
      run.scheduler.pause(run.now);
      run.now += 20 * MS;
      run.scheduler.resume(run.now);
    }
    expect(run.of(...b.vcpus) / run.of(...a.vcpus)).toBeCloseTo(1, 1);
  });

  it('lets a virtual CPU that yields see the others of its domain run, then other domains', () => {
    const run = new Run();
    const [a, b] = [names(2), names(1)];
    run.wake(...a.vcpus, ...b.vcpus);
    const first = run.scheduler.pick()!;
    expect(first).toBe(a.vcpus[0]);
    run.scheduler.yield(first, run.now);
    expect(run.scheduler.pick()).toBe(a.vcpus[1]);
    run.scheduler.sleep(a.vcpus[1]!, run.now);
    expect(run.scheduler.pick()).toBe(a.vcpus[0]);
    run.scheduler.yield(a.vcpus[0]!, run.now);
    expect(run.scheduler.pick()).toBe(b.vcpus[0]);
    run.scheduler.sleep(b.vcpus[0]!, run.now);
    run.scheduler.yield(a.vcpus[0]!, run.now);
    expect(run.scheduler.pick()).toBe(a.vcpus[0]);
    run.scheduler.sleep(a.vcpus[0]!, run.now);
    expect(run.scheduler.pick()).toBeNull();
  });

  it('forgets a domain', () => {
    const { scheduler } = new Run();
    const { domain, vcpus } = names(3);
    for (const vcpu of vcpus) scheduler.wake(vcpu, 0);
    scheduler.pick();
    scheduler.remove(domain);
    expect(scheduler.pick()).toBeNull();
  });
});

describe('on a machine', () => {
  /** inc qword [data]; jmp back */
  const SPIN = [...mov(0, va(PAGE.data)), 0x48, 0xff, 0x00, 0xeb, 0xfb];
  const cpuTime = ({ hypervisor }: TestSystem, domid: number) =>
    hypervisor.control.getDomainInfo(domid).cpuTimeNs;

  it('domains get what their parameters say', () => {
    const system = testSystem();
    const { control } = system.hypervisor;
    const [a, b] = [testGuest(system, SPIN).domain.id, testGuest(system, SPIN).domain.id];
    control.schedulerSet(b, { mcuAdvance: 30 });
    expect(control.schedulerGet(b)).toEqual({ ...DEFAULT_PARAMETERS, mcuAdvance: 30 });
    expect(control.allowanceGet()).toBe(5 * MS);
    control.allowanceSet(MS);
    for (let slice = 0; slice < 24; slice++) system.hypervisor.runSlice();
    expect(cpuTime(system, a) / cpuTime(system, b)).toBeGreaterThan(2.5);
    expect(cpuTime(system, a) / cpuTime(system, b)).toBeLessThan(3.5);
  });

  it('one that only yields gets no more than its share, and no less than others leave it', () => {
    const system = testSystem();
    const spinner = testGuest(system, SPIN).domain.id;
    const yields = hypercall(HYPERVISOR.sched_op_compat, SCHEDOP.yield, 0);
    const code = [...yields, ...store(va(PAGE.data))];
    const yielder = testGuest(system, [...code, 0xe9, ...int32(-code.length - 5)]).domain.id;
    for (let slice = 0; slice < 24; slice++) system.hypervisor.runSlice();
    expect(cpuTime(system, yielder)).toBeGreaterThan(0);
    expect(cpuTime(system, yielder)).toBeLessThan(cpuTime(system, spinner) * 1.2);
  });

  it('parameters that make no sense are refused', () => {
    const system = testSystem();
    const { control } = system.hypervisor;
    const domid = testGuest(system, SPIN).domain.id;
    const wrong = [
      { mcuAdvance: 0 },
      { mcuAdvance: Number.NaN },
      { mcuAdvance: 1e9 },
      { warpValue: -1 },
      { warpLimit: Number.POSITIVE_INFINITY },
      { unwarpTime: -5 },
      { warpback: 1 as unknown as boolean },
    ];
    for (const changes of wrong)
      expect(() => control.schedulerSet(domid, changes)).toThrow(
        expect.objectContaining({ errno: ERRNO.EINVAL }),
      );
    expect(control.schedulerGet(domid)).toEqual(DEFAULT_PARAMETERS);
    expect(() => control.allowanceSet(-1)).toThrow();
    expect(() => control.schedulerGet(77)).toThrow(/no domain/);
  });
});

function int32(value: number): number[] {
  return [value & 0xff, (value >> 8) & 0xff, (value >> 16) & 0xff, (value >> 24) & 0xff];
}
