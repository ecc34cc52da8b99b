/** Compares what two engines made of the same case. */
import { FLAG, RSP } from '../../src/x86/state.ts';
import type { Instruction } from './instruction.ts';
import { type Undefined, undefinedAfter } from './undefined.ts';
import {
  align8,
  type Batch,
  CASE,
  COMPLETE,
  FX,
  HUNG,
  PLACE,
  REGISTER_NAMES,
  RESULT,
  type Results,
  SELECTOR_NAMES,
} from './wire.ts';

const PF = 14;
/** The last page below the canonical boundary is not for processes either. */
const LINUX_USER_END = 0x7ffffffff000n;
const FSW_TOP = 7 << 11;

export interface Difference {
  readonly what: string;
  readonly expected: string;
  readonly got: string;
}

const hex = (value: number | bigint, digits: number): string => value.toString(16).padStart(digits, '0');

function vectorName(vector: number): string {
  if (vector === COMPLETE) return 'completed';
  return vector === HUNG ? 'does not end' : `exception ${vector}`;
}

export function flagNames(flags: number): string {
  const names = Object.entries(FLAG)
    .filter(([name, bit]) => name !== 'ONE' && name !== 'IOPL' && (flags & bit) !== 0)
    .map(([name]) => name);
  return names.join(' ') || '-';
}

/** Fast: whether the fixed parts and the changed words are the same bit by bit. */
function identical(a: Results, i: number, b: Results): boolean {
  const from = a.offsets[i]!;
  const other = b.offsets[i]!;
  const size = a.view.getUint32(from, true);
  if (size !== b.view.getUint32(other, true)) return false;
  const x = new Int32Array(a.bytes.buffer, a.bytes.byteOffset + from, size / 4);
  const y = new Int32Array(b.bytes.buffer, b.bytes.byteOffset + other, size / 4);
  for (let n = 0; n < x.length; n++) if (x[n] !== y[n]) return false;
  return true;
}

/** Whether two binary32 values are within a relative error of each other (or the same bits, or the same tiny class). */
function close32(a: number, b: number, error: number): boolean {
  if (a === b) return true;
  const view = new DataView(new ArrayBuffer(8));
  view.setUint32(0, a);
  view.setUint32(4, b);
  const x = view.getFloat32(0);
  const y = view.getFloat32(4);
  return Math.abs(x - y) <= error * Math.abs(x);
}

interface Extended {
  readonly significand: bigint;
  readonly top: number;
}

function closeExtended(a: Extended, b: Extended, ulps: number): boolean {
  const order = (v: Extended): bigint =>
    (BigInt(v.top & 0x7fff) << 63n) + (v.significand & 0x7fffffffffffffffn);
  const signed = (v: Extended): bigint => (v.top & 0x8000 ? -order(v) : order(v));
  const distance = signed(a) - signed(b);
  return (distance < 0n ? -distance : distance) <= BigInt(ulps);
}

/** The four null selectors are one: returning to user mode, as the oracle does, clears their low bits. */
const withoutNull = (selector: number): number => (selector < 4 ? 0 : selector);

class Comparison {
  readonly differences: Difference[] = [];

  add(what: string, expected: string, got: string): void {
    this.differences.push({ what, expected, got });
  }
}

