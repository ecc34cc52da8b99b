/**
 * The architectural state of one virtual CPU, as it lies in machine memory.
 *
 * One frame a CPU. Interpreter, translated code and TypeScript read and write the same bytes; nothing is mirrored.
 * Offsets are in bytes from the frame's linear address. Natural alignment throughout.
 *
 * Flags are kept apart, so that an instruction stores what it computed and a reader derives what it needs:
 *   ZF = (zres == 0)          SF = sign of spres          PF = even parity of spres' low byte
 *   CF = cf (0 or 1)          OF = sign of of             AF = bit 4 of af
 *   DF = (df < 0)             all other flags: their own bits of rflags
 * ALU results are stored sign-extended to 64 bits, so that these rules hold for every operand size.
 */
export const CPU = {
  /** 16 × u64: rax rcx rdx rbx rsp rbp rsi rdi r8..r15. */
  regs: 0x000,
  /** Always zero: the base, index or segment that an address does not have. */
  zero: 0x080,
  /** u64: the virtual page that rip is in; RIP-relative addresses start here. */
  page: 0x088,
  fsBase: 0x090,
  gsBase: 0x098,
  /** u64: an address computed ahead of its instruction. */
  ea: 0x0a0,
  rip: 0x0a8,
  zres: 0x0b0,
  spres: 0x0b8,
  of: 0x0c0,
  cf: 0x0c8,
  af: 0x0cc,
  /** u32: the flags that have no word of their own (TF, IF, IOPL, NT, RF, AC, VIF, VIP, ID). */
  rflags: 0x0d0,
  /** i32: +1 or -1, the step of string instructions. */
  df: 0x0d4,
  /** u32: 1 while accesses count as supervisor accesses (the U bit of page tables is not asked for). */
  supervisor: 0x0d8,
  /** 16 × 16 bytes. */
  xmm: 0x100,
  /** 8 × 16 bytes: the *physical* x87 registers R0..R7 (ST(i) is R[(top + i) & 7]): u64 significand, u16 sign and exponent. MMi is the significand of Ri. */
  st: 0x200,
  /** u16 control word. */
  fcw: 0x280,
  /** u16 status word; TOP in bits 11-13 as the hardware has it. */
  fsw: 0x282,
  /** u8 abridged tag word as FXSAVE has it: bit i set means R[i] is not empty. */
  ftw: 0x284,
  /** u16 last opcode (11 bits). */
  fop: 0x286,
  /** u64 last instruction, u64 last operand. */
  fip: 0x288,
  fdp: 0x290,
  mxcsr: 0x298,
  /** u32: CR0.TS: the next x87, MMX or SSE instruction raises #NM. */
  ts: 0x29c,
  /** 6 × u16 selectors, 8 bytes apart: es cs ss ds fs gs. */
  selectors: 0x2a0,
  /** dr0..dr3, dr6, dr7 as u64 at index 0..3, 6, 7. */
  dr: 0x2d0,
  /** u32 why run() returned ({@link Exit}), u32 vector, u32 error code, u32 length of a trap-like instruction. */
  exitReason: 0x310,
  exitVector: 0x314,
  exitError: 0x318,
  exitLength: 0x31c,
  /** u64: the linear (guest virtual) address of a page fault. */
  cr2: 0x320,
  /** Address translation: u32 linear addresses of the current TLB, of the current root table. */
  tlb: 0x330,
  root: 0x334,
  /** u32 linear address of the table of frame numbers, u32 how many entries it has (see mmu.ts). */
  frameTable: 0x338,
  frameLimit: 0x33c,
  /** u32 linear addresses of the processor's own tables (see mmu.ts): a byte of flags a frame, a u32 code map a frame. */
  frameFlags: 0x340,
  codeMaps: 0x344,
  /** i32 instructions left of the budget of this run. */
  budget: 0x348,
  /** u32: page-fault error code that the last failed page walk would have. */
  walkError: 0x34c,
  /** u64 guest instructions executed so far. */
  instructions: 0x350,
  /** A store that crosses a page (kind 1) or is intercepted (kind 2) waits in the scratch bytes: u32 size, u32 kind. */
  crossSize: 0x358,
  crossKind: 0x35c,
  /** u64 guest virtual address of that store; u32 linear address of its first byte, u32 of its second page. */
  crossAddress: 0x360,
  crossLinear: 0x368,
  crossLinear2: 0x36c,
  /** u32: writes to this guest frame (plus one) are to be given to the hypervisor, not done; 0: none. */
  interceptFrame: 0x370,
  /** u32: 1 while a single instruction is run: string instructions do one iteration. */
  stepping: 0x374,
  /** u32: linear address of the ring of control transfers, u32 bytes written to it so far (see transfers.ts). */
  ring: 0x378,
  ringHead: 0x37c,
  /** u32: counts how often all decoded records were thrown away. */
  recordGeneration: 0x380,
  /** u32: decoded code was dropped because of a write, since this was last cleared. */
  codeDropped: 0x384,
  /** u32 linear address of the counters of taken branches (see interpreter/heat.ts). */
  heat: 0x388,
  /** u64: where the places of the region that is entered count from (see translator/build.ts). */
  base: 0x390,
  /** u32 linear address of the cache of ways from region to region (see interpreter/jumps.ts). */
  jumps: 0x398,
  /** u32: with which status a region is to be left that could not reach memory (see interpreter/region-access.ts). */
  accessStatus: 0x39c,
  /** u32: whose the CPU is, as the layer above says: for profiles. */
  owner: 0x3f8,
  /** u8, u8, u16: what it is at (see core/activity.ts). */
  activity: 0x3fc,
  /** 512 bytes where an access that crosses a page is put together. */
  scratch: 0x400,
  /** Free use: 256 bytes (operands of slow paths). */
  temp: 0x600,
  /** Of user mode and of supervisor mode, u32 each: what CPU.tlb and CPU.root hold in it. */
  modeTlbs: 0x700,
  modeRoots: 0x708,
  /** u32 linear address of a word for each machine frame: which TLBs have something from or of it (see mmu.ts). */
  holders: 0x710,
  /** u32: passages through gates, that took budget without being instructions (see gates.ts). */
  passages: 0x714,
  /** Records of a single step (see records.ts). */
  stepRecords: 0x800,
  /** To the end: of the layer above (see gates.ts). */
  monitor: 0xc00,
  size: 0x1000,
} as const;

