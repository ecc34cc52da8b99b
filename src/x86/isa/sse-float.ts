/** SSE floating-point arithmetic and comparison: fast paths in WebAssembly, the rest by the host (see sse-real.ts). */
import { type Expr, type I32, i32, select, type ValType, v128 } from '../../wasm/index.ts';
import { SSE_FLOAT } from '../fpu/sse-ops.ts';
import type { Definition } from './definition.ts';
import type { Semantics } from './semantics.ts';
import { pointers, SCALAR, sse } from './sse-definition.ts';
import { isInfinite, isZero, ordinary, PD, PS, type Real, SD, SS, unknown, within } from './sse-real.ts';
import { type HostOperation, PLAIN } from './sse-semantics.ts';
import { byLanes, dwords, type Immediate, immediate, quads } from './sse-vector.ts';

/** All of it by the host. */
const slow = (op: number, hasImmediate: boolean) => (c: Semantics) => {
  const { dst, src } = pointers(c);
  c.raiseVector(c.host.sseFloat(op, dst, src, hasImmediate ? immediate(c).value : 0));
  c.commit(0);
};

type Kind = 'add' | 'sub' | 'mul' | 'div';

/** Whether r is what SSE delivers, for all but #P. */
function arithmeticStands<T extends ValType, B extends ValType>(
  real: Real<T, B>,
  kind: Kind,
  a: Expr<T>,
  b: Expr<T>,
  r: Expr<T>,
): Expr<B> {
  const operands = real.and(ordinary(real, a), ordinary(real, b));
  const infinite = real.or(isInfinite(real, a), isInfinite(real, b));
  if (kind === 'add' || kind === 'sub') {
    // A sum that is tiny is exact, but it may be denormal and then flushed to zero.
    const zero = isZero(real, r);
    const special = real.or(zero, real.and(infinite, real.eq(r, r)));
    return real.and(operands, real.or(within(real, r), special));
  }
  const zero = kind === 'mul' ? real.or(isZero(real, a), isZero(real, b)) : isZero(real, a);
  const special = real.and(real.or(zero, infinite), real.eq(r, r));
  return real.and(operands, real.or(within(real, r), special));
}

/** Whether r is exact; may say no where it cannot tell. Operands and result are ordinary. */
function arithmeticExact<T extends ValType, B extends ValType>(
  real: Real<T, B>,
  kind: Kind,
  a: Expr<T>,
  b: Expr<T>,
  r: Expr<T>,
): Expr<B> {
  if (kind === 'mul') return real.productExact(a, b, r);
  if (kind === 'div') return real.productExact(r, b, a);
  // Knuth's sum without error: what of a and of b is not in r. None of both is missing, or one makes up for the other.
  const part = real.sub(r, a);
  const missingA = real.sub(a, real.sub(r, part));
  return kind === 'add'
    ? isZero(real, real.add(missingA, real.sub(b, part)))
    : isZero(real, real.sub(missingA, real.add(b, part)));
}

const arithmetic =
  <T extends ValType, B extends ValType>(real: Real<T, B>, kind: Kind) =>
  (c: Semantics) => {
    const b = real.get(c, 1);
    const a = real.get(c, 0);
    const r = c.f.let(real[kind](a, b));
    c.sse.attempt(
      {
        usual: real.usual(
          unknown(c, real.suffix, [
            [0, a],
            [1, b],
          ]),
          r,
          c.sse.plain(),
        ),
        stands: real.all(arithmeticStands(real, kind, a, b, r)),
        exact: real.all(arithmeticExact(real, kind, a, b, r)),
      },
      { op: SSE_FLOAT[`${kind}ss`] + real.shape },
      () => real.set(c, r),
    );
  };

const squareRoot =
  <T extends ValType, B extends ValType>(real: Real<T, B>) =>
  (c: Semantics) => {
    const b = real.get(c, 1);
    const r = c.f.let(real.sqrt(b));
    c.sse.attempt(
      {
        usual: real.usual(unknown(c, real.suffix, [[1, b]]), r, c.sse.plain()),
        // Of a negative number the root is a NaN.
        stands: real.all(real.and(ordinary(real, b), real.eq(r, r))),
        exact: real.all(real.productExact(r, r, b)),
      },
      { op: SSE_FLOAT.sqrtss + real.shape },
      () => real.set(c, r),
    );
  };

/** An operation on two numbers that only have to be ordinary: exact, so MXCSR does not matter. */
function selecting<T extends ValType, B extends ValType>(
  c: Semantics,
  real: Real<T, B>,
  host: HostOperation,
  done: (a: Expr<T>, b: Expr<T>) => void,
): void {
  const b = real.get(c, 1);
  const a = real.get(c, 0);
  const operands = unknown(c, real.suffix, [
    [0, a],
    [1, b],
  ]);
  c.sse.attempt(
    {
      usual: operands.flatMap((value) => real.usual([], value, i32.const(PLAIN))),
      stands: real.all(
        operands.map((value) => ordinary(real, value)).reduce(real.and, real.every(i32.const(1))),
      ),
    },
    host,
    () => done(a, b),
  );
}

