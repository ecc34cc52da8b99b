/** What the SSE definition files share. */
import type { I32 } from '../../wasm/index.ts';
import type { Definition } from './definition.ts';
import type { Semantics } from './semantics.ts';

export const SCALAR: Partial<Definition> = { scalar: true };

export function sse(
  name: string,
  code: string,
  operands: string,
  exec: (c: Semantics) => void,
  more: Partial<Definition> = {},
): Definition {
  return { name, code, operands, fpu: true, ...more, exec };
}

/**
 * Linear addresses of destination (operand 0, a register) and source (operand 1); the source, which may fault, first.
 * To be followed by `commit(0)`.
 */
export function pointers(c: Semantics): { dst: I32; src: I32 } {
  const src = c.f.let(c.pointer(1, false));
  return { dst: c.f.let(c.pointer(0, true)), src };
}

/** Of a register and itself an exclusive or, a difference or the like makes zero, whatever the register holds. */
export function zeroOfSame(exec: (c: Semantics) => void): (c: Semantics) => void {
  return (c) => {
    if (c.sse.same()) c.sse.clear();
    else exec(c);
  };
}

/** All of operand 1 to operand 0. */
export const move = (c: Semantics): void => c.sse.move();
