/**
 * Semantics for the translator: operands are known, general registers and flags live in locals.
 *
 * A flag is not computed when it is set: what it would be is kept as an expression over locals that never change
 * (`pending`), and becomes code only where somebody reads it: a condition, a merge of control flow, an exit. A flag
 * that is overwritten first costs nothing. The side exits of faults compute pending flags in their own cold code.
 */
import {
  call,
  type Expr,
  type Func,
  type I32,
  type I32Like,
  type I64,
  i32,
  i64,
  type Local,
  select,
  type V128,
  v128,
} from '../../wasm/index.ts';
import type { Instruction } from '../decoder.ts';
import { type Form, formBits } from '../isa/form.ts';
import type { HostFunctions, Semantics } from '../isa/semantics.ts';
import { INFO_WRITE, lastPage, notCanonical, TLB, tlbIndex } from '../mmu.ts';
import { CPU, FLAG, VECTOR } from '../state.ts';
import type { RegionImports } from './imports.ts';

export const FLAG_WORDS = ['zres', 'spres', 'of', 'cf', 'af'] as const;
export type FlagWord = (typeof FLAG_WORDS)[number];
/** What each flag word will be; null: it is in its local. */
export type Pending = { [word in FlagWord]: Expr | null } & { compared: Compared | null };

/** The flags are those of a - b. */
interface Compared {
  readonly a: I64;
  readonly b: I64;
}

export const nothingPending = (): Pending => ({
  zres: null,
  spres: null,
  of: null,
  cf: null,
  af: null,
  compared: null,
});

/** How a region is left. */
export interface RegionExits {
  /** Before the current instruction, with the exception in the exit fields. */
  fault(): void;
  /** At a virtual address. */
  transfer(va: I64): void;
  /** Before the current instruction, to do it again outside. */
  retry(): void;
  /** Behind the current instruction, with the reason in the exit fields. */
  exit(): void;
}

/** The variables of a region. */
export class RegionState {
  readonly f: Func;
  readonly cpu: Local<'i32'>;
  readonly tlb: Local<'i32'>;
  readonly page: Local<'i64'>;
  readonly registers: Local<'i64'>[] = [];
  readonly flags: { readonly [word in FlagWord]: Local };
  readonly used = new Set<number>();
  readonly dirty = new Set<number>();
  flagsUsed = false;
  flagsDirty = false;
  pending = nothingPending();

  constructor(f: Func, cpu: Local<'i32'>) {
    this.f = f;
    this.cpu = cpu;
    this.tlb = f.local('i32');
    this.page = f.local('i64');
    for (let i = 0; i < 16; i++) this.registers.push(f.local('i64'));
    this.flags = {
      zres: f.local('i64'),
      spres: f.local('i64'),
      of: f.local('i64'),
      cf: f.local('i32'),
      af: f.local('i32'),
    };
  }

  load(registers: Iterable<number>, flags: boolean): void {
    const { f, cpu } = this;
    for (const register of registers)
      f.set(this.registers[register]!, i64.load(cpu, CPU.regs + register * 8));
    if (!flags) return;
    for (const word of FLAG_WORDS) {
      const local = this.flags[word];
      if (local.type === 'i64') f.set(local as Local<'i64'>, i64.load(cpu, CPU[word]));
      else f.set(local as Local<'i32'>, i32.load(cpu, CPU[word]));
    }
  }

  store(registers: Iterable<number>, flags: boolean): void {
    const { f, cpu } = this;
    for (const register of registers) f.store(cpu, this.registers[register]!, CPU.regs + register * 8);
    if (flags) for (const word of FLAG_WORDS) f.store(cpu, this.flags[word], CPU[word]);
  }

  /** Emits the pending flags into their locals; what is pending stays known (for side exits). */
  emitPending(): void {
    for (const word of FLAG_WORDS) {
      const value = this.pending[word];
      if (value !== null) this.f.set(this.flags[word], value);
    }
  }

  flush(): void {
    this.emitPending();
    this.pending = nothingPending();
  }
}

export class TranslatorSemantics implements Semantics {
  readonly f: Func;
  readonly form: Form;
  readonly size: number;
  readonly cpu: Local<'i32'>;
  readonly memory: boolean;
  readonly host: HostFunctions;
  /** Set if flags were changed on some paths only. */
  conditionalFlags = false;
  private readonly instruction: Instruction;
  private readonly offset: number;
  private readonly state: RegionState;
  private readonly imports: RegionImports;
  private readonly exits: RegionExits;
  private readonly branch: (condition: I32 | null) => void;
  private readonly depth: number;
  private readonly direct: boolean;
  private readonly pointers = new Map<number, Local<'i32'>>();
  private readonly values = new Map<number, I64>();

