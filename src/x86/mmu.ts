/**
 * The memory management unit: software TLB and page walker, in WebAssembly.
 *
 * A TLB belongs to one root table. It is direct-mapped; an entry is 32 bytes:
 *   +0  u64 read tag    +8  u64 write tag    +16  u64 fetch tag    +24  u32 addend    +28  u32 machine frame
 * A tag is the virtual page's address if that kind of access is allowed, else all ones (which no page is). An
 * access of n bytes at va hits if (va + n - 1) rounded down to a page equals the tag in va's entry: an access that
 * crosses into the next page misses as well, and the slow path deals with it. On a hit the byte lies at linear
 * address addend + low half of va.
 *
 * The invariant: a write tag is present only if the page is writable, its D bit is set, and the machine frame holds
 * no decoded code and is not shared copy-on-write. So the first write to a page, and every first write to a page with
 * code, passes through the walker; one to a shared frame ends there, for the hypervisor to put a copy in its place.
 *
 * A TLB never holds more than the page tables say. Whoever changes an entry that a walk has passed (its A bit is set)
 * tells the processor, which forgets what came from it; so TLBs outlive loads of other roots, and nothing is stale
 * when a frame changes hands. For that each TLB keeps, beside an entry, the linear address of the page-table entry
 * that the walk ended at (an entry at index i of its table can only be in the places i, i + 512, ...), and each machine
 * frame has a word with a bit for each TLB that may have learned from it as a page table, or have a write tag for it.
 * The rules for the levels above stand at the head of core/tlb-pool.ts.
 *
 * A TLB also keeps a log of places that were filled (of a supervisor's TLB: with addresses of the lower half), so
 * that emptying one costs what it holds.
 *
 * A byte of flags for each machine frame says whether any TLB may hold it, or any write tag, or the frame holds code.
 */
import {
  type Callee,
  call,
  type Func,
  type I32,
  type I64,
  i32,
  i64,
  type Local,
  type ModuleBuilder,
  select,
  v128,
} from '../wasm/index.ts';
import { ACTIVITY_DETAIL, DETAIL } from './core/activity.ts';
import { CPU, Exit, PF, SHARED_WRITE, VECTOR } from './state.ts';

export const TLB_ENTRIES = 2048;
export const TLB_ENTRY_SIZE = 32;
export const TLB_SIZE = TLB_ENTRIES * TLB_ENTRY_SIZE;
export const TLB = { read: 0, write: 8, fetch: 16, addend: 24, frame: 28 } as const;

/** What follows a TLB's entries: for each the address of its page-table entry; its bit; the log: a count, places. */
const TLB_SOURCES = TLB_SIZE;
export const TLB_BIT = TLB_SOURCES + TLB_ENTRIES * 4;
const TLB_LOG_COUNT = TLB_BIT + 4;
const TLB_LOG = TLB_BIT + 8;
/** Places in the log; more are not counted one by one. */
const LOG_PLACES = 1000;
/** Bytes of a TLB with all of that: whole frames. */
export const TLB_BLOCK = (TLB_LOG + LOG_PLACES * 4 + 0xfff) & ~0xfff;
/** Entries of a page table. */
const TABLE_ENTRIES = 512;

/** Bits of a frame's flags. */
export const FRAME_READ = 1;
export const FRAME_WRITE = 2;
export const FRAME_CODE = 4;
/** The frame is shared copy-on-write: no TLB has a write tag for it, and a walk that is to write fails. */
export const FRAME_SHARED = 8;

/** Bits of a page-table entry, Intel SDM volume 3, 4.5. */
const PTE = { P: 1, RW: 2, US: 4, A: 0x20, D: 0x40, PS: 0x80 } as const;

/** In the `info` argument of the slow path: the size, and this for a write. */
export const INFO_WRITE = 1 << 12;

const PAGE_MASK = ~0xfffn;

/** (va >> 12) mod entries, times the entry size. */
export function tlbIndex(va: I64): I32 {
  return i32.and(i32.shr_u(i32.wrap(va), 7), (TLB_ENTRIES - 1) * TLB_ENTRY_SIZE);
}

/** The page of the last byte of an access. */
export function lastPage(va: I64, bytes: number): I64 {
  return i64.and(bytes === 1 ? va : i64.add(va, bytes - 1), i64.const(PAGE_MASK));
}

