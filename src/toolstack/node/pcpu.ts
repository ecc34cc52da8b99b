/** Processors on Node: worker threads. */
import { Worker } from 'node:worker_threads';
import type { PcpuMessage } from '../../machine/pcpu.ts';
import type { PcpuThread, StartPcpu } from '../machine.ts';

/** What the worker is given. */
export interface PcpuWorkerData {
  memory: WebAssembly.Memory;
  /** Linear address of its mailbox. */
  mailbox: number;
}

/**
 * Makes what starts processors.
 * @param script the worker's program; it finds a {@link PcpuWorkerData} in workerData and calls runPcpu.
 */
export function nodePcpus(script: URL = new URL('./pcpu-worker.js', import.meta.url)): StartPcpu {
  return ({ memory, mailbox }, receive, died): PcpuThread => {
    const workerData: PcpuWorkerData = { memory: memory.wasm, mailbox };
    const worker = new Worker(script, { workerData, name: 'pcpu0' });
    let wanted = false;
    worker.on('message', (message: PcpuMessage) => receive(message));
    worker.on('error', died);
    worker.on('exit', (code) => {
      if (!wanted) died(new Error(`the processor's thread ended with code ${code}`));
    });
    return {
      async terminate() {
        wanted = true;
        await worker.terminate();
      },
    };
  };
}
