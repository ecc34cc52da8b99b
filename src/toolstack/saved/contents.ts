/** The contents of a saved domain's memory, on their way into a file and out of it. */
import { PAGE_SIZE } from '../../machine/memory.ts';
import type { Place, SavedDomain } from '../../xen/domain-save.ts';
import { RecordKind, type RecordReader, type RecordWriter } from './format.ts';

/** Bytes of a place in a record, and pages in a record. */
const PIECE = 1 << 20;
const BATCH = 256;

/** A domain's memory as Domain 0 reaches it. */
export interface DomainBytes {
  /** The machine's memory, by linear address. */
  readonly u8: Uint8Array;
  readonly u32: Uint32Array;
  readonly places: readonly Place[];
  /** Linear address of the table with the machine frame behind each of the domain's numbers. */
  readonly frameTable: number;
}

/** The domain must not run meanwhile. */
export async function writeContents(
  writer: RecordWriter,
  { pages }: SavedDomain,
  { u8, u32, places, frameTable }: DomainBytes,
): Promise<void> {
  for (const [number, [address, length]] of places.entries())
    for (let at = 0; at < length; at += PIECE) {
      const piece = u8.subarray(address + at, address + Math.min(at + PIECE, length));
      const bytes = new Uint8Array(8 + piece.length);
      new Uint32Array(bytes.buffer, 0, 2).set([number, at]);
      bytes.set(piece, 8);
      await writer.add(RecordKind.place, bytes);
    }
  /** Pages of the same contents become one meanwhile: what was read counts if the frame was there to the end. */
  const steady = <T>(mfn: number, read: (machineFrame: number) => T): T => {
    for (;;) {
      const frame = Atomics.load(u32, (frameTable >>> 2) + mfn);
      const result = read(frame);
      if (Atomics.load(u32, (frameTable >>> 2) + mfn) === frame) return result;
    }
  };
  let batch: number[] = [];
  const flush = async () => {
    const bytes = new Uint8Array(4 + batch.length * (4 + PAGE_SIZE));
    new Uint32Array(bytes.buffer, 0, batch.length + 1).set([batch.length, ...batch]);
    for (const [index, mfn] of batch.entries())
      steady(mfn, (frame) => {
        const page = u8.subarray(frame * PAGE_SIZE, (frame + 1) * PAGE_SIZE);
        bytes.set(page, 4 + batch.length * 4 + index * PAGE_SIZE);
      });
    batch = [];
    await writer.add(RecordKind.pages, bytes);
  };
  for (const [first, count] of pages)
    for (let mfn = first; mfn < first + count; mfn++) {
      if (steady(mfn, (frame) => isZero(u32, frame))) continue;
      batch.push(mfn);
      if (batch.length === BATCH) await flush();
    }
  if (batch.length > 0) await flush();
}

/**
 * Fills a new domain's memory, which is all zero.
 * @throws ToolstackError invalid: the file names memory that is not the domain's
 */
export async function readContents(
  reader: RecordReader,
  { pages, frameNumbers }: SavedDomain,
  { u8, u32, places, frameTable }: DomainBytes,
): Promise<void> {
  const own = new Uint8Array(frameNumbers);
  for (const [first, count] of pages) own.fill(1, first, first + count);
  for (let record = await reader.next(); record !== null; record = await reader.next()) {
    const { kind, bytes } = record;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (kind === RecordKind.place && bytes.length >= 8) {
      const place = places[view.getUint32(0, true)];
      const at = view.getUint32(4, true);
      if (!place || at + bytes.length - 8 > place[1]) throw reader.damaged();
      u8.set(bytes.subarray(8), place[0] + at);
    } else if (kind === RecordKind.pages && bytes.length >= 4) {
      const count = view.getUint32(0, true);
      if (bytes.length !== 4 + count * (4 + PAGE_SIZE)) throw reader.damaged();
      for (let index = 0; index < count; index++) {
        const mfn = view.getUint32(4 + index * 4, true);
        if (own[mfn] !== 1) throw reader.damaged();
        const from = 4 + count * 4 + index * PAGE_SIZE;
        u8.set(bytes.subarray(from, from + PAGE_SIZE), u32[(frameTable >>> 2) + mfn]! * PAGE_SIZE);
      }
    } else throw reader.damaged();
  }
}

function isZero(u32: Uint32Array, machineFrame: number): boolean {
  const at = machineFrame * (PAGE_SIZE / 4);
  for (let word = at; word < at + PAGE_SIZE / 4; word++) if (u32[word] !== 0) return false;
  return true;
}
