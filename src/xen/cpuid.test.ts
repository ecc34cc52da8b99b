import { describe, expect, it } from 'vitest';
import { cpuid, emulatedCpuid } from './cpuid.ts';

const ascii = (...words: number[]) =>
  words
    .map((word) => String.fromCharCode(...[0, 8, 16, 24].map((shift) => (word >>> shift) & 0xff)))
    .join('');

describe('CPUID', () => {
  it('names vendor and brand', () => {
    const [max, b, c, d] = cpuid(0, 0, 0);
    expect(ascii(b, d, c)).toBe('GenuineIntel');
    expect(max).toBeGreaterThanOrEqual(7);
    const brand = [2, 3, 4].map((leaf) => ascii(...cpuid(0x80000000 + leaf, 0, 0))).join('');
    expect(brand.replaceAll('\0', '')).toBe('Xenolith virtual CPU');
    expect(brand.length).toBe(48);
  });

  it('offers what x86-64 promises, and nothing that the processor lacks', () => {
    const [, , c, d] = cpuid(1, 0, 0);
    const [, , ec, ed] = cpuid(0x80000001, 0, 0);
    const has = (word: number, bit: number) => ((word >>> bit) & 1) === 1;
    // fpu tsc msr pae cx8 cmov fxsr sse sse2; syscall nx lm
    for (const bit of [0, 4, 5, 6, 8, 15, 24, 25, 26]) expect(has(d, bit)).toBe(true);
    for (const bit of [11, 20, 29]) expect(has(ed, bit)).toBe(true);
    expect(has(ec, 0)).toBe(true);
    // vme pse mce apic mtrr mca pge pse36 acpi
    for (const bit of [1, 3, 7, 9, 12, 13, 14, 17, 22]) expect(has(d, bit)).toBe(false);
    // pclmul monitor fma pcid movbe x2apic aes xsave osxsave avx f16c hypervisor
    for (const bit of [1, 3, 12, 17, 22, 21, 25, 26, 27, 28, 29, 31]) expect(has(c, bit)).toBe(false);
    // 1 GiB pages
    expect(has(ed, 26)).toBe(false);
  });

  it('answers zeros beyond the table', () => {
    expect(cpuid(0x20, 0, 0)).toEqual([0, 0, 0, 0]);
    expect(cpuid(0x80000009, 0, 0)).toEqual([0, 0, 0, 0]);
    expect(cpuid(4, 17, 0)).toEqual([0, 0, 0, 0]);
    expect(cpuid(0x40000000, 0, 0)).toEqual([0, 0, 0, 0]);
  });

  it('describes caches that end', () => {
    const types = [0, 1, 2, 3, 4].map((subleaf) => cpuid(4, subleaf, 0)[0] & 31);
    expect(types).toEqual([1, 2, 3, 3, 0]);
    // Ways, partitions, line size, sets: 32 KiB, 1 MiB and 16 MiB.
    const size = (subleaf: number) => {
      const [, b, c] = cpuid(4, subleaf, 0);
      return ((b >>> 22) + 1) * (((b >>> 12) & 0x3ff) + 1) * ((b & 0xfff) + 1) * (c + 1);
    };
    expect([size(0), size(2), size(3)]).toEqual([32 << 10, 1 << 20, 16 << 20]);
  });

  it('is another model for kernels, which leave out what speculation needs', () => {
    const model = (signature: number) => ((signature >>> 12) & 0xf0) | ((signature >>> 4) & 15);
    expect(model(cpuid(1, 0, 0)[0])).toBe(0x2c);
    expect(model(emulatedCpuid(0, 1, 0)[0])).toBe(0x36);
  });

  it("through the prefix: a hypervisor is there, with Xen's leaves", () => {
    const [max, b, c, d] = emulatedCpuid(3, 0x40000000, 0);
    expect(ascii(b, c, d)).toBe('XenVMMXenVMM');
    expect(max).toBe(0x40000005);
    expect(emulatedCpuid(0, 0x40000001, 0)[0]).toBe(0x00040011);
    expect(emulatedCpuid(0, 0x40000002, 0)).toEqual([1, 0x40000000, 1, 0]);
    expect(emulatedCpuid(0, 0x40000003, 0)[2]).toBe(1_000_000);
    expect(emulatedCpuid(0, 0x40000005, 0)[1]).toBe(32);
    expect(emulatedCpuid(0, 0x40000006, 0)).toEqual([0, 0, 0, 0]);
    expect(emulatedCpuid(0, 1, 0)[2] >>> 31).toBe(1);
    expect(emulatedCpuid(3, 1, 0)[1] >>> 24).toBe(6);
  });
});
