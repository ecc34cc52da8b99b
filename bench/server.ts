/**
 * Servers as people run them, out of Debian's packages: nginx with a page of 4 KiB, asked from the host, and PostgreSQL
 * with pgbench in the guest itself (the paper's OLTP).
 *
 *   ours, TCG    the shell's RAM disk; a disk with Debian (read-only, straight out of the cache of images) with the
 *                servers, and a copy of the disk with what they serve. Our NAT, or QEMU's user network.
 *   native       the same programs out of the same image, in namespaces of their own, on a folder of this machine
 *
 * What they serve is made natively, once in a run: it is the same on every system.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { debianImage } from '#dist/toolstack/images/debian/build.js';
import {
  awaitRow,
  freePort,
  type IoImages,
  IoSamples,
  type IoTimes,
  LOAD_VIRTIO,
  UNTIL_ADDRESS,
} from './io.ts';
import { System } from './process.ts';
import type { Row } from './report.ts';
import { type Peer, untilShell } from './systems.ts';

const SOURCES = join(fileURLToPath(new URL('../..', import.meta.url)), 'bench/server');
/** Besides nginx, which is in every Debian image of ours. */
const PACKAGES = ['postgresql'];
/** Of Debian's disk, in KiB. */
const SYSTEM_SIZE = 2 << 20;
/** Of the disk with what is served. */
const DATA_SIZE = '512m';
/** 500,000 accounts: 75 MB, which the guest's memory has room for. */
const SCALE = 5;
/** Of the domain, in MiB. */
const MEMORY = 512;
/** So many times as long as disks and networks is what is timed: there are fewer answers in a second. */
const LONGER = 4;
/** For making and starting servers, in seconds. */
const PATIENCE = 240;
/** PATH of what runs in the image's tree. */
const PATH = 'PATH=/usr/sbin:/usr/bin:/sbin:/bin';

interface ServerRow {
  readonly id: string;
  readonly name: string;
  /** Words for the client on the host (bench/io), or for oltp.sh in the guest. */
  readonly command: string;
  readonly kind: 'web' | 'oltp';
}

export const SERVER_ROWS: readonly ServerRow[] = [
  { kind: 'web', id: 'load-keep', name: 'nginx, 8 connections', command: '8 keep' },
  // One after another, as in network.ts.
  { kind: 'web', id: 'load-close', name: 'nginx, a connection each', command: '1 close' },
  { kind: 'oltp', id: 'oltp-select', name: 'PostgreSQL, pgbench select-only', command: 'select-only' },
  { kind: 'oltp', id: 'oltp-tpcb', name: 'PostgreSQL, pgbench like TPC-B', command: 'tpcb-like' },
];

export interface ServerImages {
  /** Debian's disk: not to be written to. */
  readonly system: string;
  /** The same as a tree of files. */
  readonly tree: string;
  /** What the servers serve: a folder, and a disk with the same in it. */
  readonly folder: string;
  readonly data: string;
}

/**
 * What begins a shell in the tree, in namespaces of its own: all that it starts ends with it. First this user becomes
 * root there, to mount; then the tree's user `postgres`, as PostgreSQL refuses root.
 */
function inTree({ tree, folder }: Pick<ServerImages, 'tree' | 'folder'>): [string, string[]] {
  const [, uid, gid] = /^postgres:[^:]*:(\d+):(\d+):/m.exec(
    readFileSync(join(tree, 'etc/passwd'), 'utf8'),
  ) ?? ['', '', ''];
  const script = [
    `mount --bind "$2" "$1/srv"`,
    `mount --rbind /dev "$1/dev"`,
    `mount -t tmpfs -o mode=1777 tmpfs "$1/tmp"`,
    `exec unshare -U --map-user=${uid} --map-group=${gid} --keep-caps chroot "$1" /usr/bin/env -i ${PATH} /bin/sh`,
  ];
  return ['unshare', ['-rmp', '--fork', '--kill-child', 'sh', '-c', script.join(' && '), 'sh', tree, folder]];
}

