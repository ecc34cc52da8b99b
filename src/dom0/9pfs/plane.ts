/**
 * A shared folder's half on the hypervisor's thread: maps the rings, and passes signals between the guest and Domain
 * 0's thread, where the requests are read and answered (device.ts).
 *
 * Domain 0's thread touches the guest's pages until it said that it will not any more: the mappings stay until then,
 * whether the device goes or the domain dies. A guest that signals without end costs one message at a time: the next
 * one goes out when the last one was taken.
 */
import { XEN_9PFS_DATA_INTF } from '../../xen/public/io/9pfs.ts';
import type { DataPlane, GuestLink } from '../backend/data-plane.ts';

/** A ring's pages: 2 to the power of this, at most. Their references fit into the describing page. */
export const MAX_RING_ORDER = 8;

export interface P9Parameters {
  readonly rings: readonly { readonly ref: number; readonly port: number }[];
}

/** Where a ring is, in linear addresses. */
export interface P9RingPages {
  readonly intf: number;
  readonly pages: readonly number[];
}

/** To Domain 0's thread. */
export type P9Message =
  | { readonly kind: 'rings'; readonly rings: readonly P9RingPages[] }
  /** The guest signalled. */
  | { readonly kind: 'look' }
  /** The rings are to be left alone from now on; {@link P9Signal.left} answers. */
  | { readonly kind: 'leave' };

/** From there; numbers above are the guest's ports, to be signalled: notify + the ring's number. */
export const P9Signal = {
  /** The message `look` was taken. */
  looked: 0,
  /** The rings are not touched any more. */
  left: 1,
  notify: 2,
} as const;

export class P9Plane implements DataPlane {
  private readonly link: GuestLink;
  private readonly ports: readonly number[];
  private readonly rings: readonly P9RingPages[];
  private announced = false;
  /** A message `look` is on its way; and the guest has signalled again. */
  private told = false;
  private again = false;
  private left = false;

  constructor(link: GuestLink, parameters: unknown) {
    this.link = link;
    const { rings } = parameters as P9Parameters;
    this.rings = rings.map(({ ref }) => this.mapRing(ref));
    this.ports = rings.map(({ port }) => port);
    for (const port of this.ports)
      if (!link.bind(port)) throw new Error(`event channel ${port} cannot be bound`);
    link.schedule();
  }

  work(): boolean {
    if (!this.announced) {
      this.announced = true;
      this.post({ kind: 'rings', rings: this.rings });
    }
    return false;
  }

  onEvent(): void {
    if (!this.told) this.post({ kind: 'look' });
    else this.again = true;
    this.told = true;
  }

  onMessage(): void {}

  onSignal(value: number): void {
    switch (value) {
      case P9Signal.looked:
        this.told = false;
        if (!this.again) break;
        this.again = false;
        this.onEvent();
        break;
      case P9Signal.left:
        this.left = true;
        break;
      default: {
        const port = this.ports[value - P9Signal.notify];
        if (port !== undefined) this.link.notify(port);
      }
    }
  }

  close(): boolean {
    if (!this.announced) return true;
    if (!this.left) this.post({ kind: 'leave' });
    return this.left;
  }

  idle(): boolean {
    return this.left;
  }

  private post(message: P9Message): void {
    this.link.post(message);
  }

  private mapRing(ref: number): P9RingPages {
    const intf = this.map(ref);
    const word = (field: number) => Atomics.load(this.link.memory.u32, (intf + field) >>> 2);
    const order = word(XEN_9PFS_DATA_INTF.ring_order);
    if (order < 1 || order > MAX_RING_ORDER) throw new Error(`a ring of 2^${order} pages`);
    const pages = Array.from({ length: 1 << order }, (_, page) =>
      this.map(word(XEN_9PFS_DATA_INTF.ref + page * 4)),
    );
    return { intf, pages };
  }

  private map(ref: number): number {
    const page = this.link.map(ref, false);
    if (typeof page === 'number') throw new Error(`the ring's page ${ref} cannot be mapped (status ${page})`);
    return page.address;
  }
}