/** MIN and MAX: the second operand unless the first is less (greater). */
const extreme =
  <T extends ValType, B extends ValType>(real: Real<T, B>, kind: 'min' | 'max') =>
  (c: Semantics) =>
    selecting(c, real, { op: SSE_FLOAT[`${kind}ss`] + real.shape }, (a, b) =>
      real.set(c, real.select(kind === 'min' ? real.lt(a, b) : real.lt(b, a), a, b)),
    );

/** The predicate (bits 2:0) on two ordered operands: 0 equal, 1 less, 2 less or equal, 3 unordered; 4..7 negated. */
function predicate<T extends ValType, B extends ValType>(
  real: Real<T, B>,
  { value, known }: Immediate,
  a: Expr<T>,
  b: Expr<T>,
): Expr<B> {
  if (known !== undefined) {
    const holds = [real.eq, real.lt, real.le, () => real.every(i32.const(0))][known & 3]!(a, b);
    return known & 4 ? real.xor(holds, real.every(i32.const(1))) : holds;
  }
  const bitOf = (n: I32) => real.every(i32.and(n, 1));
  const equal = real.and(real.eq(a, b), bitOf(i32.xor(value, 1)));
  const less = real.and(real.lt(a, b), bitOf(i32.xor(value, i32.shr_u(value, 1))));
  return real.xor(real.or(equal, less), bitOf(i32.shr_u(value, 2)));
}

const compare =
  <T extends ValType, B extends ValType>(real: Real<T, B>) =>
  (c: Semantics) => {
    const imm = immediate(c);
    selecting(c, real, { op: SSE_FLOAT.cmpss + real.shape, imm: imm.value }, (a, b) =>
      real.setMask(c, predicate(real, imm, a, b)),
    );
  };

/** COMISS and COMISD; UCOMISS and UCOMISD (quiet), for which an unordered pair is nothing special. */
const compareFlags =
  <T extends 'f32' | 'f64'>(real: Real<T, 'i32'>, op: number, quiet: boolean) =>
  (c: Semantics) => {
    const b = real.get(c, 1);
    const a = real.get(c, 0);
    const operands = unknown(c, real.suffix, [
      [0, a],
      [1, b],
    ]);
    const ordered = operands.length === 0 || !quiet;
    const fine = (value: Expr<T>) =>
      quiet ? i32.or(ordinary(real, value), real.quietNan(value)) : ordinary(real, value);
    c.sse.attempt(
      {
        usual: operands.flatMap((value) => real.usual([], value, i32.const(PLAIN))),
        stands: operands.map(fine).reduce(i32.and, i32.const(1)),
      },
      { op, into: 'flags' },
      () => {
        const bits = { a: real.doubleBits(a), b: real.doubleBits(b) };
        c.sse.compared(
          ordered
            ? {
                ...bits,
                below: real.lt(a, b),
                equal: real.eq(a, b),
                notAbove: real.le(a, b),
                unordered: null,
              }
            : {
                ...bits,
                below: i32.eqz(real.le(b, a)),
                equal: i32.eqz(i32.or(real.lt(a, b), real.lt(b, a))),
                notAbove: i32.eqz(real.lt(b, a)),
                unordered: i32.eqz(i32.or(real.le(a, b), real.lt(b, a))),
              },
        );
      },
    );
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
    const imm = immediate(c);
    const b = real.get(c, 1);
    const r = c.f.let(roundBy(real, imm, b));
    c.sse.attempt(
      {
        usual: real.usual([], b, c.sse.plain()),
        stands: real.all(ordinary(real, b)),
        exact: real.all(real.eq(r, b)),
      },
      { op: SSE_FLOAT.roundss + real.shape, imm: imm.value },
      () => real.set(c, r),
    );
  };

/** HADD, HSUB, ADDSUB: sums of lanes that first have to be brought together. */
const rearranged = (real: Real<'v128', 'v128'>, kind: 'hadd' | 'hsub' | 'addsub') => (c: Semantics) => {
  const { f } = c;
  let b = real.get(c, 1);
  let a = real.get(c, 0);
  const operands = unknown(c, real.suffix, [
    [0, a],
    [1, b],
  ]);
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
  const exact = (each: Kind) => arithmeticExact(real, each, a, b, r);
  c.sse.attempt(
    {
      usual: real.usual(operands, r, c.sse.plain()),
      stands: real.all(arithmeticStands(real, 'add', a, b, r)),
      exact: real.all(
        kind === 'addsub'
          ? v128.bitselect(exact('sub'), exact('add'), evens)
          : exact(kind === 'hadd' ? 'add' : 'sub'),
      ),
    },
    { op: SSE_FLOAT[`${kind}ps`] + (real === PS ? 0 : 1) },
    () => real.set(c, r),
  );
};

