/** public/vcpu.h: vCPU operations. Offsets in bytes. */

export const VCPUOP = {
  initialise: 0,
  up: 1,
  down: 2,
  is_up: 3,
  get_runstate_info: 4,
  register_runstate_memory_area: 5,
  set_periodic_timer: 6,
  stop_periodic_timer: 7,
  set_singleshot_timer: 8,
  stop_singleshot_timer: 9,
  register_vcpu_info: 10,
  send_nmi: 11,
  get_physid: 12,
  register_vcpu_time_memory_area: 13,
} as const;

export const RUNSTATE = { running: 0, runnable: 1, blocked: 2, offline: 3 } as const;
export type Runstate = (typeof RUNSTATE)[keyof typeof RUNSTATE];

/** struct vcpu_runstate_info: i32 state, u64 state_entry_time, u64 time[4]. */
export const RUNSTATE_INFO = { state: 0, state_entry_time: 8, time: 16, size: 48 } as const;

/** u64 period_ns. */
export const SET_PERIODIC_TIMER = { period_ns: 0, size: 8 } as const;

/** u64 timeout_abs_ns, u32 flags. */
export const SET_SINGLESHOT_TIMER = { timeout_abs_ns: 0, flags: 8, size: 16 } as const;
/** Refuse a timeout in the past with -ETIME (VCPU_SSHOTTMR_future). */
export const VCPU_SSHOTTMR_FUTURE = 1;

/** u64 mfn, u32 offset, u32 reserved. */
export const REGISTER_VCPU_INFO = { mfn: 0, offset: 8, rsvd: 12, size: 16 } as const;
