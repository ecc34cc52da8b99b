/**
 * The head of a saved domain's file: all that it is beside the contents of its memory, and the shape of it. What the
 * numbers may be is checked where they are used (xen/domain-save.ts); that they are numbers is checked here.
 */
import { type Static, type TSchema, Type } from '@sinclair/typebox';
import { Value } from '@sinclair/typebox/value';
import type { SavedDomain } from '../../xen/domain-save.ts';
import { DomainConfig } from '../api/model.ts';
import type { SavedRecord } from './format.ts';
import { RecordKind, type RecordReader } from './format.ts';

const closed = { additionalProperties: false } as const;
const object = <T extends Record<string, TSchema>>(properties: T) => Type.Object(properties, closed);
const nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()]);
const U32 = Type.Integer({ minimum: 0, maximum: 0xffff_ffff });
const Flag = Type.Boolean();
/** Times, ns; and addresses, which are signed. */
const Time = Type.Number({ minimum: -(2 ** 62), maximum: 2 ** 62 });
const Amount = Type.Number({ minimum: 0, maximum: 2 ** 62 });
const Address = Type.Number({ minimum: -(2 ** 63), maximum: 2 ** 63 });
const list = <T extends TSchema>(schema: T, maxItems: number) => Type.Array(schema, { maxItems });
const Text = Type.String({ maxLength: 4096 });
const Hex = Type.String({ pattern: '^([0-9a-f]{2})*$', maxLength: 1 << 20 });

const Vcpu = object({
  vcpuInfo: nullable(Type.Tuple([U32, U32])),
  kernelRoot: U32,
  userRoot: U32,
  kernelMode: Flag,
  cr4: U32,
  shadowGsBase: Address,
  kernelSs: U32,
  kernelSp: Address,
  iopl: U32,
  nmiPending: Flag,
  nmiMasked: Flag,
  traps: list(Type.Tuple([U32, U32, U32, Address]), 256),
  callbacks: object({
    event: Address,
    failsafe: Address,
    failsafeMasksEvents: Flag,
    syscall: Address,
    syscallMasksEvents: Flag,
    sysenter: Address,
    syscall32: Address,
  }),
  gdtFrames: list(U32, 16),
  gdtEntries: U32,
  ldtBase: Address,
  ldtEntries: U32,
  timeArea: nullable(Address),
  initialised: Flag,
  down: Flag,
  blocked: Flag,
  runstate: object({
    state: Type.Integer({ minimum: 0, maximum: 3 }),
    since: Time,
    times: list(Amount, 4),
    area: nullable(Address),
  }),
  period: Amount,
  nextPeriod: Time,
  timer: nullable(Time),
  pollTimer: nullable(Time),
});

const Channel = object({
  port: U32,
  state: Type.Integer({ minimum: 0, maximum: 5 }),
  vcpu: U32,
  remoteDomid: U32,
  remotePort: U32,
  virq: U32,
  priority: U32,
  lastPriority: U32,
  lastVcpu: U32,
  pending: Flag,
});

const State = object({
  time: Time,
  wallclock: Amount,
  vmAssist: U32,
  latchedReason: nullable(U32),
  memory: object({
    capacity: U32,
    maxPages: U32,
    totalPages: U32,
    memoryMap: list(object({ address: Amount, length: Amount, type: U32 }), 128),
  }),
  vcpus: Type.Array(Vcpu, { minItems: 1, maxItems: 128 }),
  events: object({
    channels: list(Channel, 1 << 17),
    pollers: list(Type.Tuple([U32, list(U32, 128)]), 128),
    fifo: nullable(
      object({
        pages: list(U32, 128),
        queues: list(object({ vcpu: U32, mfn: U32, offset: U32, tails: list(U32, 16) }), 128),
      }),
    ),
  }),
  grants: object({
    version: Type.Union([Type.Literal(1), Type.Literal(2)]),
    shared: list(U32, 1024),
    status: list(U32, 1024),
    uses: list(Type.Tuple([U32, U32, U32, U32]), 1 << 18),
  }),
  watchdogs: list(nullable(Time), 2),
  scheduling: object({
    mcuAdvance: Type.Number({ minimum: 0.01, maximum: 2 ** 20 }),
    warpback: Flag,
    warpValue: Type.Number({ minimum: 0, maximum: 2 ** 31 }),
    warpLimit: Type.Number({ minimum: 0, maximum: 1e15 }),
    unwarpTime: Type.Number({ minimum: 0, maximum: 1e15 }),
  }),
});

const Domain = object({
  state: State,
  cpus: list(Hex, 128),
  pages: list(Type.Tuple([U32, U32]), 1 << 20),
  frameNumbers: U32,
});

const Ring = object({ mfn: U32, port: U32 });
const NodePath = Type.String({ pattern: '^[A-Za-z0-9_@-]+(/[A-Za-z0-9_@-]+)*$', maxLength: 1024 });
const Nodes = list(Type.Tuple([NodePath, Text]), 4096);

/** What Domain 0 knows of it. */
export const SavedConnections = object({
  console: Ring,
  xenstore: Ring,
  /** Its connection to the store: bytes on their way in both directions, and watches (path, token). */
  store: object({
    input: Hex,
    output: Hex,
    broken: Flag,
    domids: list(U32, 32),
    watches: list(Type.Tuple([Text, Text]), 4096),
  }),
  /** What the guest wrote of itself in the store, by path below its home. */
  nodes: Nodes,
  /** What the front ends of its devices said when they connected. */
  devices: list(object({ kind: Text, devid: U32, nodes: Nodes }), 512),
  memory: U32,
  maxMemory: U32,
  vcpus: U32,
  onlineVcpus: U32,
  cmdline: Text,
});
export type SavedConnections = Static<typeof SavedConnections>;

export const SavedHead = object({
  /** Version of Xenolith, and when it was saved, for people. */
  xenolith: Text,
  saved: Text,
  config: DomainConfig,
  uuid: Type.String({ pattern: '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' }),
  usesEmergencyConsole: Flag,
  connections: SavedConnections,
  domain: Domain,
});
export type SavedHead = Static<typeof SavedHead>;

export function headRecord(head: SavedHead): SavedRecord {
  return { kind: RecordKind.head, bytes: new TextEncoder().encode(JSON.stringify(head)) };
}

/** @throws ToolstackError invalid */
export async function readHead(reader: RecordReader): Promise<SavedHead & { domain: SavedDomain }> {
  const record = await reader.next();
  if (record?.kind !== RecordKind.head) throw reader.damaged();
  let head: unknown;
  try {
    head = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(record.bytes));
  } catch {
    throw reader.damaged('its head is not JSON');
  }
  if (Value.Check(SavedHead, head)) return head as SavedHead & { domain: SavedDomain };
  const [error] = [...Value.Errors(SavedHead, head)];
  throw reader.damaged(`its head has ${error?.path ?? ''}: ${error?.message ?? 'wrong'}`);
}
