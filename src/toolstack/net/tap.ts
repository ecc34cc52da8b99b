/**
 * A TAP device of the host's: an Ethernet interface there whose cable ends with us.
 *
 * Attaching to one takes an ioctl, which Node does not have: socat does it, and passes the frames on in datagrams on
 * the loopback, one each. Both ends are connected to each other, so that nobody else's datagrams get in between.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createSocket, type Socket } from 'node:dgram';
import { existsSync } from 'node:fs';

/** It cannot be had; the message says why, in one line. */
export class TapError extends Error {}

/** The largest frame that goes through. */
const FRAME_MAX = 65_507;
/** Milliseconds until socat must have attached. */
const PATIENCE = 10_000;
const SOCKET_BUFFER = 4 << 20;
const LOOPBACK = '127.0.0.1';
const CONNECTED = /successfully connected from local address AF=2 127\.0\.0\.1:(\d+)/;
const READY = /starting data transfer loop/;

export interface TapOptions {
  /** Name of the host's interface; one that is not there is made, and goes with us. */
  readonly name: string;
  /** Takes a frame from the host. */
  readonly onFrame: (frame: Uint8Array) => void;
  /** It ended by itself: why, in one line. */
  readonly onEnd: (reason: string) => void;
  /** The program; left out: socat. */
  readonly command?: string;
}

export class Tap {
  private readonly child: ChildProcess;
  private readonly socket: Socket;
  private closed = false;

  private constructor(child: ChildProcess, socket: Socket) {
    this.child = child;
    this.socket = socket;
  }

  /** @throws TapError */
  static async open({ name, onFrame, onEnd, command = 'socat' }: TapOptions): Promise<Tap> {
    const socket = createSocket('udp4');
    await new Promise<void>((resolve) => socket.bind(0, LOOPBACK, resolve));
    const { port } = socket.address();
    // As much as the host allows: a burst from there comes faster than we may have time for.
    socket.setRecvBufferSize(SOCKET_BUFFER);
    // A device that is there may be ours to use, but not to switch on.
    const up = existsSync(`/sys/class/net/${name}`) ? '' : ',iff-up';
    const child = spawn(
      command,
      [
        ...['-d', '-d', '-b', `${FRAME_MAX + 1}`],
        `UDP4-CONNECT:${LOOPBACK}:${port},bind=${LOOPBACK}`,
        `TUN,tun-type=tap,tun-name=${name},iff-no-pi${up}`,
      ],
      // Should we be killed, it ends with the next frame, which nobody takes.
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    const tap = new Tap(child, socket);
    try {
      const peer = await attached(child, name, command);
      await new Promise<void>((resolve) => socket.connect(peer, LOOPBACK, resolve));
    } catch (error) {
      tap.close();
      throw error;
    }
    socket.on('message', (frame) => onFrame(frame));
    // What nobody takes is lost: that is what happens to frames.
    socket.on('error', () => {});
    child.once('exit', () => {
      if (!tap.closed) onEnd(`the TAP device ${name}: ${command} ended`);
      tap.close();
    });
    return tap;
  }

  /** Sends a frame to the host. @param frame copied */
  send(frame: Uint8Array): void {
    if (!this.closed && frame.length <= FRAME_MAX) this.socket.send(Buffer.from(frame), () => {});
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.socket.close();
    this.child.kill();
  }
}

/** Waits until socat has attached. @returns its port @throws TapError */
function attached(child: ChildProcess, name: string, command: string): Promise<number> {
  return new Promise((resolve, reject) => {
    let text = '';
    let port = 0;
    const fail = (why: string) => {
      clearTimeout(timer);
      reject(new TapError(`the TAP device ${name}: ${why}`));
    };
    const timer = setTimeout(() => fail(`${command} does not attach to it`), PATIENCE);
    child.once('error', (error: NodeJS.ErrnoException) =>
      fail(error.code === 'ENOENT' ? `needs ${command}, which is not installed` : error.message),
    );
    child.once('exit', () => fail(reasonIn(text)));
    child.stderr!.setEncoding('latin1').on('data', (more: string) => {
      // Later it says little; what it says is of no use.
      if (text.length < 1 << 16) text += more;
      port ||= Number(CONNECTED.exec(text)?.[1] ?? 0);
      if (port === 0 || !READY.test(text)) return;
      clearTimeout(timer);
      resolve(port);
    });
  });
}

/** The last error among socat's messages: "2026/11/23 05:00:00 socat[7] E what". */
function reasonIn(text: string): string {
  const errors = [...text.matchAll(/^.*? socat\[\d+\] E (.*)$/gm)];
  const [, error = 'it cannot be attached to'] = errors.at(-1) ?? [];
  return /not permitted/i.test(error) ? `not permitted (${error})` : error;
}
