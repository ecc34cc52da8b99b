/** public/memory.h: commands of memory_op and the layouts of their arguments, in bytes. */
export const XENMEM = {
  increase_reservation: 0,
  decrease_reservation: 1,
  maximum_ram_page: 2,
  current_reservation: 3,
  maximum_reservation: 4,
  machphys_mfn_list: 5,
  populate_physmap: 6,
  add_to_physmap: 7,
  memory_map: 9,
  machine_memory_map: 10,
  exchange: 11,
  machphys_mapping: 12,
  set_memory_map: 13,
  maximum_gpfn: 14,
  remove_from_physmap: 15,
  set_pod_target: 16,
  get_pod_target: 17,
  get_sharing_freed_pages: 18,
  get_sharing_shared_pages: 19,
  paging_op: 20,
  access_op: 21,
  sharing_op: 22,
  add_to_physmap_batch: 23,
  claim_pages: 24,
  machphys_compat_mfn_list: 25,
  get_vnumainfo: 26,
  reserved_device_memory_map: 27,
  acquire_resource: 28,
} as const;

/** The command is in the low bits of the first argument, the extent to go on with above them. */
export const MEMOP_EXTENT_SHIFT = 6;
export const MEMOP_CMD_MASK = (1 << MEMOP_EXTENT_SHIFT) - 1;

/** struct xen_memory_reservation. */
export const MEMORY_RESERVATION = {
  /** Pointer to an array of u64 frame numbers. */
  extent_start: 0,
  nr_extents: 8,
  /** u32: an extent is 2^order pages. */
  extent_order: 16,
  /** u32: XENMEMF. */
  mem_flags: 20,
  /** u16. */
  domid: 24,
  size: 32,
} as const;

/** struct xen_memory_exchange. */
export const MEMORY_EXCHANGE = { in: 0, out: 32, nr_exchanged: 64, size: 72 } as const;

/** struct xen_machphys_mfn_list: u32, pointer, u32. */
export const MACHPHYS_MFN_LIST = { max_extents: 0, extent_start: 8, nr_extents: 16, size: 24 } as const;

/** struct xen_machphys_mapping. */
export const MACHPHYS_MAPPING = { v_start: 0, v_end: 8, max_mfn: 16, size: 24 } as const;

/** struct xen_memory_map: u32 nr_entries, pointer. */
export const MEMORY_MAP = { nr_entries: 0, buffer: 8, size: 16 } as const;

/** struct xen_foreign_memory_map: u16 domid, xen_memory_map. */
export const FOREIGN_MEMORY_MAP = { domid: 0, map: 8, size: 24 } as const;

/** An entry of a memory map, as the BIOS call INT 15h AX=E820h has it: u64 address, u64 size, u32 type, packed. */
export const E820_ENTRY = { address: 0, length: 8, type: 16, size: 20 } as const;
export const E820 = { RAM: 1, RESERVED: 2, ACPI: 3, NVS: 4, UNUSABLE: 5 } as const;
/** The most entries that a memory map may have. */
export const E820_MAX = 128;
