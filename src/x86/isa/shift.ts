/** Shifts, rotates, double shifts, and bit instructions. */
import { type I32, type I64, i32, i64, select } from '../../wasm/index.ts';
import { RAX, RBX, RCX, RDX, VECTOR } from '../state.ts';
import { logicFlags } from './arithmetic.ts';
import type { Definition } from './definition.ts';
import type { Semantics } from './semantics.ts';

const flagWord = (bit: I64): I64 => i64.sub(0, i64.and(bit, 1));

/** Runs `work` if the count is not zero: a count of zero leaves flags (and the upper half of a 32-bit register: see set) alone. */
function counted(c: Semantics, count: I64, value: I64, work: () => I64): void {
  const { f } = c;
  const result = f.let(value);
  f.if(i64.ne(count, 0), () => f.set(result, work()));
  c.set(0, result);
}

function maskedCount(c: Semantics): I64 {
  return c.f.value(i64.and(c.get(1), c.bits(0) === 64 ? 63 : 31));
}

const shl = (c: Semantics) => {
  const { f } = c;
  const bits = c.bits(0);
  const value = f.let(c.get(0));
  const count = maskedCount(c);
  counted(c, count, value, () => {
    // The last bit shifted out ends in bit `bits`; for 64 bits shift one less first.
    const r = f.let(c.sext(i64.shl(value, count), bits));
    const out = f.let(
      bits === 64
        ? i64.shr_u(i64.shl(value, i64.sub(count, 1)), 63)
        : i64.and(i64.shr_u(i64.shl(i64.and(value, 2 ** bits - 1), count), bits), 1),
    );
    c.cf(i32.wrap(out));
    c.of(i64.xor(flagWord(out), r));
    c.af(i64.const(0));
    c.zsp(r);
    return r;
  });
};

const shr = (arithmetic: boolean) => (c: Semantics) => {
  const { f } = c;
  const bits = c.bits(0);
  const value = f.let(arithmetic ? c.get(0) : c.getU(0));
  const count = maskedCount(c);
  const shift = arithmetic ? i64.shr_s : i64.shr_u;
  counted(c, count, f.let(c.sext(value, bits)), () => {
    const r = f.let(c.sext(shift(value, count), bits));
    c.cf(i32.wrap(i64.and(shift(value, i64.sub(count, 1)), 1)));
    // OF (for a count of 1): the sign before the shift; 0 for SAR.
    c.of(arithmetic ? i64.const(0) : c.sext(value, bits));
    c.af(i64.const(0));
    c.zsp(r);
    return r;
  });
};

const rotate = (left: boolean) => (c: Semantics) => {
  const { f } = c;
  const bits = c.bits(0);
  const value = f.let(c.getU(0));
  const count = maskedCount(c);
  counted(c, count, f.let(c.sext(value, bits)), () => {
    let r: I64;
    if (bits === 64) r = f.let(left ? i64.rotl(value, count) : i64.rotr(value, count));
    else {
      const n = f.let(i64.and(count, bits - 1));
      const other = i64.and(i64.sub(bits, n), bits - 1);
      const [l, rr] = left ? [n, other] : [other, n];
      r = f.let(c.sext(i64.or(i64.shl(value, l), i64.shr_u(value, rr)), bits));
    }
    if (left) {
      c.cf(i32.wrap(i64.and(r, 1)));
      c.of(i64.xor(flagWord(r), r));
    } else {
      c.cf(i32.wrap(i64.shr_u(r, 63)));
      c.of(i64.xor(r, c.sext(i64.shl(r, 1), bits)));
    }
    return r;
  });
};

/** RCL and RCR, a bit at a time: counts are small and the instruction is rare. */
const rotateCarry = (left: boolean) => (c: Semantics) => {
  const { f } = c;
  const bits = c.bits(0);
  const value = f.let(c.getU(0));
  const count = f.let(maskedCount(c));
  if (bits < 32) f.set(count, i64.rem_u(count, bits + 1));
  const carry = f.let(i64.extend_u(c.getCf()));
  const out = f.local('i64');
  const r = f.let(value);
  const top = bits - 1;
  const mask = i64.const(bits === 64 ? -1n : (1n << BigInt(bits)) - 1n);
  f.if(i64.ne(count, 0), () => {
    f.loop((next) => {
      if (left) {
        f.set(out, i64.and(i64.shr_u(r, top), 1));
        f.set(r, i64.and(i64.or(i64.shl(r, 1), carry), mask));
      } else {
        f.set(out, i64.and(r, 1));
        f.set(r, i64.or(i64.shr_u(r, 1), i64.shl(carry, top)));
      }
      f.set(carry, out);
      f.set(count, i64.sub(count, 1));
      f.brIf(i64.ne(count, 0), next);
    });
    c.cf(i32.wrap(carry));
    const s = c.sext(r, bits);
    c.of(left ? i64.xor(flagWord(carry), s) : i64.xor(s, c.sext(i64.shl(r, 1), bits)));
  });
  c.set(0, r);
};

