/**
 * A 9P2000.L server for one client (the protocol: diod's protocol.md and the Linux client's 9p.h).
 *
 * Requests run side by side and are answered as they end; one that flushes another is answered after it. What a
 * request says is checked before anything is done; an answer is never longer than the client has asked for.
 */
import { ERRNO } from '../../xen/public/errno.ts';
import { DirectoryReader, type Fid, Fids } from './fid.ts';
import { type Attributes, type Changes, FileError, type FileNode, type OpenMode } from './files.ts';
import { type FileLocks, type Lock, LockType, NO_END } from './locks.ts';
import { HEADER, MessageReader, MessageWriter, P9, READ_HEADER } from './messages.ts';

const VERSION = '9P2000.L';
/** The smallest message size that a client may ask for. */
const MIN_MSIZE = 4096;
const MAX_WALK = 16;
const NAME_MAX = 255;
/** Modes that a guest cannot give: a program of its own that runs on the host as us. */
const PERMISSIONS = 0o1777;

/** Flags of opening: Linux's numbers. */
const OPEN = { accessMode: 3, creat: 0o100, excl: 0o200, trunc: 0o1000, dsync: 0o10000 } as const;
/** Bits of Tsetattr's valid. */
const SET = {
  ...{ mode: 1, uid: 2, gid: 4, size: 8, atime: 0x10, mtime: 0x20 },
  ...{ atimeSet: 0x80, mtimeSet: 0x100 },
} as const;
/** Bits of Rgetattr's valid: all that stat(2) has. */
const GETATTR_BASIC = 0x7ffn;
const AT_REMOVEDIR = 0x200;
const LOCK_SUCCESS = 0;
const LOCK_BLOCKED = 1;
const QID_DIRECTORY = 0x80;
const QID_SYMLINK = 0x02;

export interface P9Options {
  /** The folder. It is not released with the server. */
  readonly root: FileNode;
  readonly readonly: boolean;
  readonly locks: FileLocks;
}

type Handler = (message: MessageReader, writer: MessageWriter) => Promise<void>;

export class P9Server {
  private readonly root: FileNode;
  private readonly readonly: boolean;
  private readonly locks: FileLocks;
  private readonly fids = new Fids();
  private readonly handlers: ReadonlyMap<number, Handler>;
  /** Requests under way; and the last one of each tag. */
  private readonly running = new Set<Promise<unknown>>();
  private readonly byTag = new Map<number, Promise<unknown>>();
  private msize: number;
  private readonly maxMessage: number;
  private rootDevice: bigint | null = null;

  /** @param maxMessage bytes of the longest message that can be exchanged */
  constructor({ root, readonly, locks }: P9Options, maxMessage: number) {
    this.root = root;
    this.readonly = readonly;
    this.locks = locks;
    this.maxMessage = maxMessage;
    this.msize = maxMessage;
    this.handlers = new Map<number, Handler>([
      [P9.version, (m, w) => this.version(m, w)],
      [P9.attach, (m, w) => this.attach(m, w)],
      [P9.flush, (m) => this.flush(m)],
      [P9.walk, (m, w) => this.walk(m, w)],
      [P9.clunk, (m) => this.fids.remove(m.u32())],
      [P9.statfs, (m, w) => this.statfs(m, w)],
      [P9.lopen, (m, w) => this.lopen(m, w)],
      [P9.lcreate, (m, w) => this.lcreate(m, w)],
      [P9.symlink, (m, w) => this.symlink(m, w)],
      [P9.mkdir, (m, w) => this.mkdir(m, w)],
      [P9.link, (m) => this.link(m)],
      [P9.rename, (m) => this.rename(m)],
      [P9.renameat, (m) => this.renameat(m)],
      [P9.unlinkat, (m) => this.unlinkat(m)],
      [P9.remove, (m) => this.remove(m)],
      [P9.readlink, (m, w) => this.readlink(m, w)],
      [P9.getattr, (m, w) => this.getattr(m, w)],
      [P9.setattr, (m) => this.setattr(m)],
      [P9.readdir, (m, w) => this.readdir(m, w)],
      [P9.read, (m, w) => this.read(m, w)],
      [P9.write, (m, w) => this.write(m, w)],
      [P9.fsync, (m) => this.fsync(m)],
      [P9.lock, (m, w) => this.lock(m, w)],
      [P9.getlock, (m, w) => this.getlock(m, w)],
    ]);
  }

