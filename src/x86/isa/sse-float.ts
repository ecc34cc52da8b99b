/** SSE floating-point arithmetic and comparison: fast paths in WebAssembly, the rest by the host (see sse-real.ts). */
import { type Expr, type I32, i32, select, type V128, type ValType, v128 } from '../../wasm/index.ts';
import { SSE_FLOAT } from '../fpu/sse-ops.ts';
import { CPU, STATUS_FLAGS } from '../state.ts';
import type { Definition } from './definition.ts';
import type { Semantics } from './semantics.ts';
import { pointers, sse } from './sse-definition.ts';
import { finite, notTiny, ordinary, PD, PS, plain, type Real, SD, SS } from './sse-real.ts';
import { byLanes, dwords, type Immediate, immediate, quads } from './sse-vector.ts';

/** All of it by the host. */
const slow = (op: number) => (c: Semantics) => {
  const { dst, src } = pointers(c);
  c.raiseVector(c.host.sseFloat(op, dst, src, 0));
};

const slowImmediate = (op: number) => (c: Semantics) => {
  const { dst, src } = pointers(c);
  c.raiseVector(c.host.sseFloat(op, dst, src, immediate(c).value));
};

type Kind = 'add' | 'sub' | 'mul' | 'div';

/** Whether r is what SSE delivers, without a flag that is not set yet. */
function arithmeticStands<T extends ValType, B extends ValType>(
  real: Real<T, B>,
  kind: Kind,
  a: Expr<T>,
  b: Expr<T>,
  r: Expr<T>,
): Expr<B> {
  const common = real.and(real.and(ordinary(real, a), ordinary(real, b)), finite(real, r));
  // A sum that is tiny is exact.
  if (kind === 'add' || kind === 'sub') return common;
  const zero = real.constant(0);
  const exactZero = kind === 'mul' ? real.or(real.eq(a, zero), real.eq(b, zero)) : real.eq(a, zero);
  return real.and(common, real.or(notTiny(real, r), exactZero));
}

const arithmetic =
  <T extends ValType, B extends ValType>(real: Real<T, B>, kind: Kind) =>
  (c: Semantics) => {
    const { f } = c;
    const { dst, src } = pointers(c);
    const a = f.let(real.load(dst));
    const b = f.let(real.load(src));
    const r = f.let(real[kind](a, b));
    f.if(
      i32.and(plain(c), real.all(arithmeticStands(real, kind, a, b, r))),
      () => f.store(dst, r),
      () => c.raiseVector(c.host.sseFloat(SSE_FLOAT[`${kind}ss`] + real.shape, dst, src, 0)),
    );
  };

const squareRoot =
  <T extends ValType, B extends ValType>(real: Real<T, B>) =>
  (c: Semantics) => {
    const { f } = c;
    const { dst, src } = pointers(c);
    const b = f.let(real.load(src));
    const r = f.let(real.sqrt(b));
    // Of a negative number the root is a NaN.
    f.if(
      i32.and(plain(c), real.all(real.and(ordinary(real, b), finite(real, r)))),
      () => f.store(dst, r),
      () => c.raiseVector(c.host.sseFloat(SSE_FLOAT.sqrtss + real.shape, dst, src, 0)),
    );
  };

/** MIN and MAX: the second operand unless the first is less (greater). Exact, so MXCSR does not matter. */
const extreme =
  <T extends ValType, B extends ValType>(real: Real<T, B>, kind: 'min' | 'max') =>
  (c: Semantics) => {
    const { f } = c;
    const { dst, src } = pointers(c);
    const a = f.let(real.load(dst));
    const b = f.let(real.load(src));
    f.if(
      real.all(real.and(ordinary(real, a), ordinary(real, b))),
      () => f.store(dst, real.select(kind === 'min' ? real.lt(a, b) : real.lt(b, a), a, b)),
      () => c.raiseVector(c.host.sseFloat(SSE_FLOAT[`${kind}ss`] + real.shape, dst, src, 0)),
    );
  };

