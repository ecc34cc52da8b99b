/**
 * Privileged instructions of a guest's kernel, which fault as they do not run at level 0, and which Xen carries out
 * in its place: a few that kernels still use although they could make a hypercall. And the forced-emulation prefix,
 * with which a guest asks for CPUID as Xen answers it.
 */
import type { Cpu, VirtualAddress } from '../x86/cpu.ts';
import { CPU, FLAG, RAX, RBX, RCX, RDX, VECTOR } from '../x86/state.ts';
import { emulatedCpuid } from './cpuid.ts';
import { readDebugRegister, writeDebugRegister } from './debugreg.ts';
import { HypercallError } from './hypercall.ts';
import { readMsr, readsAsZero, writeMsr } from './msr.ts';
import { injectException } from './traps.ts';
import type { Vcpu } from './vcpu.ts';

/** CR0 as every guest sees it: PE MP ET NE WP AM PG; TS beside. */
const CR0 = 0x80050033;
const CR0_TS = 8;
/** CR4: PAE, OSFXSR, OSXMMEXCPT always; TSD and DE as the guest sets them. */
const CR4 = (1 << 5) | (1 << 9) | (1 << 10);
const CR4_GUEST = (1 << 2) | (1 << 3);

const LONGEST_INSTRUCTION = 15;

/** ud2a; "xen". */
const PREFIX = [0x0f, 0x0b, 0x78, 0x65, 0x6e];
const CPUID = [0x0f, 0xa2];

/** What became of an attempt. */
type Outcome = 'done' | 'refused' | null;

/** A started instruction: what the prefixes said, and where the next byte is read. */
class Reader {
  readonly bytes: Uint8Array;
  at = 0;
  operandSize: 2 | 4 | 8 = 4;
  rex = 0;
  repeat = false;
  /** Offset of the segment base that a prefix chose. */
  segment: number = CPU.zero;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  next(): number {
    return this.bytes[this.at++] ?? 0;
  }

  /** Reads prefixes. @returns the first byte of the opcode */
  opcode(): number {
    for (;;) {
      const byte = this.next();
      if (byte === 0x66) this.operandSize = 2;
      else if (byte === 0xf2 || byte === 0xf3) this.repeat = true;
      else if (byte === 0x64) this.segment = CPU.fsBase;
      else if (byte === 0x65) this.segment = CPU.gsBase;
      else if (byte >>> 4 === 4) {
        this.rex = byte;
        if (byte & 8) this.operandSize = 8;
        return this.next();
      } else if (!SKIPPED.has(byte)) return byte;
      if (this.at >= this.bytes.length) return 0;
    }
  }

  /** A displacement of four bytes. */
  next32(): number {
    return this.next() | (this.next() << 8) | (this.next() << 16) | (this.next() << 24);
  }

  /** The address that a ModRM byte with a memory operand, and what follows it, says. */
  address(cpu: Cpu, modrm: number): VirtualAddress {
    const mod = modrm >>> 6;
    let base = modrm & 7;
    let address = cpu.number(this.segment);
    if (base === 4) {
      const sib = this.next();
      const index = ((sib >>> 3) & 7) | ((this.rex & 2) << 2);
      if (index !== 4) address += cpu.regNumber(index) * (1 << (sib >>> 6));
      base = sib & 7;
      if (mod === 0 && base === 5) return address + this.next32();
    } else if (mod === 0 && base === 5) {
      // Relative to the next instruction; no immediate follows in what is emulated.
      const displacement = this.next32();
      return address + cpu.rip + this.at + displacement;
    }
    address += cpu.regNumber(base | ((this.rex & 1) << 3));
    if (mod === 1) address += (this.next() << 24) >> 24;
    if (mod === 2) address += this.next32();
    return address;
  }
}

/** Other segment prefixes, address size, LOCK: of no meaning for what is emulated. */
const SKIPPED: ReadonlySet<number> = new Set([0x26, 0x2e, 0x36, 0x3e, 0x67, 0xf0]);

