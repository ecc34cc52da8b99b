/**
 * What a NAT needs of its host: ordinary sockets. Addresses are texts, as the host writes them.
 */

/** A TCP connection of the host. */
export interface HostTcp {
  /** @param bytes the callee's from now on @param done they have gone out, or never will */
  write(bytes: Uint8Array, done: () => void): void;
  /** Sends no more; what was written still goes out. */
  end(): void;
  /** Ends it at once, with a reset. Nothing is heard of it any more. */
  destroy(): void;
  /** Reads no more for now. */
  pause(): void;
  resume(): void;
}

export interface HostTcpEvents {
  onConnect(): void;
  /** The bytes are the callee's. */
  onData(bytes: Uint8Array): void;
  /** The peer sends no more. */
  onEnd(): void;
  /** It broke; nothing follows. @param code such as ECONNREFUSED */
  onError(code: string): void;
}

export interface HostUdp {
  send(bytes: Uint8Array, address: string, port: number): void;
  close(): void;
}

export interface HostUdpEvents {
  /** The bytes are the callee's. */
  onMessage(bytes: Uint8Array, address: string, port: number): void;
  /** It has its port. */
  onReady?(port: number): void;
  /** It broke, or could not be made; nothing follows. */
  onError(code: string): void;
}

/** Something that listens. */
export interface HostListener {
  /** The port, where any was asked for. */
  readonly port: number;
  close(): void;
}

export interface HostNetwork {
  connectTcp(address: string, port: number, events: HostTcpEvents): HostTcp;
  /**
   * @param onConnection takes a connection with its peer's address, and answers who hears of it; null: refuses it
   * @throws Error with the host's code, such as EADDRINUSE
   */
  listenTcp(
    address: string,
    port: number,
    onConnection: (socket: HostTcp, peer: { address: string; port: number }) => HostTcpEvents | null,
  ): Promise<HostListener>;
  /** @param bind null: any port, to send from */
  openUdp(bind: { address: string; port: number } | null, events: HostUdpEvents): HostUdp;
  /** Name servers: addresses, or with a port as in 127.0.0.1:5353. */
  nameServers(): string[];
  /** The host's own way from a name to addresses, as its programs use it. Fails if there are none. */
  lookup(name: string, family: 4 | 6): Promise<string[]>;
  /** Sends an ICMP echo request. @returns milliseconds, null: no answer (or the host cannot send any) */
  ping(address: string): Promise<number | null>;
}
