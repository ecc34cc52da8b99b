/** Random hypercalls with random arguments: an errno or the end of that domain, and all counts stay right. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { high32 } from '../x86/cpu.ts';
import { RAX, RSP } from '../x86/state.ts';
import { FrameType } from './mm/frame-table.ts';
import { DOMID, HYPERVISOR } from './public/xen.ts';
import { hypercall, PAGE, PAGES, testGuest, testSystem, va } from './testing.ts';
import { Tracer } from './trace.ts';

/** Numbers that mean something somewhere: small ones, addresses, edges. */
const value = (mfns: readonly number[]) =>
  fc.oneof(
    { weight: 4, arbitrary: fc.integer({ min: 0, max: 40 }) },
    { weight: 3, arbitrary: fc.integer({ min: PAGE.data, max: PAGES + 1 }).map((page) => va(page)) },
    { weight: 3, arbitrary: fc.constantFrom(...mfns) },
    { weight: 2, arbitrary: fc.constantFrom(...mfns).map((mfn) => mfn * 4096 + 8) },
    { weight: 1, arbitrary: fc.constantFrom(0x7ff0, 0x7fff, 4095, 4096, 0xffffffff, 2 ** 31) },
    { weight: 1, arbitrary: fc.constantFrom(-1, -(2 ** 47), 2 ** 47 - 8, -(2 ** 47) + 4096, 2 ** 52) },
    { weight: 1, arbitrary: fc.integer() },
  );

const NUMBERS = [...Object.values(HYPERVISOR), 11, 43, 48, 63, 64, 1000];

const command = fc.integer({ min: 0, max: 16 });
const count = fc.integer({ min: 0, max: 12 });
const pointer = fc.integer({ min: PAGE.data, max: PAGES }).map((page) => va(page));
const vcpuId = fc.integer({ min: 0, max: 2 });
const self = fc.constant(DOMID.SELF);
const flags = fc.integer({ min: 0, max: 6 });

/** Arguments of the right kind, for calls that random ones do not get far in. */
const SHAPES: Readonly<Record<number, readonly fc.Arbitrary<number>[]>> = {
  [HYPERVISOR.mmu_update]: [pointer, count, fc.constant(0), self],
  [HYPERVISOR.mmuext_op]: [pointer, count, fc.constant(0), self],
  [HYPERVISOR.set_gdt]: [pointer, fc.integer({ min: 0, max: 1200 })],
  [HYPERVISOR.update_va_mapping]: [pointer, fc.constant(0), flags],
  [HYPERVISOR.multicall]: [pointer, count],
  [HYPERVISOR.set_trap_table]: [pointer],
  [HYPERVISOR.vcpu_op]: [command, vcpuId, pointer],
  [HYPERVISOR.sched_op]: [command, pointer],
  [HYPERVISOR.memory_op]: [command, pointer],
  [HYPERVISOR.event_channel_op]: [command, pointer],
  [HYPERVISOR.grant_table_op]: [command, pointer, count],
  [HYPERVISOR.callback_op]: [fc.integer({ min: 0, max: 1 }), pointer],
  [HYPERVISOR.set_segment_base]: [fc.integer({ min: 0, max: 4 }), pointer],
};

/** Pages that the guest has to keep to be able to make calls at all. */
const KEPT = PAGE.code + 1;

