import { describe, expect, it } from 'vitest';
import { CPU, RAX, RBX, RCX, RDX } from '../x86/state.ts';
import { SCHEDOP, SHUTDOWN } from './public/sched.ts';
import { HYPERVISOR } from './public/xen.ts';
import { hypercall, mov, PAGE, runUntilIdle, type TestGuest, testGuest, testSystem, va } from './testing.ts';

const END = hypercall(HYPERVISOR.sched_op_compat, SCHEDOP.shutdown, SHUTDOWN.poweroff);

/** Runs code (with registers saved on the stack before the end) and hands the guest out. */
function run(code: readonly number[], prepare: (guest: TestGuest) => void = () => {}): TestGuest {
  const system = testSystem();
  // push rax rbx rcx rdx, so that the registers survive the last hypercall
  const guest = testGuest(system, [...code, 0x50, 0x53, 0x51, 0x52, ...END]);
  prepare(guest);
  runUntilIdle(system);
  return guest;
}

/** A register as it was when the code ended. */
const saved = (guest: TestGuest, register: number) =>
  guest.read64(PAGE.stack, 4096 - 8 * ([RAX, RBX, RCX, RDX].indexOf(register) + 1));

describe('privileged instructions', () => {
  it('CPUID behind the prefix is answered as Xen answers', () => {
    const guest = run([...mov(RAX, 0x40000000), 0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2]);
    expect(guest.domain.crashReason).toBeNull();
    expect(saved(guest, RBX)).toBe(0x566e6558n);
    expect(saved(guest, RCX)).toBe(0x65584d4dn);
  });

  it('an undefined instruction is not CPUID', () => {
    const guest = run([0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x90]);
    expect(guest.domain.crashReason).toMatch(/^#UD/);
  });

  it('reads control registers', () => {
    const guest = run([
      ...[0x0f, 0x20, 0xc0], // mov rax, cr0
      ...[0x0f, 0x20, 0xdb], // mov rbx, cr3
      ...[0x0f, 0x20, 0xe1], // mov rcx, cr4
    ]);
    expect(guest.domain.crashReason).toBeNull();
    expect(saved(guest, RAX)).toBe(0x80050033n);
    expect(saved(guest, RBX)).toBe(BigInt(guest.mfns[0]! * 4096));
    expect(saved(guest, RCX)).toBe(0x620n);
  });

  it('lets only TS of CR0 change', () => {
    const set = run([...mov(RAX, 0x8005003b), 0x0f, 0x22, 0xc0]);
    expect(set.domain.crashReason).toBeNull();
    expect(set.cpu.get(CPU.ts)).toBe(1);
    const cleared = run([...mov(RAX, 0x8005003b), 0x0f, 0x22, 0xc0, 0x0f, 0x06]);
    expect(cleared.cpu.get(CPU.ts)).toBe(0);
    const refused = run([...mov(RAX, 0x33), 0x0f, 0x22, 0xc0]);
    expect(refused.domain.crashReason).toMatch(/^#GP/);
  });

  it('loads roots by CR3, validated', () => {
    const refused = run([0x48, 0x31, 0xc0, 0x0f, 0x22, 0xd8]);
    expect(refused.domain.crashReason).toMatch(/^#GP/);
  });

  it('reads and writes MSRs', () => {
    const guest = run([
      ...[...mov(RCX, 0xc0000100), ...mov(RAX, 0x89abcdef), ...mov(RDX, 0x7fff), 0x0f, 0x30],
      ...[...mov(RAX, 0), ...mov(RDX, 0), 0x0f, 0x32],
    ]);
    expect(guest.domain.crashReason).toBeNull();
    expect(saved(guest, RAX)).toBe(0x89abcdefn);
    expect(saved(guest, RDX)).toBe(0x7fffn);
    expect(guest.cpu.number(CPU.fsBase)).toBe(0x7fff_89abcdef);
    const pat = run([...mov(RCX, 0x277), 0x0f, 0x32]);
    expect([saved(pat, RAX), saved(pat, RDX)]).toEqual([0x00070406n, 0x0501n]);
    const efer = run([...mov(RCX, 0xc0000080), ...mov(RAX, 0), ...mov(RDX, 0), 0x0f, 0x30]);
    expect(efer.domain.crashReason).toMatch(/^#GP/);
  });

  it('an unknown MSR reads as zero until there is a #GP handler, and faults then', () => {
    const early = run([...mov(RAX, 1), ...mov(RCX, 0x12345), 0x0f, 0x32]);
    expect(early.domain.crashReason).toBeNull();
    expect(saved(early, RAX)).toBe(0n);
    const late = run([...mov(RCX, 0x12345), 0x0f, 0x32], (guest) => {
      guest.vcpu.traps.set(13, 0, 0xe033, va(PAGE.free));
      guest.write(PAGE.free, 0, hypercall(HYPERVISOR.sched_op_compat, SCHEDOP.shutdown, SHUTDOWN.reboot));
    });
    expect(late.domain.shutdown).toBe(SHUTDOWN.reboot);
  });

  it('fills a hypercall page by its MSR', () => {
    const guest = run([], (self) => {
      const address = self.mfns[PAGE.free]! * 4096;
      const code = [
        ...[...mov(RCX, 0x40000000), ...mov(RAX, address), ...mov(RDX, 0), 0x0f, 0x30],
        // xen_version(0) through it
        ...[...mov(7, 0), ...mov(RAX, va(PAGE.free, 17 * 32)), 0xff, 0xd0],
      ];
      self.write(PAGE.code, 0, [...code, 0x50, 0x53, 0x51, 0x52, ...END]);
    });
    expect(guest.domain.crashReason).toBeNull();
    expect(saved(guest, RAX)).toBe(0x40011n);
  });

  it('ports need privilege, and have nothing behind them', () => {
    expect(run([0xec]).domain.crashReason).toMatch(/^#GP/);
    const withLevel = (code: readonly number[]) =>
      run([...mov(RAX, 0x1234_5678), ...code], (guest) => {
        guest.vcpu.iopl = 1;
      });
    expect(saved(withLevel([0xec]), RAX)).toBe(0x1234_56ffn);
    expect(saved(withLevel([0x66, 0xed]), RAX)).toBe(0x1234_ffffn);
    expect(saved(withLevel([0xe5, 0x70]), RAX)).toBe(0xffff_ffffn);
    const out = withLevel([0xee, 0xe6, 0x80]);
    expect(out.domain.crashReason).toBeNull();
  });

  it('string input fills memory with ones', () => {
    const guest = run([...mov(7, va(PAGE.data)), ...mov(RCX, 5), 0xf3, 0x66, 0x6d], (self) => {
      self.vcpu.iopl = 1;
    });
    expect(guest.domain.crashReason).toBeNull();
    expect(guest.read64(PAGE.data, 0)).toBe(0xffff_ffff_ffff_ffffn);
    expect(guest.read64(PAGE.data, 8)).toBe(0xffffn);
    expect(saved(guest, RCX)).toBe(0n);
  });

  it('CLI and STI are passed over and leave the event mask alone', () => {
    for (const opcode of [0xfa, 0xfb])
      for (const masked of [true, false]) {
        const guest = run([opcode, 0x90], (self) => {
          self.vcpu.iopl = 1;
          self.vcpu.upcallMasked = masked;
        });
        expect(guest.vcpu.upcallMasked).toBe(masked);
      }
    expect(run([0xfb]).domain.crashReason).toMatch(/^#GP/);
  });

  it('INVLPG finds its operand', () => {
    // invlpg [rbx + rcx * 4 + 0x100]; invlpg [rip + 0]; invlpg gs:[r12]
    const guest = run([
      ...mov(RBX, va(PAGE.data)),
      ...mov(RCX, 4),
      ...[0x0f, 0x01, 0xbc, 0x8b, 0, 1, 0, 0],
      ...[0x0f, 0x01, 0x3d, 0, 0, 0, 0],
      ...[0x65, 0x41, 0x0f, 0x01, 0x3c, 0x24],
    ]);
    expect(guest.domain.crashReason).toBeNull();
  });

  it('leaves the tables to hypercalls', () => {
    // lgdt [rbx]
    expect(run([...mov(RBX, va(PAGE.data)), 0x0f, 0x01, 0x13]).domain.crashReason).toMatch(/^#GP/);
  });

  it('debug registers', () => {
    // mov dr0, rax; mov rbx, dr0
    const guest = run([...mov(RAX, va(PAGE.data)), 0x0f, 0x23, 0xc0, 0x0f, 0x21, 0xc3]);
    expect(guest.domain.crashReason).toBeNull();
    expect(BigInt.asIntN(64, saved(guest, RBX))).toBe(BigInt(va(PAGE.data)));
  });
});
