/** The qcow2 image format: layout of header and table entries (QEMU's docs/interop/qcow2.txt). All big-endian. */
import { DiskError } from './source.ts';

export const QCOW2_MAGIC = 0x514649fb;

export const HEADER = {
  magic: 0,
  version: 4,
  backing_file_offset: 8,
  backing_file_size: 16,
  cluster_bits: 20,
  size: 24,
  crypt_method: 32,
  l1_size: 36,
  l1_table_offset: 40,
  refcount_table_offset: 48,
  refcount_table_clusters: 56,
  nb_snapshots: 60,
  snapshots_offset: 64,
  /** From version 3 on. */
  incompatible_features: 72,
  compatible_features: 80,
  autoclear_features: 88,
  refcount_order: 96,
  header_length: 100,
  compression_type: 104,
} as const;
export const HEADER_V2_LENGTH = 72;
export const HEADER_V3_LENGTH = 104;

export const INCOMPATIBLE = {
  dirty: 1,
  corrupt: 2,
  externalData: 4,
  compressionType: 8,
  extendedL2: 16,
} as const;

/** By the number in the header. */
const COMPRESSIONS = ['zlib', 'zstd'] as const;
export type Compression = (typeof COMPRESSIONS)[number];

/** Upper halves of table entries. */
export const COPIED = 0x8000_0000;
export const COMPRESSED = 0x4000_0000;
/** Lower half of an L2 entry, from version 3 on: the cluster reads as zeroes. */
export const ZERO = 1;

export const EXTENSION_END = 0;
export const EXTENSION_BACKING_FORMAT = 0xe2792aca;

export const CLUSTER_BITS = { min: 9, max: 21, usual: 16 } as const;
/** The largest disk, so that an L1 table stays below 32 MiB (as QEMU limits it). */
const MAX_L1_BYTES = 32 << 20;
const MAX_REFCOUNT_TABLE_BYTES = 8 << 20;
const MAX_BACKING_NAME = 1023;

export interface Qcow2Header {
  readonly version: 2 | 3;
  readonly clusterBits: number;
  /** Bytes of the disk. */
  readonly size: number;
  readonly l1Offset: number;
  readonly l1Entries: number;
  refcountTableOffset: number;
  refcountTableClusters: number;
  readonly refcountOrder: number;
  readonly incompatible: number;
  /** How its compressed clusters are. */
  readonly compression: Compression;
  readonly backing: { readonly name: string; readonly format: string | null } | null;
}

