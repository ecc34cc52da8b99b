/**
 * What a domain has of a virtual CPU, as plain data (domain-state.ts): what Xen keeps for it. The processor's own
 * state is in the CPU's frame (`cpuBytes`), but for what gates know, which is named here.
 */
import { PAGE_SIZE } from '../machine/memory.ts';
import type { VirtualAddress } from '../x86/cpu.ts';
import { CPU, CS, FLAG, SS } from '../x86/state.ts';
import { GATE } from './gate-state.ts';
import { HypercallError } from './hypercall.ts';
import { FrameType } from './mm/frame-table.ts';
import {
  FIRST_RESERVED_GDT_ENTRY,
  FLAT_KERNEL_CS,
  FLAT_KERNEL_SS,
  MAX_LDT_ENTRIES,
} from './public/arch-x86.ts';
import { ERRNO } from './public/errno.ts';
import type { Runstate } from './public/vcpu.ts';
import { VCPU_INFO } from './public/xen.ts';
import { isCodeSelector, isStackSelector } from './segments.ts';
import { inHypervisor, isCanonical, VECTORS } from './traps.ts';
import type { Vcpu } from './vcpu.ts';

/** All times are the domain's, ns. */
export interface VcpuState {
  /** Where the guest registered its vcpu_info: page and offset; null: it is in shared_info, or there is none. */
  readonly vcpuInfo: readonly [mfn: number, offset: number] | null;
  readonly kernelRoot: number;
  readonly userRoot: number;
  readonly kernelMode: boolean;
  readonly cr4: number;
  readonly shadowGsBase: VirtualAddress;
  readonly kernelSs: number;
  readonly kernelSp: VirtualAddress;
  readonly iopl: number;
  readonly nmiPending: boolean;
  readonly nmiMasked: boolean;
  /** Those vectors that have a handler. */
  readonly traps: readonly (readonly [vector: number, flags: number, cs: number, address: VirtualAddress])[];
  readonly callbacks: {
    readonly event: VirtualAddress;
    readonly failsafe: VirtualAddress;
    readonly failsafeMasksEvents: boolean;
    readonly syscall: VirtualAddress;
    readonly syscallMasksEvents: boolean;
    readonly sysenter: VirtualAddress;
    readonly syscall32: VirtualAddress;
  };
  readonly gdtFrames: readonly number[];
  readonly gdtEntries: number;
  readonly ldtBase: VirtualAddress;
  readonly ldtEntries: number;
  readonly timeArea: VirtualAddress | null;
  readonly initialised: boolean;
  readonly down: boolean;
  readonly blocked: boolean;
  readonly runstate: {
    readonly state: Runstate;
    readonly since: number;
    readonly times: readonly number[];
    readonly area: VirtualAddress | null;
  };
  readonly period: number;
  readonly nextPeriod: number;
  readonly timer: number | null;
  readonly pollTimer: number | null;
}

/** What the guest has of a CPU's frame: all up to where the processor's own tables start, and the instructions. */
export const CPU_PARTS = [
  [0, CPU.tlb],
  [CPU.instructions, CPU.crossSize],
] as const;

