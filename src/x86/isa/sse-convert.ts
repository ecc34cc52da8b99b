/** Conversions between integers, single and double precision (see sse-real.ts for when WebAssembly may answer). */
import { type Expr, f32, f64, type I32, type I64, i32, i64, type ValType, v128 } from '../../wasm/index.ts';
import { SSE_FLOAT } from '../fpu/sse-ops.ts';
import { CPU } from '../state.ts';
import type { Definition } from './definition.ts';
import { enterMmx, fillWritten, pendingException } from './mmx.ts';
import type { Semantics } from './semantics.ts';
import { pointers, sse } from './sse-definition.ts';
import { ordinary, PD, PS, plain, type Real, SD, SS } from './sse-real.ts';

const byHost = (c: Semantics, op: number, dst: I32, src: I32): void =>
  c.raiseVector(c.host.sseFloat(op, dst, src, 0));

const SINGLE_LEAST = 2 ** -126;
const SINGLE_MOST = (2 - 2 ** -23) * 2 ** 127;

/** The double as a single is zero or normal: it can be inexact but neither tiny nor too large. */
function fitsSingle<T extends ValType, B extends ValType>(real: Real<T, B>, a: Expr<T>): Expr<B> {
  const magnitude = real.abs(a);
  const within = real.and(
    real.le(real.constant(SINGLE_LEAST), magnitude),
    real.le(magnitude, real.constant(SINGLE_MOST)),
  );
  return real.or(within, real.eq(a, real.constant(0)));
}

/** Whether |value| < limit, for a limit that is a power of two. */
const magnitudeBelow = (value: I64, limit: bigint): I32 => i64.lt_u(i64.add(value, limit), 2n * limit);

/** CVTSI2SS, CVTSI2SD: an integer that the significand holds is exact. */
const fromInteger = (double: boolean) => (c: Semantics) => {
  const { f, cpu } = c;
  const value = f.let(c.get(1));
  const dst = f.let(c.pointer(0, true));
  const convert = () => f.store(dst, double ? f64.convert_i64(value) : f32.convert_i64(value));
  if (double && c.size === 32) {
    convert();
    return;
  }
  f.if(i32.or(plain(c), magnitudeBelow(value, double ? 1n << 53n : 1n << 24n)), convert, () => {
    f.store(cpu, value, CPU.temp);
    const op = double ? SSE_FLOAT.cvtsi2sd64 : c.size === 64 ? SSE_FLOAT.cvtsi2ss64 : SSE_FLOAT.cvtsi2ss32;
    byHost(c, op, dst, i32.add(cpu, CPU.temp));
  });
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
    const { f, cpu } = c;
    const src = f.let(c.pointer(1, false));
    const a = f.let(real.load(src));
    const whole = f.let(real.integral[truncate ? 3 : 0]!(a));
    const result = f.local('i64');
    const inRange = real.lt(real.abs(whole), real.constant(c.size === 64 ? 2 ** 63 : 2 ** 31));
    f.if(
      i32.and(inRange, i32.or(real.eq(whole, a), plain(c))),
      () => f.set(result, toI64(whole)),
      () => {
        byHost(c, op + (c.size === 64 ? 1 : 0), i32.add(cpu, CPU.temp), src);
        f.set(result, i64.load(cpu, CPU.temp));
      },
    );
    c.set(0, result);
  };

const toInteger32 = (truncate: boolean, op: number) => (c: Semantics) => {
  const { f } = c;
  const { dst, src } = pointers(c);
  const a = f.let(v128.load(src));
  const whole = f.let(PS.integral[truncate ? 3 : 0]!(a));
  const inRange = PS.lt(PS.abs(whole), PS.constant(2 ** 31));
  f.if(
    i32.and(plain(c), PS.all(inRange)),
    () => f.store(dst, v128.i32x4_trunc_sat_f32x4_s(whole)),
    () => byHost(c, op, dst, src),
  );
};

