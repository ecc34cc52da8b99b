/** Names for addresses of a guest's kernel, for crash dumps and traces. */
import { join64, type VirtualAddress } from '../../x86/cpu.ts';
import { type Elf, isElf, parseElf, SHT, text } from './elf.ts';
import { BuildError } from './error.ts';
import { kernelSymbols } from './kallsyms.ts';

export interface NamedAddress {
  readonly address: VirtualAddress;
  readonly name: string;
}

/** An address this far behind the last symbol is not in it any more. */
const FARTHEST = 1 << 20;
/** Symbols that mean a place: Elf64_Sym st_info, low four bits. */
const STT_PLACES = new Set([0, 1, 2]);
const SHN_LORESERVE = 0xff00;
const SYMBOL_SIZE = 24;

export class Symbols {
  private readonly addresses: Float64Array;
  private readonly names: readonly string[];

  /** Of several symbols at one address the first counts. */
  constructor(symbols: Iterable<NamedAddress>) {
    const sorted = [...symbols].sort((a, b) => a.address - b.address);
    const kept = sorted.filter(({ address }, index) => index === 0 || sorted[index - 1]!.address !== address);
    this.addresses = Float64Array.from(kept, ({ address }) => address);
    this.names = kept.map(({ name }) => name);
  }

  /**
   * Out of a file that a user names: a System.map, an ELF file with symbols, or an unpacked Linux kernel.
   * @throws BuildError
   */
  static parse(bytes: Uint8Array): Symbols {
    const symbols = isElf(bytes) ? Symbols.ofKernel(parseElf(bytes)) : new Symbols(mapSymbols(bytes));
    if (!symbols || symbols.size === 0) {
      throw new BuildError('no symbols: neither a System.map nor an ELF file that has symbols');
    }
    return symbols;
  }

  /** Those of an ELF file: of its symbol table, or those that a Linux kernel carries for itself; null: none. */
  static ofKernel(elf: Elf): Symbols | null {
    const table = elfSymbols(elf);
    if (table.length > 0) return new Symbols(table);
    // Addresses that are not negative are places in the per-CPU area.
    const own = kernelSymbols(elf)?.filter(({ address }) => address < 0);
    return own ? new Symbols(own) : null;
  }

  get size(): number {
    return this.names.length;
  }

  /** `name+0x12/0x340`: where in which symbol, and how large that is; null where no symbol is near. */
  symbolize(address: VirtualAddress): string | null {
    const index = this.find(address);
    if (index < 0) return null;
    const start = this.addresses[index]!;
    const end = this.addresses[index + 1];
    const size = end === undefined ? '' : `/0x${(end - start).toString(16)}`;
    return `${this.names[index]}+0x${(address - start).toString(16)}${size}`;
  }

  /** `name+0x12`, or null where no symbol is near. */
  name(address: VirtualAddress): string | null {
    return this.symbolize(address)?.replace(/\/0x[0-9a-f]+$/, '') ?? null;
  }

  /** The address of a symbol, or null. */
  addressOf(name: string): VirtualAddress | null {
    const index = this.names.indexOf(name);
    return index < 0 ? null : this.addresses[index]!;
  }

  /** Writes the name behind each address of 16 hexadecimal digits that has one. */
  annotate(dump: string): string {
    return dump.replaceAll(/\b(?:0x)?([0-9a-f]{8})([0-9a-f]{8})\b/g, (digits, high: string, low: string) => {
      const name = this.name(join64(Number.parseInt(low, 16), Number.parseInt(high, 16)));
      return name ? `${digits} <${name}>` : digits;
    });
  }

  /** Index of the last symbol at or before an address; -1 if none is near. */
  private find(address: VirtualAddress): number {
    let low = 0;
    let high = this.addresses.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.addresses[middle]! <= address) low = middle + 1;
      else high = middle;
    }
    return low > 0 && address - this.addresses[low - 1]! < FARTHEST ? low - 1 : -1;
  }
}

/** System.map as nm writes it, or /proc/kallsyms: address, kind, name, module. */
function* mapSymbols(bytes: Uint8Array): Generator<NamedAddress> {
  const lines = new TextDecoder()
    .decode(bytes)
    .matchAll(/^([0-9a-f]{8})([0-9a-f]{8}) ([A-Za-z]) (\S+)(?:\t\[\S+\])?$/gm);
  for (const [, high, low, kind, name] of lines) {
    // Absolute symbols are numbers, not places; those of per-CPU data start at zero.
    const address = join64(Number.parseInt(low!, 16), Number.parseInt(high!, 16));
    if (!/[Aa]/.test(kind!) && address < 0) yield { address, name: name! };
  }
}

function elfSymbols(elf: Elf): NamedAddress[] {
  const table = elf.sections.find(({ type }) => type === SHT.SYMTAB);
  const names = table && elf.sections[table.link];
  if (!table || !names) return [];
  const view = new DataView(table.bytes.buffer, table.bytes.byteOffset, table.bytes.byteLength);
  const found: NamedAddress[] = [];
  for (let at = 0; at + SYMBOL_SIZE <= view.byteLength; at += SYMBOL_SIZE) {
    const section = view.getUint16(at + 6, true);
    if (!STT_PLACES.has(view.getUint8(at + 4) & 15) || section === 0 || section >= SHN_LORESERVE) continue;
    const name = text(names.bytes, view.getUint32(at, true));
    const address = join64(view.getUint32(at + 8, true), view.getUint32(at + 12, true));
    if (name) found.push({ address, name });
  }
  return found;
}
