/**
 * The frames of the machine: who may have which 4 KiB of memory.
 *
 * A bitmap in the memory itself (a set bit: taken), guarded by one lock word, so that every thread that holds the
 * memory can allocate. Layout: frame 0 is never handed out; the header frame holds the lock and the counters; the
 * bitmap follows.
 */
import { type Memory, PAGE_SHIFT, PAGE_SIZE } from './memory.ts';

const HEADER = 1 * PAGE_SIZE;
const LOCK = HEADER >>> 2;
const MAGIC = LOCK + 1;
const FREE = LOCK + 2;
const HINT = LOCK + 3;
/** Frames from this one on have never been handed out: they are zero, and cost the host nothing yet. */
const FRESH = LOCK + 4;
const BITMAP = 2 * PAGE_SIZE;
const READY = 0x656d7266;

/** What the lock word says. Who finds the lock taken says that he waits, and is woken when it is given back. */
const Lock = { free: 0, taken: 1, awaited: 2 } as const;
/** Looks at a lock that is taken before its thread sleeps: it is mostly held for less than a microsecond. */
const SPINS = 200;
/** For how long a thread sleeps at most before it looks again, ms. */
const NAP = 10;

/** The machine has no free frames left for what was asked. */
export class OutOfFrames extends Error {
  constructor(wanted: number) {
    super(`out of machine memory: ${wanted} frame(s) of 4 KiB wanted`);
  }
}

export class Frames {
  readonly memory: Memory;
  /** Frames in the machine, those of the allocator itself included. */
  readonly total: number;
  /** Hears of each frame that is handed out and was in use before: what a processor knows of it is old. */
  onReuse: ((frame: number) => void) | null = null;

  constructor(memory: Memory) {
    this.memory = memory;
    this.total = memory.size >>> PAGE_SHIFT;
    if (Atomics.compareExchange(memory.i32, MAGIC, 0, READY) === 0) {
      const own = 2 + Math.ceil(this.total / 8 / PAGE_SIZE);
      for (let frame = 0; frame < own; frame++) this.mark(frame, true);
      memory.u32[FREE] = this.total - own;
      memory.u32[HINT] = own;
      memory.u32[FRESH] = own;
    }
  }

  /** How many frames are free. */
  get free(): number {
    return Atomics.load(this.memory.u32, FREE);
  }

  /** One zeroed frame. @throws OutOfFrames */
  alloc(): number {
    return this.allocContiguous(1);
  }

  /** `count` zeroed frames that follow each other; the first one's number. @throws OutOfFrames */
  allocContiguous(count: number): number {
    let used = 0;
    const first = this.locked(() => {
      const { u32 } = this.memory;
      const taken = this.take(count);
      used = u32[FRESH]!;
      u32[FRESH] = Math.max(used, taken + count);
      return taken;
    });
    if (first === 0) throw new OutOfFrames(count);
    const end = Math.min(first + count, used);
    if (end > first) {
      this.memory.u8.fill(0, first * PAGE_SIZE, end * PAGE_SIZE);
      if (this.onReuse !== null) for (let frame = first; frame < end; frame++) this.onReuse(frame);
    }
    return first;
  }

  /** Gives frames back. */
  release(first: number, count = 1): void {
    this.locked(() => {
      for (let frame = first; frame < first + count; frame++) {
        if (!this.taken(frame)) throw new RangeError(`frame ${frame} is free already`);
        this.mark(frame, false);
      }
      this.memory.u32[FREE]! += count;
      if (first < this.memory.u32[HINT]!) this.memory.u32[HINT] = first;
    });
  }

  private take(count: number): number {
    const { u32 } = this.memory;
    if (u32[FREE]! < count) return 0;
    let run = 0;
    for (let frame = u32[HINT]!; frame < this.total; frame++) {
      if (run === 0 && (frame & 31) === 0 && u32[(BITMAP >>> 2) + (frame >>> 5)] === 0xffffffff) {
        frame += 31;
        continue;
      }
      run = this.taken(frame) ? 0 : run + 1;
      if (run < count) continue;
      const first = frame - count + 1;
      for (let f = first; f <= frame; f++) this.mark(f, true);
      u32[FREE]! -= count;
      if (count === 1) u32[HINT] = frame + 1;
      return first;
    }
    return 0;
  }

  private taken(frame: number): boolean {
    return (this.memory.u8[BITMAP + (frame >>> 3)]! & (1 << (frame & 7))) !== 0;
  }

  private mark(frame: number, taken: boolean): void {
    const at = BITMAP + (frame >>> 3);
    const bit = 1 << (frame & 7);
    if (taken) this.memory.u8[at]! |= bit;
    else this.memory.u8[at]! &= ~bit;
  }

  private locked<T>(work: () => T): T {
    const { i32 } = this.memory;
    if (!this.tryLock()) this.waitForLock();
    try {
      return work();
    } finally {
      if (Atomics.exchange(i32, LOCK, Lock.free) === Lock.awaited) Atomics.notify(i32, LOCK, 1);
    }
  }

  private tryLock(): boolean {
    return Atomics.compareExchange(this.memory.i32, LOCK, Lock.free, Lock.taken) === Lock.free;
  }

  private waitForLock(): void {
    for (let spin = 0; spin < SPINS; spin++) if (this.tryLock()) return;
    const { i32 } = this.memory;
    while (Atomics.exchange(i32, LOCK, Lock.awaited) !== Lock.free)
      Atomics.wait(i32, LOCK, Lock.awaited, NAP);
  }
}
