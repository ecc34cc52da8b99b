/**
 * XMM registers in a region.
 *
 * Compilers use an XMM register mostly for one number, and V8 works best on numbers. So a register lies by one of two
 * conventions, chosen for a region by how it uses the register: *wide*, all of it in a local; or its low lane in a
 * local of type f64 or f32, and what lies above always in the CPU's state, where it is seldom touched. Between
 * instructions the register may lie otherwise as well, as is known while translating (`Known`). Where ways meet, and
 * where the region is left, every register lies as its convention says.
 *
 * What is known belongs to a point of the program, as pending flags do.
 */
import {
  type Callee,
  call,
  type Expr,
  type F32,
  type F64,
  type Func,
  f32,
  f64,
  type I32,
  i32,
  i64,
  type Local,
  type V128,
  v128,
} from '../../wasm/index.ts';
import { plainMxcsr } from '../interpreter/sse.ts';
import type { Shape } from '../isa/sse-semantics.ts';
import { CPU } from '../state.ts';
import { ENABLED, type Facts, isOrdinary, type Lane, NO_FACTS, ZERO_32, ZERO_64 } from './vectors-facts.ts';

type Number_ = 'f64' | 'f32';

interface Known {
  /** The wide local holds all of the register. */
  readonly isWide: boolean;
  /** The local of this type holds the low lane; what lies above is in the wide local or, by convention, in the state. */
  readonly low: Number_ | null;
}

/** What is known of all registers at a point of a region. */
export interface Vectors {
  readonly registers: readonly Known[];
  readonly facts: Facts;
}

const ZERO = v128.const(0n, 0n);

export class VectorState {
  readonly used = new Set<number>();
  readonly dirty = new Set<number>();
  /** `plain` was asked for. */
  plainUsed = false;
  private readonly f: Func;
  private readonly cpu: I32;
  private readonly lanes: readonly Lane[];
  private readonly convention: readonly Known[];
  private readonly wides = new Map<number, Local<'v128'>>();
  private readonly f64s = new Map<number, Local<'f64'>>();
  private readonly f32s = new Map<number, Local<'f32'>>();
  private readonly plainLocal: Local<'i32'>;
  private vectors: Vectors;

  constructor(f: Func, cpu: I32, lanes: readonly Lane[]) {
    this.f = f;
    this.cpu = cpu;
    this.lanes = lanes;
    this.plainLocal = f.lasting('i32');
    this.convention = lanes.map((lane) => ({ isWide: lane === 'wide', low: lane === 'wide' ? null : lane }));
    this.vectors = { registers: this.convention, facts: NO_FACTS };
  }

  // --- What is known ---

  snapshot(): Vectors {
    return this.vectors;
  }

  restore(vectors: Vectors): void {
    this.vectors = vectors;
  }

  /** Other ways than the last one emitted lead here, too. */
  merge(facts: Facts): void {
    this.vectors = { registers: this.convention, facts };
  }

  get facts(): Facts {
    return this.vectors.facts;
  }

  set facts(facts: Facts) {
    this.vectors = { registers: this.vectors.registers, facts };
  }

  knows(index: number, shape: Shape): boolean {
    return isOrdinary(this.facts[index]!, shape);
  }

  /** CR0.TS was seen to be clear. */
  get enabled(): boolean {
    return this.facts[ENABLED] !== 0;
  }

  private known(index: number): Known {
    return this.vectors.registers[index]!;
  }

  private know(index: number, known: Partial<Known>): void {
    const registers = [...this.vectors.registers];
    registers[index] = { ...registers[index]!, ...known };
    this.vectors = { registers, facts: this.vectors.facts };
  }

  /** The register was written; facts about it are the instruction's business (see effects). */
  private wrote(index: number, known: Known): void {
    this.dirty.add(index);
    const registers = this.vectors.registers.with(index, known);
    this.vectors = { registers, facts: this.facts.with(index, 0) };
  }

  private is(index: number, fact: number): boolean {
    return (this.facts[index]! & fact) !== 0;
  }

  // --- Locals ---

