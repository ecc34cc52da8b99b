/**
 * The x87 floating-point unit (SDM volume 1, chapter 8).
 *
 * Each instruction has the same course: look whether an exception of an earlier one is pending, check the stack, compute
 * in softfloat.ts, then write what the masks allow. Exceptions found before computing leave registers and memory as
 * they were unless masked; overflow and underflow leave a result with an adjusted exponent in a register, and nothing
 * in memory. An unmasked exception is not raised here but remembered in the status word (ES): the next waiting
 * instruction gets #MF.
 *
 * The host's processors update FOP and the data pointer only when an unmasked exception is found (CPUID's
 * FDP_EXCPTN_ONLY); so does this one. The instruction pointer is updated by every instruction that is no control
 * instruction.
 */
import type { Memory } from '../../machine/memory.ts';
import { high32 } from '../cpu.ts';
import { CPU, VECTOR } from '../state.ts';
import {
  DE,
  DOUBLE,
  EQUAL,
  EXTENDED,
  FINITE,
  type Format,
  IE,
  INDEFINITE,
  INFINITE,
  LESS,
  NEAREST,
  OE,
  PE,
  QNAN,
  Real,
  SINGLE,
  SoftFloat,
  TOWARD_ZERO,
  UE,
  UNORDERED,
  UNSUPPORTED,
  UP,
  X87_FORMATS,
  ZE,
  ZERO,
} from './softfloat.ts';
import { Transcendental } from './transcendental.ts';
import { isControl, isNonWaiting, x87Defined } from './x87-decode.ts';
import {
  controlWord,
  emms,
  fxrstor,
  fxsave,
  initialise,
  ldmxcsr,
  loadEnvironment,
  mmxEnter,
  restore,
  save,
  storeEnvironment,
  summarised,
} from './x87-image.ts';

export { isControl, x87Defined, x87Operand } from './x87-decode.ts';

/** Stack fault, and the condition codes. */
const SF = 0x40;
const ES = 0x80;
const C0 = 0x100;
const C1 = 0x200;
const C2 = 0x400;
const C3 = 0x4000;
const CONDITIONS = C0 | C2 | C3;

/** C3, C2, C0 of a comparison: less, equal, greater, unordered. */
const COMPARED = [C0, C3, 0, CONDITIONS] as const;

const INDEFINITE_HEAD = 0xffff;
const INTEGER_BIT = 1n << 63n;

/**
 * The constants by opcode D9 E8..ED (L2T, L2E, PI, LG2, LN2 from E9): truncated significand, exponent field, and
 * whether rounding to nearest goes up.
 */
const CONSTANTS: readonly (readonly [bigint, number, boolean])[] = [
  [0x8000000000000000n, 0x3fff, false],
  [0xd49a784bcd1b8afen, 0x4000, false],
  [0xb8aa3b295c17f0bbn, 0x3fff, true],
  [0xc90fdaa22168c234n, 0x4000, true],
  [0x9a209a84fbcff798n, 0x3ffd, true],
  [0xb17217f7d1cf79abn, 0x3ffe, true],
];

const DECIMAL_LIMIT = 10n ** 18n;

export class X87 {
  private readonly memory: Memory;
  private readonly float = new SoftFloat();
  private readonly transcendental: Transcendental;
  private readonly a = new Real();
  private readonly b = new Real();
  private readonly r = new Real();
  private readonly r2 = new Real();
  private cpu = 0;
  private control = 0;
  private status = 0;
  /** Bit a physical register: not empty. */
  private tags = 0;
  /** The format that precision control asks for. */
  private format: Format = EXTENDED;

  constructor(memory: Memory) {
    this.memory = memory;
    this.float.x87 = true;
    this.transcendental = new Transcendental(this.float);
  }

  /** FWAIT, and what every MMX instruction (EMMS too) asks first: VECTOR.MF if an exception is pending, else 0. */
  checkPending(cpu: number): number {
    return this.memory.u16[((cpu >>> 0) + CPU.fsw) >>> 1]! & ES ? VECTOR.MF : 0;
  }

  fxsave(cpu: number, address: number, rexW: boolean): void {
    fxsave(this.memory, cpu, address, rexW);
  }

  /** @returns 0 or VECTOR.GP */
  fxrstor(cpu: number, address: number, rexW: boolean): number {
    return fxrstor(this.memory, cpu, address, rexW);
  }

  /** @returns 0 or VECTOR.GP */
  ldmxcsr(cpu: number, value: number): number {
    return ldmxcsr(this.memory, cpu, value);
  }

  mmxEnter(cpu: number): void {
    mmxEnter(this.memory, cpu);
  }

  emms(cpu: number): void {
    emms(this.memory, cpu);
  }

