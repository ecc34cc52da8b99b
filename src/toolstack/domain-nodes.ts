/**
 * What the store says of a domain from its start, in the places, with the values and with the rights that guests and
 * their tools know from Xen's own toolstack. The devices come later, each with its own nodes.
 */
import type { BuiltDomain } from '../dom0/builder/build.ts';
import type { XenstoreClient } from '../dom0/xenstore/client.ts';
import { domainPath } from '../dom0/xenstore/path.ts';
import { type Permission, Right } from '../dom0/xenstore/permissions.ts';

export interface DomainFacts {
  readonly domid: number;
  readonly uuid: string;
  readonly name: string;
  /** Memory that it starts with, and the most that it can have, in KiB. */
  readonly memory: number;
  readonly maxMemory: number;
  /** Virtual CPUs that it can have, and how many of them it starts with. */
  readonly vcpus: number;
  readonly onlineVcpus: number;
  readonly cmdline: string;
}

/** Bytes of the console's output that a log of it would keep. */
const CONSOLE_LIMIT = 1 << 20;

/** Nodes below the domain's own that it may write, itself and below. */
const ITS_OWN = [
  ...['control/shutdown', 'control/feature-poweroff', 'control/feature-reboot', 'control/feature-suspend'],
  ...['control/sysrq', 'device/suspend/event-channel', 'data', 'drivers', 'feature', 'attr', 'error'],
];

/** Writes a domain's nodes. They are gone with {@link removeDomainNodes}. */
export function writeDomainNodes(
  store: XenstoreClient,
  facts: DomainFacts,
  { console, xenstore }: Pick<BuiltDomain, 'console' | 'xenstore'>,
): void {
  const { domid, uuid, name, memory, maxMemory, vcpus, onlineVcpus, cmdline } = facts;
  const readable: Permission[] = [
    { domid: 0, rights: Right.none },
    { domid, rights: Right.read },
  ];
  const vm = `/vm/${uuid}`;
  const home = domainPath(domid);
  store.mkdir(vm, readable);
  store.mkdir(home, readable);
  const under = (base: string, nodes: Record<string, string | number>) => {
    for (const [path, value] of Object.entries(nodes)) store.write(`${base}/${path}`, `${value}`, readable);
  };
  under(vm, { name, uuid, image: '', 'image/ostype': 'linux', 'image/cmdline': cmdline });
  under(home, { vm, name, domid, cpu: '' });
  for (let id = 0; id < vcpus; id++) {
    const availability = id < onlineVcpus ? 'online' : 'offline';
    under(home, { [`cpu/${id}`]: '', [`cpu/${id}/availability`]: availability });
  }
  under(home, {
    memory: '',
    'memory/static-max': maxMemory,
    'memory/target': memory,
    'memory/videoram': 0,
    device: '',
    'device/suspend': '',
    control: '',
    'control/platform-feature-multiprocessor-suspend': 1,
    'control/platform-feature-xs_reset_watches': 1,
    store: '',
    'store/port': xenstore.port,
    'store/ring-ref': xenstore.mfn,
    console: '',
    'console/port': console.port,
    'console/ring-ref': console.mfn,
    'console/type': 'xenconsoled',
    'console/limit': CONSOLE_LIMIT,
  });
  for (const path of ITS_OWN) store.write(`${home}/${path}`, '', [{ domid, rights: Right.none }]);
}

export function removeDomainNodes(store: XenstoreClient, domid: number, uuid: string): void {
  store.remove(domainPath(domid));
  store.remove(`/vm/${uuid}`);
}
