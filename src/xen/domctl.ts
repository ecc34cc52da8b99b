/**
 * The control interface: what Domain 0 may ask of the hypervisor (Xen's domctl). Arguments and results are plain
 * JSON data, as they cross threads. Every method throws HypercallError: ESRCH for a domain that does not exist,
 * EINVAL for arguments that make no sense, ENOMEM where the machine is full.
 */
import { PAGE_SIZE } from '../machine/memory.ts';
import { RING_SIZE } from '../x86/interpreter/transfers.ts';
import type { BvtParameters } from './bvt.ts';
import { dumpDomain } from './crash.ts';
import type { Domain } from './domain.ts';
import { beginRestore, finishRestore, type Place, type SavedDomain, saveDomain } from './domain-save.ts';
import { forkDomain } from './fork.ts';
import { applyStartState, type StartState } from './guest-context.ts';
import { HypercallError } from './hypercall.ts';
import { fillHypercallPage } from './hypercall-page.ts';
import type { Hypervisor } from './hypervisor.ts';
import { outOfMemory } from './mm/backing.ts';
import { FrameType } from './mm/frame-table.ts';
import { ERRNO } from './public/errno.ts';
import { GNTTAB_RESERVED_CONSOLE, GNTTAB_RESERVED_XENSTORE } from './public/grant_table.ts';
import { SHUTDOWN_MAX } from './public/sched.ts';
import { RUNSTATE } from './public/vcpu.ts';
import { PVCLOCK, VIRQ } from './public/xen.ts';
import { publishWallclock } from './time.ts';
import { Tracer } from './trace.ts';
import type { Vcpu } from './vcpu.ts';

/** What the hypervisor tells Domain 0 of its own accord. */
export type Notification =
  /** The guest signalled a port whose other end is Domain 0. Several signals may be one notification. */
  | { kind: 'event'; domid: number; port: number }
  /** The domain stopped: a SHUTDOWN_* code; for a crash, why. */
  | { kind: 'shutdown'; domid: number; reason: number; crashReason: string | null }
  /** The domain printed on the emergency console. */
  | { kind: 'console'; domid: number; text: string }
  | { kind: 'trace'; line: string }
  /** The domain waits until it is on the same processor as another one, with which it wants to share something. */
  | { kind: 'seek'; domid: number; other: number };

export interface CreateDomain {
  /** The most pages of 4 KiB that it may own. */
  maxPages: number;
  vcpus: number;
  /** 32 hexadecimal digits, with or without dashes; left out: a random one. */
  uuid?: string;
}

export interface DomainInfo {
  domid: number;
  uuid: string;
  maxPages: number;
  totalPages: number;
  /** SHUTDOWN_* once it has stopped. */
  shutdown: number | null;
  crashReason: string | null;
  paused: boolean;
  dying: boolean;
  /** All its vCPUs wait. */
  blocked: boolean;
  running: boolean;
  /** Time for which its vCPUs ran, ns. */
  cpuTimeNs: number;
  vcpus: number;
  onlineVcpus: number;
  sharedInfoMfn: number;
  /** Frames that the hypervisor needs for it, beside its own pages. */
  overheadPages: number;
}

/** How a machine deals with its memory. */
export interface MemoryPolicy {
  /** Pages of the same contents become one (mm/page-sharing.ts). */
  readonly sharing: boolean;
  /**
   * Domains may be made that together want more memory than there is: when it is used up, the one that writes to a
   * shared page ends.
   */
  readonly overcommit: boolean;
}

/**
 * Of the machine: pages of 4 KiB, how many of them are free to be given, how many are free and promised to domains,
 * how many domains have in common and how many that saves; and instructions that guests tried and that the processor
 * does not know.
 */
export interface MachineInfo {
  readonly totalPages: number;
  readonly freePages: number;
  readonly promisedPages: number;
  readonly sharedPages: number;
  readonly savedPages: number;
  readonly undefinedInstructions: readonly (readonly [string, number])[];
}

