/**
 * The daemon's HTTP server: JSON over a Unix socket, and over TCP for who has the token; consoles as WebSockets.
 *
 * A request is checked against the table of routes before anything is done. Whatever goes wrong with one is told to
 * who asked, and ends nothing else.
 */
import { timingSafeEqual } from 'node:crypto';
import {
  createServer,
  type Server as HttpServer,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http';
import type { Duplex } from 'node:stream';
import type { TSchema } from '@sinclair/typebox';
import { Value } from '@sinclair/typebox/value';
import { type WebSocket, WebSocketServer } from 'ws';
import { ToolstackError } from '../api/errors.ts';
import type { ErrorCode } from '../api/names.ts';
import type { ConsoleConnection, Replay, Toolstack } from '../api/toolstack.ts';
import { openApi } from './openapi.ts';
import { CONSOLE_PATH, type DaemonControl, OPENAPI_PATH, pathPattern, ROUTES, type Route } from './routes.ts';

export interface ServerOptions {
  readonly toolstack: Toolstack;
  readonly daemon: DaemonControl;
  readonly version: string;
  /** Takes errors that are our own fault. */
  readonly say: (line: string) => void;
}

/** A request's body may be this long, in bytes. */
const BODY = 1 << 20;
/** A console that has this many bytes waiting for it is behind. */
const BEHIND = 256 * 1024;
/** And one message of input may be this long. */
const INPUT = 64 * 1024;

const STATUS: Readonly<Record<ErrorCode, number>> = {
  invalid: 400,
  unauthorized: 401,
  'not-found': 404,
  exists: 409,
  busy: 409,
  failed: 500,
  unsupported: 501,
  'no-memory': 507,
};

const REPLAYS: readonly Replay[] = ['all', 'unread', 'none'];

export class ApiServer {
  private readonly options: ServerOptions;
  private readonly routes: readonly { pattern: RegExp; route: Route }[];
  private readonly consoles = new WebSocketServer({
    noServer: true,
    maxPayload: INPUT,
    perMessageDeflate: false,
  });
  private readonly servers: HttpServer[] = [];
  private readonly connections = new Set<Duplex>();

  constructor(options: ServerOptions) {
    this.options = options;
    this.routes = ROUTES.map((route) => ({ pattern: pathPattern(route.path), route }));
  }

  /** Connections that are open. */
  get clients(): number {
    return this.connections.size;
  }

  /**
   * Listens on a Unix socket, or at a TCP address.
   * @param token what who comes must show; null: nothing
   */
  async listen(
    where: { path: string } | { host: string; port: number },
    token: string | null,
  ): Promise<HttpServer> {
    const server = createServer((request, response) => {
      void this.serve(request, response, token);
    });
    server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      void this.upgrade(request, socket, head, token);
    });
    server.on('connection', (socket) => {
      this.connections.add(socket);
      socket.on('close', () => this.connections.delete(socket));
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(where, () => {
        server.removeListener('error', reject);
        resolve();
      });
    });
    this.servers.push(server);
    return server;
  }

  /** Ends all connections. */
  async close(): Promise<void> {
    const closed = this.servers.map(
      (server) => new Promise<void>((resolve) => server.close(() => resolve())),
    );
    for (const socket of this.connections) socket.destroy();
    await Promise.all(closed);
  }

  private async serve(
    request: IncomingMessage,
    response: ServerResponse,
    token: string | null,
  ): Promise<void> {
    const left = new AbortController();
    response.on('close', () => left.abort());
    try {
      checkToken(request, token);
      const reply = await this.answer(request, left.signal);
      if (reply === undefined) response.writeHead(204).end();
      else sendJson(response, 200, reply);
    } catch (error) {
      const failure = this.failureOf(error);
      sendJson(response, STATUS[failure.code], { error: failure });
    }
  }

  private async answer(request: IncomingMessage, signal: AbortSignal): Promise<unknown> {
    const { toolstack, daemon, version } = this.options;
    const url = targetOf(request);
    if (url.pathname === OPENAPI_PATH && request.method === 'GET') return openApi(version);
    const there = this.routes.filter(({ pattern }) => pattern.test(url.pathname));
    const found = there.find(({ route }) => route.method === request.method);
    if (!found) {
      const what = there.length > 0 ? `${request.method} is not possible there` : 'there is nothing there';
      throw new ToolstackError('not-found', `${url.pathname}: ${what}`);
    }
    const { route, pattern } = found;
    const params = checked(route.params, decoded(pattern.exec(url.pathname)!.groups), 'path', true);
    const query = checked(route.query, Object.fromEntries(url.searchParams), 'query', true);
    const body = route.body ? checked(route.body, await jsonBody(request), 'body', false) : undefined;
    return route.run({ toolstack, daemon, params, query, body, signal });
  }

  // --- Consoles ---

  private async upgrade(
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
    token: string | null,
  ): Promise<void> {
    socket.on('error', () => socket.destroy());
    try {
      checkToken(request, token);
      const url = targetOf(request);
      const domid = pathPattern(CONSOLE_PATH).exec(url.pathname)?.groups?.['domid'];
      if (domid === undefined || !/^\d{1,5}$/.test(domid))
        throw new ToolstackError('not-found', `${url.pathname}: there is no console there`);
      const replay = REPLAYS.find((each) => each === (url.searchParams.get('replay') ?? 'unread'));
      if (!replay) throw new ToolstackError('invalid', `query: replay must be one of ${REPLAYS.join(', ')}`);
      await this.options.toolstack.domain(Number(domid));
      this.consoles.handleUpgrade(request, socket, head, (webSocket) => {
        void this.console(webSocket, Number(domid), replay);
      });
    } catch (error) {
      const failure = this.failureOf(error);
      const text = JSON.stringify({ error: failure });
      socket.end(
        `HTTP/1.1 ${STATUS[failure.code]} Refused\r\nContent-Type: application/json\r\n` +
          `Content-Length: ${Buffer.byteLength(text)}\r\nConnection: close\r\n\r\n${text}`,
      );
    }
  }

  private async console(webSocket: WebSocket, domid: number, replay: Replay): Promise<void> {
    let connection: ConsoleConnection | null = null;
    let behind = false;
    /** Input that the guest has not taken yet; nothing more is read from the client meanwhile. */
    let waiting: Uint8Array = new Uint8Array();
    const type = () => {
      if (waiting.length === 0) return;
      waiting = waiting.subarray(connection!.type(waiting));
      if (waiting.length > 0) webSocket.pause();
      else webSocket.resume();
    };
    webSocket.on('error', () => webSocket.terminate());
    webSocket.on('close', () => connection?.close());
    webSocket.on('message', (data: Buffer) => {
      waiting = waiting.length === 0 ? data : Buffer.concat([waiting, data]);
      if (connection) type();
    });
    try {
      connection = await this.options.toolstack.console(
        domid,
        {
          onOutput: (bytes) => {
            webSocket.send(bytes, () => {
              if (!behind || webSocket.bufferedAmount > 0) return;
              behind = false;
              connection?.drained();
            });
            behind ||= webSocket.bufferedAmount > BEHIND;
            return !behind;
          },
          onEnd: () => webSocket.close(1000, 'the domain is gone'),
          onRoom: type,
        },
        replay,
      );
    } catch (error) {
      webSocket.close(1011, this.failureOf(error).message.slice(0, 120));
      return;
    }
    if (webSocket.readyState !== webSocket.OPEN) connection.close();
    else type();
  }

  private failureOf(error: unknown): { code: ErrorCode; message: string } {
    if (error instanceof ToolstackError) return { code: error.code, message: error.message };
    this.options.say(`internal error: ${error instanceof Error ? error.stack : String(error)}`);
    return { code: 'failed', message: `internal error: ${String(error).split('\n')[0]}` };
  }
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  const text = `${JSON.stringify(value)}\n`;
  response.writeHead(status, {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(text),
    'X-Content-Type-Options': 'nosniff',
  });
  response.end(text);
}

