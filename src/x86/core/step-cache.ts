/**
 * What single steps decoded last. A step stands outside the code cache, as it must not depend on what is there; but
 * guests step over the same few instructions again and again (those that store to page tables). An entry counts
 * only while the bytes in memory are those that it was made from.
 */
import type { Memory } from '../../machine/memory.ts';
import type { Instruction } from '../decoder.ts';

const ENTRIES = 1 << 14;

interface Entry {
  readonly linear: number;
  readonly bytes: Uint8Array;
  readonly instruction: Instruction;
}

/** Equal offsets in different pages are not in each other's way. */
const slotOf = (linear: number) => (linear ^ Math.imul(linear >>> 12, 0x9e37)) & (ENTRIES - 1);

export class StepCache {
  private readonly memory: Memory;
  private readonly entries: (Entry | undefined)[] = new Array(ENTRIES).fill(undefined);

  constructor(memory: Memory) {
    this.memory = memory;
  }

  /** @param linear address of the instruction's first byte */
  find(linear: number): Instruction | null {
    const entry = this.entries[slotOf(linear)];
    if (entry === undefined || entry.linear !== linear) return null;
    const { u8 } = this.memory;
    const { bytes } = entry;
    for (let i = 0; i < bytes.length; i++) if (u8[linear + i] !== bytes[i]) return null;
    return entry.instruction;
  }

  /** The instruction lies within one page. */
  keep(linear: number, instruction: Instruction): void {
    const bytes = this.memory.u8.slice(linear, linear + instruction.length);
    this.entries[slotOf(linear)] = { linear, bytes, instruction };
  }
}
