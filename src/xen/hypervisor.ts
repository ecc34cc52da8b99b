/**
 * The hypervisor: the domains of one machine, and the loop in which their virtual CPUs run.
 *
 * A guest runs until something happens that is not its own business (an exit of the processor); the answer is found
 * here or in the handlers below, and the guest goes on. Whatever a guest does, the loop goes on: what a handler
 * throws becomes an errno, or the end of that domain alone.
 */
import type { Frames } from '../machine/frames.ts';
import { type Memory, PAGE_SIZE } from '../machine/memory.ts';
import { ACTIVITY, hypercallActivity } from '../x86/core/activity.ts';
import { Cpu } from '../x86/cpu.ts';
import type { Processor, ProcessorHost } from '../x86/processor.ts';
import { CPU, CS, Exit, PF, RAX, SHARED_WRITE, SS, VECTOR } from '../x86/state.ts';
import { deliverPending, enterSyscall } from './callback.ts';
import { Common } from './common.ts';
import { ConsoleLog } from './console-io.ts';
import { apicIdOf, cpuid } from './cpuid.ts';
import { Domain } from './domain.ts';
import { Control, type Notification } from './domctl.ts';
import { EventChannels } from './event-channel.ts';
import { deviceNotAvailable } from './fpu.ts';
import { buildGate } from './gates.ts';
import { GrantTable } from './grant-table.ts';
import {
  ARGUMENTS,
  Arguments,
  type Hypercall,
  HypercallError,
  invoke,
  NO_RESULT,
  NotYet,
  RESTART,
} from './hypercall.ts';
import { makeHypercalls } from './hypercall-table.ts';
import { outOfMemory } from './mm/backing.ts';
import { DomainMemory, type MemoryPlaces } from './mm/domain-memory.ts';
import { PageSharing } from './mm/page-sharing.ts';
import { handlePageTableWrite } from './mm/page-table-write.ts';
import { ownPage, type SharedFrames } from './mm/shared-frames.ts';
import { NotificationQueue } from './notify.ts';
import { generalProtection, invalidOpcode } from './priv-op.ts';
import { FLAT_KERNEL_CS, FLAT_KERNEL_SS } from './public/arch-x86.ts';
import { ERRNO } from './public/errno.ts';
import { RUNSTATE } from './public/vcpu.ts';
import { LEGACY_MAX_VCPUS, SHARED_INFO, VCPU_INFO } from './public/xen.ts';
import { Scheduler } from './scheduler.ts';
import { lookUpDescriptor } from './segments.ts';
import { publishWallclock } from './time.ts';
import { type Timer, TimerQueue } from './timers.ts';
import { injectException, softwareInterrupt } from './traps.ts';
import { Vcpu } from './vcpu.ts';

/** What the machine gives the hypervisor. */
export interface HypervisorHost {
  /** Nanoseconds since the machine started: system time and, at 1 GHz, the time-stamp counter. Never goes back. */
  now(): number;
  /** Nanoseconds since 1970-01-01 00:00 UTC. */
  wallclock(): number;
  /** Fills an array with random bytes. */
  random(bytes: Uint8Array): void;
}

/** What a domain that comes from another processor has in machine memory: linear addresses. */
export interface ExistingDomain {
  readonly domid: number;
  readonly memory: MemoryPlaces;
  readonly cpus: readonly number[];
}

/** Which processor of a machine a hypervisor runs on. */
export interface PcpuPlace {
  readonly number: number;
  /** What it has in common with the hypervisors of the others. */
  readonly common: Common;
}

/** Builds the processor that the hypervisor runs on. */
export type ProcessorFactory = (memory: Memory, frames: Frames, host: ProcessorHost) => Processor;

/** For how long runSlice goes on before the machine's other business, ns. */
const TURN = 2_000_000;
/** For how long guests run between two looks at the clock, ns; and for how many instructions at least and at most. */
const CLOCK_INTERVAL = 500_000;
const BUDGET_MIN = 2_000;
const BUDGET_MAX = 2_000_000;
/** What an exit costs, in instructions: so that a guest that only exits comes to the end of its time too. */
const EXIT_COST = 50;
/** Exits between two looks at the clock: what an exit costs is for the guest to say, within bounds. */
const EXITS = 8;