function targetOf(request: IncomingMessage): URL {
  try {
    return new URL(request.url ?? '', 'http://localhost');
  } catch {
    throw new ToolstackError('not-found', 'there is nothing there');
  }
}

/** Parts of a path, without its escapes. */
function decoded(groups: Readonly<Record<string, string>> = {}): Record<string, string> {
  try {
    return Object.fromEntries(
      Object.entries(groups).map(([name, value]) => [name, decodeURIComponent(value)]),
    );
  } catch {
    throw new ToolstackError('invalid', 'path: is not well escaped');
  }
}

function checkToken(request: IncomingMessage, token: string | null): void {
  if (token === null) return;
  const shown = Buffer.from(request.headers.authorization ?? '');
  const wanted = Buffer.from(`Bearer ${token}`);
  if (shown.length !== wanted.length || !timingSafeEqual(shown, wanted))
    throw new ToolstackError('unauthorized', 'the token is missing or wrong');
}

/** What a request brings, if it is what the route takes. @param convert it is text: numbers are made of it */
function checked(schema: TSchema, value: unknown, where: string, convert: boolean): unknown {
  const converted = convert ? Value.Convert(schema, value) : value;
  const error = Value.Errors(schema, converted).First();
  if (!error) return converted;
  const place = error.path === '' ? where : `${where}${error.path}`;
  throw new ToolstackError(
    'invalid',
    `${place}: ${error.message.charAt(0).toLowerCase()}${error.message.slice(1)}`,
  );
}

async function jsonBody(request: IncomingMessage): Promise<unknown> {
  // A web page can send other types to anybody without asking, this one it cannot.
  if (request.headers['content-type']?.split(';')[0]?.trim().toLowerCase() !== 'application/json')
    throw new ToolstackError('invalid', 'body: must be application/json');
  const text = await bodyText(request);
  try {
    return JSON.parse(text);
  } catch {
    throw new ToolstackError('invalid', 'body: is not JSON');
  }
}

function bodyText(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let length = 0;
  return new Promise((resolve, reject) => {
    request.on('data', (part: Buffer) => {
      length += part.length;
      // The rest of it is read and dropped: who sends it would not read our answer before.
      if (length > BODY) reject(new ToolstackError('invalid', `body: more than ${BODY} bytes`));
      else parts.push(part);
    });
    request.on('end', () => resolve(Buffer.concat(parts).toString('utf8')));
    request.on('error', reject);
  });
}
