/**
 * What the gates (gates.ts) must know of a virtual CPU, as it lies in the CPU's own frame. It is kept there and
 * nowhere else: Vcpu and its parts read and write the same bytes.
 */
import { CPU } from '../x86/state.ts';

/** Offsets from the CPU's state. Addresses are u64, all others u32. */
export const GATE = {
  /** 1: gates may answer. The hypervisor says so whenever it lets the CPU run. */
  open: CPU.monitor,
  kernelMode: CPU.monitor + 0x04,
  userRoot: CPU.monitor + 0x08,
  /** Linear address; 0: none. */
  vcpuInfo: CPU.monitor + 0x0c,
  shadowGsBase: CPU.monitor + 0x10,
  kernelSp: CPU.monitor + 0x18,
  kernelSs: CPU.monitor + 0x20,
  iopl: CPU.monitor + 0x24,
  nmiPending: CPU.monitor + 0x28,
  nmiMasked: CPU.monitor + 0x2c,
  /** Callback for system calls: its address, and whether it masks events. */
  syscall: CPU.monitor + 0x30,
  syscallMasks: CPU.monitor + 0x38,
  /** Of the trap table: page faults. */
  pageFaultFlags: CPU.monitor + 0x3c,
  pageFault: CPU.monitor + 0x40,
  /** 1: RFLAGS in frames have the I/O privilege level (VMASST_TYPE.architectural_iopl). Set with `open`. */
  architecturalIopl: CPU.monitor + 0x48,
  /**
   * A code and a stack selector, RPL 3, that iret found good in the vCPU's GDT; forgotten when that changes
   * (forgetSelectors). 0: none.
   */
  checkedCs: CPU.monitor + 0x4c,
  checkedSs: CPU.monitor + 0x50,
  /** Not of the gates: a copy of the CPU's state while one of its stores is tried (mm/page-table-write.ts). */
  saved: CPU.monitor + 0x80,
} as const;
