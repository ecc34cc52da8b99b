/**
 * Decoded code: records in an arena of machine memory, and for each machine frame that holds code a map from byte
 * offsets to records.
 *
 * A frame with a map has FRAME_CODE among its flags, and then no TLB holds a write tag for it: the first write comes
 * through the walker, which calls `drop`. Dropping overwrites the frame's records with "look up again", so that a
 * run in the middle of that page notices at its next instruction, and links into it go astray nowhere. The arena is
 * only ever added to; when it is full, everything is thrown away.
 */
import type { Memory } from '../../machine/memory.ts';
import type { Cpu, VirtualAddress } from '../cpu.ts';
import type { Decoder, Instruction } from '../decoder.ts';
import { CODE_MAP_SIZE } from '../interpreter/build.ts';
import { FRAME_CODE } from '../mmu.ts';
import { GLUE, RECORD, RECORD_ADDRESS32, REGION_RECORD } from '../records.ts';
import { CPU, Exit, VECTOR } from '../state.ts';

/** Most instructions decoded ahead in one go. */
const RUN = 64;
/** Bytes of the arena that are left for records when a region is installed. */
const HEADROOM = 1 << 16;

/** Where a region is entered. */
export interface RegionEntry {
  /** Of the table of functions. */
  readonly slot: number;
  /** Of the entry. */
  readonly number: number;
  /** Linear address of the numbers of the region's frames. */
  readonly numbers: number;
  /** From the start of the region's first page to the start of this one, in bytes. */
  readonly distance: number;
  readonly wide: boolean;
}

/** Where one was entered. */
export interface EnteredRegion extends Omit<RegionEntry, 'wide'> {
  /** In the page. */
  readonly offset: number;
  /** The region's first page. */
  readonly page: VirtualAddress;
}

export interface CodeCacheHost {
  /** Linear address of the virtual page's frame for fetching, or 0 (CPU.walkError says why). */
  fetchPage(cpu: Cpu, page: number): number;
  /** Takes away all write tags of a frame. */
  revokeWrites(frame: number): void;
  /** What was decoded of a frame is gone (null: of all frames). */
  dropped(frame: number | null): void;
}

export class CodeCache {
  private readonly memory: Memory;
  private readonly decoder: Decoder;
  private readonly handlers: Uint16Array;
  private readonly host: CodeCacheHost;
  private readonly arena: number;
  private readonly arenaEnd: number;
  private readonly codeMaps: number;
  private readonly frameFlags: number;
  private top: number;
  private generation = 0;
  /** Frames that have a map. */
  private readonly mapped = new Set<number>();
  /** Instructions that begin in the page before a frame and end in it: their places. */
  private readonly straddlers = new Map<number, { frame: number; offset: number; record: number }[]>();
  /** Names of undefined instructions by record. */
  private readonly names = new Map<number, string>();

  constructor(options: {
    memory: Memory;
    decoder: Decoder;
    handlers: Uint16Array;
    host: CodeCacheHost;
    arena: number;
    arenaSize: number;
    codeMaps: number;
    frameFlags: number;
  }) {
    this.memory = options.memory;
    this.decoder = options.decoder;
    this.handlers = options.handlers;
    this.host = options.host;
    this.arena = options.arena;
    this.arenaEnd = options.arena + options.arenaSize;
    this.codeMaps = options.codeMaps >>> 2;
    this.frameFlags = options.frameFlags;
    this.top = options.arena;
  }

  nameOf(record: number): string {
    return this.names.get(record) ?? 'unknown';
  }

