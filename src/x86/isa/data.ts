/** Data movement: moves, stack, exchanges, conversions of size, conditional moves and sets. */
import { type I64, i32, i64, select } from '../../wasm/index.ts';
import { FLAG, FS, GS, RAX, RBP, RBX, RSP } from '../state.ts';
import type { Definition } from './definition.ts';
import { hexByte } from './encoding.ts';
import type { Semantics } from './semantics.ts';

/** Condition suffixes in the order of their codes, Intel SDM volume 1, appendix B.1. */
// biome-ignore format: a table
export const CONDITIONS = [
  'O', 'NO', 'B', 'AE', 'E', 'NE', 'BE', 'A', 'S', 'NS', 'P', 'NP', 'L', 'GE', 'LE', 'G',
] as const;

const move = (c: Semantics) => c.set(0, c.get(1));
const moveZero = (c: Semantics) => c.set(0, c.getU(1));

/** Pushes a value of the operand size (64 or 16 bits): memory first, then RSP. */
export function push(c: Semantics, value: I64, bits: number): void {
  const { f } = c;
  const held = f.let(value);
  const top = f.let(i64.sub(c.reg(RSP), bits / 8));
  c.store(top, bits, held, { register: RSP, displacement: -bits / 8 });
  c.addToReg(RSP, -bits / 8);
}

/** Reads the top of the stack; RSP is not yet moved. */
export function peek(c: Semantics, bits: number): I64 {
  return c.f.let(c.load(c.f.let(c.reg(RSP)), bits, { register: RSP, displacement: 0 }));
}

export function drop(c: Semantics, bytes: number): void {
  c.addToReg(RSP, bytes);
}

const pushOperand = (c: Semantics) => push(c, c.get(0), c.size);

const popRegister = (c: Semantics) => {
  const value = peek(c, c.size);
  drop(c, c.size / 8);
  c.set(0, value);
};

/** POP to memory: an address that uses RSP sees it already moved; a fault leaves it as it was. */
const popMemory = (c: Semantics) => {
  const { f } = c;
  const value = peek(c, c.size);
  if (!c.memory) {
    drop(c, c.size / 8);
    c.set(0, value);
    return;
  }
  const before = f.let(c.reg(RSP));
  drop(c, c.size / 8);
  const va = f.let(i64.add(c.segmentBase(), i64.and(c.address(false), c.addressMask())));
  const after = f.let(c.reg(RSP));
  c.setReg(RSP, before);
  c.store(va, c.size, value);
  c.setReg(RSP, after);
};

const exchange = (c: Semantics) => {
  const a = c.f.let(c.get(0));
  const b = c.f.let(c.get(1));
  c.set(0, b);
  c.set(1, a);
};

const conditionalMove = (cc: number) => (c: Semantics) => {
  const { f } = c;
  const source = f.let(c.get(1));
  // A 32-bit destination is zero-extended even if nothing moves.
  const old = f.let(c.get(0));
  c.set(0, select(c.condition(cc), source, old));
};

const bswap = (c: Semantics) => {
  const { f } = c;
  const v = f.let(c.getU(0));
  if (c.size === 16) {
    c.set(0, i64.const(0));
    return;
  }
  const pair = f.let(
    i64.or(i64.shl(i64.and(v, 0x00ff00ff00ff00ffn), 8), i64.and(i64.shr_u(v, 8), 0x00ff00ff00ff00ffn)),
  );
  const quad = f.let(
    i64.or(
      i64.shl(i64.and(pair, 0x0000ffff0000ffffn), 16),
      i64.and(i64.shr_u(pair, 16), 0x0000ffff0000ffffn),
    ),
  );
  c.set(0, c.size === 64 ? i64.rotl(quad, 32) : quad);
};

const leave = (c: Semantics) => {
  const { f } = c;
  const frame = f.let(c.reg(RBP));
  const value = f.let(c.load(frame, c.size, { register: RBP, displacement: 0 }));
  c.setReg(RSP, i64.add(frame, c.size / 8));
  c.setRegPart(RBP, c.size, value);
};

/** ENTER: nesting levels copy frame pointers of the enclosing frames. */
const enter = (c: Semantics) => {
  const { f } = c;
  const bytes = c.size / 8;
  const operand = f.let(c.immediate());
  const allocate = f.let(i64.and(operand, 0xffff));
  const level = f.let(i32.and(i32.wrap(i64.shr_u(operand, 16)), 31));
  const frame = f.let(i64.sub(c.reg(RSP), bytes));
  const top = f.let(frame);
  const from = f.let(c.reg(RBP));
  c.store(frame, c.size, c.reg(RBP));
  f.if(level, () => {
    const left = f.let(i32.sub(level, 1));
    f.block((done) =>
      f.loop((next) => {
        f.brIf(i32.eqz(left), done);
        f.set(from, i64.sub(from, bytes));
        f.set(top, i64.sub(top, bytes));
        c.store(top, c.size, f.let(c.load(from, c.size)));
        f.set(left, i32.sub(left, 1));
        f.br(next);
      }),
    );
    f.set(top, i64.sub(top, bytes));
    c.store(top, c.size, frame);
  });
  const final = f.let(i64.sub(top, allocate));
  // The new top must be writable before anything changes.
  f.set(from, i64.load(c.lookup(final, 1, true)));
  c.setReg(RSP, final);
  c.setRegPart(RBP, c.size, frame);
};

