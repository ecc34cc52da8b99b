/**
 * The status flags within a region.
 *
 * An instruction's flags are not computed when it sets them. What is kept is the operation that set them: its kind
 * and two operands, in locals. Moving these costs next to nothing, and most are overwritten before anybody asks. What
 * an instruction sets in part is kept as expressions over locals that never change (`pending`), until the rest is
 * overwritten as well, somebody reads it, or ways meet.
 *
 *   kind 0        the words but CF are in the CPU's state (see state.ts), as the interpreter has them
 *   kind result   ZF, SF, PF of x; OF is y's sign, AF its bit 4
 *   kind float    ZF and PF of comparing x and y, the bits of doubles
 *   kind sub+n    flags of x - y at 8 << n bits, both sign-extended
 *   kind add+n    flags of x + y
 * CF is in a local of its own, unless the kind has LAZY: then it too is that of the operation.
 */
import {
  call,
  constantOf,
  type Expr,
  type Func,
  f64,
  type I32,
  type I64,
  i32,
  i64,
  type Local,
  type ModuleBuilder,
} from '../../wasm/index.ts';
import type { FlagWord } from '../emitting.ts';
import type { FloatComparison } from '../isa/sse-semantics.ts';
import { CPU } from '../state.ts';
import type { RegionImports } from './imports.ts';

const KIND = { words: 0, result: 1, float: 2, sub: 4, add: 8 } as const;
const LAZY = 16;
const SIZES = [8, 16, 32, 64] as const;

/** All but CF. */
const OTHERS = ['zres', 'spres', 'of', 'af'] as const;
type OtherWord = (typeof OTHERS)[number];

/** The flags just set are all those of a - b, of a + b, or of comparing the doubles whose bits a and b are. */
interface Operation {
  readonly kind: 'sub' | 'add' | 'float';
  readonly a: I64;
  readonly b: I64;
  /** Of doubles: 8, the first of its kind. */
  readonly bits: number;
  readonly comparison?: FloatComparison;
}

/** What each flag word will be; null: as it was. */
type Pending = { readonly [word in FlagWord]: Expr | null } & { readonly operation: Operation | null };

const NOTHING: Pending = { zres: null, spres: null, of: null, cf: null, af: null, operation: null };

/** What is known at a place; to be given back to {@link RegionFlags.restore}. */
export interface FlagsSnapshot {
  readonly pending: Pending;
  readonly kind: number | null;
}

export class RegionFlags {
  /** Flags are read or set at all. */
  used = false;
  private readonly f: Func;
  private readonly cpu: I32;
  private readonly imports: RegionImports;
  private readonly carry: Local<'i32'>;
  private readonly kind: Local<'i32'>;
  private readonly x: Local<'i64'>;
  private readonly y: Local<'i64'>;
  private pending: Pending = NOTHING;
  /** What `kind` holds; null: it depends on the way taken. */
  private known: number | null = null;

  constructor(f: Func, cpu: I32, imports: RegionImports) {
    this.f = f;
    this.cpu = cpu;
    this.imports = imports;
    this.carry = f.local('i32');
    this.kind = f.local('i32');
    this.x = f.local('i64');
    this.y = f.local('i64');
  }

  snapshot(): FlagsSnapshot {
    return { pending: this.pending, kind: this.known };
  }

  restore({ pending, kind }: FlagsSnapshot): void {
    this.pending = pending;
    this.known = kind;
  }

  /** At the region's entry. */
  enter(): void {
    this.f.set(this.carry, i32.load(this.cpu, CPU.cf));
    // The locals are zero: the words are in the state.
  }

  /** Other ways than the last one emitted lead here. */
  merge(): void {
    this.pending = NOTHING;
    this.known = null;
  }

  /** At the region's end: all words are in the state. */
  leave(): void {
    this.f.store(this.cpu, this.carry, CPU.cf);
    this.f.if(this.kind, () => this.f.do(this.imports.settle, this.cpu, this.kind, this.x, this.y));
  }

  set(word: FlagWord, value: Expr): void {
    this.used = true;
    const { zres, spres, of, cf, af } = this.pending;
    this.pending = {
      zres: word === 'zres' ? value : zres,
      spres: word === 'spres' ? value : spres,
      of: word === 'of' ? value : of,
      cf: word === 'cf' ? value : cf,
      af: word === 'af' ? value : af,
      operation: null,
    };
  }

  /** The words just set are those of an operation. */
  setOperation(operation: Operation): void {
    this.pending = { ...this.pending, operation };
  }