  private local<T extends 'v128' | 'f64' | 'f32'>(
    map: Map<number, Local<T>>,
    type: T,
    index: number,
  ): Local<T> {
    this.used.add(index);
    let local = map.get(index);
    if (local === undefined) {
      local = this.f.lasting(type);
      map.set(index, local);
    }
    return local;
  }

  private wideOf(index: number): Local<'v128'> {
    return this.local(this.wides, 'v128', index);
  }

  private lowOf(index: number, low: Number_): Local {
    return low === 'f64' ? this.local(this.f64s, 'f64', index) : this.local(this.f32s, 'f32', index);
  }

  private slot(index: number): number {
    return CPU.xmm + index * 16;
  }

  // --- Between memory and locals ---

  load(registers: Iterable<number>, plain: boolean): void {
    const { f, cpu } = this;
    for (const index of registers) {
      const lane = this.lanes[index]!;
      if (lane === 'wide') f.set(this.wideOf(index), v128.load(cpu, this.slot(index)));
      else f.set(this.lowOf(index, lane), this.loadNumber(lane, this.slot(index)));
    }
    if (plain) this.setPlain(i32.load(cpu, CPU.mxcsr));
  }

  /** Through memory: V8 would take a computation to every use of its result. */
  private setPlain(mxcsr: I32): void {
    const { f, cpu } = this;
    f.store(cpu, plainMxcsr(mxcsr), CPU.temp);
    f.set(this.plainLocal, i32.load(cpu, CPU.temp));
  }

  private loadNumber(low: Number_, offset: number): Expr {
    return low === 'f64' ? f64.load(this.cpu, offset) : f32.load(this.cpu, offset);
  }

  /** Stores registers that lie as by convention. */
  store(registers: Iterable<number>): void {
    for (const index of registers) {
      const lane = this.lanes[index]!;
      const value = lane === 'wide' ? this.wideOf(index) : this.lowOf(index, lane);
      this.f.store(this.cpu, value, this.slot(index));
    }
  }

  /** Emits what brings every register to its convention; what was known stays true. */
  settle(): void {
    this.lanes.forEach((lane, index) => {
      if (lane === 'wide') this.makeWide(index);
      else this.makeLow(index, lane);
    });
  }

  /** Has the wide local hold all of the register. */
  private makeWide(index: number): void {
    const { isWide, low } = this.known(index);
    if (isWide) return;
    const rest = this.lanes[index] === 'wide' ? this.wideOf(index) : this.above(index, low!);
    const number = this.lowOf(index, low!);
    this.f.set(
      this.wideOf(index),
      low === 'f64' ? v128.f64x2_replace(rest, 0, number as F64) : v128.f32x4_replace(rest, 0, number as F32),
    );
    this.know(index, { isWide: true });
  }

  /** What lies above the low lane in the state. */
  private above(index: number, low: Number_): V128 {
    const { cpu } = this;
    if (low === 'f32') return this.is(index, ZERO_32) ? ZERO : v128.load(cpu, this.slot(index));
    // Both halves: a load of 16 bytes would wait for the last store of eight.
    return this.is(index, ZERO_64) ? ZERO : v128.f64x2_splat(f64.load(cpu, this.slot(index) + 8));
  }

  private makeLow(index: number, low: Number_): void {
    if (this.known(index).low === low) return;
    this.makeWide(index);
    const wide = this.wideOf(index);
    this.f.set(
      this.lowOf(index, low),
      low === 'f64' ? v128.f64x2_extract(wide, 0) : v128.f32x4_extract(wide, 0),
    );
    this.know(index, { low });
  }

  // --- Registers ---

  get(index: number): V128 {
    this.makeWide(index);
    return this.f.let(this.wideOf(index));
  }

  set(index: number, value: V128): void {
    const { f, cpu } = this;
    const lane = this.lanes[index]!;
    const wide = this.wideOf(index);
    f.set(wide, value);
    if (lane === 'f32') f.store(cpu, v128.i32x4_extract(wide, 1), this.slot(index) + 4);
    if (lane !== 'wide') f.store(cpu, v128.f64x2_extract(wide, 1), this.slot(index) + 8);
    this.wrote(index, { isWide: true, low: null });
  }

  getLow(index: number, low: Number_): Expr {
    this.makeLow(index, low);
    return this.f.let(this.lowOf(index, low));
  }

