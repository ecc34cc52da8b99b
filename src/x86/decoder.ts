/**
 * The decoder: bytes to an Instruction, by tables made from the definitions.
 *
 * 64-bit mode. What no definition covers is reported as undefined with the opcode's name, so that it can be counted.
 */
import type { Definition } from './isa/definition.ts';
import { hexByte, type Prefix } from './isa/encoding.ts';
import { type Form, formSizes, rmOperand } from './isa/form.ts';
import { CPU, VECTOR } from './state.ts';

/** Where the bytes of an instruction come from: byte at an offset from its start, or -1 where memory ends. */
export type Fetch = (offset: number) => number;

export interface Instruction {
  /** null: undefined; `vector` says how it faults, `name` which bytes they were. */
  readonly form: Form | null;
  readonly name: string;
  readonly vector: number;
  readonly length: number;
  /** Slots (offsets into the CPU state) of ModRM.reg and of ModRM.rm or the base. */
  readonly reg: number;
  readonly rm: number;
  readonly index: number;
  readonly scale: number;
  readonly segment: number;
  readonly displacement: number;
  readonly ripRelative: boolean;
  readonly address32: boolean;
  /** Immediate as two halves. */
  readonly immediateLow: number;
  readonly immediateHigh: number;
  /** The address of a moffs operand is in the immediate. */
  readonly absolute: boolean;
  /** A direct branch: the immediate counts from the end of the instruction. */
  readonly relative: boolean;
}

interface Candidate {
  readonly definition: Definition;
  /** Forms by [operand size index 0: none, 16, 32, 64][memory][repeat index]. */
  readonly forms: Map<number, Form>;
  readonly sizes: readonly number[];
  readonly sample: Form;
  readonly rmKind: string;
}

const REPEATS = ['', 'rep', 'repne'];
const formKey = (size: number, memory: boolean, repeat: number) => size * 8 + (memory ? 4 : 0) + repeat;

const MAX_LENGTH = 15;

/** Thrown by a fetch that memory does not answer. */
class OutOfBytes extends Error {}

export class Decoder {
  private readonly table: (Candidate[] | undefined)[][] = [[], [], [], []];

  constructor(forms: readonly Form[]) {
    const candidates = new Map<Definition, Candidate>();
    for (const form of forms) {
      let candidate = candidates.get(form.definition);
      if (candidate === undefined) {
        candidate = {
          definition: form.definition,
          forms: new Map(),
          sizes: formSizes(form.definition, form.operands, form.encoding),
          sample: form,
          rmKind: rmOperand(form.operands)?.kind ?? '',
        };
        candidates.set(form.definition, candidate);
        const { map, opcode, plusRegister } = form.encoding;
        for (let i = 0; i < (plusRegister ? 8 : 1); i++) {
          const list = this.table[map]![opcode + i];
          if (list === undefined) this.table[map]![opcode + i] = [candidate];
          else list.push(candidate);
        }
      }
      candidate.forms.set(formKey(form.size, form.memory, REPEATS.indexOf(form.repeat)), form);
    }
    // More specific encodings first: fixed ModRM bytes, REX.W, mandatory prefixes.
    const weight = ({ definition, sample: { encoding } }: Candidate) =>
      (definition.withoutRexB ? 1 : 0) +
      (encoding.modrm === 'fixed' ? 4 : 0) +
      (encoding.rexW ? 2 : 0) +
      (encoding.prefix !== 'none' ? 1 : 0);
    for (const map of this.table) for (const list of map) list?.sort((a, b) => weight(b) - weight(a));
  }

  /** Decodes one instruction, or returns null if its bytes run out (a fetch that answered -1). */
  decode(fetch: Fetch): Instruction | null {
    try {
      return this.decodeBytes(fetch);
    } catch (error) {
      if (error instanceof OutOfBytes) return null;
      throw error;
    }
  }

