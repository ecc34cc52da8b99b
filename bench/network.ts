/**
 * Networks: TCP between two guests and between the host and a guest, both ways (the paper's table 6), round trips, and
 * a web server in the guest.
 *
 *              between guests                                      host and guest
 *   ours       two domains of one machine, on a bridge             our NAT, a forwarded port
 *   native     two processes, over the loopback with that MTU      the same, with the loopback's own MTU
 *   TCG        two QEMUs with TAP devices on a bridge of the       QEMU's user network, a forwarded port
 *              kernel's (offloads; needs rights to make them),
 *              else connected by a socket
 *
 * User-Mode Linux is not measured: its networks need helpers.
 */
import { spawnSync } from 'node:child_process';
import { BenchMachine } from './domains.ts';
import {
  awaitRow,
  freePort,
  IO,
  type IoImages,
  type IoResult,
  IoSamples,
  type IoTimes,
  LOAD_VIRTIO,
  type Quantity,
  type Shell,
  UNTIL_ADDRESS,
} from './io.ts';
import { cpuSecondsOf, System } from './process.ts';
import type { Row } from './report.ts';
import { MEMORY, type Peer, untilShell } from './systems.ts';

const PORT = 5000;

interface NetworkRow {
  readonly place: 'guests' | 'host';
  readonly name: string;
  readonly unit: Quantity;
  readonly mtu: number;
  /** As bench/io calls it; and the words for the client. */
  readonly id: string;
  readonly command: string;
}

function stream(place: NetworkRow['place'], mtu: number, way: 'send' | 'receive', name: string): NetworkRow {
  return { place, name: `${name}, MTU ${mtu}`, unit: 'Mb/s', mtu, id: way, command: `stream HOST ${way}` };
}

function other(
  place: NetworkRow['place'],
  name: string,
  unit: Quantity,
  id: string,
  command: string,
): NetworkRow {
  return { place, name, unit, mtu: 1500, id, command };
}

export const NETWORK_ROWS: readonly NetworkRow[] = [
  stream('guests', 1500, 'send', 'TCP, guest to guest'),
  stream('guests', 500, 'send', 'TCP, guest to guest'),
  other('guests', 'round trip, guest to guest', 'us', 'ping', 'ping HOST'),
  stream('host', 1500, 'receive', 'TCP, guest to host'),
  stream('host', 1500, 'send', 'TCP, host to guest'),
  stream('host', 500, 'receive', 'TCP, guest to host'),
  stream('host', 500, 'send', 'TCP, host to guest'),
  other('host', 'round trip, host to guest', 'us', 'ping', 'ping HOST'),
  other('host', 'web server, 8 connections', '1/s', 'load-keep', 'load HOST 8 keep'),
  // One after another: QEMU's user network stands still for seconds when three connections are made at once.
  other('host', 'web server, a connection each', '1/s', 'load-close', 'load HOST 1 close'),
];

/** Two guests that reach each other, with their shells. */
interface Pair {
  readonly shells: readonly [Shell, Shell];
  cpuSeconds(): number;
  end(): Promise<void>;
}

const address = (index: number) => `192.168.7.${index + 1}`;

/** A shell's console that forgets what it has shown. */
function forgetting(system: System): Shell {
  return {
    type: (text) => system.type(text),
    see: async (pattern, seconds) => {
      const match = await system.see(pattern, seconds);
      system.takeOutput();
      return match;
    },
  };
}

/** A network namespace with a bridge and two TAP devices, if this user may have one: how to run a program in it. */
class TapNetwork {
  readonly holder: System;

  private constructor(holder: System) {
    this.holder = holder;
  }

  static async make(nice: number): Promise<TapNetwork | null> {
    const steps = [
      'ip link add br0 type bridge && ip link set br0 up',
      ...[0, 1].map((index) => `ip tuntap add tap${index} mode tap`),
      ...[0, 1].map((index) => `ip link set tap${index} master br0 up`),
      'echo made && exec sleep 100000',
    ];
    const holder = new System('unshare', ['-rn', 'sh', '-c', steps.join(' && ')], nice);
    try {
      await holder.see(/made/, 10);
      return new TapNetwork(holder);
    } catch {
      await holder.end();
      return null;
    }
  }

