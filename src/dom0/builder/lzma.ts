/**
 * LZMA2, the compression inside xz streams: a range coder, adaptive bit models and a dictionary that is the output
 * itself.
 *
 * The output buffer is handed in with its full size, so that no window is kept beside it and nothing is copied.
 * Range and code are kept as signed 32-bit integers (they stay small integers in V8); unsigned comparison flips
 * the sign bits.
 */

/** The compressed data is not what the format allows. */
export class LzmaError extends Error {}

const SIGN = 0x80000000 | 0;
const PROB_HALF = 1 << 10;

// Where each group of bit models starts in the one array of probabilities.
const IS_MATCH = 0; // 12 states × 16 positions
const IS_REP = IS_MATCH + 192;
const IS_REP0 = IS_REP + 12;
const IS_REP1 = IS_REP0 + 12;
const IS_REP2 = IS_REP1 + 12;
const IS_REP0_LONG = IS_REP2 + 12; // 12 × 16
const SLOT = IS_REP0_LONG + 192; // 4 length classes × 64
const SPECIAL = SLOT + 256; // distances of slots 4..13
const ALIGN = SPECIAL + 128;
const MATCH_LENGTH = ALIGN + 16;
const REP_LENGTH = MATCH_LENGTH + 514;
const LITERAL = REP_LENGTH + 514;
const LITERAL_MAX = 0x300 << 4;

// A length coder: choice, choice2, then trees.
const LENGTH_LOW = 2; // 16 × 8
const LENGTH_MID = LENGTH_LOW + 128; // 16 × 8
const LENGTH_HIGH = LENGTH_MID + 128; // 256

export class Lzma2Decoder {
  private readonly input: Uint8Array;
  private readonly output: Uint8Array;
  private readonly probs = new Uint16Array(LITERAL + LITERAL_MAX);
  /** Where the next input byte is. */
  inputAt: number;
  /** Where the next output byte goes. */
  outputAt: number;
  /** Where the dictionary begins in the output. */
  private dictionary: number;
  private range = 0;
  private code = 0;
  private state = 0;
  private rep0 = 0;
  private rep1 = 0;
  private rep2 = 0;
  private rep3 = 0;
  private literalContext = 0;
  private literalMask = 0;
  private positionMask = 0;

  constructor(input: Uint8Array, inputAt: number, output: Uint8Array, outputAt: number) {
    this.input = input;
    this.inputAt = inputAt;
    this.output = output;
    this.outputAt = outputAt;
    this.dictionary = outputAt;
  }

  /** Decodes chunks up to the end marker. @throws LzmaError */
  decode(): void {
    let needDictionary = true;
    let needProperties = true;
    for (;;) {
      const control = this.byte();
      if (control === 0) return;
      if (control >= 0xe0 || control === 1) {
        needDictionary = false;
        this.dictionary = this.outputAt;
      } else if (needDictionary) throw new LzmaError('no dictionary reset');
      if (control < 0x80) {
        if (control > 2) throw new LzmaError('invalid chunk');
        this.copyChunk(this.word() + 1);
        if (control === 1) needProperties = true;
        continue;
      }
      const unpacked = ((control & 31) << 16) + this.word() + 1;
      const packed = this.word() + 1;
      if (control >= 0xc0) {
        this.setProperties(this.byte());
        needProperties = false;
      } else if (needProperties) throw new LzmaError('no properties');
      if (control >= 0xa0) this.resetState();
      this.chunk(unpacked, packed);
    }
  }

  private byte(): number {
    if (this.inputAt >= this.input.length) throw new LzmaError('unexpected end');
    return this.input[this.inputAt++]!;
  }

  private word(): number {
    return (this.byte() << 8) | this.byte();
  }

  private copyChunk(size: number): void {
    if (this.inputAt + size > this.input.length) throw new LzmaError('unexpected end');
    if (this.outputAt + size > this.output.length) throw new LzmaError('more data than announced');
    this.output.set(this.input.subarray(this.inputAt, this.inputAt + size), this.outputAt);
    this.inputAt += size;
    this.outputAt += size;
  }

  private setProperties(value: number): void {
    const lc = value % 9;
    const lp = Math.floor(value / 9) % 5;
    const pb = Math.floor(value / 45);
    if (pb > 4 || lc + lp > 4) throw new LzmaError('invalid properties');
    this.literalContext = lc;
    this.literalMask = (1 << lp) - 1;
    this.positionMask = (1 << pb) - 1;
  }

  private resetState(): void {
    this.probs.fill(PROB_HALF);
    this.state = 0;
    this.rep0 = this.rep1 = this.rep2 = this.rep3 = 0;
  }

  private bit(index: number): number {
    const { probs } = this;
    const prob = probs[index]!;
    let { range, code } = this;
    const bound = Math.imul(range >>> 11, prob);
    let bit: number;
    if ((code ^ SIGN) < (bound ^ SIGN)) {
      range = bound;
      probs[index] = prob + ((2048 - prob) >>> 5);
      bit = 0;
    } else {
      range = (range - bound) | 0;
      code = (code - bound) | 0;
      probs[index] = prob - (prob >>> 5);
      bit = 1;
    }
    if (range >>> 24 === 0) {
      range <<= 8;
      code = (code << 8) | this.input[this.inputAt++]!;
    }
    this.range = range;
    this.code = code;
    return bit;
  }

  private tree(base: number, bits: number): number {
    let symbol = 1;
    for (let i = 0; i < bits; i++) symbol = (symbol << 1) | this.bit(base + symbol);
    return symbol - (1 << bits);
  }

