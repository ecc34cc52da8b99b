/** How V8 is to treat what we generate. */
import { setFlagsFromString } from 'node:v8';

/**
 * Sets what the processor counts on, for this process; before the first WebAssembly module is compiled.
 *
 * Modules are compiled when they are made, on the thread that translates, not when a function is first called on the
 * processor's. The optimising compiler is for what stays hot: it takes a hundred times as long, and the cores that it
 * takes are the guests'. Translated code says which of its branches are hardly ever taken. It does not recurse, and
 * leaves each loop in time: loops need not look whether they are to be interrupted.
 */
export function tuneEngine(): void {
  setFlagsFromString('--no-wasm-lazy-compilation');
  setFlagsFromString('--wasm-tiering-budget=200000000');
  setFlagsFromString('--experimental-wasm-branch-hinting');
  setFlagsFromString('--no-wasm-stack-checks');
  // Copies of loop bodies, which made the optimising compiler a fifth slower and nothing faster.
  setFlagsFromString('--no-wasm-loop-peeling');
  setFlagsFromString('--no-wasm-loop-unrolling');
  // One module at a time on one core: the others are the guests'.
  setFlagsFromString('--wasm-num-compilation-tasks=1');
  // Our own JavaScript is optimised later: the cores have enough to do when much is new.
  setFlagsFromString('--interrupt-budget=400000');
}

/** Compiles a module by the optimising compiler at once. Flags are the process's: modules that other threads make meanwhile may be treated likewise. */
export function compileOptimised(bytes: Uint8Array): WebAssembly.Module {
  setFlagsFromString('--no-liftoff');
  try {
    return new WebAssembly.Module(bytes);
  } finally {
    // Without the baseline compiler there are no tiers: V8 takes that flag back by itself, and does not set it again.
    setFlagsFromString('--liftoff');
    setFlagsFromString('--wasm-dynamic-tiering');
  }
}

/**
 * What the optimising compiler made of a module, as bytes that another run of the same engine takes instead of
 * compiling again: 50 times as fast. V8 checks its version, its flags and the processor's features in them.
 */
export interface CodeImages {
  /** @returns null: there is none of it */
  take(module: WebAssembly.Module): Uint8Array | null;
  /** @param bytes the module's @returns null: the image is none of this engine's */
  restore(image: Uint8Array, bytes: Uint8Array): WebAssembly.Module | null;
}

const NO_IMAGES: CodeImages = { take: () => null, restore: () => null };

/** The engine whose functions these are: with another's we would not know what they want. */
const ENGINE = /^11\.3\./;

/**
 * V8's own functions for that, which it has for its tests.
 * @param memory what modules import
 */
export function codeImages(memory: WebAssembly.Memory): CodeImages {
  if (!ENGINE.test(process.versions['v8']!)) return NO_IMAGES;
  setFlagsFromString('--allow-natives-syntax');
  const optimised = new Function('f', 'return %IsTurboFanFunction(f)') as (f: unknown) => boolean;
  const serialize = new Function('m', 'return %SerializeWasmModule(m)') as (m: unknown) => ArrayBuffer;
  const deserialize = new Function('i', 'b', 'return %DeserializeWasmModule(i, b)') as (
    image: ArrayBuffer,
    bytes: Uint8Array,
  ) => unknown;
  return {
    take(module) {
      // V8 insists that there is something to be taken. Only of instances it tells.
      const env: Record<string, unknown> = {};
      for (const { name, kind } of WebAssembly.Module.imports(module))
        env[name] = kind === 'memory' ? memory : () => 0;
      const functions = Object.values(new WebAssembly.Instance(module, { env }).exports);
      return functions.every(optimised) ? new Uint8Array(serialize(module)) : null;
    },
    restore(image, bytes) {
      const module = deserialize(image.slice().buffer, bytes);
      return module instanceof WebAssembly.Module ? module : null;
    },
  };
}
