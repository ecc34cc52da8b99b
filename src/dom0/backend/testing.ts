/** For tests: data planes on a hypervisor of the same thread, and what a guest's front end does by hand. */
import { GTF } from '../../xen/public/grant_table.ts';
import { type TestDomain, type TestMachines, testDomains } from '../../xen/testing-domains.ts';
import { XenstoreClient } from '../xenstore/client.ts';
import { Xenstore } from '../xenstore/xenstore.ts';
import type { DataPlaneFactory } from './data-plane.ts';
import { DataPlanes } from './data-planes.ts';
import { PLANE_SIGNAL, PlaneClient } from './plane-client.ts';

export interface TestBackends {
  readonly machines: TestMachines;
  readonly planes: DataPlanes;
  readonly opener: PlaneClient;
  readonly store: XenstoreClient;
  readonly xenstore: Xenstore;
  /** Lets everything come to rest that needs no time. */
  settle(): Promise<void>;
}

/** Messages cross threads as copies, later, and in order: so they do here. */
export function testBackends(
  factories: Readonly<Record<string, DataPlaneFactory>>,
  options: Parameters<typeof testDomains>[0] = {},
): TestBackends {
  const machines = testDomains(options);
  const waiting: (() => void)[] = [];
  const planes = new DataPlanes(machines.hypervisor, new Map(Object.entries(factories)), (notification) => {
    const copy = JSON.parse(JSON.stringify(notification)) as typeof notification;
    waiting.push(() => opener.receive(copy));
  });
  const methods: Record<string, (...args: never[]) => unknown> = {
    openPlane: planes.openPlane.bind(planes),
    planeMessage: planes.planeMessage.bind(planes),
    closePlane: planes.closePlane.bind(planes),
  };
  const opener: PlaneClient = new PlaneClient({
    call: (method, args) =>
      new Promise((resolve, reject) => {
        const copy = JSON.parse(JSON.stringify(args)) as never[];
        waiting.push(() => {
          try {
            resolve(methods[method]!(...copy));
          } catch (error) {
            reject(error);
          }
        });
      }),
    signal: (a, b) => {
      waiting.push(() => planes.signal(a - PLANE_SIGNAL, b));
    },
  });
  const xenstore = new Xenstore();
  for (const { domain } of machines.domains) xenstore.introduce(domain.id);
  const settle = async () => {
    for (let idle = 0; idle < 20; ) {
      const next = waiting.shift();
      if (next) {
        next();
        idle = 0;
      } else if (planes.work()) idle = 0;
      else idle++;
      await Promise.resolve();
    }
  };
  return { machines, planes, opener, store: new XenstoreClient(xenstore), xenstore, settle };
}

/** Fills an entry of a domain's grant table (version 1), as the guest itself does. */
export function grantPage(guest: TestDomain, ref: number, mfn: number, readonly = false): void {
  const { grants, memory, hypervisor } = guest.domain;
  grants.ensure(Math.floor(ref / 512) + 1);
  const frame = grants.frames.mfns(Math.floor(ref / 512) + 1)[Math.floor(ref / 512)]!;
  const at = memory.linear(frame) + (ref % 512) * 8;
  hypervisor.memory.write32(at + 4, mfn);
  hypervisor.memory.write32(at, GTF.permit_access | (readonly ? GTF.readonly : 0));
}

/** The status bits of an entry: whether it is being read or written. */
export function grantInUse(guest: TestDomain, ref: number): boolean {
  return guest.domain.grants.isActive(ref);
}
