/**
 * The numbers of `HostFunctions.fpu`: x87/SSE state as a whole, in TypeScript (src/x86/fpu). What is a store or two
 * (EMMS, the way into MMX mode, LDMXCSR, STMXCSR, FWAIT) is emitted by the definitions themselves.
 */
export const FPU = {
  /** operand: linear address of 512 bytes to write (checked and aligned); value: 0. Pointers are 32 bits and selectors. */
  fxsave: 0,
  /** The same with REX.W: 64-bit FIP and FDP. */
  fxsave64: 1,
  /** operand: linear address of 512 bytes to read. Returns VECTOR.GP if MXCSR has reserved bits. */
  fxrstor: 2,
  fxrstor64: 3,
} as const;
