/**
 * The interpreter as a WebAssembly module, made from the instruction definitions.
 *
 * run(cpu, record) executes records from the given one on (0: from CPU.rip) until an exit. Hot forms are cases of
 * its dispatch; the others are functions of their own in the module's table, called as (cpu, record) and answering
 * with a STATUS. Instructions are counted where control leaves straight-line code: records follow each other, so
 * the distance from where the run began is the count.
 */
import {
  call,
  callIndirect,
  type Func,
  type I32,
  i32,
  i64,
  ModuleBuilder,
  select,
} from '../../wasm/index.ts';
import { ACTIVITY } from '../core/activity.ts';
import { GATE_COST, type GateBuilder } from '../gates.ts';
import type { Definition } from '../isa/definition.ts';
import { expandForms, type Form, formName } from '../isa/form.ts';
import { buildMmu, type Mmu, notCanonical, TLB, tlbIndex } from '../mmu.ts';
import { GLUE, RECORD } from '../records.ts';
import { CPU, Exit, VECTOR } from '../state.ts';
import { buildCarryOf, buildSettle } from '../translator/flags.ts';
import { buildGetFlags, buildSetFlags } from './flags.ts';
import { emitArrival, emitHeat, HEAT_FROM_WIDE } from './heat.ts';
import { exportForRegions, importHost } from './host.ts';
import { emitJump, emitRemember } from './jumps.ts';
import { buildReach, buildReachGroup } from './region-access.ts';
import { type Environment, InterpreterSemantics } from './semantics.ts';
import { STATUS } from './status.ts';
import { RING_SIZE } from './transfers.ts';

/** Answer of run: the instruction at CPU.rip is to be stepped, then run goes on. */
export const INTERPRET = 255;

/** Bytes of a code map: a u32 for each byte of a page. */
export const CODE_MAP_SIZE = 4096 * 4;

export interface InterpreterModule {
  readonly bytes: Uint8Array;
  readonly forms: readonly Form[];
  /** Handler number of each form, by Form.index. */
  readonly handlers: Uint16Array;
}

/**
 * @param memoryPages see ModuleBuilder
 * @param verifying for checking translations (see core/verify.ts): run ends after exactly CPU.budget instructions, hot
 *   code is not reported, and the walker asks `copyOf` where a page is
 * @param buildGate see gates.ts
 */
export function buildInterpreter(
  definitions: readonly Definition[],
  memoryPages: number,
  verifying = false,
  buildGate?: GateBuilder,
): InterpreterModule {
  const module = new ModuleBuilder(memoryPages);
  const imports = importHost(module);
  const copyOf = verifying ? module.import('copyOf', ['i32', 'i32', 'i32'], ['i32']) : undefined;
  const mmu = buildMmu(module, { ...imports, ...(copyOf && { copyOf }) });
  const env: Environment = {
    mmu,
    imports,
    getFlags: buildGetFlags(module),
    setFlags: buildSetFlags(module),
  };
  const resolve = buildResolve(module, env);
  const gate = buildGate?.(module, env) ?? null;
  const forms = expandForms(definitions);
  const hot = forms.filter((form) => form.definition.hot);
  const cold = forms.filter((form) => !form.definition.hot);
  const handlers = new Uint16Array(forms.length);
  hot.forEach((form, i) => {
    handlers[form.index] = GLUE.count + i;
  });
  cold.forEach((form, i) => {
    handlers[form.index] = GLUE.count + hot.length + i;
  });
  const outlined = cold.map((form) => buildOutlined(module, form, env));
  for (const func of outlined) module.element(func);
  buildRun(module, hot, env, resolve, verifying, gate);
  module.exportTable('table');
  const reach = buildReach(module, mmu);
  module.export('reach', reach);
  module.export('reachGroup', buildReachGroup(module, reach));
  module.export('raise', mmu.raise);
  const carry = buildCarryOf(module);
  module.export('carryOf', carry);
  module.export('settle', buildSettle(module, carry));
  module.export('mapped', buildMapped(module, mmu));
  exportForRegions(module, imports);
  return { bytes: module.encode(), forms, handlers };
}

