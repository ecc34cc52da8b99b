/** The variables of a region, what is known of them at a place in it, and the ways out. */
import { type Func, type I32, type I64, i64, type Local } from '../../wasm/index.ts';
import { CPU } from '../state.ts';
import type { Addresses, Known } from './addresses.ts';
import { Endings } from './endings.ts';
import { type FlagsSnapshot, RegionFlags } from './flags.ts';
import type { RegionImports } from './imports.ts';
import { VectorState, type Vectors } from './vectors.ts';
import type { Lane } from './vectors-facts.ts';

/** How a region is left. */
export interface RegionExits {
  /** Before the current instruction, with the exception in the exit fields. */
  fault(): void;
  /** At a virtual address. */
  transfer(va: I64): void;
  /** Before the current instruction, to do it again outside. */
  retry(): void;
  /** Before the current instruction, with the status in CPU.accessStatus, if memory could not be reached. */
  unreached(failed: I32): void;
  /** To be emitted somewhere before {@link unreached}. */
  reaching(): void;
  /** Behind the current instruction, with the reason in the exit fields. */
  exit(): void;
  /** Behind the current instruction. */
  behind(): void;
  /** Where an indirect branch goes most often; null: not known. */
  likely(): I64 | null;
}

/** What is known at a place of a region. */
export interface Snapshot {
  readonly flags: FlagsSnapshot;
  readonly vectors: Vectors;
  readonly addresses: Known;
}

/** The variables of a region. */
export class RegionState {
  readonly f: Func;
  readonly cpu: Local<'i32'>;
  readonly tlb: Local<'i32'>;
  /** Virtual address of the entry's page: all places in the region count from it. */
  readonly base: Local<'i64'>;
  readonly registers: Local<'i64'>[] = [];
  readonly flags: RegionFlags;
  readonly vectors: VectorState;
  readonly endings: Endings;
  readonly used = new Set<number>();
  readonly dirty = new Set<number>();

  readonly addresses: Addresses;

  constructor(
    f: Func,
    cpu: Local<'i32'>,
    imports: RegionImports,
    lanes: readonly Lane[],
    addresses: Addresses,
  ) {
    this.f = f;
    this.cpu = cpu;
    this.tlb = f.local('i32');
    this.base = f.local('i64');
    for (let i = 0; i < 16; i++) this.registers.push(f.local('i64'));
    this.flags = new RegionFlags(f, cpu, imports);
    this.vectors = new VectorState(f, cpu, lanes);
    this.endings = new Endings(f, cpu, imports);
    this.addresses = addresses;
  }

  snapshot(): Snapshot {
    return {
      flags: this.flags.snapshot(),
      vectors: this.vectors.snapshot(),
      addresses: this.addresses.snapshot(),
    };
  }

  restore({ flags, vectors, addresses }: Snapshot): void {
    this.flags.restore(flags);
    this.vectors.restore(vectors);
    this.addresses.restore(addresses);
  }

  load(registers: Iterable<number>): void {
    for (const register of registers)
      this.f.set(this.registers[register]!, i64.load(this.cpu, CPU.regs + register * 8));
  }

  store(registers: Iterable<number>): void {
    for (const register of registers)
      this.f.store(this.cpu, this.registers[register]!, CPU.regs + register * 8);
  }
}
