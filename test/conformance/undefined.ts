/**
 * What the manual leaves open (Intel SDM volume 2, the pages of the instructions), so that it must not be compared.
 *
 * Definition.undefinedFlags names the flags that are always undefined; what depends on operands stands here.
 */
import { operandBits } from '../../src/x86/isa/encoding.ts';
import { FLAG, RCX, RDI, RSI } from '../../src/x86/state.ts';
import type { Instruction } from './instruction.ts';
import { CASE } from './wire.ts';

const STATUS = FLAG.CF | FLAG.PF | FLAG.AF | FLAG.ZF | FLAG.SF | FLAG.OF;
/** Condition codes of the x87 status word. */
const CONDITION: Record<string, number> = { C0: 1 << 8, C1: 1 << 9, C2: 1 << 10, C3: 1 << 14 };

export interface Undefined {
  /** Bits of RFLAGS. */
  flags: number;
  /** Bits of the x87 status word. */
  status: number;
  /** The operand that the instruction writes is undefined as a whole. */
  destination: boolean;
  /**
   * Results that are approximations by definition: relative error that the manual allows for each binary32 lane
   * (both sides have it), or, for x87, units in the last place.
   */
  lanes: number;
  ulps: number;
  /** LAR: bits 16-19 of the result. */
  limitBits: boolean;
  /** Registers of which only the low half is compared. */
  halves: readonly number[];
  /** Bytes below the stack pointer that may have been written. */
  belowStack: number;
  /** The address of the fault: which of several accesses faults first. */
  faultAddress: boolean;
  /** Whether x87 TOP and tags are those of MMX mode already: compare the registers by their physical numbers. */
  mmxMode: boolean;
  /** Ranges of the memory operand, in bytes from its start, that hold no defined value. */
  memory: readonly (readonly [number, number])[];
}

/** Last opcode, instruction and operand pointers: processors differ in when they record them. */
const POINTERS_FXSAVE = [[6, 24]] as const;
const POINTERS_ENVIRONMENT = [[12, 28]] as const;

/** RCPPS and its kin: relative error at most 1.5 * 2^-12; two of them differ by no more than twice that. */
const LANE_ERROR = 2 * 1.5 * 2 ** -12;
/** x87 transcendentals: less than 1 unit in the last place each (SDM volume 1, 8.3.10). */
const TRANSCENDENTAL = /^(F2XM1|FYL2X|FYL2XP1|FPTAN|FPATAN|FSIN|FCOS|FSINCOS)$/;

function flagBits(names: string | undefined): { flags: number; status: number } {
  let flags = 0;
  let status = 0;
  for (const name of (names ?? '').split(' ')) {
    if (name in FLAG) flags |= FLAG[name as keyof typeof FLAG];
    else if (name in CONDITION) status |= CONDITION[name]!;
    else if (name !== '') throw new Error(`undefined flag '${name}'`);
  }
  return { flags, status };
}

/** The unmasked count of a shift or rotate. */
function shiftCount(instruction: Instruction, view: DataView, at: number): number {
  const { form } = instruction.variant;
  const last = form.operands.at(-1);
  if (last === undefined || last.kind === '1') return 1;
  if (last.kind === 'I') return Number(instruction.choice.immediates[0]! & 0xffn);
  return view.getUint8(at + CASE.regs + 8);
}

/** Several accesses, or one of many bytes: which of their pages is asked for first is the processor's own business. */
const ANY_FAULT_ADDRESS =
  /^(RETF|IRET|ENTER|.* far|FXSAVE.*|FXRSTOR.*|MASKMOV.*|FNSAVE|FRSTOR|FNSTENV|FLDENV)$/;
/** MMX instructions that store: Intel's processors are in MMX mode even where the store faults. */
const MMX_STORE = /^(MOVD\/MOVQ|MOVQ|MOVNTQ|MASKMOVQ)$/;

/**
 * A fault undoes everything but what lies below the stack pointer, where a push that cannot complete may have begun.
 */
function afterFault(instruction: Instruction, open: Undefined): Undefined {
  const { name } = instruction.variant.form.definition;
  // A store of 10 bytes over the end of a page may have stored the first 8.
  const halfDone = /^(FSTP|FBSTP)$/.test(name) && instruction.memoryBytes === 10;
  return {
    ...open,
    flags: 0,
    status: 0,
    destination: false,
    lanes: 0,
    ulps: 0,
    memory: halfDone ? [[0, 10]] : [],
    belowStack: name.startsWith('CALL') || name === 'ENTER' ? 24 : 0,
    faultAddress: ANY_FAULT_ADDRESS.test(name),
    mmxMode: MMX_STORE.test(name),
  };
}

/**
 * @param at where the case begins in `view`
 * @param faulted the case ended with a fault of this instruction
 */
export function undefinedAfter(
  instruction: Instruction,
  view: DataView,
  at: number,
  faulted: boolean,
): Undefined {
  const open = undefinedByInstruction(instruction, view, at);
  const { form, address32 } = instruction.variant;
  // Whether the upper halves are cleared where no iteration was completed differs between processors.
  const none = view.getUint32(at + CASE.regs + 8 * RCX, true) === 0;
  if (form.repeat !== '' && address32 && (faulted || none)) open.halves = [RCX, RSI, RDI];
  return faulted ? afterFault(instruction, open) : open;
}

function undefinedByInstruction(instruction: Instruction, view: DataView, at: number): Undefined {
  const { form } = instruction.variant;
  const { definition } = form;
  const result: Undefined = {
    ...flagBits(definition.undefinedFlags),
    destination: false,
    lanes: /^(RCP|RSQRT)[PS]S$/.test(definition.name) ? LANE_ERROR : 0,
    ulps: TRANSCENDENTAL.test(definition.name) ? 1 : 0,
    limitBits: definition.name === 'LAR',
    halves: [],
    belowStack: 0,
    faultAddress: false,
    mmxMode: false,
    memory: [],
  };
  // Whether an approximation was rounded up is not the same question for another approximation.
  if (result.ulps > 0) result.status |= CONDITION['C1']!;
  if (/^FXSAVE/.test(definition.name)) result.memory = POINTERS_FXSAVE;
  if (/^F(NSTENV|NSAVE|STENV|SAVE)$/.test(definition.name)) result.memory = POINTERS_ENVIRONMENT;
  if (!/^(SHL|SAL|SHR|SAR|ROL|ROR|RCL|RCR|SHLD|SHRD)$/.test(definition.name)) return result;

  const bits = operandBits(form.operands[0]!.size, form.size);
  const count = shiftCount(instruction, view, at) & (bits === 64 ? 63 : 31);
  result.flags = 0;
  // A count of zero changes no flag.
  if (count === 0) return result;
  if (count !== 1) result.flags |= FLAG.OF;
  if (definition.name.startsWith('SH') || definition.name.startsWith('SA')) result.flags |= FLAG.AF;
  if (/^SH[LR]D$/.test(definition.name)) {
    if (count > bits) {
      result.flags = STATUS;
      result.destination = true;
    }
  } else if (/^(SHL|SAL|SHR)$/.test(definition.name) && count >= bits) result.flags |= FLAG.CF;
  return result;
}
