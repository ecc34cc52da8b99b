/** Ethernet and IPv4 addresses. Here they are numbers: of 48 and 32 bits, most significant byte first. */
import { get16, get32, put16, put32 } from './bytes.ts';

export const BROADCAST_MAC = 0xffff_ffff_ffff;

/** Bit of the first byte: the address is that of a group. */
const GROUP = 2 ** 40;

export function getMac(bytes: Uint8Array, at: number): number {
  return get16(bytes, at) * 0x1_0000_0000 + get32(bytes, at + 2);
}

export function putMac(bytes: Uint8Array, at: number, mac: number): void {
  put16(bytes, at, Math.floor(mac / 0x1_0000_0000));
  put32(bytes, at + 2, mac % 0x1_0000_0000);
}

/** Multicast or broadcast. */
export function isGroup(mac: number): boolean {
  return Math.floor(mac / GROUP) % 2 === 1;
}

/** Six pairs of hexadecimal digits with colons or dashes between. @returns null: that is no address */
export function parseMac(text: string): number | null {
  if (!/^[0-9a-f]{1,2}([:-][0-9a-f]{1,2}){5}$/i.test(text)) return null;
  return text.split(/[:-]/).reduce((mac, part) => mac * 256 + Number.parseInt(part, 16), 0);
}

export function formatMac(mac: number): string {
  return mac
    .toString(16)
    .padStart(12, '0')
    .replaceAll(/..(?!$)/g, '$&:');
}

/** Four decimal numbers with dots. @returns null: that is no address */
export function parseIpv4(text: string): number | null {
  if (!/^\d{1,3}(\.\d{1,3}){3}$/.test(text)) return null;
  const parts = text.split('.').map(Number);
  if (parts.some((part) => part > 255)) return null;
  return parts.reduce((address, part) => address * 256 + part, 0);
}

export function formatIpv4(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 0xff).join('.');
}

/** A range of addresses with a common prefix. */
export interface Subnet {
  readonly address: number;
  /** Bits of the prefix. */
  readonly length: number;
}

/** @param text as in 10.0.2.0/24 @returns null: that is no subnet */
export function parseSubnet(text: string): Subnet | null {
  const match = /^([\d.]+)\/(\d{1,2})$/.exec(text);
  const address = match && parseIpv4(match[1]!);
  const length = Number(match?.[2]);
  if (address === null || length > 32) return null;
  return { address: (address & netmask(length)) >>> 0, length };
}

export function netmask(length: number): number {
  return length === 0 ? 0 : (0xffff_ffff << (32 - length)) >>> 0;
}

export function inSubnet(address: number, subnet: Subnet): boolean {
  return (address & netmask(subnet.length)) >>> 0 === subnet.address;
}
