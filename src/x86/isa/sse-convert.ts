/** Conversions between integers, single and double precision (see sse-real.ts for when WebAssembly may answer). */
import {
  type Expr,
  f32,
  f64,
  type I32,
  type I64,
  i32,
  i64,
  type V128,
  type ValType,
  v128,
} from '../../wasm/index.ts';
import { SSE_FLOAT } from '../fpu/sse-ops.ts';
import type { Definition } from './definition.ts';
import { enterMmx, fillWritten, pendingException } from './mmx.ts';
import type { Semantics } from './semantics.ts';
import { pointers, SCALAR, sse } from './sse-definition.ts';
import { isInfinite, isZero, ordinary, PD, PS, type Real, SD, SS, unknown } from './sse-real.ts';
import { PLAIN } from './sse-semantics.ts';
import { dwords, vector } from './sse-vector.ts';

const SINGLE_MOST = (2 - 2 ** -23) * 2 ** 127;

/** The double as a single is zero, normal or infinite: it can be inexact but neither tiny nor too large. */
function fitsSingle<T extends ValType, B extends ValType>(real: Real<T, B>, a: Expr<T>): Expr<B> {
  const magnitude = real.abs(a);
  const within = real.and(
    real.le(real.constant(SS.least), magnitude),
    real.le(magnitude, real.constant(SINGLE_MOST)),
  );
  return real.or(within, real.or(isZero(real, a), isInfinite(real, a)));
}

/** Whether |value| < limit, for a limit that is a power of two. */
const magnitudeBelow = (value: I64, limit: bigint): I32 => i64.lt_u(i64.add(value, limit), 2n * limit);

const yes = i32.const(1);

/** CVTSI2SS, CVTSI2SD: an integer that the significand holds is exact. */
const fromInteger = (double: boolean) => (c: Semantics) => {
  const value = c.f.let(c.get(1));
  const done = () => {
    if (double) c.sse.setF64(0, f64.convert_i64(value));
    else c.sse.setF32(0, f32.convert_i64(value));
  };
  if (double && c.size === 32) {
    done();
    return;
  }
  const op = double ? SSE_FLOAT.cvtsi2sd64 : c.size === 64 ? SSE_FLOAT.cvtsi2ss64 : SSE_FLOAT.cvtsi2ss32;
  const exact = magnitudeBelow(value, double ? 1n << 53n : 1n << 24n);
  c.sse.attempt({ usual: [c.sse.plain()], stands: yes, exact }, { op, source: value }, done);
};

/** CVTxx2SI, CVTTxx2SI: what is whole is exact in every rounding mode. */
const toInteger =
  <T extends 'f32' | 'f64'>(
    real: Real<T, 'i32'>,
    toI64: (a: Expr<T>) => I64,
    truncate: boolean,
    op: number,
  ) =>
  (c: Semantics) => {
    const a = real.get(c, 1);
    const whole = truncate ? a : c.f.let(real.integral[0]!(a));
    const inRange = real.lt(real.abs(whole), real.constant(c.size === 64 ? 2 ** 63 : 2 ** 31));
    c.sse.attempt(
      {
        usual: [inRange, c.sse.plain()],
        stands: inRange,
        exact: real.eq(truncate ? real.integral[3]!(a) : whole, a),
      },
      { op: op + (c.size === 64 ? 1 : 0), into: 'general' },
      () => c.set(0, toI64(whole)),
    );
  };

/** CVTPS2DQ, CVTPD2DQ and their truncating kin. */
const toIntegers =
  (real: Real<'v128', 'v128'>, convert: (a: V128) => V128, truncate: boolean, op: number) =>
  (c: Semantics) => {
    const a = real.get(c, 1);
    const whole = c.f.let(real.integral[truncate ? 3 : 0]!(a));
    const inRange = real.all(real.lt(real.abs(whole), real.constant(2 ** 31)));
    c.sse.attempt(
      { usual: [c.sse.plain(), inRange], stands: inRange, exact: real.all(real.eq(whole, a)) },
      { op },
      () => c.setV(0, convert(whole)),
    );
  };

const toInteger32 = (truncate: boolean, op: number) =>
  toIntegers(PS, v128.i32x4_trunc_sat_f32x4_s, truncate, op);
const toInteger64 = (truncate: boolean, op: number) =>
  toIntegers(PD, v128.i32x4_trunc_sat_f64x2_s_zero, truncate, op);

/**
 * To or from an MMX register; from memory to XMM it has nothing to do with MMX. An unmasked exception finds the
 * processor in MMX mode already.
 */
const mmx = (name: string, code: string, operandText: string, op: number): Definition =>
  sse(name, code, operandText, (c) => {
    const registers = operandText.startsWith('P') || !c.memory;
    if (registers) pendingException(c);
    const { dst, src } = pointers(c);
    if (registers) enterMmx(c);
    c.raiseVector(c.host.sseFloat(op, dst, src, 0));
    c.commit(0);
    fillWritten(c);
  });

