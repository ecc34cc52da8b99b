/**
 * Picks what a variant leaves open (registers, immediates, displacement) and encodes one instruction.
 */
import { operandBits } from '../../src/x86/isa/encoding.ts';
import { rmOperand } from '../../src/x86/isa/form.ts';
import { type Address, type Choice, encode, immediateBytes, NO_ADDRESS } from './encode.ts';
import type { Random } from './random.ts';
import { integer } from './values.ts';
import { ADDRESSINGS, type Addressing, type Variant } from './variants.ts';
import { PLACE } from './wire.ts';

export interface Instruction {
  readonly variant: Variant;
  readonly choice: Choice;
  readonly bytes: number[];
  /** Where in the code region it stands. */
  readonly offset: number;
  /** Bytes of its memory operand: 0 where there is none named by ModRM. */
  readonly memoryBytes: number;
}

/** Sizes of memory operands whose definition gives none, by mnemonic. */
const SIZES_BY_NAME: Record<string, number> = {
  FXSAVE: 512,
  FXSAVE64: 512,
  FXRSTOR: 512,
  FXRSTOR64: 512,
  FNSAVE: 108,
  FRSTOR: 108,
  FNSTENV: 28,
  FLDENV: 28,
};

/** Bytes of the memory operand that ModRM names: 0 where there is none. */
export function memoryBytes(variant: Variant): number {
  const { form } = variant;
  if (!form.memory) return 0;
  const rm = rmOperand(form.operands);
  const bits = rm === undefined ? 0 : operandBits(rm.size, form.size);
  if (bits > 0) return bits / 8;
  const { name } = form.definition;
  if (name === 'CMPXCHG8B/16B') return form.size / 4;
  if (name.endsWith(' far')) return form.size / 8 + 2;
  return SIZES_BY_NAME[name] ?? 8;
}

function chooseAddress(random: Random, addressing: Addressing, target: number, offset: number): Address {
  const address: Address = { ...NO_ADDRESS };
  const has = (part: string): boolean => addressing.split('+').includes(part);
  if (addressing === 'rip') {
    return { ...address, ripRelative: true, displacement: target - (PLACE.codeBase + offset) };
  }
  if (addressing === 'disp32') return { ...address, displacement: target, size: 4 };
  if (has('base')) address.base = random.below(16);
  if (has('index')) {
    do address.index = random.below(16);
    while (address.index === 4);
    address.scale = random.pick([1, 2, 4, 8]);
  }
  if (has('disp8')) {
    address.size = 1;
    address.displacement = random.chance(0.3)
      ? random.pick([-128, -1, 0, 1, 127])
      : random.between(-128, 127);
  } else if (has('disp32')) {
    address.size = 4;
    address.displacement = random.chance(0.3)
      ? random.pick([-0x80000000, -1, 0, 1, 0x7fffffff, -0x1000, 0x1000])
      : random.u32() | 0;
  } else if ((address.base & 7) === 5) address.base = random.pick([0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 14, 15]);
  return address;
}

const SHIFT = /^(SH[LR]D?|SA[LR]|RO[LR]|RC[LR]|PS[LR][LA])/;

function chooseImmediate(random: Random, variant: Variant, notation: string, offset: number): bigint {
  const { name } = variant.form.definition;
  if (notation === 'cb') {
    // Never into the instruction itself: it would run for ever, or run bytes that are no instruction of ours.
    return BigInt(random.chance(0.5) ? random.between(0x10, 0x7f) : random.between(-0x80, -0x20));
  }
  if (notation === 'cd') {
    if (random.chance(0.05)) return BigInt(PLACE.dataBase - PLACE.codeBase + random.below(PLACE.dataSize));
    const target = random.between(-0x10, PLACE.codeSize + 0x10);
    return BigInt(Math.abs(target - offset) < 0x20 ? 0x40 : target - offset);
  }
  if (notation === 'ib' && SHIFT.test(name) && random.chance(0.7))
    return BigInt(random.below(random.pick([4, 34, 70])));
  if (notation === 'ib' && name === 'ENTER') return BigInt(random.below(random.chance(0.9) ? 4 : 256));
  if (notation === 'iw' && /^(ENTER|RET)/.test(name))
    return BigInt(random.below(random.chance(0.9) ? 64 : 65536));
  const bytes = immediateBytes(notation, variant.form.size, variant.address32);
  if (bytes === 1 && random.chance(0.6)) return BigInt(random.below(256));
  return integer(random);
}