/** The instructions that exist in all four shapes. */
function shapes<T extends ValType, B extends ValType>(real: Real<T, B>): Definition[] {
  const { prefix, suffix, size } = real;
  const more: Partial<Definition> = { scalar: size !== 'x', ordinary: [suffix, suffix] };
  const row = (name: string, opcode: string, use: string, exec: (c: Semantics) => void) =>
    sse(`${name}${suffix}`, `${prefix} 0F ${opcode} /r`, `V${size}${use},W${size}`, exec, more);
  return [
    row('SQRT', '51', '=', squareRoot(real)),
    row('ADD', '58', '+', arithmetic(real, 'add')),
    row('MUL', '59', '+', arithmetic(real, 'mul')),
    row('SUB', '5C', '+', arithmetic(real, 'sub')),
    row('MIN', '5D', '+', extreme(real, 'min')),
    row('DIV', '5E', '+', arithmetic(real, 'div')),
    row('MAX', '5F', '+', extreme(real, 'max')),
    sse(`CMP${suffix}`, `${prefix} 0F C2 /r ib`, `V${size}+,W${size},Ib`, compare(real), {
      scalar: size !== 'x',
      ordinary: [null, suffix],
    }),
    sse(
      `ROUND${suffix}`,
      `66 0F 3A ${{ SS: '0A', SD: '0B', PS: '08', PD: '09' }[suffix]} /r ib`,
      `V${size}=,W${size},Ib`,
      round(real),
      more,
    ),
  ];
}

export const sseFloat: Definition[] = [
  ...shapes(SS),
  ...shapes(SD),
  ...shapes(PS),
  ...shapes(PD),
  sse('UCOMISS', 'NP 0F 2E /r', 'Vd,Wd', compareFlags(SS, SSE_FLOAT.ucomiss, true), SCALAR),
  sse('UCOMISD', '66 0F 2E /r', 'Vq,Wq', compareFlags(SD, SSE_FLOAT.ucomisd, true), SCALAR),
  sse('COMISS', 'NP 0F 2F /r', 'Vd,Wd', compareFlags(SS, SSE_FLOAT.comiss, false), {
    ...SCALAR,
    ordinary: ['SS', 'SS'],
  }),
  sse('COMISD', '66 0F 2F /r', 'Vq,Wq', compareFlags(SD, SSE_FLOAT.comisd, false), {
    ...SCALAR,
    ordinary: ['SD', 'SD'],
  }),
  sse('RSQRTPS', 'NP 0F 52 /r', 'Vx=,Wx', slow(SSE_FLOAT.rsqrtps, false)),
  sse('RSQRTSS', 'F3 0F 52 /r', 'Vd=,Wd', slow(SSE_FLOAT.rsqrtss, false)),
  sse('RCPPS', 'NP 0F 53 /r', 'Vx=,Wx', slow(SSE_FLOAT.rcpps, false)),
  sse('RCPSS', 'F3 0F 53 /r', 'Vd=,Wd', slow(SSE_FLOAT.rcpss, false)),
  sse('HADDPS', 'F2 0F 7C /r', 'Vx+,Wx', rearranged(PS, 'hadd'), { ordinary: ['PS', 'PS'] }),
  sse('HADDPD', '66 0F 7C /r', 'Vx+,Wx', rearranged(PD, 'hadd'), { ordinary: ['PD', 'PD'] }),
  sse('HSUBPS', 'F2 0F 7D /r', 'Vx+,Wx', rearranged(PS, 'hsub'), { ordinary: ['PS', 'PS'] }),
  sse('HSUBPD', '66 0F 7D /r', 'Vx+,Wx', rearranged(PD, 'hsub'), { ordinary: ['PD', 'PD'] }),
  sse('ADDSUBPS', 'F2 0F D0 /r', 'Vx+,Wx', rearranged(PS, 'addsub'), { ordinary: ['PS', 'PS'] }),
  sse('ADDSUBPD', '66 0F D0 /r', 'Vx+,Wx', rearranged(PD, 'addsub'), { ordinary: ['PD', 'PD'] }),
  sse('DPPS', '66 0F 3A 40 /r ib', 'Vx+,Wx,Ib', slow(SSE_FLOAT.dpps, true)),
  sse('DPPD', '66 0F 3A 41 /r ib', 'Vx+,Wx,Ib', slow(SSE_FLOAT.dppd, true)),
];
