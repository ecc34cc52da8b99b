/** The program of a processor's worker thread on Node. */
import { randomFillSync } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { Memory } from '../../machine/memory.ts';
import { type RegionCompiler, TranslationCounts, VerifyLog } from '../../x86/index.ts';
import { runHypervisor } from '../hypervisor-thread.ts';
import type { CompilerRequest } from './compiler-worker.ts';
import { directFiles } from './direct-files.ts';
import { monotonicMs, type PcpuWorkerData } from './pcpu.ts';

const { memory, seat, epoch, compiler, translate, verify, stored } = workerData as PcpuWorkerData;
// Each thread's clock begins with the thread; the machine's began with the machine.
const start = epoch - (monotonicMs() - performance.now());

const machineMemory = new Memory(memory);

runHypervisor(
  machineMemory,
  seat,
  {
    now: () => (performance.now() - start) * 1e6,
    wallclock: () => (performance.timeOrigin + performance.now()) * 1e6,
    random: (bytes) => {
      randomFillSync(bytes);
    },
  },
  (message) => parentPort!.postMessage(message),
  {
    translate,
    counts: new TranslationCounts(),
    verify: verify === null ? null : new VerifyLog(verify === 'sample'),
    compiler:
      compiler === null
        ? null
        : {
            post: (job) => compiler.postMessage(job satisfies CompilerRequest),
            stored,
            load: (batch) => compiler.postMessage({ load: batch } satisfies CompilerRequest),
            poll: () =>
              (receiveMessageOnPort(compiler)?.message as ReturnType<RegionCompiler['poll']> | undefined) ??
              null,
          },
  },
  directFiles(machineMemory),
);
