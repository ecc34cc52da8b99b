/**
 * XMM registers in a region.
 *
 * A register has up to three locals: `wide`, the whole of it, and its low lane as a double or as a float; V8 keeps
 * the latter two in machine registers without shuffling lanes, where compilers use XMM registers as scalars. Which of
 * them hold the register's value is known while translating (`Known`): the low lane is in `low` if that is set, in
 * `wide` if `isWide`; lanes above the low one are always in `wide`. Where several ways meet, and where a region is
 * left, a register lies as its convention says: in `wide`, or with the low lane apart. The convention is chosen by
 * how the region uses the register.
 *
 * What is known belongs to a point of the program, like pending flags, and is kept and forgotten with them.
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
  type I64,
  i32,
  i64,
  type Local,
  type V128,
  v128,
} from '../../wasm/index.ts';
import type { Instruction } from '../decoder.ts';
import { plainMxcsr } from '../interpreter/sse.ts';
import { STATUS } from '../interpreter/status.ts';
import { formBits } from '../isa/form.ts';
import type { Shape } from '../isa/sse-semantics.ts';
import { CPU, FLAG } from '../state.ts';

/** Where a register's low lane lies by convention. */
export type Lane = 'wide' | 'f64' | 'f32';

interface Known {
  readonly isWide: boolean;
  readonly low: 'f64' | 'f32' | null;
  /** Shapes as which the register is known to hold no denormals and no NaNs: bits of SHAPE. */
  readonly ordinary: number;
}

/** What is known of all registers at a point of a region. */
export interface Vectors {
  readonly registers: readonly Known[];
  /** CR0.TS was seen to be clear. */
  readonly enabled: boolean;
}

/** A packed shape says the same of its low lane. */
const SHAPE: Record<Shape, number> = { SS: 1, SD: 2, PS: 4 | 1, PD: 8 | 2 };

const ZERO = v128.const(0n, 0n);

/** Register number of an operand's slot, or -1 if it is no XMM register's. */
export function xmmOf(slot: number | null): number {
  return slot !== null && slot >= CPU.xmm && slot < CPU.xmm + 256 ? (slot - CPU.xmm) >>> 4 : -1;
}

/** The conventions of the 16 registers for a region of these instructions. */
export function chooseLanes(instructions: Iterable<Instruction>): Lane[] {
  const uses = Array.from({ length: 16 }, () => ({ wide: 0, f64: 0, f32: 0 }));
  for (const { form, reg, rm } of instructions) {
    if (form === null || !form.definition.fpu || form.definition.name.startsWith('MOV')) continue;
    // An idiom for zero (or all ones).
    if (reg === rm && !form.memory && form.definition.scalar !== true) continue;
    form.operands.forEach(({ kind }, i) => {
      const slot = kind === 'V' ? reg : kind === 'U' || (kind === 'W' && !form.memory) ? rm : null;
      const index = xmmOf(slot);
      if (index < 0) return;
      const bits = form.definition.scalar === true ? formBits(form, i) : 128;
      uses[index]![bits === 64 ? 'f64' : bits === 32 ? 'f32' : 'wide']++;
    });
  }
  return uses.map(({ wide, f64, f32 }) => {
    if (f64 === 0 && f32 === 0) return 'wide';
    const scalar = f64 >= f32 ? 'f64' : 'f32';
    return Math.max(f64, f32) >= wide ? scalar : 'wide';
  });
}

/** The imports that this file calls. */
interface Callees {
  readonly sseFloat: Callee;
  readonly raise: Callee;
}

export class VectorState {
  readonly used = new Set<number>();
  readonly dirty = new Set<number>();
  /** PLAIN or 0 (see sse-semantics.ts); valid if `plainUsed`. */
  plainUsed = false;
  private readonly f: Func;
  private readonly cpu: I32;
  private readonly lanes: readonly Lane[];
  private readonly convention: Vectors;
  private readonly wide = new Map<number, Local<'v128'>>();
  private readonly f64s = new Map<number, Local<'f64'>>();
  private readonly f32s = new Map<number, Local<'f32'>>();
  private readonly plainLocal: Local<'i32'>;
  private vectors: Vectors;
  private host: HostLocals | null = null;

  constructor(f: Func, cpu: I32, lanes: readonly Lane[]) {
    this.f = f;
    this.cpu = cpu;
    this.lanes = lanes;
    this.plainLocal = f.lasting('i32');
    this.convention = {
      registers: lanes.map((lane) => ({
        isWide: lane === 'wide',
        low: lane === 'wide' ? null : lane,
        ordinary: 0,
      })),
      enabled: false,
    };
    this.vectors = this.convention;
  }

  snapshot(): Vectors {
    return this.vectors;
  }

  restore(vectors: Vectors): void {
    this.vectors = vectors;
  }

  /** Other ways than the last one emitted lead here. */
  merge(): void {
    this.vectors = this.convention;
  }

