/**
 * The data of the toolstack's interface, as JSON schemas: the types of the TypeScript interface, what the HTTP server
 * checks, and what its OpenAPI description says are all made of these.
 */
import { type Static, type TSchema, Type } from '@sinclair/typebox';
import {
  ACTIONS,
  ERROR_CODES,
  EVENTS,
  NAME_PATTERN,
  SAVED_FATES,
  SHUTDOWN_REASONS,
  TRIGGERS,
} from './names.ts';

/** One of several strings. */
function oneOf<const T extends readonly string[]>(values: T, description: string) {
  const union = Type.Union(
    values.map((value) => Type.Literal(value)),
    { description },
  );
  return Type.Unsafe<T[number]>(union);
}

function nullable<T extends TSchema>(schema: T) {
  return Type.Union([schema, Type.Null()]);
}

const closed = { additionalProperties: false };

export const Action = oneOf(
  ACTIONS,
  'What is done with a domain that has shut down (xl.cfg(5), "Event Actions").',
);
export type Action = Static<typeof Action>;

const Domid = Type.Integer({ minimum: 0, maximum: 0x7fef, description: 'Number of a domain.' });
const Count = Type.Integer({ minimum: 0 });
const Kib = Type.Integer({ minimum: 0, maximum: 2 ** 42, description: 'KiB.' });
const Seconds = Type.Number({ minimum: 0, description: 'Seconds.' });
const Cpus = Type.String({
  maxLength: 1024,
  description: 'CPUs: "all", or such as "0-3,5,^1" (xl.cfg(5), cpus).',
});
const Path = Type.String({ minLength: 1, maxLength: 4096 });

export const DomainConfig = Type.Object(
  {
    name: Type.String({ pattern: NAME_PATTERN, description: 'No two domains have the same.' }),
    uuid: nullable(
      Type.String({
        pattern: '^[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}$',
        description: 'Null: a new one.',
      }),
    ),
    kernel: Type.String({
      ...Path,
      description:
        'A file, by its absolute path; or "xenolith:NAME", a kernel of Debian’s (debian, cloud, backports, grub).',
    }),
    ramdisk: nullable(
      Type.String({ ...Path, description: 'A file, by its absolute path; or "xenolith:shell". Null: none.' }),
    ),
    cmdline: Type.String({ maxLength: 4096, description: 'The kernel’s command line.' }),
    memory: Type.Integer({ minimum: 4, maximum: 2 ** 32, description: 'What it starts with, KiB.' }),
    maxMemory: Type.Integer({
      minimum: 4,
      maximum: 2 ** 32,
      description: 'The most that it can be given, KiB.',
    }),
    vcpus: Type.Integer({ minimum: 1, maximum: 128, description: 'Virtual CPUs that it starts with.' }),
    maxVcpus: Type.Integer({ minimum: 1, maximum: 128, description: 'Virtual CPUs that it can have.' }),
    cpus: Type.Union([Cpus, Type.Array(Cpus, { maxItems: 128 }), Type.Null()], {
      description: 'Processors on which its virtual CPUs may run: one text for all, or one each. Null: all.',
    }),
    weight: Type.Integer({
      minimum: 1,
      maximum: 65535,
      description: 'Its share of the CPU, against that of others (256).',
    }),
    onPoweroff: Action,
    onReboot: Action,
    onCrash: Action,
    onWatchdog: Action,
    disks: Type.Array(Type.String({ maxLength: 4096 }), {
      maxItems: 256,
      description: 'Virtual disks, as xl-disk-configuration(5) writes them.',
    }),
    vifs: Type.Array(Type.String({ maxLength: 4096 }), {
      maxItems: 64,
      description: 'Network interfaces, as xl-network-configuration(5) writes them.',
    }),
    forwards: Type.Array(Type.String({ maxLength: 256 }), {
      maxItems: 256,
      description: 'Ports of the host that lead to it: [ADDRESS:]PORT:GUESTPORT[/udp].',
    }),
    p9: Type.Array(Type.String({ maxLength: 4096 }), {
      maxItems: 64,
      description: 'Shared folders, as xl.cfg(5) writes them.',
    }),
  },
  { ...closed, description: 'What a domain is made of.' },
);
export type DomainConfig = Static<typeof DomainConfig>;

const ShutdownReason = oneOf(SHUTDOWN_REASONS, 'Why a domain shut down.');
export type ShutdownReason = Static<typeof ShutdownReason>;

export const DomainInfo = Type.Object(
  {
    domid: Domid,
    name: Type.String(),
    uuid: Type.String(),
    memory: Kib,
    maxMemory: Kib,
    vcpus: Type.Integer({ minimum: 0, description: 'Virtual CPUs that are up.' }),
    maxVcpus: Count,
    running: Type.Boolean(),
    blocked: Type.Boolean(),
    paused: Type.Boolean(),
    dying: Type.Boolean(),
    shutdown: nullable(ShutdownReason),
    crashReason: nullable(Type.String({ description: 'For a crash that the hypervisor saw: why.' })),
    cpuTime: Seconds,
    uptime: Seconds,
    disks: Count,
    vifs: Count,
  },
  { ...closed, description: 'A domain, at this moment.' },
);
export type DomainInfo = Static<typeof DomainInfo>;

