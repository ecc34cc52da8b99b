/**
 * The daemon's HTTP interface, as a table: what each request takes, what it gives, and what it does. The server
 * follows it, and so does the description that is handed out (openapi.ts).
 */
import { type Static, type TObject, type TSchema, Type } from '@sinclair/typebox';
import {
  DaemonInfo,
  DiskInfo,
  DomainConfig,
  DomainEvent,
  DomainInfo,
  DomainScheduling,
  HostInfo,
  SavedFate,
  SchedulerParameters,
  Trigger,
  VcpuInfo,
  VifInfo,
} from '../api/model.ts';
import type { Toolstack } from '../api/toolstack.ts';

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

/** What requests about the daemon itself ask. */
export interface DaemonControl {
  info(): DaemonInfo;
  /** Ends the daemon, after this request. @throws ToolstackError busy: there are domains, and it is not forced */
  stop(force: boolean): void;
}

export interface RouteContext<P, Q, B> {
  readonly toolstack: Toolstack;
  readonly daemon: DaemonControl;
  readonly params: P;
  readonly query: Q;
  readonly body: B;
  /** Whoever asked has gone. */
  readonly signal: AbortSignal;
}

export interface Route {
  readonly method: Method;
  /** With {name} where a parameter stands. */
  readonly path: string;
  readonly summary: string;
  readonly params: TObject;
  readonly query: TObject;
  /** Null: none. */
  readonly body: TSchema | null;
  /** Null: nothing (204). */
  readonly reply: TSchema | null;
  run(context: RouteContext<unknown, unknown, unknown>): Promise<unknown>;
}

const nothing = Type.Object({});
const AbsolutePath = Type.String({ pattern: '^/', maxLength: 4096, description: 'Absolute.' });
const object = <T extends Parameters<typeof Type.Object>[0]>(properties: T) =>
  Type.Object(properties, { additionalProperties: false });

function route<
  P extends TObject = typeof nothing,
  Q extends TObject = typeof nothing,
  B extends TSchema = TSchema,
  R extends TSchema | null = null,
>(definition: {
  method: Method;
  path: string;
  summary: string;
  params?: P;
  query?: Q;
  body?: B;
  reply?: R;
  run(context: RouteContext<Static<P>, Static<Q>, Static<B>>): Promise<R extends TSchema ? Static<R> : void>;
}): Route {
  return { params: nothing, query: nothing, body: null, reply: null, ...definition } as Route;
}

const Domid = Type.Integer({ minimum: 0, maximum: 0x7fff, description: 'Number of a domain.' });
const domain = object({ domid: Domid });
const Kib = Type.Integer({ minimum: 0, maximum: 2 ** 42, description: 'KiB.' });
const Flag = (description: string) => Type.Optional(Type.Boolean({ description }));

