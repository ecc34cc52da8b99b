/**
 * How a paravirtual kernel describes itself: as ELF notes in a PT_NOTE segment (Linux, GRUB), as ELF notes in a
 * SHT_NOTE section (Mini-OS and its descendants), or as the string of a `__xen_guest` section (NetBSD, old Linux).
 * Source: public/elfnote.h, which gives each note's type, its default and the legacy key that it replaced.
 */

import { join64, type VirtualAddress } from '../../x86/cpu.ts';
import { ELFNOTE, ELFNOTE_NAME } from '../../xen/public/elfnote.ts';
import { type Elf, PT, SHT, text } from './elf.ts';
import { BuildError } from './error.ts';

export interface KernelDescription {
  /** Where the description was found. */
  readonly source: 'PT_NOTE' | 'SHT_NOTE' | '__xen_guest';
  readonly guestOs: string;
  readonly guestVersion: string;
  readonly xenVersion: string;
  readonly loader: string;
  readonly entry: VirtualAddress;
  /** Where the hypercall page is wanted; null: the kernel makes its calls without one. */
  readonly hypercallPage: VirtualAddress | null;
  /** The virtual address of pseudo-physical address 0. */
  readonly virtBase: VirtualAddress;
  /** What the ELF file's physical addresses have on top of pseudo-physical ones. */
  readonly paddrOffset: number;
  /** Where the list of frames is wanted; null: behind the kernel. */
  readonly initP2m: VirtualAddress | null;
  /** Whether the ramdisk may be given by its frame number and left unmapped. */
  readonly modStartPfn: boolean;
  /** Whether the symbol table is wanted behind the kernel, as BSD kernels look for it. */
  readonly bsdSymtab: boolean;
  readonly suspendCancel: boolean;
  /** Names of features (features.h) without which the kernel cannot run. */
  readonly requiredFeatures: readonly string[];
  readonly supportedFeatures: readonly string[];
}

/** What the notes or the string say; absent where they say nothing. */
interface Raw {
  entry?: number;
  hypercallPage?: number;
  virtBase?: number;
  paddrOffset?: number;
  initP2m?: number;
  modStartPfn?: boolean;
  bsdSymtab?: boolean;
  suspendCancel?: boolean;
  phys32Entry?: boolean;
  guestOs?: string;
  guestVersion?: string;
  xenVersion?: string;
  loader?: string;
  features?: string;
}

/** Features that no paravirtual domain has: a kernel that needs one is for another kind of domain. */
const NOT_PARAVIRTUAL = new Set([
  'auto_translated_physmap',
  'supervisor_mode_kernel',
  'hvm_callback_vector',
  'dom0',
]);

/**
 * The kernel's own description.
 * @throws BuildError where there is none, or where it asks for something that a paravirtual domain does not have
 */
export function describeKernel(elf: Elf): KernelDescription {
  let raw: Raw | null = null;
  let source: KernelDescription['source'] = 'PT_NOTE';
  for (const segment of elf.segments) {
    if (segment.type === PT.NOTE) raw ??= fromNotes(segment.bytes);
  }
  if (!raw) {
    source = 'SHT_NOTE';
    for (const section of elf.sections) {
      if (section.type === SHT.NOTE) raw ??= fromNotes(section.bytes);
    }
  }
  if (!raw) {
    source = '__xen_guest';
    const section = elf.sections.find(({ name }) => name === '__xen_guest');
    if (section) raw = fromString(text(section.bytes, 0));
  }
  if (!raw)
    throw new BuildError(
      'the kernel does not support Xen: it has neither Xen notes nor a __xen_guest section',
    );
  return complete(elf, raw, source);
}

function complete(elf: Elf, raw: Raw, source: KernelDescription['source']): KernelDescription {
  if (source !== '__xen_guest' && raw.entry === undefined && raw.phys32Entry) {
    throw new BuildError(
      'the kernel supports Xen only as a PVH guest: paravirtual support (CONFIG_XEN_PV) is missing',
    );
  }
  const xenVersion = raw.xenVersion ?? 'xen-3.0';
  if (xenVersion !== 'xen-3.0')
    throw new BuildError(`the kernel is for another Xen (${printable(xenVersion)})`);
  const features = (raw.features ?? '').split('|').filter((name) => name !== '');
  const requiredFeatures = features.filter((name) => name.startsWith('!')).map((name) => name.slice(1));
  const missing = requiredFeatures.find((name) => NOT_PARAVIRTUAL.has(name));
  if (missing) throw new BuildError(`the kernel needs ${missing}, which a paravirtual domain does not have`);
  const virtBase = raw.virtBase ?? 0;
  return {
    source,
    guestOs: printable(raw.guestOs ?? ''),
    guestVersion: printable(raw.guestVersion ?? ''),
    xenVersion,
    loader: printable(raw.loader ?? ''),
    entry: raw.entry ?? elf.entry,
    hypercallPage: raw.hypercallPage ?? null,
    virtBase,
    paddrOffset: raw.paddrOffset ?? (source === '__xen_guest' ? virtBase : 0),
    initP2m: raw.initP2m ?? null,
    modStartPfn: raw.modStartPfn ?? false,
    bsdSymtab: raw.bsdSymtab ?? false,
    suspendCancel: raw.suspendCancel ?? false,
    requiredFeatures,
    supportedFeatures: features.map((name) => name.replace(/^!/, '')),
  };
}

