/**
 * The x87: escapes D8..DF. What an instruction computes is decided by the host's X87 (src/x86/fpu/x87.ts) from escape
 * and ModRM byte; here is which encodings there are, what they are called, and what memory they touch.
 *
 * A pending exception comes before everything that can fault, so a waiting instruction looks first. The last
 * instruction pointer follows every instruction but control instructions; the last data pointer only one that found
 * an unmasked exception, as processors with FDP_EXCPTN_ONLY have it (SDM volume 1, 8.1.8).
 *
 * Under an operand-size prefix FLDENV, FNSTENV, FRSTOR and FNSAVE have a 16-bit image; nobody does that in 64-bit
 * mode, and it is not offered: the prefix is ignored.
 */
import { type I32, i32 } from '../../wasm/index.ts';
import { isControl, isNonWaiting, x87Operand } from '../fpu/x87-decode.ts';
import { CPU } from '../state.ts';
import type { Definition } from './definition.ts';
import { pendingException } from './mmx.ts';
import type { Semantics } from './semantics.ts';

const ES = 1 << 7;

const ARITHMETIC = ['ADD', 'MUL', 'COM', 'COMP', 'SUB', 'SUBR', 'DIV', 'DIVR'];
const floating = ARITHMETIC.map((name) => `F${name}`);
const integer = ARITHMETIC.map((name) => `FI${name}`);

/** Mnemonics by escape (from D8) and extension; '' where there is no instruction. */
const MEMORY: readonly (readonly string[])[] = [
  floating,
  ['FLD', '', 'FST', 'FSTP', 'FLDENV', 'FLDCW', 'FNSTENV', 'FNSTCW'],
  integer,
  ['FILD', 'FISTTP', 'FIST', 'FISTP', '', 'FLD', '', 'FSTP'],
  floating,
  ['FLD', 'FISTTP', 'FST', 'FSTP', 'FRSTOR', '', 'FNSAVE', 'FNSTSW'],
  integer,
  ['FILD', 'FISTTP', 'FIST', 'FISTP', 'FBLD', 'FILD', 'FBSTP', 'FISTP'],
];

/**
 * Instructions on ST(i). Twins that the manual does not name but every processor has (FCOM in DC, FXCH in DD and DF,
 * FFREEP ...) have the name of what they do.
 */
const REGISTER: readonly (readonly string[])[] = [
  floating,
  ['FLD', 'FXCH', '', 'FSTP', '', '', '', ''],
  ['FCMOVB', 'FCMOVE', 'FCMOVBE', 'FCMOVU', '', '', '', ''],
  ['FCMOVNB', 'FCMOVNE', 'FCMOVNBE', 'FCMOVNU', '', 'FUCOMI', 'FCOMI', ''],
  ['FADD', 'FMUL', 'FCOM', 'FCOMP', 'FSUBR', 'FSUB', 'FDIVR', 'FDIV'],
  ['FFREE', 'FXCH', 'FST', 'FSTP', 'FUCOM', 'FUCOMP', '', ''],
  ['FADDP', 'FMULP', 'FCOMP', '', 'FSUBRP', 'FSUBP', 'FDIVRP', 'FDIVP'],
  ['FFREEP', 'FXCH', 'FSTP', 'FSTP', '', 'FUCOMIP', 'FCOMIP', ''],
];

/** Instructions that are one ModRM byte. */
const FIXED: readonly [escape: number, modrm: number, names: string][] = [
  [0xd9, 0xd0, 'FNOP'],
  [0xd9, 0xe0, 'FCHS FABS'],
  [0xd9, 0xe4, 'FTST FXAM'],
  [0xd9, 0xe8, 'FLD1 FLDL2T FLDL2E FLDPI FLDLG2 FLDLN2 FLDZ'],
  [0xd9, 0xf0, 'F2XM1 FYL2X FPTAN FPATAN FXTRACT FPREM1 FDECSTP FINCSTP'],
  [0xd9, 0xf8, 'FPREM FYL2XP1 FSQRT FSINCOS FRNDINT FSCALE FSIN FCOS'],
  [0xda, 0xe9, 'FUCOMPP'],
  [0xdb, 0xe0, 'FNENI FNDISI FNCLEX FNINIT FNSETPM'],
  [0xde, 0xd9, 'FCOMPP'],
  [0xdf, 0xe0, 'FNSTSW'],
];

