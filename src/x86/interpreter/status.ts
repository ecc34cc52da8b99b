/** What a handler that is a function of its own answers; a translated region as well. */
export const STATUS = {
  /** Done; the next record follows. */
  next: 0,
  /** The exception is in the exit fields; the instruction has not happened. */
  fault: 1,
  /** CPU.rip says where to go on. */
  transfer: 2,
  /** Done; leave with the reason in the exit fields. */
  exit: 3,
  /** The direct branch is taken. */
  taken: 4,
  /** Of regions: CPU.rip is at an instruction that is to be interpreted. */
  interpret: 5,
  /** The same, because a group of accesses was not in one page (see translator/addresses.ts). */
  apart: 6,
} as const;
