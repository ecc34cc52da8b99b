/** The disks of a machine's domains: opens what they are made of, attaches them, takes them away. */
import { resolve } from 'node:path';
import type { PlaneOpener } from '../../dom0/backend/data-plane.ts';
import { IoScheduler } from '../../dom0/block/scheduler.ts';
import { type BlockSource, DiskError, MemorySource } from '../../dom0/block/source.ts';
import { type BlockHost, VirtualBlockDevice } from '../../dom0/block/vbd.ts';
import type { XenstoreClient } from '../../dom0/xenstore/client.ts';
import type { Memory } from '../../machine/memory.ts';
import { type DiskSpec, parseBytes } from './disk-spec.ts';
import { DiskFile, RawFile } from './file.ts';

/** How long a guest has to let go of a disk, ms, as xl gives it. */
const DETACH_TIMEOUT = 10_000;
/** Lines about errors of a disk, each; further ones are only counted. */
const MAX_REPORTS = 5;

/** How a file is in use: several may read it, or one may write it. */
interface Use {
  writers: number;
  readers: number;
}

export interface DiskServiceHost {
  readonly memory: Memory;
  readonly planes: PlaneOpener;
  readonly store: XenstoreClient;
  /** One line about something that went wrong on the host. */
  readonly say?: (text: string) => void;
}

export class DiskService {
  private readonly host: BlockHost;
  private readonly say: (text: string) => void;
  private readonly files = new Map<string, Use>();
  /** By domain and number. */
  private readonly devices = new Map<number, Map<number, VirtualBlockDevice>>();

  constructor({ memory, planes, store, say = () => {} }: DiskServiceHost) {
    const after = (milliseconds: number, work: () => void) => {
      setTimeout(work, milliseconds).unref();
    };
    this.host = {
      memory,
      planes,
      store,
      scheduler: new IoScheduler({ now: () => performance.now(), after }),
    };
    this.say = say;
  }

  /** Gives a domain a disk. @throws DiskError */
  async attach(domid: number, spec: DiskSpec): Promise<VirtualBlockDevice> {
    const { vdev, devid, readonly, cdrom, removable, discard, limits, target } = spec;
    const own = this.devices.get(domid) ?? new Map<number, VirtualBlockDevice>();
    if (own.has(devid)) throw new DiskError(`the domain has a disk ${vdev} already`);
    this.devices.set(domid, own);
    const source = await this.open(spec);
    let reports = 0;
    const device = new VirtualBlockDevice(this.host, {
      domid,
      devid,
      vdev,
      source,
      readonly: readonly || source.readonly,
      cdrom,
      removable,
      discard,
      limits,
      ...(target === null ? {} : { params: target }),
      onError: (error) => {
        reports++;
        if (reports > MAX_REPORTS) return;
        const last = reports === MAX_REPORTS ? ' (further errors are not told)' : '';
        this.say(`disk ${vdev} of domain ${domid}: ${error instanceof Error ? error.message : error}${last}`);
      },
    });
    own.set(devid, device);
    return device;
  }

  /**
   * Takes a disk from a domain: asks the guest for it, or with `force` asks nobody.
   * @returns false: the guest keeps it
   * @throws DiskError: there is no such disk
   */
  async detach(domid: number, devid: number, force = false): Promise<boolean> {
    const device = this.devices.get(domid)?.get(devid);
    if (!device) throw new DiskError('the domain has no such disk');
    const sleep = (milliseconds: number) =>
      new Promise<void>((resolve) => {
        setTimeout(resolve, milliseconds);
      });
    if (force) await device.remove();
    else if (!(await device.detach(DETACH_TIMEOUT, sleep))) return false;
    this.devices.get(domid)?.delete(devid);
    return true;
  }

  /** A domain's disks. */
  list(domid: number): VirtualBlockDevice[] {
    return [...(this.devices.get(domid)?.values() ?? [])];
  }

  /** The domain ends: its disks are flushed and closed. */
  async removeAll(domid: number): Promise<void> {
    const own = this.list(domid);
    this.devices.delete(domid);
    await Promise.all(own.map((device) => device.remove()));
  }

  /** All domains end. */
  async close(): Promise<void> {
    await Promise.all([...this.devices.keys()].map((domid) => this.removeAll(domid)));
  }

  private async open(spec: DiskSpec): Promise<BlockSource> {
    const { target, readonly, format } = spec;
    if (target === null) throw new DiskError(`disk ${spec.vdev}: a drive without a disk is not supported`);
    const memory = /^memory:(.*)$/.exec(target);
    if (memory) {
      const size = parseBytes(memory[1]!);
      if (size === null) throw new DiskError(`${target}: not a size (for example memory:64M)`);
      return new MemorySource(size);
    }
    if (format !== 'raw') throw new DiskError(`format ${format} is not supported yet`);
    return this.openFile(target, readonly);
  }

  private async openFile(target: string, readonly: boolean): Promise<BlockSource> {
    // A path that is not absolute is one of a device for xl; files of the folder one is in come first here.
    const file = await DiskFile.open(resolve(target), readonly);
    try {
      this.claim(file);
    } catch (error) {
      await file.close();
      throw error;
    }
    try {
      return releasing(await RawFile.of(file), () => this.release(file));
    } catch (error) {
      this.release(file);
      await file.close();
      throw error;
    }
  }

  /** Two that write a file, or one that writes while another reads, would destroy what is in it. */
  private claim(file: DiskFile): void {
    const use = this.files.get(file.identity) ?? { writers: 0, readers: 0 };
    if (use.writers > 0 || (!file.readonly && use.readers > 0))
      throw new DiskError(`${file.path}: in use by another disk`);
    if (file.readonly) use.readers++;
    else use.writers++;
    this.files.set(file.identity, use);
  }

  private release(file: DiskFile): void {
    const use = this.files.get(file.identity);
    if (!use) return;
    if (file.readonly) use.readers--;
    else use.writers--;
    if (use.readers + use.writers === 0) this.files.delete(file.identity);
  }
}

/** The same source, that tells when it was closed. */
function releasing(source: BlockSource, released: () => void): BlockSource {
  return {
    size: source.size,
    readonly: source.readonly,
    discardGranularity: source.discardGranularity,
    read: (offset, buffers) => source.read(offset, buffers),
    write: (offset, buffers) => source.write(offset, buffers),
    flush: () => source.flush(),
    discard: (offset, length) => source.discard(offset, length),
    close: () => source.close().finally(released),
  };
}
