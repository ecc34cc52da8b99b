/**
 * A fork: a second domain that is at this moment what another one is, and goes its own way from here.
 *
 * The guest does not take part in it. It finds the same memory behind the same frame numbers (shared copy-on-write,
 * mm/shared-frames.ts), its virtual CPUs at the same instruction, the same ports and grants. What differs is who it
 * is: domain number, UUID, and the other ends of its rings, which Domain 0 has to serve for the new domain too: the
 * ports are the same, and the pages have the same frame numbers with memory of their own behind them.
 *
 * What stands between two guests cannot be doubled: a domain that has mapped pages of others, or has channels to
 * other guests, is refused. What Domain 0 has mapped of the parent's (the rings of disks and networks) stays the
 * parent's; for the fork they are grants that nobody uses yet.
 *
 * The work is a copy of the tables (22 bytes a page), and of the guest's page tables and what else is not shared.
 */
import { PAGE_SIZE } from '../machine/memory.ts';
import { CPU } from '../x86/state.ts';
import type { Domain } from './domain.ts';
import { HypercallError } from './hypercall.ts';
import type { Hypervisor } from './hypervisor.ts';
import { outOfMemory } from './mm/domain-memory.ts';
import { ERRNO } from './public/errno.ts';
import { VECTORS } from './traps.ts';
import type { Vcpu } from './vcpu.ts';

/**
 * @param own frame numbers of pages that Domain 0 reads and writes by itself: the fork gets its own at once
 * @returns the new domain, paused
 * @throws HypercallError ENOMEM; EBUSY: the domain shares something with another guest; EINVAL: it has shut down, or
 *   was never started
 */
export function forkDomain(hypervisor: Hypervisor, parent: Domain, own: readonly number[]): Domain {
  if (parent.dying || parent.shutdown !== null || !parent.vcpus[0]!.initialised)
    throw new HypercallError(ERRNO.EINVAL, 'the domain does not run');
  if (parent.events.toOthers || parent.grants.mappings.count > 0)
    throw new HypercallError(ERRNO.EBUSY, 'the domain shares memory or channels with another one');
  const { memory } = parent;
  const child = hypervisor.createDomain(memory.capacity, parent.vcpus.length, null);
  try {
    child.memory.forkFrom(memory, new Set(own));
    parent.vcpus.forEach((vcpu, id) => {
      forkVcpu(vcpu, child.vcpus[id]!);
    });
    child.events.forkFrom(parent.events);
    child.grants.forkFrom(parent.grants);
    child.vmAssist = parent.vmAssist;
    child.latchedReason = parent.latchedReason;
    child.watchdogs.forkFrom(parent.watchdogs);
    hypervisor.scheduler.setParameters(child, hypervisor.scheduler.parameters(parent));
  } catch (error) {
    hypervisor.destroyDomain(child);
    throw outOfMemory(error);
  }
  return child;
}

/** What the guest has of a CPU: all up to where the processor's own tables start, and the hypervisor's part. */
function forkVcpu(from: Vcpu, to: Vcpu): void {
  const { u8 } = to.memory;
  const { memory } = to.domain;
  const parts = [
    [0, CPU.tlb],
    [CPU.instructions, CPU.crossSize],
    [CPU.monitor, CPU.size],
  ] as const;
  const ownInfo = to.vcpuInfo;
  for (const [start, end] of parts)
    u8.copyWithin(to.cpu.address + start, from.cpu.address + start, from.cpu.address + end);
  // The copy took over where the other domain's vcpu_info is.
  to.vcpuInfoMfn = from.vcpuInfoMfn;
  to.vcpuInfo = to.vcpuInfoMfn < 0 ? ownInfo : memory.linear(to.vcpuInfoMfn) + (from.vcpuInfo % PAGE_SIZE);

  to.kernelRoot = from.kernelRoot;
  to.userRoot = from.userRoot;
  to.processor.loadRoots(to.cpu, to.kernelRoot, to.userRoot);
  to.processor.setMode(to.cpu, from.kernelMode);
  to.cr4 = from.cr4;
  for (let vector = 0; vector < VECTORS; vector++)
    to.traps.set(vector, from.traps.flags(vector), from.traps.cs[vector]!, from.traps.address(vector));
  const { callbacks } = from;
  to.callbacks.event = callbacks.event;
  to.callbacks.failsafe = callbacks.failsafe;
  to.callbacks.failsafeMasksEvents = callbacks.failsafeMasksEvents;
  to.callbacks.sysenter = callbacks.sysenter;
  to.callbacks.syscall32 = callbacks.syscall32;
  to.gdtFrames = from.gdtFrames;
  to.gdtEntries = from.gdtEntries;
  to.ldtBase = from.ldtBase;
  to.ldtEntries = from.ldtEntries;
  to.timeArea = from.timeArea;
  to.initialised = from.initialised;
  to.down = from.down;
  to.blocked = from.blocked;
  to.runstate.area = from.runstate.area;
  to.period = from.period;
  to.nextPeriod = from.nextPeriod;
  const { timers } = to.domain.hypervisor;
  for (const timer of ['timer', 'pollTimer'] as const)
    if (Number.isFinite(from[timer].deadline)) timers.set(to[timer], from[timer].deadline);
  to.reschedule();
}
