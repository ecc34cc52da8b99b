/**
 * The cache of ways from region to region: by virtual address, the record at which a region is entered there, and
 * the machine frame that the page had. It holds guesses: an entry counts only while the fetch TLB maps the page to
 * that frame and the record still begins a region. 16 bytes an entry: u64 address, u32 frame, u32 record.
 */
import { type Func, type I32, type I64, i32, i64, type Local } from '../../wasm/index.ts';
import { TLB, tlbIndex } from '../mmu.ts';
import { GLUE, RECORD } from '../records.ts';
import { CPU } from '../state.ts';

const ENTRIES = 4096;
const ENTRY = { address: 0, frame: 8, record: 12, size: 16 } as const;
export const JUMPS_SIZE = ENTRIES * ENTRY.size;

function entryOf(cpu: I32, address: I64): I32 {
  const mixed = i32.wrap(i64.xor(address, i64.shr_u(address, 11)));
  return i32.add(i32.load(cpu, CPU.jumps), i32.shl(i32.and(mixed, ENTRIES - 1), 4));
}

/** Where a region begins at CPU.rip, as far as the cache knows: sets CPU.page and the record, then `found`. */
export function emitJump(f: Func, cpu: I32, tlb: I32, record: Local<'i32'>, found: () => void): void {
  const rip = f.let(i64.load(cpu, CPU.rip));
  const page = f.let(i64.and(rip, i64.const(~0xfffn)));
  const entry = f.let(entryOf(cpu, rip));
  const slot = f.let(i32.add(tlb, tlbIndex(rip)));
  const guess = f.let(i32.load(entry, ENTRY.record));
  const known = i32.and(i64.eq(i64.load(entry, ENTRY.address), rip), i64.eq(i64.load(slot, TLB.fetch), page));
  const valid = i32.and(
    i32.eq(i32.load(slot, TLB.frame), i32.load(entry, ENTRY.frame)),
    i32.eq(i32.load16u(guess, RECORD.op), GLUE.region),
  );
  f.if(i32.and(known, valid), () => {
    f.set(record, guess);
    f.store(cpu, page, CPU.page);
    found();
  });
}

/** CPU.rip was looked up: if a region begins at its record, the cache knows from now on. */
export function emitRemember(f: Func, cpu: I32, tlb: I32, record: I32): void {
  f.if(i32.eq(i32.load16u(record, RECORD.op), GLUE.region), () => {
    const rip = f.let(i64.load(cpu, CPU.rip));
    const entry = f.let(entryOf(cpu, rip));
    f.store(entry, rip, ENTRY.address);
    f.store(entry, i32.load(i32.add(tlb, tlbIndex(rip)), TLB.frame), ENTRY.frame);
    f.store(entry, record, ENTRY.record);
  });
}