/**
 * #GP: carries the instruction out if it is one that the guest may have carried out.
 * @returns false: the guest gets its exception
 */
export function emulatePrivileged(vcpu: Vcpu): boolean {
  const bytes = fetch(vcpu, LONGEST_INSTRUCTION);
  if (bytes.length === 0) return false;
  const reader = new Reader(bytes);
  const opcode = reader.opcode();
  const rip = vcpu.cpu.rip;
  const outcome = opcode === 0x0f ? twoByte(vcpu, reader) : oneByte(vcpu, reader, opcode);
  if (outcome !== 'done') return false;
  vcpu.cpu.rip = rip + reader.at;
  return true;
}

/**
 * #UD: CPUID behind the forced-emulation prefix.
 * @returns false: not that; the guest gets its exception
 */
export function emulateForced(vcpu: Vcpu): boolean {
  const length = PREFIX.length + CPUID.length;
  const bytes = fetch(vcpu, length);
  if (bytes.length < length || ![...PREFIX, ...CPUID].every((byte, index) => bytes[index] === byte))
    return false;
  const { cpu } = vcpu;
  const result = emulatedCpuid(vcpu.id, cpu.regLow(RAX), cpu.regLow(RCX));
  for (const [index, register] of [RAX, RBX, RCX, RDX].entries())
    cpu.setRegNumber(register, result[index]! >>> 0);
  cpu.rip += length;
  return true;
}

/** Up to `length` bytes at rip: fewer where the next page is not mapped. */
function fetch(vcpu: Vcpu, length: number): Uint8Array {
  const { guest, cpu } = vcpu;
  const { rip } = cpu;
  const inPage = Math.min(length, 4096 - (rip & 0xfff));
  try {
    const first = guest.copyFrom(rip, inPage);
    if (inPage === length) return first;
    const whole = new Uint8Array(length);
    whole.set(first);
    try {
      whole.set(guest.copyFrom(rip + inPage, length - inPage), inPage);
    } catch (error) {
      if (error instanceof HypercallError) return first;
      throw error;
    }
    return whole;
  } catch (error) {
    if (error instanceof HypercallError) return new Uint8Array(0);
    throw error;
  }
}

/** I/O privilege is enough: a kernel counts as level 1, user mode as level 3. */
function mayUsePorts(vcpu: Vcpu): boolean {
  return vcpu.iopl >= (vcpu.kernelMode ? 1 : 3);
}

function oneByte(vcpu: Vcpu, reader: Reader, opcode: number): Outcome {
  const { cpu } = vcpu;
  switch (opcode) {
    case 0xe4: // in al, imm8
    case 0xe5:
      reader.next();
      return input(vcpu, opcode === 0xe4 ? 1 : portSize(reader));
    case 0xec: // in al, dx
    case 0xed:
      return input(vcpu, opcode === 0xec ? 1 : portSize(reader));
    case 0xe6: // out imm8, al
    case 0xe7:
      reader.next();
      return mayUsePorts(vcpu) ? 'done' : 'refused';
    case 0xee: // out dx, al
    case 0xef:
      return mayUsePorts(vcpu) ? 'done' : 'refused';
    case 0x6e: // outs
    case 0x6f:
      return outputString(vcpu, reader, opcode === 0x6e ? 1 : portSize(reader));
    case 0x6c: // ins
    case 0x6d:
      return inputString(vcpu, reader, opcode === 0x6c ? 1 : portSize(reader));
    case 0xfa: // cli
    case 0xfb: // sti
      // Without effect on the upcall mask: POPF, which would undo it, is not seen.
      return mayUsePorts(vcpu) ? 'done' : 'refused';
    case 0xf4: // hlt
      if (!vcpu.kernelMode) return 'refused';
      if (!vcpu.upcallPending) vcpu.block();
      cpu.put(CPU.rflags, cpu.get(CPU.rflags) | FLAG.IF);
      return 'done';
    default:
      return null;
  }
}

