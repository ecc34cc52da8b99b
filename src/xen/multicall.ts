/**
 * multicall(calls, count): several hypercalls in one (the paper's section 3.3: batching is what makes validated
 * page-table updates affordable).
 */
import { hypercallActivity } from '../x86/core/activity.ts';
import { Access } from '../x86/processor.ts';
import { CPU } from '../x86/state.ts';
import { Arguments, type Hypercall, invoke, NO_RESULT, RESTART } from './hypercall.ts';
import { ERRNO } from './public/errno.ts';
import { HYPERVISOR, MULTICALL_ENTRY } from './public/xen.ts';
import type { Vcpu } from './vcpu.ts';

/** Calls that are made before others get their turn. */
const BATCH = 256;
const ARGUMENT_WORDS = (MULTICALL_ENTRY.size - MULTICALL_ENTRY.args) / 4;

/** @param table of hypercalls by number */
export function makeMulticall(table: readonly (Hypercall | undefined)[]) {
  return function multicall(vcpu: Vcpu, args: Arguments): number {
    const inner = new Arguments();
    let at = args.number(0);
    let left = args.low(1);
    for (let done = 0; left > 0; done++) {
      if (done === BATCH) return resume(args, at, left);
      const op = readEntry(vcpu, at, inner);
      const call = op === HYPERVISOR.multicall ? undefined : table[op];
      // A multicall within a multicall is refused; a number without a call is as in a call of its own.
      let result: number = op === HYPERVISOR.multicall ? -ERRNO.EINVAL : -ERRNO.ENOSYS;
      vcpu.cpu.put(CPU.activity, hypercallActivity(op));
      if (call !== undefined) result = invoke(call, vcpu, inner);
      if (result === NO_RESULT) return NO_RESULT;
      if (result === RESTART) {
        writeArguments(vcpu, at, inner);
        return resume(args, at, left);
      }
      vcpu.guest.setNumber64(at + MULTICALL_ENTRY.result, result);
      at += MULTICALL_ENTRY.size;
      left--;
      if (!vcpu.runnable && left > 0) return resume(args, at, left);
    }
    return 0;
  };
}

function resume(args: Arguments, at: number, left: number): number {
  args.set(0, at);
  args.set(1, left);
  return RESTART;
}

/** Reads an entry's arguments. @returns its op */
function readEntry(vcpu: Vcpu, at: number, inner: Arguments): number {
  const { guest, memory } = vcpu;
  if ((at & 3) === 0 && (at & 0xfff) + MULTICALL_ENTRY.size <= 4096) {
    const word = guest.linear(at, Access.Read) >>> 2;
    const first = word + MULTICALL_ENTRY.args / 4;
    for (let index = 0; index < ARGUMENT_WORDS; index++) inner.words[index] = memory.u32[first + index]!;
    return memory.u32[word + 1] === 0 ? memory.u32[word]! : -1;
  }
  for (let index = 0; index < ARGUMENT_WORDS; index++)
    inner.words[index] = guest.u32(at + MULTICALL_ENTRY.args + index * 4);
  return guest.number64(at + MULTICALL_ENTRY.op);
}

function writeArguments(vcpu: Vcpu, at: number, inner: Arguments): void {
  for (let index = 0; index < ARGUMENT_WORDS; index++)
    vcpu.guest.setU32(at + MULTICALL_ENTRY.args + index * 4, inner.words[index]!);
}