/** Length of SYSCALL. */
const SYSCALL_LENGTH = 2;
/** The argument registers' numbers: rdi rsi rdx r10 r8 r9. */
const ARGUMENT_REGISTERS = [7, 6, 2, 10, 8, 9] as const;

export class Hypervisor {
  readonly memory: Memory;
  readonly frames: Frames;
  readonly processor: Processor;
  readonly host: HypervisorHost;
  readonly control: Control;
  readonly scheduler: Scheduler;
  readonly timers = new TimerQueue();
  /** Number of its processor. */
  readonly pcpu: number;
  readonly common: Common;
  readonly pageSharing: PageSharing;
  /** The vCPU that is on the processor: runs, or ran last. */
  current: Vcpu | null = null;
  private readonly domains = new Map<number, Domain>();
  private readonly vcpuOfCpu = new Map<number, Vcpu>();
  private readonly hypercalls: readonly (Hypercall | undefined)[] = makeHypercalls();
  private readonly args = new Arguments();
  private readonly notifications: NotificationQueue;
  /** Domains that cannot be brought to one that asked for them. */
  private readonly apart = new WeakMap<Domain, Set<number>>();
  /** System time until which the guest may run before the clock is looked at. */
  private lookAt = 0;
  private lookNow = false;

  /** @param place left out: the machine's only processor */
  constructor(
    memory: Memory,
    frames: Frames,
    createProcessor: ProcessorFactory,
    host: HypervisorHost,
    place: PcpuPlace = { number: 0, common: new Common(frames) },
  ) {
    this.pcpu = place.number;
    this.common = place.common;
    this.memory = memory;
    this.frames = frames;
    this.host = host;
    this.scheduler = new Scheduler(host.now());
    this.control = new Control(this);
    this.notifications = new NotificationQueue((notification) => this.control.onNotify(notification));
    this.processor = createProcessor(memory, frames, {
      tsc: () => host.now() + (this.current?.domain.timeOffset ?? 0),
      random: (bytes) => host.random(bytes),
      cpuid: (leaf, subleaf) => cpuid(leaf, subleaf, apicIdOf(this.current?.id ?? 0)),
      gate: buildGate,
      descriptor: (cpu, selector) => {
        const vcpu = this.vcpuOfCpu.get(cpu.address);
        return vcpu ? lookUpDescriptor(vcpu, selector) : null;
      },
    });
    this.pageSharing = new PageSharing({
      frames,
      shared: this.sharedFrames,
      processor: this.processor,
      count: () => this.domains.size,
      domain: (id) => this.domains.get(id),
      allDomains: () => this.domains.values(),
    });
    // Another processor's domains may have had it since this one's had.
    frames.onReuse = (frame) => this.forgetFrame(frame);
  }

  get sharedFrames(): SharedFrames {
    return this.common.sharedFrames;
  }

  /** What the processor knows of a machine frame is from a time when others had it. */
  forgetFrame(machineFrame: number): void {
    this.processor.released(machineFrame);
    this.processor.unshare(machineFrame);
  }

  /** System time, ns. */
  now(): number {
    return this.host.now();
  }

  notify(notification: Notification): void {
    this.notifications.add(notification, this.now());
  }

  // --- Domains ---

  domain(id: number): Domain | undefined {
    return this.domains.get(id);
  }

  /**
   * A domain that another one wants to share something with. If it is on another processor, Domain 0 is asked to bring
   * the two together, and the one that asks waits for that.
   * @throws NotYet
   */
  neighbour(domain: Domain, id: number): Domain | undefined {
    const found = this.domains.get(id);
    const pcpu = this.common.pcpuOf(id);
    if (found !== undefined || pcpu === null || pcpu === this.pcpu || this.apart.get(domain)?.has(id))
      return found;
    domain.pause();
    this.notify({ kind: 'seek', domid: domain.id, other: id });
    throw new NotYet();
  }

  /** Domain 0 has done what it could to bring two domains together: the one that asked goes on. */
  sought(domain: Domain, id: number): void {
    if (!this.domains.has(id)) {
      const apart = this.apart.get(domain) ?? new Set();
      this.apart.set(domain, apart.add(id));
    }
    domain.unpause();
  }

