/** Answers the definitions' calls for x87 and SSE state as a whole (see isa/fpu-calls.ts). */
import type { X87 } from '../fpu/x87.ts';
import { FPU } from '../isa/fpu-calls.ts';
import { VECTOR } from '../state.ts';

/** @returns 0, or the vector to raise */
export function fpuCall(x87: X87, which: number, cpu: number, operand: number): number {
  switch (which) {
    case FPU.fxsave:
    case FPU.fxsave64:
      x87.fxsave(cpu, operand, which === FPU.fxsave64);
      return 0;
    case FPU.fxrstor:
    case FPU.fxrstor64:
      return x87.fxrstor(cpu, operand, which === FPU.fxrstor64);
    default:
      return VECTOR.UD;
  }
}
