/**
 * Gates: exits that the layer above answers in WebAssembly, without leaving guest code. They save nearly all that an
 * exit costs, so they are for the few that come a hundred thousand times a second.
 *
 * A gate sees the CPU's state exactly as it would be after Processor.run. It answers and changes it, or changes
 * nothing and the exit happens as if there were no gate. What it needs to know lies in the CPU's own frame, from
 * CPU.monitor on, which is the layer above's.
 */
import { call, type Func, type I32, i32, i64, type Local, type ModuleBuilder } from '../wasm/index.ts';
import { type Mmu, TLB, tlbIndex } from './mmu.ts';
import { CPU } from './state.ts';

/** What a gate is built with: the functions of the module that it becomes part of. */
export interface GateParts {
  readonly mmu: Mmu;
  /** (cpu) -> RFLAGS. */
  readonly getFlags: Func;
  /** (cpu, value, mask) */
  readonly setFlags: Func;
}

/**
 * Adds a function to the module.
 * @returns (cpu) -> 1: answered, the guest goes on at CPU.rip; 0: nothing changed
 */
export type GateBuilder = (module: ModuleBuilder, parts: GateParts) => Func;

/** What a passage through a gate counts for, in instructions of the budget. */
export const GATE_COST = 20;

/** Processor.setMode, between the two modes of the roots that are loaded. */
export function emitSetMode(f: Func, cpu: I32, supervisor: boolean): void {
  const index = supervisor ? 4 : 0;
  f.store(cpu, i32.const(supervisor ? 1 : 0), CPU.supervisor);
  f.store(cpu, i32.load(cpu, CPU.modeTlbs + index), CPU.tlb);
  f.store(cpu, i32.load(cpu, CPU.modeRoots + index), CPU.root);
}

/**
 * Linear address of a virtual address under the mode that the CPU is in, valid to the end of the page; 0: no access.
 * The address must be canonical.
 */
export function emitTranslate(f: Func, mmu: Mmu, cpu: I32, va: Local<'i64'>, write: boolean): Local<'i32'> {
  const linear = f.local('i32');
  const page = f.let(i64.and(va, i64.const(~0xfffn)));
  const slot = f.let(i32.add(i32.load(cpu, CPU.tlb), tlbIndex(va)));
  f.if(
    i64.eq(i64.load(slot, write ? TLB.write : TLB.read), page),
    () => f.set(linear, i32.add(i32.load(slot, TLB.addend), i32.wrap(va))),
    () => {
      f.set(linear, call('i32', mmu.walk, cpu, page, i32.const(write ? 1 : 0)));
      f.if(linear, () => f.set(linear, i32.or(linear, i32.and(i32.wrap(va), 0xfff))));
    },
  );
  return linear;
}
