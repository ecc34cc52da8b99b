/**
 * Names for addresses in a crash dump: from a System.map, or from the symbol table of an ELF file.
 */
import { type Elf, isElf, parseElf, SHT, text } from '../dom0/builder/elf.ts';
import { join64 } from '../x86/cpu.ts';

/** The file holds no symbols. */
export class SymbolsError extends Error {}

/** An address this far behind the last symbol is not in its function any more. */
const FARTHEST = 1 << 20;
/** Symbol types that mean code or data with an address: Elf64_Sym st_info, low four bits. */
const STT_NOTYPE = 0;
const STT_FUNC = 2;
const SYMBOL_BYTES = 24;

interface Symbol {
  readonly address: number;
  readonly name: string;
}

export class Symbols {
  private readonly symbols: readonly Symbol[];

  constructor(symbols: Symbol[]) {
    this.symbols = symbols.sort((a, b) => a.address - b.address);
  }

  /** @throws SymbolsError if there are none, BuildError for a damaged ELF file */
  static parse(bytes: Uint8Array): Symbols {
    const symbols = isElf(bytes) ? elfSymbols(parseElf(bytes)) : mapSymbols(bytes);
    if (symbols.length === 0)
      throw new SymbolsError('no symbols: neither a System.map nor an ELF file with a symbol table');
    return new Symbols(symbols);
  }

  /** `name+0x12`, or null where no symbol is near. @param address a signed number, see cpu.ts */
  name(address: number): string | null {
    let low = 0;
    let high = this.symbols.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.symbols[middle]!.address <= address) low = middle + 1;
      else high = middle;
    }
    const symbol = this.symbols[low - 1];
    if (!symbol || address - symbol.address >= FARTHEST) return null;
    return `${symbol.name}+0x${(address - symbol.address).toString(16)}`;
  }

  /** Writes the name behind each address of 16 hexadecimal digits that has one. */
  annotate(dump: string): string {
    return dump.replaceAll(/\b(?:0x)?([0-9a-f]{8})([0-9a-f]{8})\b/g, (digits, high: string, low: string) => {
      const name = this.name(join64(Number.parseInt(low, 16), Number.parseInt(high, 16)));
      return name ? `${digits} <${name}>` : digits;
    });
  }
}

/** System.map, as nm writes it: address, kind, name. */
function mapSymbols(bytes: Uint8Array): Symbol[] {
  const found: Symbol[] = [];
  for (const [, high, low, kind, name] of new TextDecoder()
    .decode(bytes)
    .matchAll(/^([0-9a-f]{8})([0-9a-f]{8}) ([A-Za-z]) (\S+)/gm)) {
    // Absolute symbols are numbers, not places; per-CPU ones start at zero.
    if (/[Aa]/.test(kind!)) continue;
    const address = join64(Number.parseInt(low!, 16), Number.parseInt(high!, 16));
    if (address < 0) found.push({ address, name: name! });
  }
  return found;
}

function elfSymbols(elf: Elf): Symbol[] {
  const table = elf.sections.find(({ type }) => type === SHT.SYMTAB);
  const names = table && elf.sections[table.link];
  if (!table || !names) return [];
  const view = new DataView(table.bytes.buffer, table.bytes.byteOffset, table.bytes.byteLength);
  const found: Symbol[] = [];
  for (let at = 0; at + SYMBOL_BYTES <= view.byteLength; at += SYMBOL_BYTES) {
    const type = view.getUint8(at + 4) & 15;
    const section = view.getUint16(at + 6, true);
    if ((type !== STT_FUNC && type !== STT_NOTYPE) || section === 0 || section >= 0xff00) continue;
    const name = text(names.bytes, view.getUint32(at, true));
    const address = join64(view.getUint32(at + 8, true), view.getUint32(at + 12, true));
    if (name) found.push({ address, name });
  }
  return found;
}