const GROUP_2: [name: string, exec: (c: Semantics) => void, undefinedFlags: string][] = [
  ['ROL', rotate(true), ''],
  ['ROR', rotate(false), ''],
  ['RCL', rotateCarry(true), ''],
  ['RCR', rotateCarry(false), ''],
  ['SHL', shl, 'AF'],
  ['SHR', shr(false), 'AF'],
  ['SAL', shl, 'AF'],
  ['SAR', shr(true), 'AF'],
];

const doubleShift = (left: boolean) => (c: Semantics) => {
  const { f } = c;
  const bits = c.bits(0);
  const destination = f.let(c.getU(0));
  const source = f.let(c.getU(1));
  const count = f.value(i64.and(c.get(2), bits === 64 ? 63 : 31));
  counted(c, count, f.let(c.sext(destination, bits)), () => {
    let r: I64;
    let carry: I32;
    if (bits === 16) {
      // Counts above 16 are undefined; the pattern destination:source:destination is what processors show.
      const n = f.let(count);
      const [a, b] = left ? [destination, source] : [source, destination];
      const wide = f.let(
        left
          ? i64.or(i64.or(i64.shl(a, 32), i64.shl(b, 16)), a)
          : i64.or(i64.or(i64.shl(b, 32), i64.shl(a, 16)), b),
      );
      r = f.let(i64.extend16_s(left ? i64.shr_u(i64.shl(wide, n), 32) : i64.shr_u(wide, n)));
      carry = i32.wrap(i64.and(left ? i64.shr_u(wide, i64.sub(48, n)) : i64.shr_u(wide, i64.sub(n, 1)), 1));
    } else {
      const rest = i64.sub(bits, count);
      r = f.let(
        c.sext(
          left
            ? i64.or(i64.shl(destination, count), i64.shr_u(source, rest))
            : i64.or(i64.shr_u(destination, count), i64.shl(source, rest)),
          bits,
        ),
      );
      carry = i32.wrap(
        i64.and(left ? i64.shr_u(destination, rest) : i64.shr_u(destination, i64.sub(count, 1)), 1),
      );
    }
    c.cf(carry);
    c.of(i64.xor(r, c.sext(destination, bits)));
    c.af(i64.const(0));
    c.zsp(r);
    return r;
  });
};

/**
 * Bit test family. With a register index and a memory operand the bit string reaches beyond the operand: the index
 * selects another word, so memory is accessed by hand.
 */
const bitTest =
  (name: 'BT' | 'BTS' | 'BTR' | 'BTC', registerIndex: boolean) =>
  (c: Semantics): void => {
    const { f } = c;
    const bits = c.bits(0);
    const change = (value: I64, bit: I64): I64 => {
      if (name === 'BTS') return i64.or(value, bit);
      if (name === 'BTR') return i64.and(value, i64.xor(bit, -1));
      return i64.xor(value, bit);
    };
    const index = f.let(c.get(1));
    const shift = f.let(i64.and(index, bits - 1));
    if (registerIndex && c.memory) {
      const bytes = bits / 8;
      const offset = i64.mul(i64.shr_s(index, Math.log2(bits)), bytes);
      const segment = c.segmentBase();
      const va = f.let(i64.add(segment, i64.and(i64.add(c.address(false), offset), c.addressMask())));
      const at = f.let(c.lookup(va, bytes, name !== 'BT'));
      const value = f.let(bits === 64 ? i64.load(at) : bits === 32 ? i64.load32u(at) : i64.load16u(at));
      c.cf(i32.wrap(i64.and(i64.shr_u(value, shift), 1)));
      if (name === 'BT') return;
      f.store(at, change(value, i64.shl(i64.const(1), shift)), 0, bits);
      c.commitPointer(at);
      return;
    }
    const value = f.let(c.get(0));
    c.cf(i32.wrap(i64.and(i64.shr_u(value, shift), 1)));
    if (name !== 'BT') c.set(0, change(value, i64.shl(i64.const(1), shift)));
  };

const BIT: ['BT' | 'BTS' | 'BTR' | 'BTC', string, number][] = [
  ['BT', 'A3', 4],
  ['BTS', 'AB', 5],
  ['BTR', 'B3', 6],
  ['BTC', 'BB', 7],
];

const scan = (forward: boolean) => (c: Semantics) => {
  const { f } = c;
  const source = f.let(c.getU(1));
  const old = f.let(c.get(0));
  const r = f.let(forward ? i64.ctz(source) : i64.sub(63, i64.clz(source)));
  c.cf(i32.const(0));
  c.of(i64.const(0));
  c.af(i64.const(0));
  c.zsp(source);
  // A source of zero leaves the destination (all 64 bits of it) as it was.
  if (c.size === 32) f.if(i64.ne(source, 0), () => c.set(0, r));
  else c.set(0, select(i64.eqz(source), old, r));
};

const popcnt = (c: Semantics) => {
  const source = c.f.let(c.getU(1));
  logicFlags(c, source);
  // PF and SF are cleared: 1 has odd parity and no sign; ZF says whether the source was zero.
  const word = c.f.let(i64.extend_u(i64.ne(source, 0)));
  c.zsp(word);
  c.f.if(i64.eqz(source), () => c.setFlags(i32.const(1 << 6), (1 << 6) | (1 << 2) | (1 << 7)));
  c.set(0, i64.popcnt(source));
};

