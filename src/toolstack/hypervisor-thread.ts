/**
 * What a processor's thread does: brings the hypervisor up on it and runs it, until it is told to stop.
 */
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
  control.onNotify = (value) => post({ kind: 'notify', value });
  runPcpu(
    receiver,
    {
      runSlice: () => hypervisor.runSlice(),
      call: (method, args) => dispatch(method === 'instructions' ? instruments : control, method, args),
      signal: (domid, port) => control.evtchnSend(domid, port),
    },
    post,
  );
}