export interface VcpuInfo {
  vcpu: number;
  online: boolean;
  blocked: boolean;
  running: boolean;
  /** Time for which it ran, ns. */
  cpuTimeNs: number;
}

/** Kinds of sendTrigger. */
export type Trigger = 'nmi' | 'debug';

export const VCPUS_MAX = 128;
/** The most pages that sharePages takes at once: guests wait for it. */
export const SHARE_MAX = 1024;

/** Bounds of the scheduler's parameters: mcu_advance, warp_value, and any time in ns. */
const MCU_ADVANCE_MIN = 0.01;
const MCU_ADVANCE_MAX = 2 ** 20;
const WARP_MAX = 2 ** 31;
const ALLOWANCE_MAX = 10e9;
const TIME_MAX = 1e15;

export class Control {
  /** Takes what the hypervisor tells. */
  onNotify: (notification: Notification) => void = () => {};
  private readonly hypervisor: Hypervisor;

  constructor(hypervisor: Hypervisor) {
    this.hypervisor = hypervisor;
  }

  /** A new domain, paused and without memory. */
  createDomain({ maxPages, vcpus, uuid }: CreateDomain): number {
    if (!isCount(maxPages) || !isCount(vcpus) || vcpus > VCPUS_MAX) throw new HypercallError(ERRNO.EINVAL);
    const domain = this.hypervisor.createDomain(maxPages, vcpus, uuid === undefined ? null : parseUuid(uuid));
    domain.memory.backing.reserved = !this.hypervisor.pageSharing.overcommit;
    return domain.id;
  }

  /**
   * Makes a copy of a domain as it is now (fork.ts), paused.
   * @param own frame numbers of the pages that Domain 0 serves: console, xenstore
   * @returns the new domain's number. EBUSY: it shares memory or channels with another guest
   */
  forkDomain(domid: number, own: readonly number[]): number {
    return forkDomain(this.hypervisor, this.need(domid), own).id;
  }

  /**
   * A domain as it is now, without the contents of its memory, and where those are (domain-save.ts). It must be paused,
   * and stay so until they have been read; until it is unpaused its timers stand still. EBUSY: it shares memory or
   * channels with another guest
   */
  saveDomain(domid: number): { saved: SavedDomain; places: Place[] } {
    const domain = this.need(domid);
    if (domain.pauseCount === 0) throw new HypercallError(ERRNO.EINVAL, 'the domain runs');
    const parts = saveDomain(domain);
    domain.holdTimers();
    return parts;
  }

  /** Begins to make a domain of a saved one: paused, with memory that is to be filled at those places. */
  beginRestore(saved: SavedDomain, uuid?: string): { domid: number; places: Place[] } {
    const { capacity } = saved.state.memory;
    const vcpus = saved.state.vcpus.length;
    if (!isCount(capacity) || !isCount(vcpus) || vcpus > VCPUS_MAX) throw new HypercallError(ERRNO.EINVAL);
    const made = beginRestore(this.hypervisor, saved, uuid === undefined ? null : parseUuid(uuid));
    made.domain.memory.backing.reserved = !this.hypervisor.pageSharing.overcommit;
    return { domid: made.domain.id, places: made.places };
  }

  /** Its memory is filled: it becomes what was saved. EINVAL: that cannot be a domain, and nothing is left of it. */
  finishRestore(domid: number, saved: SavedDomain): void {
    finishRestore(this.need(domid), saved);
  }

  destroyDomain(domid: number): void {
    this.hypervisor.destroyDomain(this.need(domid));
  }

  pauseDomain(domid: number): void {
    this.need(domid).pause();
  }

  unpauseDomain(domid: number): void {
    const domain = this.need(domid);
    if (domain.pauseCount === 0) throw new HypercallError(ERRNO.EINVAL, 'the domain is not paused');
    publishWallclock(domain);
    // Its watchdogs are not to take the time for which it stood still for a hang.
    for (const vcpu of domain.vcpus) vcpu.publishTime(this.hypervisor.now(), PVCLOCK.GUEST_STOPPED);
    domain.releaseTimers();
    domain.unpause();
  }

