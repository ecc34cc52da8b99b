/**
 * The part of Semantics that SSE has for itself: XMM registers as numbers, and floating point that is computed first
 * and checked afterwards.
 *
 * WebAssembly rounds to nearest and raises no flags. So a definition computes what WebAssembly computes and tells how
 * to see that this is what the processor delivers (`attempt`); where it is not, the host's SseFloat decides, which
 * knows all the rules. What an operation was seen to be (neither denormal nor NaN) need not be asked of its operands
 * again: `knows`, and Definition.ordinary.
 */
import type { F32, F64, I32, I32Like, I64, V128 } from '../../wasm/index.ts';

/** Shape of a floating-point instruction, as its mnemonic ends. */
export type Shape = 'SS' | 'SD' | 'PS' | 'PD';

/**
 * What `plain` is where MXCSR asks for what WebAssembly does: all exceptions masked, to nearest, and PE set already,
 * so that nobody need ask whether a result is exact. Bits 5 to 10: see the tests in sse-real.ts.
 */
export const PLAIN = 0x7e0;

/** How to see that a result is the processor's, with its flags. */
export interface Attempt {
  /** Cheap tests that nearly always say yes (non-zero): if all do, and MXCSR is plain, the result stands. */
  readonly usual: readonly I32[];
  /** Whether it stands apart from #P. */
  readonly stands: I32;
  /** Whether it is exact: asked where PE is not set yet. Without: always, whatever MXCSR says. */
  readonly exact?: I32;
}

/** The operation as the host executes it (SseFloat.execute). */
export interface HostOperation {
  /** One of SSE_FLOAT: from operand 1 (and 0) to operand 0. */
  readonly op: number;
  readonly imm?: I32Like;
  /** The source where it is a general operand. */
  readonly source?: I64;
  /** The result is a general register, or the flags of a comparison; else an XMM register. */
  readonly into?: 'general' | 'flags';
}

export interface SseSemantics {
  /** The low lane of operand i, an XMM register or memory. */
  getF32(i: number): F32;
  getF64(i: number): F64;
  /** Writes operand i's low lane; lanes above stay. */
  setF32(i: number, value: F32): void;
  setF64(i: number, value: F64): void;
  /** All of operand 1 to operand 0; into a wider register zero-extended. */
  move(): void;
  /** Whether operands 0 and 1 are known to be the same register. */
  same(): boolean;
  /** Makes operand 0, a register, zero. */
  clear(): void;
  /** XMM0 as an implicit operand. */
  getXmm0(): V128;
  setXmm0(value: V128): void;
  /** Writes MXCSR. */
  setMxcsr(value: I32): void;

  /** PLAIN or 0. */
  plain(): I32;
  /** Whether operand i is known to be zero, normal or infinite as numbers of this shape. */
  knows(i: number, shape: Shape): boolean;
  /**
   * Does `done` if the attempt succeeds, else the operation by the host. Comes after everything that can fault and
   * before any change; `done` changes the destination.
   */
  attempt(attempt: Attempt, host: HostOperation, done: () => void): void;
  /** Sets the flags of COMISS and its kin. */
  compared(comparison: FloatComparison): void;
}

/** The flags of a comparison of two numbers; OF, SF and AF are 0. */
export interface FloatComparison {
  /** CF: less, or unordered. */
  readonly below: I32;
  /** ZF: equal, or unordered. */
  readonly equal: I32;
  /** CF or ZF. */
  readonly notAbove: I32;
  /** PF, or null where the numbers are known to be ordered. */
  readonly unordered: I32 | null;
  /** The bits of the numbers, as doubles. */
  readonly a: I64;
  readonly b: I64;
}
