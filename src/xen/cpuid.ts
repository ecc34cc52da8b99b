/**
 * CPUID: what a guest is told of its processor. One table; nothing is offered that the processor does not do.
 *
 * As on any machine whose processor has no CPUID faulting, the instruction itself answers with the processor's own
 * model, and only who asks the hypervisor (a kernel) gets the domain's. They differ in the signature, because each
 * is read for another reason, and no one model says both. C libraries choose by it how to copy memory: unaligned
 * accesses and string instructions are fast here, as on the first Core i7 with SSE4.2. Kernels choose by it what to
 * do against speculation: there is none here, as in the in-order Atoms, and all of that is left out.
 */
import { XEN_CPUID, XEN_MSR_BASE } from './public/arch-x86.ts';
import { TSC_KHZ, TSC_SHIFT, TSC_TO_SYSTEM_MUL } from './time.ts';
import { XEN_VERSION } from './xen-version.ts';

export type CpuidResult = readonly [eax: number, ebx: number, ecx: number, edx: number];

const NONE: CpuidResult = [0, 0, 0, 0];

/** Bits of leaf 1 (Intel SDM volume 2, CPUID). */
const LEAF1_ECX = {
  sse3: 0,
  ssse3: 9,
  cx16: 13,
  sse4_1: 19,
  sse4_2: 20,
  popcnt: 23,
  rdrand: 30,
} as const;
const LEAF1_EDX = {
  fpu: 0,
  de: 2,
  tsc: 4,
  msr: 5,
  pae: 6,
  cx8: 8,
  cmov: 15,
  pat: 16,
  clflush: 19,
  mmx: 23,
  fxsr: 24,
  sse: 25,
  sse2: 26,
} as const;
/** Only for who asks through the forced-emulation prefix: a hypervisor is present. */
const HYPERVISOR = 0x80000000;
/** Leaf 7. */
const LEAF7_EBX = { erms: 9, rdseed: 18 } as const;
const LEAF7_EDX = { fsrm: 4 } as const;
/** Leaf 0x80000001. */
const EXTENDED_ECX = { lahf_lm: 0 } as const;
const EXTENDED_EDX = { syscall: 11, nx: 20, rdtscp: 27, lm: 29 } as const;
/** Leaf 0x80000007. */
const POWER_EDX = { invariant_tsc: 8 } as const;

function bits(features: Readonly<Record<string, number>>): number {
  return Object.values(features).reduce((all, bit) => (all | (1 << bit)) >>> 0, 0);
}

function text(string: string, at: number): number {
  let word = 0;
  for (let index = 3; index >= 0; index--) word = (word << 8) | (string.charCodeAt(at + index) || 0);
  return word >>> 0;
}

const VENDOR = 'GenuineIntel';
const BRAND = 'Xenolith virtual CPU';
/** What the instruction says: family 6, model 0x2c, stepping 2. */
const SIGNATURE = 0x206c2;
/** What the domain's kernel is told: family 6, model 0x36, stepping 1. */
const DOMAIN_SIGNATURE = 0x30661;
const CACHE_LINE = 64;
export const PHYSICAL_ADDRESS_BITS = 46;
/** Of the machine's own frame numbers: Linux takes grant tables of version 2 above 44. */
const MACHINE_ADDRESS_BITS = 32;
const VIRTUAL_ADDRESS_BITS = 48;

function brand(part: number): CpuidResult {
  const word = (index: number) => text(BRAND, part * 16 + index * 4);
  return [word(0), word(1), word(2), word(3)];
}

/** Leaf 4: a cache. @param type 1 data, 2 code, 3 both */
function cache(type: number, level: number, ways: number, sets: number): CpuidResult {
  return [type | (level << 5) | (1 << 8), ((ways - 1) << 22) | (CACHE_LINE - 1), sets - 1, 0];
}

const MAX_BASIC = 7;
const MAX_EXTENDED = 0x80000008;

/** By leaf; by leaf and subleaf where there are several. */
const TABLE: ReadonlyMap<number, CpuidResult | readonly CpuidResult[]> = new Map<
  number,
  CpuidResult | readonly CpuidResult[]
