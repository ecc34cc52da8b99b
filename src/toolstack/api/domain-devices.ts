/**
 * The devices of a domain of the toolstack's: what there is, and how it comes and goes while the domain runs. What a
 * domain has is written into its configuration, so that it has the same when it restarts.
 */
import { diskText, vifText, withAbsoluteFiles } from '../config/device-text.ts';
import { parseDiskSpec } from '../devices/disk-spec.ts';
import type { Machine } from '../machine.ts';
import { parseVifSpec } from '../net/vif-spec.ts';
import { ToolstackError } from './errors.ts';
import type { ManagedDomain } from './managed-domain.ts';
import type { DiskInfo, VifInfo } from './model.ts';

const BACKENDS = '/local/domain/0/backend';
const NO_TRAFFIC = { txPackets: 0, txBytes: 0, txDropped: 0, rxPackets: 0, rxBytes: 0, rxDropped: 0 };

export function disksOf(machine: Machine, domain: ManagedDomain): DiskInfo[] {
  return machine.disks.list(domain.id).map(({ description, device, statistics }) => {
    const { devid, vdev, params, readonly } = description;
    const { reads, writes, flushes, bytesRead, bytesWritten, errors } = statistics;
    const front = (name: string) => numberIn(domain, `device/vbd/${devid}/${name}`);
    return {
      devid,
      vdev,
      target: params ?? null,
      readonly,
      backend: `${BACKENDS}/vbd/${domain.id}/${devid}`,
      state: device.state,
      eventChannel: front('event-channel'),
      ringRef: front('ring-ref'),
      ...{ reads, writes, flushes, bytesRead, bytesWritten, errors },
    };
  });
}

export async function attachDisk(machine: Machine, domain: ManagedDomain, spec: string): Promise<void> {
  const disk = withAbsoluteFiles(parseDiskSpec(spec), '/');
  await machine.disks.attach(domain.id, disk);
  domain.config = { ...domain.config, disks: [...domain.config.disks, diskText(disk)] };
}

/** @param vdev its name, or its number */
export async function detachDisk(
  machine: Machine,
  domain: ManagedDomain,
  vdev: string,
  force: boolean,
): Promise<void> {
  const found = machine.disks
    .list(domain.id)
    .find(({ description }) => description.vdev === vdev || String(description.devid) === vdev);
  if (!found) throw new ToolstackError('not-found', `domain ${domain.id} has no disk ${vdev}`);
  const { devid } = found.description;
  if (!(await machine.disks.detach(domain.id, devid, force)))
    throw new ToolstackError('busy', `domain ${domain.id} does not let go of disk ${vdev}`);
  const disks = domain.config.disks.filter((text) => parseDiskSpec(text).devid !== devid);
  domain.config = { ...domain.config, disks };
}

export function vifsOf(machine: Machine, domain: ManagedDomain): Promise<VifInfo[]> {
  const { networks } = machine;
  return Promise.all(
    networks.list(domain.id).map(async (vif) => {
      const { devid, mac, bridge } = vif.description;
      const front = (name: string) => numberIn(domain, `device/vif/${devid}/${name}`);
      return {
        devid,
        mac,
        bridge,
        address: await networks.addressOf(vif),
        backend: `${BACKENDS}/vif/${domain.id}/${devid}`,
        state: vif.device.state,
        eventChannel: front('event-channel'),
        txRingRef: front('tx-ring-ref'),
        rxRingRef: front('rx-ring-ref'),
        ...((await vif.statistics()) ?? NO_TRAFFIC),
      };
    }),
  );
}

export async function attachVif(machine: Machine, domain: ManagedDomain, spec: string): Promise<void> {
  const vif = await machine.networks.attach(domain.id, parseVifSpec(spec));
  const text = vifText(spec, vif.description.mac);
  domain.config = { ...domain.config, vifs: [...domain.config.vifs, text] };
}

export async function detachVif(
  machine: Machine,
  domain: ManagedDomain,
  devid: number,
  force: boolean,
): Promise<void> {
  const found = machine.networks.list(domain.id).find(({ description }) => description.devid === devid);
  if (!found) throw new ToolstackError('not-found', `domain ${domain.id} has no network interface ${devid}`);
  if (!(await machine.networks.detach(domain.id, devid, force)))
    throw new ToolstackError('busy', `domain ${domain.id} does not let go of network interface ${devid}`);
  const { mac } = found.description;
  const vifs = domain.config.vifs.filter((text) => parseVifSpec(text).mac !== mac);
  domain.config = { ...domain.config, vifs };
}

/** A number that the guest wrote; -1 if it is none. */
function numberIn(domain: ManagedDomain, path: string): number {
  const text = domain.readNode(path) ?? '';
  return /^\d{1,10}$/.test(text) ? Number(text) : -1;
}
