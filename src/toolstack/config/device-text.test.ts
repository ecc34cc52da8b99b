import { describe, expect, it } from 'vitest';
import { parseDiskSpec } from '../devices/disk-spec.ts';
import { parseVifSpec } from '../net/vif-spec.ts';
import { diskText, vifText, withAbsoluteFiles } from './device-text.ts';

describe('a disk as text', () => {
  it.each([
    'a.img,raw,xvda,rw',
    'phy:/dev/vg/guest,xvdb,w',
    '/x,y.img,,xvda'.replace('x,y', 'x'),
    'vdev=xvdc,format=qcow2,access=ro,target=/images/a,b.qcow2',
    'format=raw,vdev=hdc,devtype=cdrom,target=/root/image.iso',
    'vdev=xvda,overlay=memory,rate=1000000,iops=100,target=http://localhost/a.img',
    'vdev=xvda,overlay=b.img,no-discard,target=memory:64M',
  ])('means the same: %s', (text) => {
    const spec = withAbsoluteFiles(parseDiskSpec(text), '/here');
    const { warnings: _, ...again } = parseDiskSpec(diskText(spec));
    const { warnings: __, ...first } = spec;
    expect(again).toEqual(first);
  });

  it('has names of files that mean the same everywhere', () => {
    const at = (text: string) => withAbsoluteFiles(parseDiskSpec(text), '/here');
    expect(at('a.img,raw,xvda,rw').target).toBe('/here/a.img');
    expect(at('/a.img,raw,xvda,rw').target).toBe('/a.img');
    expect(at('vdev=xvda,overlay=o,target=http://h/a').target).toBe('http://h/a');
    expect(at('vdev=xvda,overlay=o,target=http://h/a').overlay).toBe('/here/o');
    expect(at('vdev=xvda,overlay=memory,target=memory:1M')).toMatchObject({
      target: 'memory:1M',
      overlay: 'memory',
    });
  });
});

describe('a network interface as text', () => {
  it('keeps the address that it has, or gets one', () => {
    expect(vifText('', 'm')).toBe('mac=m');
    expect(vifText('bridge=b', 'm')).toBe('mac=m,bridge=b');
    expect(vifText('bridge=b, mac=00:16:3e:00:00:01', 'm')).toBe('bridge=b, mac=00:16:3e:00:00:01');
    expect(parseVifSpec(vifText('bridge=b', '00:16:3e:00:00:02')).mac).toBe('00:16:3e:00:00:02');
  });
});
