/** Processors on Node: worker threads. */
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import type { PcpuMessage } from '../../machine/pcpu.ts';
import type { PcpuThread, StartPcpu } from '../machine.ts';

/** What the worker is given. */
export interface PcpuWorkerData {
  memory: WebAssembly.Memory;
  /** Linear address of its mailbox. */
  mailbox: number;
  /** To the thread that translates for it. */
  compiler: MessagePort;
}

const COMPILER = new URL('./compiler-worker.js', import.meta.url);

/**
 * Makes what starts processors.
 * @param script the worker's program; it finds a {@link PcpuWorkerData} in workerData and calls runPcpu.
 */
export function nodePcpus(script: URL = new URL('./pcpu-worker.js', import.meta.url)): StartPcpu {
  return ({ memory, mailbox }, receive, died): PcpuThread => {
    const { port1, port2 } = new MessageChannel();
    const workerData: PcpuWorkerData = { memory: memory.wasm, mailbox, compiler: port2 };
    const worker = new Worker(script, { workerData, transferList: [port2], name: 'pcpu0' });
    const compiler = new Worker(COMPILER, {
      workerData: { port: port1 },
      transferList: [port1],
      name: 'compiler0',
    });
    // Without it the machine would only be slower; but it does not end by itself.
    compiler.on('error', died);
    let wanted = false;
    worker.on('message', (message: PcpuMessage) => receive(message));
    worker.on('error', died);
    worker.on('exit', (code) => {
      if (!wanted) died(new Error(`the processor's thread ended with code ${code}`));
    });
    return {
      async terminate() {
        wanted = true;
        await Promise.all([worker.terminate(), compiler.terminate()]);
      },
    };
  };
}
