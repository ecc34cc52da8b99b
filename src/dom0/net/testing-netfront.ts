/** For tests: a guest's network front end, by hand. */
import { PAGE_SIZE } from '../../machine/memory.ts';
import {
  NETIF_EXTRA_INFO,
  NETRXF,
  NETTXF,
  XEN_NETIF_EXTRA_FLAG_MORE,
  XEN_NETIF_EXTRA_TYPE,
} from '../../xen/public/io/netif.ts';
import { XenbusState } from '../../xen/public/io/xenbus.ts';
import { SRING } from '../../xen/public/ring.ts';
import type { TestDomain } from '../../xen/testing-domains.ts';
import { grantPage, type TestBackends } from '../backend/testing.ts';
import { XenstoreClient } from '../xenstore/client.ts';

export const RING = 256;
const TX_ENTRY = 12;
const RX_ENTRY = 8;

/** References: rings, then pages to send from, then pages to receive into. */
const REF = { tx: 100, rx: 110, send: 200, receive: 300 } as const;

export interface SentPart {
  /** Index of a page to send from. */
  page: number;
  offset: number;
  length: number;
  /** Instead of the page's own. */
  ref?: number;
}

export interface Received {
  bytes: Uint8Array;
  flags: number;
  gsoSize: number;
  gsoType: number;
  /** Lengths of its pieces. */
  pieces: number[];
  failed: boolean;
}

export interface TxAnswer {
  id: number;
  status: number;
}

/** One pair of rings. */
export class FrontQueue {
  readonly port: number;
  private readonly front: NetFront;
  private readonly txPage: number;
  private readonly rxPage: number;
  private readonly receivePages: number[] = [];
  private readonly base: number;
  txProduced = 0;
  rxProduced = 0;
  private txConsumed = 0;
  private rxConsumed = 0;
  private nextId = 0;

  constructor(front: NetFront, index: number, receivePages: number) {
    this.front = front;
    const { guest } = front;
    this.base = index * 1000;
    const page = (ref: number) => {
      const mfn = guest.free.shift()!;
      grantPage(guest, this.base + ref, mfn);
      return guest.domain.memory.linear(mfn);
    };
    this.txPage = page(REF.tx);
    this.rxPage = page(REF.rx);
    for (let count = 0; count < receivePages; count++) this.receivePages.push(page(REF.receive + count));
    for (const ring of [this.txPage, this.rxPage]) {
      this.u32(ring + SRING.req_event, 1);
      this.u32(ring + SRING.rsp_event, 1);
    }
    this.port = guest.domain.events.allocUnbound(0);
  }

  get nodes(): Record<string, number> {
    return {
      'tx-ring-ref': this.base + REF.tx,
      'rx-ring-ref': this.base + REF.rx,
      'event-channel': this.port,
    };
  }

  private get memory() {
    return this.front.backends.machines.memory;
  }

  private u32(address: number, value: number): void {
    this.memory.write32(address, value);
  }

  /** Any bytes in a place of the ring. */
  txEntry(index: number): number {
    return this.txPage + SRING.entries + (index % RING) * TX_ENTRY;
  }

  rxEntry(index: number): number {
    return this.rxPage + SRING.entries + (index % RING) * RX_ENTRY;
  }

  request(gref: number, offset: number, flags: number, size: number): number {
    const at = this.txEntry(this.txProduced++);
    const id = this.nextId++ & 0xffff;
    this.u32(at, gref);
    this.memory.write16(at + 4, offset);
    this.memory.write16(at + 6, flags);
    this.memory.write16(at + 8, id);
    this.memory.write16(at + 10, size);
    return id;
  }

  extra(type: number, bytes: readonly number[], more = false): void {
    const at = this.txEntry(this.txProduced++);
    this.memory.u8.fill(0, at, at + TX_ENTRY);
    this.memory.u8[at] = type;
    this.memory.u8[at + 1] = more ? XEN_NETIF_EXTRA_FLAG_MORE : 0;
    this.memory.u8.set(bytes, at + 2);
  }

  /** Publishes the requests, and signals them if the back end asked for that, as real front ends do. */
  kick(): void {
    const signal = this.publish(this.txPage, this.txProduced);
    if (this.publish(this.rxPage, this.rxProduced) || signal) this.front.guest.domain.events.send(this.port);
  }

  /** @returns true: one of the new requests is to be signalled */
  private publish(ring: number, produced: number): boolean {
    const before = this.memory.read32(ring + SRING.req_prod);
    this.u32(ring + SRING.req_prod, produced);
    return (produced - this.memory.read32(ring + SRING.req_event)) >>> 0 < (produced - before) >>> 0;
  }

  setTxProduced(value: number): void {
    this.u32(this.txPage + SRING.req_prod, value);
    this.front.guest.domain.events.send(this.port);
  }

  setRxProduced(value: number): void {
    this.u32(this.rxPage + SRING.req_prod, value);
    this.front.guest.domain.events.send(this.port);
  }

  /** Puts a packet onto the ring, from the pages given. */
  push(parts: readonly SentPart[], { flags = 0, gsoSize = 0, gsoType = 1 } = {}): void {
    const total = parts.reduce((sum, { length }) => sum + length, 0);
    for (const [index, { page, offset, length, ref }] of parts.entries()) {
      const more = index + 1 < parts.length ? NETTXF.more_data : 0;
      const first = index === 0 ? flags | (gsoSize > 0 ? NETTXF.extra_info : 0) : 0;
      this.request(ref ?? REF.send + page, offset, more | first, index === 0 ? total : length);
      if (index === 0 && gsoSize > 0)
        this.extra(XEN_NETIF_EXTRA_TYPE.GSO, [gsoSize & 0xff, gsoSize >>> 8, gsoType]);
    }
  }

