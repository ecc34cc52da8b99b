/**
 * What a definition's `exec` is written in. It emits WebAssembly; who implements it decides where operands come
 * from (the interpreter: from a record at run time; the translator: known while translating).
 *
 * Values of general operands are i64, sign-extended from the operand's size: then zero, sign, unsigned order and
 * overflow read the same way at every size.
 *
 * Order matters where something can fault: whatever can (memory operands by get, or by set of an operand that is
 * only written; load and store; raise) must come before anything that changes architectural state.
 */
import type { Func, I32, I32Like, I64, V128 } from '../../wasm/index.ts';
import type { Form } from './form.ts';
import type { SseSemantics } from './sse-semantics.ts';

/** A general register plus a constant. */
export interface Place {
  readonly register: number;
  readonly displacement: number;
}

export interface Semantics {
  /** Where statements go. */
  readonly f: Func;
  readonly form: Form;
  /** Operand size in bits of this form (16, 32, 64), or 0. */
  readonly size: number;
  /** The vCPU's state (see state.ts). */
  readonly cpu: I32;

  /** Bits of operand i. */
  bits(i: number): number;
  /** Operand i, sign-extended. Memory is read once, at the first get; an operand marked '+' is checked for writing. */
  get(i: number): I64;
  /** Operand i, zero-extended. */
  getU(i: number): I64;
  /** Writes the low bits of a value. A 32-bit register is zero-extended to 64. */
  set(i: number, value: I64): void;
  /** XMM or MMX operands; memory of up to 16 bytes, zero-filled above. */
  getV(i: number): V128;
  /** Writes a vector's low `bits` (default: the operand's size); upper bits of a register stay. */
  setV(i: number, value: V128, bits?: number): void;
  /** Linear address where operand i's bytes lie: a register's slot, or memory checked for reading (writing). */
  pointer(i: number, write: boolean): I32;
  /** To be called after stores through a pointer to a written memory operand. */
  commit(i: number): void;
  /** Effective address of the memory operand; with the segment base unless told. */
  address(segment?: boolean): I64;
  /** True for a memory form. */
  readonly memory: boolean;
  /** The immediate. */
  immediate(): I64;

  /** A whole general register by its number; stores to one. */
  reg(index: number): I64;
  setReg(index: number, value: I64): void;
  /** Adds a constant to a whole general register. */
  addToReg(index: number, constant: number): void;
  /** General register's low bits, sign-extended, and written as set does. */
  regPart(index: number, bits: number): I64;
  setRegPart(index: number, bits: number, value: I64): void;
  /** Base of the segment that the instruction names by prefix, else zero (data) or the given default. */
  segmentBase(): I64;
  /** All ones, or the low 32 bits set under an address-size prefix. */
  addressMask(): I64;

  /** Guest memory at a virtual address, perhaps known as the sum that `place` is. Loads are sign-extended. */
  load(va: I64, bits: number, place?: Place): I64;
  store(va: I64, bits: number, value: I64, place?: Place): void;
  /** Linear address of guest memory after the check, for bulk work; may be scratch (see commitPointer). */
  lookup(va: I64, bytes: number, write: boolean): I32;
  commitPointer(pointer: I32): void;

  /** Sign-extends, zero-extends the low bits of a value. */
  sext(value: I64, bits: number): I64;
  zext(value: I64, bits: number): I64;

  /** Flags. cf: 0 or 1; of: sign bit of an i64; af: bit 4. */
  zsp(result: I64): void;
  cf(value: I32): void;
  of(value: I64): void;
  af(value: I64): void;
  /** Tells that the flags just set are those of a - b (a + b): conditions can be read off a and b. */
  operation(kind: 'sub' | 'add', a: I64, b: I64, bits: number): void;
  getCf(): I32;
  /** One flag as 0 or 1. */
  flag(name: 'CF' | 'PF' | 'AF' | 'ZF' | 'SF' | 'OF' | 'DF'): I32;
  /** The condition cc of Jcc, SETcc, CMOVcc: 0 or 1 (or any non-zero). */
  condition(cc: number): I32;
  /** TF may have been set: the processor looks at it before the next instruction. */
  flagsChanged(): void;
  /** All of RFLAGS; and the status flags and DF (others as the mask says) from a value. */
  getFlags(): I32;
  setFlags(value: I32, mask: number): void;

  /** Address of the next instruction. */
  next(): I64;
  /** Address of this instruction. */
  here(): I64;
  /** Direct branch to the displacement operand: always, or if the condition holds. */
  jump(): void;
  jumpIf(condition: I32): void;
  /** Branch target of a direct branch. */
  target(): I64;
  jumpTo(va: I64): void;
  /** #GP(0) if an address to jump to is not canonical; `undo` takes back what was changed by then. */
  checkTarget(va: I64, undo?: () => void): void;
  /** Leaves with an exception; the instruction has not happened. */
  raise(vector: number, error?: I32Like): void;
  raiseIf(condition: I32, vector: number, error?: I32Like): void;
  /** The instruction is complete; leave the processor with this reason (exit fields set by the definition). */
  exit(reason: number): void;
  /** A slow path's verdict: 0 to go on, else the vector to raise, its error code in bits 8 and up. */
  raiseVector(vector: I32): void;
  /** What SSE has for itself. */
  readonly sse: SseSemantics;
  /** Functions of the host for what is not emitted. */
  readonly host: HostFunctions;
  /** Repeat this instruction (it has saved its progress): rip stays. */
  again(): void;
}

/** Helpers in TypeScript that definitions call; each returns 0 or a vector. */
export interface HostFunctions {
  /** (op, dst, src, imm) of SseFloat.execute. */
  sseFloat(op: number, dst: I32, src: I32, imm: I32Like): I32;
  /** (escape, modrm, operand) of X87.execute. */
  x87(escape: number, modrm: I32, operand: I32): I32;
  /** (which, operand, value): fxsave, fxrstor, ldmxcsr, mmx, emms. */
  fpu(which: number, operand: I32, value: I32Like): I32;
  /** Reads the time-stamp counter into rdx:rax (and rcx for RDTSCP). */
  rdtsc(withAux: boolean): I32;
  cpuid(): I32;
  /** 64 random bits, to CPU.temp; 0. */
  random(): I32;
  /** LAR, LSL, VERR, VERW (0..3): 1 if the selector may be looked at; the value is then a u32 at CPU.temp. */
  segmentQuery(kind: number, selector: I32): I32;
  /** The selector in a segment register, zero-extended. */
  selector(register: number): I64;
  /** (segment register, selector): loads a data or stack segment register; 0, or vector | error code << 8. */
  loadSegment(register: I32, selector: I32): I32;
  /** May this selector be loaded into CS by a far transfer (a far return) to 64-bit code? 0, or vector | error code << 8. */
  checkCodeSegment(selector: I32, isReturn: boolean): I32;
}
