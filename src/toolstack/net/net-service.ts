/**
 * The networks of a machine and the interfaces of its domains: attaches interfaces, takes them away, and gives the
 * networks that have one a NAT for as long as somebody is on them.
 */
import { randomFillSync } from 'node:crypto';
import type { PlaneOpener } from '../../dom0/backend/data-plane.ts';
import type { FrontEndNodes } from '../../dom0/backend/xenbus-device.ts';
import { formatIpv4, inSubnet, netmask, parseIpv4, parseMac, type Subnet } from '../../dom0/net/addresses.ts';
import type { HostNetwork } from '../../dom0/net/nat/host.ts';
import { Nat, type NatLink, type PortForward } from '../../dom0/net/nat/nat.ts';
import { Segmentation } from '../../dom0/net/segmentation.ts';
import { Trunk } from '../../dom0/net/trunk.ts';
import { Uplink, type UplinkThread, type UplinkUser } from '../../dom0/net/uplink.ts';
import { type VifHost, VirtualInterface } from '../../dom0/net/vif.ts';
import type { XenstoreClient } from '../../dom0/xenstore/client.ts';
import type { Frames } from '../../machine/frames.ts';
import type { Memory } from '../../machine/memory.ts';
import { nodeClock, nodeNetwork } from './host-network.ts';
import { Tap, TapError } from './tap.ts';
import { TapLink } from './tap-link.ts';
import { DEFAULT_BRIDGE, randomMac, type VifSpec } from './vif-spec.ts';

/** A network or an interface cannot be had; the message says why, in one line. */
export class NetError extends Error {}

/** What a bridge has beside its interfaces. */
export interface NetworkOptions {
  /** Its NAT to the host's network; null: domains on it reach each other and nobody else. */
  readonly nat: { readonly subnet: Subnet; readonly hostLoopback: boolean } | null;
  readonly mtu: number;
}

/** As QEMU's user network, 10.0.2.0/24. */
export const DEFAULT_SUBNET: Subnet = { address: 0x0a00_0200, length: 24 };
export const DEFAULT_NETWORK: NetworkOptions = {
  nat: { subnet: DEFAULT_SUBNET, hostLoopback: false },
  mtu: 1500,
};

/** Locally administered (the second bit of the first byte), the same for every network: none sees another. */
const THREAD: UplinkThread = { later: setImmediate, now: nodeClock.now };
const GATEWAY_MAC = 0x0200_0a00_0201;
const DETACH_TIMEOUT = 10_000;

/** A port of the host that leads to a domain. */
export interface ForwardSpec extends Omit<PortForward, 'guestAddress'> {
  /** Null: the domain's first address, whatever it is. */
  readonly guestAddress: number | null;
}

interface Network {
  readonly options: NetworkOptions;
  readonly interfaces: Set<VirtualInterface>;
  nat: Promise<{ nat: Nat; uplink: Ending }> | null;
  /** What makes one of the bridges of several processors. */
  trunk: Promise<Trunk> | null;
  tap: { readonly name: string; readonly open: Promise<{ tap: Tap; uplink: Ending }> } | null;
}

/** Somebody's place on a network. */
interface Ending {
  close(): void | Promise<void>;
}

interface Forwarding {
  readonly domid: number;
  readonly close: () => void;
}

export interface NetServiceHost {
  readonly memory: Memory;
  readonly frames: Frames;
  readonly planes: PlaneOpener;
  /** The same, on each of the machine's processors; left out: it has one. */
  readonly pcpuPlanes?: readonly PlaneOpener[];
  readonly store: XenstoreClient;
  /** One line about something that went wrong. */
  readonly say?: (text: string) => void;
  /** The host's sockets; left out: those of this process. */
  readonly network?: HostNetwork;
}

export class NetService {
  private readonly memory: Memory;
  private readonly frames: Frames;
  private readonly host: VifHost;
  private readonly pcpuPlanes: readonly PlaneOpener[];
  private readonly say: (text: string) => void;
  private readonly network: HostNetwork;
  private readonly networks = new Map<string, Network>();
  private readonly interfaces = new Map<number, Map<number, VirtualInterface>>();
  private readonly forwardings = new Set<Forwarding>();
  /** For what goes to TAP devices. */
  private segmentation: Segmentation | null = null;

  constructor({
    memory,
    frames,
    planes,
    pcpuPlanes = [planes],
    store,
    say = () => {},
    network = nodeNetwork(),
  }: NetServiceHost) {
    this.pcpuPlanes = pcpuPlanes;
    this.memory = memory;
    this.frames = frames;
    this.host = { planes, store };
    this.say = say;
    this.network = network;
  }

