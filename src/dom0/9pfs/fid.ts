/**
 * Fids: the numbers by which a client names the files that it uses. Requests run side by side, and a fid may be given
 * up while another request still uses it: what it holds is let go of after the last one.
 */
import { ERRNO } from '../../xen/public/errno.ts';
import { Mutex } from '../block/mutex.ts';
import { type DirectoryEntry, FileError, type FileNode, type OpenDirectory, type OpenFile } from './files.ts';

/** Fids of one client at a time. Each holds a file of the host's open. */
export const MAX_FIDS = 8192;

export class Fid {
  readonly node: FileNode;
  file: OpenFile | null = null;
  directory: DirectoryReader | null = null;
  private uses = 1;

  /** @param node one user of it is handed over */
  constructor(node: FileNode) {
    this.node = node;
  }

  get isOpen(): boolean {
    return this.file !== null || this.directory !== null;
  }

  /** Does something for which it must stay. */
  async use<T>(work: (fid: Fid) => Promise<T>): Promise<T> {
    this.uses++;
    try {
      return await work(this);
    } finally {
      await this.done();
    }
  }

  /** One user less. Errors of closing went to whoever synced. */
  async done(): Promise<void> {
    if (--this.uses > 0) return;
    this.node.release();
    await Promise.all([this.file?.close(), this.directory?.close()]).catch(() => {});
  }
}

export class Fids {
  private readonly fids = new Map<number, Fid>();

  /** @throws FileError EBADF */
  get(number: number): Fid {
    const fid = this.fids.get(number);
    if (!fid) throw new FileError(ERRNO.EBADF);
    return fid;
  }

  /** @throws FileError: the number is taken, or there are too many */
  check(number: number): void {
    if (this.fids.has(number)) throw new FileError(ERRNO.EBADF);
    if (this.fids.size >= MAX_FIDS) throw new FileError(ERRNO.EMFILE);
  }

  /** @param node one user of it is handed over, whatever happens @throws FileError as {@link check} does */
  add(number: number, node: FileNode): void {
    try {
      this.check(number);
    } catch (error) {
      node.release();
      throw error;
    }
    this.fids.set(number, new Fid(node));
  }

  /** Another file under the same number. @param node one user of it is handed over */
  replace(number: number, node: FileNode): void {
    const before = this.fids.get(number);
    this.fids.set(number, new Fid(node));
    void before?.done();
  }

  /** @throws FileError EBADF */
  async remove(number: number): Promise<void> {
    const fid = this.get(number);
    this.fids.delete(number);
    await fid.done();
  }

  async clear(): Promise<void> {
    const all = [...this.fids.values()];
    this.fids.clear();
    await Promise.all(all.map((fid) => fid.done()));
  }
}

/** An entry with the cookie by which reading goes on behind it. */
export interface NumberedEntry extends DirectoryEntry {
  readonly cookie: number;
}

/** A directory read by cookies: 0 is its beginning, and entry n has the cookie n. */
export class DirectoryReader {
  private readonly node: FileNode;
  private readonly turn = new Mutex();
  private directory: OpenDirectory | null = null;
  private entries: NumberedEntry[] = [];
  /** Cookie of the last entry that was handed out, and of the last one in `entries`. */
  private position = 0;
  private last = 0;

  constructor(node: FileNode) {
    this.node = node;
  }

  /**
   * Hands out the entries behind a cookie, until one is not taken or there are no more.
   * @param take false: that one is not wanted any more
   */
  read(cookie: number, take: (entry: NumberedEntry) => boolean): Promise<void> {
    return this.turn.run(async () => {
      if (cookie !== this.position) await this.seek(cookie);
      for (let entry = await this.peek(); entry; entry = await this.peek()) {
        if (!take(entry)) return;
        this.next();
      }
    });
  }

  async close(): Promise<void> {
    await this.turn.run(() => this.rewind());
  }

  private async seek(cookie: number): Promise<void> {
    await this.rewind();
    while (this.position < cookie) {
      if (!(await this.peek())) return;
      this.next();
    }
  }

  private next(): void {
    this.position = this.entries.shift()!.cookie;
  }

  private async peek(): Promise<NumberedEntry | null> {
    if (this.entries.length > 0) return this.entries[0]!;
    if (this.last === 0) {
      // The parent's number is not worth a look: nobody reads it off here.
      const attributes = await this.node.attributes();
      this.number([
        { name: '.', attributes },
        { name: '..', attributes },
      ]);
    } else {
      this.directory ??= await this.node.list();
      this.number(await this.directory.next());
    }
    return this.entries[0] ?? null;
  }

  private number(entries: readonly DirectoryEntry[]): void {
    this.entries = entries.map((entry) => ({ ...entry, cookie: ++this.last }));
  }

  private async rewind(): Promise<void> {
    const { directory } = this;
    this.directory = null;
    this.entries = [];
    this.position = 0;
    this.last = 0;
    await directory?.close();
  }
}
