import { expect, it } from 'vitest';
import { createProcessor } from '../x86/index.ts';
import { DomainTraffic } from './domain-traffic.ts';
import { Hypervisor } from './hypervisor.ts';
import { ERRNO } from './public/errno.ts';
import { EVTCHN_BIND_INTERDOMAIN, EVTCHNOP } from './public/event_channel.ts';
import { HYPERVISOR } from './public/xen.ts';
import { hypercall, mov, PAGE, store, type TestSystem, testGuest, testSystem, va } from './testing.ts';

/** Two processors of one machine. */
function machine(): [TestSystem, TestSystem] {
  const first = testSystem();
  const { memory, frames, hypervisor, clock } = first;
  const reused = frames.onReuse;
  const notifications: TestSystem['notifications'] = [];
  const second = new Hypervisor(
    memory,
    frames,
    createProcessor,
    { now: () => first.hypervisor.now(), wallclock: () => clock.now, random: (bytes) => bytes.fill(1) },
    { number: 1, common: hypervisor.common },
  );
  second.control.onNotify = (notification) => notifications.push(notification);
  const reusedThere = frames.onReuse;
  // Each thread has an allocator of its own in a real machine.
  frames.onReuse = (frame) => {
    reused?.(frame);
    reusedThere?.(frame);
  };
  return [first, { ...first, hypervisor: second, notifications }];
}

/** Binds to a port that another domain holds out, and notes what came of it. */
function binder(other: number, port: number): number[] {
  const at = va(PAGE.data, 0x100);
  return [
    ...mov(0, other + port * 2 ** 32),
    ...store(at + EVTCHN_BIND_INTERDOMAIN.remote_dom),
    ...hypercall(HYPERVISOR.event_channel_op, EVTCHNOP.bind_interdomain, at),
    ...store(va(PAGE.data)),
    0xeb,
    0xfe,
  ];
}

const NOTHING = 0x5555n;

function world() {
  const [first, second] = machine();
  const server = testGuest(first, [0xeb, 0xfe]);
  const port = server.domain.events.allocUnbound(server.domain.id + 1);
  const client = testGuest(second, binder(server.domain.id, port));
  expect(client.domain.id).toBe(server.domain.id + 1);
  client.write64(PAGE.data, 0, NOTHING);
  const run = (system: TestSystem) => {
    for (let slices = 0; slices < 5; slices++) system.hypervisor.runSlice();
  };
  return {
    first,
    second,
    server,
    client,
    port,
    run,
    seek: { domid: client.domain.id, other: server.domain.id },
  };
}

it('a domain that binds to one on another processor waits until they are together', () => {
  const { first, second, server, client, port, run, seek } = world();
  run(second);
  expect(second.notifications).toContainEqual({ kind: 'seek', ...seek });
  expect(client.domain.runnable).toBe(false);
  expect(client.read64(PAGE.data, 0)).toBe(NOTHING);
  // Domain 0 carries it over.
  const [here, there] = [new DomainTraffic(second.hypervisor), new DomainTraffic(first.hypervisor)];
  there.arrive(JSON.parse(JSON.stringify(here.depart(seek.domid))) as ReturnType<typeof here.depart>);
  there.sought(seek.domid, seek.other);
  run(first);
  const moved = first.hypervisor.domain(seek.domid)!;
  expect(moved.crashReason).toBeNull();
  expect(first.memory.read64(moved.memory.linear(client.mfns[PAGE.data]!))).toBe(0n);
  expect(server.domain.events.status(port)).toMatchObject({ remoteDomid: seek.domid });
  // Now they stay together.
  expect(() => there.depart(seek.domid)).toThrow(expect.objectContaining({ errno: ERRNO.EBUSY }));
  expect(() => there.depart(seek.other)).toThrow(expect.objectContaining({ errno: ERRNO.EBUSY }));
});

it('a domain that cannot be brought to another one is told that there is none', () => {
  const { second, client, run, seek } = world();
  run(second);
  expect(client.read64(PAGE.data, 0)).toBe(NOTHING);
  new DomainTraffic(second.hypervisor).sought(seek.domid, seek.other);
  run(second);
  expect(BigInt.asIntN(64, client.read64(PAGE.data, 0))).toBe(BigInt(-ERRNO.ESRCH));
  expect(second.notifications.filter(({ kind }) => kind === 'seek')).toHaveLength(1);
});