/** Register numbers as the instruction encoding has them. */
export const RAX = 0;
export const RCX = 1;
export const RDX = 2;
export const RBX = 3;
export const RSP = 4;
export const RBP = 5;
export const RSI = 6;
export const RDI = 7;
export const R11 = 11;

export const ES = 0;
export const CS = 1;
export const SS = 2;
export const DS = 3;
export const FS = 4;
export const GS = 5;

/** RFLAGS bits, Intel SDM volume 1, 3.4.3. */
export const FLAG = {
  CF: 1 << 0,
  ONE: 1 << 1,
  PF: 1 << 2,
  AF: 1 << 4,
  ZF: 1 << 6,
  SF: 1 << 7,
  TF: 1 << 8,
  IF: 1 << 9,
  DF: 1 << 10,
  OF: 1 << 11,
  IOPL: 3 << 12,
  NT: 1 << 14,
  RF: 1 << 16,
  VM: 1 << 17,
  AC: 1 << 18,
  VIF: 1 << 19,
  VIP: 1 << 20,
  ID: 1 << 21,
} as const;

/** The flags that arithmetic sets. */
export const STATUS_FLAGS = FLAG.CF | FLAG.PF | FLAG.AF | FLAG.ZF | FLAG.SF | FLAG.OF;

/** Exception vectors, Intel SDM volume 3, 6.3.1. */
export const VECTOR = {
  DE: 0,
  DB: 1,
  NMI: 2,
  BP: 3,
  OF: 4,
  BR: 5,
  UD: 6,
  NM: 7,
  DF: 8,
  TS: 10,
  NP: 11,
  SS: 12,
  GP: 13,
  PF: 14,
  MF: 16,
  AC: 17,
  XM: 19,
} as const;

/** Not the hardware's: what exitVector says for a write to a frame that is shared copy-on-write (PF.SHARED). */
export const SHARED_WRITE = 0x100;

/** Page-fault error code bits, Intel SDM volume 3, 4.7. */
export const PF = {
  P: 1,
  W: 2,
  U: 4,
  RSVD: 8,
  I: 16,
  /** Not the hardware's: a write that the page tables allow, to a frame that is shared copy-on-write. */
  SHARED: 1 << 20,
} as const;

/** Why the processor stopped running a CPU. */
export const Exit = {
  /** The budget is spent; rip is at the next instruction. */
  Budget: 0,
  /**
   * An exception. Faults: rip at the instruction, nothing of it done. Traps (#BP, #OF by INTO, #DB after a single
   * step, INT n): rip behind it. exitVector, exitError (0 where the vector has none), cr2 for #PF.
   */
  Exception: 1,
  /** SYSCALL. rip is behind it, rcx holds that address and r11 the flags, as the instruction leaves them. */
  Syscall: 2,
  /** INT n (n in exitVector), rip behind it, exitLength its length. */
  SoftwareInterrupt: 3,
  /** A store into the intercepted frame (see CPU.interceptFrame) is in scratch: crossAddress, crossSize. rip is at the next instruction. */
  Intercept: 4,
} as const;
export type Exit = (typeof Exit)[keyof typeof Exit];
