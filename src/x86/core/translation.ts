/** What is known of a translated region, and what is asked for to have one. */
import type { Cpu, VirtualAddress } from '../cpu.ts';
import { CPU } from '../state.ts';
import type { CodePlace } from '../translator/code-view.ts';
import type { StoredRegion, WantedRegion } from '../translator/compile.ts';

/** A translated region, wherever it is installed. */
export interface Translation extends StoredRegion {
  /** Of the table; -1: its module is not instantiated yet. */
  slot: number;
  /** In how many places it is installed. */
  installations: number;
  /** What it came in, if it was not made here. */
  readonly batch: Batch | null;
}

/** Translations of one module that was made elsewhere or by an earlier run. */
export interface Batch {
  /** By which it is asked for; below 0: it cannot be. */
  readonly number: number;
  /** null: it has to be asked for. */
  module: WebAssembly.Module | null;
  readonly translations: Translation[];
  /** What it is to be installed for, once the module is there. Not empty: it was asked for. */
  waiting: Request[];
}

/** Its module is there, or can be asked for: it need not have a slot. */
export const comesAgain = ({ batch }: Translation): boolean =>
  batch !== null && (batch.module !== null || batch.number >= 0);

/** Of those for the same code, the one of the highest rank is used. */
export const rankOf = ({ wide, remakes }: Translation): number => (wide ? 1 + remakes : 0);

/** Offset of the region's own entry in its page. */
export const entryOffset = ({ entries }: Translation): number => entries[0]!.offset;

export interface Request extends Omit<WantedRegion, 'traces'> {
  readonly wide: boolean;
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
