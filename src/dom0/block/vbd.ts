/**
 * A virtual block device on Domain 0's thread: what the store says of it, and the way from the data plane's requests
 * to the source of its bytes.
 */
import { type Memory, PAGE_SIZE } from '../../machine/memory.ts';
import { BLKIF_REQUEST, SECTOR_SIZE, VDISK } from '../../xen/public/io/blkif.ts';
import { XEN_IO_PROTO_ABI_NATIVE, XEN_IO_PROTO_ABI_X86_64 } from '../../xen/public/io/protocols.ts';
import type { PlaneHandle, PlaneOpener } from '../backend/data-plane.ts';
import {
  DeviceError,
  type FrontEnd,
  type FrontEndNodes,
  type Nodes,
  XenbusDevice,
  type XenbusDriver,
} from '../backend/xenbus-device.ts';
import type { XenstoreClient } from '../xenstore/client.ts';
import { ForkableDisk } from './forked-disk.ts';
import type { DiskLimits, DiskQueue, IoScheduler } from './scheduler.ts';
import type { BlockSource, RandomAccess } from './source.ts';
import { MAX_INDIRECT_SEGMENTS } from './vbd-plane.ts';
import { completion, DiskOp, DRAIN, DRAINED, FLUSH_FAILED, Outcome, type VbdParameters } from './wire.ts';

/** Pages of a ring: 2 to the power of this. */
const MAX_RING_PAGE_ORDER = 4;
const MAX_QUEUES = 4;

/** What serves devices on Domain 0's thread. */
export interface BlockHost {
  readonly memory: Memory;
  readonly planes: PlaneOpener;
  readonly store: XenstoreClient;
  readonly scheduler: IoScheduler;
}

export interface VbdDescription {
  readonly domid: number;
  /** Number of the device (vbd-interface): {@link vdevNumber}. */
  readonly devid: number;
  /** As the user calls it: xvda. */
  readonly vdev: string;
  readonly source: BlockSource;
  readonly readonly: boolean;
  readonly cdrom?: boolean;
  readonly removable?: boolean;
  /** Offers discard, if the source can. Default true. */
  readonly discard?: boolean;
  /** Offers to keep pages mapped (feature-persistent). Default false: the guest would copy every page. */
  readonly persistent?: boolean;
  readonly limits?: DiskLimits;
  /** Where the bytes are, for people and for Xen's tools. */
  readonly params?: string;
  /** The host could not do what the guest asked for: one line. */
  readonly onError?: (error: unknown) => void;
}

/** What Domain 0's thread has done for a device so far. */
export interface VbdStatistics {
  reads: number;
  writes: number;
  flushes: number;
  discards: number;
  bytesRead: number;
  bytesWritten: number;
  errors: number;
}

export class VirtualBlockDevice implements XenbusDriver {
  readonly description: VbdDescription;
  readonly device: XenbusDevice;
  readonly statistics: VbdStatistics = {
    reads: 0,
    writes: 0,
    flushes: 0,
    discards: 0,
    bytesRead: 0,
    bytesWritten: 0,
    errors: 0,
  };
  private readonly host: BlockHost;
  private readonly queue: DiskQueue;
  private source: BlockSource;
  private plane: PlaneHandle | null = null;
  private closing: Promise<void> | null = null;
  /** Requests at the source or on the way to it. */
  private underWay = 0;
  /** Nothing is under way any more. */
  private onIdle: (() => void) | null = null;
  private ended: Promise<void> | null = null;
  private onDrained: () => void = () => {};

