/**
 * The FIFO ABI: a word for each port (pending, masked, linked, and the next port), in pages that the guest lends,
 * and for each vCPU a control block with the heads of 16 queues, one a priority.
 *
 * A port is linked into a queue once, when it becomes pending while not masked; the guest takes it off the head and
 * clears LINKED and the link. The tails are kept here and nowhere the guest can write. The guest's words are never
 * followed: a link is only ever written, so whatever a guest puts there breaks nothing but its own queues.
 *
 * A queue is empty when its tail is no longer linked (the guest took it) or when its tail is the very port that is
 * being linked; then the head is written and the vCPU told. A port that moves to another queue (priority or vCPU
 * changed) must not stay the tail of the old one, or the old queue would later link into the new one.
 */
import { type Memory, PAGE_SIZE } from '../machine/memory.ts';
import type { Domain } from './domain.ts';
import { type Channel, type EventAbi, raiseUpcall } from './event-abi.ts';
import { GuestPage } from './guest-page.ts';
import { HypercallError } from './hypercall.ts';
import { ERRNO } from './public/errno.ts';
import {
  EVTCHN_FIFO,
  EVTCHN_FIFO_CONTROL_BLOCK,
  EVTCHN_FIFO_LINK_MASK,
  EVTCHN_FIFO_MAX_QUEUES,
  EVTCHN_FIFO_NR_CHANNELS,
} from './public/event_channel.ts';

/** Event words in a page. */
const WORDS_PER_PAGE = PAGE_SIZE / 4;

/** The queues of one vCPU. */
interface Queues {
  readonly page: GuestPage;
  /** Linear address of the control block. */
  readonly control: number;
  /** The last port of each queue; 0: none. */
  readonly tails: Uint32Array;
}

/** The pages of the ABI as plain data (domain-state.ts). */
export interface FifoState {
  /** Frame numbers of the event words. */
  readonly pages: readonly number[];
  readonly queues: readonly {
    readonly vcpu: number;
    /** Of the control block: its page, and where in it. */
    readonly mfn: number;
    readonly offset: number;
    readonly tails: readonly number[];
  }[];
}

/** Where a control block may be in its page. */
function goodOffset(offset: number): boolean {
  return offset >= 0 && offset <= PAGE_SIZE - EVTCHN_FIFO_CONTROL_BLOCK.size && (offset & 7) === 0;
}

export class FifoAbi implements EventAbi {
  readonly ports = EVTCHN_FIFO_NR_CHANNELS;
  private readonly domain: Domain;
  private readonly pages: GuestPage[] = [];
  private readonly queues: (Queues | undefined)[] = [];

  constructor(domain: Domain) {
    this.domain = domain;
  }

  /** Whether EVTCHNOP_init_control was done for the vCPU. */
  hasControlBlock(vcpu: number): boolean {
    return this.queues[vcpu] !== undefined;
  }

  /**
   * EVTCHNOP_init_control for one vCPU.
   * @param offset of the control block in the page, in bytes
   * @throws HypercallError EINVAL: no such page, a bad offset, or the vCPU has a control block already
   */
  addControlBlock(vcpu: number, gfn: number, offset: number): void {
    if (!goodOffset(offset)) throw new HypercallError(ERRNO.EINVAL);
    if (this.queues[vcpu]) throw new HypercallError(ERRNO.EINVAL);
    const page = GuestPage.writable(this.domain, gfn);
    if (!page) throw new HypercallError(ERRNO.EINVAL);
    this.queues[vcpu] = {
      page,
      control: page.address + offset,
      tails: new Uint32Array(EVTCHN_FIFO_MAX_QUEUES),
    };
  }

  /**
   * EVTCHNOP_expand_array: words for the next 1024 ports.
   * @returns the first of those ports and how many: what waited on them must be set pending again
   * @throws HypercallError EINVAL: no such page; ENOSPC: all ports have words
   */
  addPage(gfn: number): { first: number; count: number } {
    if (this.pages.length * WORDS_PER_PAGE >= this.ports) throw new HypercallError(ERRNO.ENOSPC);
    const page = GuestPage.writable(this.domain, gfn);
    if (!page) throw new HypercallError(ERRNO.EINVAL);
    this.pages.push(page);
    return { first: (this.pages.length - 1) * WORDS_PER_PAGE, count: WORDS_PER_PAGE };
  }

  state(): FifoState {
    return {
      pages: this.pages.map(({ mfn }) => mfn),
      queues: this.queues.flatMap((queue, vcpu) => {
        if (queue === undefined) return [];
        const { page, control, tails } = queue;
        return [{ vcpu, mfn: page.mfn, offset: control - page.address, tails: [...tails] }];
      }),
    };
  }