  private decodeBytes(fetch: Fetch): Instruction {
    let at = 0;
    const next = (): number => {
      const byte = at < MAX_LENGTH ? fetch(at) : -2;
      if (byte === -1) throw new OutOfBytes();
      at++;
      return byte;
    };
    let rex = 0;
    let operand16 = false;
    let address32 = false;
    let repeat = 0;
    let lock = false;
    let segment = -1;
    let byte = 0;
    for (;;) {
      byte = next();
      if (byte === 0x66) operand16 = true;
      else if (byte === 0x67) address32 = true;
      else if (byte === 0xf3) repeat = 1;
      else if (byte === 0xf2) repeat = 2;
      else if (byte === 0xf0) lock = true;
      else if (byte === 0x64) segment = CPU.fsBase;
      else if (byte === 0x65) segment = CPU.gsBase;
      else if (byte === 0x2e || byte === 0x36 || byte === 0x3e || byte === 0x26) {
        // Null segments in 64-bit mode; they do not undo FS or GS before them.
      } else if ((byte & 0xf0) === 0x40) {
        rex = byte;
        continue;
      } else break;
      // A REX prefix counts only directly before the opcode.
      rex = 0;
    }
    let map = 0;
    let name = '';
    if (byte === 0x0f) {
      map = 1;
      name = '0F ';
      byte = next();
      if (byte === 0x38 || byte === 0x3a) {
        map = byte === 0x38 ? 2 : 3;
        name += hexByte(byte) + ' ';
        byte = next();
      }
    }
    name += hexByte(Math.max(byte, 0));
    const undefinedHere = (vector: number, why = name): Instruction => ({
      form: null,
      name: why,
      vector,
      length: at,
      reg: CPU.zero,
      rm: CPU.zero,
      index: CPU.zero,
      scale: 0,
      segment: CPU.zero,
      displacement: 0,
      ripRelative: false,
      address32,
      immediateLow: 0,
      immediateHigh: 0,
      absolute: false,
      relative: false,
    });
    if (byte < 0) return undefinedHere(VECTOR.GP, 'instruction longer than 15 bytes');
    const list = this.table[map]![byte];
    if (list === undefined) return undefinedHere(VECTOR.UD, prefixName(repeat, operand16) + name);

    const rexW = (rex & 8) !== 0;
    let modrm = -1;
    const peekModrm = (): number => {
      if (modrm < 0) modrm = next();
      return modrm;
    };
    // Mandatory prefixes: F2 and F3 win over 66.
    const mandatory: Prefix = repeat === 2 ? 'F2' : repeat === 1 ? 'F3' : operand16 ? '66' : 'NP';
    const matches = ({ sample, rmKind, definition }: Candidate, prefix: Prefix | null): boolean => {
      const { encoding } = sample;
      if (encoding.prefix !== 'none' && encoding.prefix !== prefix) return false;
      if (encoding.rexW && !rexW) return false;
      if (definition.withoutRexB === true && (rex & 1) !== 0) return false;
      if (encoding.modrm === null) return true;
      const m = peekModrm();
      if (m < 0) return true;
      if (encoding.modrm === 'fixed') return m === encoding.modrmByte;
      if (typeof encoding.modrm === 'number' && encoding.modrm !== ((m >> 3) & 7)) return false;
      const memory = m < 0xc0;
      if (rmKind === 'M') return memory;
      if (rmKind === 'R' || rmKind === 'U' || rmKind === 'N') {
        // MOV to and from control registers takes any mod as a register.
        return !memory || definition.privileged === true;
      }
      if (rmKind === '' && definition.modrmRegister === true) return !memory;
      return true;
    };
    let candidate = list.find((each) => matches(each, mandatory));
    // F2 or F3 before an instruction that knows only 66 or nothing is ignored.
    if (candidate === undefined && repeat !== 0)
      candidate = list.find((each) => each.sample.encoding.prefix === 'none' && matches(each, null));
    if (candidate === undefined) {
      const digit = list.some((each) => typeof each.sample.encoding.modrm === 'number');
      const suffix = digit && modrm >= 0 ? ` /${(modrm >> 3) & 7}` : '';
      return undefinedHere(VECTOR.UD, prefixName(repeat, operand16) + name + suffix);
    }
    const { definition, sample } = candidate;
    const { encoding, operands } = sample;
    if (encoding.modrm !== null && peekModrm() < 0)
      return undefinedHere(VECTOR.GP, 'instruction longer than 15 bytes');
    const memory = modrm >= 0 && modrm < 0xc0 && candidate.rmKind !== '' && candidate.rmKind !== 'R';

    // Operand size.
    const prefix66 = operand16 && encoding.prefix !== '66';
    let size = rexW ? 64 : prefix66 ? 16 : definition.default64 ? 64 : 32;
    if (candidate.sizes[0] === 0) size = 0;
    else if (!candidate.sizes.includes(size)) size = candidate.sizes.includes(32) ? 32 : candidate.sizes[0]!;
    const repeatIndex = definition.rep ? repeat : 0;
    const form = candidate.forms.get(formKey(size, memory, repeatIndex));
    if (form === undefined) return undefinedHere(VECTOR.UD, `${definition.name} (${name})`);

    // Registers.
    const rexR = (rex & 4) << 1;
    const rexX = (rex & 2) << 2;
    const rexB = (rex & 1) << 3;
    const slot = (kind: string, bits: string, low: number, extension: number): number => {
      const number = low | extension;
      switch (kind) {
        case 'V':
        case 'W':
        case 'U':
          return CPU.xmm + number * 16;
        case 'P':
        case 'Q':
        case 'N':
          return CPU.st + low * 16;
        case 'S':
          return CPU.selectors + low * 8;
        default:
          if (bits === 'b' && rex === 0 && low >= 4) return CPU.regs + (low - 4) * 8 + 1;
          return CPU.regs + number * 8;
      }
    };
    let reg: number = CPU.zero;
    let rm: number = CPU.zero;
    let index: number = CPU.zero;
    let scale = 0;
    let displacement = 0;
    let ripRelative = false;
    for (const { kind, size: bits } of operands) {
      if (kind === 'G' || kind === 'V' || kind === 'P' || kind === 'S')
        reg = slot(kind, bits, (modrm >> 3) & 7, rexR);
      else if (kind === 'Z') reg = slot(kind, bits, byte & 7, rexB);
      else if (kind === candidate.rmKind && !memory) rm = slot(kind, bits, modrm & 7, rexB);
    }
    if (memory) {
      const mod = modrm >> 6;
      let base = (modrm & 7) | rexB;
      let noBase = false;
      if ((modrm & 7) === 4) {
        const sib = next();
        scale = sib >> 6;
        const indexNumber = ((sib >> 3) & 7) | rexX;
        if (indexNumber !== 4) index = CPU.regs + indexNumber * 8;
        base = (sib & 7) | rexB;
        if ((sib & 7) === 5 && mod === 0) noBase = true;
        if (index === CPU.zero) scale = 0;
      } else if (mod === 0 && (modrm & 7) === 5) ripRelative = true;
      if (mod === 1) displacement = (next() << 24) >> 24;
      else if (mod === 2 || noBase || ripRelative) {
        displacement = next() | (next() << 8) | (next() << 16);
        displacement |= next() << 24;
      }
      rm = noBase ? CPU.zero : ripRelative ? CPU.page : CPU.regs + base * 8;
    }

    // Immediates. ENTER has two: the second goes above the first.
    let low = 0;
    let high = 0;
    let absolute = false;
    let relative = false;
    const read = (bytes: number): number => {
      let value = 0;
      for (let i = 0; i < bytes; i++) value |= next() << (8 * i);
      return value;
    };
    let first = true;
    for (const immediate of encoding.immediates) {
      let value = 0;
      let upper: number | null = null;
      switch (immediate) {
        case 'ib':
        case 'cb':
          value = (read(1) << 24) >> 24;
          break;
        case 'iw':
          value = (read(2) << 16) >> 16;
          break;
        case 'id':
        case 'cd':
          value = read(4);
          break;
        case 'iz':
          value = size === 16 ? (read(2) << 16) >> 16 : read(4);
          break;
        case 'iv':
          if (size === 16) value = (read(2) << 16) >> 16;
          else {
            value = read(4);
            if (size === 64) upper = read(4);
          }
          break;
        case 'a':
          value = read(4);
          upper = address32 ? 0 : read(4);
          absolute = true;
          break;
      }
      if (immediate === 'cb' || immediate === 'cd') relative = true;
      if (first) {
        low = value;
        high = upper ?? value >> 31;
      } else {
        low = (low & 0xffff) | ((value & 0xff) << 16);
        high = 0;
      }
      first = false;
    }
    if (at > MAX_LENGTH) return undefinedHere(VECTOR.GP, 'instruction longer than 15 bytes');
    if (definition.registers !== undefined && !definition.registers.includes(((modrm >> 3) & 7) | rexR))
      return undefinedHere(VECTOR.UD, `${definition.name} (register)`);
    if (definition.modrmImmediate === true) {
      low = modrm;
      high = 0;
    }
    if (definition.segmentImmediate === true) {
      low = (modrm >> 3) & 7;
      high = 0;
      // CS cannot be loaded; 6 and 7 do not exist.
      if (low === 1 || low > 5) return undefinedHere(VECTOR.UD, `${definition.name} (segment ${low})`);
    } else if (operands.some((operand) => operand.kind === 'S') && ((modrm >> 3) & 7) > 5)
      return undefinedHere(VECTOR.UD, `${definition.name} (segment)`);
    if (lock && !(definition.lock === true && memory))
      return undefinedHere(VECTOR.UD, `LOCK ${definition.name}`);
    return {
      form,
      name: definition.name,
      vector: 0,
      length: at,
      reg,
      rm,
      index,
      scale,
      segment: segment < 0 ? CPU.zero : segment,
      displacement,
      ripRelative,
      address32,
      immediateLow: low,
      immediateHigh: high,
      absolute,
      relative,
    };
  }
}

function prefixName(repeat: number, operand16: boolean): string {
  return (repeat === 1 ? 'F3 ' : repeat === 2 ? 'F2 ' : '') + (operand16 ? '66 ' : '');
}
