/** Processors on Node: worker threads. */
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import type { PcpuMessage } from '../../machine/pcpu.ts';
import type { PcpuThread, StartPcpu } from '../machine.ts';
import type { CompilerWorkerData } from './compiler-worker.ts';
import { tuneEngine } from './engine.ts';

/** What the worker is given. */
export interface PcpuWorkerData {
  memory: WebAssembly.Memory;
  /** Linear address of its mailbox. */
  mailbox: number;
  /** To the thread that translates for it; null: it translates itself. */
  compiler: MessagePort | null;
  translate: boolean;
  verify: 'all' | 'sample' | null;
  /** The compiler hands over what earlier runs translated. */
  stored: boolean;
}

export interface PcpuOptions {
  /** The worker's program; it finds a {@link PcpuWorkerData} in workerData and calls runPcpu. */
  script?: URL;
  /** The program of the thread that translates for it; null: no such thread. */
  compilerScript?: URL | null;
  /** Translate hot code (default). */
  translate?: boolean;
  /** Check translated code against the interpreter (x86/core/verify.ts): each run of it, or a sample. */
  verify?: 'all' | 'sample' | null;
  /** The directory in which translations are kept between runs; null (default): they are not. */
  translations?: string | null;
}

/** Makes what starts processors. */
export function nodePcpus({
  script = new URL('./pcpu-worker.js', import.meta.url),
  compilerScript = new URL('./compiler-worker.js', import.meta.url),
  translate = true,
  verify = null,
  translations = null,
}: PcpuOptions = {}): StartPcpu {
  tuneEngine();
  return ({ memory, mailbox }, receive, died): PcpuThread => {
    const compiler =
      compilerScript === null || !translate
        ? null
        : startCompiler(compilerScript, { memory: memory.wasm, translations }, died);
    const workerData: PcpuWorkerData = {
      memory: memory.wasm,
      mailbox,
      compiler: compiler?.port ?? null,
      translate,
      verify,
      stored: translations !== null,
    };
    const transferList = compiler === null ? [] : [compiler.port];
    const worker = new Worker(script, { workerData, transferList, name: 'pcpu0' });
    let wanted = false;
    worker.on('message', (message: PcpuMessage) => receive(message));
    worker.on('error', died);
    worker.on('exit', (code) => {
      if (!wanted) died(new Error(`the processor's thread ended with code ${code}`));
    });
    return {
      ...(compiler && { compilerBusy: () => compiler.worker.performance.eventLoopUtilization().active }),
      async terminate() {
        wanted = true;
        await Promise.all([worker.terminate(), compiler?.worker.terminate()]);
      },
    };
  };
}

/** A thread that translates, and the port at which a processor reaches it. */
function startCompiler(
  script: URL,
  data: Omit<CompilerWorkerData, 'port'>,
  died: (error: Error) => void,
): { worker: Worker; port: MessagePort } {
  const { port1, port2 } = new MessageChannel();
  const worker = new Worker(script, {
    workerData: { port: port1, ...data } satisfies CompilerWorkerData,
    transferList: [port1],
    name: 'compiler0',
  });
  worker.on('error', died);
  return { worker, port: port2 };
}
