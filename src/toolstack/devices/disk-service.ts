/** The disks of a machine's domains: opens what they are made of, attaches them, takes them away. */
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import type { PlaneOpener } from '../../dom0/backend/data-plane.ts';
import type { FrontEndNodes } from '../../dom0/backend/xenbus-device.ts';
import { MemoryOverlay } from '../../dom0/block/memory-overlay.ts';
import { Qcow2Disk } from '../../dom0/block/qcow2.ts';
import { IoScheduler } from '../../dom0/block/scheduler.ts';
import {
  type BlockSource,
  DiskError,
  MemorySource,
  type RandomAccess,
  RawDisk,
} from '../../dom0/block/source.ts';
import { type BlockHost, VirtualBlockDevice } from '../../dom0/block/vbd.ts';
import type { XenstoreClient } from '../../dom0/xenstore/client.ts';
import type { Memory } from '../../machine/memory.ts';
import { type DiskSpec, parseBytes } from './disk-spec.ts';
import { DiskFile } from './file.ts';
import { openAddress } from './http.ts';

/** How long a guest has to let go of a disk, ms, as xl gives it. */
const DETACH_TIMEOUT = 10_000;
/** Lines about errors of a disk, each; further ones are only counted. */
const MAX_REPORTS = 5;

/** Images upon each other, at most. */
const MAX_DEPTH = 16;

/** How a file is in use: several may read it, or one may write it. */
interface Use {
  writers: number;
  readers: number;
}

export interface DiskServiceHost {
  readonly memory: Memory;
  readonly planes: PlaneOpener;
  readonly store: XenstoreClient;
}

export class DiskService {
  private readonly host: BlockHost;
  /** Takes a line about something that went wrong on the host. */
  report: (text: string) => void = () => {};
  private readonly files = new Map<string, Use>();
  /** Those whose contents are nowhere but in this process. */
  private readonly volatile = new WeakSet<VirtualBlockDevice>();
  /** By domain and number; null: it is being opened. */
  private readonly devices = new Map<number, Map<number, VirtualBlockDevice | null>>();

  constructor({ memory, planes, store }: DiskServiceHost) {
    const after = (milliseconds: number, work: () => void) => {
      setTimeout(work, milliseconds).unref();
    };
    this.host = {
      memory,
      planes,
      store,
      scheduler: new IoScheduler({ now: () => performance.now(), after }),
    };
  }

  /**
   * Gives a domain a disk.
   * @param taken by a front end that is connected already (XenbusDevice) @throws DiskError
   */
  async attach(
    domid: number,
    spec: DiskSpec,
    taken: FrontEndNodes | null = null,
  ): Promise<VirtualBlockDevice> {
    const { vdev, devid, readonly, cdrom, removable, discard, limits, target } = spec;
    const own = this.devices.get(domid) ?? new Map<number, VirtualBlockDevice | null>();
    if (own.has(devid)) throw new DiskError(`the domain has a disk ${vdev} already`);
    this.devices.set(domid, own);
    own.set(devid, null);
    let source: BlockSource;
    try {
      source = await this.open(spec);
    } catch (error) {
      own.delete(devid);
      throw error;
    }
    if (this.devices.get(domid) !== own) {
      await source.close();
      throw new DiskError(`domain ${domid} is gone`);
    }
    const device = new VirtualBlockDevice(
      this.host,
      {
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
        onError: this.reporter(domid, vdev),
      },
      taken,
    );
    own.set(devid, device);
    if (volatile(spec)) this.volatile.add(device);
    if (taken !== null && !(await device.device.settled()))
      throw new DiskError(`disk ${vdev}: the guest's connection to it cannot be taken up again`);
    return device;
  }

  /** Leaves a domain's rings alone, with every request answered that was taken (XenbusDevice). */
  async suspend(domid: number): Promise<void> {
    await Promise.all(this.list(domid).map(({ device }) => device.suspend()));
  }

  async resume(domid: number): Promise<void> {
    await Promise.all(this.list(domid).map(({ device }) => device.resume()));
  }

  /** Gives a fork disks that are what the suspended ones of its parent are now. @throws DiskError */
  async fork(parent: number, child: number): Promise<void> {
    const own = new Map<number, VirtualBlockDevice | null>();
    this.devices.set(child, own);
    for (const device of this.list(parent)) {
      const { description } = device;
      const taken = device.device.frontEndNodes();
      const source = device.forkSource(await this.scratch());
      const { devid, vdev } = description;
      const fork = new VirtualBlockDevice(
        this.host,
        { ...description, domid: child, source, onError: this.reporter(child, vdev) },
        taken,
      );
      own.set(devid, fork);
      this.volatile.add(fork);
      if (taken !== null && !(await fork.device.settled()))
        throw new DiskError(`disk ${vdev}: the guest's connection to it cannot be taken up again`);
    }
  }

  /** A disk of the domain's whose contents are nowhere but in this process; null: there is none. */
  volatileDisk(domid: number): string | null {
    return this.list(domid).find((device) => this.volatile.has(device))?.description.vdev ?? null;
  }

  private reporter(domid: number, vdev: string): (error: unknown) => void {
    let reports = 0;
    return (error) => {
      reports++;
      if (reports > MAX_REPORTS) return;
      const last = reports === MAX_REPORTS ? ' (further errors are not told)' : '';
      this.report(
        `disk ${vdev} of domain ${domid}: ${error instanceof Error ? error.message : error}${last}`,
      );
    };
  }

