/** A port of the host that leads to a domain: [ADDRESS:]PORT:[GUESTADDRESS:]GUESTPORT, with /tcp or /udp behind it. */
import { parseIpv4 } from '../../dom0/net/addresses.ts';
import type { ForwardSpec } from './net-service.ts';

/** The specification is wrong; the message says what of it, in one line. */
export class ForwardSpecError extends Error {}

/** @throws ForwardSpecError */
export function parseForward(text: string): ForwardSpec {
  const match = /^(?:(\[[0-9a-fA-F:]+\]|[\d.]+):)?(\d{1,5}):(?:([\d.]+):)?(\d{1,5})(?:\/(tcp|udp))?$/.exec(
    text,
  );
  if (!match) throw new ForwardSpecError(`${text}: not of the form [ADDRESS:]PORT:GUESTPORT[/udp]`);
  const [, address, port, guest, guestPort, protocol] = match;
  const guestAddress = guest === undefined ? null : parseIpv4(guest);
  const plain = address?.replace(/^\[(.*)\]$/, '$1') ?? '127.0.0.1';
  if (address !== undefined && !address.startsWith('[') && parseIpv4(address) === null)
    throw new ForwardSpecError(`${text}: ${address} is not an address`);
  if (guest !== undefined && guestAddress === null)
    throw new ForwardSpecError(`${text}: ${guest} is not an address`);
  if (Number(port) > 65535 || Number(guestPort) > 65535 || Number(guestPort) === 0)
    throw new ForwardSpecError(`${text}: a port is a number from 1 to 65535`);
  return {
    protocol: protocol === 'udp' ? 'udp' : 'tcp',
    address: plain,
    port: Number(port),
    guestAddress,
    guestPort: Number(guestPort),
  };
}
