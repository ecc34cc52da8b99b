/**
 * A virtual CPU of a domain: what Xen keeps for it beside the processor's own state.
 *
 * Both modes of the guest run at CPL 3. `kernelMode` says which one it is; it changes together with the root table
 * and the GS base (setKernelMode is the only place), so that a guest's user mode never sees a kernel-only page.
 */
import { type Memory, PAGE_SHIFT } from '../machine/memory.ts';
import { type Cpu, high32, type VirtualAddress } from '../x86/cpu.ts';
import { Access, type Processor } from '../x86/processor.ts';
import { CPU } from '../x86/state.ts';
import { Callbacks } from './callback.ts';
import type { Domain } from './domain.ts';
import { GATE } from './gate-state.ts';
import { HypercallError } from './hypercall.ts';
import { GuestAccess } from './mm/guest-access.ts';
import { Pace } from './pace.ts';
import { FLAT_KERNEL_SS } from './public/arch-x86.ts';
import { RUNSTATE, type Runstate } from './public/vcpu.ts';
import { TIME_INFO, VCPU_INFO, VIRQ, VMASST_TYPE } from './public/xen.ts';
import { RunstateClock } from './runstate.ts';
import { writeTimeInfo } from './time.ts';
import { Timer } from './timers.ts';
import { TrapTable } from './traps.ts';

/** A new vCPU gets timer interrupts at this period, ns, until it says otherwise. */
const DEFAULT_PERIOD = 10_000_000;

export class Vcpu {
  readonly domain: Domain;
  readonly id: number;
  readonly cpu: Cpu;
  readonly guest: GuestAccess;
  readonly memory: Memory;

  /** Frame number of the L4 table of kernel mode; 0: none. */
  kernelRoot = 0;
  /** CR4 as the guest sees it. */
  cr4 = 0;
  readonly traps: TrapTable;
  readonly callbacks: Callbacks;
  /** Frame numbers of its GDT, and how many entries it has. */
  gdtFrames: readonly number[] = [];
  gdtEntries = 0;
  ldtBase: VirtualAddress = 0;
  ldtEntries = 0;

  /** Frame that the guest registered for vcpu_info; -1: none. */
  vcpuInfoMfn = -1;
  /** Where the guest wants a copy of its time information; null: nowhere. */
  timeArea: VirtualAddress | null = null;

  /** It was given a first state (by the builder or VCPUOP_initialise). */
  initialised = false;
  /** Not up (VCPUOP_up). */
  down = true;
  /** Waits for an event. */
  blocked = false;
  readonly runstate: RunstateClock;
  /** Singleshot timer: VIRQ_TIMER. */
  readonly timer: Timer;
  /** Ends SCHEDOP_poll. */
  readonly pollTimer: Timer;
  readonly pace = new Pace();
  /** Periodic timer, ns; 0: off. It ticks only while the vCPU runs. */
  period = DEFAULT_PERIOD;
  nextPeriod: number;

  constructor(domain: Domain, id: number, cpu: Cpu) {
    this.domain = domain;
    this.id = id;
    this.cpu = cpu;
    this.memory = domain.hypervisor.memory;
    this.traps = new TrapTable(cpu);
    this.callbacks = new Callbacks(cpu);
    cpu.put(GATE.kernelMode, 1);
    this.kernelSs = FLAT_KERNEL_SS;
    this.guest = new GuestAccess(this);
    this.runstate = new RunstateClock(domain.hypervisor.now());
    this.nextPeriod = this.runstate.since + this.period;
    this.timer = new Timer(() => this.domain.events.sendVirq(this, VIRQ.TIMER));
    this.pollTimer = new Timer(() => this.kick());
  }

  get processor(): Processor {
    return this.domain.hypervisor.processor;
  }

  get state(): Runstate {
    return this.runstate.state;
  }

  // --- What gates know of it (gate-state.ts) ---

  /** It runs in the guest's kernel mode (TF_kernel_mode). */
  get kernelMode(): boolean {
    return this.cpu.get(GATE.kernelMode) !== 0;
  }

  /** Frame number of the L4 table of user mode; 0: none. */
  get userRoot(): number {
    return this.cpu.get(GATE.userRoot);
  }

