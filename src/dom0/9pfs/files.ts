/**
 * What a host gives so that a folder of it can be shared: files as objects that are held, not as paths. A node stands
 * for one file or directory, whatever becomes of its name, and a name is only ever looked up in a directory that is
 * held. So nothing outside of the folder can be reached, whoever renames or replaces what at the same time; symbolic
 * links are read for the guest, and never followed.
 *
 * Names are strings of characters 0 to 255, one for each byte; without a slash, not empty, not "." or "..".
 */

/** It cannot be done: with Linux's error number. */
export class FileError extends Error {
  readonly errno: number;

  constructor(errno: number) {
    super(`error ${errno}`);
    this.errno = errno;
  }
}

/** As stat(2) has them; times in nanoseconds since the epoch. */
export interface Attributes {
  readonly dev: bigint;
  readonly ino: bigint;
  readonly mode: bigint;
  readonly nlink: bigint;
  readonly uid: bigint;
  readonly gid: bigint;
  readonly rdev: bigint;
  readonly size: bigint;
  readonly blksize: bigint;
  readonly blocks: bigint;
  readonly atimeNs: bigint;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
}

/** What is to become of a file's attributes; what is left out stays. */
export interface Changes {
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly size?: number;
  /** Nanoseconds since the epoch, or now. */
  readonly atime?: bigint | 'now';
  readonly mtime?: bigint | 'now';
}

/** As statfs(2) has them. */
export interface FileSystemFacts {
  readonly type: bigint;
  readonly bsize: bigint;
  readonly blocks: bigint;
  readonly bfree: bigint;
  readonly bavail: bigint;
  readonly files: bigint;
  readonly ffree: bigint;
}

export interface DirectoryEntry {
  readonly name: string;
  readonly attributes: Attributes;
}

/** How a file is opened. */
export interface OpenMode {
  readonly read: boolean;
  readonly write: boolean;
  readonly truncate: boolean;
  /** Each write is durable when it is answered. */
  readonly sync: boolean;
}

export interface OpenFile {
  /** @returns bytes read: fewer than there is room for only at the end @throws FileError */
  read(offset: number, into: Uint8Array): Promise<number>;
  /** @returns bytes written @throws FileError */
  write(offset: number, bytes: Uint8Array): Promise<number>;
  /** What was written is durable after it. @throws FileError */
  sync(dataOnly: boolean): Promise<void>;
  close(): Promise<void>;
}

/** A directory being read, from its beginning to its end. */
export interface OpenDirectory {
  /** The next entries, without "." and ".."; none: that was all. @throws FileError */
  next(): Promise<readonly DirectoryEntry[]>;
  close(): Promise<void>;
}

/** A file or directory that is held. All that can fail throws FileError. */
export interface FileNode {
  readonly kind: 'file' | 'directory' | 'symlink' | 'other';
  /** One more user of it. @returns itself */
  retain(): this;
  /** One user less; without any it is let go of. */
  release(): void;
  /** The directory that it was found in; null: it is the folder itself. */
  readonly parent: FileNode | null;
  attributes(): Promise<Attributes>;
  change(changes: Changes): Promise<void>;
  facts(): Promise<FileSystemFacts>;
  /** Removes it from the directory that it is in. */
  remove(): Promise<void>;
  /** Moves it out of the directory that it is in, to another one of the same tree. */
  moveTo(folder: FileNode, name: string): Promise<void>;

  /** Only of a file. */
  open(mode: OpenMode): Promise<OpenFile>;
  /** Only of a symbolic link: where it leads. */
  readlink(): Promise<string>;

  // Of directories. A node that is returned has one user.
  lookup(name: string): Promise<FileNode>;
  list(): Promise<OpenDirectory>;
  /** Makes directory entries durable. */
  syncDirectory(): Promise<void>;
  /** @param exclusive it must not be there yet */
  create(
    name: string,
    mode: OpenMode,
    permissions: number,
    exclusive: boolean,
  ): Promise<{ node: FileNode; file: OpenFile }>;
  mkdir(name: string, permissions: number): Promise<FileNode>;
  symlink(name: string, target: string): Promise<FileNode>;
  link(name: string, to: FileNode): Promise<void>;
  unlink(name: string): Promise<void>;
  rmdir(name: string): Promise<void>;
  /** @param folder another directory of the same tree */
  rename(name: string, folder: FileNode, newName: string): Promise<void>;
}
