import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Validator } from '@seriousme/openapi-schema-validator';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ToolstackError } from '../api/errors.ts';
import { RemoteToolstack, Unreachable } from '../api/remote.ts';
import type { ConsoleViewer } from '../api/toolstack.ts';
import { openApi } from './openapi.ts';
import { CONSOLE_PATH, OPENAPI_PATH, ROUTES } from './routes.ts';
import { ApiServer } from './server.ts';
import { CONFIG, type FakeToolstack, fakeToolstack, INFO } from './testing.ts';

const folder = mkdtempSync(join(tmpdir(), 'xenolith-server-'));
const socketPath = join(folder, 'socket');
const DAEMON = { pid: 1, version: '1.2.3', uptime: 1, domains: 0, notice: null };

let fake: FakeToolstack;
let server: ApiServer;
let remote: RemoteToolstack;
let stopped: boolean[];
let complaints: string[];

beforeEach(async () => {
  fake = fakeToolstack();
  stopped = [];
  complaints = [];
  server = new ApiServer({
    toolstack: fake.toolstack,
    daemon: { info: () => DAEMON, stop: (force) => void stopped.push(force) },
    version: '1.2.3',
    say: (line) => void complaints.push(line),
  });
  await server.listen({ path: socketPath }, null);
  remote = new RemoteToolstack({ socketPath });
});

afterEach(async () => {
  await server.close();
  rmSync(socketPath, { force: true });
});

interface Answer {
  status: number;
  text: string;
}

