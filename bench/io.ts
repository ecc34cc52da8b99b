/** What the rows of disks, networks and servers have in common: the program bench/io, a RAM disk with it, its answers. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ExtraFile, fetchKernel, shellInitramfs } from '#dist/toolstack/images/index.js';
import { moduleTables } from '#dist/toolstack/images/modules.js';
import { fetchPackageFiles } from '#dist/toolstack/images/package-files.js';
import { Samples } from './report.ts';
import { compile, type Images, type Peer } from './systems.ts';

const SOURCES = join(fileURLToPath(new URL('../..', import.meta.url)), 'bench/io');
/** In the guest. */
export const IO = '/bin/io';

/** The devices of other machines; ours are in every RAM disk. */
const VIRTIO = ['virtio', 'virtio_ring', 'virtio_pci', 'virtio_pci_modern_dev', 'virtio_pci_legacy_dev'];
const VIRTIO_DEVICES = ['virtio_blk', 'virtio_net', 'net_failover', 'failover'];

/** How long a row runs before it is timed, and while it is, ms. */
export interface IoTimes {
  readonly warm: number;
  readonly measure: number;
}

export interface IoImages extends Images {
  /** The program, for this machine. */
  readonly io: string;
}

/** The same images with another RAM disk: io is in it, and modules for disks and networks. */
export async function makeIoImages(images: Images): Promise<IoImages> {
  const io = join(images.folder, 'io');
  const sources = readdirSync(SOURCES).filter((name) => name.endsWith('.c'));
  compile(
    io,
    sources.map((name) => join(SOURCES, name)),
  );
  const fetched = await fetchKernel('debian');
  const names = [...VIRTIO, ...VIRTIO_DEVICES];
  const virtio = await fetchPackageFiles(
    'bench-virtio',
    fetched.package,
    (apt) => apt.offer(fetched.package, fetched.version),
    Object.fromEntries(names.map((name) => [name, new RegExp(`^(usr/)?lib/modules/.*/${name}\\.ko$`)])),
    ['virtio_blk', 'virtio_net'],
  );
  const isModule = ({ path }: ExtraFile) => path.endsWith('.ko');
  const modules = [
    ...fetched.modules.filter(isModule),
    ...[...virtio.files].map(([name, bytes]) => ({
      ...{ path: virtio.paths.get(name)!.replace(/^usr\//, ''), bytes },
    })),
  ];
  const folder = /^lib\/modules\/[^/]+\//.exec(modules[0]!.path)![0];
  const program = { path: IO.slice(1), bytes: new Uint8Array(readFileSync(io)), permissions: 0o755 };
  const ramdisk = join(images.folder, 'io-initramfs');
  writeFileSync(ramdisk, await shellInitramfs({}, [program, ...modules, ...moduleTables(folder, modules)]));
  return { ...images, ramdisk, io };
}

/** One line that makes the drivers of virtio's devices work, in a guest that has such devices. */
export const LOAD_VIRTIO = 'modprobe -a virtio_ring virtio virtio_pci virtio_blk virtio_net';

/** What a guest's shell does until it has an address. */
export const UNTIL_ADDRESS = 'until ip -o addr show eth0 | grep -q "inet "; do sleep 0.1; done';

/** A port of the loopback that nobody has now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** What the program said of a row. */
export interface IoResult {
  readonly operations: number;
  readonly bytes: number;
  readonly seconds: number;
  /** CPU time of the program itself, seconds; in a guest it means little. */
  readonly ownCpu: number;
}

/** Somebody who takes lines and answers: a guest's shell. */
export interface Shell {
  type(text: string): void;
  see(pattern: RegExp, seconds?: number): Promise<RegExpExecArray>;
}

/** For one row, seconds: some systems are slow. */
const PATIENCE = 120;

/** Waits for the row's result, and measures the CPU time of the host that its timed part took. */
export async function awaitRow(
  shell: Shell,
  row: string,
  cpuSeconds: () => number,
): Promise<IoResult & { cpu: number }> {
  await shell.see(new RegExp(`io begin ${row}\\r?\\n|io failed: .*`), PATIENCE);
  const before = cpuSeconds();
  const end = new RegExp(`io row ${row} (\\d+) (\\d+) (\\d+) (\\d+)\\r?\\n|io failed: .*`);
  const [line, operations, bytes, nanoseconds, own] = await shell.see(end, PATIENCE);
  const cpu = cpuSeconds() - before;
  if (operations === undefined) throw new Error(`${row}: ${line.trim()}`);
  const seconds = Number(nanoseconds) / 1e9;
  return { operations: Number(operations), bytes: Number(bytes), seconds, ownCpu: Number(own) / 1e9, cpu };
}

/** How a row's result becomes a figure. */
export type Quantity = 'MB/s' | 'Mb/s' | '1/s' | 'us' | 'ms';

function figure(unit: Quantity, { operations, bytes, seconds }: IoResult): number {
  switch (unit) {
    case 'MB/s':
      return bytes / seconds / 1e6;
    case 'Mb/s':
      return (bytes * 8) / seconds / 1e6;
    case '1/s':
      return operations / seconds;
    case 'us':
      return (seconds * 1e6) / operations;
    case 'ms':
      return seconds * 1000;
  }
}

/** Samples of a group, with what to say of each. */
export class IoSamples {
  private readonly samples: Samples;
  private readonly group: string;
  private readonly say: (text: string) => void;

  constructor(group: string, say: (text: string) => void) {
    this.samples = new Samples(group);
    this.group = group;
    this.say = say;
  }

  add(name: string, unit: Quantity, { system, variant }: Peer, label: string, result: IoResult): void {
    const value = figure(unit, result);
    this.samples.add(name, unit, system, value, variant);
    this.say(`${label}: ${this.group}: ${name}: ${value.toPrecision(4)} ${unit}`);
  }

  /** CPU time of the host for a byte moved. */
  addCost(name: string, { system, variant }: Peer, cpu: number, { bytes }: IoResult): void {
    if (bytes > 0) this.samples.add(`${name}, host CPU`, 'ns/byte', system, (cpu / bytes) * 1e9, variant);
  }

  get result() {
    return this.samples.result;
  }
}
