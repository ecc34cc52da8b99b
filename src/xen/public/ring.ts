/**
 * public/io/ring.h: the layout of a shared request/response ring (`__name##_sring`). Offsets in bytes. The indices
 * are free-running u32; entry i lies at `entries + (i modulo the number of entries) * entry size`.
 */
export const SRING = {
  req_prod: 0,
  req_event: 4,
  rsp_prod: 8,
  rsp_event: 12,
  entries: 64,
} as const;

/** How many entries of `entrySize` bytes a ring of `bytes` bytes has: a power of two (__RING_SIZE). */
export function ringEntries(bytes: number, entrySize: number): number {
  return 2 ** Math.floor(Math.log2((bytes - SRING.entries) / entrySize));
}
