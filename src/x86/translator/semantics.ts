/**
 * Semantics for the translator: operands are known, general registers live in locals, flags are put off (flags.ts).
 */
import {
  type Callee,
  call,
  Displaced,
  type Expr,
  type I32,
  type I32Like,
  type I64,
  i32,
  i64,
  type Local,
  type V128,
  v128,
} from '../../wasm/index.ts';
import type { Instruction } from '../decoder.ts';
import {
  EmittingSemantics,
  type FlagWord,
  hostFunctions,
  loadSigned,
  loadUnsigned,
  loadVector,
  storeVector,
} from '../emitting.ts';
import type { HostFunctions, Place } from '../isa/semantics.ts';
import type { FloatComparison } from '../isa/sse-semantics.ts';
import { accessInfo, emitLookup } from '../mmu.ts';
import { CPU, FLAG, STATUS_FLAGS } from '../state.ts';
import type { Member } from './addresses.ts';
import { type Access, type Facts, sameAccess } from './facts.ts';
import type { RegionImports } from './imports.ts';
import { isGeneral, operandSlot, writtenRegisters } from './operands.ts';
import type { RegionExits, RegionState } from './region-state.ts';
import { Registers } from './registers.ts';
import { effects, xmmOf } from './vectors-facts.ts';
import { VectorSemantics } from './vectors-semantics.ts';

/** Flags that have words of their own (see state.ts). */
const KEPT_FLAGS = STATUS_FLAGS | FLAG.DF;