  allDomains(): Iterable<Domain> {
    return this.domains.values();
  }

  /**
   * A new domain, paused, without memory.
   * @param uuid 16 bytes; null: random ones
   * @param existing what is in machine memory of it already (domain-move.ts)
   * @throws HypercallError ENOMEM
   */
  createDomain(
    maxPages: number,
    vcpus: number,
    uuid: Uint8Array | null,
    existing: ExistingDomain | null = null,
  ): Domain {
    const { frames } = this;
    if (maxPages > frames.total)
      throw new HypercallError(ERRNO.ENOMEM, 'the machine has less memory than that');
    const domid = existing?.domid ?? this.common.claim(this.pcpu);
    let domain: Domain;
    try {
      domain = new Domain(this, domid, uuid ?? this.randomUuid(), (self) => ({
        memory: new DomainMemory(
          self,
          frames,
          () => this.processor,
          maxPages,
          this.sharedFrames,
          existing?.memory,
        ),
        events: new EventChannels(self),
        grants: new GrantTable(self),
        log: new ConsoleLog(self),
      }));
    } catch (error) {
      if (existing === null) this.common.release(domid);
      throw error;
    }
    try {
      for (let id = 0; id < vcpus; id++) {
        if (existing === null) this.addVcpu(domain, id);
        else this.adoptVcpu(domain, id, existing.cpus[id]!);
      }
    } catch (error) {
      if (existing === null) this.destroyDomain(domain);
      else this.forgetDomain(domain);
      throw outOfMemory(error);
    }
    domain.events.onDom0 = (port) => this.notify({ kind: 'event', domid: domain.id, port });
    const decoder = new TextDecoder();
    domain.log.onWrite = (bytes) =>
      this.notify({ kind: 'console', domid: domain.id, text: decoder.decode(bytes, { stream: true }) });
    if (existing === null) publishWallclock(domain);
    else this.common.move(domid, this.pcpu);
    this.domains.set(domain.id, domain);
    return domain;
  }

  /** Lets go of a domain that goes to another processor: nothing of it is given back. */
  forgetDomain(domain: Domain): void {
    if (this.current?.domain === domain) this.current = null;
    domain.dying = true;
    for (const vcpu of domain.vcpus) {
      vcpu.retire();
      this.vcpuOfCpu.delete(vcpu.cpu.address);
      this.processor.detach(vcpu.cpu);
    }
    domain.watchdogs.stopAll();
    domain.memory.abandon();
    this.scheduler.remove(domain);
    this.domains.delete(domain.id);
    this.notifications.flush();
    this.notifications.forget(domain.id);
  }

  destroyDomain(domain: Domain): void {
    if (this.current?.domain === domain) this.current = null;
    for (const vcpu of domain.vcpus) this.vcpuOfCpu.delete(vcpu.cpu.address);
    domain.destroy();
    this.scheduler.remove(domain);
    this.domains.delete(domain.id);
    this.notifications.flush();
    this.notifications.forget(domain.id);
    this.common.release(domain.id);
    this.pageSharing.reclaim();
  }

  private addVcpu(domain: Domain, id: number): void {
    const cpu = this.makeCpu(domain);
    const vcpu = new Vcpu(domain, id, cpu);
    this.vcpuOfCpu.set(cpu.address, vcpu);
    domain.vcpus.push(vcpu);
    if (id >= LEGACY_MAX_VCPUS) return;
    vcpu.vcpuInfo = domain.memory.sharedInfo + SHARED_INFO.vcpu_info + id * VCPU_INFO.size;
    vcpu.upcallMasked = true;
    vcpu.publishTime(this.now());
  }

  /** @param address of its frame @throws OutOfFrames */
  private adoptVcpu(domain: Domain, id: number, address: number): void {
    const cpu = new Cpu(this.memory, address);
    // What the processor had there that it was on before.
    const { u8 } = this.memory;
    u8.fill(0, address + CPU.tlb, address + CPU.instructions);
    u8.fill(0, address + CPU.crossSize, address + CPU.monitor);
    cpu.put(CPU.owner, domain.id);
    this.processor.attach(cpu, domain.space);
    const vcpu = new Vcpu(domain, id, cpu);
    this.vcpuOfCpu.set(address, vcpu);
    domain.vcpus.push(vcpu);
    const inSharedInfo = domain.memory.sharedInfo + SHARED_INFO.vcpu_info + id * VCPU_INFO.size;
    vcpu.vcpuInfo = id < LEGACY_MAX_VCPUS ? inSharedInfo : 0;
  }

