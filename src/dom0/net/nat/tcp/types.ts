/** What a TCP connection has to do with: its user, the network below it, time. */
import type { TcpConnection } from './connection.ts';
import type { BufferBudget } from './send-buffer.ts';

/** `open` says nothing of the two directions, which end one by one. */
export type TcpState = 'syn-sent' | 'syn-received' | 'open' | 'time-wait' | 'closed';

/** How a connection ended. */
export type TcpEnd = 'done' | 'refused' | 'reset' | 'timeout' | 'aborted';

export interface TcpHandler {
  onEstablished(): void;
  /** Bytes in order; the view holds only during the call. {@link TcpConnection.consumed} opens the window again. */
  onData(bytes: Uint8Array): void;
  /** The peer sends no more. */
  onEnd(): void;
  /** There is room to write again, after {@link TcpConnection.write} did not take all. */
  onRoom(): void;
  /** Nothing of it is left; comes last, and once. */
  onClosed(end: TcpEnd): void;
}

/** Time, in milliseconds. */
export interface Clock {
  now(): number;
  /** Calls back once. @returns what cancels it */
  after(milliseconds: number, work: () => void): () => void;
}

/** The network beneath a connection. */
export interface TcpLink {
  readonly clock: Clock;
  readonly budget: BufferBudget;
  /** Largest segment that we send and take, without headers. */
  readonly mss: number;
  /** Segments longer than the peer's MSS may be sent: the link cuts them up. */
  readonly tso: boolean;
  /**
   * Sends a segment whose checksum is still zero.
   * @param mss what the payload is cut into if it is longer
   * @returns false: no room; {@link TcpConnection.settle} is called once there is
   */
  send(connection: TcpConnection, header: Uint8Array, payload: readonly Uint8Array[], mss: number): boolean;
  /** Both directions have ended, and it only waits for stray segments: {@link TcpConnection.giveWay} may end that. */
  waits(connection: TcpConnection): void;
  /** It is over; the link forgets it. */
  closed(connection: TcpConnection): void;
}

/** Addresses as numbers, host order. */
export interface TcpAddresses {
  readonly localAddress: number;
  readonly localPort: number;
  readonly remoteAddress: number;
  readonly remotePort: number;
}
