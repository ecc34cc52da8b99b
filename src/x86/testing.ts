/** A machine for tests of the processor: a CPU with some pages, and nothing of Xen. */
import type { Frames } from '../machine/frames.ts';
import { type Memory, PAGE_SIZE } from '../machine/memory.ts';
import { Cpu } from './cpu.ts';
import type { Processor, ProcessorHost } from './processor.ts';

/** Virtual address of the first page. */
export const CODE = 0x400000;

/** A host on which nothing happens. */
export const QUIET_HOST: ProcessorHost = {
  tsc: () => 0,
  random: () => {},
  cpuid: () => [0, 0, 0, 0],
  descriptor: () => null,
};

/** Guest frame numbers of the four page tables are 1 to 4; pages follow. */
const TABLES = 4;

/**
 * A CPU with pages from {@link CODE} on, writable, zeros; what lies behind them is not mapped.
 * @param pages which page is mapped at each place: numbers from 0 on; one may be mapped twice
 * @returns the CPU, and the pages' linear addresses
 */
export function cpuWithPages(
  memory: Memory,
  frames: Frames,
  processor: Processor,
  pages: readonly number[],
): { cpu: Cpu; pages: number[] } {
  const frameTable = frames.alloc() * PAGE_SIZE;
  const frameLimit = TABLES + Math.max(...pages) + 2;
  const linear: number[] = [];
  for (let mfn = 1; mfn < frameLimit; mfn++) {
    const frame = frames.alloc();
    memory.u32[(frameTable >>> 2) + mfn] = frame;
    linear[mfn] = frame * PAGE_SIZE;
    memory.u8.fill(0, linear[mfn]!, linear[mfn]! + PAGE_SIZE);
  }
  const map = (table: number, index: number, mfn: number) =>
    memory.write64(linear[table]! + index * 8, BigInt(mfn * PAGE_SIZE + 7));
  map(1, 0, 2);
  map(2, 0, 3);
  map(3, CODE >>> 21, TABLES);
  for (const [index, page] of pages.entries()) map(TABLES, index, TABLES + 1 + page);
  const cpu = new Cpu(memory, frames.alloc() * PAGE_SIZE);
  cpu.reset();
  processor.attach(cpu, { frameTable, frameLimit });
  processor.loadRoots(cpu, 1, 1);
  return { cpu, pages: linear.slice(TABLES + 1) };
}
