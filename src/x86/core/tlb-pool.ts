/**
 * The TLBs of a processor. Each belongs to one root table of one physical space at one generation of its page
 * tables; the least recently loaded one is taken when a new root comes.
 */
import type { Memory } from '../../machine/memory.ts';
import { TLB_SIZE } from '../mmu.ts';
import type { PhysicalSpace } from '../processor.ts';

export interface Tlb {
  readonly address: number;
  space: PhysicalSpace | null;
  /** Guest frame number of the root, and whether supervisor rules hold. */
  root: number;
  supervisor: boolean;
  generation: number;
  used: number;
}

export class TlbPool {
  readonly tlbs: Tlb[] = [];
  private readonly memory: Memory;
  private clock = 0;

  constructor(memory: Memory, address: number, count: number) {
    this.memory = memory;
    for (let i = 0; i < count; i++) {
      this.tlbs.push({
        address: address + i * TLB_SIZE,
        space: null,
        root: 0,
        supervisor: false,
        generation: 0,
        used: 0,
      });
    }
    memory.u8.fill(0xff, address, address + count * TLB_SIZE);
  }

  /** The TLB for a root; never the one to keep. */
  get(space: PhysicalSpace, root: number, supervisor: boolean, keep: Tlb | null): Tlb {
    let tlb = this.tlbs.find(
      (each) => each.space === space && each.root === root && each.supervisor === supervisor,
    );
    if (tlb === undefined) {
      tlb = this.tlbs.reduce((oldest, each) =>
        each !== keep && (oldest === keep || each.used < oldest.used) ? each : oldest,
      );
      tlb.space = space;
      tlb.root = root;
      tlb.supervisor = supervisor;
      this.flush(tlb);
    } else if (tlb.generation !== space.generation) this.flush(tlb);
    tlb.generation = space.generation;
    tlb.used = ++this.clock;
    return tlb;
  }

  flush(tlb: Tlb): void {
    this.memory.u8.fill(0xff, tlb.address, tlb.address + TLB_SIZE);
  }

  /** Forgets every TLB of a physical space. */
  release(space: PhysicalSpace): void {
    for (const tlb of this.tlbs) {
      if (tlb.space !== space) continue;
      tlb.space = null;
      this.flush(tlb);
    }
  }
}
