/**
 * A folder of the host's, to be shared: the files of src/dom0/9pfs/files.ts in Node, on Linux.
 *
 * A node is a descriptor of the file itself (O_PATH), and whatever is done to one goes by /proc/self/fd/N: that leads
 * to the very file that the descriptor stands for, and /proc/self/fd/N/NAME to a name in that very directory. So it is
 * what openat(2) and its kin would do: one name is looked up at a time, links are not followed (O_NOFOLLOW), and
 * nobody who renames things meanwhile can lead us astray. Files that are not plain ones are never opened: that could
 * wait for ever, or do something (a pipe, a device).
 */
import * as fs from 'node:fs';
import { promisify } from 'node:util';
import {
  type Attributes,
  type Changes,
  type DirectoryEntry,
  FileError,
  type FileNode,
  type FileSystemFacts,
  type OpenDirectory,
  type OpenFile,
  type OpenMode,
} from '../../dom0/9pfs/files.ts';
import { ERRNO } from '../../xen/public/errno.ts';

const { O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_EXCL, O_TRUNC, O_NOFOLLOW, O_DIRECTORY, O_DSYNC, O_NONBLOCK } =
  fs.constants;
/** Linux's; Node does not name it. */
const O_PATH = 0o10000000;
/** Entries of a directory that are looked at together. */
const BATCH = 32;
const NS = 1e9;

const open = promisify(fs.open);
const close = promisify(fs.close);
const fsync = promisify(fs.fsync);
const fdatasync = promisify(fs.fdatasync);
const ftruncate = promisify(fs.ftruncate);
const fchmod = promisify(fs.fchmod);
const fstat = (fd: number) =>
  new Promise<fs.BigIntStats>((resolve, reject) => {
    fs.fstat(fd, { bigint: true }, (error, stats) => (error ? reject(error) : resolve(stats)));
  });

/** Counts the descriptors that shared folders hold, all together, so that none are missing elsewhere. */
export class DescriptorBudget {
  private used = 0;
  private readonly limit: number;

  constructor(limit: number) {
    this.limit = limit;
  }

  /** Half of what this process may have open. */
  static ofProcess(): DescriptorBudget {
    try {
      const limits = fs.readFileSync('/proc/self/limits', 'latin1');
      const limit = Number(/^Max open files +\S+ +(\d+)/m.exec(limits)?.[1] ?? 1024);
      return new DescriptorBudget(Math.max(64, Math.floor(limit / 2)));
    } catch {
      return new DescriptorBudget(512);
    }
  }

  /** @throws FileError ENFILE */
  take(): void {
    if (this.used >= this.limit) throw new FileError(ERRNO.ENFILE);
    this.used++;
  }

  give(): void {
    this.used--;
  }
}

/** What the nodes of one folder have in common. */
interface Tree {
  readonly budget: DescriptorBudget;
  /** Those that are held: when a file is moved, they are told where to. */
  readonly nodes: Set<HostNode>;
}

/**
 * Holds a folder.
 * @param budget that it shares with others
 * @throws Error with a code of Node's: it cannot be had
 */
export async function openFolder(path: string, budget = DescriptorBudget.ofProcess()): Promise<FileNode> {
  budget.take();
  const fd = await open(path, O_PATH | O_DIRECTORY).catch((error: unknown) => {
    budget.give();
    throw error;
  });
  return new HostNode({ budget, nodes: new Set() }, fd, await fstat(fd), null, '', '');
}

class HostNode implements FileNode {
  readonly kind: FileNode['kind'];
  private readonly tree: Tree;
  private readonly fd: number;
  private readonly identity: string;
  /** Where a symbolic link leads. */
  private readonly target: string;
  private folder: HostNode | null;
  private name: string;
  private users = 1;

  /** @param fd its own from now on, and counted in the budget */
  constructor(
    tree: Tree,
    fd: number,
    stats: fs.BigIntStats,
    folder: HostNode | null,
    name: string,
    target: string,
  ) {
    this.tree = tree;
    this.fd = fd;
    this.folder = folder?.retain() ?? null;
    this.name = name;
    this.target = target;
    this.identity = `${stats.dev}:${stats.ino}`;
    this.kind = stats.isDirectory()
      ? 'directory'
      : stats.isFile()
        ? 'file'
        : stats.isSymbolicLink()
          ? 'symlink'
          : 'other';
    tree.nodes.add(this);
  }

