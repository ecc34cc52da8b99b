import { describe, expect, it } from 'vitest';
import { Access } from '../../x86/processor.ts';
import { PTE } from '../public/mmu.ts';
import { boot, DIRECT_MAP, entryLow, PAGE_RO, testMachine } from './testing.ts';

function guest() {
  const machine = testMachine();
  const layout = boot(machine, 64);
  return { ...machine, ...layout, dm: machine.domain.memory, access: machine.vcpu.guest };
}

/** Two pages of the direct map that are apart in the machine, swapped so that they do not follow each other. */
const AT = DIRECT_MAP + 30 * 4096;

describe('guest access', () => {
  it('reads and writes every width, within pages and across', () => {
    const { access, dm, l1, pages } = guest();
    // What follows in virtual memory does not follow in the machine.
    dm.pageTables.update(l1, 31, entryLow(pages[50]!, PAGE_RO | PTE.RW), 0);
    for (const at of [AT, AT + 1, AT + 3, ...[7, 6, 5, 4, 3, 2, 1].map((back) => AT + 4096 - back)]) {
      access.setU64(at, 0x1122334455667788n);
      expect(access.u64(at)).toBe(0x1122334455667788n);
      expect([access.u8(at), access.u16(at), access.u32(at)]).toEqual([0x88, 0x7788, 0x55667788]);
      access.setU32(at, 0xdeadbeef);
      access.setU16(at + 4, 0xffff);
      access.setU8(at + 7, 0);
      expect(access.u64(at)).toBe(0x0022ffffdeadbeefn);
      access.setNumber64(at, -(2 ** 47) + 5);
      expect(access.number64(at)).toBe(-(2 ** 47) + 5);
      expect(access.u64(at)).toBe(0xffff800000000005n);
    }
    const bytes = Uint8Array.from({ length: 6000 }, (_, i) => i * 7);
    access.copyTo(AT + 1000, bytes);
    expect(access.copyFrom(AT + 1000, 6000)).toEqual(bytes);
    expect(dm.table.memory.u8[dm.linear(pages[50]!)]).toBe(bytes[4096 - 1000]);
  });

  it('faults where the guest would, and writes nothing then', () => {
    const { access, dm, l1, pages } = guest();
    dm.pageTables.update(l1, 31, entryLow(pages[31]!, PAGE_RO), 0);
    dm.pageTables.update(l1, 32, 0, 0);
    expect(access.u8(AT + 4096)).toBe(0);
    expect(() => access.setU8(AT + 4096, 1)).toThrow('EFAULT');
    expect(() => access.u8(AT + 8192)).toThrow('EFAULT');
    expect(() => access.setU32(AT + 4096 - 2, 0xffffffff)).toThrow('EFAULT');
    expect(access.u16(AT + 4096 - 2)).toBe(0);
    expect(() => access.copyTo(AT, new Uint8Array(8192).fill(1))).toThrow('EFAULT');
    expect(access.u8(AT)).toBe(0);
    expect(() => access.copyFrom(AT, 3 * 4096)).toThrow('EFAULT');
    for (const at of [0, 2 ** 47, -(2 ** 47) - 1, 2 ** 62, -(2 ** 63)])
      expect(() => access.u8(at)).toThrow('EFAULT');
  });

  it('refuses the hypervisor’s range, for reads too', () => {
    const { access, processor, vcpu } = guest();
    expect(processor.translate(vcpu.cpu, -(2 ** 47), Access.Read)).not.toBe(0);
    for (const at of [-(2 ** 47), -(2 ** 47) + 4096, -(2 ** 47) + 16 * 2 ** 39 - 8]) {
      expect(() => access.u8(at)).toThrow('EFAULT');
      expect(() => access.setU8(at, 0)).toThrow('EFAULT');
    }
    expect(() => access.copyFrom(-(2 ** 47) - 8, 16)).toThrow('EFAULT');
  });
});
