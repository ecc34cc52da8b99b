/**
 * A kernel ready to be placed: its pieces by pseudo-physical address. The way from an ELF file to here follows
 * public/elfnote.h: loading is by physical address, less PADDR_OFFSET, and VIRT_BASE is the virtual address of
 * pseudo-physical address 0. (A segment's own virtual address does not matter: Linux has one at 0.)
 */
import { PAGE_SIZE } from '../../machine/memory.ts';
import { hex64, type VirtualAddress } from '../../x86/cpu.ts';
import { XEN_END_SLOT, XEN_FIRST_SLOT } from '../../xen/public/mmu.ts';
import { isBzImage, unpackBzImage } from './bzimage.ts';
import { compressionOf, decompress } from './decompress.ts';
import { describeKernel, type KernelDescription } from './description.ts';
import { type Elf, isElf, PT, parseElf } from './elf.ts';
import { bsdSymbolTable } from './elf-symtab.ts';
import { BuildError, mebibytes } from './error.ts';

/** Bytes that go to a pseudo-physical address. What lies between the pieces is zero. */
export interface Piece {
  readonly address: number;
  readonly bytes: Uint8Array;
}

export interface KernelImage {
  readonly description: KernelDescription;
  readonly elf: Elf;
  readonly pieces: readonly Piece[];
  /** Pseudo-physical addresses of its first byte and of the byte behind its last (.bss included). */
  readonly start: number;
  readonly end: number;
}

/** Nothing that is called a kernel is larger in memory. */
const LARGEST = 2 ** 30;
const CANONICAL = 2 ** 47;
const SLOT = 2 ** 39;

/**
 * The ELF file of a kernel as users have it: a bzImage, an ELF file, or an ELF file compressed with gzip.
 * Takes a second or so for a large packed kernel.
 * @throws BuildError
 */
export function unpackKernel(bytes: Uint8Array): Uint8Array {
  if (isElf(bytes)) return bytes;
  if (bytes.length === 0) throw new BuildError('the kernel is an empty file');
  if (isBzImage(bytes)) return unpackBzImage(bytes);
  const compression = compressionOf(bytes);
  if (compression === 'gzip' && bytes.length >= 18) {
    return decompress(bytes, new DataView(bytes.buffer, bytes.byteOffset).getUint32(bytes.length - 4, true));
  }
  if (compression) throw new BuildError(`the kernel is a bare ${compression} file: unpack it first`);
  throw new BuildError('the kernel is neither a bzImage nor an ELF file');
}

/**
 * Reads an unpacked kernel (see {@link unpackKernel}) and checks that a paravirtual domain can be made of it.
 * The result refers to the bytes, it does not copy them.
 * @throws BuildError
 */
export function readKernel(bytes: Uint8Array): KernelImage {
  const elf = parseElf(bytes);
  const description = describeKernel(elf);
  const { paddrOffset } = description;
  const pieces: Piece[] = [];
  let start = Number.POSITIVE_INFINITY;
  let end = 0;
  for (const segment of elf.segments) {
    if (segment.type !== PT.LOAD || segment.memorySize === 0) continue;
    const address = segment.pa - paddrOffset;
    if (address < 0 || segment.memorySize > LARGEST || address + segment.memorySize > LARGEST * 4) {
      throw new BuildError(
        `the kernel is corrupt: it wants to be loaded at ${hex64(address)}, with ${mebibytes(segment.memorySize)}`,
      );
    }
    pieces.push({ address, bytes: segment.bytes });
    start = Math.min(start, address);
    end = Math.max(end, address + segment.memorySize);
  }
  if (pieces.length === 0) throw new BuildError('the kernel is corrupt: it has nothing to load');
  if (description.bsdSymtab) {
    const address = Math.ceil(end / 8) * 8;
    const table = bsdSymbolTable(elf);
    if (table) {
      pieces.push({ address, bytes: table });
      end = address + table.length;
    }
  }
  checkAddresses(description, start, end);
  return { description, elf, pieces, start, end };
}

function checkAddresses(description: KernelDescription, start: number, end: number): void {
  const { virtBase, entry, hypercallPage, initP2m } = description;
  if (virtBase % PAGE_SIZE !== 0 || !usable(virtBase, end)) {
    throw new BuildError(`the kernel is corrupt: its virtual base ${hex64(virtBase)} is not usable`);
  }
  if (entry < virtBase + start || entry >= virtBase + end) {
    throw new BuildError(`the kernel is corrupt: its entry point ${hex64(entry)} is outside of it`);
  }
  if (
    hypercallPage !== null &&
    (hypercallPage % PAGE_SIZE !== 0 ||
      hypercallPage < virtBase + start ||
      hypercallPage + PAGE_SIZE > virtBase + Math.ceil(end / PAGE_SIZE) * PAGE_SIZE)
  ) {
    throw new BuildError(
      `the kernel is corrupt: its hypercall page ${hex64(hypercallPage)} is outside of it`,
    );
  }
  if (initP2m !== null && (initP2m % (2 << 20) !== 0 || !usable(initP2m, LARGEST))) {
    throw new BuildError(`the kernel is corrupt: it wants its frame list at ${hex64(initP2m)}`);
  }
}

/** Whether [start, start + size) is canonical, in one half of the address space, and not the hypervisor's. */
function usable(start: VirtualAddress, size: number): boolean {
  const end = start + size;
  if (start < -CANONICAL || end > CANONICAL || (start < 0 && end > 0)) return false;
  const first = slot(start);
  const last = slot(end - 1);
  return last < XEN_FIRST_SLOT || first >= XEN_END_SLOT;
}

function slot(va: VirtualAddress): number {
  return Math.floor(va / SLOT) & 511;
}
