/** What the interpreter calls in TypeScript. Arguments and results are i32; 64-bit values pass through the CPU state. */
import { type Callee, call, type I32, type ModuleBuilder } from '../../wasm/index.ts';

/** Parameter counts of the imports; every one returns an i32 unless listed in VOID. */
export const HOST_SIGNATURES = {
  /** (machine frame): a page with decoded code is about to be written. */
  codeWritten: 1,
  /** (cpu): decodes at CPU.rip; linear address of the record, or 0 with the exception in the exit fields. */
  decode: 1,
  /** (cpu, record): the page behind a straddling instruction is another one now. */
  straddleChanged: 2,
  /** (cpu, record): the record has become hot. */
  hot: 2,
  /**
   * (cpu, record, before): the region at the record is entered often, now from the wide one at `before` (0: not so).
   * Answers 1 if it is not to be entered now: what follows is recorded (see core/recorder.ts).
   */
  often: 3,
  /** (cpu, record): an instruction without definition was met: counted by name. */
  undefinedInstruction: 2,
  /** (cpu, record): the region entered at the record was left with STATUS.apart. */
  leftApart: 2,
  /** (op, cpu, dst, src, imm) */
  sseFloat: 5,
  /** (cpu, escape, modrm, operand) */
  x87: 4,
  /** (which, cpu, operand, value) */
  fpu: 4,
  rdtsc: 2,
  cpuid: 1,
  /** (cpu): 64 random bits to CPU.temp. */
  random: 1,
  segmentQuery: 3,
  loadSegment: 3,
  checkCodeSegment: 3,
} as const;

const VOID: ReadonlySet<string> = new Set([
  'codeWritten',
  'hot',
  'leftApart',
  'straddleChanged',
  'undefinedInstruction',
]);

/** What translated code calls too. */
export const REGION_HOST = [
  'sseFloat',
  'x87',
  'fpu',
  'rdtsc',
  'cpuid',
  'random',
  'segmentQuery',
  'loadSegment',
  'checkCodeSegment',
] as const satisfies readonly (keyof typeof HOST_SIGNATURES)[];

export type HostImportName = keyof typeof HOST_SIGNATURES;
export type HostImports = Readonly<Record<HostImportName, Callee>>;
export type HostImplementation = Readonly<Record<HostImportName, (...args: number[]) => unknown>>;

export function importHost(module: ModuleBuilder): HostImports {
  const imports: Partial<Record<HostImportName, Callee>> = {};
  for (const [name, params] of Object.entries(HOST_SIGNATURES))
    imports[name as HostImportName] = module.import(
      name,
      Array.from({ length: params }, () => 'i32' as const),
      VOID.has(name) ? [] : ['i32'],
    );
  return imports as HostImports;
}

/**
 * Exports the same under the same names, as functions of the module: the engine compiles code for each module that
 * imports a function of TypeScript's, none for one that imports a module's.
 */
export function exportForRegions(module: ModuleBuilder, imports: HostImports): void {
  for (const name of REGION_HOST) {
    const params = Array.from({ length: HOST_SIGNATURES[name] }, () => 'i32' as const);
    const func = module.func(name, params, ['i32']);
    const args: I32[] = params.map((type, i) => func.arg(type, i));
    func.return(call('i32', imports[name], ...args));
    func.unreachable();
    module.export(name, func);
  }
}
