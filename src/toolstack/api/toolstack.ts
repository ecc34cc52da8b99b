/**
 * The toolstack's interface: a machine and its domains, as a program drives them. Everything that `xl` does goes
 * through it.
 *
 * Two classes have it: LocalToolstack (local.ts), which owns a machine in this process, and RemoteToolstack
 * (remote.ts), which speaks to the daemon that owns one. Every method fails with a ToolstackError: `not-found` for a
 * domain that is not there, `invalid` for arguments that make no sense, `unsupported` for what this machine cannot do.
 */
import { ToolstackError } from './errors.ts';
import type {
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
} from './model.ts';

/** Somebody who watches a domain's console, and types on it. */
export interface ConsoleViewer {
  /** The guest printed. @returns false while the viewer is behind: it then calls {@link ConsoleConnection.drained} */
  onOutput(bytes: Uint8Array): boolean;
  /** The domain is gone; nothing follows. */
  onEnd(): void;
  /** The guest takes input again, after {@link ConsoleConnection.type} did not take all of it. */
  onRoom?(): void;
}

export interface ConsoleConnection {
  /** Types. @returns how many bytes were taken */
  type(bytes: Uint8Array): number;
  /** The viewer has caught up. */
  drained(): void;
  close(): void;
}

/** What a viewer sees of what was printed before: all that is kept, what nobody has seen yet, or nothing. */
export type Replay = 'all' | 'unread' | 'none';

export interface SaveOptions {
  /** What becomes of the domain then (`destroy`). */
  readonly after?: SavedFate;
  /** What it is made of when it is restored; null or left out: what it is made of now. */
  readonly config?: DomainConfig | null;
}

export interface RestoreOptions {
  /** Does not let it run yet. */
  readonly paused?: boolean;
  /** What it is made of; null or left out: what the file says. */
  readonly config?: DomainConfig | null;
}

export interface Toolstack {
  host(): Promise<HostInfo>;
  /** Messages of the hypervisor, the newest last. @param clear forgets them after that */
  log(clear?: boolean): Promise<string>;

  /** All domains by number, Domain 0 first. */
  list(): Promise<DomainInfo[]>;
  domain(domid: number): Promise<DomainInfo>;
  /**
   * Makes a domain. @param paused does not let it run yet
   * @throws ToolstackError exists (its name), no-memory, invalid (what it shall be made of)
   */
  create(config: DomainConfig, paused?: boolean): Promise<DomainInfo>;
  /**
   * Makes copies of a domain as it is at this moment, memory shared copy-on-write, each with a number, a name
   * (NAME-1 and so on), an identifier and a console of its own.
   * @param paused does not let them run yet
   * @returns the copies
   */
  fork(domid: number, count?: number, paused?: boolean): Promise<DomainInfo[]>;
  /**
   * Writes a domain into a file, from which it can be restored, here or on another machine. It is destroyed after that,
   * unless it is asked to go on. @param path absolute; a file that is there is replaced when the new one is complete
   * @throws ToolstackError busy, invalid: it cannot be saved; failed: the file cannot be written. It goes on then.
   */
  save(domid: number, path: string, options?: SaveOptions): Promise<void>;
  /**
   * Makes a domain of a saved one: it goes on where it was. @param path absolute
   * @throws ToolstackError invalid: the file is damaged, or none; exists (its name, its UUID); no-memory
   */
  restore(path: string, options?: RestoreOptions): Promise<DomainInfo>;
  destroy(domid: number): Promise<void>;
  /** Asks the guest to go down; it does so when it likes, or never. */
  shutdown(domid: number, how?: 'poweroff' | 'reboot'): Promise<void>;
  pause(domid: number): Promise<void>;
  unpause(domid: number): Promise<void>;
  /** @throws ToolstackError exists, invalid */
  rename(domid: number, name: string): Promise<void>;
  /** What it was made of. */
  configuration(domid: number): Promise<DomainConfig>;
  /** What it will be made of when it restarts, under the name that it has then. */
  setConfiguration(domid: number, config: DomainConfig): Promise<void>;
  /**
   * Waits until a domain has shut down, or (until `death`) is gone; for one that is gone, that is now.
   * @param signal gives the waiting up
   * @returns the last of what happened
   */
  wait(domid: number, until: 'shutdown' | 'death', signal?: AbortSignal): Promise<DomainEvent>;