  constructor(options: {
    instruction: Instruction;
    offset: number;
    state: RegionState;
    imports: RegionImports;
    exits: RegionExits;
    /** The direct branch is taken: if the condition holds, or always (null). */
    branch: (condition: I32 | null) => void;
    /** Flags go straight to their locals: the instruction sets them on some paths only. */
    direct: boolean;
  }) {
    const { instruction, state } = options;
    this.instruction = instruction;
    this.form = instruction.form!;
    this.offset = options.offset;
    this.state = state;
    this.f = state.f;
    this.cpu = state.cpu;
    this.imports = options.imports;
    this.exits = options.exits;
    this.branch = options.branch;
    this.size = this.form.size;
    this.memory = this.form.memory;
    this.depth = state.f.depth;
    this.direct = options.direct;
    this.host = this.hostFunctions();
  }

  emit(): void {
    const { definition } = this.form;
    if (definition.fpu) this.raiseIf(i32.load(this.cpu, CPU.ts), VECTOR.NM);
    definition.exec(this);
  }

  bits(i: number): number {
    return formBits(this.form, i);
  }

  // --- Registers ---

  private use(register: number): Local<'i64'> {
    this.state.used.add(register);
    return this.state.registers[register]!;
  }

  reg(index: number): I64 {
    // A copy: the value as it is now, whatever is set later.
    return this.f.let(this.use(index));
  }

  setReg(index: number, value: I64): void {
    this.f.set(this.use(index), value);
    this.state.dirty.add(index);
  }

  regPart(index: number, bits: number): I64 {
    return this.f.let(this.sext(this.use(index), bits));
  }

  setRegPart(index: number, bits: number, value: I64): void {
    if (bits === 64) this.setReg(index, value);
    else if (bits === 32) this.setReg(index, i64.and(value, 0xffffffff));
    else this.insert(index, 0, bits, value);
  }

  private insert(index: number, shift: number, bits: number, value: I64): void {
    const mask = ((1n << BigInt(bits)) - 1n) << BigInt(shift);
    const field = i64.and(shift === 0 ? value : i64.shl(value, shift), i64.const(mask));
    this.setReg(index, i64.or(i64.and(this.use(index), i64.const(BigInt.asIntN(64, ~mask))), field));
  }

  /** General register behind a slot: its number, and the bit where the operand starts (8 for AH to BH). */
  private general(slot: number): { index: number; shift: number } {
    return { index: (slot - CPU.regs) >>> 3, shift: (slot & 7) * 8 };
  }

  private readGeneral(slot: number, bits: number, signed: boolean): I64 {
    const { index, shift } = this.general(slot);
    const whole = this.use(index);
    const value = shift === 0 ? whole : i64.shr_u(whole, shift);
    return this.f.let(signed ? this.sext(value, bits) : this.zext(value, bits));
  }

  private writeGeneral(slot: number, bits: number, value: I64): void {
    const { index, shift } = this.general(slot);
    if (shift === 0) this.setRegPart(index, bits, value);
    else this.insert(index, shift, bits, value);
  }

  // --- Operands ---

  /** Slot of a register operand, or null for memory. */
  private slot(i: number): number | null {
    switch (this.form.operands[i]!.kind) {
      case 'G':
      case 'Z':
      case 'V':
      case 'P':
      case 'S':
        return this.instruction.reg;
      case 'R':
      case 'U':
      case 'N':
        return this.instruction.rm;
      case 'E':
      case 'W':
      case 'Q':
        return this.memory ? null : this.instruction.rm;
      case 'AL':
      case 'A':
      case 'AX':
        return CPU.regs;
      case 'CL':
        return CPU.regs + 8;
      case 'DX':
        return CPU.regs + 16;
      default:
        return null;
    }
  }

  private isGeneral(slot: number): boolean {
    return slot < CPU.regs + 16 * 8;
  }

  get(i: number): I64 {
    return this.read(i, true);
  }

  getU(i: number): I64 {
    return this.read(i, false);
  }