  command(program: string, args: readonly string[]): [string, string[]] {
    return ['nsenter', ['-t', `${this.holder.pid}`, '-U', '-n', '--preserve-credentials', program, ...args]];
  }
}

async function tcgPair(images: IoImages, peer: Peer, nice: number): Promise<Pair> {
  const tap = await TapNetwork.make(nice);
  const port = tap ? 0 : await freePort();
  const systems: System[] = [];
  const start = (index: number) => {
    const backEnd = tap
      ? `tap,id=n0,ifname=tap${index},script=no,downscript=no,vhost=off`
      : `socket,id=n0,${index === 0 ? 'listen' : 'connect'}=127.0.0.1:${port}`;
    const device = `virtio-net-pci,netdev=n0,mac=52:54:00:00:00:0${index + 1}`;
    const system = peer.boot!(images, {
      nice,
      devices: ['-netdev', backEnd, '-device', device],
      ...(tap && { wrap: (program: string, args: readonly string[]) => tap.command(program, args) }),
    });
    systems.push(system);
    return system;
  };
  const end = async () => {
    await Promise.all(systems.map((system) => system.end()));
    await tap?.holder.end();
  };
  try {
    const [a, b] = [start(0), start(1)];
    await Promise.all([untilShell(a, 'tcg'), untilShell(b, 'tcg')]);
    for (const each of systems) each.type(`${LOAD_VIRTIO}\n`);
    return {
      shells: [forgetting(a), forgetting(b)],
      cpuSeconds: () => a.cpuSeconds + b.cpuSeconds,
      end,
    };
  } catch (error) {
    await end();
    throw error;
  }
}

async function ourPair(images: IoImages): Promise<Pair> {
  const machine = await BenchMachine.start(images);
  try {
    const make = async (index: number) => {
      const vif = `mac=00:16:3e:00:00:0${index + 1},bridge=bench,ip=${address(index)}`;
      const domain = await machine.create({ name: `g${index}`, memory: MEMORY, config: `vif=["${vif}"]` });
      await domain.ready();
      return domain;
    };
    const [a, b] = await Promise.all([make(0), make(1)]);
    return {
      shells: [a, b],
      cpuSeconds: () => cpuSecondsOf(machine.pid),
      end: () => machine.end(),
    };
  } catch (error) {
    await machine.end();
    throw error;
  }
}

/** A shell's line: gives a guest its address. */
const addressing = (index: number) => `ip addr add ${address(index)}/24 dev eth0; ip link set eth0 up`;

export class NetworkResults {
  private readonly rows: readonly NetworkRow[];
  private readonly times: IoTimes;
  private readonly samples: IoSamples;
  readonly notes: string[] = [];

  constructor(rows: readonly NetworkRow[], times: IoTimes, report: (text: string) => void) {
    this.rows = rows;
    this.times = times;
    this.samples = new IoSamples('network', report);
  }

  get rowCount(): number {
    return this.rows.length;
  }

  get result(): Row[] {
    return this.samples.result;
  }

  /** Everything, on one system. */
  async measure(images: IoImages, peer: Peer, label: string, settings: { nice: number }): Promise<void> {
    if (peer.system === 'uml' || peer.system === 'interpreter') return;
    if (this.rows.some(({ place }) => place === 'guests'))
      await this.betweenGuests(images, peer, label, settings.nice);
    if (this.rows.some(({ place }) => place === 'host'))
      await this.withHost(images, peer, label, settings.nice);
  }

  private line(row: NetworkRow, host: string, port: number): string {
    const { warm, measure } = this.times;
    return `${row.command.replace('HOST', `${host} ${port}`)} ${warm} ${measure}`;
  }

  private note(row: NetworkRow, peer: Peer, label: string, result: IoResult & { cpu: number }): void {
    this.samples.add(row.name, row.unit, peer, label, result);
    if (row.unit === 'Mb/s' && peer.boot !== null) this.samples.addCost(row.name, peer, result.cpu, result);
  }

