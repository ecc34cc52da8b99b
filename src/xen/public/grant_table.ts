/** public/grant_table.h: entries of both versions, commands and argument structures. Offsets and sizes in bytes. */

/** Commands of grant_table_op (GNTTABOP_*). */
export const GNTTABOP = {
  map_grant_ref: 0,
  unmap_grant_ref: 1,
  setup_table: 2,
  dump_table: 3,
  transfer: 4,
  copy: 5,
  query_size: 6,
  unmap_and_replace: 7,
  set_version: 8,
  get_status_frames: 9,
  get_version: 10,
  swap_grant_ref: 11,
  cache_flush: 12,
} as const;

/** struct grant_entry_v1: u16 flags, u16 domid, u32 frame. */
export const GRANT_ENTRY_V1 = { flags: 0, domid: 2, frame: 4, size: 8 } as const;

/** union grant_entry_v2: a full page, a part of a page, or a grant passed on (u16 trans_domid, u32 gref). */
export const GRANT_ENTRY_V2 = {
  flags: 0,
  domid: 2,
  frame: 8,
  page_off: 4,
  length: 6,
  trans_domid: 4,
  gref: 8,
  size: 16,
} as const;

/** Of version 2, a u16 for each entry, in frames of their own: GTF.reading and GTF.writing. */
export const GRANT_STATUS_SIZE = 2;

/** Flags of an entry (GTF_*). */
export const GTF = {
  invalid: 0,
  permit_access: 1,
  accept_transfer: 2,
  transitive: 3,
  type_mask: 3,
  readonly: 1 << 2,
  reading: 1 << 3,
  writing: 1 << 4,
  PWT: 1 << 5,
  PCD: 1 << 6,
  PAT: 1 << 7,
  sub_page: 1 << 8,
  /** Subflags of accept_transfer. */
  transfer_committed: 1 << 2,
  transfer_completed: 1 << 3,
} as const;

/** The first entries survive a change of version; the builder fills the first two. */
export const GNTTAB_NR_RESERVED_ENTRIES = 8;
export const GNTTAB_RESERVED_CONSOLE = 0;
export const GNTTAB_RESERVED_XENSTORE = 1;

/** Flags of map_grant_ref (GNTMAP_*). */
export const GNTMAP = {
  device_map: 1 << 0,
  host_map: 1 << 1,
  readonly: 1 << 2,
  application_map: 1 << 3,
  contains_pte: 1 << 4,
  /** The bits from here on go to the available bits of the PTE. */
  guest_avail_shift: 16,
} as const;

export const GNTCOPY = { source_gref: 1 << 0, dest_gref: 1 << 1 } as const;

/** Status of one operation (GNTST_*), an i16. */
export const GNTST = {
  okay: 0,
  general_error: -1,
  bad_domain: -2,
  bad_gntref: -3,
  bad_handle: -4,
  bad_virt_addr: -5,
  bad_dev_addr: -6,
  no_device_space: -7,
  permission_denied: -8,
  bad_page: -9,
  bad_copy_arg: -10,
  address_too_big: -11,
  eagain: -12,
  no_space: -13,
} as const;
export type GrantStatus = (typeof GNTST)[keyof typeof GNTST];

/** u64 host_addr, u32 flags, u32 ref, u16 dom; out i16 status, u32 handle, u64 dev_bus_addr. */
export const GNTTAB_MAP_GRANT_REF = {
  host_addr: 0,
  flags: 8,
  ref: 12,
  dom: 16,
  status: 18,
  handle: 20,
  dev_bus_addr: 24,
  size: 32,
} as const;
/** u64 host_addr, u64 dev_bus_addr, u32 handle; out i16 status. */
export const GNTTAB_UNMAP_GRANT_REF = {
  host_addr: 0,
  dev_bus_addr: 8,
  handle: 16,
  status: 20,
  size: 24,
} as const;
/** u64 host_addr, u64 new_addr, u32 handle; out i16 status. */
export const GNTTAB_UNMAP_AND_REPLACE = {
  host_addr: 0,
  new_addr: 8,
  handle: 16,
  status: 20,
  size: 24,
} as const;
/** u16 dom, u32 nr_frames; out i16 status; u64 address of u64 frame_list[nr_frames]. */
export const GNTTAB_SETUP_TABLE = { dom: 0, nr_frames: 4, status: 8, frame_list: 16, size: 24 } as const;
/** u64 mfn, u16 domid, u32 ref; out i16 status. */
export const GNTTAB_TRANSFER = { mfn: 0, domid: 8, ref: 12, status: 16, size: 24 } as const;
/** Two gnttab_copy_ptr (u32 ref or u64 gmfn, u16 domid, u16 offset), u16 len, u16 flags; out i16 status. */
export const GNTTAB_COPY = { source: 0, dest: 16, len: 32, flags: 34, status: 36, size: 40 } as const;
export const GNTTAB_COPY_PTR = { ref: 0, gmfn: 0, domid: 8, offset: 10 } as const;
/** u16 dom; out u32 nr_frames, u32 max_nr_frames, i16 status. */
export const GNTTAB_QUERY_SIZE = { dom: 0, nr_frames: 4, max_nr_frames: 8, status: 12, size: 16 } as const;
/** u32 version, in and out. */
export const GNTTAB_SET_VERSION = { version: 0, size: 4 } as const;
/** u32 nr_frames, u16 dom; out i16 status; u64 address of u64 frame_list[nr_frames]. */
export const GNTTAB_GET_STATUS_FRAMES = { nr_frames: 0, dom: 4, status: 6, frame_list: 8, size: 16 } as const;
/** u16 dom; out u32 version. */
export const GNTTAB_GET_VERSION = { dom: 0, version: 4, size: 8 } as const;
/** u32 ref_a, u32 ref_b; out i16 status. */
export const GNTTAB_SWAP_GRANT_REF = { ref_a: 0, ref_b: 4, status: 8, size: 12 } as const;
