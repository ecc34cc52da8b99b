/**
 * Disks: reads and writes of a whole disk past the guest's caches, fsync, and a tree of files. The disk is a file in
 * the host's page cache on every system; natively it is that file itself.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { awaitRow, IO, type IoImages, IoSamples, type IoTimes, LOAD_VIRTIO, type Quantity } from './io.ts';
import { System } from './process.ts';
import type { Row, SystemName } from './report.ts';
import { type Peer, untilShell } from './systems.ts';

/** Of each disk. */
const BYTES = 128 << 20;

interface DiskRow {
  /** As bench/io calls it. */
  readonly id: string;
  readonly name: string;
  readonly unit: Quantity;
  readonly kind: 'disk' | 'fsync' | 'tree';
}

const row = (kind: DiskRow['kind'], id: string, unit: Quantity, name: string): DiskRow => {
  return { kind, id, unit, name };
};

export const DISK_ROWS: readonly DiskRow[] = [
  row('disk', 'seq-read', 'MB/s', 'sequential read, 256 KiB'),
  row('disk', 'seq-write', 'MB/s', 'sequential write, 256 KiB'),
  row('disk', 'rand-read-1', '1/s', 'random read, 4 KiB'),
  row('disk', 'rand-write-1', '1/s', 'random write, 4 KiB'),
  row('disk', 'rand-read-32', '1/s', 'random read, 4 KiB, depth 32'),
  row('disk', 'rand-write-32', '1/s', 'random write, 4 KiB, depth 32'),
  row('fsync', 'fsync', 'us', 'append of 4 KiB and fdatasync'),
  row('tree', 'tree-unpack', 'ms', 'unpack 600 files, sync'),
  row('tree', 'tree-pack', 'ms', 'pack 600 files, fsync'),
  row('tree', 'tree-remove', 'ms', 'remove 600 files, sync'),
];

/** The devices of a system's guest, and what they are called in it. */
function devices(system: SystemName, raw: string, files: string): readonly string[] {
  if (system === 'uml') return [`ubd0=${raw}`, `ubd1=${files}`];
  if (system !== 'tcg') return ['--disk', `${raw},raw,xvda,rw`, '--disk', `${files},raw,xvdb,rw`];
  const disk = (id: string, file: string) => [
    ...['-drive', `if=none,id=${id},format=raw,file=${file}`, '-device', `virtio-blk-pci,drive=${id}`],
  ];
  return [...disk('d0', raw), ...disk('d1', files)];
}

const NAMES: Partial<Record<SystemName, readonly [string, string]>> = {
  tcg: ['/dev/vda', '/dev/vdb'],
  uml: ['/dev/ubda', '/dev/ubdb'],
};

/** A file full of bytes, none of them a hole. */
function fill(path: string): void {
  const piece = Buffer.alloc(1 << 20, 'bytes of a disk; ');
  const file = openSync(path, 'w');
  for (let at = 0; at < BYTES; at += piece.length) writeSync(file, piece);
  closeSync(file);
}

export class DiskResults {
  private readonly rows: readonly DiskRow[];
  private readonly times: IoTimes;
  private readonly samples: IoSamples;
  private readonly filesystem: boolean;
  readonly notes: string[] = [];

  constructor(rows: readonly DiskRow[], times: IoTimes, say: (text: string) => void) {
    this.filesystem = spawnSync('mke2fs', ['-V']).status === 0;
    if (!this.filesystem) this.notes.push('mke2fs (package e2fsprogs) is not installed: no rows with files');
    this.rows = rows.filter(({ kind }) => kind === 'disk' || this.filesystem);
    this.times = times;
    this.samples = new IoSamples('disk', say);
  }

  get rowCount(): number {
    return this.rows.length;
  }

  get result(): Row[] {
    return this.samples.result;
  }

  /** Everything, on one system. */
  async measure(images: IoImages, peer: Peer, label: string, settings: { nice: number }): Promise<void> {
    const folder = mkdtempSync(join(images.folder, 'disk-'));
    try {
      const [raw, files] = [join(folder, 'raw'), join(folder, 'files')];
      fill(raw);
      if (peer.boot === null) {
        const program = new System('sh', [], settings.nice);
        await this.run(program, peer, label, images.io, raw, folder);
        return;
      }
      fill(files);
      const made = this.filesystem ? spawnSync('mke2fs', ['-q', '-F', '-t', 'ext4', files]) : null;
      if (made && made.status !== 0) throw new Error(`mke2fs: ${made.stderr}`);
      const own = peer.system === 'ours' || peer.system === 'interpreter';
      const system = peer.boot(images, {
        nice: settings.nice,
        devices: devices(peer.system, raw, files),
        ...(own && { translations: images.folder }),
      });
      try {
        await untilShell(system, peer.system);
        const [disk, second] = NAMES[peer.system] ?? ['/dev/xvda', '/dev/xvdb'];
        if (peer.system === 'tcg') system.type(`${LOAD_VIRTIO}\n`);
        system.type(`until [ -b ${second} ]; do sleep 0.1; done\n`);
        if (this.filesystem)
          system.type(`modprobe -q ext4; mount -t ext4 ${second} /mnt || echo io failed: mount\n`);
        await this.run(system, peer, label, IO, disk, '/mnt');
      } finally {
        await system.end();
      }
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  private async run(
    system: System,
    peer: Peer,
    label: string,
    program: string,
    disk: string,
    folder: string,
  ): Promise<void> {
    const { warm, measure } = this.times;
    const guest = peer.boot !== null;
    for (const kind of ['disk', 'fsync', 'tree'] as const) {
      const rows = this.rows.filter((each) => each.kind === kind);
      if (rows.length === 0) continue;
      const lines = {
        disk: `${program} disk ${disk} ${BYTES} ${warm} ${measure} ${rows.map(({ id }) => id).join(' ')}`,
        fsync: `${program} fsync ${folder}/log ${warm} ${measure}`,
        tree: `${program} tree ${folder}${guest ? ' drop' : ''}`,
      };
      system.type(`${lines[kind]}\n`);
      for (const each of DISK_ROWS.filter((one) => one.kind === kind)) {
        // A tree is always unpacked, packed and removed.
        if (kind !== 'tree' && !rows.includes(each)) continue;
        const result = await awaitRow(system, each.id, () => system.cpuSeconds);
        if (!rows.includes(each)) continue;
        this.samples.add(each.name, each.unit, peer, label, result);
        // The guest of User-Mode Linux is other processes than the one that is watched.
        if (each.unit === 'MB/s' && peer.system !== 'uml')
          this.samples.addCost(each.name, peer, guest ? result.cpu : result.ownCpu, result);
      }
    }
    if (!guest) system.type('exit\n');
  }
}
