/**
 * The gates beside what they stand for. A virtual CPU in a random state makes an exit; once with the gates open and
 * once with them closed, so that TypeScript answers. Everything that a guest can see must be the same afterwards.
 */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { CPU, CS, Exit, FLAG, RAX, RCX, RDI, RSI, RSP, SS, VECTOR } from '../x86/state.ts';
import { deliverPending } from './callback.ts';
import { loadGdt, updateDescriptor } from './descriptors.ts';
import { GATE } from './gate-state.ts';
import { Arguments } from './hypercall.ts';
import { entryLow, PAGE_RO } from './mm/testing.ts';
import { FLAT_USER_CS, FLAT_USER_SS, IRET_CONTEXT, VGCF_IN_SYSCALL } from './public/arch-x86.ts';
import { HYPERVISOR, HYPERVISOR_VIRT_START, TI_IF, VCPU_INFO, VMASST_TYPE } from './public/xen.ts';
import { PAGE, testGuest, testSystem, va } from './testing.ts';
import type { Vcpu } from './vcpu.ts';

/** More for a long run. */
const RUNS = Number(process.env['PROPERTY_RUNS'] ?? 600);

const SYSCALL = [0x0f, 0x05];
/** mov rax, [rdi]; mov [rdi], rax */
const LOAD = [0x48, 0x8b, 0x07];
const STORE = [0x48, 0x89, 0x07];
/** Pages of the test guest: its page tables are mapped read-only. */
const TABLE_PAGE = 3;
const UNMAPPED = va(100);

const anyArb = fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n });
/** A stack: mostly one that can be written, at some offset. */
const stackArb = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.constantFrom(64, 72, 100, 2048, 4040, 4064, 4096).map((offset) => va(PAGE.stack, offset)),
  },
  { weight: 4, arbitrary: fc.integer({ min: 8, max: 510 }).map((word) => va(PAGE.stack, word * 8)) },
  {
    weight: 1,
    arbitrary: fc.constantFrom(UNMAPPED, va(TABLE_PAGE, 4096), HYPERVISOR_VIRT_START + 4096, 2 ** 47, 0),
  },
);
const rarely = fc.oneof(
  { weight: 12, arbitrary: fc.constant(false) },
  { weight: 1, arbitrary: fc.constant(true) },
);
const addressArb = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom(va(PAGE.code, 16), va(PAGE.userCode), 0x1234) },
  { weight: 1, arbitrary: fc.constantFrom(0, 2 ** 47, -(2 ** 47) - 1) },
);
const csArb = fc.constantFrom(FLAT_USER_CS, FLAT_USER_CS, FLAT_USER_CS & ~3, 0x33, 0x33, 0x3b, 0xe02b, 0);
const ssArb = fc.constantFrom(FLAT_USER_SS, FLAT_USER_SS, FLAT_USER_SS & ~3, 0, 0x2b, 0x2b, 0x3b);
const flagsArb = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 0, max: 0x3f_ffff }).map((f) => f & ~FLAG.TF) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 0x3f_ffff }) },
  { weight: 1, arbitrary: fc.constant(FLAG.TF | FLAG.IF) },
);

const caseArb = fc.record({
  kernel: fc.boolean(),
  checked: fc.boolean(),
  what: fc.constantFrom('call', 'call', 'load', 'store'),
  number: fc.constantFrom<number>(
    HYPERVISOR.iret,
    HYPERVISOR.iret,
    HYPERVISOR.iret,
    HYPERVISOR.stack_switch,
    HYPERVISOR.fpu_taskswitch,
    HYPERVISOR.set_segment_base,
    HYPERVISOR.xen_version,
    1000,
  ),
  first: fc.integer({ min: 0, max: 4 }),
  second: fc.oneof({ weight: 4, arbitrary: fc.integer({ min: 0, max: 2 ** 40 }) }, addressArb),
  fault: fc.constantFrom(UNMAPPED, UNMAPPED, 8, va(TABLE_PAGE, 8)),
  rsp: stackArb,
  kernelSp: stackArb,
  syscall: addressArb,
  syscallMasks: fc.boolean(),
  pageFault: addressArb,
  pageFaultMasks: fc.boolean(),
  masked: fc.boolean(),
  pending: fc.constantFrom(false, false, true),
  nmi: rarely,
  iopl: fc.integer({ min: 0, max: 3 }),
  architecturalIopl: fc.boolean(),
  noUserRoot: rarely,
  rflags: flagsArb.map((flags) => flags & ~FLAG.TF),
  cs: csArb,
  ss: ssArb,
  r11: anyArb,
  rcx: anyArb,
  gsBase: fc.integer({ min: 0, max: 2 ** 40 }),
  shadow: fc.integer({ min: 0, max: 2 ** 40 }),
  frame: fc.record({
    values: fc.array(anyArb, { minLength: 9, maxLength: 9 }),
    inSyscall: fc.boolean(),
    rip: addressArb,
    cs: csArb,
    ss: ssArb,
    rflags: flagsArb,
  }),
});
type Case = typeof caseArb extends fc.Arbitrary<infer T> ? T : never;

