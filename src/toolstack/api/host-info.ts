/** What the machine as a whole, and Domain 0, which is this process, tell of themselves. */
import { machine as hostMachine, hostname, version as kernelVersion, release } from 'node:os';
import { performance } from 'node:perf_hooks';
import type { MachineInfo } from '../../xen/domctl.ts';
import { XEN_VERSION } from '../../xen/xen-version.ts';
import type { Machine } from '../machine.ts';
import type { DomainInfo, HostInfo } from './model.ts';
import { DOMAIN_0 } from './toolstack.ts';

export const DOMAIN_0_NAME = 'Domain-0';
/** MHz of the time-stamp counter. */
const TSC_MHZ = 1000;

/** @param version of Xenolith @param started when the machine was switched on, ms since the epoch */
export function hostInfo(
  machine: Machine,
  { totalPages, freePages, sharedPages, savedPages }: MachineInfo,
  version: string,
  started: number,
): HostInfo {
  return {
    version,
    xenVersion: `${XEN_VERSION.major}.${XEN_VERSION.minor}${XEN_VERSION.extra}`,
    processors: machine.pcpus.count,
    mhz: TSC_MHZ,
    totalMemory: totalPages * 4,
    freeMemory: freePages * 4,
    sharedMemory: sharedPages * 4,
    savedMemory: savedPages * 4,
    scheduler: 'bvt',
    host: hostname(),
    release: release(),
    kernelVersion: kernelVersion(),
    machine: hostMachine(),
    uptime: (Date.now() - started) / 1000,
  };
}

/** @param pages of the machine that no other domain has @param started as above */
export function domain0Info(pages: number, started: number): DomainInfo {
  return {
    domid: DOMAIN_0,
    name: DOMAIN_0_NAME,
    uuid: '00000000-0000-0000-0000-000000000000',
    memory: pages * 4,
    maxMemory: pages * 4,
    vcpus: 1,
    maxVcpus: 1,
    running: true,
    blocked: false,
    paused: false,
    dying: false,
    shutdown: null,
    crashReason: null,
    // Time for which this thread was not waiting.
    cpuTime: performance.eventLoopUtilization().active / 1000,
    uptime: (Date.now() - started) / 1000,
    disks: 0,
    vifs: 0,
  };
}
