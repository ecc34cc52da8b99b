/**
 * The machine's memory: one shared WebAssembly.Memory, seen by the processor, the hypervisor and Domain 0 alike.
 *
 * An address into it is a *linear address*: an unsigned number below 4 GiB. Linear address 0 is never handed out
 * and stands for "none". Views are made once: the memory never grows, pages of it that nobody touched cost the
 * host nothing.
 */

import { type Copier, makeCopier } from './copier.ts';

export const PAGE_SHIFT = 12;
export const PAGE_SIZE = 4096;
/** The largest machine: 4 GiB less one WebAssembly page, so that an end address still fits 32 bits. */
export const MEMORY_MAX = 0x1_0000_0000 - 0x1_0000;

const WASM_PAGE = 0x1_0000;

export class Memory {
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;
  readonly i32: Int32Array;
  readonly f64: Float64Array;
  readonly u64: BigUint64Array;
  /** Size in bytes. */
  readonly size: number;
  /** What another thread is given to see the same bytes. */
  readonly wasm: WebAssembly.Memory;
  /** Made when it is first needed. */
  private copier: Copier | null = null;

  constructor(wasm: WebAssembly.Memory) {
    this.wasm = wasm;
    const buffer = wasm.buffer;
    this.size = buffer.byteLength;
    this.u8 = new Uint8Array(buffer);
    this.u16 = new Uint16Array(buffer);
    this.u32 = new Uint32Array(buffer);
    this.i32 = new Int32Array(buffer);
    this.f64 = new Float64Array(buffer);
    this.u64 = new BigUint64Array(buffer);
  }

  /** @param bytes size of the machine, rounded up to 64 KiB, at most {@link MEMORY_MAX}. */
  static create(bytes: number): Memory {
    const pages = Math.ceil(Math.min(bytes, MEMORY_MAX) / WASM_PAGE);
    return new Memory(new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true }));
  }

  /** Unaligned little-endian reads and writes at a linear address. */
  read16(address: number): number {
    return this.u8[address]! | (this.u8[address + 1]! << 8);
  }

  read32(address: number): number {
    if ((address & 3) === 0) return this.u32[address >>> 2]!;
    return (this.read16(address) | (this.read16(address + 2) << 16)) >>> 0;
  }

  read64(address: number): bigint {
    if ((address & 7) === 0) return this.u64[address / 8]!;
    return BigInt(this.read32(address)) | (BigInt(this.read32(address + 4)) << 32n);
  }

  write16(address: number, value: number): void {
    this.u8[address] = value;
    this.u8[address + 1] = value >>> 8;
  }

  write32(address: number, value: number): void {
    if ((address & 3) === 0) this.u32[address >>> 2] = value;
    else {
      this.write16(address, value);
      this.write16(address + 2, value >>> 16);
    }
  }

  write64(address: number, value: bigint): void {
    this.write32(address, Number(value & 0xffffffffn));
    this.write32(address + 4, Number((value >> 32n) & 0xffffffffn));
  }

  /** Copies bytes from one linear address to another; the two may overlap, and lie as they like. */
  copy(to: number, from: number, length: number): void {
    this.copier ??= makeCopier(this.wasm, this.size);
    this.copier(to, from, length);
  }

  /** The bytes of one frame, as a view. */
  frame(frame: number): Uint8Array {
    return this.u8.subarray(frame * PAGE_SIZE, (frame + 1) * PAGE_SIZE);
  }
}
