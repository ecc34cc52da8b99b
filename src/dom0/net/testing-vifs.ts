/** For tests: domains that each have an interface on one bridge, connected, and frames between them. */
import { XenbusState } from '../../xen/public/io/xenbus.ts';
import type { PlaneOpener } from '../backend/data-plane.ts';
import type { TestBackends } from '../backend/testing.ts';
import { parseMac, putMac } from './addresses.ts';
import { NetFront } from './testing-netfront.ts';
import { VirtualInterface } from './vif.ts';

export const BRIDGE = 'br0';
/** The gateway's MAC address. */
export const GATEWAY = 0x0200_0000_0001;

const macText = (index: number) => `00:16:3e:00:00:0${index + 1}`;

/** Of the domain with this index, its MAC address. */
export const macOf = (index: number): number => parseMac(macText(index))!;

/** A frame of an experimental protocol (IEEE Std 802, local experimental EtherType 1). */
export function frame(from: number, to: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length).fill(7);
  putMac(bytes, 0, to);
  putMac(bytes, 6, from);
  bytes[12] = 0x88;
  bytes[13] = 0xb5;
  return bytes;
}

/** @param planesOf where the data plane of the domain with this index is made */
export async function connectedFronts(
  backends: TestBackends,
  planesOf: (index: number) => PlaneOpener,
): Promise<NetFront[]> {
  const fronts: NetFront[] = [];
  for (const [index, guest] of backends.machines.domains.entries()) {
    new VirtualInterface(
      { planes: planesOf(index), store: backends.store },
      {
        ...{ domid: guest.domain.id, devid: 0, bridge: BRIDGE, ips: [], rules: [], rate: null, mtu: 1500 },
        ...{ mac: macText(index), vifname: null },
      },
    );
    const front = new NetFront(backends, guest);
    const state = await front.connect({ 'feature-sg': 1, 'feature-gso-tcpv4': 1 });
    if (state !== XenbusState.Connected) throw new Error(`interface ${index} is in state ${state}`);
    fronts.push(front);
  }
  return fronts;
}
