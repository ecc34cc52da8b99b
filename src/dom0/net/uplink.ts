/** Domain 0's end of an uplink: frames between a bridge and a NAT (the other end is uplink-plane.ts). */
import { HaltPoll } from '../../machine/halt-poll.ts';
import type { Memory } from '../../machine/memory.ts';
import type { PlaneHandle, PlaneOpener } from '../backend/data-plane.ts';
import { FrameRing } from './frame-ring.ts';
import type { NatLink } from './nat/nat.ts';
import type { Offload } from './offload.ts';
import { UPLINK, type UplinkReport } from './uplink-plane.ts';

/** Who takes the frames. */
export interface UplinkUser {
  /** The view holds only during the call. */
  receive(frame: Uint8Array, offload: Offload): void;
  /** All that came together has been received. */
  settle(): void;
  /** There is room again, after {@link NatLink.send} had none. */
  room(): void;
}

/** The thread that it is on. */
export interface UplinkThread {
  /** Calls back once the thread has looked after its other business. */
  later(work: () => void): void;
  /** A clock, ms. */
  now(): number;
}

/** Frames that are taken before the thread's other work has its turn. */
const TURN = 64;

export class Uplink implements NatLink {
  private readonly memory: Memory;
  private readonly thread: UplinkThread;
  private user!: UplinkUser;
  private plane: PlaneHandle | null = null;
  private inward: FrameRing | null = null;
  private outward: FrameRing | null = null;
  private draining = false;
  private readonly poll = new HaltPoll();
  /** Since when the ring has been empty, ms; null: it is not known to be. */
  private empty: number | null = null;

  private constructor(memory: Memory, thread: UplinkThread) {
    this.memory = memory;
    this.thread = thread;
  }

  /**
   * Connects to a bridge.
   * @param user makes the user of this link
   * @throws Error: the machine has no memory for it
   */
  static async open(
    memory: Memory,
    planes: PlaneOpener,
    bridge: string,
    thread: UplinkThread,
    user: (link: NatLink) => UplinkUser,
  ): Promise<Uplink> {
    const uplink = new Uplink(memory, thread);
    uplink.user = user(uplink);
    uplink.plane = await planes.open(
      'uplink',
      0,
      { bridge },
      {
        onMessage: (message) => uplink.told(message as UplinkReport),
        onFailure: () => uplink.forget(),
      },
    );
    uplink.plane.send(null);
    return uplink;
  }

  send(pieces: readonly Uint8Array[], offload: Offload): boolean {
    const { outward, plane } = this;
    // Before there is a ring, and after it, frames are lost: as on a cable that is not plugged in.
    if (!outward || !plane) return true;
    const length = pieces.reduce((total, piece) => total + piece.length, 0);
    let address = outward.reserve(length);
    if (address === 0) {
      if (!outward.waitForRoom(length)) return false;
      address = outward.reserve(length);
    }
    let at = address;
    for (const piece of pieces) {
      this.memory.u8.set(piece, at);
      at += piece.length;
    }
    if (outward.commit(address, length, offload)) plane.signal(UPLINK.data);
    return true;
  }

  async close(): Promise<void> {
    const { plane } = this;
    this.forget();
    await plane?.close();
  }

  private forget(): void {
    this.inward = null;
    this.outward = null;
    this.plane = null;
  }

  private told(report: UplinkReport): void {
    if (!this.plane) return;
    if (report.kind === 'rings') {
      this.inward = new FrameRing(this.memory, report.receive);
      this.outward = new FrameRing(this.memory, report.send);
      this.drain();
    } else if (report.value === UPLINK.data) {
      this.poll.woke(this.thread.now());
      this.drain();
    } else this.user.room();
  }

  /** The ring is empty: whether to look again soon. */
  private looks(): boolean {
    if (this.poll.milliseconds === 0) return false;
    const now = this.thread.now();
    this.empty ??= now;
    if (now - this.empty < this.poll.milliseconds) return true;
    this.empty = null;
    return false;
  }

  private drain(): void {
    if (this.draining) return;
    this.draining = true;
    let room = false;
    let more = true;
    for (let count = 0; count < TURN && more; count++) {
      const frame = this.inward?.next();
      if (!frame) {
        if (this.looks()) break;
        more = this.inward?.sleep() ?? false;
        if (!more) this.poll.slept(this.thread.now());
        continue;
      }
      this.empty = null;
      this.user.receive(this.memory.u8.subarray(frame.address, frame.address + frame.length), frame);
      // The user may have closed the link.
      room = (this.inward?.release(frame) ?? false) || room;
    }
    this.user.settle();
    if (room) this.plane?.signal(UPLINK.room);
    this.draining = false;
    if (more && this.inward) this.thread.later(() => this.drain());
  }
}
