/** A network's way to a TAP device of the host's: frames from the bridge, whole and ready for a wire, and back. */

import type { NatLink } from '../../dom0/net/nat/nat.ts';
import { GSO, NO_OFFLOAD, OFFLOAD, type Offload } from '../../dom0/net/offload.ts';
import { Packet } from '../../dom0/net/packet.ts';
import type { Segmentation } from '../../dom0/net/segmentation.ts';
import type { UplinkUser } from '../../dom0/net/uplink.ts';
import type { Memory } from '../../machine/memory.ts';

/** What it needs of a {@link Tap}. */
export interface FrameSink {
  send(frame: Uint8Array): void;
}

export class TapLink implements UplinkUser {
  /** Where frames go; null: it is not there yet, or any more. */
  tap: FrameSink | null = null;
  private readonly link: NatLink;
  private readonly packet: Packet;
  private readonly segmentation: Segmentation;
  private readonly memory: Memory;

  /** @param segmentation may be others' too */
  constructor(link: NatLink, memory: Memory, segmentation: Segmentation) {
    this.link = link;
    this.memory = memory;
    this.packet = new Packet(memory);
    this.segmentation = segmentation;
  }

  /** A frame from the host. One for which there is no room is lost. */
  fromHost(frame: Uint8Array): void {
    this.link.send([frame], NO_OFFLOAD);
  }

  receive(frame: Uint8Array, offload: Offload): void {
    const { tap, packet, memory } = this;
    if (!tap) return;
    if (offload.gso === GSO.none && (offload.flags & OFFLOAD.csumBlank) === 0) {
      tap.send(frame);
      return;
    }
    packet.clear(offload);
    packet.addRange(frame.byteOffset - memory.u8.byteOffset, frame.length);
    this.segmentation.complete(packet, ({ head, length }) =>
      tap.send(memory.u8.subarray(head, head + length)),
    );
  }

  settle(): void {}

  room(): void {}
}