  private async betweenGuests(images: IoImages, peer: Peer, label: string, nice: number): Promise<void> {
    const rows = this.rows.filter(({ place }) => place === 'guests');
    if (peer.boot === null) {
      for (const row of rows) await this.natively(images, row, peer, label, nice);
      return;
    }
    const pair = peer.system === 'tcg' ? await tcgPair(images, peer, nice) : await ourPair(images);
    try {
      const [server, client] = pair.shells;
      for (const [index, shell] of pair.shells.entries())
        shell.type(
          `killall -q udhcpc; until ip link show eth0 >/dev/null 2>&1; do sleep 0.1; done; ${addressing(index)}\n`,
        );
      server.type(`${IO} serve ${PORT} &\n`);
      await server.see(/io serves/);
      for (const row of rows) {
        for (const [index, shell] of pair.shells.entries()) {
          shell.type(`ip link set eth0 mtu ${row.mtu}; echo mtu-$((${row.mtu}+${index}))\n`);
          await shell.see(new RegExp(`mtu-${row.mtu + index}`));
        }
        client.type(`${IO} ${this.line(row, address(0), PORT)}\n`);
        this.note(row, peer, label, await awaitRow(client, row.id, pair.cpuSeconds));
      }
    } finally {
      await pair.end();
    }
  }

  /** Two processes, over a loopback of their own if that can be had. */
  private async natively(
    images: IoImages,
    row: NetworkRow,
    peer: Peer,
    label: string,
    nice: number,
  ): Promise<void> {
    const own = row.place === 'guests' && spawnSync('unshare', ['-rn', 'true']).status === 0;
    const [program, args]: [string, string[]] = own ? ['unshare', ['-rn', 'sh']] : ['sh', []];
    const port = own ? PORT : await freePort();
    const shell = new System(program, args, nice);
    try {
      if (own) shell.type(`ip link set lo mtu ${row.mtu} up\n`);
      shell.type(`${images.io} serve ${port} &\n`);
      await shell.see(/io serves/, 20);
      shell.type(`${images.io} ${this.line(row, '127.0.0.1', port)}\n`);
      this.note(row, peer, label, await awaitRow(shell, row.id, () => 0));
    } finally {
      await shell.end();
    }
  }

  private async withHost(images: IoImages, peer: Peer, label: string, nice: number): Promise<void> {
    const rows = this.rows.filter(({ place }) => place === 'host');
    if (peer.boot === null) {
      for (const row of rows) await this.natively(images, row, peer, label, nice);
      return;
    }
    const port = await freePort();
    const tcg = peer.system === 'tcg';
    const devices = tcg
      ? [
          ...['-netdev', `user,id=n0,hostfwd=tcp:127.0.0.1:${port}-:${PORT}`],
          ...['-device', 'virtio-net-pci,netdev=n0'],
        ]
      : ['--net', 'default', '--forward', `${port}:${PORT}`];
    const system = peer.boot(images, { nice, devices, ...(!tcg && { translations: images.folder }) });
    try {
      await untilShell(system, peer.system);
      if (tcg) {
        system.type(
          `${LOAD_VIRTIO}; until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done; ip link set eth0 up\n`,
        );
        system.type('udhcpc -q -t 5 -T 1 -i eth0 >/dev/null 2>&1\n');
      }
      system.type(`${UNTIL_ADDRESS}; ${IO} serve ${PORT} &\n`);
      await system.see(/io serves/);
      for (const row of rows) {
        system.takeOutput();
        system.type(`ip link set eth0 mtu ${row.mtu}; echo mtu-$((${row.mtu}+1))\n`);
        await system.see(new RegExp(`mtu-${row.mtu + 1}`));
        const client = new System(images.io, this.line(row, '127.0.0.1', port).split(' '), nice);
        this.note(row, peer, label, await awaitRow(client, row.id, () => system.cpuSeconds));
        await client.end();
      }
    } finally {
      await system.end();
    }
  }
}