  /** Decodes at the CPU's rip (its fetch page was just checked). Linear address of the record, or 0: exception. */
  decode(cpu: Cpu): number {
    const rip = cpu.rip;
    const offset = rip & 0xfff;
    const page = rip - offset;
    const linear = this.host.fetchPage(cpu, page);
    if (linear === 0) return this.fault(cpu, VECTOR.PF, cpu.get(CPU.walkError), rip);
    this.reserve((RUN + 4) * 2 * RECORD.size + 2 * CODE_MAP_SIZE);
    cpu.put(CPU.recordGeneration, this.generation);
    const frame = linear >>> 12;
    const map = this.mapOf(frame);
    const { u32 } = this.memory;
    let at = offset;
    let first = 0;
    for (let count = 0; ; count++) {
      const known = at < 0x1000 ? u32[(map >>> 2) + at]! : 0;
      if (known !== 0) {
        this.glue(GLUE.link, at, known);
        break;
      }
      if (at >= 0x1000 || count === RUN) {
        this.glue(GLUE.relookup, at, 0);
        break;
      }
      const instruction = this.decoder.decode((i) =>
        at + i < 0x1000 ? this.memory.u8[linear + at + i]! : -1,
      );
      if (instruction === null) {
        if (count > 0) {
          this.glue(GLUE.relookup, at, 0);
          break;
        }
        const straddling = this.decodeStraddling(cpu, page, linear, at, map);
        if (straddling === 0) return 0;
        return straddling;
      }
      const record = this.emit(instruction, at);
      if (first === 0) first = record;
      u32[(map >>> 2) + at] = record;
      at += instruction.length;
      if (instruction.form === null || instruction.form.definition.ends) {
        // Whoever comes back behind a call or a fault that was handled looks up anew.
        this.glue(GLUE.relookup, at, 0);
        break;
      }
    }
    return first;
  }

  /** An instruction whose bytes go on in the next page. */
  private decodeStraddling(cpu: Cpu, page: number, linear: number, at: number, map: number): number {
    const second = this.host.fetchPage(cpu, page + 0x1000);
    if (second === 0) return this.fault(cpu, VECTOR.PF, cpu.get(CPU.walkError), page + 0x1000);
    const instruction = this.decoder.decode((i) =>
      at + i < 0x1000 ? this.memory.u8[linear + at + i]! : this.memory.u8[second + at + i - 0x1000]!,
    );
    if (instruction === null) return this.fault(cpu, VECTOR.UD, 0, 0);
    const frame = second >>> 12;
    this.mapOf(frame);
    const record = this.glue(GLUE.straddle, at, frame);
    this.emit(instruction, at);
    this.glue(GLUE.relookup, at + instruction.length, 0);
    this.memory.u32[(map >>> 2) + at] = record;
    const list = this.straddlers.get(frame) ?? [];
    list.push({ frame: linear >>> 12, offset: at, record });
    this.straddlers.set(frame, list);
    return record;
  }

  /** The page behind a straddling instruction is another one: forget the instruction. */
  straddleChanged(record: number): void {
    const frame = this.memory.u32[(record + RECORD.link) >>> 2]!;
    const list = this.straddlers.get(frame) ?? [];
    const place = list.find((each) => each.record === record);
    if (place !== undefined) {
      list.splice(list.indexOf(place), 1);
      this.forget(place);
    } else this.memory.u16[(record + RECORD.op) >>> 1] = GLUE.relookup;
  }

  private forget(place: { frame: number; offset: number; record: number }): void {
    const map = this.memory.u32[this.codeMaps + place.frame]!;
    if (map !== 0 && this.memory.u32[(map >>> 2) + place.offset] === place.record)
      this.memory.u32[(map >>> 2) + place.offset] = 0;
    this.memory.u16[(place.record + RECORD.op) >>> 1] = GLUE.relookup;
  }

  /** Forgets what was decoded of a frame. */
  drop(frame: number): void {
    const { u32, u16, u8 } = this.memory;
    const map = u32[this.codeMaps + frame]!;
    u8[this.frameFlags + frame]! &= ~FRAME_CODE;
    if (map === 0) return;
    for (let i = map >>> 2; i < (map + CODE_MAP_SIZE) >>> 2; i++) {
      const record = u32[i]!;
      if (record === 0) continue;
      // An address record is followed by its instruction; a straddle record as well.
      const op = u16[record >>> 1]!;
      if (op === GLUE.address || op === GLUE.straddle) u16[(record + RECORD.size) >>> 1] = GLUE.relookup;
      u16[record >>> 1] = GLUE.relookup;
      u32[i] = 0;
    }
    u32[this.codeMaps + frame] = 0;
    this.mapped.delete(frame);
    this.host.dropped(frame);
    this.spare.push(map);
    const list = this.straddlers.get(frame);
    if (list !== undefined) {
      this.straddlers.delete(frame);
      for (const place of list) this.forget(place);
    }
  }