  /** All domains, by number. */
  listDomains(): DomainInfo[] {
    return [...this.hypervisor.allDomains()].map((domain) => this.getDomainInfo(domain.id));
  }

  getDomainInfo(domid: number): DomainInfo {
    const domain = this.need(domid);
    const now = this.hypervisor.now();
    const online = domain.vcpus.filter((vcpu) => !vcpu.down);
    return {
      domid,
      uuid: formatUuid(domain.uuid),
      maxPages: domain.memory.maxPages,
      totalPages: domain.memory.totalPages,
      shutdown: domain.shutdown,
      crashReason: domain.crashReason,
      paused: domain.pauseCount > 0,
      dying: domain.dying,
      blocked: online.length > 0 && online.every((vcpu) => vcpu.blocked),
      running: online.some((vcpu) => vcpu.state === RUNSTATE.running),
      cpuTimeNs: domain.vcpus.reduce((sum, vcpu) => sum + vcpu.runstate.total(RUNSTATE.running, now), 0),
      vcpus: domain.vcpus.length,
      onlineVcpus: online.length,
      sharedInfoMfn: domain.memory.sharedInfoMfn,
      overheadPages: overheadPages(domain),
    };
  }

  /** A domain's virtual CPUs, by number. */
  listVcpus(domid: number): VcpuInfo[] {
    const now = this.hypervisor.now();
    return this.need(domid).vcpus.map((vcpu) => ({
      vcpu: vcpu.id,
      online: !vcpu.down,
      blocked: !vcpu.down && vcpu.blocked,
      running: vcpu.state === RUNSTATE.running,
      cpuTimeNs: vcpu.runstate.total(RUNSTATE.running, now),
    }));
  }

  // --- Scheduling (bvt.ts) ---

  schedulerGet(domid: number): BvtParameters {
    return this.hypervisor.scheduler.parameters(this.need(domid));
  }

  /** Changes some of a domain's parameters, from now on. Times in ns. */
  schedulerSet(domid: number, changes: Partial<BvtParameters>): void {
    const { scheduler } = this.hypervisor;
    const domain = this.need(domid);
    const parameters: BvtParameters = { ...scheduler.parameters(domain), ...changes };
    const { mcuAdvance, warpback, warpValue, warpLimit, unwarpTime } = parameters;
    within(mcuAdvance, MCU_ADVANCE_MIN, MCU_ADVANCE_MAX);
    within(warpValue, 0, WARP_MAX);
    within(warpLimit, 0, TIME_MAX);
    within(unwarpTime, 0, TIME_MAX);
    if (typeof warpback !== 'boolean') throw new HypercallError(ERRNO.EINVAL);
    scheduler.setParameters(domain, { mcuAdvance, warpback, warpValue, warpLimit, unwarpTime });
  }

  /** The machine's context-switch allowance, ns. */
  allowanceGet(): number {
    return this.hypervisor.scheduler.allowance;
  }

  allowanceSet(allowance: number): void {
    within(allowance, 0, ALLOWANCE_MAX);
    this.hypervisor.scheduler.allowance = allowance;
  }

  // --- Memory ---

  /**
   * Changes the most pages that the domain may own. What it has already stays its own; it gets no more.
   * ENOMEM: more than it was created for.
   */
  setMaxMem(domid: number, maxPages: number): void {
    const { memory } = this.need(domid);
    if (!isCount(maxPages)) throw new HypercallError(ERRNO.EINVAL);
    if (maxPages > memory.capacity)
      throw new HypercallError(ERRNO.ENOMEM, `the domain was created for at most ${memory.capacity} pages`);
    memory.maxPages = maxPages;
  }

