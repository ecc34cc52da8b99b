/** Control transfer. Near branches only change RIP; far ones and returns from interrupts go through the host. */
import { type I32, type I64, i32, i64 } from '../../wasm/index.ts';
import { CPU, CS, Exit, FLAG, R11, RCX, RSP, SS, VECTOR } from '../state.ts';
import { CONDITIONS, drop, peek, push } from './data.ts';
import type { Definition } from './definition.ts';
import { hexByte } from './encoding.ts';
import type { Semantics } from './semantics.ts';

/** LOOP family and JRCXZ count in ECX under an address-size prefix. */
const counted = (what: 'LOOP' | 'LOOPE' | 'LOOPNE') => (c: Semantics) => {
  const { f } = c;
  const mask = f.let(c.addressMask());
  const count = f.let(i64.and(i64.sub(c.reg(RCX), 1), mask));
  c.setReg(RCX, count);
  const more = i64.ne(count, 0);
  if (what === 'LOOP') c.jumpIf(more);
  else {
    const zero = c.flag('ZF');
    c.jumpIf(i32.and(more, what === 'LOOPE' ? zero : i32.eqz(zero)));
  }
};

const ret = (immediate: boolean) => (c: Semantics) => {
  const to = peek(c, 64);
  c.checkTarget(to);
  drop(c, 8);
  if (immediate) c.setReg(RSP, i64.add(c.reg(RSP), i64.and(c.immediate(), 0xffff)));
  c.jumpTo(to);
};

/** INT n, INT3, INT1: trap-like; the vector is the operating system's business. */
const softwareInterrupt = (vector: number | null) => (c: Semantics) => {
  const { f } = c;
  f.store(
    c.cpu,
    vector === null ? i32.wrap(i64.and(c.immediate(), 0xff)) : i32.const(vector),
    CPU.exitVector,
  );
  f.store(c.cpu, i32.const(0), CPU.exitError);
  f.store(c.cpu, i32.wrap(i64.sub(c.next(), c.here())), CPU.exitLength);
  c.exit(vector === null ? Exit.SoftwareInterrupt : Exit.Exception);
};

export const control: Definition[] = [
  ...CONDITIONS.flatMap((condition, cc): Definition[] =>
    [`${hexByte(0x70 + cc)} cb`, `0F ${hexByte(0x80 + cc)} cd`].map((code) => ({
      name: `J${condition}`,
      code,
      operands: 'J',
      cc,
      hot: true,
      exec: (c) => c.jumpIf(c.condition(cc)),
    })),
  ),
  { name: 'JMP', code: 'EB cb', operands: 'J', ends: true, hot: true, exec: (c) => c.jump() },
  { name: 'JMP', code: 'E9 cd', operands: 'J', ends: true, hot: true, exec: (c) => c.jump() },
  {
    name: 'JMP',
    code: 'FF /4',
    operands: 'Eq',
    ends: true,
    hot: true,
    exec: (c) => {
      const to = c.f.let(c.get(0));
      c.checkTarget(to);
      c.jumpTo(to);
    },
  },
  {
    name: 'CALL',
    stack: true,
    code: 'E8 cd',
    operands: 'J',
    ends: true,
    hot: true,
    exec: (c) => {
      push(c, c.next(), 64);
      c.jump();
    },
  },
  {
    name: 'CALL',
    stack: true,
    code: 'FF /2',
    operands: 'Eq',
    ends: true,
    hot: true,
    exec: (c) => {
      const to = c.f.let(c.get(0));
      // The return address is written before the target is looked at; RSP moves only if all is well.
      const top = c.f.let(i64.sub(c.reg(RSP), 8));
      c.store(top, 64, c.next(), { register: RSP, displacement: -8 });
      c.checkTarget(to);
      c.addToReg(RSP, -8);
      c.jumpTo(to);
    },
  },
  { name: 'RET', stack: true, code: 'C3', ends: true, hot: true, exec: ret(false) },
  { name: 'RET', stack: true, code: 'C2 iw', ends: true, exec: ret(true) },
  { name: 'LOOPNE', code: 'E0 cb', operands: 'J', exec: counted('LOOPNE') },
  { name: 'LOOPE', code: 'E1 cb', operands: 'J', exec: counted('LOOPE') },
  { name: 'LOOP', code: 'E2 cb', operands: 'J', exec: counted('LOOP') },
  {
    name: 'JRCXZ',
    code: 'E3 cb',
    operands: 'J',
    exec: (c) => c.jumpIf(i64.eqz(i64.and(c.reg(RCX), c.addressMask()))),
  },
  { name: 'INT3', untranslated: true, code: 'CC', ends: true, exec: softwareInterrupt(VECTOR.BP) },
  { name: 'INT', untranslated: true, code: 'CD ib', ends: true, exec: softwareInterrupt(null) },
  { name: 'INT1', untranslated: true, code: 'F1', ends: true, exec: softwareInterrupt(VECTOR.DB) },
  {
    name: 'SYSCALL',
    untranslated: true,
    code: '0F 05',
    ends: true,
    exec: (c) => {
      c.setReg(RCX, c.next());
      c.setReg(R11, i64.extend_u(i32.and(c.getFlags(), ~(FLAG.RF | FLAG.VM))));
      c.exit(Exit.Syscall);
    },
  },
  // Far transfers within 64-bit code: the host checks the selector and delivers RIP (and RSP) or a vector.
  {
    name: 'RETF',
    stack: true,
    untranslated: true,
    code: 'CB',
    sizes: 'v',
    ends: true,
    exec: (c) => farReturn(c, false),
  },
  {
    name: 'RETF',
    stack: true,
    untranslated: true,
    code: 'CA iw',
    sizes: 'v',
    ends: true,
    exec: (c) => farReturn(c, true),
  },
  {
    name: 'IRET',
    stack: true,
    untranslated: true,
    code: 'CF',
    sizes: 'v',
    ends: true,
    exec: interruptReturn,
  },
  {
    name: 'JMP far',
    untranslated: true,
    code: 'FF /5',
    operands: 'M',
    sizes: 'v',
    ends: true,
    exec: farJump,
  },
  {
    name: 'CALL far',
    untranslated: true,
    code: 'FF /3',
    operands: 'M',
    sizes: 'v',
    ends: true,
    exec: farCall,
  },
];

