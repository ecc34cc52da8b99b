/**
 * Core dumps of domains, in Xen's format for paravirtual guests (docs/misc/dump-core-format.txt of Xen): an ELF64 core
 * file without program headers, with these sections:
 *
 *   .note.Xen          notes that say what kind of dump this is, and of what
 *   .xen_prstatus      struct vcpu_guest_context of each vCPU
 *   .xen_shared_info   the shared info page
 *   .xen_p2m           for each page: its pseudo-physical number and its frame number, u64 each
 *   .xen_pages         the pages, in that order
 *
 * The domain stands still meanwhile, so that the dump is of one moment. The file gets its name when it is complete.
 */
import { randomBytes } from 'node:crypto';
import { type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { PAGE_SIZE } from '../../machine/memory.ts';
import { type DomainDump, NO_PFN } from '../../xen/dump.ts';
import { GUEST_CONTEXT } from '../../xen/public/arch-x86.ts';
import { HYPERVISOR_VIRT_START } from '../../xen/public/xen.ts';
import { XEN_CAPABILITIES, XEN_VERSION } from '../../xen/xen-version.ts';
import type { Machine } from '../machine.ts';
import { ToolstackError } from './errors.ts';

/** public/elfnote.h XEN_ELFNOTE_DUMPCORE_*. */
const NOTE = { none: 0x2000000, header: 0x2000001, version: 0x2000002, format: 0x2000003 } as const;
/** What the header note says for a paravirtual domain, and which format this is. */
const MAGIC = 0xf00febedn;
const FORMAT_VERSION = 1n;

const SHT = { progbits: 1, strtab: 3, note: 7 } as const;
const HEADER = 64;
const SECTION = 64;
/** Pages that are written at once. */
const BATCH = 256;

interface Section {
  readonly name: string;
  readonly type: number;
  readonly size: number;
  /** Size of an entry, where it is a table. */
  readonly entry?: number;
  readonly align: number;
}

/**
 * Writes a dump of a domain.
 * @param path absolute; a file that is there is replaced
 * @throws ToolstackError failed: the file cannot be written
 */
export async function dumpCore(machine: Machine, domid: number, path: string): Promise<void> {
  const { control } = machine;
  await control.pauseDomain(domid);
  try {
    const dump = await machine.instruments.describeForDump(domid);
    await replaceFile(path, (file) => writeDump(file, dump, machine.memory.u8));
  } finally {
    // Nothing to do if the domain went meanwhile.
    await control.unpauseDomain(domid).catch(() => {});
  }
}

/** @param memory the machine's, by linear address */
export async function writeDump(
  file: Pick<FileHandle, 'write'>,
  { contexts, sharedInfo, pages }: DomainDump,
  memory: Uint8Array,
): Promise<void> {
  const count = pages.length / 3;
  const notes = notesOf(contexts.length, count);
  const p2m = new BigUint64Array(count * 2);
  for (let page = 0; page < count; page++) {
    const pfn = pages[page * 3]!;
    p2m[page * 2] = pfn === NO_PFN ? 0xffff_ffff_ffff_ffffn : BigInt(pfn);
    p2m[page * 2 + 1] = BigInt(pages[page * 3 + 1]!);
  }
  const contextBytes = GUEST_CONTEXT.size * contexts.length;
  const sections: Section[] = [
    { name: '.shstrtab', type: SHT.strtab, size: 0, align: 1 },
    { name: '.note.Xen', type: SHT.note, size: notes.length, align: 8 },
    { name: '.xen_prstatus', type: SHT.progbits, size: contextBytes, entry: GUEST_CONTEXT.size, align: 8 },
    { name: '.xen_shared_info', type: SHT.progbits, size: PAGE_SIZE, align: 8 },
    { name: '.xen_p2m', type: SHT.progbits, size: p2m.byteLength, entry: 16, align: 8 },
    { name: '.xen_pages', type: SHT.progbits, size: count * PAGE_SIZE, entry: PAGE_SIZE, align: PAGE_SIZE },
  ];
  const names = new TextEncoder().encode(`\0${sections.map(({ name }) => `${name}\0`).join('')}`);
  sections[0] = { ...sections[0]!, size: names.length };
  const { headers, offsets } = layOut(sections);
  const put = (bytes: Uint8Array, at: number) => writeAll(file, bytes, at);
  await put(headers, 0);
  await put(names, offsets[0]!);
  await put(notes, offsets[1]!);
  for (const [index, context] of contexts.entries())
    await put(context, offsets[2]! + index * GUEST_CONTEXT.size);
  await put(memory.slice(sharedInfo, sharedInfo + PAGE_SIZE), offsets[3]!);
  await put(new Uint8Array(p2m.buffer), offsets[4]!);
  // Bytes of the machine are shared between threads, which a write to a file does not take.
  const buffer = new Uint8Array(BATCH * PAGE_SIZE);
  for (let page = 0; page < count; page += BATCH) {
    const many = Math.min(BATCH, count - page);
    for (let index = 0; index < many; index++) {
      const at = pages[(page + index) * 3 + 2]! * PAGE_SIZE;
      buffer.set(memory.subarray(at, at + PAGE_SIZE), index * PAGE_SIZE);
    }
    await put(buffer.subarray(0, many * PAGE_SIZE), offsets[5]! + page * PAGE_SIZE);
  }
}

/** The ELF header and the table of sections; where each section's bytes go. */
function layOut(sections: readonly Section[]): { headers: Uint8Array; offsets: number[] } {
  const bytes = new Uint8Array(HEADER + (sections.length + 1) * SECTION);
  const view = new DataView(bytes.buffer);
  // ELFCLASS64, little-endian, version 1; ET_CORE for x86-64.
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 4, true);
  view.setUint16(18, 62, true);
  view.setUint32(20, 1, true);
  view.setBigUint64(40, BigInt(HEADER), true);
  view.setUint16(52, HEADER, true);
  view.setUint16(58, SECTION, true);
  view.setUint16(60, sections.length + 1, true);
  // The table of names is the first section behind the empty one.
  view.setUint16(62, 1, true);
  const offsets: number[] = [];
  let name = 1;
  let end = bytes.length;
  sections.forEach((section, index) => {
    const offset = Math.ceil(end / section.align) * section.align;
    const at = HEADER + (index + 1) * SECTION;
    view.setUint32(at, name, true);
    view.setUint32(at + 4, section.type, true);
    view.setBigUint64(at + 24, BigInt(offset), true);
    view.setBigUint64(at + 32, BigInt(section.size), true);
    view.setBigUint64(at + 48, BigInt(section.align), true);
    view.setBigUint64(at + 56, BigInt(section.entry ?? 0), true);
    offsets.push(offset);
    name += section.name.length + 1;
    end = offset + section.size;
  });
  return { headers: bytes, offsets };
}

