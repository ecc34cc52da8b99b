/** How the program ends: exit statuses, and errors that a user reads. Programs start with it: it imports nothing. */

/** Exit statuses (docs/usage.md). */
export const STATUS = {
  poweroff: 0,
  failure: 1,
  usage: 2,
  /** EX_SOFTWARE of sysexits.h: no shell uses it for anything of its own. */
  crash: 70,
  signal: 128,
} as const;

/** Something that a user can understand and do something about; the message is one line. */
export class Failure extends Error {}
