/**
 * Regions as WebAssembly functions: (cpu, entry number, frames) -> STATUS.
 *
 * The function loads what it uses of the CPU's state into locals, runs, and on every way out stores what it may
 * have changed, in one place. CPU.rip is stored there too; CPU.budget goes down by the instructions that were done.
 *
 * Translated bytes are those of certain machine frames: `frames` is the linear address of their numbers, a u32 for
 * each page of the region. Whoever enters a region has checked the page that it enters. Before control goes on to
 * another page, its mapping is compared with that number, once in a run of the region (`checked` has a bit for each
 * page): mappings change only outside. A frame whose bytes were written gets a number that nothing has.
 */
import {
  call,
  type Func,
  type I64,
  i32,
  i64,
  type Label,
  type Local,
  ModuleBuilder,
  mergeModules,
} from '../../wasm/index.ts';
import { STATUS } from '../interpreter/status.ts';
import { TLB, tlbIndex } from '../mmu.ts';
import { CPU } from '../state.ts';
import { Addresses } from './addresses.ts';
import type { KnownForms } from './facts.ts';
import { importForRegions, type RegionImports } from './imports.ts';
import type { Block, Region } from './region.ts';
import { RegionState } from './region-state.ts';
import { TranslatorSemantics } from './semantics.ts';
import { emitGraph } from './structure.ts';
import { chooseLanes, type Facts, factsAtBlocks, withEntryCopies } from './vectors-facts.ts';

/** Bits of `at` below the address: a block has fewer instructions (see region.ts). */
const UNDONE_BITS = 11;
const UNDONE_MAX = (1 << UNDONE_BITS) - 1;

/** Of a page in `checked`. */
const bit = (page: number) => 1n << BigInt(page);

/** Export name of the i-th region of a module. */
export const regionName = (i: number) => `r${i}`;

/** The regions of several modules as one module, in their order. @returns null: that cannot be */
export const mergeRegions = (modules: readonly Uint8Array[]): Uint8Array | null =>
  mergeModules(modules, regionName);

/** For a machine with memory of any size. */
export function buildRegions(regions: readonly Region[], forms: KnownForms): Uint8Array {
  const module = new ModuleBuilder(1, 0x1_0000);
  const imports = importForRegions(module);
  regions.forEach((region, i) => {
    // Engines keep one code for modules of equal bytes: a wide region is not to get what was made of a narrow one.
    const func = module.func(`${region.wide ? 'wide' : ''}${regionName(i)}`, ['i32', 'i32', 'i32'], ['i32']);
    while (!new RegionBuilder(func, region, imports, forms).emit()) func.reset();
    module.export(regionName(i), func);
  });
  return module.encode();
}

class RegionBuilder {
  private readonly f: Func;
  private readonly region: Region;
  private readonly imports: RegionImports;
  private readonly forms: KnownForms;
  private readonly state: RegionState;
  /** What is known of XMM registers at each block. */
  private readonly facts: readonly Facts[];
  private readonly cpu: Local<'i32'>;
  private readonly frames: Local<'i32'>;
  private readonly checked: Local<'i64'>;
  readonly rip: Local<'i64'>;
  readonly status: Local<'i32'>;
  readonly budget: Local<'i32'>;
  /** Where the region is left, and how many instructions of those counted have not been done (see {@link leaveAt}). */
  private readonly at: Local<'i64'>;
  /** Ways out: with all variables set; with `at` for `rip`; and with the status in CPU.accessStatus. */
  private exit!: Label;
  private placed!: Label;
  private unreached!: Label;
  /** A form was met whose flags must be handled otherwise: all is to be emitted again. */
  private again = false;

  constructor(f: Func, region: Region, imports: RegionImports, forms: KnownForms) {
    this.f = f;
    this.region = withEntryCopies(region);
    this.imports = imports;
    this.forms = forms;
    this.cpu = f.arg('i32', 0);
    this.frames = f.arg('i32', 2);
    const instructions = region.blocks.flatMap((block) => block.instructions);
    const lanes = chooseLanes(instructions.map(({ instruction }) => instruction));
    const { blocks, entries, apart } = this.region;
    const addresses = new Addresses(blocks, entries, forms, apart);
    this.state = new RegionState(f, this.cpu, imports, lanes, addresses);
    this.facts = factsAtBlocks(this.region);
    this.checked = f.local('i64');
    this.at = f.local('i64');
    this.rip = f.local('i64');
    this.status = f.local('i32');
    this.budget = f.local('i32');
  }