export class TranslatorSemantics extends EmittingSemantics {
  private hostOnce: HostFunctions | undefined;
  private sseOnce: VectorSemantics | undefined;
  /** What the definition does besides its operands. */
  private conditionalFlags = false;
  private conditionalChanges = false;
  private readonly changed: number[] = [];
  private readonly additions: Place[] = [];
  private readonly accesses: Access[] = [];
  private readonly instruction: Instruction;
  private readonly offset: number;
  private readonly state: RegionState;
  private readonly imports: RegionImports;
  private readonly exits: RegionExits;
  private readonly branch: (condition: I32 | null) => void;
  private readonly depth: number;
  private readonly direct: boolean;
  private readonly registers: Registers;
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
    /** It changes registers on some paths only. */
    copying: boolean;
  }) {
    const { instruction, state } = options;
    super(state.f, instruction.form!, state.cpu, options.imports);
    this.instruction = instruction;
    this.offset = options.offset;
    this.state = state;
    this.imports = options.imports;
    this.exits = options.exits;
    this.branch = options.branch;
    this.depth = state.f.depth;
    this.direct = options.direct;
    this.registers = new Registers(state, options.copying);
  }

  // Most instructions want neither.

  get host(): HostFunctions {
    this.hostOnce ??= this.makeHost();
    return this.hostOnce;
  }

  get sse(): VectorSemantics {
    this.sseOnce ??= this.makeSse();
    return this.sseOnce;
  }

  private makeHost(): HostFunctions {
    const { imports } = this;
    const { cpu, vectors } = this.state;
    return {
      ...hostFunctions(cpu, imports, (callee, ...args) => this.seen(callee, ...args)),
      fpu: (which, operand, value) =>
        vectors.seen(
          imports.fpu,
          i32.const(which),
          cpu,
          operand,
          typeof value === 'number' ? i32.const(value) : value,
        ),
    };
  }

  private makeSse(): VectorSemantics {
    const { state } = this;
    return new VectorSemantics(
      {
        f: state.f,
        cpu: state.cpu,
        bits: (i) => this.bits(i),
        slot: (i) => this.slot(i),
        pointerOf: (i) => this.pointerOf(i),
        leaveTo: (op, dst, src, imm) => {
          state.endings.float(op, dst, src, imm, this.here());
          this.exits.behind();
        },
        compared: (comparison) => this.compared(comparison),
        getV: (i) => this.getV(i),
        setV: (i, value) => this.setV(i, value),
      },
      state.vectors,
    );
  }

  /** What emitting it showed. */
  get facts(): Facts {
    const { changed } = this;
    const operands = changed.length === 0 ? [] : writtenRegisters(this.instruction);
    return {
      conditionalFlags: this.conditionalFlags,
      conditionalChanges: this.conditionalChanges,
      changes: changed.filter((register) => !operands.includes(register)),
      additions: this.additions,
      accesses: this.accesses,
    };
  }

  // --- Registers ---

  /** The value as it is now, whatever is set later. */
  reg(index: number): I64 {
    return this.registers.read(index);
  }

  setReg(index: number, value: I64): void {
    if (!this.changed.includes(index)) this.changed.push(index);
    this.writeReg(index, value);
  }

  addToReg(index: number, constant: number): void {
    this.additions.push({ register: index, displacement: constant });
    this.writeReg(index, i64.add(this.registers.use(index), constant));
  }

  private writeReg(index: number, value: I64): void {
    if (this.conditional) this.conditionalChanges = true;
    this.registers.write(index, value);
  }

  regPart(index: number, bits: number): I64 {
    if (bits === 64) return this.reg(index);
    return this.f.let(this.sext(this.registers.use(index), bits));
  }

  setRegPart(index: number, bits: number, value: I64): void {
    if (bits === 64) this.setReg(index, value);
    else if (bits === 32) this.setReg(index, i64.and(value, 0xffffffff));
    else this.insert(index, 0, bits, value);
  }

  private insert(index: number, shift: number, bits: number, value: I64): void {
    const mask = ((1n << BigInt(bits)) - 1n) << BigInt(shift);
    const field = i64.and(shift === 0 ? value : i64.shl(value, shift), i64.const(mask));
    this.setReg(
      index,
      i64.or(i64.and(this.registers.use(index), i64.const(BigInt.asIntN(64, ~mask))), field),
    );
  }

  /** General register behind a slot: its number, and the bit where the operand starts (8 for AH to BH). */
  private general(slot: number): { index: number; shift: number } {
    return { index: (slot - CPU.regs) >>> 3, shift: (slot & 7) * 8 };
  }

  private readGeneral(slot: number, bits: number, signed: boolean): I64 {
    const { index, shift } = this.general(slot);
    if (bits === 64) return this.reg(index);
    const whole = this.registers.use(index);
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
    return operandSlot(this.instruction, this.form, i);
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
      if (isGeneral(slot)) return this.readGeneral(slot, bits, signed);
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
      if (isGeneral(slot)) this.writeGeneral(slot, bits, value);
      else f.store(this.cpu, value, slot, bits);
      return;
    }
    this.storeOperand(i, value);
  }

  getV(i: number): V128 {
    const slot = this.slot(i);
    const bits = this.bits(i);
    const base = slot === null ? this.pointerOf(i) : this.cpu;
    const offset = slot ?? 0;
    if (slot !== null && isGeneral(slot))
      return v128.i64x2_replace(v128.const(0n, 0n), 0, this.readGeneral(slot, bits, false));
    const xmm = xmmOf(slot);
    if (xmm >= 0) return this.sse.getBits(xmm, bits);
    return loadVector(base, offset, bits);
  }

  setV(i: number, value: V128, bits = this.bits(i)): void {
    const { f } = this;
    const slot = this.slot(i);
    if (slot !== null && isGeneral(slot)) {
      this.writeGeneral(slot, bits, v128.i64x2_extract(value, 0));
      return;
    }
    const xmm = xmmOf(slot);
    if (xmm >= 0) {
      this.sse.setBits(xmm, value, bits);
      return;
    }
    const base = slot === null ? this.pointerOf(i) : this.cpu;
    const offset = slot ?? 0;
    storeVector(f, base, offset, bits, value);
  }

  pointer(i: number, write: boolean): I32 {
    const slot = this.slot(i);
    if (slot === null) return this.pointerOf(i, write);
    const xmm = xmmOf(slot);
    if (xmm >= 0) return this.state.vectors.spilled(xmm);
    if (!isGeneral(slot)) return i32.add(this.cpu, slot);
    // A general register has no bytes in memory while it is in a local: through the state's slot.
    const { index } = this.general(slot);
    this.f.store(this.cpu, this.registers.use(index), CPU.regs + index * 8);
    this.spilled.add(index);
    return i32.add(this.cpu, slot);
  }

  /** General registers that were handed out as pointers: read back by commit. */
  private readonly spilled = new Set<number>();

  commit(i: number): void {
    const slot = this.slot(i);
    if (slot === null) return;
    if (xmmOf(slot) >= 0) this.state.vectors.reload(xmmOf(slot));
    else if (isGeneral(slot)) {
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
        if (slot === CPU.page) return this.state.base;
        return this.registers.use((slot - CPU.regs) >>> 3);
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

  /** Stores into two pages are left to the interpreter (see interpreter/region-access.ts): none go to scratch. */
  commitPointer(): void {}

  protected check(va: Local<'i64'>, bytes: number, write: boolean, place?: Place | null): I32 {
    const member = place === undefined ? null : this.member({ place, bytes, write });
    const { f, cpu } = this;
    const info = accessInfo(bytes, write);
    if (member === null) {
      const linear = f.local('i32');
      this.lookUp(va, bytes, write, linear, () => call('i32', this.imports.reach, cpu, va, info));
      return linear;
    }
    const { group, first } = member;
    let start = member.linear;
    if (start === null) {
      start = f.outer('i32');
      const span = group.end - group.start;
      const low = first === 0 ? va : f.let(i64.sub(va, first));
      this.lookUp(low, span, group.write, start, () =>
        call('i32', this.imports.reachGroup, cpu, va, info, i32.const(first), i32.const(span)),
      );
      if (!this.conditional) this.state.addresses.check(group, start);
    }
    return first === 0 ? start : new Displaced(start, first);
  }

  private member(access: Access): Member | null {
    if (!this.accesses.some((each) => sameAccess(each, access))) this.accesses.push(access);
    return this.state.addresses.member(this.offset, this.instruction, access);
  }

  /** The inlined look-up of a range of bytes; where it fails, `reach` answers, or 0: out. */
  private lookUp(va: I64, bytes: number, write: boolean, linear: Local<'i32'>, reach: () => I32): void {
    const { f } = this;
    const miss = () => {
      this.exits.reaching();
      f.set(linear, reach());
      this.exits.unreached(i32.eqz(linear));
    };
    emitLookup(f, this.state.tlb, va, bytes, write, linear, miss, true);
  }

  // --- Flags ---

  /** Only some paths lead through what is being emitted. */
  private get conditional(): boolean {
    return this.f.depth > this.depth;
  }

  private setWord(word: FlagWord, value: Expr): void {
    const { flags } = this.state;
    if (this.conditional) this.conditionalFlags = true;
    if (this.conditional || this.direct) flags.setDirect(word, value);
    else flags.set(word, value);
  }

  protected word<T extends 'i32' | 'i64'>(word: FlagWord, _type: T): Expr<T> {
    return this.state.flags.word(word, !this.conditional) as Expr<T>;
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

  operation(kind: 'sub' | 'add', a: I64, b: I64, bits: number): void {
    if (!this.conditional && !this.direct) this.state.flags.setOperation({ kind, a, b, bits });
  }

  getCf(): I32 {
    return this.f.let(this.word('cf', 'i32'));
  }

  protected override positiveCondition(pair: number): I32 {
    const { operation } = this.state.flags;
    if (operation?.kind === 'sub') {
      const { a, b } = operation;
      if (pair === 1) return i64.lt_u(a, b);
      if (pair === 2) return i64.eq(a, b);
      if (pair === 3) return i64.le_u(a, b);
      if (pair === 6) return i64.lt_s(a, b);
      if (pair === 7) return i64.le_s(a, b);
    }
    if (operation?.comparison !== undefined) {
      const { below, equal, notAbove, unordered } = operation.comparison;
      if (pair === 1) return below;
      if (pair === 2) return equal;
      if (pair === 3) return notAbove;
      if (pair === 5) return unordered ?? i32.const(0);
    }
    return super.positiveCondition(pair);
  }

  getFlags(): I32 {
    return [
      i32.or(i32.and(i32.load(this.cpu, CPU.rflags), ~KEPT_FLAGS), FLAG.ONE),
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
    if (mask & ~KEPT_FLAGS)
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

  protected fault(): void {
    this.exits.fault();
  }

  override raise(vector: number, error: I32Like = 0): void {
    this.state.endings.raise(vector, error);
    this.exits.fault();
  }

  override raiseVector(verdict: I32): void {
    const vector = this.f.let(verdict);
    this.f.if(vector, () => {
      this.state.endings.raise(i32.and(vector, 0xff), i32.shr_u(vector, 8));
      this.exits.fault();
    });
  }

  next(): I64 {
    return i64.add(this.state.base, this.offset + this.instruction.length);
  }

  here(): I64 {
    return i64.add(this.state.base, this.offset);
  }

  target(): I64 {
    return i64.add(this.state.base, this.offset + this.instruction.length + this.instruction.immediateLow);
  }

  jump(): void {
    this.branch(null);
  }

  jumpIf(condition: I32): void {
    this.branch(condition);
  }

  /** An address of the region's own needs no look. */
  override checkTarget(va: I64, undo?: () => void): void {
    const likely = this.exits.likely();
    if (likely === null) super.checkTarget(va, undo);
    else this.f.if(i64.ne(va, likely), () => super.checkTarget(va, undo));
  }

  jumpTo(va: I64): void {
    this.exits.transfer(va);
  }

  exit(reason: number): void {
    this.f.store(this.cpu, i32.const(reason), CPU.exitReason);
    this.exits.exit();
  }

  again(): void {
    this.exits.retry();
  }

  // --- SSE ---

  override emit(): void {
    const { vectors } = this.state;
    const before = vectors.facts;
    super.emit();
    if (this.form.definition.fpu) vectors.facts = effects(this.instruction, before);
  }

  protected override requireFpu(): void {
    if (!this.state.vectors.enabled) super.requireFpu();
  }

  private compared(comparison: FloatComparison): void {
    const { below, equal, unordered, a, b } = comparison;
    const { f } = this;
    const uno = unordered === null ? i32.const(0) : f.let(unordered);
    this.setWord('cf', below);
    this.setWord('zres', i64.extend_u(i32.eqz(equal)));
    this.setWord('spres', i64.extend_u(i32.eqz(uno)));
    this.setWord('of', i64.const(0));
    this.setWord('af', i32.const(0));
    if (!this.conditional && !this.direct)
      this.state.flags.setOperation({ kind: 'float', a, b, bits: 8, comparison });
  }

  /** Calls into TypeScript that look at registers or flags: they see the state, and what they change is read back. */
  private seen(callee: Callee, ...args: I32[]): I32 {
    const { f, state } = this;
    const { flags } = state;
    flags.settleAll();
    for (let i = 0; i < 16; i++) state.used.add(i);
    state.store(state.used);
    const result = f.let(call('i32', callee, ...args));
    for (let i = 0; i < 16; i++) state.dirty.add(i);
    state.load(state.used);
    flags.reload();
    return result;
  }
}
