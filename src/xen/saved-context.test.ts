import { describe, expect, it } from 'vitest';
import { CPU, RAX } from '../x86/state.ts';
import { applyGuestContext } from './guest-context.ts';
import { GUEST_CONTEXT, USER_REGS } from './public/arch-x86.ts';
import { guestContext } from './saved-context.ts';
import { mov, PAGE, runUntilIdle, testGuest, testSystem, va } from './testing.ts';

/** The context without the flag that says that it is up. */
function comparable(image: Uint8Array): number[] {
  const copy = image.slice();
  copy[GUEST_CONTEXT.flags] = copy[GUEST_CONTEXT.flags]! & ~(1 << 5);
  return [...copy];
}

describe('the saved state of a vCPU', () => {
  it('is the one that another vCPU starts from, in every byte', () => {
    const system = testSystem();
    const guest = testGuest(system, [...mov(RAX, -2), ...mov(15, 0x1234_5678_9abc), 0xeb, 0xfe], 2);
    const [first, second] = guest.domain.vcpus as [typeof guest.vcpu, typeof guest.vcpu];
    system.hypervisor.runSlice();
    guest.domain.pause();
    runUntilIdle(system);
    first.callbacks.event = va(PAGE.code, 16);
    first.callbacks.syscallMasksEvents = true;
    for (let vector = 0; vector < 256; vector++)
      first.traps.set(vector, vector & 7, 0xe033, va(PAGE.code, vector));
    first.kernelSp = va(PAGE.stack, 64);
    first.cpu.putNumber(CPU.fsBase, va(PAGE.data));
    first.cpu.putNumber(CPU.gsBase, va(PAGE.data, 8));
    first.shadowGsBase = va(PAGE.data, 16);
    const { u8 } = system.memory;
    for (let index = 0; index < 256; index++) u8[first.cpu.address + CPU.xmm + index] = index * 7;
    system.memory.write16(first.cpu.address + CPU.fsw, 0x2800);
    for (let index = 0; index < 80; index++)
      u8[first.cpu.address + CPU.st + (index >> 3) * 8 + (index & 7)] = index;
    for (let register = 0; register < 8; register++)
      u8.fill(
        0,
        first.cpu.address + CPU.st + register * 16 + 10,
        first.cpu.address + CPU.st + register * 16 + 16,
      );

    const saved = guestContext(first);
    const view = new DataView(saved.buffer);
    expect(view.getBigUint64(GUEST_CONTEXT.user_regs + USER_REGS.rax, true)).toBe(0xffff_ffff_ffff_fffen);
    expect(view.getBigUint64(GUEST_CONTEXT.user_regs + USER_REGS.r15, true)).toBe(0x1234_5678_9abcn);
    expect(view.getBigInt64(GUEST_CONTEXT.user_regs + USER_REGS.rip, true)).toBe(BigInt(va(PAGE.code, 20)));
    expect(view.getUint32(GUEST_CONTEXT.ctrlreg + 24, true)).toBe(guest.mfns[0]! * 4096);

    applyGuestContext(second, saved);
    expect(comparable(guestContext(second))).toEqual(comparable(saved));
  });
});
