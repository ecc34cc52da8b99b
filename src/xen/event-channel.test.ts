import { describe, expect, it } from 'vitest';
import { eventChannelOp, eventChannelOpCompat } from './event-channel-op.ts';
import { hypercall } from './mm/testing.ts';
import { ERRNO } from './public/errno.ts';
import { EVTCHNOP, EVTCHNSTAT } from './public/event_channel.ts';
import { DOMID, SHARED_INFO, VCPU_INFO, VIRQ } from './public/xen.ts';
import { type TestDomain, testDomains } from './testing-domains.ts';

const u16s = (low: number, high: number) => (low | (high << 16)) >>> 0;

function op(at: TestDomain, command: number, fields: Record<number, number>): number {
  at.put(fields);
  return hypercall(at.vcpu, eventChannelOp, command, at.argument);
}

const out = (at: TestDomain, offset: number) => at.vcpu.guest.u32(at.argument + offset);

function alloc(at: TestDomain, remote: number): number {
  expect(op(at, EVTCHNOP.alloc_unbound, { 0: u16s(DOMID.SELF, remote) })).toBe(0);
  return out(at, 4);
}

function pendingBit({ domain }: TestDomain, port: number): boolean {
  const { u8 } = domain.hypervisor.memory;
  return (u8[domain.memory.sharedInfo + SHARED_INFO.evtchn_pending + (port >> 3)]! & (1 << (port & 7))) !== 0;
}

function setMask({ domain }: TestDomain, port: number, masked: boolean): void {
  const { u8 } = domain.hypervisor.memory;
  const at = domain.memory.sharedInfo + SHARED_INFO.evtchn_mask + (port >> 3);
  u8[at] = masked ? u8[at]! | (1 << (port & 7)) : u8[at]! & ~(1 << (port & 7));
}

const selector = ({ vcpu }: TestDomain) => vcpu.memory.read32(vcpu.vcpuInfo + VCPU_INFO.evtchn_pending_sel);

function two() {
  const machines = testDomains();
  const [a, b] = machines.domains as [TestDomain, TestDomain];
  return { ...machines, a, b };
}

describe('interdomain channels', () => {
  it('connects two domains and carries events both ways', () => {
    const { a, b } = two();
    const offered = alloc(a, b.domain.id);
    expect(op(b, EVTCHNOP.bind_interdomain, { 0: a.domain.id, 4: offered })).toBe(0);
    const bound = out(b, 8);
    // What was sent before is lost, so the binder is told to look.
    expect(pendingBit(b, bound)).toBe(true);

    expect(op(b, EVTCHNOP.send, { 0: bound })).toBe(0);
    expect(pendingBit(a, offered)).toBe(true);
    expect(a.vcpu.upcallPending).toBe(true);
    expect(selector(a)).toBe(1);

    expect(op(a, EVTCHNOP.status, { 0: DOMID.SELF, 4: offered })).toBe(0);
    expect(out(a, 8)).toBe(EVTCHNSTAT.interdomain);
    expect(out(a, 16) & 0xffff).toBe(b.domain.id);
    expect(out(a, 20)).toBe(bound);
  });

  it('leaves the other end unbound when one closes, open for the one that left', () => {
    const { a, b } = two();
    const offered = alloc(a, b.domain.id);
    const bound = b.domain.events.bindInterdomain(a.domain.id, offered);
    expect(op(b, EVTCHNOP.close, { 0: bound })).toBe(0);
    expect(a.domain.events.status(offered)).toMatchObject({
      status: EVTCHNSTAT.unbound,
      remoteDomid: b.domain.id,
    });
    expect(op(a, EVTCHNOP.send, { 0: offered })).toBe(0);
    expect(b.domain.events.bindInterdomain(a.domain.id, offered)).toBe(bound);
  });

  it('connects a domain with itself', () => {
    const { a } = two();
    const offered = alloc(a, DOMID.SELF);
    expect(op(a, EVTCHNOP.bind_interdomain, { 0: DOMID.SELF, 4: offered })).toBe(0);
    const bound = out(a, 8);
    op(a, EVTCHNOP.send, { 0: bound });
    expect(pendingBit(a, offered)).toBe(true);
    a.domain.events.close(offered);
    expect(a.domain.events.status(bound).status).toBe(EVTCHNSTAT.unbound);
  });

  it('binds only to what is held out to the caller', () => {
    const { a, b } = two();
    const forZero = alloc(a, 0);
    const virq = a.domain.events.bindVirq(VIRQ.TIMER, 0);
    const bind = (domid: number, port: number) => op(b, EVTCHNOP.bind_interdomain, { 0: domid, 4: port });
    expect(bind(a.domain.id, forZero)).toBe(-ERRNO.EINVAL);
    expect(bind(a.domain.id, virq)).toBe(-ERRNO.EINVAL);
    expect(bind(a.domain.id, 0)).toBe(-ERRNO.EINVAL);
    expect(bind(a.domain.id, 0xffffffff)).toBe(-ERRNO.EINVAL);
    expect(bind(77, 1)).toBe(-ERRNO.ESRCH);
    expect(b.domain.events.list()).toEqual([]);
  });

  it('is unbound for the survivor when a domain is destroyed', () => {
    const { a, b, hypervisor } = two();
    const offered = alloc(a, b.domain.id);
    b.domain.events.bindInterdomain(a.domain.id, offered);
    hypervisor.destroyDomain(b.domain);
    expect(a.domain.events.status(offered).status).toBe(EVTCHNSTAT.unbound);
    expect(op(a, EVTCHNOP.send, { 0: offered })).toBe(0);
  });
});