  /**
   * Gives the domain pages, cleared.
   * @param touched Domain 0 itself writes to so many of them, the first ones; the others get memory when the guest
   *   first writes to them
   */
  populatePhysmap(domid: number, count: number, touched = count): { mfns: number[] } {
    if (!isCount(count) || !(touched >= 0 && touched <= count)) throw new HypercallError(ERRNO.EINVAL);
    const { memory } = this.need(domid);
    const { pageSharing } = this.hypervisor;
    if (touched === count || !pageSharing.enabled) return { mfns: memory.populate(count) };
    try {
      return { mfns: memory.populate(count, count - touched, pageSharing.zero(memory.space)) };
    } catch (error) {
      throw outOfMemory(error);
    }
  }

  /** Domain 0 reads and writes these pages by itself: they do not become shared ones. */
  keepPages(domid: number, mfns: readonly number[]): void {
    const { memory } = this.need(domid);
    for (const mfn of mfns) memory.keep(mfn);
  }

  /** Pages of a domain that is not running yet become shared ones where others have the same contents. */
  sharePages(domid: number, first: number, count: number): void {
    const domain = this.need(domid);
    if (!isCount(count) || count > SHARE_MAX || !(first >= 0 && Number.isInteger(first)))
      throw new HypercallError(ERRNO.EINVAL);
    if (domain.pauseCount === 0) throw new HypercallError(ERRNO.EBUSY, 'the domain is not paused');
    this.hypervisor.pageSharing.share(domain, first, count);
  }

  /** How the machine deals with memory from now on. What is shared already stays so. */
  setMemoryPolicy({ sharing, overcommit }: MemoryPolicy): void {
    const { pageSharing } = this.hypervisor;
    pageSharing.enabled = sharing;
    pageSharing.overcommit = overcommit;
  }

  /** The domain's table of frames: its linear address, and how many u32 entries it has. */
  getSpace(domid: number): { frameTable: number; frameLimit: number } {
    const { frameTable, frameLimit } = this.need(domid).space;
    return { frameTable, frameLimit };
  }

  /** Entries of the machine-to-physical table. */
  setM2p(domid: number, pairs: readonly (readonly [mfn: number, pfn: number])[]): void {
    const { memory } = this.need(domid);
    for (const [mfn, pfn] of pairs) memory.setM2p(mfn, pfn);
  }

  /** Frames that follow each other get physical numbers that follow each other. */
  setM2pRange(domid: number, firstMfn: number, firstPfn: number, count: number): void {
    const { memory } = this.need(domid);
    if (!isCount(count) || count > memory.space.frameLimit) throw new HypercallError(ERRNO.EINVAL);
    for (let index = 0; index < count; index++) memory.setM2p(firstMfn + index, firstPfn + index);
  }

  /** Fills a page of the domain's with entries to all hypercalls. */
  setHypercallPage(domid: number, mfn: number): void {
    const { memory } = this.need(domid);
    if (!memory.owns(mfn)) throw new HypercallError(ERRNO.EINVAL);
    const frame = memory.machineFrame(mfn);
    fillHypercallPage(this.hypervisor.memory.frame(frame));
    this.hypervisor.processor.written(frame);
  }

  /** Gives a vCPU the state it starts in. Its root page table is validated with everything below it. */
  setVcpuContext(domid: number, vcpu: number, start: StartState): void {
    const target = this.needVcpu(domid, vcpu);
    if (target.initialised) throw new HypercallError(ERRNO.EEXIST, 'the virtual CPU has its state already');
    // Xen's builder leaves the first address space pinned, and guests count on that: Linux unpins it.
    const { memory } = target.domain;
    if (vcpu === 0 && memory.pin(start.root, FrameType.l4) !== 0)
      throw new HypercallError(ERRNO.EINVAL, 'the first root table does not validate');
    applyStartState(target, start);
    target.down = false;
    target.reschedule();
  }

  /** A port of the domain whose other end is Domain 0. */
  evtchnAllocUnbound(domid: number): number {
    return this.need(domid).events.allocUnbound(0);
  }

