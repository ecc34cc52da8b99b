/**
 * Rules for what a domain may send and get: a pattern and an action each, as the paper's section 3.3.5 (5.5 in other
 * prints) has them. The first rule whose pattern matches decides; what matches none passes.
 *
 * A pattern is matched by the packet's headers alone. A field that the packet does not have (the port of a packet
 * that is not TCP or UDP, or of a fragment but the first) matches nothing, negated or not.
 */
import type { Memory } from '../../machine/memory.ts';
import { getMac, inSubnet, parseIpv4, parseMac, parseSubnet, type Subnet } from './addresses.ts';
import { get16, get32 } from './bytes.ts';
import { ARP, ETHERNET, ETHERTYPE, IPV4, IPV4_OFFSET, IPV6, PROTOCOL } from './headers.ts';
import type { Packet } from './packet.ts';

/** One value, one of several, or anything but them. Plain JSON. */
export type Test<T> = T | readonly T[] | { readonly not: T | readonly T[] };

export interface Pattern {
  /** From the domain, or to it; left out: both. */
  readonly direction?: 'out' | 'in';
  /** Ethernet addresses, as in aa:bb:cc:dd:ee:ff. */
  readonly sourceMac?: Test<string>;
  readonly destinationMac?: Test<string>;
  readonly etherType?: Test<number>;
  /** What an ARP packet says of its sender. */
  readonly arpMac?: Test<string>;
  readonly arpIp?: Test<string>;
  /** IPv4 addresses, or subnets as in 10.0.0.0/8. */
  readonly sourceIp?: Test<string>;
  readonly destinationIp?: Test<string>;
  /** Of IPv4 or IPv6. */
  readonly protocol?: Test<number>;
  /** Of TCP and UDP. */
  readonly sourcePort?: Test<number>;
  readonly destinationPort?: Test<number>;
}

export interface Rule {
  readonly pattern: Pattern;
  readonly action: 'accept' | 'drop';
}

/** A rule makes no sense. */
export class RuleError extends Error {}

const ABSENT = -1;

/** What rules look at, read once for each packet. -1: the packet has no such field. */
class Fields {
  sourceMac = 0;
  destinationMac = 0;
  etherType = 0;
  arpMac = ABSENT;
  arpIp = ABSENT;
  sourceIp = ABSENT;
  destinationIp = ABSENT;
  protocol = ABSENT;
  sourcePort = ABSENT;
  destinationPort = ABSENT;

  read({ u8 }: Memory, at: number, length: number): void {
    this.destinationMac = getMac(u8, at + ETHERNET.destination);
    this.sourceMac = getMac(u8, at + ETHERNET.source);
    this.etherType = get16(u8, at + ETHERNET.type);
    this.arpMac = ABSENT;
    this.arpIp = ABSENT;
    this.sourceIp = ABSENT;
    this.destinationIp = ABSENT;
    this.protocol = ABSENT;
    this.sourcePort = ABSENT;
    this.destinationPort = ABSENT;
    const payload = at + ETHERNET.size;
    const left = length - ETHERNET.size;
    if (this.etherType === ETHERTYPE.ipv4 && left >= IPV4.size) this.readIpv4(u8, payload, left);
    else if (this.etherType === ETHERTYPE.ipv6 && left >= IPV6.size) {
      this.protocol = u8[payload + IPV6.next]!;
      this.readPorts(u8, payload + IPV6.size, left - IPV6.size);
    } else if (this.etherType === ETHERTYPE.arp && left >= ARP.size) {
      this.arpMac = getMac(u8, payload + ARP.senderMac);
      this.arpIp = get32(u8, payload + ARP.senderIp);
    }
  }

  private readIpv4(u8: Uint8Array, at: number, left: number): void {
    this.sourceIp = get32(u8, at + IPV4.source);
    this.destinationIp = get32(u8, at + IPV4.destination);
    this.protocol = u8[at + IPV4.protocol]!;
    const header = (u8[at]! & 15) * 4;
    if ((get16(u8, at + IPV4.fragment) & IPV4_OFFSET) === 0) this.readPorts(u8, at + header, left - header);
  }

  private readPorts(u8: Uint8Array, at: number, left: number): void {
    if ((this.protocol !== PROTOCOL.tcp && this.protocol !== PROTOCOL.udp) || left < 4) return;
    this.sourcePort = get16(u8, at);
    this.destinationPort = get16(u8, at + 2);
  }
}