  private known(index: number): Known {
    return this.vectors.registers[index]!;
  }

  private know(index: number, known: Partial<Known>): void {
    const { registers, enabled } = this.vectors;
    this.vectors = {
      registers: registers.map((each, i) => (i === index ? { ...each, ...known } : each)),
      enabled,
    };
  }

  private local<T extends 'v128' | 'f64' | 'f32'>(
    map: Map<number, Local<T>>,
    type: T,
    index: number,
  ): Local<T> {
    let local = map.get(index);
    if (local === undefined) {
      local = this.f.lasting(type);
      map.set(index, local);
    }
    return local;
  }

  private wideOf(index: number): Local<'v128'> {
    this.used.add(index);
    return this.local(this.wide, 'v128', index);
  }

  private lowOf(index: number, low: 'f64' | 'f32'): Local<'f64'> | Local<'f32'> {
    this.used.add(index);
    return low === 'f64' ? this.local(this.f64s, 'f64', index) : this.local(this.f32s, 'f32', index);
  }

  // --- Between memory and locals ---

  private slot(index: number): number {
    return CPU.xmm + index * 16;
  }

  load(registers: Iterable<number>, plain: boolean): void {
    const { f, cpu } = this;
    for (const index of registers) {
      const wide = this.wideOf(index);
      f.set(wide, v128.load(cpu, this.slot(index)));
      const lane = this.lanes[index]!;
      if (lane !== 'wide') this.setLow(index, lane, this.extract(wide, lane));
    }
    if (plain) f.set(this.plainLocal, plainMxcsr(i32.load(cpu, CPU.mxcsr)));
  }

  /** Stores registers that lie as by convention. */
  store(registers: Iterable<number>): void {
    for (const index of registers)
      this.f.store(this.cpu, this.composed(index, this.convention.registers[index]!), this.slot(index));
  }

  private extract(wide: V128, lane: 'f64' | 'f32'): Expr {
    return lane === 'f64' ? v128.f64x2_extract(wide, 0) : v128.f32x4_extract(wide, 0);
  }

  private setLow(index: number, lane: 'f64' | 'f32', value: Expr): void {
    this.f.set(this.lowOf(index, lane) as Local, value);
  }

  /** The whole register as an expression. */
  private composed(index: number, { isWide, low }: Known): V128 {
    const wide = this.wideOf(index);
    if (isWide || low === null) return wide;
    if (low === 'f64') return v128.f64x2_replace(wide, 0, this.lowOf(index, 'f64') as F64);
    return v128.f32x4_replace(wide, 0, this.lowOf(index, 'f32') as F32);
  }

  /** Emits what brings every register to its convention; what was known stays true. */
  settle(): void {
    this.lanes.forEach((lane, index) => {
      if (lane === 'wide') this.whole(index);
      else this.low(index, lane);
    });
  }

  // --- Registers ---

  get(index: number): V128 {
    this.whole(index);
    return this.f.let(this.wideOf(index));
  }

  /** The register's local, made to hold all of it. */
  private whole(index: number): void {
    const known = this.known(index);
    if (known.isWide) return;
    this.f.set(this.wideOf(index), this.composed(index, known));
    this.know(index, { isWide: true });
  }

  private low(index: number, low: 'f64' | 'f32'): void {
    if (this.known(index).low === low) return;
    this.whole(index);
    this.setLow(index, low, this.extract(this.wideOf(index), low));
    this.know(index, { low });
  }

  set(index: number, value: V128): void {
    this.f.set(this.wideOf(index), value);
    this.dirty.add(index);
    this.know(index, { isWide: true, low: null, ordinary: 0 });
  }

  getLow(index: number, low: 'f64' | 'f32'): Expr {
    this.low(index, low);
    return this.f.let(this.lowOf(index, low) as Local);
  }

  /** Writes the low lane; what lies above stays. */
  putLow(index: number, low: 'f64' | 'f32', value: Expr): void {
    // A float leaves the upper half of a double.
    if (low === 'f32' && this.known(index).low === 'f64') this.whole(index);
    this.setLow(index, low, value);
    this.dirty.add(index);
    this.know(index, { isWide: false, low, ordinary: 0 });
  }

  /** Writes the low lane and clears what lies above. */
  putAlone(index: number, low: 'f64' | 'f32', value: Expr): void {
    this.set(index, ZERO);
    this.putLow(index, low, value);
  }

  /** Takes 32 or 64 bits of another register and clears what lies above. */
  copyAlone(to: number, from: number, bits: 32 | 64): void {
    const low = bits === 64 ? 'f64' : 'f32';
    this.putAlone(to, low, this.getLow(from, low));
  }

