/**
 * What is known of XMM registers at the places of a region: that what lies above the low lane is zero, and as what
 * numbers a register holds neither denormals nor NaNs (see sse-semantics.ts). The latter need no test as operands.
 *
 * A fact holds behind an instruction because of what the instruction does (`effects`), and where ways meet if it
 * holds on all of them. Nothing is known where a region is entered.
 */
import type { Instruction } from '../decoder.ts';
import type { Definition } from '../isa/definition.ts';
import { formBits } from '../isa/form.ts';
import { move } from '../isa/sse-definition.ts';
import type { Shape } from '../isa/sse-semantics.ts';
import { CPU } from '../state.ts';
import type { Block, Region } from './region.ts';

/** Bits for each register: ordinary as numbers of a shape; zero from bit 64 (from bit 32) on. */
const ORDINARY: Record<Shape, number> = { SS: 1, SD: 2, PS: 4, PD: 8 };
export const ZERO_64 = 16;
export const ZERO_32 = 32;
const ALL = 63;

/** Facts of the 16 registers; at index 16, not zero: CR0.TS is clear, which only changes outside. */
export type Facts = readonly number[];
export const ENABLED = 16;
export const NO_FACTS: Facts = new Array<number>(17).fill(0);

/** What is known of a register that holds numbers of this shape; a packed one's low lane is one of them. */
const shapeFacts = (shape: Shape): number =>
  ORDINARY[shape] | (shape === 'PS' ? ORDINARY.SS : shape === 'PD' ? ORDINARY.SD : 0);

export function isOrdinary(facts: number, shape: Shape): boolean {
  return (facts & ORDINARY[shape]) !== 0;
}

/** Register number of an operand's slot, or -1 if it is no XMM register's. */
export function xmmOf(slot: number | null): number {
  return slot !== null && slot >= CPU.xmm && slot < CPU.xmm + 256 ? (slot - CPU.xmm) >>> 4 : -1;
}

/** The XMM register that operand i is, or -1. */
export function xmmOperand({ form, reg, rm }: Instruction, i: number): number {
  const kind = form!.operands[i]?.kind;
  if (kind === 'V') return xmmOf(reg);
  return kind === 'U' || (kind === 'W' && !form!.memory) ? xmmOf(rm) : -1;
}

/** Where a register's low lane lies by convention (see vectors.ts). */
export type Lane = 'wide' | 'f64' | 'f32';

/** The conventions of the 16 registers for a region of these instructions: how they are mostly used. */
export function chooseLanes(instructions: Iterable<Instruction>): Lane[] {
  const uses = Array.from({ length: 16 }, () => ({ wide: 0, f64: 0, f32: 0 }));
  for (const instruction of instructions) {
    const { form } = instruction;
    if (form === null || !form.definition.fpu || form.definition.exec === move) continue;
    if (makesZero(instruction)) continue;
    form.operands.forEach((_operand, i) => {
      const index = xmmOperand(instruction, i);
      if (index < 0) return;
      const bits = form.definition.scalar === true ? formBits(form, i) : 128;
      uses[index]![bits === 64 ? 'f64' : bits === 32 ? 'f32' : 'wide']++;
    });
  }
  return uses.map(({ wide, f64, f32 }) => {
    if (f64 === 0 && f32 === 0) return 'wide';
    const scalar = f64 >= f32 ? 'f64' : 'f32';
    return Math.max(f64, f32) >= wide ? scalar : 'wide';
  });
}

/** XORPS XMM1, XMM1 and the like. */
function makesZero(instruction: Instruction): boolean {
  if (instruction.form!.definition.zeroOfSame !== true) return false;
  const index = xmmOperand(instruction, 0);
  return index >= 0 && index === xmmOperand(instruction, 1);
}

/** The facts behind an instruction that was done. */
export function effects(instruction: Instruction, before: Facts): Facts {
  const { definition, operands } = instruction.form!;
  if (!definition.fpu) return before;
  const after = [...before];
  after[ENABLED] = 1;
  if (definition.writesAllXmm === true) after.fill(0, 0, ENABLED);
  else if (definition.writesXmm0 === true) after[0] = 0;
  // The operand that is written comes first, and last here: it may be the source as well.
  for (let i = operands.length - 1; i >= 0; i--) {
    const index = xmmOperand(instruction, i);
    if (index < 0) continue;
    const shape = definition.ordinary?.[i] ?? null;
    if (operands[i]!.written) after[index] = written0(instruction, before, before[index]!, definition, shape);
    else if (shape !== null) after[index]! |= shapeFacts(shape);
  }
  return after;
}

/** The facts of operand 0, an XMM register that is written. */
function written0(
  instruction: Instruction,
  before: Facts,
  old: number,
  definition: Definition,
  shape: Shape | null,
): number {
  if (makesZero(instruction)) return ALL;
  if (definition.exec === move) return moved(instruction, before, old);
  if (shape === 'SD') return (old & (ZERO_64 | ORDINARY.PD)) | ORDINARY.SD;
  if (shape === 'SS') return (old & (ZERO_64 | ZERO_32 | ORDINARY.PS)) | ORDINARY.SS;
  return shape === null ? 0 : shapeFacts(shape);
}

function moved(instruction: Instruction, before: Facts, old: number): number {
  const form = instruction.form!;
  const from = xmmOperand(instruction, 1);
  const source = from < 0 ? 0 : before[from]!;
  const [wide, narrow] = [formBits(form, 0), formBits(form, 1)];
  if (narrow === 128) return source;
  const upper = narrow === 64 ? ZERO_64 : ZERO_64 | ZERO_32;
  const low = narrow === 64 ? ORDINARY.SD : ORDINARY.SS;
  return (wide === 128 ? upper : old & upper) | (source & low);
}

/** Most instructions of a block that is worth being translated twice. */
const COPIED = 80;

/**
 * A region is mostly entered at a loop that has become hot, where nothing would ever be known, since a way leads there
 * from outside. So entries that are reached from within as well get a copy of their block: the way in.
 */
export function withEntryCopies(region: Region): Region {
  const uses = (block: Block) =>
    block.instructions.some(({ instruction }) => instruction.form!.definition.fpu);
  if (!region.blocks.some(uses)) return region;
  const reached = new Set(
    region.blocks.flatMap(({ taken, next, targets }) => [taken, next, ...targets.map(({ block }) => block)]),
  );
  const blocks = [...region.blocks];
  const entries = region.entries.map((entry) => {
    const block = blocks[entry]!;
    if (!reached.has(entry) || block.instructions.length > COPIED) return entry;
    return blocks.push(block) - 1;
  });
  return { ...region, blocks, entries };
}

/** The facts at the beginning of each block, for all ways that lead there. */
export function factsAtBlocks({ blocks, entries }: Region): Facts[] {
  const facts: (Facts | null)[] = blocks.map(() => null);
  const queue: number[] = [];
  const meet = (block: number, arriving: Facts) => {
    const present = facts[block]!;
    const met = present === null ? arriving : present.map((bits, i) => bits & arriving[i]!);
    if (present !== null && met.every((bits, i) => bits === present[i])) return;
    facts[block] = met;
    queue.push(block);
  };
  for (const entry of entries) meet(entry, NO_FACTS);
  for (let index = queue.pop(); index !== undefined; index = queue.pop()) {
    const { instructions, taken, next, targets } = blocks[index]!;
    let present = facts[index]!;
    for (const { instruction } of instructions) present = effects(instruction, present);
    for (const to of [taken, next, ...targets.map(({ block }) => block)]) if (to !== null) meet(to, present);
  }
  return facts.map((each) => each ?? NO_FACTS);
}
