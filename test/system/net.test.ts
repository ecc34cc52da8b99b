/**
 * Networks of real guests: Debian's kernel with its own xen-netfront. One domain speaks to the host and the host to
 * it, through the NAT; two domains speak to each other over a bridge.
 */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadGuest } from '../../src/toolstack/guest.ts';
import { Machine } from '../../src/toolstack/machine.ts';
import { parseVifSpec } from '../../src/toolstack/net/vif-spec.ts';
import { nodePcpus } from '../../src/toolstack/node/pcpu.ts';
import { parseOptions } from '../../src/toolstack/options.ts';
import { RunningDomain } from '../../src/toolstack/running-domain.ts';
import { Session } from './cli.ts';

const DATA = Buffer.alloc(3_000_000, 'all sorts of bytes, again and again; ');
const DIGEST = createHash('md5').update(DATA).digest('hex');

describe('a domain with an interface', () => {
  let server: Server;
  let uploaded = '';
  let session: Session;
  let forwarded = 0;

  beforeAll(async () => {
    server = createServer(async (request: IncomingMessage, response) => {
      if (request.method === 'POST') {
        const hash = createHash('md5');
        for await (const chunk of request) hash.update(chunk as Buffer);
        uploaded = hash.digest('hex');
        response.end('thanks\n');
      } else response.end(request.url === '/data' ? DATA : 'hello from the host\n');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const probe = createServer();
    await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve));
    forwarded = (probe.address() as AddressInfo).port;
    probe.close();
    session = new Session([
      ...['-q', '--net', 'mac=00:16:3e:12:34:56', '--host-loopback'],
      ...['--forward', `${forwarded}:80`],
    ]);
    session.type(
      [
        `host=http://10.0.2.2:${port}`,
        'ip -o addr show eth0; cat /etc/resolv.conf; ip route',
        'ping -c 2 -W 20 10.0.2.1 | grep received',
        'wget -q -O - $host/',
        'wget -q -O /tmp/data $host/data; md5sum < /tmp/data',
        'wget -q -O - --post-file=/tmp/data $host/upload',
        'mkdir -p /www; cp /tmp/data /www; echo served in the guest > /www/index.html',
        'httpd -p 80 -h /www',
        'echo ready for guests',
        '',
      ].join('\n'),
    );
    await session.see(/ready for guests/);
  });

  afterAll(async () => {
    session.child.kill();
    server.close();
  });

  it('gets its address, router and name server by DHCP', () => {
    expect(session.stdout).toMatch(/inet 10\.0\.2\.16\/24/);
    expect(session.stdout).toMatch(/^nameserver 10\.0\.2\.1$/m);
    expect(session.stdout).toMatch(/default via 10\.0\.2\.1/);
  });

  it('pings the gateway', () => {
    expect(session.stdout).toMatch(/2 packets transmitted, 2 packets received/);
  });

  it('fetches pages from the host, and sends to it', () => {
    expect(session.stdout).toMatch(/^hello from the host$/m);
    expect(session.stdout).toContain(DIGEST);
    expect(session.stdout).toMatch(/^thanks$/m);
    expect(uploaded).toBe(DIGEST);
  });

  it('serves pages to the host', async () => {
    const page = await fetch(`http://127.0.0.1:${forwarded}/`);
    expect(await page.text()).toBe('served in the guest\n');
    const [one, two] = await Promise.all(
      [1, 2].map(async () =>
        Buffer.from(await (await fetch(`http://127.0.0.1:${forwarded}/data`)).arrayBuffer()),
      ),
    );
    for (const got of [one!, two!]) expect(createHash('md5').update(got).digest('hex')).toBe(DIGEST);
  });

  it('powers off with connections open', async () => {
    session.type('nc 10.0.2.1 53 < /dev/console & poweroff\n');
    session.end();
    expect((await session.ended).status).toBe(0);
  });
});

it('an interface that cannot be had is told in a line', async () => {
  const refused = new Session(['-q', '--net', 'ip=192.168.1.1']);
  refused.end();
  const { status, stderr } = await refused.ended;
  expect(stderr).toBe('xenolith: ip=192.168.1.1: not an address for a domain on xenbr0 (10.0.2.0/24)\n');
  expect(status).toBe(1);
});