  vcpus(domid: number): Promise<VcpuInfo[]>;
  /** Asks the guest to have so many virtual CPUs up. */
  setVcpus(domid: number, count: number): Promise<void>;
  /** @param vcpu null: all @param cpus such as "0-3,^1", or "all" */
  setAffinity(domid: number, vcpu: number | null, cpus: string): Promise<void>;
  /** Asks the guest's balloon to come to this size. @param kib at most the domain's maximum */
  setMemory(domid: number, kib: number): Promise<void>;
  /** The most that the domain may own from now on. */
  setMaxMemory(domid: number, kib: number): Promise<void>;
  scheduler(): Promise<SchedulerParameters>;
  setScheduler(parameters: SchedulerParameters): Promise<void>;
  domainScheduling(domid: number): Promise<DomainScheduling>;
  /** Changes what is given, leaves the rest. */
  setDomainScheduling(domid: number, parameters: Partial<DomainScheduling>): Promise<void>;

  disks(domid: number): Promise<DiskInfo[]>;
  /**
   * Gives a domain a disk, also while it runs; it keeps it when it restarts.
   * @param spec as xl-disk-configuration(5) has it, with absolute names of files
   */
  attachDisk(domid: number, spec: string): Promise<void>;
  /**
   * Takes a disk away. @param vdev such as xvda @param force does not ask the guest
   * @throws ToolstackError busy: the guest keeps it
   */
  detachDisk(domid: number, vdev: string, force?: boolean): Promise<void>;
  vifs(domid: number): Promise<VifInfo[]>;
  /** @param spec as xl-network-configuration(5) has it */
  attachVif(domid: number, spec: string): Promise<void>;
  /** @param devid of the interface @throws ToolstackError busy: the guest keeps it */
  detachVif(domid: number, devid: number, force?: boolean): Promise<void>;

  /** A magic SysRq. @param letter one character */
  sysrq(domid: number, letter: string): Promise<void>;
  trigger(domid: number, trigger: Trigger, vcpu?: number): Promise<void>;
  /** Writes the domain's state and memory into a file of Xen's dump-core format. @param path absolute */
  dumpCore(domid: number, path: string): Promise<void>;

  /** Connects to a domain's console. */
  console(domid: number, viewer: ConsoleViewer, replay?: Replay): Promise<ConsoleConnection>;
}

/** Domain 0: this side. It is listed, and nothing can be done to it. */
export const DOMAIN_0 = 0;

/**
 * The domain that a person means: by its number or its name.
 * @returns null if there is none
 */
export async function findDomain(toolstack: Toolstack, qualifier: string): Promise<DomainInfo | null> {
  return domainOf(await toolstack.list(), qualifier);
}

/** The same, of domains that are known. */
export function domainOf(domains: readonly DomainInfo[], qualifier: string): DomainInfo | null {
  const byNumber = /^\d{1,10}$/.test(qualifier);
  return (
    domains.find(({ domid, name }) => (byNumber ? domid === Number(qualifier) : name === qualifier)) ?? null
  );
}

/**
 * The processors that a text such as "0-3,5,^1" or "all" names (xl.cfg(5), cpus).
 * @throws ToolstackError invalid
 */
export function parseCpus(text: string, processors: number): number[] {
  const chosen = new Set<number>();
  for (const part of text.split(',').map((piece) => piece.trim())) {
    const match = /^(\^?)(?:(all)|(?:nodes?:)?(\d{1,5})(?:-(\d{1,5}))?)$/.exec(part);
    if (!match)
      throw new ToolstackError('invalid', `"${text}" is not a list of CPUs (examples: all; 0-3,5,^1)`);
    const [, not, all, from, to] = match;
    // The machine is one NUMA node, number 0, with every processor in it.
    const node = part.includes('node');
    const first = all || node ? 0 : Number(from);
    let last = all ? processors - 1 : Number(to ?? from);
    if (node) last = Number(from) === 0 ? processors - 1 : -1;
    else if (last < first) throw new ToolstackError('invalid', `"${part}" is not a range of CPUs`);
    for (let cpu = first; cpu <= last && cpu < processors; cpu++) {
      if (not) chosen.delete(cpu);
      else chosen.add(cpu);
    }
  }
  if (chosen.size === 0) {
    throw new ToolstackError('invalid', `"${text}" names none of the machine's CPUs (0-${processors - 1})`);
  }
  return [...chosen].sort((a, b) => a - b);
}