  /** @returns false: once more, with what is now known of conditional forms */
  emit(): boolean {
    const { f, cpu, state } = this;
    f.block((exit) => {
      this.exit = exit;
      f.block((placed) => {
        this.placed = placed;
        f.block((unreached) => {
          this.unreached = unreached;
          this.body();
          f.unreachable();
        });
        f.set(this.status, i32.load(cpu, CPU.accessStatus));
      });
      f.set(this.rip, i64.add(state.base, i64.shr_s(this.at, UNDONE_BITS)));
      f.set(this.budget, i32.add(this.budget, i32.and(i32.wrap(this.at), UNDONE_MAX)));
    });
    const { flags, vectors } = state;
    state.store(state.dirty);
    vectors.store(vectors.dirty);
    if (flags.used) flags.leave();
    state.endings.emit(this);
    f.store(cpu, this.rip, CPU.rip);
    f.store(cpu, this.budget, CPU.budget);
    f.result(this.status);
    f.first(() => {
      f.set(state.tlb, i32.load(cpu, CPU.tlb));
      f.set(state.base, i64.load(cpu, CPU.base));
      f.set(this.budget, i32.load(cpu, CPU.budget));
      // What is stored must have been loaded: a way out may lie before the first change.
      state.load(new Set([...state.used, ...state.dirty]));
      vectors.load(new Set([...vectors.used, ...vectors.dirty]), vectors.plainUsed);
      if (flags.used) flags.enter();
    });
    return !this.again;
  }

  private body(): void {
    const { f, region, state, budget } = this;
    const { blocks } = region;
    const selector = f.arg('i32', 1);
    emitGraph(
      {
        size: blocks.length,
        successors: blocks.map(({ taken, next, targets }) => [
          ...[taken, next].filter((to) => to !== null),
          ...targets.map(({ block }) => block),
        ]),
        entries: region.entries,
      },
      {
        f,
        selector,
        entering: (index, merge) => {
          if (!merge && index !== region.entries[0]) return;
          state.flags.merge();
          state.vectors.merge(this.facts[index]!);
          state.addresses.merge(index);
        },
        going: (from, to) => this.enterPages(from, to),
        branching: () => {
          state.flags.flush();
          state.vectors.settle();
        },
        backwards: (to) => {
          const out = () => this.leaveAt(blocks[to]!.start, 0, STATUS.transfer);
          f.if(i32.lt_s(budget, 0), out, undefined, false);
        },
        node: (index, go) => f.scope(() => this.block(index, blocks[index]!, go)),
      },
    );
  }

  private place(address: number): I64 {
    return i64.add(this.state.base, address);
  }

  /** Leaves the region for an address. */
  private leave(to: I64, status: number): void {
    const { f } = this;
    f.set(this.rip, to);
    this.settle();
    f.set(this.status, i32.const(status));
    f.br(this.exit);
  }

  /** Leaves it for a place in it, or at a constant distance, with the last `undone` of the block's instructions not done. */
  private leaveAt(address: number, undone: number, status: number): void {
    const { f } = this;
    this.setPlace(address, undone);
    this.settle();
    f.set(this.status, i32.const(status));
    f.br(this.placed);
  }

  private setPlace(address: number, undone: number): void {
    this.f.set(this.at, i64.const(address * 2 ** UNDONE_BITS + undone));
  }

  /** What is pending is computed here, and stays pending for the other paths. */
  private settle(): void {
    const { state } = this;
    const before = state.snapshot();
    state.flags.emit();
    state.vectors.settle();
    state.restore(before);
  }

