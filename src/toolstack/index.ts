/** The toolstack, for programs: `import ... from 'xenolith/toolstack'`. */
export { ToolstackError } from './api/errors.ts';
export { type LocalOptions, LocalToolstack } from './api/local.ts';
export type {
  Action,
  DaemonInfo,
  DiskInfo,
  DomainConfig,
  DomainEvent,
  DomainInfo,
  DomainScheduling,
  HostInfo,
  SchedulerParameters,
  ShutdownReason,
  Trigger,
  VcpuInfo,
  VifInfo,
} from './api/model.ts';
export { type Endpoint, RemoteToolstack, Unreachable } from './api/remote.ts';
export {
  type ConsoleConnection,
  type ConsoleViewer,
  findDomain,
  parseCpus,
  type Replay,
  type Toolstack,
} from './api/toolstack.ts';
export { type ConfigSource, type ReadConfig, readDomainConfig } from './config/domain-config.ts';
export { ConfigError } from './config/error.ts';
export { nodePcpus } from './node/pcpu.ts';