const toInteger64 = (truncate: boolean, op: number) => (c: Semantics) => {
  const { f } = c;
  const { dst, src } = pointers(c);
  const a = f.let(v128.load(src));
  const whole = f.let(PD.integral[truncate ? 3 : 0]!(a));
  const inRange = PD.lt(PD.abs(whole), PD.constant(2 ** 31));
  f.if(
    i32.and(plain(c), PD.all(inRange)),
    () => f.store(dst, v128.i32x4_trunc_sat_f64x2_s_zero(whole)),
    () => byHost(c, op, dst, src),
  );
};

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
    byHost(c, op, dst, src);
    fillWritten(c);
  });

export const sseConvert: Definition[] = [
  sse('CVTSI2SS', 'F3 0F 2A /r', 'Vd=,Ey', fromInteger(false)),
  sse('CVTSI2SD', 'F2 0F 2A /r', 'Vq=,Ey', fromInteger(true)),
  sse('CVTTSS2SI', 'F3 0F 2C /r', 'Gy=,Wd', toInteger(SS, f32.to_i64, true, SSE_FLOAT.cvttss2si32)),
  sse('CVTTSD2SI', 'F2 0F 2C /r', 'Gy=,Wq', toInteger(SD, f64.to_i64, true, SSE_FLOAT.cvttsd2si32)),
  sse('CVTSS2SI', 'F3 0F 2D /r', 'Gy=,Wd', toInteger(SS, f32.to_i64, false, SSE_FLOAT.cvtss2si32)),
  sse('CVTSD2SI', 'F2 0F 2D /r', 'Gy=,Wq', toInteger(SD, f64.to_i64, false, SSE_FLOAT.cvtsd2si32)),

  sse('CVTSS2SD', 'F3 0F 5A /r', 'Vq=,Wd', (c) => {
    const { f } = c;
    const { dst, src } = pointers(c);
    const a = f.let(f32.load(src));
    f.if(
      ordinary(SS, a),
      () => f.store(dst, f64.promote(a)),
      () => byHost(c, SSE_FLOAT.cvtss2sd, dst, src),
    );
  }),
  sse('CVTSD2SS', 'F2 0F 5A /r', 'Vd=,Wq', (c) => {
    const { f } = c;
    const { dst, src } = pointers(c);
    const a = f.let(f64.load(src));
    f.if(
      i32.and(plain(c), fitsSingle(SD, a)),
      () => f.store(dst, f32.demote(a)),
      () => byHost(c, SSE_FLOAT.cvtsd2ss, dst, src),
    );
  }),
  sse('CVTPS2PD', 'NP 0F 5A /r', 'Vx=,Wq', (c) => {
    const { f } = c;
    const { dst, src } = pointers(c);
    const a = f.let(v128.load64_zero(src));
    f.if(
      PS.all(ordinary(PS, a)),
      () => f.store(dst, v128.f64x2_promote_low_f32x4(a)),
      () => byHost(c, SSE_FLOAT.cvtps2pd, dst, src),
    );
  }),
  sse('CVTPD2PS', '66 0F 5A /r', 'Vx=,Wx', (c) => {
    const { f } = c;
    const { dst, src } = pointers(c);
    const a = f.let(v128.load(src));
    f.if(
      i32.and(plain(c), PD.all(fitsSingle(PD, a))),
      () => f.store(dst, v128.f32x4_demote_f64x2_zero(a)),
      () => byHost(c, SSE_FLOAT.cvtpd2ps, dst, src),
    );
  }),

  sse('CVTDQ2PD', 'F3 0F E6 /r', 'Vx=,Wq', (c) => c.setV(0, v128.f64x2_convert_low_i32x4_s(c.getV(1)))),
  sse('CVTDQ2PS', 'NP 0F 5B /r', 'Vx=,Wx', (c) => {
    const { f } = c;
    const { dst, src } = pointers(c);
    f.if(
      plain(c),
      () => f.store(dst, v128.f32x4_convert_i32x4_s(v128.load(src))),
      () => byHost(c, SSE_FLOAT.cvtdq2ps, dst, src),
    );
  }),
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