const system = testSystem();
const guest = testGuest(system, []);
const { vcpu, cpu, domain } = guest;
const { memory } = system;
const hypervisor = system.hypervisor as unknown as { answer(vcpu: Vcpu, exit: Exit): void };
const root = vcpu.kernelRoot;
// A GDT with selectors of its own: 0x33 code, 0x2b data, 0x3b neither.
guest.write64(PAGE.free, 0x28, 0x00cff3000000ffffn);
guest.write64(PAGE.free, 0x30, 0x00affb000000ffffn);
domain.memory.pageTables.update(
  guest.mfns[TABLE_PAGE]!,
  PAGE.free,
  entryLow(guest.mfns[PAGE.free]!, PAGE_RO),
  0,
);
loadGdt(vcpu, [guest.mfns[PAGE.free]!], 8);
const pristine = memory.u8.slice(cpu.address, cpu.address + CPU.size);

function prepare(test: Case): void {
  domain.shutdown = null;
  domain.crashReason = null;
  vcpu.setKernelMode(true);
  memory.u8.set(pristine, cpu.address);
  domain.memory.loadRoots(vcpu, root, test.noUserRoot ? 0 : root);
  for (const page of [PAGE.stack, PAGE.data, PAGE.code])
    memory.u8.fill(
      0x11,
      domain.memory.linear(guest.mfns[page]!),
      domain.memory.linear(guest.mfns[page]!) + 4096,
    );
  guest.write(PAGE.code, 0, test.what === 'call' ? SYSCALL : test.what === 'load' ? LOAD : STORE);

  cpu.setRegNumber(RSP, test.rsp);
  const at = test.rsp;
  if (at >= va(PAGE.stack) && at + IRET_CONTEXT.size <= va(PAGE.stack, 4096)) {
    const offset = at - va(PAGE.stack);
    const { values, inSyscall, rip, cs, ss, rflags } = test.frame;
    const base = domain.memory.linear(guest.mfns[PAGE.stack]!) + offset;
    const put = (field: number, value: bigint | number) => {
      const big = BigInt.asUintN(64, BigInt(value));
      for (let byte = 0; byte < 8; byte++)
        memory.u8[base + field + byte] = Number((big >> BigInt(byte * 8)) & 0xffn);
    };
    for (const [index, value] of values.entries()) put(index * 8, value);
    put(IRET_CONTEXT.flags, inSyscall ? VGCF_IN_SYSCALL : 0);
    put(IRET_CONTEXT.rip, rip);
    put(IRET_CONTEXT.cs, cs);
    put(IRET_CONTEXT.ss, ss);
    put(IRET_CONTEXT.rflags, rflags);
  }
  cpu.setRegNumber(RAX, test.number);
  cpu.setRegNumber(RDI, test.what === 'call' ? test.first : test.fault);
  cpu.setRegNumber(RSI, test.second);
  cpu.setReg(RCX, test.rcx);
  cpu.setReg(11, test.r11);
  cpu.rflags = test.rflags | FLAG.IF;
  cpu.putNumber(CPU.gsBase, test.gsBase);
  cpu.setSelector(CS, test.cs);
  cpu.setSelector(SS, test.ss);
  vcpu.shadowGsBase = test.shadow;
  vcpu.kernelSp = test.kernelSp;
  vcpu.callbacks.syscall = test.syscall;
  vcpu.callbacks.syscallMasksEvents = test.syscallMasks;
  vcpu.callbacks.failsafe = va(PAGE.code, 64);
  vcpu.callbacks.event = va(PAGE.code, 128);
  for (const vector of [VECTOR.PF, VECTOR.UD, VECTOR.GP, VECTOR.NMI])
    vcpu.traps.set(vector, test.pageFaultMasks ? TI_IF : 0, FLAT_USER_CS, test.pageFault);
  vcpu.iopl = test.iopl;
  cpu.put(GATE.checkedCs, test.checked ? 0x33 : 0);
  cpu.put(GATE.checkedSs, test.checked ? 0x2b : 0);
  vcpu.nmiPending = test.nmi;
  vcpu.nmiMasked = true;
  memory.u8.fill(0, vcpu.vcpuInfo, vcpu.vcpuInfo + VCPU_INFO.size);
  memory.u8[vcpu.vcpuInfo + VCPU_INFO.evtchn_upcall_pending] = test.pending ? 1 : 0;
  vcpu.upcallMasked = test.masked;
  vcpu.setKernelMode(test.kernel);
  cpu.rip = va(PAGE.code);
}

