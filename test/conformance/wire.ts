/**
 * The layout of test cases and of results, as they lie in a batch and cross the pipe to the native oracle.
 *
 * This is the only place where these numbers stand: the oracle (native/oracle.c) is compiled with all of them as
 * definitions (see {@link definitionsForC}). Offsets in bytes, little-endian, every record a multiple of 8 long.
 */

/** Where code and data of a case lie, in the guest and in the oracle's process alike. */
export const PLACE = {
  /** Two pages, readable and executable, full of int3; nothing is mapped around them. */
  codeBase: 0x10000000,
  codeSize: 0x2000,
  /** Two writable pages, then a read-only one; nothing is mapped around them. Not executable. */
  dataBase: 0x20000000,
  dataSize: 0x3000,
  dataWritable: 0x2000,
} as const;

/** The part of an FXSAVE image that is state: control words, x87 registers, XMM registers. */
export const FX_SIZE = 416;

/** Offsets in an FXSAVE image (Intel SDM volume 1, table 10-2). */
export const FX = { fcw: 0, fsw: 2, ftw: 4, fop: 6, fip: 8, fdp: 16, mxcsr: 24, st: 32, xmm: 160 } as const;

/** A batch: this header, the background of the data region, then the cases. */
export const BATCH = { magic: 0, count: 4, background: 8, cases: 8 + PLACE.dataSize } as const;
export const MAGIC = 0x31656178;

export const CASE = {
  /** u32: bytes of the whole record. */
  size: 0,
  /** u32: where the code begins in the code region, and its length. */
  codeOffset: 4,
  codeLength: 8,
  /** u32: how many patches follow the record. */
  patches: 12,
  code: 16,
  /** 16 × u64 in the order of the encoding. */
  regs: 32,
  rflags: 160,
  fsBase: 168,
  gsBase: 176,
  /** u16 es, ds, fs, gs. */
  selectors: 184,
  fx: 192,
  /** Patches of the data region: u32 offset, u32 length, bytes padded to a multiple of 8. */
  end: 192 + FX_SIZE,
} as const;

export const RESULT = {
  size: 0,
  /** u32: exception that ended the case: {@link COMPLETE} where the instruction completed. */
  vector: 4,
  error: 8,
  /** u32: how many changed words follow. */
  words: 12,
  cr2: 16,
  rip: 24,
  regs: 32,
  rflags: 160,
  fsBase: 168,
  gsBase: 176,
  selectors: 184,
  fx: 192,
  /** Changed 8-byte words of the data region, ascending: u32 offset, u32 zero, u64 value after the case. */
  end: 192 + FX_SIZE,
} as const;

/** RESULT.vector where the instruction ran to its end and the int3 behind it (or where it jumped to) was met. */
export const COMPLETE = 3;
/** RESULT.vector where the case did not end by itself. */
export const HUNG = 0xffff;

export const SELECTOR_NAMES = ['es', 'ds', 'fs', 'gs'] as const;
export const REGISTER_NAMES = [
  'rax',
  'rcx',
  'rdx',
  'rbx',
  'rsp',
  'rbp',
  'rsi',
  'rdi',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
] as const;

/** Every constant of this file as a -D argument for the C compiler. */
export function definitionsForC(): string[] {
  const groups = { PLACE, BATCH, CASE, RESULT };
  const all = [`-DMAGIC=${MAGIC}u`, `-DFX_SIZE=${FX_SIZE}`, `-DCOMPLETE=${COMPLETE}`, `-DHUNG=${HUNG}u`];
  for (const [group, fields] of Object.entries(groups)) {
    for (const [field, value] of Object.entries(fields)) all.push(`-D${group}_${field}=${value}`);
  }
  return all;
}

export const align8 = (value: number): number => (value + 7) & ~7;

/** A growing buffer of records. */
class Records {
  bytes: Uint8Array;
  view: DataView;
  used: number;

