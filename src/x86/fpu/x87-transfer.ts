/**
 * Loads and stores of the x87: between memory and the top of the stack, and between registers (SDM volume 1, 8.3.3).
 */
import { DOUBLE, FINITE, INDEFINITE, QNAN, type Real, SINGLE, ZERO } from './real.ts';
import { DE, IE, NEAREST, OE, PE, UE, UP } from './softfloat.ts';
import { INDEFINITE_HEAD, RegisterStack } from './x87-stack.ts';

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

export class Transfers extends RegisterStack {
  protected short(operand: number, double: boolean, into: Real): Real {
    const low = this.memory.read32(operand);
    return double
      ? into.fromDouble(this.memory.read32(operand + 4), low, false)
      : into.fromSingle(low, false);
  }

  /** A load of 32 or 64 bits: a signalling NaN is invalid, a denormal is reported but loaded even so. */
  protected loadShort(operand: number, double: boolean): void {
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

  protected loadInteger(value: bigint): void {
    if (this.pushable()) this.pushReal(this.a.fromInteger(value));
  }

  /** Packed decimal: 18 digits and a sign. Digits beyond nine are not defined; they count as their value. */
  protected loadDecimal(operand: number): void {
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

  protected storeShort(operand: number, double: boolean, pop: boolean): void {
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

  protected storeExtended(operand: number): void {
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

  protected storeInteger(operand: number, size: number, rounding: number, pop: boolean): void {
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

  protected storeDecimal(operand: number): void {
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

  protected loadRegister(i: number): void {
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

  protected exchange(i: number): void {
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
  protected storeRegister(i: number, pop: boolean, strict: boolean): void {
    this.c1(false);
    if (this.empty(0)) {
      if (strict) {
        if (!this.stackFault(false)) return;
        this.putIndefinite(i);
      }
    } else this.put(i, this.significand(0), this.head(0));
    if (pop) this.pop();
  }

  protected loadConstant(modrm: number): void {
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
}
