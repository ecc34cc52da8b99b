/**
 * The program of the thread that translates hot code for the processors of a machine (see x86/translator/compile.ts).
 * It keeps what it translated on disk, and tells first of what earlier runs kept, which it hands over on demand. What
 * it translates for one processor it hands to the others too: a domain that comes from there, or one with the same
 * kernel, goes on at speed.
 */

import type { MessagePort } from 'node:worker_threads';
import { workerData } from 'node:worker_threads';
import { Memory } from '../../machine/memory.ts';
import {
  type CompileJob,
  Compiler,
  KNOWN_REGIONS,
  LOADED,
  type LoadedResult,
  STORED,
  type StoredResult,
} from '../../x86/index.ts';
import { codeImages, compileOptimised } from './engine.ts';
import { Packer } from './packer.ts';
import { TranslationStore, translatorVersion } from './translation-store.ts';

/** What the worker is given. */
export interface CompilerWorkerData {
  /** To the processors that it translates for. */
  ports: readonly MessagePort[];
  memory: WebAssembly.Memory;
  /** The directory of translations, or null: none are kept. */
  translations: string | null;
}

/** What the processor asks: to translate, or for a stored batch. */
export type CompilerRequest = CompileJob | { readonly load: number };

const { ports, memory, translations } = workerData as CompilerWorkerData;
const compiler = new Compiler(new Memory(memory));
const store = translations === null ? null : new TranslationStore(translations, translatorVersion());
compiler.optimise = compileOptimised;
const names: string[] = [];
/** Of no stored batch. */
const NEW = -1;
/** For how long, ms, the store's index is read while others wait. */
const INDEX_MS = 100;
/** Regions that may still be handed to other processors: those that sleep have to keep them until they look. */
const shareable: { regions: number } = { regions: KNOWN_REGIONS.shared };

const images = codeImages(memory);
const packer = store && new Packer(store, images, compileOptimised);

function tell(result: StoredResult): void {
  for (const port of ports) port.postMessage(result);
}

/** @returns null: it is gone, or would have to be compiled for too long */
function load(from: TranslationStore, name: string): WebAssembly.Module | null {
  const batch = from.load(name);
  if (batch === null) return null;
  const bytes = new Uint8Array(batch.module);
  try {
    if (batch.image.length > 0) return images.restore(batch.image, bytes);
    const module = new WebAssembly.Module(bytes);
    packer?.add(name, bytes.length);
    return module;
  } catch {
    // No module for this engine.
    return null;
  }
}

/** What was used last comes first; between the others there is time for requests. */
function tellIndex(index: ReturnType<TranslationStore['index']>): void {
  const until = performance.now() + INDEX_MS;
  for (let next = index.next(); !next.done; next = index.next()) {
    const { name, regions } = next.value;
    tell({ id: STORED, batch: names.push(name) - 1, module: null, regions });
    if (performance.now() < until) continue;
    setImmediate(tellIndex, index);
    return;
  }
  tell({ id: STORED, batch: NEW, module: null, regions: [] });
}

if (store !== null) {
  compiler.onCompiled = (bytes, regions, module) => {
    const wide = regions.some((region) => region.wide);
    const image = wide ? images.take(module) : new Uint8Array();
    const name = image && store.save({ module: bytes, regions, image });
    if (name !== null && !wide) packer?.add(name, bytes.length);
  };
  tellIndex(store.index());
}
for (const port of ports)
  port.on('message', (request: CompilerRequest) => {
    if ('load' in request) {
      const name = names[request.load];
      const module = store === null || name === undefined ? null : load(store, name);
      port.postMessage({ id: LOADED, batch: request.load, module } satisfies LoadedResult);
      packer?.later();
      return;
    }
    const result = compiler.compile(request);
    port.postMessage(result);
    packer?.later();
    const { module, regions } = result;
    if (module === null || ports.length === 1 || shareable.regions < regions.length) return;
    shareable.regions -= regions.length;
    for (const other of ports)
      if (other !== port)
        other.postMessage({ id: STORED, batch: NEW, module, regions } satisfies StoredResult);
  });
