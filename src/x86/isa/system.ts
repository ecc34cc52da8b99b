/**
 * System instructions as code at CPL 3 meets them: most are #GP(0), which an operating system's monitor may then
 * emulate; a few are allowed.
 */
import { i32, i64, select } from '../../wasm/index.ts';
import { CPU, FLAG, STATUS_FLAGS, VECTOR } from '../state.ts';
import type { Definition } from './definition.ts';
import type { Semantics } from './semantics.ts';

const privileged = (c: Semantics) => c.raise(VECTOR.GP, 0);
const undefinedOpcode = (c: Semantics) => c.raise(VECTOR.UD);

const CONTROL_REGISTERS = [0, 2, 3, 4, 8];
const DEBUG_REGISTERS = [0, 1, 2, 3, 4, 5, 6, 7];

/** Mnemonic, opcode, operands of instructions that fault with #GP(0) at CPL 3 (IOPL 0). */
const PRIVILEGED: [name: string, code: string, operands?: string, registers?: readonly number[]][] = [
  ['HLT', 'F4'],
  ['CLI', 'FA'],
  ['STI', 'FB'],
  ['IN', 'E4 ib'],
  ['IN', 'E5 ib'],
  ['OUT', 'E6 ib'],
  ['OUT', 'E7 ib'],
  ['IN', 'EC'],
  ['IN', 'ED'],
  ['OUT', 'EE'],
  ['OUT', 'EF'],
  ['INSB', '6C'],
  ['INS', '6D'],
  ['OUTSB', '6E'],
  ['OUTS', '6F'],
  ['CLTS', '0F 06'],
  ['SYSRET', '0F 07'],
  ['INVD', '0F 08'],
  ['WBINVD', '0F 09'],
  ['MOV', '0F 20 /r', 'Rq', CONTROL_REGISTERS],
  ['MOV', '0F 21 /r', 'Rq', DEBUG_REGISTERS],
  ['MOV', '0F 22 /r', 'Rq', CONTROL_REGISTERS],
  ['MOV', '0F 23 /r', 'Rq', DEBUG_REGISTERS],
  ['WRMSR', '0F 30'],
  ['RDMSR', '0F 32'],
  ['RDPMC', '0F 33'],
  ['SYSEXIT', '0F 35'],
  ['LLDT', '0F 00 /2', 'Ew'],
  ['LTR', '0F 00 /3', 'Ew'],
  ['LGDT', '0F 01 /2', 'M'],
  ['LIDT', '0F 01 /3', 'M'],
  ['LMSW', '0F 01 /6', 'Ew'],
  ['INVLPG', '0F 01 /7', 'M'],
  ['SWAPGS', '0F 01 F8'],
  // With UMIP, what would reveal system tables is privileged too.
  ['SLDT', '0F 00 /0', 'Ew'],
  ['STR', '0F 00 /1', 'Ew'],
  ['SGDT', '0F 01 /0', 'M'],
  ['SIDT', '0F 01 /1', 'M'],
  ['SMSW', '0F 01 /4', 'Ew'],
];

export const system: Definition[] = [
  ...PRIVILEGED.map(
    ([name, code, operands, registers]): Definition => ({
      name,
      code,
      operands,
      registers,
      privileged: true,
      untranslated: true,
      ends: true,
      exec: privileged,
    }),
  ),
  { name: 'CPUID', code: '0F A2', exec: (c) => c.raiseVector(c.host.cpuid()) },
  { name: 'RDTSC', code: '0F 31', exec: (c) => c.raiseVector(c.host.rdtsc(false)) },
  { name: 'RDTSCP', code: '0F 01 F9', exec: (c) => c.raiseVector(c.host.rdtsc(true)) },
  { name: 'RDRAND', code: '0F C7 /6', operands: 'Rv=', exec: random },
  { name: 'RDSEED', code: '0F C7 /7', operands: 'Rv=', exec: random },
  { name: 'UD2', code: '0F 0B', ends: true, exec: undefinedOpcode },
  { name: 'UD1', code: '0F B9 /r', operands: 'Ev', ends: true, exec: undefinedOpcode },
  { name: 'UD0', code: '0F FF /r', operands: 'Ev', ends: true, exec: undefinedOpcode },
  { name: 'LAR', code: '0F 02 /r', operands: 'Gv+,Ew', exec: query(0) },
  { name: 'LSL', code: '0F 03 /r', operands: 'Gv+,Ew', exec: query(1) },
  { name: 'VERR', code: '0F 00 /4', operands: 'Ew', exec: query(2) },
  { name: 'VERW', code: '0F 00 /5', operands: 'Ew', exec: query(3) },
];

/** RDRAND, RDSEED: there is always a number. CF says so; the other status flags are cleared. */
function random(c: Semantics): void {
  c.raiseVector(c.host.random());
  c.set(0, i64.load(c.cpu, CPU.temp));
  c.setFlags(i32.const(FLAG.CF), STATUS_FLAGS);
}

/** What a selector's descriptor says: ZF tells whether it may be looked at; LAR and LSL deliver a value. */
function query(kind: number): (c: Semantics) => void {
  return (c) => {
    const { f } = c;
    const delivers = kind < 2;
    const selector = i32.wrap(c.getU(delivers ? 1 : 0));
    const visible = f.let(c.host.segmentQuery(kind, selector));
    c.setFlags(select(visible, i32.const(FLAG.ZF), i32.const(0)), FLAG.ZF);
    if (delivers) f.if(visible, () => c.set(0, i64.load32u(c.cpu, CPU.temp)));
  };
}
