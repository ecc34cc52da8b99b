/**
 * The "newc" cpio archive that Linux unpacks as its first root file system (Documentation/driver-api/early-userspace/
 * buffer-format.rst of Linux). Archives may follow each other: a later one adds to an earlier one.
 */

/** File types, as stat(2) has them. */
export const S_IF = { REG: 0o100000, DIR: 0o040000, LNK: 0o120000, CHR: 0o020000 } as const;

interface Member {
  readonly name: string;
  readonly mode: number;
  readonly data: Uint8Array;
  readonly links: number;
  readonly major: number;
  readonly minor: number;
}

const HEADER = 110;
const TRAILER = 'TRAILER!!!';

export class CpioArchive {
  private readonly members: Member[] = [];
  private readonly names = new Set<string>();
  private readonly encoder = new TextEncoder();
  private readonly mtime: number;

  /** @param mtime of every member, in seconds since the epoch */
  constructor(mtime = 0) {
    this.mtime = mtime;
  }

  /** A directory, and those above it that are not there yet. @param name without a leading slash */
  directory(name: string, permissions = 0o755): void {
    if (this.names.has(name)) return;
    this.above(name);
    this.add({ name, mode: S_IF.DIR | permissions, data: new Uint8Array(), links: 2, major: 0, minor: 0 });
  }

  file(name: string, data: Uint8Array | string, permissions = 0o644): void {
    this.above(name);
    const bytes = typeof data === 'string' ? this.encoder.encode(data) : data;
    this.add({ name, mode: S_IF.REG | permissions, data: bytes, links: 1, major: 0, minor: 0 });
  }

  symlink(name: string, target: string): void {
    this.above(name);
    this.add({
      name,
      mode: S_IF.LNK | 0o777,
      data: this.encoder.encode(target),
      links: 1,
      major: 0,
      minor: 0,
    });
  }

  characterDevice(name: string, major: number, minor: number, permissions = 0o600): void {
    this.above(name);
    this.add({ name, mode: S_IF.CHR | permissions, data: new Uint8Array(), links: 1, major, minor });
  }

  /** The archive, padded to a multiple of 512 bytes. */
  finish(): Uint8Array {
    const trailer = { name: TRAILER, mode: 0, data: new Uint8Array(), links: 1, major: 0, minor: 0 };
    const all = [...this.members, trailer];
    let size = 0;
    for (const member of all) size += memberSize(member);
    const archive = new Uint8Array(Math.ceil(size / 512) * 512);
    let at = 0;
    for (const [index, member] of all.entries()) {
      const name = this.encoder.encode(`${member.name}\0`);
      const last = member === trailer;
      const fields = [
        last ? 0 : index + 1,
        member.mode,
        0,
        0,
        member.links,
        last ? 0 : this.mtime,
        member.data.length,
        0,
        0,
        member.major,
        member.minor,
        name.length,
        0,
      ];
      const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`;
      archive.set(this.encoder.encode(header), at);
      archive.set(name, at + HEADER);
      archive.set(member.data, at + align(HEADER + name.length));
      at += memberSize(member);
    }
    return archive;
  }

  private above(name: string): void {
    const slash = name.lastIndexOf('/');
    if (slash > 0) this.directory(name.slice(0, slash));
  }

  private add(member: Member): void {
    if (member.name === '' || member.name.startsWith('/'))
      throw new RangeError(`cpio member "${member.name}"`);
    if (this.names.has(member.name)) throw new RangeError(`cpio member "${member.name}" twice`);
    this.names.add(member.name);
    this.members.push(member);
  }
}

function align(size: number): number {
  return (size + 3) & ~3;
}

function memberSize({ name, data }: Member): number {
  return align(HEADER + new TextEncoder().encode(name).length + 1) + align(data.length);
}
