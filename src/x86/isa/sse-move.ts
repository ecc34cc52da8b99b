/** Moves between XMM registers, general registers and memory, and their whole-register logic. */
import { i32, i64, type V128, v128 } from '../../wasm/index.ts';
import { CPU, VECTOR } from '../state.ts';
import type { Definition } from './definition.ts';
import { FPU } from './fpu-calls.ts';
import type { Semantics } from './semantics.ts';
import { move, sse, zeroOfSame } from './sse-definition.ts';
import { byLanes, lowHalf, vector, ZERO } from './sse-vector.ts';

const UNALIGNED: Partial<Definition> = { unaligned: true, hot: true };

/** Loads and stores of 16 bytes: mnemonic, encoding up to the opcode of the load, opcode of the store. */
const whole = (
  name: string,
  prefix: string,
  load: string,
  store: string,
  more: Partial<Definition>,
): Definition[] => [
  sse(name, `${prefix} 0F ${load} /r`, 'Vx=,Wx', move, more),
  sse(name, `${prefix} 0F ${store} /r`, 'Wx=,Vx', move, more),
];

const logic = (name: string, opcode: string, op: (a: V128, b: V128) => V128): Definition[] =>
  ['NP', '66'].map((prefix) => {
    const exec = (c: Semantics) => {
      const b = vector(c, 1);
      c.setV(0, op(vector(c, 0), b));
    };
    const zeroes = name === 'XOR';
    return sse(
      `${name}${prefix === 'NP' ? 'PS' : 'PD'}`,
      `${prefix} 0F ${opcode} /r`,
      'Vx+,Wx',
      zeroes ? zeroOfSame(exec) : exec,
      { zeroOfSame: zeroes },
    );
  });

/** A source of 64 bits becomes the low (high) half of the destination. */
const intoHigh = (c: Semantics): void => {
  const b = vector(c, 1);
  c.setV(0, v128.shuffle(c.getV(0), b, byLanes(8, 0, 2)));
};
const fromHigh = (c: Semantics): void => {
  const a = vector(c, 1);
  c.setV(0, v128.shuffle(a, a, byLanes(8, 1, 1)));
};

/** #GP(0) unless the operand begins at a multiple of 16; an address that is not canonical faults as such. */
const aligned = (c: Semantics): void => {
  const va = c.f.let(c.address());
  const canonical = i64.eq(i64.shr_s(i64.shl(va, 16), 16), va);
  c.raiseIf(i32.and(i64.ne(i64.and(va, 15), 0), canonical), VECTOR.GP, 0);
};

const nothing = (): void => {};

const state = (name: string, code: string, which: number, write: boolean): Definition => ({
  name,
  code,
  operands: write ? 'M512=' : 'M512',
  fpu: true,
  writesAllXmm: !write,
  exec: (c) => {
    aligned(c);
    // Of two pages that refuse a store, processors report the second.
    if (write) c.f.let(c.lookup(i64.add(c.address(), 511), 1, true));
    const at = c.f.let(c.pointer(0, write));
    c.raiseVector(c.host.fpu(which, at, 0));
    if (write) c.commit(0);
  },
});

/** Bits of MXCSR that do not exist. */
const MXCSR_RESERVED = ~0xffff;

