/** For tests: a toolstack without a machine. */
import { ConsoleHub } from '../api/console-hub.ts';
import { ToolstackError } from '../api/errors.ts';
import type { DomainConfig, DomainInfo } from '../api/model.ts';
import type { Toolstack } from '../api/toolstack.ts';

export const CONFIG: DomainConfig = {
  name: 'a',
  uuid: null,
  kernel: '/boot/vmlinuz',
  ramdisk: null,
  cmdline: 'console=hvc0',
  memory: 131072,
  maxMemory: 131072,
  vcpus: 1,
  maxVcpus: 1,
  cpus: null,
  weight: 256,
  onPoweroff: 'destroy',
  onReboot: 'restart',
  onCrash: 'destroy',
  onWatchdog: 'destroy',
  disks: [],
  vifs: [],
  forwards: [],
  p9: [],
};

export const INFO: DomainInfo = {
  domid: 1,
  name: 'a',
  uuid: '71cd8584-e6c3-11f1-a3b1-f5d17af398c1',
  memory: 131072,
  maxMemory: 131072,
  vcpus: 1,
  maxVcpus: 1,
  running: false,
  blocked: true,
  paused: false,
  dying: false,
  shutdown: null,
  crashReason: null,
  cpuTime: 1.5,
  uptime: 19.2,
  disks: 0,
  vifs: 0,
};

export interface FakeToolstack {
  readonly toolstack: Toolstack;
  /** Everything that was asked of it. */
  readonly calls: [method: string, ...args: unknown[]][];
  /** The console of domain 1. */
  readonly hub: ConsoleHub;
}

/** Domain 1 is there; every other one is not. What it is asked is noted, and answered with something. */
export function fakeToolstack(): FakeToolstack {
  const calls: FakeToolstack['calls'] = [];
  const hub = new ConsoleHub();
  const answers: Partial<Record<keyof Toolstack, unknown>> = {
    list: [{ ...INFO, domid: 0, name: 'Domain-0' }, INFO],
    domain: INFO,
    create: INFO,
    fork: [INFO],
    restore: INFO,
    configuration: CONFIG,
    log: '(XEN) hello\n',
    wait: { kind: 'destroyed', domid: 1, name: 'a', reason: null },
    vcpus: [{ vcpu: 0, online: true, running: false, blocked: true, cpu: 0, cpuTime: 1.5, affinity: null }],
    disks: [],
    vifs: [],
    scheduler: { contextSwitchAllowance: 5000 },
    domainScheduling: { mcuAdvance: 10, warpback: false, warpValue: 0, warpLimit: 0, unwarpTime: 0 },
    host: {
      version: '1.2.3',
      xenVersion: '4.17-xenolith',
      processors: 1,
      mhz: 1000,
      totalMemory: 4 << 20,
      freeMemory: 3 << 20,
      sharedMemory: 0,
      savedMemory: 0,
      scheduler: 'bvt',
      host: 'h',
      release: 'r',
      kernelVersion: '#1',
      machine: 'x86_64',
      uptime: 5,
    },
  };
  const toolstack = new Proxy({} as Toolstack, {
    get: (_target, method: string) => {
      if (method === 'console') {
        return async (
          domid: number,
          ...rest: Parameters<Toolstack['console']> extends [number, ...infer R] ? R : never
        ) => {
          calls.push(['console', domid, rest[1]]);
          return hub.attach(rest[0], rest[1] ?? 'unread');
        };
      }
      return async (...args: unknown[]) => {
        calls.push([method, ...args.filter((arg) => !(arg instanceof AbortSignal))]);
        const [first] = args;
        if (typeof first === 'number' && first !== 1)
          throw new ToolstackError('not-found', `Domain '${first}' does not exist.`);
        return answers[method as keyof Toolstack];
      };
    },
  });
  return { toolstack, calls, hub };
}
