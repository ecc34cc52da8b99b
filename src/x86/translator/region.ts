/**
 * What is translated together: the basic blocks of one page that an entry reaches by direct branches and by
 * returning from calls.
 *
 * All places count from the start of the page, so that a region is the same wherever its page is mapped: its bytes
 * are its identity.
 */
import type { Decoder, Instruction } from '../decoder.ts';

export interface Block {
  /** Offset of the first instruction in the page. */
  readonly start: number;
  readonly instructions: readonly { readonly offset: number; readonly instruction: Instruction }[];
  /** Offset behind the last instruction. */
  end: number;
  /** Where control goes within the region: offsets of blocks. */
  taken: number | null;
  next: number | null;
}

export interface Region {
  readonly entry: number;
  /** In order of their starts. */
  readonly blocks: readonly Block[];
  /** Offsets at which the region may be entered: the entry, and the places behind its calls. */
  readonly entries: readonly number[];
}

/** Most instructions of a region: V8's compile time per instruction grows beyond (see docs/engine.md). */
const REGION_INSTRUCTIONS = 400;

const isCall = (instruction: Instruction) => instruction.form?.definition.name === 'CALL';

/** Instructions at which a region ends, to be interpreted: far transfers, and what leaves the processor anyway. */
function leavesTo(instruction: Instruction): boolean {
  return instruction.form === null || instruction.form.definition.untranslated === true;
}

/**
 * @param page the bytes of the page
 * @returns null if nothing useful starts there
 */
export function findRegion(decoder: Decoder, page: Uint8Array, entry: number): Region | null {
  const decoded = new Map<number, Instruction | null>();
  const at = (offset: number): Instruction | null => {
    let instruction = decoded.get(offset);
    if (instruction === undefined) {
      instruction = decoder.decode((i) => (offset + i < page.length ? page[offset + i]! : -1));
      if (instruction !== null && leavesTo(instruction)) instruction = null;
      decoded.set(offset, instruction);
    }
    return instruction;
  };
  /** The in-page target of a direct branch. */
  const target = (instruction: Instruction, offset: number): number | null => {
    const to = offset + instruction.length + instruction.immediateLow;
    return to >= 0 && to < page.length ? to : null;
  };

  // Leaders first: breadth first from the entry, until the region is large enough.
  const leaders = new Set<number>([entry]);
  const entries = new Set<number>([entry]);
  const queue = [entry];
  const seen = new Set<number>();
  let count = 0;
  while (queue.length > 0 && count < REGION_INSTRUCTIONS) {
    let offset = queue.shift()!;
    for (;;) {
      if (seen.has(offset) || count >= REGION_INSTRUCTIONS) break;
      const instruction = at(offset);
      if (instruction === null) break;
      seen.add(offset);
      count++;
      const behind = offset + instruction.length;
      const { definition } = instruction.form!;
      if (instruction.relative) {
        const to = target(instruction, offset);
        if (to !== null && !isCall(instruction) && at(to) !== null) {
          leaders.add(to);
          queue.push(to);
        }
        leaders.add(behind);
        if (isCall(instruction)) entries.add(behind);
        if (isCall(instruction) || definition.ends !== true) queue.push(behind);
        break;
      }
      if (definition.ends === true) {
        leaders.add(behind);
        if (isCall(instruction)) {
          entries.add(behind);
          queue.push(behind);
        }
        break;
      }
      offset = behind;
    }
  }
  if (!seen.has(entry)) return null;

  const blocks: Block[] = [];
  for (const start of [...leaders].filter((leader) => seen.has(leader)).sort((a, b) => a - b)) {
    const instructions: { offset: number; instruction: Instruction }[] = [];
    let offset = start;
    let taken: number | null = null;
    let next: number | null = null;
    while (seen.has(offset)) {
      const instruction = at(offset)!;
      instructions.push({ offset, instruction });
      const behind = offset + instruction.length;
      const { definition } = instruction.form!;
      if (instruction.relative && !isCall(instruction)) {
        const to = target(instruction, offset);
        taken = to !== null && seen.has(to) ? to : null;
        next = definition.ends !== true && seen.has(behind) ? behind : null;
        offset = behind;
        break;
      }
      offset = behind;
      if (definition.ends === true) break;
      if (leaders.has(behind)) {
        next = seen.has(behind) ? behind : null;
        break;
      }
    }
    blocks.push({ start, instructions, end: offset, taken, next });
  }
  const starts = new Set(blocks.map((block) => block.start));
  return { entry, blocks, entries: [...entries].filter((each) => starts.has(each)) };
}
