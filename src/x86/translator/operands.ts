/** Which registers an instruction's operands are. */
import type { Instruction } from '../decoder.ts';
import type { Form } from '../isa/form.ts';
import { CPU } from '../state.ts';

/** Slot (offset into the CPU's state) of a register operand, or null for memory and constants. */
export function operandSlot(instruction: Instruction, form: Form, i: number): number | null {
  switch (form.operands[i]!.kind) {
    case 'G':
    case 'Z':
    case 'V':
    case 'P':
    case 'S':
      return instruction.reg;
    case 'R':
    case 'U':
    case 'N':
      return instruction.rm;
    case 'E':
    case 'W':
    case 'Q':
      return form.memory ? null : instruction.rm;
    case 'AL':
    case 'A':
    case 'AX':
      return CPU.regs;
    case 'CL':
      return CPU.regs + 8;
    case 'DX':
      return CPU.regs + 16;
    default:
      return null;
  }
}

/** The slot is a general register's (or of its second byte: AH to BH). */
export const isGeneral = (slot: number): boolean => slot < CPU.regs + 16 * 8;

export const registerOf = (slot: number): number => (slot - CPU.regs) >>> 3;

/** General registers that are written operands. */
export function writtenRegisters(instruction: Instruction): number[] {
  const form = instruction.form!;
  const registers: number[] = [];
  for (let i = 0; i < form.operands.length; i++) {
    const slot = form.operands[i]!.written ? operandSlot(instruction, form, i) : null;
    if (slot !== null && isGeneral(slot)) registers.push(registerOf(slot));
  }
  return registers;
}
