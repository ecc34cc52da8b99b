/**
 * What a processor's thread does: brings the hypervisor up on it and runs it, until it is told to stop.
 */
import { Frames } from '../machine/frames.ts';
import { MailboxReceiver } from '../machine/mailbox.ts';
import type { Memory } from '../machine/memory.ts';
import { dispatch, type PcpuMessage, runPcpu } from '../machine/pcpu.ts';
import { Hypervisor, type HypervisorHost } from '../xen/hypervisor.ts';

/** @param mailbox linear address @param post reaches Domain 0's thread, from a busy thread too */
export function runHypervisor(
  memory: Memory,
  mailbox: number,
  host: HypervisorHost,
  post: (message: PcpuMessage) => void,
): void {
  const receiver = new MailboxReceiver(memory, mailbox, () => post({ kind: 'room' }));
  const hypervisor = new Hypervisor(memory, new Frames(memory), createProcessor, host);
  const { control } = hypervisor;
  control.onNotify = (value) => post({ kind: 'notify', value });
  runPcpu(
    receiver,
    {
      runSlice: () => hypervisor.runSlice(),
      call: (method, args) => dispatch(control, method, args),
      signal: (domid, port) => control.evtchnSend(domid, port),
    },
    post,
  );
}
