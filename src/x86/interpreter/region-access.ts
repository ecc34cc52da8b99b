/**
 * Guest memory for translated code, where the inlined look-up fails. Both answer a linear address, or 0: the region is
 * to be left before the instruction, with the status in CPU.accessStatus.
 */
import { call, type Func, type I32, i32, type ModuleBuilder } from '../../wasm/index.ts';
import { INFO_WRITE, type Mmu } from '../mmu.ts';
import { CPU } from '../state.ts';
import { STATUS } from './status.ts';

/**
 * reach(cpu, va, info): as access (see mmu.ts). A write that dropped decoded code leaves, perhaps of that very region;
 * a write into two pages is to be interpreted, so that translated code need not look whether it went to scratch.
 */
export function buildReach(module: ModuleBuilder, mmu: Mmu): Func {
  const f = module.func('reach', ['i32', 'i64', 'i32'], ['i32']);
  const cpu = f.arg('i32', 0);
  const linear = f.let(call('i32', mmu.access, cpu, f.arg('i64', 1), f.arg('i32', 2)));
  f.if(i32.eqz(linear), () => leave(f, cpu, STATUS.fault));
  f.if(i32.load(cpu, CPU.codeDropped), () => {
    f.store(cpu, i32.const(0), CPU.codeDropped);
    leave(f, cpu, STATUS.transfer);
  });
  const write = i32.ge_u(f.arg('i32', 2), INFO_WRITE);
  f.if(i32.and(write, i32.eq(linear, i32.add(cpu, CPU.scratch))), () => leave(f, cpu, STATUS.interpret));
  f.result(linear);
  return f;
}

/**
 * reachGroup(cpu, va, info, first, span): the access at va as by reach; the answer is where a range of `span` bytes
 * begins that has the access `first` bytes from its start. If that range is not in one page, the instruction is to be
 * interpreted.
 */
export function buildReachGroup(module: ModuleBuilder, reach: Func): Func {
  const f = module.func('reachGroup', ['i32', 'i64', 'i32', 'i32', 'i32'], ['i32']);
  const cpu = f.arg('i32', 0);
  const va = f.arg('i64', 1);
  const linear = f.let(call('i32', reach, cpu, va, f.arg('i32', 2)));
  f.if(i32.eqz(linear), () => f.return(i32.const(0)));
  const start = f.let(i32.sub(linear, f.arg('i32', 3)));
  const offset = i32.sub(i32.and(linear, 0xfff), f.arg('i32', 3));
  // What was put together in scratch, or would be outside of the page.
  const crosses = i32.or(
    i32.or(i32.lt_s(offset, 0), i32.gt_s(i32.add(offset, f.arg('i32', 4)), 0x1000)),
    i32.eq(linear, i32.add(cpu, CPU.scratch)),
  );
  f.if(crosses, () => leave(f, cpu, STATUS.apart));
  f.result(start);
  return f;
}

function leave(f: Func, cpu: I32, status: number): void {
  f.store(cpu, i32.const(status), CPU.accessStatus);
  f.return(i32.const(0));
}