  get parent(): HostNode | null {
    return this.folder;
  }

  retain(): this {
    this.users++;
    return this;
  }

  release(): void {
    if (--this.users > 0) return;
    this.tree.nodes.delete(this);
    this.folder?.release();
    fs.close(this.fd, () => this.tree.budget.give());
  }

  attributes(): Promise<Attributes> {
    return told(() => fstat(this.fd));
  }

  change({ mode, uid, gid, size, atime, mtime }: Changes): Promise<void> {
    return told(async () => {
      if (uid !== undefined || gid !== undefined) await this.giveTo(uid, gid);
      if (mode !== undefined) await fs.promises.chmod(this.path, mode);
      if (size !== undefined) await this.resize(size);
      if (atime === undefined && mtime === undefined) return;
      const before = await fstat(this.fd);
      const seconds = (time: bigint | 'now' | undefined, otherwise: bigint) =>
        time === 'now' ? Date.now() / 1000 : Number(time ?? otherwise) / NS;
      await fs.promises.utimes(this.path, seconds(atime, before.atimeNs), seconds(mtime, before.mtimeNs));
    });
  }

  facts(): Promise<FileSystemFacts> {
    return told(() => fs.promises.statfs(this.path, { bigint: true }));
  }

  open(mode: OpenMode): Promise<OpenFile> {
    return told(async () => {
      this.mustBe('file');
      return this.opened(await this.descriptor(flagsOf(mode)));
    });
  }

  async readlink(): Promise<string> {
    if (this.kind !== 'symlink') throw new FileError(ERRNO.EINVAL);
    return this.target;
  }

  // --- Directories ---

  lookup(name: string): Promise<FileNode> {
    return told(() => this.find(name));
  }

  list(): Promise<OpenDirectory> {
    return told(async () => {
      this.mustBe('directory');
      this.tree.budget.take();
      try {
        const directory = await fs.promises.opendir(this.path, { encoding: 'latin1' });
        return new HostDirectory(directory, this.retain(), this.tree.budget);
      } catch (error) {
        this.tree.budget.give();
        throw error;
      }
    });
  }

  /** What a name stands for, without holding it. */
  look(name: string): Promise<Attributes> {
    return told(() => fs.promises.lstat(this.at(name), { bigint: true }));
  }

  syncDirectory(): Promise<void> {
    return told(async () => {
      const fd = await this.descriptor(O_RDONLY | O_DIRECTORY);
      try {
        await fsync(fd);
      } finally {
        await this.closed(fd);
      }
    });
  }

