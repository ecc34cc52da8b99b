/**
 * What runs now and then is compiled by the engine's baseline compiler, a few regions at a time as they become hot, and
 * a run that finds them in the store has to do that again: of all that a warm start waits for it was most. So when
 * nobody wants anything of the translating thread, it has the modules that this run used compiled by the optimising
 * compiler, several as one, and leaves that in their place for later runs. This run goes on with what it has.
 */
import { mergeRegions } from '../../x86/index.ts';
import type { CodeImages } from './engine.ts';
import type { TranslationStore } from './translation-store.ts';

/** Bytes of modules that make a pack: a few dozen regions, compiled in about 50 ms. */
const PACK = 128 << 10;

/** For how long, ms, nobody has wanted anything when they are made, one at a time. */
const QUIET = 100;

/** A module without an image, in the store. */
interface Part {
  readonly name: string;
  /** The module's. */
  readonly bytes: number;
}

export class Packer {
  private readonly store: TranslationStore;
  private readonly images: CodeImages;
  private readonly compile: (module: Uint8Array) => WebAssembly.Module;
  /** In the order in which they were wanted. */
  private parts: Part[] = [];
  private bytes = 0;
  private quiet: NodeJS.Timeout | undefined;

  /** @param compile by the optimising compiler */
  constructor(
    store: TranslationStore,
    images: CodeImages,
    compile: (module: Uint8Array) => WebAssembly.Module,
  ) {
    this.store = store;
    this.images = images;
    this.compile = compile;
  }

  /** This run uses a module. @param bytes the module's length */
  add(name: string, bytes: number): void {
    this.parts.push({ name, bytes });
    this.bytes += bytes;
  }

  /** Something was wanted just now: packs are made when nothing is any more. */
  later(): void {
    clearTimeout(this.quiet);
    if (!this.due) return;
    this.quiet = setTimeout(() => {
      this.pack();
      // What came meanwhile is first.
      setImmediate(() => this.later());
    }, QUIET);
  }

  /** There is enough for a pack. */
  get due(): boolean {
    return this.bytes >= PACK;
  }

  /** Makes one, of those that were wanted first. */
  pack(): void {
    const { store } = this;
    let bytes = 0;
    let count = 0;
    while (bytes < PACK && count < this.parts.length) bytes += this.parts[count++]!.bytes;
    this.bytes -= bytes;
    // Somebody else may have packed it already.
    const parts = this.parts.splice(0, count).flatMap(({ name }) => {
      const batch = store.load(name);
      return batch === null ? [] : [{ name, ...batch }];
    });
    const module = mergeRegions(parts.map((part) => part.module));
    const image = module && this.images.take(this.compile(module));
    if (!image) return;
    const regions = parts.flatMap((part) => part.regions);
    if (store.save({ module, regions, image }) === null) return;
    for (const { name } of parts) store.remove(name);
  }
}
