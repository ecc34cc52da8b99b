/** What is known of a translated region, and what is asked for to have one. */
import type { Cpu, VirtualAddress } from '../cpu.ts';
import { CPU } from '../state.ts';
import type { CodePlace } from '../translator/code-view.ts';
import type { CompiledPage, CompiledRegion, WantedRegion } from '../translator/compile.ts';

/** A translated region, wherever it is installed. */
export interface Translation {
  /** Of the table; -1: its module is not instantiated yet. */
  slot: number;
  readonly pages: readonly Omit<CompiledPage, 'frame'>[];
  readonly entries: CompiledRegion['entries'];
  readonly apart: readonly number[];
  readonly wide: boolean;
  readonly remakes: number;
  /** In how many places it is installed. */
  installations: number;
  /** Instantiates the module of a stored one, with all its regions. */
  readonly load: (() => void) | null;
}

/** Offset of the region's own entry in its page. */
export const entryOffset = ({ entries }: Translation): number => entries[0]!.offset;

export interface Request extends Omit<WantedRegion, 'traces'> {
  readonly wide: boolean;
  /** Of a wide one: how often it was made anew, with more ways in it. */
  readonly remakes: number;
  /** Slot of the translation that the new one is to take the place of. */
  readonly replaces: number | null;
}

/** What begins at an offset of the CPU's page, in a machine frame. */
export function wanted(cpu: Cpu, frame: number, entry: number): Request {
  const code = { ...codePlace(cpu, cpu.number(CPU.page)), frame };
  return { code, entry, apart: [], wide: false, remakes: 0, replaces: null };
}

/** Where the CPU's code is to be looked for. */
export function codePlace(cpu: Cpu, page: VirtualAddress): Omit<CodePlace, 'frame'> {
  return {
    page,
    root: cpu.get(CPU.root),
    frameTable: cpu.get(CPU.frameTable),
    frameLimit: cpu.get(CPU.frameLimit),
    codeMaps: cpu.get(CPU.codeMaps),
    ring: cpu.get(CPU.ring),
  };
}
