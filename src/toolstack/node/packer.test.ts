import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { i32, ModuleBuilder } from '../../wasm/index.ts';
import type { StoredRegion } from '../../x86/index.ts';
import { Packer } from './packer.ts';
import { TranslationStore } from './translation-store.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'xenolith-packer-'));
});
afterEach(() => {
  vi.useRealTimers();
  rmSync(directory, { recursive: true });
});

const open = () => new TranslationStore(directory, 'a'.repeat(32));

/** A region told apart by a number, and a module of about so many bytes whose function returns it. */
function part(number: number, size = 100): { regions: StoredRegion[]; module: Uint8Array } {
  const module = new ModuleBuilder(1);
  const f = module.func('region', [], ['i32']);
  for (const stored = f.lasting('i32'); size > 0; size -= 8) f.set(stored, i32.const(0x7fff_ffff));
  f.return(i32.const(number));
  module.export('r0', f);
  const pages = [{ delta: 0, ranges: [[0, 1]] as [number, number][], bytes: Uint8Array.of(number) }];
  const region = { pages, entries: [{ page: 0, offset: 0 }], apart: [], wide: false, remakes: 0 };
  return { regions: [region], module: module.encode() };
}

/** Keeps parts in the store, and tells the packer of them. */
function use(store: TranslationStore, packer: Packer, parts: readonly ReturnType<typeof part>[]): void {
  for (const each of parts) {
    const name = store.save({ ...each, image: new Uint8Array() })!;
    packer.add(name, each.module.length);
  }
}

const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
const optimised: WebAssembly.Module[] = [];
const images = { take: () => Uint8Array.of(7), restore: () => null };
function compile(bytes: Uint8Array): WebAssembly.Module {
  const module = new WebAssembly.Module(bytes);
  optimised.push(module);
  return module;
}

const inStore = () => {
  const store = open();
  return [...store.index()].map(({ name }) => store.load(name)!);
};

describe('packs', () => {
  it('take the places of the modules that they hold, with images', () => {
    const store = open();
    const packer = new Packer(store, images, compile);
    const parts = [1, 2, 3, 4].map((number) => part(number, 40_000));
    use(store, packer, parts.slice(0, 3));
    expect(packer.due).toBe(false);
    use(store, packer, parts.slice(3));
    expect(packer.due).toBe(true);
    packer.pack();
    expect(packer.due).toBe(false);
    const [pack, ...others] = inStore();
    expect(others).toEqual([]);
    expect(pack!.regions).toEqual(parts.flatMap(({ regions }) => regions));
    expect(pack!.image).toEqual(Uint8Array.of(7));
    for (const module of [optimised.at(-1)!, new WebAssembly.Module(pack!.module)]) {
      const { exports } = new WebAssembly.Instance(module, { env: { memory } });
      expect([0, 1, 2, 3].map((i) => (exports[`r${i}`] as () => number)())).toEqual([1, 2, 3, 4]);
    }
  });

  it('begin with what was wanted first, and leave the rest', () => {
    const store = open();
    const packer = new Packer(store, images, compile);
    use(
      store,
      packer,
      [1, 2, 3, 4, 5].map((number) => part(number, 70_000)),
    );
    packer.pack();
    expect(packer.due).toBe(true);
    packer.pack();
    expect(packer.due).toBe(false);
    const bytes = inStore().map(({ regions }) => regions.map(({ pages }) => pages[0]!.bytes[0]));
    expect(bytes.sort((a, b) => a[0]! - b[0]!)).toEqual([[1, 2], [3, 4], [5]]);
  });

  it('are made when nothing has been wanted for a while', () => {
    vi.useFakeTimers();
    const store = open();
    const packer = new Packer(store, images, compile);
    use(
      store,
      packer,
      [1, 2, 3, 4].map((number) => part(number, 70_000)),
    );
    for (let count = 0; count < 20; count++) {
      packer.later();
      vi.advanceTimersByTime(99);
    }
    expect(inStore()).toHaveLength(4);
    vi.runAllTimers();
    expect(inStore().map(({ regions }) => regions.length)).toEqual([2, 2]);
  });

  it('are made of what is left, if another process has packed the rest', () => {
    const store = open();
    const packer = new Packer(store, images, compile);
    const parts = [1, 2, 3].map((number) => part(number, 50_000));
    use(store, packer, parts);
    const [first] = [...store.index()].filter(({ regions }) => regions[0]!.pages[0]!.bytes[0] === 2);
    store.remove(first!.name);
    packer.pack();
    expect(inStore().map(({ regions }) => regions.map(({ pages }) => pages[0]!.bytes[0]))).toEqual([[1, 3]]);
    packer.pack();
    expect(inStore()).toHaveLength(1);
  });

  it('are not made where the engine gives no images, or nothing more can be kept', () => {
    const store = open();
    const packer = new Packer(store, { ...images, take: () => null }, compile);
    use(store, packer, [part(1, 70_000), part(2, 70_000)]);
    packer.pack();
    expect(packer.due).toBe(false);
    expect(inStore().map(({ image }) => image.length)).toEqual([0, 0]);

    const full = new TranslationStore(directory, 'b'.repeat(32), {
      directory: 1 << 30,
      run: 150_000,
      regions: 100,
    });
    const other = new Packer(full, images, compile);
    use(full, other, [part(1, 70_000), part(2, 70_000)]);
    other.pack();
    expect([...full.index()]).toHaveLength(2);
  });
});
