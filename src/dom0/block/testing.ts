/** For tests: a guest's block front end, by hand, and a disk that does as it is told. */
import { type Memory, PAGE_SIZE } from '../../machine/memory.ts';
import { BLKIF_OP, BLKIF_REQUEST, SECTOR_SIZE } from '../../xen/public/io/blkif.ts';
import { XenbusState } from '../../xen/public/io/xenbus.ts';
import { ringEntries, SRING } from '../../xen/public/ring.ts';
import type { TestDomain } from '../../xen/testing-domains.ts';
import type { GuestLink } from '../backend/data-plane.ts';
import { grantPage, type TestBackends, testBackends } from '../backend/testing.ts';
import { XenstoreClient } from '../xenstore/client.ts';
import type { DirectFiles } from './direct.ts';
import { IoScheduler } from './scheduler.ts';
import { type BlockSource, DiskError, MemorySource } from './source.ts';
import { type VbdDescription, VirtualBlockDevice } from './vbd.ts';
import { VbdPlane } from './vbd-plane.ts';

/** Bytes of a ring's entry. */
export const ENTRY = BLKIF_REQUEST.size;
const SECTOR = SECTOR_SIZE;
/** Grant reference of a ring's first page. */
export const RING_REF = 100;

/** A disk that ends requests when it is told to. */
export class SlowSource implements BlockSource {
  readonly size: number;
  readonly readonly = false;
  readonly discardGranularity = 4096;
  readonly log: string[] = [];
  readonly below: MemorySource;
  held: (() => void)[] | null = null;
  failing: Error | null = null;

  constructor(size: number) {
    this.size = size;
    this.below = new MemorySource(size);
  }

  private async hold(text: string): Promise<void> {
    this.log.push(`begin ${text}`);
    if (this.held) await new Promise<void>((resolve) => this.held!.push(resolve));
    this.log.push(`end ${text}`);
    if (this.failing) throw this.failing;
  }
  async read(offset: number, buffers: readonly Uint8Array[]): Promise<void> {
    await this.hold(`read ${offset / SECTOR}`);
    await this.below.read(offset, buffers);
  }
  async write(offset: number, buffers: readonly Uint8Array[]): Promise<void> {
    await this.hold(`write ${offset / SECTOR}`);
    await this.below.write(offset, buffers);
  }
  async flush(): Promise<void> {
    await this.hold('flush');
  }
  async discard(offset: number, length: number): Promise<void> {
    await this.hold(`discard ${offset / SECTOR}`);
    await this.below.discard(offset, length);
  }
  async close(): Promise<void> {
    this.log.push('close');
  }
}

/** One that lies in a file: what is read and written by the file's descriptor is on the disk. */
export class FileSource extends SlowSource {
  readonly file = 7;
  private lost = false;

  handOut(): number | null {
    return this.lost ? null : this.file;
  }

  flushFailed(): void {
    this.lost = true;
  }

  override async flush(): Promise<void> {
    if (this.lost) throw new DiskError('what was written may be lost');
    await super.flush();
  }
}

/** The host's files, of which there is one, made of memory; and a clock. */
export class TestFiles implements DirectFiles {
  readonly calls: string[] = [];
  readonly contents: Uint8Array;
  /** Time, ns; and how much of it each call takes. */
  time = 0;
  takes = 1000;
  failing = false;
  memory!: Memory;

  constructor(size: number) {
    this.contents = new Uint8Array(size);
  }

  read(file: number, offset: number, pieces: readonly number[]): boolean {
    return this.move(`read ${file}`, offset, pieces, (at, address, length) =>
      this.memory.u8.set(this.contents.subarray(at, at + length), address),
    );
  }

  write(file: number, offset: number, pieces: readonly number[]): boolean {
    return this.move(`write ${file}`, offset, pieces, (at, address, length) =>
      this.contents.set(this.memory.u8.subarray(address, address + length), at),
    );
  }

  flush(file: number): boolean {
    this.calls.push(`flush ${file}`);
    this.time += this.takes;
    return !this.failing;
  }

  private move(
    what: string,
    offset: number,
    pieces: readonly number[],
    one: (at: number, address: number, length: number) => void,
  ): boolean {
    this.calls.push(`${what} at ${offset / SECTOR}`);
    this.time += this.takes;
    if (this.failing) return false;
    let at = offset;
    for (let index = 0; index < pieces.length; index += 2) {
      one(at, pieces[index]!, pieces[index + 1]!);
      at += pieces[index + 1]!;
    }
    return true;
  }
}

export interface Answer {
  id: bigint;
  operation: number;
  status: number;
}

export type Segment = readonly [ref: number, first: number, last: number];

/** A guest's block front end, by hand. */
export class Front {
  readonly guest: TestDomain;
  readonly backends: TestBackends;
  readonly pages: number[] = [];
  readonly path: string;
  port = 0;
  private produced = 0;
  private consumed = 0;

  constructor(backends: TestBackends, guest: TestDomain, pages = 1) {
    this.backends = backends;
    this.guest = guest;
    this.path = `/local/domain/${guest.domain.id}/device/vbd/51712`;
    for (let page = 0; page < pages; page++) {
      const mfn = guest.free.pop()!;
      this.pages.push(mfn);
      grantPage(guest, RING_REF + page, mfn);
    }
    this.memory.u32[(this.address(0) + SRING.req_event) >>> 2] = 1;
    this.memory.u32[(this.address(0) + SRING.rsp_event) >>> 2] = 1;
  }

  get memory() {
    return this.backends.machines.memory;
  }

  get entries(): number {
    return ringEntries(this.pages.length * PAGE_SIZE, ENTRY);
  }

