import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  decode,
  encode,
  type StoredBatch,
  TranslationStore,
  translatorVersion,
} from './translation-store.ts';

const VERSION = '0123456789abcdef0123456789abcdef';
const OTHER = 'f'.repeat(32);

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'xenolith-store-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

/** One region of two pages, told apart by a number. */
function batch(number: number, size = 100): StoredBatch {
  return {
    module: new Uint8Array(size).fill(number),
    image: new Uint8Array(size / 2).fill(~number),
    regions: [
      {
        pages: [
          {
            delta: 0,
            ranges: [
              [16, 20],
              [100, 101],
            ],
            bytes: Uint8Array.of(1, 2, 3, 4, number),
          },
          { delta: -3, ranges: [[4095, 4096]], bytes: Uint8Array.of(9) },
        ],
        entries: [
          { page: 0, offset: 16 },
          { page: 1, offset: 4095 },
        ],
        apart: [-5, 20],
        wide: true,
        remakes: 2,
      },
    ],
  };
}

const loaded = (store: TranslationStore) => [...store.index()].flatMap(({ name }) => store.load(name) ?? []);
const kept = () => readdirSync(join(directory, VERSION)).filter((name) => name.endsWith('.xlt'));
/** Makes files old, the last one most. */
function age(names: readonly string[]): void {
  names.forEach((name, i) => {
    const time = new Date(Date.now() - (i + 1) * 60_000);
    utimesSync(join(directory, VERSION, name), time, time);
  });
}

describe('translations on disk', () => {
  it('come back as they were kept', () => {
    const store = new TranslationStore(directory, VERSION);
    expect(loaded(store)).toEqual([]);
    store.save(batch(1));
    store.save(batch(2));
    const found = loaded(new TranslationStore(directory, VERSION));
    expect(found).toHaveLength(2);
    expect(found).toContainEqual(batch(1));
    expect(found).toContainEqual(batch(2));
  });

  it('are for the translator that made them only', () => {
    new TranslationStore(directory, VERSION).save(batch(1));
    expect(loaded(new TranslationStore(directory, OTHER))).toEqual([]);
    expect(translatorVersion()).toMatch(/^[0-9a-f]{32}$/);
    expect(translatorVersion()).toBe(translatorVersion());
  });

  it('do not come back when a file was damaged, and the file goes', () => {
    const store = new TranslationStore(directory, VERSION);
    store.save(batch(1));
    const path = join(directory, VERSION, kept()[0]!);
    const bytes = readFileSync(path);
    for (const spoil of [
      () => bytes.subarray(0, bytes.length - 1),
      () => new Uint8Array(0),
      () => Buffer.from(bytes.map((byte, i) => (i === bytes.length - 1 ? byte ^ 1 : byte))),
    ]) {
      writeFileSync(path, spoil());
      expect(loaded(store)).toEqual([]);
      expect(kept()).toEqual([]);
    }
  });

  it('are refused whatever is wrong with them, even under a right hash', () => {
    const good = encode(batch(1));
    expect(decode(good)).toEqual(batch(1));
    const remake = (change: (header: string) => string) => {
      const { regions, ...rest } = batch(1);
      const text = JSON.stringify(regions.map((each) => each));
      const changed = JSON.parse(change(text)) as StoredBatch['regions'];
      return encode({
        ...rest,
        regions: changed.map((region, i) => ({
          ...region,
          pages: region.pages.map((page, j) => ({ ...page, bytes: regions[i]!.pages[j]!.bytes })),
        })),
      });
    };
    for (const [from, to] of [
      ['"delta":0', '"delta":0.5'],
      ['"delta":0', '"delta":7'],
      ['[16,20]', '[20,16]'],
      ['[16,20]', '[16,200]'],
      ['[4095,4096]', '[4095,4097]'],
      ['"offset":16', '"offset":4096'],
      ['"offset":16', '"offset":-1'],
      ['"page":1', '"page":2'],
      ['"page":0', '"page":1'],
      ['[-5,20]', '[-5,"20"]'],
      ['"wide":true', '"wide":1'],
      ['"remakes":2', '"remakes":-1'],
    ] as const) {
      const changed = remake((text) => text.replace(from, to));
      expect(changed).not.toEqual(good);
      expect(decode(changed), `${from} as ${to}`).toBeNull();
    }
    const store = new TranslationStore(directory, VERSION);
    store.save(batch(1));
    const [file] = kept();
    const name = file!.slice(0, -'.xlt'.length);
    expect(store.load(name)).toEqual(batch(1));
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
        const spoilt = good.slice();
        spoilt[at]! ^= change;
        writeFileSync(join(directory, VERSION, file!), spoilt);
        expect(store.load(name)).toBeNull();
        expect(kept()).toEqual([]);
      }),
    );
  });

  it('that were used last come first, and stay longest', () => {
    const store = new TranslationStore(directory, VERSION);
    for (let i = 1; i <= 4; i++) store.save(batch(i));
    age(kept());
    const names = [...store.index()].map(({ name }) => name);
    const oldest = names.at(-1)!;
    expect(store.load(oldest)).not.toBeNull();
    expect([...store.index()][0]!.name).toBe(oldest);
    const size = statSync(join(directory, VERSION, kept()[0]!)).size;
    const small = new TranslationStore(directory, VERSION, {
      directory: size * 2,
      run: 1 << 20,
      regions: 100,
    });
    expect([...small.index()].map(({ name }) => name)).toEqual([oldest, names[0]]);
    expect(kept()).toHaveLength(2);
  });

  it('of other translators go first when there are too many', () => {
    const other = new TranslationStore(directory, OTHER);
    other.save(batch(1, 10_000));
    const old = join(directory, OTHER, readdirSync(join(directory, OTHER))[0]!);
    utimesSync(old, new Date(1e9), new Date(1e9));
    const store = new TranslationStore(directory, VERSION, { directory: 5000, run: 1 << 20, regions: 100 });
    store.save(batch(2));
    expect(loaded(store)).toEqual([batch(2)]);
    expect(readdirSync(join(directory, OTHER))).toEqual([]);
  });

  it('are limited in what one run adds and reads', () => {
    const limits = { directory: 1 << 20, run: 2000, regions: 2 };
    const store = new TranslationStore(directory, VERSION, limits);
    for (let i = 1; i <= 5; i++) store.save(batch(i, 800));
    expect(kept()).toHaveLength(1);
    const wide = new TranslationStore(directory, VERSION);
    for (let i = 1; i <= 5; i++) wide.save(batch(i, 10));
    expect(loaded(new TranslationStore(directory, VERSION, { ...limits, run: 1 << 20 }))).toHaveLength(2);
  });

  it('do not stop anybody where they cannot be kept', () => {
    const file = join(directory, 'file');
    writeFileSync(file, '');
    const store = new TranslationStore(file, VERSION);
    store.save(batch(1));
    expect(store.load('x')).toBeNull();
    expect(loaded(store)).toEqual([]);
    mkdirSync(join(directory, VERSION, 'odd.xlt'), { recursive: true });
    expect(loaded(new TranslationStore(directory, VERSION))).toEqual([]);
  });

  it('leave nothing behind of runs that were cut off', () => {
    const folder = join(directory, VERSION);
    mkdirSync(folder);
    for (const name of ['a.xlt.tmp', 'b.tmp']) writeFileSync(join(folder, name), '');
    utimesSync(join(folder, 'a.xlt.tmp'), new Date(1e9), new Date(1e9));
    loaded(new TranslationStore(directory, VERSION));
    expect(readdirSync(folder)).toEqual(['b.tmp']);
  });
});
