/** public/io/blkif.h: the ring of a virtual block device, for x86-64. Offsets and sizes in bytes. */

/** Everything on the ring counts in these. */
export const SECTOR_SIZE = 512;
export const SECTORS_PER_PAGE = 8;

/** BLKIF_OP_* */
export const BLKIF_OP = {
  READ: 0,
  WRITE: 1,
  WRITE_BARRIER: 2,
  FLUSH_DISKCACHE: 3,
  DISCARD: 5,
  INDIRECT: 6,
} as const;

/** BLKIF_RSP_* */
export const BLKIF_RSP = { OKAY: 0, ERROR: -1, EOPNOTSUPP: -2 } as const;

export const BLKIF_MAX_SEGMENTS_PER_REQUEST = 11;
export const BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST = 8;

/** struct blkif_request; an entry of the ring is as large. */
export const BLKIF_REQUEST = {
  operation: 0,
  nr_segments: 1,
  handle: 2,
  id: 8,
  sector_number: 16,
  seg: 24,
  size: 112,
} as const;

/** struct blkif_request_segment; an indirect page is full of them. */
export const BLKIF_SEGMENT = { gref: 0, first_sect: 4, last_sect: 5, size: 8 } as const;

/** struct blkif_request_discard */
export const BLKIF_REQUEST_DISCARD = {
  operation: 0,
  flag: 1,
  handle: 2,
  id: 8,
  sector_number: 16,
  nr_sectors: 24,
} as const;

/** struct blkif_request_indirect */
export const BLKIF_REQUEST_INDIRECT = {
  operation: 0,
  indirect_op: 1,
  nr_segments: 2,
  id: 8,
  sector_number: 16,
  handle: 24,
  indirect_grefs: 28,
} as const;

/** struct blkif_response */
export const BLKIF_RESPONSE = { id: 0, operation: 8, status: 10, size: 16 } as const;

/** Bits of the back end's node "info". */
export const VDISK = { CDROM: 1, REMOVABLE: 2, READONLY: 4 } as const;