export const ROUTES: readonly Route[] = [
  route({
    method: 'GET',
    path: '/v1/daemon',
    summary: 'The daemon itself',
    reply: DaemonInfo,
    run: async ({ daemon }) => daemon.info(),
  }),
  route({
    method: 'POST',
    path: '/v1/daemon/stop',
    summary: 'Ends the daemon, and with force all domains with it',
    body: object({ force: Type.Boolean() }),
    run: async ({ daemon, body }) => daemon.stop(body.force),
  }),
  route({
    method: 'GET',
    path: '/v1/host',
    summary: 'The machine and its host',
    reply: HostInfo,
    run: ({ toolstack }) => toolstack.host(),
  }),
  route({
    method: 'GET',
    path: '/v1/log',
    summary: 'Messages of the hypervisor',
    reply: object({ text: Type.String() }),
    run: async ({ toolstack }) => ({ text: await toolstack.log() }),
  }),
  route({
    method: 'DELETE',
    path: '/v1/log',
    summary: 'Messages of the hypervisor, which are forgotten then',
    reply: object({ text: Type.String() }),
    run: async ({ toolstack }) => ({ text: await toolstack.log(true) }),
  }),
  route({
    method: 'GET',
    path: '/v1/scheduler',
    summary: 'The scheduler’s parameters for the whole machine',
    reply: SchedulerParameters,
    run: ({ toolstack }) => toolstack.scheduler(),
  }),
  route({
    method: 'PUT',
    path: '/v1/scheduler',
    summary: 'Changes them',
    body: SchedulerParameters,
    run: ({ toolstack, body }) => toolstack.setScheduler(body),
  }),
  route({
    method: 'GET',
    path: '/v1/domains',
    summary: 'All domains, Domain 0 first',
    reply: Type.Array(DomainInfo),
    run: ({ toolstack }) => toolstack.list(),
  }),
  route({
    method: 'POST',
    path: '/v1/domains',
    summary: 'Makes a domain',
    body: object({ config: DomainConfig, paused: Flag('It does not run yet.') }),
    reply: DomainInfo,
    run: ({ toolstack, body }) => toolstack.create(body.config, body.paused),
  }),
  route({
    method: 'GET',
    path: '/v1/domains/{domid}',
    summary: 'A domain',
    params: domain,
    reply: DomainInfo,
    run: ({ toolstack, params }) => toolstack.domain(params.domid),
  }),
  route({
    method: 'DELETE',
    path: '/v1/domains/{domid}',
    summary: 'Destroys a domain at once',
    params: domain,
    run: ({ toolstack, params }) => toolstack.destroy(params.domid),
  }),
  route({
    method: 'POST',
    path: '/v1/domains/{domid}/fork',
    summary: 'Makes copies of a domain as it is at this moment',
    params: domain,
    body: object({
      count: Type.Optional(Type.Integer({ minimum: 1, maximum: 4096 })),
      paused: Flag('They do not run yet.'),
    }),
    reply: Type.Array(DomainInfo),
    run: ({ toolstack, params, body }) => toolstack.fork(params.domid, body.count, body.paused),
  }),
  route({
    method: 'POST',
    path: '/v1/domains/{domid}/save',
    summary: 'Writes a domain into a file of the daemon’s host, from which it can be restored',
    params: domain,
    body: object({
      path: AbsolutePath,
      after: Type.Optional(SavedFate),
      config: Type.Optional(Type.Union([DomainConfig, Type.Null()])),
    }),
    run: ({ toolstack, params, body: { path, ...options } }) => toolstack.save(params.domid, path, options),
  }),
  route({
    method: 'POST',
    path: '/v1/restore',
    summary: 'Makes a domain of a saved one',
    body: object({
      path: AbsolutePath,
      paused: Flag('It does not run yet.'),
      config: Type.Optional(Type.Union([DomainConfig, Type.Null()])),
    }),
    reply: DomainInfo,
    run: ({ toolstack, body: { path, ...options } }) => toolstack.restore(path, options),
  }),
  route({
    method: 'GET',
    path: '/v1/domains/{domid}/config',
    summary: 'What a domain is made of',
    params: domain,
    reply: DomainConfig,
    run: ({ toolstack, params }) => toolstack.configuration(params.domid),
  }),
  route({
    method: 'PUT',
    path: '/v1/domains/{domid}/config',
    summary: 'What it will be made of when it restarts',
    params: domain,
    body: DomainConfig,
    run: ({ toolstack, params, body }) => toolstack.setConfiguration(params.domid, body),
  }),
  route({
    method: 'PUT',
    path: '/v1/domains/{domid}/name',
    summary: 'Renames a domain',
    params: domain,
    body: object({ name: Type.String({ maxLength: 1024 }) }),
    run: ({ toolstack, params, body }) => toolstack.rename(params.domid, body.name),
  }),
  route({
    method: 'POST',
    path: '/v1/domains/{domid}/pause',
    summary: 'Pauses a domain',
    params: domain,
    run: ({ toolstack, params }) => toolstack.pause(params.domid),
  }),
  route({
    method: 'POST',
    path: '/v1/domains/{domid}/unpause',
    summary: 'Lets a paused domain run',
    params: domain,
    run: ({ toolstack, params }) => toolstack.unpause(params.domid),
  }),
  route({
    method: 'POST',
    path: '/v1/domains/{domid}/shutdown',
    summary: 'Asks the guest to power off or to reboot',
    params: domain,
    body: object({ how: Type.Union([Type.Literal('poweroff'), Type.Literal('reboot')]) }),
    run: ({ toolstack, params, body }) => toolstack.shutdown(params.domid, body.how),
  }),
  route({
    method: 'GET',
    path: '/v1/domains/{domid}/wait',
    summary: 'Answers when the domain has shut down, or is gone',
    params: domain,
    query: object({ until: Type.Union([Type.Literal('shutdown'), Type.Literal('death')]) }),
    reply: DomainEvent,
    run: ({ toolstack, params, query, signal }) => toolstack.wait(params.domid, query.until, signal),
  }),
  route({
    method: 'GET',
    path: '/v1/domains/{domid}/vcpus',
    summary: 'Its virtual CPUs',
    params: domain,
    reply: Type.Array(VcpuInfo),
    run: ({ toolstack, params }) => toolstack.vcpus(params.domid),
  }),
  route({
    method: 'PUT',
    path: '/v1/domains/{domid}/vcpus',
    summary: 'Asks the guest to have so many virtual CPUs up',
    params: domain,
    body: object({ count: Type.Integer({ minimum: 1, maximum: 128 }) }),
    run: ({ toolstack, params, body }) => toolstack.setVcpus(params.domid, body.count),
  }),
  route({
    method: 'PUT',
    path: '/v1/domains/{domid}/affinity',
    summary: 'Processors on which a virtual CPU (null: all of them) may run',
    params: domain,
    body: object({
      vcpu: Type.Union([Type.Integer({ minimum: 0, maximum: 127 }), Type.Null()]),
      cpus: Type.String({ maxLength: 1024, description: 'Such as "0-3,^1", or "all".' }),
    }),
    run: ({ toolstack, params, body }) => toolstack.setAffinity(params.domid, body.vcpu, body.cpus),
  }),
  route({
    method: 'PUT',
    path: '/v1/domains/{domid}/memory',
    summary: 'Asks the guest’s balloon to come to this size',
    params: domain,
    body: object({ target: Kib }),
    run: ({ toolstack, params, body }) => toolstack.setMemory(params.domid, body.target),
  }),
  route({
    method: 'PUT',
    path: '/v1/domains/{domid}/max-memory',
    summary: 'The most that the domain may own from now on',
    params: domain,
    body: object({ maximum: Kib }),
    run: ({ toolstack, params, body }) => toolstack.setMaxMemory(params.domid, body.maximum),
  }),
  route({
    method: 'GET',
    path: '/v1/domains/{domid}/scheduling',
    summary: 'Its parameters of Borrowed Virtual Time',
    params: domain,
    reply: DomainScheduling,
    run: ({ toolstack, params }) => toolstack.domainScheduling(params.domid),
  }),
  route({
    method: 'PATCH',
    path: '/v1/domains/{domid}/scheduling',
    summary: 'Changes those that are given',
    params: domain,
    body: Type.Partial(DomainScheduling, { additionalProperties: false, minProperties: 1 }),
    run: ({ toolstack, params, body }) => toolstack.setDomainScheduling(params.domid, body),
  }),
  route({
    method: 'GET',
    path: '/v1/domains/{domid}/disks',
    summary: 'Its virtual disks',
    params: domain,
    reply: Type.Array(DiskInfo),
    run: ({ toolstack, params }) => toolstack.disks(params.domid),
  }),
  route({
    method: 'POST',
    path: '/v1/domains/{domid}/disks',
    summary: 'Gives it a disk, as xl-disk-configuration(5) writes it',
    params: domain,
    body: object({ spec: Type.String({ maxLength: 4096 }) }),
    run: ({ toolstack, params, body }) => toolstack.attachDisk(params.domid, body.spec),
  }),
  route({
    method: 'DELETE',
    path: '/v1/domains/{domid}/disks/{vdev}',
    summary: 'Takes a disk away; with force without asking the guest',
    params: object({ domid: Domid, vdev: Type.String({ maxLength: 64 }) }),
    query: object({ force: Flag('Does not ask.') }),
    run: ({ toolstack, params, query }) => toolstack.detachDisk(params.domid, params.vdev, query.force),
  }),
  route({
    method: 'GET',
    path: '/v1/domains/{domid}/vifs',
    summary: 'Its network interfaces',
    params: domain,
    reply: Type.Array(VifInfo),
    run: ({ toolstack, params }) => toolstack.vifs(params.domid),
  }),
  route({
    method: 'POST',
    path: '/v1/domains/{domid}/vifs',
    summary: 'Gives it a network interface, as xl-network-configuration(5) writes it',
    params: domain,
    body: object({ spec: Type.String({ maxLength: 4096 }) }),
    run: ({ toolstack, params, body }) => toolstack.attachVif(params.domid, body.spec),
  }),
  route({
    method: 'DELETE',
    path: '/v1/domains/{domid}/vifs/{devid}',
    summary: 'Takes an interface away; with force without asking the guest',
    params: object({ domid: Domid, devid: Type.Integer({ minimum: 0, maximum: 0xffff }) }),
    query: object({ force: Flag('Does not ask.') }),
    run: ({ toolstack, params, query }) => toolstack.detachVif(params.domid, params.devid, query.force),
  }),
  route({
    method: 'POST',
    path: '/v1/domains/{domid}/sysrq',
    summary: 'Sends a magic SysRq',
    params: domain,
    body: object({ letter: Type.String({ minLength: 1, maxLength: 1 }) }),
    run: ({ toolstack, params, body }) => toolstack.sysrq(params.domid, body.letter),
  }),
  route({
    method: 'POST',
    path: '/v1/domains/{domid}/trigger',
    summary: 'Sends a trigger',
    params: domain,
    body: object({ trigger: Trigger, vcpu: Type.Optional(Type.Integer({ minimum: 0, maximum: 127 })) }),
    run: ({ toolstack, params, body }) => toolstack.trigger(params.domid, body.trigger, body.vcpu),
  }),
  route({
    method: 'POST',
    path: '/v1/domains/{domid}/dump-core',
    summary: 'Writes a core dump into a file of the daemon’s host',
    params: domain,
    body: object({ path: AbsolutePath }),
    run: ({ toolstack, params, body }) => toolstack.dumpCore(params.domid, body.path),
  }),
];

/** The console is a WebSocket: the server does it apart from the others. */
export const CONSOLE_PATH = '/v1/domains/{domid}/console';
export const OPENAPI_PATH = '/v1/openapi.json';

/** A path of the table, as a pattern whose groups are its parameters. */
export function pathPattern(path: string): RegExp {
  return new RegExp(`^${path.replaceAll('.', '\\.').replaceAll(/\{(\w+)\}/g, '(?<$1>[^/]+)')}$`);
}