/** The predicate (bits 2:0) on two ordered operands: 0 equal, 1 less, 2 less or equal, 3 unordered; 4..7 negated. */
function predicate<T extends ValType, B extends ValType>(
  real: Real<T, B>,
  imm: I32,
  a: Expr<T>,
  b: Expr<T>,
): Expr<B> {
  const bitOf = (n: I32) => real.every(i32.and(n, 1));
  const equal = real.and(real.eq(a, b), bitOf(i32.xor(imm, 1)));
  const less = real.and(real.lt(a, b), bitOf(i32.xor(imm, i32.shr_u(imm, 1))));
  return real.xor(real.or(equal, less), bitOf(i32.shr_u(imm, 2)));
}

const compare =
  <T extends ValType, B extends ValType>(real: Real<T, B>) =>
  (c: Semantics) => {
    const { f } = c;
    const { dst, src } = pointers(c);
    const imm = immediate(c).value;
    const a = f.let(real.load(dst));
    const b = f.let(real.load(src));
    f.if(
      real.all(real.and(ordinary(real, a), ordinary(real, b))),
      () => f.store(dst, real.mask(predicate(real, imm, a, b))),
      () => c.raiseVector(c.host.sseFloat(SSE_FLOAT.cmpss + real.shape, dst, src, imm)),
    );
  };

const compareFlags =
  <T extends ValType>(real: Real<T, 'i32'>, op: number) =>
  (c: Semantics) => {
    const { f, cpu } = c;
    const src = f.let(c.pointer(1, false));
    const a = f.let(real.load(c.pointer(0, false)));
    const b = f.let(real.load(src));
    const flags = f.local('i32');
    f.if(
      i32.and(ordinary(real, a), ordinary(real, b)),
      () => f.set(flags, i32.or(i32.shl(real.eq(a, b), 6), real.lt(a, b))),
      () => {
        // The flags come back in the place of the first operand.
        f.store(cpu, a, CPU.temp);
        c.raiseVector(c.host.sseFloat(op, i32.add(cpu, CPU.temp), src, 0));
        f.set(flags, i32.load(cpu, CPU.temp));
      },
    );
    c.setFlags(flags, STATUS_FLAGS);
  };

function roundBy<T extends ValType, B extends ValType>(
  real: Real<T, B>,
  { value, known }: Immediate,
  a: Expr<T>,
): Expr<T> {
  // Here MXCSR says to nearest; bit 2 asks for what it says.
  if (known !== undefined) return real.integral[known & 4 ? 0 : known & 3]!(a);
  const is = (mode: number) => i32.eq(i32.and(value, 7), mode);
  return [1, 2, 3].reduce(
    (other, mode) => select(is(mode), real.integral[mode]!(a), other),
    real.integral[0]!(a),
  );
}

const round =
  <T extends ValType, B extends ValType>(real: Real<T, B>) =>
  (c: Semantics) => {
    const { f } = c;
    const { dst, src } = pointers(c);
    const imm = immediate(c);
    const b = f.let(real.load(src));
    f.if(
      i32.and(plain(c), real.all(ordinary(real, b))),
      () => f.store(dst, roundBy(real, imm, b)),
      () => c.raiseVector(c.host.sseFloat(SSE_FLOAT.roundss + real.shape, dst, src, imm.value)),
    );
  };

/** HADD, HSUB, ADDSUB: sums of lanes that first have to be brought together. */
const rearranged = (real: Real<'v128', 'v128'>, kind: 'hadd' | 'hsub' | 'addsub') => (c: Semantics) => {
  const { f } = c;
  const { dst, src } = pointers(c);
  let a: V128 = f.let(v128.load(dst));
  let b: V128 = f.let(v128.load(src));
  if (kind !== 'addsub') {
    const [even, odd] =
      real === PS ? [byLanes(4, 0, 2, 4, 6), byLanes(4, 1, 3, 5, 7)] : [byLanes(8, 0, 2), byLanes(8, 1, 3)];
    [a, b] = [f.let(v128.shuffle(a, b, even)), f.let(v128.shuffle(a, b, odd))];
  }
  const evens = real === PS ? dwords(-1, 0) : quads(-1n, 0n);
  const r = f.let(
    kind === 'hadd'
      ? real.add(a, b)
      : kind === 'hsub'
        ? real.sub(a, b)
        : v128.bitselect(real.sub(a, b), real.add(a, b), evens),
  );
  f.if(
    i32.and(plain(c), real.all(arithmeticStands(real, 'add', a, b, r))),
    () => f.store(dst, r),
    () => c.raiseVector(c.host.sseFloat(SSE_FLOAT[`${kind}ps`] + (real === PS ? 0 : 1), dst, src, 0)),
  );
};