  private read(i: number, signed: boolean): I64 {
    const { kind } = this.form.operands[i]!;
    const bits = this.bits(i);
    if (kind === '1') return i64.const(1);
    if (kind === 'I' || kind === 'J') return signed ? this.immediate() : this.zext(this.immediate(), bits);
    const slot = this.slot(i);
    if (slot !== null) {
      if (this.isGeneral(slot)) return this.readGeneral(slot, bits, signed);
      return this.f.let((signed ? loadSigned : loadUnsigned)(this.cpu, slot, bits));
    }
    const key = i * 2 + (signed ? 1 : 0);
    let value = this.values.get(key);
    if (value === undefined) {
      value = this.f.let((signed ? loadSigned : loadUnsigned)(this.pointerOf(i), 0, bits));
      this.values.set(key, value);
    }
    return value;
  }

  set(i: number, value: I64): void {
    const { f } = this;
    const bits = this.bits(i);
    const slot = this.slot(i);
    if (slot !== null) {
      if (this.isGeneral(slot)) this.writeGeneral(slot, bits, value);
      else f.store(this.cpu, value, slot, bits);
      return;
    }
    const held = f.value(value);
    const pointer = this.pointerOf(i);
    f.store(pointer, held, 0, bits);
    this.commitPointer(pointer);
  }

  getV(i: number): V128 {
    const slot = this.slot(i);
    const bits = this.bits(i);
    const base = slot === null ? this.pointerOf(i) : this.cpu;
    const offset = slot ?? 0;
    if (slot !== null && this.isGeneral(slot))
      return v128.i64x2_replace(v128.const(0n, 0n), 0, this.readGeneral(slot, bits, false));
    if (bits === 128) return v128.load(base, offset);
    if (bits === 64) return v128.load64_zero(base, offset);
    if (bits === 32) return v128.load32_zero(base, offset);
    return v128.i64x2_replace(v128.const(0n, 0n), 0, loadUnsigned(base, offset, bits));
  }

  setV(i: number, value: V128, bits = this.bits(i)): void {
    const { f } = this;
    const slot = this.slot(i);
    if (slot !== null && this.isGeneral(slot)) {
      this.writeGeneral(slot, bits, v128.i64x2_extract(value, 0));
      return;
    }
    const base = slot === null ? this.pointerOf(i) : this.cpu;
    const offset = slot ?? 0;
    if (bits === 128) f.store(base, value, offset);
    else f.store(base, v128.i64x2_extract(value, 0), offset, bits);
    if (slot === null) this.commitPointer(base);
  }

  private pointerOf(i: number, write = this.form.operands[i]!.written): Local<'i32'> {
    let pointer = this.pointers.get(i);
    if (pointer === undefined) {
      const bytes = this.bits(i) / 8;
      const va = this.f.let(this.address());
      if (bytes === 16 && !this.form.definition.unaligned) this.raiseIf(i32.and(i32.wrap(va), 15), VECTOR.GP);
      pointer = this.check(va, bytes, write);
      this.pointers.set(i, pointer);
    }
    return pointer;
  }

  pointer(i: number, write: boolean): I32 {
    const slot = this.slot(i);
    if (slot === null) return this.pointerOf(i, write);
    if (!this.isGeneral(slot)) return i32.add(this.cpu, slot);
    // A general register has no bytes in memory while it is in a local: through the state's slot.
    const { index } = this.general(slot);
    this.f.store(this.cpu, this.use(index), CPU.regs + index * 8);
    this.spilled.add(index);
    return i32.add(this.cpu, slot);
  }

  /** General registers that were handed out as pointers: read back by commit. */
  private readonly spilled = new Set<number>();

  commit(i: number): void {
    const slot = this.slot(i);
    if (slot === null) {
      const pointer = this.pointers.get(i);
      if (pointer !== undefined) this.commitPointer(pointer);
    } else if (this.isGeneral(slot)) {
      const { index } = this.general(slot);
      if (this.spilled.has(index)) this.setReg(index, i64.load(this.cpu, CPU.regs + index * 8));
    }
  }

