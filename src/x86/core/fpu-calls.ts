import type { Memory } from '../../machine/memory.ts';
export function fpuCall(
  _m: Memory,
  _x: unknown,
  _which: number,
  _cpu: number,
  _operand: number,
  _value: number,
): number {
  return 0;
}
