/** Where guests may go through a NAT. */
import { inSubnet, type Subnet } from '../addresses.ts';

/**
 * Destinations that no NAT passes on. On the host some of them mean the host itself (0.0.0.0/8 and 127.0.0.0/8),
 * and link-local addresses are where clouds hand out their machine's credentials; none of them may be forwarded by a
 * router (RFC 6890).
 */
const NEVER: readonly Subnet[] = [
  { address: 0x0000_0000, length: 8 },
  { address: 0x7f00_0000, length: 8 },
  { address: 0xa9fe_0000, length: 16 },
  // Multicast and what is reserved, up to the broadcast address.
  { address: 0xe000_0000, length: 3 },
];

export function mayForward(address: number): boolean {
  return !NEVER.some((subnet) => inSubnet(address, subnet));
}