/** Ports have 1, 2 or 4 bytes. */
function portSize(reader: Reader): number {
  return reader.operandSize === 2 ? 2 : 4;
}

/** There is nothing behind any port: it reads as ones. */
function input(vcpu: Vcpu, size: number): Outcome {
  if (!mayUsePorts(vcpu)) return 'refused';
  const { cpu } = vcpu;
  if (size === 4) cpu.setRegNumber(RAX, 0xffffffff);
  else cpu.put(CPU.regs, cpu.regLow(RAX) | (size === 1 ? 0xff : 0xffff));
  return 'done';
}

/** Elements of one repeated string instruction that are moved before others get their turn. */
const STRING_BATCH = 1024;

/** How many elements a string instruction has, at most a batch; what remains is in rcx. */
function elements(vcpu: Vcpu, reader: Reader): { count: number; finished: boolean } {
  if (!reader.repeat) return { count: 1, finished: true };
  const left = vcpu.cpu.regNumber(RCX);
  const all = left < 0 ? Number.POSITIVE_INFINITY : left;
  return { count: Math.min(all, STRING_BATCH), finished: all <= STRING_BATCH };
}

function advance(vcpu: Vcpu, reader: Reader, register: number, count: number, size: number): void {
  const { cpu } = vcpu;
  const step = cpu.get(CPU.df) >>> 31 ? -size : size;
  cpu.setRegNumber(register, cpu.regNumber(register) + step * count);
  if (reader.repeat) cpu.setReg(RCX, cpu.reg(RCX) - BigInt(count));
}

function outputString(vcpu: Vcpu, reader: Reader, size: number): Outcome {
  if (!mayUsePorts(vcpu)) return 'refused';
  const { count, finished } = elements(vcpu, reader);
  advance(vcpu, reader, 6, count, size);
  if (!finished) reader.at = 0;
  return 'done';
}

function inputString(vcpu: Vcpu, reader: Reader, size: number): Outcome {
  if (!mayUsePorts(vcpu)) return 'refused';
  const { count, finished } = elements(vcpu, reader);
  const { cpu, guest } = vcpu;
  const step = cpu.get(CPU.df) >>> 31 ? -size : size;
  const start = cpu.regNumber(7);
  const ones = new Uint8Array(size).fill(0xff);
  for (let done = 0; done < count; done++) {
    try {
      guest.copyTo(start + done * step, ones);
    } catch (error) {
      if (!(error instanceof HypercallError)) throw error;
      advance(vcpu, reader, 7, done, size);
      return 'refused';
    }
  }
  advance(vcpu, reader, 7, count, size);
  if (!finished) reader.at = 0;
  return 'done';
}

function twoByte(vcpu: Vcpu, reader: Reader): Outcome {
  const { cpu } = vcpu;
  if (!vcpu.kernelMode) return null;
  const opcode = reader.next();
  switch (opcode) {
    case 0x06: // clts
      cpu.put(CPU.ts, 0);
      return 'done';
    case 0x08: // invd
    case 0x09: // wbinvd
      return 'done';
    case 0x01:
      return systemGroup(vcpu, reader);
    case 0x20: // mov r64, cr
    case 0x21: // mov r64, dr
    case 0x22: // mov cr, r64
    case 0x23: {
      const modrm = reader.next();
      const system = ((modrm >>> 3) & 7) | ((reader.rex & 4) << 1);
      const register = (modrm & 7) | ((reader.rex & 1) << 3);
      if (opcode === 0x20) return readControl(vcpu, system, register);
      if (opcode === 0x22) return writeControl(vcpu, system, register);
      return debug(vcpu, opcode === 0x23, system, register);
    }
    case 0x30: // wrmsr
      return writeMsr(vcpu, cpu.regLow(RCX), cpu.regLow(RAX), cpu.regLow(RDX)) ? 'done' : 'refused';
    case 0x32: {
      // rdmsr
      const value = readMsr(vcpu, cpu.regLow(RCX)) ?? (readsAsZero(vcpu) ? [0, 0] : null);
      if (value === null) return 'refused';
      cpu.setRegNumber(RAX, value[0]! >>> 0);
      cpu.setRegNumber(RDX, value[1]! >>> 0);
      return 'done';
    }
    default:
      return null;
  }
}

