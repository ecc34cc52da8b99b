/**
 * The SSE operations that sse.ts executes, by name and number.
 *
 * Where an instruction exists for ss, sd, ps and pd, the four have consecutive numbers from a multiple of four, in
 * that order: bit 0 tells double, bit 1 packed.
 */
import { EQUAL, LESS, UNORDERED } from './real.ts';

export const SSE_FLOAT = {
  addss: 0,
  addsd: 1,
  addps: 2,
  addpd: 3,
  subss: 4,
  subsd: 5,
  subps: 6,
  subpd: 7,
  mulss: 8,
  mulsd: 9,
  mulps: 10,
  mulpd: 11,
  divss: 12,
  divsd: 13,
  divps: 14,
  divpd: 15,
  sqrtss: 16,
  sqrtsd: 17,
  sqrtps: 18,
  sqrtpd: 19,
  minss: 20,
  minsd: 21,
  minps: 22,
  minpd: 23,
  maxss: 24,
  maxsd: 25,
  maxps: 26,
  maxpd: 27,
  /** imm: predicate 0..7. */
  cmpss: 28,
  cmpsd: 29,
  cmpps: 30,
  cmppd: 31,
  /** SSE4.1; imm: bits 0-1 rounding, bit 2 rounding of MXCSR instead, bit 3 no precision exception. */
  roundss: 32,
  roundsd: 33,
  roundps: 34,
  roundpd: 35,
  /** dst: u32, the flags ZF, PF, CF in their places in rflags, OF, SF, AF 0. src: the second operand. */
  comiss: 36,
  comisd: 37,
  ucomiss: 40,
  ucomisd: 41,
  addsubps: 46,
  addsubpd: 47,
  haddps: 50,
  haddpd: 51,
  hsubps: 54,
  hsubpd: 55,
  /** SSE4.1; imm: bits 4-7 lanes to multiply, bits 0-3 lanes that get the sum. */
  dpps: 58,
  dppd: 59,
  rcpss: 60,
  rcpps: 62,
  rsqrtss: 64,
  rsqrtps: 66,
  cvtss2sd: 68,
  cvtsd2ss: 69,
  cvtps2pd: 70,
  cvtpd2ps: 71,
  cvtdq2ps: 72,
  cvtps2dq: 73,
  cvttps2dq: 74,
  cvtdq2pd: 75,
  cvtpd2dq: 76,
  cvttpd2dq: 77,
  /** src: i32 or i64. */
  cvtsi2ss32: 78,
  cvtsi2ss64: 79,
  cvtsi2sd32: 80,
  cvtsi2sd64: 81,
  /** dst: u64, what the general register becomes (32-bit forms: zero-extended). */
  cvtss2si32: 82,
  cvtss2si64: 83,
  cvtsd2si32: 84,
  cvtsd2si64: 85,
  cvttss2si32: 86,
  cvttss2si64: 87,
  cvttsd2si32: 88,
  cvttsd2si64: 89,
  /** src: two i32 (MMX register or memory). */
  cvtpi2ps: 90,
  cvtpi2pd: 91,
  /** dst: u64, the MMX register. */
  cvtps2pi: 92,
  cvttps2pi: 93,
  cvtpd2pi: 94,
  cvttpd2pi: 95,
} as const;

export type SseFloatName = keyof typeof SSE_FLOAT;

/** ZF, PF and CF of a comparison: less, equal, greater, unordered. */
export const COMPARED = [0x01, 0x40, 0x00, 0x45] as const;

/** Whether a predicate of CMPPS holds for what SoftFloat.compare returned. */
export function holds(relation: number, predicate: number): boolean {
  let result: boolean;
  switch (predicate & 3) {
    case 0:
      result = relation === EQUAL;
      break;
    case 1:
      result = relation === LESS;
      break;
    case 2:
      result = relation === LESS || relation === EQUAL;
      break;
    default:
      result = relation === UNORDERED;
  }
  return (predicate & 4) !== 0 ? !result : result;
}
