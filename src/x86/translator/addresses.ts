/**
 * One check for several accesses.
 *
 * A register's value is named by where it was set and what was added since (`Origin`), so that two addresses can be
 * seen to be a constant apart. Along an extended basic block (code that is entered only at its top) accesses to such
 * addresses that lie close together are a *group*: the first one to come checks that the whole range is in one page
 * and may be read (written), and all others of the group are plain loads and stores. That holds to the end of the
 * block: within a region nothing takes a translation away.
 *
 * A group that is not in one page cannot be checked as one. The region is then left before the instruction, which is
 * interpreted; if that happens often, the region is translated again without that group (`apart`).
 */
import type { Local } from '../../wasm/index.ts';
import type { Instruction } from '../decoder.ts';
import type { Place } from '../isa/semantics.ts';
import { CPU } from '../state.ts';
import type { Access, KnownForms } from './facts.ts';
import { isGeneral, operandSlot, registerOf, writtenRegisters } from './operands.ts';
import type { Block } from './region.ts';

/** Most bytes from the first to the last of a group. */
const SPAN = 512;

interface Origin {
  readonly id: number;
  readonly offset: number;
}

/** An address: what it is the sum of, but for a constant. */
interface Sum {
  readonly key: string;
  readonly offset: number;
}

export interface Group {
  readonly write: boolean;
  /** From the first byte to behind the last one, relative to the sum that all have in common. */
  readonly start: number;
  readonly end: number;
}

/** Accesses to one sum. */
interface Groups {
  readonly reads: readonly Group[];
  readonly writes: readonly Group[];
}

export interface Known {
  readonly origins: readonly Origin[];
  readonly groups: ReadonlyMap<string, Groups>;
  /** Groups that have been checked, and the linear addresses where they begin. */
  readonly checked: ReadonlyMap<Group, Local<'i32'>>;
}

/** An access that belongs to a group. */
export interface Member {
  readonly group: Group;
  /** Bytes from the group's start. */
  readonly first: number;
  /** Where the group begins, if it has been checked. */
  readonly linear: Local<'i32'> | null;
}

const NO_GROUPS: ReadonlyMap<string, Groups> = new Map();
const NONE_CHECKED: ReadonlyMap<Group, Local<'i32'>> = new Map();
const RIP = -1;
const NO_REGISTER: Origin = { id: 0, offset: 0 };

export class Addresses {
  private readonly blocks: readonly Block[];
  private readonly forms: KnownForms;
  private readonly apart: ReadonlySet<number>;
  /** How many ways lead to each block. */
  private readonly ways: number[];
  private known: Known = { origins: fresh(0), groups: NO_GROUPS, checked: NONE_CHECKED };

  /** @param apart addresses of instructions that are in no group, nor is any other access to the same sum */
  constructor(
    blocks: readonly Block[],
    entries: readonly number[],
    forms: KnownForms,
    apart: ReadonlySet<number>,
  ) {
    this.blocks = blocks;
    this.forms = forms;
    this.apart = apart;
    this.ways = blocks.map(() => 0);
    for (const entry of entries) this.ways[entry]! += 2;
    for (const block of blocks) for (const to of successors(block)) this.ways[to]!++;
  }

  snapshot(): Known {
    return this.known;
  }

  restore(known: Known): void {
    this.known = known;
  }

  /** Code begins here that several ways lead to. */
  merge(block: number): void {
    const origins = fresh(block);
    this.known = { origins, groups: this.scan(block, origins), checked: NONE_CHECKED };
  }

  /** Behind an instruction. */
  advance(block: number, position: number, offset: number, instruction: Instruction): void {
    const origins = this.after(this.known.origins, block, position, offset, instruction);
    const { groups, checked } = this.known;
    if (origins !== this.known.origins) this.known = { origins, groups, checked };
  }

  /** The group that an access belongs to; null: none. */
  member(offset: number, instruction: Instruction, access: Access): Member | null {
    const sum = this.sum(this.known.origins, offset, instruction, access.place);
    if (sum === null) return null;
    const groups = this.known.groups.get(sum.key);
    if (groups === undefined) return null;
    const holds = ({ start, end }: Group) => start <= sum.offset && sum.offset + access.bytes <= end;
    const { checked } = this.known;
    const written = groups.writes.find(holds);
    const group =
      access.write || (written !== undefined && checked.has(written)) ? written : groups.reads.find(holds);
    if (group === undefined) return null;
    return { group, first: sum.offset - group.start, linear: checked.get(group) ?? null };
  }

  /** A group was checked: from here on its accesses need nothing. */
  check(group: Group, linear: Local<'i32'>): void {
    const { origins, groups, checked } = this.known;
    this.known = { origins, groups, checked: new Map(checked).set(group, linear) };
  }

