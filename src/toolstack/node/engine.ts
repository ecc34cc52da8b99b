/** How V8 is to treat what we generate. */
import { setFlagsFromString } from 'node:v8';

/**
 * Sets what the processor counts on, for this process; before the first WebAssembly module is compiled.
 *
 * Modules are compiled when they are made, on the thread that translates, not when a function is first called on the
 * processor's. The optimising compiler is for what stays hot: it takes a hundred times as long, and the cores that it
 * takes are the guests'. Translated code says which of its branches are hardly ever taken.
 */
export function tuneEngine(): void {
  setFlagsFromString('--no-wasm-lazy-compilation');
  setFlagsFromString('--wasm-tiering-budget=200000000');
  setFlagsFromString('--experimental-wasm-branch-hinting');
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
