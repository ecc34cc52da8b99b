/** Integer arithmetic and logic. */
import { type I32, type I64, i32, i64, select } from '../../wasm/index.ts';
import { RAX, RDX, VECTOR } from '../state.ts';
import type { Definition } from './definition.ts';
import { hexByte } from './encoding.ts';
import type { Semantics } from './semantics.ts';

/** Computes a - b - borrow into flags; returns the result. */
export function subtract(c: Semantics, a: I64, b: I64, bits: number, borrow?: I32): I64 {
  const { f } = c;
  const difference = i64.sub(a, b);
  const r = f.let(
    c.sext(borrow === undefined ? difference : i64.sub(difference, i64.extend_u(borrow)), bits),
  );
  c.cf(borrow === undefined ? i64.lt_u(a, b) : i32.or(i64.lt_u(a, b), i32.and(i64.eq(a, b), borrow)));
  c.of(i64.and(i64.xor(a, b), i64.xor(a, r)));
  c.af(i64.xor(i64.xor(a, b), r));
  c.zsp(r);
  if (borrow === undefined) c.operation('sub', a, b, bits);
  return r;
}

export function addition(c: Semantics, a: I64, b: I64, bits: number, carry?: I32): I64 {
  const { f } = c;
  const sum = i64.add(a, b);
  const r = f.let(c.sext(carry === undefined ? sum : i64.add(sum, i64.extend_u(carry)), bits));
  c.cf(carry === undefined ? i64.lt_u(r, a) : i32.or(i64.lt_u(r, a), i32.and(i64.eq(r, a), carry)));
  c.of(i64.and(i64.xor(a, r), i64.xor(b, r)));
  c.af(i64.xor(i64.xor(a, b), r));
  c.zsp(r);
  if (carry === undefined) c.operation('add', a, b, bits);
  return r;
}

/** Flags of a logical operation. */
export function logicFlags(c: Semantics, r: I64): void {
  c.cf(i32.const(0));
  c.of(i64.const(0));
  c.af(i64.const(0));
  c.zsp(r);
}

type Alu = (c: Semantics, a: I64, b: I64, bits: number) => I64;

const logic =
  (op: (a: I64, b: I64) => I64): Alu =>
  (c, a, b) => {
    const r = c.f.let(op(a, b));
    logicFlags(c, r);
    return r;
  };

/** The carry that comes in, in a local: flags are overwritten while it is still needed. */
const carryIn = (c: Semantics) => c.f.let(c.getCf());

/** The eight operations of opcodes 00-3F and group 1, in the order of their numbers. */
const GROUP_1: [name: string, alu: Alu, writes: boolean][] = [
  ['ADD', addition, true],
  ['OR', logic(i64.or), true],
  ['ADC', (c, a, b, bits) => addition(c, a, b, bits, carryIn(c)), true],
  ['SBB', (c, a, b, bits) => subtract(c, a, b, bits, carryIn(c)), true],
  ['AND', logic(i64.and), true],
  ['SUB', subtract, true],
  ['XOR', logic(i64.xor), true],
  ['CMP', subtract, false],
];

function group1(name: string, number: number, alu: Alu, writes: boolean): Definition[] {
  const exec = (c: Semantics) => {
    const a = c.get(0);
    const b = c.get(1);
    // The flags of a store that faults must not change: the operand was checked for writing by get.
    const r = alu(c, a, b, c.bits(0));
    if (writes) c.set(0, r);
  };
  const use = writes ? '+' : '';
  const base = number * 8;
  const op = (code: number) => hexByte(base + code);
  const undefinedFlags = ['OR', 'AND', 'XOR'].includes(name) ? 'AF' : undefined;
  const common = { name, undefinedFlags, exec };
  return [
    { ...common, code: `${op(0)} /r`, operands: `Eb${use},Gb`, lock: writes },
    { ...common, code: `${op(1)} /r`, operands: `Ev${use},Gv`, lock: writes, hot: true },
    { ...common, code: `${op(2)} /r`, operands: `Gb${use},Eb` },
    { ...common, code: `${op(3)} /r`, operands: `Gv${use},Ev`, hot: true },
    { ...common, code: `${op(4)} ib`, operands: `AL${use},Ib` },
    { ...common, code: `${op(5)} iz`, operands: `Av${use},Iz` },
    { ...common, code: `80 /${number} ib`, operands: `Eb${use},Ib`, lock: writes, hot: !writes },
    { ...common, code: `81 /${number} iz`, operands: `Ev${use},Iz`, lock: writes, hot: true },
    { ...common, code: `83 /${number} ib`, operands: `Ev${use},Ib`, lock: writes, hot: true },
  ];
}