  /** Grants Domain 0 the console's and the xenstore's page, by the references that are reserved for them. */
  seedGrantTable(domid: number, consoleMfn: number, xenstoreMfn: number): void {
    const { grants } = this.need(domid);
    const seeds = [
      [GNTTAB_RESERVED_CONSOLE, consoleMfn],
      [GNTTAB_RESERVED_XENSTORE, xenstoreMfn],
    ] as const;
    for (const [ref, mfn] of seeds) if (!grants.seed(ref, mfn)) throw new HypercallError(ERRNO.ENOMEM);
  }

  /** Signals a port of the domain. Nothing happens if the domain or the port is gone: it may just have ended. */
  evtchnSend(domid: number, port: number): void {
    this.hypervisor.domain(domid)?.events.notifyFromDom0(port);
  }

  /** Ends the domain with a SHUTDOWN_* code. */
  shutdownDomain(domid: number, reason: number): void {
    if (!Number.isInteger(reason) || reason < 0 || reason > SHUTDOWN_MAX)
      throw new HypercallError(ERRNO.EINVAL);
    this.need(domid).shutDown(reason);
  }

  /** An NMI, or VIRQ_DEBUG, to a vCPU. */
  sendTrigger(domid: number, trigger: Trigger, vcpu = 0): void {
    const target = this.needVcpu(domid, vcpu);
    if (trigger === 'nmi') {
      target.nmiPending = true;
      target.kick();
    } else {
      target.domain.events.sendVirq(target, VIRQ.DEBUG);
    }
  }

  /** Registers, last control transfers and stack, as text (see crash.ts). */
  crashDump(domid: number): string {
    return dumpDomain(this.need(domid));
  }

  /** What the domain printed on the emergency console, as far as it is kept. */
  readConsole(domid: number): string {
    return new TextDecoder().decode(this.need(domid).log.bytes);
  }

  /** Traces the domain's hypercalls: a notification each. */
  setTrace(domid: number, on: boolean): void {
    this.need(domid).tracer = on
      ? new Tracer((line) => this.hypervisor.notify({ kind: 'trace', line }))
      : null;
  }

  machineInfo(): MachineInfo {
    const { frames, processor, sharedFrames } = this.hypervisor;
    return {
      totalPages: frames.total,
      freePages: Math.max(frames.free - sharedFrames.promised, 0),
      promisedPages: sharedFrames.promised,
      sharedPages: sharedFrames.used,
      savedPages: sharedFrames.saved,
      undefinedInstructions: [...processor.undefinedInstructions],
    };
  }

  private need(domid: number): Domain {
    const domain = this.hypervisor.domain(domid);
    if (domain === undefined) throw new HypercallError(ERRNO.ESRCH, `there is no domain ${domid}`);
    return domain;
  }

  private needVcpu(domid: number, id: number): Vcpu {
    const vcpu = this.need(domid).vcpus[id];
    if (vcpu === undefined)
      throw new HypercallError(ERRNO.ENOENT, `domain ${domid} has no virtual CPU ${id}`);
    return vcpu;
  }
}

/** Tables, shared_info, processor states and what the processor adds to each, grant table. */
function overheadPages({ memory, vcpus, grants }: Domain): number {
  const ofVcpu = 1 + RING_SIZE / PAGE_SIZE;
  return memory.overhead + vcpus.length * ofVcpu + grants.frames.count + grants.frames.statusCount;
}

function within(value: number, least: number, most: number): void {
  if (!(value >= least && value <= most)) throw new HypercallError(ERRNO.EINVAL);
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value > 0;
}

function parseUuid(text: string): Uint8Array {
  const digits = text.replaceAll('-', '');
  if (!/^[0-9a-f]{32}$/i.test(digits)) throw new HypercallError(ERRNO.EINVAL, `not a UUID: ${text}`);
  return Uint8Array.from({ length: 16 }, (_, index) =>
    Number.parseInt(digits.slice(index * 2, index * 2 + 2), 16),
  );
}

function formatUuid(uuid: Uint8Array): string {
  const digits = Array.from(uuid, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}