/** @param bytes the beginning of the file, a cluster at least where there is one @throws DiskError */
export function parseHeader(bytes: Uint8Array, name: string): Qcow2Header {
  const wrong = (what: string) => new DiskError(`${name}: ${what}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length < HEADER_V3_LENGTH || view.getUint32(0) !== QCOW2_MAGIC) throw wrong('not a qcow2 image');
  const u32 = (at: number) => view.getUint32(at);
  const u64 = (at: number) => {
    const value = view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);
    if (!Number.isSafeInteger(value)) throw wrong('a damaged qcow2 header');
    return value;
  };
  const version = u32(HEADER.version);
  if (version !== 2 && version !== 3) throw wrong(`qcow2 version ${version} is not supported`);
  const clusterBits = u32(HEADER.cluster_bits);
  if (clusterBits < CLUSTER_BITS.min || clusterBits > CLUSTER_BITS.max)
    throw wrong(`qcow2 clusters of 2^${clusterBits} bytes are not supported`);
  const cluster = 2 ** clusterBits;
  if (u32(HEADER.crypt_method) !== 0) throw wrong('encrypted qcow2 images are not supported');
  const incompatible = version === 3 ? u64(HEADER.incompatible_features) : 0;
  if (incompatible & INCOMPATIBLE.externalData)
    throw wrong('qcow2 with an external data file is not supported');
  if (incompatible & INCOMPATIBLE.extendedL2) throw wrong('qcow2 with subclusters is not supported');
  if (incompatible >= 32) throw wrong('the qcow2 image needs features that are not supported');
  const refcountOrder = version === 3 ? u32(HEADER.refcount_order) : 4;
  if (refcountOrder > 6) throw wrong('a damaged qcow2 header');
  const headerLength = version === 3 ? u32(HEADER.header_length) : HEADER_V2_LENGTH;
  if (headerLength < (version === 3 ? HEADER_V3_LENGTH : HEADER_V2_LENGTH) || headerLength > cluster)
    throw wrong('a damaged qcow2 header');
  const compression =
    incompatible & INCOMPATIBLE.compressionType && headerLength > HEADER.compression_type
      ? bytes[HEADER.compression_type]!
      : 0;
  const compressionName = COMPRESSIONS[compression];
  if (!compressionName)
    throw wrong('qcow2 images compressed with anything but zlib and zstd are not supported');

  const size = u64(HEADER.size);
  if (size === 0 || size % 512 !== 0) throw wrong(`a qcow2 disk of ${size} bytes: not whole sectors`);
  const l1Entries = u32(HEADER.l1_size);
  const needed = Math.ceil(size / cluster / (cluster / 8));
  if (l1Entries < needed || l1Entries * 8 > MAX_L1_BYTES) throw wrong('a damaged qcow2 header (L1 table)');
  const l1Offset = u64(HEADER.l1_table_offset);
  const refcountTableOffset = u64(HEADER.refcount_table_offset);
  const refcountTableClusters = u32(HEADER.refcount_table_clusters);
  if (l1Offset % cluster !== 0 || refcountTableOffset % cluster !== 0 || l1Offset === 0)
    throw wrong('a damaged qcow2 header (offsets)');
  if (refcountTableClusters === 0 || refcountTableClusters * cluster > MAX_REFCOUNT_TABLE_BYTES)
    throw wrong('a damaged qcow2 header (reference counts)');
  return {
    version,
    clusterBits,
    size,
    l1Offset,
    l1Entries,
    refcountTableOffset,
    refcountTableClusters,
    refcountOrder,
    incompatible,
    compression: compressionName,
    backing: backingOf(
      bytes,
      headerLength,
      u64(HEADER.backing_file_offset),
      u32(HEADER.backing_file_size),
      wrong,
    ),
  };
}

function backingOf(
  bytes: Uint8Array,
  headerLength: number,
  offset: number,
  length: number,
  wrong: (what: string) => DiskError,
): Qcow2Header['backing'] {
  if (offset === 0 || length === 0) return null;
  if (length > MAX_BACKING_NAME || offset + length > bytes.length)
    throw wrong('a damaged qcow2 header (backing file)');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const text = (at: number, size: number) => new TextDecoder().decode(bytes.slice(at, at + size));
  let format: string | null = null;
  for (let at = headerLength; at + 8 <= offset; ) {
    const type = view.getUint32(at);
    const size = view.getUint32(at + 4);
    if (type === EXTENSION_END || at + 8 + size > offset) break;
    if (type === EXTENSION_BACKING_FORMAT) format = text(at + 8, size);
    at += 8 + Math.ceil(size / 8) * 8;
  }
  return { name: text(offset, length), format };
}

export interface NewImage {
  /** Bytes of the disk, whole sectors. */
  readonly size: number;
  readonly backing: { readonly name: string; readonly format: string } | null;
  readonly clusterBits?: number;
}

/** The bytes of a new, empty image of version 3. @throws DiskError: too large */
export function emptyImage({ size, backing, clusterBits = CLUSTER_BITS.usual }: NewImage): Uint8Array {
  const cluster = 2 ** clusterBits;
  const l1Entries = Math.ceil(size / cluster / (cluster / 8));
  if (l1Entries * 8 > MAX_L1_BYTES) throw new DiskError(`a disk of ${size} bytes is too large for qcow2`);
  const l1Clusters = Math.ceil((l1Entries * 8) / cluster);
  // Header, table of reference counts, its first block, the L1 table.
  const clusters = 3 + l1Clusters;
  if (clusters > cluster / 2) throw new DiskError(`a disk of ${size} bytes needs larger clusters`);
  const bytes = new Uint8Array(clusters * cluster);
  const view = new DataView(bytes.buffer);
  const u64 = (at: number, value: number) => {
    view.setUint32(at, Math.floor(value / 2 ** 32));
    view.setUint32(at + 4, value >>> 0);
  };
  view.setUint32(HEADER.magic, QCOW2_MAGIC);
  view.setUint32(HEADER.version, 3);
  view.setUint32(HEADER.cluster_bits, clusterBits);
  u64(HEADER.size, size);
  view.setUint32(HEADER.l1_size, l1Entries);
  u64(HEADER.l1_table_offset, 3 * cluster);
  u64(HEADER.refcount_table_offset, cluster);
  view.setUint32(HEADER.refcount_table_clusters, 1);
  view.setUint32(HEADER.refcount_order, 4);
  view.setUint32(HEADER.header_length, HEADER_V3_LENGTH);
  if (backing) {
    const encoder = new TextEncoder();
    const format = encoder.encode(backing.format);
    const name = encoder.encode(backing.name);
    if (name.length > MAX_BACKING_NAME) throw new DiskError(`${backing.name}: too long a name for qcow2`);
    view.setUint32(HEADER_V3_LENGTH, EXTENSION_BACKING_FORMAT);
    view.setUint32(HEADER_V3_LENGTH + 4, format.length);
    bytes.set(format, HEADER_V3_LENGTH + 8);
    const at = HEADER_V3_LENGTH + 8 + Math.ceil(format.length / 8) * 8 + 8;
    if (at + name.length > cluster) throw new DiskError(`${backing.name}: too long a name for such clusters`);
    bytes.set(name, at);
    u64(HEADER.backing_file_offset, at);
    view.setUint32(HEADER.backing_file_size, name.length);
  }
  u64(cluster, 2 * cluster);
  for (let index = 0; index < clusters; index++) view.setUint16(2 * cluster + index * 2, 1);
  return bytes;
}
