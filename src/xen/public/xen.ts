/**
 * public/xen.h and the 64-bit parts of public/arch-x86/xen.h that everybody needs: hypercall numbers and the
 * layouts of what hypervisor and guest share. Offsets and sizes in bytes.
 */

/** Hypercall numbers (__HYPERVISOR_*). */
export const HYPERVISOR = {
  set_trap_table: 0,
  mmu_update: 1,
  set_gdt: 2,
  stack_switch: 3,
  set_callbacks: 4,
  fpu_taskswitch: 5,
  sched_op_compat: 6,
  platform_op: 7,
  set_debugreg: 8,
  get_debugreg: 9,
  update_descriptor: 10,
  memory_op: 12,
  multicall: 13,
  update_va_mapping: 14,
  set_timer_op: 15,
  event_channel_op_compat: 16,
  xen_version: 17,
  console_io: 18,
  physdev_op_compat: 19,
  grant_table_op: 20,
  vm_assist: 21,
  update_va_mapping_otherdomain: 22,
  iret: 23,
  vcpu_op: 24,
  set_segment_base: 25,
  mmuext_op: 26,
  xsm_op: 27,
  nmi_op: 28,
  sched_op: 29,
  callback_op: 30,
  xenoprof_op: 31,
  event_channel_op: 32,
  physdev_op: 33,
  hvm_op: 34,
  sysctl: 35,
  domctl: 36,
  kexec_op: 37,
  tmem_op: 38,
  argo_op: 39,
  xenpmu_op: 40,
  dm_op: 41,
  hypfs_op: 42,
} as const;

/** How many hypercall numbers there are: the ones of the architecture (48 to 55) included. */
export const NR_HYPERCALLS = 64;

const HYPERCALL_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(HYPERVISOR).map(([name, number]) => [number, name]),
);

/** Name of a hypercall, without prefix. */
export function hypercallName(number: number): string {
  return HYPERCALL_NAMES.get(number) ?? `hypercall_${number}`;
}

/** Virtual interrupts. V: one a vCPU, G: one a domain. */
export const VIRQ = {
  TIMER: 0,
  DEBUG: 1,
  CONSOLE: 2,
  DOM_EXC: 3,
  TBUF: 4,
  DEBUGGER: 6,
  XENOPROF: 7,
  CON_RING: 8,
  PCPU_STATE: 9,
  MEM_EVENT: 10,
  ARGO: 11,
  ENOMEM: 12,
  XENPMU: 13,
  ARCH_0: 16,
} as const;
export const NR_VIRQS = 24;

/** Domain identifiers with a meaning of their own (DOMID_*). */
export const DOMID = {
  FIRST_RESERVED: 0x7ff0,
  SELF: 0x7ff0,
  IO: 0x7ff1,
  XEN: 0x7ff2,
  COW: 0x7ff3,
  INVALID: 0x7ff4,
  IDLE: 0x7fff,
  MASK: 0x7fff,
} as const;

export const VMASST_CMD = { enable: 0, disable: 1 } as const;

export const VMASST_TYPE = {
  '4gb_segments': 0,
  '4gb_segments_notify': 1,
  writable_pagetables: 2,
  pae_extended_cr3: 3,
  architectural_iopl: 4,
  runstate_update_flag: 5,
  m2p_strict: 32,
} as const;

/** struct start_info. */
export const START_INFO = {
  /** char[32]: "xen-<version>-x86_64". */
  magic: 0,
  magicLength: 32,
  nr_pages: 32,
  /** Machine address of shared_info. */
  shared_info: 40,
  /** u32: SIF_*. */
  flags: 48,
  store_mfn: 56,
  /** u32. */
  store_evtchn: 64,
  console_mfn: 72,
  /** u32. */
  console_evtchn: 80,
  pt_base: 88,
  nr_pt_frames: 96,
  mfn_list: 104,
  mod_start: 112,
  mod_len: 120,
  cmd_line: 128,
  cmdLineLength: 1024,
  first_p2m_pfn: 1152,
  nr_p2m_frames: 1160,
  size: 1168,
} as const;

/** start_info flags. */
export const SIF = {
  PRIVILEGED: 1 << 0,
  INITDOMAIN: 1 << 1,
  MULTIBOOT_MOD: 1 << 2,
  MOD_START_PFN: 1 << 3,
  VIRT_P2M_4TOOLS: 1 << 4,
} as const;

/** vCPUs whose vcpu_info lies in shared_info (XEN_LEGACY_MAX_VCPUS). */
export const LEGACY_MAX_VCPUS = 32;

/** struct vcpu_info, arch_vcpu_info and vcpu_time_info within it. */
export const VCPU_INFO = {
  /** u8. */
  evtchn_upcall_pending: 0,
  /** u8. */
  evtchn_upcall_mask: 1,
  evtchn_pending_sel: 8,
  arch_cr2: 16,
  time: 32,
  size: 64,
} as const;

/** struct vcpu_time_info. */
export const TIME_INFO = {
  /** u32: odd while an update is under way. */
  version: 0,
  tsc_timestamp: 8,
  /** Nanoseconds since boot. */
  system_time: 16,
  /** u32. */
  tsc_to_system_mul: 24,
  /** i8. */
  tsc_shift: 28,
  /** u8: PVCLOCK_*. */
  flags: 29,
  size: 32,
} as const;

export const PVCLOCK = { TSC_STABLE: 1 << 0, GUEST_STOPPED: 1 << 1 } as const;

/** struct shared_info with arch_shared_info. */
export const SHARED_INFO = {
  vcpu_info: 0,
  /** 64 × u64. */
  evtchn_pending: LEGACY_MAX_VCPUS * VCPU_INFO.size,
  evtchn_mask: LEGACY_MAX_VCPUS * VCPU_INFO.size + 512,
  /** u32. */
  wc_version: 0xc00,
  wc_sec: 0xc04,
  wc_nsec: 0xc08,
  wc_sec_hi: 0xc0c,
  arch_max_pfn: 0xc10,
  arch_pfn_to_mfn_frame_list_list: 0xc18,
  arch_nmi_reason: 0xc20,
  arch_p2m_cr3: 0xc28,
  arch_p2m_vaddr: 0xc30,
  arch_p2m_generation: 0xc38,
  size: 0xc40,
} as const;

/** struct multicall_entry. */
export const MULTICALL_ENTRY = { op: 0, result: 8, args: 16, size: 64 } as const;

/** struct trap_info: u8 vector, u8 flags, u16 cs, u64 address. */
export const TRAP_INFO = { vector: 0, flags: 1, cs: 2, address: 8, size: 16 } as const;

/** trap_info flags: bits 0-1 the level that may enter by INT n, TI_IF: entering masks events. */
export const TI_DPL = 3;
export const TI_IF = 4;

/** The hypervisor's part of the address space, as signed addresses: [start, end). */
export const HYPERVISOR_VIRT_START = -(2 ** 47);
export const HYPERVISOR_VIRT_END = -(2 ** 47) + 16 * 2 ** 39;
/** Where the machine-to-physical table begins (read-only for guests). */
export const MACH2PHYS_VIRT_START = HYPERVISOR_VIRT_START;
