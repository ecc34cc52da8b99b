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
  EQUAL,
  EXTENDED,
  FINITE,
  INFINITE,
  LESS,
  QNAN,
  type Real,
  UNORDERED,
  UNSUPPORTED,
  X87_FORMATS,
  ZERO,
} from './real.ts';
import { DE, IE, TOWARD_ZERO, ZE } from './softfloat.ts';
import { isControl, isNonWaiting, x87Defined } from './x87-decode.ts';
import { X87Functions } from './x87-functions.ts';
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
import { C0, C2, C3, COMPARED, CONDITIONS, INTEGER_BIT } from './x87-stack.ts';
import { Transfers } from './x87-transfer.ts';

export { isControl, x87Defined, x87Operand } from './x87-decode.ts';

const ES = 0x80;

export class X87 extends Transfers {
  private readonly functions: X87Functions;

  constructor(memory: Memory) {
    super(memory);
    this.functions = new X87Functions(this.float);
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
        this.unary((a, r) => this.functions.exponentialMinusOne(a, r));
        return;
      case 0xf1:
        this.binary(true, (a, b, r) => this.functions.logarithm(a, b, r));
        return;
      case 0xf2:
        this.partialTangent();
        return;
      case 0xf3:
        this.binary(true, (a, b, r) => this.functions.arcTangent(a, b, r));
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
        this.binary(true, (a, b, r) => this.functions.logarithmOfOnePlus(a, b, r));
        return;
      case 0xfa:
        this.unary((a, r) => this.float.sqrt(a, r, this.format));
        return;
      case 0xfb:
        this.sineAndCosine();
        return;
      case 0xfc:
        this.unary((a, r) => this.functions.roundToInteger(a, r));
        return;
      case 0xfd:
        this.binary(false, (a, b, r) => this.functions.scale(a, b, r));
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
      if (!this.functions.denormal(a, a)) return;
      r.fromInteger(BigInt(a.exponent));
      r2.set(FINITE, a.sign, 0, a.significand);
    }
    this.putReal(0, r);
    this.pushReal(r2);
  }

  // Transcendental instructions: their special cases (SDM volume 2, the tables of each instruction).

  /** What {@link X87Functions.angle} says of ST(0). C2 tells that it is too far out: nothing is done then. */
  private angle(): 'compute' | 'done' | 'stop' {
    const how = this.functions.angle(this.load(0, this.a), this.r);
    if (how !== 'far') return how;
    this.status |= C2;
    return 'stop';
  }

  private sineOrCosine(cosine: boolean): void {
    const { a, r } = this;
    this.c1(false);
    this.status &= ~C2;
    if (!this.top()) return;
    const how = this.angle();
    if (how === 'stop') return;
    if (how === 'compute') {
      if (cosine) this.functions.cosine(a, r);
      else this.functions.sine(a, r);
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
    const how = this.angle();
    if (how === 'stop') return;
    if (how === 'compute') {
      this.functions.sine(a, r);
      this.functions.cosine(a, r2);
    } else r2.copy(r);
    this.c1(this.float.roundedUp);
    this.putReal(0, r);
    this.pushReal(r2);
  }

  private partialTangent(): void {
    const { a, r } = this;
    if (!this.roomForSecond()) return;
    const how = this.angle();
    if (how === 'stop') return;
    if (how === 'compute') {
      this.functions.tangent(a, r);
      this.c1(this.float.roundedUp);
      this.putReal(0, r);
      this.push(INTEGER_BIT, 0x3fff);
    } else {
      this.putReal(0, r);
      this.pushReal(r);
    }
  }
}
