/** Semantics for the interpreter: operands come from the record that is being executed. */
import {
  call,
  type Expr,
  type Func,
  type I32,
  type I64,
  i32,
  i64,
  type Local,
  select,
  type V128,
} from '../../wasm/index.ts';
import {
  EmittingSemantics,
  type FlagWord,
  hostFunctions,
  loadSigned,
  loadUnsigned,
  loadVector,
  storeVector,
} from '../emitting.ts';
import type { Form } from '../isa/form.ts';
import type { HostFunctions } from '../isa/semantics.ts';
import { accessInfo, emitLookup, type Mmu } from '../mmu.ts';
import { RECORD, RECORD_ADDRESS32 } from '../records.ts';
import { CPU, Exit, FLAG } from '../state.ts';
import type { HostImports } from './host.ts';
import { SlotSse } from './sse.ts';

/** Where control goes after a handler; the interpreter's loop and an outlined handler differ here. */
export interface Continuations {
  /** The exception is in the exit fields; rip is at this instruction. */
  fault(): void;
  /** The exit reason is set; rip is behind this instruction. */
  exit(): void;
  /** A direct branch is taken. */
  taken(): void;
  /** CPU.rip holds where to go on. */
  transfer(): void;
}

export interface Environment {
  readonly mmu: Mmu;
  readonly imports: HostImports;
  readonly getFlags: Func;
  readonly setFlags: Func;
}

export class InterpreterSemantics extends EmittingSemantics {
  readonly host: HostFunctions;
  readonly sse = new SlotSse(this);
  private readonly rec: Local<'i32'>;
  private readonly tlb: I32;
  private readonly env: Environment;
  private readonly flow: Continuations;
  private readonly values = new Map<number, Local<'i64'>>();

  constructor(
    f: Func,
    form: Form,
    registers: { cpu: Local<'i32'>; rec: Local<'i32'>; tlb: I32 },
    env: Environment,
    flow: Continuations,
  ) {
    super(f, form, registers.cpu, env.mmu);
    this.rec = registers.rec;
    this.tlb = registers.tlb;
    this.env = env;
    this.flow = flow;
    this.host = hostFunctions(this.cpu, env.imports, (callee, ...args) => call('i32', callee, ...args));
  }

  private field16(offset: number): I32 {
    return i32.load16u(this.rec, offset);
  }

  /** Linear address of the register slot that a record field names. */
  private slot(field: number): I32 {
    return i32.add(this.cpu, this.field16(field));
  }

  /** Register slot of operand i, and the constant offset to add; null if it is in guest memory. */
  private place(i: number): { base: I32; offset: number } | null {
    const { kind } = this.form.operands[i]!;
    switch (kind) {
      case 'G':
      case 'Z':
      case 'V':
      case 'P':
      case 'S':
        return { base: this.slot(RECORD.reg), offset: 0 };
      case 'R':
      case 'U':
      case 'N':
        return { base: this.slot(RECORD.rm), offset: 0 };
      case 'E':
      case 'W':
      case 'Q':
        return this.memory ? null : { base: this.slot(RECORD.rm), offset: 0 };
      case 'M':
      case 'O':
        return null;
      case 'AL':
      case 'A':
      case 'AX':
        return { base: this.cpu, offset: CPU.regs };
      case 'CL':
        return { base: this.cpu, offset: CPU.regs + 8 };
      case 'DX':
        return { base: this.cpu, offset: CPU.regs + 16 };
      default:
        throw new TypeError(`operand kind ${kind} has no place`);
    }
  }

  get(i: number): I64 {
    const { kind } = this.form.operands[i]!;
    if (kind === 'I' || kind === 'J') {
      // Decoded sign-extended; an immediate as wide as its operand reads the same.
      return i64.load(this.rec, RECORD.immediate);
    }
    if (kind === '1') return i64.const(1);
    const bits = this.bits(i);
    const place = this.place(i);
    if (place !== null) return this.f.let(loadSigned(place.base, place.offset, bits));
    let value = this.values.get(i);
    if (value === undefined) {
      value = this.f.let(loadSigned(this.pointerOf(i), 0, bits));
      this.values.set(i, value);
    }
    return value;
  }

  getU(i: number): I64 {
    const { kind } = this.form.operands[i]!;
    if (kind === 'I' || kind === 'J' || kind === '1') return this.zext(this.get(i), this.bits(i));
    const bits = this.bits(i);
    const place = this.place(i);
    if (place !== null) return this.f.let(loadUnsigned(place.base, place.offset, bits));
    return this.f.let(loadUnsigned(this.pointerOf(i), 0, bits));
  }

  protected check(va: Local<'i64'>, bytes: number, write: boolean): Local<'i32'> {
    const { f, cpu } = this;
    const linear = f.local('i32');
    emitLookup(f, this.tlb, va, bytes, write, linear, () => {
      f.set(linear, call('i32', this.env.mmu.access, cpu, va, accessInfo(bytes, write)));
      f.if(i32.eqz(linear), () => this.flow.fault());
    });
    return linear;
  }

  commitPointer(pointer: I32): void {
    const { f, cpu } = this;
    const crossing = i32.eq(pointer, i32.add(cpu, CPU.scratch));
    f.if(crossing, () => f.do(this.env.mmu.commit, cpu), undefined, false);
  }

  set(i: number, value: I64): void {
    const { f } = this;
    const bits = this.bits(i);
    const place = this.place(i);
    if (place !== null) {
      storeRegister(f, place.base, place.offset, bits, value);
      return;
    }
    this.storeOperand(i, value);
  }

