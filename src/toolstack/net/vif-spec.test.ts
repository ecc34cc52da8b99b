import { describe, expect, it } from 'vitest';
import { parseVifSpec, randomMac, VifSpecError } from './vif-spec.ts';

const DEFAULTS = {
  mac: null,
  bridge: 'xenbr0',
  tap: null,
  ip: [],
  rate: null,
  mtu: 1500,
  vifname: null,
  devid: null,
  warnings: [],
};

describe('vif=', () => {
  it.each([
    ['', {}],
    ['mac=00:16:3E:01:02:03', { mac: '00:16:3e:01:02:03' }],
    ['mac=0:16:3e:1:2:3, bridge=br-lan', { mac: '00:16:3e:01:02:03', bridge: 'br-lan' }],
    ['ip=10.0.2.5', { ip: ['10.0.2.5'] }],
    ['ip=10.0.2.5 10.0.2.6,bridge=b', { ip: ['10.0.2.5', '10.0.2.6'], bridge: 'b' }],
    ['rate=10Mb/s', { rate: { bytes: 62_500, interval: 50_000 } }],
    ['rate=250KB/s', { rate: { bytes: 12_500, interval: 50_000 } }],
    ['rate=1MB/s@20ms', { rate: { bytes: 20_000, interval: 20_000 } }],
    ['rate=1GB/s@2s', { rate: { bytes: 2_000_000_000, interval: 2_000_000 } }],
    ['rate=800b/s@1s', { rate: { bytes: 100, interval: 1_000_000 } }],
    ['mtu=9000,vifname=vnet0,devid=3', { mtu: 9000, vifname: 'vnet0', devid: 3 }],
    ['type=vif,model=e1000', {}],
    ['tap=xtap0', { tap: 'xtap0', bridge: 'xtap0' }],
    ['tap=xtap0,bridge=lan', { tap: 'xtap0', bridge: 'lan' }],
  ])('%s', (text, expected) => {
    expect(parseVifSpec(text)).toEqual({ ...DEFAULTS, ...expected });
  });

  it('warns of what means nothing here', () => {
    const { warnings } = parseVifSpec('script=vif-route,backend=dom5,type=ioemu,ip=fe80::1');
    expect(warnings).toEqual([
      'type=ioemu: the interface is a paravirtual one',
      'ip=fe80::1: only IPv4 addresses are enforced',
      'script= has no meaning here',
      'backend= has no meaning here',
    ]);
  });

  it.each([
    ['mac', "'mac' is not of the form key=value"],
    ['=x', "'=x' is not of the form key=value"],
    ['mac=1,mac=2', 'mac= is given twice'],
    ['mac=00:16:3e:01:02', 'mac=00:16:3e:01:02: not of the form aa:bb:cc:dd:ee:ff'],
    ['mac=01:00:5e:00:00:01', 'mac=01:00:5e:00:00:01: the address of a group, not of an interface'],
    ['mac=00:00:00:00:00:00', 'mac=00:00:00:00:00:00: not the address of an interface'],
    ['bridge=a name', 'bridge=a name: not the name of an interface (1 to 15 characters)'],
    ['tap=a,b', "'b' is not of the form key=value"],
    ['tap=a/b', 'tap=a/b: not the name of an interface (1 to 15 characters)'],
    ['bridge=', 'bridge=: not the name of an interface (1 to 15 characters)'],
    ['bridge=abcdefghijklmnop', 'bridge=abcdefghijklmnop: not the name of an interface (1 to 15 characters)'],
    ['ip=10.0.2.256', 'ip=10.0.2.256: not an IPv4 address'],
    ['rate=fast', 'rate=fast: not a rate (examples: 10Mb/s, 250KB/s, 1MB/s@20ms)'],
    ['rate=1b/s@1us', 'rate=1b/s@1us: that is 0 bytes every 1 us, which cannot be kept'],
    ['rate=9GB/s@9s', 'rate=9GB/s@9s: that is 81000000000 bytes every 9000000 us, which cannot be kept'],
    ['mtu=20', 'mtu=20: must be a number from 68 to 65521'],
    ['devid=x', 'devid=x: must be a number from 0 to 65535'],
    ['colour=red', 'unknown key colour='],
    ['type=tap', 'type=tap: must be vif or ioemu'],
  ])('refuses %s', (text, message) => {
    expect(() => parseVifSpec(text)).toThrow(new VifSpecError(message));
  });

  it('makes addresses in the range of Xen, of one interface each', () => {
    const mac = randomMac((bytes) => bytes.fill(0xff));
    expect(mac).toBe('00:16:3e:7f:ff:ff');
    expect(parseVifSpec(`mac=${mac}`).mac).toBe(mac);
  });
});
