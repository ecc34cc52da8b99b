/**
 * Exceptions and how the guest's kernel is entered: the virtual interrupt table and the bounce frame.
 *
 * Every way into a guest's kernel (exception, system call, event, NMI, failsafe) is one frame on its stack. From low
 * to high addresses: rcx, r11, for failsafe ds es fs gs, for some exceptions the error code, then rip, cs, rflags,
 * rsp, ss. The upper half of the cs word holds the event mask as it was (public/arch-x86/xen.h, 64-bit PV).
 */
import { type Cpu, hex64, type VirtualAddress } from '../x86/cpu.ts';
import { Access } from '../x86/processor.ts';
import { CPU, CS, DS, ES, FLAG, FS, GS, PF, RCX, RSP, SS, STATUS_FLAGS, VECTOR } from '../x86/state.ts';
import { GATE } from './gate-state.ts';
import { type Arguments, HypercallError, RESTART } from './hypercall.ts';
import { FLAT_KERNEL_CS, FLAT_KERNEL_SS } from './public/arch-x86.ts';
import { ERRNO } from './public/errno.ts';
import {
  HYPERVISOR_VIRT_END,
  HYPERVISOR_VIRT_START,
  TI_DPL,
  TI_IF,
  TRAP_INFO,
  VMASST_TYPE,
} from './public/xen.ts';
import type { Vcpu } from './vcpu.ts';

export const VECTORS = 256;

/** Largest canonical address and smallest, as signed numbers. */
const CANONICAL = 2 ** 47;

export function isCanonical(address: VirtualAddress): boolean {
  return address >= -CANONICAL && address < CANONICAL;
}

export function inHypervisor(address: VirtualAddress): boolean {
  return address >= HYPERVISOR_VIRT_START && address < HYPERVISOR_VIRT_END;
}

/** What the guest registered for each vector. Address 0: no handler. */
export class TrapTable {
  readonly cs = new Uint16Array(VECTORS);
  private readonly cpu: Cpu;
  /** But for page faults: those are where the gates see them (gate-state.ts). */
  private readonly addresses = new Float64Array(VECTORS);
  private readonly allFlags = new Uint8Array(VECTORS);

  constructor(cpu: Cpu) {
    this.cpu = cpu;
  }

  address(vector: number): VirtualAddress {
    return vector === VECTOR.PF ? this.cpu.number(GATE.pageFault) : this.addresses[vector]!;
  }

  flags(vector: number): number {
    return vector === VECTOR.PF ? this.cpu.get(GATE.pageFaultFlags) : this.allFlags[vector]!;
  }

  set(vector: number, flags: number, cs: number, address: VirtualAddress): void {
    this.cs[vector] = cs;
    if (vector === VECTOR.PF) {
      this.cpu.putNumber(GATE.pageFault, address);
      this.cpu.put(GATE.pageFaultFlags, flags);
    } else {
      this.addresses[vector] = address;
      this.allFlags[vector] = flags;
    }
  }

  clear(): void {
    for (let vector = 0; vector < VECTORS; vector++) this.set(vector, 0, 0, 0);
  }
}

/** Names of the exceptions, for messages. */
const NAMES: Readonly<Record<number, string>> = Object.fromEntries(
  Object.entries(VECTOR).map(([name, vector]) => [vector, `#${name}`]),
);

export function vectorName(vector: number): string {
  return NAMES[vector] ?? `vector ${vector}`;
}

const WITH_ERROR_CODE: ReadonlySet<number> = new Set([
  VECTOR.DF,
  VECTOR.TS,
  VECTOR.NP,
  VECTOR.SS,
  VECTOR.GP,
  VECTOR.PF,
  VECTOR.AC,
]);

/** Kinds of bounce frames. */
export const BOUNCE = { ERROR_CODE: 1, MASK_EVENTS: 2, FAILSAFE: 4 } as const;

/** Flags that a guest may set by iret; the others stay as the hypervisor needs them. */
export const IRET_FLAGS = STATUS_FLAGS | FLAG.TF | FLAG.DF | FLAG.NT | FLAG.RF | FLAG.AC | FLAG.ID;

/** Flags that an entry clears in the running rflags. */
export const CLEARED_ON_ENTRY = FLAG.AC | FLAG.VM | FLAG.RF | FLAG.NT | FLAG.TF;

/**
 * Enters the guest's kernel at an address.
 * @param flags BOUNCE_*
 * @returns false, and nothing changed, if the kernel's stack cannot take the frame
 */