  /**
   * Carries a request out. Never fails: what went wrong is in the answer.
   * @param bytes a whole message, at least its header; it is not kept after the answer
   */
  async handle(bytes: Uint8Array): Promise<Uint8Array> {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const type = view.getUint8(4);
    const tag = view.getUint16(5, true);
    const done = this.carryOut(type, bytes);
    this.running.add(done);
    this.byTag.set(tag, done);
    const outcome = await done;
    this.running.delete(done);
    if (this.byTag.get(tag) === done) this.byTag.delete(tag);
    if (typeof outcome !== 'number') return outcome.finish(type + 1, tag);
    return new MessageWriter().u32(outcome).finish(P9.lerror + 1, tag);
  }

  /** The client is gone: nothing stays open. Settles after what is under way. */
  async close(): Promise<void> {
    await Promise.all(this.running);
    await this.fids.clear();
    this.locks.release(this);
  }

  /** @returns the answer, or an error number */
  private async carryOut(type: number, bytes: Uint8Array): Promise<MessageWriter | number> {
    const handler = this.handlers.get(type);
    if (!handler) return ERRNO.EOPNOTSUPP;
    const writer = new MessageWriter();
    try {
      if (bytes.length > this.msize) throw new FileError(ERRNO.EMSGSIZE);
      await handler(new MessageReader(bytes), writer);
      return writer;
    } catch (error) {
      return error instanceof FileError ? error.errno : ERRNO.EIO;
    }
  }

  // --- The session ---

  private async version(m: MessageReader, w: MessageWriter): Promise<void> {
    const msize = m.u32();
    const version = m.string();
    if (msize < MIN_MSIZE) throw new FileError(ERRNO.EINVAL);
    await this.fids.clear();
    this.locks.release(this);
    this.msize = Math.min(msize, this.maxMessage);
    w.u32(this.msize).string(version === VERSION ? VERSION : 'unknown');
  }

  private async attach(m: MessageReader, w: MessageWriter): Promise<void> {
    const fid = m.u32();
    this.fids.check(fid);
    const attributes = await this.root.attributes();
    this.rootDevice = attributes.dev;
    this.fids.add(fid, this.root.retain());
    this.qid(w, attributes);
  }

  private async flush(m: MessageReader): Promise<void> {
    // Its answer, which comes first, tells the client that it was carried out.
    await this.byTag.get(m.u16());
  }

  private walk(m: MessageReader, w: MessageWriter): Promise<void> {
    const from = m.u32();
    const number = m.u32();
    const count = m.u16();
    if (count > MAX_WALK) throw new FileError(ERRNO.EINVAL);
    const names = Array.from({ length: count }, () => m.string());
    return this.fids.get(from).use(async ({ node }) => {
      if (number !== from) this.fids.check(number);
      let at = node.retain();
      const qids = new MessageWriter();
      let walked = 0;
      try {
        for (const name of names) {
          const next = name === '..' ? (at.parent ?? at).retain() : await at.lookup(checkedName(name));
          at.release();
          at = next;
          this.qid(qids, await at.attributes());
          walked++;
        }
      } catch (error) {
        // That some names were found is an answer; that the first one was not is an error.
        if (walked === 0) {
          at.release();
          throw error;
        }
      }
      if (walked < names.length) at.release();
      else if (number === from) this.fids.replace(number, at);
      else this.fids.add(number, at);
      w.u16(walked);
      w.room(qids.length - HEADER).set(qids.finish(0, 0).subarray(HEADER));
    });
  }

