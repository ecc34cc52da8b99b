/**
 * One network interface of a domain, as `vif=` in xl.cfg has it (xl-network-configuration(5)): keys with values,
 * separated by commas. Beside those that are written there, `tap=NAME` joins the bridge to a TAP device of the host's.
 */
import { formatMac, isGroup, parseIpv4, parseMac } from '../../dom0/net/addresses.ts';

/** The specification is wrong; the message says what of it, in one line. */
export class VifSpecError extends Error {}

export interface VifRate {
  /** Bytes that it may send in each interval. */
  readonly bytes: number;
  /** Microseconds. */
  readonly interval: number;
}

export interface VifSpec {
  /** As in aa:bb:cc:dd:ee:ff; null: one is to be chosen. */
  readonly mac: string | null;
  readonly bridge: string;
  /** The host's TAP device that the bridge leads to; null: none. */
  readonly tap: string | null;
  /** The IPv4 addresses that it may send from; empty: any. */
  readonly ip: readonly string[];
  readonly rate: VifRate | null;
  readonly mtu: number;
  readonly vifname: string | null;
  /** The device's number; null: the next one. */
  readonly devid: number | null;
  /** What was said and means nothing here, one line each. */
  readonly warnings: readonly string[];
}

export const DEFAULT_BRIDGE = 'xenbr0';
export const DEFAULT_MTU = 1500;
/** The least that IPv4 knows, and what fits the largest packet of all. */
const MTU_MIN = 68;
const MTU_MAX = 65_521;
const DEFAULT_INTERVAL_US = 50_000;
/** What xl knows and has no meaning here. */
const IGNORED = new Set([
  ...['script', 'backend', 'backendtype', 'gatewaydev', 'netdev', 'trusted', 'accel'],
  ...['forwarddev', 'colo_filter_mirror_queuesize'],
]);

/** @throws VifSpecError */
export function parseVifSpec(text: string): VifSpec {
  const values = new Map<string, string>();
  const warnings: string[] = [];
  for (const part of text.split(',').map((piece) => piece.trim())) {
    if (part === '') continue;
    const [, key, value] = /^([^=]+?)\s*=\s*(.*)$/.exec(part) ?? [];
    if (key === undefined || value === undefined)
      throw new VifSpecError(`'${part}' is not of the form key=value`);
    if (values.has(key)) throw new VifSpecError(`${key}= is given twice`);
    values.set(key, value);
  }
  const take = (key: string) => {
    const value = values.get(key);
    values.delete(key);
    return value;
  };
  const type = take('type');
  if (type === 'ioemu') warnings.push('type=ioemu: the interface is a paravirtual one');
  else if (type !== undefined && type !== 'vif' && type !== 'netfront')
    throw new VifSpecError(`type=${type}: must be vif or ioemu`);
  take('model');
  const tap = name('tap', take('tap'));
  const spec: VifSpec = {
    mac: mac(take('mac')),
    bridge: name('bridge', take('bridge')) ?? tap ?? DEFAULT_BRIDGE,
    tap,
    ip: addresses(take('ip'), warnings),
    rate: rate(take('rate')),
    mtu: number('mtu', take('mtu'), MTU_MIN, MTU_MAX) ?? DEFAULT_MTU,
    vifname: name('vifname', take('vifname')),
    devid: number('devid', take('devid'), 0, 0xffff),
    warnings,
  };
  for (const key of values.keys()) {
    if (!IGNORED.has(key)) throw new VifSpecError(`unknown key ${key}=`);
    warnings.push(`${key}= has no meaning here`);
  }
  return spec;
}

function mac(text: string | undefined): string | null {
  if (text === undefined) return null;
  const value = parseMac(text);
  if (value === null) throw new VifSpecError(`mac=${text}: not of the form aa:bb:cc:dd:ee:ff`);
  if (isGroup(value)) throw new VifSpecError(`mac=${text}: the address of a group, not of an interface`);
  if (value === 0) throw new VifSpecError(`mac=${text}: not the address of an interface`);
  return formatMac(value);
}

function name(key: string, text: string | undefined): string | null {
  if (text === undefined) return null;
  // As Linux has it for the names of interfaces.
  if (!/^[^\s/:]{1,15}$/.test(text) || text === '.' || text === '..')
    throw new VifSpecError(`${key}=${text}: not the name of an interface (1 to 15 characters)`);
  return text;
}

function addresses(text: string | undefined, warnings: string[]): string[] {
  if (text === undefined) return [];
  const list = text.split(/\s+/).filter((each) => each !== '');
  for (const each of list) {
    if (each.includes(':')) warnings.push(`ip=${each}: only IPv4 addresses are enforced`);
    else if (parseIpv4(each) === null) throw new VifSpecError(`ip=${each}: not an IPv4 address`);
  }
  return list.filter((each) => !each.includes(':'));
}

function number(key: string, text: string | undefined, least: number, most: number): number | null {
  if (text === undefined) return null;
  const value = /^\d{1,7}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= least && value <= most))
    throw new VifSpecError(`${key}=${text}: must be a number from ${least} to ${most}`);
  return value;
}

const UNITS: Readonly<Record<string, number>> = { G: 1e9, M: 1e6, K: 1e3, k: 1e3, '': 1 };
const INTERVALS: Readonly<Record<string, number>> = { s: 1e6, ms: 1e3, us: 1 };

/** As in 10Mb/s, 250KB/s, 1MB/s@20ms: bits or bytes a second, and how often the credit is filled up. */
function rate(text: string | undefined): VifRate | null {
  if (text === undefined) return null;
  const match = /^(\d{1,9})([GMKk]?)([Bb])\/s(?:@(\d{1,9})(s|ms|us))?$/.exec(text);
  if (!match) throw new VifSpecError(`rate=${text}: not a rate (examples: 10Mb/s, 250KB/s, 1MB/s@20ms)`);
  const [, count, unit, what, every, intervalUnit] = match;
  const bytesPerSecond = (Number(count) * UNITS[unit!]!) / (what === 'b' ? 8 : 1);
  const interval = every === undefined ? DEFAULT_INTERVAL_US : Number(every) * INTERVALS[intervalUnit!]!;
  const bytes = Math.floor((bytesPerSecond * interval) / 1e6);
  // The credit goes to the back end as u32s; less than a byte an interval is no rate.
  if (interval < 1 || interval > 0xffff_ffff || bytes < 1 || bytes > 0xffff_ffff)
    throw new VifSpecError(`rate=${text}: that is ${bytes} bytes every ${interval} us, which cannot be kept`);
  return { bytes, interval };
}

/**
 * An address for an interface that was given none: in Xen's own range, 00:16:3e (xl-network-configuration(5)).
 * @param random fills an array with random bytes
 */
export function randomMac(random: (bytes: Uint8Array) => void): string {
  const bytes = new Uint8Array(3);
  random(bytes);
  const [a, b, c] = bytes as unknown as [number, number, number];
  return formatMac(0x0016_3e00_0000 + ((a & 0x7f) << 16) + (b << 8) + c);
}
