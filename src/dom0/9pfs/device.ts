/**
 * A shared folder of a domain, on Domain 0's thread: what the store says of it, and the way from the rings to the
 * server of the files.
 *
 * The guest is given back-pressure where it asks for much: so many requests are taken off the rings as may be under
 * way, and an answer for which a ring has no room waits and counts as one. Front ends do not tell that they made room,
 * so while an answer waits the ring is looked at again after a while.
 */
import type { Memory } from '../../machine/memory.ts';
import { XEN_9PFS_VERSION } from '../../xen/public/io/9pfs.ts';
import type { PlaneHandle, PlaneOpener } from '../backend/data-plane.ts';
import {
  DeviceError,
  type FrontEnd,
  type Nodes,
  XenbusDevice,
  type XenbusDriver,
} from '../backend/xenbus-device.ts';
import type { XenstoreClient } from '../xenstore/client.ts';
import { FlexRing } from './flex-ring.ts';
import { HEADER } from './messages.ts';
import { MAX_RING_ORDER, type P9Message, type P9Parameters, type P9RingPages, P9Signal } from './plane.ts';
import { type P9Options, P9Server } from './server.ts';

const MAX_RINGS = 4;
/** Requests under way, of one device. */
const MAX_REQUESTS = 16;
/** Milliseconds until a full ring is looked at again, at first and at most. */
const FIRST_WAIT = 2;
const LONGEST_WAIT = 100;

export interface P9Host {
  readonly memory: Memory;
  readonly planes: PlaneOpener;
  readonly store: XenstoreClient;
  /** Calls back after so many milliseconds. */
  after(milliseconds: number, work: () => void): void;
}

export interface P9Description extends P9Options {
  readonly domid: number;
  readonly devid: number;
  /** By which the guest mounts it. */
  readonly tag: string;
  /** Where it is on the host, for people and for Xen's tools. */
  readonly path: string;
}

interface Ring {
  readonly index: number;
  readonly ring: FlexRing;
  /** Answers for which it had no room. */
  readonly waiting: Uint8Array[];
}

/** One connection of the front end. */
interface Connection {
  plane: PlaneHandle | null;
  /** What came before the plane was there. */
  readonly early: P9Message[];
  rings: readonly Ring[];
  server: P9Server | null;
  underWay: number;
  /** Milliseconds until a full ring is looked at again; and whether that is on its way. */
  wait: number;
  waitsAlready: boolean;
  /** The rings are not ours any more. */
  left: boolean;
}

export class SharedFolder implements XenbusDriver {
  readonly description: P9Description;
  readonly device: XenbusDevice;
  private readonly host: P9Host;
  private connection: Connection | null = null;
  private closing: Promise<void> | null = null;

  /** Makes it known to the guest. The folder's node belongs to it from now on. */
  constructor(host: P9Host, description: P9Description) {
    this.host = host;
    this.description = description;
    const { domid, devid, tag, path } = description;
    this.device = new XenbusDevice(
      host.store,
      {
        kind: '9pfs',
        domid,
        devid,
        frontend: { tag },
        backend: {
          tag,
          path,
          'security-model': 'none',
          security_model: 'none',
          versions: XEN_9PFS_VERSION,
          'max-rings': MAX_RINGS,
          'max-ring-page-order': MAX_RING_ORDER,
        },
      },
      this,
    );
  }

  /** Takes it away, whatever the guest is doing with it. */
  async remove(): Promise<void> {
    await this.device.remove();
    this.description.root.release();
  }

  // --- XenbusDriver ---

  async connect(front: FrontEnd): Promise<Nodes> {
    const version = front.read('version');
    if (version !== XEN_9PFS_VERSION) throw new DeviceError(`the front end's version is ${version}`);
    const count = front.number('num-rings', MAX_RINGS);
    if (count === 0) throw new DeviceError('the front end has no rings');
    const parameters: P9Parameters = {
      rings: Array.from({ length: count }, (_, index) => ({
        ref: front.number(`ring-ref${index}`, 0xffff_ffff),
        port: front.number(`event-channel-${index}`, 0xffff_ffff),
      })),
    };
    const connection: Connection = {
      plane: null,
      early: [],
      rings: [],
      server: null,
      underWay: 0,
      wait: FIRST_WAIT,
      waitsAlready: false,
      left: false,
    };
    this.connection = connection;
    const { planes } = this.host;
    connection.plane = await planes.open('9pfs', this.description.domid, parameters, {
      onMessage: (message) => this.told(connection, message as P9Message),
      onFailure: (error) => {
        connection.left = true;
        this.device.fail(error.message);
      },
    });
    for (const message of connection.early) this.told(connection, message);
    return {};
  }

  async disconnect(): Promise<void> {
    const { connection } = this;
    if (!connection) return;
    this.closing ??= this.end(connection);
    await this.closing;
  }

  private async end(connection: Connection): Promise<void> {
    connection.left = true;
    await connection.plane?.close();
    await connection.server?.close();
    this.connection = null;
    this.closing = null;
  }

  // --- Requests ---

  private told(connection: Connection, message: P9Message): void {
    const { plane } = connection;
    if (!plane) {
      connection.early.push(message);
      return;
    }
    switch (message.kind) {
      case 'rings':
        this.setUp(connection, message.rings);
        break;
      case 'look':
        plane.signal(P9Signal.looked);
        this.look(connection);
        break;
      case 'leave':
        connection.left = true;
        plane.signal(P9Signal.left);
    }
  }

  private setUp(connection: Connection, rings: readonly P9RingPages[]): void {
    const { memory } = this.host;
    connection.rings = rings.map(({ intf, pages }, index) => ({
      index,
      ring: new FlexRing(memory, intf, pages),
      waiting: [],
    }));
    // Half of a ring: the other half takes the next message while one is there.
    const least = Math.min(...connection.rings.map(({ ring }) => ring.size));
    connection.server = new P9Server(this.description, least / 2);
    this.look(connection);
  }

  private look(connection: Connection): void {
    if (connection.left) return;
    try {
      for (const ring of connection.rings) {
        this.putWaiting(connection, ring);
        this.takeFrom(connection, ring);
      }
    } catch (error) {
      // The front end broke the ring.
      connection.left = true;
      this.device.fail(error instanceof Error ? error.message : String(error));
    }
  }

  /** What is left there is looked at when one of those under way is answered. */
  private takeFrom(connection: Connection, { ring, waiting }: Ring): void {
    while (connection.underWay < MAX_REQUESTS) {
      const queued = ring.queued();
      if (queued < HEADER) return;
      const header = ring.peek(HEADER);
      const size = new DataView(header.buffer).getUint32(0, true);
      if (size < HEADER || size > ring.size) throw new DeviceError(`a request of ${size} bytes`);
      if (queued < size) return;
      const request = ring.take(size);
      connection.underWay++;
      void connection.server!.handle(request).then((answer) => {
        waiting.push(answer);
        if (waiting.length === 1) this.look(connection);
      });
    }
  }

  private putWaiting(connection: Connection, { index, ring, waiting }: Ring): void {
    let put = 0;
    while (put < waiting.length && ring.put(waiting[put]!)) put++;
    if (put > 0) {
      waiting.splice(0, put);
      connection.underWay -= put;
      connection.wait = FIRST_WAIT;
      connection.plane!.signal(P9Signal.notify + index);
    }
    if (waiting.length === 0 || connection.waitsAlready) return;
    connection.waitsAlready = true;
    this.host.after(connection.wait, () => {
      connection.waitsAlready = false;
      this.look(connection);
    });
    connection.wait = Math.min(connection.wait * 2, LONGEST_WAIT);
  }
}