/** The instructions that exist in all four shapes. */
function shapes<T extends ValType, B extends ValType>(real: Real<T, B>): Definition[] {
  const { prefix, suffix, size } = real;
  const row = (name: string, opcode: string, use: string, exec: (c: Semantics) => void) =>
    sse(`${name}${suffix}`, `${prefix} 0F ${opcode} /r`, `V${size}${use},W${size}`, exec);
  return [
    row('SQRT', '51', '=', squareRoot(real)),
    row('ADD', '58', '+', arithmetic(real, 'add')),
    row('MUL', '59', '+', arithmetic(real, 'mul')),
    row('SUB', '5C', '+', arithmetic(real, 'sub')),
    row('MIN', '5D', '+', extreme(real, 'min')),
    row('DIV', '5E', '+', arithmetic(real, 'div')),
    row('MAX', '5F', '+', extreme(real, 'max')),
    sse(`CMP${suffix}`, `${prefix} 0F C2 /r ib`, `V${size}+,W${size},Ib`, compare(real)),
    sse(
      `ROUND${suffix}`,
      `66 0F 3A ${{ SS: '0A', SD: '0B', PS: '08', PD: '09' }[suffix]} /r ib`,
      `V${size}=,W${size},Ib`,
      round(real),
    ),
  ];
}

export const sseFloat: Definition[] = [
  ...shapes(SS),
  ...shapes(SD),
  ...shapes(PS),
  ...shapes(PD),
  sse('UCOMISS', 'NP 0F 2E /r', 'Vd,Wd', compareFlags(SS, SSE_FLOAT.ucomiss)),
  sse('UCOMISD', '66 0F 2E /r', 'Vq,Wq', compareFlags(SD, SSE_FLOAT.ucomisd)),
  sse('COMISS', 'NP 0F 2F /r', 'Vd,Wd', compareFlags(SS, SSE_FLOAT.comiss)),
  sse('COMISD', '66 0F 2F /r', 'Vq,Wq', compareFlags(SD, SSE_FLOAT.comisd)),
  sse('RSQRTPS', 'NP 0F 52 /r', 'Vx=,Wx', slow(SSE_FLOAT.rsqrtps)),
  sse('RSQRTSS', 'F3 0F 52 /r', 'Vd=,Wd', slow(SSE_FLOAT.rsqrtss)),
  sse('RCPPS', 'NP 0F 53 /r', 'Vx=,Wx', slow(SSE_FLOAT.rcpps)),
  sse('RCPSS', 'F3 0F 53 /r', 'Vd=,Wd', slow(SSE_FLOAT.rcpss)),
  sse('HADDPS', 'F2 0F 7C /r', 'Vx+,Wx', rearranged(PS, 'hadd')),
  sse('HADDPD', '66 0F 7C /r', 'Vx+,Wx', rearranged(PD, 'hadd')),
  sse('HSUBPS', 'F2 0F 7D /r', 'Vx+,Wx', rearranged(PS, 'hsub')),
  sse('HSUBPD', '66 0F 7D /r', 'Vx+,Wx', rearranged(PD, 'hsub')),
  sse('ADDSUBPS', 'F2 0F D0 /r', 'Vx+,Wx', rearranged(PS, 'addsub')),
  sse('ADDSUBPD', '66 0F D0 /r', 'Vx+,Wx', rearranged(PD, 'addsub')),
  sse('DPPS', '66 0F 3A 40 /r ib', 'Vx+,Wx,Ib', slowImmediate(SSE_FLOAT.dpps)),
  sse('DPPD', '66 0F 3A 41 /r ib', 'Vx+,Wx,Ib', slowImmediate(SSE_FLOAT.dppd)),
];
