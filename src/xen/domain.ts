/**
 * A domain: a virtual machine and everything that Xen holds for it. Each concern is an object of its own; what a
 * guest can change lives in one of them and nowhere else.
 */
import type { Cpu } from '../x86/cpu.ts';
import type { PhysicalSpace } from '../x86/processor.ts';
import type { ConsoleLog } from './console-io.ts';
import type { EventChannels } from './event-channel.ts';
import type { GrantTable } from './grant-table.ts';
import type { Hypervisor } from './hypervisor.ts';
import type { DomainMemory } from './mm/domain-memory.ts';
import type { Vcpu } from './vcpu.ts';

/** Why a domain stopped (public/sched.h, SHUTDOWN_*). */
export const Shutdown = { poweroff: 0, reboot: 1, suspend: 2, crash: 3, watchdog: 4, softReset: 5 } as const;

export interface DomainOptions {
  /** Largest number of pages it may own. */
  maxPages: number;
  vcpus: number;
}

export class Domain {
  readonly hypervisor: Hypervisor;
  readonly id: number;
  /** 16 bytes. */
  readonly uuid: Uint8Array;
  readonly vcpus: Vcpu[] = [];
  readonly memory: DomainMemory;
  readonly events: EventChannels;
  readonly grants: GrantTable;
  readonly log: ConsoleLog;
  /** vm_assist bits, public/xen.h VMASST_TYPE_*. */
  vmAssist = 0;
  /** Number of reasons for which it must not run (a domain starts with one). */
  pauseCount = 1;
  /** Set once it has shut down: the SHUTDOWN_* code. */
  shutdown: number | null = null;
  /** Why it crashed, one line. */
  crashReason: string | null = null;
  dying = false;

  constructor(
    hypervisor: Hypervisor,
    id: number,
    uuid: Uint8Array,
    parts: (domain: Domain) => {
      memory: DomainMemory;
      events: EventChannels;
      grants: GrantTable;
      log: ConsoleLog;
    },
  ) {
    this.hypervisor = hypervisor;
    this.id = id;
    this.uuid = uuid;
    const { memory, events, grants, log } = parts(this);
    this.memory = memory;
    this.events = events;
    this.grants = grants;
    this.log = log;
  }

  get space(): PhysicalSpace {
    return this.memory.space;
  }

  cpu(vcpu: number): Cpu {
    return this.vcpus[vcpu]!.cpu;
  }
}