/** Prefixes without effect, and orders of prefixes without difference. */
function chooseSpares(random: Random, variant: Variant, choice: Choice): void {
  const { form } = variant;
  const plain = form.encoding.prefix === 'none' && form.repeat === '' && form.definition.rep !== true;
  if (variant.bytes !== 'legacy' && random.chance(0.05)) choice.rex = true;
  // Segments without a base in 64-bit mode.
  if (random.chance(0.03)) choice.sparePrefixes.push(random.pick([0x26, 0x2e, 0x36, 0x3e]));
  // Of two segments with a base the last one counts.
  if (variant.segment !== 'none' && random.chance(0.03)) choice.sparePrefixes.push(random.pick([0x64, 0x65]));
  else if (random.chance(0.2)) choice.rotate = random.below(4);
  // With REX.W, 66 changes nothing.
  if (plain && form.size === 64 && !form.definition.default64 && random.chance(0.03))
    choice.sparePrefixes.push(0x66);
  // Repeat prefixes where nothing repeats (but F3 90 is PAUSE).
  if (plain && form.encoding.map === 0 && form.encoding.opcode !== 0x90 && random.chance(0.02)) {
    choice.sparePrefixes.push(random.pick([0xf2, 0xf3]));
  }
  if (random.chance(0.02)) choice.deadRex = random.between(0x40, 0x4f);
}

/** @param target where a memory operand with a fixed address (rip, disp32, moffs) lies */
export function chooseInstruction(random: Random, variant: Variant, target: number): Instruction {
  const { form } = variant;
  const { encoding } = form;
  const place = random.below(100);
  let offset = random.between(0x100, PLACE.codeSize - 0x100);
  // Across the page boundary; up to the end of the region, or over it, so that the fetch faults.
  if (place < 3) offset = 0x1000 - random.between(1, 8);
  else if (place < 5) offset = PLACE.codeSize - random.between(1, 9);
  else if (place < 20) offset &= ~15;

  const legacy = variant.bytes === 'legacy';
  const registers = legacy ? 8 : 16;
  const addressing = variant.addressing === 'any' ? random.pick(ADDRESSINGS) : variant.addressing;
  const choice: Choice = {
    reg: random.below(registers),
    rm: random.below(registers),
    address: NO_ADDRESS,
    segment: variant.segment,
    address32: variant.address32,
    lock: variant.lock,
    rex: variant.bytes === 'rex',
    spareW: false,
    sparePrefixes: [],
    rotate: 0,
    deadRex: 0,
    immediates: encoding.immediates.map((notation) =>
      notation === 'a' ? BigInt(target) : chooseImmediate(random, variant, notation, offset),
    ),
  };
  for (const operand of form.operands) {
    if (operand.kind === 'S') choice.reg = random.pick([0, 2, 3, 4, 5]);
  }
  if (form.memory) {
    choice.address = chooseAddress(random, addressing, target, offset);
    if (legacy) {
      if (choice.address.base >= 8) choice.address.base -= 8;
      if (choice.address.index >= 8) choice.address.index -= 8;
      if (choice.address.index === 4) choice.address.index = 1;
    }
    if (choice.address.size === 0 && (choice.address.base & 7) === 5) choice.address.base = 3;
  }
  chooseSpares(random, variant, choice);
  let bytes = encode(form, choice);
  // As long as can be, and too long by one.
  if (random.chance(0.01)) {
    const length = random.pick([15, 15, 16]);
    while (bytes.length < length) {
      choice.sparePrefixes.push(0x2e);
      bytes = encode(form, choice);
    }
  }
  return { variant, choice, bytes, offset, memoryBytes: memoryBytes(variant) };
}

/** An instruction for people: its form's name and its bytes. */
export function describe(instruction: { variant: Variant; bytes: number[] }): string {
  const hex = instruction.bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
  return `${instruction.variant.name}: ${hex}`;
}
