/** IPv4 (RFC 791): headers, and packets that come in fragments. */
import { get16, get32, put16, put32 } from '../bytes.ts';
import { finish, fold, sum } from '../checksum.ts';
import { IPV4, IPV4_DONT_FRAGMENT, IPV4_MORE, IPV4_OFFSET } from '../headers.ts';
import type { Clock } from './tcp/types.ts';

export interface Ipv4Packet {
  readonly source: number;
  readonly destination: number;
  readonly protocol: number;
  readonly id: number;
  /** Offset of the payload in the whole, bytes. */
  readonly offset: number;
  readonly more: boolean;
  readonly payload: Uint8Array;
  /** Header and what follows, as it came. */
  readonly bytes: Uint8Array;
}

/** @param bytes of the packet, maybe with padding behind it; what is answered are views of it */
export function readIpv4(bytes: Uint8Array): Ipv4Packet | null {
  if (bytes.length < IPV4.size || bytes[0]! >>> 4 !== 4) return null;
  const header = (bytes[0]! & 15) * 4;
  const length = get16(bytes, IPV4.length);
  if (header < IPV4.size || length < header || length > bytes.length) return null;
  if (fold(sum(bytes, 0, header)) !== 0xffff) return null;
  const fragment = get16(bytes, IPV4.fragment);
  return {
    source: get32(bytes, IPV4.source),
    destination: get32(bytes, IPV4.destination),
    protocol: bytes[IPV4.protocol]!,
    id: get16(bytes, IPV4.id),
    offset: (fragment & IPV4_OFFSET) * 8,
    more: (fragment & IPV4_MORE) !== 0,
    payload: bytes.subarray(header, length),
    bytes: bytes.subarray(0, length),
  };
}

const TTL = 64;

/** Writes a header of 20 bytes. @param length of the payload, bytes @param offset of it in the whole; -1: undivided */
export function writeIpv4(
  bytes: Uint8Array,
  at: number,
  source: number,
  destination: number,
  protocol: number,
  length: number,
  id = 0,
  offset = -1,
  more = false,
): void {
  put16(bytes, at, 0x4500);
  put16(bytes, at + IPV4.length, IPV4.size + length);
  put16(bytes, at + IPV4.id, id);
  const fragment = offset < 0 ? IPV4_DONT_FRAGMENT : offset / 8 + (more ? IPV4_MORE : 0);
  put16(bytes, at + IPV4.fragment, fragment);
  bytes[at + IPV4.ttl] = TTL;
  bytes[at + IPV4.protocol] = protocol;
  put16(bytes, at + IPV4.checksum, 0);
  put32(bytes, at + IPV4.source, source);
  put32(bytes, at + IPV4.destination, destination);
  put16(bytes, at + IPV4.checksum, finish(sum(bytes, at, at + IPV4.size)));
}

/** Sum of the pseudo-header that TCP and UDP checksums cover. */
export function pseudoHeader(source: number, destination: number, protocol: number, length: number): number {
  return (
    (source >>> 16) + (source & 0xffff) + (destination >>> 16) + (destination & 0xffff) + protocol + length
  );
}

/** Packets that are incomplete, at most; and for how long they are kept. */
const INCOMPLETE_MAX = 32;
const INCOMPLETE_MS = 15_000;
const FRAGMENTS_MAX = 64;

interface Incomplete {
  readonly since: number;
  parts: { offset: number; bytes: Uint8Array }[];
  /** -1: the last fragment is not here. */
  length: number;
}

/** Puts fragments together. Bounded; overlapping fragments (nobody honest sends them) drop the whole (RFC 5722). */
export class Fragments {
  private readonly clock: Clock;
  private readonly packets = new Map<string, Incomplete>();

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** @returns the packet as if it had come whole, or null: it is not complete */
  add(packet: Ipv4Packet): Ipv4Packet | null {
    const now = this.clock.now();
    const key = `${packet.source} ${packet.destination} ${packet.protocol} ${packet.id}`;
    // The oldest first.
    for (const [old, { since }] of this.packets) {
      const crowded = this.packets.size >= INCOMPLETE_MAX && !this.packets.has(key);
      if (now - since < INCOMPLETE_MS && !crowded) break;
      this.packets.delete(old);
    }
    const known = this.packets.get(key) ?? { since: now, parts: [], length: -1 };
    this.packets.set(key, known);
    const { offset, payload, more } = packet;
    const end = offset + payload.length;
    const wrong =
      end > 0xffff ||
      known.parts.length >= FRAGMENTS_MAX ||
      (more && payload.length % 8 !== 0) ||
      (known.length >= 0 && (!more || end > known.length)) ||
      known.parts.some((part) => offset < part.offset + part.bytes.length && part.offset < end);
    if (wrong) {
      this.packets.delete(key);
      return null;
    }
    if (!more) known.length = end;
    known.parts.push({ offset, bytes: payload.slice() });
    const have = known.parts.reduce((total, part) => total + part.bytes.length, 0);
    if (have !== known.length) return null;
    this.packets.delete(key);
    const whole = new Uint8Array(have);
    for (const part of known.parts) whole.set(part.bytes, part.offset);
    return { ...packet, offset: 0, more: false, payload: whole };
  }
}
