/** Where what lies in the headers that packets begin with. Offsets and sizes in bytes. */

export const ETHERNET = { destination: 0, source: 6, type: 12, size: 14 } as const;
export const ETHERTYPE = { ipv4: 0x0800, arp: 0x0806, vlan: 0x8100, ipv6: 0x86dd, qinq: 0x88a8 } as const;

/** RFC 791. */
export const IPV4 = {
  length: 2,
  id: 4,
  fragment: 6,
  ttl: 8,
  protocol: 9,
  checksum: 10,
  source: 12,
  destination: 16,
  size: 20,
} as const;
/** Of the field `fragment`. */
export const IPV4_MORE = 0x2000;
export const IPV4_DONT_FRAGMENT = 0x4000;
export const IPV4_OFFSET = 0x1fff;

/** RFC 8200. */
export const IPV6 = { length: 4, next: 6, source: 8, destination: 24, size: 40 } as const;

export const PROTOCOL = { icmp: 1, tcp: 6, udp: 17, icmp6: 58 } as const;

/** RFC 768. */
export const UDP = { source: 0, destination: 2, length: 4, checksum: 6, size: 8 } as const;

/** RFC 826, for IPv4 over Ethernet. */
export const ARP = {
  operation: 6,
  senderMac: 8,
  senderIp: 14,
  targetMac: 18,
  targetIp: 24,
  size: 28,
} as const;
/** Hardware type, protocol type and address lengths of it, as two u32. */
export const ARP_FORMAT = [0x0001_0800, 0x0604] as const;
export const ARP_REQUEST = 1;
export const ARP_REPLY = 2;

/** RFC 792. */
export const ICMP = { type: 0, code: 1, checksum: 2, rest: 4, size: 8 } as const;
export const ICMP_TYPE = { echoReply: 0, unreachable: 3, echo: 8 } as const;
export const UNREACHABLE = { host: 1, port: 3, prohibited: 13 } as const;