  /** Says what a bridge is to have. Before anybody is on it. @throws NetError: somebody is */
  define(bridge: string, options: NetworkOptions): void {
    if (this.networks.get(bridge)?.interfaces.size) throw new NetError(`the network ${bridge} is in use`);
    this.networks.set(bridge, { options, interfaces: new Set(), nat: null, trunk: null, tap: null });
  }

  /** Domains on a bridge may reach what listens on the host's loopback. Before anybody is on it. */
  allowHostLoopback(bridge: string): void {
    const { options } = this.networkOf(bridge);
    const subnet = options.nat?.subnet ?? DEFAULT_SUBNET;
    this.define(bridge, { ...options, nat: { subnet, hostLoopback: true } });
  }

  /** Gives a domain an interface. @param taken by a front end that is connected already @throws NetError */
  async attach(domid: number, spec: VifSpec, taken: FrontEndNodes | null = null): Promise<VirtualInterface> {
    const own = this.interfaces.get(domid) ?? new Map<number, VirtualInterface>();
    this.interfaces.set(domid, own);
    let devid = spec.devid ?? 0;
    if (spec.devid === null) while (own.has(devid)) devid++;
    else if (own.has(devid)) throw new NetError(`the domain has an interface ${devid} already`);
    const network = this.networkOf(spec.bridge);
    const mac = spec.mac ?? this.freeMac();
    this.checkAddresses(network, spec, mac);
    const device = new VirtualInterface(
      this.host,
      {
        domid,
        devid,
        mac,
        bridge: spec.bridge,
        ips: spec.ip,
        rules: [],
        rate: spec.rate,
        mtu: spec.mtu,
        vifname: spec.vifname,
        onError: (error) => this.say(`interface ${devid} of domain ${domid}: ${error.message}`),
      },
      taken,
    );
    own.set(devid, device);
    network.interfaces.add(device);
    try {
      if (spec.tap !== null) await this.join(spec.bridge, network, spec.tap);
      if (this.pcpuPlanes.length > 1) await this.trunkOf(spec.bridge, network);
      const nat = await this.natOf(spec.bridge, network);
      for (const ip of spec.ip) nat?.dhcp.reserve(parseMac(mac)!, parseIpv4(ip)!);
    } catch (error) {
      await this.remove(domid, devid);
      if (error instanceof NetError) throw error;
      if (error instanceof TapError) throw new NetError(error.message);
      throw new NetError(`the network ${spec.bridge} cannot be had: ${(error as Error).message}`);
    }
    if (taken !== null && !(await device.device.settled()))
      throw new NetError(`interface ${devid}: the guest's connection to it cannot be taken up again`);
    return device;
  }

  /** Leaves a domain's rings alone, with every request answered that was taken (XenbusDevice). */
  async suspend(domid: number): Promise<void> {
    await Promise.all(this.list(domid).map(({ device }) => device.suspend()));
  }

  async resume(domid: number): Promise<void> {
    await Promise.all(this.list(domid).map(({ device }) => device.resume()));
  }

  /**
   * Gives a fork interfaces for the suspended ones of its parent. Guests do not change their addresses while they run,
   * and two with the same ones cannot be on one network: each fork gets networks of its own, of the same kind.
   * @throws NetError
   */
  async fork(parent: number, child: number): Promise<void> {
    for (const { description, device } of this.list(parent)) {
      const { devid, mac, bridge, ips, rate, mtu } = description;
      const spec = {
        ...{ devid, mac, bridge: forkBridge(bridge, child), ip: ips, rate, mtu },
        ...{ vifname: null, tap: null, warnings: [] },
      };
      await this.attach(child, spec, device.frontEndNodes());
    }
  }

  /**
   * Takes an interface from a domain: asks the guest for it, or with `force` asks nobody.
   * @returns false: the guest keeps it @throws NetError: there is no such interface
   */
  async detach(domid: number, devid: number, force = false): Promise<boolean> {
    const device = this.interfaces.get(domid)?.get(devid);
    if (!device) throw new NetError('the domain has no such interface');
    const sleep = (milliseconds: number) =>
      new Promise<void>((resolve) => {
        setTimeout(resolve, milliseconds);
      });
    if (!force && !(await device.device.detach(DETACH_TIMEOUT, sleep))) return false;
    await this.remove(domid, devid);
    return true;
  }

  /** A domain's interfaces. */
  list(domid: number): VirtualInterface[] {
    return [...(this.interfaces.get(domid)?.values() ?? [])];
  }