  create(name: string, mode: OpenMode, permissions: number, exclusive: boolean) {
    return told(async () => {
      this.mustBe('directory');
      let fd: number;
      try {
        const flags = flagsOf(mode) | O_CREAT | O_EXCL | O_NOFOLLOW;
        fd = await this.counted(this.at(name), flags, permissions);
      } catch (error) {
        if (exclusive || (error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
        const node = await this.find(name);
        try {
          return { node: node as FileNode, file: await node.open(mode) };
        } catch (failure) {
          node.release();
          throw failure;
        }
      }
      try {
        // The permissions are the guest's to say, whatever our umask is.
        await fchmod(fd, permissions);
        const node = await this.hold(await this.counted(`/proc/self/fd/${fd}`, O_PATH), name);
        return { node: node as FileNode, file: this.opened(fd) };
      } catch (error) {
        await this.closed(fd);
        throw error;
      }
    });
  }

  mkdir(name: string, permissions: number): Promise<FileNode> {
    return told(async () => {
      await fs.promises.mkdir(this.at(name), permissions);
      const node = await this.find(name);
      if (node.kind === 'directory') await node.change({ mode: permissions });
      return node;
    });
  }

  symlink(name: string, target: string): Promise<FileNode> {
    return told(async () => {
      await fs.promises.symlink(Buffer.from(target, 'latin1'), this.at(name));
      return this.find(name);
    });
  }

  link(name: string, to: FileNode): Promise<void> {
    return told(async () => {
      const node = this.ofTree(to);
      if (!node.folder) throw new FileError(ERRNO.EPERM);
      await node.stillThere();
      await fs.promises.link(node.folder.at(node.name), this.at(name));
    });
  }

  unlink(name: string): Promise<void> {
    return told(() => fs.promises.unlink(this.at(name)));
  }

  rmdir(name: string): Promise<void> {
    return told(() => fs.promises.rmdir(this.at(name)));
  }

  rename(name: string, folder: FileNode, newName: string): Promise<void> {
    return told(async () => {
      const to = this.ofTree(folder);
      await fs.promises.rename(this.at(name), to.at(newName));
      for (const node of [...this.tree.nodes]) node.moved(this, name, to, newName);
    });
  }

  remove(): Promise<void> {
    return told(async () => {
      const { folder, name } = this;
      if (!folder) throw new FileError(ERRNO.EBUSY);
      await this.stillThere();
      await (this.kind === 'directory' ? folder.rmdir(name) : folder.unlink(name));
    });
  }

  moveTo(folder: FileNode, name: string): Promise<void> {
    return told(async () => {
      if (!this.folder) throw new FileError(ERRNO.EBUSY);
      await this.stillThere();
      await this.folder.rename(this.name, folder, name);
    });
  }

  // --- Small things ---

  private get path(): string {
    return `/proc/self/fd/${this.fd}`;
  }

  private at(name: string): Buffer {
    return Buffer.from(`${this.path}/${name}`, 'latin1');
  }

  private async find(name: string): Promise<HostNode> {
    this.mustBe('directory');
    return this.hold(await this.counted(this.at(name), O_PATH | O_NOFOLLOW), name);
  }

  /** @param fd counted already */
  private async hold(fd: number, name: string): Promise<HostNode> {
    try {
      const stats = await fstat(fd);
      // Should another link have its name by now, then that one's target is what the guest is told.
      const target = stats.isSymbolicLink()
        ? await fs.promises.readlink(this.at(name), { encoding: 'latin1' })
        : '';
      return new HostNode(this.tree, fd, stats, this, name, target);
    } catch (error) {
      await this.closed(fd);
      throw error;
    }
  }

  /** Opens the very file, not its name. */
  private descriptor(flags: number): Promise<number> {
    return this.counted(this.path, flags);
  }

  private async counted(path: string | Buffer, flags: number, permissions?: number): Promise<number> {
    this.tree.budget.take();
    try {
      return await open(path, flags, permissions);
    } catch (error) {
      this.tree.budget.give();
      throw error;
    }
  }

  private async closed(fd: number): Promise<void> {
    await close(fd).catch(() => {});
    this.tree.budget.give();
  }

  private opened(fd: number): OpenFile {
    return new HostFile(fd, () => this.tree.budget.give());
  }

  /** Files stay ours if we may not give them away: the guest's root does so all the time (cp -a, tar). */
  private async giveTo(uid: number | undefined, gid: number | undefined): Promise<void> {
    const stats = await fstat(this.fd);
    try {
      await fs.promises.chown(this.path, uid ?? Number(stats.uid), gid ?? Number(stats.gid));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error;
    }
  }

  private async resize(size: number): Promise<void> {
    this.mustBe('file');
    const fd = await this.descriptor(O_WRONLY | O_NONBLOCK);
    try {
      await ftruncate(fd, size);
    } finally {
      await this.closed(fd);
    }
  }

  /** Its name in its folder is still its own. */
  private async stillThere(): Promise<void> {
    const found = await this.folder!.find(this.name);
    found.release();
    if (found.identity !== this.identity) throw new FileError(ERRNO.ENOENT);
  }

  private moved(from: HostNode, name: string, to: HostNode, newName: string): void {
    if (this.folder?.identity !== from.identity || this.name !== name) return;
    const before = this.folder;
    this.folder = to.retain();
    this.name = newName;
    before.release();
  }

  private mustBe(kind: 'file' | 'directory'): void {
    if (this.kind === kind) return;
    if (kind === 'directory') throw new FileError(ERRNO.ENOTDIR);
    throw new FileError(this.kind === 'directory' ? ERRNO.EISDIR : ERRNO.EPERM);
  }

  private ofTree(node: FileNode): HostNode {
    if (!(node instanceof HostNode) || node.tree !== this.tree) throw new FileError(ERRNO.EXDEV);
    return node;
  }
}

class HostFile implements OpenFile {
  private readonly fd: number;
  private readonly onClose: () => void;

  constructor(fd: number, onClose: () => void) {
    this.fd = fd;
    this.onClose = onClose;
  }

  read(offset: number, into: Uint8Array): Promise<number> {
    return this.move(into, (at) => [this.fd, into, at, into.length - at, offset + at], fs.read);
  }

  write(offset: number, bytes: Uint8Array): Promise<number> {
    return this.move(bytes, (at) => [this.fd, bytes, at, bytes.length - at, offset + at], fs.write);
  }

  sync(dataOnly: boolean): Promise<void> {
    return told(() => (dataOnly ? fdatasync(this.fd) : fsync(this.fd)));
  }

  async close(): Promise<void> {
    await close(this.fd).catch(() => {});
    this.onClose();
  }

  /** In as many calls as it takes. An error after some bytes were moved is that of the next call. */
  private async move(
    bytes: Uint8Array,
    parts: (at: number) => [number, Uint8Array, number, number, number],
    call: (
      ...args: [...ReturnType<typeof parts>, (error: NodeJS.ErrnoException | null, moved: number) => void]
    ) => void,
  ): Promise<number> {
    let done = 0;
    while (done < bytes.length) {
      const from = done;
      try {
        const moved = await told(
          () =>
            new Promise<number>((resolve, reject) => {
              call(...parts(from), (error, count) => (error ? reject(error) : resolve(count)));
            }),
        );
        if (moved === 0) break;
        done += moved;
      } catch (error) {
        if (done === 0) throw error;
        break;
      }
    }
    return done;
  }
}

class HostDirectory implements OpenDirectory {
  private readonly directory: fs.Dir;
  private readonly node: HostNode;
  private readonly budget: DescriptorBudget;

  /** @param node one user of it is handed over */
  constructor(directory: fs.Dir, node: HostNode, budget: DescriptorBudget) {
    this.directory = directory;
    this.node = node;
    this.budget = budget;
  }

  next(): Promise<readonly DirectoryEntry[]> {
    return told(async () => {
      for (;;) {
        const names: string[] = [];
        while (names.length < BATCH) {
          const entry = await this.directory.read();
          if (!entry) break;
          names.push(entry.name);
        }
        if (names.length === 0) return [];
        const entries = await Promise.all(names.map((name) => this.look(name)));
        const found = entries.filter((entry) => entry !== null);
        // All of these are gone meanwhile; others may follow.
        if (found.length > 0) return found;
      }
    });
  }

  async close(): Promise<void> {
    await this.directory.close().catch(() => {});
    this.budget.give();
    this.node.release();
  }

  private async look(name: string): Promise<DirectoryEntry | null> {
    try {
      return { name, attributes: await this.node.look(name) };
    } catch (error) {
      if (error instanceof FileError && error.errno === ERRNO.ENOENT) return null;
      throw error;
    }
  }
}

function flagsOf({ read, write, truncate, sync }: OpenMode): number {
  const access = read && write ? O_RDWR : write ? O_WRONLY : O_RDONLY;
  return access | (truncate ? O_TRUNC : 0) | (sync ? O_DSYNC : 0) | O_NONBLOCK;
}

/** Runs something of Node's; its errors become Linux's numbers. */
async function told<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof FileError) throw error;
    const { errno } = error as NodeJS.ErrnoException;
    throw new FileError(typeof errno === 'number' && errno < 0 ? -errno : ERRNO.EIO);
  }
}
