/** The program of a processor's worker thread on Node. */
import { randomFillSync } from 'node:crypto';
import { parentPort, workerData } from 'node:worker_threads';
import { Memory } from '../../machine/memory.ts';
import { runHypervisor } from '../hypervisor-thread.ts';
import type { PcpuWorkerData } from './pcpu.ts';

const { memory, mailbox } = workerData as PcpuWorkerData;
const start = performance.now();

runHypervisor(
  new Memory(memory),
  mailbox,
  {
    now: () => (performance.now() - start) * 1e6,
    wallclock: () => (performance.timeOrigin + performance.now()) * 1e6,
    random: (bytes) => {
      randomFillSync(bytes);
    },
  },
  (message) => parentPort!.postMessage(message),
);