  /**
   * @param cpu linear address of the CPU
   * @param opcode 0xd8..0xdf
   * @param modrm the byte after it
   * @param operand linear address of the memory operand (x87Operand tells how many bytes), 0 for register forms
   * @param rip the instruction's own guest address, for the last instruction pointer; NaN: the caller keeps it
   * @param data guest address of the memory operand, for the last data pointer; NaN: the caller keeps it
   * @returns 0; VECTOR.MF: an earlier exception is pending; VECTOR.UD: no such instruction. Nothing is done then.
   */
  execute(cpu: number, opcode: number, modrm: number, operand: number, rip = NaN, data = NaN): number {
    cpu >>>= 0;
    operand >>>= 0;
    const { memory, float } = this;
    if (!x87Defined(opcode, modrm)) return VECTOR.UD;
    const words = cpu >>> 1;
    const status = memory.u16[words + (CPU.fsw >>> 1)]!;
    if ((status & ES) !== 0 && !isNonWaiting(opcode, modrm)) return VECTOR.MF;
    this.cpu = cpu;
    this.status = status;
    this.control = memory.u16[words + (CPU.fcw >>> 1)]!;
    this.tags = memory.u8[cpu + CPU.ftw]!;
    if (isControl(opcode, modrm)) {
      this.controlInstruction(opcode, modrm, operand);
      return 0;
    }
    if (!Number.isNaN(rip)) this.pointer(CPU.fip, rip);
    float.rounding = (this.control >> 10) & 3;
    float.masks = this.control & 0x3f;
    float.flags = 0;
    float.roundedUp = false;
    this.format = X87_FORMATS[(this.control >> 8) & 3]!;
    if (modrm < 0xc0) this.memoryForm(opcode & 7, (modrm >> 3) & 7, operand);
    else this.registerForm(opcode & 7, modrm);
    this.status |= float.flags;
    if ((float.flags & ~this.control & 0x3f) !== 0) {
      memory.u16[words + (CPU.fop >>> 1)] = ((opcode & 7) << 8) | modrm;
      if (modrm < 0xc0 && !Number.isNaN(data)) this.pointer(CPU.fdp, data);
    }
    memory.u16[words + (CPU.fsw >>> 1)] = summarised(this.status, this.control);
    memory.u8[cpu + CPU.ftw] = this.tags;
    return 0;
  }

  private pointer(offset: number, value: number): void {
    this.memory.u32[(this.cpu + offset) >>> 2] = value >>> 0;
    this.memory.u32[(this.cpu + offset + 4) >>> 2] = high32(value);
  }

  private controlInstruction(opcode: number, modrm: number, operand: number): void {
    const { memory, cpu } = this;
    const reg = (modrm >> 3) & 7;
    if (modrm < 0xc0) {
      if (opcode === 0xdd) {
        if (reg === 4) restore(memory, cpu, operand);
        else if (reg === 6) save(memory, cpu, operand);
        else memory.write16(operand, this.status);
      } else if (reg === 4) loadEnvironment(memory, cpu, operand);
      else if (reg === 5) {
        const control = controlWord(memory.read16(operand));
        memory.u16[(cpu + CPU.fcw) >>> 1] = control;
        memory.u16[(cpu + CPU.fsw) >>> 1] = summarised(this.status, control);
      } else if (reg === 6) storeEnvironment(memory, cpu, operand);
      else memory.write16(operand, this.control);
      return;
    }
    if (opcode === 0xdf) memory.u16[(cpu + CPU.regs) >>> 1] = this.status;
    else if (modrm === 0xe2) memory.u16[(cpu + CPU.fsw) >>> 1] = this.status & 0x7f00;
    else if (modrm === 0xe3) initialise(memory, cpu);
    // FENI, FDISI and FSETPM of the 8087 and 287 do nothing.
  }

  // The register stack.

  /** The physical register that is ST(i). */
  private physical(i: number): number {
    return ((this.status >> 11) + i) & 7;
  }

  private empty(i: number): boolean {
    return ((this.tags >> this.physical(i)) & 1) === 0;
  }

  private addressOf(i: number): number {
    return this.cpu + CPU.st + 16 * this.physical(i);
  }

  private significand(i: number): bigint {
    return this.memory.u64[this.addressOf(i) / 8]!;
  }

  /** Sign and exponent. */
  private head(i: number): number {
    return this.memory.u16[(this.addressOf(i) + 8) >>> 1]!;
  }

  private load(i: number, into: Real): Real {
    return into.fromExtended(this.significand(i), this.head(i));
  }

  private put(i: number, significand: bigint, head: number): void {
    const at = this.addressOf(i);
    this.memory.u64[at / 8] = significand;
    this.memory.u16[(at + 8) >>> 1] = head;
    this.tags |= 1 << this.physical(i);
  }

  private putReal(i: number, real: Real): void {
    this.put(i, real.toExtended(), real.toExtendedHead());
  }

  private putIndefinite(i: number): void {
    this.put(i, INDEFINITE, INDEFINITE_HEAD);
  }

  private moveTop(by: number): void {
    this.status = (this.status & ~0x3800) | ((this.status + (by << 11)) & 0x3800);
  }

  private pop(): void {
    this.tags &= ~(1 << this.physical(0));
    this.moveTop(1);
  }

  /** Whether stack faults get their masked response. */
  private get invalidMasked(): boolean {
    return (this.control & IE) !== 0;
  }

  /** #IS. @returns whether it is masked */
  private stackFault(overflow: boolean): boolean {
    this.float.flags |= IE;
    this.status |= SF;
    this.c1(overflow);
    return this.invalidMasked;
  }

