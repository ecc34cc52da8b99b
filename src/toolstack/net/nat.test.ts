/** The NAT against real sockets on this machine's loopback. */
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { parseIpv4 } from '../../dom0/net/addresses.ts';
import { get16, put16 } from '../../dom0/net/bytes.ts';
import { finish, sum } from '../../dom0/net/checksum.ts';
import { PROTOCOL } from '../../dom0/net/headers.ts';
import { nodeNetwork } from './host-network.ts';
import { DEFAULT_SUBNET } from './net-service.ts';
import { GATEWAY_MAC, Guest, GuestTcp } from './testing-guest.ts';

const ip = (text: string) => parseIpv4(text)!;
const GATEWAY = ip('10.0.2.1');
const HOST = ip('10.0.2.2');

const closing: (() => void)[] = [];
afterEach(() => {
  for (const close of closing.splice(0)) close();
});

function guest({ hostLoopback = true, servers }: { hostLoopback?: boolean; servers?: string[] } = {}): Guest {
  const options = { subnet: DEFAULT_SUBNET, mac: GATEWAY_MAC, mtu: 1500, hostLoopback };
  const made = new Guest(options, nodeNetwork(servers ? { servers } : {}));
  made.address = ip('10.0.2.20');
  closing.push(() => made.nat.close());
  return made;
}

/** A TCP server on the loopback. @returns its port */
async function server(onConnection: (socket: Socket) => void): Promise<number> {
  const listening: Server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {});
    closing.push(() => socket.destroy());
    onConnection(socket);
  });
  closing.push(() => listening.close());
  await new Promise<void>((resolve) => listening.listen(0, '127.0.0.1', resolve));
  return (listening.address() as AddressInfo).port;
}

async function udpServer(
  onMessage: (socket: UdpSocket, bytes: Buffer, port: number) => void,
): Promise<number> {
  const socket = createSocket('udp4');
  closing.push(() => socket.close());
  socket.on('message', (bytes, { port }) => onMessage(socket, bytes, port));
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve));
  return socket.address().port;
}

function noise(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = 1;
  for (let at = 0; at < length; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[at] = state >>> 24;
  }
  return bytes;
}

describe('TCP from a guest to the host', () => {
  it('carries megabytes both ways at once, and both ends close', async () => {
    const data = noise(12_000_000);
    const got: Buffer[] = [];
    let serverEnded = false;
    const port = await server((socket) => {
      socket.on('data', (bytes) => got.push(bytes));
      socket.on('end', () => {
        serverEnded = true;
      });
      socket.write(data);
      socket.end();
    });
    const made = guest();
    const tcp = made.connect(HOST, port);
    await tcp.until(() => tcp.established);
    tcp.write(data);
    await tcp.until(() => !tcp.writing);
    tcp.connection.end();
    await tcp.until(() => tcp.ended);
    await made.until(() => serverEnded);
    expect(Buffer.compare(tcp.bytes, data)).toBe(0);
    expect(Buffer.compare(Buffer.concat(got), data)).toBe(0);
    expect(made.largest).toBeGreaterThan(30_000);
  });

  it('goes on sending to a guest that has ended its own direction', async () => {
    const data = noise(5_000_000);
    const port = await server((socket) => {
      socket.on('end', () => socket.end(data));
      socket.resume();
    });
    const tcp = guest().connect(HOST, port);
    await tcp.until(() => tcp.established);
    tcp.connection.end();
    await tcp.until(() => tcp.ended);
    expect(Buffer.compare(tcp.bytes, data)).toBe(0);
  });

  it('does not read faster from the host than the guest takes', async () => {
    let sent = 0;
    const port = await server((socket) => {
      const more = () => {
        while (sent < 200e6) {
          sent += 65536;
          if (!socket.write(Buffer.alloc(65536))) {
            socket.once('drain', more);
            return;
          }
        }
      };
      more();
    });
    const tcp = guest().connect(HOST, port);
    tcp.lazy = true;
    await tcp.until(() => tcp.length >= (1 << 16) - 2000);
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(tcp.length).toBeLessThanOrEqual(1 << 16);
    // What the kernel's buffers hold between is some megabytes.
    expect(sent).toBeLessThan(40e6);
    tcp.lazy = false;
    tcp.connection.consumed(tcp.length);
    await tcp.until(() => tcp.length > 10e6);
  });

  it('says when nobody listens, and when the connection breaks', async () => {
    const port = await server((socket) => socket.on('data', () => socket.resetAndDestroy()));
    const made = guest();
    const nobody = made.connect(HOST, 1);
    await nobody.until(() => nobody.end !== null);
    expect(nobody.end).toBe('refused');
    const broken = made.connect(HOST, port);
    await broken.until(() => broken.established);
    broken.write(noise(10));
    await broken.until(() => broken.end !== null);
    expect(broken.end).toBe('reset');
    expect(made.nat.flows.tcp).toBe(0);
  });

  it.each([
    '127.0.0.1',
    '0.0.0.0',
    '169.254.169.254',
    '224.0.0.1',
    '255.255.255.254',
    '10.0.2.99',
    '10.0.2.1',
  ])('goes nowhere near %s', async (address) => {
    const port = await server(() => {
      throw new Error('somebody came');
    });
    const tcp = guest().connect(ip(address), port);
    await tcp.until(() => tcp.end !== null);
    expect(tcp.end).toBe('refused');
  });

  it('reaches the loopback only where that is allowed', async () => {
    const port = await server((socket) => socket.end('x'));
    const tcp = guest({ hostLoopback: false }).connect(HOST, port);
    await tcp.until(() => tcp.end !== null);
    expect(tcp.end).toBe('refused');
  });

  it('ends when the guest is gone', async () => {
    let closed = false;
    const port = await server((socket) =>
      socket.on('close', () => {
        closed = true;
      }),
    );
    const made = guest();
    const tcp = made.connect(HOST, port);
    await tcp.until(() => tcp.established);
    made.nat.drop(0x0016_3e00_0001);
    await made.until(() => closed);
    expect(made.nat.flows).toEqual({ tcp: 0, udp: 0 });
  });

  it('limits the connections of a guest', async () => {
    const port = await server(() => {});
    const made = guest();
    const all = Array.from({ length: 1100 }, (_, index) => made.connect(HOST, port, 1000 + index));
    await all[1000]!.until(() => all[1000]!.established);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(made.nat.flows.tcp).toBe(1024);
    for (const tcp of all) tcp?.connection?.abort();
  });
});