  set userRoot(mfn: number) {
    this.cpu.put(GATE.userRoot, mfn);
  }

  /** Linear address of the vcpu_info in use: in shared_info, or where the guest registered it; 0: none. */
  get vcpuInfo(): number {
    return this.cpu.get(GATE.vcpuInfo);
  }

  set vcpuInfo(linear: number) {
    this.cpu.put(GATE.vcpuInfo, linear);
  }

  /** The GS base of the mode that it is not in. */
  get shadowGsBase(): VirtualAddress {
    return this.cpu.number(GATE.shadowGsBase);
  }

  set shadowGsBase(base: VirtualAddress) {
    this.cpu.putNumber(GATE.shadowGsBase, base);
  }

  /** Stack that kernel mode is entered with. */
  get kernelSs(): number {
    return this.cpu.get(GATE.kernelSs);
  }

  set kernelSs(selector: number) {
    this.cpu.put(GATE.kernelSs, selector);
  }

  get kernelSp(): VirtualAddress {
    return this.cpu.number(GATE.kernelSp);
  }

  set kernelSp(address: VirtualAddress) {
    this.cpu.putNumber(GATE.kernelSp, address);
  }

  /** I/O privilege level that the guest set for itself, 0 to 3 (PHYSDEVOP_set_iopl). */
  get iopl(): number {
    return this.cpu.get(GATE.iopl);
  }

  set iopl(level: number) {
    this.cpu.put(GATE.iopl, level);
  }

  get nmiPending(): boolean {
    return this.cpu.get(GATE.nmiPending) !== 0;
  }

  set nmiPending(pending: boolean) {
    this.cpu.put(GATE.nmiPending, pending ? 1 : 0);
  }

  /** An NMI is being handled, until the next iret. */
  get nmiMasked(): boolean {
    return this.cpu.get(GATE.nmiMasked) !== 0;
  }

  set nmiMasked(masked: boolean) {
    this.cpu.put(GATE.nmiMasked, masked ? 1 : 0);
  }

  /** Says what gates go by, from its domain: they may answer, but not while hypercalls are traced. */
  openGates(): void {
    const { tracer, vmAssist } = this.domain;
    this.cpu.put(GATE.open, tracer === null ? 1 : 0);
    this.cpu.put(GATE.architecturalIopl, (vmAssist >>> VMASST_TYPE.architectural_iopl) & 1);
  }

  // --- Modes ---

  /** Switches between the guest's kernel and user mode. */
  setKernelMode(kernel: boolean): void {
    if (kernel === this.kernelMode) return;
    this.cpu.put(GATE.kernelMode, kernel ? 1 : 0);
    const base = this.cpu.number(CPU.gsBase);
    this.cpu.putNumber(CPU.gsBase, this.shadowGsBase);
    this.shadowGsBase = base;
    this.processor.setMode(this.cpu, kernel);
  }

  /** The GS base of kernel mode and of user mode, whichever is in use. */
  get gsBaseKernel(): VirtualAddress {
    return this.kernelMode ? this.cpu.number(CPU.gsBase) : this.shadowGsBase;
  }

  get gsBaseUser(): VirtualAddress {
    return this.kernelMode ? this.shadowGsBase : this.cpu.number(CPU.gsBase);
  }

  setGsBase(kernel: boolean, base: VirtualAddress): void {
    if (kernel === this.kernelMode) this.cpu.putNumber(CPU.gsBase, base);
    else this.shadowGsBase = base;
  }

  // --- Events ---

  get upcallPending(): boolean {
    return this.memory.u8[this.vcpuInfo + VCPU_INFO.evtchn_upcall_pending] !== 0;
  }

  get upcallMasked(): boolean {
    return this.memory.u8[this.vcpuInfo + VCPU_INFO.evtchn_upcall_mask] !== 0;
  }

  set upcallMasked(masked: boolean) {
    this.memory.u8[this.vcpuInfo + VCPU_INFO.evtchn_upcall_mask] = masked ? 1 : 0;
  }

  /** An event became pending: wakes the vCPU if it is blocked. */
  kick(): void {
    if (!this.blocked) return;
    this.blocked = false;
    this.domain.events.endPoll(this);
    this.domain.hypervisor.timers.cancel(this.pollTimer);
    this.reschedule();
  }

