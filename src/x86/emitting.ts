/**
 * What every implementation of Semantics has in common: it emits into a function, checks guest memory before use,
 * raises exceptions, and reads conditions off the flag words (see state.ts). Where operands and flag words are, and
 * where control goes, its heirs say.
 */
import {
  type Callee,
  call,
  type Expr,
  type Func,
  type I32,
  type I32Like,
  type I64,
  i32,
  i64,
  Local,
  type V128,
  v128,
} from '../wasm/index.ts';
import { type Form, formBits } from './isa/form.ts';
import type { HostFunctions, Place, Semantics } from './isa/semantics.ts';
import type { SseSemantics } from './isa/sse-semantics.ts';
import { notCanonical } from './mmu.ts';
import { CPU, VECTOR } from './state.ts';

export const FLAG_WORDS = ['zres', 'spres', 'of', 'cf', 'af'] as const;
export type FlagWord = (typeof FLAG_WORDS)[number];

/** The functions of the MMU's module that emitted code calls. */
export interface CoreFunctions {
  readonly raise: Callee;
}

export abstract class EmittingSemantics implements Semantics {
  readonly f: Func;
  readonly form: Form;
  readonly size: number;
  readonly cpu: Local<'i32'>;
  readonly memory: boolean;
  abstract readonly host: HostFunctions;
  abstract readonly sse: SseSemantics;
  protected readonly pointers = new Map<number, I32>();
  private readonly core: CoreFunctions;

  constructor(f: Func, form: Form, cpu: Local<'i32'>, core: CoreFunctions) {
    this.f = f;
    this.form = form;
    this.size = form.size;
    this.memory = form.memory;
    this.cpu = cpu;
    this.core = core;
  }

  /** Leaves before the instruction, with the exception in the exit fields. */
  protected abstract fault(): void;
  /** The inlined look-up of guest memory, or a fault. */
  /** @param place what the address is known as: null for the memory operand, undefined for nothing */
  protected abstract check(va: Local<'i64'>, bytes: number, write: boolean, place?: Place | null): I32;
  /** A flag word's present value. */
  protected abstract word<T extends 'i32' | 'i64'>(word: FlagWord, type: T): Expr<T>;

  abstract get(i: number): I64;
  abstract getU(i: number): I64;
  abstract set(i: number, value: I64): void;
  abstract getV(i: number): V128;
  abstract setV(i: number, value: V128, bits?: number): void;
  abstract pointer(i: number, write: boolean): I32;
  abstract commit(i: number): void;
  abstract commitPointer(pointer: I32): void;
  abstract address(segment?: boolean): I64;
  abstract immediate(): I64;
  abstract reg(index: number): I64;
  abstract setReg(index: number, value: I64): void;
  abstract addToReg(index: number, constant: number): void;
  abstract regPart(index: number, bits: number): I64;
  abstract setRegPart(index: number, bits: number, value: I64): void;
  abstract segmentBase(): I64;
  abstract addressMask(): I64;
  abstract zsp(result: I64): void;
  abstract cf(value: I32): void;
  abstract of(value: I64): void;
  abstract af(value: I64): void;
  abstract operation(kind: 'sub' | 'add', a: I64, b: I64, bits: number): void;
  abstract getCf(): I32;
  abstract getFlags(): I32;
  abstract setFlags(value: I32, mask: number): void;
  abstract flagsChanged(): void;
  abstract next(): I64;
  abstract here(): I64;
  abstract target(): I64;
  abstract jump(): void;
  abstract jumpIf(condition: I32): void;
  abstract jumpTo(va: I64): void;
  abstract exit(reason: number): void;
  abstract again(): void;

  /** Emits what the instruction does. */
  emit(): void {
    const { definition } = this.form;
    if (definition.fpu) this.requireFpu();
    definition.exec(this);
  }

  protected requireFpu(): void {
    this.raiseIf(i32.load(this.cpu, CPU.ts), VECTOR.NM);
  }

  bits(i: number): number {
    return formBits(this.form, i);
  }

  load(va: I64, bits: number, place?: Place): I64 {
    return loadSigned(this.check(this.held(va), bits / 8, false, place), 0, bits);
  }

  store(va: I64, bits: number, value: I64, place?: Place): void {
    const held = this.f.value(value);
    const pointer = this.check(this.held(va), bits / 8, true, place);
    this.f.store(pointer, held, 0, bits);
    this.commitPointer(pointer);
  }

  lookup(va: I64, bytes: number, write: boolean): I32 {
    return this.check(this.held(va), bytes, write);
  }

  /** A value in a variable, for use at once. */
  private held(value: I64): Local<'i64'> {
    return value instanceof Local ? (value as Local<'i64'>) : this.f.let(value);
  }