  private reverseTree(base: number, bits: number): number {
    let symbol = 1;
    let value = 0;
    for (let i = 0; i < bits; i++) {
      const bit = this.bit(base + symbol);
      symbol = (symbol << 1) | bit;
      value |= bit << i;
    }
    return value;
  }

  /** Bits that have no model, most significant first. */
  private direct(bits: number): number {
    let { range, code } = this;
    let value = 0;
    for (let i = 0; i < bits; i++) {
      range >>>= 1;
      if ((code ^ SIGN) < (range ^ SIGN)) value <<= 1;
      else {
        code = (code - range) | 0;
        value = (value << 1) | 1;
      }
      if (range >>> 24 === 0) {
        range <<= 8;
        code = (code << 8) | this.input[this.inputAt++]!;
      }
    }
    this.range = range | 0;
    this.code = code;
    return value;
  }

  private length(base: number, position: number): number {
    if (this.bit(base) === 0) return 2 + this.tree(base + LENGTH_LOW + (position << 3), 3);
    if (this.bit(base + 1) === 0) return 10 + this.tree(base + LENGTH_MID + (position << 3), 3);
    return 18 + this.tree(base + LENGTH_HIGH, 8);
  }

  private literal(): void {
    const { output, outputAt } = this;
    const position = outputAt - this.dictionary;
    const previous = position > 0 ? output[outputAt - 1]! : 0;
    const context =
      ((position & this.literalMask) << this.literalContext) + (previous >>> (8 - this.literalContext));
    const base = LITERAL + 0x300 * context;
    let symbol = 1;
    if (this.state >= 7) {
      let match = output[outputAt - this.rep0 - 1]!;
      while (symbol < 0x100) {
        const matchBit = (match >>> 7) & 1;
        match <<= 1;
        const bit = this.bit(base + ((1 + matchBit) << 8) + symbol);
        symbol = (symbol << 1) | bit;
        if (matchBit !== bit) break;
      }
    }
    while (symbol < 0x100) symbol = (symbol << 1) | this.bit(base + symbol);
    output[outputAt] = symbol;
    this.outputAt = outputAt + 1;
    this.state = this.state < 4 ? 0 : this.state < 10 ? this.state - 3 : this.state - 6;
  }

  private distance(length: number): number {
    const slot = this.tree(SLOT + (Math.min(length - 2, 3) << 6), 6);
    if (slot < 4) return slot;
    const bits = (slot >>> 1) - 1;
    const start = (2 | (slot & 1)) << bits;
    if (slot < 14) return start + this.reverseTree(SPECIAL + start - slot, bits);
    return ((start >>> 0) + this.direct(bits - 4) * 16 + this.reverseTree(ALIGN, 4)) | 0;
  }

  /** A compressed chunk: exactly `packed` bytes become exactly `unpacked`. */
  private chunk(unpacked: number, packed: number): void {
    const inputEnd = this.inputAt + packed;
    const outputEnd = this.outputAt + unpacked;
    if (inputEnd > this.input.length || packed < 5) throw new LzmaError('unexpected end');
    if (outputEnd > this.output.length) throw new LzmaError('more data than announced');
    if (this.byte() !== 0) throw new LzmaError('invalid range coder start');
    this.range = -1;
    this.code = (this.word() << 16) | this.word();
    while (this.outputAt < outputEnd) {
      if (this.inputAt > inputEnd) throw new LzmaError('chunk overrun');
      const position = (this.outputAt - this.dictionary) & this.positionMask;
      if (this.bit(IS_MATCH + (this.state << 4) + position) === 0) this.literal();
      else this.match(position, outputEnd);
    }
    if (this.inputAt !== inputEnd || this.code !== 0)
      throw new LzmaError('chunk does not end where it should');
  }

  private match(position: number, outputEnd: number): void {
    const { state } = this;
    let length: number;
    if (this.bit(IS_REP + state) === 0) {
      this.rep3 = this.rep2;
      this.rep2 = this.rep1;
      this.rep1 = this.rep0;
      length = this.length(MATCH_LENGTH, position);
      this.rep0 = this.distance(length);
      this.state = state < 7 ? 7 : 10;
    } else if (this.bit(IS_REP0 + state) === 0) {
      if (this.bit(IS_REP0_LONG + (state << 4) + position) === 0) {
        this.state = state < 7 ? 9 : 11;
        length = 1;
      } else {
        length = this.length(REP_LENGTH, position);
        this.state = state < 7 ? 8 : 11;
      }
    } else {
      let distance: number;
      if (this.bit(IS_REP1 + state) === 0) distance = this.rep1;
      else {
        if (this.bit(IS_REP2 + state) === 0) distance = this.rep2;
        else {
          distance = this.rep3;
          this.rep3 = this.rep2;
        }
        this.rep2 = this.rep1;
      }
      this.rep1 = this.rep0;
      this.rep0 = distance;
      length = this.length(REP_LENGTH, position);
      this.state = state < 7 ? 8 : 11;
    }
    this.copy(length, outputEnd);
  }

  private copy(length: number, outputEnd: number): void {
    const { output } = this;
    let to = this.outputAt;
    let from = to - (this.rep0 >>> 0) - 1;
    if (from < this.dictionary) throw new LzmaError('distance too far back');
    const end = to + length;
    if (end > outputEnd) throw new LzmaError('match crosses its chunk');
    while (to < end) output[to++] = output[from++]!;
    this.outputAt = end;
  }
}
