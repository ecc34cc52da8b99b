/**
 * What a hypercall is: its arguments, its handler, its ways to end. The table of all of them is in
 * hypercall-table.ts.
 */
import { OutOfFrames } from '../machine/frames.ts';
import { high32, join64 } from '../x86/cpu.ts';
import { ERRNO, type Errno, errnoName } from './public/errno.ts';
import type { Vcpu } from './vcpu.ts';

/**
 * Result of a handler that did a part of its work and wrote what remains into its arguments: the hypercall is
 * executed again, after whatever else the machine has to do. So no call holds the processor for long.
 */
export const RESTART = -ERRNO.ERESTART;

/** Result of a handler that set all registers itself, rax included. */
export const NO_RESULT = -4096;

/** Thrown anywhere inside a handler: the hypercall returns `-errno`. */
export class HypercallError extends Error {
  readonly errno: Errno;

  constructor(errno: Errno, message?: string) {
    super(message ?? errnoName(errno));
    this.errno = errno;
  }
}

/** How many arguments a hypercall has: rdi, rsi, rdx, r10, r8, r9. */
export const ARGUMENTS = 6;

/** The six 64-bit arguments of one hypercall. */
export class Arguments {
  /** Low and high half of each argument in turn. */
  readonly words = new Uint32Array(ARGUMENTS * 2);

  /** Bits 0-31, unsigned. */
  low(index: number): number {
    return this.words[index * 2]!;
  }

  /** Bits 32-63, unsigned. */
  high(index: number): number {
    return this.words[index * 2 + 1]!;
  }

  /** As a signed number: exact for addresses and for all integers below 2^53. */
  number(index: number): number {
    return join64(this.words[index * 2]!, this.words[index * 2 + 1]!);
  }

  u64(index: number): bigint {
    return BigInt(this.low(index)) | (BigInt(this.high(index)) << 32n);
  }

  /** Changes an argument, for a call that ends with {@link RESTART}. */
  set(index: number, value: number): void {
    this.words[index * 2] = value;
    this.words[index * 2 + 1] = high32(value);
  }
}

/**
 * Carries out a hypercall.
 * @returns what the guest gets in rax (a signed number): negative for errors, or {@link RESTART}.
 * @throws HypercallError for an error from below
 */
export type HypercallHandler = (vcpu: Vcpu, args: Arguments) => number;

export interface Hypercall {
  readonly name: string;
  readonly handler: HypercallHandler;
  /** How many arguments it takes, for traces. */
  readonly arguments: number;
  /** Names of the values of its first argument, for traces. */
  readonly commands?: Readonly<Record<string, number>>;
}

/** Makes one hypercall: what its handler throws becomes its result. */
export function invoke(call: Hypercall, vcpu: Vcpu, args: Arguments): number {
  const { tracer } = vcpu.domain;
  if (tracer !== null) return tracer.hypercall(call, vcpu, args, run);
  return run(call, vcpu, args);
}

/** A hypercall has to wait for Domain 0: the guest does not run meanwhile, and makes it again. */
export class NotYet extends Error {}

function run(call: Hypercall, vcpu: Vcpu, args: Arguments): number {
  try {
    return call.handler(vcpu, args);
  } catch (error) {
    if (error instanceof HypercallError) return -error.errno;
    if (error instanceof OutOfFrames) return -ERRNO.ENOMEM;
    if (error instanceof NotYet) return RESTART;
    throw error;
  }
}
