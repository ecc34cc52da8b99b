/** A trace of a domain's hypercalls, by name, with arguments and results. A domain without one pays nothing. */
import type { Arguments, Hypercall } from './hypercall.ts';
import { NO_RESULT, RESTART } from './hypercall.ts';
import { errnoName } from './public/errno.ts';
import type { Vcpu } from './vcpu.ts';

/** Errors are small negative numbers. */
const ERRNO_MAX = 4095;

export class Tracer {
  private readonly write: (line: string) => void;

  constructor(write: (line: string) => void) {
    this.write = write;
  }

  /** Makes the call and writes a line about it. */
  hypercall(
    call: Hypercall,
    vcpu: Vcpu,
    args: Arguments,
    run: (call: Hypercall, vcpu: Vcpu, args: Arguments) => number,
  ): number {
    const shown: string[] = [];
    for (let index = 0; index < call.arguments; index++) shown.push(argument(call, args, index));
    const result = run(call, vcpu, args);
    this.line(vcpu, `${call.name}(${shown.join(', ')}) = ${resultText(result)}`);
    return result;
  }

  line(vcpu: Vcpu, text: string): void {
    this.write(`d${vcpu.domain.id}v${vcpu.id} ${text}`);
  }
}

function argument(call: Hypercall, args: Arguments, index: number): string {
  if (index === 0 && call.commands) {
    const value = args.number(0);
    for (const [name, number] of Object.entries(call.commands)) if (number === value) return name;
  }
  return `0x${args.u64(index).toString(16)}`;
}

export function resultText(result: number): string {
  if (result === NO_RESULT) return '(registers)';
  if (result === RESTART) return '(continued)';
  if (result < 0 && result >= -ERRNO_MAX) return `-${errnoName(-result)}`;
  return result < 10 ? `${result}` : `0x${result.toString(16)}`;
}
