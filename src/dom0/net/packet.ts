/**
 * A packet on its way through a switch: where its bytes lie in the machine's memory, and what is left to do to it.
 *
 * The first piece is memory of ours and holds the packet's first {@link HEADER_BYTES} bytes (or all of a shorter
 * one). What is decided by headers is decided by those bytes, and they are what arrives: a guest that changes its
 * pages meanwhile changes nothing but payload.
 */
import { type Memory, PAGE_SIZE } from '../../machine/memory.ts';
import { GSO, type Gso, type Offload } from './offload.ts';

/** Ethernet, a VLAN tag, and the largest headers of IPv4 or IPv6 with TCP. */
export const HEADER_BYTES = 192;
/** The largest that any packet can be: 64 KiB with an Ethernet header in front. */
export const PACKET_MAX = 65_535 + 18;

export class Packet implements Offload {
  readonly memory: Memory;
  /** Linear addresses and lengths of the pieces; none is longer than a page. */
  readonly addresses: number[] = [];
  readonly lengths: number[] = [];
  length = 0;
  flags = 0;
  gso: Gso = GSO.none;
  gsoSize = 0;

  constructor(memory: Memory) {
    this.memory = memory;
  }

  get pieces(): number {
    return this.addresses.length;
  }

  /** Linear address of the headers. */
  get head(): number {
    return this.addresses[0]!;
  }

  /** Bytes that the first piece has. */
  get headLength(): number {
    return this.lengths[0]!;
  }

  clear({ flags, gso, gsoSize }: Offload): void {
    this.begin(flags, gso, gsoSize);
  }

  /** Empties it for another one. */
  begin(flags: number, gso: Gso, gsoSize: number): void {
    this.addresses.length = 0;
    this.lengths.length = 0;
    this.length = 0;
    this.flags = flags;
    this.gso = gso;
    this.gsoSize = gsoSize;
  }

  add(address: number, length: number): void {
    this.addresses.push(address);
    this.lengths.push(length);
    this.length += length;
  }

  /** Adds bytes that lie one after the other. */
  addRange(address: number, length: number): void {
    for (let at = 0; at < length; at += PAGE_SIZE) this.add(address + at, Math.min(PAGE_SIZE, length - at));
  }

  /** Copies the whole packet to where there is room for it. */
  copyTo(address: number): void {
    this.copyPart(address, 0, this.length);
  }

  /** Copies a part of it. @param from bytes from its start @param length no further than its end */
  copyPart(address: number, from: number, length: number): void {
    const { addresses, lengths, memory } = this;
    let index = 0;
    let skip = from;
    while (index < lengths.length && skip >= lengths[index]!) skip -= lengths[index++]!;
    for (let at = address, left = length; left > 0; index++) {
      const start = addresses[index]! + skip;
      const size = Math.min(lengths[index]! - skip, left);
      memory.copy(at, start, size);
      at += size;
      left -= size;
      skip = 0;
    }
  }
}
