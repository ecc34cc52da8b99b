/** The shared folders of a machine's domains: holds them, shows them to the guests, takes them away. */
import { resolve } from 'node:path';
import { SharedFolder } from '../../dom0/9pfs/device.ts';
import type { FileNode } from '../../dom0/9pfs/files.ts';
import { FileLocks } from '../../dom0/9pfs/locks.ts';
import type { PlaneOpener } from '../../dom0/backend/data-plane.ts';
import type { XenstoreClient } from '../../dom0/xenstore/client.ts';
import type { Memory } from '../../machine/memory.ts';
import { DescriptorBudget, openFolder } from './host-folder.ts';
import { ShareError, type ShareSpec } from './share-spec.ts';

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'no such folder',
  ENOTDIR: 'not a folder',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
};

export interface ShareServiceHost {
  readonly memory: Memory;
  readonly planes: PlaneOpener;
  readonly store: XenstoreClient;
}

export class ShareService {
  private readonly host: ShareServiceHost;
  private readonly locks = new FileLocks();
  private readonly budget = DescriptorBudget.ofProcess();
  /** By domain; their place is their number. */
  private readonly folders = new Map<number, SharedFolder[]>();

  constructor({ memory, planes, store }: ShareServiceHost) {
    this.host = { memory, planes, store };
  }

  /** Shares a folder with a domain. @throws ShareError */
  async attach(domid: number, { tag, path, readonly }: ShareSpec): Promise<SharedFolder> {
    const own = this.folders.get(domid) ?? [];
    this.folders.set(domid, own);
    if (process.platform !== 'linux') throw new ShareError('folders can only be shared on Linux');
    if (own.some(({ description }) => description.tag === tag))
      throw new ShareError(`two shared folders have the tag ${tag}`);
    const root = await this.open(path);
    if (this.folders.get(domid) !== own) {
      root.release();
      throw new ShareError(`domain ${domid} is gone`);
    }
    const after = (milliseconds: number, work: () => void) => {
      setTimeout(work, milliseconds).unref();
    };
    const { locks } = this;
    const folder = new SharedFolder(
      { ...this.host, after },
      { domid, devid: own.length, tag, path: resolve(path), root, readonly, locks },
    );
    own.push(folder);
    return folder;
  }

  /** A domain's shared folders. */
  list(domid: number): readonly SharedFolder[] {
    return this.folders.get(domid) ?? [];
  }

  /** The domain ends. */
  async removeAll(domid: number): Promise<void> {
    const own = this.list(domid);
    this.folders.delete(domid);
    await Promise.all(own.map((folder) => folder.remove()));
  }

  /** All domains end. */
  async close(): Promise<void> {
    await Promise.all([...this.folders.keys()].map((domid) => this.removeAll(domid)));
  }

  private async open(path: string): Promise<FileNode> {
    try {
      return await openFolder(resolve(path), this.budget);
    } catch (error) {
      const { code = '', message } = error as NodeJS.ErrnoException;
      throw new ShareError(`${path}: ${REASONS[code] ?? message}`);
    }
  }
}