/** A handler as a function: (cpu, record) -> STATUS. */
function buildOutlined(module: ModuleBuilder, form: Form, env: Environment): Func {
  const f = module.func(formName(form), ['i32', 'i32'], ['i32']);
  const cpu = f.arg('i32', 0);
  const status = (code: number) => () => f.return(i32.const(code));
  const semantics = new InterpreterSemantics(
    f,
    form,
    { cpu, rec: f.arg('i32', 1), tlb: i32.load(cpu, CPU.tlb) },
    env,
    {
      fault: status(STATUS.fault),
      exit: status(STATUS.exit),
      taken: status(STATUS.taken),
      transfer: status(STATUS.transfer),
    },
  );
  semantics.emit();
  f.result(i32.const(STATUS.next));
  return f;
}

/**
 * resolve(cpu) -> the record for CPU.rip, or 0 with the exception in the exit fields. Sets CPU.page, and notes the
 * transfer in the CPU's ring.
 */
function buildResolve(module: ModuleBuilder, env: Environment): Func {
  const f = module.func('resolve', ['i32', 'i64'], ['i32']);
  const cpu = f.arg('i32', 0);
  const from = f.arg('i64', 1);
  const rip = f.let(i64.load(cpu, CPU.rip));
  const page = f.let(i64.and(rip, i64.const(~0xfffn)));
  const head = f.let(i32.load(cpu, CPU.ringHead));
  const ring = f.let(i32.add(i32.load(cpu, CPU.ring), i32.and(head, RING_SIZE - 1)));
  f.store(ring, from);
  f.store(ring, rip, 8);
  f.store(cpu, i32.add(head, 16), CPU.ringHead);
  f.store(cpu, page, CPU.page);
  f.block((slow) => {
    const slot = f.let(i32.add(i32.load(cpu, CPU.tlb), tlbIndex(rip)));
    f.brIf(i64.ne(i64.load(slot, TLB.fetch), page), slow);
    const map = f.let(i32.load(i32.add(i32.load(cpu, CPU.codeMaps), i32.shl(i32.load(slot, TLB.frame), 2))));
    f.brIf(i32.eqz(map), slow);
    const record = f.let(i32.load(i32.add(map, i32.shl(i32.and(i32.wrap(rip), 0xfff), 2))));
    f.brIf(i32.eqz(record), slow);
    f.return(record);
  });
  f.if(notCanonical(rip), () => {
    f.do(env.mmu.raise, cpu, i32.const(VECTOR.GP), i32.const(0));
    f.return(i32.const(0));
  });
  const linear = f.let(call('i32', env.mmu.walk, cpu, page, i32.const(2)));
  f.if(i32.eqz(linear), () => {
    f.store(cpu, rip, CPU.cr2);
    f.do(env.mmu.raise, cpu, i32.const(VECTOR.PF), i32.load(cpu, CPU.walkError));
    f.return(i32.const(0));
  });
  // The fetch tag is valid now; perhaps the page has been decoded before.
  const map = f.let(i32.load(i32.add(i32.load(cpu, CPU.codeMaps), i32.shl(i32.shr_u(linear, 12), 2))));
  f.if(map, () => {
    const record = f.let(i32.load(i32.add(map, i32.shl(i32.and(i32.wrap(rip), 0xfff), 2))));
    f.if(record, () => f.return(record));
  });
  f.result(call('i32', env.imports.decode, cpu));
  return f;
}

/** mapped(cpu, va, frame): whether a page can be fetched from, and is that machine frame. */
function buildMapped(module: ModuleBuilder, mmu: Mmu): Func {
  const f = module.func('mapped', ['i32', 'i64', 'i32'], ['i32']);
  const cpu = f.arg('i32', 0);
  const va = f.arg('i64', 1);
  const frame = f.arg('i32', 2);
  const slot = f.let(i32.add(i32.load(cpu, CPU.tlb), tlbIndex(va)));
  f.if(i64.eq(i64.load(slot, TLB.fetch), va), () => f.return(i32.eq(i32.load(slot, TLB.frame), frame)));
  f.if(notCanonical(va), () => f.return(i32.const(0)));
  const linear = f.let(call('i32', mmu.walk, cpu, va, i32.const(2)));
  f.result(i32.and(i32.ne(linear, 0), i32.eq(i32.shr_u(linear, 12), frame)));
  return f;
}

