/**
 * Delivery of events under both ABIs, against a guest that takes them as kernels do, one at a time and at random
 * moments: no event is lost, none comes twice, none comes while it is masked.
 */
import fc from 'fast-check';
import { describe, it } from 'vitest';
import { EVTCHN_FIFO, EVTCHN_FIFO_CONTROL_BLOCK, EVTCHN_FIFO_LINK_MASK } from './public/event_channel.ts';
import { SHARED_INFO, VCPU_INFO } from './public/xen.ts';
import { type TestDomain, testDomains } from './testing-domains.ts';

const RUNS = Number(process.env['PROPERTY_RUNS'] ?? 150);
const PORTS = 70;
const VCPUS = 2;

/** A guest's side of an ABI. `take` handles at most one event on a vCPU; false: there was none. */
interface Guest {
  mask(port: number): void;
  take(vcpu: number, handle: (port: number) => void): boolean;
}

function twoLevelGuest({ domain }: TestDomain): Guest {
  const { u8, u32 } = domain.hypervisor.memory;
  const info = domain.memory.sharedInfo;
  const bit = (bitmap: number, port: number) => (u8[info + bitmap + (port >> 3)]! >> (port & 7)) & 1;
  return {
    mask(port) {
      u8[info + SHARED_INFO.evtchn_mask + (port >> 3)]! |= 1 << (port & 7);
    },
    take(vcpu, handle) {
      const at = domain.vcpus[vcpu]!.vcpuInfo;
      u8[at + VCPU_INFO.evtchn_upcall_pending] = 0;
      const selector = (at + VCPU_INFO.evtchn_pending_sel) >> 2;
      const word = u32[selector]!;
      if (word === 0) return false;
      const index = 31 - Math.clz32(word);
      for (let port = index * 64; port < index * 64 + 64; port++) {
        if (!bit(SHARED_INFO.evtchn_pending, port) || bit(SHARED_INFO.evtchn_mask, port)) continue;
        u8[info + SHARED_INFO.evtchn_pending + (port >> 3)]! &= ~(1 << (port & 7));
        handle(port);
        return true;
      }
      u32[selector]! &= ~(1 << index);
      return true;
    },
  };
}

function fifoGuest(at: TestDomain): Guest {
  const { domain, free } = at;
  const { u8, u32 } = domain.hypervisor.memory;
  for (let vcpu = 0; vcpu < VCPUS; vcpu++) domain.events.initControl(vcpu, free[vcpu]!, 128);
  domain.events.expandArray(free[VCPUS]!);
  const words = domain.memory.linear(free[VCPUS]!) >> 2;
  const heads = Array.from({ length: VCPUS }, () => new Array<number>(16).fill(0));
  const ready = new Array<number>(VCPUS).fill(0);
  return {
    mask(port) {
      u32[words + port]! |= EVTCHN_FIFO.MASKED;
    },
    take(vcpu, handle) {
      u8[domain.vcpus[vcpu]!.vcpuInfo + VCPU_INFO.evtchn_upcall_pending] = 0;
      const control = (domain.memory.linear(free[vcpu]!) + 128) >> 2;
      ready[vcpu]! |= u32[control]!;
      u32[control] = 0;
      if (ready[vcpu] === 0) return false;
      const priority = 31 - Math.clz32(ready[vcpu]! & -ready[vcpu]!);
      const own = heads[vcpu]!;
      const port = own[priority] || u32[control + EVTCHN_FIFO_CONTROL_BLOCK.head / 4 + priority]!;
      const word = u32[words + port]!;
      u32[words + port] = word & ~(EVTCHN_FIFO.LINKED | EVTCHN_FIFO_LINK_MASK);
      own[priority] = word & EVTCHN_FIFO_LINK_MASK;
      if (own[priority] === 0) ready[vcpu]! &= ~(1 << priority);
      if ((word & EVTCHN_FIFO.PENDING) !== 0 && (word & EVTCHN_FIFO.MASKED) === 0) {
        u32[words + port]! &= ~EVTCHN_FIFO.PENDING;
        handle(port);
      }
      return true;
    },
  };
}

/** Few ports, so that things happen to one of them; in two words of the first level. */
const port = fc.constantFrom(1, 2, 3, 64, PORTS);
const vcpu = fc.integer({ min: 0, max: VCPUS - 1 });
const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('send' as const), port }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('take' as const), vcpu }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('mask' as const), port }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('unmask' as const), port }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('move' as const), port, vcpu }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('priority' as const),
      port,
      priority: fc.integer({ min: 0, max: 15 }),
    }),
  },
);

describe.each([
  ['two levels', twoLevelGuest],
  ['FIFO', fifoGuest],
] as const)('%s', (name, makeGuest) => {
  it('loses no event, doubles none, and keeps masked ones', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120, size: 'max' }), (steps) => {
        const at = testDomains({ domains: 1, vcpus: VCPUS, pages: 16, megabytes: 4 }).domains[0]!;
        const { events } = at.domain;
        const guest = makeGuest(at);
        for (let i = 0; i < PORTS; i++) events.allocUnbound(0);
        const waiting = new Set<number>();
        const masked = new Set<number>();
        const handle = (port: number) => {
          if (masked.has(port)) throw new Error(`port ${port} is masked`);
          if (!waiting.delete(port)) throw new Error(`port ${port} came twice`);
        };
        /** Vcpus between being told and finding nothing more: the others look only when they are told. */
        const awake = new Set<number>();
        const take = (vcpu: number): boolean => {
          if (!awake.has(vcpu) && !at.domain.vcpus[vcpu]!.upcallPending) return false;
          if (guest.take(vcpu, handle)) awake.add(vcpu);
          else awake.delete(vcpu);
          return true;
        };
        for (const it of steps) {
          switch (it.do) {
            case 'send':
              events.notifyFromDom0(it.port);
              waiting.add(it.port);
              break;
            case 'take':
              take(it.vcpu);
              break;
            case 'mask':
              guest.mask(it.port);
              masked.add(it.port);
              break;
            case 'unmask':
              events.unmask(it.port);
              masked.delete(it.port);
              break;
            case 'move':
              // Under two levels a kernel moves a port only while nothing of it is pending, as Linux does.
              if (name === 'FIFO' || !waiting.has(it.port)) events.bindVcpu(it.port, it.vcpu);
              break;
            case 'priority':
              if (name === 'FIFO') events.setPriority(it.port, it.priority);
          }
        }
        for (const port of masked) events.unmask(port);
        masked.clear();
        for (let vcpu = 0; vcpu < VCPUS; vcpu++) while (take(vcpu));
        if (waiting.size > 0) throw new Error(`lost: ${[...waiting]}`);
      }),
      { numRuns: RUNS },
    );
  });
});
