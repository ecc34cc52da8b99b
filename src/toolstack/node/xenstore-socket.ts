/**
 * The store on a Unix socket, as xenstored has it: Xen's own clients (xenstore-ls, xenstore-read, ...) find it by
 * XENSTORED_PATH and act in Domain 0's name. Who may connect is a matter of the file's rights: it is the user's alone.
 */
import { chmod, lstat, unlink } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { Connection } from '../../dom0/xenstore/protocol.ts';
import type { Xenstore } from '../../dom0/xenstore/xenstore.ts';
import { Failure } from '../failure.ts';

/** Clients at a time. */
const MAX_CLIENTS = 256;
/** Bytes handed to a socket in one piece. */
const PIECE = 64 * 1024;
/** The longest path that a socket can have (sockaddr_un). */
const PATH_MAX = 107;

export class XenstoreSocket {
  readonly path: string;
  private readonly server: Server;
  private readonly clients: Set<Socket>;

  private constructor(path: string, server: Server, clients: Set<Socket>) {
    this.path = path;
    this.server = server;
    this.clients = clients;
  }

  /**
   * Serves the store at a path. A socket that nobody listens to any more is replaced.
   * @throws Failure in one line
   */
  static async listen(store: Xenstore, path: string): Promise<XenstoreSocket> {
    if (Buffer.byteLength(path) > PATH_MAX)
      throw new Failure(`${path}: too long for the path of a socket (${PATH_MAX} bytes)`);
    const clients = new Set<Socket>();
    const server = createServer((socket) => {
      clients.add(socket);
      socket.on('close', () => clients.delete(socket));
      serve(store, socket);
    });
    server.maxConnections = MAX_CLIENTS;
    try {
      await bind(server, path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw failure(path, error);
      if (await answers(path)) throw new Failure(`${path}: another store is served there`);
      try {
        if (!(await lstat(path)).isSocket()) throw error;
        await unlink(path);
        await bind(server, path);
      } catch (again) {
        throw failure(path, again);
      }
    }
    return new XenstoreSocket(path, server, clients);
  }

  /** Ends all connections; the socket's file is removed. */
  async close(): Promise<void> {
    for (const socket of this.clients) socket.destroy();
    await new Promise((resolve) => {
      this.server.close(resolve);
    });
  }
}

function serve(store: Xenstore, socket: Socket): void {
  const connection = new Connection(store, 0);
  let sending = false;
  const send = () => {
    // To take output lets the connection carry on, which brings more output.
    if (sending) return;
    sending = true;
    while (connection.pending > 0 && !socket.writableNeedDrain && socket.writable)
      socket.write(connection.take(PIECE));
    sending = false;
    // Who does not take his answers is not listened to.
    if (connection.broken) socket.destroySoon();
    else if (connection.ready) socket.resume();
    else socket.pause();
  };
  connection.onOutput = send;
  socket.on('data', (bytes) => {
    connection.receive(bytes);
    send();
  });
  socket.on('drain', send);
  socket.on('error', () => {});
  socket.on('close', () => {
    connection.onOutput = () => {};
    connection.close();
  });
}

async function bind(server: Server, path: string): Promise<void> {
  // Nobody else can connect between the making of the file and the change of its rights.
  const before = process.umask(0o177);
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, () => {
        server.off('error', reject);
        resolve();
      });
    });
  } finally {
    process.umask(before);
  }
  await chmod(path, 0o600);
}

/** Whether somebody listens at a socket. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}

function failure(path: string, error: unknown): Failure {
  const { code, message } = error as NodeJS.ErrnoException;
  const reasons: Record<string, string> = {
    // Node says the same of a directory that is not there.
    EACCES: 'no such directory, or permission denied',
    EADDRINUSE: 'there is a file of that name, and no socket',
  };
  return new Failure(`${path}: ${reasons[code ?? ''] ?? message}`);
}