export interface MmuImports {
  /** (machine frame): a page with decoded code is about to be written. */
  readonly codeWritten: Callee;
  /**
   * (machine frame, kind, TLB entry) -> linear address of the page: reads and writes go to a copy of it. Only in the
   * interpreter that checks translations (see core/verify.ts).
   */
  readonly copyOf?: Callee;
}

export interface Mmu {
  /** (cpu, page: i64, kind: 0 read 1 write 2 fetch) -> linear address of the page, or 0 with CPU.walkError set. */
  readonly walk: Func;
  /** (cpu, va: i64, info) -> linear address, or 0 with the exception in the exit fields. */
  readonly access: Func;
  /** (cpu): finishes a store that went to scratch. */
  readonly commit: Func;
  /** (cpu, vector, error): puts an exception into the exit fields. */
  readonly raise: Func;
}

export function buildMmu(module: ModuleBuilder, imports: MmuImports): Mmu {
  const raise = module.func('raise', ['i32', 'i32', 'i32'], []);
  {
    const cpu = raise.arg('i32', 0);
    raise.store(cpu, i32.const(Exit.Exception), CPU.exitReason);
    raise.store(cpu, raise.arg('i32', 1), CPU.exitVector);
    raise.store(cpu, raise.arg('i32', 2), CPU.exitError);
    raise.store(cpu, i32.const(0), CPU.exitLength);
  }
  const walk = buildNotedWalk(module, buildWalk(module, imports));
  const access = buildAccess(module, walk, raise);
  const commit = module.func('commit', ['i32'], []);
  {
    const f = commit;
    const cpu = f.arg('i32', 0);
    f.if(i32.eq(i32.load(cpu, CPU.crossKind), 1), () => {
      const first = f.let(i32.load(cpu, CPU.crossLinear));
      const head = f.let(i32.sub(0x1000, i32.and(first, 0xfff)));
      f.memoryCopy(first, i32.add(cpu, CPU.scratch), head);
      f.memoryCopy(
        i32.load(cpu, CPU.crossLinear2),
        i32.add(i32.add(cpu, CPU.scratch), head),
        i32.sub(i32.load(cpu, CPU.crossSize), head),
      );
      f.store(cpu, i32.const(0), CPU.crossKind);
    });
  }
  buildTranslate(module, walk);
  buildRevoke(module);
  buildForget(module);
  buildEmpty(module);
  buildSameUpperHalf(module);
  return { walk, access, commit, raise };
}

/** The walk, and that one is under way (see core/activity.ts). */
function buildNotedWalk(module: ModuleBuilder, walk: Func): Func {
  const f = module.func('notedWalk', ['i32', 'i64', 'i32'], ['i32']);
  const cpu = f.arg('i32', 0);
  const before = f.let(i32.load8u(cpu, ACTIVITY_DETAIL));
  f.store(cpu, i32.const(DETAIL.walk), ACTIVITY_DETAIL, 8);
  const linear = f.let(call('i32', walk, cpu, f.arg('i64', 1), f.arg('i32', 2)));
  f.store(cpu, before, ACTIVITY_DETAIL, 8);
  f.result(linear);
  return f;
}