export const sseConvert: Definition[] = [
  sse('CVTSI2SS', 'F3 0F 2A /r', 'Vd=,Ey', fromInteger(false), { ...SCALAR, ordinary: ['SS', null] }),
  sse('CVTSI2SD', 'F2 0F 2A /r', 'Vq=,Ey', fromInteger(true), { ...SCALAR, ordinary: ['SD', null] }),
  sse('CVTTSS2SI', 'F3 0F 2C /r', 'Gy=,Wd', toInteger(SS, f32.to_i64, true, SSE_FLOAT.cvttss2si32), SCALAR),
  sse('CVTTSD2SI', 'F2 0F 2C /r', 'Gy=,Wq', toInteger(SD, f64.to_i64, true, SSE_FLOAT.cvttsd2si32), SCALAR),
  sse('CVTSS2SI', 'F3 0F 2D /r', 'Gy=,Wd', toInteger(SS, f32.to_i64, false, SSE_FLOAT.cvtss2si32), SCALAR),
  sse('CVTSD2SI', 'F2 0F 2D /r', 'Gy=,Wq', toInteger(SD, f64.to_i64, false, SSE_FLOAT.cvtsd2si32), SCALAR),

  sse(
    'CVTSS2SD',
    'F3 0F 5A /r',
    'Vq=,Wd',
    (c) => {
      const a = SS.get(c, 1);
      const operands = unknown(c, 'SS', [[1, a]]);
      c.sse.attempt(
        {
          usual: operands.flatMap((value) => SS.usual([], value, i32.const(PLAIN))),
          stands: ordinary(SS, a),
        },
        { op: SSE_FLOAT.cvtss2sd },
        () => c.sse.setF64(0, f64.promote(a)),
      );
    },
    { ...SCALAR, ordinary: ['SD', 'SS'] },
  ),
  sse(
    'CVTSD2SS',
    'F2 0F 5A /r',
    'Vd=,Wq',
    (c) => {
      const a = SD.get(c, 1);
      const r = c.f.let(f32.demote(a));
      c.sse.attempt(
        { usual: SS.usual([], r, c.sse.plain()), stands: fitsSingle(SD, a), exact: SD.eq(f64.promote(r), a) },
        { op: SSE_FLOAT.cvtsd2ss },
        () => c.sse.setF32(0, r),
      );
    },
    { ...SCALAR, ordinary: ['SS', 'SD'] },
  ),
  sse(
    'CVTPS2PD',
    'NP 0F 5A /r',
    'Vx=,Wq',
    (c) => {
      const a = PS.get(c, 1);
      const stands = PS.all(ordinary(PS, a));
      c.sse.attempt({ usual: [stands], stands }, { op: SSE_FLOAT.cvtps2pd }, () =>
        c.setV(0, v128.f64x2_promote_low_f32x4(a)),
      );
    },
    { ordinary: ['PD', null] },
  ),
  sse(
    'CVTPD2PS',
    '66 0F 5A /r',
    'Vx=,Wx',
    (c) => {
      const a = PD.get(c, 1);
      const r = c.f.let(v128.f32x4_demote_f64x2_zero(a));
      const stands = PD.all(fitsSingle(PD, a));
      const exact = PD.all(PD.eq(v128.f64x2_promote_low_f32x4(r), a));
      c.sse.attempt({ usual: [c.sse.plain(), stands], stands, exact }, { op: SSE_FLOAT.cvtpd2ps }, () =>
        c.setV(0, r),
      );
    },
    { ordinary: ['PS', null] },
  ),

  sse(
    'CVTDQ2PD',
    'F3 0F E6 /r',
    'Vx=,Wq',
    (c) => {
      c.setV(0, v128.f64x2_convert_low_i32x4_s(c.getV(1)));
    },
    { ordinary: ['PD', null] },
  ),
  sse(
    'CVTDQ2PS',
    'NP 0F 5B /r',
    'Vx=,Wx',
    (c) => {
      const a = vector(c, 1);
      const biased = v128.i32x4_add(a, dwords(1 << 24));
      const small = v128.i32x4_eq(v128.i32x4_min_u(biased, dwords(2 ** 25 - 1)), biased);
      c.sse.attempt(
        { usual: [c.sse.plain()], stands: yes, exact: v128.i32x4_all_true(small) },
        { op: SSE_FLOAT.cvtdq2ps },
        () => c.setV(0, v128.f32x4_convert_i32x4_s(a)),
      );
    },
    { ordinary: ['PS', null] },
  ),
  sse('CVTPS2DQ', '66 0F 5B /r', 'Vx=,Wx', toInteger32(false, SSE_FLOAT.cvtps2dq)),
  sse('CVTTPS2DQ', 'F3 0F 5B /r', 'Vx=,Wx', toInteger32(true, SSE_FLOAT.cvttps2dq)),
  sse('CVTPD2DQ', 'F2 0F E6 /r', 'Vx=,Wx', toInteger64(false, SSE_FLOAT.cvtpd2dq)),
  sse('CVTTPD2DQ', '66 0F E6 /r', 'Vx=,Wx', toInteger64(true, SSE_FLOAT.cvttpd2dq)),

  mmx('CVTTPS2PI', 'NP 0F 2C /r', 'Pq=,Wq', SSE_FLOAT.cvttps2pi),
  mmx('CVTPS2PI', 'NP 0F 2D /r', 'Pq=,Wq', SSE_FLOAT.cvtps2pi),
  mmx('CVTTPD2PI', '66 0F 2C /r', 'Pq=,Wx', SSE_FLOAT.cvttpd2pi),
  mmx('CVTPD2PI', '66 0F 2D /r', 'Pq=,Wx', SSE_FLOAT.cvtpd2pi),
  mmx('CVTPI2PS', 'NP 0F 2A /r', 'Vq=,Qq', SSE_FLOAT.cvtpi2ps),
  mmx('CVTPI2PD', '66 0F 2A /r', 'Vx=,Qq', SSE_FLOAT.cvtpi2pd),
];
