/**
 * The data plane of an uplink: a port of a bridge whose other end is on Domain 0's thread (a NAT). Frames go through
 * a ring in each direction.
 */
import { PAGE_SIZE } from '../../machine/memory.ts';
import type { DataPlane, GuestLink } from '../backend/data-plane.ts';
import { type Bridge, type BridgePort, type Fate, type Waiter, Waiters } from './bridge.ts';
import { FRAME_RING_FRAMES, FrameRing } from './frame-ring.ts';
import { ETHERNET } from './headers.ts';
import type { Networks } from './networks.ts';
import { PACKET_MAX, Packet } from './packet.ts';

/** Signals, in both directions: there is something in the ring that you read; there is room in the one you write. */
export const UPLINK = { data: 1, room: 2 } as const;

/** Frames from Domain 0 that are passed on before guests have their turn. */
const TURN = 64;

/** What it tells first: where the rings are, linear addresses, seen from Domain 0's thread. */
export interface UplinkRings {
  readonly kind: 'rings';
  readonly receive: number;
  readonly send: number;
}

export type UplinkReport = UplinkRings | { readonly kind: 'signal'; readonly value: number };

export class UplinkPlane implements DataPlane, BridgePort {
  private readonly link: GuestLink;
  private readonly networks: Networks;
  private readonly bridge: Bridge;
  private readonly base: number;
  private readonly outward: FrameRing;
  private readonly inward: FrameRing;
  private readonly packet: Packet;
  private readonly waiters = new Waiters();
  private closed = false;

  /** @throws OutOfFrames */
  constructor(link: GuestLink, { bridge }: { bridge: string }, networks: Networks) {
    this.link = link;
    this.networks = networks;
    this.base = link.frames.allocContiguous(2 * FRAME_RING_FRAMES) * PAGE_SIZE;
    this.outward = new FrameRing(link.memory, this.base);
    this.inward = new FrameRing(link.memory, this.inwardBase);
    this.packet = new Packet(link.memory);
    this.bridge = networks.join(bridge, this);
    // Both consumers begin asleep, so that the first frame wakes them.
    this.inward.sleep();
    this.outward.sleep();
  }

  private get inwardBase(): number {
    return this.base + FRAME_RING_FRAMES * PAGE_SIZE;
  }

  onEvent(): void {}

  onMessage(): void {
    this.link.post({ kind: 'rings', receive: this.base, send: this.inwardBase } satisfies UplinkRings);
  }

  onSignal(value: number): void {
    if (this.closed) return;
    if (value === UPLINK.data) this.link.schedule();
    else this.waiters.serve();
  }

  work(): boolean {
    if (this.closed) return false;
    const { inward, packet, bridge, link } = this;
    let room = false;
    // Only a consumer that has said that it sleeps is woken: one whose turn ends with the ring's last frame is not.
    let more = true;
    for (let count = 0; count < TURN && more; count++) {
      const frame = inward.next();
      if (!frame) {
        more = inward.sleep();
        continue;
      }
      if (frame.length >= ETHERNET.size) {
        packet.clear(frame);
        packet.addRange(frame.address, frame.length);
        bridge.forward(this, packet, link.now(), null);
      }
      room = inward.release(frame) || room;
    }
    if (room) this.tell(UPLINK.room);
    return more;
  }

  deliver(packet: Packet, waiter: Waiter | null): Fate {
    if (this.closed || packet.length > PACKET_MAX) return 'dropped';
    const { outward } = this;
    if (waiter && this.waiters.before) {
      this.waiters.add(waiter);
      return 'wait';
    }
    let address = outward.reserve(packet.length);
    if (address === 0) {
      if (!waiter) return 'dropped';
      if (!outward.waitForRoom(packet.length)) {
        this.waiters.add(waiter);
        return 'wait';
      }
      address = outward.reserve(packet.length);
    }
    packet.copyTo(address);
    if (outward.commit(address, packet.length, packet)) this.tell(UPLINK.data);
    return 'taken';
  }

  forget(waiter: Waiter): void {
    this.waiters.delete(waiter);
  }

  close(): boolean {
    if (this.closed) return true;
    this.closed = true;
    this.networks.leave(this.bridge, this);
    // Whoever waited finds no uplink any more, and goes on.
    this.waiters.serve();
    this.link.frames.release(this.base / PAGE_SIZE, 2 * FRAME_RING_FRAMES);
    return true;
  }

  private tell(value: number): void {
    this.link.post({ kind: 'signal', value });
  }
}
