/** public/io/netif.h: the rings of a network interface. Offsets and sizes in bytes. */

/** struct netif_tx_request. `size` of a packet's first request is the whole packet's, of the others their own. */
export const NETIF_TX_REQUEST = { gref: 0, offset: 4, flags: 6, id: 8, size: 10, bytes: 12 } as const;
/** struct netif_tx_response; status is signed. */
export const NETIF_TX_RESPONSE = { id: 0, status: 2, bytes: 4 } as const;
/** struct netif_rx_request. */
export const NETIF_RX_REQUEST = { id: 0, gref: 4, bytes: 8 } as const;
/** struct netif_rx_response; status is signed: bytes in the page, or NETIF_RSP. */
export const NETIF_RX_RESPONSE = { id: 0, offset: 2, flags: 4, status: 6, bytes: 8 } as const;

export const NETTXF = { csum_blank: 1, data_validated: 2, more_data: 4, extra_info: 8 } as const;
export const NETRXF = { data_validated: 1, csum_blank: 2, more_data: 4, extra_info: 8 } as const;

export const NETIF_RSP = { DROPPED: -2, ERROR: -1, OKAY: 0, NULL: 1 } as const;

/** struct netif_extra_info, which takes the place of a request or a response. */
export const NETIF_EXTRA_INFO = {
  type: 0,
  flags: 1,
  gso_size: 2,
  gso_type: 4,
  mcast_addr: 2,
  bytes: 8,
} as const;
export const XEN_NETIF_EXTRA_TYPE = { GSO: 1, MCAST_ADD: 2, MCAST_DEL: 3, HASH: 4, MAX: 5 } as const;
export const XEN_NETIF_EXTRA_FLAG_MORE = 1;
export const XEN_NETIF_GSO_TYPE = { NONE: 0, TCPV4: 1, TCPV6: 2 } as const;

/** Slots that a packet may take at least, whatever a front end was compiled for. */
export const XEN_NETIF_NR_SLOTS_MIN = 18;