  /** Control goes from a block (null: from outside) to another, perhaps in pages that were not entered yet. */
  private enterPages(from: number | null, to: number): void {
    const { f, region, checked } = this;
    if (region.pages.length === 1) return;
    const { pages, start } = region.blocks[to]!;
    if (from === null) {
      f.set(checked, i64.const(pages.reduce((bits, page) => bits | bit(page), 0n)));
      return;
    }
    const before = region.blocks[from]!.pages;
    for (const page of pages) {
      if (before.includes(page)) continue;
      const check = () => {
        const va = f.let(this.place(region.pages[page]!.delta * 4096));
        const frame = f.let(i32.load(this.frames, page * 4));
        const slot = f.let(i32.add(this.state.tlb, tlbIndex(va)));
        const cached = i32.and(
          i64.eq(i64.load(slot, TLB.fetch), va),
          i32.eq(i32.load(slot, TLB.frame), frame),
        );
        const look = () => {
          const same = call('i32', this.imports.mapped, this.cpu, va, frame);
          f.if(i32.eqz(same), () => this.leaveAt(start, 0, STATUS.transfer));
        };
        f.if(i32.eqz(cached), look, undefined, false);
        f.set(checked, i64.or(checked, bit(page)));
      };
      f.if(i64.eqz(i64.and(checked, bit(page))), check, undefined, false);
    }
  }

  private block(index: number, block: Block, go: (block: number) => void): void {
    const { f, state, budget } = this;
    const count = block.instructions.length;
    f.set(budget, i32.sub(budget, count));
    let left = false;
    block.instructions.forEach(({ offset, instruction }, i) => {
      const behind = offset + instruction.length;
      /** How many of the block's instructions remain, with this one and without. */
      const undone = count - i;
      const form = instruction.form!;
      const advance = () => state.addresses.advance(index, i, offset, instruction);
      const { conditionalFlags: direct, conditionalChanges: copying } = this.forms.of(form);
      const semantics = new TranslatorSemantics({
        instruction,
        offset,
        state,
        imports: this.imports,
        direct,
        copying,
        exits: {
          fault: () => this.leaveAt(offset, undone, STATUS.fault),
          transfer: (va) => {
            advance();
            this.indirect(block, va, go);
          },
          retry: () => this.leaveAt(offset, undone, STATUS.transfer),
          reaching: () => this.setPlace(offset, undone),
          unreached: (failed) => {
            const settling = f.captured(() => this.settle());
            if (settling.length === 0) f.brIf(failed, this.unreached, false);
            else
              f.if(
                failed,
                () => {
                  f.append(settling);
                  f.br(this.unreached);
                },
                undefined,
                false,
              );
          },
          exit: () => this.leaveAt(behind, undone - 1, STATUS.exit),
          behind: () => this.leaveAt(behind, undone - 1, STATUS.transfer),
          likely: () => {
            const [target] = block.targets;
            return target === undefined ? null : this.place(target.address);
          },
        },
        branch: (condition) => {
          const taken = () => {
            advance();
            if (block.taken !== null) go(block.taken);
            else this.leaveAt(behind + instruction.immediateLow, 0, STATUS.transfer);
          };
          if (condition === null) {
            taken();
            left = true;
          } else this.aside(condition, taken);
        },
      });
      if (direct) state.flags.settle();
      f.scope(
        () => {
          semantics.emit();
          state.flags.finish();
        },
        () => state.flags.open,
      );
      if (!this.forms.learn(form, semantics.facts)) this.again = true;
      advance();
      if (form.definition.ends === true) left = true;
    });
    if (left) return;
    if (block.next !== null) go(block.next);
    else this.leaveAt(block.end, 0, STATUS.transfer);
  }

  /** Emits a way that is gone only if the condition holds: what is known on the other way stays. */
  private aside(condition: Parameters<Func['if']>[0], work: () => void): void {
    const before = this.state.snapshot();
    this.f.if(condition, () => this.f.scope(work));
    this.state.restore(before);
  }

  /** To an address: to a block of the region if it is one's, else out. */
  private indirect(block: Block, va: I64, go: (block: number) => void): void {
    for (const { address, block: to } of block.targets)
      this.aside(i64.eq(va, this.place(address)), () => go(to));
    this.leave(va, STATUS.transfer);
  }
}
