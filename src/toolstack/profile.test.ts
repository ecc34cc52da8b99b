import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Memory } from '../machine/memory.ts';
import { ACTIVITY, ActivityBoard, CPU, DETAIL, hypercallActivity, PHASE } from '../x86/index.ts';
import { HYPERVISOR } from '../xen/public/xen.ts';
import { type Profile, Profiler } from './profile.ts';
import { formatProfile, hottestFunctions } from './profile-table.ts';

const BOARD = 0x1000;
const CPUS = [0x2000, 0x3000];
const RING = 0x10000;

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

/** A processor of which the test says what it is doing, and for how long. */
function scene(compilerBusy?: () => number | null) {
  const memory = Memory.create(1 << 20);
  const board = new ActivityBoard(memory, BOARD);
  CPUS.forEach((cpu, index) => {
    memory.u32[(cpu + CPU.owner) >>> 2] = index + 1;
    memory.u32[(cpu + CPU.ring) >>> 2] = RING;
  });
  const profiler = new Profiler(memory, [BOARD], compilerBusy === undefined ? {} : { compilerBusy });
  return {
    profiler,
    phase(phase: 1 | 2, milliseconds: number) {
      board.enter(phase);
      vi.advanceTimersByTime(milliseconds);
    },
    cpu(domid: number, activity: number, milliseconds: number, detail = 0, jumpedTo = 0) {
      const cpu = CPUS[domid - 1]!;
      board.enterCpu(cpu);
      memory.u32[(cpu + CPU.activity) >>> 2] = activity | (detail << 8);
      memory.write64(RING + 8, BigInt(jumpedTo));
      memory.u32[(cpu + CPU.ringHead) >>> 2] = 16;
      vi.advanceTimersByTime(milliseconds);
    },
  };
}

function profileOf(tell: (of: ReturnType<typeof scene>) => void): Profile {
  const of = scene();
  of.profiler.start();
  tell(of);
  of.profiler.stop();
  return of.profiler.report();
}

describe('a profile', () => {
  it('divides the time by domain and activity', () => {
    const profile = profileOf(({ phase, cpu }) => {
      phase(PHASE.idle, 400);
      phase(PHASE.machine, 100);
      cpu(1, ACTIVITY.interpreter, 50);
      cpu(1, ACTIVITY.translated, 100);
      cpu(1, ACTIVITY.translated, 30, DETAIL.walk);
      cpu(1, ACTIVITY.interpreter, 20, DETAIL.decoding);
      cpu(1, ACTIVITY.interpreter, 10, DETAIL.floatingPoint);
      cpu(2, hypercallActivity(HYPERVISOR.mmu_update), 70);
      cpu(2, hypercallActivity(HYPERVISOR.iret), 20);
      // A walk for the hypervisor's own sake belongs to what it is for.
      cpu(2, ACTIVITY.pageFault, 40, DETAIL.walk);
    });
    expect(profile.processors).toBe(1);
    expect(profile.seconds).toBeCloseTo(0.84);
    expect(profile.idle).toBeCloseTo(0.4);
    expect(profile.machine).toBeCloseTo(0.1);
    expect(profile.compiler).toBeNull();
    const [one, two] = profile.domains;
    expect(one!.domid).toBe(1);
    expect(one!.seconds).toBeCloseTo(0.21);
    expect(one!.activities.interpreter).toBeCloseTo(0.05);
    expect(one!.activities.translated).toBeCloseTo(0.1);
    expect(one!.activities.tlbMisses).toBeCloseTo(0.03);
    expect(one!.activities.decoding).toBeCloseTo(0.02);
    expect(one!.activities.floatingPoint).toBeCloseTo(0.01);
    expect(two!.activities.hypercalls).toBeCloseTo(0.09);
    expect(two!.activities.pageFaults).toBeCloseTo(0.04);
    expect(Object.keys(two!.hypercalls)).toEqual(['mmu_update', 'iret']);
    expect(two!.hypercalls['mmu_update']).toBeCloseTo(0.07);
  });

  it('counts only between start and stop', () => {
    const { profiler, phase } = scene();
    phase(PHASE.idle, 100);
    profiler.start();
    profiler.start();
    phase(PHASE.idle, 100);
    profiler.stop();
    phase(PHASE.idle, 100);
    profiler.start();
    phase(PHASE.idle, 50);
    expect(profiler.report().seconds).toBeCloseTo(0.15);
    profiler.clear();
    phase(PHASE.idle, 20);
    expect(profiler.report().seconds).toBeCloseTo(0.02);
    profiler.stop();
  });

  it('gives a late sample all the time since the one before', () => {
    const of = scene();
    of.profiler.start();
    of.phase(PHASE.idle, 10);
    // The clock goes on while no timer fires.
    const now = performance.now();
    vi.spyOn(performance, 'now').mockReturnValue(now + 200);
    of.profiler.stop();
    vi.restoreAllMocks();
    expect(of.profiler.report().seconds).toBeCloseTo(0.21);
    expect(of.profiler.report().idle).toBeCloseTo(0.21);
  });

  it('tells how busy the translating thread was', () => {
    let busy = 5000;
    const of = scene(() => busy);
    of.profiler.start();
    busy += 30;
    of.phase(PHASE.idle, 100);
    of.profiler.stop();
    expect(of.profiler.report().compiler).toBeCloseTo(0.03);
  });
});