  // --- Files ---

  private lopen(m: MessageReader, w: MessageWriter): Promise<void> {
    return this.fid(m).use(async (fid) => {
      const flags = m.u32();
      const mode = openMode(flags);
      if (fid.isOpen) throw new FileError(ERRNO.EINVAL);
      if (mode.write || mode.truncate) this.mayWrite();
      if (fid.node.kind === 'directory') {
        if (mode.write || mode.truncate) throw new FileError(ERRNO.EISDIR);
        fid.directory = new DirectoryReader(fid.node);
      } else {
        const file = await fid.node.open(mode);
        if (fid.isOpen) {
          await file.close();
          throw new FileError(ERRNO.EINVAL);
        }
        fid.file = file;
      }
      this.qid(w, await fid.node.attributes());
      w.u32(0);
    });
  }

  private async lcreate(m: MessageReader, w: MessageWriter): Promise<void> {
    const number = m.u32();
    await this.fids.get(number).use(async (fid) => {
      const name = checkedName(m.string());
      const flags = m.u32();
      const permissions = m.u32() & PERMISSIONS;
      this.mayWrite();
      if (fid.isOpen) throw new FileError(ERRNO.EINVAL);
      const exclusive = (flags & OPEN.excl) !== 0;
      const { node, file } = await fid.node.create(name, openMode(flags), permissions, exclusive);
      try {
        this.qid(w, await node.attributes());
        if (this.fids.get(number) !== fid) throw new FileError(ERRNO.EBADF);
      } catch (error) {
        node.release();
        await file.close();
        throw error;
      }
      // The number stands for the new file from now on.
      this.fids.replace(number, node);
      this.fids.get(number).file = file;
      w.u32(0);
    });
  }

  private read(m: MessageReader, w: MessageWriter): Promise<void> {
    return this.fid(m).use(async ({ file }) => {
      const offset = m.offset();
      const count = Math.min(m.u32(), this.msize - READ_HEADER);
      if (!file) throw new FileError(ERRNO.EBADF);
      w.u32(0);
      const into = w.room(count);
      const done = await file.read(offset, into);
      w.cut(READ_HEADER + done);
      w.patch(HEADER, done);
    });
  }

  private write(m: MessageReader, w: MessageWriter): Promise<void> {
    return this.fid(m).use(async ({ file }) => {
      const offset = m.offset();
      const bytes = m.rest(m.u32());
      if (!file) throw new FileError(ERRNO.EBADF);
      this.mayWrite();
      w.u32(await file.write(offset, bytes));
    });
  }

  private fsync(m: MessageReader): Promise<void> {
    return this.fid(m).use(async ({ node, file }) => {
      const dataOnly = m.left >= 4 && m.u32() !== 0;
      if (file) await file.sync(dataOnly);
      else if (node.kind === 'directory') await node.syncDirectory();
      else throw new FileError(ERRNO.EBADF);
    });
  }

  private readdir(m: MessageReader, w: MessageWriter): Promise<void> {
    return this.fid(m).use(async ({ directory }) => {
      const cookie = m.offset();
      const count = Math.min(m.u32(), this.msize - READ_HEADER);
      if (!directory) throw new FileError(ERRNO.EBADF);
      w.u32(0);
      await directory.read(cookie, ({ name, attributes, cookie: behind }) => {
        const before = w.length;
        this.qid(w, attributes);
        w.u64(BigInt(behind))
          .u8(Number(attributes.mode >> 12n))
          .string(name);
        if (w.length <= READ_HEADER + count) return true;
        w.cut(before);
        return false;
      });
      w.patch(HEADER, w.length - READ_HEADER);
    });
  }