>([
  [0, [MAX_BASIC, text(VENDOR, 0), text(VENDOR, 8), text(VENDOR, 4)]],
  [1, [SIGNATURE, ((CACHE_LINE / 8) << 8) | (1 << 16), bits(LEAF1_ECX), bits(LEAF1_EDX)]],
  // Caches are described by leaf 4.
  [2, [0x00feff01, 0, 0, 0]],
  [4, [cache(1, 1, 8, 64), cache(2, 1, 8, 64), cache(3, 2, 16, 1024), cache(3, 3, 16, 16384), NONE]],
  [7, [[0, bits(LEAF7_EBX), 0, bits(LEAF7_EDX)], NONE]],
  [0x80000000, [MAX_EXTENDED, 0, 0, 0]],
  [0x80000001, [0, 0, bits(EXTENDED_ECX), bits(EXTENDED_EDX)]],
  [0x80000002, brand(0)],
  [0x80000003, brand(1)],
  [0x80000004, brand(2)],
  // A second-level cache of 1 MiB, 16 ways, in the older description.
  [0x80000006, [0, 0, (1024 << 16) | (8 << 12) | CACHE_LINE, 0]],
  [0x80000007, [0, 0, 0, bits(POWER_EDX)]],
  [0x80000008, [PHYSICAL_ADDRESS_BITS | (VIRTUAL_ADDRESS_BITS << 8), 0, 0, 0]],
]);

/** CPUID as the instruction itself answers. @param apicId of the vCPU */
export function cpuid(leaf: number, subleaf: number, apicId: number): CpuidResult {
  const found = TABLE.get(leaf >>> 0);
  if (found === undefined) return NONE;
  if (typeof found[0] !== 'number') return (found as readonly CpuidResult[])[subleaf >>> 0] ?? NONE;
  const result = found as CpuidResult;
  if (leaf !== 1) return result;
  return [result[0], (result[1] | (apicId << 24)) >>> 0, result[2], result[3]];
}

/** CPUID through Xen's forced-emulation prefix: what the instruction answers, and Xen's own leaves. */
export function emulatedCpuid(vcpu: number, leaf: number, subleaf: number): CpuidResult {
  if (leaf >>> 8 === XEN_CPUID.FIRST_LEAF >>> 8) return xenLeaf(leaf & 0xff, subleaf >>> 0);
  const [eax, ebx, ecx, edx] = cpuid(leaf, subleaf, apicIdOf(vcpu));
  return leaf === 1 ? [DOMAIN_SIGNATURE, ebx, (ecx | HYPERVISOR) >>> 0, edx] : [eax, ebx, ecx, edx];
}

/** The APIC identifier of a vCPU, as Xen numbers them. */
export function apicIdOf(vcpu: number): number {
  return (vcpu * 2) & 0xff;
}

/** public/arch-x86/cpuid.h. */
function xenLeaf(index: number, subleaf: number): CpuidResult {
  switch (index) {
    case 0:
      return [
        XEN_CPUID.FIRST_LEAF + XEN_CPUID.MAX_NUM_LEAVES,
        XEN_CPUID.SIGNATURE_EBX,
        XEN_CPUID.SIGNATURE_ECX,
        XEN_CPUID.SIGNATURE_EDX,
      ];
    case 1:
      return [(XEN_VERSION.major << 16) | XEN_VERSION.minor, 0, 0, 0];
    case 2:
      return [1, XEN_MSR_BASE, XEN_CPUID.FEAT1_MMU_PT_UPDATE_PRESERVE_AD, 0];
    case 3:
      // The time-stamp counter is reliable (bit 1) and RDTSCP is there (bit 2); it is not emulated, has no offset.
      if (subleaf === 0) return [(1 << 1) | (1 << 2), 0, TSC_KHZ, 0];
      if (subleaf === 1) return [0, 0, TSC_TO_SYSTEM_MUL, TSC_SHIFT];
      return subleaf === 2 ? [TSC_KHZ, 0, 0, 0] : NONE;
    case 5:
      return [0, MACHINE_ADDRESS_BITS, 0, 0];
    default:
      return NONE;
  }
}
