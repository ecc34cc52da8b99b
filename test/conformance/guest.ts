/** A guest address space with the two regions of PLACE, in the page tables of our own processor. */
import type { Frames } from '../../src/machine/frames.ts';
import { type Memory, PAGE_SIZE } from '../../src/machine/memory.ts';
import type { PhysicalSpace } from '../../src/x86/processor.ts';
import { PLACE } from './wire.ts';

/** Page-table entries, Intel SDM volume 3, 4.5. */
const PRESENT = 1n;
const WRITABLE = 2n;
const USER = 4n;
const NO_EXECUTE = 1n << 63n;

/** Guest frame numbers begin here, so that no guest frame number is also a machine frame number by accident. */
const FIRST_GUEST_FRAME = 64;

export class Guest implements PhysicalSpace {
  readonly frameTable: number;
  readonly frameLimit: number;
  /** Guest frame number of the top table. */
  readonly root: number;
  /** Linear addresses of the two regions, each contiguous, and the machine frames they begin with. */
  readonly code: number;
  readonly data: number;
  private readonly memory: Memory;
  private readonly frames: Frames;
  private used = FIRST_GUEST_FRAME;

  constructor(memory: Memory, frames: Frames) {
    this.memory = memory;
    this.frames = frames;
    this.frameTable = frames.alloc() * PAGE_SIZE;
    this.frameLimit = PAGE_SIZE / 4;
    this.root = this.give(frames.alloc());
    this.code = this.region(PLACE.codeBase, PLACE.codeSize, () => PRESENT | USER);
    this.data = this.region(PLACE.dataBase, PLACE.dataSize, (offset) =>
      offset < PLACE.dataWritable ? PRESENT | USER | WRITABLE | NO_EXECUTE : PRESENT | USER | NO_EXECUTE,
    );
  }

  /** Gives a machine frame a guest frame number. */
  private give(machineFrame: number): number {
    const number = this.used++;
    this.memory.u32[this.frameTable / 4 + number] = machineFrame;
    return number;
  }

  private linear(guestFrame: number): number {
    return this.memory.u32[this.frameTable / 4 + guestFrame]! * PAGE_SIZE;
  }

  private region(base: number, size: number, flags: (offset: number) => bigint): number {
    const first = this.frames.allocContiguous(size / PAGE_SIZE);
    for (let offset = 0; offset < size; offset += PAGE_SIZE) {
      this.map(base + offset, this.give(first + offset / PAGE_SIZE), flags(offset));
    }
    return first * PAGE_SIZE;
  }

  private map(va: number, guestFrame: number, flags: bigint): void {
    let table = this.linear(this.root);
    for (const shift of [39, 30, 21]) {
      const slot = table / 8 + (Math.floor(va / 2 ** shift) & 511);
      if (this.memory.u64[slot] === 0n) {
        const next = this.give(this.frames.alloc());
        this.memory.u64[slot] = (BigInt(next) << 12n) | PRESENT | WRITABLE | USER;
      }
      table = this.linear(Number((this.memory.u64[slot]! >> 12n) & 0xffffffffffn));
    }
    this.memory.u64[table / 8 + ((va >>> 12) & 511)] = (BigInt(guestFrame) << 12n) | flags;
  }
}
