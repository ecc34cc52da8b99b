/**
 * The encodings of the x87: opcodes 0xd8..0xdf, then ModRM (SDM volume 2, appendix B.17 and the opcode map's opcode
 * tables). The undocumented twins that every processor has (FCOM2, FXCH4, FSTP8, FFREEP ...) count as defined.
 */

export interface X87MemoryOperand {
  readonly bytes: number;
  /** A write happens only if the instruction does not find an exception that forbids it. */
  readonly access: 'read' | 'write';
}

const read = (bytes: number): X87MemoryOperand => ({ bytes, access: 'read' });
const write = (bytes: number): X87MemoryOperand => ({ bytes, access: 'write' });

const ARITHMETIC_32 = new Array<X87MemoryOperand>(8).fill(read(4));
const ARITHMETIC_64 = new Array<X87MemoryOperand>(8).fill(read(8));
const ARITHMETIC_16 = new Array<X87MemoryOperand>(8).fill(read(2));

/** By opcode - 0xd8, then the reg field. */
const MEMORY: readonly (readonly (X87MemoryOperand | null)[])[] = [
  ARITHMETIC_32,
  [read(4), null, write(4), write(4), read(28), read(2), write(28), write(2)],
  ARITHMETIC_32,
  [read(4), write(4), write(4), write(4), null, read(10), null, write(10)],
  ARITHMETIC_64,
  [read(8), write(8), write(8), write(8), read(108), null, write(108), write(2)],
  ARITHMETIC_16,
  [read(2), write(2), write(2), write(2), read(10), read(8), write(10), write(8)],
];

/** The memory operand of an x87 instruction; null for register forms and for what is not defined. */
export function x87Operand(opcode: number, modrm: number): X87MemoryOperand | null {
  if (modrm >= 0xc0) return null;
  return MEMORY[opcode & 7]![(modrm >> 3) & 7]!;
}

/** Whether the encoding exists (else #UD). */
export function x87Defined(opcode: number, modrm: number): boolean {
  if (modrm < 0xc0) return x87Operand(opcode, modrm) !== null;
  switch (opcode & 7) {
    case 1:
      if (modrm < 0xd0 || (modrm >= 0xd8 && modrm <= 0xe1)) return true;
      return modrm === 0xd0 || modrm === 0xe4 || modrm === 0xe5 || (modrm >= 0xe8 && modrm !== 0xef);
    case 2:
      return modrm < 0xe0 || modrm === 0xe9;
    case 3:
      return modrm <= 0xe4 || (modrm >= 0xe8 && modrm < 0xf8);
    case 5:
      return modrm < 0xf0;
    case 6:
      return modrm < 0xd8 || modrm === 0xd9 || modrm >= 0xe0;
    case 7:
      return modrm <= 0xe0 || (modrm >= 0xe8 && modrm < 0xf8);
  }
  return true;
}

/**
 * Whether the instruction is a control instruction, which leaves the last instruction and data pointers alone (or
 * loads or clears them itself).
 */
export function isControl(opcode: number, modrm: number): boolean {
  const reg = (modrm >> 3) & 7;
  if (modrm < 0xc0) {
    if (opcode === 0xd9) return reg >= 4;
    return opcode === 0xdd && (reg === 4 || reg === 6 || reg === 7);
  }
  return (opcode === 0xdb && modrm >= 0xe0 && modrm <= 0xe4) || (opcode === 0xdf && modrm === 0xe0);
}

/** Whether the instruction runs although an exception is pending (the forms with N in their name). */
export function isNonWaiting(opcode: number, modrm: number): boolean {
  const reg = (modrm >> 3) & 7;
  if (modrm < 0xc0) {
    if (opcode === 0xd9) return reg === 6 || reg === 7;
    return opcode === 0xdd && (reg === 6 || reg === 7);
  }
  return isControl(opcode, modrm);
}