  private getattr(m: MessageReader, w: MessageWriter): Promise<void> {
    return this.fid(m).use(async ({ node }) => {
      const attributes = await node.attributes();
      const { mode, uid, gid, nlink, rdev, size, blksize, blocks } = attributes;
      w.u64(GETATTR_BASIC);
      this.qid(w, attributes);
      w.u32(Number(mode)).u32(Number(uid)).u32(Number(gid));
      w.u64(nlink).u64(rdev).u64(size).u64(blksize).u64(blocks);
      for (const time of [attributes.atimeNs, attributes.mtimeNs, attributes.ctimeNs, 0n]) {
        // Nanoseconds count up from the second before, before 1970 too.
        const nanoseconds = ((time % NS) + NS) % NS;
        w.u64((time - nanoseconds) / NS).u64(nanoseconds);
      }
      // No generation, no version of the data.
      w.u64(0n).u64(0n);
    });
  }

  private setattr(m: MessageReader): Promise<void> {
    return this.fid(m).use(async ({ node }) => {
      const valid = m.u32();
      const mode = m.u32() & PERMISSIONS;
      const uid = m.u32();
      const gid = m.u32();
      const size = m.offset();
      const atime = m.u64() * NS + m.u64();
      const mtime = m.u64() * NS + m.u64();
      this.mayWrite();
      const has = (bit: number) => (valid & bit) !== 0;
      const changes: Changes = {
        ...(has(SET.mode) ? { mode } : {}),
        ...(has(SET.uid) ? { uid } : {}),
        ...(has(SET.gid) ? { gid } : {}),
        ...(has(SET.size) ? { size } : {}),
        ...(has(SET.atime) ? { atime: has(SET.atimeSet) ? atime : 'now' } : {}),
        ...(has(SET.mtime) ? { mtime: has(SET.mtimeSet) ? mtime : 'now' } : {}),
      };
      await node.change(changes);
    });
  }

  private statfs(m: MessageReader, w: MessageWriter): Promise<void> {
    return this.fid(m).use(async ({ node }) => {
      const facts = await node.facts();
      w.u32(Number(BigInt.asUintN(32, facts.type))).u32(Number(BigInt.asUintN(32, facts.bsize)));
      w.u64(facts.blocks).u64(facts.bfree).u64(facts.bavail).u64(facts.files).u64(facts.ffree);
      w.u64(0n).u32(NAME_MAX);
    });
  }

  private readlink(m: MessageReader, w: MessageWriter): Promise<void> {
    return this.fid(m).use(async ({ node }) => {
      w.string(await node.readlink());
    });
  }

  // --- Names ---

  private symlink(m: MessageReader, w: MessageWriter): Promise<void> {
    return this.fid(m).use(async ({ node }) => {
      const name = checkedName(m.string());
      const target = m.string();
      this.mayWrite();
      if (target === '' || target.includes('\0')) throw new FileError(ERRNO.EINVAL);
      await this.made(w, node.symlink(name, target));
    });
  }

  private mkdir(m: MessageReader, w: MessageWriter): Promise<void> {
    return this.fid(m).use(async ({ node }) => {
      const name = checkedName(m.string());
      const permissions = m.u32() & PERMISSIONS;
      this.mayWrite();
      await this.made(w, node.mkdir(name, permissions));
    });
  }

  private async made(w: MessageWriter, making: Promise<FileNode>): Promise<void> {
    const node = await making;
    try {
      this.qid(w, await node.attributes());
    } finally {
      node.release();
    }
  }

  private link(m: MessageReader): Promise<void> {
    return this.fid(m).use((folder) =>
      this.fid(m).use(async (to) => {
        const name = checkedName(m.string());
        this.mayWrite();
        await folder.node.link(name, to.node);
      }),
    );
  }

  private rename(m: MessageReader): Promise<void> {
    return this.fid(m).use((fid) =>
      this.fid(m).use(async (folder) => {
        const name = checkedName(m.string());
        this.mayWrite();
        const { node } = fid;
        if (!node.parent) throw new FileError(ERRNO.EBUSY);
        await node.moveTo(folder.node, name);
      }),
    );
  }