  /** The IPv4 address that an interface has, as far as its NAT knows; null: none, or there is no NAT. */
  async addressOf(device: VirtualInterface): Promise<string | null> {
    const { mac, bridge, ips } = device.description;
    if (ips[0] !== undefined) return ips[0];
    const both = await this.networks.get(bridge)?.nat;
    const address = both?.nat.dhcp.addressOf(parseMac(mac)!) ?? null;
    return address === null ? null : formatIpv4(address);
  }

  /**
   * Passes what comes to a port of the host on to a domain, until that domain ends.
   * @returns the port @throws NetError
   */
  async forward(domid: number, spec: ForwardSpec): Promise<number> {
    const [device] = this.list(domid);
    const network = device && this.networks.get(device.description.bridge);
    const both = await network?.nat;
    if (!device || !network?.options.nat || !both)
      throw new NetError('the domain has no interface with a NAT');
    const { dhcp } = both.nat;
    const mac = parseMac(device.description.mac)!;
    const { subnet } = network.options.nat;
    let guestAddress = spec.guestAddress ?? dhcp.addressOf(mac);
    if (guestAddress === null) {
      // Which address it gets is decided now, so that there is somewhere to forward to.
      guestAddress = dhcp.promise(mac);
      if (guestAddress === null) throw new NetError('the network has no free address');
    }
    if (!inSubnet(guestAddress, subnet))
      throw new NetError(`${formatIpv4(guestAddress)} is not on the domain's network`);
    try {
      const { port, close } = await both.nat.forward({ ...spec, guestAddress });
      this.forwardings.add({ domid, close });
      return port;
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      throw new NetError(`port ${spec.address}:${spec.port}: ${REASONS[code ?? ''] ?? message}`);
    }
  }

  /** The domain ends: its interfaces and what leads to them go. */
  async removeAll(domid: number): Promise<void> {
    for (const forwarding of this.forwardings) {
      if (forwarding.domid !== domid) continue;
      forwarding.close();
      this.forwardings.delete(forwarding);
    }
    const own = [...(this.interfaces.get(domid)?.keys() ?? [])];
    await Promise.all(own.map((devid) => this.remove(domid, devid)));
    this.interfaces.delete(domid);
  }

  /** All domains end. */
  async close(): Promise<void> {
    await Promise.all([...this.interfaces.keys()].map((domid) => this.removeAll(domid)));
  }

  private async remove(domid: number, devid: number): Promise<void> {
    const device = this.interfaces.get(domid)?.get(devid);
    if (!device) return;
    this.interfaces.get(domid)!.delete(devid);
    await device.device.remove();
    const { bridge, mac, ips } = device.description;
    const network = this.networks.get(bridge);
    if (!network?.interfaces.delete(device)) return;
    if (network.interfaces.size === 0) await this.leave(network);
    const both = await network.nat?.catch(() => null);
    if (!both) return this.closeTrunk(network);
    for (const ip of ips) both.nat.dhcp.unreserve(parseIpv4(ip)!);
    both.nat.drop(parseMac(mac)!);
    if (network.interfaces.size > 0) return;
    network.nat = null;
    both.nat.close();
    await both.uplink.close();
    await this.closeTrunk(network);
  }

  /** A domain is on another processor now. */
  moved(): void {
    for (const { trunk } of this.networks.values())
      void trunk?.then((each) => each.relearn()).catch(() => {});
  }

  /** Puts somebody of this thread on a network. @throws Error: the machine has no memory for it */
  private async uplink(
    bridge: string,
    network: Network,
    user: (link: NatLink) => UplinkUser,
  ): Promise<Ending> {
    if (this.pcpuPlanes.length === 1) return Uplink.open(this.memory, this.host.planes, bridge, THREAD, user);
    return (await this.trunkOf(bridge, network)).join(user);
  }

  private async trunkOf(bridge: string, network: Network): Promise<Trunk> {
    network.trunk ??= Trunk.open(this.memory, this.pcpuPlanes, bridge, THREAD);
    const { trunk } = network;
    try {
      return await trunk;
    } catch (error) {
      // The next one may have more luck.
      if (network.trunk === trunk) network.trunk = null;
      throw error;
    }
  }

  /** If nobody is on it any more. */
  private async closeTrunk(network: Network): Promise<void> {
    if (network.interfaces.size > 0) return;
    const { trunk } = network;
    network.trunk = null;
    await (await trunk?.catch(() => null))?.close();
  }

  private networkOf(bridge: string): Network {
    let network = this.networks.get(bridge);
    if (!network) {
      // Only the default one has a way out by itself, and that of a fork has what the one has that it stands for.
      const origin = bridge.replace(FORK_BRIDGE, '');
      const own = origin === DEFAULT_BRIDGE ? DEFAULT_NETWORK : { ...DEFAULT_NETWORK, nat: null };
      const options = (origin === bridge ? undefined : this.networks.get(origin)?.options) ?? own;
      network = { options, interfaces: new Set(), nat: null, trunk: null, tap: null };
      this.networks.set(bridge, network);
    }
    return network;
  }

