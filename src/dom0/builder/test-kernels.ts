/** Kernels made for tests: small ELF files with a description of the wanted kind, sound or damaged. */
import { ELFNOTE } from '../../xen/public/elfnote.ts';

export interface TestSegment {
  readonly type?: number;
  readonly va?: bigint;
  readonly pa: bigint;
  readonly bytes: Uint8Array;
  readonly memorySize?: number;
}

export interface TestSection {
  readonly name: string;
  readonly type: number;
  readonly bytes: Uint8Array;
  readonly link?: number;
}

/** An ELF64 file of x86-64. */
export function makeElf({
  entry = 0n,
  segments,
  sections = [],
}: {
  entry?: bigint;
  segments: readonly TestSegment[];
  sections?: readonly TestSection[];
}): Uint8Array {
  const names = ['', ...sections.map(({ name }) => name), '.shstrtab'];
  const strings = new TextEncoder().encode(`${names.join('\0')}\0`);
  const all = sections.length ? [...sections, { name: '.shstrtab', type: 3, bytes: strings, link: 0 }] : [];
  const segmentBytes = segments.reduce((sum, { bytes }) => sum + bytes.length, 0);
  const sectionBytes = all.reduce((sum, { bytes }) => sum + bytes.length, 0);
  const headersAt = 64 + segments.length * 56;
  const tableAt = Math.ceil((headersAt + segmentBytes + sectionBytes) / 8) * 8;
  const file = new Uint8Array(tableAt + (all.length ? (all.length + 1) * 64 : 0));
  const view = new DataView(file.buffer);
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 2, true);
  view.setUint16(18, 62, true);
  view.setUint32(20, 1, true);
  view.setBigUint64(24, entry, true);
  view.setBigUint64(32, 64n, true);
  view.setBigUint64(40, BigInt(all.length ? tableAt : 0), true);
  view.setUint16(52, 64, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, segments.length, true);
  view.setUint16(58, 64, true);
  view.setUint16(60, all.length ? all.length + 1 : 0, true);
  view.setUint16(62, all.length, true);
  let at = headersAt;
  for (const [index, segment] of segments.entries()) {
    const header = 64 + index * 56;
    view.setUint32(header, segment.type ?? 1, true);
    view.setUint32(header + 4, 7, true);
    view.setBigUint64(header + 8, BigInt(at), true);
    view.setBigUint64(header + 16, segment.va ?? segment.pa, true);
    view.setBigUint64(header + 24, segment.pa, true);
    view.setBigUint64(header + 32, BigInt(segment.bytes.length), true);
    view.setBigUint64(header + 40, BigInt(segment.memorySize ?? segment.bytes.length), true);
    file.set(segment.bytes, at);
    at += segment.bytes.length;
  }
  let nameAt = 1;
  for (const [index, section] of all.entries()) {
    const header = tableAt + (index + 1) * 64;
    view.setUint32(header, nameAt, true);
    view.setUint32(header + 4, section.type, true);
    view.setBigUint64(header + 24, BigInt(at), true);
    view.setBigUint64(header + 32, BigInt(section.bytes.length), true);
    view.setUint32(header + 40, section.link ?? 0, true);
    file.set(section.bytes, at);
    at += section.bytes.length;
    nameAt += section.name.length + 1;
  }
  return file;
}

/** ELF notes. A bigint is 8 bytes, a number 4, a string gets its zero. */
export function makeNotes(
  notes: readonly (readonly [type: number, value: bigint | number | string])[],
  owner = 'Xen',
): Uint8Array {
  const parts = notes.map(([type, value]) => {
    const data =
      typeof value === 'string'
        ? new TextEncoder().encode(`${value}\0`)
        : new Uint8Array(typeof value === 'bigint' ? 8 : 4);
    if (typeof value === 'bigint') new DataView(data.buffer).setBigUint64(0, BigInt.asUintN(64, value), true);
    else if (typeof value === 'number') new DataView(data.buffer).setUint32(0, value, true);
    const name = new TextEncoder().encode(`${owner}\0`);
    const dataAt = 12 + Math.ceil(name.length / 4) * 4;
    const note = new Uint8Array(dataAt + Math.ceil(data.length / 4) * 4);
    const view = new DataView(note.buffer);
    view.setUint32(0, name.length, true);
    view.setUint32(4, data.length, true);
    view.setUint32(8, type, true);
    note.set(name, 12);
    note.set(data, dataAt);
    return note;
  });
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

export const TEST_BASE = 0xffffffff80000000n;

/** A sound kernel of one page of code at 1 MiB, like Linux in its notes. */
export function testKernel(
  options: { notes?: Parameters<typeof makeNotes>[0]; memorySize?: number; code?: Uint8Array } = {},
): Uint8Array {
  const notes = options.notes ?? [
    [ELFNOTE.GUEST_OS, 'test'],
    [ELFNOTE.XEN_VERSION, 'xen-3.0'],
    [ELFNOTE.VIRT_BASE, TEST_BASE],
    [ELFNOTE.ENTRY, TEST_BASE + 0x100010n],
  ];
  const code = options.code ?? Uint8Array.from({ length: 4096 }, (_, index) => index * 7);
  return makeElf({
    segments: [
      { pa: 0x100000n, va: TEST_BASE + 0x100000n, bytes: code, memorySize: options.memorySize ?? 0x3000 },
      { type: 4, pa: 0n, bytes: makeNotes(notes) },
    ],
  });
}

/** A bzImage around a payload; `size` is what the build appends for all formats but gzip. */
export function makeBzImage(payload: Uint8Array, size: number | null): Uint8Array {
  const setup = 5 * 512;
  const offset = 64;
  const trailer = size === null ? 0 : 4;
  const image = new Uint8Array(setup + offset + payload.length + trailer + 32);
  const view = new DataView(image.buffer);
  image[0x1f1] = 4;
  view.setUint16(0x1fe, 0xaa55, true);
  view.setUint32(0x202, 0x53726448, true);
  view.setUint16(0x206, 0x20f, true);
  view.setUint32(0x248, offset, true);
  view.setUint32(0x24c, payload.length + trailer, true);
  image.set(payload, setup + offset);
  if (size !== null) view.setUint32(setup + offset + payload.length, size, true);
  return image;
}