describe('a port forwarded to a guest', () => {
  const forward = { address: '127.0.0.1', port: 0, guestAddress: ip('10.0.2.20'), guestPort: 80 };

  it('carries TCP', async () => {
    const made = guest();
    const data = noise(3_000_000);
    made.onRequest = (port, accept) => {
      expect(port).toBe(80);
      const tcp = new GuestTcp();
      tcp.connection = accept(tcp);
      void tcp
        .until(() => tcp.ended)
        .then(() => {
          tcp.write(tcp.bytes);
          void tcp.until(() => !tcp.writing).then(() => tcp.connection.end());
        });
    };
    const { port } = await made.nat.forward({ ...forward, protocol: 'tcp' });
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    socket.end(data);
    const echo = await socket.toArray();
    expect(Buffer.compare(Buffer.concat(echo), data)).toBe(0);
  });

  it('takes more short connections than it remembers: those that only wait make room', async () => {
    const made = guest();
    made.onRequest = (_port, accept) => {
      const tcp = new GuestTcp();
      tcp.connection = accept(tcp);
      void tcp.until(() => tcp.ended).then(() => tcp.connection.end());
    };
    const { port } = await made.nat.forward({ ...forward, protocol: 'tcp' });
    // The host ends first: so it is our half that waits.
    const call = async () => {
      const socket = connect({ port, host: '127.0.0.1' });
      socket.end('x');
      await socket.toArray();
    };
    for (let i = 0; i < 60; i++) await Promise.all(Array.from({ length: 20 }, call));
    expect(made.nat.flows.tcp).toBeLessThanOrEqual(1024);
    expect(made.nat.flows.tcp).toBeGreaterThan(1000);
  });

  it('hangs up where nobody in the guest listens', async () => {
    const made = guest();
    made.onRequest = null;
    const { port } = await made.nat.forward({ ...forward, protocol: 'tcp' });
    made.stack.abort();
    const refusing = new Promise((resolve) => {
      const socket = connect({ port, host: '127.0.0.1' });
      socket.on('error', () => {});
      socket.on('close', resolve);
      // A request that nobody takes: as if it were refused.
      setTimeout(() => made.nat.close(), 100);
    });
    await refusing;
  });

  it('is told when it is in use', async () => {
    const made = guest();
    const { port } = await made.nat.forward({ ...forward, protocol: 'tcp' });
    await expect(made.nat.forward({ ...forward, port, protocol: 'tcp' })).rejects.toThrow('EADDRINUSE');
  });

  it('carries UDP, each client as somebody of its own', async () => {
    const made = guest();
    const { port } = await made.nat.forward({ ...forward, protocol: 'udp' });
    await expect(made.nat.forward({ ...forward, port, protocol: 'udp' })).rejects.toThrow('EADDRINUSE');
    const clients = [createSocket('udp4'), createSocket('udp4')];
    const answers: string[] = [];
    for (const [index, client] of clients.entries()) {
      closing.push(() => client.close());
      client.on('message', (bytes) => answers.push(`${index} ${bytes}`));
      client.send(`question ${index}`, port, '127.0.0.1');
    }
    await made.until(() => made.datagrams.length === 2);
    const [a, b] = made.datagrams as [(typeof made.datagrams)[0], (typeof made.datagrams)[0]];
    expect([a.port, b.port]).toEqual([80, 80]);
    expect(a.sourcePort).not.toBe(b.sourcePort);
    for (const each of [a, b])
      made.sendUdp(each.source, each.sourcePort, Buffer.from(`to ${Buffer.from(each.bytes)}`), 80);
    await made.until(() => answers.length === 2);
    expect(answers.sort()).toEqual(['0 to question 0', '1 to question 1']);
  });
});

