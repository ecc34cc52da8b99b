/**
 * A form is a definition with everything fixed that changes the code to be emitted: operand size, register or
 * memory operand, repeat prefix. The interpreter has one handler a form; the decoder picks the form; the
 * conformance tests count forms.
 */
import type { Definition } from './definition.ts';
import { type Encoding, type Operand, operandBits, parseEncoding, parseOperands } from './encoding.ts';

export type Repeat = '' | 'rep' | 'repne';

export interface Form {
  readonly definition: Definition;
  readonly encoding: Encoding;
  readonly operands: readonly Operand[];
  /** 16, 32 or 64; 0 where the definition does not depend on it. */
  readonly size: number;
  /** ModRM.rm names memory. */
  readonly memory: boolean;
  readonly repeat: Repeat;
  /** Its number: the opcode of its records. */
  readonly index: number;
}

/** Operand kinds that ModRM.rm encodes, and whether each allows a register, memory. */
const RM: Record<string, { register: boolean; memory: boolean }> = {
  E: { register: true, memory: true },
  W: { register: true, memory: true },
  Q: { register: true, memory: true },
  M: { register: false, memory: true },
  R: { register: true, memory: false },
  U: { register: true, memory: false },
  N: { register: true, memory: false },
};

export function rmOperand(operands: readonly Operand[]): Operand | undefined {
  return operands.find((operand) => operand.kind in RM);
}

export function formName(form: Form): string {
  const { definition, size, memory, repeat } = form;
  return [repeat, definition.name, definition.operands ?? '', size || '', memory ? 'mem' : '']
    .filter((part) => part !== '')
    .join(' ');
}

/** Operand sizes at which a definition has forms of its own; [0]: it does not depend on it. */
export function formSizes(
  definition: Definition,
  operands: readonly Operand[],
  encoding: Encoding,
): number[] {
  const letters = operands.map((operand) => operand.size);
  if (definition.sizes === 'v' || letters.includes('v') || letters.includes('z')) {
    if (encoding.rexW) return [64];
    return definition.default64 ? [16, 64] : [16, 32, 64];
  }
  if (definition.sizes === 'y' || letters.includes('y')) return encoding.rexW ? [64] : [32, 64];
  return [0];
}

export function expandForms(definitions: readonly Definition[]): Form[] {
  const forms: Form[] = [];
  for (const definition of definitions) {
    const encoding = parseEncoding(definition.code);
    const operands = parseOperands(definition.operands);
    const rm = rmOperand(operands);
    const allowed = rm === undefined ? { register: true, memory: false } : RM[rm.kind]!;
    for (const size of formSizes(definition, operands, encoding))
      for (const memory of [false, true]) {
        if (memory ? !allowed.memory : !allowed.register) continue;
        for (const repeat of definition.rep ? (['', 'rep', 'repne'] as const) : ([''] as const))
          forms.push({ definition, encoding, operands, size, memory, repeat, index: forms.length });
      }
  }
  return forms;
}

/** Bits of operand `i` of a form. */
export function formBits(form: Form, i: number): number {
  return operandBits(form.operands[i]!.size, form.size);
}
