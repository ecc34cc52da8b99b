/**
 * A domain: a virtual machine and everything that Xen holds for it. Each concern is an object of its own; what a
 * guest can change lives in one of them and nowhere else.
 */
import type { Cpu } from '../x86/cpu.ts';
import type { PhysicalSpace } from '../x86/processor.ts';
import type { ConsoleLog } from './console-io.ts';
import { dropGdt } from './descriptors.ts';
import type { EventChannels } from './event-channel.ts';
import type { GrantTable } from './grant-table.ts';
import type { Hypervisor } from './hypervisor.ts';
import type { DomainMemory } from './mm/domain-memory.ts';
import { SHUTDOWN } from './public/sched.ts';
import { Watchdogs } from './sched.ts';
import type { Timer } from './timers.ts';
import type { Tracer } from './trace.ts';
import type { Vcpu } from './vcpu.ts';

/** What a domain consists of beside its vCPUs. */
export interface DomainParts {
  memory: DomainMemory;
  events: EventChannels;
  grants: GrantTable;
  log: ConsoleLog;
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
  readonly watchdogs: Watchdogs;
  /** vm_assist bits, public/xen.h VMASST_TYPE_*. */
  vmAssist = 0;
  /** Number of reasons for which it must not run (a domain starts with one). */
  pauseCount = 1;
  /** The domain's time less system time, ns (time.ts). */
  timeOffset = 0;
  /** Set once it has shut down: the SHUTDOWN_* code. */
  shutdown: number | null = null;
  /** The code that it will report, whatever it gives when it shuts down (SCHEDOP_shutdown_code). */
  latchedReason: number | null = null;
  /** Why it crashed, one line. */
  crashReason: string | null = null;
  /** The vCPU that crashed. */
  crashedVcpu: Vcpu | null = null;
  dying = false;
  /** Null: its hypercalls are not traced. */
  tracer: Tracer | null = null;
  /** Timers that do not fire for now, and the domain's time at which they would; null: all do. */
  private held: Map<Timer, number> | null = null;

  constructor(hypervisor: Hypervisor, id: number, uuid: Uint8Array, parts: (domain: Domain) => DomainParts) {
    this.hypervisor = hypervisor;
    this.id = id;
    this.uuid = uuid;
    this.watchdogs = new Watchdogs(this);
    const { memory, events, grants, log } = parts(this);
    this.memory = memory;
    this.events = events;
    this.grants = grants;
    this.log = log;
  }

  get space(): PhysicalSpace {
    return this.memory.space;
  }

  /** The domain's time, ns. */
  now(): number {
    return this.hypervisor.now() + this.timeOffset;
  }

  /** The domain's time at which a timer fires; null: it is not set. */
  guestDeadline(timer: Timer): number | null {
    const { deadline } = timer;
    return Number.isFinite(deadline) ? deadline + this.timeOffset : (this.held?.get(timer) ?? null);
  }

  setGuestDeadline(timer: Timer, deadline: number | null): void {
    const { timers } = this.hypervisor;
    if (deadline === null) timers.cancel(timer);
    else timers.set(timer, deadline - this.timeOffset);
  }

  /**
   * No timer of it fires until {@link releaseTimers}: one that did would set a port pending in its memory, which is
   * being read, but no longer in its state, which was read before.
   */
  holdTimers(): void {
    const { timers } = this.hypervisor;
    const held = this.held ?? new Map<Timer, number>();
    const own = this.vcpus.flatMap((vcpu) => [vcpu.timer, vcpu.pollTimer]);
    for (const timer of [...own, ...this.watchdogs.timers]) {
      const deadline = this.guestDeadline(timer);
      if (deadline !== null) held.set(timer, deadline);
      timers.cancel(timer);
    }
    this.held = held;
  }

  releaseTimers(): void {
    const { held } = this;
    this.held = null;
    for (const [timer, deadline] of held ?? []) this.setGuestDeadline(timer, deadline);
  }

  cpu(vcpu: number): Cpu {
    return this.vcpus[vcpu]!.cpu;
  }

  /** Nothing stands against its running. */
  get runnable(): boolean {
    return this.pauseCount === 0 && this.shutdown === null && !this.dying;
  }

  pause(): void {
    this.pauseCount++;
    this.reschedule();
  }

  unpause(): void {
    if (this.pauseCount > 0) this.pauseCount--;
    this.reschedule();
  }

  /** None of its vCPUs runs again. @param reason SHUTDOWN_* */
  shutDown(reason: number): void {
    if (this.shutdown !== null) return;
    this.shutdown = reason === SHUTDOWN.crash ? reason : (this.latchedReason ?? reason);
    this.watchdogs.stopAll();
    this.reschedule();
    this.hypervisor.notify({
      kind: 'shutdown',
      domid: this.id,
      reason: this.shutdown,
      crashReason: this.crashReason,
    });
  }

  /**
   * Ends the domain, and it alone, because it cannot go on.
   * @param reason one line @param vcpu the one that could not go on
   */
  crash(reason: string, vcpu: Vcpu | null = null): void {
    if (this.shutdown !== null) return;
    this.crashReason = reason;
    this.crashedVcpu = vcpu;
    this.shutDown(SHUTDOWN.crash);
  }

  /** Gives back all that it has. No vCPU of it may be running. */
  destroy(): void {
    this.dying = true;
    this.watchdogs.stopAll();
    for (const vcpu of this.vcpus) {
      vcpu.retire();
      dropGdt(vcpu);
      if (vcpu.vcpuInfoMfn >= 0) this.memory.putPageType(vcpu.vcpuInfoMfn);
      vcpu.vcpuInfoMfn = -1;
      vcpu.vcpuInfo = 0;
    }
    this.events.destroy();
    this.grants.destroy();
    this.memory.destroy();
    for (const vcpu of this.vcpus) vcpu.release();
  }

  private reschedule(): void {
    for (const vcpu of this.vcpus) vcpu.reschedule();
  }
}
