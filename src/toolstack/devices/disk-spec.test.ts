import { describe, expect, it } from 'vitest';
import { DiskError } from '../../dom0/block/source.ts';
import { parseBytes, parseDiskSpec } from './disk-spec.ts';
import { parseVdev, vdevName } from './vdev.ts';

const SAME = { target: '/dev/vg/guest-volume', format: 'raw', vdev: 'hda', readonly: false, cdrom: false };
const ISO = { target: '/root/image.iso', format: 'raw', vdev: 'hdc', readonly: true, cdrom: true };

describe('disk=', () => {
  // The examples of xl-disk-configuration(5), those that it calls deprecated too.
  it.each([
    '/dev/vg/guest-volume,,hda',
    '/dev/vg/guest-volume,raw,hda,rw',
    'format=raw, vdev=hda, access=rw, target=/dev/vg/guest-volume',
    'raw:/dev/vg/guest-volume,hda,w',
    'phy:/dev/vg/guest-volume,hda,w',
    'file:/dev/vg/guest-volume,hda,w',
    'tap:aio:/dev/vg/guest-volume,hda,w',
    ' /dev/vg/guest-volume , , hda ',
  ])('%s', (text) => {
    expect(parseDiskSpec(text)).toMatchObject(SAME);
  });

  it.each([
    '/root/image.iso,,hdc,cdrom',
    '/root/image.iso,,hdc,,cdrom',
    '/root/image.iso,raw,hdc,devtype=cdrom',
    'format=raw, vdev=hdc, access=ro, devtype=cdrom, target=/root/image.iso',
    'raw:/root/image.iso,hdc:cdrom,ro',
  ])('%s', (text) => {
    expect(parseDiskSpec(text)).toMatchObject(ISO);
  });

  it('takes the rest for the target where it is named', () => {
    expect(parseDiskSpec('vdev=xvda,target=/a, b=c,d ').target).toBe('/a, b=c,d ');
  });

  it('knows what Xen leaves to the host', () => {
    const spec = parseDiskSpec(
      'format=qcow2,vdev=xvdb,overlay=/tmp/o.qcow2,rate=10MB/s,iops=50,target=http://h/i.img',
    );
    expect(spec).toMatchObject({
      overlay: '/tmp/o.qcow2',
      target: 'http://h/i.img',
      limits: { bytes: 10 << 20, requests: 50 },
    });
    expect(parseDiskSpec('http://h/i.img,,xvda,r').target).toBe('http://h/i.img');
    expect(parseDiskSpec('memory:64M,,xvda').target).toBe('memory:64M');
  });

  it('says what it does not heed', () => {
    expect(parseDiskSpec('/a,,xvda,backendtype=qdisk').warnings).toEqual([
      expect.stringMatching(/backendtype/),
    ]);
    expect(parseDiskSpec('/a,,xvda,direct-io-safe,no-discard')).toMatchObject({
      discard: false,
      warnings: [],
    });
  });

  it.each([
    ['', 'vdev is missing'],
    ['/a', 'vdev is missing'],
    [',,xvda', 'target is missing'],
    ['/a,,nonsense', 'vdev nonsense'],
    ['/a,vhd,xvda', 'format vhd'],
    ['/a,,xvda,rx', 'access rx'],
    ['/a,,xvda,w,more', 'one part too many'],
    ['/a,,xvda,colour=blue', 'unknown key "colour"'],
    ['/a,,xvda,vdev=xvdb', 'vdev is given twice'],
    ['/a,,xvda,backend=other', 'only Domain 0'],
    ['/a,,xvda,script=block-nbd', 'no scripts'],
    ['/a,,xvda,devtype=floppy', 'devtype floppy'],
    ['/a,,xvda,discard,no-discard', 'exclude'],
    ['/a,,xvda,rate=fast', 'rate fast'],
    ['/a,,xvda,iops=0', 'iops 0'],
  ])('refuses %j', (text, said) => {
    expect(() => parseDiskSpec(text)).toThrow(DiskError);
    expect(() => parseDiskSpec(text)).toThrow(said);
    expect(() => parseDiskSpec(text)).toThrow(/^disk "/);
  });
});

describe('names of disks', () => {
  it.each([
    ['xvda', 51712],
    ['xvda1', 51713],
    ['xvdp15', 51967],
    ['xvdq', (1 << 28) | (16 << 8)],
    ['xvdaa', (1 << 28) | (26 << 8)],
    ['xvda16', (1 << 28) | 16],
    ['hda', 768],
    ['hdb', 832],
    ['hdc1', 5633],
    ['hdd', 5696],
    ['sda', 2048],
    ['sdb3', 2067],
  ])('%s is %d', (name, devid) => {
    expect(parseVdev(name)).toEqual({ name, devid });
    expect(vdevName(devid)).toBe(name);
    expect(parseVdev(`${devid}`)).toEqual({ name, devid });
  });

  it('knows other ways of writing them', () => {
    expect(parseVdev('d0p1')?.devid).toBe(51713);
    expect(parseVdev('d536p37')?.devid).toBe((1 << 28) | (536 << 8) | 37);
    expect(parseVdev('0xca00')?.name).toBe('xvda');
  });

  it.each([
    '',
    'xvd',
    'xvda256',
    'hde',
    'sdq',
    'sda16',
    'vda',
    'XVDA',
    '0',
    '-1',
    '99999999999',
    'xvdzzzzz',
    'd9999999',
  ])('not %s', (text) => {
    expect(parseVdev(text)).toBeNull();
  });
});

describe('sizes', () => {
  it.each([
    ['512', 512],
    ['64K', 65536],
    ['10MiB', 10 << 20],
    ['2g', 2 ** 31],
    ['1TB', 2 ** 40],
  ])('%s', (text, bytes) => {
    expect(parseBytes(text)).toBe(bytes);
  });
  it.each(['', '0', '-5', '1.5G', '10X', '999999999999T'])('not %j', (text) => {
    expect(parseBytes(text)).toBeNull();
  });
});