  constructor(start: number) {
    this.bytes = new Uint8Array(1 << 20);
    this.view = new DataView(this.bytes.buffer);
    this.used = start;
  }

  /** Room for `size` more bytes behind the used ones, zeroed. */
  reserve(size: number): void {
    if (this.used + size <= this.bytes.length) {
      this.bytes.fill(0, this.used, this.used + size);
      return;
    }
    const wider = new Uint8Array(Math.max(this.bytes.length * 2, this.used + size));
    wider.set(this.bytes.subarray(0, this.used));
    this.bytes = wider;
    this.view = new DataView(wider.buffer);
  }
}

/** Test cases to run one after the other. Fields are written at `view` from `at` on, between begin() and end(). */
export class Batch extends Records {
  /** Where each case begins. */
  readonly offsets: number[] = [];
  /** Where the case that is being written begins. */
  at = 0;

  /** @param background the contents of the data region before each case's patches */
  constructor(background: Uint8Array) {
    super(BATCH.cases);
    this.bytes.set(background, BATCH.background);
    this.view.setUint32(BATCH.magic, MAGIC, true);
  }

  get background(): Uint8Array {
    return this.bytes.subarray(BATCH.background, BATCH.cases);
  }

  begin(): void {
    this.reserve(CASE.end);
    this.at = this.used;
    this.used += CASE.end;
  }

  patch(offset: number, data: Uint8Array): void {
    const size = 8 + align8(data.length);
    this.reserve(size);
    this.view.setUint32(this.used, offset, true);
    this.view.setUint32(this.used + 4, data.length, true);
    this.bytes.set(data, this.used + 8);
    this.used += size;
    this.view.setUint32(this.at + CASE.patches, this.view.getUint32(this.at + CASE.patches, true) + 1, true);
  }

  end(): void {
    this.view.setUint32(this.at + CASE.size, this.used - this.at, true);
    this.offsets.push(this.at);
    this.view.setUint32(BATCH.count, this.offsets.length, true);
  }

  /** A batch of one case that stands in another. */
  extract(index: number): Batch {
    const one = new Batch(this.background);
    one.append(this.record(index));
    return one;
  }

  /** Takes a finished case record. */
  append(record: Uint8Array): void {
    this.reserve(record.length);
    this.bytes.set(record, this.used);
    this.offsets.push(this.used);
    this.used += record.length;
    this.view.setUint32(BATCH.count, this.offsets.length, true);
  }

  record(index: number): Uint8Array {
    const at = this.offsets[index]!;
    return this.bytes.subarray(at, at + this.view.getUint32(at + CASE.size, true));
  }

  encoded(): Uint8Array {
    return this.bytes.subarray(0, this.used);
  }
}

/** Results in the order of the cases. */
export class Results {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly offsets: number[] = [];

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let at = 0; at < bytes.length; ) {
      const size = at + 4 <= bytes.length ? this.view.getUint32(at, true) : 0;
      if (size < RESULT.end || at + size > bytes.length)
        throw new Error(`result ${this.offsets.length} is cut off`);
      this.offsets.push(at);
      at += size;
    }
  }
}

/** Collects results. */
export class ResultWriter extends Records {
  at = 0;

  constructor() {
    super(0);
  }

  begin(): void {
    this.reserve(RESULT.end);
    this.at = this.used;
    this.used += RESULT.end;
  }

  word(offset: number, low: number, high: number): void {
    this.reserve(16);
    this.view.setUint32(this.used, offset, true);
    this.view.setUint32(this.used + 8, low, true);
    this.view.setUint32(this.used + 12, high, true);
    this.used += 16;
    this.view.setUint32(this.at + RESULT.words, this.view.getUint32(this.at + RESULT.words, true) + 1, true);
  }

  end(): void {
    this.view.setUint32(this.at + RESULT.size, this.used - this.at, true);
  }

  results(): Results {
    return new Results(this.bytes.subarray(0, this.used));
  }
}
