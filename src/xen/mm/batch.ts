/**
 * What mmu_update and mmuext_op have in common: an array of requests, carried out in order until one fails, with
 * the number done written back. A long call pauses after a bounded amount of work and goes on where it was.
 */
import type { VirtualAddress } from '../../x86/cpu.ts';
import { type Arguments, HypercallError, RESTART } from '../hypercall.ts';
import type { Vcpu } from '../vcpu.ts';

/** In the count: the call goes on, and the number done so far is at pdone (MMU_UPDATE_PREEMPTED). */
const PREEMPTED = 0x8000_0000;

/** Requests, and page-table entries looked at, after which a call pauses. */
const MAX_REQUESTS = 1024;
export const MAX_WORK = 64 * 512;

/** Does one request. @param at its address @param option what runBatch was given @returns 0, -errno or RESTART */
export type BatchRequest = (vcpu: Vcpu, at: VirtualAddress, option: boolean) => number;

/**
 * Arguments: (requests, count, pdone, ...).
 * @param size of a request, bytes
 */
export function runBatch(
  vcpu: Vcpu,
  args: Arguments,
  size: number,
  carryOut: BatchRequest,
  option = false,
): number {
  const { guest } = vcpu;
  const { pageTables } = vcpu.domain.memory;
  const requests = args.number(0);
  const count = (args.low(1) & ~PREEMPTED) >>> 0;
  const pdone = args.number(2);
  let before = 0;
  if (args.low(1) & PREEMPTED && pdone !== 0) before = guest.u32(pdone);
  const end = pageTables.begin(vcpu.id, MAX_WORK);
  // A call that goes on finds there what its request has done so far; another one needs nothing of it.
  if ((count === 0 || !(args.low(1) & PREEMPTED)) && !pageTables.settle()) {
    pageTables.end();
    return RESTART;
  }
  let result = 0;
  let done = 0;
  while (done < count) {
    result =
      done >= MAX_REQUESTS || pageTables.work > end
        ? RESTART
        : guarded(carryOut, vcpu, requests + done * size, option);
    if (result !== 0) break;
    done++;
    if (pageTables.settle()) continue;
    result = RESTART;
    break;
  }
  if (result === RESTART) {
    args.set(0, requests + done * size);
    args.set(1, ((count - done) | PREEMPTED) >>> 0);
  }
  pageTables.end();
  // Where it does not want to be told, it is not.
  if (pdone !== 0) tell(vcpu, pdone, before + done);
  return result;
}

function tell(vcpu: Vcpu, at: VirtualAddress, done: number): void {
  try {
    vcpu.guest.setU32(at, done);
  } catch (error) {
    if (!(error instanceof HypercallError)) throw error;
  }
}

/** An error thrown from below, as the negative number that it becomes. */
function guarded(carryOut: BatchRequest, vcpu: Vcpu, at: VirtualAddress, option: boolean): number {
  try {
    return carryOut(vcpu, at, option);
  } catch (error) {
    if (error instanceof HypercallError) return -error.errno;
    throw error;
  }
}