describe('the hypercall surface', () => {
  it('withstands garbage', { timeout: 120_000 }, () => {
    const system = testSystem(48);
    const { hypervisor, memory, frames } = system;
    const before = frames.free;
    const made = new Map<string, number>();
    // Frame numbers are the same for every domain: those of a first one are good for arguments.
    const first = testGuest(system, []);
    const { mfns } = first;
    hypervisor.control.destroyDomain(first.domain.id);
    const shaped = Object.entries(SHAPES).map(([op, shape]) =>
      fc.tuple(fc.constant(Number(op)), fc.tuple(...shape) as fc.Arbitrary<number[]>),
    );
    const call = fc.record({
      call: fc.oneof(
        fc.tuple(fc.constantFrom(...NUMBERS), fc.array(value(mfns), { minLength: 6, maxLength: 6 })),
        ...shaped,
      ),
      /** Contents of the pages that pointers name. */
      data: fc.array(value(mfns), { minLength: 16, maxLength: 16 }),
    });
    const run = (calls: { call: [number, number[]]; data: number[] }[]) => {
      // syscall; jmp back
      const guest = testGuest(system, [0x0f, 0x05, 0xeb, 0xfc], 2);
      const { cpu, domain, vcpu } = guest;
      domain.tracer = new Tracer((line) => {
        const name = line.replace(/^\S+ (\w+).* = (-\w+|\w).*/, '$1 $2');
        made.set(name, (made.get(name) ?? 0) + 1);
      });
      try {
        for (const {
          call: [op, args],
          data,
        } of calls) {
          for (let page = KEPT; page < PAGES; page++) {
            const at = domain.memory.linear(guest.mfns[page]!);
            const type = domain.memory.table.type(guest.mfns[page]!);
            if (at === 0 || (type !== FrameType.none && type !== FrameType.writable)) continue;
            for (let index = 0; index < 512; index++) {
              const word = data[index % data.length]!;
              memory.u32[(at >>> 2) + index * 2] = word;
              memory.u32[(at >>> 2) + index * 2 + 1] = high32(word);
            }
          }
          [7, 6, 2, 10, 8, 9].forEach((register, index) => {
            cpu.setRegNumber(register, args[index] ?? 0);
          });
          cpu.setRegNumber(RAX, op);
          cpu.setRegNumber(RSP, va(PAGE.stack, 2048));
          cpu.rip = va(PAGE.code);
          vcpu.down = false;
          vcpu.kick();
          vcpu.reschedule();
          hypervisor.runSlice();
          expect(domain.crashReason ?? '').not.toMatch(/internal error/);
          expect(domain.memory.checkInvariants()).toEqual([]);
          if (domain.shutdown !== null) break;
        }
      } finally {
        hypervisor.control.destroyDomain(domain.id);
      }
      expect(frames.free).toBe(before);
    };
    fc.assert(fc.property(fc.array(call, { minLength: 1, maxLength: 10 }), run), { numRuns: 400 });
    // The calls did reach their handlers, and some even succeeded.
    const names = new Set([...made.keys()].map((key) => key.split(' ')[0]));
    expect(names.size).toBeGreaterThan(30);
    expect([...made.keys()].filter((key) => !key.includes('-')).length).toBeGreaterThan(12);
  });

  it('withstands garbage in multicalls', () => {
    const system = testSystem();
    const guest = testGuest(system, [
      ...hypercall(HYPERVISOR.multicall, va(PAGE.data), 4),
      ...hypercall(HYPERVISOR.sched_op_compat, 2, 0),
    ]);
    const entries = [
      [HYPERVISOR.multicall, va(PAGE.data), 4],
      [99, 1, 2],
      [HYPERVISOR.xen_version, 0],
      [HYPERVISOR.console_io, 0, 10, 12345],
    ];
    entries.forEach(([op, ...args], index) => {
      guest.write64(PAGE.data, index * 64, op!);
      args.forEach((arg, place) => {
        guest.write64(PAGE.data, index * 64 + 16 + place * 8, arg);
      });
    });
    for (let slice = 0; slice < 5; slice++) hypervisorSlice(system);
    const result = (index: number) => BigInt.asIntN(64, guest.read64(PAGE.data, index * 64 + 8));
    expect([0, 1, 2, 3].map(result)).toEqual([-22n, -38n, 0x40011n, -14n]);
    expect(guest.domain.crashReason).toBeNull();
  });
});

function hypervisorSlice({ hypervisor }: ReturnType<typeof testSystem>): void {
  hypervisor.runSlice();
}
