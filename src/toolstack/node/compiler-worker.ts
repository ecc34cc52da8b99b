/** The program of the thread that translates hot code for a processor (see x86/translator/compile.ts). */

import type { MessagePort } from 'node:worker_threads';
import { workerData } from 'node:worker_threads';
import { type CompileJob, compileRegions, compilerDecoder } from '../../x86/index.ts';

const port = (workerData as { port: MessagePort }).port;
const decoder = compilerDecoder();
port.on('message', (job: CompileJob) => port.postMessage(compileRegions(decoder, job)));
