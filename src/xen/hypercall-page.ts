/**
 * The hypercall page: code that the guest calls at 32 bytes times the hypercall's number, so that it need not know
 * how a hypercall is made.
 */
import { HYPERVISOR } from './public/xen.ts';

const STUB = 32;

/** push rcx; push r11; mov eax, number; syscall; pop r11; pop rcx; ret. Arguments stay where they are. */
function stub(number: number): number[] {
  return [0x51, 0x41, 0x53, 0xb8, number, 0, 0, 0, 0x0f, 0x05, 0x41, 0x5b, 0x59, 0xc3];
}

/** iret takes rcx, r11 and rax from the stack: push rcx; push r11; push rax; mov eax, number; syscall. */
function iretStub(): number[] {
  return [0x51, 0x41, 0x53, 0x50, 0xb8, HYPERVISOR.iret, 0, 0, 0, 0x0f, 0x05];
}

/** @param page 4096 bytes */
export function fillHypercallPage(page: Uint8Array): void {
  page.fill(0xcc);
  for (let number = 0; number < page.length / STUB; number++)
    page.set(number === HYPERVISOR.iret ? iretStub() : stub(number), number * STUB);
}