describe('Domain 0', () => {
  it('hears and signals a port that is held out to it', () => {
    const { a } = two();
    const heard: number[] = [];
    a.domain.events.onDom0 = (port) => heard.push(port);
    const port = alloc(a, 0);
    expect(op(a, EVTCHNOP.send, { 0: port })).toBe(0);
    expect(heard).toEqual([port]);
    expect(a.domain.events.notifyFromDom0(port)).toBe(true);
    expect(pendingBit(a, port)).toBe(true);
    expect(a.domain.events.status(port).status).toBe(EVTCHNSTAT.interdomain);
    a.domain.events.closeFromDom0(port);
    expect(a.domain.events.status(port).status).toBe(EVTCHNSTAT.unbound);
  });

  it('cannot signal ports that are not for it', () => {
    const { a, b } = two();
    const ports = [alloc(a, b.domain.id), a.domain.events.bindIpi(0), 0, 500, -1, 0.5, 1e9];
    for (const port of ports) expect(a.domain.events.notifyFromDom0(port)).toBe(false);
    expect(pendingBit(a, ports[0]!)).toBe(false);
  });
});

describe('VIRQs and IPIs', () => {
  it('delivers a VIRQ to the vCPU it is bound on, once bound', () => {
    const { a } = two();
    a.domain.events.sendVirq(a.vcpu, VIRQ.TIMER);
    expect(op(a, EVTCHNOP.bind_virq, { 0: VIRQ.TIMER, 4: 0 })).toBe(0);
    const port = out(a, 8);
    expect(pendingBit(a, port)).toBe(false);
    a.domain.events.sendVirq(a.vcpu, VIRQ.TIMER);
    expect(pendingBit(a, port)).toBe(true);
    expect(op(a, EVTCHNOP.bind_virq, { 0: VIRQ.TIMER, 4: 0 })).toBe(-ERRNO.EEXIST);
    a.domain.events.close(port);
    expect(op(a, EVTCHNOP.bind_virq, { 0: VIRQ.TIMER, 4: 0 })).toBe(0);
  });

  it.each([
    ['a VIRQ that does not exist', 24, 0, ERRNO.EINVAL],
    ['a global VIRQ on another vCPU', VIRQ.CONSOLE, 1, ERRNO.EINVAL],
    ['a vCPU that does not exist', VIRQ.TIMER, 9, ERRNO.ENOENT],
  ])('refuses %s', (_, virq, vcpu, errno) => {
    const { domains } = testDomains({ domains: 1, vcpus: 2 });
    expect(op(domains[0]!, EVTCHNOP.bind_virq, { 0: virq, 4: vcpu })).toBe(-errno);
  });

  it('sends an IPI to its own vCPU, and does not let it move', () => {
    const { domains } = testDomains({ domains: 1, vcpus: 2 });
    const a = domains[0]!;
    expect(op(a, EVTCHNOP.bind_ipi, { 0: 1 })).toBe(0);
    const port = out(a, 4);
    op(a, EVTCHNOP.send, { 0: port });
    expect(a.domain.vcpus[1]!.upcallPending).toBe(true);
    expect(a.vcpu.upcallPending).toBe(false);
    expect(op(a, EVTCHNOP.bind_vcpu, { 0: port, 4: 0 })).toBe(-ERRNO.EINVAL);
  });

  it('moves a global VIRQ and an interdomain port, not the VIRQ of a vCPU', () => {
    const { domains } = testDomains({ domains: 1, vcpus: 2 });
    const { events, vcpus } = domains[0]!.domain;
    const global = events.bindVirq(VIRQ.CONSOLE, 0);
    events.bindVcpu(global, 1);
    events.sendGlobalVirq(VIRQ.CONSOLE);
    expect(vcpus[1]!.upcallPending).toBe(true);
    expect(() => events.bindVcpu(events.bindVirq(VIRQ.TIMER, 1), 0)).toThrow('EINVAL');
    events.bindVcpu(events.allocUnbound(0), 1);
    expect(() => events.bindVcpu(global, 2)).toThrow('ENOENT');
  });

  it('refuses physical interrupts', () => {
    const { a } = two();
    expect(op(a, EVTCHNOP.bind_pirq, { 0: 9, 4: 0 })).toBe(-ERRNO.EPERM);
  });
});

