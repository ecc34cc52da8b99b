/** The program of the thread that translates hot code for a processor (see x86/translator/compile.ts). */

import type { MessagePort } from 'node:worker_threads';
import { workerData } from 'node:worker_threads';
import { Memory } from '../../machine/memory.ts';
import { type CompileJob, Compiler } from '../../x86/index.ts';

/** What the worker is given. */
export interface CompilerWorkerData {
  /** To the processor that it translates for. */
  port: MessagePort;
  memory: WebAssembly.Memory;
}

const { port, memory } = workerData as CompilerWorkerData;
const compiler = new Compiler(new Memory(memory));
port.on('message', (job: CompileJob) => port.postMessage(compiler.compile(job)));