  /** Writes the low lane; what lies above stays. */
  putLow(index: number, low: Number_, value: Expr): void {
    const { f } = this;
    const lane = this.lanes[index]!;
    if (lane === low || (lane === 'wide' && low === 'f64')) {
      f.set(this.lowOf(index, low), value);
      this.wrote(index, { isWide: false, low });
      return;
    }
    this.makeWide(index);
    const wide = this.wideOf(index);
    this.set(
      index,
      low === 'f64' ? v128.f64x2_replace(wide, 0, value as F64) : v128.f32x4_replace(wide, 0, value as F32),
    );
  }

  /** Writes the low lane and clears what lies above. */
  putAlone(index: number, low: Number_, value: Expr): void {
    if (this.lanes[index] === low) {
      this.clearAbove(index, low);
      this.putLow(index, low, value);
    } else
      this.set(
        index,
        low === 'f64' ? v128.f64x2_replace(ZERO, 0, value as F64) : v128.f32x4_replace(ZERO, 0, value as F32),
      );
  }

  /** Zeros to the state above the low lane, by convention. */
  private clearAbove(index: number, low: Number_): void {
    const { f, cpu } = this;
    if (low === 'f32' && !this.is(index, ZERO_32)) f.store(cpu, i32.const(0), this.slot(index) + 4);
    if (!this.is(index, ZERO_64)) f.store(cpu, i64.const(0), this.slot(index) + 8);
  }

  /** Loads 32 or 64 bits and clears what lies above. */
  loadAlone(index: number, bits: number, pointer: I32): void {
    const lane = this.lanes[index]!;
    if (bits === 64 && lane === 'f64') this.putAlone(index, 'f64', f64.load(pointer));
    else if (bits === 32 && lane === 'f32') this.putAlone(index, 'f32', f32.load(pointer));
    else this.set(index, bits === 64 ? v128.load64_zero(pointer) : v128.load32_zero(pointer));
  }

  copy(to: number, from: number): void {
    const { f, cpu } = this;
    if (to === from) return;
    const lane = this.lanes[to]!;
    if (lane === 'wide' || lane !== this.lanes[from]) {
      this.set(to, this.get(from));
      return;
    }
    const number = this.getLow(from, lane);
    const [target, source] = [this.slot(to), this.slot(from)];
    if (this.is(from, lane === 'f64' ? ZERO_64 : ZERO_32)) this.clearAbove(to, lane);
    else {
      if (lane === 'f32') f.store(cpu, i32.load(cpu, source + 4), target + 4);
      f.store(cpu, i64.load(cpu, source + 8), target + 8);
    }
    this.putLow(to, lane, number);
  }

  clear(index: number): void {
    const lane = this.lanes[index]!;
    if (lane === 'wide') this.set(index, ZERO);
    else this.putAlone(index, lane, lane === 'f64' ? f64.const(0) : f32.const(0));
  }

  // --- MXCSR, and the state as a whole ---

  plain(): I32 {
    this.plainUsed = true;
    return this.plainLocal;
  }

  setMxcsr(value: I32): void {
    this.f.store(this.cpu, value, CPU.mxcsr);
    this.plainUsed = true;
    this.setPlain(value);
  }

  /** A call that looks at the registers in memory and may change them, and MXCSR. */
  seen(callee: Callee, ...args: I32[]): I32 {
    for (let index = 0; index < 16; index++) {
      this.used.add(index);
      this.dirty.add(index);
    }
    this.settle();
    this.store(this.dirty);
    this.plainUsed = true;
    const result = this.f.let(call('i32', callee, ...args));
    this.load(this.used, true);
    this.merge(NO_FACTS);
    return result;
  }

  /** A register's slot in the state, holding all of it; changes there are read back by `reload`. */
  spilled(index: number): I32 {
    const lane = this.lanes[index]!;
    if (lane === 'wide') this.f.store(this.cpu, this.get(index), this.slot(index));
    else this.f.store(this.cpu, this.getLow(index, lane), this.slot(index));
    return i32.add(this.cpu, this.slot(index));
  }

  reload(index: number): void {
    this.load([index], false);
    this.wrote(index, this.convention[index]!);
  }
}