  /** What set all the flags, if that is known. */
  get operation(): Operation | null {
    return this.pending.operation;
  }

  /** Something is kept as expressions over variables of the last instructions. */
  get open(): boolean {
    const { cf, zres, spres, of, af, operation } = this.pending;
    return (cf ?? zres ?? spres ?? of ?? af) !== null || operation?.kind === 'float';
  }

  /** Sets a word where it must be, on some paths only: {@link settle} was called before. */
  setDirect(word: FlagWord, value: Expr): void {
    this.used = true;
    if (word === 'cf') this.f.set(this.carry, value as I32);
    else this.f.store(this.cpu, value, CPU[word]);
  }

  /** A word's present value. @param passed it may be assumed later that this code was passed */
  word(word: FlagWord, passed: boolean): Expr {
    this.used = true;
    const { f, x, y, known } = this;
    const pending = this.pending[word];
    if (pending !== null) return pending;
    if (word === 'cf') {
      this.emitCarry();
      if (passed) this.carryEmitted();
      return this.carry;
    }
    if (known === KIND.result) return word === 'of' ? y : word === 'af' ? i32.wrap(y) : x;
    if (known !== null && (known & (KIND.sub | KIND.add)) !== 0) {
      const { result, of, af } = wordsOf(known, x, y);
      return f.let(word === 'of' ? of(result) : word === 'af' ? i32.wrap(af(result)) : result);
    }
    this.emitSettle();
    if (passed) this.known = KIND.words;
    return f.let(word === 'af' ? i32.load(this.cpu, CPU.af) : i64.load(this.cpu, CPU[word]));
  }

  /** Behind an instruction: what has been set as a whole goes to its locals. */
  finish(): void {
    const { pending } = this;
    if (OTHERS.some((word) => pending[word] === null)) return;
    this.known = this.emit();
    const { operation } = pending;
    const placed = operation === null || operation.kind === 'float' ? operation : this.placed(operation);
    this.pending = placed === null ? NOTHING : { ...NOTHING, operation: placed };
  }

  private placed(operation: Operation): Operation {
    return { ...operation, a: this.x, b: this.y };
  }

  /** Nothing is pending any more. */
  flush(): void {
    this.known = this.emit();
    this.pending = NOTHING;
  }

  /** All words are in the state, but CF in its local. */
  settle(): void {
    this.used = true;
    this.flush();
    this.emitSettle();
    this.known = KIND.words;
  }

  /** CF too is in the state. */
  settleAll(): void {
    this.settle();
    this.f.store(this.cpu, this.carry, CPU.cf);
  }

  /** The state was changed by somebody else. */
  reload(): void {
    this.enter();
  }

  private emitSettle(): void {
    const { f, cpu, kind } = this;
    if (this.known === KIND.words) return;
    this.emitCarry();
    f.if(kind, () => {
      f.do(this.imports.settle, cpu, kind, this.x, this.y);
      f.set(kind, i32.const(KIND.words));
    });
  }

  /** CF goes to its local. */
  private emitCarry(): void {
    const { f, known, kind, x, y } = this;
    if (known === null)
      f.if(i32.and(kind, LAZY), () => {
        f.set(this.carry, call('i32', this.imports.carryOf, kind, x, y));
        f.set(kind, i32.and(kind, LAZY - 1));
      });
    else if (known & LAZY) {
      f.set(this.carry, carryOf(known, x, y));
      f.set(kind, i32.const(known & ~LAZY));
    }
  }

  private carryEmitted(): void {
    if (this.known !== null) this.known &= ~LAZY;
  }

  /** Emits what is pending, which stays known: for a way out beside the way on. @returns the kind that then holds */
  emit(): number | null {
    const { f, pending } = this;
    const set = OTHERS.filter((word) => pending[word] !== null);
    const { operation, cf, zres, spres } = pending;
    if (set.length === OTHERS.length && operation !== null) {
      const kind = KIND[operation.kind] + SIZES.indexOf(operation.bits as 8);
      if (operation.kind !== 'float') return this.emitKind(kind | LAZY, operation.a, operation.b);
      f.set(this.carry, cf as I32);
      return this.emitKind(kind, operation.a, operation.b);
    }
    if (set.length === 0 && cf === null) return this.known;
    // The carry is the last operation's no more: or it is, and that operation is about to be forgotten.
    this.emitCarry();
    if (cf !== null) f.set(this.carry, cf as I32);
    if (set.length === 0) return this.known === null ? null : this.known & ~LAZY;
    if (set.length < OTHERS.length) {
      this.emitSettle();
      return this.emitWords(set);
    }
    if (zres !== spres) return this.emitWords(set);
    return this.emitKind(KIND.result, zres as I64, this.packed());
  }

