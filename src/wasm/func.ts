/** One WebAssembly function under construction: locals, statements, structured control flow. */
import { Bytes } from './bytes.ts';
import { constantOf, displaced, type Expr, type I32, type I32Like, i32, simd, type ValType } from './expr.ts';

/** Bytes of a function as they mostly are. */
const ROOM = 2048;

export const TYPE_CODE: Record<ValType, number> = { i32: 0x7f, i64: 0x7e, f32: 0x7d, f64: 0x7c, v128: 0x7b };

/** A local variable; as an expression, its value. */
export class Local<T extends ValType = ValType> implements Expr<T> {
  readonly type: T;
  readonly index: number;

  constructor(type: T, index: number) {
    this.type = type;
    this.index = index;
  }

  write(out: Bytes): void {
    out.u8(0x20);
    out.u32(this.index);
  }
}

/** Where a branch goes: the end of a block, the head of a loop. */
export interface Label {
  readonly depth: number;
}

export interface FuncType {
  readonly params: readonly ValType[];
  readonly results: readonly ValType[];
}

/** A function that can be called: imported, or defined here. */
export interface Callee extends FuncType {
  readonly index: number;
}

class Call<T extends ValType> implements Expr<T> {
  readonly type: T;
  private readonly callee: Callee;
  private readonly args: readonly Expr[];

  constructor(type: T, callee: Callee, args: readonly Expr[]) {
    this.type = type;
    this.callee = callee;
    this.args = args;
  }

  write(out: Bytes): void {
    for (const arg of this.args) arg.write(out);
    out.u8(0x10);
    out.u32(this.callee.index);
  }
}

class CallIndirect<T extends ValType> implements Expr<T> {
  readonly type: T;
  private readonly typeIndex: number;
  private readonly slot: I32;
  private readonly args: readonly Expr[];

  constructor(type: T, typeIndex: number, slot: I32, args: readonly Expr[]) {
    this.type = type;
    this.typeIndex = typeIndex;
    this.slot = slot;
    this.args = args;
  }

  write(out: Bytes): void {
    for (const arg of this.args) arg.write(out);
    this.slot.write(out);
    out.u8(0x11);
    out.u32(this.typeIndex);
    out.u8(0);
  }
}

/** The value of a call. */
export function call<T extends ValType>(type: T, callee: Callee, ...args: Expr[]): Expr<T> {
  if (callee.results[0] !== type) throw new TypeError(`function ${callee.index} does not return ${type}`);
  if (args.length !== callee.params.length || args.some((arg, i) => arg.type !== callee.params[i]))
    throw new TypeError(`function ${callee.index} takes (${callee.params.join(', ')})`);
  return new Call(type, callee, args);
}

export function callIndirect<T extends ValType>(
  type: T,
  typeIndex: number,
  slot: I32,
  ...args: Expr[]
): Expr<T> {
  return new CallIndirect(type, typeIndex, slot, args);
}

export class Func implements Callee {
  readonly index: number;
  readonly name: string;
  readonly params: readonly ValType[];
  readonly results: readonly ValType[];
  readonly args: Local[];
  private body = new Bytes(ROOM);
  private prologue: Bytes | null = null;
  /** Where the conditional branches stand of which it is known how they go, in the body. */
  private hints: [at: number, taken: boolean][] = [];
  private readonly types: ValType[];
  /** How many blocks are open. */
  depth = 0;
  private readonly free: Record<ValType, Local[]> = { i32: [], i64: [], f32: [], f64: [], v128: [] };
  private scopes: Local[][] = [];

  constructor(index: number, name: string, type: FuncType) {
    this.index = index;
    this.name = name;
    this.params = type.params;
    this.results = type.results;
    this.types = [...type.params];
    this.args = type.params.map((param, i) => new Local(param, i));
  }

  arg<T extends ValType>(type: T, position: number): Local<T> {
    const local = this.args[position];
    if (local?.type !== type) throw new TypeError(`${this.name}: argument ${position} is no ${type}`);
    return local as Local<T>;
  }

  /** Emits statements that stand before all others; what they are to be is often known last. */
  first(work: () => void): void {
    const { body, hints } = this;
    this.body = new Bytes(256);
    this.hints = [];
    work();
    if (this.prologue !== null) this.body.bytes(this.prologue.view());
    this.prologue = this.body;
    this.body = body;
    this.hints = hints;
  }