const test = (c: Semantics) => logicFlags(c, c.f.let(i64.and(c.get(0), c.get(1))));

const step = (by: 1 | -1) => (c: Semantics) => {
  const a = c.get(0);
  const r = c.f.let(c.sext(i64.add(a, by), c.bits(0)));
  c.of(by === 1 ? i64.and(i64.xor(a, -1), r) : i64.and(a, i64.xor(r, -1)));
  c.af(i64.xor(i64.xor(a, r), 1));
  c.zsp(r);
  c.set(0, r);
};

const not = (c: Semantics) => c.set(0, i64.xor(c.get(0), -1));

const neg = (c: Semantics) => {
  const a = c.get(0);
  c.set(0, subtract(c, i64.const(0), a, c.bits(0)));
};

/** High 64 bits of an unsigned 64 x 64 product. */
function mulHighUnsigned(c: Semantics, a: I64, b: I64): I64 {
  const { f } = c;
  const low = (x: I64) => i64.and(x, 0xffffffff);
  const high = (x: I64) => i64.shr_u(x, 32);
  const mid = f.let(i64.add(i64.mul(high(a), low(b)), high(i64.mul(low(a), low(b)))));
  const cross = f.let(i64.add(i64.mul(low(a), high(b)), low(mid)));
  return f.let(i64.add(i64.add(i64.mul(high(a), high(b)), high(mid)), high(cross)));
}

function mulHighSigned(c: Semantics, a: I64, b: I64): I64 {
  const u = mulHighUnsigned(c, a, b);
  const correct = (x: I64, y: I64) => i64.and(i64.shr_s(x, 63), y);
  return c.f.let(i64.sub(i64.sub(u, correct(a, b)), correct(b, a)));
}

/** Flags of a multiplication; SF ZF AF PF are undefined: they follow the low half. */
function mulFlags(c: Semantics, overflow: I32, low: I64): void {
  c.cf(overflow);
  c.of(i64.sub(0, i64.extend_u(overflow)));
  c.af(i64.const(0));
  c.zsp(low);
}

/** MUL and IMUL with one operand: accumulator times r/m into the double-width accumulator. */
const multiply = (signed: boolean) => (c: Semantics) => {
  const { f } = c;
  const bits = c.bits(0);
  if (bits === 64) {
    const a = f.let(c.reg(RAX));
    const b = f.let(c.get(0));
    const low = f.let(i64.mul(a, b));
    const high = signed ? mulHighSigned(c, a, b) : mulHighUnsigned(c, a, b);
    c.setReg(RAX, low);
    c.setReg(RDX, high);
    mulFlags(c, f.let(signed ? i64.ne(high, i64.shr_s(low, 63)) : i64.ne(high, 0)), low);
    return;
  }
  const mask = i64.const(2 ** bits - 1);
  const a = signed ? c.regPart(RAX, bits) : i64.and(c.reg(RAX), mask);
  const product = f.let(i64.mul(a, signed ? c.get(0) : c.getU(0)));
  const low = f.let(c.sext(product, bits));
  if (bits === 8) c.setRegPart(RAX, 16, product);
  else {
    c.setRegPart(RAX, bits, low);
    c.setRegPart(RDX, bits, i64.shr_u(product, bits));
  }
  mulFlags(c, f.let(signed ? i64.ne(product, low) : i64.ne(i64.shr_u(product, bits), 0)), low);
};

/** IMUL with two or three operands: truncated signed product. */
const imul = (first: number, second: number) => (c: Semantics) => {
  const { f } = c;
  const bits = c.bits(0);
  const a = f.let(c.get(first));
  const b = f.let(c.get(second));
  const product = f.let(i64.mul(a, b));
  const low = f.let(c.sext(product, bits));
  const overflow = bits === 64 ? i64.ne(mulHighSigned(c, a, b), i64.shr_s(low, 63)) : i64.ne(product, low);
  mulFlags(c, f.let(overflow), low);
  c.set(0, low);
};

/** Unsigned 128 by 64 division, bit by bit; the quotient fits (checked before). Returns [quotient, remainder]. */
function divide128(c: Semantics, high: I64, low: I64, divisor: I64): [I64, I64] {
  const { f } = c;
  const remainder = f.let(high);
  const quotient = f.let(low);
  const count = f.let(i32.const(64));
  const carry = f.local('i64');
  f.if(
    i64.eqz(high),
    () => {
      f.set(remainder, i64.rem_u(low, divisor));
      f.set(quotient, i64.div_u(low, divisor));
    },
    () =>
      f.loop((next) => {
        f.set(carry, i64.shr_s(remainder, 63));
        f.set(remainder, i64.or(i64.shl(remainder, 1), i64.shr_u(quotient, 63)));
        f.set(quotient, i64.shl(quotient, 1));
        f.if(i32.or(i64.ne(carry, 0), i64.ge_u(remainder, divisor)), () => {
          f.set(remainder, i64.sub(remainder, divisor));
          f.set(quotient, i64.or(quotient, 1));
        });
        f.set(count, i32.sub(count, 1));
        f.brIf(count, next);
      }),
  );
  return [quotient, remainder];
}

