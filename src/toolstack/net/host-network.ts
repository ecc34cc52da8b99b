/** The sockets of a Node process, for the NAT. */
import { execFile } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { getServers, lookup } from 'node:dns';
import { createConnection, createServer, isIPv6, type Server, type Socket } from 'node:net';
import { performance } from 'node:perf_hooks';
import type {
  HostListener,
  HostNetwork,
  HostTcp,
  HostTcpEvents,
  HostUdp,
  HostUdpEvents,
} from '../../dom0/net/nat/host.ts';
import type { Clock } from '../../dom0/net/nat/tcp/types.ts';

/** Until a connection that nobody answers counts as failed, milliseconds. */
const CONNECT_MS = 60_000;
const PING_S = 3;
/** Connections that wait to be taken, of a forwarded port. */
const BACKLOG = 128;

/** Time of a Node process. */
export const nodeClock: Clock = {
  now: () => performance.now(),
  after: (milliseconds, work) => {
    const timer = setTimeout(work, Math.min(milliseconds, 2 ** 31 - 1));
    // What is waited for here keeps no process alive by itself.
    timer.unref();
    return () => clearTimeout(timer);
  },
};

const codeOf = (error: Error) => (error as NodeJS.ErrnoException).code ?? error.message;

/** A socket that hears nothing any more may still fail; that is nobody's business then. */
const ignore = () => {};

function hostTcp(socket: Socket): HostTcp {
  return {
    write(bytes, done) {
      if (socket.destroyed || socket.writableEnded) done();
      else socket.write(bytes, () => done());
    },
    end: () => socket.end(),
    destroy: () => {
      socket.removeAllListeners();
      socket.on('error', ignore);
      socket.resetAndDestroy();
    },
    pause: () => socket.pause(),
    resume: () => socket.resume(),
  };
}

function attend(socket: Socket, events: HostTcpEvents): void {
  let ended = false;
  socket.on('data', (bytes: Uint8Array) => events.onData(bytes));
  socket.on('end', () => {
    ended = true;
    events.onEnd();
  });
  socket.on('error', (error) => events.onError(codeOf(error)));
  socket.on('close', (failed) => {
    if (!failed && !ended) events.onError('ECONNRESET');
  });
  socket.setNoDelay(true);
}

/** @param servers name servers, instead of those that the host is set up with */
export function nodeNetwork({ servers }: { servers?: readonly string[] } = {}): HostNetwork {
  return {
    connectTcp(address, port, events) {
      const socket = createConnection({ host: address, port, allowHalfOpen: true });
      socket.setTimeout(CONNECT_MS, () => socket.destroy(Object.assign(new Error(), { code: 'ETIMEDOUT' })));
      socket.once('connect', () => {
        socket.setTimeout(0);
        socket.removeAllListeners('timeout');
        events.onConnect();
      });
      attend(socket, events);
      return hostTcp(socket);
    },

    listenTcp(address, port, onConnection): Promise<HostListener> {
      const sockets = new Set<Socket>();
      const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
        sockets.add(socket);
        socket.once('close', () => sockets.delete(socket));
        socket.on('error', ignore);
        const peer = { address: socket.remoteAddress ?? '', port: socket.remotePort ?? 0 };
        const events = onConnection(hostTcp(socket), peer);
        if (events) attend(socket, events);
        else socket.destroy();
      });
      return new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen({ host: address, port, backlog: BACKLOG }, () => {
          server.removeListener('error', reject);
          server.on('error', ignore);
          const { port: bound } = server.address() as { port: number };
          resolve({ port: bound, close: () => server.close() });
        });
      });
    },

    openUdp(bind, events): HostUdp {
      return openUdp(bind, events);
    },

    nameServers: () => [...(servers ?? getServers())],

    lookup(name, family) {
      return new Promise((resolve, reject) => {
        lookup(name, { all: true, family }, (error, addresses) => {
          if (error) reject(error);
          else resolve(addresses.map(({ address }) => address));
        });
      });
    },

    ping(address) {
      return new Promise((resolve) => {
        const start = performance.now();
        const args = ['-n', '-q', '-c', '1', '-W', `${PING_S}`, '--', address];
        // The host's own program: Node has no socket for this that needs no rights.
        execFile('ping', args, { timeout: (PING_S + 1) * 1000 }, (error) =>
          resolve(error ? null : performance.now() - start),
        );
      });
    },
  };
}

function openUdp(bind: { address: string; port: number } | null, events: HostUdpEvents): HostUdp {
  let six: ReturnType<typeof open> | null = null;
  let closed = false;
  const open = (type: 'udp4' | 'udp6') => {
    const socket = createSocket({ type, reuseAddr: false });
    const waiting: (() => void)[] = [];
    let ready = false;
    socket.on('message', (bytes, { address, port }) => events.onMessage(bytes, address, port));
    socket.on('error', (error) => {
      if (closed) return;
      closed = true;
      socket.close();
      events.onError(codeOf(error));
    });
    socket.bind(bind ?? { port: 0 }, () => {
      ready = true;
      events.onReady?.(socket.address().port);
      for (const work of waiting.splice(0)) work();
    });
    return {
      socket,
      send(bytes: Uint8Array, address: string, port: number) {
        // What cannot be sent is lost, as datagrams are.
        const work = () => {
          if (!closed) socket.send(bytes, port, address, ignore);
        };
        if (ready) work();
        else if (waiting.length < 64) waiting.push(work);
      },
    };
  };
  const first = open(bind && isIPv6(bind.address) ? 'udp6' : 'udp4');
  return {
    send(bytes, address, port) {
      if (isIPv6(address) && bind === null) {
        six ??= open('udp6');
        six.send(bytes, address, port);
      } else first.send(bytes, address, port);
    },
    close() {
      if (closed) return;
      closed = true;
      first.socket.close();
      six?.socket.close();
    },
  };
}