/** Those parts, one after the other. */
export function cpuBytes({ memory, cpu }: Vcpu): Uint8Array {
  const parts = CPU_PARTS.map(([start, end]) => memory.u8.subarray(cpu.address + start, cpu.address + end));
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/**
 * Fills those parts with bytes that anybody may have written.
 * @throws HypercallError EINVAL: too few or too many
 */
export function setCpuBytes({ memory, cpu }: Vcpu, bytes: Uint8Array): void {
  const size = CPU_PARTS.reduce((sum, [start, end]) => sum + end - start, 0);
  if (bytes.length !== size) throw new HypercallError(ERRNO.EINVAL, `the state of a CPU has ${size} bytes`);
  let at = 0;
  for (const [start, end] of CPU_PARTS) {
    memory.u8.set(bytes.subarray(at, at + end - start), cpu.address + start);
    at += end - start;
  }
  cpu.putNumber(CPU.zero, 0);
  cpu.put(CPU.df, cpu.get(CPU.df) >>> 31 ? -1 : 1);
  cpu.put(CPU.rflags, (cpu.get(CPU.rflags) & (FLAG.TF | FLAG.NT | FLAG.RF | FLAG.AC | FLAG.ID)) | RUNS_WITH);
  cpu.put(CPU.mxcsr, cpu.get(CPU.mxcsr) & 0xffff);
}

/** Flags that every virtual CPU runs with. */
const RUNS_WITH = FLAG.IF | FLAG.ONE;

export function vcpuState(vcpu: Vcpu): VcpuState {
  const { domain, callbacks, runstate, traps } = vcpu;
  const { timeOffset } = domain;
  const { event, failsafe, failsafeMasksEvents, syscall, syscallMasksEvents, sysenter, syscall32 } =
    callbacks;
  const handlers: VcpuState['traps'][number][] = [];
  for (let vector = 0; vector < VECTORS; vector++) {
    const address = traps.address(vector);
    const flags = traps.flags(vector);
    const cs = traps.cs[vector]!;
    if (address !== 0 || flags !== 0 || cs !== 0) handlers.push([vector, flags, cs, address]);
  }
  return {
    vcpuInfo: vcpu.vcpuInfoMfn < 0 ? null : [vcpu.vcpuInfoMfn, vcpu.vcpuInfo % PAGE_SIZE],
    kernelRoot: vcpu.kernelRoot,
    userRoot: vcpu.userRoot,
    kernelMode: vcpu.kernelMode,
    cr4: vcpu.cr4,
    shadowGsBase: vcpu.shadowGsBase,
    kernelSs: vcpu.kernelSs,
    kernelSp: vcpu.kernelSp,
    iopl: vcpu.iopl,
    nmiPending: vcpu.nmiPending,
    nmiMasked: vcpu.nmiMasked,
    traps: handlers,
    callbacks: { event, failsafe, failsafeMasksEvents, syscall, syscallMasksEvents, sysenter, syscall32 },
    gdtFrames: vcpu.gdtFrames,
    gdtEntries: vcpu.gdtEntries,
    ldtBase: vcpu.ldtBase,
    ldtEntries: vcpu.ldtEntries,
    timeArea: vcpu.timeArea,
    initialised: vcpu.initialised,
    down: vcpu.down,
    blocked: vcpu.blocked,
    runstate: {
      state: runstate.state,
      since: runstate.since + timeOffset,
      times: [...runstate.times],
      area: runstate.area,
    },
    period: vcpu.period,
    nextPeriod: vcpu.nextPeriod + timeOffset,
    timer: domain.guestDeadline(vcpu.timer),
    pollTimer: domain.guestDeadline(vcpu.pollTimer),
  };
}

/**
 * Gives a new vCPU such a state. Its domain's memory and time are known already, and so is the CPU's frame; the
 * root tables, and the pages that it holds, are counted already.
 * @param accounting whether the time that it used counts as this one's
 * @throws HypercallError EINVAL: what cannot be
 */
export function setVcpuState(vcpu: Vcpu, state: VcpuState, accounting: boolean): void {
  const { domain, cpu, callbacks } = vcpu;
  const { memory, timeOffset } = domain;
  takeVcpuInfo(vcpu, state);
  takeGdt(vcpu, state);
  for (const root of [state.kernelRoot, state.userRoot]) {
    const good = root === 0 || (memory.owns(root) && memory.table.type(root) === FrameType.l4);
    need(good && (root === 0 || memory.table.typeCounts[root] !== 0), 'a root that is no table');
  }
  need(!state.initialised || state.kernelRoot !== 0, 'a CPU without page tables');
  need(state.kernelMode || state.userRoot !== 0 || !state.initialised, 'a CPU without page tables');
  vcpu.kernelRoot = state.kernelRoot;
  vcpu.userRoot = state.userRoot;
  cpu.put(GATE.kernelMode, state.kernelMode ? 1 : 0);
  vcpu.processor.loadRoots(cpu, state.kernelRoot, state.userRoot);
  vcpu.processor.setMode(cpu, state.kernelMode);
  vcpu.cr4 = state.cr4;
  vcpu.shadowGsBase = state.shadowGsBase;
  vcpu.kernelSs = state.kernelSs | 3;
  vcpu.kernelSp = state.kernelSp;
  vcpu.iopl = state.iopl & 3;
  vcpu.nmiPending = state.nmiPending;
  vcpu.nmiMasked = state.nmiMasked;
  vcpu.traps.clear();
  for (const [vector, flags, cs, address] of state.traps) {
    need(vector < VECTORS && isCanonical(address), 'a handler that cannot be');
    vcpu.traps.set(vector, flags, cs, address);
  }
  const { event, failsafe, syscall, sysenter, syscall32 } = state.callbacks;
  for (const address of [event, failsafe, syscall, sysenter, syscall32, vcpu.kernelSp])
    need(isCanonical(address), 'a callback that cannot be');
  callbacks.event = event;
  callbacks.failsafe = failsafe;
  callbacks.failsafeMasksEvents = state.callbacks.failsafeMasksEvents;
  callbacks.syscall = syscall;
  callbacks.syscallMasksEvents = state.callbacks.syscallMasksEvents;
  callbacks.sysenter = sysenter;
  callbacks.syscall32 = syscall32;
  const ldt = isCanonical(state.ldtBase) && !inHypervisor(state.ldtBase) && state.ldtBase % PAGE_SIZE === 0;
  need(ldt && state.ldtEntries <= MAX_LDT_ENTRIES, 'an LDT that cannot be');
  vcpu.ldtBase = state.ldtBase;
  vcpu.ldtEntries = state.ldtEntries;
  const { area } = state.runstate;
  need(isCanonical(state.timeArea ?? 0) && isCanonical(area ?? 0), 'an area that cannot be');
  vcpu.timeArea = state.timeArea;
  vcpu.runstate.area = area;
  vcpu.initialised = state.initialised;
  vcpu.down = state.down;
  vcpu.blocked = state.blocked;
  vcpu.period = state.period;
  vcpu.nextPeriod = state.nextPeriod - timeOffset;
  if (accounting) {
    vcpu.runstate.state = state.runstate.state;
    vcpu.runstate.since = state.runstate.since - timeOffset;
    for (const index of [0, 1, 2, 3] as const) vcpu.runstate.times[index] = state.runstate.times[index] ?? 0;
  }
  domain.setGuestDeadline(vcpu.timer, state.timer);
  domain.setGuestDeadline(vcpu.pollTimer, state.pollTimer);
}

/** The selectors that it runs with are such that it may; others become those of a flat kernel. */
export function checkSelectors(vcpu: Vcpu): void {
  const { cpu } = vcpu;
  const [cs, ss] = [cpu.selector(CS) | 3, cpu.selector(SS) | 3];
  cpu.setSelector(CS, isCodeSelector(vcpu, cs) ? cs : FLAT_KERNEL_CS);
  cpu.setSelector(SS, isStackSelector(vcpu, ss) ? ss : FLAT_KERNEL_SS);
}

function takeVcpuInfo(vcpu: Vcpu, { vcpuInfo }: VcpuState): void {
  if (vcpuInfo === null) return;
  const { memory } = vcpu.domain;
  const [mfn, offset] = vcpuInfo;
  need(
    offset >= 0 && offset <= PAGE_SIZE - VCPU_INFO.size && (offset & 7) === 0,
    'a vcpu_info that cannot be',
  );
  memory.adoptHold(mfn, FrameType.writable);
  vcpu.vcpuInfoMfn = mfn;
  vcpu.vcpuInfo = memory.linear(mfn) + offset;
}

function takeGdt(vcpu: Vcpu, { gdtFrames, gdtEntries }: VcpuState): void {
  need(
    gdtEntries <= FIRST_RESERVED_GDT_ENTRY && gdtEntries <= gdtFrames.length * 512,
    'a GDT that cannot be',
  );
  const taken: number[] = [];
  vcpu.gdtFrames = taken;
  for (const mfn of gdtFrames) {
    vcpu.domain.memory.adoptHold(mfn, FrameType.segdesc);
    taken.push(mfn);
  }
  vcpu.gdtEntries = gdtEntries;
  vcpu.cpu.put(GATE.checkedCs, 0);
  vcpu.cpu.put(GATE.checkedSs, 0);
}

function need(fine: boolean, what: string): void {
  if (!fine) throw new HypercallError(ERRNO.EINVAL, what);
}
