/** public/version.h: what xen_version tells. Sizes in bytes. */

/** Commands of xen_version (XENVER_*). */
export const XENVER = {
  version: 0,
  extraversion: 1,
  compile_info: 2,
  capabilities: 3,
  changeset: 4,
  platform_parameters: 5,
  get_features: 6,
  pagesize: 7,
  guest_handle: 8,
  commandline: 9,
  build_id: 10,
} as const;

/** char[]: the sizes of the strings. */
export const XEN_EXTRAVERSION_LEN = 16;
export const XEN_CAPABILITIES_INFO_LEN = 1024;
export const XEN_CHANGESET_INFO_LEN = 64;
export const XEN_COMMANDLINE_LEN = 1024;

/** Four char arrays: offset and length each. */
export const XEN_COMPILE_INFO = {
  compiler: [0, 64],
  compile_by: [64, 16],
  compile_domain: [80, 32],
  compile_date: [112, 32],
  size: 144,
} as const;

/** u32 submap_idx; out u32 submap. */
export const XEN_FEATURE_INFO = { submap_idx: 0, submap: 4, size: 8 } as const;
