/** For tests: a client of 9P2000.L, and a guest's front end, by hand. */
import { PAGE_SIZE } from '../../machine/memory.ts';
import { XEN_9PFS_DATA_INTF } from '../../xen/public/io/9pfs.ts';
import { XenbusState } from '../../xen/public/io/xenbus.ts';
import type { TestDomain } from '../../xen/testing-domains.ts';
import { grantPage, type TestBackends } from '../backend/testing.ts';
import { XenstoreClient } from '../xenstore/client.ts';
import { MessageReader, MessageWriter, P9 } from './messages.ts';

/** An answer that is an error. */
export class P9Error extends Error {
  readonly errno: number;

  constructor(errno: number) {
    super(`errno ${errno}`);
    this.errno = errno;
  }
}

export class P9Client {
  private readonly exchange: (request: Uint8Array) => Promise<Uint8Array>;
  private tag = 0;

  constructor(exchange: (request: Uint8Array) => Promise<Uint8Array>) {
    this.exchange = exchange;
  }

  /** @returns the answer's fields @throws P9Error */
  async ask(type: number, fill: (w: MessageWriter) => unknown = () => {}): Promise<MessageReader> {
    const writer = new MessageWriter();
    fill(writer);
    const tag = ++this.tag % 0xffff;
    const answer = await this.exchange(writer.finish(type, tag));
    const view = new DataView(answer.buffer, answer.byteOffset, answer.length);
    if (view.getUint32(0, true) !== answer.length || view.getUint16(5, true) !== tag)
      throw new Error('a damaged answer');
    const reader = new MessageReader(answer);
    if (answer[4] === P9.lerror + 1) throw new P9Error(reader.u32());
    if (answer[4] !== type + 1) throw new Error(`an answer of type ${answer[4]}`);
    return reader;
  }

  async version(msize: number, version = '9P2000.L'): Promise<[msize: number, version: string]> {
    const answer = await this.ask(P9.version, (w) => w.u32(msize).string(version));
    return [answer.u32(), answer.string()];
  }

  attach(fid: number): Promise<MessageReader> {
    return this.ask(P9.attach, (w) => w.u32(fid).u32(0xffff_ffff).string('root').string('').u32(0));
  }

  /** @returns how many names were found */
  async walk(fid: number, to: number, ...names: string[]): Promise<number> {
    const answer = await this.ask(P9.walk, (w) => {
      w.u32(fid).u32(to).u16(names.length);
      for (const name of names) w.string(name);
    });
    return answer.u16();
  }

  open(fid: number, flags = 0): Promise<MessageReader> {
    return this.ask(P9.lopen, (w) => w.u32(fid).u32(flags));
  }

  create(fid: number, name: string, flags = 0o102, mode = 0o644): Promise<MessageReader> {
    return this.ask(P9.lcreate, (w) => w.u32(fid).string(name).u32(flags).u32(mode).u32(0));
  }

  async read(fid: number, offset: number, count: number): Promise<Uint8Array> {
    const answer = await this.ask(P9.read, (w) => w.u32(fid).u64(BigInt(offset)).u32(count));
    return answer.rest(answer.u32());
  }

  async write(fid: number, offset: number, bytes: Uint8Array): Promise<number> {
    const answer = await this.ask(P9.write, (w) => {
      w.u32(fid).u64(BigInt(offset)).u32(bytes.length).room(bytes.length).set(bytes);
    });
    return answer.u32();
  }

  clunk(fid: number): Promise<MessageReader> {
    return this.ask(P9.clunk, (w) => w.u32(fid));
  }

  /** Names behind a cookie, and the cookie to go on with. */
  async readdir(fid: number, cookie: number, count: number): Promise<{ names: string[]; cookie: number }> {
    const answer = await this.ask(P9.readdir, (w) => w.u32(fid).u64(BigInt(cookie)).u32(count));
    if (answer.u32() > count) throw new Error('more than was asked for');
    const names: string[] = [];
    let at = cookie;
    while (answer.left > 0) {
      answer.rest(13);
      at = answer.offset();
      answer.u8();
      names.push(answer.string());
    }
    return { names, cookie: at };
  }
}