  /** Where operand i's bytes in memory lie: checked once, for alignment where the instruction asks for it. */
  protected pointerOf(i: number, write = this.form.operands[i]!.written): I32 {
    let pointer = this.pointers.get(i);
    if (pointer === undefined) {
      const bytes = this.bits(i) / 8;
      const va = this.f.let(this.address());
      if (bytes === 16 && !this.form.definition.unaligned) this.raiseIf(i32.and(i32.wrap(va), 15), VECTOR.GP);
      pointer = this.check(va, bytes, write, null);
      this.pointers.set(i, pointer);
    }
    return pointer;
  }

  /** Writes a memory operand. */
  protected storeOperand(i: number, value: I64): void {
    const held = this.f.value(value);
    const pointer = this.pointerOf(i);
    this.f.store(pointer, held, 0, this.bits(i));
    this.commitPointer(pointer);
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

  /** The eight conditions that are not the negation of another: O B E BE S P L LE. */
  protected positiveCondition(pair: number): I32 {
    switch (pair) {
      case 0:
        return this.flag('OF');
      case 1:
        return this.flag('CF');
      case 2:
        return this.flag('ZF');
      case 3:
        return i32.or(this.flag('CF'), this.flag('ZF'));
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

  checkTarget(va: I64, undo?: () => void): void {
    const refuse = () => {
      undo?.();
      this.raise(VECTOR.GP);
    };
    this.f.if(notCanonical(va), refuse, undefined, false);
  }

  raise(vector: number, error: I32Like = 0): void {
    const code = typeof error === 'number' ? i32.const(error) : error;
    this.f.do(this.core.raise, this.cpu, i32.const(vector), code);
    this.fault();
  }

  raiseIf(condition: I32, vector: number, error: I32Like = 0): void {
    this.f.if(condition, () => this.raise(vector, error), undefined, false);
  }

  raiseVector(verdict: I32): void {
    const { f, cpu } = this;
    const vector = f.let(verdict);
    f.if(vector, () => {
      f.do(this.core.raise, cpu, i32.and(vector, 0xff), i32.shr_u(vector, 8));
      this.fault();
    });
  }
}

/** The imports behind HostFunctions. */
export type HostCallees = Readonly<
  Record<
    | 'sseFloat'
    | 'x87'
    | 'fpu'
    | 'rdtsc'
    | 'cpuid'
    | 'random'
    | 'segmentQuery'
    | 'loadSegment'
    | 'checkCodeSegment',
    Callee
  >
>;

/** @param seen a call that looks at general registers or flags, or changes them */
export function hostFunctions(
  cpu: I32,
  imports: HostCallees,
  seen: (callee: Callee, ...args: I32[]) => I32,
): HostFunctions {
  const i = (value: I32Like) => (typeof value === 'number' ? i32.const(value) : value);
  return {
    sseFloat: (op, dst, src, imm) => call('i32', imports.sseFloat, i32.const(op), cpu, dst, src, i(imm)),
    x87: (opcode, modrm, operand) => seen(imports.x87, cpu, i32.const(opcode), modrm, operand),
    fpu: (which, operand, value) => call('i32', imports.fpu, i32.const(which), cpu, operand, i(value)),
    rdtsc: (withAux) => seen(imports.rdtsc, cpu, i32.const(withAux ? 1 : 0)),
    cpuid: () => seen(imports.cpuid, cpu),
    random: () => call('i32', imports.random, cpu),
    segmentQuery: (kind, selector) => call('i32', imports.segmentQuery, cpu, i32.const(kind), selector),
    selector: (register) => i64.load16u(cpu, CPU.selectors + register * 8),
    loadSegment: (register, selector) => call('i32', imports.loadSegment, cpu, register, selector),
    checkCodeSegment: (selector, isReturn) =>
      call('i32', imports.checkCodeSegment, cpu, selector, i32.const(isReturn ? 1 : 0)),
  };
}

export function loadSigned(base: I32, offset: number, bits: number): I64 {
  if (bits === 8) return i64.load8s(base, offset);
  if (bits === 16) return i64.load16s(base, offset);
  if (bits === 32) return i64.load32s(base, offset);
  if (bits === 64) return i64.load(base, offset);
  throw new RangeError(`no integer of ${bits} bits`);
}

/** A vector of the low `bits` bits at a linear address, zero above. */
export function loadVector(base: I32, offset: number, bits: number): V128 {
  if (bits === 128) return v128.load(base, offset);
  if (bits === 64) return v128.load64_zero(base, offset);
  if (bits === 32) return v128.load32_zero(base, offset);
  return v128.i64x2_replace(v128.const(0n, 0n), 0, loadUnsigned(base, offset, bits));
}

/** Stores the low `bits` bits of a vector. */
export function storeVector(f: Func, base: I32, offset: number, bits: number, value: V128): void {
  if (bits === 128) f.store(base, value, offset);
  else f.store(base, v128.i64x2_extract(value, 0), offset, bits);
}

export function loadUnsigned(base: I32, offset: number, bits: number): I64 {
  if (bits === 8) return i64.load8u(base, offset);
  if (bits === 16) return i64.load16u(base, offset);
  if (bits === 32) return i64.load32u(base, offset);
  return loadSigned(base, offset, bits);
}
