/**
 * For tests: cases for native.c, which runs them on the host's own CPU, and the numbers worth trying.
 *
 * Starting the program is the caller's business (this layer has no processes): it gives a function that passes
 * bytes to the program's standard input and returns its standard output.
 */

/** Layout of struct record in native.c. */
export const RECORD = {
  state: 0,
  memory: 512,
  code: 1024,
  length: 1040,
  rax: 1048,
  flags: 1056,
  signal: 1064,
  size: 1088,
} as const;

/** Offsets in the FXSAVE area, SDM volume 1, table 10-2. */
export const FX = {
  fcw: 0,
  fsw: 2,
  ftw: 4,
  fop: 6,
  fip: 8,
  fdp: 16,
  mxcsr: 24,
  mask: 28,
  st: 32,
  xmm: 160,
} as const;

/** Records, input or output. */
export class Records {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly count: number;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.count = bytes.length / RECORD.size;
  }

  static empty(count: number): Records {
    const records = new Records(new Uint8Array(count * RECORD.size));
    for (let i = 0; i < count; i++) {
      const at = records.at(i);
      records.view.setUint16(at + FX.fcw, 0x37f, true);
      records.view.setUint32(at + FX.mxcsr, 0x1f80, true);
      records.view.setBigUint64(at + RECORD.flags, 0x202n, true);
    }
    return records;
  }

  /** Offset of a record. */
  at(index: number): number {
    return index * RECORD.size;
  }

  setCode(index: number, code: readonly number[]): void {
    const at = this.at(index);
    this.bytes.fill(0, at + RECORD.code, at + RECORD.code + 16);
    this.bytes.set(code, at + RECORD.code);
    this.view.setBigUint64(at + RECORD.length, BigInt(code.length), true);
  }

  state(index: number): Uint8Array {
    return this.bytes.subarray(this.at(index), this.at(index) + 512);
  }

  memory(index: number): Uint8Array {
    return this.bytes.subarray(this.at(index) + RECORD.memory, this.at(index) + RECORD.code);
  }

  signal(index: number): number {
    return Number(this.view.getBigUint64(this.at(index) + RECORD.signal, true));
  }

  u64(index: number, offset: number): bigint {
    return this.view.getBigUint64(this.at(index) + offset, true);
  }
}

/** Repeatable pseudo-random numbers (xorshift32), and numbers near which floating point goes wrong. */
export class Numbers {
  private seed: number;

  constructor(seed: number) {
    this.seed = seed >>> 0 || 1;
  }

  u32(): number {
    let x = this.seed;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.seed = x >>> 0;
    return this.seed;
  }

  /** An integer from 0 up to, not including, the limit. */
  below(limit: number): number {
    return Math.floor((this.u32() / 0x1_0000_0000) * limit);
  }

  u64(): bigint {
    return (BigInt(this.u32()) << 32n) | BigInt(this.u32());
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!;
  }

  /** A fraction of the given width: random, few bits, or near all zeros or all ones. */
  private fraction(width: number): bigint {
    const mask = (1n << BigInt(width)) - 1n;
    switch (this.below(6)) {
      case 0:
        return 0n;
      case 1:
        return mask - (this.u64() & 3n);
      case 2:
        return this.u64() & 3n;
      case 3:
        return (1n << BigInt(this.below(width))) & mask;
      case 4:
        return (this.u64() << BigInt(this.below(width))) & mask;
      default:
        return this.u64() & mask;
    }
  }

  private exponent(width: number): number {
    const max = 2 ** width - 1;
    const bias = (max - 1) / 2;
    switch (this.below(8)) {
      case 0:
        return this.below(4);
      case 1:
        return max - this.below(4);
      case 2:
      case 3:
      case 4:
        return bias - 4 + this.below(8);
      case 5:
        return bias + this.below(70) - 2;
      case 6:
        return Math.floor(bias / 2) + this.below(8) - 4 + (this.below(2) ? bias : 0);
      default:
        return this.below(max + 1);
    }
  }

  single(): number {
    return Number(this.float(8, 23) & 0xffffffffn);
  }

  double(): bigint {
    return this.float(11, 52);
  }

  private float(exponentWidth: number, fractionWidth: number): bigint {
    let exponent = this.exponent(exponentWidth);
    let fraction = this.fraction(fractionWidth);
    const kind = this.below(24);
    if (kind === 0) fraction = 0n;
    if (kind === 0 && this.below(2)) exponent = 0;
    if (kind === 1) exponent = 2 ** exponentWidth - 1;
    const sign = BigInt(this.below(2));
    return (
      (sign << BigInt(exponentWidth + fractionWidth)) | (BigInt(exponent) << BigInt(fractionWidth)) | fraction
    );
  }

  /** Significand and head of an extended number; one in 16 has an encoding that is not supported. */
  extended(): { significand: bigint; head: number } {
    let exponent = this.exponent(15);
    let significand = this.fraction(63);
    const kind = this.below(24);
    if (kind === 0) {
      exponent = 0;
      significand = 0n;
    } else if (kind === 1) exponent = 0x7fff;
    else if (kind < 10) exponent = 0x3fff - 70 + this.below(140);
    if (exponent !== 0 ? this.below(16) !== 0 : this.below(4) === 0) significand |= 1n << 63n;
    if (kind === 2) {
      exponent = 0x7fff;
      significand = 1n << 63n;
    }
    return { significand, head: exponent | (this.below(2) << 15) };
  }

  /** A number of `from` changed a little: operands that nearly cancel, quotients near a boundary. */
  near(value: bigint): bigint {
    return BigInt.asUintN(64, value + BigInt(this.below(5) - 2));
  }
}
