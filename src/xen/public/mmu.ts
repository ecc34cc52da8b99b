/**
 * The memory management part of public/xen.h, and the page-table entry's bits (Intel SDM volume 3, 4.5).
 *
 * A page-table entry is handled as two u32: {@link PTE} has the bits of the low one, {@link PTE_HIGH} of the high one.
 */

export const PTE = {
  PRESENT: 1 << 0,
  RW: 1 << 1,
  USER: 1 << 2,
  PWT: 1 << 3,
  PCD: 1 << 4,
  ACCESSED: 1 << 5,
  DIRTY: 1 << 6,
  /** In an L2 or L3 entry: the entry maps a large page. */
  PSE: 1 << 7,
  /** The same bit in an L1 entry: page attribute table. */
  PAT: 1 << 7,
  GLOBAL: 1 << 8,
  /** Three bits that software may use. */
  AVAIL: 7 << 9,
} as const;

export const PTE_HIGH = {
  /** Bits 32-51 of the entry: the rest of the frame's address. */
  FRAME: 0xfffff,
  NX: 0x80000000,
} as const;

/** Entries of a page table of any level. */
export const PTES = 512;
export const PTE_SIZE = 8;

/** The L4 entries that are the hypervisor's: first, and the one behind the last (ROOT_PAGETABLE_*_XEN_SLOT). */
export const XEN_FIRST_SLOT = 256;
export const XEN_END_SLOT = 272;

/** What bits 0-1 of an mmu_update's ptr ask for. */
export const MMU = {
  NORMAL_PT_UPDATE: 0,
  MACHPHYS_UPDATE: 1,
  PT_UPDATE_PRESERVE_AD: 2,
  PT_UPDATE_NO_TRANSLATE: 3,
} as const;

/** struct mmu_update: u64 ptr, u64 val. */
export const MMU_UPDATE = { ptr: 0, val: 8, size: 16 } as const;

/** Commands of mmuext_op. */
export const MMUEXT = {
  PIN_L1_TABLE: 0,
  PIN_L2_TABLE: 1,
  PIN_L3_TABLE: 2,
  PIN_L4_TABLE: 3,
  UNPIN_TABLE: 4,
  NEW_BASEPTR: 5,
  TLB_FLUSH_LOCAL: 6,
  INVLPG_LOCAL: 7,
  TLB_FLUSH_MULTI: 8,
  INVLPG_MULTI: 9,
  TLB_FLUSH_ALL: 10,
  INVLPG_ALL: 11,
  FLUSH_CACHE: 12,
  SET_LDT: 13,
  NEW_USER_BASEPTR: 15,
  CLEAR_PAGE: 16,
  COPY_PAGE: 17,
  FLUSH_CACHE_GLOBAL: 18,
  MARK_SUPER: 19,
  UNMARK_SUPER: 20,
} as const;

/** struct mmuext_op: u32 cmd, u64 arg1 (mfn or linear_addr), u64 arg2 (nr_ents, vcpumask or src_mfn). */
export const MMUEXT_OP = { cmd: 0, arg1: 8, arg2: 16, size: 24 } as const;

/** Flags of update_va_mapping. With MULTI the rest of the word is a pointer to a bitmap of vCPUs. */
export const UVMF = {
  NONE: 0,
  TLB_FLUSH: 1,
  INVLPG: 2,
  FLUSHTYPE_MASK: 3,
  LOCAL: 0,
  ALL: 4,
} as const;

/** Where the machine-to-physical table's range of addresses ends (__MACH2PHYS_VIRT_END), signed. */
export const MACH2PHYS_VIRT_END = -(2 ** 47) + 2 ** 38;
