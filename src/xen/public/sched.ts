/** public/sched.h: scheduler operations of a guest. Offsets in bytes. */

export const SCHEDOP = {
  yield: 0,
  block: 1,
  shutdown: 2,
  poll: 3,
  remote_shutdown: 4,
  shutdown_code: 5,
  watchdog: 6,
  pin_override: 7,
} as const;

/** Why a domain stopped (SHUTDOWN_*). */
export const SHUTDOWN = { poweroff: 0, reboot: 1, suspend: 2, crash: 3, watchdog: 4, soft_reset: 5 } as const;
export const SHUTDOWN_MAX = 5;

/** struct sched_poll: handle of u32 ports, u32 how many, u64 timeout (absolute system time in ns, 0: none). */
export const SCHED_POLL = { ports: 0, nr_ports: 8, timeout: 16, size: 24 } as const;

/** struct sched_watchdog: u32 id, u32 timeout in seconds. */
export const SCHED_WATCHDOG = { id: 0, timeout: 4, size: 8 } as const;