function buildWalk(module: ModuleBuilder, imports: MmuImports): Func {
  const f = module.func('walk', ['i32', 'i64', 'i32'], ['i32']);
  const cpu = f.arg('i32', 0);
  const page = f.arg('i64', 1);
  const kind = f.arg('i32', 2);
  const table = f.let(i32.load(cpu, CPU.root));
  const entry = f.local('i64');
  const at = f.local('i32');
  const mfn = f.local('i32');
  const rights = f.let(i64.const(PTE.RW | PTE.US));
  const noExecute = f.let(i64.const(0));
  const fail = (code: number) => {
    const access = i32.or(
      select(i32.eq(kind, 1), i32.const(PF.W), i32.const(0)),
      select(i32.eq(kind, 2), i32.const(PF.I), i32.const(0)),
    );
    const mode = select(i32.load(cpu, CPU.supervisor), i32.const(0), i32.const(PF.U));
    f.store(cpu, i32.or(i32.or(access, mode), code), CPU.walkError);
    f.return(i32.const(0));
  };
  for (const shift of [39, 30, 21, 12]) {
    // Index times 8: the address shifted so that the index starts at bit 3.
    f.set(at, i32.add(table, i32.and(i32.wrap(i64.shr_u(page, shift - 3)), 511 << 3)));
    f.set(entry, i64.load(at));
    f.if(i64.eqz(i64.and(entry, PTE.P)), () => fail(0));
    f.set(rights, i64.and(rights, entry));
    f.set(noExecute, i64.or(noExecute, entry));
    if (shift === 30 || shift === 21) f.if(i32.wrap(i64.and(entry, PTE.PS)), () => fail(PF.P | PF.RSVD));
    f.set(mfn, i32.wrap(i64.and(i64.shr_u(entry, 12), 0xfffffff)));
    f.if(
      i32.or(
        i32.ge_u(mfn, i32.load(cpu, CPU.frameLimit)),
        i32.wrap(i64.shr_u(i64.and(entry, 0xfff00_00000000n), 32)),
      ),
      () => fail(PF.P | PF.RSVD),
    );
    f.set(table, i32.load(i32.add(i32.load(cpu, CPU.frameTable), i32.shl(mfn, 2))));
    f.if(i32.eqz(table), () => fail(PF.P | PF.RSVD));
    if (shift !== 12) {
      f.set(table, i32.shl(table, 12));
      f.if(i64.eqz(i64.and(entry, PTE.A)), () => f.store(at, i64.or(entry, PTE.A)));
    }
  }
  const user = i32.eqz(i32.load(cpu, CPU.supervisor));
  f.if(i32.and(user, i64.eqz(i64.and(rights, PTE.US))), () => fail(PF.P));
  f.if(i32.and(i32.eq(kind, 2), i64.lt_s(noExecute, 0)), () => fail(PF.P));
  const frame = table;
  const flags = f.let(i32.add(i32.load(cpu, CPU.frameFlags), frame));
  f.if(i32.eq(kind, 1), () => {
    f.if(i64.eqz(i64.and(rights, PTE.RW)), () => {
      // The hypervisor lets this one store through, to scratch: it will validate and apply it.
      f.if(i32.eq(i32.load(cpu, CPU.interceptFrame), i32.add(mfn, 1)), () => {
        f.store(cpu, i32.const(2), CPU.crossKind);
        f.return(i32.shl(frame, 12));
      });
      fail(PF.P);
    });
    f.if(i32.and(i32.load8u(flags), FRAME_SHARED), () => fail(PF.P | PF.SHARED));
  });
  const wanted = f.let(i64.or(i64.const(PTE.A), select(i32.eq(kind, 1), i64.const(PTE.D), i64.const(0))));
  f.if(i64.ne(i64.and(entry, wanted), wanted), () => {
    f.set(entry, i64.or(entry, wanted));
    f.store(at, entry);
  });
  f.if(i32.eq(kind, 1), () =>
    f.if(i32.and(i32.load8u(flags), FRAME_CODE), () => f.do(imports.codeWritten, frame)),
  );
  const tlb = f.let(i32.load(cpu, CPU.tlb));
  const place = f.let(tlbIndex(page));
  const slot = f.let(i32.add(tlb, place));
  const none = i64.const(-1);
  if (imports.copyOf !== undefined) {
    // Reads, writes and fetches of a page have different addresses: one kind an entry, and the first write is seen.
    const linear = f.let(call('i32', imports.copyOf, frame, kind, slot));
    f.store(slot, select(i32.eq(kind, 2), none, page), TLB.read);
    f.store(slot, select(i32.eq(kind, 1), page, none), TLB.write);
    f.store(slot, select(i32.eq(kind, 2), page, none), TLB.fetch);
    f.store(slot, i32.sub(linear, i32.wrap(page)), TLB.addend);
    f.store(slot, frame, TLB.frame);
    f.store(flags, i32.or(i32.load8u(flags), FRAME_READ | FRAME_WRITE), 0, 8);
    f.result(linear);
    return f;
  }
  // What is not in the log yet: a place that is empty, or holds an address of the upper half.
  const unlogged = i64.lt_s(i64.load(slot, TLB.read), 0);
  f.if(i32.and(unlogged, i32.or(user, i64.ge_s(page, 0))), () => {
    const count = f.let(i32.load(tlb, TLB_LOG_COUNT));
    f.if(i32.lt_u(count, LOG_PLACES), () => f.store(i32.add(tlb, i32.shl(count, 2)), slot, TLB_LOG));
    f.store(tlb, i32.add(count, 1), TLB_LOG_COUNT);
  });
  f.store(i32.add(tlb, i32.shr_u(place, 3)), at, TLB_SOURCES);
  const mark = (machineFrame: I32) => {
    const word = f.let(i32.add(i32.load(cpu, CPU.holders), i32.shl(machineFrame, 2)));
    f.store(word, i32.or(i32.load(word), i32.load(tlb, TLB_BIT)));
  };
  mark(i32.shr_u(at, 12));
  f.store(slot, page, TLB.read);
  f.store(slot, select(i64.lt_s(noExecute, 0), none, page), TLB.fetch);
  f.store(slot, i32.sub(i32.shl(frame, 12), i32.wrap(page)), TLB.addend);
  f.store(slot, frame, TLB.frame);
  const writable = i32.and(
    i32.and(i64.ne(i64.and(rights, PTE.RW), 0), i64.ne(i64.and(entry, PTE.D), 0)),
    i32.eqz(i32.and(i32.load8u(flags), FRAME_CODE | FRAME_SHARED)),
  );
  f.if(
    writable,
    () => {
      f.store(slot, page, TLB.write);
      mark(frame);
      f.store(flags, i32.or(i32.load8u(flags), FRAME_READ | FRAME_WRITE), 0, 8);
    },
    () => {
      f.store(slot, none, TLB.write);
      f.store(flags, i32.or(i32.load8u(flags), FRAME_READ), 0, 8);
    },
  );
  f.result(i32.shl(frame, 12));
  return f;
}

