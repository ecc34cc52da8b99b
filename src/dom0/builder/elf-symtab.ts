/**
 * The symbol table as BSD kernels look for it behind their own image (elfnote.h, BSD_SYMTAB): its size, then an ELF
 * file of nothing but a null section, the symbols and their names.
 */
import { type Elf, type Section, SHT } from './elf.ts';

const HEADER = 64;
const SECTION = 64;
const SECTIONS = 3;

/** The bytes to load, or null where the kernel has no symbols. Their start must be aligned to 8. */
export function bsdSymbolTable(elf: Elf): Uint8Array | null {
  const symbols = elf.sections.find(({ type }) => type === SHT.SYMTAB);
  const names = symbols && elf.sections[symbols.link];
  if (!symbols || !names || names.type !== SHT.STRTAB) return null;
  // The size takes 4 bytes; the file behind it begins at a multiple of 8.
  const fileAt = 8;
  const symbolsAt = align(HEADER + SECTIONS * SECTION);
  const namesAt = align(symbolsAt + symbols.bytes.length);
  const size = align(namesAt + names.bytes.length);
  const table = new Uint8Array(fileAt + size);
  const view = new DataView(table.buffer);
  view.setUint32(0, size, true);
  const header = table.subarray(fileAt);
  header.set(elf.bytes.subarray(0, HEADER));
  const fields = new DataView(header.buffer, header.byteOffset);
  fields.setBigUint64(32, 0n, true);
  fields.setBigUint64(40, BigInt(HEADER), true);
  fields.setUint16(54, 0, true);
  fields.setUint16(56, 0, true);
  fields.setUint16(60, SECTIONS, true);
  fields.setUint16(62, 0, true);
  section(elf, header, 1, symbols, symbolsAt, 2);
  section(elf, header, 2, names, namesAt, 0);
  header.set(symbols.bytes, symbolsAt);
  header.set(names.bytes, namesAt);
  return table;
}

function align(size: number): number {
  return Math.ceil(size / 8) * 8;
}

/** Copies a section header to another place in the table, with another place of the contents. */
function section(
  elf: Elf,
  file: Uint8Array,
  index: number,
  from: Section,
  offset: number,
  link: number,
): void {
  const headers = Number(new DataView(elf.bytes.buffer, elf.bytes.byteOffset).getBigUint64(40, true));
  const source = headers + from.index * SECTION;
  const at = HEADER + index * SECTION;
  file.set(elf.bytes.subarray(source, source + SECTION), at);
  const view = new DataView(file.buffer, file.byteOffset);
  view.setUint32(at, 0, true);
  view.setBigUint64(at + 16, 0n, true);
  view.setBigUint64(at + 24, BigInt(offset), true);
  view.setUint32(at + 40, link, true);
}