  address(segment = true): I64 {
    const { instruction, form } = this;
    let sum: I64;
    if (instruction.absolute) sum = this.immediate();
    else {
      const displacement = instruction.ripRelative
        ? instruction.displacement + this.offset + instruction.length
        : instruction.displacement;
      const part = (slot: number): I64 => {
        if (slot === CPU.zero) return i64.const(0);
        if (slot === CPU.page) return this.state.page;
        return this.use((slot - CPU.regs) >>> 3);
      };
      const index = part(instruction.index);
      const scaled = instruction.scale === 0 ? index : i64.shl(index, instruction.scale);
      const base = form.memory ? part(instruction.rm) : i64.const(0);
      sum = i64.add(i64.add(base, instruction.index === CPU.zero ? 0 : scaled), displacement);
      if (instruction.address32 && form.definition.ownAddress !== true) sum = i64.and(sum, 0xffffffff);
    }
    if (!segment || instruction.segment === CPU.zero) return sum;
    return i64.add(sum, i64.load(this.cpu, instruction.segment));
  }

  immediate(): I64 {
    const { immediateLow, immediateHigh } = this.instruction;
    if (immediateHigh === immediateLow >> 31) return i64.const(immediateLow);
    return i64.const(BigInt.asIntN(64, (BigInt(immediateHigh) << 32n) | BigInt(immediateLow >>> 0)));
  }

  segmentBase(): I64 {
    const { segment } = this.instruction;
    return segment === CPU.zero ? i64.const(0) : i64.load(this.cpu, segment);
  }

  addressMask(): I64 {
    return i64.const(this.instruction.address32 ? 0xffffffff : -1);
  }

  // --- Guest memory ---

  load(va: I64, bits: number): I64 {
    return loadSigned(this.lookup(va, bits / 8, false), 0, bits);
  }

  store(va: I64, bits: number, value: I64): void {
    const held = this.f.value(value);
    const pointer = this.lookup(va, bits / 8, true);
    this.f.store(pointer, held, 0, bits);
    this.commitPointer(pointer);
  }

  lookup(va: I64, bytes: number, write: boolean): I32 {
    return this.check(this.f.let(va), bytes, write);
  }

  private check(va: Local<'i64'>, bytes: number, write: boolean): Local<'i32'> {
    const { f, cpu } = this;
    const linear = f.local('i32');
    const slot = f.let(i32.add(this.state.tlb, tlbIndex(va)));
    const tag = i64.load(slot, write ? TLB.write : TLB.read);
    f.if(
      i64.eq(tag, lastPage(va, bytes)),
      () => f.set(linear, i32.add(i32.load(slot, TLB.addend), i32.wrap(va))),
      () => {
        f.set(linear, call('i32', this.imports.access, cpu, va, i32.const(bytes | (write ? INFO_WRITE : 0))));
        f.if(i32.eqz(linear), () => this.exits.fault());
        // Code was dropped, perhaps this very region: nothing of the instruction is done yet.
        if (write)
          f.if(i32.load(cpu, CPU.codeDropped), () => {
            f.store(cpu, i32.const(0), CPU.codeDropped);
            this.exits.retry();
          });
      },
    );
    return linear;
  }

  commitPointer(pointer: I32): void {
    const { f, cpu } = this;
    f.if(i32.eq(pointer, i32.add(cpu, CPU.scratch)), () => f.do(this.imports.commit, cpu));
  }

  sext(value: I64, bits: number): I64 {
    if (bits === 8) return i64.extend8_s(value);
    if (bits === 16) return i64.extend16_s(value);
    if (bits === 32) return i64.extend32_s(value);
    return value;
  }

  zext(value: I64, bits: number): I64 {
    return bits >= 64 ? value : i64.and(value, 2 ** bits - 1);
  }

  // --- Flags ---

  private setWord(word: FlagWord, value: Expr): void {
    const { state, f } = this;
    state.flagsUsed = true;
    state.flagsDirty = true;
    state.pending.compared = null;
    const conditional = f.depth > this.depth;
    if (conditional) this.conditionalFlags = true;
    if (conditional || this.direct) {
      // On some paths only: the local itself. What was pending has been flushed (see build.ts).
      f.set(state.flags[word], value);
      state.pending[word] = null;
    } else state.pending[word] = value;
  }

  private word<T extends 'i32' | 'i64'>(word: FlagWord, _type: T): Expr<T> {
    this.state.flagsUsed = true;
    return (this.state.pending[word] ?? this.state.flags[word]) as Expr<T>;
  }

  zsp(result: I64): void {
    const value = this.f.value(result);
    this.setWord('zres', value);
    this.setWord('spres', value);
  }

  cf(value: I32): void {
    this.setWord('cf', value);
  }

  of(value: I64): void {
    this.setWord('of', value);
  }

  af(value: I64): void {
    this.setWord('af', i32.wrap(value));
  }