describe('two domains on a bridge', () => {
  let machine: Machine;
  const outputs = ['', ''];
  const domains: RunningDomain[] = [];

  beforeAll(async () => {
    const options = parseOptions(['--memory', '192']);
    if (options.command !== 'boot') throw new Error();
    const guest = await loadGuest(options, { scripted: true, size: null }, {});
    // This thread runs the sources, the processor's threads what was built of them.
    const built = (name: string) => new URL(`../../dist/toolstack/node/${name}`, import.meta.url);
    const pcpus = nodePcpus({ script: built('pcpu-worker.js'), compilerScript: built('compiler-worker.js') });
    machine = await Machine.start(2 * options.memory, pcpus);
    for (const index of [0, 1]) {
      const decoder = new TextDecoder();
      const vif = parseVifSpec(`bridge=lan,mac=00:16:3e:00:00:0${index + 1},ip=192.168.7.${index + 1}`);
      domains.push(
        await RunningDomain.start(
          machine,
          { ...guest, name: `guest${index}` },
          {
            onOutput: (bytes) => {
              outputs[index] += decoder.decode(bytes, { stream: true });
            },
            onLog: () => {},
            onRoom: () => {},
          },
          { vifs: [vif] },
        ),
      );
    }
    await Promise.all([see(0, /xenolith;ready/), see(1, /xenolith;ready/)]);
    for (const index of [0, 1])
      type(index, `killall udhcpc; ip addr add 192.168.7.${index + 1}/24 dev eth0; echo addressed\n`);
    await Promise.all([see(0, /addressed/), see(1, /addressed/)]);
  });

  afterAll(async () => {
    await machine?.powerOff();
  });

  const type = (index: number, text: string) => domains[index]!.type(new TextEncoder().encode(text));

  async function see(index: number, pattern: RegExp): Promise<void> {
    const end = Date.now() + 180_000;
    while (!pattern.test(outputs[index]!)) {
      if (Date.now() > end) throw new Error(`not seen: ${pattern}\n${outputs[index]!.slice(-2000)}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  it('exchange data, over TCP, both ways', async () => {
    type(0, 'dd if=/dev/urandom of=/tmp/a bs=64k count=100 2>/dev/null; md5sum < /tmp/a\n');
    type(0, 'nc -l -p 5000 -e sh -c "cat /tmp/a" & echo listening\n');
    await see(0, /listening/);
    const [, sum] = /([0-9a-f]{32})/.exec(outputs[0]!)!;
    type(
      1,
      'ping -c 1 -W 20 192.168.7.1 | grep received; nc 192.168.7.1 5000 > /tmp/b; md5sum < /tmp/b; echo fetched\n',
    );
    await see(1, /fetched/);
    expect(outputs[1]).toContain('1 packets received');
    expect(outputs[1]).toContain(sum!);
    type(1, 'nc -l -p 6000 -e sh -c "cat > /tmp/c" & sleep 1; echo listening\n');
    await see(1, /listening/);
    type(0, 'nc 192.168.7.2 6000 < /tmp/a; echo sent\n');
    await see(0, /sent/);
    type(1, 'wait; md5sum < /tmp/c; echo compared\n');
    await see(1, /compared/);
    expect(outputs[1]!.split(sum!)).toHaveLength(3);
    const [a, b] = await Promise.all(domains.map(({ id }) => machine.networks.list(id)[0]!.statistics()));
    expect(a!.txBytes).toBeGreaterThan(2 * 6_553_600);
    expect(b!.rxBytes).toBeGreaterThan(2 * 6_553_600);
    // Large segments pass as they are.
    expect(a!.txBytes / a!.txPackets).toBeGreaterThan(4000);
  });

  it('do not get away with the address of the other', async () => {
    type(
      0,
      'ip addr add 192.168.7.2/32 dev lo; ping -c 1 -W 2 -I 192.168.7.2 192.168.7.99 | tail -n 2; echo tried\n',
    );
    await see(0, /tried/);
    const before = (await machine.networks.list(domains[0]!.id)[0]!.statistics())!.txDropped;
    type(0, 'ip link set eth0 down; ip link set eth0 address 00:16:3e:00:00:02; ip link set eth0 up\n');
    type(0, 'ping -c 2 -W 2 192.168.7.2; echo spoofed\n');
    await see(0, /spoofed/);
    const { txDropped } = (await machine.networks.list(domains[0]!.id)[0]!.statistics())!;
    expect(txDropped).toBeGreaterThan(before);
  });

  it('lose their interface when the toolstack takes it', async () => {
    expect(await machine.networks.detach(domains[1]!.id, 0)).toBe(true);
    // Its driver hears of it by the store, a moment later.
    type(1, 'for n in $(seq 100); do [ -e /sys/class/net/eth0 ] || echo gone; sleep 0.1; done\n');
    await see(1, /gone/);
  });
});
