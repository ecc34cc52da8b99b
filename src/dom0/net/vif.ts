/** A network interface on Domain 0's thread: what the store says of it, and its data plane's beginning and end. */
import type { PlaneHandle, PlaneOpener } from '../backend/data-plane.ts';
import {
  DeviceError,
  type FrontEnd,
  type FrontEndNodes,
  type Nodes,
  XenbusDevice,
  type XenbusDriver,
} from '../backend/xenbus-device.ts';
import type { XenstoreClient } from '../xenstore/client.ts';
import { ownAddressesOnly, type Rule } from './filter.ts';
import {
  NO_TRAFFIC,
  type VifMessage,
  type VifParameters,
  type VifReport,
  type VifStatistics,
} from './vif-plane.ts';
import type { QueueDescription } from './vif-queue.ts';

const MAX_QUEUES = 8;
const MAX_U32 = 0xffff_ffff;

export interface VifHost {
  readonly planes: PlaneOpener;
  readonly store: XenstoreClient;
}

export interface VifDescription {
  readonly domid: number;
  readonly devid: number;
  /** As in aa:bb:cc:dd:ee:ff. */
  readonly mac: string;
  readonly bridge: string;
  /** The only IPv4 addresses that it may use; empty: any. */
  readonly ips: readonly string[];
  /** Checked after those that keep it from using other addresses than its own. */
  readonly rules: readonly Rule[];
  /** Bytes in each interval of so many microseconds; null: no limit. */
  readonly rate: { readonly bytes: number; readonly interval: number } | null;
  readonly mtu: number;
  /** For people and for Xen's tools; null: as xl names it. */
  readonly vifname: string | null;
  /** The interface stopped working: one line. */
  readonly onError?: (error: Error) => void;
}

export class VirtualInterface implements XenbusDriver {
  readonly description: VifDescription;
  readonly device: XenbusDevice;
  private readonly host: VifHost;
  private plane: PlaneHandle | null = null;
  private endWatch: () => void = () => {};
  private readonly asked = new Map<number, (statistics: VifStatistics) => void>();
  private lastAsked = 0;

  /** Makes the interface known to the guest. @param taken by a front end that is connected already (XenbusDevice) */
  constructor(host: VifHost, description: VifDescription, taken: FrontEndNodes | null = null) {
    this.host = host;
    this.description = description;
    const { domid, devid, mac, bridge, ips, rate, mtu, vifname } = description;
    this.device = new XenbusDevice(
      host.store,
      {
        kind: 'vif',
        domid,
        devid,
        frontend: { handle: devid, mac, mtu },
        backend: {
          handle: devid,
          mac,
          bridge,
          type: 'vif',
          vifname: vifname ?? `vif${domid}.${devid}`,
          ...(ips.length > 0 ? { ip: ips.join(' ') } : {}),
          ...(rate ? { rate: `${rate.bytes},${rate.interval}` } : {}),
          'feature-sg': 1,
          'feature-gso-tcpv4': 1,
          'feature-gso-tcpv6': 1,
          'feature-ipv6-csum-offload': 1,
          'feature-rx-copy': 1,
          'feature-rx-flip': 0,
          'feature-multicast-control': 1,
          'feature-dynamic-multicast-control': 1,
          'feature-split-event-channels': 1,
          'multi-queue-max-queues': MAX_QUEUES,
          'hotplug-status': 'connected',
        },
      },
      this,
      taken,
    );
  }

  /** What it has moved since it was connected; null: it is not. */
  statistics(): Promise<VifStatistics | null> {
    const { plane } = this;
    if (!plane) return Promise.resolve(null);
    const id = ++this.lastAsked;
    return new Promise((resolve) => {
      this.asked.set(id, resolve);
      plane.send({ kind: 'statistics', id } satisfies VifMessage);
    });
  }

  // --- XenbusDriver ---

  async connect(front: FrontEnd): Promise<Nodes> {
    const { domid, bridge, mac, ips, rules, rate } = this.description;
    if (front.number('request-rx-copy', 1, 0) !== 1)
      throw new DeviceError('the front end wants pages exchanged, which is not supported');
    const count = front.number('multi-queue-num-queues', MAX_QUEUES, 1);
    if (count === 0) throw new DeviceError("the front end's multi-queue-num-queues is 0");
    const queues = Array.from({ length: count }, (_, index) =>
      queueOf(front, count === 1 ? '' : `queue-${index}/`),
    );
    const has = (feature: string) => front.number(feature, 1, 0) === 1;
    const parameters: VifParameters = {
      bridge,
      rules: [...ownAddressesOnly(mac, ips), ...rules],
      rate,
      queues,
      front: {
        sg: has('feature-sg'),
        tcp4: has('feature-gso-tcpv4'),
        tcp6: has('feature-gso-tcpv6'),
        csum4: !has('feature-no-csum-offload'),
        csum6: has('feature-ipv6-csum-offload'),
      },
      multicastControl: has('request-multicast-control'),
    };
    this.plane = await this.host.planes.open('vif', domid, parameters, {
      onMessage: (message) => this.told(message as VifReport),
      onFailure: (error) => this.failed(error),
    });
    const path = `${this.device.frontendPath}/request-multicast-control`;
    this.endWatch = this.host.store.watch(path, () => {
      const message: VifMessage = { kind: 'multicast-control', on: this.host.store.read(path) === '1' };
      this.plane?.send(message);
    });
    return {};
  }

  async disconnect(): Promise<void> {
    const { plane } = this;
    this.plane = null;
    this.endWatch();
    this.endWatch = () => {};
    await plane?.close();
    for (const answer of this.asked.values()) answer(NO_TRAFFIC);
    this.asked.clear();
  }

  private told(report: VifReport): void {
    if (report.kind === 'broken') {
      this.failed(new Error(report.reason));
      return;
    }
    this.asked.get(report.id)?.(report.statistics);
    this.asked.delete(report.id);
  }

  private failed(error: Error): void {
    this.description.onError?.(error);
    this.device.fail(error.message);
  }
}

/** @throws DeviceError */
function queueOf(front: FrontEnd, path: string): QueueDescription {
  const number = (name: string) => front.number(`${path}${name}`, MAX_U32);
  const split = front.read(`${path}event-channel-tx`) !== null;
  const txPort = number(split ? 'event-channel-tx' : 'event-channel');
  return {
    txRing: number('tx-ring-ref'),
    rxRing: number('rx-ring-ref'),
    txPort,
    rxPort: split ? number('event-channel-rx') : txPort,
  };
}
