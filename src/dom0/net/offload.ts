/**
 * What of a packet's making is left to whoever passes it on: a checksum to fill in, a segment to cut up. Between
 * memory and memory nobody ever does it, which saves both ends most of their work.
 */

export const OFFLOAD = {
  /** The TCP or UDP checksum field holds the sum of the pseudo-header alone. */
  csumBlank: 1,
  /** The checksum was checked already, or need not be. */
  validated: 2,
} as const;

/** Kinds of segments to be cut up: as in XEN_NETIF_GSO_TYPE_*. */
export const GSO = { none: 0, tcp4: 1, tcp6: 2 } as const;
export type Gso = (typeof GSO)[keyof typeof GSO];

export interface Offload {
  /** OFFLOAD.* */
  readonly flags: number;
  readonly gso: Gso;
  /** Payload of each segment that is cut off. */
  readonly gsoSize: number;
}

export const NO_OFFLOAD: Offload = { flags: 0, gso: GSO.none, gsoSize: 0 };
