/**
 * The networks of a machine and the interfaces of its domains: attaches interfaces, takes them away, and gives the
 * networks that have one a NAT for as long as somebody is on them.
 */
import { randomFillSync } from 'node:crypto';
import type { PlaneOpener } from '../../dom0/backend/data-plane.ts';
import { formatIpv4, inSubnet, netmask, parseIpv4, parseMac, type Subnet } from '../../dom0/net/addresses.ts';
import type { HostNetwork } from '../../dom0/net/nat/host.ts';
import { Nat, type PortForward } from '../../dom0/net/nat/nat.ts';
import { Uplink } from '../../dom0/net/uplink.ts';
import { type VifHost, VirtualInterface } from '../../dom0/net/vif.ts';
import type { XenstoreClient } from '../../dom0/xenstore/client.ts';
import type { Memory } from '../../machine/memory.ts';
import { nodeClock, nodeNetwork } from './host-network.ts';
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
  nat: Promise<{ nat: Nat; uplink: Uplink }> | null;
}

interface Forwarding {
  readonly domid: number;
  readonly close: () => void;
}

export interface NetServiceHost {
  readonly memory: Memory;
  readonly planes: PlaneOpener;
  readonly store: XenstoreClient;
  /** One line about something that went wrong. */
  readonly say?: (text: string) => void;
  /** The host's sockets; left out: those of this process. */
  readonly network?: HostNetwork;
}

export class NetService {
  private readonly memory: Memory;
  private readonly host: VifHost;
  private readonly say: (text: string) => void;
  private readonly network: HostNetwork;
  private readonly networks = new Map<string, Network>();
  private readonly interfaces = new Map<number, Map<number, VirtualInterface>>();
  private readonly forwardings = new Set<Forwarding>();

  constructor({ memory, planes, store, say = () => {}, network = nodeNetwork() }: NetServiceHost) {
    this.memory = memory;
    this.host = { planes, store };
    this.say = say;
    this.network = network;
  }

  /** Says what a bridge is to have. Before anybody is on it. @throws NetError: somebody is */
  define(bridge: string, options: NetworkOptions): void {
    if (this.networks.get(bridge)?.interfaces.size) throw new NetError(`the network ${bridge} is in use`);
    this.networks.set(bridge, { options, interfaces: new Set(), nat: null });
  }

  /** Domains on a bridge may reach what listens on the host's loopback. Before anybody is on it. */
  allowHostLoopback(bridge: string): void {
    const { options } = this.networkOf(bridge);
    const subnet = options.nat?.subnet ?? DEFAULT_SUBNET;
    this.define(bridge, { ...options, nat: { subnet, hostLoopback: true } });
  }

  /** Gives a domain an interface. @throws NetError */
  async attach(domid: number, spec: VifSpec): Promise<VirtualInterface> {
    const own = this.interfaces.get(domid) ?? new Map<number, VirtualInterface>();
    this.interfaces.set(domid, own);
    let devid = spec.devid ?? 0;
    if (spec.devid === null) while (own.has(devid)) devid++;
    else if (own.has(devid)) throw new NetError(`the domain has an interface ${devid} already`);
    const network = this.networkOf(spec.bridge);
    const mac = spec.mac ?? this.freeMac();
    this.checkAddresses(network, spec, mac);
    const device = new VirtualInterface(this.host, {
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
    });
    own.set(devid, device);
    network.interfaces.add(device);
    try {
      const nat = await this.natOf(spec.bridge, network);
      for (const ip of spec.ip) nat?.dhcp.reserve(parseMac(mac)!, parseIpv4(ip)!);
    } catch (error) {
      await this.remove(domid, devid);
      throw new NetError(`the network ${spec.bridge} cannot be had: ${(error as Error).message}`);
    }
    return device;
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
    const both = await network.nat?.catch(() => null);
    if (!both) return;
    for (const ip of ips) both.nat.dhcp.unreserve(parseIpv4(ip)!);
    both.nat.drop(parseMac(mac)!);
    if (network.interfaces.size > 0) return;
    network.nat = null;
    both.nat.close();
    await both.uplink.close();
  }

  private networkOf(bridge: string): Network {
    let network = this.networks.get(bridge);
    if (!network) {
      // Only the default one has a way out by itself.
      const options = bridge === DEFAULT_BRIDGE ? DEFAULT_NETWORK : { ...DEFAULT_NETWORK, nat: null };
      network = { options, interfaces: new Set(), nat: null };
      this.networks.set(bridge, network);
    }
    return network;
  }

  private async natOf(bridge: string, network: Network): Promise<Nat | null> {
    const { options } = network;
    if (!options.nat) return null;
    const { subnet, hostLoopback } = options.nat;
    network.nat ??= (async () => {
      let nat!: Nat;
      const uplink = await Uplink.open(this.memory, this.host.planes, bridge, setImmediate, (link) => {
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

const REASONS: Readonly<Record<string, string>> = {
  EADDRINUSE: 'in use already',
  EACCES: 'permission denied',
  EADDRNOTAVAIL: 'this machine has no such address',
};
