/** The OpenAPI description of the daemon's HTTP interface, made of the table that the server follows. */
import type { TSchema } from '@sinclair/typebox';
import {
  ApiError,
  DaemonInfo,
  DiskInfo,
  DomainConfig,
  DomainEvent,
  DomainInfo,
  DomainScheduling,
  HostInfo,
  SchedulerParameters,
  VcpuInfo,
  VifInfo,
} from '../api/model.ts';
import { CONSOLE_PATH, OPENAPI_PATH, ROUTES, type Route } from './routes.ts';

/** Schemas that have a name of their own there. */
const NAMED: Readonly<Record<string, TSchema>> = {
  ApiError,
  DaemonInfo,
  DiskInfo,
  DomainConfig,
  DomainEvent,
  DomainInfo,
  DomainScheduling,
  HostInfo,
  SchedulerParameters,
  VcpuInfo,
  VifInfo,
};

/** @param version of Xenolith */
export function openApi(version: string): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of ROUTES) {
    paths[route.path] ??= {};
    paths[route.path]![route.method.toLowerCase()] = operation(route);
  }
  paths[CONSOLE_PATH] = { get: consoleOperation() };
  paths[OPENAPI_PATH] = {
    get: {
      operationId: operationId('get', OPENAPI_PATH),
      summary: 'This description',
      responses: { 200: { description: 'OK', content: json({ type: 'object' }) } },
    },
  };
  return {
    openapi: '3.1.0',
    info: {
      title: 'Xenolith',
      version,
      description:
        'A machine and its domains. Served on a Unix socket that only its user may open, and by TCP to who has the token.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: 'http://localhost/' }],
    security: [{}, { token: [] }],
    paths,
    components: {
      schemas: Object.fromEntries(Object.entries(NAMED).map(([name, schema]) => [name, plain(schema)])),
      securitySchemes: {
        token: { type: 'http', scheme: 'bearer', description: 'By TCP; the socket needs none.' },
      },
    },
  };
}

function operation(route: Route): Record<string, unknown> {
  const parameters = [
    ...parametersOf(route.params.properties, 'path', new Set(Object.keys(route.params.properties))),
    ...parametersOf(route.query.properties, 'query', new Set(route.query.required ?? [])),
  ];
  const reply =
    route.reply === null
      ? { 204: { description: 'Done.' } }
      : { 200: { description: 'OK', content: json(reference(route.reply)) } };
  return {
    operationId: operationId(route.method, route.path),
    summary: route.summary,
    ...(parameters.length > 0 ? { parameters } : {}),
    ...(route.body ? { requestBody: { required: true, content: json(reference(route.body)) } } : {}),
    responses: { ...reply, default: errorResponse() },
  };
}

function consoleOperation(): Record<string, unknown> {
  return {
    operationId: 'getDomainConsole',
    summary: 'A domain’s console, as a WebSocket: binary messages, both ways, are what is printed and typed',
    description: 'The server closes with status 1000 when the domain is gone.',
    parameters: [
      { name: 'domid', in: 'path', required: true, schema: { type: 'integer', minimum: 0 } },
      {
        name: 'replay',
        in: 'query',
        description: 'What is shown of what was printed before.',
        schema: { type: 'string', enum: ['all', 'unread', 'none'], default: 'unread' },
      },
    ],
    responses: { 101: { description: 'The WebSocket is open.' }, default: errorResponse() },
  };
}

function errorResponse(): Record<string, unknown> {
  return { description: 'It failed.', content: json(reference(ApiError)) };
}

function parametersOf(
  properties: Readonly<Record<string, TSchema>>,
  where: 'path' | 'query',
  required: ReadonlySet<string>,
): Record<string, unknown>[] {
  return Object.entries(properties).map(([name, schema]) => ({
    name,
    in: where,
    required: required.has(name),
    schema: plain(schema),
  }));
}

function json(schema: unknown): Record<string, unknown> {
  return { 'application/json': { schema } };
}

/** A schema by its name if it has one, with those inside it. */
function reference(schema: TSchema): unknown {
  for (const [name, named] of Object.entries(NAMED)) {
    if (named === schema) return { $ref: `#/components/schemas/${name}` };
  }
  if (schema['type'] === 'array')
    return { ...(plain(schema) as object), items: reference(schema['items'] as TSchema) };
  if (schema['type'] !== 'object') return plain(schema);
  const properties = Object.entries(schema['properties'] as Record<string, TSchema>);
  return {
    ...(plain(schema) as object),
    properties: Object.fromEntries(properties.map(([name, property]) => [name, reference(property)])),
  };
}

/** Without what is TypeBox' own. */
function plain(schema: TSchema): unknown {
  return JSON.parse(JSON.stringify(schema));
}

function operationId(method: string, path: string): string {
  const words = path.replace(/^\/v1\//, '').split(/[^a-zA-Z]+/);
  return method.toLowerCase() + words.map((word) => word.charAt(0).toUpperCase() + word.slice(1)).join('');
}