  /** A file without a name: it is gone when it is closed, or the process ends. */
  private async scratch(): Promise<RandomAccess> {
    const path = join(tmpdir(), `xenolith-fork-${randomBytes(8).toString('hex')}`);
    const file = await DiskFile.open(path, false, true);
    await rm(path);
    return file;
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
    return [...(this.devices.get(domid)?.values() ?? [])].filter((device) => device !== null);
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

  /** What a disk is made of, one thing upon the other. */
  private async open(spec: DiskSpec): Promise<BlockSource> {
    const { target, format, overlay } = spec;
    if (target === null) throw new DiskError(`disk ${spec.vdev}: a drive without a disk is not supported`);
    if (overlay === null) return this.openTarget(target, format, spec.readonly);
    if (overlay === 'memory') return new MemoryOverlay(await this.openTarget(target, format, true));
    return this.openOverlay(overlay, spec, target);
  }

  /** @param depth how many images lie above it */
  private async openTarget(
    target: string,
    format: string | null,
    readonly: boolean,
    depth = 0,
  ): Promise<BlockSource> {
    if (depth > MAX_DEPTH) throw new DiskError(`${target}: too many images upon each other`);
    const memory = /^memory:(.*)$/.exec(target);
    if (memory) {
      const size = parseBytes(memory[1]!);
      if (size === null) throw new DiskError(`${target}: not a size (for example memory:64M)`);
      return new MemorySource(size);
    }
    const medium = /^https?:/.test(target)
      ? await openAddress(target)
      : await this.openFile(target, readonly);
    return this.understood(medium, target, format ?? 'raw', readonly, depth);
  }

  /** @param format null: as the disk above says nothing of it */
  private async understood(
    medium: RandomAccess,
    target: string,
    format: string,
    readonly: boolean,
    depth: number,
  ): Promise<BlockSource> {
    try {
      if (medium.readonly && !readonly)
        throw new DiskError(`${target}: can only be read (say access=ro, or overlay=FILE)`);
      if (format === 'raw') return await RawDisk.of(medium);
      if (format !== 'qcow2') throw new DiskError(`${target}: format ${format} is not supported`);
      return await Qcow2Disk.open(medium, (name, below) =>
        this.openTarget(resolveBeside(target, name), below, true, depth + 1),
      );
    } catch (error) {
      await medium.close();
      throw error;
    }
  }

  /** A qcow2 image over a disk that is only read; made if it is not there. */
  private async openOverlay(path: string, spec: DiskSpec, target: string): Promise<BlockSource> {
    const below = await this.openTarget(target, spec.format, true);
    try {
      const name = /^(https?|memory):/.test(target) ? target : resolve(target);
      const file = await this.openFile(path, spec.readonly, !spec.readonly);
      try {
        if ((await file.size()) === 0 && !spec.readonly)
          await Qcow2Disk.create(file, { size: below.size, backing: { name, format: spec.format } });
        let recorded: string | null = null;
        const disk = await Qcow2Disk.open(file, async (backing) => {
          recorded = backing;
          return below;
        });
        if (recorded !== name)
          throw new DiskError(`${path}: is an overlay over ${recorded ?? 'nothing'}, not over ${name}`);
        return disk;
      } catch (error) {
        await file.close();
        throw error;
      }
    } catch (error) {
      await below.close();
      throw error;
    }
  }

  /** A path that is not absolute is one of a device for xl; here it is one of the folder that one is in. */
  private async openFile(path: string, readonly: boolean, create = false): Promise<RandomAccess> {
    const file = await DiskFile.open(resolve(path), readonly, create);
    try {
      this.claim(file);
    } catch (error) {
      await file.close();
      throw error;
    }
    return new ClaimedFile(file, () => this.release(file));
  }

  /** Two that write a file, or one that writes while another reads, would destroy what is in it. */
  private claim(file: DiskFile): void {
    const use = this.files.get(file.identity) ?? { writers: 0, readers: 0 };
    if (use.writers > 0 || (!file.readonly && use.readers > 0))
      throw new DiskError(`${file.name}: in use by another disk`);
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

/** A file that tells when it is not in use any more. */
class ClaimedFile implements RandomAccess {
  readonly name: string;
  readonly readonly: boolean;
  private readonly file: DiskFile;
  private released: (() => void) | null;

  constructor(file: DiskFile, released: () => void) {
    this.file = file;
    this.name = file.name;
    this.readonly = file.readonly;
    this.released = released;
  }

  size(): Promise<number> {
    return this.file.size();
  }

  read(offset: number, buffers: readonly Uint8Array[]): Promise<number> {
    return this.file.read(offset, buffers);
  }

  write(offset: number, buffers: readonly Uint8Array[]): Promise<void> {
    return this.file.write(offset, buffers);
  }

  flush(): Promise<void> {
    return this.file.flush();
  }

  get discardGranularity(): number {
    return this.file.discardGranularity;
  }

  discard(offset: number, length: number): Promise<void> {
    return this.file.discard(offset, length);
  }

  handOut(): number | null {
    return this.file.handOut();
  }

  flushFailed(): void {
    this.file.flushFailed();
  }

  async close(): Promise<void> {
    if (!this.released) return;
    this.released();
    this.released = null;
    await this.file.close();
  }
}

/** What is written to it is in memory only. */
function volatile({ overlay, target, readonly }: DiskSpec): boolean {
  return overlay === 'memory' || (overlay === null && !readonly && /^memory:/.test(target ?? ''));
}

/** The name of a backing file, as its image has it: beside the image, unless it says where it is. */
function resolveBeside(target: string, name: string): string {
  if (/^(https?|memory):/.test(name) || isAbsolute(name)) return name;
  if (/^https?:/.test(target)) return new URL(name, target).href;
  return resolve(dirname(resolve(target)), name);
}