function compareFx(out: Comparison, a: DataView, x: number, b: DataView, y: number, open: Undefined): void {
  for (const [name, offset, mask] of [
    ['fcw', FX.fcw, 0xffff],
    ['fsw', FX.fsw, 0xffff & ~open.status & (open.mmxMode ? ~FSW_TOP : ~0)],
    ['mxcsr', FX.mxcsr, 0xffff],
    ['fop', FX.fop, 0x7ff],
  ] as const) {
    const expected = a.getUint16(x + offset, true) & mask;
    const got = b.getUint16(y + offset, true) & mask;
    if (expected !== got) out.add(name, hex(expected, 4), hex(got, 4));
  }
  const tags = [a.getUint8(x + FX.ftw), b.getUint8(y + FX.ftw)];
  if (tags[0] !== tags[1] && !open.mmxMode) out.add('ftw', hex(tags[0]!, 2), hex(tags[1]!, 2));
  for (const [name, offset] of [
    ['fip', FX.fip],
    ['fdp', FX.fdp],
  ] as const) {
    const expected = a.getBigUint64(x + offset, true);
    const got = b.getBigUint64(y + offset, true);
    if (expected !== got) out.add(name, hex(expected, 16), hex(got, 16));
  }
  // ST(i) of the one is ST(i + shift) of the other where the same physical registers are compared.
  const top = (view: DataView, from: number): number => (view.getUint16(from + FX.fsw, true) & FSW_TOP) >> 11;
  const shift = open.mmxMode ? top(a, x) - top(b, y) : 0;
  for (let i = 0; i < 8; i++) {
    const at = FX.st + 16 * i;
    const other = FX.st + 16 * ((i + shift) & 7);
    const one = { significand: a.getBigUint64(x + at, true), top: a.getUint16(x + at + 8, true) };
    const two = { significand: b.getBigUint64(y + other, true), top: b.getUint16(y + other + 8, true) };
    if (one.significand === two.significand && one.top === two.top) continue;
    if (open.ulps > 0 && closeExtended(one, two, open.ulps)) continue;
    const show = (v: Extended): string => `${hex(v.top, 4)}:${hex(v.significand, 16)}`;
    out.add(`st${i}`, show(one), show(two));
  }
  for (let i = 0; i < 16; i++) {
    const at = FX.xmm + 16 * i;
    let same = true;
    for (let lane = 0; lane < 16; lane += 4) {
      const one = a.getUint32(x + at + lane, true);
      const two = b.getUint32(y + at + lane, true);
      if (one !== two && !(open.lanes > 0 && close32(one, two, open.lanes))) same = false;
    }
    if (same) continue;
    const show = (v: DataView, base: number): string =>
      `${hex(v.getBigUint64(base + at + 8, true), 16)}_${hex(v.getBigUint64(base + at, true), 16)}`;
    out.add(`xmm${i}`, show(a, x), show(b, y));
  }
}

/** The changed words of a result: value by offset. */
function words(view: DataView, at: number): Map<number, bigint> {
  const all = new Map<number, bigint>();
  const count = view.getUint32(at + RESULT.words, true);
  for (let i = 0; i < count; i++) {
    const word = at + RESULT.end + 16 * i;
    all.set(view.getUint32(word, true), view.getBigUint64(word + 8, true));
  }
  return all;
}

/** What the word at `offset` of the data region holds when the case begins. */
function initialWord(batch: Batch, index: number, offset: number): bigint {
  const word = batch.background.slice(offset, offset + 8);
  const record = batch.record(index);
  const view = new DataView(record.buffer, record.byteOffset, record.length);
  let patch: number = CASE.end;
  for (let n = view.getUint32(CASE.patches, true); n > 0; n--) {
    const start = view.getUint32(patch, true);
    const length = view.getUint32(patch + 4, true);
    for (let i = Math.max(start, offset); i < Math.min(start + length, offset + 8); i++) {
      word[i - offset] = record[patch + 8 + i - start]!;
    }
    patch += 8 + align8(length);
  }
  return new DataView(word.buffer).getBigUint64(0, true);
}

/** A mask of the bits of a general register that are to be compared. */
function registerMask(instruction: Instruction, open: Undefined, register: number): bigint {
  const { variant, choice } = instruction;
  if (open.halves.includes(register)) return 0xffffffffn;
  if (open.destination && !variant.form.memory && register === choice.rm) return 0n;
  if (open.limitBits && register === choice.reg) return ~0xf0000n;
  return -1n;
}

/** A mask of the bits of the word at `offset` of the data region that are to be compared. */
function wordMask(offset: number, target: bigint, size: number, open: Undefined): bigint {
  if (target < 0n || (open.memory.length === 0 && !open.destination)) return -1n;
  const ranges = open.destination ? [[0, size] as const] : open.memory;
  const start = Number(BigInt.asIntN(64, target)) - PLACE.dataBase;
  let mask = 0xffffffffffffffffn;
  for (const [from, to] of ranges) {
    for (let byte = 0; byte < 8; byte++) {
      const at = offset + byte - start;
      if (at >= from && at < to) mask &= ~(0xffn << BigInt(8 * byte));
    }
  }
  return mask;
}

