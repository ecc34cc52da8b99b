/**
 * Regions as WebAssembly functions: (cpu, entry number) -> STATUS, like the interpreter's outlined handlers.
 *
 * The function loads what it uses of the CPU's state into locals, runs, and on every way out stores what it may
 * have changed, in one place. CPU.rip is stored there too; CPU.budget goes down by the instructions that were done.
 */
import { type Func, type I64, i32, i64, type Label, type Local, ModuleBuilder } from '../../wasm/index.ts';
import { STATUS } from '../interpreter/status.ts';
import { CPU } from '../state.ts';
import { importForRegions, type RegionImports } from './imports.ts';
import type { Block, Region } from './region.ts';
import { nothingPending, RegionState, TranslatorSemantics } from './semantics.ts';
import { emitGraph } from './structure.ts';

/** What a first pass over a region finds out for the second. */
interface Findings {
  readonly used: Set<number>;
  readonly dirty: Set<number>;
  flagsUsed: boolean;
  flagsDirty: boolean;
  /** Offsets of instructions that set flags on some paths only. */
  readonly conditional: Set<number>;
}

/** Export name of the i-th region of a module. */
export const regionName = (i: number) => `r${i}`;

/** @param memoryPages see ModuleBuilder */
export function buildRegions(regions: readonly Region[], memoryPages: number): Uint8Array {
  const module = new ModuleBuilder(memoryPages);
  const imports = importForRegions(module);
  regions.forEach((region, i) => {
    const findings: Findings = {
      used: new Set(),
      dirty: new Set(),
      flagsUsed: false,
      flagsDirty: false,
      conditional: new Set(),
    };
    // The first pass writes into a function that is thrown away.
    const draft = new ModuleBuilder(memoryPages);
    importForRegions(draft);
    emitRegion(draft.func('draft', ['i32', 'i32'], ['i32']), region, imports, findings);
    const func = module.func(regionName(i), ['i32', 'i32'], ['i32']);
    emitRegion(func, region, imports, findings);
    module.export(regionName(i), func);
  });
  return module.encode();
}

function emitRegion(f: Func, region: Region, imports: RegionImports, findings: Findings): void {
  const cpu = f.arg('i32', 0);
  const selector = f.arg('i32', 1);
  const state = new RegionState(f, cpu);
  const rip = f.local('i64');
  const status = f.local('i32');
  const budget = f.local('i32');
  f.set(state.tlb, i32.load(cpu, CPU.tlb));
  f.set(state.page, i64.load(cpu, CPU.page));
  f.set(budget, i32.load(cpu, CPU.budget));
  state.load(findings.used, findings.flagsUsed);

  f.block((exit) => {
    emitBody({ f, region, imports, findings, state, selector, rip, status, budget, exit });
    f.unreachable();
  });

  state.store(findings.dirty, findings.flagsDirty);
  f.store(cpu, rip, CPU.rip);
  f.store(cpu, budget, CPU.budget);
  f.result(status);

  for (const register of state.used) findings.used.add(register);
  for (const register of state.dirty) findings.dirty.add(register);
  // What is stored must have been loaded: a way out may lie before the first change.
  for (const register of findings.dirty) findings.used.add(register);
  findings.flagsUsed ||= state.flagsUsed || state.flagsDirty;
  findings.flagsDirty ||= state.flagsDirty;
}

interface Body {
  f: Func;
  region: Region;
  imports: RegionImports;
  findings: Findings;
  state: RegionState;
  selector: Local<'i32'>;
  rip: Local<'i64'>;
  status: Local<'i32'>;
  budget: Local<'i32'>;
  exit: Label;
}

function emitBody(body: Body): void {
  const { f, region, state, budget } = body;
  const { blocks } = region;
  const indexOf = new Map(blocks.map((block, i) => [block.start, i]));
  const node = (offset: number) => indexOf.get(offset)!;

  /** Leaves the region; pending flags are computed here and stay pending for the other paths. */
  const leave = (to: I64, status: number) => {
    f.set(body.rip, to);
    state.emitPending();
    f.set(body.status, i32.const(status));
    f.br(body.exit);
  };
  const place = (offset: number): I64 => i64.add(state.page, offset);

  emitGraph(
    {
      size: blocks.length,
      successors: blocks.map((block) =>
        [block.taken, block.next].filter((to) => to !== null).map((to) => node(to)),
      ),
      entries: region.entries.map(node),
    },
    {
      f,
      selector: body.selector,
      entering(_index, merge) {
        // Several ways lead here: flags are in their locals.
        if (merge) state.pending = nothingPending();
      },
      branching: () => state.flush(),
      backwards(successor) {
        f.if(i32.lt_s(budget, 0), () => leave(place(blocks[successor]!.start), STATUS.transfer));
      },
      node(index, go) {
        emitBlock(body, blocks[index]!, { leave, place, go: (offset) => go(node(offset)) });
      },
    },
  );
}

interface Ways {
  leave(to: I64, status: number): void;
  place(offset: number): I64;
  go(offset: number): void;
}

function emitBlock(body: Body, block: Block, { leave, place, go }: Ways): void {
  const { f, state, budget, findings } = body;
  const count = block.instructions.length;
  f.set(budget, i32.sub(budget, count));
  let left = false;
  block.instructions.forEach(({ offset, instruction }, i) => {
    const behind = offset + instruction.length;
    /** The instructions from this one on have not been done (from the next one on, if it has). */
    const uncount = (done: number) => {
      if (count - i - done > 0) f.set(budget, i32.add(budget, count - i - done));
    };
    const target = instruction.relative ? behind + instruction.immediateLow : 0;
    const semantics = new TranslatorSemantics({
      instruction,
      offset,
      state,
      imports: body.imports,
      direct: findings.conditional.has(offset),
      exits: {
        fault() {
          uncount(0);
          leave(place(offset), STATUS.fault);
        },
        transfer(va) {
          uncount(1);
          leave(va, STATUS.transfer);
        },
        retry() {
          uncount(0);
          leave(place(offset), STATUS.transfer);
        },
        exit() {
          uncount(1);
          leave(place(behind), STATUS.exit);
        },
      },
      branch(condition) {
        const taken = () => {
          if (block.taken !== null && block.taken === target) go(target);
          else leave(place(target), STATUS.transfer);
        };
        if (condition === null) {
          taken();
          left = true;
        } else {
          // What the taken path does to pending flags is not done on the other one.
          const { pending } = state;
          f.if(condition, () => {
            state.pending = { ...pending };
            taken();
          });
          state.pending = pending;
        }
      },
    });
    if (findings.conditional.has(offset)) {
      state.flagsUsed = true;
      state.flush();
    }
    semantics.emit();
    if (semantics.conditionalFlags) findings.conditional.add(offset);
    if (instruction.form!.definition.ends === true) left = true;
  });
  if (left) return;
  if (block.next !== null) go(block.next);
  else leave(place(block.end), STATUS.transfer);
}
