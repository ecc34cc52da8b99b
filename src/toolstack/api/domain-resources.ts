/**
 * CPUs and memory of a domain of the toolstack's: what it has of them, and how that is changed while the domain runs.
 *
 * How many virtual CPUs it uses and how far its balloon goes is the guest's own doing: that is written to its part of
 * the store, and it follows. What it may have at most, and where and for how long it runs, the hypervisor is told.
 */
import type { BvtParameters } from '../../xen/bvt.ts';
import type { VcpuInfo as ControlVcpu } from '../../xen/domctl.ts';
import { parseAffinity, together } from '../affinity.ts';
import type { Machine } from '../machine.ts';
import { ToolstackError } from './errors.ts';
import { asked } from './machine-errors.ts';
import type { ManagedDomain } from './managed-domain.ts';
import type { DomainConfig, DomainInfo, DomainScheduling, VcpuInfo } from './model.ts';

/** Pages that a domain may own beyond its balloon's target (1 MiB, as libxl has it). */
const BALLOON_SLACK = 256;

/** Virtual CPUs as the hypervisor lists them, in the words of the interface. */
export function vcpuInfos(
  machine: Machine,
  { domid, paused, shutdown }: DomainInfo,
  vcpus: readonly ControlVcpu[],
): VcpuInfo[] {
  const stands = paused || shutdown !== null;
  const cpu = machine.pcpus.pcpuOf(domid);
  const affinity = machine.pcpus.affinity(domid);
  return vcpus.map(({ vcpu, online, running, blocked, cpuTimeNs }) => ({
    vcpu,
    online,
    running: running && !stands,
    blocked,
    cpu,
    cpuTime: cpuTimeNs / 1e9,
    affinity: affinity[vcpu]?.slice() ?? null,
  }));
}

/** How many virtual CPUs the guest is to use. @throws ToolstackError */
export function setVcpus(domain: ManagedDomain, maxVcpus: number, count: number): void {
  if (!Number.isInteger(count) || count < 1 || count > maxVcpus) {
    throw new ToolstackError(
      'invalid',
      `${count} virtual CPUs: domain ${domain.id} can have 1 to ${maxVcpus}`,
    );
  }
  for (let vcpu = 0; vcpu < maxVcpus; vcpu++) {
    const availability = vcpu < count ? 'online' : 'offline';
    const path = `cpu/${vcpu}/availability`;
    if (domain.readNode(path) !== availability) domain.writeNode(path, availability);
  }
}

/**
 * Where virtual CPUs may run, from now on.
 * @param vcpu null: all of them @param cpus as xl.cfg(5) has it
 * @throws ToolstackError
 */
export async function setAffinity(
  machine: Machine,
  domain: ManagedDomain,
  maxVcpus: number,
  vcpu: number | null,
  cpus: string,
): Promise<void> {
  const { pcpus } = machine;
  const { id: domid } = domain;
  if (vcpu !== null && !(vcpu < maxVcpus)) {
    throw new ToolstackError('invalid', `domain ${domid} has no virtual CPU ${vcpu}`);
  }
  const chosen = parseAffinity(cpus, maxVcpus, pcpus.count);
  const before = pcpus.affinity(domid);
  const affinity = chosen.map((each, id) => (vcpu === null || vcpu === id ? each : (before[id] ?? null)));
  if (together(affinity)?.length === 0)
    throw new ToolstackError(
      'unsupported',
      `the virtual CPUs of a domain are on one CPU together: no CPU would suit all of domain ${domid}`,
    );
  await asked(() => domain.use(() => pcpus.pin(domid, affinity)));
}

/** @throws ToolstackError unsupported: no processor suits all virtual CPUs */
export function checkCpus(machine: Machine, { cpus, name, maxVcpus }: DomainConfig): void {
  if (together(parseAffinity(cpus, maxVcpus, machine.pcpus.count))?.length === 0)
    throw new ToolstackError(
      'unsupported',
      `${name}: cpus: the virtual CPUs of a domain are on one CPU together, and none would suit all of them`,
    );
}

/** The balloon's target. @throws ToolstackError */
export async function setMemory(machine: Machine, domain: ManagedDomain, kib: number): Promise<void> {
  const most = Number(domain.readNode('memory/static-max'));
  if (kib < 1024 || kib > most) {
    throw new ToolstackError(
      'invalid',
      `${kib} KiB: the balloon of domain ${domain.id} goes up to ${most} KiB`,
    );
  }
  domain.writeNode('memory/target', String(Math.floor(kib)));
  // It may not have more than that from now on, but for what its kernel counts otherwise.
  const pages = Math.min(Math.floor(kib / 4) + BALLOON_SLACK, Math.floor(most / 4));
  await asked(() => machine.control.setMaxMem(domain.id, pages));
}

/** The most that the domain may own, whatever its balloon does. @throws ToolstackError */
export async function setMaxMemory(machine: Machine, domain: ManagedDomain, kib: number): Promise<void> {
  const target = Number(domain.readNode('memory/target'));
  if (kib < target) {
    throw new ToolstackError(
      'invalid',
      `${kib} KiB: less than the target of domain ${domain.id} (${target} KiB)`,
    );
  }
  await asked(() => machine.control.setMaxMem(domain.id, Math.floor(kib / 4)));
}

/** Times in µs; the hypervisor has them in ns. */
export async function schedulingOf(machine: Machine, domid: number): Promise<DomainScheduling> {
  const { warpLimit, unwarpTime, ...rest } = await asked(() => machine.control.schedulerGet(domid));
  return { ...rest, warpLimit: Math.round(warpLimit / 1000), unwarpTime: Math.round(unwarpTime / 1000) };
}

export async function setScheduling(
  machine: Machine,
  domid: number,
  parameters: Partial<DomainScheduling>,
): Promise<void> {
  const { warpLimit, unwarpTime, ...rest } = parameters;
  const changes: Partial<BvtParameters> = {
    ...rest,
    ...(warpLimit === undefined ? {} : { warpLimit: warpLimit * 1000 }),
    ...(unwarpTime === undefined ? {} : { unwarpTime: unwarpTime * 1000 }),
  };
  await asked(() => machine.control.schedulerSet(domid, changes));
}
