/** Modules made into one: their functions, one module's after the other's, without names. */
import { BRANCH_HINTS, EXTERNAL_FUNCTION, PREAMBLE, SECTION } from './binary.ts';
import { Bytes, sameBytes } from './bytes.ts';

interface Part {
  readonly types: Uint8Array;
  readonly imports: Uint8Array;
  /** Index of its first function. */
  readonly base: number;
  /** How many things it exports. */
  readonly exported: number;
  /** Of each function: its type, its body with its size in front, and its branch hints with their count in front. */
  readonly functions: readonly number[];
  readonly bodies: readonly Uint8Array[];
  readonly hints: ReadonlyMap<number, Uint8Array>;
}

/**
 * @param modules by {@link ModuleBuilder}, without tables. Their functions call imported ones only
 * @param nameOf what the i-th function of all is exported as
 * @returns null: they differ in types or imports, or have functions that they do not export
 */
export function mergeModules(
  modules: readonly Uint8Array[],
  nameOf: (i: number) => string,
): Uint8Array | null {
  const parts = modules.map(parse);
  const [first] = parts;
  if (first === undefined) return null;
  const fits = ({ types, imports, functions, exported }: Part) =>
    sameBytes(types, first.types) && sameBytes(imports, first.imports) && exported === functions.length;
  if (!parts.every(fits)) return null;
  const out = new Bytes(modules.reduce((sum, { length }) => sum + length, 0));
  out.bytes(PREAMBLE);
  const functions = parts.flatMap((part) => part.functions);
  out.section(SECTION.type, (s) => s.bytes(first.types));
  out.section(SECTION.import, (s) => s.bytes(first.imports));
  out.section(SECTION.function, (s) => {
    s.u32(functions.length);
    for (const type of functions) s.u32(type);
  });
  out.section(SECTION.export, (s) => {
    s.u32(functions.length);
    for (const i of functions.keys()) {
      s.name(nameOf(i));
      s.u8(EXTERNAL_FUNCTION);
      s.u32(first.base + i);
    }
  });
  out.section(SECTION.custom, (s) => {
    s.name(BRANCH_HINTS);
    s.u32(parts.reduce((sum, { hints }) => sum + hints.size, 0));
    let base = first.base;
    for (const part of parts) {
      for (const [index, hints] of part.hints) {
        s.u32(base + index - part.base);
        s.bytes(hints);
      }
      base += part.functions.length;
    }
  });
  out.section(SECTION.code, (s) => {
    s.u32(functions.length);
    for (const body of parts.flatMap(({ bodies }) => bodies)) s.bytes(body);
  });
  return out.view().slice();
}

function parse(module: Uint8Array): Part {
  const reader = new Reader(module, PREAMBLE.length);
  const sections = new Map<number, Uint8Array>();
  let hinted = new Uint8Array([0]);
  while (!reader.done) {
    const id = reader.u8();
    const content = reader.take(reader.u32());
    if (id !== SECTION.custom) sections.set(id, content);
    else {
      const custom = new Reader(content);
      if (custom.name() === BRANCH_HINTS) hinted = custom.rest();
    }
  }
  const [types, imports] = [sections.get(SECTION.type)!, sections.get(SECTION.import)!];
  const functions = new Reader(sections.get(SECTION.function)!);
  const code = new Reader(sections.get(SECTION.code)!);
  const hints = new Reader(hinted);
  return {
    types,
    imports,
    // One of the imports is the memory.
    base: new Reader(imports).u32() - 1,
    exported: new Reader(sections.get(SECTION.export)!).u32(),
    functions: Array.from({ length: functions.u32() }, () => functions.u32()),
    bodies: Array.from({ length: code.u32() }, () => code.since(() => code.take(code.u32()))),
    hints: new Map(
      Array.from({ length: hints.u32() }, () => {
        const index = hints.u32();
        const list = hints.since(() => {
          for (let left = hints.u32(); left > 0; left--) {
            hints.u32();
            hints.take(2);
          }
        });
        return [index, list];
      }),
    ),
  };
}

class Reader {
  private readonly bytes: Uint8Array<ArrayBuffer>;
  private at: number;

  constructor(bytes: Uint8Array, at = 0) {
    this.bytes = bytes as Uint8Array<ArrayBuffer>;
    this.at = at;
  }

  get done(): boolean {
    return this.at >= this.bytes.length;
  }

  u8(): number {
    return this.bytes[this.at++]!;
  }

  u32(): number {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.u8();
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value >>> 0;
    }
  }

  take(length: number): Uint8Array<ArrayBuffer> {
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  rest(): Uint8Array<ArrayBuffer> {
    return this.take(this.bytes.length - this.at);
  }

  /** The bytes that something reads. */
  since(read: () => void): Uint8Array<ArrayBuffer> {
    const start = this.at;
    read();
    return this.bytes.subarray(start, this.at);
  }

  name(): string {
    return new TextDecoder().decode(this.take(this.u32()));
  }
}