describe('masks and blocking', () => {
  it('keeps a masked event and delivers it when it is unmasked', () => {
    const { a } = two();
    const port = alloc(a, 0);
    setMask(a, port, true);
    a.domain.events.notifyFromDom0(port);
    expect([pendingBit(a, port), a.vcpu.upcallPending, selector(a)]).toEqual([true, false, 0]);
    expect(op(a, EVTCHNOP.unmask, { 0: port })).toBe(0);
    expect([a.vcpu.upcallPending, selector(a)]).toEqual([true, 1]);
  });

  it('wakes a vCPU that polls a masked port', () => {
    const { a } = two();
    const [port, other] = [alloc(a, 0), alloc(a, 0)];
    setMask(a, port, true);
    setMask(a, other, true);
    const { events } = a.domain;
    expect(events.poll(a.vcpu, [port])).toBe(true);
    a.vcpu.block();
    events.notifyFromDom0(other);
    expect(a.vcpu.blocked).toBe(true);
    events.notifyFromDom0(port);
    expect(a.vcpu.blocked).toBe(false);
    expect(events.poll(a.vcpu, [port])).toBe(false);
    expect(() => events.poll(a.vcpu, [99])).toThrow('EINVAL');
  });

  it('does not clear a pending event of another port when one is closed', () => {
    const { a } = two();
    const [one, two_] = [alloc(a, 0), alloc(a, 0)];
    a.domain.events.notifyFromDom0(one);
    a.domain.events.notifyFromDom0(two_);
    a.domain.events.close(one);
    expect([pendingBit(a, one), pendingBit(a, two_)]).toEqual([false, true]);
  });
});

describe('ports', () => {
  it('are used again from the lowest on, and end with ENOSPC', () => {
    const { a } = two();
    const { events } = a.domain;
    const ports = Array.from({ length: events.maxPort }, () => events.allocUnbound(0));
    expect(ports).toEqual(ports.map((_, index) => index + 1));
    expect(() => events.allocUnbound(0)).toThrow('ENOSPC');
    events.close(500);
    events.close(17);
    expect([events.allocUnbound(0), events.allocUnbound(0)]).toEqual([17, 500]);
  });

  it('are closed again if their number cannot be given to the guest', () => {
    const { a } = two();
    const last = a.va(a.free.at(-1)!) + 4092;
    a.put({ 0: u16s(DOMID.SELF, 0) }, last);
    expect(hypercall(a.vcpu, eventChannelOp, EVTCHNOP.alloc_unbound, last)).toBe(-ERRNO.EFAULT);
    expect(a.domain.events.list()).toEqual([]);
  });

  it('of other domains are none of the guest’s business', () => {
    const { a, b } = two();
    expect(op(a, EVTCHNOP.alloc_unbound, { 0: u16s(b.domain.id, 0) })).toBe(-ERRNO.EPERM);
    expect(op(a, EVTCHNOP.alloc_unbound, { 0: u16s(55, 0) })).toBe(-ERRNO.ESRCH);
    expect(op(a, EVTCHNOP.status, { 0: b.domain.id, 4: 1 })).toBe(-ERRNO.EPERM);
    expect(op(a, EVTCHNOP.reset, { 0: b.domain.id })).toBe(-ERRNO.EPERM);
  });

  it('answers the old form of the hypercall, and ENOSYS for what there is not', () => {
    const { a } = two();
    a.put({ 0: EVTCHNOP.alloc_unbound, 4: u16s(DOMID.SELF, 0) });
    expect(hypercall(a.vcpu, eventChannelOpCompat, a.argument)).toBe(0);
    expect(out(a, 8)).toBe(1);
    a.put({ 0: EVTCHNOP.init_control });
    expect(hypercall(a.vcpu, eventChannelOpCompat, a.argument)).toBe(-ERRNO.ENOSYS);
    expect(op(a, 99, {})).toBe(-ERRNO.ENOSYS);
    expect(hypercall(a.vcpu, eventChannelOp, EVTCHNOP.send, -1)).toBe(-ERRNO.EFAULT);
  });
});

