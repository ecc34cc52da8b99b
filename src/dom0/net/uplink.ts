/** Domain 0's end of an uplink: frames between a bridge and a NAT (the other end is uplink-plane.ts). */
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

/** Frames that are taken before the thread's other work has its turn. */
const TURN = 64;

export class Uplink implements NatLink {
  private readonly memory: Memory;
  private readonly later: (work: () => void) => void;
  private user!: UplinkUser;
  private plane: PlaneHandle | null = null;
  private inward: FrameRing | null = null;
  private outward: FrameRing | null = null;
  private draining = false;

  private constructor(memory: Memory, later: (work: () => void) => void) {
    this.memory = memory;
    this.later = later;
  }

  /**
   * Connects to a bridge.
   * @param user makes the user of this link
   * @param later calls back once this thread has looked after its other business
   * @throws Error: the machine has no memory for it
   */
  static async open(
    memory: Memory,
    planes: PlaneOpener,
    bridge: string,
    later: (work: () => void) => void,
    user: (link: NatLink) => UplinkUser,
  ): Promise<Uplink> {
    const uplink = new Uplink(memory, later);
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
    } else if (report.value === UPLINK.data) this.drain();
    else this.user.room();
  }

  private drain(): void {
    if (this.draining) return;
    this.draining = true;
    let room = false;
    let more = true;
    for (let count = 0; count < TURN && more; count++) {
      const frame = this.inward?.next();
      if (!frame) {
        more = this.inward?.sleep() ?? false;
        continue;
      }
      this.user.receive(this.memory.u8.subarray(frame.address, frame.address + frame.length), frame);
      // The user may have closed the link.
      room = (this.inward?.release(frame) ?? false) || room;
    }
    this.user.settle();
    if (room) this.plane?.signal(UPLINK.room);
    this.draining = false;
    if (more && this.inward) this.later(() => this.drain());
  }
}
