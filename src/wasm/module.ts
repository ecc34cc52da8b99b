/** A WebAssembly module under construction (binary format 1). One imported shared memory, one table. */
import { BRANCH_HINTS, EXTERNAL_FUNCTION, PREAMBLE, SECTION } from './binary.ts';
import { Bytes } from './bytes.ts';
import type { ValType } from './expr.ts';
import { type Callee, Func, type FuncType, TYPE_CODE } from './func.ts';

interface ImportedFunction extends Callee {
  readonly name: string;
}

export class ModuleBuilder {
  private readonly types: FuncType[] = [];
  private readonly imports: ImportedFunction[] = [];
  private readonly funcs: Func[] = [];
  private readonly exported = new Map<string, Callee>();
  private readonly elements: Callee[] = [];
  private tableName: string | null = null;
  private readonly memoryPages: number;
  private readonly memoryMaximum: number;

  /**
   * The shared memory imported as env.memory has at least so many pages of 64 KiB, and a maximum of at most so many
   * (65,536 fits any).
   */
  constructor(memoryPages: number, memoryMaximum = memoryPages) {
    this.memoryPages = memoryPages;
    this.memoryMaximum = memoryMaximum;
  }

  type(type: FuncType): number {
    const same = (a: readonly ValType[], b: readonly ValType[]) =>
      a.length === b.length && a.every((t, i) => t === b[i]);
    const known = this.types.findIndex((t) => same(t.params, type.params) && same(t.results, type.results));
    return known >= 0 ? known : this.types.push(type) - 1;
  }

  /** A function of the host, from module "env". All imports come before the first own function. */
  import(name: string, params: ValType[], results: ValType[]): Callee {
    if (this.funcs.length > 0) throw new Error(`import ${name} behind a function`);
    const imported = { name, params, results, index: this.imports.length };
    this.imports.push(imported);
    return imported;
  }

  func(name: string, params: ValType[], results: ValType[]): Func {
    const func = new Func(this.imports.length + this.funcs.length, name, { params, results });
    this.funcs.push(func);
    return func;
  }

  export(name: string, func: Callee): void {
    this.exported.set(name, func);
  }

  /** Exports the table under a name; it can grow. */
  exportTable(name: string): void {
    this.tableName = name;
  }

  /** Puts a function into the table; its slot. */
  element(func: Callee): number {
    return this.elements.push(func) - 1;
  }

  encode(): Uint8Array {
    const out = new Bytes(1 << 16);
    out.bytes(PREAMBLE);
    for (const func of [...this.imports, ...this.funcs]) this.type(func);
    out.section(SECTION.type, (s) => {
      s.u32(this.types.length);
      for (const { params, results } of this.types) {
        s.u8(0x60);
        for (const list of [params, results]) {
          s.u32(list.length);
          for (const type of list) s.u8(TYPE_CODE[type]);
        }
      }
    });
    out.section(SECTION.import, (s) => {
      s.u32(this.imports.length + 1);
      s.name('env');
      s.name('memory');
      s.bytes([0x02, 0x03]);
      s.u32(this.memoryPages);
      s.u32(this.memoryMaximum);
      for (const func of this.imports) {
        s.name('env');
        s.name(func.name);
        s.u8(EXTERNAL_FUNCTION);
        s.u32(this.type(func));
      }
    });
    out.section(SECTION.function, (s) => {
      s.u32(this.funcs.length);
      for (const func of this.funcs) s.u32(this.type(func));
    });
    if (this.elements.length > 0)
      out.section(SECTION.table, (s) => {
        s.bytes([0x01, 0x70, 0x00]);
        s.u32(this.elements.length);
      });
    out.section(SECTION.export, (s) => {
      s.u32(this.exported.size + (this.tableName === null ? 0 : 1));
      if (this.tableName !== null) {
        s.name(this.tableName);
        s.bytes([0x01, 0x00]);
      }
      for (const [name, func] of this.exported) {
        s.name(name);
        s.u8(EXTERNAL_FUNCTION);
        s.u32(func.index);
      }
    });
    if (this.elements.length > 0)
      out.section(SECTION.element, (s) => {
        s.bytes([0x01, 0x00, 0x41, 0x00, 0x0b]);
        s.u32(this.elements.length);
        for (const func of this.elements) s.u32(func.index);
      });
    const encoded = this.funcs.map((func) => ({ index: func.index, ...func.encode() }));
    const hinted = encoded.filter(({ hints }) => hints.length > 0);
    out.section(SECTION.custom, (s) => {
      s.name(BRANCH_HINTS);
      s.u32(hinted.length);
      for (const { index, hints } of hinted) {
        s.u32(index);
        s.u32(hints.length);
        for (const [at, taken] of hints) {
          s.u32(at);
          s.u8(1);
          s.u8(taken ? 1 : 0);
        }
      }
    });
    out.section(SECTION.code, (s) => {
      s.u32(this.funcs.length);
      for (const { code } of encoded) s.sized(code);
    });
    out.section(SECTION.custom, (s) => {
      s.name('name');
      const names = new Bytes(1024);
      names.u32(this.funcs.length);
      for (const func of this.funcs) {
        names.u32(func.index);
        names.name(func.name);
      }
      s.u8(1);
      s.sized(names);
    });
    return out.view().slice();
  }
}