  /** Loads 32 or 64 bits and clears what lies above. */
  loadAlone(index: number, bits: number, pointer: I32): void {
    const lane = this.lanes[index]!;
    if (bits === 64 && lane === 'f64') this.putAlone(index, 'f64', f64.load(pointer));
    else if (bits === 32 && lane === 'f32') this.putAlone(index, 'f32', f32.load(pointer));
    else this.set(index, bits === 64 ? v128.load64_zero(pointer) : v128.load32_zero(pointer));
  }

  copy(to: number, from: number): void {
    const { f } = this;
    const known = this.known(from);
    f.set(this.wideOf(to), this.wideOf(from));
    if (known.low !== null) this.setLow(to, known.low, this.lowOf(from, known.low));
    this.dirty.add(to);
    this.know(to, known);
  }

  clear(index: number): void {
    this.set(index, ZERO);
    const lane = this.lanes[index]!;
    if (lane === 'f64') this.setLow(index, lane, f64.const(0));
    if (lane === 'f32') this.setLow(index, lane, f32.const(0));
    this.know(index, { low: lane === 'wide' ? null : lane, ordinary: SHAPE.PS | SHAPE.PD });
  }

  knows(index: number, shape: Shape): boolean {
    return (this.known(index).ordinary & SHAPE[shape]) === SHAPE[shape];
  }

  learn(index: number, shape: Shape): void {
    this.know(index, { ordinary: this.known(index).ordinary | SHAPE[shape] });
  }

  // --- The processor's SSE state as a whole ---

  /** Whether CR0.TS need not be asked: it was, and it only changes outside of regions. */
  enable(): boolean {
    const { registers, enabled } = this.vectors;
    if (!enabled) this.vectors = { registers, enabled: true };
    return enabled;
  }

  plain(): I32 {
    this.plainUsed = true;
    return this.plainLocal;
  }

  setMxcsr(value: I32): void {
    this.f.store(this.cpu, value, CPU.mxcsr);
    this.plainUsed = true;
    this.f.set(this.plainLocal, plainMxcsr(value));
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
    this.vectors = { registers: this.convention.registers, enabled: this.vectors.enabled };
    return result;
  }

  /** A register's slot in memory, holding its value; changes there are read back by `reload`. */
  spilled(index: number): I32 {
    this.f.store(this.cpu, this.get(index), this.slot(index));
    return i32.add(this.cpu, this.slot(index));
  }

  reload(index: number): void {
    this.set(index, v128.load(this.cpu, this.slot(index)));
  }

  // --- Ways out that end in an operation of the host (see emitHost) ---

  /** Notes the operation that is to be done when the region has been left. */
  noteHost(op: number, dst: I32, src: I32, imm: I32, here: I64): void {
    const { f } = this;
    this.host ??= {
      wanted: f.lasting('i32'),
      op: f.lasting('i32'),
      dst: f.lasting('i32'),
      src: f.lasting('i32'),
      imm: f.lasting('i32'),
      here: f.lasting('i64'),
    };
    const { host } = this;
    f.set(host.wanted, i32.const(1));
    f.set(host.op, i32.const(op));
    f.set(host.dst, dst);
    f.set(host.src, src);
    f.set(host.imm, imm);
    f.set(host.here, here);
  }

  /**
   * At the region's end, when all state is in memory: the operation that was noted, if there is one. What it finds in
   * the place of a comparison's first operand are flags.
   */
  emitHost(
    imports: Callees,
    leaving: { rip: Local<'i64'>; status: Local<'i32'>; budget: Local<'i32'> },
  ): void {
    const { f, cpu, host } = this;
    if (host === null) return;
    f.if(host.wanted, () => {
      const { op, dst, src, imm, here } = host;
      const verdict = f.let(call('i32', imports.sseFloat, op, cpu, dst, src, imm));
      f.if(
        verdict,
        () => {
          f.do(imports.raise, cpu, verdict, i32.const(0));
          f.set(leaving.rip, here);
          f.set(leaving.budget, i32.add(leaving.budget, 1));
          f.set(leaving.status, i32.const(STATUS.fault));
        },
        () =>
          f.if(i32.eq(dst, i32.add(cpu, CPU.temp)), () => {
            const flags = f.let(i32.load(cpu, CPU.temp));
            f.store(cpu, i64.extend_u(i32.eqz(i32.and(flags, FLAG.ZF))), CPU.zres);
            f.store(cpu, i64.extend_u(i32.eqz(i32.and(flags, FLAG.PF))), CPU.spres);
            f.store(cpu, i32.and(flags, FLAG.CF), CPU.cf);
            f.store(cpu, i64.const(0), CPU.of);
            f.store(cpu, i32.const(0), CPU.af);
          }),
      );
    });
  }
}

/** The variables that tell what the host is to do. */
interface HostLocals {
  readonly wanted: Local<'i32'>;
  readonly op: Local<'i32'>;
  readonly dst: Local<'i32'>;
  readonly src: Local<'i32'>;
  readonly imm: Local<'i32'>;
  /** Address of the instruction. */
  readonly here: Local<'i64'>;
}