describe('its table', () => {
  it('shows shares of all the time, and leaves out what is none', () => {
    const profile = profileOf(({ phase, cpu }) => {
      phase(PHASE.idle, 750);
      cpu(1, ACTIVITY.translated, 200);
      cpu(1, hypercallActivity(HYPERVISOR.mmu_update), 50);
    });
    const lines = formatProfile(profile).split('\n');
    expect(lines).toEqual([
      expect.stringMatching(/^profile: 1\.00 s, 10\d\d samples$/),
      '   25.0 %  domain 1',
      '   20.0 %    translated code',
      '    5.0 %    hypercalls',
      '    5.0 %      mmu_update',
      '   75.0 %  idle',
    ]);
  });

  it('is of all processors together', () => {
    const memory = Memory.create(1 << 20);
    const boards = [0x1000, 0x1800].map((address) => new ActivityBoard(memory, address));
    const profiler = new Profiler(memory, [0x1000, 0x1800]);
    memory.u32[(CPUS[0]! + CPU.owner) >>> 2] = 7;
    memory.u32[(CPUS[0]! + CPU.activity) >>> 2] = ACTIVITY.translated;
    profiler.start();
    boards[0]!.enter(PHASE.idle);
    boards[1]!.enterCpu(CPUS[0]!);
    vi.advanceTimersByTime(600);
    boards[0]!.enterCpu(CPUS[0]!);
    boards[1]!.enter(PHASE.machine);
    vi.advanceTimersByTime(400);
    profiler.stop();
    expect(formatProfile(profiler.report()).split('\n')).toEqual([
      expect.stringMatching(/^profile: 1\.00 s, 10\d\d samples of 2 processors$/),
      '   50.0 %  domain 7',
      '   50.0 %    translated code',
      '   20.0 %  machine (requests, scheduling)',
      '   30.0 %  idle',
    ]);
  });

  it('names functions of the kernel, and puts programs together', () => {
    const profile = profileOf(({ cpu }) => {
      cpu(1, ACTIVITY.translated, 300, 0, -0x7f000000);
      cpu(1, ACTIVITY.interpreter, 100, 0, -0x7f000000 + 4);
      cpu(1, ACTIVITY.translated, 100, 0, 0x400000);
      cpu(1, ACTIVITY.translated, 100, 0, 0x500000);
      cpu(1, ACTIVITY.pageFault, 100, 0, 0x500000);
    });
    const naming = (address: number) =>
      address < 0 ? `memcpy+0x${(address + 0x7f000000).toString(16)}` : null;
    const functions = hottestFunctions(profile.domains[0]!, naming);
    expect(functions.map(([name]) => name)).toEqual(['memcpy', '(user programs)']);
    expect(functions[0]![1]).toBeCloseTo(0.4);
    expect(functions[1]![1]).toBeCloseTo(0.2);
    expect(hottestFunctions(profile.domains[0]!, null)).toEqual([]);
  });
});
