/**
 * The words of the toolstack's interface. They stand apart from its schemas (model.ts), which only the daemon needs:
 * `xl` has to start fast.
 */

/** What is done with a domain that has shut down (xl.cfg(5), "Event Actions"). */
export const ACTIONS = [
  'destroy',
  'restart',
  'rename-restart',
  'preserve',
  'coredump-destroy',
  'coredump-restart',
] as const;

/** Names of domains: what xl could take for a number is none, nor what a path in the store could not hold. */
export const NAME_PATTERN = '^(?![0-9]+$)[A-Za-z0-9_.:@+-]{1,127}$';

/** Why a domain shut down, in the order of SHUTDOWN_*. */
export const SHUTDOWN_REASONS = ['poweroff', 'reboot', 'suspend', 'crash', 'watchdog', 'soft_reset'] as const;

/** What a domain can be sent (xl(1), trigger). */
export const TRIGGERS = ['nmi', 'reset', 'init', 'power', 'sleep', 's3resume'] as const;

/** What becomes of a domain that was saved. */
export const SAVED_FATES = ['destroy', 'continue', 'pause'] as const;

export const EVENTS = ['created', 'shutdown', 'destroyed', 'renamed'] as const;

export const ERROR_CODES = [
  'invalid',
  'not-found',
  'exists',
  'no-memory',
  'unsupported',
  'busy',
  'unauthorized',
  'failed',
] as const;
export type ErrorCode = (typeof ERROR_CODES)[number];