/** 0F 01: invlpg; lmsw and smsw with a register. lgdt and lidt are refused: there are hypercalls for them. */
function systemGroup(vcpu: Vcpu, reader: Reader): Outcome {
  const modrm = reader.next();
  const register = (modrm & 7) | ((reader.rex & 1) << 3);
  if (modrm >>> 6 !== 3) {
    if (((modrm >>> 3) & 7) !== 7) return null;
    // Nothing is stale (see mm/tlb.ts); but the operand has its length.
    reader.address(vcpu.cpu, modrm);
    return 'done';
  }
  switch ((modrm >>> 3) & 7) {
    case 4:
      vcpu.cpu.setRegNumber(register, cr0(vcpu));
      return 'done';
    case 6: {
      const value = vcpu.cpu.regLow(register) & 0xf;
      if ((value | CR0_TS) !== ((cr0(vcpu) & 0xf) | CR0_TS)) return 'refused';
      vcpu.cpu.put(CPU.ts, value & CR0_TS ? 1 : 0);
      return 'done';
    }
    default:
      return null;
  }
}

function cr0(vcpu: Vcpu): number {
  return (CR0 | (vcpu.cpu.get(CPU.ts) ? CR0_TS : 0)) >>> 0;
}

function readControl(vcpu: Vcpu, control: number, register: number): Outcome {
  const { cpu } = vcpu;
  switch (control) {
    case 0:
      cpu.setRegNumber(register, cr0(vcpu));
      return 'done';
    case 2:
      cpu.setRegNumber(register, vcpu.pageFaultAddress);
      return 'done';
    case 3:
      cpu.setRegNumber(register, vcpu.kernelRoot * 4096);
      return 'done';
    case 4:
      cpu.setRegNumber(register, CR4 | vcpu.cr4);
      return 'done';
    default:
      return 'refused';
  }
}

function writeControl(vcpu: Vcpu, control: number, register: number): Outcome {
  const { cpu } = vcpu;
  switch (control) {
    case 0:
      // Only TS is the guest's to change.
      if ((cpu.regNumber(register) | CR0_TS) >>> 0 !== (CR0 | CR0_TS) >>> 0) return 'refused';
      cpu.put(CPU.ts, cpu.regLow(register) & CR0_TS ? 1 : 0);
      return 'done';
    case 2:
      vcpu.pageFaultAddress = cpu.regNumber(register);
      return 'done';
    case 3:
      try {
        vcpu.domain.memory.loadRoots(vcpu, Math.floor(cpu.regNumber(register) / 4096), vcpu.userRoot);
      } catch (error) {
        if (error instanceof HypercallError) return 'refused';
        throw error;
      }
      return 'done';
    case 4:
      // What the guest may not have is dropped, as CPUID does not offer it.
      vcpu.cr4 = cpu.regLow(register) & CR4_GUEST;
      return 'done';
    default:
      return 'refused';
  }
}

function debug(vcpu: Vcpu, write: boolean, index: number, register: number): Outcome {
  const { cpu } = vcpu;
  try {
    if (write) writeDebugRegister(vcpu, index, cpu.regNumber(register));
    else cpu.setRegNumber(register, readDebugRegister(vcpu, index));
    return 'done';
  } catch (error) {
    if (error instanceof HypercallError) return 'refused';
    throw error;
  }
}

/** #GP and #UD: emulated, or given to the guest. @param error code of #GP */
export function generalProtection(vcpu: Vcpu, error: number): void {
  if (error !== 0 || !emulatePrivileged(vcpu)) injectException(vcpu, VECTOR.GP, error);
}

export function invalidOpcode(vcpu: Vcpu): void {
  if (!emulateForced(vcpu)) injectException(vcpu, VECTOR.UD);
}