function buildRun(
  module: ModuleBuilder,
  hot: readonly Form[],
  env: Environment,
  resolve: Func,
  exact: boolean,
  gate: Func | null,
): void {
  const f = module.func('run', ['i32', 'i32'], ['i32']);
  const cpu = f.arg('i32', 0);
  const rec = f.arg('i32', 1);
  const tlb = f.let(i32.load(cpu, CPU.tlb));
  const budget = f.let(i32.load(cpu, CPU.budget));
  const entry = f.local('i32');
  const handlerType = module.type({ params: ['i32', 'i32'], results: ['i32'] });
  const regionType = module.type({ params: ['i32', 'i32', 'i32'], results: ['i32'] });

  const executed = (): I32 => i32.shr_u(i32.sub(rec, entry), Math.log2(RECORD.size));
  const here = () => i64.add(i64.load(cpu, CPU.page), i64.extend_u(i32.load16u(rec, RECORD.offset)));
  const behind = () => i64.add(here(), i64.extend_u(i32.load8u(rec, RECORD.length)));
  /** Counts the instructions up to rec, itself included or not. */
  const account = (inclusive: boolean) =>
    f.set(budget, i32.sub(i32.sub(budget, executed()), inclusive ? 1 : 0));
  const leave = (reason: I32) => {
    f.store(cpu, budget, CPU.budget);
    f.return(reason);
  };
  const resolveFrom = () => {
    f.set(rec, call('i32', resolve, cpu, f.let(here())));
  };

  f.if(i32.eqz(rec), () => f.set(rec, call('i32', resolve, cpu, i64.load(cpu, CPU.rip))));
  f.if(i32.eqz(rec), () => leave(i32.load(cpu, CPU.exitReason)));
  f.set(entry, rec);

  /** The budget is spent: exactly, or so that another instruction would be too many. */
  const spent = () => (exact ? i32.le_s(budget, 0) : i32.lt_s(budget, 0));
  const countArrival = (weight?: I32) => {
    if (!exact) emitHeat(f, cpu, rec, env.imports.hot, weight);
  };
  const pause = () => {
    f.store(cpu, i32.const(Exit.Budget), CPU.exitReason);
    leave(i32.const(Exit.Budget));
  };

  f.loop((next) => {
    f.block((stop) => {
      if (exact)
        f.if(i32.le_s(i32.sub(budget, executed()), 0), () => {
          account(false);
          f.store(cpu, here(), CPU.rip);
          pause();
        });
      f.block((fault) => {
        f.block((exit) => {
          f.block((transfer) => {
            f.block((taken) => {
              const flow = {
                fault: () => f.br(fault),
                exit: () => f.br(exit),
                taken: () => f.br(taken),
                transfer: () => f.br(transfer),
              };
              const advance = () => {
                f.set(rec, i32.add(rec, RECORD.size));
                f.br(next);
              };
              const cases: (() => void)[] = [];
              const glue = (number: number, work: () => void) => {
                cases[number] = () => f.scope(work);
              };
              glue(GLUE.relookup, () => {
                account(false);
                f.set(entry, rec);
                f.store(cpu, here(), CPU.rip);
                resolveFrom();
                f.brIf(i32.eqz(rec), stop);
                f.set(entry, rec);
                f.br(next);
              });
              glue(GLUE.stop, () => {
                account(false);
                f.store(cpu, here(), CPU.rip);
                f.store(cpu, i32.const(Exit.Budget), CPU.exitReason);
                leave(i32.const(Exit.Budget));
              });
              glue(GLUE.link, () => {
                account(false);
                f.set(rec, i32.load(rec, RECORD.link));
                f.set(entry, rec);
                f.br(next);
              });
              glue(GLUE.address, () => {
                emitAddress(f, cpu, rec);
                f.set(budget, i32.add(budget, 1));
                advance();
              });
              glue(GLUE.straddle, () => {
                const second = f.let(i64.add(i64.load(cpu, CPU.page), 0x1000));
                const slot = f.let(i32.add(tlb, tlbIndex(second)));
                const same = i32.and(
                  i64.eq(i64.load(slot, TLB.fetch), second),
                  i32.eq(i32.load(slot, TLB.frame), i32.load(rec, RECORD.link)),
                );
                f.if(same, () => {
                  f.set(budget, i32.add(budget, 1));
                  advance();
                });
                // Not in the TLB, or another frame: walk, compare once more.
                const linear = f.let(call('i32', env.mmu.walk, cpu, second, i32.const(2)));
                f.if(i32.eqz(linear), () => {
                  f.store(cpu, second, CPU.cr2);
                  f.do(env.mmu.raise, cpu, i32.const(VECTOR.PF), i32.load(cpu, CPU.walkError));
                  f.br(fault);
                });
                f.if(i32.ne(i32.shr_u(linear, 12), i32.load(rec, RECORD.link)), () =>
                  f.do(env.imports.straddleChanged, cpu, rec),
                );
                // Dispatch again: this record, or "look up" if it was dropped.
                f.br(next);
              });
              glue(GLUE.undefined, () => {
                f.do(env.imports.undefinedInstruction, cpu, rec);
                f.do(env.mmu.raise, cpu, i32.wrap(i64.load(rec, RECORD.immediate)), i32.const(0));
                f.br(fault);
              });
              glue(GLUE.region, () => {
                account(false);
                f.store(cpu, budget, CPU.budget);
                f.store(cpu, i32.const(ACTIVITY.translated), CPU.activity);
                const status = f.local('i32');
                const arrivals = { uncounted: f.let(i32.const(0)), wide: f.let(i32.const(0)) };
                f.loop((region) => {
                  if (!exact)
                    emitArrival(f, cpu, rec, arrivals, env.imports.often, () => {
                      f.store(cpu, here(), CPU.rip);
                      pause();
                    });
                  const distance = i64.load32s(rec, RECORD.displacement);
                  f.store(cpu, i64.sub(i64.load(cpu, CPU.page), distance), CPU.base);
                  const slot = i32.load(rec, RECORD.link);
                  const number = i32.load(rec, RECORD.immediate);
                  const frames = i32.load(rec, RECORD.immediate + 4);
                  f.set(status, callIndirect('i32', regionType, slot, cpu, number, frames));
                  f.set(budget, i32.load(cpu, CPU.budget));
                  f.if(i32.and(i32.eq(status, STATUS.transfer), i32.ge_s(budget, 0)), () =>
                    emitJump(f, cpu, tlb, rec, () => f.br(region)),
                  );
                });
                f.store(cpu, i32.const(ACTIVITY.interpreter), CPU.activity);
                f.if(i32.ge_u(status, STATUS.interpret), () => {
                  f.if(i32.eq(status, STATUS.apart), () => f.do(env.imports.leftApart, cpu, rec));
                  f.set(rec, call('i32', resolve, cpu, i64.load(cpu, CPU.rip)));
                  f.brIf(i32.eqz(rec), stop);
                  f.set(entry, rec);
                  f.brIf(i32.ge_u(i32.load16u(rec, RECORD.op), GLUE.count), next);
                  // It is where a region begins.
                  leave(i32.const(INTERPRET));
                });
                f.brIf(i32.ne(status, STATUS.transfer), stop);
                f.if(i32.lt_s(budget, 0), () => leave(i32.const(Exit.Budget)));
                f.set(rec, call('i32', resolve, cpu, i64.load(cpu, CPU.rip)));
                f.brIf(i32.eqz(rec), stop);
                f.set(entry, rec);
                emitRemember(f, cpu, tlb, rec);
                countArrival(select(arrivals.wide, i32.const(HEAT_FROM_WIDE), i32.const(1)));
                f.br(next);
              });
              for (const form of hot)
                cases.push(() =>
                  f.scope(() => {
                    new InterpreterSemantics(f, form, { cpu, rec, tlb }, env, flow).emit();
                    advance();
                  }),
                );
              const outlinedBase = cases.length;
              f.switch(i32.load16u(rec, RECORD.op), cases, () =>
                f.scope(() => {
                  const slot = i32.sub(i32.load16u(rec, RECORD.op), outlinedBase);
                  const status = f.let(callIndirect('i32', handlerType, slot, cpu, rec));
                  f.if(i32.eqz(status), advance);
                  f.brIf(i32.eq(status, STATUS.transfer), transfer);
                  f.brIf(i32.eq(status, STATUS.taken), taken);
                  f.brIf(i32.eq(status, STATUS.exit), exit);
                  f.br(fault);
                }),
              );
            });
            // taken: a direct branch of rec.
            f.scope(() => {
              account(true);
              const link = f.let(i32.load(rec, RECORD.link));
              f.if(link, () => {
                f.set(rec, link);
                f.set(entry, link);
                countArrival();
                f.brIf(i32.ge_s(budget, 0), next);
                f.store(cpu, here(), CPU.rip);
                leave(i32.const(Exit.Budget));
              });
              const page = f.let(i64.load(cpu, CPU.page));
              const target = f.let(i64.add(page, i64.load(rec, RECORD.immediate)));
              f.store(cpu, target, CPU.rip);
              const branch = f.let(rec);
              if (exact) f.if(spent(), pause);
              const generation = f.let(i32.load(cpu, CPU.recordGeneration));
              resolveFrom();
              f.brIf(i32.eqz(rec), stop);
              f.set(entry, rec);
              // Within the page the target can be linked: dropping the page drops both ends. The branch itself may
              // have been dropped while its target was decoded.
              f.if(
                i32.and(
                  i64.eq(i64.load(cpu, CPU.page), page),
                  i32.and(
                    i32.eq(i32.load(cpu, CPU.recordGeneration), generation),
                    i32.ge_u(i32.load16u(branch, RECORD.op), GLUE.count),
                  ),
                ),
                () => f.store(branch, rec, RECORD.link),
              );
              f.brIf(i32.ge_s(budget, 0), next);
              leave(i32.const(Exit.Budget));
            });
          });
          // transfer: CPU.rip says where to.
          account(true);
          f.if(spent(), pause);
          f.scope(() => {
            resolveFrom();
            f.brIf(i32.eqz(rec), stop);
            f.set(entry, rec);
            countArrival();
          });
          f.br(next);
        });
        // exit: the instruction is complete.
        account(true);
        f.store(cpu, behind(), CPU.rip);
        f.br(stop);
      });
      // fault: the instruction has not happened.
      account(false);
      f.store(cpu, here(), CPU.rip);
    });
    // stop: an exit, which the gate may answer.
    if (gate !== null)
      f.if(i32.eqz(i32.load(cpu, CPU.stepping)), () =>
        f.block((exit) => {
          f.loop((again) => {
            const from = f.let(i64.load(cpu, CPU.rip));
            f.brIf(i32.eqz(call('i32', gate, cpu)), exit);
            f.store(cpu, i32.add(i32.load(cpu, CPU.passages), 1), CPU.passages);
            f.set(budget, i32.sub(budget, GATE_COST));
            f.if(spent(), pause);
            f.set(tlb, i32.load(cpu, CPU.tlb));
            if (!exact)
              emitJump(f, cpu, tlb, rec, () => {
                f.set(entry, rec);
                f.br(next);
              });
            f.set(rec, call('i32', resolve, cpu, from));
            f.brIf(i32.eqz(rec), again);
          });
          f.set(entry, rec);
          if (!exact) emitRemember(f, cpu, tlb, rec);
          countArrival();
          f.br(next);
        }),
      );
    leave(i32.load(cpu, CPU.exitReason));
  });
  f.unreachable();
  module.export('run', f);
}

/** GLUE.address: a 32-bit effective address, or a 64-bit moffs in the immediate, into CPU.ea. */
function emitAddress(f: Func, cpu: I32, rec: I32): void {
  const slot = (field: number) => i64.load(i32.add(cpu, i32.load16u(rec, field)));
  const index = i64.shl(slot(RECORD.index), i64.load8u(rec, RECORD.scale));
  const sum = i64.add(i64.add(slot(RECORD.rm), index), i64.load32s(rec, RECORD.displacement));
  const whole = i64.add(sum, i64.load(rec, RECORD.immediate));
  const short = i32.and(i32.load16u(rec, RECORD.flags), 1);
  f.store(cpu, select(short, i64.and(whole, 0xffffffff), whole), CPU.ea);
}