export const DiskInfo = Type.Object(
  {
    devid: Count,
    vdev: Type.String({ description: 'As the guest calls it: xvda.' }),
    target: nullable(Type.String({ description: 'Where its bytes are.' })),
    readonly: Type.Boolean(),
    backend: Type.String({ description: 'Its back end’s place in the store.' }),
    state: Type.Integer({ description: 'XenbusState; 4: connected.' }),
    eventChannel: Type.Integer({ description: '-1: none.' }),
    ringRef: Type.Integer({ description: '-1: none.' }),
    reads: Count,
    writes: Count,
    flushes: Count,
    bytesRead: Count,
    bytesWritten: Count,
    errors: Count,
  },
  { ...closed, description: 'A virtual disk of a domain, and what was done with it.' },
);
export type DiskInfo = Static<typeof DiskInfo>;

export const VifInfo = Type.Object(
  {
    devid: Count,
    mac: Type.String(),
    bridge: Type.String(),
    address: nullable(Type.String({ description: 'IPv4, as far as its network knows.' })),
    backend: Type.String({ description: 'Its back end’s place in the store.' }),
    state: Type.Integer({ description: 'XenbusState; 4: connected.' }),
    eventChannel: Type.Integer({ description: '-1: none, or one for each direction.' }),
    txRingRef: Type.Integer({ description: '-1: none, or one for each queue.' }),
    rxRingRef: Type.Integer({ description: '-1: none, or one for each queue.' }),
    txPackets: Count,
    txBytes: Count,
    txDropped: Count,
    rxPackets: Count,
    rxBytes: Count,
    rxDropped: Count,
  },
  { ...closed, description: 'A network interface of a domain; tx is what it sent.' },
);
export type VifInfo = Static<typeof VifInfo>;

export const VcpuInfo = Type.Object(
  {
    vcpu: Count,
    online: Type.Boolean(),
    running: Type.Boolean(),
    blocked: Type.Boolean(),
    cpu: Type.Integer({ minimum: 0, description: 'The processor that it ran on last.' }),
    cpuTime: Seconds,
    affinity: nullable(Type.Array(Count, { description: 'Processors that it may run on.' })),
  },
  { ...closed, description: 'A virtual CPU, at this moment. Affinity null: all processors.' },
);
export type VcpuInfo = Static<typeof VcpuInfo>;

export const HostInfo = Type.Object(
  {
    version: Type.String({ description: 'Of Xenolith.' }),
    xenVersion: Type.String({ description: 'Of the interface that guests see.' }),
    processors: Count,
    mhz: Type.Number({ description: 'Of the time-stamp counter that guests see.' }),
    totalMemory: Kib,
    freeMemory: Kib,
    sharedMemory: Type.Integer({ minimum: 0, description: 'What several domains have in common, KiB.' }),
    savedMemory: Type.Integer({ minimum: 0, description: 'And how much more there would be without, KiB.' }),
    scheduler: Type.String(),
    host: Type.String(),
    release: Type.String(),
    kernelVersion: Type.String(),
    machine: Type.String(),
    uptime: Seconds,
  },
  { ...closed, description: 'The machine, and the host that it runs on.' },
);
export type HostInfo = Static<typeof HostInfo>;

const micros = (description: string) => Type.Integer({ minimum: 0, maximum: 2 ** 40, description });

export const SchedulerParameters = Type.Object(
  { contextSwitchAllowance: micros('Microseconds.') },
  { ...closed, description: 'The scheduler (Borrowed Virtual Time), for the whole machine.' },
);
export type SchedulerParameters = Static<typeof SchedulerParameters>;

export const DomainScheduling = Type.Object(
  {
    mcuAdvance: Type.Number({
      exclusiveMinimum: 0,
      maximum: 2 ** 20,
      description: 'Virtual time for each charging unit of 100 us: twice as much is half the share.',
    }),
    warpback: Type.Boolean({ description: 'It borrows when it wakes.' }),
    warpValue: Type.Number({
      minimum: 0,
      maximum: 2 ** 31,
      description: 'How far ahead it is then, virtual time.',
    }),
    warpLimit: micros('For how long it may run so, microseconds; 0: without limit.'),
    unwarpTime: micros('Until it may again, microseconds.'),
  },
  { ...closed, description: 'A domain’s parameters of Borrowed Virtual Time.' },
);
export type DomainScheduling = Static<typeof DomainScheduling>;

export const Trigger = oneOf(TRIGGERS, 'What a domain is sent (xl(1), trigger).');
export type Trigger = Static<typeof Trigger>;

export const SavedFate = oneOf(SAVED_FATES, 'What becomes of a domain that was saved.');
export type SavedFate = Static<typeof SavedFate>;

export const DomainEvent = Type.Object(
  {
    kind: oneOf(EVENTS, 'What happened.'),
    domid: Domid,
    name: Type.String(),
    reason: nullable(ShutdownReason),
  },
  { ...closed, description: 'Something that happened to a domain. A reason comes with a shutdown.' },
);
export type DomainEvent = Static<typeof DomainEvent>;

export const ApiError = Type.Object(
  { error: Type.Object({ code: oneOf(ERROR_CODES, 'What kind of error.'), message: Type.String() }, closed) },
  { ...closed, description: 'Why a request failed; the message is one line for people.' },
);

export const DaemonInfo = Type.Object(
  {
    pid: Count,
    version: Type.String({ description: 'Of Xenolith.' }),
    uptime: Seconds,
    domains: Count,
    notice: nullable(Type.String({ description: 'What became of the daemon before this one, if it died.' })),
  },
  { ...closed, description: 'The daemon.' },
);
export type DaemonInfo = Static<typeof DaemonInfo>;
