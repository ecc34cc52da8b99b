/**
 * The toolstack of a daemon, seen from another process: the same interface, over HTTP.
 */
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { connect, type Socket } from 'node:net';
import { ToolstackError } from './errors.ts';
import type {
  DaemonInfo,
  DiskInfo,
  DomainConfig,
  DomainEvent,
  DomainInfo,
  DomainScheduling,
  HostInfo,
  SchedulerParameters,
  Trigger,
  VcpuInfo,
  VifInfo,
} from './model.ts';
import { ERROR_CODES } from './names.ts';
import type {
  ConsoleConnection,
  ConsoleViewer,
  Replay,
  RestoreOptions,
  SaveOptions,
  Toolstack,
} from './toolstack.ts';

/** Where a daemon is: a Unix socket, or an address and the token for it. */
export type Endpoint = { readonly socketPath: string } | { readonly url: string; readonly token: string };

/** Nobody answers there: there is no daemon, or it went. */
export class Unreachable extends Error {
  /** The system's word for why. */
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/** Bytes that wait for a daemon that does not take them. */
const BEHIND = 256 * 1024;

/** What a socket answers when nobody listens there: no request came to anybody. */
export const NOBODY: ReadonlySet<string> = new Set(['ENOENT', 'ECONNREFUSED']);

export class RemoteToolstack implements Toolstack {
  private readonly endpoint: Endpoint;
  private readonly revive: (() => Promise<unknown>) | null;

  /** @param revive brings a daemon up where nobody listens; what was asked is asked once more then. Null: it fails */
  constructor(endpoint: Endpoint, revive: (() => Promise<unknown>) | null = null) {
    this.endpoint = endpoint;
    this.revive = revive;
  }

  /** @param signal gives it up */
  daemon(signal?: AbortSignal): Promise<DaemonInfo> {
    return this.call('GET', '/v1/daemon', undefined, signal);
  }

  /** Ends the daemon. @throws ToolstackError busy: there are domains, and it is not forced */
  stopDaemon(force: boolean): Promise<void> {
    return this.send('POST', '/v1/daemon/stop', { force });
  }

  host(): Promise<HostInfo> {
    return this.get('/v1/host');
  }

  async log(clear = false): Promise<string> {
    return (await this.call<{ text: string }>(clear ? 'DELETE' : 'GET', '/v1/log')).text;
  }

  list(): Promise<DomainInfo[]> {
    return this.get('/v1/domains');
  }

  domain(domid: number): Promise<DomainInfo> {
    return this.get(path(domid));
  }

  create(config: DomainConfig, paused = false): Promise<DomainInfo> {
    return this.call('POST', '/v1/domains', { config, paused });
  }

  fork(domid: number, count = 1, paused = false): Promise<DomainInfo[]> {
    return this.call('POST', path(domid, 'fork'), { count, paused });
  }

  save(domid: number, file: string, options: SaveOptions = {}): Promise<void> {
    return this.send('POST', path(domid, 'save'), { path: file, ...options });
  }

  restore(file: string, options: RestoreOptions = {}): Promise<DomainInfo> {
    return this.call('POST', '/v1/restore', { path: file, ...options });
  }

  destroy(domid: number): Promise<void> {
    return this.call('DELETE', path(domid));
  }

  shutdown(domid: number, how: 'poweroff' | 'reboot' = 'poweroff'): Promise<void> {
    return this.send('POST', path(domid, 'shutdown'), { how });
  }

  pause(domid: number): Promise<void> {
    return this.send('POST', path(domid, 'pause'));
  }

  unpause(domid: number): Promise<void> {
    return this.send('POST', path(domid, 'unpause'));
  }

  rename(domid: number, name: string): Promise<void> {
    return this.send('PUT', path(domid, 'name'), { name });
  }

  configuration(domid: number): Promise<DomainConfig> {
    return this.get(path(domid, 'config'));
  }

  setConfiguration(domid: number, config: DomainConfig): Promise<void> {
    return this.send('PUT', path(domid, 'config'), config);
  }

  wait(domid: number, until: 'shutdown' | 'death', signal?: AbortSignal): Promise<DomainEvent> {
    return this.call('GET', `${path(domid, 'wait')}?until=${until}`, undefined, signal);
  }

  vcpus(domid: number): Promise<VcpuInfo[]> {
    return this.get(path(domid, 'vcpus'));
  }

  setVcpus(domid: number, count: number): Promise<void> {
    return this.send('PUT', path(domid, 'vcpus'), { count });
  }

  setAffinity(domid: number, vcpu: number | null, cpus: string): Promise<void> {
    return this.send('PUT', path(domid, 'affinity'), { vcpu, cpus });
  }

  setMemory(domid: number, kib: number): Promise<void> {
    return this.send('PUT', path(domid, 'memory'), { target: kib });
  }

  setMaxMemory(domid: number, kib: number): Promise<void> {
    return this.send('PUT', path(domid, 'max-memory'), { maximum: kib });
  }

  scheduler(): Promise<SchedulerParameters> {
    return this.get('/v1/scheduler');
  }

  setScheduler(parameters: SchedulerParameters): Promise<void> {
    return this.send('PUT', '/v1/scheduler', parameters);
  }

  domainScheduling(domid: number): Promise<DomainScheduling> {
    return this.get(path(domid, 'scheduling'));
  }

  setDomainScheduling(domid: number, parameters: Partial<DomainScheduling>): Promise<void> {
    return this.send('PATCH', path(domid, 'scheduling'), parameters);
  }

  disks(domid: number): Promise<DiskInfo[]> {
    return this.get(path(domid, 'disks'));
  }

  attachDisk(domid: number, spec: string): Promise<void> {
    return this.send('POST', path(domid, 'disks'), { spec });
  }

