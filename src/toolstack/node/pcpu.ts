/** Processors on Node: worker threads. One more thread translates for all of them. */
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import type { PcpuMessage } from '../../machine/pcpu.ts';
import type { PcpuSeat } from '../hypervisor-thread.ts';
import type { PcpuThreads, StartPcpu } from '../machine.ts';
import type { CompilerWorkerData } from './compiler-worker.ts';
import { tuneEngine } from './engine.ts';

/** What the worker is given. */
export interface PcpuWorkerData {
  memory: WebAssembly.Memory;
  seat: PcpuSeat;
  /** When the machine was switched on, by {@link monotonicMs}. */
  epoch: number;
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
  /** The program of the thread that translates for them; null: no such thread. */
  compilerScript?: URL | null;
  /** Translate hot code (default). */
  translate?: boolean;
  /** Check translated code against the interpreter (x86/core/verify.ts): each run of it, or a sample. */
  verify?: 'all' | 'sample' | null;
  /** The directory in which translations are kept between runs; null (default): they are not. */
  translations?: string | null;
}

/** A clock that all threads of the process have in common, ms. */
export function monotonicMs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1e3 + nanoseconds / 1e6;
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
  return ({ memory, seats }, receive, died): PcpuThreads => {
    const compiler =
      compilerScript === null || !translate
        ? null
        : startCompiler(compilerScript, { memory: memory.wasm, translations }, seats.length, died);
    const epoch = monotonicMs();
    let wanted = false;
    const workers = seats.map((seat, index) => {
      const port = compiler?.ports[index] ?? null;
      const workerData: PcpuWorkerData = {
        memory: memory.wasm,
        seat,
        epoch,
        compiler: port,
        translate,
        verify,
        stored: translations !== null,
      };
      const worker = new Worker(script, {
        workerData,
        transferList: port === null ? [] : [port],
        name: `pcpu${seat.number}`,
      });
      worker.on('message', (message: PcpuMessage) => receive(seat.number, message));
      worker.on('error', died);
      worker.on('exit', (code) => {
        if (!wanted) died(new Error(`the thread of processor ${seat.number} ended with code ${code}`));
      });
      return worker;
    });
    return {
      ...(compiler && { compilerBusy: () => compiler.worker.performance.eventLoopUtilization().active }),
      async terminate() {
        wanted = true;
        await Promise.all([...workers, compiler?.worker].map((worker) => worker?.terminate()));
      },
    };
  };
}

/** A thread that translates, and a port for each processor at which it is reached. */
function startCompiler(
  script: URL,
  data: Omit<CompilerWorkerData, 'ports'>,
  count: number,
  died: (error: Error) => void,
): { worker: Worker; ports: MessagePort[] } {
  const channels = Array.from({ length: count }, () => new MessageChannel());
  const ports = channels.map(({ port1 }) => port1);
  const worker = new Worker(script, {
    workerData: { ports, ...data } satisfies CompilerWorkerData,
    transferList: ports,
    name: 'compiler0',
  });
  worker.on('error', died);
  return { worker, ports: channels.map(({ port2 }) => port2) };
}