  private emitWords(words: readonly OtherWord[]): number {
    for (const word of words) this.f.store(this.cpu, this.pending[word]!, CPU[word]);
    this.f.set(this.kind, i32.const(KIND.words));
    return KIND.words;
  }

  private emitKind(kind: number, x: I64, y: I64): number {
    this.f.set(this.kind, i32.const(kind));
    this.f.set(this.x, x);
    this.f.set(this.y, y);
    return kind;
  }

  /** OF and AF in one word. */
  private packed(): I64 {
    const { of, af } = this.pending as { of: I64; af: I32 };
    const adjust = constantOf(af) === 0n ? i64.const(0) : i64.and(i64.extend_u(af), 16);
    if (constantOf(of) === 0n) return adjust;
    const overflow = i64.and(of, i64.const(-(1n << 63n)));
    return constantOf(adjust) === 0n ? overflow : i64.or(overflow, adjust);
  }
}

const isAdd = (kind: number) => (kind & KIND.add) !== 0;

function sized(value: I64, n: number): I64 {
  if (n === 0) return i64.extend8_s(value);
  if (n === 1) return i64.extend16_s(value);
  return n === 2 ? i64.extend32_s(value) : value;
}

/** The words of an addition or subtraction; OF and AF from its result. */
function wordsOf(kind: number, x: I64, y: I64) {
  const add = isAdd(kind);
  return {
    result: sized(add ? i64.add(x, y) : i64.sub(x, y), kind & 3),
    of: (r: I64) => (add ? i64.and(i64.xor(x, r), i64.xor(y, r)) : i64.and(i64.xor(x, y), i64.xor(x, r))),
    af: (r: I64) => i64.xor(i64.xor(x, y), r),
  };
}

function carryOf(kind: number, x: I64, y: I64): I32 {
  return isAdd(kind) ? i64.lt_u(sized(i64.add(x, y), kind & 3), x) : i64.lt_u(x, y);
}

/** settle(cpu, kind, x, y): the four words of a kind, into the state; CF as well, if it is the operation's. */
export function buildSettle(module: ModuleBuilder, carry: Func): Func {
  const f = module.func('settle', ['i32', 'i32', 'i64', 'i64'], []);
  const cpu = f.arg('i32', 0);
  const kind = f.arg('i32', 1);
  const x = f.arg('i64', 2);
  const y = f.arg('i64', 3);
  const store = (result: I64, of: I64, af: I64) => {
    f.store(cpu, result, CPU.zres);
    f.store(cpu, result, CPU.spres);
    f.store(cpu, of, CPU.of);
    f.store(cpu, i32.wrap(af), CPU.af);
  };
  const r = f.local('i64');
  f.if(i32.eq(kind, KIND.result), () => {
    store(x, y, y);
    f.return();
  });
  f.if(i32.eq(kind, KIND.float), () => {
    const a = f64.reinterpret_i64(x);
    const b = f64.reinterpret_i64(y);
    const different = i32.or(f64.lt(a, b), f64.lt(b, a));
    f.store(cpu, i64.extend_u(different), CPU.zres);
    f.store(cpu, i64.extend_u(i32.or(different, f64.eq(a, b))), CPU.spres);
    f.store(cpu, i64.const(0), CPU.of);
    f.store(cpu, i32.const(0), CPU.af);
    f.return();
  });
  f.if(i32.and(kind, LAZY), () => f.store(cpu, call('i32', carry, kind, x, y), CPU.cf));
  for (const base of [KIND.sub, KIND.add])
    for (const n of SIZES.keys()) {
      f.if(i32.eq(i32.and(kind, LAZY - 1), base + n), () => {
        const { result, of, af } = wordsOf(base + n, x, y);
        f.set(r, result);
        store(r, of(r), af(r));
        f.return();
      });
    }
  return f;
}

/** carryOf(kind, x, y): CF of a kind with LAZY. */
export function buildCarryOf(module: ModuleBuilder): Func {
  const f = module.func('carryOf', ['i32', 'i64', 'i64'], ['i32']);
  const kind = f.arg('i32', 0);
  const x = f.arg('i64', 1);
  const y = f.arg('i64', 2);
  for (const n of SIZES.keys())
    f.if(i32.eq(i32.and(kind, LAZY - 1), KIND.add + n), () => f.return(carryOf(KIND.add + n, x, y)));
  f.result(carryOf(KIND.sub, x, y));
  return f;
}
