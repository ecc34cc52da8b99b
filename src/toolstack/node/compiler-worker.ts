/**
 * The program of the thread that translates hot code for the processors of a machine (see x86/translator/compile.ts).
 * It keeps what it translated on disk, and hands over first what earlier runs kept. What it translates for one
 * processor it hands to the others too: a domain that comes from there, or one with the same kernel, goes on at speed.
 */

import type { MessagePort } from 'node:worker_threads';
import { workerData } from 'node:worker_threads';
import { Memory } from '../../machine/memory.ts';
import { type CompileJob, Compiler, STORED, type StoredResult } from '../../x86/index.ts';
import { compileOptimised } from './engine.ts';
import { TranslationStore, translatorVersion } from './translation-store.ts';

/** What the worker is given. */
export interface CompilerWorkerData {
  /** To the processors that it translates for. */
  ports: readonly MessagePort[];
  memory: WebAssembly.Memory;
  /** The directory of translations, or null: none are kept. */
  translations: string | null;
}

/** What the processor asks: to translate, or to note that a stored batch is of use. */
export type CompilerRequest = CompileJob | { readonly used: number };

const { ports, memory, translations } = workerData as CompilerWorkerData;
const compiler = new Compiler(new Memory(memory));
const store = translations === null ? null : new TranslationStore(translations, translatorVersion());
compiler.optimise = compileOptimised;
const names: string[] = [];
/** Of no stored batch. */
const NEW = -1;
/** Regions that may still be handed to other processors: those that sleep have to keep them until they look. */
const shareable = { regions: 4096 };

function tell(result: StoredResult): void {
  for (const port of ports) port.postMessage(result);
}

function handOver(from: TranslationStore): void {
  for (const { name, batch } of from.load()) {
    try {
      const module = new WebAssembly.Module(new Uint8Array(batch.module));
      const number = names.push(name) - 1;
      tell({ id: STORED, batch: number, module, regions: batch.regions });
    } catch {
      // No module for this engine.
    }
  }
  tell({ id: STORED, batch: NEW, module: null, regions: [] });
}

if (store !== null) {
  compiler.onCompiled = (module, regions) => store.save({ module, regions });
  handOver(store);
}
for (const port of ports)
  port.on('message', (request: CompilerRequest) => {
    if ('used' in request) {
      const name = names[request.used];
      if (name !== undefined) store?.used(name);
      return;
    }
    const result = compiler.compile(request);
    port.postMessage(result);
    const { module, regions } = result;
    if (module === null || ports.length === 1 || shareable.regions < regions.length) return;
    shareable.regions -= regions.length;
    for (const other of ports)
      if (other !== port)
        other.postMessage({ id: STORED, batch: NEW, module, regions } satisfies StoredResult);
  });