function raw(method: string, path: string, body?: string, type = 'application/json'): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { 'Content-Type': type };
    const sent = request({ socketPath, method, path, headers, agent: false }, (response) => {
      let text = '';
      response.on('data', (part) => {
        text += part;
      });
      response.on('end', () => resolve({ status: response.statusCode!, text }));
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

async function collect(replay: 'all' | 'unread' | 'none' = 'unread') {
  const seen = { text: '', ended: 0 };
  const viewer: ConsoleViewer = {
    onOutput: (bytes) => {
      seen.text += new TextDecoder().decode(bytes);
      return true;
    },
    onEnd: () => void seen.ended++,
  };
  const connection = await remote.console(1, viewer, replay);
  const until = async (condition: () => boolean) => {
    for (let count = 0; !condition() && count < 200; count++)
      await new Promise((done) => setTimeout(done, 10));
    expect(condition()).toBe(true);
  };
  return { seen, connection, until };
}

describe("the daemon's interface", () => {
  it('carries every call of the toolstack to where it belongs', async () => {
    const calls: [string, ...unknown[]][] = [
      ['host'],
      ['log'],
      ['log', true],
      ['list'],
      ['domain', 1],
      ['create', CONFIG, true],
      ['fork', 1, 3, true],
      ['destroy', 1],
      ['shutdown', 1, 'reboot'],
      ['pause', 1],
      ['unpause', 1],
      ['rename', 1, 'b'],
      ['configuration', 1],
      ['setConfiguration', 1, CONFIG],
      ['wait', 1, 'death'],
      ['vcpus', 1],
      ['setVcpus', 1, 2],
      ['setAffinity', 1, null, '0-1'],
      ['setMemory', 1, 65536],
      ['setMaxMemory', 1, 65536],
      ['scheduler'],
      ['setScheduler', { contextSwitchAllowance: 50_000 }],
      ['domainScheduling', 1],
      ['setDomainScheduling', 1, { warpback: true }],
      ['disks', 1],
      ['attachDisk', 1, '/a,raw,xvda,rw'],
      ['detachDisk', 1, 'xvda', true],
      ['vifs', 1],
      ['attachVif', 1, 'mac=00:16:3e:00:00:01'],
      ['detachVif', 1, 0, false],
      ['sysrq', 1, 'h'],
      ['trigger', 1, 'nmi', 0],
      ['dumpCore', 1, '/tmp/core'],
      ['save', 1, '/tmp/saved', { after: 'continue' }],
      ['restore', '/tmp/saved', { paused: true }],
    ];
    for (const [method, ...args] of calls) {
      const call = (remote as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>)[method]!;
      const local = fake.toolstack as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>;
      const reply = await call.apply(remote, args);
      expect(reply, method).toEqual(await local[method]!(...args));
    }
    const asked = fake.calls.filter((_, index) => index % 2 === 0);
    expect(asked).toEqual(calls);
    expect(new Set(calls.map(([method]) => method))).toEqual(
      new Set(Object.getOwnPropertyNames(RemoteToolstack.prototype).filter((name) => !INTERNAL.has(name))),
    );
  });

  it('is about the daemon, too', async () => {
    expect(await remote.daemon()).toEqual(DAEMON);
    await remote.stopDaemon(true);
    expect(stopped).toEqual([true]);
  });

  it('hands errors over as they are', async () => {
    const error = await remote.domain(7).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(ToolstackError);
    expect(error).toMatchObject({ code: 'not-found', message: "Domain '7' does not exist." });
  });

  it.each<[string, string, string | undefined, number, string]>([
    ['GET', '/', undefined, 404, 'nothing there'],
    ['GET', '/v1/domains/x', undefined, 400, 'path/domid'],
    ['GET', '/v1/domains/99999999999', undefined, 400, 'path/domid'],
    ['PUT', '/v1/domains', '{}', 404, 'PUT is not possible there'],
    ['GET', '/v1/domains/1/wait?until=never', undefined, 400, 'query/until'],
    ['GET', '/v1/domains/1/wait', undefined, 400, 'query/until'],
    ['POST', '/v1/domains', 'not json', 400, 'is not JSON'],
    ['POST', '/v1/domains', '{}', 400, 'body/config'],
    [
      'POST',
      '/v1/domains',
      JSON.stringify({ config: { ...CONFIG, memory: 'x' } }),
      400,
      'body/config/memory',
    ],
    ['POST', '/v1/domains', JSON.stringify({ config: { ...CONFIG, name: 'a/b' } }), 400, 'body/config/name'],
    ['POST', '/v1/domains', JSON.stringify({ config: { ...CONFIG, extra: 1 } }), 400, 'body/config/extra'],
    ['POST', '/v1/domains', JSON.stringify({ config: CONFIG, __proto__: 1, more: 1 }), 400, 'body/more'],
    ['DELETE', '/v1/domains/1/disks/%ff', undefined, 400, 'not well escaped'],
    ['PUT', '/v1/domains/1/vcpus', '{"count":0}', 400, 'body/count'],
    ['PATCH', '/v1/domains/1/scheduling', '{}', 400, 'body'],
    ['POST', '/v1/domains/1/dump-core', '{"path":"core"}', 400, 'body/path'],
    ['POST', '/v1/domains/1/save', '{"path":"/a","after":"explode"}', 400, 'body/after'],
    ['POST', '/v1/restore', '{"path":"a"}', 400, 'body/path'],
    ['POST', '/v1/domains/1/shutdown', `{"how":"${'x'.repeat(2 << 20)}"}`, 400, 'more than'],
    ['GET', '/v1/domains/1/console', undefined, 404, 'nothing there'],
  ])('refuses %s %s (%#)', async (method, path, body, status, said) => {
    const answer = await raw(method, path, body);
    expect(answer.status).toBe(status);
    expect(JSON.parse(answer.text).error.message).toContain(said);
    expect(fake.calls).toEqual([]);
  });

  it('takes no text from a web page', async () => {
    const { status, text } = await raw('POST', '/v1/domains/1/shutdown', '{"how":"poweroff"}', 'text/plain');
    expect(status).toBe(400);
    expect(text).toContain('application/json');
    expect(fake.calls).toEqual([]);
  });

  it('answers with what it says it answers', async () => {
    expect(JSON.parse((await raw('GET', '/v1/domains/1')).text)).toEqual(INFO);
    expect(await raw('POST', '/v1/domains/1/pause')).toEqual({ status: 204, text: '' });
  });

  it('says so when an error is our own', async () => {
    const broken = fake.toolstack as unknown as { list: unknown };
    server = new ApiServer({
      toolstack: new Proxy(broken as never, { get: () => async () => JSON.parse('{') }),
      daemon: { info: () => DAEMON, stop: () => {} },
      version: '1',
      say: (line) => void complaints.push(line),
    });
    const other = join(folder, 'other');
    await server.listen({ path: other }, null);
    const error = await new RemoteToolstack({ socketPath: other }).list().catch((reason: unknown) => reason);
    expect(error).toMatchObject({
      code: 'failed',
      message: expect.stringMatching(/^internal error: SyntaxError/),
    });
    expect(complaints).toHaveLength(1);
  });

  it('by TCP is for who has the token', async () => {
    const tcp = await server.listen({ host: '127.0.0.1', port: 0 }, 'secret');
    const url = `http://127.0.0.1:${(tcp.address() as AddressInfo).port}`;
    expect(await new RemoteToolstack({ url, token: 'secret' }).list()).toHaveLength(2);
    for (const token of ['', 'Secret', 'secret2']) {
      const stranger = new RemoteToolstack({ url, token });
      await expect(stranger.list()).rejects.toMatchObject({ code: 'unauthorized' });
      await expect(stranger.console(1, { onOutput: () => true, onEnd() {} })).rejects.toMatchObject({
        code: 'unauthorized',
      });
    }
  });

  it('that is not there is told from one that fails', async () => {
    const none = new RemoteToolstack({ socketPath: join(folder, 'none') });
    await expect(none.list()).rejects.toBeInstanceOf(Unreachable);
    await expect(none.list()).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('lets a socket be opened by its user only', () => {
    expect(statSync(socketPath).isSocket()).toBe(true);
  });
});

/** Methods of the remote one that are no calls of the toolstack, or are tested apart. */
const INTERNAL = new Set(['constructor', 'daemon', 'stopDaemon', 'console', 'get', 'send', 'call', 'ask']);

describe('a console', () => {
  it('goes both ways, to several viewers, and ends', async () => {
    fake.hub.output(new TextEncoder().encode('early '));
    const typed: string[] = [];
    fake.hub.connect({
      type: (bytes) => {
        typed.push(new TextDecoder().decode(bytes));
        return bytes.length;
      },
      holdOutput() {},
    });
    const one = await collect();
    await one.until(() => one.seen.text === 'early ');
    const two = await collect('all');
    fake.hub.output(new TextEncoder().encode('late'));
    await one.until(() => one.seen.text === 'early late');
    await two.until(() => two.seen.text === 'early late');
    one.connection.type(new TextEncoder().encode('hello'));
    two.connection.type(new TextEncoder().encode(' you'));
    await one.until(() => typed.join('').length === 9);
    two.connection.close();
    fake.hub.end();
    await one.until(() => one.seen.ended === 1);
    expect(two.seen.ended).toBe(0);
  });

  it('keeps input that the guest does not take yet, in order', async () => {
    let text = '';
    let room = 3;
    fake.hub.connect({
      type: (bytes) => {
        const taken = Math.min(room, bytes.length);
        text += new TextDecoder().decode(bytes.subarray(0, taken));
        room -= taken;
        return taken;
      },
      holdOutput() {},
    });
    const { connection, until } = await collect();
    for (const part of ['abcd', 'ef', 'gh']) connection.type(new TextEncoder().encode(part));
    await until(() => text === 'abc');
    for (let more = 0; more < 8; more++) {
      room += 1;
      fake.hub.room();
    }
    await until(() => {
      room = 10;
      fake.hub.room();
      return text === 'abcdefgh';
    });
  });

  it('carries much without losing any', async () => {
    const { seen, until } = await collect();
    const line = `${'x'.repeat(1023)}\n`;
    let held = false;
    fake.hub.connect({
      type: () => 0,
      holdOutput: (hold) => {
        held = hold;
      },
    });
    for (let count = 0; count < 4096; ) {
      if (held) await new Promise((done) => setTimeout(done, 1));
      else {
        fake.hub.output(new TextEncoder().encode(line));
        count++;
      }
    }
    await until(() => seen.text.length === 4096 * 1024);
  });

  it('of a domain that is not there is refused', async () => {
    const viewer = { onOutput: () => true, onEnd() {} };
    await expect(remote.console(5, viewer)).rejects.toMatchObject({ code: 'not-found' });
  });
});

describe('the OpenAPI description', () => {
  it('is one', async () => {
    const validator = new Validator();
    const result = await validator.validate(openApi('1.2.3'));
    expect(result.errors ?? '').toBe('');
    expect(result.valid).toBe(true);
  });

  it('is served, and names every route and no other', async () => {
    const { text } = await raw('GET', OPENAPI_PATH);
    const served = JSON.parse(text) as { paths: Record<string, Record<string, { operationId: string }>> };
    const operations = Object.entries(served.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    );
    expect(operations.sort()).toEqual(
      [
        ...ROUTES.map(({ method, path }) => `${method} ${path}`),
        `GET ${CONSOLE_PATH}`,
        `GET ${OPENAPI_PATH}`,
      ].sort(),
    );
    const ids = Object.values(served.paths).flatMap((methods) =>
      Object.values(methods).map((it) => it.operationId),
    );
    expect(new Set(ids).size).toBe(ids.length);
  });

  it('refers only to what it holds', () => {
    const text = JSON.stringify(openApi('1'));
    const { components } = openApi('1') as { components: { schemas: Record<string, unknown> } };
    const names = [...text.matchAll(/#\/components\/schemas\/(\w+)/g)].map((match) => match[1]!);
    expect(names.length).toBeGreaterThan(20);
    for (const name of names) expect(components.schemas).toHaveProperty(name);
  });
});
