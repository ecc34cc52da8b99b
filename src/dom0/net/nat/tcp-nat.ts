/**
 * TCP between guests and sockets of the host: a connection of ours to the guest, one of the host's to the other side,
 * and what comes out of one goes into the other. Neither is read faster than the other can be written.
 */
import { formatIpv4, parseIpv4 } from '../addresses.ts';
import { copied } from '../bytes.ts';
import type { HostListener, HostNetwork, HostTcp, HostTcpEvents } from './host.ts';
import { mayForward } from './policy.ts';
import type { TcpConnection } from './tcp/connection.ts';
import type { TcpRequest, TcpStack } from './tcp/stack.ts';
import type { TcpEnd, TcpHandler } from './tcp/types.ts';

/** Ports of ours that stand for the host's own programs. */
const FIRST_PORT = 32_768;
const PORTS = 28_000;

/** The two halves of a connection. */
class Pair {
  private connection: TcpConnection | null = null;
  private socket: HostTcp | null = null;
  /** What came from the host and the connection had no room for. */
  private rest: Uint8Array | null = null;
  private hostEnded = false;
  private over = false;
  private readonly opened: () => TcpConnection | null;
  private readonly refused: (code: string) => void;

  /**
   * @param opened the host's half is connected: makes the other one, if it is not there yet
   * @param refused the host's half could not be connected
   */
  constructor(opened: () => TcpConnection | null, refused: (code: string) => void) {
    this.opened = opened;
    this.refused = refused;
  }

  /** The half that there is already. */
  start(socket: HostTcp, connection: TcpConnection | null): void {
    this.socket = socket;
    this.connection = connection;
    // The guest has to answer first.
    if (connection) socket.pause();
  }

  readonly fromHost: HostTcpEvents = {
    onConnect: () => {
      if (this.over) return;
      this.socket?.pause();
      this.connection = this.opened();
      if (!this.connection) this.finish();
    },
    onData: (bytes) => {
      if (this.over || !this.connection) return;
      const taken = this.connection.write(bytes);
      if (taken === bytes.length) return;
      this.rest = bytes.subarray(taken);
      this.socket?.pause();
    },
    onEnd: () => {
      if (this.over) return;
      this.hostEnded = true;
      if (!this.rest) this.connection?.end();
    },
    onError: (code) => {
      if (this.over) return;
      this.socket = null;
      if (!this.connection) this.refused(code);
      const { connection } = this;
      this.finish();
      connection?.abort();
    },
  };

  readonly fromGuest: TcpHandler = {
    onEstablished: () => this.socket?.resume(),
    onData: (bytes) => {
      const { length } = bytes;
      const done = () => this.connection?.consumed(length);
      if (this.socket) this.socket.write(copied(bytes), done);
      else done();
    },
    onEnd: () => this.socket?.end(),
    onRoom: () => {
      const { connection } = this;
      if (!connection) return;
      if (this.rest) {
        const taken = connection.write(this.rest);
        this.rest = taken === this.rest.length ? null : this.rest.subarray(taken);
        if (this.rest) return;
      }
      if (this.hostEnded) connection.end();
      else this.socket?.resume();
    },
    onClosed: (end: TcpEnd) => {
      this.connection = null;
      // Where both directions ended in order, the socket sends what it still has and closes by itself.
      if (end === 'done') this.over = true;
      else this.finish();
    },
  };

  private finish(): void {
    this.over = true;
    this.connection = null;
    this.rest = null;
    this.socket?.destroy();
    this.socket = null;
  }
}

export interface TcpNatHost {
  readonly network: HostNetwork;
  readonly stack: TcpStack;
  /** Our address. */
  readonly gateway: number;
  /** Address under which guests reach the host's own loopback, and whether they may. */
  readonly hostAddress: number;
  readonly hostAllowed: boolean;
  /** An address of the network itself. */
  isLocal(address: number): boolean;
  /** Where a connection to our own port goes; null: nowhere. */
  service(port: number): { address: string; port: number } | null;
}

export interface TcpForward {
  /** Of the host. */
  readonly address: string;
  readonly port: number;
  readonly guestAddress: number;
  readonly guestPort: number;
}

export class TcpNat {
  private readonly host: TcpNatHost;
  private readonly listeners = new Set<HostListener>();
  private nextPort = 0;
  private closed = false;

  constructor(host: TcpNatHost) {
    this.host = host;
  }

  /** A guest asks for a connection. */
  request(request: TcpRequest): void {
    const target = this.target(request.addresses.localAddress, request.addresses.localPort);
    if (!target) {
      request.refuse();
      return;
    }
    const pair: Pair = new Pair(
      () => request.accept(pair.fromGuest),
      // Who is not there is silent; who refuses says so.
      (code) => request.refuse(code !== 'ECONNREFUSED' && code !== 'ECONNRESET'),
    );
    pair.start(this.host.network.connectTcp(target.address, target.port, pair.fromHost), null);
  }

  /**
   * Passes connections to a port of the host on to a guest.
   * @throws Error with the host's code, such as EADDRINUSE
   */
  async forward(forward: TcpForward): Promise<HostListener> {
    const listener = await this.host.network.listenTcp(forward.address, forward.port, (socket, peer) =>
      this.inward(forward, socket, peer),
    );
    if (this.closed) listener.close();
    else this.listeners.add(listener);
    return {
      port: listener.port,
      close: () => {
        this.listeners.delete(listener);
        listener.close();
      },
    };
  }

  close(): void {
    this.closed = true;
    for (const listener of this.listeners) listener.close();
    this.listeners.clear();
    this.host.stack.abort();
  }

  private target(address: number, port: number): { address: string; port: number } | null {
    const { gateway, hostAddress, hostAllowed } = this.host;
    if (port === 0) return null;
    if (address === gateway) {
      const service = this.host.service(port);
      if (service) return service;
    }
    if (address === hostAddress && hostAllowed) return { address: '127.0.0.1', port };
    if (this.host.isLocal(address) || !mayForward(address)) return null;
    return { address: formatIpv4(address), port };
  }

  private inward(
    forward: TcpForward,
    socket: HostTcp,
    peer: { address: string; port: number },
  ): HostTcpEvents | null {
    const { stack, hostAddress } = this.host;
    const address = parseIpv4(peer.address.replace(/^::ffff:/, ''));
    // A guest can answer whoever has an address of his own; the host's programs have ours.
    const known = address !== null && mayForward(address) && !this.host.isLocal(address);
    const localAddress = known ? address : hostAddress;
    const remote = { remoteAddress: forward.guestAddress, remotePort: forward.guestPort };
    const pair = new Pair(
      () => null,
      () => {},
    );
    for (let tries = 0; tries < PORTS; tries++) {
      const localPort = known && tries === 0 ? peer.port : FIRST_PORT + (this.nextPort++ % PORTS);
      if (stack.inUse({ ...remote, localAddress, localPort })) continue;
      const connection = stack.connect({ ...remote, localAddress, localPort }, pair.fromGuest);
      if (!connection) return null;
      pair.start(socket, connection);
      return pair.fromHost;
    }
    return null;
  }
}
