/**
 * A virtual CPU's state, for TypeScript: getters and setters over the bytes that state.ts lays out.
 *
 * Guest virtual addresses are plain numbers here: the canonical 48-bit address, signed. 0xffff800000000000 is
 * -2^47. Every canonical address is exact, sums stay exact, and no BigInt is needed; a value that is not
 * canonical stays not canonical (|va| >= 2^47) and faults when used.
 */
import type { Memory } from '../machine/memory.ts';
import { CPU, FLAG, STATUS_FLAGS } from './state.ts';

/** A guest virtual address as a signed number (see the head of cpu.ts). */
export type VirtualAddress = number;

const TWO_32 = 0x1_0000_0000;

/** Joins two halves of a 64-bit value to a signed number (exact below 2^53). */
export function join64(low: number, high: number): number {
  return (high | 0) * TWO_32 + (low >>> 0);
}

/** The upper half of a signed number, as an i32. The lower half is `value >>> 0`. */
export function high32(value: number): number {
  return Math.floor(value / TWO_32) | 0;
}

/** A virtual address as the field writes it: 16 hexadecimal digits. */
export function hex64(value: number | bigint): string {
  return BigInt.asUintN(64, BigInt(value)).toString(16).padStart(16, '0');
}

export class Cpu {
  readonly memory: Memory;
  /** Linear address of the state. */
  readonly address: number;
  private readonly word: number;

  constructor(memory: Memory, address: number) {
    this.memory = memory;
    this.address = address;
    this.word = address >>> 2;
  }

  /** The state at reset: what the x86-64 ABI and FNINIT leave, flags clear. */
  reset(): void {
    this.memory.u8.fill(0, this.address, this.address + CPU.size);
    this.put(CPU.df, 1);
    this.rflags = FLAG.ONE;
    this.memory.u16[(this.address + CPU.fcw) >>> 1] = 0x37f;
    this.put(CPU.mxcsr, 0x1f80);
    this.memory.u64[(this.address + CPU.dr) / 8 + 6] = 0xffff0ff0n;
    this.memory.u64[(this.address + CPU.dr) / 8 + 7] = 0x400n;
  }

  /** A u32 field. @param offset from CPU */
  get(offset: number): number {
    return this.memory.u32[this.word + (offset >>> 2)]!;
  }

  put(offset: number, value: number): void {
    this.memory.u32[this.word + (offset >>> 2)] = value;
  }

  /** A u64 field as a signed number. */
  number(offset: number): number {
    return join64(this.get(offset), this.get(offset + 4));
  }

  putNumber(offset: number, value: number): void {
    this.put(offset, value >>> 0);
    this.put(offset + 4, high32(value));
  }

  /** General register by its number, as an unsigned bigint (not for paths that run often). */
  reg(index: number): bigint {
    return this.memory.u64[this.address / 8 + index]!;
  }

  setReg(index: number, value: bigint): void {
    this.memory.u64[this.address / 8 + index] = BigInt.asUintN(64, value);
  }

  regLow(index: number): number {
    return this.get(CPU.regs + index * 8);
  }

  /** General register as a signed number: exact for canonical addresses and for all integers below 2^53. */
  regNumber(index: number): number {
    return this.number(CPU.regs + index * 8);
  }

  setRegNumber(index: number, value: number): void {
    this.putNumber(CPU.regs + index * 8, value);
  }

  get rip(): VirtualAddress {
    return this.number(CPU.rip);
  }

  set rip(value: VirtualAddress) {
    this.putNumber(CPU.rip, value);
  }

  get rflags(): number {
    let flags = (this.get(CPU.rflags) & ~(STATUS_FLAGS | FLAG.DF)) | FLAG.ONE;
    if (this.get(CPU.zres) === 0 && this.get(CPU.zres + 4) === 0) flags |= FLAG.ZF;
    if (this.get(CPU.spres + 4) >>> 31) flags |= FLAG.SF;
    let parity = this.get(CPU.spres) & 0xff;
    parity ^= parity >> 4;
    if (((0x9669 >> (parity & 15)) & 1) !== 0) flags |= FLAG.PF;
    if (this.get(CPU.cf) !== 0) flags |= FLAG.CF;
    if (this.get(CPU.of + 4) >>> 31) flags |= FLAG.OF;
    if (this.get(CPU.af) & 16) flags |= FLAG.AF;
    if (this.get(CPU.df) >>> 31) flags |= FLAG.DF;
    return flags;
  }

  set rflags(flags: number) {
    this.put(CPU.rflags, (flags & ~(STATUS_FLAGS | FLAG.DF)) | FLAG.ONE);
    this.putNumber(CPU.zres, flags & FLAG.ZF ? 0 : 1);
    this.put(CPU.spres, flags & FLAG.PF ? 0 : 1);
    this.put(CPU.spres + 4, flags & FLAG.SF ? 0x80000000 : 0);
    this.put(CPU.cf, flags & FLAG.CF ? 1 : 0);
    this.putNumber(CPU.of, flags & FLAG.OF ? -1 : 0);
    this.put(CPU.af, flags & FLAG.AF);
    this.put(CPU.df, flags & FLAG.DF ? -1 : 1);
  }

  selector(index: number): number {
    return this.memory.u16[(this.address + CPU.selectors + index * 8) >>> 1]!;
  }

  setSelector(index: number, value: number): void {
    this.memory.u16[(this.address + CPU.selectors + index * 8) >>> 1] = value;
  }

  get supervisor(): boolean {
    return this.get(CPU.supervisor) !== 0;
  }

  set supervisor(value: boolean) {
    this.put(CPU.supervisor, value ? 1 : 0);
  }
}
