/** The guest's entry points for events, system calls and failed returns (public/callback.h, public/nmi.h). */
import type { Cpu, VirtualAddress } from '../x86/cpu.ts';
import { VECTOR } from '../x86/state.ts';
import { GATE } from './gate-state.ts';
import type { Arguments } from './hypercall.ts';
import { FLAT_KERNEL_CS } from './public/arch-x86.ts';
import {
  CALLBACK_REGISTER,
  CALLBACKF_MASK_EVENTS,
  CALLBACKOP,
  CALLBACKTYPE,
  XENNMI,
  XENNMI_CALLBACK,
} from './public/callback.ts';
import { ERRNO } from './public/errno.ts';
import { TI_IF } from './public/xen.ts';
import { BOUNCE, bounce, crashOnStack, injectException, isCanonical } from './traps.ts';
import type { Vcpu } from './vcpu.ts';

/** Address 0: not registered. */
export class Callbacks {
  event: VirtualAddress = 0;
  failsafe: VirtualAddress = 0;
  failsafeMasksEvents = false;
  private readonly cpu: Cpu;
  /** Entries of 32-bit programs: kept for the guest, never entered (the processor has 64-bit mode only). */
  sysenter: VirtualAddress = 0;
  syscall32: VirtualAddress = 0;

  constructor(cpu: Cpu) {
    this.cpu = cpu;
  }

  get syscall(): VirtualAddress {
    return this.cpu.number(GATE.syscall);
  }

  set syscall(address: VirtualAddress) {
    this.cpu.putNumber(GATE.syscall, address);
  }

  get syscallMasksEvents(): boolean {
    return this.cpu.get(GATE.syscallMasks) !== 0;
  }

  set syscallMasksEvents(masks: boolean) {
    this.cpu.put(GATE.syscallMasks, masks ? 1 : 0);
  }
}

/** Length of the SYSCALL instruction. */
const SYSCALL_LENGTH = 2;

/** SYSCALL in user mode: enters the guest's kernel at its callback, or raises #UD where it has none. */
export function enterSyscall(vcpu: Vcpu): void {
  const { callbacks, cpu } = vcpu;
  if (callbacks.syscall === 0) {
    cpu.rip -= SYSCALL_LENGTH;
    injectException(vcpu, VECTOR.UD);
    return;
  }
  const flags = callbacks.syscallMasksEvents ? BOUNCE.MASK_EVENTS : 0;
  if (!bounce(vcpu, callbacks.syscall, flags, 0)) crashOnStack(vcpu, 'system call');
}

/** Delivers what waits for the vCPU: an NMI, or its events where it does not hold them off. */
export function deliverPending(vcpu: Vcpu): void {
  if (vcpu.nmiPending && !vcpu.nmiMasked && vcpu.traps.address(VECTOR.NMI) !== 0) {
    vcpu.nmiPending = false;
    vcpu.nmiMasked = true;
    injectException(vcpu, VECTOR.NMI);
    return;
  }
  if (!vcpu.upcallPending || vcpu.upcallMasked) return;
  if (vcpu.callbacks.event === 0) {
    vcpu.domain.crash('an event is pending and not masked, and the guest has no event callback', vcpu);
  } else if (!bounce(vcpu, vcpu.callbacks.event, BOUNCE.MASK_EVENTS, 0)) {
    crashOnStack(vcpu, 'event');
  }
}

/** The state that the guest wanted to return to cannot be: its failsafe callback may mend it. */
export function enterFailsafe(vcpu: Vcpu): void {
  const { failsafe, failsafeMasksEvents } = vcpu.callbacks;
  const why = 'return to an impossible state';
  const flags = BOUNCE.FAILSAFE | (failsafeMasksEvents ? BOUNCE.MASK_EVENTS : 0);
  if (failsafe === 0) vcpu.domain.crash(`${why}, and the guest has no failsafe callback`, vcpu);
  else if (!bounce(vcpu, failsafe, flags, 0)) crashOnStack(vcpu, why);
}

/** set_callbacks(event, failsafe, syscall). */
export function setCallbacks(vcpu: Vcpu, args: Arguments): number {
  const { callbacks } = vcpu;
  for (let index = 0; index < 3; index++) if (!isCanonical(args.number(index))) return -ERRNO.EINVAL;
  callbacks.event = args.number(0);
  callbacks.failsafe = args.number(1);
  callbacks.failsafeMasksEvents = false;
  callbacks.syscall = args.number(2);
  callbacks.syscallMasksEvents = false;
  return 0;
}

/** callback_op(cmd, arg). */
export function callbackOp(vcpu: Vcpu, args: Arguments): number {
  const { guest } = vcpu;
  const at = args.number(1);
  switch (args.low(0)) {
    case CALLBACKOP.register:
      return register(
        vcpu,
        guest.u16(at + CALLBACK_REGISTER.type),
        guest.u16(at + CALLBACK_REGISTER.flags),
        guest.number64(at + CALLBACK_REGISTER.address),
      );
    case CALLBACKOP.unregister:
      return unregister(vcpu, guest.u16(at + CALLBACK_REGISTER.type));
    default:
      return -ERRNO.ENOSYS;
  }
}

function register(vcpu: Vcpu, type: number, flags: number, address: VirtualAddress): number {
  const { callbacks } = vcpu;
  if (!isCanonical(address)) return -ERRNO.EINVAL;
  const masks = (flags & CALLBACKF_MASK_EVENTS) !== 0;
  switch (type) {
    case CALLBACKTYPE.event:
      callbacks.event = address;
      return 0;
    case CALLBACKTYPE.failsafe:
      callbacks.failsafe = address;
      callbacks.failsafeMasksEvents = masks;
      return 0;
    case CALLBACKTYPE.syscall:
      callbacks.syscall = address;
      callbacks.syscallMasksEvents = masks;
      return 0;
    case CALLBACKTYPE.sysenter:
      callbacks.sysenter = address;
      return 0;
    case CALLBACKTYPE.syscall32:
      callbacks.syscall32 = address;
      return 0;
    case CALLBACKTYPE.nmi:
      vcpu.traps.set(VECTOR.NMI, TI_IF, FLAT_KERNEL_CS, address);
      return 0;
    default:
      return -ERRNO.ENOSYS;
  }
}

function unregister(vcpu: Vcpu, type: number): number {
  switch (type) {
    case CALLBACKTYPE.event:
    case CALLBACKTYPE.failsafe:
    case CALLBACKTYPE.syscall:
    case CALLBACKTYPE.sysenter:
    case CALLBACKTYPE.syscall32:
      return -ERRNO.EINVAL;
    case CALLBACKTYPE.nmi:
      vcpu.traps.set(VECTOR.NMI, 0, 0, 0);
      return 0;
    default:
      return -ERRNO.ENOSYS;
  }
}

/** nmi_op(cmd, arg): the older way to register the NMI callback, vCPU 0 only. */
export function nmiOp(vcpu: Vcpu, args: Arguments): number {
  switch (args.low(0)) {
    case XENNMI.register_callback:
      if (vcpu.id !== 0) return -ERRNO.EINVAL;
      return register(
        vcpu,
        CALLBACKTYPE.nmi,
        0,
        vcpu.guest.number64(args.number(1) + XENNMI_CALLBACK.handler_address),
      );
    case XENNMI.unregister_callback:
      return unregister(vcpu, CALLBACKTYPE.nmi);
    default:
      return -ERRNO.ENOSYS;
  }
}