  /** Offers pages to receive into. */
  offer(count: number): void {
    for (let left = count; left > 0; left--) {
      const index = this.rxProduced++;
      const at = this.rxEntry(index);
      this.memory.write16(at, index & 0xffff);
      this.memory.write16(at + 2, 0);
      this.u32(at + 4, this.base + REF.receive + (index % this.receivePages.length));
    }
    this.kick();
  }

  txAnswers(): TxAnswer[] {
    const answers: TxAnswer[] = [];
    const produced = this.memory.read32(this.txPage + SRING.rsp_prod);
    for (; this.txConsumed !== produced; this.txConsumed++) {
      const at = this.txEntry(this.txConsumed);
      answers.push({ id: this.memory.read16(at), status: (this.memory.read16(at + 2) << 16) >> 16 });
    }
    return answers;
  }

  /** Wants to be signalled for the next answer to what it sent. */
  waitForAnswer(): void {
    this.u32(this.txPage + SRING.rsp_event, this.txConsumed + 1);
  }

  received(): Received[] {
    const packets: Received[] = [];
    const produced = this.memory.read32(this.rxPage + SRING.rsp_prod);
    let current: { parts: Uint8Array[]; packet: Received } | null = null;
    for (; this.rxConsumed !== produced; this.rxConsumed++) {
      const at = this.rxEntry(this.rxConsumed);
      const offset = this.memory.read16(at + 2);
      const flags = this.memory.read16(at + 4);
      const status = (this.memory.read16(at + 6) << 16) >> 16;
      current ??= {
        parts: [],
        packet: { bytes: new Uint8Array(0), flags, gsoSize: 0, gsoType: 0, pieces: [], failed: false },
      };
      const page = this.receivePages[this.rxConsumed % this.receivePages.length]!;
      if (status < 0) current.packet.failed = true;
      else {
        if (offset + status > PAGE_SIZE) throw new Error('beyond the page');
        current.parts.push(this.memory.u8.slice(page + offset, page + offset + status));
        current.packet.pieces.push(status);
      }
      if ((flags & NETRXF.extra_info) !== 0) {
        const extra = this.rxEntry(++this.rxConsumed);
        current.packet.gsoSize = this.memory.read16(extra + NETIF_EXTRA_INFO.gso_size);
        current.packet.gsoType = this.memory.u8[extra + NETIF_EXTRA_INFO.gso_type]!;
      }
      if ((flags & NETRXF.more_data) !== 0) continue;
      const { parts, packet } = current;
      packet.bytes = Uint8Array.from(parts.flatMap((part) => [...part]));
      packets.push(packet);
      current = null;
    }
    return packets;
  }
}

export class NetFront {
  readonly guest: TestDomain;
  readonly backends: TestBackends;
  readonly path: string;
  readonly queues: FrontQueue[] = [];
  private readonly sendPages: number[] = [];

  constructor(
    backends: TestBackends,
    guest: TestDomain,
    { queues = 1, sendPages = 18, receivePages = 24, devid = 0 } = {},
  ) {
    this.backends = backends;
    this.guest = guest;
    this.path = `/local/domain/${guest.domain.id}/device/vif/${devid}`;
    for (let count = 0; count < sendPages; count++) {
      const mfn = guest.free.shift()!;
      grantPage(guest, REF.send + count, mfn, true);
      this.sendPages.push(guest.domain.memory.linear(mfn));
    }
    for (let index = 0; index < queues; index++)
      this.queues.push(new FrontQueue(this, index, Math.floor(receivePages / queues)));
  }

  get queue(): FrontQueue {
    return this.queues[0]!;
  }

  /** Says what it wants and that it is ready. @returns the back end's state then */
  async connect(nodes: Record<string, string | number> = {}): Promise<number> {
    const store = new XenstoreClient(this.backends.xenstore, this.guest.domain.id);
    const { queues } = this;
    const rings: Record<string, number> =
      queues.length === 1
        ? this.queue.nodes
        : Object.assign(
            { 'multi-queue-num-queues': queues.length },
            ...queues.map((queue, index) =>
              Object.fromEntries(
                Object.entries(queue.nodes).map(([name, value]) => [`queue-${index}/${name}`, value]),
              ),
            ),
          );
    const all = { 'request-rx-copy': 1, 'feature-rx-notify': 1, ...rings, ...nodes };
    for (const [name, value] of Object.entries(all)) store.write(`${this.path}/${name}`, `${value}`);
    store.write(`${this.path}/state`, `${XenbusState.Connected}`);
    await this.backends.settle();
    return this.state;
  }

  get backendPath(): string {
    return this.backends.store.read(`${this.path}/backend`)!;
  }

  get state(): number {
    return Number(this.backends.store.read(`${this.backendPath}/state`));
  }

  /** Writes bytes into the pages to send from, one after the other from an offset on. @returns the parts */
  place(bytes: Uint8Array, { offset = 0, most = PAGE_SIZE, firstPage = 0 } = {}): SentPart[] {
    const parts: SentPart[] = [];
    let at = 0;
    for (let page = firstPage; at < bytes.length; page++) {
      const length = Math.min(most, PAGE_SIZE - offset, bytes.length - at);
      this.backends.machines.memory.u8.set(bytes.subarray(at, at + length), this.sendPages[page]! + offset);
      parts.push({ page, offset, length });
      at += length;
    }
    return parts;
  }

  /** Sends a packet and lets it arrive. @returns the answers */
  async send(
    bytes: Uint8Array,
    options: { flags?: number; gsoSize?: number; gsoType?: number; offset?: number; most?: number } = {},
    queue = this.queue,
  ): Promise<TxAnswer[]> {
    queue.push(this.place(bytes, options), options);
    queue.kick();
    await this.backends.settle();
    return queue.txAnswers();
  }
}
