/**
 * public/arch-x86/xen.h and xen-x86_64.h: the parts of the interface that are about the x86-64 CPU itself.
 * Offsets and sizes in bytes.
 */

/** Flat segments that are in the hypervisor's own part of every GDT. */
export const FLAT_RING3_CS32 = 0xe023;
export const FLAT_RING3_DS32 = 0xe02b;
export const FLAT_RING3_CS64 = 0xe033;
export const FLAT_KERNEL_CS = FLAT_RING3_CS64;
export const FLAT_KERNEL_SS = FLAT_RING3_DS32;
export const FLAT_USER_CS = FLAT_RING3_CS64;
export const FLAT_USER_SS = FLAT_RING3_DS32;

/** A guest's GDT ends here: page 14 of 16 and those after it are the hypervisor's (FIRST_RESERVED_GDT_ENTRY). */
export const FIRST_RESERVED_GDT_PAGE = 14;
export const FIRST_RESERVED_GDT_ENTRY = FIRST_RESERVED_GDT_PAGE * 512;
/** Largest LDT. */
export const MAX_LDT_ENTRIES = 8192;

export const SEGBASE = { FS: 0, GS_USER: 1, GS_KERNEL: 2, GS_USER_SEL: 3 } as const;

/** iret_context flag: the return is from a system call. */
export const VGCF_IN_SYSCALL = 1 << 8;

/** struct iret_context: what lies on the kernel's stack when it calls iret. */
export const IRET_CONTEXT = {
  rax: 0,
  r11: 8,
  rcx: 16,
  flags: 24,
  rip: 32,
  cs: 40,
  rflags: 48,
  rsp: 56,
  ss: 64,
  size: 72,
} as const;

/** vcpu_guest_context flags. */
export const VGCF = {
  i387_valid: 1 << 0,
  in_kernel: 1 << 2,
  failsafe_disables_events: 1 << 3,
  syscall_disables_events: 1 << 4,
  online: 1 << 5,
} as const;

/** struct cpu_user_regs. */
export const USER_REGS = {
  r15: 0,
  r14: 8,
  r13: 16,
  r12: 24,
  rbp: 32,
  rbx: 40,
  r11: 48,
  r10: 56,
  r9: 64,
  r8: 72,
  rax: 80,
  rcx: 88,
  rdx: 96,
  rsi: 104,
  rdi: 112,
  error_code: 120,
  entry_vector: 124,
  rip: 128,
  cs: 136,
  saved_upcall_mask: 140,
  rflags: 144,
  rsp: 152,
  ss: 160,
  es: 168,
  ds: 176,
  fs: 184,
  gs: 192,
  size: 200,
} as const;

/** Offsets in cpu_user_regs by the register number of the instruction encoding. */
export const USER_REG_OFFSETS: readonly number[] = [
  USER_REGS.rax,
  USER_REGS.rcx,
  USER_REGS.rdx,
  USER_REGS.rbx,
  USER_REGS.rsp,
  USER_REGS.rbp,
  USER_REGS.rsi,
  USER_REGS.rdi,
  USER_REGS.r8,
  USER_REGS.r9,
  USER_REGS.r10,
  USER_REGS.r11,
  USER_REGS.r12,
  USER_REGS.r13,
  USER_REGS.r14,
  USER_REGS.r15,
];

/** struct vcpu_guest_context. */
export const GUEST_CONTEXT = {
  /** FXSAVE image. */
  fpu_ctxt: 0,
  flags: 512,
  user_regs: 520,
  /** 256 × struct trap_info. */
  trap_ctxt: 720,
  ldt_base: 4816,
  ldt_ents: 4824,
  /** 16 × u64. */
  gdt_frames: 4832,
  gdt_ents: 4960,
  kernel_ss: 4968,
  kernel_sp: 4976,
  /** 8 × u64: CR0..CR7; CR3 the kernel's root, CR1 the user's (address of the table, bit 0 of CR1 ignored). */
  ctrlreg: 4984,
  /** 8 × u64. */
  debugreg: 5048,
  event_callback_eip: 5112,
  failsafe_callback_eip: 5120,
  syscall_callback_eip: 5128,
  vm_assist: 5136,
  fs_base: 5144,
  gs_base_kernel: 5152,
  gs_base_user: 5160,
  size: 5168,
} as const;

/** The hypervisor's CPUID leaves, public/arch-x86/cpuid.h. */
export const XEN_CPUID = {
  FIRST_LEAF: 0x40000000,
  MAX_NUM_LEAVES: 5,
  /** "XenVMMXenVMM". */
  SIGNATURE_EBX: 0x566e6558,
  SIGNATURE_ECX: 0x65584d4d,
  SIGNATURE_EDX: 0x4d4d566e,
  FEAT1_MMU_PT_UPDATE_PRESERVE_AD: 1 << 0,
} as const;

/** Write the machine address of a page here and it becomes a hypercall page (CPUID leaf XEN_CPUID + 2). */
export const XEN_MSR_BASE = 0x40000000;
