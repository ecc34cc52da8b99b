/** The bridges of a machine, by name. A bridge exists as long as somebody is on it. */
import type { Frames } from '../../machine/frames.ts';
import type { Memory } from '../../machine/memory.ts';
import type { DataPlaneFactory } from '../backend/data-plane.ts';
import { Bridge, type BridgePort, type Waiter } from './bridge.ts';
import { Segmentation } from './segmentation.ts';
import { UplinkPlane } from './uplink-plane.ts';
import { type VifParameters, VifPlane } from './vif-plane.ts';

export class Networks {
  private readonly memory: Memory;
  private readonly frames: Frames;
  private readonly bridges = new Map<string, Bridge>();
  /** Ports at which somebody may wait. */
  private readonly uplinks = new Map<Bridge, Set<UplinkPlane>>();
  private shared: Segmentation | null = null;

  constructor(memory: Memory, frames: Frames) {
    this.memory = memory;
    this.frames = frames;
  }

  /** For what a front end cannot take as it is. */
  get segmentation(): Segmentation {
    this.shared ??= new Segmentation(this.memory, this.frames);
    return this.shared;
  }

  join(name: string, port: BridgePort): Bridge {
    const bridge = this.bridges.get(name) ?? new Bridge(name);
    this.bridges.set(name, bridge);
    bridge.attach(port);
    if (port instanceof UplinkPlane) {
      const uplinks = this.uplinks.get(bridge) ?? new Set();
      this.uplinks.set(bridge, uplinks.add(port));
    }
    return bridge;
  }

  leave(bridge: Bridge, port: BridgePort): void {
    bridge.detach(port);
    if (port instanceof UplinkPlane) this.uplinks.get(bridge)?.delete(port);
    if (!bridge.empty) return;
    this.bridges.delete(bridge.name);
    this.uplinks.delete(bridge);
  }

  /** Whoever waited is gone. */
  forget(bridge: Bridge, waiter: Waiter): void {
    for (const uplink of this.uplinks.get(bridge) ?? []) uplink.forget(waiter);
  }
}

/** The kinds of data planes that networks are made of: interfaces of guests, and ways out to Domain 0's thread. */
export function networkPlanes(memory: Memory, frames: Frames): [string, DataPlaneFactory][] {
  const networks = new Networks(memory, frames);
  return [
    ['vif', (link, parameters) => new VifPlane(link, parameters as VifParameters, networks)],
    ['uplink', (link, parameters) => new UplinkPlane(link, parameters as { bridge: string }, networks)],
  ];
}