  address(offset: number): number {
    return (
      this.guest.domain.memory.linear(this.pages[Math.floor(offset / PAGE_SIZE)]!) + (offset % PAGE_SIZE)
    );
  }

  index(field: number): number {
    return this.memory.u32[(this.address(0) + field) >>> 2]!;
  }

  setIndex(field: number, value: number): void {
    this.memory.u32[(this.address(0) + field) >>> 2] = value;
  }

  async connect(nodes: Record<string, string | number> = {}): Promise<number> {
    this.port = this.guest.domain.events.allocUnbound(0);
    const store = new XenstoreClient(this.backends.xenstore, this.guest.domain.id);
    const refs =
      this.pages.length === 1
        ? { 'ring-ref': RING_REF }
        : Object.fromEntries(this.pages.map((_, page) => [`ring-ref${page}`, RING_REF + page]));
    const order = this.pages.length === 1 ? {} : { 'ring-page-order': Math.log2(this.pages.length) };
    const all = { ...refs, ...order, 'event-channel': this.port, protocol: 'x86_64-abi', ...nodes };
    for (const [name, value] of Object.entries(all)) store.write(`${this.path}/${name}`, `${value}`);
    store.write(`${this.path}/state`, `${XenbusState.Initialised}`);
    await this.backends.settle();
    return Number(
      store.read(
        this.path.replace(/^.*$/, `/local/domain/0/backend/vbd/${this.guest.domain.id}/51712/state`),
      ),
    );
  }

  put(bytes: Uint8Array): void {
    const at = SRING.entries + (this.produced++ % this.entries) * ENTRY;
    bytes.forEach((byte, index) => {
      this.memory.u8[this.address(at + index)] = byte;
    });
  }

  request(id: number, operation: number, sector: number, segments: readonly Segment[]): void {
    const bytes = new Uint8Array(ENTRY);
    const view = new DataView(bytes.buffer);
    bytes[0] = operation;
    bytes[1] = segments.length;
    view.setBigUint64(8, BigInt(id), true);
    view.setBigUint64(16, BigInt(sector), true);
    segments.slice(0, 11).forEach(([ref, first, last], index) => {
      view.setUint32(24 + index * 8, ref, true);
      bytes[28 + index * 8] = first;
      bytes[29 + index * 8] = last;
    });
    this.put(bytes);
  }

  indirect(id: number, operation: number, sector: number, count: number, refs: readonly number[]): void {
    const bytes = new Uint8Array(ENTRY);
    const view = new DataView(bytes.buffer);
    bytes[0] = BLKIF_OP.INDIRECT;
    bytes[1] = operation;
    view.setUint16(2, count, true);
    view.setBigUint64(8, BigInt(id), true);
    view.setBigUint64(16, BigInt(sector), true);
    for (const [index, ref] of refs.entries()) view.setUint32(28 + index * 4, ref, true);
    this.put(bytes);
  }

  discard(id: number, sector: number, count: number): void {
    const bytes = new Uint8Array(ENTRY);
    const view = new DataView(bytes.buffer);
    bytes[0] = BLKIF_OP.DISCARD;
    view.setBigUint64(8, BigInt(id), true);
    view.setBigUint64(16, BigInt(sector), true);
    view.setBigUint64(24, BigInt(count), true);
    this.put(bytes);
  }

  /** Shows the requests and signals them. */
  async kick(): Promise<void> {
    this.setIndex(SRING.req_prod, this.produced);
    this.guest.domain.events.send(this.port);
    await this.backends.settle();
  }

  answers(): Answer[] {
    const answers: Answer[] = [];
    for (
      const end = this.index(SRING.rsp_prod);
      this.consumed !== end;
      this.consumed = (this.consumed + 1) >>> 0
    ) {
      const at = this.address(SRING.entries + (this.consumed % this.entries) * ENTRY);
      answers.push({
        id: this.memory.read64(at),
        operation: this.memory.u8[at + 8]!,
        status: (this.memory.read16(at + 10) << 16) >> 16,
      });
    }
    this.setIndex(SRING.rsp_event, this.consumed + 1);
    return answers;
  }

  /** Grants a page of its own. @returns what is in it */
  page(ref: number, readonly = false): Uint8Array {
    const mfn = this.guest.free.pop()!;
    grantPage(this.guest, ref, mfn, readonly);
    const at = this.guest.domain.memory.linear(mfn);
    return this.memory.u8.subarray(at, at + PAGE_SIZE);
  }
}

export function setUp(
  options: Partial<VbdDescription> & {
    pages?: number;
    sectors?: number;
    domains?: number;
    files?: TestFiles;
  } = {},
) {
  const { pages = 1, sectors = 256, domains = 1, files, ...description } = options;
  const factories = {
    vbd: (link: GuestLink, parameters: unknown) =>
      new VbdPlane(files ? { ...link, now: () => files.time } : link, parameters, files ?? null),
  };
  const backends = testBackends(factories, { domains, pages: 64, maxPages: 64, megabytes: 8 });
  if (files) files.memory = backends.machines.memory;
  const guest = backends.machines.domains[0]!;
  const source = files ? new FileSource(sectors * SECTOR) : new SlowSource(sectors * SECTOR);
  const scheduler = new IoScheduler({ now: () => 0, after: () => {} }, 64);
  const device = new VirtualBlockDevice(
    { memory: backends.machines.memory, planes: backends.opener, store: backends.store, scheduler },
    { domid: guest.domain.id, devid: 51712, vdev: 'xvda', source, readonly: false, ...description },
  );
  const front = new Front(backends, guest, pages);
  const reason = () =>
    backends.store.read(`/local/domain/0/error/backend/vbd/${guest.domain.id}/51712/error`);
  return { backends, guest, source, device, front, reason };
}
