/** public/event_channel.h: commands, argument structures and the FIFO ABI. Offsets and sizes in bytes. */

/** Commands of event_channel_op (EVTCHNOP_*). */
export const EVTCHNOP = {
  bind_interdomain: 0,
  bind_virq: 1,
  bind_pirq: 2,
  close: 3,
  send: 4,
  status: 5,
  alloc_unbound: 6,
  bind_ipi: 7,
  bind_vcpu: 8,
  unmask: 9,
  reset: 10,
  init_control: 11,
  expand_array: 12,
  set_priority: 13,
} as const;

/** u16 dom, u16 remote_dom; out u32 port. */
export const EVTCHN_ALLOC_UNBOUND = { dom: 0, remote_dom: 2, port: 4, size: 8 } as const;
/** u16 remote_dom, u32 remote_port; out u32 local_port. */
export const EVTCHN_BIND_INTERDOMAIN = { remote_dom: 0, remote_port: 4, local_port: 8, size: 12 } as const;
/** u32 virq, u32 vcpu; out u32 port. */
export const EVTCHN_BIND_VIRQ = { virq: 0, vcpu: 4, port: 8, size: 12 } as const;
/** u32 pirq, u32 flags; out u32 port. */
export const EVTCHN_BIND_PIRQ = { pirq: 0, flags: 4, port: 8, size: 12 } as const;
/** u32 vcpu; out u32 port. */
export const EVTCHN_BIND_IPI = { vcpu: 0, port: 4, size: 8 } as const;
/** Shared by close, send and unmask: u32 port. */
export const EVTCHN_PORT = { port: 0, size: 4 } as const;
/** u16 dom, u32 port; out u32 status, u32 vcpu and a union: u16 dom with u32 port, or u32 virq, or u32 pirq. */
export const EVTCHN_STATUS = {
  dom: 0,
  port: 4,
  status: 8,
  vcpu: 12,
  remote_dom: 16,
  remote_port: 20,
  virq: 16,
  size: 24,
} as const;
/** u32 port, u32 vcpu. */
export const EVTCHN_BIND_VCPU = { port: 0, vcpu: 4, size: 8 } as const;
/** u16 dom. */
export const EVTCHN_RESET = { dom: 0, size: 2 } as const;
/** u64 control_gfn, u32 offset, u32 vcpu; out u8 link_bits. */
export const EVTCHN_INIT_CONTROL = { control_gfn: 0, offset: 8, vcpu: 12, link_bits: 16, size: 24 } as const;
/** u64 array_gfn. */
export const EVTCHN_EXPAND_ARRAY = { array_gfn: 0, size: 8 } as const;
/** u32 port, u32 priority. */
export const EVTCHN_SET_PRIORITY = { port: 0, priority: 4, size: 8 } as const;
/** Argument of event_channel_op_compat: u32 cmd and a union of the structures above. */
export const EVTCHN_OP_COMPAT = { cmd: 0, u: 4 } as const;

/** What a channel is (EVTCHNSTAT_*). */
export const EVTCHNSTAT = { closed: 0, unbound: 1, interdomain: 2, pirq: 3, virq: 4, ipi: 5 } as const;
export type EventChannelStatus = (typeof EVTCHNSTAT)[keyof typeof EVTCHNSTAT];

/** Ports of the two-level ABI on a 64-bit machine. */
export const EVTCHN_2L_NR_CHANNELS = 4096;

/** Priorities of the FIFO ABI: 0 is served first. */
export const EVTCHN_FIFO_PRIORITY = { MAX: 0, DEFAULT: 7, MIN: 15 } as const;
export const EVTCHN_FIFO_MAX_QUEUES = 16;

/** Bits of an event word (u32); its lower {@link EVTCHN_FIFO_LINK_BITS} bits are the next port in the queue. */
export const EVTCHN_FIFO = { PENDING: 1 << 31, MASKED: 1 << 30, LINKED: 1 << 29, BUSY: 1 << 28 } as const;
export const EVTCHN_FIFO_LINK_BITS = 17;
export const EVTCHN_FIFO_LINK_MASK = (1 << EVTCHN_FIFO_LINK_BITS) - 1;
export const EVTCHN_FIFO_NR_CHANNELS = 1 << EVTCHN_FIFO_LINK_BITS;

/** struct evtchn_fifo_control_block: u32 ready, u32 head[16]. */
export const EVTCHN_FIFO_CONTROL_BLOCK = { ready: 0, head: 8, size: 72 } as const;
