/**
 * The registers of the x87 as a stack, and its faults (SDM volume 1, 8.1.2 and 8.5.1.1).
 *
 * While an instruction runs, control word, status word and tags are held in fields; the instruction's end writes them
 * back to the CPU's bytes. Significands and heads are always in the CPU's bytes.
 */
import type { Memory } from '../../machine/memory.ts';
import { CPU } from '../state.ts';
import { EXTENDED, type Format, INDEFINITE, Real } from './real.ts';
import { IE, SoftFloat } from './softfloat.ts';

/** Stack fault, and the condition codes. */
const SF = 0x40;
export const C0 = 0x100;
export const C1 = 0x200;
export const C2 = 0x400;
export const C3 = 0x4000;
export const CONDITIONS = C0 | C2 | C3;

/** C3, C2, C0 of a comparison: less, equal, greater, unordered. */
export const COMPARED = [C0, C3, 0, CONDITIONS] as const;

export const INDEFINITE_HEAD = 0xffff;
export const INTEGER_BIT = 1n << 63n;

export class RegisterStack {
  protected readonly memory: Memory;
  protected readonly float = new SoftFloat();
  protected readonly a = new Real();
  protected readonly b = new Real();
  protected readonly r = new Real();
  protected readonly r2 = new Real();
  protected cpu = 0;
  protected control = 0;
  protected status = 0;
  /** Bit a physical register: not empty. */
  protected tags = 0;
  /** The format that precision control asks for. */
  protected format: Format = EXTENDED;

  constructor(memory: Memory) {
    this.memory = memory;
    this.float.x87 = true;
  }

  /** The physical register that is ST(i). */
  protected physical(i: number): number {
    return ((this.status >> 11) + i) & 7;
  }

  protected empty(i: number): boolean {
    return ((this.tags >> this.physical(i)) & 1) === 0;
  }

  protected addressOf(i: number): number {
    return this.cpu + CPU.st + 16 * this.physical(i);
  }

  protected significand(i: number): bigint {
    return this.memory.u64[this.addressOf(i) / 8]!;
  }

  /** Sign and exponent. */
  protected head(i: number): number {
    return this.memory.u16[(this.addressOf(i) + 8) >>> 1]!;
  }

  protected load(i: number, into: Real): Real {
    return into.fromExtended(this.significand(i), this.head(i));
  }

  protected put(i: number, significand: bigint, head: number): void {
    const at = this.addressOf(i);
    this.memory.u64[at / 8] = significand;
    this.memory.u16[(at + 8) >>> 1] = head;
    this.tags |= 1 << this.physical(i);
  }

  protected putReal(i: number, real: Real): void {
    this.put(i, real.toExtended(), real.toExtendedHead());
  }

  protected putIndefinite(i: number): void {
    this.put(i, INDEFINITE, INDEFINITE_HEAD);
  }

  protected moveTop(by: number): void {
    this.status = (this.status & ~0x3800) | ((this.status + (by << 11)) & 0x3800);
  }

  protected pop(): void {
    this.tags &= ~(1 << this.physical(0));
    this.moveTop(1);
  }

  /** Whether stack faults get their masked response. */
  protected get invalidMasked(): boolean {
    return (this.control & IE) !== 0;
  }

  /** #IS. @returns whether it is masked */
  protected stackFault(overflow: boolean): boolean {
    this.float.flags |= IE;
    this.status |= SF;
    this.c1(overflow);
    return this.invalidMasked;
  }

  protected c1(set: boolean): void {
    this.status = set ? this.status | C1 : this.status & ~C1;
  }

  protected conditions(value: number): void {
    this.status = (this.status & ~CONDITIONS) | value;
  }

  /** Makes room for a push; false: overflow was found and dealt with. */
  protected pushable(): boolean {
    if (this.empty(7)) {
      this.c1(false);
      return true;
    }
    if (this.stackFault(true)) {
      this.moveTop(-1);
      this.putIndefinite(0);
    }
    return false;
  }

  protected push(significand: bigint, head: number): void {
    this.moveTop(-1);
    this.put(0, significand, head);
  }

  protected pushReal(real: Real): void {
    this.moveTop(-1);
    this.putReal(0, real);
  }

  /** Underflow if ST(0) is empty: the masked response is the indefinite NaN there. */
  protected top(): boolean {
    if (!this.empty(0)) return true;
    if (this.stackFault(false)) this.putIndefinite(0);
    return false;
  }
}