  /** What some statements come to, without adding them; see {@link append}. */
  captured(work: () => void): Bytes {
    const { body, hints } = this;
    this.body = new Bytes();
    this.hints = [];
    work();
    const made = this.body;
    this.body = body;
    this.hints = hints;
    return made;
  }

  /** Adds captured statements, at the depth at which they were captured. */
  append(statements: Bytes): void {
    this.body.bytes(statements.view());
  }

  /** Forgets all statements and variables. */
  reset(): void {
    this.body = new Bytes(ROOM);
    this.prologue = null;
    this.hints = [];
    this.types.length = this.params.length;
    this.depth = 0;
    this.scopes = [];
    for (const list of Object.values(this.free)) list.length = 0;
  }

  /** A variable. Within a scope it is given back at the scope's end; its first value is then undefined. */
  local<T extends ValType>(type: T): Local<T> {
    const pooled = this.free[type].pop();
    const local = pooled ?? new Local(type, this.types.length);
    if (pooled === undefined) this.types.push(type);
    this.scopes.at(-1)?.push(local);
    return local as Local<T>;
  }

  /** A variable that no scope gives back. */
  lasting<T extends ValType>(type: T): Local<T> {
    const local = new Local(type, this.types.length);
    this.types.push(type);
    return local;
  }

  /** A variable that holds the value from here on. */
  let<T extends ValType>(value: Expr<T>): Local<T> {
    const local = this.local(value.type);
    this.set(local, value);
    return local;
  }

  /** The value itself if it is a constant, else a variable that holds it; not to be set. */
  value<T extends ValType>(value: Expr<T>): Expr<T> {
    return constantOf(value) === null && value.stable !== true ? this.let(value) : value;
  }

  /** @param keep asked at the end: whether its variables go on to the scope around it instead of being given back */
  scope(work: () => void, keep?: () => boolean): void {
    this.scopes.push([]);
    work();
    const locals = this.scopes.pop()!;
    if (keep?.() === true) this.scopes.at(-1)?.push(...locals);
    else for (const local of locals) this.free[local.type].push(local);
  }

  /** A variable of the scope around the present one. */
  outer<T extends ValType>(type: T): Local<T> {
    const scope = this.scopes.pop();
    const local = this.local(type);
    if (scope !== undefined) this.scopes.push(scope);
    return local;
  }

  set<T extends ValType>(local: Local<T>, value: Expr<T>): void {
    if (local.type !== value.type) throw new TypeError(`${this.name}: ${local.type} set to ${value.type}`);
    value.write(this.body);
    this.body.u8(0x21);
    this.body.u32(local.index);
  }

  private storeOp(code: readonly number[], address: I32, value: Expr, offset: number): void {
    const place = displaced(address, offset);
    place.base.write(this.body);
    value.write(this.body);
    for (const byte of code) this.body.u8(byte);
    this.body.u8(0);
    this.body.u32(place.offset);
  }

  /** Stores the low `bits` of an i32 or i64, or a whole float or vector. */
  store(address: I32, value: Expr, offset = 0, bits = 0): void {
    const { type } = value;
    if (type === 'i32') {
      const code = bits === 8 ? 0x3a : bits === 16 ? 0x3b : 0x36;
      this.storeOp([code], address, value, offset);
    } else if (type === 'i64') {
      const code = bits === 8 ? 0x3c : bits === 16 ? 0x3d : bits === 32 ? 0x3e : 0x37;
      this.storeOp([code], address, value, offset);
    } else if (type === 'f32') this.storeOp([0x38], address, value, offset);
    else if (type === 'f64') this.storeOp([0x39], address, value, offset);
    else this.storeOp(simd(0x0b), address, value, offset);
  }

  memoryFill(address: I32, value: I32Like, length: I32Like): void {
    address.write(this.body);
    (typeof value === 'number' ? i32.const(value) : value).write(this.body);
    (typeof length === 'number' ? i32.const(length) : length).write(this.body);
    this.body.bytes([0xfc, 0x0b, 0x00]);
  }

