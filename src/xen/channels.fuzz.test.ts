/**
 * Garbage and near-garbage for the hypercalls of channels: whatever a guest passes, it gets a number back, the types
 * and counts of memory stay right, and when the domains are gone the machine has all its frames again.
 */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { consoleIo } from './console-io.ts';
import { eventChannelOp, eventChannelOpCompat } from './event-channel-op.ts';
import { grantTableOp } from './grant-table-op.ts';
import { hypercall } from './mm/testing.ts';
import { physdevOp, physdevOpCompat } from './physdev.ts';
import { DOMID, VIRQ } from './public/xen.ts';
import { testDomains } from './testing-domains.ts';
import { xenVersion } from './xen-version.ts';

const HANDLERS = {
  eventChannelOp,
  eventChannelOpCompat,
  grantTableOp,
  physdevOp,
  physdevOpCompat,
  xenVersion,
  consoleIo,
};

/** Numbers that mean something somewhere: ports, references, frames, domains, flags. */
const number = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 0, max: 12 }) },
  { weight: 3, arbitrary: fc.integer({ min: 0x100, max: 0x120 }) },
  {
    weight: 2,
    arbitrary: fc.constantFrom(DOMID.SELF, DOMID.SELF << 16, (1 << 16) | DOMID.SELF, 0x10002, 0x20001),
  },
  { weight: 1, arbitrary: fc.nat({ max: 0xffffffff }) },
);
const call = fc.record({
  who: fc.integer({ min: 0, max: 1 }),
  handler: fc.constantFrom(
    'eventChannelOp' as const,
    'eventChannelOp' as const,
    'grantTableOp' as const,
    'grantTableOp' as const,
    ...(Object.keys(HANDLERS) as (keyof typeof HANDLERS)[]),
  ),
  command: fc.oneof(fc.integer({ min: 0, max: 14 }), fc.nat({ max: 0xffffffff })),
  fields: fc.array(number, { minLength: 10, maxLength: 10 }),
  /** Where the arguments are: mostly where they were written. */
  at: fc.oneof(
    { weight: 9, arbitrary: fc.constant(null) },
    { weight: 1, arbitrary: fc.maxSafeInteger() },
    { weight: 1, arbitrary: fc.constantFrom(0, -1, 4095, -(2 ** 47), -(2 ** 47) + 4096, 2 ** 47) },
  ),
  count: fc.constantFrom(1, 1, 1, 0, 2, 3, 0x7fffffff, 0xffffffff),
});

it('every call returns a number, and nothing is lost', () => {
  const empty = testDomains({ domains: 0, megabytes: 4 }).frames.free;
  fc.assert(
    fc.property(fc.array(call, { maxLength: 80, size: 'max' }), (calls) => {
      const { domains, hypervisor, frames } = testDomains({ megabytes: 4, pages: 16, vcpus: 2 });
      for (const { who, handler, command, fields, at, count } of calls) {
        const caller = domains[who]!;
        caller.put(Object.fromEntries(fields.map((value, index) => [index * 4, value])));
        const arg = at ?? caller.argument;
        const first = handler.endsWith('Compat') ? arg : command;
        const second = handler === 'consoleIo' ? count : arg;
        const third = handler === 'consoleIo' ? arg : count;
        expect(hypercall(caller.vcpu, HANDLERS[handler], first, second, third)).toBeTypeOf('number');
        caller.domain.events.sendVirq(caller.vcpu, VIRQ.TIMER);
        caller.domain.events.notifyFromDom0(fields[0]!);
        for (const { domain } of domains) expect(domain.memory.checkInvariants()).toEqual([]);
        // Ends agree: each interdomain channel's other end names it.
        for (const { domain } of domains) {
          for (const { status, port, remoteDomid, remotePort } of domain.events.list()) {
            if (status !== 2 || remoteDomid === 0) continue;
            const there = hypervisor.domain(remoteDomid)!.events.status(remotePort);
            expect(there).toMatchObject({ status: 2, remoteDomid: domain.id, remotePort: port });
          }
        }
      }
      for (const { domain } of domains) hypervisor.destroyDomain(domain);
      expect(frames.free).toBe(empty);
    }),
    { numRuns: Number(process.env['PROPERTY_RUNS'] ?? 60) },
  );
});