const crc32 = (c: Semantics) => {
  const { f } = c;
  const bits = c.bits(1);
  const crc = f.let(i64.and(c.get(0), 0xffffffff));
  const data = f.let(i64.xor(crc, c.getU(1)));
  const count = f.let(i32.const(bits));
  // Reflected polynomial 11EDC6F41; the upper part of the CRC takes part only where the data reaches.
  f.loop((next) => {
    f.set(data, i64.xor(i64.shr_u(data, 1), i64.and(i64.sub(0, i64.and(data, 1)), i64.const(0x82f63b78))));
    f.set(count, i32.sub(count, 1));
    f.brIf(count, next);
  });
  c.set(0, i64.and(data, 0xffffffff));
};

const compareExchangeWide = (c: Semantics) => {
  const { f } = c;
  const wide = c.size === 64;
  const bytes = wide ? 16 : 8;
  const half = wide ? 64 : 32;
  const va = f.let(c.address());
  if (wide) c.raiseIf(i32.wrap(i64.and(va, 15)), VECTOR.GP);
  const at = f.let(c.lookup(va, bytes, true));
  const low = f.let(wide ? i64.load(at) : i64.load32s(at));
  const high = f.let(wide ? i64.load(at, 8) : i64.load32s(at, 4));
  f.if(
    i32.and(i64.eq(low, c.regPart(RAX, half)), i64.eq(high, c.regPart(RDX, half))),
    () => {
      f.store(at, c.reg(RBX), 0, half);
      f.store(at, c.reg(RCX), half / 8, half);
      c.commitPointer(at);
      c.setFlags(i32.const(1 << 6), 1 << 6);
    },
    () => {
      c.commitPointer(at);
      c.setRegPart(RAX, half, low);
      c.setRegPart(RDX, half, high);
      c.setFlags(i32.const(0), 1 << 6);
    },
  );
};

export const shiftAndBit: Definition[] = [
  ...GROUP_2.flatMap(([name, exec, undefinedFlags], n): Definition[] => [
    { name, code: `C0 /${n} ib`, operands: 'Eb+,Ib', undefinedFlags, exec },
    { name, code: `C1 /${n} ib`, operands: 'Ev+,Ib', undefinedFlags, hot: n >= 4 && n !== 6, exec },
    { name, code: `D0 /${n}`, operands: 'Eb+,1', undefinedFlags, exec },
    { name, code: `D1 /${n}`, operands: 'Ev+,1', undefinedFlags, exec },
    { name, code: `D2 /${n}`, operands: 'Eb+,CL', undefinedFlags, exec },
    { name, code: `D3 /${n}`, operands: 'Ev+,CL', undefinedFlags, exec },
  ]),
  { name: 'SHLD', code: '0F A4 /r ib', operands: 'Ev+,Gv,Ib', undefinedFlags: 'AF', exec: doubleShift(true) },
  { name: 'SHLD', code: '0F A5 /r', operands: 'Ev+,Gv,CL', undefinedFlags: 'AF', exec: doubleShift(true) },
  {
    name: 'SHRD',
    code: '0F AC /r ib',
    operands: 'Ev+,Gv,Ib',
    undefinedFlags: 'AF',
    exec: doubleShift(false),
  },
  { name: 'SHRD', code: '0F AD /r', operands: 'Ev+,Gv,CL', undefinedFlags: 'AF', exec: doubleShift(false) },
  ...BIT.flatMap(([name, opcode, digit]): Definition[] => {
    const use = name === 'BT' ? '' : '+';
    const common = { name, undefinedFlags: 'OF SF AF PF', lock: name !== 'BT' };
    return [
      { ...common, code: `0F ${opcode} /r`, operands: `Ev${use},Gv`, exec: bitTest(name, true) },
      { ...common, code: `0F BA /${digit} ib`, operands: `Ev${use},Ib`, exec: bitTest(name, false) },
    ];
  }),
  { name: 'BSF', code: '0F BC /r', operands: 'Gv+,Ev', undefinedFlags: 'CF OF SF AF PF', exec: scan(true) },
  { name: 'BSR', code: '0F BD /r', operands: 'Gv+,Ev', undefinedFlags: 'CF OF SF AF PF', exec: scan(false) },
  { name: 'POPCNT', code: 'F3 0F B8 /r', operands: 'Gv=,Ev', exec: popcnt },
  { name: 'CRC32', code: 'F2 0F 38 F0 /r', operands: 'Gy+,Eb', exec: crc32 },
  { name: 'CRC32', code: 'F2 0F 38 F1 /r', operands: 'Gy+,Ev', exec: crc32 },
  {
    name: 'CMPXCHG8B/16B',
    code: '0F C7 /1',
    operands: 'M',
    sizes: 'y',
    lock: true,
    exec: compareExchangeWide,
  },
];