  /** Joins a bridge to a TAP device of the host's, until the last interface leaves it. @throws NetError, TapError */
  private async join(bridge: string, network: Network, name: string): Promise<void> {
    if (network.options.nat) throw new NetError(`tap=${name}: ${bridge} has a NAT; name another bridge`);
    const { tap } = network;
    if (tap && tap.name !== name) throw new NetError(`tap=${name}: ${bridge} is joined to ${tap.name}`);
    for (const [other, { tap: taken }] of this.networks)
      if (other !== bridge && taken?.name === name) throw new NetError(`tap=${name}: is joined to ${other}`);
    const joining = tap ?? { name, open: this.openTap(bridge, network, name) };
    network.tap = joining;
    try {
      await joining.open;
    } catch (error) {
      if (network.tap === joining) network.tap = null;
      throw error;
    }
  }

  private async openTap(
    bridge: string,
    network: Network,
    name: string,
  ): Promise<{ tap: Tap; uplink: Ending }> {
    this.segmentation ??= new Segmentation(this.memory, this.frames);
    const { segmentation } = this;
    let link!: TapLink;
    const uplink = await this.uplink(bridge, network, (end) => {
      link = new TapLink(end, this.memory, segmentation);
      return link;
    });
    try {
      const onEnd = (reason: string) => {
        link.tap = null;
        this.say(reason);
      };
      const tap = await Tap.open({ name, onFrame: (frame) => link.fromHost(frame), onEnd });
      link.tap = tap;
      return { tap, uplink };
    } catch (error) {
      await uplink.close();
      throw error;
    }
  }

  private async leave(network: Network): Promise<void> {
    const { tap } = network;
    network.tap = null;
    const open = await tap?.open.catch(() => null);
    open?.tap.close();
    await open?.uplink.close();
  }

  private async natOf(bridge: string, network: Network): Promise<Nat | null> {
    const { options } = network;
    if (!options.nat) return null;
    const { subnet, hostLoopback } = options.nat;
    network.nat ??= (async () => {
      let nat!: Nat;
      const uplink = await this.uplink(bridge, network, (link) => {
        const random = (bytes: Uint8Array) => {
          randomFillSync(bytes);
        };
        const natOptions = { subnet, mac: GATEWAY_MAC, mtu: options.mtu, hostLoopback };
        nat = new Nat(natOptions, link, this.network, nodeClock, random);
        return nat;
      });
      return { nat, uplink };
    })();
    try {
      return (await network.nat).nat;
    } catch (error) {
      // The next one may have more luck.
      network.nat = null;
      throw error;
    }
  }

  /** @throws NetError */
  private checkAddresses(network: Network, { ip, bridge }: VifSpec, mac: string): void {
    for (const other of network.interfaces) {
      if (other.description.mac === mac) throw new NetError(`mac=${mac}: in use on ${bridge} already`);
      const taken = ip.find((each) => other.description.ips.includes(each));
      if (taken !== undefined) throw new NetError(`ip=${taken}: in use on ${bridge} already`);
    }
    const { nat } = network.options;
    if (!nat) return;
    const { subnet } = nat;
    const last = (subnet.address | ~netmask(subnet.length)) >>> 0;
    for (const each of ip) {
      const address = parseIpv4(each)!;
      if (!inSubnet(address, subnet) || address <= subnet.address + 2 || address === last) {
        const range = `${formatIpv4(subnet.address)}/${subnet.length}`;
        throw new NetError(`ip=${each}: not an address for a domain on ${bridge} (${range})`);
      }
    }
  }

  private freeMac(): string {
    const used = new Set([...this.interfaces.values()].flatMap((own) => [...own.values()]));
    for (;;) {
      const mac = randomMac((bytes) => {
        randomFillSync(bytes);
      });
      if (![...used].some((device) => device.description.mac === mac)) return mac;
    }
  }
}

const FORK_BRIDGE = /\.fork\d+$/;

/** What the network of a fork is called that stands for one of its parent's. @param child the fork's number */
export function forkBridge(bridge: string, child: number): string {
  return `${bridge.replace(FORK_BRIDGE, '')}.fork${child}`;
}

const REASONS: Readonly<Record<string, string>> = {
  EADDRINUSE: 'in use already',
  EACCES: 'permission denied',
  EADDRNOTAVAIL: 'this machine has no such address',
};
