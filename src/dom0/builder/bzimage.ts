/**
 * Linux's bzImage: a boot sector, real-mode set-up code and a protected-mode part that carries the kernel's ELF
 * file, packed. The fields are those of the x86 boot protocol (Documentation/x86/boot.rst of Linux), version 2.08
 * or later, which says where the payload is.
 */
import { decompress } from './decompress.ts';
import { BuildError } from './error.ts';

const SETUP_SECTORS = 0x1f1;
const BOOT_FLAG = 0x1fe;
const HEADER_MAGIC = 0x202;
const PROTOCOL = 0x206;
const PAYLOAD_OFFSET = 0x248;
const PAYLOAD_LENGTH = 0x24c;
const HEADER_END = 0x250;

const SECTOR = 512;
const HDRS = 0x53726448;
const ELF_MAGIC = 0x464c457f;

/** Whether the bytes begin as a bzImage does. */
export function isBzImage(bytes: Uint8Array): boolean {
  const view = viewOf(bytes);
  return (
    bytes.length >= HEADER_MAGIC + 4 &&
    view.getUint16(BOOT_FLAG, true) === 0xaa55 &&
    view.getUint32(HEADER_MAGIC, true) === HDRS
  );
}

/**
 * The kernel's ELF file out of a bzImage.
 * @throws BuildError
 */
export function unpackBzImage(bytes: Uint8Array): Uint8Array {
  const view = viewOf(bytes);
  if (bytes.length < HEADER_END) throw new BuildError('the kernel is truncated: it ends in its boot header');
  const protocol = view.getUint16(PROTOCOL, true);
  if (protocol < 0x208) {
    const version = `${protocol >>> 8}.${String(protocol & 255).padStart(2, '0')}`;
    throw new BuildError(`the kernel is too old: boot protocol ${version}, 2.08 is needed`);
  }
  const start = ((bytes[SETUP_SECTORS]! || 4) + 1) * SECTOR + view.getUint32(PAYLOAD_OFFSET, true);
  const length = view.getUint32(PAYLOAD_LENGTH, true);
  if (length < 16) throw new BuildError('the kernel is corrupt: its payload is empty');
  if (start + length > bytes.length) {
    throw new BuildError(
      `the kernel is truncated: its payload ends at byte ${start + length}, the file at ${bytes.length}`,
    );
  }
  const payload = bytes.subarray(start, start + length);
  if (viewOf(payload).getUint32(0, true) === ELF_MAGIC) return payload;
  // The build appends the unpacked size to every format but gzip, whose own last field it is.
  const size = view.getUint32(start + length - 4, true);
  const gzip = payload[0] === 0x1f && payload[1] === 0x8b;
  return decompress(gzip ? payload : payload.subarray(0, length - 4), size);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
