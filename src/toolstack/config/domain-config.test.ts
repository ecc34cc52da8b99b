import { Value } from '@sinclair/typebox/value';
import { describe, expect, it } from 'vitest';
import { DomainConfig } from '../api/model.ts';
import { parseShareSpec } from '../devices/share-spec.ts';
import { readDomainConfig } from './domain-config.ts';

const BASE = 'name="g"\nkernel="/boot/vmlinuz"\n';

function read(text: string, extra = '') {
  const sources = [
    { text, name: 'g.cfg' },
    { text: extra, name: '<command line>' },
  ];
  return readDomainConfig(sources, '/here');
}

describe("a domain's configuration", () => {
  it('has defaults', () => {
    const { config, warnings } = read(BASE);
    expect(warnings).toEqual([]);
    expect(config).toEqual({
      name: 'g',
      uuid: null,
      kernel: '/boot/vmlinuz',
      ramdisk: null,
      cmdline: '',
      memory: 256 << 10,
      maxMemory: 256 << 10,
      vcpus: 1,
      maxVcpus: 1,
      cpus: null,
      weight: 256,
      onPoweroff: 'destroy',
      onReboot: 'restart',
      onCrash: 'destroy',
      onWatchdog: 'destroy',
      disks: [],
      vifs: [],
      forwards: [],
      p9: [],
    });
    expect(Value.Check(DomainConfig, config)).toBe(true);
  });

  it('is what it says', () => {
    const { config, warnings } = read(`
name = 'web-1'; type = "pv"
uuid = "71CD8584e6c311f1a3b1f5d17af398c1"
kernel = "vmlinuz"
ramdisk = 'xenolith:shell'
root = "/dev/xvda1 ro"
extra = "quiet"
memory = 0x80
maxmem = "256"
vcpus = 2
maxvcpus = 4
cpus = ["0", "0-1,^0", "all"]
cpu_weight = 512
on_poweroff = 'preserve'
on_crash = 'coredump-destroy'
disk = [ 'phy:/dev/a,xvda,w', 'b.img,qcow2,xvdb,r,backendtype=phy' ]
vif = [ 'mac=00:16:3e:00:00:01', '' ]
xenolith_forward = '8080:80'
seclabel = "system_u"
`);
    expect(config).toMatchObject({
      name: 'web-1',
      uuid: '71cd8584-e6c3-11f1-a3b1-f5d17af398c1',
      kernel: '/here/vmlinuz',
      ramdisk: 'xenolith:shell',
      cmdline: 'root=/dev/xvda1 ro quiet',
      memory: 128 << 10,
      maxMemory: 256 << 10,
      vcpus: 2,
      maxVcpus: 4,
      cpus: ['0', '0-1,^0', 'all'],
      weight: 512,
      onPoweroff: 'preserve',
      onCrash: 'coredump-destroy',
      disks: [
        'format=raw,vdev=xvda,access=rw,target=/dev/a',
        'format=qcow2,vdev=xvdb,access=ro,target=/here/b.img',
      ],
      vifs: ['mac=00:16:3e:00:00:01', ''],
      forwards: ['8080:80'],
    });
    expect(warnings).toEqual([
      'g.cfg:16: disk: backendtype means nothing here',
      'g.cfg:19: seclabel: has no effect here',
    ]);
    expect(Value.Check(DomainConfig, config)).toBe(true);
  });

  it('has shared folders, wherever it is read', () => {
    const { config, warnings } = read(
      `name='g'; kernel='k'; p9=['tag=src,path=work,security_model=none,type=xen_9pfsd', 'tag=b,path=/b,ro,max-files=9']`,
    );
    expect(config.p9.map((text) => parseShareSpec(text))).toEqual([
      { tag: 'src', path: '/here/work', readonly: false, warnings: [] },
      { tag: 'b', path: '/b', readonly: true, warnings: [] },
    ]);
    expect(warnings).toEqual([expect.stringMatching(/p9: max-files has no effect here$/)]);
    expect(() => read(`name='g'; kernel='k'; p9=['path=/b']`)).toThrow(/p9: tag is missing/);
  });

  it('is changed from the command line', () => {
    expect(read(BASE, 'name="a"\nmemory=64').config).toMatchObject({ name: 'a', memory: 64 << 10 });
  });

  it('can be GRUB', () => {
    expect(read('name="g"; firmware="pvgrub64"').config.kernel).toBe('xenolith:grub');
  });

  it('warns of what it does not know', () => {
    expect(read(`${BASE}memori=1`).warnings).toEqual(['g.cfg:3: memori: unknown key, ignored']);
    expect(read(`${BASE}cmdline="a"\nextra="b"`).warnings).toEqual([
      'g.cfg:4: extra: ignored, because there is a cmdline',
    ]);
    expect(read(`${BASE}pci=[]`).warnings).toEqual(['g.cfg:3: pci: has no effect here']);
  });

  it.each([
    ['', 'g.cfg:1: name: is missing'],
    ['name="g"', 'g.cfg:1: kernel: is missing'],
    ['name=""\nkernel="k"', 'g.cfg:1: name: "" cannot be'],
    ['kernel="k"\nname="12"', 'g.cfg:2: name: "12" cannot be'],
    ['kernel="k"\nname="a/b"', 'g.cfg:2: name: "a/b" cannot be'],
    ['name=["g"]', 'g.cfg:1: name: must be a string, not a list'],
    [`${BASE}memory="much"`, 'g.cfg:3: memory: must be a number'],
    [`${BASE}memory=[1]`, 'g.cfg:3: memory: must be a number'],
    [`${BASE}memory=0`, 'g.cfg:3: memory: 0 is out of range'],
    [`${BASE}\nmaxmem=16\nmemory=32`, 'g.cfg:4: maxmem: is less than memory (32)'],
    [`${BASE}vcpus=0`, 'g.cfg:3: vcpus: 0 is out of range'],
    [`${BASE}vcpus=2;maxvcpus=1`, 'g.cfg:3: maxvcpus: is less than vcpus'],
    [`${BASE}cpus="some"`, 'g.cfg:3: cpus: "some" is not a list of CPUs'],
    [`${BASE}cpus=[["0"]]`, 'g.cfg:3: cpus: is a list in a list'],
    [`${BASE}uuid="1-2"`, 'g.cfg:3: uuid: "1-2" is not a UUID'],
    [`${BASE}type="hvm"`, 'g.cfg:3: type: "hvm": only "pv"'],
    [`${BASE}builder="hvm"`, 'g.cfg:3: builder: "hvm"'],
    [`${BASE}firmware="uefi"`, 'g.cfg:3: firmware: "uefi"'],
    [`${BASE}on_reboot="explode"`, 'g.cfg:3: on_reboot: "explode": choose one of destroy, restart'],
    [`${BASE}pci=["01:00.0"]`, 'g.cfg:3: pci: there is no hardware'],
    [`${BASE}bootloader="pygrub"`, 'g.cfg:3: bootloader: there are no boot loaders'],
    [`${BASE}disk=[\n"x.img"]`, 'g.cfg:4: disk: vdev is missing'],
    [`${BASE}vif=["mac=no"]`, 'g.cfg:3: vif: '],
    [`${BASE}xenolith_forward="x"`, 'g.cfg:3: xenolith_forward: x: not of the form'],
    [`${BASE}disk=[["a"]]`, 'g.cfg:3: disk: must be a list of strings'],
    ['name="g"\nkernel="xenolith:hurd"', 'g.cfg:2: kernel: "xenolith:hurd": choose one of xenolith:debian'],
    [`${BASE}ramdisk="xenolith:x"`, 'g.cfg:3: ramdisk: "xenolith:x": the only one'],
    [`${BASE}cpu_weight=65536`, 'g.cfg:3: cpu_weight: 65536 is out of range'],
  ])('is refused: %j', (text, message) => {
    expect(() => read(text)).toThrow(message);
  });

  it('names the command line where that is wrong', () => {
    expect(() => read(BASE, '\nmemory=-1')).toThrow('<command line>:2: memory: expected a value');
  });
});