/** What the guest can tell, and what decides how it goes on. */
function state(): unknown {
  const bytes = (from: number, length: number) =>
    Buffer.from(memory.u8.slice(from, from + length)).toString('hex');
  const page = (number: number) => bytes(domain.memory.linear(guest.mfns[number]!), 4096);
  const scratch = new Set([CPU.page, CPU.page + 4, CPU.ea, CPU.ea + 4]);
  const words: Record<string, number> = {};
  for (let offset = 0; offset < CPU.dr + 64; offset += 4)
    if (!scratch.has(offset)) words[offset.toString(16)] = cpu.get(offset);
  // What gates know is not the guest's to see.
  for (let offset = GATE.kernelMode; offset < GATE.pageFault + 8; offset += 4)
    words[offset.toString(16)] = cpu.get(offset);
  for (const offset of [CPU.tlb, CPU.root, CPU.ts]) words[offset.toString(16)] = cpu.get(offset);
  // RFLAGS in five words can be said in more than one way.
  for (const offset of [CPU.zres, CPU.spres, CPU.of])
    for (const half of [0, 4]) delete words[(offset + half).toString(16)];
  for (const offset of [CPU.cf, CPU.af]) delete words[offset.toString(16)];
  return {
    words,
    rflags: cpu.rflags,
    stack: page(PAGE.stack),
    info: bytes(vcpu.vcpuInfo, VCPU_INFO.size),
    crash: domain.crashReason,
  };
}

function run(test: Case, open: boolean): { gated: boolean; state: unknown } {
  prepare(test);
  domain.vmAssist = test.architecturalIopl ? 1 << VMASST_TYPE.architectural_iopl : 0;
  vcpu.openGates();
  if (!open) cpu.put(GATE.open, 0);
  // A gate uses the budget up.
  const exit = system.hypervisor.processor.run(cpu, 1);
  if (exit !== Exit.Budget) {
    hypervisor.answer(vcpu, exit);
    // Behind a gate the guest goes on at once: nothing may wait for it there.
    if (domain.shutdown === null) deliverPending(vcpu);
  } else expect(cpu.rflags & FLAG.TF).toBe(0);
  return { gated: exit === Exit.Budget, state: state() };
}

it('gates do what they stand for', () => {
  const answered = new Map<string, number>();
  fc.assert(
    fc.property(caseArb, (test) => {
      const closed = run(test, false);
      const open = run(test, true);
      expect(open.state).toEqual(closed.state);
      expect(closed.gated).toBe(false);
      if (!open.gated) return;
      const kind = test.what === 'call' && test.kernel ? `hypercall ${test.number}` : test.what;
      answered.set(`${kind} ${test.kernel}`, (answered.get(`${kind} ${test.kernel}`) ?? 0) + 1);
    }),
    { numRuns: RUNS },
  );
  for (const kind of [
    'call false',
    'load false',
    'load true',
    'store false',
    'store true',
    ...[HYPERVISOR.iret, HYPERVISOR.stack_switch, HYPERVISOR.fpu_taskswitch, HYPERVISOR.set_segment_base].map(
      (number) => `hypercall ${number} true`,
    ),
  ])
    expect(answered.get(kind) ?? 0, kind).toBeGreaterThan(RUNS / 600);
});

it('gates forget selectors when the GDT changes', () => {
  const known = () => [cpu.get(GATE.checkedCs), cpu.get(GATE.checkedSs)];
  const learn = () => {
    cpu.put(GATE.checkedCs, 0x33);
    cpu.put(GATE.checkedSs, 0x2b);
  };
  learn();
  const args = new Arguments();
  args.set(0, guest.mfns[PAGE.free]! * 4096 + 0x38);
  expect(updateDescriptor(vcpu, args)).toBe(0);
  expect(known()).toEqual([0, 0]);
  learn();
  loadGdt(vcpu, [guest.mfns[PAGE.free]!], 8);
  expect(known()).toEqual([0, 0]);
});