/** Not canonical: bits 63..47 are not all the same. */
export function notCanonical(va: I64): I32 {
  return i64.gt_u(i64.add(va, i64.const(1n << 47n)), i64.const((1n << 48n) - 1n));
}

function buildAccess(module: ModuleBuilder, walk: Func, raise: Func): Func {
  const f = module.func('access', ['i32', 'i64', 'i32'], ['i32']);
  const cpu = f.arg('i32', 0);
  const va = f.arg('i64', 1);
  const info = f.arg('i32', 2);
  const size = f.let(i32.and(info, INFO_WRITE - 1));
  const write = f.let(i32.shr_u(info, 12));
  const last = f.let(i64.add(va, i64.sub(i64.extend_u(size), 1)));
  f.if(i32.or(notCanonical(va), notCanonical(last)), () => {
    f.do(raise, cpu, i32.const(VECTOR.GP), i32.const(0));
    // Marks that the address was at fault: through the stack segment it is #SS.
    f.store(cpu, i32.const(1), CPU.exitLength);
    f.return(i32.const(0));
  });
  const pageFault = (address: I64) => {
    f.store(cpu, address, CPU.cr2);
    const error = f.let(i32.load(cpu, CPU.walkError));
    const shared = i32.and(error, PF.SHARED);
    f.do(raise, cpu, select(shared, i32.const(SHARED_WRITE), i32.const(VECTOR.PF)), error);
    f.return(i32.const(0));
  };
  f.store(cpu, i32.const(0), CPU.crossKind);
  const page = f.let(i64.and(va, i64.const(PAGE_MASK)));
  const first = f.let(call('i32', walk, cpu, page, write));
  f.if(i32.eqz(first), () => pageFault(va));
  const offset = f.let(i32.and(i32.wrap(va), 0xfff));
  const linear = f.let(i32.add(first, offset));
  const scratch = i32.add(cpu, CPU.scratch);
  f.if(i32.le_u(i32.add(offset, size), 0x1000), () => {
    f.if(i32.eq(i32.load(cpu, CPU.crossKind), 2), () => {
      f.store(cpu, va, CPU.crossAddress);
      f.store(cpu, size, CPU.crossSize);
      f.store(cpu, linear, CPU.crossLinear);
      f.memoryCopy(scratch, linear, size);
      f.return(scratch);
    });
    f.return(linear);
  });
  const page2 = f.let(i64.add(page, 0x1000));
  const second = f.let(call('i32', walk, cpu, page2, write));
  f.if(i32.eqz(second), () => pageFault(page2));
  f.if(i32.eq(i32.load(cpu, CPU.crossKind), 2), () => {
    // Only stores within one page are intercepted.
    f.store(cpu, i32.const(0), CPU.crossKind);
    f.store(cpu, i32.const(PF.P | PF.W), CPU.walkError);
    pageFault(va);
  });
  const head = f.let(i32.sub(0x1000, offset));
  f.memoryCopy(scratch, linear, head);
  f.memoryCopy(i32.add(scratch, head), second, i32.sub(size, head));
  f.store(cpu, i32.const(1), CPU.crossKind);
  f.store(cpu, size, CPU.crossSize);
  f.store(cpu, linear, CPU.crossLinear);
  f.store(cpu, second, CPU.crossLinear2);
  f.result(scratch);
  return f;
}