  /** Waits for an event (or for the next {@link kick}). */
  block(): void {
    this.blocked = true;
    this.reschedule();
  }

  // --- Scheduling ---

  /** Nothing stands against its running. */
  get runnable(): boolean {
    return !this.blocked && !this.down && this.initialised && this.domain.runnable;
  }

  /** Call after anything changed that {@link runnable} depends on. */
  reschedule(): void {
    const { hypervisor } = this.domain;
    if (this.runnable) {
      if (this.state !== RUNSTATE.running) this.enter(RUNSTATE.runnable);
      hypervisor.wake(this);
    } else {
      this.enter(this.blocked ? RUNSTATE.blocked : RUNSTATE.offline);
      hypervisor.sleep(this);
    }
  }

  /** Changes the runstate; the guest sees it whenever it runs. */
  enter(state: Runstate): void {
    const now = this.domain.hypervisor.now();
    if (!this.runstate.enter(state, now) || state !== RUNSTATE.running) return;
    this.publishRunstate(now);
    if (this.period !== 0 && now >= this.nextPeriod) this.tick(now);
  }

  /** The periodic timer is due. */
  tick(now: number): void {
    this.nextPeriod = now + this.period;
    this.domain.events.sendVirq(this, VIRQ.TIMER);
  }

  /** It will not run again. */
  retire(): void {
    const { hypervisor, events } = this.domain;
    this.down = true;
    this.blocked = false;
    hypervisor.timers.cancel(this.timer);
    hypervisor.timers.cancel(this.pollTimer);
    events.endPoll(this);
    this.reschedule();
  }

  /** Gives its own frame back. */
  release(): void {
    const { frames } = this.domain.hypervisor;
    this.processor.detach(this.cpu);
    frames.release(this.cpu.address >>> PAGE_SHIFT);
  }

  // --- Areas in guest memory that the hypervisor writes to ---

  publishRunstate(now: number): void {
    const { area } = this.runstate;
    if (area === null) return;
    const flag = (this.domain.vmAssist & (1 << VMASST_TYPE.runstate_update_flag)) !== 0;
    this.inKernelMode(() => {
      this.runstate.publish(
        this.memory,
        (offset) => this.guest.linear(area + offset, Access.Write),
        now,
        flag,
        this.domain.timeOffset,
      );
    });
  }

  /**
   * Writes the time information to vcpu_info, and to the copy that the guest may have asked for.
   * @param system system time, ns @param flags PVCLOCK_*
   */
  publishTime(system: number, flags = 0): void {
    const now = system + this.domain.timeOffset;
    if (this.vcpuInfo !== 0) {
      const at = this.vcpuInfo + VCPU_INFO.time;
      writeTimeInfo(
        (offset, value) => this.memory.write32(at + offset, value),
        this.memory.read32(at),
        now,
        flags,
      );
    }
    const { timeArea } = this;
    if (timeArea === null) return;
    this.inKernelMode(() => {
      const version = this.guest.u32(timeArea + TIME_INFO.version);
      writeTimeInfo((offset, value) => this.guest.setU32(timeArea + offset, value), version, now, flags);
    });
  }

  /** cr2 as the guest's page-fault handler reads it. */
  set pageFaultAddress(address: VirtualAddress) {
    const at = (this.vcpuInfo + VCPU_INFO.arch_cr2) >>> 2;
    this.memory.u32[at] = address;
    this.memory.u32[at + 1] = high32(address);
  }

  get pageFaultAddress(): VirtualAddress {
    const at = (this.vcpuInfo + VCPU_INFO.arch_cr2) >>> 2;
    return (this.memory.u32[at + 1]! | 0) * 0x1_0000_0000 + this.memory.u32[at]!;
  }

  /**
   * Does something with the kernel's view of memory. Areas that the guest unmapped meanwhile are simply not
   * written: that is its own loss.
   */
  inKernelMode(work: () => void): void {
    const { kernelMode } = this;
    this.setKernelMode(true);
    try {
      work();
    } catch (error) {
      if (!(error instanceof HypercallError)) throw error;
    } finally {
      this.setKernelMode(kernelMode);
    }
  }
}