/**
 * @param target linear address of the memory operand, -1n for none
 * @returns what differs: nothing where both agree in everything that is defined
 */
export function compare(
  batch: Batch,
  index: number,
  instruction: Instruction,
  target: bigint,
  expected: Results,
  got: Results,
): Difference[] {
  if (identical(expected, index, got)) return [];
  const out = new Comparison();
  const a = expected.view;
  const b = got.view;
  const x = expected.offsets[index]!;
  const y = got.offsets[index]!;
  const at = batch.offsets[index]!;
  const vector = a.getUint32(x + RESULT.vector, true);
  const start = BigInt(PLACE.codeBase + instruction.offset);
  const faulted = vector !== COMPLETE && a.getBigUint64(x + RESULT.rip, true) === start;
  const open = undefinedAfter(instruction, batch.view, at, faulted);

  const gotVector = b.getUint32(y + RESULT.vector, true);
  if (vector !== gotVector) out.add('ending', vectorName(vector), vectorName(gotVector));
  // Linux pretends that pages of its own are present.
  const beyondUser = a.getBigUint64(x + RESULT.cr2, true) >= LINUX_USER_END;
  const errorMask = vector === PF && beyondUser ? ~1 : ~0;
  const error = a.getUint32(x + RESULT.error, true) & errorMask;
  const gotError = b.getUint32(y + RESULT.error, true) & errorMask;
  if (error !== gotError) out.add('error code', hex(error, 4), hex(gotError, 4));

  const wide = (name: string, offset: number, mask = -1n): void => {
    const one = a.getBigUint64(x + offset, true) & mask;
    const two = b.getBigUint64(y + offset, true) & mask;
    if (one !== two) out.add(name, hex(one, 16), hex(two, 16));
  };
  if (!open.faultAddress) wide('cr2', RESULT.cr2);
  wide('rip', RESULT.rip);
  for (const [i, name] of REGISTER_NAMES.entries()) {
    wide(name, RESULT.regs + 8 * i, registerMask(instruction, open, i));
  }
  const flagMask = ~(open.flags | FLAG.RF);
  const flags = a.getUint32(x + RESULT.rflags, true) & flagMask;
  const gotFlags = b.getUint32(y + RESULT.rflags, true) & flagMask;
  if (flags !== gotFlags) {
    const differ = flags ^ gotFlags;
    out.add(
      'rflags',
      `${hex(flags, 6)} (${flagNames(flags & differ)})`,
      `${hex(gotFlags, 6)} (${flagNames(gotFlags & differ)})`,
    );
  }
  wide('fs base', RESULT.fsBase);
  wide('gs base', RESULT.gsBase);
  for (const [i, name] of SELECTOR_NAMES.entries()) {
    const one = withoutNull(a.getUint16(x + RESULT.selectors + 2 * i, true));
    const two = withoutNull(b.getUint16(y + RESULT.selectors + 2 * i, true));
    if (one !== two) out.add(name, hex(one, 4), hex(two, 4));
  }
  compareFx(out, a, x + RESULT.fx, b, y + RESULT.fx, open);

  const stack = Number(batch.view.getBigInt64(at + CASE.regs + 8 * RSP, true));
  const memory = words(a, x);
  const gotMemory = words(b, y);
  for (const offset of new Set([...memory.keys(), ...gotMemory.keys()])) {
    const one = memory.get(offset);
    const two = gotMemory.get(offset);
    const mask = wordMask(offset, target, instruction.memoryBytes, open);
    if (one === two) continue;
    const below = stack - (PLACE.dataBase + offset);
    if (below > 0 && below <= open.belowStack + 8) continue;
    const before = initialWord(batch, index, offset);
    if ((((one ?? before) ^ (two ?? before)) & mask) === 0n) continue;
    const show = (v: bigint | undefined): string =>
      v === undefined ? `${hex(before, 16)} (unchanged)` : hex(v, 16);
    out.add(`[${hex(PLACE.dataBase + offset, 8)}]`, show(one), show(two));
  }
  return out.differences;
}
