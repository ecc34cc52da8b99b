/**
 * One network out of the bridges of a name, of which each processor of a machine has its own: a switch on Domain 0's
 * thread, to which every one of them has an uplink, and so have a NAT and whoever else is on that thread.
 *
 * It learns addresses as a bridge does (bridge.ts). Between processors a frame that finds no room is lost; who sends
 * from this thread is told, and waits.
 */
import type { Memory } from '../../machine/memory.ts';
import type { PlaneOpener } from '../backend/data-plane.ts';
import { getMac, isGroup } from './addresses.ts';
import { ETHERNET } from './headers.ts';
import type { NatLink } from './nat/nat.ts';
import type { Offload } from './offload.ts';
import { Uplink, type UplinkThread, type UplinkUser } from './uplink.ts';

/** Addresses that are remembered. */
const TABLE_MAX = 4096;

/** Where frames can be sent. @returns false: there is no room */
type Port = (pieces: readonly Uint8Array[], offload: Offload) => boolean;

export class Trunk {
  /** With the uplinks' first. */
  private readonly ports = new Set<Port>();
  private readonly users = new Set<UplinkUser>();
  private readonly uplinks: Uplink[] = [];
  /** The least lately learnt first. */
  private readonly table = new Map<number, Port>();

  /**
   * Connects to the bridges of a name.
   * @param planes those of each processor
   * @throws Error: the machine has no memory for it
   */
  static async open(
    memory: Memory,
    planes: readonly PlaneOpener[],
    bridge: string,
    thread: UplinkThread,
  ): Promise<Trunk> {
    const trunk = new Trunk();
    try {
      for (const each of planes) {
        let port!: Port;
        const uplink = await Uplink.open(memory, each, bridge, thread, (link) => {
          port = (pieces, offload) => link.send(pieces, offload);
          return {
            receive: (frame, offload) => {
              trunk.forward(port, [frame], offload);
            },
            settle: () => {
              for (const user of trunk.users) user.settle();
            },
            room: () => {
              for (const user of trunk.users) user.room();
            },
          };
        });
        trunk.ports.add(port);
        trunk.uplinks.push(uplink);
      }
    } catch (error) {
      await trunk.close();
      throw error;
    }
    return trunk;
  }

  /** Puts somebody of this thread on the network. */
  join(user: (link: NatLink) => UplinkUser): { close(): void } {
    const own: Port = (pieces, offload) => {
      member.receive(pieces.length === 1 ? pieces[0]! : joined(pieces), offload);
      return true;
    };
    const member = user({ send: (pieces, offload) => this.forward(own, pieces, offload) });
    this.users.add(member);
    this.ports.add(own);
    return {
      close: () => {
        this.users.delete(member);
        this.ports.delete(own);
        for (const [mac, port] of this.table) if (port === own) this.table.delete(mac);
      },
    };
  }

  /** Somebody may be elsewhere from now on. */
  relearn(): void {
    this.table.clear();
  }

  async close(): Promise<void> {
    this.ports.clear();
    this.users.clear();
    await Promise.all(this.uplinks.map((uplink) => uplink.close()));
  }

  /** @returns false: the one that it goes to has no room */
  private forward(from: Port, pieces: readonly Uint8Array[], offload: Offload): boolean {
    const head = pieces[0]!.length < ETHERNET.size ? joined(pieces) : pieces[0]!;
    if (head.length < ETHERNET.size) return true;
    this.learn(getMac(head, ETHERNET.source), from);
    const destination = getMac(head, ETHERNET.destination);
    const to = isGroup(destination) ? undefined : this.table.get(destination);
    if (to === from) return true;
    if (to) return to(pieces, offload);
    // Nobody waits for one of many.
    for (const port of this.ports) if (port !== from) port(pieces, offload);
    return true;
  }

  private learn(mac: number, port: Port): void {
    if (isGroup(mac) || this.table.get(mac) === port) return;
    this.table.delete(mac);
    this.table.set(mac, port);
    if (this.table.size > TABLE_MAX) this.table.delete(this.table.keys().next().value!);
  }
}

function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(pieces.reduce((total, { length }) => total + length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}
