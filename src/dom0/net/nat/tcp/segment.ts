/** TCP's header (RFC 9293, section 3.1) and the two options that we use: segment size and window scale (RFC 7323). */
import { get16, get32, put16, put32 } from '../../bytes.ts';

export const TCP = { FIN: 1, SYN: 2, RST: 4, PSH: 8, ACK: 16 } as const;
/** Offset of the checksum in the header. */
export const TCP_CHECKSUM = 16;
export const TCP_HEADER = 20;

const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTION_MSS = 2;
const OPTION_SCALE = 3;
/** The largest that may be meant (RFC 7323, section 2.3). */
const SCALE_MAX = 14;

export interface Segment {
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly seq: number;
  readonly ack: number;
  /** TCP.* */
  readonly flags: number;
  /** As it stands in the header. */
  readonly window: number;
  /** Of a SYN: the option's value, 0: there is none. */
  readonly mss: number;
  /** Of a SYN: the option's value, -1: there is none. */
  readonly scale: number;
  readonly payload: Uint8Array;
}

/** @param bytes header and payload; the payload is a view of it @returns null: that is no segment */
export function parseSegment(bytes: Uint8Array): Segment | null {
  if (bytes.length < TCP_HEADER) return null;
  const header = (bytes[12]! >>> 4) * 4;
  if (header < TCP_HEADER || header > bytes.length) return null;
  const flags = bytes[13]!;
  const options = (flags & TCP.SYN) === 0 ? NO_OPTIONS : parseOptions(bytes, header);
  return {
    sourcePort: get16(bytes, 0),
    destinationPort: get16(bytes, 2),
    seq: get32(bytes, 4),
    ack: get32(bytes, 8),
    flags,
    window: get16(bytes, 14),
    mss: options.mss,
    scale: options.scale,
    payload: bytes.subarray(header),
  };
}

const NO_OPTIONS = { mss: 0, scale: -1 } as const;

function parseOptions(bytes: Uint8Array, end: number): { mss: number; scale: number } {
  let { mss, scale } = NO_OPTIONS as { mss: number; scale: number };
  for (let at = TCP_HEADER; at < end; ) {
    const kind = bytes[at]!;
    if (kind === OPTION_END) break;
    if (kind === OPTION_NOP) {
      at++;
      continue;
    }
    const length = at + 1 < end ? bytes[at + 1]! : 0;
    if (length < 2 || at + length > end) break;
    if (kind === OPTION_MSS && length === 4) mss = get16(bytes, at + 2);
    if (kind === OPTION_SCALE && length === 3) scale = Math.min(bytes[at + 2]!, SCALE_MAX);
    at += length;
  }
  return { mss, scale };
}

/** What a header is made of; the checksum stays zero. */
export interface HeaderFields {
  sourcePort: number;
  destinationPort: number;
  seq: number;
  ack: number;
  flags: number;
  window: number;
  /** 0: no option */
  mss?: number;
  /** -1: no option */
  scale?: number;
}

export function buildHeader(fields: HeaderFields): Uint8Array {
  const { mss = 0, scale = -1 } = fields;
  const length = TCP_HEADER + (mss === 0 ? 0 : 4) + (scale < 0 ? 0 : 4);
  const bytes = new Uint8Array(length);
  put16(bytes, 0, fields.sourcePort);
  put16(bytes, 2, fields.destinationPort);
  put32(bytes, 4, fields.seq);
  put32(bytes, 8, fields.ack);
  bytes[12] = (length / 4) << 4;
  bytes[13] = fields.flags;
  put16(bytes, 14, fields.window);
  let at = TCP_HEADER;
  if (mss !== 0) {
    bytes[at] = OPTION_MSS;
    bytes[at + 1] = 4;
    put16(bytes, at + 2, mss);
    at += 4;
  }
  if (scale >= 0) {
    bytes[at] = OPTION_NOP;
    bytes[at + 1] = OPTION_SCALE;
    bytes[at + 2] = 3;
    bytes[at + 3] = scale;
  }
  return bytes;
}
