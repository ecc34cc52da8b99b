/**
 * Random loops of SSE instructions, translated and interpreted in lockstep: what single instructions cannot show is
 * how XMM registers lie between them, and what is known of them there.
 */
import { expect, it } from 'vitest';
import { Frames } from '../../machine/frames.ts';
import { Memory, PAGE_SIZE } from '../../machine/memory.ts';
import { createProcessor } from '../core/index.ts';
import { VerifyLog } from '../core/verify.ts';
import { HEAT_SIZE, HEAT_THRESHOLD } from '../interpreter/heat.ts';
import { CPU, Exit, RDI, RSI } from '../state.ts';
import { CODE, cpuWithPages, QUIET_HOST } from '../testing.ts';

const DATA = CODE + PAGE_SIZE;
const TIMES = 1500;
const NUMBERS = 64;

function xorshift(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

type Random = ReturnType<typeof xorshift>;

const pick = <T>(random: Random, list: readonly T[]): T => list[random(list.length)]!;

type Opcode = readonly number[];

/** Prefixes and opcodes that have a register and a memory form, by what they take registers for. */
const ARITHMETIC = [0x58, 0x58, 0x59, 0x59, 0x5c, 0x5e, 0x51, 0x5d, 0x5f];
const DOUBLE: readonly Opcode[] = ARITHMETIC.map((opcode) => [0xf2, 0x0f, opcode]);
const SINGLE: readonly Opcode[] = ARITHMETIC.map((opcode) => [0xf3, 0x0f, opcode]);
const PACKED: readonly Opcode[] = [
  ...ARITHMETIC.flatMap((opcode) => [
    [0x0f, opcode],
    [0x66, 0x0f, opcode],
  ]),
  [0x66, 0x0f, 0x14],
  [0x0f, 0x14],
  [0x66, 0x0f, 0x54],
  [0x0f, 0x57],
  [0x66, 0x0f, 0xef],
  [0x66, 0x0f, 0xfe],
  [0x0f, 0x5b],
  [0xf3, 0x0f, 0xe6],
];
const MOVES: readonly Opcode[] = [
  [0xf2, 0x0f, 0x10],
  [0xf3, 0x0f, 0x10],
  [0x0f, 0x28],
  [0x66, 0x0f, 0x28],
  [0xf3, 0x0f, 0x7e],
  [0x0f, 0x12],
  [0x0f, 0x16],
];
const CONVERSIONS: readonly Opcode[] = [
  [0xf2, 0x0f, 0x5a],
  [0xf3, 0x0f, 0x5a],
  [0x0f, 0x5a],
  [0x66, 0x0f, 0x5a],
  [0xf2, 0x0f, 0x2a],
  [0xf2, 0x48, 0x0f, 0x2a],
  [0xf3, 0x0f, 0x2a],
];
/** Of 4, 8 and 16 bytes. */
const STORES: readonly Opcode[] = [
  [0xf3, 0x0f, 0x11],
  [0xf2, 0x0f, 0x11],
  [0x0f, 0x29],
  [0x66, 0x0f, 0x13],
  [0x0f, 0x17],
];
const WITH_IMMEDIATE: readonly Opcode[] = [
  [0x0f, 0xc6],
  [0x66, 0x0f, 0x70],
  [0xf2, 0x0f, 0xc2],
  [0x0f, 0xc2],
];
const ZERO: readonly Opcode[] = [
  [0x0f, 0x57],
  [0x66, 0x0f, 0xef],
];
/** To edx: CVTTSD2SI, CVTSD2SI, CVTTSS2SI. */
const TO_INTEGER: readonly Opcode[] = [
  [0xf2, 0x0f, 0x2c],
  [0xf2, 0x48, 0x0f, 0x2d],
  [0xf3, 0x0f, 0x2c],
];
/** MOVSD, MOVSS, MOVUPS, ADDSD. */
const FROM_TABLE: readonly Opcode[] = [
  [0xf2, 0x0f, 0x10],
  [0xf2, 0x0f, 0x10],
  [0xf3, 0x0f, 0x10],
  [0x0f, 0x10],
  [0xf2, 0x0f, 0x58],
];

const register = (opcode: Opcode, to: number, from: number) => [...opcode, 0xc0 | (to << 3) | from];
/** [rdi + 16 n] */
const memory = (opcode: Opcode, reg: number, n: number) => [...opcode, 0x47 | (reg << 3), 16 * n];
/** [rsi + 8 rax] */
const table = (opcode: Opcode, reg: number) => [...opcode, 0x04 | (reg << 3), 0xc6];

/** XMM0-2 are doubles mostly, XMM3 floats, XMM4-5 vectors: so every convention is met. */
const usual = (to: number) => (to < 3 ? DOUBLE : to === 3 ? SINGLE : PACKED);
const like = (random: Random, to: number) => (to < 3 ? random(3) : to === 3 ? 3 : 4 + random(2));

function instruction(random: Random): number[] {
  const to = random(6);
  const from = random(6);
  switch (random(20)) {
    case 0:
      return memory(pick(random, STORES), to, random(4));
    case 1:
      return [...register(pick(random, WITH_IMMEDIATE), 4 + random(2), from), random(8)];
    case 2:
      return register(pick(random, ZERO), to, to);
    case 3:
    case 4:
      return table(pick(random, FROM_TABLE), to);
    case 5:
      return register(pick(random, TO_INTEGER), 2, from);
    case 6:
      // MOVQ rdx, xmm; MOVD xmm, edx.
      return random(2) === 0
        ? [0x66, 0x48, 0x0f, 0x7e, 0xc2 | (to << 3)]
        : [0x66, 0x0f, 0x6e, 0xc2 | (to << 3)];
    case 7:
      return memory(pick(random, usual(to)), to, random(4));
    case 8:
      return register(pick(random, CONVERSIONS), to, from);
    case 9:
      return register(pick(random, PACKED), to, from);
    case 10:
    case 11:
      return register(pick(random, MOVES), to, from);
    case 12:
      return register(pick(random, MOVES), to, like(random, to));
    default:
      return register(pick(random, usual(to)), to, like(random, to));
  }
}

/** mov ebx, times; next: mov eax, ebx; and eax, 63; (instructions, some jumped over); dec ebx; jnz next; syscall */
function program(random: Random): number[] {
  const body = [0x89, 0xd8, 0x83, 0xe0, NUMBERS - 2];
  // Nothing lasts: what is no number would spread.
  for (let reg = 0; reg < 6; reg++)
    if (random(4) > 0) body.push(...table(reg === 3 ? [0xf3, 0x0f, 0x10] : [0x0f, 0x10], reg));
  for (let i = 0; i < 14; i++) {
    if (random(4) === 0) {
      // UCOMISD, and one of the jumps that look at its flags, over one to three instructions.
      const over = Array.from({ length: 1 + random(3) }, () => instruction(random)).flat();
      body.push(...register([0x66, 0x0f, pick(random, [0x2e, 0x2f])], random(6), random(6)));
      body.push(pick(random, [0x72, 0x73, 0x74, 0x75, 0x76, 0x77, 0x7a]), over.length, ...over);
    } else body.push(...instruction(random));
    // LDMXCSR [rdi + 64 + 4 n], from time to time; FXSAVE and FXRSTOR at [rdi + 512].
    if (random(24) === 0) body.push(0x0f, 0xae, 0x57, 64 + 4 * random(4));
    if (random(40) === 0) body.push(0x0f, 0xae, 0x87 | (random(2) << 3), 0, 2, 0, 0);
  }
  const back = -(body.length + 2 + 6);
  const int32 = (value: number) => [
    value & 255,
    (value >> 8) & 255,
    (value >> 16) & 255,
    (value >> 24) & 255,
  ];
  return [0xbb, ...int32(TIMES), ...body, 0xff, 0xcb, 0x0f, 0x85, ...int32(back), 0x0f, 0x05];
}

const NUMBERS_OF_INTEREST = [
  0,
  -0,
  1,
  -1,
  0.5,
  3,
  1e300,
  -1e300,
  1e-300,
  5e-324,
  2 ** -1022,
  Infinity,
  Number.NaN,
  2 ** 31,
  0.1,
  1e-40,
];

function run(seed: number): { verify: VerifyLog; reports: string[] } {
  const random = xorshift(seed);
  const machine = Memory.create(96 << 20);
  const frames = new Frames(machine);
  const verify = new VerifyLog();
  const reports: string[] = [];
  verify.onDifference = (report) => reports.push(report);
  const processor = createProcessor(machine, frames, QUIET_HOST, { verify });
  const { cpu, pages } = cpuWithPages(machine, frames, processor, [0, 1]);
  machine.u8.set(program(random), pages[0]!);
  const data = pages[1]!;
  // All exceptions are masked; with and without PE, DAZ and FTZ, and rounding down.
  for (const [i, mxcsr] of [0x1fa0, 0x1f80, 0x9fe0, 0x3f80].entries())
    machine.write32(data + 64 + 4 * i, mxcsr);
  // An image for FXRSTOR, should it come first.
  machine.write32(data + 512, 0x37f);
  machine.write32(data + 512 + 24, 0x1f80);
  for (let i = 0; i < NUMBERS; i++) {
    const ordinary = random(6) > 0 ? (random(2000) - 1000) / 8 : pick(random, NUMBERS_OF_INTEREST);
    machine.f64[(data + 2048) / 8 + i] = ordinary;
  }
  cpu.setRegNumber(RDI, DATA);
  cpu.setRegNumber(RSI, DATA + 2048);
  cpu.rip = CODE;
  // The loop is nearly hot already.
  const heat = cpu.get(CPU.heat);
  machine.u16.fill(HEAT_THRESHOLD - 50, heat / 2, (heat + HEAT_SIZE) / 2);
  let exit: Exit = Exit.Budget;
  while (exit === Exit.Budget) exit = processor.run(cpu, 100);
  expect(exit, `seed ${seed}: vector ${cpu.get(CPU.exitVector)}`).toBe(Exit.Syscall);
  return { verify, reports };
}

it.each([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])(
  'SSE in loops does the same translated as interpreted (seed %i)',
  (seed) => {
    const { verify, reports } = run(seed * 7919);
    expect(reports).toEqual([]);
    expect(verify.runs).toBeGreaterThan(100);
  },
);