const divide = (signed: boolean) => (c: Semantics) => {
  const { f } = c;
  const bits = c.bits(0);
  if (bits === 64) {
    const divisor = f.let(c.get(0));
    const low = f.let(c.reg(RAX));
    const high = f.let(c.reg(RDX));
    c.raiseIf(i64.eqz(divisor), VECTOR.DE);
    if (!signed) {
      c.raiseIf(i64.ge_u(high, divisor), VECTOR.DE);
      const [q, r] = divide128(c, high, low, divisor);
      c.setReg(RAX, q);
      c.setReg(RDX, r);
      return;
    }
    const negative = f.let(i64.shr_s(high, 63));
    const opposite = f.let(i64.xor(negative, i64.shr_s(divisor, 63)));
    const magnitude = f.let(i64.sub(i64.xor(divisor, i64.shr_s(divisor, 63)), i64.shr_s(divisor, 63)));
    f.set(high, i64.xor(high, negative));
    f.set(low, i64.sub(i64.xor(low, negative), negative));
    // Two's complement of the pair: a carry into the high half only if the low half became zero.
    f.set(high, i64.add(high, i64.extend_u(i32.and(i64.ne(negative, 0), i64.eqz(low)))));
    c.raiseIf(i64.ge_u(high, magnitude), VECTOR.DE);
    const [q, r] = divide128(c, high, low, magnitude);
    // Quotient's magnitude: at most 2^63 - 1, or 2^63 if negative.
    c.raiseIf(i64.gt_u(q, i64.sub(i64.const(0x7fff_ffff_ffff_ffffn), opposite)), VECTOR.DE);
    c.setReg(RAX, i64.sub(i64.xor(q, opposite), opposite));
    c.setReg(RDX, i64.sub(i64.xor(r, negative), negative));
    return;
  }
  const divisor = f.let(signed ? c.get(0) : c.getU(0));
  c.raiseIf(i64.eqz(divisor), VECTOR.DE);
  const mask = i64.const(2 ** bits - 1);
  const dividend = f.let(
    bits === 8
      ? signed
        ? c.regPart(RAX, 16)
        : i64.and(c.reg(RAX), 0xffff)
      : i64.or(i64.shl(i64.and(c.reg(RDX), mask), bits), i64.and(c.reg(RAX), mask)),
  );
  if (signed && bits === 16) f.set(dividend, i64.extend32_s(dividend));
  if (signed && bits === 32) {
    // The one case that 64-bit division cannot do.
    c.raiseIf(i32.and(i64.eq(dividend, i64.const(-(1n << 63n))), i64.eq(divisor, -1)), VECTOR.DE);
  }
  const q = f.let(signed ? i64.div_s(dividend, divisor) : i64.div_u(dividend, divisor));
  c.raiseIf(signed ? i64.ne(q, c.sext(q, bits)) : i64.gt_u(q, mask), VECTOR.DE);
  const r = f.let(signed ? i64.rem_s(dividend, divisor) : i64.rem_u(dividend, divisor));
  if (bits === 8) c.setRegPart(RAX, 16, i64.or(i64.and(q, 0xff), i64.shl(i64.and(r, 0xff), 8)));
  else {
    c.setRegPart(RAX, bits, q);
    c.setRegPart(RDX, bits, r);
  }
};

const ALL = 'CF OF SF ZF AF PF';
const BUT_CARRY = 'SF ZF AF PF';