  /** @throws HypercallError ENOMEM */
  private makeCpu(domain: Domain): Cpu {
    let frame = 0;
    try {
      frame = this.frames.alloc();
      const cpu = new Cpu(this.memory, frame * PAGE_SIZE);
      cpu.reset();
      cpu.supervisor = true;
      cpu.put(CPU.owner, domain.id);
      this.processor.attach(cpu, domain.space);
      return cpu;
    } catch (error) {
      if (frame !== 0) this.frames.release(frame);
      throw outOfMemory(error);
    }
  }

  /** Version 4, RFC 4122. */
  private randomUuid(): Uint8Array {
    const uuid = new Uint8Array(16);
    this.host.random(uuid);
    uuid[6] = (uuid[6]! & 0x0f) | 0x40;
    uuid[8] = (uuid[8]! & 0x3f) | 0x80;
    return uuid;
  }

  // --- Running ---

  /** Sets a timer; one whose time has come fires at once. */
  setTimer(timer: Timer, deadline: number): void {
    const now = this.now();
    if (deadline <= now) {
      this.timers.cancel(timer);
      timer.fire(now);
      return;
    }
    this.timers.set(timer, deadline);
    if (deadline < this.lookAt) this.lookNow = true;
  }

  /** A vCPU is runnable from now on. */
  wake(vcpu: Vcpu): void {
    this.scheduler.wake(vcpu, this.now());
    // It may be its turn.
    if (vcpu !== this.current) this.lookNow = true;
  }

  /** A vCPU is no longer runnable. */
  sleep(vcpu: Vcpu): void {
    this.scheduler.sleep(vcpu, this.now());
  }

  /** A vCPU lets the others go first, if there are any. */
  yield(vcpu: Vcpu): void {
    this.scheduler.yield(vcpu, this.now());
    this.lookNow = true;
  }

  /**
   * Runs what is runnable for a turn: the machine's other business must not wait longer than that.
   * @returns 0: there is more to do; otherwise ns until the next timer (Infinity: nothing will happen by itself)
   */
  runSlice(): number {
    const { scheduler } = this;
    let now = this.now();
    scheduler.resume(now);
    this.timers.expire(now);
    const vcpu = scheduler.pick();
    if (vcpu === null) {
      scheduler.pause(now);
      this.current = null;
      this.notifications.flush();
      const wait = this.pageSharing.idle(now, () => this.now());
      return Math.max(Math.min(this.timers.next - this.now(), wait), 1);
    }
    this.switchTo(vcpu);
    const end = now + TURN;
    do {
      now = this.runUntilClock(vcpu, now, Math.min(end, now + scheduler.slice));
      scheduler.account(now);
      this.timers.expire(now);
      if (vcpu.period !== 0 && now >= vcpu.nextPeriod && vcpu.runnable) vcpu.tick(now);
    } while (now < end && scheduler.pick() === vcpu);
    scheduler.pause(now);
    this.notifications.flush();
    this.pageSharing.busy(now);
    return 0;
  }

  private switchTo(vcpu: Vcpu): void {
    const { current } = this;
    if (current === vcpu && vcpu.state === RUNSTATE.running) return;
    if (current !== null && current !== vcpu && current.state === RUNSTATE.running)
      current.enter(RUNSTATE.runnable);
    this.current = vcpu;
    vcpu.enter(RUNSTATE.running);
  }