  /**
   * For a domain of which so much is known: the pages are held already.
   * @throws HypercallError EINVAL: what cannot be
   */
  static of(domain: Domain, { pages, queues }: FifoState): FifoAbi {
    const fifo = new FifoAbi(domain);
    if (pages.length * WORDS_PER_PAGE > fifo.ports) throw new HypercallError(ERRNO.EINVAL);
    for (const mfn of pages) fifo.pages.push(GuestPage.adopt(domain, mfn));
    for (const { vcpu, mfn, offset, tails } of queues) {
      if (!goodOffset(offset) || !domain.vcpus[vcpu] || fifo.queues[vcpu])
        throw new HypercallError(ERRNO.EINVAL);
      const page = GuestPage.adopt(domain, mfn);
      const kept = new Uint32Array(EVTCHN_FIFO_MAX_QUEUES);
      kept.set(tails.slice(0, EVTCHN_FIFO_MAX_QUEUES));
      fifo.queues[vcpu] = { page, control: page.address + offset, tails: kept };
    }
    return fifo;
  }

  setPending(channel: Channel): boolean {
    const { memory } = this;
    const at = this.word(channel.port);
    if (at === 0) {
      const before = channel.pending;
      channel.pending = true;
      return !before;
    }
    const word = memory.u32[at]!;
    memory.u32[at] = word | EVTCHN_FIFO.PENDING;
    const fresh = (word & EVTCHN_FIFO.PENDING) === 0;
    if ((word & (EVTCHN_FIFO.MASKED | EVTCHN_FIFO.LINKED)) === 0) this.link(channel, at);
    return fresh;
  }

  clearPending(channel: Channel): void {
    channel.pending = false;
    const at = this.word(channel.port);
    if (at !== 0) this.memory.u32[at]! &= ~EVTCHN_FIFO.PENDING;
  }

  isPending(channel: Channel): boolean {
    return this.flag(channel, EVTCHN_FIFO.PENDING) || channel.pending;
  }

  isMasked(channel: Channel): boolean {
    return this.word(channel.port) === 0 || this.flag(channel, EVTCHN_FIFO.MASKED);
  }

  unmask(channel: Channel): void {
    const at = this.word(channel.port);
    if (at === 0) return;
    this.memory.u32[at]! &= ~EVTCHN_FIFO.MASKED;
    if (this.flag(channel, EVTCHN_FIFO.PENDING)) this.setPending(channel);
  }

  isBusy(channel: Channel): boolean {
    return this.flag(channel, EVTCHN_FIFO.LINKED);
  }

  /** Gives the guest's pages back. */
  destroy(): void {
    for (const page of this.pages) page.release();
    for (const queue of this.queues) queue?.page.release();
    this.pages.length = 0;
    this.queues.length = 0;
  }

  private get memory(): Memory {
    return this.domain.hypervisor.memory;
  }

  /** Where the event word of a port is, as an index into u32; 0: the guest has lent no page for it. */
  private word(port: number): number {
    const page = this.pages[Math.floor(port / WORDS_PER_PAGE)];
    return page ? (page.address >>> 2) + (port % WORDS_PER_PAGE) : 0;
  }

  private flag(channel: Channel, flag: number): boolean {
    const at = this.word(channel.port);
    return at !== 0 && (this.memory.u32[at]! & flag) !== 0;
  }

  /** Puts a pending port at the end of its queue. */
  private link(channel: Channel, at: number): void {
    const queues = this.queues[channel.vcpu];
    const vcpu = this.domain.vcpus[channel.vcpu];
    // Without a control block there is nowhere to deliver to; the port stays pending and is linked by its unmask.
    if (!queues || !vcpu) return;
    const { memory } = this;
    const { port, priority } = channel;
    memory.u32[at]! |= EVTCHN_FIFO.LINKED;
    this.leaveOldQueue(channel);

    const tail = queues.tails[priority]!;
    queues.tails[priority] = port;
    if (tail !== 0 && tail !== port && this.setLink(tail, port)) return;

    memory.u32[(queues.control + EVTCHN_FIFO_CONTROL_BLOCK.head + priority * 4) >>> 2] = port;
    const ready = (queues.control + EVTCHN_FIFO_CONTROL_BLOCK.ready) >>> 2;
    const bit = 1 << priority;
    if ((memory.u32[ready]! & bit) !== 0) return;
    memory.u32[ready]! |= bit;
    raiseUpcall(memory, vcpu);
  }

  private leaveOldQueue(channel: Channel): void {
    const { vcpu, priority, lastVcpu, lastPriority, port } = channel;
    if (vcpu !== lastVcpu || priority !== lastPriority) {
      const old = this.queues[lastVcpu];
      if (old && old.tails[lastPriority] === port) old.tails[lastPriority] = 0;
    }
    channel.lastVcpu = vcpu;
    channel.lastPriority = priority;
  }

  /** Makes a port the successor of the tail. False if the guest took the tail already: the queue is empty. */
  private setLink(tail: number, port: number): boolean {
    const at = this.word(tail);
    if (at === 0) return false;
    const word = this.memory.u32[at]!;
    if ((word & EVTCHN_FIFO.LINKED) === 0) return false;
    this.memory.u32[at] = (word & ~EVTCHN_FIFO_LINK_MASK) | port;
    return true;
  }
}
