/**
 * A virtual CPU of a domain.
 */
import type { Cpu } from '../x86/cpu.ts';
import type { Processor } from '../x86/processor.ts';
import type { Domain } from './domain.ts';
import { GuestAccess } from './mm/guest-access.ts';
import { RUNSTATE, type Runstate } from './public/vcpu.ts';
import { VCPU_INFO } from './public/xen.ts';

export class Vcpu {
  readonly domain: Domain;
  readonly id: number;
  readonly cpu: Cpu;
  readonly guest: GuestAccess;
  /** It runs in the guest's kernel mode (TF_kernel_mode). */
  kernelMode = true;
  /** Frame numbers of the L4 tables of kernel and user mode; 0: none. */
  kernelRoot = 0;
  userRoot = 0;
  /** Linear address of the vcpu_info in use: in shared_info, or where the guest registered it. */
  vcpuInfo = 0;
  state: Runstate = RUNSTATE.offline;
  /** I/O privilege level that the guest set for itself (PHYSDEVOP_set_iopl). */
  iopl = 0;

  constructor(domain: Domain, id: number, cpu: Cpu) {
    this.domain = domain;
    this.id = id;
    this.cpu = cpu;
    this.guest = new GuestAccess(this);
  }

  get processor(): Processor {
    return this.domain.hypervisor.processor;
  }

  get upcallPending(): boolean {
    return this.domain.hypervisor.memory.u8[this.vcpuInfo + VCPU_INFO.evtchn_upcall_pending] !== 0;
  }

  get upcallMasked(): boolean {
    return this.domain.hypervisor.memory.u8[this.vcpuInfo + VCPU_INFO.evtchn_upcall_mask] !== 0;
  }

  set upcallMasked(masked: boolean) {
    this.domain.hypervisor.memory.u8[this.vcpuInfo + VCPU_INFO.evtchn_upcall_mask] = masked ? 1 : 0;
  }

  /** An event became pending: wakes the vCPU if it is blocked. */
  kick(): void {
    if (this.state === RUNSTATE.blocked) this.state = RUNSTATE.runnable;
  }
}