/** translate(cpu, low, high, kind): for the hypervisor's own accesses; through the TLB. */
function buildTranslate(module: ModuleBuilder, walk: Func): void {
  const f = module.func('translate', ['i32', 'i32', 'i32', 'i32'], ['i32']);
  const cpu = f.arg('i32', 0);
  const kind = f.arg('i32', 3);
  const va = f.let(i64.or(i64.extend_u(f.arg('i32', 1)), i64.shl(i64.extend_u(f.arg('i32', 2)), 32)));
  f.if(notCanonical(va), () => {
    f.store(cpu, i32.const(0), CPU.walkError);
    f.return(i32.const(0));
  });
  const page = f.let(i64.and(va, i64.const(PAGE_MASK)));
  const slot = f.let(i32.add(i32.load(cpu, CPU.tlb), tlbIndex(va)));
  f.if(i64.eq(i64.load(i32.add(slot, i32.shl(kind, 3))), page), () =>
    f.return(i32.add(i32.load(slot, TLB.addend), i32.wrap(va))),
  );
  const linear = f.let(call('i32', walk, cpu, page, kind));
  f.if(i32.eqz(linear), () => f.return(i32.const(0)));
  f.result(i32.or(linear, i32.and(i32.wrap(va), 0xfff)));
  module.export('translate', f);
}

/** Clears a place of a TLB. */
function emitClear(f: Func, slot: I32): void {
  f.store(slot, i64.const(-1), TLB.read);
  f.store(slot, i64.const(-1), TLB.write);
  f.store(slot, i64.const(-1), TLB.fetch);
}

/** forget(tlb, entry): clears what the TLB has from a page-table entry at a linear address. */
function buildForget(module: ModuleBuilder): void {
  const f = module.func('forget', ['i32', 'i32'], []);
  const tlb = f.arg('i32', 0);
  const entry = f.arg('i32', 1);
  const index = f.let(i32.and(i32.shr_u(entry, 3), TABLE_ENTRIES - 1));
  const source = f.let(i32.add(tlb, i32.shl(index, 2)));
  const slot = f.let(i32.add(tlb, i32.shl(index, Math.log2(TLB_ENTRY_SIZE))));
  for (let first = 0; first < TLB_ENTRIES; first += TABLE_ENTRIES)
    f.if(i32.eq(i32.load(source, TLB_SOURCES + first * 4), entry), () =>
      emitClear(f, f.let(i32.add(slot, first * TLB_ENTRY_SIZE))),
    );
  module.export('forget', f);
}

/** empty(tlb, all): clears the places in its log, or all places; empties the log. */
function buildEmpty(module: ModuleBuilder): void {
  const f = module.func('empty', ['i32', 'i32'], []);
  const tlb = f.arg('i32', 0);
  const count = f.let(i32.load(tlb, TLB_LOG_COUNT));
  f.if(
    i32.or(f.arg('i32', 1), i32.gt_u(count, LOG_PLACES)),
    () => f.memoryFill(tlb, 0xff, TLB_SIZE),
    () => {
      const at = f.let(tlb);
      const end = f.let(i32.add(tlb, i32.shl(count, 2)));
      f.block((done) => {
        f.loop((next) => {
          f.brIf(i32.ge_u(at, end), done);
          emitClear(f, f.let(i32.load(at, TLB_LOG)));
          f.set(at, i32.add(at, 4));
          f.br(next);
        });
      });
    },
  );
  f.store(tlb, i32.const(0), TLB_LOG_COUNT);
  module.export('empty', f);
}

