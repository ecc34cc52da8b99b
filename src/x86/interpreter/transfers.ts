/** The ring of a CPU's last control transfers between pages and through registers: 16 bytes each, from and to. */
import type { Cpu, VirtualAddress } from '../cpu.ts';
import { join64 } from '../cpu.ts';
import { CPU } from '../state.ts';

/** Bytes; a power of two. */
export const RING_SIZE = 1 << 15;

/** Oldest first. */
export function lastTransfers(cpu: Cpu): { from: VirtualAddress; to: VirtualAddress }[] {
  const { u32 } = cpu.memory;
  const ring = cpu.get(CPU.ring);
  const head = cpu.get(CPU.ringHead);
  const transfers = [];
  for (let back = RING_SIZE; back > 0; back -= 16) {
    const at = (ring + ((head - back) & (RING_SIZE - 1))) >>> 2;
    const from = join64(u32[at]!, u32[at + 1]!);
    const to = join64(u32[at + 2]!, u32[at + 3]!);
    if (from !== 0 || to !== 0) transfers.push({ from, to });
  }
  return transfers;
}