export const arithmetic: Definition[] = [
  ...GROUP_1.flatMap(([name, alu, writes], number) => group1(name, number, alu, writes)),
  { name: 'TEST', code: '84 /r', operands: 'Eb,Gb', undefinedFlags: 'AF', hot: true, exec: test },
  { name: 'TEST', code: '85 /r', operands: 'Ev,Gv', undefinedFlags: 'AF', hot: true, exec: test },
  { name: 'TEST', code: 'A8 ib', operands: 'AL,Ib', undefinedFlags: 'AF', hot: true, exec: test },
  { name: 'TEST', code: 'A9 iz', operands: 'Av,Iz', undefinedFlags: 'AF', exec: test },
  // /1 is the same instruction, undocumented.
  ...['/0', '/1'].flatMap((digit): Definition[] => [
    {
      name: 'TEST',
      code: `F6 ${digit} ib`,
      operands: 'Eb,Ib',
      undefinedFlags: 'AF',
      hot: digit === '/0',
      exec: test,
    },
    { name: 'TEST', code: `F7 ${digit} iz`, operands: 'Ev,Iz', undefinedFlags: 'AF', exec: test },
  ]),
  { name: 'INC', code: 'FE /0', operands: 'Eb+', lock: true, exec: step(1) },
  { name: 'INC', code: 'FF /0', operands: 'Ev+', lock: true, hot: true, exec: step(1) },
  { name: 'DEC', code: 'FE /1', operands: 'Eb+', lock: true, exec: step(-1) },
  { name: 'DEC', code: 'FF /1', operands: 'Ev+', lock: true, hot: true, exec: step(-1) },
  { name: 'NOT', code: 'F6 /2', operands: 'Eb+', lock: true, exec: not },
  { name: 'NOT', code: 'F7 /2', operands: 'Ev+', lock: true, exec: not },
  { name: 'NEG', code: 'F6 /3', operands: 'Eb+', lock: true, exec: neg },
  { name: 'NEG', code: 'F7 /3', operands: 'Ev+', lock: true, exec: neg },
  { name: 'MUL', code: 'F6 /4', operands: 'Eb', undefinedFlags: BUT_CARRY, exec: multiply(false) },
  { name: 'MUL', code: 'F7 /4', operands: 'Ev', undefinedFlags: BUT_CARRY, exec: multiply(false) },
  { name: 'IMUL', code: 'F6 /5', operands: 'Eb', undefinedFlags: BUT_CARRY, exec: multiply(true) },
  { name: 'IMUL', code: 'F7 /5', operands: 'Ev', undefinedFlags: BUT_CARRY, exec: multiply(true) },
  { name: 'DIV', code: 'F6 /6', operands: 'Eb', undefinedFlags: ALL, exec: divide(false) },
  { name: 'DIV', code: 'F7 /6', operands: 'Ev', undefinedFlags: ALL, exec: divide(false) },
  { name: 'IDIV', code: 'F6 /7', operands: 'Eb', undefinedFlags: ALL, exec: divide(true) },
  { name: 'IDIV', code: 'F7 /7', operands: 'Ev', undefinedFlags: ALL, exec: divide(true) },
  {
    name: 'IMUL',
    code: '0F AF /r',
    operands: 'Gv+,Ev',
    undefinedFlags: BUT_CARRY,
    hot: true,
    exec: imul(0, 1),
  },
  { name: 'IMUL', code: '69 /r iz', operands: 'Gv=,Ev,Iz', undefinedFlags: BUT_CARRY, exec: imul(1, 2) },
  { name: 'IMUL', code: '6B /r ib', operands: 'Gv=,Ev,Ib', undefinedFlags: BUT_CARRY, exec: imul(1, 2) },
  {
    name: 'CBW/CWDE/CDQE',
    code: '98',
    sizes: 'v',
    exec: (c) => c.setRegPart(RAX, c.size, c.regPart(RAX, c.size / 2)),
  },
  {
    name: 'CWD/CDQ/CQO',
    code: '99',
    sizes: 'v',
    exec: (c) => c.setRegPart(RDX, c.size, i64.shr_s(c.regPart(RAX, c.size), 63)),
  },
  {
    name: 'XADD',
    code: '0F C0 /r',
    operands: 'Eb+,Gb+',
    lock: true,
    exec: exchangeAdd,
  },
  { name: 'XADD', code: '0F C1 /r', operands: 'Ev+,Gv+', lock: true, exec: exchangeAdd },
  { name: 'CMPXCHG', code: '0F B0 /r', operands: 'Eb+,Gb', lock: true, exec: compareExchange },
  { name: 'CMPXCHG', code: '0F B1 /r', operands: 'Ev+,Gv', lock: true, hot: true, exec: compareExchange },
];

function exchangeAdd(c: Semantics): void {
  const a = c.f.let(c.get(0));
  const b = c.f.let(c.get(1));
  const sum = addition(c, a, b, c.bits(0));
  // In this order: with twice the same register the sum stays.
  c.set(1, a);
  c.set(0, sum);
}

function compareExchange(c: Semantics): void {
  const { f } = c;
  const bits = c.bits(0);
  const old = f.let(c.get(0));
  const source = f.let(c.get(1));
  const accumulator = f.let(c.regPart(RAX, bits));
  subtract(c, accumulator, old, bits);
  const equal = f.let(i64.eq(accumulator, old));
  // Memory is written in either case, as the processor does.
  if (c.memory) c.set(0, select(equal, source, old));
  else f.if(equal, () => c.set(0, source));
  f.if(i32.eqz(equal), () => c.setRegPart(RAX, bits, old));
}
