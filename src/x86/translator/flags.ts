/**
 * The status flags within a region.
 *
 * A flag is not computed when it is set: what it would be is kept as an expression over locals that never change
 * (`pending`), and becomes code only where somebody reads it. Where ways meet, or a region is left, no expression can
 * cross; what crosses instead is CF in a local, and for the other flags the operation that set them: its kind and two
 * operands. Moving these costs next to nothing, and most are overwritten before anybody asks.
 *
 *   kind 0        the words are in the CPU's state (see state.ts), as the interpreter has them
 *   kind sub+n    flags of x - y at 8 << n bits, both sign-extended
 *   kind add+n    flags of x + y
 *   kind result   ZF, SF, PF of x; OF is y's sign, AF its bit 4
 *   kind float    ZF and PF of comparing x and y, the bits of doubles
 */
import {
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

const KIND = { words: 0, sub: 1, add: 5, result: 9, float: 10 } as const;
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
    this.pending = { ...this.pending, [word]: value, operation: null };
  }

  /** The words just set are those of an operation. */
  setOperation(operation: Operation): void {
    this.pending = { ...this.pending, operation };
  }

  get operation(): Operation | null {
    return this.pending.operation;
  }

  /** Sets a word where it must be, on some paths only: {@link settle} was called before. */
  setDirect(word: FlagWord, value: Expr): void {
    this.used = true;
    if (word === 'cf') this.f.set(this.carry, value as I32);
    else this.f.store(this.cpu, value, CPU[word]);
  }

  /** A word's present value. @param settled it may be assumed later that this code was passed */
  word(word: FlagWord, settled: boolean): Expr {
    this.used = true;
    const pending = this.pending[word];
    if (pending !== null) return pending;
    if (word === 'cf') return this.carry;
    this.emitSettle();
    if (settled) this.known = KIND.words;
    return this.f.let(word === 'af' ? i32.load(this.cpu, CPU.af) : i64.load(this.cpu, CPU[word]));
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
    f.if(kind, () => {
      f.do(this.imports.settle, cpu, kind, this.x, this.y);
      f.set(kind, i32.const(KIND.words));
    });
  }

  /** Emits what is pending, which stays known: for a way out beside the way on. @returns the kind that then holds */
  emit(): number | null {
    const { f, pending } = this;
    if (pending.cf !== null) f.set(this.carry, pending.cf as I32);
    const set = OTHERS.filter((word) => pending[word] !== null);
    if (set.length === 0) return this.known;
    if (set.length < OTHERS.length) {
      this.emitSettle();
      return this.emitWords(set);
    }
    const { operation, zres, spres } = pending;
    if (operation !== null) {
      const kind = KIND[operation.kind] + SIZES.indexOf(operation.bits as 8);
      return this.emitKind(kind, operation.a, operation.b);
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

/** settle(cpu, kind, x, y): the four words of a kind, into the state. */
export function buildSettle(module: ModuleBuilder): Func {
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
  const sized = (value: I64, n: number): I64 => {
    const { extend8_s, extend16_s, extend32_s } = i64;
    return [extend8_s, extend16_s, extend32_s, (whole: I64) => whole][n]!(value);
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
  for (const n of SIZES.keys()) {
    f.if(i32.eq(kind, KIND.sub + n), () => {
      f.set(r, sized(i64.sub(x, y), n));
      store(r, i64.and(i64.xor(x, y), i64.xor(x, r)), i64.xor(i64.xor(x, y), r));
      f.return();
    });
    f.if(i32.eq(kind, KIND.add + n), () => {
      f.set(r, sized(i64.add(x, y), n));
      store(r, i64.and(i64.xor(x, r), i64.xor(y, r)), i64.xor(i64.xor(x, y), r));
      f.return();
    });
  }
  return f;
}