  /** Runs a vCPU until about the next time that the clock matters. @returns the time */
  private runUntilClock(vcpu: Vcpu, now: number, end: number): number {
    const { cpu, processor } = vcpu;
    this.lookAt = Math.min(end, now + CLOCK_INTERVAL, this.timers.next);
    if (vcpu.period !== 0) this.lookAt = Math.min(this.lookAt, vcpu.nextPeriod);
    this.lookNow = false;
    const budget = Math.min(Math.max((this.lookAt - now) * vcpu.pace.rate, BUDGET_MIN), BUDGET_MAX);
    vcpu.openGates();
    const before = cpu.number(CPU.instructions);
    let left = budget;
    let executed = before;
    let exits = EXITS;
    while (left > 0 && vcpu.runnable && !this.lookNow) {
      try {
        cpu.put(CPU.activity, ACTIVITY.hypervisor);
        deliverPending(vcpu);
        if (!vcpu.runnable) break;
        this.answer(vcpu, processor.run(cpu, Math.ceil(left)));
      } catch (error) {
        vcpu.domain.crash(`internal error: ${error instanceof Error ? error.message : String(error)}`, vcpu);
      }
      const count = cpu.number(CPU.instructions);
      left -= count - executed + EXIT_COST;
      executed = count;
      if (--exits > 0) continue;
      exits = EXITS;
      if (this.now() >= this.lookAt) break;
    }
    const after = this.now();
    vcpu.pace.ran(executed - before, after - now);
    return after;
  }

  // --- Exits ---

  private answer(vcpu: Vcpu, exit: Exit): void {
    const { cpu } = vcpu;
    switch (exit) {
      case Exit.Syscall:
        cpu.setSelector(CS, FLAT_KERNEL_CS);
        cpu.setSelector(SS, FLAT_KERNEL_SS);
        if (vcpu.kernelMode) this.hypercall(vcpu);
        else {
          cpu.put(CPU.activity, ACTIVITY.systemCall);
          enterSyscall(vcpu);
        }
        return;
      case Exit.Exception:
        cpu.put(CPU.activity, ACTIVITY.exception);
        this.exception(vcpu, cpu.get(CPU.exitVector), cpu.get(CPU.exitError));
        return;
      case Exit.SoftwareInterrupt:
        cpu.put(CPU.activity, ACTIVITY.systemCall);
        softwareInterrupt(vcpu, cpu.get(CPU.exitVector) & 0xff, cpu.get(CPU.exitLength));
        return;
      default:
        // The budget is spent. (Intercepted stores end in handlePageTableWrite, which steps by itself.)
        return;
    }
  }

  private exception(vcpu: Vcpu, vector: number, error: number): void {
    switch (vector) {
      case VECTOR.PF: {
        vcpu.cpu.put(CPU.activity, ACTIVITY.pageFault);
        const address = vcpu.cpu.number(CPU.cr2);
        if (error & PF.W && handlePageTableWrite(vcpu, address, error)) return;
        injectException(vcpu, vector, error, address);
        return;
      }
      case SHARED_WRITE:
        if (!ownPage(vcpu, vcpu.cpu.number(CPU.cr2)))
          vcpu.domain.crash('the machine has no memory left for a copy of a page that it shares', vcpu);
        return;
      case VECTOR.GP:
        generalProtection(vcpu, error);
        return;
      case VECTOR.UD:
        invalidOpcode(vcpu);
        return;
      case VECTOR.NM:
        deviceNotAvailable(vcpu);
        return;
      default:
        injectException(vcpu, vector, error);
    }
  }

  private hypercall(vcpu: Vcpu): void {
    const { cpu } = vcpu;
    const { words } = this.args;
    for (let index = 0; index < ARGUMENTS; index++) {
      const register = CPU.regs + ARGUMENT_REGISTERS[index]! * 8;
      words[index * 2] = cpu.get(register);
      words[index * 2 + 1] = cpu.get(register + 4);
    }
    const number = cpu.regNumber(RAX);
    cpu.put(CPU.activity, hypercallActivity(number));
    const call = this.hypercalls[number];
    const result = call === undefined ? -ERRNO.ENOSYS : invoke(call, vcpu, this.args);
    if (result === NO_RESULT) return;
    if (result !== RESTART) {
      cpu.setRegNumber(RAX, result);
      return;
    }
    this.lookNow = true;
    for (let index = 0; index < ARGUMENTS; index++) {
      const register = CPU.regs + ARGUMENT_REGISTERS[index]! * 8;
      cpu.put(register, words[index * 2]!);
      cpu.put(register + 4, words[index * 2 + 1]!);
    }
    cpu.rip -= SYSCALL_LENGTH;
  }
}
