/**
 * What a processor's thread does: brings the hypervisor up on it and runs it, until it is told to stop.
 */
import type { DataPlaneFactory } from '../dom0/backend/data-plane.ts';
import { DataPlanes } from '../dom0/backend/data-planes.ts';
import { PLANE_SIGNAL } from '../dom0/backend/plane-client.ts';
import { Frames } from '../machine/frames.ts';
import { MailboxReceiver } from '../machine/mailbox.ts';
import type { Memory } from '../machine/memory.ts';
import { dispatch, type PcpuMessage, runPcpu } from '../machine/pcpu.ts';
import { createProcessor, type ProcessorOptions } from '../x86/index.ts';
import { CPU } from '../x86/state.ts';
import { Hypervisor, type HypervisorHost } from '../xen/hypervisor.ts';

/** What the machine itself tells, beside the hypervisor's control interface. */
export class Instruments {
  private readonly hypervisor: Hypervisor;

  constructor(hypervisor: Hypervisor) {
    this.hypervisor = hypervisor;
  }

  /** Guest instructions that a domain's virtual CPUs executed so far. */
  instructions(domid: number): number {
    const vcpus = this.hypervisor.domain(domid)?.vcpus ?? [];
    return vcpus.reduce((sum, { cpu }) => sum + cpu.number(CPU.instructions), 0);
  }
}

/** Requests that are for the back ends. */
const PLANE_METHODS: ReadonlySet<string> = new Set(['openPlane', 'planeMessage', 'closePlane']);

/** The back ends that there are. */
function dataPlaneFactories(): ReadonlyMap<string, DataPlaneFactory> {
  return new Map();
}

/** @param mailbox linear address @param post reaches Domain 0's thread, from a busy thread too */
export function runHypervisor(
  memory: Memory,
  mailbox: number,
  host: HypervisorHost,
  post: (message: PcpuMessage) => void,
  processor: ProcessorOptions,
): void {
  const receiver = new MailboxReceiver(memory, mailbox, () => post({ kind: 'room' }));
  const hypervisor = new Hypervisor(
    memory,
    new Frames(memory),
    (...parts) => createProcessor(...parts, processor),
    host,
  );
  const { control } = hypervisor;
  const instruments = new Instruments(hypervisor);
  const planes = new DataPlanes(hypervisor, dataPlaneFactories(), (value) => post({ kind: 'notify', value }));
  control.onNotify = (value) => post({ kind: 'notify', value });
  runPcpu(
    receiver,
    {
      runSlice: () => {
        const idle = hypervisor.runSlice();
        return planes.work() ? 0 : idle;
      },
      call: (method, args) => {
        if (PLANE_METHODS.has(method)) return dispatch(planes, method, args);
        if (method === 'destroyDomain') planes.domainGone(args[0]);
        return dispatch(method === 'instructions' ? instruments : control, method, args);
      },
      signal: (a, b) => (a < PLANE_SIGNAL ? control.evtchnSend(a, b) : planes.signal(a - PLANE_SIGNAL, b)),
    },
    post,
  );
}