const moveFromSegment = (c: Semantics) => c.set(0, c.getU(1));

const moveToSegment = (c: Semantics) =>
  c.raiseVector(c.host.loadSegment(i32.wrap(c.immediate()), i32.wrap(c.getU(0))));

const pushSegment = (register: number) => (c: Semantics) => push(c, c.host.selector(register), c.size);

const popSegment = (register: number) => (c: Semantics) => {
  // Only the selector is read; the rest of the slot need not be there.
  const selector = peek(c, 16);
  c.raiseVector(c.host.loadSegment(i32.const(register), i32.and(i32.wrap(selector), 0xffff)));
  drop(c, c.size / 8);
};

/** Flags that POPF can change at CPL 3 with IOPL 0. */
const POPF_MASK =
  FLAG.CF | FLAG.PF | FLAG.AF | FLAG.ZF | FLAG.SF | FLAG.TF | FLAG.DF | FLAG.OF | FLAG.NT | FLAG.AC | FLAG.ID;

const popFlags = (c: Semantics) => {
  const value = peek(c, c.size);
  drop(c, c.size / 8);
  c.setFlags(i32.wrap(value), c.size === 16 ? POPF_MASK & 0xffff : POPF_MASK);
  c.flagsChanged();
};

export const data: Definition[] = [
  { name: 'MOV', code: '88 /r', operands: 'Eb=,Gb', hot: true, exec: move },
  { name: 'MOV', code: '89 /r', operands: 'Ev=,Gv', hot: true, exec: move },
  { name: 'MOV', code: '8A /r', operands: 'Gb=,Eb', hot: true, exec: move },
  { name: 'MOV', code: '8B /r', operands: 'Gv=,Ev', hot: true, exec: move },
  { name: 'MOV', code: 'A0 a', operands: 'AL=,Ob', exec: move },
  { name: 'MOV', code: 'A1 a', operands: 'Av=,Ov', exec: move },
  { name: 'MOV', code: 'A2 a', operands: 'Ob=,AL', exec: move },
  { name: 'MOV', code: 'A3 a', operands: 'Ov=,Av', exec: move },
  { name: 'MOV', code: 'B0+r ib', operands: 'Zb=,Ib', exec: move },
  { name: 'MOV', code: 'B8+r iv', operands: 'Zv=,Iv', hot: true, exec: move },
  { name: 'MOV', code: 'C6 /0 ib', operands: 'Eb=,Ib', hot: true, exec: move },
  { name: 'MOV', code: 'C7 /0 iz', operands: 'Ev=,Iz', hot: true, exec: move },
  { name: 'MOV', code: '8C /r', operands: 'Mw=,Sw', exec: moveFromSegment },
  { name: 'MOV', code: '8C /r', operands: 'Rv=,Sw', exec: moveFromSegment },
  { name: 'MOV', code: '8E /r', operands: 'Ew', segmentImmediate: true, exec: moveToSegment },
  { name: 'MOVZX', code: '0F B6 /r', operands: 'Gv=,Eb', hot: true, exec: moveZero },
  { name: 'MOVZX', code: '0F B7 /r', operands: 'Gv=,Ew', hot: true, exec: moveZero },
  { name: 'MOVSX', code: '0F BE /r', operands: 'Gv=,Eb', hot: true, exec: move },
  { name: 'MOVSX', code: '0F BF /r', operands: 'Gv=,Ew', exec: move },
  {
    name: 'MOVSXD',
    code: '63 /r',
    operands: 'Gv=,Ez',
    hot: true,
    exec: (c) => c.set(0, c.size === 64 ? c.sext(c.get(1), 32) : c.get(1)),
  },
  { name: 'LEA', code: '8D /r', operands: 'Gv=,M', hot: true, exec: (c) => c.set(0, c.address(false)) },
  { name: 'PUSH', stack: true, code: '50+r', operands: 'Zv', default64: true, hot: true, exec: pushOperand },
  { name: 'POP', stack: true, code: '58+r', operands: 'Zv=', default64: true, hot: true, exec: popRegister },
  { name: 'PUSH', stack: true, code: 'FF /6', operands: 'Ev', default64: true, exec: pushOperand },
  {
    name: 'POP',
    stack: true,
    code: '8F /0',
    operands: 'Ev=',
    default64: true,
    ownAddress: true,
    exec: popMemory,
  },
  { name: 'PUSH', stack: true, code: '68 iz', operands: 'Iz', default64: true, exec: pushOperand },
  {
    name: 'PUSH',
    stack: true,
    code: '6A ib',
    operands: 'Ib',
    default64: true,
    sizes: 'v',
    exec: pushOperand,
  },
  { name: 'PUSH FS', stack: true, code: '0F A0', sizes: 'v', default64: true, exec: pushSegment(FS) },
  { name: 'PUSH GS', stack: true, code: '0F A8', sizes: 'v', default64: true, exec: pushSegment(GS) },
  { name: 'POP FS', stack: true, code: '0F A1', sizes: 'v', default64: true, exec: popSegment(FS) },
  { name: 'POP GS', stack: true, code: '0F A9', sizes: 'v', default64: true, exec: popSegment(GS) },
  { name: 'XCHG', code: '86 /r', operands: 'Eb+,Gb+', lock: true, exec: exchange },
  { name: 'XCHG', code: '87 /r', operands: 'Ev+,Gv+', lock: true, exec: exchange },
  { name: 'XCHG', code: '90+r', operands: 'Zv+,Av+', exec: exchange },
  { name: 'BSWAP', code: '0F C8+r', operands: 'Zv+', exec: bswap },
  { name: 'LEAVE', stack: true, code: 'C9', sizes: 'v', default64: true, hot: true, exec: leave },
  { name: 'ENTER', stack: true, code: 'C8 iw ib', sizes: 'v', default64: true, exec: enter },
  {
    name: 'XLAT',
    code: 'D7',
    exec: (c) => {
      const offset = i64.and(i64.add(c.reg(RBX), i64.and(c.reg(RAX), 0xff)), c.addressMask());
      const va = c.f.let(i64.add(c.segmentBase(), offset));
      c.setRegPart(RAX, 8, c.load(va, 8));
    },
  },
  ...CONDITIONS.flatMap((condition, cc): Definition[] => [
    {
      name: `CMOV${condition}`,
      code: `0F ${hexByte(0x40 + cc)} /r`,
      operands: 'Gv+,Ev',
      cc,
      hot: cc === 4 || cc === 5,
      exec: conditionalMove(cc),
    },
    {
      name: `SET${condition}`,
      code: `0F ${hexByte(0x90 + cc)} /r`,
      operands: 'Eb=',
      cc,
      exec: (c) => c.set(0, i64.extend_u(i32.ne(c.condition(cc), 0))),
    },
  ]),
  {
    name: 'PUSHF',
    stack: true,
    code: '9C',
    sizes: 'v',
    default64: true,
    exec: (c) => push(c, i64.extend_u(i32.and(c.getFlags(), ~(FLAG.RF | FLAG.VM))), c.size),
  },
  {
    name: 'POPF',
    stack: true,
    untranslated: true,
    code: '9D',
    sizes: 'v',
    default64: true,
    ends: true,
    exec: popFlags,
  },
  {
    name: 'SAHF',
    code: '9E',
    exec: (c) =>
      c.setFlags(
        i32.wrap(i64.and(i64.shr_u(c.reg(RAX), 8), 0xff)),
        FLAG.SF | FLAG.ZF | FLAG.AF | FLAG.PF | FLAG.CF,
      ),
  },
  {
    name: 'LAHF',
    code: '9F',
    exec: (c) => {
      const flags = i64.and(i64.extend_u(c.getFlags()), 0xff);
      c.setRegPart(RAX, 16, i64.or(i64.shl(flags, 8), i64.and(c.reg(RAX), 0xff)));
    },
  },
  { name: 'CMC', code: 'F5', exec: (c) => c.cf(i32.xor(c.getCf(), 1)) },
  { name: 'CLC', code: 'F8', exec: (c) => c.cf(i32.const(0)) },
  { name: 'STC', code: 'F9', exec: (c) => c.cf(i32.const(1)) },
  { name: 'CLD', code: 'FC', exec: (c) => c.setFlags(i32.const(0), FLAG.DF) },
  { name: 'STD', code: 'FD', exec: (c) => c.setFlags(i32.const(FLAG.DF), FLAG.DF) },
  { name: 'MOVNTI', code: 'NP 0F C3 /r', operands: 'My=,Gy', exec: move },
  { name: 'NOP', code: '90', withoutRexB: true, exec: nothing },
  { name: 'NOP', code: '0F 1F /0', operands: 'Ev', exec: nothing },
  // Hint space: NOP with a ModRM byte; memory is not accessed.
  ...['0F 19', '0F 1A', '0F 1B', '0F 1C', '0F 1D', '0F 1E'].map(
    (code): Definition => ({ name: 'NOP', code: `${code} /r`, operands: 'Ev', exec: nothing }),
  ),
  ...[1, 2, 3, 4, 5, 6, 7].map(
    (digit): Definition => ({ name: 'NOP', code: `0F 1F /${digit}`, operands: 'Ev', exec: nothing }),
  ),
];

function nothing(): void {}