  compared(a: I64, b: I64): void {
    if (this.f.depth === this.depth && !this.direct) this.state.pending.compared = { a, b };
  }

  getCf(): I32 {
    return this.f.let(this.word('cf', 'i32'));
  }

  flag(name: 'CF' | 'PF' | 'AF' | 'ZF' | 'SF' | 'OF' | 'DF'): I32 {
    switch (name) {
      case 'CF':
        return this.word('cf', 'i32');
      case 'ZF':
        return i64.eqz(this.word('zres', 'i64'));
      case 'SF':
        return i64.lt_s(this.word('spres', 'i64'), 0);
      case 'OF':
        return i64.lt_s(this.word('of', 'i64'), 0);
      case 'AF':
        return i32.and(i32.shr_u(this.word('af', 'i32'), 4), 1);
      case 'DF':
        return i32.shr_u(i32.load(this.cpu, CPU.df), 31);
      case 'PF':
        return i32.xor(i32.and(i32.popcnt(i32.and(i32.wrap(this.word('spres', 'i64')), 0xff)), 1), 1);
    }
  }

  condition(cc: number): I32 {
    const positive = this.positiveCondition(cc >> 1);
    return cc & 1 ? i32.eqz(positive) : positive;
  }

  private positiveCondition(pair: number): I32 {
    const { compared } = this.state.pending;
    if (compared !== null) {
      const { a, b } = compared;
      if (pair === 1) return i64.lt_u(a, b);
      if (pair === 2) return i64.eq(a, b);
      if (pair === 3) return i64.le_u(a, b);
      if (pair === 6) return i64.lt_s(a, b);
      if (pair === 7) return i64.le_s(a, b);
    }
    switch (pair) {
      case 0:
        return this.flag('OF');
      case 1:
        return this.word('cf', 'i32');
      case 2:
        return this.flag('ZF');
      case 3:
        return i32.or(this.word('cf', 'i32'), this.flag('ZF'));
      case 4:
        return this.flag('SF');
      case 5:
        return this.flag('PF');
      case 6:
        return i64.lt_s(i64.xor(this.word('spres', 'i64'), this.word('of', 'i64')), 0);
      default:
        return i32.or(this.positiveCondition(6), this.flag('ZF'));
    }
  }

  getFlags(): I32 {
    const STATUS = FLAG.CF | FLAG.PF | FLAG.AF | FLAG.ZF | FLAG.SF | FLAG.OF | FLAG.DF;
    return [
      i32.or(i32.and(i32.load(this.cpu, CPU.rflags), ~STATUS), FLAG.ONE),
      this.word('cf', 'i32'),
      i32.shl(this.flag('PF'), 2),
      i32.and(this.word('af', 'i32'), FLAG.AF),
      i32.shl(this.flag('ZF'), 6),
      i32.shl(this.flag('SF'), 7),
      i32.shl(this.flag('DF'), 10),
      i32.shl(this.flag('OF'), 11),
    ].reduce((all, bit) => i32.or(all, bit));
  }

  setFlags(value: I32, mask: number): void {
    const { f, cpu } = this;
    const bits = f.value(value);
    if (mask & ~(FLAG.CF | FLAG.PF | FLAG.AF | FLAG.ZF | FLAG.SF | FLAG.OF | FLAG.DF))
      throw new TypeError(`${this.form.definition.name} changes system flags: it must not be translated`);
    if (mask & FLAG.CF) this.setWord('cf', f.value(i32.and(bits, 1)));
    if (mask & FLAG.AF) this.setWord('af', bits);
    if (mask & FLAG.ZF) this.setWord('zres', f.value(i64.extend_u(i32.eqz(i32.and(bits, FLAG.ZF)))));
    if (mask & (FLAG.SF | FLAG.PF)) {
      const old = f.let(this.word('spres', 'i64'));
      const odd =
        mask & FLAG.PF
          ? i64.extend_u(i32.eqz(i32.and(bits, FLAG.PF)))
          : i64.and(i64.popcnt(i64.and(old, 0xff)), 1);
      const sign =
        mask & FLAG.SF
          ? i64.shl(i64.extend_u(i32.and(bits, FLAG.SF)), 56)
          : i64.and(old, i64.const(-(1n << 63n)));
      this.setWord('spres', f.let(i64.or(sign, odd)));
    }
    if (mask & FLAG.DF) f.store(cpu, i32.sub(1, i32.shr_u(i32.and(bits, FLAG.DF), 9)), CPU.df);
    if (mask & FLAG.OF) this.setWord('of', f.value(i64.shl(i64.extend_u(i32.and(bits, FLAG.OF)), 52)));
  }