const INTF_REF = 200;
const RING_REF = 201;

/** A front end with one ring. */
export class P9Front {
  readonly guest: TestDomain;
  readonly backends: TestBackends;
  readonly size: number;
  private readonly intf: number;
  private readonly pages: number[] = [];
  private readonly sleep: (milliseconds: number) => Promise<void>;
  private port = 0;

  /** @param order pages of its ring: 2 to the power of this */
  constructor(
    backends: TestBackends,
    guest: TestDomain,
    order: number,
    sleep: (milliseconds: number) => Promise<void>,
  ) {
    this.backends = backends;
    this.sleep = sleep;
    this.guest = guest;
    this.size = (PAGE_SIZE << order) / 2;
    this.intf = this.page(INTF_REF);
    this.setIndex('ring_order', order);
    for (let page = 0; page < 1 << order; page++) {
      this.pages.push(this.page(RING_REF + page));
      this.memory.u32[(this.intf + XEN_9PFS_DATA_INTF.ref + page * 4) >>> 2] = RING_REF + page;
    }
  }

  get memory() {
    return this.backends.machines.memory;
  }

  get state(): number {
    const path = `/local/domain/0/backend/9pfs/${this.guest.domain.id}/0/state`;
    return Number(this.backends.store.read(path));
  }

  index(field: keyof typeof XEN_9PFS_DATA_INTF): number {
    return this.memory.u32[(this.intf + XEN_9PFS_DATA_INTF[field]) >>> 2]!;
  }

  setIndex(field: keyof typeof XEN_9PFS_DATA_INTF, value: number): void {
    this.memory.u32[(this.intf + XEN_9PFS_DATA_INTF[field]) >>> 2] = value;
  }

  async connect(nodes: Record<string, string | number> = {}): Promise<void> {
    const { domain } = this.guest;
    this.port = domain.events.allocUnbound(0);
    const store = new XenstoreClient(this.backends.xenstore, domain.id);
    const path = `/local/domain/${domain.id}/device/9pfs/0`;
    const all = { version: 1, 'num-rings': 1, 'ring-ref0': INTF_REF, 'event-channel-0': this.port, ...nodes };
    for (const [name, value] of Object.entries(all)) store.write(`${path}/${name}`, `${value}`);
    store.write(`${path}/state`, `${XenbusState.Initialised}`);
    await this.backends.settle();
  }

  /** Puts bytes on the ring, and signals. */
  async send(bytes: Uint8Array): Promise<void> {
    const at = this.index('out_prod');
    bytes.forEach((byte, index) => {
      this.memory.u8[this.address(this.size, at + index)] = byte;
    });
    this.setIndex('out_prod', (at + bytes.length) >>> 0);
    this.guest.domain.events.send(this.port);
    await this.backends.settle();
  }

  /** Takes the next answer; waits for it. */
  async receive(): Promise<Uint8Array> {
    for (let tries = 0; tries < 500; tries++) {
      const at = this.index('in_cons');
      if (this.index('in_prod') !== at) {
        const size = new DataView(this.bytes(at, 4).buffer).getUint32(0, true);
        const answer = this.bytes(at, size);
        this.setIndex('in_cons', (at + size) >>> 0);
        return answer;
      }
      await this.sleep(2);
      await this.backends.settle();
    }
    throw new Error('no answer');
  }

  client(): P9Client {
    return new P9Client(async (request) => {
      await this.send(request);
      return this.receive();
    });
  }

  private bytes(at: number, length: number): Uint8Array {
    return Uint8Array.from({ length }, (_, index) => this.memory.u8[this.address(0, at + index)]!);
  }

  private address(half: number, index: number): number {
    const at = half + (index & (this.size - 1));
    return this.pages[Math.floor(at / PAGE_SIZE)]! + (at % PAGE_SIZE);
  }

  /** Grants a page of its own. @returns its linear address */
  private page(ref: number): number {
    const mfn = this.guest.free.pop()!;
    grantPage(this.guest, ref, mfn);
    return this.guest.domain.memory.linear(mfn);
  }
}
