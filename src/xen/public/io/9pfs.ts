/**
 * public/io/9pfs.h with ring.h's DEFINE_XEN_FLEX_RING_AND_INTF: the page that describes a ring of bytes. Offsets in
 * bytes. The indices are free-running u32; `in` is what the front end reads, `out` what it writes. The ring itself is
 * 2^ring_order pages, the lower half of which is `in`.
 */
export const XEN_9PFS_DATA_INTF = {
  in_cons: 0,
  in_prod: 4,
  out_cons: 64,
  out_prod: 68,
  ring_order: 128,
  /** Grant references of the ring's pages, u32 each, to the end of the page. */
  ref: 132,
} as const;

/** The only version of the transport. */
export const XEN_9PFS_VERSION = '1';