function printable(value: string): string {
  return value.replace(/[^\x20-\x7e]/g, '?');
}

/** What a run of ELF notes says, or null if none of them is Xen's. */
function fromNotes(bytes: Uint8Array): Raw | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let raw: Raw | null = null;
  let at = 0;
  while (at + 12 <= bytes.length) {
    const nameSize = view.getUint32(at, true);
    const size = view.getUint32(at + 4, true);
    const type = view.getUint32(at + 8, true);
    const nameAt = at + 12;
    const dataAt = nameAt + align4(nameSize);
    if (dataAt + size > bytes.length)
      throw new BuildError('the kernel is corrupt: its notes end in the middle of one');
    if (text(bytes.subarray(nameAt, nameAt + nameSize), 0) === ELFNOTE_NAME) {
      raw ??= {};
      note(raw, type, bytes.subarray(dataAt, dataAt + size));
    }
    at = dataAt + align4(size);
  }
  return raw;
}

function align4(size: number): number {
  return Math.ceil(size / 4) * 4;
}

function note(raw: Raw, type: number, data: Uint8Array): void {
  const number = () => {
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    if (data.length === 4) return view.getUint32(0, true);
    if (data.length === 8) return join64(view.getUint32(0, true), view.getUint32(4, true));
    throw new BuildError(`the kernel is corrupt: its Xen note ${type} is not a number`);
  };
  const string = () => text(data, 0);
  switch (type) {
    case ELFNOTE.ENTRY:
      raw.entry = number();
      break;
    case ELFNOTE.HYPERCALL_PAGE:
      raw.hypercallPage = number();
      break;
    case ELFNOTE.VIRT_BASE:
      raw.virtBase = number();
      break;
    case ELFNOTE.PADDR_OFFSET:
      raw.paddrOffset = number();
      break;
    case ELFNOTE.INIT_P2M:
      raw.initP2m = number();
      break;
    case ELFNOTE.MOD_START_PFN:
      raw.modStartPfn = number() !== 0;
      break;
    case ELFNOTE.SUSPEND_CANCEL:
      raw.suspendCancel = number() !== 0;
      break;
    case ELFNOTE.BSD_SYMTAB:
      raw.bsdSymtab = string() === 'yes';
      break;
    case ELFNOTE.PHYS32_ENTRY:
      raw.phys32Entry = true;
      break;
    case ELFNOTE.GUEST_OS:
      raw.guestOs = string();
      break;
    case ELFNOTE.GUEST_VERSION:
      raw.guestVersion = string();
      break;
    case ELFNOTE.XEN_VERSION:
      raw.xenVersion = string();
      break;
    case ELFNOTE.LOADER:
      raw.loader = string();
      break;
    case ELFNOTE.FEATURES:
      raw.features = string();
      break;
  }
}

/** The legacy string: `KEY=value` pairs and lone keys, between commas. */
function fromString(description: string): Raw {
  const raw: Raw = {};
  let hypercallPfn: number | undefined;
  for (const pair of description.split(',')) {
    const equals = pair.indexOf('=');
    const key = (equals < 0 ? pair : pair.slice(0, equals)).trim();
    const value = equals < 0 ? '' : pair.slice(equals + 1).trim();
    switch (key) {
      case 'VIRT_BASE':
        raw.virtBase = legacyNumber(key, value);
        break;
      case 'VIRT_ENTRY':
        raw.entry = legacyNumber(key, value);
        break;
      case 'ELF_PADDR_OFFSET':
        raw.paddrOffset = legacyNumber(key, value);
        break;
      case 'HYPERCALL_PAGE':
        hypercallPfn = legacyNumber(key, value);
        break;
      case 'BSD_SYMTAB':
        raw.bsdSymtab = true;
        break;
      case 'GUEST_OS':
        raw.guestOs = value;
        break;
      case 'GUEST_VER':
        raw.guestVersion = value;
        break;
      case 'XEN_VER':
        raw.xenVersion = value;
        break;
      case 'LOADER':
        raw.loader = value;
        break;
      case 'FEATURES':
        raw.features = value;
        break;
    }
  }
  // Here the hypercall page is a page number within the kernel's memory, not an address.
  if (hypercallPfn !== undefined) raw.hypercallPage = (raw.virtBase ?? 0) + hypercallPfn * 4096;
  return raw;
}

/** A number as C's strtoull reads it, as a signed 64-bit one. */
function legacyNumber(key: string, value: string): number {
  if (!/^(0x[0-9a-f]{1,16}|\d{1,20})$/i.test(value)) {
    throw new BuildError(`the kernel is corrupt: its __xen_guest section says ${key}=${printable(value)}`);
  }
  const octal = /^0[0-7]+$/.test(value);
  return Number(BigInt.asIntN(64, BigInt(octal ? `0o${value.slice(1)}` : value)));
}
