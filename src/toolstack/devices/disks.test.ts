import {
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { PlaneOpener } from '../../dom0/backend/data-plane.ts';
import { DiskError } from '../../dom0/block/source.ts';
import { XenstoreClient } from '../../dom0/xenstore/client.ts';
import { Xenstore } from '../../dom0/xenstore/xenstore.ts';
import { Memory } from '../../machine/memory.ts';
import { DiskService } from './disk-service.ts';
import { parseDiskSpec } from './disk-spec.ts';
import { DiskFile } from './file.ts';
import { openAddress } from './http.ts';

const folder = mkdtempSync(join(tmpdir(), 'disks-'));
afterAll(() => rmSync(folder, { recursive: true }));
const path = (name: string) => join(folder, name);
const bytes = Uint8Array.from({ length: 1 << 20 }, (_, at) => (at * 13 + (at >> 9)) & 0xff);

describe('a file', () => {
  it('that somebody else could not flush is durable no more, and handed out no more', async () => {
    const file = await DiskFile.open(path('lost'), false, true);
    await file.write(0, [bytes]);
    await file.flush();
    expect(file.handOut()).not.toBeNull();
    file.flushFailed();
    expect(file.handOut()).toBeNull();
    await expect(file.flush()).rejects.toThrow('may be lost');
    await file.close();
  });

  it('is read and written in many pieces, and is durable', async () => {
    writeFileSync(path('file'), bytes);
    const file = await DiskFile.open(path('file'), false);
    const pieces = Array.from({ length: 3000 }, () => new Uint8Array(7));
    expect(await file.read(100, pieces)).toBe(21_000);
    expect(Buffer.concat(pieces).equals(Buffer.from(bytes.subarray(100, 21_100)))).toBe(true);
    await file.write(5, [pieces[0]!, pieces[1]!]);
    await file.flush();
    expect(
      readFileSync(path('file'))
        .subarray(5, 19)
        .equals(Buffer.from(bytes.subarray(100, 114))),
    ).toBe(true);
    const end = [new Uint8Array(10), new Uint8Array(10)];
    expect(await file.read(bytes.length - 15, end)).toBe(15);
    await file.close();
  });

  it('gives back what is discarded, and nothing beside it', async () => {
    writeFileSync(path('holes'), bytes);
    const file = await DiskFile.open(path('holes'), false);
    if (file.discardGranularity === 0) {
      console.warn('fallocate is not installed: holes are not tried');
      await file.close();
      return;
    }
    const before = statSync(path('holes')).blocks;
    // Too small to be worth it; and not whole at its ends.
    await file.discard(0, 128 << 10);
    await file.discard((256 << 10) + 512, 512 << 10);
    await file.flush();
    const [from, to] = [320 << 10, 768 << 10];
    const now = readFileSync(path('holes'));
    expect(now.subarray(0, from).equals(Buffer.from(bytes.subarray(0, from)))).toBe(true);
    expect(now.subarray(to).equals(Buffer.from(bytes.subarray(to)))).toBe(true);
    const hole = now.subarray(from, to);
    const given = before - statSync(path('holes')).blocks;
    if (file.discardGranularity === 0) console.warn('this file system has no holes');
    else {
      expect(hole.every((byte) => byte === 0)).toBe(true);
      expect(given * 512).toBe(to - from);
    }
    expect(now.length).toBe(bytes.length);
    await file.close();
    const reader = await DiskFile.open(path('holes'), true);
    expect(reader.discardGranularity).toBe(0);
    await reader.close();
  });

  it.each([
    ['nothing', 'no such file'],
    ['.', /directory/],
    ['/dev/null', 'neither a file nor'],
  ])('%s is none', async (name, said) => {
    await expect(DiskFile.open(name.startsWith('/') ? name : path(name), false)).rejects.toThrow(said);
    await expect(DiskFile.open(path(name), false)).rejects.toThrow(DiskError);
  });
});

describe('an address', () => {
  let server: Server;
  let address: string;
  let requests: string[];
  let failures: number;
  let etag: string;
  let ranges: boolean;

  beforeAll(async () => {
    server = createServer((request, response) => {
      const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
      requests.push(request.headers.range ?? '');
      if (failures-- > 0) {
        if (failures % 2) response.destroy();
        else response.writeHead(503).end();
        return;
      }
      if (request.url !== '/disk') return response.writeHead(404).end();
      if (!ranges || !range) return response.writeHead(200).end(bytes);
      const [from, to] = [Number(range[1]), Number(range[2])];
      response.writeHead(206, { etag, 'content-range': `bytes ${from}-${to}/${bytes.length}` });
      return response.end(bytes.subarray(from, to + 1));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  beforeEach(() => {
    requests = [];
    failures = 0;
    etag = '"1"';
    ranges = true;
  });
  afterAll(() => server.close());

  it('is read where it is wanted, once', async () => {
    const disk = await openAddress(`${address}/disk`);
    expect(await disk.size()).toBe(bytes.length);
    const part = new Uint8Array(5000);
    for (const at of [0, 300_000, 1_040_000, 300_000, 0]) {
      await disk.read(at, [part]);
      expect(Buffer.from(part).equals(Buffer.from(bytes.subarray(at, at + 5000)))).toBe(true);
    }
    expect(requests).toEqual(['bytes=0-0', 'bytes=0-131071', 'bytes=262144-393215', 'bytes=917504-1048575']);
  });

  it('is read ahead for who reads on, in few requests', async () => {
    const disk = await openAddress(`${address}/disk`);
    const part = new Uint8Array(4096);
    for (let at = 0; at < bytes.length; at += 4096) {
      expect(await disk.read(at, [part])).toBe(4096);
      expect(Buffer.from(part).equals(Buffer.from(bytes.subarray(at, at + 4096)))).toBe(true);
    }
    expect(requests.length).toBeLessThan(8);
  });

  it('is asked again when the server stumbles', async () => {
    failures = 2;
    const disk = await openAddress(`${address}/disk`);
    failures = 1;
    const part = new Uint8Array(512);
    await disk.read(1024, [part]);
    expect(Buffer.from(part).equals(Buffer.from(bytes.subarray(1024, 1536)))).toBe(true);
  });

  it('is not read on when it has changed', async () => {
    const disk = await openAddress(`${address}/disk`);
    etag = '"2"';
    await expect(disk.read(0, [new Uint8Array(512)])).rejects.toThrow(/has changed/);
  });

  it('says what is wrong with it', async () => {
    await expect(openAddress(`${address}/other`)).rejects.toThrow(/404/);
    ranges = false;
    await expect(openAddress(`${address}/disk`)).rejects.toThrow(/parts/);
    await expect(openAddress('http://127.0.0.1:1/disk')).rejects.toThrow(DiskError);
  });

  it('is the disk under an overlay', async () => {
    const { service } = newService();
    const text = `vdev=xvda,overlay=${path('net.qcow2')},target=${address}/disk`;
    const device = await service.attach(1, parseDiskSpec(text));
    const { source } = device.description;
    await source.write(512, [new Uint8Array(512).fill(0xee)]);
    const part = new Uint8Array(2048);
    await source.read(0, [part]);
    expect([part[0], part[511], part[512], part[1023], part[1024]]).toEqual([
      bytes[0],
      bytes[511],
      0xee,
      0xee,
      bytes[1024],
    ]);
    await service.removeAll(1);
    await expect(service.attach(1, parseDiskSpec(`${address}/disk,,xvda,w`))).rejects.toThrow(
      /can only be read/,
    );
  });
});

function newService() {
  const store = new Xenstore();
  const said: string[] = [];
  const planes: PlaneOpener = { open: () => Promise.reject(new Error('there is no processor')) };
  const service = new DiskService({
    memory: Memory.create(1 << 20),
    planes,
    store: new XenstoreClient(store),
  });
  service.report = (text) => said.push(text);
  return { service, said, store: new XenstoreClient(store) };
}

describe('the disks of a machine', () => {
  let { service, store } = newService();
  const attach = (domid: number, text: string) => service.attach(domid, parseDiskSpec(text));

  beforeEach(() => {
    ({ service, store } = newService());
    writeFileSync(path('a.img'), bytes);
  });
  afterEach(() => service.close());

  it('are in the store, and gone from it', async () => {
    await attach(3, `${path('a.img')},,xvda`);
    expect(store.read('/local/domain/3/device/vbd/51712/virtual-device')).toBe('51712');
    expect(store.read('/local/domain/0/backend/vbd/3/51712/params')).toBe(path('a.img'));
    expect(service.list(3).map((each) => each.description.vdev)).toEqual(['xvda']);
    await service.detach(3, 51712, true);
    expect(store.read('/local/domain/3/device/vbd/51712')).toBeNull();
    await expect(service.detach(3, 51712)).rejects.toThrow(/no such disk/);
  });

  it('are written by one at a time, by whatever name', async () => {
    await attach(1, `${path('a.img')},,xvda`);
    rmSync(path('link'), { force: true });
    symlinkSync(path('a.img'), path('link'));
    await expect(attach(2, `${path('link')},,xvda`)).rejects.toThrow(/in use/);
    await expect(attach(2, `${path('a.img')},,xvda,r`)).rejects.toThrow(/in use/);
    await service.removeAll(1);
    await attach(2, `${path('a.img')},,xvda,r`);
    await attach(3, `${path('a.img')},,xvda,r`);
    await expect(attach(1, `${path('a.img')},,xvda`)).rejects.toThrow(/in use/);
  });

  it('have names of their own in a domain', async () => {
    await attach(1, 'memory:1M,,xvda');
    await expect(attach(1, 'memory:1M,,51712')).rejects.toThrow(/has a disk xvda already/);
  });

  it('are attached once, and not to a domain that went meanwhile', async () => {
    const spec = `${path('a.img')},,xvda`;
    const first = attach(1, spec);
    await expect(attach(1, 'memory:1M,,xvda')).rejects.toThrow(/already/);
    const device = await first;
    await Promise.all([service.detach(1, 51712, true), device.remove()]);
    const late = attach(1, spec);
    await service.removeAll(1);
    await expect(late).rejects.toThrow(/is gone/);
    expect(service.list(1)).toEqual([]);
    // Nothing holds the file.
    await attach(2, spec);
  });

  it('keep what is written in an overlay, and only there', async () => {
    const overlay = `${path('o.qcow2')}`;
    const text = `vdev=xvda,overlay=${overlay},target=${path('a.img')}`;
    const { source } = (await attach(1, text)).description;
    await source.write(4096, [new Uint8Array(4096).fill(0x77)]);
    await service.removeAll(1);
    expect(readFileSync(path('a.img')).equals(Buffer.from(bytes))).toBe(true);
    const again = (await attach(2, text)).description.source;
    const part = new Uint8Array(4096);
    await again.read(4096, [part]);
    expect(part[0]).toBe(0x77);
    await service.removeAll(2);
    writeFileSync(path('b.img'), bytes);
    await expect(attach(3, `vdev=xvda,overlay=${overlay},target=${path('b.img')}`)).rejects.toThrow(
      /overlay over/,
    );
    // The image itself knows what it lies over.
    const own = (await attach(4, `${overlay},qcow2,xvda`)).description.source;
    await own.read(4096, [part]);
    expect(part[0]).toBe(0x77);
  });

  it.each([
    ['/nonexistent/disk,,xvda', 'no such file'],
    ['memory:lots,,xvda', 'not a size'],
    [',,xvda,cdrom', 'without a disk'],
  ])('%s cannot be had', async (text, said) => {
    await expect(attach(1, text)).rejects.toThrow(said);
    await expect(attach(1, text)).rejects.toThrow(DiskError);
  });

  it('that are no qcow2 images are refused, and can be used for something else then', async () => {
    await expect(attach(1, `${path('a.img')},qcow2,xvda`)).rejects.toThrow('not a qcow2 image');
    await attach(1, `${path('a.img')},,xvda`);
  });

  it('that become shorter fail where they are gone', async () => {
    const { source } = (await attach(1, `${path('a.img')},,xvda`)).description;
    truncateSync(path('a.img'), 4096);
    await source.read(0, [new Uint8Array(512)]);
    await expect(source.read(8192, [new Uint8Array(512)])).rejects.toThrow(/shorter/);
  });
});