  getV(i: number): V128 {
    const place = this.place(i);
    const bits = this.bits(i);
    const base = place === null ? this.pointerOf(i) : place.base;
    const offset = place?.offset ?? 0;
    return loadVector(base, offset, bits);
  }

  setV(i: number, value: V128, bits = this.bits(i)): void {
    const { f } = this;
    const place = this.place(i);
    const base = place === null ? this.pointerOf(i) : f.let(place.base);
    const offset = place?.offset ?? 0;
    storeVector(f, base, offset, bits, value);
    if (place === null) this.commitPointer(base);
  }

  pointer(i: number, write: boolean): I32 {
    const place = this.place(i);
    if (place !== null) return i32.add(place.base, place.offset);
    return this.pointerOf(i, write);
  }

  commit(i: number): void {
    const pointer = this.pointers.get(i);
    if (pointer !== undefined) this.commitPointer(pointer);
  }

  address(segment = true): I64 {
    const { cpu, rec } = this;
    const base = i64.load(this.slot(RECORD.rm));
    const index = i64.shl(i64.load(this.slot(RECORD.index)), i64.load8u(rec, RECORD.scale));
    const sum = i64.add(i64.add(base, index), i64.load32s(rec, RECORD.displacement));
    if (!segment) return sum;
    return i64.add(sum, i64.load(i32.add(cpu, this.field16(RECORD.segment))));
  }

  immediate(): I64 {
    return i64.load(this.rec, RECORD.immediate);
  }

  reg(index: number): I64 {
    return i64.load(this.cpu, CPU.regs + index * 8);
  }

  addToReg(index: number, constant: number): void {
    this.setReg(index, i64.add(this.reg(index), constant));
  }

  setReg(index: number, value: I64): void {
    this.f.store(this.cpu, value, CPU.regs + index * 8);
  }

  regPart(index: number, bits: number): I64 {
    return loadSigned(this.cpu, CPU.regs + index * 8, bits);
  }

  setRegPart(index: number, bits: number, value: I64): void {
    storeRegister(this.f, this.cpu, CPU.regs + index * 8, bits, value);
  }

  segmentBase(): I64 {
    return i64.load(i32.add(this.cpu, this.field16(RECORD.segment)));
  }

  addressMask(): I64 {
    const short = i32.and(this.field16(RECORD.flags), RECORD_ADDRESS32);
    return select(short, i64.const(0xffffffff), i64.const(-1));
  }

  protected fault(): void {
    this.flow.fault();
  }

  protected word<T extends 'i32' | 'i64'>(word: FlagWord, type: T): Expr<T> {
    return (type === 'i32' ? i32.load(this.cpu, CPU[word]) : i64.load(this.cpu, CPU[word])) as Expr<T>;
  }

  zsp(result: I64): void {
    const { f, cpu } = this;
    const value = f.let(result);
    f.store(cpu, value, CPU.zres);
    f.store(cpu, value, CPU.spres);
  }

  cf(value: I32): void {
    this.f.store(this.cpu, value, CPU.cf);
  }

  of(value: I64): void {
    this.f.store(this.cpu, value, CPU.of);
  }

  af(value: I64): void {
    this.f.store(this.cpu, value, CPU.af, 32);
  }

  /** Flags are read from where they were stored. */
  operation(): void {}

  getCf(): I32 {
    return i32.load(this.cpu, CPU.cf);
  }

  getFlags(): I32 {
    return call('i32', this.env.getFlags, this.cpu);
  }

  setFlags(value: I32, mask: number): void {
    this.f.do(this.env.setFlags, this.cpu, value, i32.const(mask));
  }

  flagsChanged(): void {
    // Ends this run with its budget spent: TF is looked at before the next one.
    const { f, cpu } = this;
    f.if(i32.and(i32.load(cpu, CPU.rflags), FLAG.TF), () => {
      f.store(cpu, i32.const(Exit.Budget), CPU.exitReason);
      this.flow.exit();
    });
    this.transferTo(this.next());
  }

  next(): I64 {
    const past = i32.add(this.field16(RECORD.offset), i32.load8u(this.rec, RECORD.length));
    return i64.add(i64.load(this.cpu, CPU.page), i64.extend_u(past));
  }

  here(): I64 {
    return i64.add(i64.load(this.cpu, CPU.page), i64.extend_u(this.field16(RECORD.offset)));
  }

  target(): I64 {
    return i64.add(i64.load(this.cpu, CPU.page), this.immediate());
  }

  jump(): void {
    this.flow.taken();
  }

  jumpIf(condition: I32): void {
    this.f.if(condition, () => this.flow.taken());
  }

  private transferTo(va: I64): void {
    this.f.store(this.cpu, va, CPU.rip);
    this.flow.transfer();
  }

  jumpTo(va: I64): void {
    this.transferTo(va);
  }

  exit(reason: number): void {
    this.f.store(this.cpu, i32.const(reason), CPU.exitReason);
    this.flow.exit();
  }

  again(): void {
    this.transferTo(this.here());
  }
}

/** Writes a general register's slot: 32 bits zero-extend. */
function storeRegister(f: Func, base: I32, offset: number, bits: number, value: I64): void {
  if (bits === 32) f.store(base, i64.and(value, 0xffffffff), offset);
  else f.store(base, value, offset, bits);
}