describe('UDP from a guest', () => {
  it('comes back to the port that it came from, in fragments if it is long', async () => {
    const port = await udpServer((socket, bytes, from) => socket.send(bytes, from, '127.0.0.1'));
    const made = guest();
    made.askArp(GATEWAY);
    made.sendUdp(HOST, port, Buffer.from('short'), 5000);
    await made.until(() => made.datagrams.length === 1);
    expect(made.datagrams[0]).toMatchObject({ source: HOST, sourcePort: port, port: 5000 });
    const long = noise(4000);
    made.sendUdp(HOST, port, long, 5000);
    await made.until(() => made.packets.filter(({ offset, more }) => more || offset > 0).length === 3);
    const parts = made.packets.filter(({ offset, more }) => more || offset > 0);
    expect(parts.map(({ offset, more }) => [offset, more])).toEqual([
      [0, true],
      [1480, true],
      [2960, false],
    ]);
    const whole = Buffer.concat(parts.map(({ payload }) => payload));
    expect(Buffer.compare(whole.subarray(8), long)).toBe(0);
  });

  it('is refused where it may not go', async () => {
    const made = guest({ hostLoopback: false });
    made.askArp(GATEWAY);
    made.sendUdp(ip('169.254.169.254'), 53, Buffer.from('x'), 5000);
    await made.until(() => made.packets.length === 1);
    expect(made.packets[0]!.protocol).toBe(PROTOCOL.icmp);
    expect([...made.packets[0]!.payload.subarray(0, 2)]).toEqual([3, 13]);
    expect(made.nat.flows.udp).toBe(0);
  });

  it('keeps no more sockets than its share', async () => {
    const port = await udpServer(() => {});
    const made = guest();
    for (let count = 0; count < 400; count++) made.sendUdp(HOST, port, Buffer.from('x'), 2000 + count);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(made.nat.flows.udp).toBe(256);
  });
});

