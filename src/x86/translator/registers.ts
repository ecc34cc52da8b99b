/**
 * General registers as one instruction reads and writes them: a value that was read stays what it was, whatever is
 * written later, and is copied only if something is.
 */
import type { Expr, Func, I64, Local } from '../../wasm/index.ts';
import type { RegionState } from './region-state.ts';

export class Registers {
  private readonly f: Func;
  private readonly state: RegionState;
  /** Values are copied when they are read, as registers may be set on some paths only. */
  private readonly copying: boolean;
  /** Reads of a register since it was last set. */
  private readonly reads = new Map<number, RegisterRead[]>();

  constructor(state: RegionState, copying: boolean) {
    this.f = state.f;
    this.state = state;
    this.copying = copying;
  }

  /** The register itself. */
  use(register: number): Local<'i64'> {
    this.state.used.add(register);
    return this.state.registers[register]!;
  }

  /** The value as it is now. */
  read(index: number): I64 {
    if (this.copying) return this.f.let(this.use(index));
    const read = new RegisterRead(this.use(index));
    const reads = this.reads.get(index);
    if (reads === undefined) this.reads.set(index, [read]);
    else reads.push(read);
    return read;
  }

  write(index: number, value: I64): void {
    const reads = this.reads.get(index);
    if (reads !== undefined) {
      const before = this.f.let(this.use(index));
      for (const read of reads) read.source = before;
      this.reads.delete(index);
    }
    this.f.set(this.use(index), value);
    this.state.dirty.add(index);
  }
}

/** What a register held when it was read: its own local as long as that is so, else a copy. */
class RegisterRead implements Expr<'i64'> {
  readonly type = 'i64';
  readonly stable = true;
  source: Local<'i64'>;

  constructor(source: Local<'i64'>) {
    this.source = source;
  }

  write(out: Parameters<Expr['write']>[0]): void {
    this.source.write(out);
  }
}
