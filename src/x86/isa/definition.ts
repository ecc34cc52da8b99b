/**
 * What an instruction is: its encoding, its operands, its meaning. Decoder, interpreter, translator and the
 * conformance tests all derive from these records; there is no second description of an instruction anywhere.
 *
 * Encodings are written as in Intel's manual (SDM volume 2, 3.1.1.1): '01 /r', '83 /2 ib', '50+r', '0F B6 /r',
 * '66 0F 6F /r', 'F3 0F B8 /r', 'NP 0F 10 /r', 'REX.W 0F C7 /1', '0F 01 D0' (a fixed ModRM byte follows).
 *   66, F2, F3 first: mandatory prefix; NP: none of these three. Without any: 66 is the operand size, F2/F3 are ignored.
 *   /r: ModRM with a register; /0../7: ModRM with an extension; +r: register in the low three opcode bits.
 *   ib iw id iz iv: immediate (iz: 16 bits at operand size 16, else 32, sign-extended; iv: 16, 32 or 64);
 *   cb cd: branch displacement of 8, 32 bits; a: a full 64-bit address (moffs).
 *
 * Operands are letters as in the opcode map of the manual (volume 2, appendix A.2), a size, and how they are used:
 *   E general register or memory (ModRM.rm)    G general register (ModRM.reg)    Z register in the opcode
 *   M memory only                              R general register only (ModRM.rm, mod 3)
 *   V XMM (reg)   W XMM or memory (rm)   U XMM only (rm)     P MMX (reg)  Q MMX or memory  N MMX only
 *   I immediate   J branch target        O absolute moffs address   S segment register (reg)
 *   AL AX CL DX and A+size (accumulator), 1 (the constant)
 *   sizes: b 8, w 16, d 32, q 64, v 16/32/64 by operand size, y 32/64, z 16/32, x 128; t 80, or digits: bytes of memory.
 *   use: none: read, '=': written, '+': read and written.
 * So ADD r/m, r is { code: '01 /r', operands: 'Ev+,Gv' }.
 */
import type { Semantics } from './semantics.ts';
import type { Shape } from './sse-semantics.ts';

/** Flags as the manual names them, space separated: 'OF AF'. */
export type FlagNames = string;

export interface Definition {
  /** Mnemonic of the manual. */
  readonly name: string;
  readonly code: string;
  readonly operands?: string;
  /** Flags that the manual leaves undefined after the instruction. */
  readonly undefinedFlags?: FlagNames;
  /** Implicit operands have the operand size: one form each for 16, 32, 64 ('v') or 32, 64 ('y'). */
  readonly sizes?: 'v' | 'y';
  /** A string instruction: F3 and F2 repeat it. */
  readonly rep?: boolean;
  /** A 16-byte memory operand need not be aligned. */
  readonly unaligned?: boolean;
  /** The ModRM byte itself is the immediate (x87 register forms); with modrmRegister, only mod 3 belongs to it. */
  readonly modrmImmediate?: boolean;
  readonly modrmRegister?: boolean;
  /** Matches only without REX.B: NOP, which is not XCHG R8, RAX. */
  readonly withoutRexB?: boolean;
  /** The segment register's number (ModRM.reg) is the immediate; CS is not allowed. */
  readonly segmentImmediate?: boolean;
  /** Operand size in 64-bit mode is 64 without REX.W (push, near branches). */
  readonly default64?: boolean;
  /** The numbers that ModRM.reg may name (control and debug registers); others are #UD. */
  readonly registers?: readonly number[];
  /** Uses the stack by itself: a bad address is #SS. */
  readonly stack?: boolean;
  /** LOCK is allowed with a memory destination. */
  readonly lock?: boolean;
  /** Ends a run of straight-line code. */
  readonly ends?: boolean;
  /** Worth a place inside the interpreter's loop; others are functions of their own. */
  readonly hot?: boolean;
  /** Runs at CPL 0 only: #GP here, always. */
  readonly privileged?: boolean;
  /** x87/MMX/SSE state is touched: #NM when CR0.TS is set. */
  readonly fpu?: boolean;
  /** Its XMM operands of 32 and 64 bits are numbers: the low lanes of their registers. */
  readonly scalar?: boolean;
  /** As what numbers operands 0 and 1, where they are XMM registers, hold neither denormals nor NaNs afterwards. */
  readonly ordinary?: readonly [Shape | null, Shape | null];
  /** Of a register and itself it makes zero. */
  readonly zeroOfSame?: boolean;
  /** Writes XMM0 without naming it; writes all XMM registers. */
  readonly writesXmm0?: boolean;
  readonly writesAllXmm?: boolean;
  /** The condition (0..15) of a conditional instruction. */
  readonly cc?: number;
  /** Computes its memory operand's address itself, with Semantics.addressMask: it depends on what it changes. */
  readonly ownAddress?: boolean;
  /** Left to the interpreter: a region ends before it. */
  readonly untranslated?: boolean;
  /** Emits what the instruction does. */
  readonly exec: (c: Semantics) => void;
}
