/** Two states of a CPU, compared as the architecture sees them. */
import { type Cpu, hex64, join64 } from '../cpu.ts';
import { CPU } from '../state.ts';

const REGISTERS = 'rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15'.split(' ');
const SEGMENTS = ['es', 'cs', 'ss', 'ds', 'fs', 'gs'];

/** Fields beside the registers: name, offset, bits. */
const FIELDS: readonly (readonly [name: string, offset: number, bits: number])[] = [
  ...REGISTERS.map((name, i) => [name, CPU.regs + i * 8, 64] as const),
  ['rip', CPU.rip, 64],
  ['fs base', CPU.fsBase, 64],
  ['gs base', CPU.gsBase, 64],
  ...Array.from({ length: 16 }, (_, i) => [
    [`xmm${i} low`, CPU.xmm + i * 16, 64] as const,
    [`xmm${i} high`, CPU.xmm + i * 16 + 8, 64] as const,
  ]).flat(),
  ...Array.from({ length: 8 }, (_, i) => [
    [`R${i} significand`, CPU.st + i * 16, 64] as const,
    [`R${i} exponent`, CPU.st + i * 16 + 8, 16] as const,
  ]).flat(),
  ['fcw', CPU.fcw, 16],
  ['fsw', CPU.fsw, 16],
  ['ftw', CPU.ftw, 8],
  ['fop', CPU.fop, 16],
  ['fip', CPU.fip, 64],
  ['fdp', CPU.fdp, 64],
  ['mxcsr', CPU.mxcsr, 32],
  ['cr0.ts', CPU.ts, 32],
  ...SEGMENTS.map((name, i) => [name, CPU.selectors + i * 8, 16] as const),
  ...[0, 1, 2, 3, 6, 7].map((i) => [`dr${i}`, CPU.dr + i * 8, 64] as const),
];

/** The words that these are in, in order. */
const FIELD_WORDS = Uint16Array.from(
  new Set(FIELDS.flatMap(([, offset, bits]) => [offset >>> 2, (offset + bits / 8 - 1) >>> 2])),
).sort();

/** Words of a CPU's state that are compared, kept and put back: up to the scratch bytes. */
export const STATE_WORDS = CPU.scratch / 4;

/** A copy of a CPU's state. */
export class StateCopy {
  readonly words = new Uint32Array(STATE_WORDS);

  take(cpu: Cpu): void {
    const word = cpu.address >>> 2;
    this.words.set(cpu.memory.u32.subarray(word, word + STATE_WORDS));
  }

  /** Whether a CPU has the same in every word that is compared. */
  matches(cpu: Cpu): boolean {
    const { u32 } = cpu.memory;
    const { words } = this;
    const base = cpu.address >>> 2;
    for (let i = 0; i < FIELD_WORDS.length; i++) {
      const word = FIELD_WORDS[i]!;
      if (words[word] !== u32[base + word]) return false;
    }
    return true;
  }

  give(cpu: Cpu): void {
    cpu.memory.u32.set(this.words, cpu.address >>> 2);
  }

  get(offset: number): number {
    return this.words[offset >>> 2]!;
  }

  put(offset: number, value: number): void {
    this.words[offset >>> 2] = value;
  }

  /** A field's halves, as unsigned numbers. */
  private field(offset: number, bits: number): readonly [low: number, high: number] {
    const low = this.words[offset >>> 2]!;
    if (bits === 64) return [low, this.words[(offset >>> 2) + 1]!];
    const shifted = low >>> ((offset & 3) * 8);
    return [bits === 32 ? shifted : shifted & (2 ** bits - 1), 0];
  }

  text(offset: number, bits: number): string {
    const [low, high] = this.field(offset, bits);
    return bits === 64 ? hex64(join64Exact(low, high)) : low.toString(16).padStart(bits / 4, '0');
  }

  same(other: StateCopy, offset: number, bits: number): boolean {
    if (bits === 64) {
      const word = offset >>> 2;
      return this.words[word] === other.words[word] && this.words[word + 1] === other.words[word + 1];
    }
    return this.field(offset, bits)[0] === other.field(offset, bits)[0];
  }

  get rip(): number {
    return join64(this.get(CPU.rip), this.get(CPU.rip + 4));
  }
}

const join64Exact = (low: number, high: number): bigint => (BigInt(high) << 32n) | BigInt(low);

/** What differs: a name, and both values as text. */
export interface Difference {
  readonly what: string;
  readonly translated: string;
  readonly interpreted: string;
}

/**
 * @param flags RFLAGS of each
 */
export function compareStates(
  translated: StateCopy,
  interpreted: StateCopy,
  flags: readonly [number, number],
): Difference[] {
  const differences: Difference[] = [];
  for (const [what, offset, bits] of FIELDS) {
    if (translated.same(interpreted, offset, bits)) continue;
    differences.push({
      what,
      translated: translated.text(offset, bits),
      interpreted: interpreted.text(offset, bits),
    });
  }
  if (flags[0] !== flags[1])
    differences.push({
      what: 'rflags',
      translated: flags[0].toString(16),
      interpreted: flags[1].toString(16),
    });
  return differences;
}

/** All registers on a few lines. */
export function formatState(state: StateCopy): string {
  const lines: string[] = [];
  for (let i = 0; i < 16; i += 4)
    lines.push(
      REGISTERS.slice(i, i + 4)
        .map((name, j) => `${name.padEnd(3)} ${state.text(CPU.regs + (i + j) * 8, 64)}`)
        .join('  '),
    );
  return lines.join('\n');
}