  /**
   * From now on the instruction at a place of a frame begins a translated region. The region's own entry (number 0)
   * goes before what it can be entered at besides, and that of a wide region before what is not wide.
   */
  enterRegion(frame: number, offset: number, entry: RegionEntry): void {
    const { u32, u16 } = this.memory;
    const map = u32[this.codeMaps + frame]!;
    if (map === 0) return;
    const known = u32[(map >>> 2) + offset]!;
    if (known !== 0 && u16[known >>> 1] === GLUE.region) {
      if (entry.number === 0 || (entry.wide && u16[(known + REGION_RECORD.wide) >>> 1] === 0))
        this.writeRegion(known, entry);
      return;
    }
    if (this.top + RECORD.size > this.arenaEnd) return;
    const record = this.glue(GLUE.region, offset, 0);
    this.writeRegion(record, entry);
    u32[(map >>> 2) + offset] = record;
    if (known === 0) return;
    // Runs and links that lead to the old record go on to the region.
    u32[(known + RECORD.link) >>> 2] = record;
    u16[known >>> 1] = GLUE.link;
  }

  private writeRegion(record: number, { slot, number, numbers, distance, wide }: RegionEntry): void {
    const { u32, u16 } = this.memory;
    u16[(record + REGION_RECORD.arrivals) >>> 1] = 0;
    u16[(record + REGION_RECORD.wide) >>> 1] = wide ? 1 : 0;
    u32[(record + RECORD.link) >>> 2] = slot;
    u32[(record + RECORD.displacement) >>> 2] = distance;
    u32[(record + RECORD.immediate) >>> 2] = number;
    u32[(record + RECORD.immediate + 4) >>> 2] = numbers;
  }

  /** Where a region is entered: what its record says. @param page the region's first page */
  regionAt(record: number, page: VirtualAddress): EnteredRegion {
    const { u32, u16 } = this.memory;
    return {
      slot: u32[(record + RECORD.link) >>> 2]!,
      distance: u32[(record + RECORD.displacement) >>> 2]! | 0,
      number: u32[(record + RECORD.immediate) >>> 2]!,
      numbers: u32[(record + RECORD.immediate + 4) >>> 2]!,
      offset: u16[(record + RECORD.offset) >>> 1]!,
      page,
    };
  }

  /** A region is not to be entered any more at a place of a frame, if it still is there. */
  leaveRegion(frame: number, offset: number, numbers: number): void {
    const { u32, u16 } = this.memory;
    const map = u32[this.codeMaps + frame]!;
    if (map === 0) return;
    const record = u32[(map >>> 2) + offset]!;
    if (record === 0 || u16[record >>> 1] !== GLUE.region) return;
    if (u32[(record + RECORD.immediate + 4) >>> 2] !== numbers) return;
    u16[record >>> 1] = GLUE.relookup;
    u32[(map >>> 2) + offset] = 0;
  }

  /**
   * Frames are watched from now on as if they held decoded code.
   * @returns linear address of their numbers, a u32 each; 0: no room
   */
  hold(frames: readonly number[]): number {
    const bytes = Math.ceil((frames.length * 4) / RECORD.size) * RECORD.size;
    if (this.top + bytes + frames.length * CODE_MAP_SIZE + HEADROOM > this.arenaEnd) return 0;
    for (const frame of frames) this.mapOf(frame);
    const numbers = this.allocate(bytes);
    this.memory.u32.set(frames, numbers >>> 2);
    return numbers;
  }

  /** The frame has decoded code. */
  holds(frame: number): boolean {
    return this.memory.u32[this.codeMaps + frame] !== 0;
  }

  /** Code maps that are free again. */
  private spare: number[] = [];

  private mapOf(frame: number): number {
    const { u32, u8 } = this.memory;
    let map = u32[this.codeMaps + frame]!;
    if (map === 0) {
      map = this.spare.pop() ?? this.allocate(CODE_MAP_SIZE);
      u32.fill(0, map >>> 2, (map + CODE_MAP_SIZE) >>> 2);
      u32[this.codeMaps + frame] = map;
      this.mapped.add(frame);
    }
    if ((u8[this.frameFlags + frame]! & FRAME_CODE) === 0) {
      this.host.revokeWrites(frame);
      u8[this.frameFlags + frame]! |= FRAME_CODE;
    }
    return map;
  }