/**
 * sameUpperHalf(a, b): whether two root tables agree in the entries of the upper half, A and D bits aside. If so,
 * b's entries have all A bits of a's from then on: a TLB that learned through a may be used for b.
 */
function buildSameUpperHalf(module: ModuleBuilder): void {
  const f = module.func('sameUpperHalf', ['i32', 'i32'], ['i32']);
  const a = f.arg('i32', 0);
  const b = f.arg('i32', 1);
  const upper = (TABLE_ENTRIES / 2) * 8;
  const at = f.let(i32.const(0));
  const all = f.let(v128.const(0n, 0n));
  f.loop((next) => {
    const difference = (offset: number) =>
      v128.xor(v128.load(i32.add(a, at), upper + offset), v128.load(i32.add(b, at), upper + offset));
    f.set(all, v128.or(all, v128.or(difference(0), difference(16))));
    f.set(at, i32.add(at, 32));
    f.brIf(i32.lt_u(at, upper), next);
  });
  const some = f.let(i64.or(v128.i64x2_extract(all, 0), v128.i64x2_extract(all, 1)));
  f.if(i64.ne(i64.and(some, i64.const(~BigInt(PTE.A | PTE.D))), 0), () => f.return(i32.const(0)));
  f.if(i64.eqz(i64.and(some, PTE.A)), () => f.return(i32.const(1)));
  f.set(at, i32.const(0));
  f.loop((next) => {
    const from = f.let(i64.load(i32.add(a, at), upper));
    const to = f.let(i32.add(b, at));
    const missing = f.let(i64.and(i64.and(from, i64.xor(i64.load(to, upper), -1)), PTE.A));
    f.if(i64.ne(missing, 0), () => f.store(to, i64.or(i64.load(to, upper), missing), upper));
    f.set(at, i32.add(at, 8));
    f.brIf(i32.lt_u(at, upper), next);
  });
  f.result(i32.const(1));
  module.export('sameUpperHalf', f);
}

/** revoke(tlb, frame, writeOnly): clears the write tags, or all tags, of a frame's entries. */
function buildRevoke(module: ModuleBuilder): void {
  const f = module.func('revoke', ['i32', 'i32', 'i32'], []);
  const at = f.let(f.arg('i32', 0));
  const frame = f.arg('i32', 1);
  const end = f.let(i32.add(at, TLB_SIZE));
  f.loop((next) => {
    f.if(i32.eq(i32.load(at, TLB.frame), frame), () => {
      f.if(i32.eqz(f.arg('i32', 2)), () => {
        f.store(at, i64.const(-1), TLB.read);
        f.store(at, i64.const(-1), TLB.fetch);
      });
      f.store(at, i64.const(-1), TLB.write);
    });
    f.set(at, i32.add(at, TLB_ENTRY_SIZE));
    f.brIf(i32.lt_u(at, end), next);
  });
  module.export('revoke', f);
}

/**
 * Emits the inlined look-up: `linear` receives the linear address of `bytes` bytes at `va`; if the TLB does not have
 * them, `miss` must set it, or leave. `likely`: the engine is told that they mostly are there.
 */
export function emitLookup(
  f: Func,
  tlb: I32,
  va: I64,
  bytes: number,
  write: boolean,
  linear: Local<'i32'>,
  miss: () => void,
  likely?: true,
): void {
  const slot = f.let(i32.add(tlb, tlbIndex(va)));
  f.if(
    i64.eq(i64.load(slot, write ? TLB.write : TLB.read), lastPage(va, bytes)),
    () => f.set(linear, i32.add(i32.load(slot, TLB.addend), i32.wrap(va))),
    miss,
    likely,
  );
}

/** The third argument of access, and of what stands for it in translated code (see interpreter/region-access.ts). */
export const accessInfo = (bytes: number, write: boolean): I32 => i32.const(bytes | (write ? INFO_WRITE : 0));
