/**
 * The guest's memory as a hypercall sees it: at the guest's own virtual addresses, under the page tables loaded
 * now and with the rights of the mode that the vCPU is in. Everything throws HypercallError EFAULT where the guest
 * has no mapping that allows the access, and for addresses in the hypervisor's range, as Xen refuses them.
 *
 * That a write is safe follows from the types: a page that the guest has mapped writable is no page table.
 */
import { PAGE_SHIFT, PAGE_SIZE } from '../../machine/memory.ts';
import { high32, join64, type VirtualAddress } from '../../x86/cpu.ts';
import { Access } from '../../x86/processor.ts';
import { CPU, PF } from '../../x86/state.ts';
import { HypercallError } from '../hypercall.ts';
import { ERRNO } from '../public/errno.ts';
import { HYPERVISOR_VIRT_END, HYPERVISOR_VIRT_START } from '../public/xen.ts';
import type { Vcpu } from '../vcpu.ts';
import { ownPage } from './shared-frames.ts';

export class GuestAccess {
  private readonly vcpu: Vcpu;

  constructor(vcpu: Vcpu) {
    this.vcpu = vcpu;
  }

  /**
   * Linear address of a byte of the guest's, valid to the end of its page and until the guest runs again.
   * Whoever writes there says so to the processor (`written`) where the page may hold code; the setters here do.
   */
  linear(va: VirtualAddress, access: Access): number {
    if (va >= HYPERVISOR_VIRT_START && va < HYPERVISOR_VIRT_END) throw new HypercallError(ERRNO.EFAULT);
    const { vcpu } = this;
    let linear = vcpu.processor.translate(vcpu.cpu, va, access);
    // A page that is shared copy-on-write becomes the domain's own first.
    if (
      linear === 0 &&
      access === Access.Write &&
      vcpu.cpu.get(CPU.walkError) & PF.SHARED &&
      ownPage(vcpu, va)
    )
      linear = vcpu.processor.translate(vcpu.cpu, va, access);
    if (linear === 0) throw new HypercallError(ERRNO.EFAULT);
    return linear;
  }

  u8(va: VirtualAddress): number {
    return this.memory.u8[this.linear(va, Access.Read)]!;
  }

  u16(va: VirtualAddress): number {
    if (inPage(va, 2)) return this.memory.read16(this.linear(va, Access.Read));
    return this.u8(va) | (this.u8(va + 1) << 8);
  }

  u32(va: VirtualAddress): number {
    if (inPage(va, 4)) return this.memory.read32(this.linear(va, Access.Read));
    return (this.u16(va) | (this.u16(va + 2) << 16)) >>> 0;
  }

  /** A u64 as a signed number: exact for addresses and for all integers below 2^53. */
  number64(va: VirtualAddress): number {
    if (!inPage(va, 8)) return join64(this.u32(va), this.u32(va + 4));
    const linear = this.linear(va, Access.Read);
    return join64(this.memory.read32(linear), this.memory.read32(linear + 4));
  }

  u64(va: VirtualAddress): bigint {
    return BigInt(this.u32(va)) | (BigInt(this.u32(va + 4)) << 32n);
  }

  setU8(va: VirtualAddress, value: number): void {
    const linear = this.linear(va, Access.Write);
    this.memory.u8[linear] = value;
    this.written(linear);
  }

  setU16(va: VirtualAddress, value: number): void {
    if (inPage(va, 2)) {
      const linear = this.linear(va, Access.Write);
      this.memory.write16(linear, value);
      this.written(linear);
    } else this.setBytes(va, value, 0, 2);
  }

  setU32(va: VirtualAddress, value: number): void {
    if (inPage(va, 4)) {
      const linear = this.linear(va, Access.Write);
      this.memory.write32(linear, value);
      this.written(linear);
    } else this.setBytes(va, value, 0, 4);
  }

  setNumber64(va: VirtualAddress, value: number): void {
    this.setHalves(va, value >>> 0, high32(value));
  }

  setU64(va: VirtualAddress, value: bigint): void {
    this.setHalves(va, Number(BigInt.asUintN(32, value)), Number(BigInt.asUintN(32, value >> 32n)));
  }

  /** A copy of `length` bytes. The caller has bounded the length. */
  copyFrom(va: VirtualAddress, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const linear = this.linear(va + done, Access.Read);
      const count = Math.min(length - done, PAGE_SIZE - (linear & (PAGE_SIZE - 1)));
      bytes.set(this.memory.u8.subarray(linear, linear + count), done);
      done += count;
    }
    return bytes;
  }

  /** Nothing is written if any of it may not be. */
  copyTo(va: VirtualAddress, bytes: Uint8Array): void {
    this.probe(va, bytes.length, Access.Write);
    for (let done = 0; done < bytes.length; ) {
      const linear = this.linear(va + done, Access.Write);
      const count = Math.min(bytes.length - done, PAGE_SIZE - (linear & (PAGE_SIZE - 1)));
      this.memory.u8.set(bytes.subarray(done, done + count), linear);
      this.written(linear);
      done += count;
    }
  }

  /** Only checks: throws EFAULT unless all of it may be accessed. The caller has bounded the length. */
  probe(va: VirtualAddress, length: number, access: Access): void {
    for (let done = 0; done < length; ) {
      const linear = this.linear(va + done, access);
      done += PAGE_SIZE - (linear & (PAGE_SIZE - 1));
    }
  }

  private setHalves(va: VirtualAddress, low: number, high: number): void {
    if (inPage(va, 8)) {
      const linear = this.linear(va, Access.Write);
      this.memory.write32(linear, low);
      this.memory.write32(linear + 4, high);
      this.written(linear);
    } else this.setBytes(va, low, high, 8);
  }

  private setBytes(va: VirtualAddress, low: number, high: number, count: number): void {
    const bytes = new Uint8Array(8);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, low, true);
    view.setUint32(4, high, true);
    this.copyTo(va, bytes.subarray(0, count));
  }

  private written(linear: number): void {
    this.vcpu.processor.written(linear >>> PAGE_SHIFT);
  }

  private get memory() {
    return this.vcpu.cpu.memory;
  }
}

/** Do `count` bytes from `va` on lie within one page? */
function inPage(va: VirtualAddress, count: number): boolean {
  return (va & (PAGE_SIZE - 1)) <= PAGE_SIZE - count;
}