  flagsChanged(): void {
    throw new TypeError(`${this.form.definition.name} must not be translated`);
  }

  // --- Control ---

  next(): I64 {
    return i64.add(this.state.page, this.offset + this.instruction.length);
  }

  here(): I64 {
    return i64.add(this.state.page, this.offset);
  }

  target(): I64 {
    return i64.add(this.state.page, this.offset + this.instruction.length + this.instruction.immediateLow);
  }

  jump(): void {
    this.branch(null);
  }

  jumpIf(condition: I32): void {
    this.branch(condition);
  }

  jumpTo(va: I64): void {
    this.exits.transfer(va);
  }

  checkTarget(va: I64, undo?: () => void): void {
    this.f.if(notCanonical(va), () => {
      undo?.();
      this.raise(VECTOR.GP);
    });
  }

  raise(vector: number, error: I32Like = 0): void {
    const code = typeof error === 'number' ? i32.const(error) : error;
    this.f.do(this.imports.raise, this.cpu, i32.const(vector), code);
    this.exits.fault();
  }

  raiseIf(condition: I32, vector: number, error: I32Like = 0): void {
    this.f.if(condition, () => this.raise(vector, error));
  }

  raiseVector(verdict: I32): void {
    const { f, cpu } = this;
    const vector = f.let(verdict);
    f.if(vector, () => {
      f.do(this.imports.raise, cpu, i32.and(vector, 0xff), i32.shr_u(vector, 8));
      this.exits.fault();
    });
  }

  exit(reason: number): void {
    this.f.store(this.cpu, i32.const(reason), CPU.exitReason);
    this.exits.exit();
  }

  again(): void {
    this.exits.retry();
  }

  /** Calls into TypeScript that look at registers or flags: they see the state, and what they change is read back. */
  private seen(callee: RegionImports[keyof RegionImports], ...args: I32[]): I32 {
    const { f, state } = this;
    state.flagsUsed = true;
    state.flagsDirty = true;
    state.flush();
    for (let i = 0; i < 16; i++) {
      state.used.add(i);
      state.dirty.add(i);
    }
    state.store(state.dirty, true);
    const result = f.let(call('i32', callee, ...args));
    state.load(state.used, true);
    return result;
  }

  private hostFunctions(): HostFunctions {
    const { imports, cpu } = this;
    const i = (value: I32Like) => (typeof value === 'number' ? i32.const(value) : value);
    return {
      sseFloat: (op, dst, src, imm) => call('i32', imports.sseFloat, i32.const(op), cpu, dst, src, i(imm)),
      x87: (opcode, modrm, operand) => this.seen(imports.x87, cpu, i32.const(opcode), modrm, operand),
      fpu: (which, operand, value) => call('i32', imports.fpu, i32.const(which), cpu, operand, i(value)),
      rdtsc: (withAux) => this.seen(imports.rdtsc, cpu, i32.const(withAux ? 1 : 0)),
      cpuid: () => this.seen(imports.cpuid, cpu),
      random: () => call('i32', imports.random, cpu),
      segmentQuery: (kind, selector) => call('i32', imports.segmentQuery, cpu, i32.const(kind), selector),
      selector: (register) => i64.load16u(cpu, CPU.selectors + register * 8),
      loadSegment: (register, selector) => call('i32', imports.loadSegment, cpu, register, selector),
      checkCodeSegment: (selector, isReturn) =>
        call('i32', imports.checkCodeSegment, cpu, selector, i32.const(isReturn ? 1 : 0)),
    };
  }
}

function loadSigned(base: I32, offset: number, bits: number): I64 {
  if (bits === 8) return i64.load8s(base, offset);
  if (bits === 16) return i64.load16s(base, offset);
  if (bits === 32) return i64.load32s(base, offset);
  if (bits === 64) return i64.load(base, offset);
  throw new RangeError(`no integer of ${bits} bits`);
}

function loadUnsigned(base: I32, offset: number, bits: number): I64 {
  if (bits === 8) return i64.load8u(base, offset);
  if (bits === 16) return i64.load16u(base, offset);
  if (bits === 32) return i64.load32u(base, offset);
  return loadSigned(base, offset, bits);
}

export { select };