describe('the FIFO ABI', () => {
  const control = (at: TestDomain, mfn: number, vcpu = 0, offset = 0) =>
    op(at, EVTCHNOP.init_control, { 0: mfn, 4: 0, 8: offset, 12: vcpu });
  const expand = (at: TestDomain, mfn: number) => op(at, EVTCHNOP.expand_array, { 0: mfn, 4: 0 });

  it('takes a control block for each vCPU, in a page of the guest', () => {
    const { domains } = testDomains({ domains: 1, vcpus: 2 });
    const a = domains[0]!;
    expect(expand(a, a.free[1]!)).toBe(-ERRNO.EOPNOTSUPP);
    expect(op(a, EVTCHNOP.set_priority, { 0: 1, 4: 1 })).toBe(-ERRNO.EOPNOTSUPP);
    for (const offset of [4, 4096 - 64, 0xfffffff8])
      expect(control(a, a.free[0]!, 0, offset)).toBe(-ERRNO.EINVAL);
    for (const mfn of [a.l1, a.domain.memory.sharedInfoMfn, 3, 0xffffffff])
      expect(control(a, mfn)).toBe(-ERRNO.EINVAL);
    expect(control(a, a.free[0]!, 7)).toBe(-ERRNO.ENOENT);
    expect(control(a, a.free[0]!)).toBe(0);
    expect(a.vcpu.guest.u8(a.argument + 16)).toBe(17);
    expect(control(a, a.free[0]!)).toBe(-ERRNO.EINVAL);
    expect(control(a, a.free[0]!, 1, 4096 - 72)).toBe(0);
    // The page stays what it is as long as it is lent.
    expect(() => a.domain.memory.getPageType(a.free[0]!, 1)).toThrow('EBUSY');
    expect(a.domain.memory.checkInvariants()).toEqual([]);
  });

  it('delivers what was pending before its port had a word', () => {
    const { a } = two();
    const port = alloc(a, 0);
    a.domain.events.notifyFromDom0(port);
    expect(control(a, a.free[0]!)).toBe(0);
    a.vcpu.memory.u8[a.vcpu.vcpuInfo] = 0;
    expect(a.domain.events.isPending(port)).toBe(true);
    expect(expand(a, a.free[1]!)).toBe(0);
    expect(a.vcpu.guest.u32(a.va(a.free[1]!) + port * 4)).toBe(0xa0000000);
    expect(a.vcpu.guest.u32(a.va(a.free[0]!) + 8 + 7 * 4)).toBe(port);
    expect(a.vcpu.guest.u32(a.va(a.free[0]!))).toBe(1 << 7);
    expect(a.vcpu.upcallPending).toBe(true);
  });

  it('does not use a port again while the guest has it in a queue', () => {
    const { a } = two();
    control(a, a.free[0]!);
    expand(a, a.free[1]!);
    const port = alloc(a, 0);
    a.domain.events.notifyFromDom0(port);
    a.domain.events.close(port);
    expect(alloc(a, 0)).toBe(port + 1);
    a.vcpu.guest.setU32(a.va(a.free[1]!) + port * 4, 0);
    expect(alloc(a, 0)).toBe(port);
  });

  it('survives a guest that writes garbage into its words and control blocks', () => {
    const { a } = two();
    control(a, a.free[0]!);
    expand(a, a.free[1]!);
    const ports = [alloc(a, 0), alloc(a, 0), alloc(a, 0)];
    for (const garbage of [0xffffffff, 0x2001ffff, 0x20000000, 0x7fffffff, 0]) {
      for (let at = 0; at < 4096; at += 4) {
        a.vcpu.guest.setU32(a.va(a.free[0]!) + at, garbage);
        a.vcpu.guest.setU32(a.va(a.free[1]!) + at, garbage);
      }
      for (const port of ports) a.domain.events.notifyFromDom0(port);
    }
    expect(a.domain.memory.checkInvariants()).toEqual([]);
  });

  it('goes back to two levels by a reset, and gives the pages back', () => {
    const { a } = two();
    control(a, a.free[0]!);
    expand(a, a.free[1]!);
    alloc(a, 0);
    expect(op(a, EVTCHNOP.reset, { 0: DOMID.SELF })).toBe(0);
    expect(a.domain.events.list()).toEqual([]);
    const port = alloc(a, 0);
    a.domain.events.notifyFromDom0(port);
    expect(pendingBit(a, port)).toBe(true);
    expect(control(a, a.free[0]!)).toBe(0);
    expect(a.domain.memory.checkInvariants()).toEqual([]);
  });

  it('has no more pages than ports', () => {
    const { a } = two();
    control(a, a.free[0]!);
    for (let page = 0; page < 128; page++) expect(expand(a, a.free[1]!)).toBe(0);
    expect(expand(a, a.free[1]!)).toBe(-ERRNO.ENOSPC);
  });
});