function notesOf(vcpus: number, pages: number): Uint8Array {
  const numbers = (...values: bigint[]) => new Uint8Array(BigUint64Array.from(values).buffer);
  const text = (value: string, length: number) => {
    const bytes = new Uint8Array(length);
    bytes.set(new TextEncoder().encode(value).subarray(0, length - 1));
    return bytes;
  };
  const version = [
    numbers(BigInt(XEN_VERSION.major), BigInt(XEN_VERSION.minor)),
    text(XEN_VERSION.extra, 16),
    // Compiler, by whom, where, when.
    ...[64, 16, 32, 32].map((length) => text('', length)),
    text(XEN_CAPABILITIES, 1024),
    text('', 64),
    numbers(BigInt.asUintN(64, BigInt(HYPERVISOR_VIRT_START)), BigInt(PAGE_SIZE)),
  ];
  return concat([
    note(NOTE.none, new Uint8Array()),
    note(NOTE.header, numbers(MAGIC, BigInt(vcpus), BigInt(pages), BigInt(PAGE_SIZE))),
    note(NOTE.version, concat(version)),
    note(NOTE.format, numbers(FORMAT_VERSION)),
  ]);
}

function note(type: number, content: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(12 + 4 + content.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 4, true);
  view.setUint32(4, content.length, true);
  view.setUint32(8, type, true);
  bytes.set(new TextEncoder().encode('Xen\0'), 12);
  bytes.set(content, 16);
  return bytes;
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

async function writeAll(file: Pick<FileHandle, 'write'>, bytes: Uint8Array, at: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += (await file.write(bytes, done, bytes.length - done, at + done)).bytesWritten;
  }
}

const REASONS: Readonly<Record<string, string>> = {
  ENOSPC: 'no space left on the disk',
  EDQUOT: 'no space left on the disk',
  ENOENT: 'no such folder',
  ENOTDIR: 'no such folder',
  EISDIR: 'that is a folder',
  EACCES: 'permission denied',
  EROFS: 'on a read-only file system',
};

/** Writes a file aside and puts it in its place when it is complete. */
export async function replaceFile(path: string, write: (file: FileHandle) => Promise<void>): Promise<void> {
  const aside = `${path}.${randomBytes(4).toString('hex')}.tmp`;
  try {
    // One level: further ones are never made by ourselves, and in /proc Node would try for ever.
    await mkdir(dirname(path)).catch(() => {});
    const file = await open(aside, 'wx', 0o600);
    try {
      await write(file);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(aside, path);
  } catch (error) {
    await rm(aside, { force: true }).catch(() => {});
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined || !(error instanceof Error) || !('syscall' in error)) throw error;
    throw new ToolstackError('failed', `${path}: ${REASONS[code] ?? error.message}`);
  }
}