  memoryCopy(to: I32, from: I32, length: I32Like): void {
    to.write(this.body);
    from.write(this.body);
    (typeof length === 'number' ? i32.const(length) : length).write(this.body);
    this.body.bytes([0xfc, 0x0a, 0x00, 0x00]);
  }

  block(body: (end: Label) => void): void {
    this.body.u8(0x02);
    this.body.u8(0x40);
    this.nest(body);
  }

  loop(body: (head: Label) => void): void {
    this.body.u8(0x03);
    this.body.u8(0x40);
    this.nest(body);
  }

  /** @param likely how it mostly goes (for V8's optimiser) */
  if(condition: I32, then: () => void, otherwise?: () => void, likely?: boolean): void {
    const known = constantOf(condition);
    if (known !== null) {
      if (known !== 0n) then();
      else otherwise?.();
      return;
    }
    condition.write(this.body);
    this.hint(likely);
    this.body.u8(0x04);
    this.body.u8(0x40);
    this.depth++;
    then();
    if (otherwise !== undefined) {
      this.body.u8(0x05);
      otherwise();
    }
    this.depth--;
    this.body.u8(0x0b);
  }

  private nest(body: (label: Label) => void): void {
    this.depth++;
    body({ depth: this.depth });
    this.depth--;
    this.body.u8(0x0b);
  }

  br(label: Label): void {
    this.body.u8(0x0c);
    this.body.u32(this.depth - label.depth);
  }

  brIf(condition: I32, label: Label, likely?: boolean): void {
    condition.write(this.body);
    this.hint(likely);
    this.body.u8(0x0d);
    this.body.u32(this.depth - label.depth);
  }

  private hint(likely: boolean | undefined): void {
    if (likely !== undefined) this.hints.push([this.body.length, likely]);
  }

  brTable(index: I32, labels: readonly Label[], otherwise: Label): void {
    index.write(this.body);
    this.body.u8(0x0e);
    this.body.u32(labels.length);
    for (const label of labels) this.body.u32(this.depth - label.depth);
    this.body.u32(this.depth - otherwise.depth);
  }

  /** Nested blocks, innermost first: `cases[i]` runs behind the end of block i; each must branch away itself. */
  switch(index: I32, cases: readonly (() => void)[], otherwise: () => void): void {
    const base = this.depth;
    for (let i = 0; i <= cases.length; i++) this.body.bytes([0x02, 0x40]);
    this.depth += cases.length + 1;
    index.write(this.body);
    this.body.u8(0x0e);
    this.body.u32(cases.length);
    for (let i = 0; i <= cases.length; i++) this.body.u32(i);
    for (const run of [...cases, otherwise]) {
      this.depth--;
      this.body.u8(0x0b);
      run();
    }
    if (this.depth !== base) throw new Error(`${this.name}: unbalanced switch`);
  }

  return(value?: Expr): void {
    value?.write(this.body);
    this.body.u8(0x0f);
  }

  /** The function's result, as its last statement. */
  result(value: Expr): void {
    value.write(this.body);
  }

  /** A call for its effect; results are dropped. */
  do(callee: Callee, ...args: Expr[]): void {
    for (const arg of args) arg.write(this.body);
    this.body.u8(0x10);
    this.body.u32(callee.index);
    for (const _ of callee.results) this.body.u8(0x1a);
  }

  unreachable(): void {
    this.body.u8(0x00);
  }

  /**
   * The code-section entry, and what is known of its conditional branches: where each stands in it, and whether it is
   * mostly taken.
   */
  encode(): { code: Bytes; hints: readonly (readonly [at: number, taken: boolean])[] } {
    const out = new Bytes(this.body.length + 64);
    const runs: [number, ValType][] = [];
    for (const type of this.types.slice(this.params.length)) {
      const last = runs.at(-1);
      if (last !== undefined && last[1] === type) last[0]++;
      else runs.push([1, type]);
    }
    out.u32(runs.length);
    for (const [count, type] of runs) {
      out.u32(count);
      out.u8(TYPE_CODE[type]);
    }
    if (this.prologue !== null) out.bytes(this.prologue.view());
    const start = out.length;
    out.bytes(this.body.view());
    out.u8(0x0b);
    return { code: out, hints: this.hints.map(([at, taken]) => [start + at, taken] as const) };
  }
}