const hex = (n: number): string => n.toString(16).toUpperCase();

/** Exceptions that keep a store from happening, if they are not masked; a loss of precision does not. */
const FORBIDS_STORE = 0x1f;

/**
 * A store. Only when the result is known is it known whether memory is written at all; but a page fault must find
 * nothing done. So the result goes to a place of the CPU first, and the status comes back if memory refuses.
 */
function store(c: Semantics, escape: number, modrm: I32, bytes: number): void {
  const { f, cpu } = c;
  const fields = [CPU.fsw, CPU.ftw, CPU.fop];
  const read = () =>
    fields.map((field) => f.let(field === CPU.ftw ? i32.load8u(cpu, field) : i32.load16u(cpu, field)));
  const write = (values: I32[]) =>
    fields.forEach((field, i) => {
      f.store(cpu, values[i]!, field, field === CPU.ftw ? 8 : 16);
    });
  const before = read();
  const result = i32.add(cpu, CPU.temp);
  c.raiseVector(c.host.x87(escape, modrm, result));
  const unmasked = i32.and(i32.xor(i32.load16u(cpu, CPU.fcw), -1), i32.load16u(cpu, CPU.fsw));
  f.if(i32.eqz(i32.and(unmasked, FORBIDS_STORE)), () => {
    const after = read();
    write(before);
    const at = c.pointer(0, true);
    f.memoryCopy(at, result, bytes);
    c.commit(0);
    write(after);
  });
}

function execute(escape: number, modrm: number, memory: boolean): Definition['exec'] {
  return (c) => {
    const { f, cpu, host } = c;
    const control = isControl(escape, modrm);
    if (!isNonWaiting(escape, modrm)) pendingException(c);
    const operand = memory ? x87Operand(escape, modrm) : null;
    // The last opcode that is kept has all of the ModRM byte.
    const byte = c.form.definition.modrmImmediate ? i32.wrap(c.immediate()) : i32.const(modrm);
    if (operand === null) c.raiseVector(host.x87(escape, byte, i32.const(0)));
    else if (operand.access === 'write' && !control) store(c, escape, byte, operand.bytes);
    else {
      c.raiseVector(host.x87(escape, byte, c.pointer(0, operand.access === 'write')));
      if (operand.access === 'write') c.commit(0);
    }
    if (control) return;
    f.store(cpu, c.here(), CPU.fip);
    if (operand !== null)
      f.if(i32.and(i32.load16u(cpu, CPU.fsw), ES), () => f.store(cpu, c.address(false), CPU.fdp));
  };
}

const SIZE: Readonly<Record<number, string>> = { 2: 'w', 4: 'd', 8: 'q', 10: 't' };

function memoryForms(): Definition[] {
  return MEMORY.flatMap((names, n) =>
    names.flatMap((name, digit): Definition[] => {
      const operand = x87Operand(0xd8 + n, digit << 3);
      if (name === '' || operand === null) return [];
      return [
        {
          name,
          code: `${hex(0xd8 + n)} /${digit}`,
          operands: `M${SIZE[operand.bytes] ?? operand.bytes}${operand.access === 'write' ? '=' : ''}`,
          modrmImmediate: true,
          fpu: true,
          exec: execute(0xd8 + n, digit << 3, true),
        },
      ];
    }),
  );
}

function registerForms(): Definition[] {
  return REGISTER.flatMap((names, n) =>
    names.flatMap((name, digit): Definition[] => {
      if (name === '') return [];
      return [
        {
          name,
          code: `${hex(0xd8 + n)} /${digit}`,
          modrmRegister: true,
          modrmImmediate: true,
          fpu: true,
          exec: execute(0xd8 + n, 0xc0 | (digit << 3), false),
        },
      ];
    }),
  );
}

const fixedForms = (): Definition[] =>
  FIXED.flatMap(([escape, first, names]) =>
    names.split(' ').map((name, i) => ({
      name,
      code: `${hex(escape)} ${hex(first + i)}`,
      fpu: true,
      exec: execute(escape, first + i, false),
    })),
  );

export const x87: Definition[] = [
  ...memoryForms(),
  ...registerForms(),
  ...fixedForms(),
  { name: 'FWAIT', code: '9B', fpu: true, exec: pendingException },
];