type Field = Exclude<keyof Pattern, 'direction'>;
type Check = (fields: Fields) => boolean;

interface Compiled {
  readonly direction: 'out' | 'in' | undefined;
  readonly checks: readonly Check[];
  readonly accept: boolean;
}

const MAC_FIELDS: ReadonlySet<Field> = new Set(['sourceMac', 'destinationMac', 'arpMac']);
const IP_FIELDS: ReadonlySet<Field> = new Set(['sourceIp', 'destinationIp', 'arpIp']);

export class Filter {
  private readonly rules: readonly Compiled[];
  private readonly fields = new Fields();

  /** @throws RuleError */
  constructor(rules: readonly Rule[]) {
    this.rules = rules.map(compile);
  }

  /** May the packet pass? It has an Ethernet header at least. */
  passes(packet: Packet, direction: 'out' | 'in'): boolean {
    const { rules, fields } = this;
    if (rules.length === 0) return true;
    fields.read(packet.memory, packet.head, packet.headLength);
    for (const rule of rules) {
      if (rule.direction !== undefined && rule.direction !== direction) continue;
      if (rule.checks.every((check) => check(fields))) return rule.accept;
    }
    return true;
  }
}

function compile({ pattern, action }: Rule): Compiled {
  const { direction, ...tests } = pattern;
  const checks = Object.entries(tests).map(([field, test]) => compileTest(field as Field, test));
  return { direction, checks, accept: action === 'accept' };
}

function compileTest(field: Field, test: Test<string> | Test<number>): Check {
  const negated = typeof test === 'object' && 'not' in test;
  const values = negated ? test.not : test;
  const list = (Array.isArray(values) ? values : [values]) as (string | number)[];
  if (IP_FIELDS.has(field)) {
    const subnets = list.map((value) => subnetOf(`${value}`));
    return (fields) => {
      const value = fields[field];
      return value !== ABSENT && subnets.some((subnet) => inSubnet(value, subnet)) !== negated;
    };
  }
  const numbers = new Set(list.map((value) => (MAC_FIELDS.has(field) ? macOf(`${value}`) : numberOf(value))));
  return (fields) => {
    const value = fields[field];
    return value !== ABSENT && numbers.has(value) !== negated;
  };
}

function subnetOf(text: string): Subnet {
  const address = parseIpv4(text);
  const subnet = address === null ? parseSubnet(text) : { address, length: 32 };
  if (!subnet) throw new RuleError(`not an IPv4 address or subnet: ${text}`);
  return subnet;
}

function macOf(text: string): number {
  const mac = parseMac(text);
  if (mac === null) throw new RuleError(`not an Ethernet address: ${text}`);
  return mac;
}

function numberOf(value: string | number): number {
  if (typeof value !== 'number') throw new RuleError(`not a number: ${value}`);
  return value;
}

const DHCP_CLIENT = 68;
const DHCP_SERVER = 67;

/**
 * The rules that keep a domain from sending under an address that is not its own.
 * @param ips if there are any: the only IPv4 addresses that it may use, and IPv4 is all it may speak then
 */
export function ownAddressesOnly(mac: string, ips: readonly string[]): Rule[] {
  const rules: Rule[] = [
    { pattern: { direction: 'out', sourceMac: { not: mac } }, action: 'drop' },
    { pattern: { direction: 'out', arpMac: { not: mac } }, action: 'drop' },
  ];
  if (ips.length === 0) return rules;
  // Without an address yet, it may ask for one (DHCP), and ask whether one is free (ARP probe, RFC 5227).
  const none = '0.0.0.0';
  const asks = {
    sourceIp: none,
    protocol: PROTOCOL.udp,
    sourcePort: DHCP_CLIENT,
    destinationPort: DHCP_SERVER,
  };
  return [
    ...rules,
    { pattern: { direction: 'out', etherType: { not: [ETHERTYPE.ipv4, ETHERTYPE.arp] } }, action: 'drop' },
    { pattern: { direction: 'out', arpIp: { not: [...ips, none] } }, action: 'drop' },
    { pattern: { direction: 'out', ...asks }, action: 'accept' },
    { pattern: { direction: 'out', sourceIp: { not: ips } }, action: 'drop' },
  ];
}