function tool(program: string, args: readonly string[]): void {
  const env = { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin` };
  const { status, error, stderr } = spawnSync(program, args, { encoding: 'utf8', env });
  if (status !== 0)
    throw new Error(`${program}: ${error?.message ?? stderr.trim().split('\n').at(-1) ?? 'failed'}`);
}

/** @throws Error: something is missing on this machine, in one line */
async function makeServerImages(images: IoImages, say: (text: string) => void): Promise<ServerImages> {
  if (spawnSync('unshare', ['-rmp', '--fork', 'true']).status !== 0)
    throw new Error('this user may not have namespaces (unshare -rmp)');
  say('making the image of Debian with PostgreSQL and nginx (minutes, when it is not in the cache)');
  const { path: system } = await debianImage({
    ...{ packages: PACKAGES, size: SYSTEM_SIZE, container: null, update: false },
  });
  const folder = join(images.folder, 'served');
  const tree = join(images.folder, 'tree');
  const data = join(images.folder, 'served.img');
  mkdirSync(folder);
  mkdirSync(tree);
  tool('debugfs', ['-R', `rdump / ${tree}`, system]);
  for (const name of ['make.sh', 'start.sh', 'oltp.sh', 'check.sh'])
    writeFileSync(join(folder, name), readFileSync(join(SOURCES, name)), { mode: 0o755 });
  const maker = new System(...inTree({ tree, folder }), 0);
  try {
    maker.type(`/srv/make.sh ${SCALE} || exit\n`);
    await maker.see(/servers made/, PATIENCE);
  } finally {
    await maker.end();
  }
  tool('mke2fs', ['-q', '-F', '-t', 'ext4', '-d', folder, data, DATA_SIZE]);
  return { system, tree, folder, data };
}

function devices(tcg: boolean, system: string, data: string, port: number): string[] {
  if (!tcg) {
    const disks = ['--disk', `${system},raw,xvda,r`, '--disk', `${data},raw,xvdb,rw`];
    return ['--memory', `${MEMORY}`, ...disks, '--net', 'default', '--forward', `${port}:80`];
  }
  const disk = (id: string, file: string, more: string) => [
    ...['-drive', `if=none,id=${id},format=raw,file=${file}${more}`],
    ...['-device', `virtio-blk-pci,drive=${id}`],
  ];
  return [
    ...['-m', `${MEMORY}`],
    ...disk('d0', system, ',readonly=on'),
    ...disk('d1', data, ''),
    ...['-netdev', `user,id=n0,hostfwd=tcp:127.0.0.1:${port}-:80`],
    ...['-device', 'virtio-net-pci,netdev=n0'],
  ];
}

/** Lines of the guest's shell: Debian under /mnt, with what it needs around it. */
function mounting(tcg: boolean): string {
  const [system, data] = tcg ? ['/dev/vda', '/dev/vdb'] : ['/dev/xvda', '/dev/xvdb'];
  const steps = [
    'modprobe -q ext4',
    `mount -t ext4 -o ro ${system} /mnt`,
    `mount -t ext4 ${data} /mnt/srv`,
    ...['dev', 'dev/shm', 'proc'].map((path) => `mount -o bind /${path} /mnt/${path}`),
    'mount -t tmpfs -o mode=1777 tmpfs /mnt/tmp',
    'mount -t tmpfs tmpfs /mnt/run',
  ];
  return `until [ -b ${data} ]; do sleep 0.1; done\n{ ${steps.join(' && ')}; } || echo io failed: mount\n`;
}

export class ServerResults {
  private readonly rows: readonly ServerRow[];
  private readonly times: IoTimes;
  private readonly samples: IoSamples;
  private readonly say: (text: string) => void;
  private images: ServerImages | null = null;

  constructor(rows: readonly ServerRow[], times: IoTimes, say: (text: string) => void) {
    this.rows = rows;
    this.times = { ...times, measure: times.measure * LONGER };
    this.samples = new IoSamples('server', say);
    this.say = say;
  }

  get rowCount(): number {
    return this.rows.length;
  }

  get result(): Row[] {
    return this.samples.result;
  }

  /** Makes the images. @returns why there are no rows, if that cannot be done here */
  async prepare(images: IoImages): Promise<string | null> {
    try {
      this.images = await makeServerImages(images, this.say);
      return null;
    } catch (error) {
      return `no rows with servers: ${(error as Error).message.split('\n')[0]}`;
    }
  }

  /** Everything, on one system. */
  async measure(images: IoImages, peer: Peer, label: string, settings: { nice: number }): Promise<void> {
    if (this.images === null || peer.system === 'uml' || peer.system === 'interpreter') return;
    const { nice } = settings;
    const port = await freePort();
    if (peer.boot === null) {
      const shell = new System(...inTree(this.images), nice);
      try {
        await this.run(shell, images, peer, label, { nice, port, prefix: '', inside: port });
      } finally {
        await shell.end();
      }
      return;
    }
    const tcg = peer.system === 'tcg';
    const data = join(images.folder, `served-${port}.img`);
    tool('cp', ['--sparse=always', '--reflink=auto', this.images.data, data]);
    const system = peer.boot(images, {
      nice,
      devices: devices(tcg, this.images.system, data, port),
      ...(!tcg && { translations: images.folder }),
    });
    try {
      await untilShell(system, peer.system);
      if (tcg) {
        const found = 'until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done; ip link set eth0 up';
        system.type(`${LOAD_VIRTIO}; ${found}; udhcpc -q -t 5 -T 1 -i eth0 >/dev/null 2>&1\n`);
      }
      system.type(`${mounting(tcg)}${UNTIL_ADDRESS}\n`);
      const prefix = `${PATH} chroot /mnt `;
      await this.run(system, images, peer, label, { nice, port, prefix, inside: 80 });
    } finally {
      await system.end();
      rmSync(data, { force: true });
    }
  }

  private async run(
    system: System,
    images: IoImages,
    peer: Peer,
    label: string,
    how: { nice: number; port: number; prefix: string; inside: number },
  ): Promise<void> {
    const { warm, measure } = this.times;
    const note = async (row: ServerRow, from: System) =>
      this.samples.add(row.name, '1/s', peer, label, await awaitRow(from, row.id, () => 0));
    system.type(`${how.prefix}/srv/start.sh ${how.inside}\n`);
    const [started] = await system.see(/servers run|io failed: .*/, PATIENCE);
    if (started !== 'servers run') throw new Error(started);
    for (const row of this.rows) {
      if (row.kind === 'web') {
        const words = ['load', '127.0.0.1', `${how.port}`, ...row.command.split(' ')];
        const client = new System(images.io, [...words, `${warm}`, `${measure}`], how.nice);
        await note(row, client);
        await client.end();
      } else {
        const seconds = [warm, measure].map((time) => Math.max(1, Math.round(time / 1000)));
        system.type(`${how.prefix}/srv/oltp.sh ${row.id} ${row.command} ${seconds.join(' ')}\n`);
        await note(row, system);
      }
    }
    if (!this.rows.some(({ kind }) => kind === 'oltp')) return;
    system.type(`${how.prefix}/srv/check.sh\n`);
    const [books] = await system.see(/books are right|io failed: .*|psql: .*/, PATIENCE);
    if (books !== 'books are right') throw new Error(books);
  }
}