  private renameat(m: MessageReader): Promise<void> {
    return this.fid(m).use(async (from) => {
      const name = checkedName(m.string());
      await this.fid(m).use(async (to) => {
        const newName = checkedName(m.string());
        this.mayWrite();
        await from.node.rename(name, to.node, newName);
      });
    });
  }

  private unlinkat(m: MessageReader): Promise<void> {
    return this.fid(m).use(async ({ node }) => {
      const name = checkedName(m.string());
      const flags = m.u32();
      this.mayWrite();
      await ((flags & AT_REMOVEDIR) !== 0 ? node.rmdir(name) : node.unlink(name));
    });
  }

  /** The number is given up even if the file cannot be removed. */
  private async remove(m: MessageReader): Promise<void> {
    const number = m.u32();
    const fid = this.fids.get(number);
    try {
      await fid.use(async ({ node }) => {
        this.mayWrite();
        await node.remove();
      });
    } finally {
      if (this.fids.get(number) === fid) await this.fids.remove(number);
    }
  }

  // --- Locks ---

  private lock(m: MessageReader, w: MessageWriter): Promise<void> {
    return this.fid(m).use(async ({ node }) => {
      const type = m.u8();
      m.u32();
      const lock = this.lockOf(m, type);
      if (type > LockType.unlock) throw new FileError(ERRNO.EINVAL);
      w.u8(this.locks.set(await identity(node), lock) ? LOCK_SUCCESS : LOCK_BLOCKED);
    });
  }

  private getlock(m: MessageReader, w: MessageWriter): Promise<void> {
    return this.fid(m).use(async ({ node }) => {
      const type = m.u8();
      const lock = this.lockOf(m, type);
      const other = this.locks.conflict(await identity(node), lock);
      const found = other ?? { ...lock, type: LockType.unlock };
      const length = found.end === NO_END ? 0n : found.end - found.start;
      w.u8(found.type).u64(found.start).u64(length).u32(found.process).string(found.client);
    });
  }

  private lockOf(m: MessageReader, type: number): Lock {
    const start = m.u64();
    const length = m.u64();
    const process = m.u32();
    const client = m.string();
    const end = length === 0n || start + length > NO_END ? NO_END : start + length;
    return { type, start, end, session: this, process, client };
  }

  // --- Small things ---

  private fid(m: MessageReader): Fid {
    return this.fids.get(m.u32());
  }

  private mayWrite(): void {
    if (this.readonly) throw new FileError(ERRNO.EROFS);
  }

  /** type[1] version[4] path[8]: what tells one file from another. */
  private qid(w: MessageWriter, { mode, mtimeNs, size, ino, dev }: Attributes): void {
    const format = Number(mode) & S_IFMT;
    const type = format === S_IFDIR ? QID_DIRECTORY : format === S_IFLNK ? QID_SYMLINK : 0;
    // File systems that are mounted in the folder number their files as this one does.
    const path = dev === this.rootDevice || this.rootDevice === null ? ino : ino ^ (dev << 40n);
    w.u8(type)
      .u32(Number(BigInt.asUintN(32, mtimeNs ^ (size << 8n))))
      .u64(path);
  }
}

const NS = 1_000_000_000n;
const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFLNK = 0o120000;

/** @throws FileError: it cannot be the name of a file */
function checkedName(name: string): string {
  if (name.length > NAME_MAX) throw new FileError(ERRNO.ENAMETOOLONG);
  if (name === '' || name === '.' || name === '..' || /[/\0]/.test(name)) throw new FileError(ERRNO.EINVAL);
  return name;
}

function openMode(flags: number): OpenMode {
  const access = flags & OPEN.accessMode;
  if (access === OPEN.accessMode) throw new FileError(ERRNO.EINVAL);
  return {
    read: access !== 1,
    write: access !== 0,
    truncate: (flags & OPEN.trunc) !== 0,
    sync: (flags & OPEN.dsync) !== 0,
  };
}

async function identity(node: FileNode): Promise<string> {
  const { dev, ino } = await node.attributes();
  return `${dev}:${ino}`;
}