  /** Makes the device known to the guest. @param taken by a front end that is connected already (XenbusDevice) */
  constructor(host: BlockHost, description: VbdDescription, taken: FrontEndNodes | null = null) {
    this.host = host;
    this.description = description;
    this.source = description.source;
    const { domid, devid, vdev, cdrom, removable, readonly, params } = description;
    this.queue = host.scheduler.queue(domid, description.limits);
    const discard = this.offersDiscard;
    this.device = new XenbusDevice(
      host.store,
      {
        kind: 'vbd',
        domid,
        devid,
        frontend: { 'virtual-device': devid, 'device-type': cdrom ? 'cdrom' : 'disk' },
        backend: {
          bootable: 1,
          dev: vdev,
          type: 'file',
          mode: readonly ? 'r' : 'w',
          removable: removable ? 1 : 0,
          'device-type': cdrom ? 'cdrom' : 'disk',
          'discard-enable': discard ? 1 : 0,
          ...(params === undefined ? {} : { params }),
          'feature-barrier': 1,
          'feature-flush-cache': 1,
          'feature-max-indirect-segments': MAX_INDIRECT_SEGMENTS,
          'max-ring-page-order': MAX_RING_PAGE_ORDER,
          'max-ring-pages': 1 << MAX_RING_PAGE_ORDER,
          'multi-queue-max-queues': MAX_QUEUES,
          ...(description.persistent ? { 'feature-persistent': 1 } : {}),
          ...(discard
            ? {
                'feature-discard': 1,
                'discard-granularity': description.source.discardGranularity,
                'discard-alignment': 0,
                'discard-secure': 0,
              }
            : {}),
        },
      },
      this,
      taken,
    );
  }

  /**
   * Asks the guest to let go of it. @returns false: it did not, and the device is still there
   * @param sleep settles after so many milliseconds
   */
  async detach(timeout: number, sleep: (milliseconds: number) => Promise<void>): Promise<boolean> {
    if (!(await this.device.detach(timeout, sleep))) return false;
    await this.end();
    return true;
  }

  /** Takes it away. What the guest has written to it is durable then, as far as the medium goes along. */
  async remove(): Promise<void> {
    await this.device.remove();
    await this.end();
  }

  /** The same disk for a fork of the domain, as it is now. The device is suspended. @param scratch for the fork */
  forkSource(scratch: RandomAccess): BlockSource {
    if (!(this.source instanceof ForkableDisk)) this.source = new ForkableDisk(this.source);
    return (this.source as ForkableDisk).fork(scratch);
  }

  // --- XenbusDriver ---

  async connect(front: FrontEnd): Promise<Nodes> {
    const { description, host, source } = this;
    const { domid, readonly, cdrom, removable, persistent, limits } = description;
    // What has limits is for the scheduler.
    const limited = limits?.bytes !== undefined || limits?.requests !== undefined;
    const protocol = front.read('protocol') ?? XEN_IO_PROTO_ABI_NATIVE;
    if (protocol !== XEN_IO_PROTO_ABI_X86_64)
      throw new DeviceError(`the front end speaks ${protocol.slice(0, 40)}`);
    const parameters: VbdParameters = {
      rings: rings(front),
      sectors: source.size / SECTOR_SIZE,
      readonly: readonly || source.readonly,
      discard: this.offersDiscard,
      persistent: persistent === true && front.number('feature-persistent', 1, 0) === 1,
      file: limited ? null : (source.handOut?.() ?? null),
    };
    this.plane = await host.planes.open('vbd', domid, parameters, {
      onMessage: (message) => {
        if (message === DRAINED) this.onDrained();
        else if (message === FLUSH_FAILED) this.source.flushFailed?.();
        else this.serve(message as readonly number[]);
      },
      onFailure: (error) => this.device.fail(error.message),
    });
    return {
      sectors: parameters.sectors,
      info:
        (parameters.readonly ? VDISK.READONLY : 0) |
        (cdrom ? VDISK.CDROM : 0) |
        (removable ? VDISK.REMOVABLE : 0),
      'sector-size': SECTOR_SIZE,
      'physical-sector-size': source.size % PAGE_SIZE === 0 ? PAGE_SIZE : SECTOR_SIZE,
    };
  }

  async drain(): Promise<void> {
    const { plane } = this;
    if (!plane) return;
    const drained = new Promise<void>((resolve) => {
      this.onDrained = resolve;
    });
    plane.send(DRAIN);
    // What waits for its turn has it now.
    this.queue.startAll();
    await drained;
  }

  async disconnect(): Promise<void> {
    const { plane } = this;
    this.onDrained();
    if (!plane) return;
    this.closing ??= plane.close().then(() => {
      this.plane = null;
      this.closing = null;
    });
    // What has not begun is not begun any more: nobody waits for its answer.
    this.queue.startAll();
    await this.closing;
  }

  // --- Requests ---

