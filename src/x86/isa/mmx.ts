/**
 * MMX (SDM volume 1, chapter 9), with what SSE and SSSE3 added to it.
 *
 * MMi is the significand of the physical x87 register Ri. Every MMX instruction ends in MMX mode: TOP is 0, all tags
 * are valid, and the register that was written has all ones above the significand. An x87 exception that is pending
 * comes first. Both are a few stores to the CPU, so they are emitted here and not called.
 */
import { i32, i64, type V128, v128 } from '../../wasm/index.ts';
import { CPU, VECTOR } from '../state.ts';
import type { Definition } from './definition.ts';
import type { Semantics } from './semantics.ts';
import { move } from './sse-definition.ts';
import { PACKED, PACKED_SHIFTS } from './sse-packed.ts';
import { align, immediate, join, shuffleWords, vector, ZERO } from './sse-vector.ts';

/** Bits of the x87 status word. */
const ES = 1 << 7;
const TOP = 7 << 11;

/** #MF if an x87 exception is pending. */
export function pendingException(c: Semantics): void {
  c.raiseIf(i32.and(i32.load16u(c.cpu, CPU.fsw), ES), VECTOR.MF);
}

function setTags(c: Semantics, tags: number): void {
  c.f.store(c.cpu, i32.and(i32.load16u(c.cpu, CPU.fsw), 0xffff & ~TOP), CPU.fsw, 16);
  c.f.store(c.cpu, i32.const(tags), CPU.ftw, 8);
}

/** The way into MMX mode; after everything that can fault. */
export const enterMmx = (c: Semantics): void => setTags(c, 0xff);

/** Ones above the significand of a register that was written. */
export function fillWritten(c: Semantics): void {
  c.form.operands.forEach(({ kind, written }, i) => {
    if (written && (kind === 'P' || kind === 'N' || (kind === 'Q' && !c.memory)))
      c.f.store(c.pointer(i, true), i32.const(0xffff), 8, 16);
  });
}

/** An instruction that works in MMX mode. */
const instruction = (
  name: string,
  code: string,
  operands: string,
  exec: (c: Semantics) => void,
  more: Partial<Definition> = {},
): Definition => ({
  name,
  code,
  operands,
  fpu: true,
  ...more,
  exec: (c) => {
    pendingException(c);
    exec(c);
    enterMmx(c);
    fillWritten(c);
  },
});

const binary = (name: string, opcode: string, op: (a: V128, b: V128) => V128, source = 'q'): Definition =>
  instruction(name, `NP ${opcode} /r`, `Pq+,Q${source}`, (c) => {
    const b = vector(c, 1);
    c.setV(0, op(vector(c, 0), b));
  });

/** MASKMOVQ and MASKMOVDQU: bytes whose mask has bit 7 set go to DS:rDI. */
export const maskedStore = (size: number) => (c: Semantics) => {
  const { f } = c;
  const data = c.pointer(0, false);
  const chosen = f.let(v128.i8x16_bitmask(c.getV(1)));
  if (size === 8) f.set(chosen, i32.and(chosen, 0xff));
  const start = f.let(i64.and(c.reg(7), c.addressMask()));
  const base = f.let(c.segmentBase());
  const at = (i: ReturnType<typeof f.let<'i32'>>) =>
    i64.add(base, i64.and(i64.add(start, i64.extend_u(i)), c.addressMask()));
  const index = f.local('i32');
  const rest = f.local('i32');
  const each = (work: () => void) => {
    f.set(rest, chosen);
    f.loop((next) => {
      f.if(rest, () => {
        f.set(index, i32.ctz(rest));
        f.set(rest, i32.and(rest, i32.sub(rest, 1)));
        work();
        f.br(next);
      });
    });
  };
  // Nothing is written unless all of it can be.
  each(() => {
    f.let(c.lookup(f.let(at(index)), 1, true));
  });
  each(() => {
    c.store(f.let(at(index)), 8, i64.load8u(i32.add(data, index)));
  });
};

export const mmx: Definition[] = [
  ...PACKED.map(({ name, opcode, op, mmx, mmxSource }) => binary(name, opcode, mmx ?? op, mmxSource)),
  ...PACKED_SHIFTS.flatMap(({ name, opcode, immediate: group, shift }) => [
    instruction(name, `NP ${opcode} /r`, 'Pq+,Qq', (c) => {
      const count = c.f.let(v128.i64x2_extract(c.getV(1), 0));
      c.setV(0, shift(vector(c, 0), count));
    }),
    instruction(name, `NP ${group} ib`, 'Nq+,Ib', (c) => {
      const { known, value } = immediate(c);
      const count = known === undefined ? c.f.let(i64.extend_u(value)) : i64.const(known);
      c.setV(0, shift(vector(c, 0), count));
    }),
  ]),
  instruction('MOVD/MOVQ', 'NP 0F 6E /r', 'Pq=,Ey', (c) => c.setV(0, v128.i64x2_replace(ZERO, 0, c.getU(1)))),
  instruction('MOVD/MOVQ', 'NP 0F 7E /r', 'Ey=,Pq', (c) => c.set(0, v128.i64x2_extract(c.getV(1), 0))),
  instruction('MOVQ', 'NP 0F 6F /r', 'Pq=,Qq', move),
  instruction('MOVQ', 'NP 0F 7F /r', 'Qq=,Pq', move),
  instruction('MOVNTQ', 'NP 0F E7 /r', 'Mq=,Pq', move),
  instruction('MOVDQ2Q', 'F2 0F D6 /r', 'Pq=,Uq', move),
  instruction('MOVQ2DQ', 'F3 0F D6 /r', 'Vx=,Nq', move),
  instruction('PSHUFW', 'NP 0F 70 /r ib', 'Pq=,Qq,Ib', (c) => {
    const b = vector(c, 1);
    c.setV(0, shuffleWords(b, immediate(c), false));
  }),
  instruction('PALIGNR', 'NP 0F 3A 0F /r ib', 'Pq+,Qq,Ib', (c) => {
    const b = vector(c, 1);
    c.setV(0, align(c.f.let(join(b, c.getV(0))), ZERO, immediate(c)));
  }),
  instruction('PMOVMSKB', 'NP 0F D7 /r', 'Gd=,Nq', (c) =>
    c.set(0, i64.extend_u(i32.and(v128.i8x16_bitmask(c.getV(1)), 0xff))),
  ),
  instruction('PEXTRW', 'NP 0F C5 /r ib', 'Gd=,Nq,Ib', (c) => {
    const word = i32.shl(i32.and(immediate(c).value, 3), 1);
    c.set(0, i64.load16u(i32.add(c.pointer(1, false), word)));
  }),
  ...['Rd', 'Mw'].map((source) =>
    instruction('PINSRW', 'NP 0F C4 /r ib', `Pq+,${source},Ib`, (c) => {
      const value = c.f.let(c.get(1));
      const word = i32.shl(i32.and(immediate(c).value, 3), 1);
      c.f.store(i32.add(c.pointer(0, true), word), value, 0, 16);
    }),
  ),
  instruction('MASKMOVQ', 'NP 0F F7 /r', 'Pq,Nq', maskedStore(8)),
  {
    name: 'EMMS',
    code: 'NP 0F 77',
    fpu: true,
    exec: (c) => {
      pendingException(c);
      setTags(c, 0);
    },
  },
];