export const sseMove: Definition[] = [
  ...whole('MOVUPS', 'NP', '10', '11', UNALIGNED),
  ...whole('MOVUPD', '66', '10', '11', { unaligned: true }),
  ...whole('MOVAPS', 'NP', '28', '29', { hot: true }),
  ...whole('MOVAPD', '66', '28', '29', {}),
  ...whole('MOVDQA', '66', '6F', '7F', { hot: true }),
  ...whole('MOVDQU', 'F3', '6F', '7F', UNALIGNED),
  sse('LDDQU', 'F2 0F F0 /r', 'Vx=,Mx', move, { unaligned: true }),
  sse('MOVNTPS', 'NP 0F 2B /r', 'Mx=,Vx', move),
  sse('MOVNTPD', '66 0F 2B /r', 'Mx=,Vx', move),
  sse('MOVNTDQ', '66 0F E7 /r', 'Mx=,Vx', move),
  sse('MOVNTDQA', '66 0F 38 2A /r', 'Vx=,Mx', move),
  // Between registers the rest of the destination stays; a load clears it.
  sse('MOVSS', 'F3 0F 10 /r', 'Vd+,Ud', move),
  sse('MOVSS', 'F3 0F 10 /r', 'Vx=,Md', move),
  sse('MOVSS', 'F3 0F 11 /r', 'Wd=,Vd', move),
  sse('MOVSD', 'F2 0F 10 /r', 'Vq+,Uq', move),
  sse('MOVSD', 'F2 0F 10 /r', 'Vx=,Mq', move, { hot: true }),
  sse('MOVSD', 'F2 0F 11 /r', 'Wq=,Vq', move, { hot: true }),
  sse('MOVHLPS', 'NP 0F 12 /r', 'Vq=,Ux', fromHigh),
  sse('MOVLPS', 'NP 0F 12 /r', 'Vq=,Mq', move),
  sse('MOVLPS', 'NP 0F 13 /r', 'Mq=,Vq', move),
  sse('MOVLPD', '66 0F 12 /r', 'Vq=,Mq', move),
  sse('MOVLPD', '66 0F 13 /r', 'Mq=,Vq', move),
  sse('MOVLHPS', 'NP 0F 16 /r', 'Vx+,Uq', intoHigh),
  sse('MOVHPS', 'NP 0F 16 /r', 'Vx+,Mq', intoHigh),
  sse('MOVHPS', 'NP 0F 17 /r', 'Mq=,Vx', fromHigh),
  sse('MOVHPD', '66 0F 16 /r', 'Vx+,Mq', intoHigh),
  sse('MOVHPD', '66 0F 17 /r', 'Mq=,Vx', fromHigh),
  sse('MOVD/MOVQ', '66 0F 6E /r', 'Vx=,Ey', (c) => c.setV(0, v128.i64x2_replace(ZERO, 0, c.getU(1))), {
    hot: true,
  }),
  sse('MOVD/MOVQ', '66 0F 7E /r', 'Ey=,Vx', (c) => c.set(0, i64.reinterpret_f64(c.sse.getF64(1))), {
    hot: true,
  }),
  sse('MOVQ', 'F3 0F 7E /r', 'Vx=,Wq', move),
  sse('MOVQ', '66 0F D6 /r', 'Uq=,Vq', (c) => c.setV(0, lowHalf(c.getV(1)), 128)),
  sse('MOVQ', '66 0F D6 /r', 'Mq=,Vq', move),
  sse('MOVDDUP', 'F2 0F 12 /r', 'Vx=,Wq', (c) =>
    c.setV(0, v128.i64x2_splat(v128.i64x2_extract(c.getV(1), 0))),
  ),
  sse('MOVSLDUP', 'F3 0F 12 /r', 'Vx=,Wx', (c) => {
    const a = vector(c, 1);
    c.setV(0, v128.shuffle(a, a, byLanes(4, 0, 0, 2, 2)));
  }),
  sse('MOVSHDUP', 'F3 0F 16 /r', 'Vx=,Wx', (c) => {
    const a = vector(c, 1);
    c.setV(0, v128.shuffle(a, a, byLanes(4, 1, 1, 3, 3)));
  }),
  sse('MOVMSKPS', 'NP 0F 50 /r', 'Gd=,Ux', (c) => c.set(0, i64.extend_u(v128.i32x4_bitmask(c.getV(1))))),
  sse('MOVMSKPD', '66 0F 50 /r', 'Gd=,Ux', (c) => c.set(0, i64.extend_u(v128.i64x2_bitmask(c.getV(1))))),
  ...logic('AND', '54', v128.and),
  ...logic('ANDN', '55', (a, b) => v128.andnot(b, a)),
  ...logic('OR', '56', v128.or),
  ...logic('XOR', '57', v128.xor),

  state('FXSAVE', 'NP 0F AE /0', FPU.fxsave, true),
  state('FXSAVE64', 'NP REX.W 0F AE /0', FPU.fxsave64, true),
  state('FXRSTOR', 'NP 0F AE /1', FPU.fxrstor, false),
  state('FXRSTOR64', 'NP REX.W 0F AE /1', FPU.fxrstor64, false),
  sse('LDMXCSR', 'NP 0F AE /2', 'Md', (c) => {
    const value = c.f.let(i32.wrap(c.getU(0)));
    c.raiseIf(i32.and(value, MXCSR_RESERVED), VECTOR.GP, 0);
    c.sse.setMxcsr(value);
  }),
  sse('STMXCSR', 'NP 0F AE /3', 'Md=', (c) => c.set(0, i64.load32u(c.cpu, CPU.mxcsr))),

  // Caches and ordering: one processor at a time touches a domain's memory, nothing is left to do. CLFLUSH checks
  // its operand as a load does; prefetches and hints do not.
  { name: 'LFENCE', code: 'NP 0F AE /5', modrmRegister: true, exec: nothing },
  { name: 'MFENCE', code: 'NP 0F AE /6', modrmRegister: true, exec: nothing },
  { name: 'SFENCE', code: 'NP 0F AE /7', modrmRegister: true, exec: nothing },
  { name: 'CLFLUSH', code: 'NP 0F AE /7', operands: 'Mb', exec: (c) => void c.pointer(0, false) },
  { name: 'PREFETCHNTA', code: '0F 18 /0', operands: 'Mb', exec: nothing },
  { name: 'PREFETCHT0', code: '0F 18 /1', operands: 'Mb', exec: nothing },
  { name: 'PREFETCHT1', code: '0F 18 /2', operands: 'Mb', exec: nothing },
  { name: 'PREFETCHT2', code: '0F 18 /3', operands: 'Mb', exec: nothing },
  ...[0, 1, 2, 3].map(
    (digit): Definition => ({ name: 'NOP', code: `0F 18 /${digit}`, modrmRegister: true, exec: nothing }),
  ),
  ...[4, 5, 6, 7].map(
    (digit): Definition => ({ name: 'NOP', code: `0F 18 /${digit}`, operands: 'Ed', exec: nothing }),
  ),
  { name: 'PREFETCHW', code: '0F 0D /r', operands: 'Ed', exec: nothing },
];