export function bounce(vcpu: Vcpu, address: VirtualAddress, flags: number, errorCode: number): boolean {
  const { cpu, guest, memory } = vcpu;
  const fromKernel = vcpu.kernelMode;
  const masked = vcpu.upcallMasked;
  let sp = entryStack(vcpu);

  // The frame is put together beside the CPU's state, then copied.
  const frame = (cpu.address + CPU.temp) >>> 2;
  const { u32 } = memory;
  let end = frame;
  const copy = (offset: number) => {
    u32[end++] = cpu.get(offset);
    u32[end++] = cpu.get(offset + 4);
  };
  const push = (low: number, high: number) => {
    u32[end++] = low;
    u32[end++] = high;
  };
  copy(CPU.regs + RCX * 8);
  copy(CPU.regs + 11 * 8);
  if (flags & BOUNCE.FAILSAFE) for (const segment of [DS, ES, FS, GS]) push(cpu.selector(segment), 0);
  if (flags & BOUNCE.ERROR_CODE) push(errorCode, 0);
  copy(CPU.rip);
  const selector = cpu.selector(CS);
  push(fromKernel ? selector & ~3 : selector | 3, masked ? 1 : 0);
  let rflags = cpu.rflags & ~(FLAG.IF | FLAG.IOPL);
  if (!masked) rflags |= FLAG.IF;
  if (vcpu.domain.vmAssist & (1 << VMASST_TYPE.architectural_iopl)) rflags |= vcpu.iopl << 12;
  push(rflags, 0);
  copy(CPU.regs + RSP * 8);
  push(cpu.selector(SS), 0);

  const size = (end - frame) * 4;
  sp -= size;
  if (!isCanonical(sp) || inHypervisor(sp)) return false;
  vcpu.setKernelMode(true);
  try {
    if ((sp & 0xfff) + size <= 4096) u32.copyWithin(guest.linear(sp, Access.Write) >>> 2, frame, end);
    else for (let word = frame; word < end; word++) guest.setU32(sp + (word - frame) * 4, u32[word]!);
  } catch (error) {
    if (!(error instanceof HypercallError)) throw error;
    vcpu.setKernelMode(fromKernel);
    return false;
  }

  cpu.put(CPU.rflags, (cpu.get(CPU.rflags) & ~CLEARED_ON_ENTRY) | FLAG.IF);
  cpu.rip = address;
  cpu.setRegNumber(RSP, sp);
  cpu.setSelector(CS, FLAT_KERNEL_CS);
  cpu.setSelector(SS, FLAT_KERNEL_SS);
  if (flags & BOUNCE.MASK_EVENTS) vcpu.upcallMasked = true;
  return true;
}

/** Where the next frame goes, as an aligned address: entering from kernel mode stays on its stack. */
function entryStack(vcpu: Vcpu): VirtualAddress {
  const sp = vcpu.kernelMode ? vcpu.cpu.regNumber(RSP) : vcpu.kernelSp;
  return sp - ((sp >>> 0) & 15);
}

/** Ends a domain whose kernel cannot be entered. @param why what it should have been entered for */
export function crashOnStack(vcpu: Vcpu, why: string): void {
  vcpu.domain.crash(`${why}, and the kernel's stack at ${hex64(entryStack(vcpu))} cannot be written`, vcpu);
}

/**
 * Raises an exception in the guest, as its trap table has it.
 * @param address of a page fault
 */
export function injectException(
  vcpu: Vcpu,
  vector: number,
  errorCode = 0,
  address: VirtualAddress = 0,
): void {
  const { traps } = vcpu;
  const handler = traps.address(vector);
  let flags = traps.flags(vector) & TI_IF ? BOUNCE.MASK_EVENTS : 0;
  let error = errorCode;
  if (WITH_ERROR_CODE.has(vector)) flags |= BOUNCE.ERROR_CODE;
  if (vector === VECTOR.PF) {
    // To the processor both modes are alike; to the guest they are not.
    error = vcpu.kernelMode ? error & ~PF.U : error | PF.U;
    vcpu.pageFaultAddress = address;
  }
  if (handler === 0) {
    const why = describe(vcpu, vector, error, address);
    vcpu.domain.crash(`${why}, and the guest has no handler for it`, vcpu);
  } else if (!bounce(vcpu, handler, flags, error)) {
    crashOnStack(vcpu, describe(vcpu, vector, error, address));
  }
}

function describe(vcpu: Vcpu, vector: number, error: number, address: VirtualAddress): string {
  const mode = vcpu.kernelMode ? 'kernel' : 'user';
  const where = vector === VECTOR.PF ? ` for ${hex64(address)}` : '';
  const code = WITH_ERROR_CODE.has(vector) ? ` (error code ${error.toString(16)})` : '';
  return `${vectorName(vector)}${where}${code} in ${mode} mode at ${hex64(vcpu.cpu.rip)}`;
}

/** INT n: allowed from the levels that the trap table says, else #GP. rip is behind the instruction. */
export function softwareInterrupt(vcpu: Vcpu, vector: number, length: number): void {
  const level = vcpu.traps.flags(vector) & TI_DPL;
  if (level >= (vcpu.kernelMode ? 1 : 3)) {
    injectException(vcpu, vector);
    return;
  }
  vcpu.cpu.rip -= length;
  injectException(vcpu, VECTOR.GP, (vector << 3) | 2);
}

/** Entries that one set_trap_table call takes before others get their turn. */
const BATCH = 256;

/** set_trap_table(traps): an array that ends with an entry of address 0; no array clears all. */
export function setTrapTable(vcpu: Vcpu, args: Arguments): number {
  const { guest, traps } = vcpu;
  const start = args.number(0);
  if (start === 0) {
    traps.clear();
    return 0;
  }
  for (let index = 0; index < BATCH; index++) {
    const at = start + index * TRAP_INFO.size;
    const address = guest.number64(at + TRAP_INFO.address);
    if (address === 0) return 0;
    if (!isCanonical(address)) return -ERRNO.EINVAL;
    traps.set(
      guest.u8(at + TRAP_INFO.vector),
      guest.u8(at + TRAP_INFO.flags),
      // The levels that a PV kernel may think it runs at are all level 3.
      guest.u16(at + TRAP_INFO.cs) | 3,
      address,
    );
  }
  args.set(0, start + BATCH * TRAP_INFO.size);
  return RESTART;
}
