/**
 * ELF64 files of x86-64 (System V ABI, AMD64 supplement): what a loader needs of them. The file comes from a user
 * and every number in it is checked here, once; what an Elf object hands out lies within the file.
 */
import { join64, type VirtualAddress } from '../../x86/cpu.ts';
import { BuildError } from './error.ts';

const MAGIC = 0x464c457f;
const CLASS_64 = 2;
const LITTLE_ENDIAN = 1;
const MACHINE_X86_64 = 62;
const HEADER_SIZE = 64;
const PROGRAM_HEADER_SIZE = 56;
const SECTION_HEADER_SIZE = 64;
const PROGRAM_HEADERS_MAX = 256;
const SECTION_HEADERS_MAX = 65536;

export const PT = { LOAD: 1, NOTE: 4 } as const;
export const SHT = { PROGBITS: 1, SYMTAB: 2, STRTAB: 3, NOTE: 7, NOBITS: 8 } as const;
const SHF_ALLOC = 2;

export interface Segment {
  readonly type: number;
  readonly flags: number;
  readonly va: VirtualAddress;
  /** Physical address, as a signed number like virtual ones: old kernels keep virtual addresses here. */
  readonly pa: number;
  /** Size in memory, in bytes; the file's bytes come first, the rest is zero. */
  readonly memorySize: number;
  readonly bytes: Uint8Array;
}

export interface Section {
  readonly index: number;
  readonly name: string;
  readonly type: number;
  readonly allocated: boolean;
  readonly va: VirtualAddress;
  readonly size: number;
  readonly link: number;
  readonly alignment: number;
  /** Empty for SHT_NOBITS. */
  readonly bytes: Uint8Array;
}

export interface Elf {
  readonly bytes: Uint8Array;
  readonly entry: VirtualAddress;
  readonly segments: readonly Segment[];
  readonly sections: readonly Section[];
}

/** Whether the bytes begin as an ELF file does. */
export function isElf(bytes: Uint8Array): boolean {
  return bytes.length >= 4 && new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true) === MAGIC;
}

/**
 * Reads an ELF file's headers.
 * @throws BuildError
 */
export function parseElf(bytes: Uint8Array): Elf {
  if (!isElf(bytes)) throw new BuildError('the kernel is neither a bzImage nor an ELF file');
  if (bytes.length < HEADER_SIZE) throw new BuildError('the kernel is truncated: it ends in its ELF header');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes[4] !== CLASS_64)
    throw new BuildError('the kernel is a 32-bit one: only 64-bit kernels (x86-64) can run');
  if (bytes[5] !== LITTLE_ENDIAN || view.getUint16(18, true) !== MACHINE_X86_64) {
    throw new BuildError(
      `the kernel is for another processor (ELF machine ${view.getUint16(18, bytes[5] !== 2)})`,
    );
  }
  return {
    bytes,
    entry: address(view, 24),
    segments: segmentsOf(bytes, view),
    sections: sectionsOf(bytes, view),
  };
}

function address(view: DataView, at: number): number {
  return join64(view.getUint32(at, true), view.getUint32(at + 4, true));
}

/** The bytes [offset, offset + size) of the file. */
function slice(bytes: Uint8Array, offset: number, size: number, what: string): Uint8Array {
  if (offset < 0 || size < 0)
    throw new BuildError(`the kernel is corrupt: its ${what} has an impossible place`);
  if (offset + size > bytes.length) {
    throw new BuildError(
      `the kernel is truncated: its ${what} ends at byte ${offset + size}, the file at ${bytes.length}`,
    );
  }
  return bytes.subarray(offset, offset + size);
}

function segmentsOf(bytes: Uint8Array, view: DataView): Segment[] {
  const count = view.getUint16(56, true);
  if (count === 0) throw new BuildError('the kernel is corrupt: it has no program headers');
  if (count > PROGRAM_HEADERS_MAX || view.getUint16(54, true) !== PROGRAM_HEADER_SIZE) {
    throw new BuildError('the kernel is corrupt: its program headers are not of ELF64');
  }
  const start = address(view, 32);
  slice(bytes, start, count * PROGRAM_HEADER_SIZE, 'program header table');
  const segments: Segment[] = [];
  for (let index = 0; index < count; index++) {
    const at = start + index * PROGRAM_HEADER_SIZE;
    const type = view.getUint32(at, true);
    if (type !== PT.LOAD && type !== PT.NOTE) continue;
    const fileSize = address(view, at + 32);
    const memorySize = address(view, at + 40);
    if (type === PT.LOAD && (memorySize < fileSize || memorySize > Number.MAX_SAFE_INTEGER)) {
      throw new BuildError(`the kernel is corrupt: segment ${index} is larger in the file than in memory`);
    }
    segments.push({
      type,
      flags: view.getUint32(at + 4, true),
      va: address(view, at + 16),
      pa: address(view, at + 24),
      memorySize,
      bytes: slice(bytes, address(view, at + 8), fileSize, `segment ${index}`),
    });
  }
  return segments;
}

function sectionsOf(bytes: Uint8Array, view: DataView): Section[] {
  const start = address(view, 40);
  const count = view.getUint16(60, true);
  if (start === 0 || count === 0) return [];
  if (count > SECTION_HEADERS_MAX || view.getUint16(58, true) !== SECTION_HEADER_SIZE) {
    throw new BuildError('the kernel is corrupt: its section headers are not of ELF64');
  }
  slice(bytes, start, count * SECTION_HEADER_SIZE, 'section header table');
  const headers = Array.from({ length: count }, (_, index) => {
    const at = start + index * SECTION_HEADER_SIZE;
    const type = view.getUint32(at + 4, true);
    const size = address(view, at + 32);
    const empty = type === 0 || type === SHT.NOBITS;
    return {
      index,
      nameAt: view.getUint32(at, true),
      type,
      allocated: (view.getUint32(at + 8, true) & SHF_ALLOC) !== 0,
      va: address(view, at + 16),
      size,
      link: view.getUint32(at + 40, true),
      alignment: address(view, at + 48),
      bytes: slice(bytes, empty ? 0 : address(view, at + 24), empty ? 0 : size, `section ${index}`),
    };
  });
  const names = headers[view.getUint16(62, true)]?.bytes ?? new Uint8Array();
  return headers.map(({ nameAt, ...section }) => ({ ...section, name: text(names, nameAt) }));
}

/** The zero-terminated string that begins at an offset (empty where that is out of range). */
export function text(bytes: Uint8Array, at: number): string {
  let end = at;
  while (end < bytes.length && bytes[end] !== 0) end++;
  return String.fromCharCode(...bytes.subarray(at, Math.min(end, at + 4096)));
}
