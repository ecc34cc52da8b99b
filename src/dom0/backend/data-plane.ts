/**
 * Back ends in two halves.
 *
 * A back end's *data plane* runs on the hypervisor's thread, where grants are checked and mapped at once and events
 * cross no thread: it reads the guest's rings. Its *control plane* (the xenbus states, hot-plug) and what the host
 * does for it (files, sockets) run on Domain 0's thread. Between the two go:
 *
 *  - messages, plain JSON data, both ways: for what is seldom, or carries a list of many requests;
 *  - signals, one u32, from Domain 0's thread to the data plane: for what is often (a completion, "look at the queue");
 *  - bytes, which stay where they are: both sides see the machine's memory, and a linear address names them. A
 *    guest's page may be touched on either thread for as long as the data plane has it mapped.
 *
 * The hypervisor's thread makes a data plane of a registered kind ('vbd', 'vif') when the control plane asks for one
 * (see data-planes.ts for that side, plane-client.ts for Domain 0's).
 */
import type { Frames } from '../../machine/frames.ts';
import type { Memory } from '../../machine/memory.ts';
import type { GrantHandle } from '../../xen/grant-access.ts';
import type { GrantStatus } from '../../xen/public/grant_table.ts';

export type { GrantHandle } from '../../xen/grant-access.ts';

/** What a data plane can do with the guest that it serves. For domid 0 (no guest) every grant is refused. */
export interface GuestLink {
  readonly domid: number;
  readonly memory: Memory;
  /** Frames of the machine, for what the data plane shares with Domain 0's thread. */
  readonly frames: Frames;

  /** Maps a granted page, until unmap. @returns the page, or why it cannot be had (GNTST, below 0) */
  map(ref: number, readonly: boolean): GrantHandle | GrantStatus;
  /** Ends a mapping. What was written to the page is taken care of. */
  unmap(handle: number): void;
  /** Somebody wrote to a mapped page that stays mapped: code in it is translated anew. */
  wrote(handle: number): void;
  /**
   * A granted page, for as long as this call of the data plane lasts. Costs a small part of a mapping.
   * @param write it is going to be written to, in this call
   * @returns its linear address, or 0: it cannot be had so, but perhaps by the other ways
   */
  briefly(ref: number, write: boolean): number;
  /** Copies out of a granted page. @param to linear address */
  copyFrom(ref: number, offset: number, length: number, to: number): GrantStatus;
  /** Copies into a granted page. @param from linear address */
  copyTo(ref: number, offset: number, length: number, from: number): GrantStatus;

  /**
   * Binds the data plane to a port that the guest holds out to Domain 0: {@link DataPlane.onEvent} hears of it from
   * now on. @returns false: not such a port, or another one serves it
   */
  bind(port: number): boolean;
  unbind(port: number): void;
  /** Signals a port of the guest. Nothing happens if it is gone. */
  notify(port: number): void;

  /** System time, ns. */
  now(): number;
  /** Calls {@link DataPlane.onTimer} at that system time (ns), once; a later call moves it. Infinity: never. */
  setTimer(deadline: number): void;
  /** Asks for {@link DataPlane.work}, in turn with other data planes, between two slices of the guests. */
  schedule(): void;

  /** To the control plane; not yet in the factory. */
  post(message: unknown): void;
}

/**
 * What a back end does on the hypervisor's thread. A call should be short (a ring's worth of work): no guest runs
 * meanwhile. What a call throws ends this data plane alone, and is told to its control plane.
 */
export interface DataPlane {
  /** The guest signalled a port that was bound. */
  onEvent(port: number): void;
  /** From the control plane. */
  onMessage(message: unknown): void;
  /** From the control plane, a u32. */
  onSignal(value: number): void;
  onTimer?(now: number): void;
  /** After {@link GuestLink.schedule}. @returns true: there is more to do, come back when the others had their turn */
  work?(): boolean;
  /**
   * The device goes, or the guest died. The guest is not to be touched any more, but for pages that the host still
   * reads or writes: those stay mapped until it is done.
   * @returns true: nothing is under way. Otherwise {@link DataPlane.idle} is asked after every signal and message.
   */
  close(): boolean;
  /** After close: nothing is under way any more. All mappings that are left then end by themselves. */
  idle?(): boolean;
}

/** Makes a data plane. What it throws is the answer to the control plane that asked for it. */
export type DataPlaneFactory = (link: GuestLink, parameters: unknown) => DataPlane;

/** A data plane, as its control plane on Domain 0's thread sees it. */
export interface PlaneHandle {
  readonly id: number;
  send(message: unknown): void;
  signal(value: number): void;
  /** Ends it. Settles when nothing of it is left, so that files may be closed. May be called more than once. */
  close(): Promise<void>;
}

export interface PlaneListener {
  onMessage(message: unknown): void;
  /** It threw, or the processor is gone; it is closed already. */
  onFailure?(error: Error): void;
}

/** What makes data planes, on Domain 0's thread. */
export interface PlaneOpener {
  /** @throws Error: no such kind or domain, or what the factory threw */
  open(kind: string, domid: number, parameters: unknown, listener: PlaneListener): Promise<PlaneHandle>;
}