  private c1(set: boolean): void {
    this.status = set ? this.status | C1 : this.status & ~C1;
  }

  private conditions(value: number): void {
    this.status = (this.status & ~CONDITIONS) | value;
  }

  /** Makes room for a push; false: overflow was found and dealt with. */
  private pushable(): boolean {
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

  private push(significand: bigint, head: number): void {
    this.moveTop(-1);
    this.put(0, significand, head);
  }

  private pushReal(real: Real): void {
    this.moveTop(-1);
    this.putReal(0, real);
  }

  /** Underflow if ST(0) is empty: the masked response is the indefinite NaN there. */
  private top(): boolean {
    if (!this.empty(0)) return true;
    if (this.stackFault(false)) this.putIndefinite(0);
    return false;
  }

  // Instructions with a memory operand.

  private memoryForm(opcode: number, reg: number, operand: number): void {
    const { memory } = this;
    if ((opcode & 1) === 0) {
      this.memoryArithmetic(opcode, reg, operand);
      return;
    }
    switch (opcode) {
      case 1:
        if (reg === 0) this.loadShort(operand, false);
        else this.storeShort(operand, false, reg === 3);
        return;
      case 5:
        if (reg === 0) this.loadShort(operand, true);
        else if (reg === 1) this.storeInteger(operand, 64, TOWARD_ZERO, true);
        else this.storeShort(operand, true, reg === 3);
        return;
      case 3:
        if (reg === 0) this.loadInteger(BigInt(memory.read32(operand) | 0));
        else if (reg === 1) this.storeInteger(operand, 32, TOWARD_ZERO, true);
        else if (reg <= 3) this.storeInteger(operand, 32, this.float.rounding, reg === 3);
        else if (reg === 5) {
          if (this.pushable()) this.push(memory.read64(operand), memory.read16(operand + 8));
        } else this.storeExtended(operand);
        return;
      default:
        if (reg === 0) this.loadInteger(BigInt((memory.read16(operand) << 16) >> 16));
        else if (reg === 1) this.storeInteger(operand, 16, TOWARD_ZERO, true);
        else if (reg <= 3) this.storeInteger(operand, 16, this.float.rounding, reg === 3);
        else if (reg === 4) this.loadDecimal(operand);
        else if (reg === 5) this.loadInteger(BigInt.asIntN(64, memory.read64(operand)));
        else if (reg === 6) this.storeDecimal(operand);
        else this.storeInteger(operand, 64, this.float.rounding, true);
    }
  }

  private short(operand: number, double: boolean, into: Real): Real {
    const low = this.memory.read32(operand);
    return double
      ? into.fromDouble(this.memory.read32(operand + 4), low, false)
      : into.fromSingle(low, false);
  }

  private memoryArithmetic(opcode: number, reg: number, operand: number): void {
    const { memory, b } = this;
    this.c1(false);
    const compare = reg === 2 || reg === 3;
    if (this.empty(0)) {
      if (this.stackFault(false)) {
        if (!compare) this.putIndefinite(0);
      }
      if (compare) this.compared(UNORDERED, reg === 3 ? 1 : 0);
      return;
    }
    if (opcode === 0) this.short(operand, false, b);
    else if (opcode === 4) this.short(operand, true, b);
    else if (opcode === 2) b.fromInteger(BigInt(memory.read32(operand) | 0));
    else b.fromInteger(BigInt((memory.read16(operand) << 16) >> 16));
    if (compare) {
      this.load(0, this.a);
      this.compared(this.float.compare(this.a, b, true), reg === 3 ? 1 : 0);
    } else this.arithmetic(reg, 0, b, false);
  }

  /** A load of 32 or 64 bits: a signalling NaN is invalid, a denormal is reported but loaded even so. */
  private loadShort(operand: number, double: boolean): void {
    const { float, a, r } = this;
    if (!this.pushable()) return;
    this.short(operand, double, a);
    if (a.kind >= QNAN) {
      if (float.nanOf(a, r)) this.pushReal(r);
      return;
    }
    if (a.denormal) float.flags |= DE;
    this.pushReal(a);
  }

  private loadInteger(value: bigint): void {
    if (this.pushable()) this.pushReal(this.a.fromInteger(value));
  }

  /** Packed decimal: 18 digits and a sign. Digits beyond nine are not defined; they count as their value. */
  private loadDecimal(operand: number): void {
    const { memory, a } = this;
    if (!this.pushable()) return;
    let value = 0n;
    for (let i = 8; i >= 0; i--) {
      const byte = memory.u8[operand + i]!;
      value = value * 100n + BigInt((byte >> 4) * 10 + (byte & 15));
    }
    a.fromInteger(value);
    a.sign = memory.u8[operand + 9]! >> 7;
    this.pushReal(a);
  }

  private storeShort(operand: number, double: boolean, pop: boolean): void {
    const { float, memory, a, r } = this;
    this.c1(false);
    if (this.empty(0)) {
      if (!this.stackFault(false)) return;
      r.set(QNAN, 1, 0, INDEFINITE);
    } else {
      this.load(0, a);
      if (a.kind >= QNAN) {
        if (!float.nanOf(a, r)) return;
      } else {
        a.denormal = false;
        float.convert(a, r, double ? DOUBLE : SINGLE);
        const forbidden = float.flags & ~float.masks & (OE | UE);
        if (forbidden !== 0) {
          float.flags &= ~PE;
          return;
        }
        this.c1(float.roundedUp);
      }
    }
    if (double) memory.write64(operand, r.toDouble());
    else memory.write32(operand, r.toSingle());
    if (pop) this.pop();
  }

  private storeExtended(operand: number): void {
    this.c1(false);
    if (this.empty(0)) {
      if (!this.stackFault(false)) return;
      this.memory.write64(operand, INDEFINITE);
      this.memory.write16(operand + 8, INDEFINITE_HEAD);
    } else {
      this.memory.write64(operand, this.significand(0));
      this.memory.write16(operand + 8, this.head(0));
    }
    this.pop();
  }

  private storeInteger(operand: number, size: number, rounding: number, pop: boolean): void {
    const { float, memory, a } = this;
    this.c1(false);
    let value: bigint;
    if (this.empty(0)) {
      this.stackFault(false);
      value = -(1n << BigInt(size - 1));
    } else {
      value = float.toInteger(this.load(0, a), size, rounding);
      this.c1(float.roundedUp);
    }
    if ((float.flags & ~float.masks & IE) !== 0) return;
    if (size === 64) memory.write64(operand, BigInt.asUintN(64, value));
    else if (size === 32) memory.write32(operand, Number(value & 0xffffffffn));
    else memory.write16(operand, Number(value & 0xffffn));
    if (pop) this.pop();
  }

  private storeDecimal(operand: number): void {
    const { float, memory, a } = this;
    this.c1(false);
    let value = DECIMAL_LIMIT;
    if (this.empty(0)) this.stackFault(false);
    else {
      this.load(0, a);
      if (a.kind === ZERO) value = 0n;
      else if (a.kind === FINITE && a.exponent < 63) {
        const before = float.flags;
        value = float.toInteger(a, 64, float.rounding);
        if (value < 0n) value = -value;
        if (value >= DECIMAL_LIMIT) float.flags = before;
        else this.c1(float.roundedUp);
      }
      if (value >= DECIMAL_LIMIT) float.flags |= IE;
    }
    if ((float.flags & ~float.masks & IE) !== 0) return;
    if (value >= DECIMAL_LIMIT) {
      memory.write64(operand, 0xc000000000000000n);
      memory.write16(operand + 8, 0xffff);
    } else {
      for (let i = 0; i < 9; i++) {
        const pair = Number(value % 100n);
        memory.u8[operand + i] = (Math.floor(pair / 10) << 4) | (pair % 10);
        value /= 100n;
      }
      memory.u8[operand + 9] = a.sign << 7;
    }
    this.pop();
  }

  // Arithmetic and comparison.

  /**
   * reg is that of the D8 encodings: add, mul, -, -, sub, subr, div, divr; the operation is always "ST(0) op other"
   * or its reverse.
   */
  private compute(reg: number, st0: Real, other: Real): boolean {
    const { float, r, format } = this;
    switch (reg) {
      case 0:
        return float.add(st0, other, 0, r, format);
      case 1:
        return float.multiply(st0, other, r, format);
      case 4:
        return float.add(st0, other, 1, r, format);
      case 5:
        return float.add(other, st0, 1, r, format);
      case 6:
        return float.divide(st0, other, r, format);
      default:
        return float.divide(other, st0, r, format);
    }
  }

  /** ST(0) and another operand, both there, into ST(destination). */
  private arithmetic(reg: number, destination: number, other: Real, pop: boolean): void {
    this.load(0, this.a);
    if (!this.compute(reg, this.a, other)) return;
    this.c1(this.float.roundedUp);
    this.putReal(destination, this.r);
    if (pop) this.pop();
  }

  private registerArithmetic(reg: number, i: number, destination: number, pop: boolean): void {
    this.c1(false);
    if (this.empty(0) || this.empty(i)) {
      if (!this.stackFault(false)) return;
      this.putIndefinite(destination);
      if (pop) this.pop();
      return;
    }
    this.arithmetic(reg, destination, this.load(i, this.b), pop);
  }

  /** Condition codes, and the pops unless an exception stands against them. */
  private compared(relation: number, pops: number): void {
    this.conditions(COMPARED[relation + 1]!);
    if ((this.float.flags & ~this.float.masks & (IE | DE)) !== 0) return;
    for (let i = 0; i < pops; i++) this.pop();
  }

  private compare(i: number, signaling: boolean, pops: number): void {
    this.c1(false);
    this.compared(this.relation(i, signaling), pops);
  }

  private relation(i: number, signaling: boolean): number {
    if (this.empty(0) || this.empty(i)) {
      this.stackFault(false);
      return UNORDERED;
    }
    return this.float.compare(this.load(0, this.a), this.load(i, this.b), signaling);
  }

  /** FCOMI and its kind: the result goes to the flags. */
  private compareFlags(i: number, signaling: boolean, pop: boolean): void {
    const relation = this.relation(i, signaling);
    const words = this.cpu >>> 2;
    const { u32 } = this.memory;
    const equal = relation === EQUAL || relation === UNORDERED;
    u32[words + (CPU.zres >>> 2)] = equal ? 0 : 1;
    u32[words + (CPU.zres >>> 2) + 1] = 0;
    // SF is clear; the parity of a zero byte is even.
    u32[words + (CPU.spres >>> 2)] = relation === UNORDERED ? 0 : 1;
    u32[words + (CPU.spres >>> 2) + 1] = 0;
    u32[words + (CPU.of >>> 2)] = 0;
    u32[words + (CPU.of >>> 2) + 1] = 0;
    u32[words + (CPU.cf >>> 2)] = relation === LESS || relation === UNORDERED ? 1 : 0;
    u32[words + (CPU.af >>> 2)] = 0;
    if (pop && (this.float.flags & ~this.float.masks & (IE | DE)) === 0) this.pop();
  }

  // Instructions on registers.

  private registerForm(opcode: number, modrm: number): void {
    const i = modrm & 7;
    const reg = (modrm >> 3) & 7;
    switch (opcode) {
      case 0:
        if (reg === 2 || reg === 3) this.compare(i, true, reg - 2);
        else this.registerArithmetic(reg, i, 0, false);
        return;
      case 1:
        if (reg === 0) this.loadRegister(i);
        else if (reg === 1) this.exchange(i);
        else if (reg === 3) this.storeRegister(i, true, false);
        else if (modrm >= 0xe0) this.special(modrm);
        return;
      case 2:
        if (modrm === 0xe9) this.compare(1, false, 2);
        else this.conditionalMove(reg, i);
        return;
      case 3:
        if (reg === 5) this.compareFlags(i, false, false);
        else if (reg === 6) this.compareFlags(i, true, false);
        else this.conditionalMove(reg | 4, i);
        return;
      case 4:
        if (reg === 2 || reg === 3) this.compare(i, true, reg - 2);
        else this.registerArithmetic(reg, i, i, false);
        return;
      case 5:
        if (reg === 0) this.free(i);
        else if (reg === 1) this.exchange(i);
        else if (reg === 2 || reg === 3) this.storeRegister(i, reg === 3, true);
        else this.compare(i, false, reg - 4);
        return;
      case 6:
        if (reg === 2) this.compare(i, true, 1);
        else if (reg === 3) this.compare(1, true, 2);
        else this.registerArithmetic(reg, i, i, true);
        return;
      default:
        if (reg === 0) {
          this.free(i);
          this.pop();
        } else if (reg === 1) this.exchange(i);
        else if (reg === 2 || reg === 3) this.storeRegister(i, true, true);
        else this.compareFlags(i, reg === 6, true);
    }
  }

  private free(i: number): void {
    this.c1(false);
    this.tags &= ~(1 << this.physical(i));
  }

  private loadRegister(i: number): void {
    if (this.empty(i)) {
      if (this.stackFault(false)) {
        this.moveTop(-1);
        this.putIndefinite(0);
      }
      return;
    }
    const significand = this.significand(i);
    const head = this.head(i);
    if (this.pushable()) this.push(significand, head);
  }

  private exchange(i: number): void {
    this.c1(false);
    if (this.empty(0) || this.empty(i)) {
      if (!this.stackFault(false)) return;
      if (this.empty(0)) this.putIndefinite(0);
      if (this.empty(i)) this.putIndefinite(i);
    }
    const significand = this.significand(0);
    const head = this.head(0);
    this.put(0, this.significand(i), this.head(i));
    this.put(i, significand, head);
  }

  /** @param strict an empty ST(0) is an underflow (FSTPNCE, D9 D8+i, then only pops) */
  private storeRegister(i: number, pop: boolean, strict: boolean): void {
    this.c1(false);
    if (this.empty(0)) {
      if (strict) {
        if (!this.stackFault(false)) return;
        this.putIndefinite(i);
      }
    } else this.put(i, this.significand(0), this.head(0));
    if (pop) this.pop();
  }

  private conditionalMove(condition: number, i: number): void {
    if (this.empty(0) || this.empty(i)) {
      if (this.stackFault(false)) this.putIndefinite(0);
      return;
    }
    const words = this.cpu >>> 2;
    const { u32 } = this.memory;
    const carry = u32[words + (CPU.cf >>> 2)] !== 0;
    const zero = u32[words + (CPU.zres >>> 2)] === 0 && u32[words + (CPU.zres >>> 2) + 1] === 0;
    let holds: boolean;
    switch (condition & 3) {
      case 0:
        holds = carry;
        break;
      case 1:
        holds = zero;
        break;
      case 2:
        holds = carry || zero;
        break;
      default: {
        let parity = u32[words + (CPU.spres >>> 2)]! & 0xff;
        parity ^= parity >> 4;
        holds = ((0x9669 >> (parity & 15)) & 1) !== 0;
      }
    }
    if (holds !== ((condition & 4) !== 0)) this.put(0, this.significand(i), this.head(i));
  }

  /** D9 E0..FF. */
  private special(modrm: number): void {
    switch (modrm) {
      case 0xe0:
      case 0xe1:
        this.c1(false);
        if (this.top()) {
          const head = this.head(0);
          this.put(0, this.significand(0), modrm === 0xe0 ? head ^ 0x8000 : head & 0x7fff);
        }
        return;
      case 0xe4:
        this.test();
        return;
      case 0xe5:
        this.examine();
        return;
      case 0xe8:
      case 0xe9:
      case 0xea:
      case 0xeb:
      case 0xec:
      case 0xed:
      case 0xee:
        this.loadConstant(modrm);
        return;
      case 0xf0:
        this.unary((a, r) => this.exponentialMinusOne(a, r));
        return;
      case 0xf1:
        this.binary(true, (a, b, r) => this.logarithm(a, b, r));
        return;
      case 0xf2:
        this.partialTangent();
        return;
      case 0xf3:
        this.binary(true, (a, b, r) => this.arcTangent(a, b, r));
        return;
      case 0xf4:
        this.extract();
        return;
      case 0xf5:
      case 0xf8:
        this.remainder(modrm === 0xf5);
        return;
      case 0xf6:
      case 0xf7:
        this.c1(false);
        this.moveTop(modrm === 0xf6 ? -1 : 1);
        return;
      case 0xf9:
        this.binary(true, (a, b, r) => this.logarithmOfOnePlus(a, b, r));
        return;
      case 0xfa:
        this.unary((a, r) => this.float.sqrt(a, r, this.format));
        return;
      case 0xfb:
        this.sineAndCosine();
        return;
      case 0xfc:
        this.unary((a, r) => this.roundToInteger(a, r));
        return;
      case 0xfd:
        this.binary(false, (a, b, r) => this.scale(a, b, r));
        return;
      default:
        this.sineOrCosine(modrm === 0xff);
    }
  }

  private test(): void {
    this.c1(false);
    if (this.empty(0)) {
      this.stackFault(false);
      this.conditions(CONDITIONS);
      return;
    }
    this.b.set(ZERO, 0, 0, 0n);
    this.conditions(COMPARED[this.float.compare(this.load(0, this.a), this.b, true) + 1]!);
  }

  private examine(): void {
    this.load(0, this.a);
    this.c1(this.a.sign !== 0);
    let code: number;
    if (this.empty(0)) code = C3 | C0;
    else if (this.a.kind === UNSUPPORTED) code = 0;
    else if (this.a.kind >= QNAN) code = C0;
    else if (this.a.kind === INFINITE) code = C2 | C0;
    else if (this.a.kind === ZERO) code = C3;
    else code = this.a.denormal ? C3 | C2 : C2;
    this.conditions(code);
  }

  private loadConstant(modrm: number): void {
    if (!this.pushable()) return;
    if (modrm === 0xee) {
      this.push(0n, 0);
      return;
    }
    const [significand, head, nearestUp] = CONSTANTS[modrm - 0xe8]!;
    const { rounding } = this.float;
    const up = modrm !== 0xe8 && (rounding === UP || (rounding === NEAREST && nearestUp));
    this.push(up ? significand + 1n : significand, head);
  }

  /** ST(0) = f(ST(0)). */
  private unary(f: (a: Real, result: Real) => boolean): void {
    this.c1(false);
    if (!this.top()) return;
    if (!f(this.load(0, this.a), this.r)) return;
    this.c1(this.float.roundedUp);
    this.putReal(0, this.r);
  }

  /** f(ST(0), ST(1)) to ST(1) and pop, or to ST(0). */
  private binary(pop: boolean, f: (a: Real, b: Real, result: Real) => boolean): void {
    const destination = pop ? 1 : 0;
    this.c1(false);
    if (this.empty(0) || this.empty(1)) {
      if (!this.stackFault(false)) return;
      this.putIndefinite(destination);
    } else {
      if (!f(this.load(0, this.a), this.load(1, this.b), this.r)) return;
      this.c1(this.float.roundedUp);
      this.putReal(destination, this.r);
    }
    if (pop) this.pop();
  }

  private roundToInteger(a: Real, r: Real): boolean {
    if (a.denormal) this.float.flags |= DE;
    if ((this.float.flags & ~this.float.masks & DE) !== 0) return false;
    return this.float.integral(a, r, this.float.rounding);
  }

  private remainder(nearest: boolean): void {
    const { float, a, b, r } = this;
    this.c1(false);
    this.status &= ~C2;
    if (this.empty(0) || this.empty(1)) {
      if (this.stackFault(false)) this.putIndefinite(0);
      return;
    }
    if (!float.remainder(this.load(0, a), this.load(1, b), nearest, r, EXTENDED)) return;
    this.putReal(0, r);
    if (r.kind >= QNAN) return;
    const { quotient } = float;
    this.c1((quotient & 1) !== 0);
    this.conditions((quotient & 4 ? C0 : 0) | (quotient & 2 ? C3 : 0) | (float.incomplete ? C2 : 0));
  }

  /** Reports denormal operands; false: that is not masked. */
  private denormal(a: Real, b: Real): boolean {
    if (a.denormal || b.denormal) this.float.flags |= DE;
    return (this.float.flags & ~this.float.masks & DE) === 0;
  }

  /** FSCALE: ST(0) * 2^trunc(ST(1)). */
  private scale(a: Real, b: Real, r: Real): boolean {
    const { float } = this;
    if (a.kind >= QNAN || b.kind >= QNAN) return float.nan(a, b, r);
    if (b.kind === INFINITE) {
      if (b.sign === 0 ? a.kind === ZERO : a.kind === INFINITE) return float.invalid(r);
      if (!this.denormal(a, b)) return false;
      if (b.sign === 0) r.set(INFINITE, a.sign, 0, INTEGER_BIT);
      else r.set(ZERO, a.sign, 0, 0n);
      return true;
    }
    if (!this.denormal(a, b)) return false;
    if (a.kind !== FINITE || b.kind === ZERO) {
      r.copy(a);
      return true;
    }
    let by = 0;
    if (b.kind === FINITE && b.exponent >= 0) {
      by = b.exponent > 16 ? 0x1ffff : Number(b.significand >> BigInt(63 - b.exponent));
      if (b.sign !== 0) by = -by;
    }
    float.scale(a, by, r, EXTENDED);
    return true;
  }

  /** FXTRACT: the exponent to ST(0), then the significand pushed. */
  private extract(): void {
    const { float, a, r, r2 } = this;
    this.c1(false);
    if (this.empty(0) || !this.empty(7)) {
      const overflow = !this.empty(0);
      if (this.stackFault(overflow)) {
        this.putIndefinite(0);
        this.moveTop(-1);
        this.putIndefinite(0);
      }
      return;
    }
    this.load(0, a);
    if (a.kind >= QNAN) {
      if (!float.nanOf(a, r)) return;
      r2.copy(r);
    } else if (a.kind === INFINITE) {
      r.set(INFINITE, 0, 0, INTEGER_BIT);
      r2.copy(a);
    } else if (a.kind === ZERO) {
      float.flags |= ZE;
      if ((float.masks & ZE) === 0) return;
      r.set(INFINITE, 1, 0, INTEGER_BIT);
      r2.copy(a);
    } else {
      if (!this.denormal(a, a)) return;
      r.fromInteger(BigInt(a.exponent));
      r2.set(FINITE, a.sign, 0, a.significand);
    }
    this.putReal(0, r);
    this.pushReal(r2);
  }

  // Transcendental instructions: their special cases (SDM volume 2, the tables of each instruction).

  /** FSIN, FCOS, FPTAN, FSINCOS share: whether the operand is one to compute with; else `r` has the result. */
  private angle(a: Real, r: Real): 'compute' | 'done' | 'stop' {
    const { float } = this;
    if (a.kind >= QNAN) return float.nanOf(a, r) ? 'done' : 'stop';
    if (a.kind === INFINITE) return float.invalid(r) ? 'done' : 'stop';
    if (a.kind === FINITE && a.exponent >= 63) {
      this.status |= C2;
      return 'stop';
    }
    return this.denormal(a, a) ? 'compute' : 'stop';
  }

  private sine(a: Real, r: Real): void {
    if (a.kind === ZERO) r.copy(a);
    else this.transcendental.sin(a, r);
  }

  private cosine(a: Real, r: Real): void {
    if (a.kind === ZERO) r.set(FINITE, 0, 0, INTEGER_BIT);
    else this.transcendental.cos(a, r);
  }

  private sineOrCosine(cosine: boolean): void {
    const { a, r } = this;
    this.c1(false);
    this.status &= ~C2;
    if (!this.top()) return;
    const how = this.angle(this.load(0, a), r);
    if (how === 'stop') return;
    if (how === 'compute') {
      if (cosine) this.cosine(a, r);
      else this.sine(a, r);
    }
    this.c1(this.float.roundedUp);
    this.putReal(0, r);
  }

  /** The two instructions that push a second result need room for it. */
  private roomForSecond(): boolean {
    this.c1(false);
    this.status &= ~C2;
    if (!this.empty(0) && this.empty(7)) return true;
    const overflow = !this.empty(0);
    if (this.stackFault(overflow)) {
      this.putIndefinite(0);
      this.moveTop(-1);
      this.putIndefinite(0);
    }
    return false;
  }

  private sineAndCosine(): void {
    const { a, r, r2 } = this;
    if (!this.roomForSecond()) return;
    const how = this.angle(this.load(0, a), r);
    if (how === 'stop') return;
    if (how === 'compute') {
      this.sine(a, r);
      this.cosine(a, r2);
    } else r2.copy(r);
    this.c1(this.float.roundedUp);
    this.putReal(0, r);
    this.pushReal(r2);
  }

  private partialTangent(): void {
    const { a, r } = this;
    if (!this.roomForSecond()) return;
    const how = this.angle(this.load(0, a), r);
    if (how === 'stop') return;
    if (how === 'compute') {
      if (a.kind === ZERO) r.copy(a);
      else this.transcendental.tan(a, r);
      this.c1(this.float.roundedUp);
      this.putReal(0, r);
      this.push(INTEGER_BIT, 0x3fff);
    } else {
      this.putReal(0, r);
      this.pushReal(r);
    }
  }

  private exponentialMinusOne(a: Real, r: Real): boolean {
    const { float } = this;
    if (a.kind >= QNAN) return float.nanOf(a, r);
    if (a.kind === INFINITE) {
      if (a.sign === 0) r.copy(a);
      else r.set(FINITE, 1, 0, INTEGER_BIT);
      return true;
    }
    if (!this.denormal(a, a)) return false;
    if (a.kind === ZERO) {
      r.copy(a);
      return true;
    }
    if (a.exponent >= 0) {
      // Not defined beyond one: the operand stays as it is.
      if (a.exponent > 0 || a.significand !== INTEGER_BIT) r.copy(a);
      else if (a.sign === 0) r.set(FINITE, 0, 0, INTEGER_BIT);
      else r.set(FINITE, 1, -1, INTEGER_BIT);
      return true;
    }
    this.transcendental.exponentialMinusOne(a, r);
    return true;
  }

  /** FYL2X: y * log2(x), x in ST(0), y in ST(1). */
  private logarithm(x: Real, y: Real, r: Real): boolean {
    const { float } = this;
    if (x.kind >= QNAN || y.kind >= QNAN) return float.nan(x, y, r);
    if (x.kind !== ZERO && x.sign !== 0) return float.invalid(r);
    if (x.kind === ZERO) {
      if (y.kind === ZERO) return float.invalid(r);
      if (y.kind === FINITE) {
        float.flags |= ZE;
        if ((float.masks & ZE) === 0) return false;
      }
      r.set(INFINITE, y.sign ^ 1, 0, INTEGER_BIT);
      return true;
    }
    const one = x.kind === FINITE && x.exponent === 0 && x.significand === INTEGER_BIT;
    const sign = y.sign ^ (x.kind === FINITE && x.exponent < 0 ? 1 : 0);
    if (y.kind === INFINITE) {
      if (one) return float.invalid(r);
      if (!this.denormal(x, y)) return false;
      r.set(INFINITE, sign, 0, INTEGER_BIT);
      return true;
    }
    if (x.kind === INFINITE) {
      if (y.kind === ZERO) return float.invalid(r);
      if (!this.denormal(x, y)) return false;
      r.set(INFINITE, sign, 0, INTEGER_BIT);
      return true;
    }
    if (!this.denormal(x, y)) return false;
    if (y.kind === ZERO || one) {
      r.set(ZERO, sign, 0, 0n);
      return true;
    }
    if (x.significand === INTEGER_BIT) {
      // A power of two has an integral logarithm: the product may be exact, but the processor does not notice.
      this.r2.fromInteger(BigInt(x.exponent));
      float.multiply(this.r2, y, r, EXTENDED);
      const tiny = r.kind === ZERO || (r.kind === FINITE && r.exponent < -16382);
      float.flags |= tiny ? PE | UE : PE;
      return true;
    }
    this.transcendental.logarithm(x, y, r);
    return true;
  }

  /** FYL2XP1: y * log2(1 + x). */
  private logarithmOfOnePlus(x: Real, y: Real, r: Real): boolean {
    const { float } = this;
    if (x.kind >= QNAN || y.kind >= QNAN) return float.nan(x, y, r);
    const sign = x.sign ^ y.sign;
    if (x.kind === INFINITE) {
      if (x.sign !== 0 || y.kind === ZERO) return float.invalid(r);
      if (!this.denormal(x, y)) return false;
      r.set(INFINITE, sign, 0, INTEGER_BIT);
      return true;
    }
    if (y.kind === INFINITE) {
      if (x.kind === ZERO) return float.invalid(r);
      if (!this.denormal(x, y)) return false;
      r.set(INFINITE, sign, 0, INTEGER_BIT);
      return true;
    }
    if (!this.denormal(x, y)) return false;
    if (x.kind === ZERO || y.kind === ZERO) {
      r.set(ZERO, sign, 0, 0n);
      return true;
    }
    if (x.sign !== 0 && x.exponent >= 0) {
      r.copy(x);
      return true;
    }
    this.transcendental.logarithmOfOnePlus(x, y, r);
    return true;
  }

  /** FPATAN: the angle of (ST(0), ST(1)). */
  private arcTangent(x: Real, y: Real, r: Real): boolean {
    const { float } = this;
    if (x.kind >= QNAN || y.kind >= QNAN) return float.nan(x, y, r);
    if (!this.denormal(x, y)) return false;
    if (y.kind === INFINITE) {
      const quarters = x.kind === INFINITE ? (x.sign === 0 ? 1 : 3) : 2;
      this.transcendental.quarters(quarters, y.sign, r);
    } else if (y.kind === ZERO || x.kind === INFINITE) {
      if (x.sign === 0) r.set(ZERO, y.sign, 0, 0n);
      else this.transcendental.quarters(4, y.sign, r);
    } else if (x.kind === ZERO) this.transcendental.quarters(2, y.sign, r);
    else this.transcendental.arcTangent(y, x, r);
    return true;
  }
}
