/** What a region's module imports: the interpreter's own functions, and the host's. */
import type { Callee, ModuleBuilder, ValType } from '../../wasm/index.ts';
import { HOST_SIGNATURES, REGION_HOST } from '../interpreter/host.ts';

/** Exported by the interpreter's module (see mmu.ts; interpreter/region-access.ts; flags.ts). */
export const CORE_SIGNATURES = {
  reach: { params: ['i32', 'i64', 'i32'], results: ['i32'] },
  reachGroup: { params: ['i32', 'i64', 'i32', 'i32', 'i32'], results: ['i32'] },
  raise: { params: ['i32', 'i32', 'i32'], results: [] },
  carryOf: { params: ['i32', 'i64', 'i64'], results: ['i32'] },
  settle: { params: ['i32', 'i32', 'i64', 'i64'], results: [] },
  /** (cpu, page's virtual address, frame): whether the page can be fetched from, and is that machine frame. */
  mapped: { params: ['i32', 'i64', 'i32'], results: ['i32'] },
} as const satisfies Record<string, { params: readonly ValType[]; results: readonly ValType[] }>;

export type RegionImports = Readonly<
  Record<keyof typeof CORE_SIGNATURES | (typeof REGION_HOST)[number], Callee>
>;

export const REGION_IMPORTS: readonly string[] = [...Object.keys(CORE_SIGNATURES), ...REGION_HOST];

export function importForRegions(module: ModuleBuilder): RegionImports {
  const imports: Record<string, Callee> = {};
  for (const [name, { params, results }] of Object.entries(CORE_SIGNATURES))
    imports[name] = module.import(name, [...params], [...results]);
  for (const name of REGION_HOST)
    imports[name] = module.import(
      name,
      Array.from({ length: HOST_SIGNATURES[name] }, () => 'i32' as const),
      ['i32'],
    );
  return imports as RegionImports;
}
