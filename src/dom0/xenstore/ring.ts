/**
 * A guest's connection to the store: the page that it shares (struct xenstore_domain_interface) and its event
 * channel. Requests come in one ring of 1024 bytes, answers and events go in the other.
 *
 * The guest may write anything into the page at any time. Each index is read once for one use; more than a ring's
 * worth between two of them is an error that ends the connection (and is told in the page), until the guest asks
 * for a new one.
 */
import type { Memory } from '../../machine/memory.ts';
import {
  XENSTORE_CONNECTION,
  XENSTORE_ERROR,
  XENSTORE_INTERFACE,
  XENSTORE_RING_SIZE,
  XENSTORE_SERVER_FEATURE,
} from '../../xen/public/xs_wire.ts';
import type { Connection } from './protocol.ts';

/** Times that the guest's requests are taken in one go, before somebody else has his turn. */
const ROUNDS = 16;

export class XenstoreRing {
  readonly connection: Connection;
  /** XENSTORE_ERROR: why the ring is not served any more. */
  error: number = XENSTORE_ERROR.NONE;
  private readonly memory: Memory;
  private readonly page: number;
  private readonly notify: () => void;
  private processing = false;
  private frozen = false;

  /**
   * @param page linear address of the guest's page
   * @param notify signals the guest's event channel
   */
  constructor(memory: Memory, page: number, connection: Connection, notify: () => void) {
    this.memory = memory;
    this.page = page;
    this.connection = connection;
    this.notify = notify;
    this.store(
      XENSTORE_INTERFACE.server_features,
      XENSTORE_SERVER_FEATURE.RECONNECTION | XENSTORE_SERVER_FEATURE.ERROR,
    );
    connection.onOutput = () => this.process();
  }

  /**
   * Moves what can be moved, in both directions. To be called when the guest signals, and again when it returned
   * true: then there may be more to do.
   */
  process(): boolean {
    if (this.processing || this.frozen) return false;
    this.processing = true;
    try {
      if (this.load(XENSTORE_INTERFACE.connection) === XENSTORE_CONNECTION.RECONNECT) this.reconnect();
      let moved = false;
      let rounds = 0;
      // Only what comes in is without end. What goes out is finite, and nobody asks again for what stayed here.
      while (this.error === XENSTORE_ERROR.NONE) {
        const received = rounds < ROUNDS && this.receive();
        const sent = this.send();
        if (!received && !sent) break;
        moved = true;
        if (received) rounds++;
      }
      if (moved) this.notify();
      return rounds === ROUNDS;
    } finally {
      this.processing = false;
    }
  }

  /** Leaves the page as it is, until told otherwise: it is being copied. */
  freeze(frozen: boolean): void {
    this.frozen = frozen;
    if (!frozen) this.process();
  }

  /** The domain is gone. The page is not touched any more. */
  close(): void {
    this.error = XENSTORE_ERROR.COMM;
    this.connection.onOutput = () => {};
    this.connection.close();
  }

  /** Guest to store. */
  private receive(): boolean {
    if (!this.connection.ready) return false;
    const consumer = this.load(XENSTORE_INTERFACE.req_cons);
    const used = (this.load(XENSTORE_INTERFACE.req_prod) - consumer) >>> 0;
    if (used > XENSTORE_RING_SIZE) {
      this.fail(XENSTORE_ERROR.RINGIDX);
      return false;
    }
    if (used === 0) return false;
    const bytes = new Uint8Array(used);
    const at = consumer % XENSTORE_RING_SIZE;
    const first = Math.min(used, XENSTORE_RING_SIZE - at);
    const ring = this.page + XENSTORE_INTERFACE.req;
    bytes.set(this.memory.u8.subarray(ring + at, ring + at + first));
    bytes.set(this.memory.u8.subarray(ring, ring + used - first), first);
    this.store(XENSTORE_INTERFACE.req_cons, consumer + used);
    this.connection.receive(bytes);
    if (this.connection.broken) this.fail(XENSTORE_ERROR.PROTO);
    return true;
  }

  /** Store to guest. */
  private send(): boolean {
    if (this.connection.pending === 0) return false;
    const producer = this.load(XENSTORE_INTERFACE.rsp_prod);
    const used = (producer - this.load(XENSTORE_INTERFACE.rsp_cons)) >>> 0;
    if (used > XENSTORE_RING_SIZE) {
      this.fail(XENSTORE_ERROR.RINGIDX);
      return false;
    }
    const bytes = this.connection.take(XENSTORE_RING_SIZE - used);
    if (bytes.length === 0) return false;
    const at = producer % XENSTORE_RING_SIZE;
    const first = Math.min(bytes.length, XENSTORE_RING_SIZE - at);
    const ring = this.page + XENSTORE_INTERFACE.rsp;
    this.memory.u8.set(bytes.subarray(0, first), ring + at);
    this.memory.u8.set(bytes.subarray(first), ring);
    this.store(XENSTORE_INTERFACE.rsp_prod, producer + bytes.length);
    return true;
  }

  /** The guest starts anew: it forgot all transactions and watches. */
  private reconnect(): void {
    this.error = XENSTORE_ERROR.NONE;
    this.connection.reset();
    const { req_cons, req_prod, rsp_cons, rsp_prod } = XENSTORE_INTERFACE;
    for (const index of [req_cons, req_prod, rsp_cons, rsp_prod]) this.store(index, 0);
    this.store(XENSTORE_INTERFACE.error, XENSTORE_ERROR.NONE);
    this.store(XENSTORE_INTERFACE.connection, XENSTORE_CONNECTION.CONNECTED);
    this.notify();
  }

  private fail(error: number): void {
    this.error = error;
    this.store(XENSTORE_INTERFACE.error, error);
    this.connection.reset();
    this.connection.broken = true;
  }

  private load(field: number): number {
    return Atomics.load(this.memory.u32, (this.page + field) >>> 2);
  }

  private store(field: number, value: number): void {
    Atomics.store(this.memory.u32, (this.page + field) >>> 2, value >>> 0);
  }
}
