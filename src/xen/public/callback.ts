/** public/callback.h (and public/nmi.h): entry points that a guest registers. Offsets in bytes. */

export const CALLBACKOP = { register: 0, unregister: 1 } as const;

export const CALLBACKTYPE = {
  event: 0,
  failsafe: 1,
  syscall: 2,
  sysenter_deprecated: 3,
  nmi: 4,
  sysenter: 5,
  syscall32: 7,
} as const;

/** Entering the callback masks events. */
export const CALLBACKF_MASK_EVENTS = 1 << 0;

/** struct callback_register: u16 type, u16 flags, u64 address. */
export const CALLBACK_REGISTER = { type: 0, flags: 2, address: 8, size: 16 } as const;

export const XENNMI = { register_callback: 0, unregister_callback: 1 } as const;
/** struct xennmi_callback: u64 handler_address, u64 pad. */
export const XENNMI_CALLBACK = { handler_address: 0, size: 16 } as const;