  /** The groups of the extended basic block that begins with a block. */
  private scan(root: number, origins: readonly Origin[]): ReadonlyMap<string, Groups> {
    const found = new Map<string, { offset: number; bytes: number; write: boolean }[]>();
    const apart = new Set<string>();
    const stack: [block: number, origins: readonly Origin[]][] = [[root, origins]];
    for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
      const [index, before] = next;
      const block = this.blocks[index]!;
      let now = before;
      block.instructions.forEach(({ offset, instruction }, position) => {
        for (const access of this.forms.of(instruction.form!).accesses) {
          const sum = this.sum(now, offset, instruction, access.place);
          if (sum === null) continue;
          if (this.apart.has(offset)) apart.add(sum.key);
          const list = found.get(sum.key);
          const item = { offset: sum.offset, bytes: access.bytes, write: access.write };
          if (list === undefined) found.set(sum.key, [item]);
          else list.push(item);
        }
        now = this.after(now, index, position, offset, instruction);
      });
      for (const to of successors(block)) if (this.ways[to] === 1) stack.push([to, now]);
    }
    const groups = new Map<string, Groups>();
    for (const [key, list] of found) {
      if (list.length < 2 || apart.has(key)) continue;
      const writes = cluster(
        list.filter(({ write }) => write),
        true,
      );
      groups.set(key, {
        writes,
        reads: cluster(
          list.filter(({ write }) => !write),
          false,
        ),
      });
    }
    return groups;
  }

  private sum(
    origins: readonly Origin[],
    offset: number,
    instruction: Instruction,
    place: Place | null,
  ): Sum | null {
    if (place !== null) {
      const { id, offset: added } = origins[place.register]!;
      return { key: `${id}:0:0:${CPU.zero}`, offset: added + place.displacement };
    }
    const form = instruction.form!;
    if (!form.memory || instruction.absolute || instruction.address32 || form.definition.ownAddress === true)
      return null;
    const of = (slot: number): Origin => {
      if (slot === CPU.zero) return NO_REGISTER;
      if (slot === CPU.page) return { id: RIP, offset: offset + instruction.length };
      return origins[registerOf(slot)]!;
    };
    const base = of(instruction.rm);
    const index = of(instruction.index);
    const { scale, segment, displacement } = instruction;
    return {
      key: `${base.id}:${index.id}:${index.id === 0 ? 0 : scale}:${segment}`,
      offset: base.offset + index.offset * 2 ** scale + displacement,
    };
  }

  /** Origins behind an instruction. */
  private after(
    origins: readonly Origin[],
    block: number,
    position: number,
    offset: number,
    instruction: Instruction,
  ): readonly Origin[] {
    const form = instruction.form!;
    const { changes, additions } = this.forms.of(form);
    const written = writtenRegisters(instruction);
    if (written.length + changes.length + additions.length === 0) return origins;
    const next = origins.slice();
    for (const { register, displacement } of additions) {
      const { id, offset: added } = next[register]!;
      next[register] = { id, offset: added + displacement };
    }
    const changed = ((block + 1) * 1024 + position) * 16;
    for (const register of written) next[register] = { id: changed + register, offset: 0 };
    for (const register of changes) next[register] = { id: changed + register, offset: 0 };
    const moved = this.moved(origins, offset, instruction);
    if (moved !== null) next[written[0]!] = moved;
    return next;
  }

  /** The origin of a 64-bit register that was set to another one, or had a constant added. */
  private moved(origins: readonly Origin[], offset: number, instruction: Instruction): Origin | null {
    const form = instruction.form!;
    if (form.size !== 64) return null;
    const { name } = form.definition;
    if (name === 'LEA') {
      const { rm, index, segment, displacement, address32 } = instruction;
      if (index !== CPU.zero || address32 || segment !== CPU.zero || rm === CPU.zero) return null;
      if (rm === CPU.page) return { id: RIP, offset: offset + instruction.length + displacement };
      const base = origins[registerOf(rm)]!;
      return { id: base.id, offset: base.offset + displacement };
    }
    const slot = form.operands.length > 0 ? operandSlot(instruction, form, 0) : null;
    if (slot === null || !isGeneral(slot)) return null;
    const old = origins[registerOf(slot)]!;
    if (name === 'INC' || name === 'DEC')
      return { id: old.id, offset: old.offset + (name === 'INC' ? 1 : -1) };
    if (form.operands.length !== 2) return null;
    const source = operandSlot(instruction, form, 1);
    if (name === 'MOV' && source !== null && isGeneral(source)) return origins[registerOf(source)]!;
    if ((name === 'ADD' || name === 'SUB') && form.operands[1]!.kind === 'I') {
      const { immediateLow } = instruction;
      return { id: old.id, offset: old.offset + (name === 'ADD' ? immediateLow : -immediateLow) };
    }
    return null;
  }
}

const successors = ({ taken, next, targets }: Block): number[] => [
  ...[taken, next].filter((to) => to !== null),
  ...targets.map(({ block }) => block),
];

/** Of registers about which nothing is known. */
function fresh(block: number): Origin[] {
  return Array.from({ length: 16 }, (_, register) => ({ id: -(block * 16 + register) - 2, offset: 0 }));
}

/** Accesses that lie close together, of which there are at least two. */
function cluster(accesses: readonly { offset: number; bytes: number }[], write: boolean): Group[] {
  const groups: Group[] = [];
  let start = 0;
  let end = 0;
  let count = 0;
  const close = () => {
    if (count > 1) groups.push({ write, start, end });
  };
  for (const { offset, bytes } of [...accesses].sort((a, b) => a.offset - b.offset)) {
    if (count > 0 && Math.max(end, offset + bytes) - start <= SPAN) {
      end = Math.max(end, offset + bytes);
      count++;
      continue;
    }
    close();
    start = offset;
    end = offset + bytes;
    count = 1;
  }
  close();
  return groups;
}