  private allocate(bytes: number): number {
    const at = this.top;
    this.top += bytes;
    return at;
  }

  /** Makes room, at the price of everything decoded so far. */
  private reserve(bytes: number): void {
    if (this.top + bytes > this.arenaEnd) this.clear();
  }

  clear(): void {
    const { u32, u8 } = this.memory;
    for (const frame of this.mapped) {
      u32[this.codeMaps + frame] = 0;
      u8[this.frameFlags + frame]! &= ~FRAME_CODE;
    }
    this.mapped.clear();
    this.straddlers.clear();
    this.names.clear();
    this.spare = [];
    this.top = this.arena;
    this.generation++;
    this.host.dropped(null);
  }

  private fault(cpu: Cpu, vector: number, error: number, address: number): number {
    cpu.put(CPU.exitReason, Exit.Exception);
    cpu.put(CPU.exitVector, vector);
    cpu.put(CPU.exitError, error);
    if (vector === VECTOR.PF) cpu.putNumber(CPU.cr2, address);
    return 0;
  }

  private glue(op: number, offset: number, link: number): number {
    const record = this.allocate(RECORD.size);
    this.write(record, op, offset, null, link);
    return record;
  }

  /** Appends an instruction's record (and what must run ahead of it); where to enter it. */
  private emit(instruction: Instruction, offset: number): number {
    const record = this.top;
    this.top += this.place(record, instruction, offset);
    return record;
  }

  /** Writes an instruction's records at a linear address; how many bytes they take. */
  place(at: number, instruction: Instruction, offset: number): number {
    const { form } = instruction;
    if (form === null) {
      this.write(at, GLUE.undefined, offset, instruction, 0);
      this.memory.u32[(at + RECORD.immediate) >>> 2] = instruction.vector;
      this.memory.u32[(at + RECORD.immediate + 4) >>> 2] = 0;
      this.names.set(at, instruction.name);
      return RECORD.size;
    }
    const op = this.handlers[form.index]!;
    const ahead =
      instruction.absolute ||
      (form.memory &&
        instruction.address32 &&
        form.definition.ownAddress !== true &&
        form.definition.name !== 'NOP');
    if (!ahead) {
      this.write(at, op, offset, instruction, 0);
      return RECORD.size;
    }
    this.write(at, GLUE.address, offset, instruction, 0);
    if (!instruction.absolute) {
      // The immediate belongs to the instruction, not to its address.
      this.memory.u32[(at + RECORD.immediate) >>> 2] = 0;
      this.memory.u32[(at + RECORD.immediate + 4) >>> 2] = 0;
    }
    const main = at + RECORD.size;
    this.write(
      main,
      op,
      offset,
      { ...instruction, rm: CPU.ea, index: CPU.zero, scale: 0, displacement: 0, ripRelative: false },
      0,
    );
    return 2 * RECORD.size;
  }

  private write(at: number, op: number, offset: number, instruction: Instruction | null, link: number): void {
    const { u8, u16, u32 } = this.memory;
    const half = at >>> 1;
    const word = at >>> 2;
    u16[half] = op;
    u16[half + 1] = offset;
    if (instruction === null) {
      for (let i = 1; i < 8; i++) u32[word + i] = 0;
      u32[(at + RECORD.link) >>> 2] = link;
      return;
    }
    const { length } = instruction;
    u16[half + 2] = instruction.reg;
    u16[half + 3] = instruction.rm;
    u16[half + 4] = instruction.index;
    u16[half + 5] = instruction.segment;
    u8[at + RECORD.scale] = instruction.scale;
    u8[at + RECORD.length] = length;
    u16[half + 7] = instruction.address32 ? RECORD_ADDRESS32 : 0;
    u32[word + 4] = instruction.displacement + (instruction.ripRelative ? offset + length : 0);
    u32[word + 5] = link;
    let low = instruction.immediateLow;
    let high = instruction.immediateHigh;
    if (instruction.relative) {
      const target = low + offset + length;
      low = target | 0;
      high = Math.floor(target / 0x1_0000_0000);
    }
    u32[word + 6] = low;
    u32[word + 7] = high;
  }
}