  private get offersDiscard(): boolean {
    const { source } = this;
    const { discard, readonly } = this.description;
    return discard !== false && !readonly && !source.readonly && source.discardGranularity > 0;
  }

  private end(): Promise<void> {
    this.ended ??= this.finish();
    return this.ended;
  }

  private async finish(): Promise<void> {
    this.host.scheduler.remove(this.queue);
    // The data plane waits for its requests, but not if the processor was switched off.
    if (this.underWay > 0)
      await new Promise<void>((resolve) => {
        this.onIdle = resolve;
      });
    const { source } = this;
    const { onError } = this.description;
    try {
      if (!source.readonly) await source.flush();
      await source.close();
    } catch (error) {
      onError?.(error);
    }
  }

  /** Requests, as wire.ts has them. */
  private serve(list: readonly number[]): void {
    const { plane } = this;
    if (!plane) return;
    for (let at = 0; at < list.length; ) {
      const slot = list[at]!;
      const op = list[at + 1] as DiskOp;
      const offset = list[at + 2]! * SECTOR_SIZE;
      const count = list[at + 3]!;
      at += 4;
      const buffers: Uint8Array[] = [];
      let bytes = 0;
      if (op === DiskOp.discard) bytes = 0;
      else
        for (let piece = 0; piece < count; piece++, at += 2) {
          buffers.push(this.host.memory.u8.subarray(list[at]!, list[at]! + list[at + 1]!));
          bytes += list[at + 1]!;
        }
      const run = async () => {
        let outcome: Outcome = Outcome.okay;
        try {
          if (this.closing) outcome = Outcome.error;
          else await this.carryOut(op, offset, buffers, count * SECTOR_SIZE, bytes);
        } catch (error) {
          outcome = Outcome.error;
          this.statistics.errors++;
          this.description.onError?.(error);
        }
        plane.signal(completion(slot, outcome));
        if (--this.underWay === 0) this.onIdle?.();
      };
      this.underWay++;
      if (this.closing) void run();
      else this.queue.submit(bytes, run);
    }
  }

  private async carryOut(
    op: DiskOp,
    offset: number,
    buffers: readonly Uint8Array[],
    extent: number,
    bytes: number,
  ): Promise<void> {
    const { source, statistics } = this;
    switch (op) {
      case DiskOp.read:
        statistics.reads++;
        statistics.bytesRead += bytes;
        return source.read(offset, buffers);
      case DiskOp.write:
        statistics.writes++;
        statistics.bytesWritten += bytes;
        return source.write(offset, buffers);
      case DiskOp.flush:
        statistics.flushes++;
        return source.flush();
      case DiskOp.discard:
        statistics.discards++;
        return source.discard(offset, extent);
      case DiskOp.barrier:
        statistics.flushes++;
        await source.flush();
        if (bytes === 0) return;
        statistics.writes++;
        statistics.bytesWritten += bytes;
        await source.write(offset, buffers);
        await source.flush();
    }
  }
}

/** The rings that a front end has set up (blkif.h, "Multiple hardware queues/rings"). @throws DeviceError */
function rings(front: FrontEnd): VbdParameters['rings'] {
  const pages = ringPages(front);
  const queues = front.number('multi-queue-num-queues', MAX_QUEUES, 1);
  if (queues === 0) throw new DeviceError('the front end has no queues');
  return Array.from({ length: queues }, (_, queue) => {
    const prefix = queues === 1 && front.read('event-channel') !== null ? '' : `queue-${queue}/`;
    const single = pages === 1 && front.read(`${prefix}ring-ref`) !== null;
    return {
      refs: Array.from({ length: pages }, (_, page) =>
        front.number(`${prefix}ring-ref${single ? '' : page}`, 0xffffffff),
      ),
      port: front.number(`${prefix}event-channel`, 0xffffffff),
    };
  });
}

function ringPages(front: FrontEnd): number {
  const order = front.number('ring-page-order', MAX_RING_PAGE_ORDER, 0);
  const pages = front.number('num-ring-pages', 1 << MAX_RING_PAGE_ORDER, 1 << order);
  if (pages === 0 || (pages & (pages - 1)) !== 0)
    throw new DeviceError(`a ring of ${pages} pages of ${BLKIF_REQUEST.size} byte requests`);
  return pages;
}