  detachDisk(domid: number, vdev: string, force = false): Promise<void> {
    return this.call('DELETE', `${path(domid, 'disks')}/${encodeURIComponent(vdev)}?force=${force}`);
  }

  vifs(domid: number): Promise<VifInfo[]> {
    return this.get(path(domid, 'vifs'));
  }

  attachVif(domid: number, spec: string): Promise<void> {
    return this.send('POST', path(domid, 'vifs'), { spec });
  }

  detachVif(domid: number, devid: number, force = false): Promise<void> {
    return this.call('DELETE', `${path(domid, 'vifs')}/${devid}?force=${force}`);
  }

  sysrq(domid: number, letter: string): Promise<void> {
    return this.send('POST', path(domid, 'sysrq'), { letter });
  }

  trigger(domid: number, trigger: Trigger, vcpu = 0): Promise<void> {
    return this.send('POST', path(domid, 'trigger'), { trigger, vcpu });
  }

  dumpCore(domid: number, file: string): Promise<void> {
    return this.send('POST', path(domid, 'dump-core'), { path: file });
  }

  async console(domid: number, viewer: ConsoleViewer, replay: Replay = 'unread'): Promise<ConsoleConnection> {
    const { WebSocket } = await import('ws');
    const { endpoint } = this;
    const target = `${path(domid, 'console')}?replay=${replay}`;
    const webSocket =
      'socketPath' in endpoint
        ? new WebSocket(`ws://localhost${target}`, {
            perMessageDeflate: false,
            createConnection: (): Socket => connect(endpoint.socketPath),
          })
        : new WebSocket(new URL(target, endpoint.url.replace(/^http/, 'ws')), {
            perMessageDeflate: false,
            headers: { Authorization: `Bearer ${endpoint.token}` },
          });
    let over = false;
    const end = () => {
      if (!over) viewer.onEnd();
      over = true;
    };
    webSocket.on('message', (data: Buffer) => {
      if (!viewer.onOutput(data)) webSocket.pause();
    });
    await new Promise<void>((resolve, reject) => {
      webSocket.once('open', resolve);
      webSocket.once('unexpected-response', (_request, response: IncomingMessage) => {
        void failureOf(response).then(reject, reject);
      });
      webSocket.once('error', (error) => reject(unreachable(error)));
    });
    webSocket.on('close', end);
    webSocket.on('error', end);
    return {
      type: (bytes) => {
        if (webSocket.readyState !== WebSocket.OPEN) return bytes.length;
        if (webSocket.bufferedAmount > BEHIND) return 0;
        webSocket.send(bytes, () => {
          if (webSocket.bufferedAmount === 0) viewer.onRoom?.();
        });
        return bytes.length;
      },
      drained: () => webSocket.resume(),
      close: () => {
        over = true;
        webSocket.close();
      },
    };
  }

  private get<T>(target: string): Promise<T> {
    return this.call('GET', target);
  }

  private send(method: string, target: string, body?: unknown): Promise<void> {
    return this.call(method, target, body);
  }

  private async call<T>(method: string, target: string, body?: unknown, signal?: AbortSignal): Promise<T> {
    try {
      return await this.ask(method, target, body, signal);
    } catch (error) {
      if (this.revive === null || !(error instanceof Unreachable && NOBODY.has(error.code))) throw error;
      await this.revive();
      return this.ask(method, target, body, signal);
    }
  }

  private ask<T>(method: string, target: string, body?: unknown, signal?: AbortSignal): Promise<T> {
    const { endpoint } = this;
    const text = body === undefined ? null : JSON.stringify(body);
    const headers: Record<string, string> = {
      ...(text === null
        ? {}
        : { 'Content-Type': 'application/json', 'Content-Length': `${Buffer.byteLength(text)}` }),
      ...('token' in endpoint ? { Authorization: `Bearer ${endpoint.token}` } : {}),
    };
    // A connection for each request: one that is kept could lead to a daemon that is gone.
    // With a name for TLS that there is not, Node does not look whether the host's is an address: 10 ms of a start.
    const options = { method, headers, servername: '', agent: false as const, ...(signal ? { signal } : {}) };
    return new Promise((resolve, reject) => {
      const respond = (response: IncomingMessage) => {
        if (response.statusCode! >= 300) void failureOf(response).then(reject, reject);
        else
          void textOf(response).then(
            (reply) => resolve((reply === '' ? undefined : JSON.parse(reply)) as T),
            reject,
          );
      };
      const request =
        'socketPath' in endpoint
          ? httpRequest({ ...options, socketPath: endpoint.socketPath, path: target }, respond)
          : httpRequest(new URL(target, endpoint.url), options, respond);
      request.on('error', (error) => reject(unreachable(error)));
      request.end(text ?? undefined);
    });
  }
}

function path(domid: number, rest = ''): string {
  return `/v1/domains/${domid}${rest === '' ? '' : `/${rest}`}`;
}

function unreachable(error: Error): Unreachable {
  const { code = '' } = error as NodeJS.ErrnoException;
  return new Unreachable(code, `the daemon does not answer: ${error.message}`);
}

async function textOf(response: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  try {
    for await (const part of response as AsyncIterable<Buffer>) parts.push(part);
  } catch (error) {
    throw unreachable(error as Error);
  }
  return Buffer.concat(parts).toString('utf8');
}

async function failureOf(response: IncomingMessage): Promise<Error> {
  const text = await textOf(response);
  try {
    const { code, message } = (JSON.parse(text) as { error: { code: string; message: string } }).error;
    return new ToolstackError(ERROR_CODES.find((each) => each === code) ?? 'failed', message);
  } catch {
    return new ToolstackError('failed', `the daemon answered with status ${response.statusCode}`);
  }
}