/** Loads CS after its check: the privilege level stays 3. */
const setCodeSegment = (c: Semantics, selector: I32) =>
  c.f.store(c.cpu, i32.or(selector, 3), CPU.selectors + CS * 8, 16);

function farReturn(c: Semantics, immediate: boolean): void {
  const { f } = c;
  const bytes = c.size / 8;
  const top = f.let(c.reg(RSP));
  // Of the selector's slot only the selector is read.
  const selector = f.let(i32.and(i32.wrap(c.load(f.let(i64.add(top, bytes)), 16)), 0xffff));
  const offset = f.let(c.zext(c.load(top, c.size), c.size));
  c.raiseVector(c.host.checkCodeSegment(selector, true));
  c.checkTarget(offset);
  const extra = immediate ? i64.and(c.immediate(), 0xffff) : i64.const(0);
  setCodeSegment(c, selector);
  c.setReg(RSP, i64.add(i64.add(top, bytes * 2), extra));
  c.jumpTo(offset);
}

/** The far pointer of an indirect far transfer: [offset, selector], the selector checked. */
function farPointer(c: Semantics): [I64, I32] {
  const { f } = c;
  const va = f.let(c.address());
  const offset = f.let(c.zext(c.load(va, c.size), c.size));
  const selector = f.let(i32.and(i32.wrap(c.load(f.let(i64.add(va, c.size / 8)), 16)), 0xffff));
  c.raiseVector(c.host.checkCodeSegment(selector, false));
  return [offset, selector];
}

function farJump(c: Semantics): void {
  const [offset, selector] = farPointer(c);
  c.checkTarget(offset);
  setCodeSegment(c, selector);
  c.jumpTo(offset);
}

function farCall(c: Semantics): void {
  const { f } = c;
  const bytes = c.size / 8;
  const [offset, selector] = farPointer(c);
  const top = f.let(i64.sub(c.reg(RSP), 2 * bytes));
  c.store(f.let(i64.add(top, bytes)), c.size, c.host.selector(CS));
  c.store(top, c.size, c.next());
  c.checkTarget(offset);
  setCodeSegment(c, selector);
  c.setReg(RSP, top);
  c.jumpTo(offset);
}

/** IRET at CPL 3 to CPL 3: RIP, CS, RFLAGS, RSP, SS are popped. */
function interruptReturn(c: Semantics): void {
  const { f } = c;
  const bytes = c.size / 8;
  const top = f.let(c.reg(RSP));
  const word = (i: number, bits = c.size) => f.let(c.load(f.let(i64.add(top, i * bytes)), bits));
  const rip = f.let(c.zext(word(0), c.size));
  // Of the selectors' slots only the selectors are read; CS is checked before the stack's part is.
  const cs = f.let(i32.and(i32.wrap(word(1, 16)), 0xffff));
  const flags = word(2);
  c.raiseVector(c.host.checkCodeSegment(cs, true));
  const rsp = f.let(c.zext(word(3), c.size));
  const ss = f.let(i32.and(i32.wrap(word(4, 16)), 0xffff));
  const oldStack = f.let(i32.wrap(c.host.selector(SS)));
  c.raiseVector(c.host.loadSegment(i32.const(SS), ss));
  c.checkTarget(rip, () => f.store(c.cpu, oldStack, CPU.selectors + SS * 8, 16));
  setCodeSegment(c, cs);
  c.setFlags(i32.wrap(flags), c.size === 16 ? IRET_MASK & 0xffff : IRET_MASK);
  c.setReg(RSP, rsp);
  c.jumpTo(rip);
}

const IRET_MASK =
  FLAG.CF |
  FLAG.PF |
  FLAG.AF |
  FLAG.ZF |
  FLAG.SF |
  FLAG.TF |
  FLAG.DF |
  FLAG.OF |
  FLAG.NT |
  FLAG.RF |
  FLAG.AC |
  FLAG.ID;