describe('the network itself', () => {
  it('answers ARP for its own addresses, and ping', async () => {
    const made = guest();
    made.askArp(GATEWAY);
    await made.until(() => made.gatewayMac === GATEWAY_MAC);
    const echo = Buffer.from([8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    put16(echo, 2, finish(sum(echo, 0, echo.length)));
    made.sendIp(GATEWAY, PROTOCOL.icmp, echo);
    await made.until(() => made.packets.length === 1);
    const { payload, source } = made.packets[0]!;
    expect(source).toBe(GATEWAY);
    expect([...payload.subarray(4)]).toEqual([...echo.subarray(4)]);
    expect(payload[0]).toBe(0);
    expect(finish(sum(payload, 0, payload.length))).toBe(0);
  });

  it('gives addresses by DHCP, and keeps promises', async () => {
    const made = guest();
    made.address = 0;
    const ask = (type: number, wanted = 0) => {
      const bytes = Buffer.alloc(260);
      bytes.set([1, 1, 6, 0], 0);
      bytes.writeUInt32BE(0x1234, 4);
      bytes.set([0x00, 0x16, 0x3e, 0x00, 0x00, 0x01], 28);
      bytes.writeUInt32BE(0x63825363, 236);
      bytes.set([53, 1, type, 50, 4, wanted >>> 24, wanted >>> 16, wanted >>> 8, wanted, 255], 240);
      made.sendUdp(0xffff_ffff, 67, bytes, 68, 0);
    };
    const answer = async (count: number) => {
      await made.until(() => made.datagrams.length === count);
      const { bytes, port } = made.datagrams[count - 1]!;
      expect(port).toBe(68);
      const message = Buffer.from(bytes);
      return { type: message[242], address: message.readUInt32BE(16) };
    };
    ask(1);
    expect(await answer(1)).toEqual({ type: 2, address: ip('10.0.2.16') });
    ask(3, ip('10.0.2.16'));
    expect(await answer(2)).toEqual({ type: 5, address: ip('10.0.2.16') });
    // Somebody else's.
    made.nat.dhcp.reserve(0x0016_3e00_0002, ip('10.0.2.50'));
    ask(3, ip('10.0.2.50'));
    expect(await answer(3)).toEqual({ type: 6, address: 0 });
    made.nat.dhcp.reserve(0x0016_3e00_0001, ip('10.0.2.40'));
    ask(1);
    expect(await answer(4)).toEqual({ type: 2, address: ip('10.0.2.40') });
    expect(made.nat.dhcp.addressOf(0x0016_3e00_0001)).toBe(ip('10.0.2.40'));
  });

  it('takes no packets from a guest under an address that was given to another', async () => {
    const made = guest();
    made.nat.dhcp.reserve(0x0016_3e00_0002, ip('10.0.2.50'));
    made.address = ip('10.0.2.50');
    made.askArp(GATEWAY);
    const tcp = made.connect(HOST, 1);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(tcp.end).toBeNull();
    expect(made.gatewayMac).toBe(0);
    tcp.connection.abort();
  });

  it('passes questions on to a name server, and looks up by itself where none answers', async () => {
    const query = Buffer.from('123401000001000000000000096c6f63616c686f73740000010001', 'hex');
    const port = await udpServer((socket, bytes, from) => {
      const answer = Buffer.concat([bytes, Buffer.from('from the server')]);
      answer[2] = 0x81;
      socket.send(answer, from, '127.0.0.1');
    });
    const made = guest({ servers: [`127.0.0.1:${port}`] });
    made.askArp(GATEWAY);
    made.sendUdp(GATEWAY, 53, query, 6000);
    await made.until(() => made.datagrams.length === 1);
    expect(Buffer.from(made.datagrams[0]!.bytes).subarray(query.length).toString()).toBe('from the server');

    const alone = guest({ servers: [] });
    alone.askArp(GATEWAY);
    alone.sendUdp(GATEWAY, 53, query, 6000);
    await alone.until(() => alone.datagrams.length === 1);
    const { bytes } = alone.datagrams[0]!;
    expect(get16(bytes, 0)).toBe(0x1234);
    expect(get16(bytes, 6)).toBe(1);
    expect([...bytes.subarray(-4)]).toEqual([127, 0, 0, 1]);
  });

  it('survives any frame whatever', async () => {
    const made = guest();
    let state = 7;
    const random = () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return state >>> 8;
    };
    for (let count = 0; count < 20_000; count++) {
      const frame = Buffer.alloc(random() % 120, random());
      for (let at = 0; at < frame.length; at++) if (random() % 3 === 0) frame[at] = random();
      if (frame.length > 40 && random() % 8 !== 0) {
        frame.writeUIntBE(random() % 2 ? GATEWAY_MAC : 0xffff_ffff_ffff, 0, 6);
        frame.writeUInt16BE(random() % 4 ? 0x0800 : 0x0806, 12);
        frame[14] = 0x45 + (random() % 3);
        frame.writeUInt16BE(frame.length - 14 - (random() % 4), 16);
        frame.writeUInt32BE(ip('10.0.2.20'), 26);
        frame.writeUInt32BE(random() % 2 ? GATEWAY : HOST, 30);
        frame[23] = [1, 6, 17][random() % 3]!;
        frame.writeUInt16BE(0, 24);
        const header = (frame[14]! & 15) * 4;
        if (14 + header <= frame.length) frame.writeUInt16BE(finish(sum(frame, 14, 14 + header)), 24);
      }
      made.nat.receive(frame, { flags: random() % 4, gso: 0, gsoSize: 0 });
      made.nat.settle();
    }
    expect(made.nat.flows.tcp).toBeLessThanOrEqual(1024);
  });
});
